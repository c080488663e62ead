//! Launches and cost of `local`.

use crate::config::local::LocalConfig;
use crate::{Cost, DType, Error, Gpu, Layout, Plan, Result};

/// A forward call: element type and layouts. Operands: 0 q, 1 k, 2 v, 3 rel_h, 4 rel_w, 5 o, 6 lse.
#[derive(Clone, Copy, Debug)]
pub struct ForwardProblem {
    /// Element type of q, k, v, the tables and o.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Keys, the shape of q.
    pub k: Layout<5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: Layout<5>,
    /// Row table and column table, `[1 or h, rows, channels]`.
    pub tables: Option<[Layout<3>; 2]>,
    /// Output, the shape of v.
    pub o: Layout<5>,
    /// Log-sum-exp of the logits, `[b, h, y, x]`, contiguous.
    pub lse: Option<Layout<4>>,
}

/// A backward call: element type and layouts. Operands: 0 q, 1 k, 2 v, 3 rel_h, 4 rel_w, 5 o, 6 lse, 7 d_o, 8 dq, 9 dk,
/// 10 dv, 11 drel_h, 12 drel_w.
#[derive(Clone, Copy, Debug)]
pub struct BackwardProblem {
    /// Element type of everything but lse and the tables' gradients, which are f32.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Keys, the shape of q.
    pub k: Layout<5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: Layout<5>,
    /// Row table and column table, `[1 or h, rows, channels]`.
    pub tables: Option<[Layout<3>; 2]>,
    /// The forward's output.
    pub o: Layout<5>,
    /// The forward's log-sum-exp, `[b, h, y, x]`, contiguous.
    pub lse: Layout<4>,
    /// Gradient of the output.
    pub d_o: Layout<5>,
    /// Gradient of q, when wanted.
    pub dq: Option<Layout<5>>,
    /// Gradient of k, when wanted.
    pub dk: Option<Layout<5>>,
    /// Gradient of v, when wanted.
    pub dv: Option<Layout<5>>,
    /// Gradient of the row table, when wanted.
    pub drel_h: Option<Layout<3>>,
    /// Gradient of the column table, when wanted.
    pub drel_w: Option<Layout<3>>,
}

pub(super) fn forward(_config: &LocalConfig, _problem: &ForwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("local", "no CUDA kernels in this build"))
}

pub(super) fn backward(_config: &LocalConfig, _problem: &BackwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("local", "no CUDA kernels in this build"))
}

pub(super) fn forward_cost(_config: &LocalConfig, _problem: &ForwardProblem) -> Cost {
    Cost::default()
}

pub(super) fn backward_cost(_config: &LocalConfig, _problem: &BackwardProblem) -> Cost {
    Cost::default()
}
