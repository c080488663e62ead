//! Attention by distance as a layer.

use super::projection::{channels_last, deal, gather, per_head, plain};
use crate::{GaussianConfig, gaussian};
use candle_core::{Result, Tensor};
use candle_nn::init::DEFAULT_KAIMING_UNIFORM;
use candle_nn::{Init, Linear, Module, VarBuilder};

/// Settings of [`GaussianAttention`].
#[derive(Clone, Copy, Debug)]
pub struct GaussianAttentionConfig {
    /// Heads, each with a radius of its own.
    pub heads: usize,
    /// The op's settings.
    pub op: GaussianConfig,
    /// About how large radii are at first, in pixels.
    pub radius: f64,
    /// Whether values are projected.
    pub value: bool,
    /// Whether the heads' results are projected.
    pub output: bool,
}

impl Default for GaussianAttentionConfig {
    /// Eight heads, radii around 2 pixels, values projected.
    fn default() -> Self {
        Self { heads: 8, op: GaussianConfig::default(), radius: 2.0, value: true, output: false }
    }
}

/// Attention by distance: `[b, c, y, x]` to the same shape.
///
/// Parameters: `rho`, `[heads]`, the radius being softplus ρ, at first normal around the configured radius with deviation
/// 0.5; `value.weight`, `output.weight`, `[c, c]`, Kaiming uniform by fan-in. The paper's (Tan et al. 2021) own
/// parametrisation and projections are not known to us: these are ours.
#[derive(Clone, Debug)]
pub struct GaussianAttention {
    rho: Tensor,
    value: Option<Linear>,
    output: Option<Linear>,
    config: GaussianAttentionConfig,
}

impl GaussianAttention {
    /// The layer over `channels`.
    ///
    /// # Errors
    /// Channels that cannot be dealt out to the heads, or what the builder reports.
    pub fn new(channels: usize, config: GaussianAttentionConfig, vb: VarBuilder<'_>) -> Result<Self> {
        per_head(channels, config.heads)?;
        // The inverse of softplus, without overflow.
        let mean = config.radius + (-(-config.radius).exp_m1()).ln();
        let rho = vb.get_with_hints(config.heads, "rho", Init::Randn { mean, stdev: 0.5 })?;
        let projection = |is_wanted: bool, name: &str| {
            is_wanted.then(|| plain(channels, channels, DEFAULT_KAIMING_UNIFORM, vb.pp(name))).transpose()
        };
        let (value, output) = (projection(config.value, "value")?, projection(config.output, "output")?);
        Ok(Self { rho, value, output, config })
    }

    /// The radii, `[heads]`: softplus ρ, and at least a millionth of a pixel, which no map can tell from 0.
    ///
    /// # Errors
    /// Those of candle's operations.
    pub fn radii(&self) -> Result<Tensor> {
        // max(ρ, 0) + ln (1 + exp −|ρ|) does not overflow.
        (self.rho.relu()? + (self.rho.abs()?.neg()?.exp()? + 1.0)?.log()?)?.maximum(1e-6)
    }
}

impl Module for GaussianAttention {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let v = match &self.value {
            Some(value) => deal(&value.forward(&channels_last(xs)?)?, self.config.heads)?,
            None => deal(&channels_last(xs)?, self.config.heads)?,
        };
        gather(&gaussian(&v, &self.radii()?, &self.config.op)?, self.output.as_ref())
    }
}
