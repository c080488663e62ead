//! Global content attention as a layer.

use super::projection::{biased, channels_last, gather, per_head, plain, project};
use crate::{ContentConfig, Form, content};
use candle_core::{Result, Tensor};
use candle_nn::init::DEFAULT_KAIMING_UNIFORM;
use candle_nn::{Linear, Module, VarBuilder};

/// Settings of [`ContentAttention`].
#[derive(Clone, Copy, Debug)]
pub struct ContentAttentionConfig {
    /// Heads.
    pub heads: usize,
    /// Channels of queries and keys per head; as many as values have when absent.
    pub key_channels: Option<usize>,
    /// How keys and queries become weights.
    pub form: Form,
    /// Whether the heads' results are projected.
    pub output: bool,
}

impl Default for ContentAttentionConfig {
    /// The content branch of GSA: 8 heads, queries as they are, no output projection.
    fn default() -> Self {
        Self { heads: 8, key_channels: None, form: Form::default(), output: false }
    }
}

/// Attention through a summary of keys and values: `[b, in, y, x]` to `[b, out, y, x]`.
///
/// Parameters: `query.weight`, `key.weight`, `[heads · key channels, in]`, `value.weight`, `[out, in]`, and if wanted
/// `output.weight`, `[out, out]`, and `output.bias`; Kaiming uniform by fan-in.
#[derive(Clone, Debug)]
pub struct ContentAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Option<Linear>,
    config: ContentAttentionConfig,
}

impl ContentAttention {
    /// The layer from `inputs` to `outputs` channels.
    ///
    /// # Errors
    /// Channels that cannot be dealt out to the heads, or what the builder reports.
    pub fn new(
        inputs: usize,
        outputs: usize,
        config: ContentAttentionConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let e = per_head(outputs, config.heads)?;
        let keys = config.heads * config.key_channels.unwrap_or(e);
        let projection = |name: &str, outputs| plain(inputs, outputs, DEFAULT_KAIMING_UNIFORM, vb.pp(name));
        let (query, key) = (projection("query", keys)?, projection("key", keys)?);
        let output = config.output.then(|| biased(outputs, vb.pp("output"))).transpose()?;
        Ok(Self { query, key, value: projection("value", outputs)?, output, config })
    }
}

impl Module for ContentAttention {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (xs, heads) = (channels_last(xs)?, self.config.heads);
        let (q, k) = (project(&self.query, &xs, heads)?, project(&self.key, &xs, heads)?);
        let v = project(&self.value, &xs, heads)?;
        gather(&content(&q, &k, &v, &ContentConfig { form: self.config.form })?, self.output.as_ref())
    }
}
