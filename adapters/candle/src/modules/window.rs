//! Attention within the blocks of a grid as a layer: Swin's windows.

use super::packed::{Packed, SMALL_NORMAL, checked, scale};
use crate::{Blocks, LocalConfig, Positions, local};
use candle_core::{Result, Tensor};
use candle_nn::{Module, VarBuilder};

/// Settings of [`WindowAttention`].
#[derive(Clone, Copy, Debug)]
pub struct WindowAttentionConfig {
    /// Heads.
    pub heads: usize,
    /// Rows and columns of a window.
    pub window: [usize; 2],
    /// How far the grid of windows is shifted, less than the window. Every other layer of Swin shifts by half a window, but not
    /// where the map is no larger than one.
    pub shift: [usize; 2],
    /// Whether the projection to queries, keys and values has a bias.
    pub qkv_bias: bool,
}

impl Default for WindowAttentionConfig {
    /// Three heads and windows of 7×7 pixels, as the first layer of Swin-T.
    fn default() -> Self {
        Self { heads: 3, window: [7, 7], shift: [0, 0], qkv_bias: true }
    }
}

/// Windowed self-attention (Liu et al. 2021, Swin): `[b, c, y, x]` to the same shape.
///
/// Attention within each window of a grid, with a bias by relative position, of queries times d^−½. A shifted grid is what Swin's
/// cyclic shift with its mask comes to; no map is rolled, cut or put together again. A map that is no multiple of the window has
/// smaller windows at its border, where public code fills up with zeros that then take part.
///
/// Parameters, by the names and in the order of Swin's published checkpoints: `qkv.weight`, `[3·c, c]`, `qkv.bias`, `proj.weight`,
/// `[c, c]`, `proj.bias`, normal with deviation 0.02 and 0; `relative_position_bias_table`,
/// `[(2·rows − 1)·(2·columns − 1), heads]`, normal with deviation 0.02. Buffers of a checkpoint are not needed.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarBuilder, VarMap};
/// use macula_candle::modules::{WindowAttention, WindowAttentionConfig};
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let config = WindowAttentionConfig { heads: 2, window: [4, 4], shift: [2, 2], ..Default::default() };
/// let layer = WindowAttention::new(16, config, vb)?;
/// let xs = Tensor::randn(0f32, 1.0, (1, 16, 12, 8), &Device::Cpu)?;
/// assert_eq!(layer.forward(&xs)?.dims(), [1, 16, 12, 8]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WindowAttention {
    packed: Packed,
    /// `[(2·rows − 1)·(2·columns − 1), heads]`, by query minus key.
    table: Tensor,
    /// Its rows in the order of the op, which counts key minus query.
    order: Tensor,
    config: WindowAttentionConfig,
    op: LocalConfig,
}

impl WindowAttention {
    /// The layer over `channels`.
    ///
    /// # Errors
    /// Channels that cannot be dealt out to the heads, windows or shifts that the op does not take, or what the builder reports.
    pub fn new(channels: usize, config: WindowAttentionConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let packed = Packed::new(channels, config.heads, config.qkv_bias, &vb)?;
        let window = Blocks::new(config.window).offset_by(config.shift).into();
        let scale = scale(channels, config.heads)?;
        let op = checked(LocalConfig { window, scale, ..LocalConfig::default() })?;
        let [rows, columns] = op.window.table_rows();
        let table =
            vb.get_with_hints((rows * columns, config.heads), "relative_position_bias_table", SMALL_NORMAL)?;
        let order = (0..(rows * columns) as u32).rev().collect();
        let order = Tensor::from_vec(order, rows * columns, table.device())?;
        Ok(Self { packed, table, order, config, op })
    }

    /// The bias by row and column of key minus query, `[heads, 2·rows − 1, 2·columns − 1]`.
    ///
    /// # Errors
    /// Those of candle's operations.
    pub fn bias(&self) -> Result<Tensor> {
        let [rows, columns] = self.op.window.table_rows();
        let by_head = self.table.index_select(&self.order, 0)?.t()?.contiguous()?;
        by_head.reshape((self.config.heads, rows, columns))
    }
}

impl Module for WindowAttention {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let [q, k, v] = self.packed.queries_keys_values(xs)?;
        let bias = self.bias()?;
        let positions = Positions { tables: None, bias: Some(&bias) };
        self.packed.finish(&local(&q, &k, &v, positions, &self.op)?)
    }
}
