//! Launches of a forward call: both layers at once, or a layer along columns, statistics, a layer along rows.

use super::lines::{Along, Part, Scratch, Source, check_extent};
use super::map;
use super::params::{AxialFwdNormParams, AxialFwdParams, Lines, Map, Norm, Summary, Table, Vector};
use super::plan::{ForwardProblem, OP};
use crate::config::axial::{Axes, AxialConfig, BatchNorm};
use crate::ops::planning::{Arena, check_contiguous, grid, launch};
use crate::plan::Ptr;
use crate::{DType, Gpu, Launch, Layout, Plan, Result};

/// Channels that a warp of the statistics' launch takes.
const NORM_CHANNELS: usize = 32;
/// Bytes of an intermediate that stay in the L2 cache of every class until the next layer reads them.
pub(super) const SCRATCH_BYTES: usize = 16 << 20;

// Operands, as `ForwardProblem` counts them.
pub(super) const Q: u8 = 0;
pub(super) const V: u8 = 1;
pub(super) const COLUMNS: u8 = 2;
pub(super) const ROWS: u8 = 3;
const WEIGHT: u8 = 4;
const BIAS: u8 = 5;
const MEAN: u8 = 6;
const VAR: u8 = 7;
pub(super) const O: u8 = 8;
pub(super) const Y: u8 = 9;
const MEAN_OUT: u8 = 10;
const VAR_OUT: u8 = 11;
/// Of `gsa` alone: the summary of keys and values.
pub(in crate::ops) const SUMMARY: u8 = 12;

/// What `gsa` adds in the last layer: queries times operand [`SUMMARY`].
#[derive(Clone, Copy)]
pub(in crate::ops) struct Content {
    /// Whether queries are first their softmax over channels.
    pub norms_queries: bool,
}

impl Content {
    /// With so many channels of queries in shared memory at a time.
    pub(super) fn summary(self, p: &ForwardProblem, rows: usize) -> Summary {
        let data = Ptr::operand(SUMMARY);
        let norms_queries = self.norms_queries.into();
        Summary { data, heads: p.q.shape[1] as i32, rows: rows as i32, norms_queries, pad: 0 }
    }
}

/// Rows of a matrix in shared memory come in grains; its columns in blocks, and 16-bit rows are a unit longer. Mirrors
/// `prim::Matrix`.
pub(super) const MATRIX_ROWS: usize = 16;

pub(super) fn matrix_pitch(columns: usize, dtype: DType) -> usize {
    match dtype {
        DType::F32 => columns.next_multiple_of(32) * 4,
        DType::F16 | DType::Bf16 => columns.next_multiple_of(16) * 2 + 16,
    }
}

/// One layer, whatever its input and output.
struct Layer<'a> {
    problem: &'a ForwardProblem,
    along: Along,
    part: Part,
    v: Source<'a>,
    /// Absent when only statistics are wanted.
    o: Option<Source<'a>>,
    norm: Norm,
    partials: Ptr,
    content: Option<Content>,
    gpu: &'a Gpu,
}

