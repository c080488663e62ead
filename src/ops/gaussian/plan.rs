//! Launches and cost of `gaussian`.

use crate::config::gaussian::GaussianConfig;
use crate::{Cost, DType, Error, Gpu, Layout, Plan, Result};

/// A forward call: element type and layouts. Operands: 0 v, 1 sigma, 2 o.
#[derive(Clone, Copy, Debug)]
pub struct ForwardProblem {
    /// Element type of v and o.
    pub dtype: DType,
    /// Values.
    pub v: Layout<5>,
    /// Radius.
    pub sigma: Layout<1>,
    /// Output.
    pub o: Layout<5>,
}

/// A backward call: element type and layouts. Operands: 0 v, 1 sigma, 2 d_o, 3 dv, 4 dsigma.
#[derive(Clone, Copy, Debug)]
pub struct BackwardProblem {
    /// Element type of v, d_o and dv.
    pub dtype: DType,
    /// Values.
    pub v: Layout<5>,
    /// Radius.
    pub sigma: Layout<1>,
    /// Gradient of the output.
    pub d_o: Layout<5>,
    /// Gradient of v, when wanted.
    pub dv: Option<Layout<5>>,
    /// Gradient of the radius, when wanted.
    pub dsigma: Option<Layout<1>>,
}

pub(super) fn forward(_config: &GaussianConfig, _problem: &ForwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("gaussian", "no CUDA kernels in this build"))
}

pub(super) fn backward(_config: &GaussianConfig, _problem: &BackwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("gaussian", "no CUDA kernels in this build"))
}

pub(super) fn forward_cost(_config: &GaussianConfig, _shape: [usize; 5], _dtype: DType) -> Cost {
    Cost::default()
}

pub(super) fn backward_cost(_config: &GaussianConfig, _shape: [usize; 5], _dtype: DType) -> Cost {
    Cost::default()
}
