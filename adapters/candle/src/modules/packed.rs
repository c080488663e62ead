//! Queries, keys and values by one projection, and the projection of the output, as published transformers name them.

use super::projection::{channels_last, gather, per_head};
use crate::LocalConfig;
use crate::memory::ours;
use candle_core::{Result, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder};
use macula::Local;

/// What transformers initialise weights and biases of positions with.
pub(super) const SMALL_NORMAL: Init = Init::Randn { mean: 0.0, stdev: 0.02 };

/// `qkv.weight`, `[3·c, c]`, and `proj.weight`, `[c, c]`, each with a `bias`.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

impl Packed {
    pub fn new(channels: usize, heads: usize, has_qkv_bias: bool, vb: &VarBuilder<'_>) -> Result<Self> {
        per_head(channels, heads)?;
        let linear = |name: &str, outputs: usize, has_bias: bool| -> Result<Linear> {
            let vb = vb.pp(name);
            let weight = vb.get_with_hints((outputs, channels), "weight", SMALL_NORMAL)?;
            let bias = has_bias.then(|| vb.get_with_hints(outputs, "bias", Init::Const(0.0))).transpose()?;
            Ok(Linear::new(weight, bias))
        };
        let (qkv, proj) = (linear("qkv", 3 * channels, has_qkv_bias)?, linear("proj", channels, true)?);
        Ok(Self { qkv, proj, heads })
    }

    /// Of a map `[b, c, y, x]`: each `[b, h, y, x, c/h]`, views of one tensor.
    pub fn queries_keys_values(&self, xs: &Tensor) -> Result<[Tensor; 3]> {
        let packed = self.qkv.forward(&channels_last(xs)?)?;
        let (b, y, x, c) = packed.dims4()?;
        let packed = packed.reshape(vec![b, y, x, 3, self.heads, c / 3 / self.heads])?;
        let part = |i: usize| packed.narrow(3, i, 1)?.squeeze(3)?.permute((0, 3, 1, 2, 4));
        Ok([part(0)?, part(1)?, part(2)?])
    }

    /// The heads of `[b, h, y, x, d]` side by side, projected: `[b, c, y, x]`.
    pub fn finish(&self, o: &Tensor) -> Result<Tensor> {
        gather(o, Some(&self.proj))
    }
}

/// d^−½, d being the channels of a head.
pub(super) fn scale(channels: usize, heads: usize) -> Result<f32> {
    Ok((per_head(channels, heads)? as f32).powf(-0.5))
}

/// Settings that the op takes: better refused when a layer is made than when it runs.
pub(super) fn checked(op: LocalConfig) -> Result<LocalConfig> {
    Local::new(op).map_err(ours)?;
    Ok(op)
}
