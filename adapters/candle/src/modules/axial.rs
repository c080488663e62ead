//! Axial positional attention as a layer.

use super::norm::Norm;
use super::projection::{biased, channels_last, gather, per_head, plain, project};
use crate::{Axes, AxialConfig, AxialInputs, axial};
use candle_core::{Result, Tensor};
use candle_nn::init::DEFAULT_KAIMING_UNIFORM;
use candle_nn::{Init, Linear, ModuleT, VarBuilder};

/// Settings of [`AxialAttention`].
#[derive(Clone, Copy, Debug)]
pub struct AxialAttentionConfig {
    /// Heads.
    pub heads: usize,
    /// Channels of queries per head; as many as values have when absent.
    pub key_channels: Option<usize>,
    /// L of columns and of rows: positions at L pixels and further contribute nothing. The size of the map reaches all of it.
    pub reach: [usize; 2],
    /// Whether there is a batch norm between columns and rows.
    pub norm: bool,
    /// Whether every head has a batch norm of its own.
    pub norm_per_head: bool,
    /// Whether the heads' results are projected.
    pub output: bool,
}

impl AxialAttentionConfig {
    /// The positional branch of GSA for maps of up to `y`×`x` pixels: 8 heads, batch norm shared by the heads.
    pub fn of_map(y: usize, x: usize) -> Self {
        let reach = [y.max(1), x.max(1)];
        Self { heads: 8, key_channels: None, reach, norm: true, norm_per_head: false, output: false }
    }
}

/// Attention by position along columns, then rows: `[b, in, y, x]` to `[b, out, y, x]`.
///
/// Parameters: `query.weight`, `[heads · key channels, in]`, `value.weight`, `[out, in]`, and if wanted `output.weight`,
/// `output.bias`, Kaiming uniform by fan-in; `columns`, `rows`, `[1, 2L − 1, key channels]`, normal with deviation
/// 1 as in public code of GSA; `norm.weight`, `norm.bias`, `norm.running_mean`, `norm.running_var`, as of any batch norm.
#[derive(Clone, Debug)]
pub struct AxialAttention {
    query: Linear,
    value: Linear,
    tables: [Tensor; 2],
    norm: Option<Norm>,
    output: Option<Linear>,
    heads: usize,
}

/// The tables of both directions.
pub(super) fn tables(reach: [usize; 2], d: usize, vb: &VarBuilder<'_>) -> Result<[Tensor; 2]> {
    let init = Init::Randn { mean: 0.0, stdev: 1.0 };
    let table = |axis: usize, name| vb.get_with_hints((1, 2 * reach[axis].max(1) - 1, d), name, init);
    Ok([table(0, "columns")?, table(1, "rows")?])
}

impl AxialAttention {
    /// The layer from `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// Channels that cannot be dealt out to the heads, or what the builder reports.
    pub fn new(
        inputs: usize,
        outputs: usize,
        config: AxialAttentionConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let AxialAttentionConfig { heads, key_channels, reach, norm, norm_per_head, output } = config;
        let e = per_head(outputs, heads)?;
        let d = key_channels.unwrap_or(e);
        let projection = |name: &str, outputs| plain(inputs, outputs, DEFAULT_KAIMING_UNIFORM, vb.pp(name));
        Ok(Self {
            query: projection("query", heads * d)?,
            value: projection("value", outputs)?,
            tables: tables(reach, d, &vb)?,
            norm: norm.then(|| Norm::new(heads, e, norm_per_head, vb.pp("norm"))).transpose()?,
            output: output.then(|| biased(outputs, vb.pp("output"))).transpose()?,
            heads,
        })
    }
}

impl ModuleT for AxialAttention {
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        let xs = channels_last(xs)?;
        let (q, v) = (project(&self.query, &xs, self.heads)?, project(&self.value, &xs, self.heads)?);
        let norm = self.norm.as_ref();
        let config = AxialConfig {
            axes: Axes::ColumnsThenRows,
            norm: Norm::mode(norm, train),
            ..AxialConfig::default()
        };
        let [columns, rows] = &self.tables;
        let inputs = AxialInputs {
            columns: Some(columns),
            rows: Some(rows),
            affine: norm.map(Norm::affine),
            given: norm.and_then(|norm| norm.given(train)),
        };
        let out = axial(&q, &v, inputs, &config)?;
        norm.map_or(Ok(()), |norm| norm.update(&out))?;
        gather(&out.o, self.output.as_ref())
    }
}
