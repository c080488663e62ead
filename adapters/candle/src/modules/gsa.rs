//! The module of GSA networks.

use super::axial::tables;
use super::norm::Norm;
use super::projection::{biased, channels_last, gather, per_head, plain, project};
use crate::{GsaConfig, GsaInputs, gsa};
use candle_core::{Result, Tensor};
use candle_nn::init::DEFAULT_KAIMING_UNIFORM;
use candle_nn::{Linear, ModuleT, VarBuilder};

/// Settings of [`GsaModule`].
#[derive(Clone, Copy, Debug)]
pub struct GsaModuleConfig {
    /// Heads.
    pub heads: usize,
    /// Channels of queries and keys per head; as many as values have when absent.
    pub key_channels: Option<usize>,
    /// L of columns and of rows: positions at L pixels and further contribute nothing. The size of the map reaches all of it.
    pub reach: [usize; 2],
    /// Whether there is a batch norm between columns and rows.
    pub norm: bool,
    /// Whether every head has a batch norm of its own.
    pub norm_per_head: bool,
    /// Whether the content branch takes a softmax over the channels of each query.
    pub norm_queries: bool,
    /// Whether the heads' results are projected. The paper's figure has no such projection, public code has.
    pub output: bool,
}

impl GsaModuleConfig {
    /// The module of the paper for maps of up to `y`×`x` pixels, with 8 heads.
    pub fn of_map(y: usize, x: usize) -> Self {
        let reach = [y.max(1), x.max(1)];
        Self {
            heads: 8,
            key_channels: None,
            reach,
            norm: true,
            norm_per_head: false,
            norm_queries: false,
            output: false,
        }
    }
}

/// Global self-attention (Shen et al. 2020): `[b, in, y, x]` to `[b, out, y, x]`.
///
/// Parameters: those of [`AxialAttention`](super::AxialAttention) and `key.weight`, of the shape of `query.weight`.
#[derive(Clone, Debug)]
pub struct GsaModule {
    query: Linear,
    key: Linear,
    value: Linear,
    tables: [Tensor; 2],
    norm: Option<Norm>,
    output: Option<Linear>,
    config: GsaModuleConfig,
}

impl GsaModule {
    /// The layer from `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// Channels that cannot be dealt out to the heads, or what the builder reports.
    pub fn new(inputs: usize, outputs: usize, config: GsaModuleConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let e = per_head(outputs, config.heads)?;
        let d = config.key_channels.unwrap_or(e);
        let projection = |name: &str, outputs| plain(inputs, outputs, DEFAULT_KAIMING_UNIFORM, vb.pp(name));
        let norm = config
            .norm
            .then(|| Norm::new(config.heads, e, config.norm_per_head, vb.pp("norm")))
            .transpose()?;
        Ok(Self {
            query: projection("query", config.heads * d)?,
            key: projection("key", config.heads * d)?,
            value: projection("value", outputs)?,
            tables: tables(config.reach, d, &vb)?,
            norm,
            output: config.output.then(|| biased(outputs, vb.pp("output"))).transpose()?,
            config,
        })
    }
}

impl ModuleT for GsaModule {
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        let (xs, heads) = (channels_last(xs)?, self.config.heads);
        let (q, k) = (project(&self.query, &xs, heads)?, project(&self.key, &xs, heads)?);
        let v = project(&self.value, &xs, heads)?;
        let norm = self.norm.as_ref();
        let config = GsaConfig {
            norm_queries: self.config.norm_queries,
            norm: Norm::mode(norm, train),
            ..GsaConfig::default()
        };
        let [columns, rows] = &self.tables;
        let given = norm.and_then(|norm| norm.given(train));
        let inputs = GsaInputs { columns, rows, affine: norm.map(Norm::affine), given };
        let out = gsa(&q, &k, &v, inputs, &config)?;
        norm.map_or(Ok(()), |norm| norm.update(&out))?;
        gather(&out.o, self.output.as_ref())
    }
}
