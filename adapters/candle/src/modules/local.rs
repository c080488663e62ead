//! Windowed attention as a layer.

use super::projection::{KAIMING_FAN_OUT, channels_last, gather, per_head, plain, project};
use crate::{LocalConfig, Positions, Tables, local};
use candle_core::{Result, Tensor};
use candle_nn::{Init, Linear, Module, VarBuilder};

/// Settings of [`LocalAttention`].
#[derive(Clone, Copy, Debug)]
pub struct LocalAttentionConfig {
    /// Heads.
    pub heads: usize,
    /// The op's settings.
    pub op: LocalConfig,
    /// Whether there are relative positions.
    pub has_tables: bool,
    /// Whether every head has tables of its own.
    pub per_head_tables: bool,
}

impl Default for LocalAttentionConfig {
    /// The layer of the paper: 8 heads, 7×7 windows, tables shared by the heads, no factor on the logits.
    fn default() -> Self {
        Self { heads: 8, op: LocalConfig::default(), has_tables: true, per_head_tables: false }
    }
}

/// Stand-alone self-attention (Ramachandran et al. 2019): `[b, in, y, x]` to `[b, out, y, x]`.
///
/// Parameters: `query.weight`, `key.weight`, `value.weight`, `[out, in]`, Kaiming normal by fan-out as in public code;
/// `rel_h`, `rel_w`, `[1 or heads, rows, channels]`, normal with deviation 1 as in public code.
#[derive(Clone, Debug)]
pub struct LocalAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    /// Of rows and of columns.
    tables: Option<[Tensor; 2]>,
    config: LocalAttentionConfig,
}

impl LocalAttention {
    /// The layer from `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// Channels that cannot be dealt out to the heads, or what the builder reports.
    pub fn new(
        inputs: usize,
        outputs: usize,
        config: LocalAttentionConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let d = per_head(outputs, config.heads)?;
        let projection = |name: &str| plain(inputs, outputs, KAIMING_FAN_OUT, vb.pp(name));
        let heads = if config.per_head_tables { config.heads } else { 1 };
        let channels = config.op.relative.table_channels(d);
        let table = |axis: usize, name: &str| {
            let rows = config.op.window.table_rows()[axis];
            let init = Init::Randn { mean: 0.0, stdev: 1.0 };
            vb.get_with_hints((heads, rows, channels[axis]), name, init)
        };
        let tables = match config.has_tables {
            true => Some([table(0, "rel_h")?, table(1, "rel_w")?]),
            false => None,
        };
        let (query, key) = (projection("query")?, projection("key")?);
        Ok(Self { query, key, value: projection("value")?, tables, config })
    }
}

impl Module for LocalAttention {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (xs, heads) = (channels_last(xs)?, self.config.heads);
        let (q, k) = (project(&self.query, &xs, heads)?, project(&self.key, &xs, heads)?);
        let v = project(&self.value, &xs, heads)?;
        let tables = self.tables.as_ref().map(|[rel_h, rel_w]| Tables { rel_h, rel_w });
        gather(&local(&q, &k, &v, Positions { tables, bias: None }, &self.config.op)?, None)
    }
}
