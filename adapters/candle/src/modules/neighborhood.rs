//! Attention to the nearest neighbours as a layer: NAT and DiNAT.

use super::packed::{Packed, SMALL_NORMAL, checked, scale};
use crate::{Border, LocalConfig, Positions, Sliding, local};
use candle_core::{Result, Tensor};
use candle_nn::{Module, VarBuilder};

/// Settings of [`NeighborhoodAttention`].
#[derive(Clone, Copy, Debug)]
pub struct NeighborhoodAttentionConfig {
    /// Heads.
    pub heads: usize,
    /// Keys along y and x, odd.
    pub kernel: [usize; 2],
    /// Pixels from key to key along y and x.
    pub dilation: [usize; 2],
    /// Whether there is a bias by relative position.
    pub has_bias: bool,
    /// Whether the projection to queries, keys and values has a bias.
    pub qkv_bias: bool,
}

impl Default for NeighborhoodAttentionConfig {
    /// Two heads and 7×7 neighbours, as the first layer of NAT-Mini.
    fn default() -> Self {
        Self { heads: 2, kernel: [7, 7], dilation: [1, 1], has_bias: true, qkv_bias: true }
    }
}

/// Neighbourhood attention (Hassani et al. 2023; dilated, Hassani and Shi 2022): `[b, c, y, x]` to the same shape.
///
/// Every pixel attends to as many keys as any other: at the border of the map the window is shifted inwards. The map must be at least as
/// large as the kernel times its dilation. Queries times d^−½.
///
/// Parameters, by the names and in the order of published checkpoints: `qkv.weight`, `[3·c, c]`, `qkv.bias`, `proj.weight`, `[c, c]`,
/// `proj.bias`, and `rpb`, `[heads, 2·rows − 1, 2·columns − 1]`; weights and `rpb` normal with deviation 0.02, the others 0.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarBuilder, VarMap};
/// use macula_candle::modules::{NeighborhoodAttention, NeighborhoodAttentionConfig};
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let config = NeighborhoodAttentionConfig { kernel: [3, 3], dilation: [2, 2], ..Default::default() };
/// let layer = NeighborhoodAttention::new(16, config, vb)?;
/// let xs = Tensor::randn(0f32, 1.0, (1, 16, 9, 8), &Device::Cpu)?;
/// assert_eq!(layer.forward(&xs)?.dims(), [1, 16, 9, 8]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NeighborhoodAttention {
    packed: Packed,
    rpb: Option<Tensor>,
    op: LocalConfig,
}

impl NeighborhoodAttention {
    /// The layer over `channels`.
    ///
    /// # Errors
    /// Channels that cannot be dealt out to the heads, a kernel that the op does not take, or what the builder reports.
    pub fn new(channels: usize, config: NeighborhoodAttentionConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let packed = Packed::new(channels, config.heads, config.qkv_bias, &vb)?;
        let window = Sliding::new(config.kernel).dilated(config.dilation).at_border(Border::Shift).into();
        let scale = scale(channels, config.heads)?;
        let op = checked(LocalConfig { window, scale, ..LocalConfig::default() })?;
        let [rows, columns] = op.window.table_rows();
        let rpb = || vb.get_with_hints((config.heads, rows, columns), "rpb", SMALL_NORMAL);
        Ok(Self { packed, rpb: config.has_bias.then(rpb).transpose()?, op })
    }
}

impl Module for NeighborhoodAttention {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let [q, k, v] = self.packed.queries_keys_values(xs)?;
        let positions = Positions { tables: None, bias: self.rpb.as_ref() };
        self.packed.finish(&local(&q, &k, &v, positions, &self.op)?)
    }
}
