//! Launches and cost of `content`.

use crate::config::content::ContentConfig;
use crate::{Cost, DType, Error, Gpu, Layout, Plan, Result};

/// A forward call: element type and layouts. Operands: 0 q, 1 k, 2 v, 3 o, 4 summary, 5 max, 6 sum.
#[derive(Clone, Copy, Debug)]
pub struct ForwardProblem {
    /// Element type of q, k, v and o.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Keys, `[b, h, y', x', d]`.
    pub k: Layout<5>,
    /// Values, `[b, h, y', x', e]`.
    pub v: Layout<5>,
    /// Output, `[b, h, y, x, e]`.
    pub o: Layout<5>,
    /// Whether summary, maximum and sum go to the caller (contiguous) instead of the workspace.
    pub saves: bool,
}

/// A backward call: element type and layouts. Operands: 0 q, 1 k, 2 v, 3 summary, 4 max, 5 sum, 6 d_o, 7 dq, 8 dk, 9 dv.
#[derive(Clone, Copy, Debug)]
pub struct BackwardProblem {
    /// Element type of q, k, v, d_o and their gradients.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Keys, `[b, h, y', x', d]`.
    pub k: Layout<5>,
    /// Values, `[b, h, y', x', e]`.
    pub v: Layout<5>,
    /// Gradient of the output, `[b, h, y, x, e]`.
    pub d_o: Layout<5>,
    /// Gradient of q, when wanted.
    pub dq: Option<Layout<5>>,
    /// Gradient of k, when wanted.
    pub dk: Option<Layout<5>>,
    /// Gradient of v, when wanted.
    pub dv: Option<Layout<5>>,
}

pub(super) fn forward(_config: &ContentConfig, _problem: &ForwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("content", "no CUDA kernels in this build"))
}

pub(super) fn backward(_config: &ContentConfig, _problem: &BackwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("content", "no CUDA kernels in this build"))
}

pub(super) fn forward_cost(_config: &ContentConfig, _problem: &ForwardProblem) -> Cost {
    Cost::default()
}

pub(super) fn backward_cost(_config: &ContentConfig, _problem: &BackwardProblem) -> Cost {
    Cost::default()
}
