//! The batch norm between columns and rows.

use crate::axial::AxialOutput;
use crate::{Affine, BatchNorm, Statistics};
use candle_core::{Result, Tensor, Var};
use candle_nn::{Init, VarBuilder};

/// The share of a new batch in the running statistics.
const MOMENTUM: f64 = 0.1;

/// Parameters and running statistics, `[e]` for all heads together or `[h, e]`.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    weight: Tensor,
    bias: Tensor,
    mean: Var,
    var: Var,
    per_head: bool,
}

impl Norm {
    pub fn new(heads: usize, e: usize, per_head: bool, vb: VarBuilder<'_>) -> Result<Self> {
        let shape = if per_head { vec![heads, e] } else { vec![e] };
        let get = |name, value| vb.get_with_hints(shape.as_slice(), name, Init::Const(value));
        Ok(Self {
            weight: get("weight", 1.0)?,
            bias: get("bias", 0.0)?,
            mean: Var::from_tensor(&get("running_mean", 0.0)?)?,
            var: Var::from_tensor(&get("running_var", 1.0)?)?,
            per_head,
        })
    }

    pub fn mode(norm: Option<&Norm>, train: bool) -> BatchNorm {
        match (norm, train) {
            (None, _) => BatchNorm::None,
            (Some(_), true) => BatchNorm::Train,
            (Some(_), false) => BatchNorm::Eval,
        }
    }

    pub fn affine(&self) -> Affine<&Tensor> {
        Affine { weight: &self.weight, bias: &self.bias }
    }

    /// What evaluation normalises by; training does not ask for it.
    pub fn given(&self, train: bool) -> Option<Statistics<&Tensor>> {
        (!train).then(|| Statistics { mean: self.mean.as_tensor(), var: self.var.as_tensor() })
    }

    /// Averages the statistics of a training batch in; the running variance is the unbiased one.
    pub fn update(&self, out: &AxialOutput) -> Result<()> {
        let Some(batch) = &out.batch else { return Ok(()) };
        let (b, h, y, x, _) = out.o.dims5()?;
        let count = (b * y * x * if self.per_head { 1 } else { h }) as f64;
        let unbiased = (&batch.var * (count / (count - 1.0).max(1.0)))?;
        for (running, batch) in [(&self.mean, &batch.mean), (&self.var, &unbiased)] {
            let batch = batch.reshape(running.shape())?.to_dtype(running.dtype())?;
            running.set(&((running.as_detached_tensor() * (1.0 - MOMENTUM))? + (batch * MOMENTUM)?)?)?;
        }
        Ok(())
    }
}
