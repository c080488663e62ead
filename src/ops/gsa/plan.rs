//! Launches and cost of `gsa`.

use crate::config::gsa::GsaConfig;
use crate::ops::planning::Arena;
use crate::ops::{axial, content};
use crate::plan::{Ptr, WORKSPACE};
use crate::{Axial, Content, Cost, DType, Error, Gpu, Launch, Layout, Plan, Result};

const OP: &str = super::Gsa::NAME;

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

impl ForwardProblem {
    /// Of the content branch.
    fn content(&self) -> content::ForwardProblem {
        let Self { dtype, q, k, v, o, saves_content, .. } = *self;
        content::ForwardProblem { dtype, q, k, v, o, saves: saves_content }
    }

    /// Of the positional branch.
    fn axial(&self) -> axial::ForwardProblem {
        let Self { dtype, q, v, columns, rows, affine, given, o, y, batch, .. } = *self;
        let (columns, rows) = (Some(columns), Some(rows));
        axial::ForwardProblem { dtype, q, v, columns, rows, affine, given, o, y, batch }
    }
}

impl BackwardProblem {
    /// Of the content branch.
    fn content(&self) -> content::BackwardProblem {
        let Self { dtype, q, k, v, d_o, dq, dk, dv, .. } = *self;
        content::BackwardProblem { dtype, q, k, v, d_o, dq, dk, dv }
    }

    /// Of the positional branch.
    fn axial(&self) -> axial::BackwardProblem {
        let Self { dtype, q, v, columns, rows, affine, statistics, y, d_o, dq, dv, .. } = *self;
        let Self { dcolumns, drows, dweight, dbias, .. } = *self;
        let (columns, rows, y) = (Some(columns), Some(rows), Some(y));
        axial::BackwardProblem {
            dtype,
            q,
            v,
            columns,
            rows,
            affine,
            statistics,
            y,
            d_o,
            dq,
            dv,
            dcolumns,
            drows,
            dweight,
            dbias,
        }
    }
}

/// Launches of a branch as part of the call: its operands are those of the call that `operand` names, its workspace begins where
/// `workspace` points.
fn branch(
    launches: Vec<Launch>,
    operand: impl Fn(u8) -> Ptr,
    workspace: Ptr,
) -> impl Iterator<Item = Launch> {
    let begin = workspace.target().map_or(0, |(_, offset)| offset);
    launches.into_iter().map(move |launch| launch.within(&operand, begin))
}

/// The operand of the call that operand `index` of a branch is.
fn operand(of_branch: &[u8], index: u8) -> Ptr {
    of_branch.get(usize::from(index)).map_or(Ptr::NULL, |&index| Ptr::operand(index))
}

/// What a branch refuses, `gsa` refuses.
fn refused(error: Error) -> Error {
    match error {
        Error::Unsupported { what, .. } => Error::unsupported(OP, what),
        other => other,
    }
}

// Operands of the branches' calls, as the problems of this op count them.
const CONTENT_FORWARD: [u8; 7] = [0, 1, 2, 9, 10, 11, 12];
const AXIAL_FORWARD: [u8; 12] = [0, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15];
const CONTENT_BACKWARD: [u8; 10] = [0, 1, 2, 9, 10, 11, 13, 14, 15, 16];
const AXIAL_BACKWARD: [u8; 16] = [0, 2, 3, 4, 5, 6, 7, 8, 12, 13, 14, 16, 17, 18, 19, 20];

/// Keys and values become a summary; the last layer of the positional branch adds what queries make of it.
pub(super) fn forward(config: &GsaConfig, p: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
    let of_content = |index| operand(&CONTENT_FORWARD, index);
    let (content, summary) = content::plan_summary(&config.content(), &p.content(), gpu).map_err(refused)?;
    let norms_queries = config.norm_queries;
    let with_content = Some(axial::Content { norms_queries });
    let axial = axial::plan_forward(&config.axial(), &p.axial(), with_content, gpu).map_err(refused)?;
    let mut workspace = Arena::default();
    let parts = [workspace.take(content.workspace_bytes), workspace.take(axial.workspace_bytes)];
    // The content branch's part is the first, so what is in it has the same place in the whole.
    let summary = match summary.target() {
        Some((index, _)) if index != WORKSPACE => of_content(index),
        _ => summary,
    };
    let of_axial = |index| if index == axial::SUMMARY { summary } else { operand(&AXIAL_FORWARD, index) };
    let mut launches: Vec<Launch> = branch(content.launches, of_content, parts[0]).collect();
    launches.extend(branch(axial.launches, of_axial, parts[1]));
    workspace.plan(OP, launches)
}

/// The content branch writes dq, and the positional one adds to it. With dv it is the other way round, for the positional
/// branch may use dv as scratch memory before it writes it.
pub(super) fn backward(config: &GsaConfig, p: &BackwardProblem, gpu: &Gpu) -> Result<Plan> {
    let of_content = |index| operand(&CONTENT_BACKWARD, index);
    let (content, of_keys) =
        content::plan_backward_parts(&config.content(), &p.content(), true, gpu).map_err(refused)?;
    let axial = axial::plan_backward(&config.axial(), &p.axial(), true).map_err(refused)?;
    let mut workspace = Arena::default();
    let parts = [workspace.take(content.workspace_bytes), workspace.take(axial.workspace_bytes)];
    let mut launches: Vec<Launch> = branch(content.launches, of_content, parts[0]).collect();
    launches.extend(branch(axial.launches, |index| operand(&AXIAL_BACKWARD, index), parts[1]));
    launches.extend(branch(of_keys.into_iter().collect(), of_content, parts[0]));
    workspace.plan(OP, launches)
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
    let maps = elements(&[q, k, v, o]) + y.map_or(0, |y| y.len() as u64) + elements(&[columns, rows]);
    let [b, h, _, _, d] = q.shape.map(|size| size as u64);
    let saved = if saves_content { b * h * d * (v.shape[4] as u64 + 2) } else { 0 };
    let min_bytes = maps * dtype.bytes() as u64 + 4 * (pairs(&[affine, given, batch]) + saved);
    cost(
        Content::new(config.content()).forward_cost(&problem.content()),
        Axial::new(config.axial()).map_or(Cost::default(), |op| op.forward_cost(&problem.axial())),
        min_bytes,
    )
}

pub(super) fn backward_cost(config: &GsaConfig, problem: &BackwardProblem) -> Cost {
    let BackwardProblem { dtype, q, k, v, columns, rows, affine, statistics, y, d_o, dq, dk, dv, .. } =
        *problem;
    let BackwardProblem { dcolumns, drows, dweight, dbias, .. } = *problem;
    let count = |layout: Option<Layout<5>>| layout.map_or(0, |layout| layout.len() as u64);
    let maps = elements(&[q, k, v, y, d_o]) + count(dq) + count(dk) + count(dv) + elements(&[columns, rows]);
    let [b, h, _, _, d] = q.shape.map(|size| size as u64);
    let tables: u64 = [dcolumns, drows].iter().flatten().map(|t| t.len() as u64).sum();
    let vectors: u64 = [dweight, dbias].iter().flatten().map(|t| t.len() as u64).sum();
    let singles = pairs(&[affine, statistics]) + tables + vectors + b * h * d * (v.shape[4] as u64 + 2);
    cost(
        Content::new(config.content()).backward_cost(&problem.content()),
        Axial::new(config.axial()).map_or(Cost::default(), |op| op.backward_cost(&problem.axial())),
        maps * dtype.bytes() as u64 + 4 * singles,
    )
}