impl Layer<'_> {
    fn lines(&self) -> Lines {
        let p = self.problem;
        Lines::new(p.q.shape, p.v.shape[4], self.along, self.part, p.dtype)
    }

    fn launch(&self) -> Result<Launch> {
        let p = self.problem;
        let (operand, layout) = match self.along {
            Along::Columns => (COLUMNS, p.columns),
            Along::Rows => (ROWS, p.rows),
        };
        let lines = self.lines();
        let (entry, fixed_bytes) = entry(p.dtype, &p.q, &p.v);
        let (summary, summary_bytes) = self.summary(fixed_bytes);
        let params = AxialFwdParams {
            q: Source::Operand(Q, &p.q).map(self.along),
            v: self.v.map(self.along),
            o: self.o.map_or(Map::NONE, |o| o.map(self.along)),
            table: Table::of(operand, &layout.unwrap_or(Layout::contiguous([1, 1, 1]))),
            norm: self.norm,
            summary,
            partials: self.partials,
            lines,
            pad: 0,
        };
        let blocks = lines.blocks_of_head() * self.part.heads;
        Ok(Launch::new(entry, grid(OP, blocks)?, (fixed_bytes + summary_bytes) as u32, &params))
    }

    /// What is added, and its bytes in shared memory behind all else: the summary, or as much as there is room for.
    fn summary(&self, fixed_bytes: usize) -> (Summary, usize) {
        let Some(content) = self.content else { return (Summary::NONE, 0) };
        let p = self.problem;
        let pitch = matrix_pitch(p.v.shape[4], p.dtype);
        let room = (self.gpu.shared_optin_bytes as usize).saturating_sub(fixed_bytes) / pitch;
        let fitting = (room / MATRIX_ROWS).max(1) * MATRIX_ROWS;
        let rows = p.q.shape[4].next_multiple_of(MATRIX_ROWS).min(fitting);
        (content.summary(p, rows), rows * pitch)
    }
}

/// The entry, and its shared memory without a summary: `kSummaryAt` in `kernels/axial_fwd.cu`.
fn entry(dtype: DType, q: &Layout<5>, v: &Layout<5>) -> (&'static str, usize) {
    match (dtype, q.shape[4].max(v.shape[4]) <= 64) {
        (DType::F32, true) => ("axial_fwd_f32_d64", 39296),
        (DType::F32, false) => ("axial_fwd_f32_d128", 73856),
        (DType::F16, true) => ("axial_fwd_f16_d64", 45056),
        (DType::F16, false) => ("axial_fwd_f16_d128", 80640),
        (DType::Bf16, true) => ("axial_fwd_bf16_d64", 45056),
        (DType::Bf16, false) => ("axial_fwd_bf16_d128", 80640),
    }
}

fn check(p: &ForwardProblem) -> Result<()> {
    check_extent(&p.q)?;
    for (arg, layout) in [("q", &p.q), ("v", &p.v), ("o", &p.o)] {
        check_contiguous(OP, arg, layout)?;
    }
    p.y.as_ref().map_or(Ok(()), |y| check_contiguous(OP, "y", y))?;
    p.columns.as_ref().map_or(Ok(()), |t| check_contiguous(OP, "columns", t))?;
    p.rows.as_ref().map_or(Ok(()), |t| check_contiguous(OP, "rows", t))
}

/// Batch norm of a layer's input, with mean and variance from elsewhere.
pub(super) fn norm(
    config: &AxialConfig,
    affine: &Option<[Layout<2>; 2]>,
    operands: [u8; 2],
    statistics: Option<[Vector; 2]>,
) -> Norm {
    match (affine, statistics) {
        (Some([weight, bias]), Some([mean, var])) => Norm {
            weight: Vector::of(operands[0], weight),
            bias: Vector::of(operands[1], bias),
            mean,
            var,
            epsilon: config.epsilon,
            pad: 0,
        },
        _ => Norm::NONE,
    }
}

/// The statistics of this batch: where their parts go, and where they end up.
struct Batch {
    partials: Ptr,
    mean: Vector,
    var: Vector,
    launch: Launch,
}

impl Batch {
    /// `blocks`: of a head in the first layer.
    fn new(workspace: &mut Arena, p: &ForwardProblem, affine: &Layout<2>, blocks: usize) -> Result<Self> {
        let ([_, heads, ..], [norm_heads, e]) = (p.q.shape, affine.shape);
        let partials = workspace.take(blocks.saturating_mul(heads).saturating_mul((1 + 2 * e) * 4));
        let mut vector = || Vector::scratch(workspace.take(norm_heads * e * 4), norm_heads, e);
        let (mean, var) = (vector(), vector());
        let [mean_out, var_out] = match &p.batch {
            Some([mean, var]) => [Vector::of(MEAN_OUT, mean), Vector::of(VAR_OUT, var)],
            None => [Vector::NONE; 2],
        };
        let count = if norm_heads == 1 { blocks * heads } else { blocks };
        let params =
            AxialFwdNormParams { partials, mean, var, mean_out, var_out, count: count as i32, e: e as i32 };
        let launch = launch(OP, "axial_fwd_norm_f32", norm_heads * e.div_ceil(NORM_CHANNELS), &params)?;
        Ok(Self { partials, mean, var, launch })
    }
}

