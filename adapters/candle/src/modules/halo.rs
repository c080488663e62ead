//! Attention of blocks to themselves and a halo around them as a layer: HaloNet's.

use super::packed::{checked, scale};
use super::projection::{KAIMING_FAN_OUT, biased, channels_last, gather, per_head, plain, project};
use crate::{Blocks, LocalConfig, Positions, Relative, Tables, local};
use candle_core::{Result, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder};

/// Settings of [`HaloAttention`].
#[derive(Clone, Copy, Debug)]
pub struct HaloAttentionConfig {
    /// Heads.
    pub heads: usize,
    /// Rows and columns of a block.
    pub block: [usize; 2],
    /// How many pixels further than the block its queries see, on every side.
    pub halo: [usize; 2],
    /// Whether the heads' results are projected.
    pub output: bool,
}

impl Default for HaloAttentionConfig {
    /// Eight heads, blocks of 8×8 pixels with a halo of 3, projected.
    fn default() -> Self {
        Self { heads: 8, block: [8, 8], halo: [3, 3], output: true }
    }
}

/// Blocked local self-attention (Vaswani et al. 2021, HaloNet): `[b, in, y, x]` to `[b, out, y, x]`.
///
/// All queries of a block see the same keys: the block and a halo around it, inside the map. Relative positions are the sum of a row's and a
/// column's, shared by the heads. Queries times d^−½.
///
/// Parameters: `query.weight`, `key.weight`, `value.weight`, `[out, in]`, Kaiming normal by fan-out; `output.weight`, `[out, out]`, and
/// `output.bias`, as candle initialises them; `rel_h`, `rel_w`, `[1, 2·(block + halo) − 1, d]`, normal with deviation d^−½ as in public
/// code. The paper prints neither initial values nor names.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarBuilder, VarMap};
/// use macula_candle::modules::{HaloAttention, HaloAttentionConfig};
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let config = HaloAttentionConfig { heads: 2, block: [4, 4], halo: [1, 1], output: true };
/// let layer = HaloAttention::new(8, 16, config, vb)?;
/// let xs = Tensor::randn(0f32, 1.0, (1, 8, 10, 12), &Device::Cpu)?;
/// assert_eq!(layer.forward(&xs)?.dims(), [1, 16, 10, 12]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct HaloAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Option<Linear>,
    /// Of rows and of columns.
    tables: [Tensor; 2],
    heads: usize,
    op: LocalConfig,
}

impl HaloAttention {
    /// The layer from `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// Channels that cannot be dealt out to the heads, blocks that the op does not take, or what the builder reports.
    pub fn new(
        inputs: usize,
        outputs: usize,
        config: HaloAttentionConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let HaloAttentionConfig { heads, block, halo, output } = config;
        let d = per_head(outputs, heads)?;
        let projection = |name: &str| plain(inputs, outputs, KAIMING_FAN_OUT, vb.pp(name));
        let (query, key, value) = (projection("query")?, projection("key")?, projection("value")?);
        let output = output.then(|| biased(outputs, vb.pp("output"))).transpose()?;
        let op = checked(LocalConfig {
            window: Blocks::new(block).with_halo(halo).into(),
            scale: scale(outputs, heads)?,
            relative: Relative::Sum,
        })?;
        let init = Init::Randn { mean: 0.0, stdev: f64::from(op.scale) };
        let table =
            |axis: usize, name: &str| vb.get_with_hints((1, op.window.table_rows()[axis], d), name, init);
        let tables = [table(0, "rel_h")?, table(1, "rel_w")?];
        Ok(Self { query, key, value, output, tables, heads, op })
    }
}

impl Module for HaloAttention {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = channels_last(xs)?;
        let (q, k) = (project(&self.query, &xs, self.heads)?, project(&self.key, &xs, self.heads)?);
        let v = project(&self.value, &xs, self.heads)?;
        let [rel_h, rel_w] = &self.tables;
        let positions = Positions { tables: Some(Tables { rel_h, rel_w }), bias: None };
        gather(&local(&q, &k, &v, positions, &self.op)?, self.output.as_ref())
    }
}
