//! Choices of the op `gsa`.

use super::axial::{Axes, AxialConfig, BatchNorm};
use super::content::{ContentConfig, Form};

/// Settings of the op `gsa`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GsaConfig {
    /// Whether the content branch takes a softmax over the channels of each query.
    pub norm_queries: bool,
    /// Batch norm between columns and rows of the positional branch.
    pub norm: BatchNorm,
    /// What is added to the variance.
    pub epsilon: f32,
}

impl Default for GsaConfig {
    /// Queries as they are, no batch norm; ε = 1e-5.
    fn default() -> Self {
        let AxialConfig { norm, epsilon, .. } = AxialConfig::default();
        Self { norm_queries: false, norm, epsilon }
    }
}

impl GsaConfig {
    /// The content branch alone.
    pub fn content(&self) -> ContentConfig {
        ContentConfig { form: Form::Softmax { norm_queries: self.norm_queries } }
    }

    /// The positional branch alone.
    pub fn axial(&self) -> AxialConfig {
        AxialConfig { axes: Axes::ColumnsThenRows, norm: self.norm, epsilon: self.epsilon }
    }
}