/// What a forward call launches; `content`: what it adds, with both layers.
pub(in crate::ops) fn plan(
    config: &AxialConfig,
    p: &ForwardProblem,
    content: Option<Content>,
    gpu: &Gpu,
) -> Result<Plan> {
    check(p)?;
    if p.o.is_empty() {
        return plan_nothing(p);
    }
    let mut workspace = Arena::default();
    let (v, o) = (Source::Operand(V, &p.v), Source::Operand(O, &p.o));
    let whole = Part::whole(p.q.shape);
    let layer = Layer {
        problem: p,
        along: Along::Columns,
        part: whole,
        v,
        o: Some(o),
        norm: Norm::NONE,
        partials: Ptr::NULL,
        content: None,
        gpu,
    };
    match config.axes {
        Axes::Columns => return workspace.plan(OP, vec![layer.launch()?]),
        Axes::Rows => return workspace.plan(OP, vec![Layer { along: Along::Rows, ..layer }.launch()?]),
        Axes::ColumnsThenRows => {}
    }
    let y = p.y.as_ref().map(|y| Source::Operand(Y, y));
    let mut launches = Vec::new();
    let statistics = match (config.norm, &p.affine, &p.given) {
        (BatchNorm::Train, Some([affine, _]), _) => {
            let batch = Batch::new(&mut workspace, p, affine, layer.lines().blocks_of_head())?;
            launches.push(Layer { o: y, partials: batch.partials, ..layer }.launch()?);
            launches.push(batch.launch);
            Some([batch.mean, batch.var])
        }
        (BatchNorm::Eval, _, Some([mean, var])) => Some([Vector::of(MEAN, mean), Vector::of(VAR, var)]),
        _ => None,
    };
    let norm = norm(config, &p.affine, [WEIGHT, BIAS], statistics);
    if config.norm != BatchNorm::Train
        && let Some(launch) = map::plan(p, norm, content, gpu)?
    {
        return workspace.plan(OP, vec![launch]);
    }
    let rows = Layer { along: Along::Rows, norm, content, ..layer };
    match y {
        Some(y) => {
            if config.norm != BatchNorm::Train {
                launches.push(Layer { o: Some(y), ..layer }.launch()?);
            }
            launches.push(Layer { v: y, ..rows }.launch()?);
        }
        None => {
            let [_, _, ys, xs, e] = p.v.shape;
            let plane_bytes = ys.saturating_mul(xs).saturating_mul(e * p.dtype.bytes());
            let parts = Part::split(p.v.shape, SCRATCH_BYTES / plane_bytes);
            let planes = parts.iter().map(Part::planes).max().unwrap_or(1);
            let data = workspace.take(plane_bytes.saturating_mul(planes));
            for part in parts {
                let between = Source::Scratch(Scratch { data, shape: p.v.shape, part });
                launches.push(Layer { part, o: Some(between), ..layer }.launch()?);
                launches.push(Layer { part, v: between, ..rows }.launch()?);
            }
        }
    }
    workspace.plan(OP, launches)
}

/// Without pixels there are no outputs but the statistics, which are 0.
fn plan_nothing(p: &ForwardProblem) -> Result<Plan> {
    let mut workspace = Arena::default();
    let launches = match (&p.affine, &p.batch) {
        (Some([affine, _]), Some(_)) if !affine.is_empty() => {
            vec![Batch::new(&mut workspace, p, affine, 0)?.launch]
        }
        _ => Vec::new(),
    };
    workspace.plan(OP, launches)
}
