//! Launches and cost of `axial`.

use crate::config::axial::AxialConfig;
use crate::{Cost, DType, Error, Gpu, Layout, Plan, Result};

/// A forward call: element type and layouts. Operands: 0 q, 1 v, 2 columns, 3 rows, 4 weight, 5 bias, 6 mean, 7 var (of the
/// caller), 8 o, 9 y, 10 mean, 11 var (of this batch).
#[derive(Clone, Copy, Debug)]
pub struct ForwardProblem {
    /// Element type of q, v, the tables, o and y.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: Layout<5>,
    /// Column offsets, `[1 or h, 2L − 1, d]`.
    pub columns: Option<Layout<3>>,
    /// Row offsets, `[1 or h, 2L − 1, d]`.
    pub rows: Option<Layout<3>>,
    /// Batch norm's weight and bias, `[1 or h, e]`.
    pub affine: Option<[Layout<2>; 2]>,
    /// The caller's mean and variance, `[1 or h, e]`.
    pub given: Option<[Layout<2>; 2]>,
    /// Output, the shape of v.
    pub o: Layout<5>,
    /// The result between the layers, the shape of v.
    pub y: Option<Layout<5>>,
    /// This batch's mean and variance, `[1 or h, e]`.
    pub batch: Option<[Layout<2>; 2]>,
}

/// A backward call: element type and layouts. Operands: 0 q, 1 v, 2 columns, 3 rows, 4 weight, 5 bias, 6 mean, 7 var, 8 y,
/// 9 d_o, 10 dq, 11 dv, 12 dcolumns, 13 drows, 14 dweight, 15 dbias.
#[derive(Clone, Copy, Debug)]
pub struct BackwardProblem {
    /// Element type of everything but batch norm's and the tables' gradients.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: Layout<5>,
    /// Column offsets, `[1 or h, 2L − 1, d]`.
    pub columns: Option<Layout<3>>,
    /// Row offsets, `[1 or h, 2L − 1, d]`.
    pub rows: Option<Layout<3>>,
    /// Batch norm's weight and bias, `[1 or h, e]`.
    pub affine: Option<[Layout<2>; 2]>,
    /// Mean and variance that the forward pass used, `[1 or h, e]`.
    pub statistics: Option<[Layout<2>; 2]>,
    /// The result between the layers.
    pub y: Option<Layout<5>>,
    /// Gradient of the output.
    pub d_o: Layout<5>,
    /// Gradient of q, when wanted.
    pub dq: Option<Layout<5>>,
    /// Gradient of v, when wanted.
    pub dv: Option<Layout<5>>,
    /// Gradient of the column table, when wanted.
    pub dcolumns: Option<Layout<3>>,
    /// Gradient of the row table, when wanted.
    pub drows: Option<Layout<3>>,
    /// Gradient of batch norm's weight, when wanted.
    pub dweight: Option<Layout<2>>,
    /// Gradient of batch norm's bias, when wanted.
    pub dbias: Option<Layout<2>>,
}

pub(super) fn forward(_config: &AxialConfig, _problem: &ForwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("axial", "no CUDA kernels in this build"))
}

pub(super) fn backward(_config: &AxialConfig, _problem: &BackwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("axial", "no CUDA kernels in this build"))
}

pub(super) fn forward_cost(_config: &AxialConfig, _problem: &ForwardProblem) -> Cost {
    Cost::default()
}

pub(super) fn backward_cost(_config: &AxialConfig, _problem: &BackwardProblem) -> Cost {
    Cost::default()
}
