//! Launches and cost of `gsa`.

use crate::config::gsa::GsaConfig;
use crate::ops::{axial, content};
use crate::{Axial, Content, Cost, DType, Error, Gpu, Layout, Plan, Result};

/// A forward call: element type and layouts. Operands: 0 q, 1 k, 2 v, 3 columns, 4 rows, 5 weight, 6 bias, 7 mean, 8 var (of
/// the caller), 9 o, 10 summary, 11 max, 12 sum, 13 y, 14 mean, 15 var (of this batch).
#[derive(Clone, Copy, Debug)]
pub struct ForwardProblem {
    /// Element type of q, k, v, the tables, o and y.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Keys, `[b, h, y, x, d]`.
    pub k: Layout<5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: Layout<5>,
    /// Column offsets, `[1 or h, 2L − 1, d]`.
    pub columns: Layout<3>,
    /// Row offsets, `[1 or h, 2L − 1, d]`.
    pub rows: Layout<3>,
    /// Batch norm's weight and bias, `[1 or h, e]`.
    pub affine: Option<[Layout<2>; 2]>,
    /// The caller's mean and variance, `[1 or h, e]`.
    pub given: Option<[Layout<2>; 2]>,
    /// Output, the shape of v.
    pub o: Layout<5>,
    /// Whether summary, maximum and sum go to the caller (contiguous) instead of the workspace.
    pub saves_content: bool,
    /// The result between columns and rows, the shape of v.
    pub y: Option<Layout<5>>,
    /// This batch's mean and variance, `[1 or h, e]`.
    pub batch: Option<[Layout<2>; 2]>,
}

/// A backward call: element type and layouts. Operands: 0 q, 1 k, 2 v, 3 columns, 4 rows, 5 weight, 6 bias, 7 mean, 8 var,
/// 9 summary, 10 max, 11 sum, 12 y, 13 d_o, 14 dq, 15 dk, 16 dv, 17 dcolumns, 18 drows, 19 dweight, 20 dbias.
#[derive(Clone, Copy, Debug)]
pub struct BackwardProblem {
    /// Element type of everything but batch norm's and the tables' gradients.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Keys, `[b, h, y, x, d]`.
    pub k: Layout<5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: Layout<5>,
    /// Column offsets, `[1 or h, 2L − 1, d]`.
    pub columns: Layout<3>,
    /// Row offsets, `[1 or h, 2L − 1, d]`.
    pub rows: Layout<3>,
    /// Batch norm's weight and bias, `[1 or h, e]`.
    pub affine: Option<[Layout<2>; 2]>,
    /// Mean and variance that the forward pass used, `[1 or h, e]`.
    pub statistics: Option<[Layout<2>; 2]>,
    /// The result between columns and rows.
    pub y: Layout<5>,
    /// Gradient of the output.
    pub d_o: Layout<5>,
    /// Gradient of q, when wanted.
    pub dq: Option<Layout<5>>,
    /// Gradient of k, when wanted.
    pub dk: Option<Layout<5>>,
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

const NO_KERNELS: &str = "no CUDA kernels yet; call `content` and `axial`, and add what they return";

pub(super) fn forward(_config: &GsaConfig, _problem: &ForwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("gsa", NO_KERNELS))
}

pub(super) fn backward(_config: &GsaConfig, _problem: &BackwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("gsa", NO_KERNELS))
}

/// The work of both branches over one reading of what they share; adding is not counted.
fn cost(of_content: Cost, of_axial: Cost, min_bytes: u64) -> Cost {
    Cost { flops: of_content.flops + of_axial.flops, min_bytes, exps: of_content.exps + of_axial.exps }
}

fn elements<const R: usize>(layouts: &[Layout<R>]) -> u64 {
    layouts.iter().map(|layout| layout.len() as u64).sum()
}

fn pairs(layouts: &[Option<[Layout<2>; 2]>]) -> u64 {
    layouts.iter().flatten().map(|pair| elements(pair)).sum()
}

pub(super) fn forward_cost(config: &GsaConfig, problem: &ForwardProblem) -> Cost {
    let ForwardProblem { dtype, q, k, v, columns, rows, affine, given, o, saves_content, y, batch } =
        *problem;
    let of_content = content::ForwardProblem { dtype, q, k, v, o, saves: saves_content };
    let of_axial = axial::ForwardProblem {
        dtype,
        q,
        v,
        columns: Some(columns),
        rows: Some(rows),
        affine,
        given,
        o,
        y,
        batch,
    };
    let maps = elements(&[q, k, v, o]) + y.map_or(0, |y| y.len() as u64) + elements(&[columns, rows]);
    let [b, h, _, _, d] = q.shape.map(|size| size as u64);
    let saved = if saves_content { b * h * d * (v.shape[4] as u64 + 2) } else { 0 };
    let min_bytes = maps * dtype.bytes() as u64 + 4 * (pairs(&[affine, given, batch]) + saved);
    cost(
        Content::new(config.content()).forward_cost(&of_content),
        Axial::new(config.axial()).map_or(Cost::default(), |op| op.forward_cost(&of_axial)),
        min_bytes,
    )
}

pub(super) fn backward_cost(config: &GsaConfig, problem: &BackwardProblem) -> Cost {
    let BackwardProblem { dtype, q, k, v, columns, rows, affine, statistics, y, d_o, dq, dk, dv, .. } =
        *problem;
    let BackwardProblem { dcolumns, drows, dweight, dbias, .. } = *problem;
    let of_content = content::BackwardProblem { dtype, q, k, v, d_o, dq, dk, dv };
    let of_axial = axial::BackwardProblem {
        dtype,
        q,
        v,
        columns: Some(columns),
        rows: Some(rows),
        affine,
        statistics,
        y: Some(y),
        d_o,
        dq,
        dv,
        dcolumns,
        drows,
        dweight,
        dbias,
    };
    let count = |layout: Option<Layout<5>>| layout.map_or(0, |layout| layout.len() as u64);
    let maps = elements(&[q, k, v, y, d_o]) + count(dq) + count(dk) + count(dv) + elements(&[columns, rows]);
    let [b, h, _, _, d] = q.shape.map(|size| size as u64);
    let tables: u64 = [dcolumns, drows].iter().flatten().map(|t| t.len() as u64).sum();
    let vectors: u64 = [dweight, dbias].iter().flatten().map(|t| t.len() as u64).sum();
    let singles = pairs(&[affine, statistics]) + tables + vectors + b * h * d * (v.shape[4] as u64 + 2);
    cost(
        Content::new(config.content()).backward_cost(&of_content),
        Axial::new(config.axial()).map_or(Cost::default(), |op| op.backward_cost(&of_axial)),
        maps * dtype.bytes() as u64 + 4 * singles,
    )
}
