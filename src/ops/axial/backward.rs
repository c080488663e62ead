//! Launches of a backward call: the layer along rows, sums for batch norm, the layer along columns, sums for the tables.

use super::forward::{SCRATCH_BYTES, norm};
use super::lines::{Along, Part, Scratch, Source, check_extent, tile_rows};
use super::params::{
    AxialBwdNormParams, AxialBwdParams, AxialBwdTableParams, Lines, Map, Norm, Table, Vector,
};
use super::plan::{BackwardProblem, OP};
use crate::config::axial::{Axes, AxialConfig, BatchNorm};
use crate::ops::planning::{Arena, check_contiguous, launch, stride};
use crate::plan::Ptr;
use crate::{DType, Launch, Layout, Plan, Result};

/// Channels that a block of the launches of sums takes: of batch norm, of a table.
const NORM_CHANNELS: usize = 32;
const TABLE_CHANNELS: usize = 64;
/// Bytes of partial sums for a table's gradient: this, and a part of what the call reads.
const PARTIAL_BYTES: usize = 16 << 20;
const PARTIAL_SHARE: usize = 64;
/// A layer has so many rows of tiles in flight if there is work for them: two blocks for each multiprocessor of large GPUs.
const ROWS_LEAST: usize = 256 * 64;
/// More blocks than that leave partial sums of at most this part of what the call reads; writing and adding them takes time.
const PARTIAL_OF_READ: usize = 8;
/// Channels of a partial sum are padded to a grain.
const PITCH: usize = 16;

// Operands, as `BackwardProblem` counts them.
const Q: u8 = 0;
const V: u8 = 1;
const COLUMNS: u8 = 2;
const ROWS: u8 = 3;
const WEIGHT: u8 = 4;
const BIAS: u8 = 5;
const MEAN: u8 = 6;
const VAR: u8 = 7;
const Y: u8 = 8;
const D_O: u8 = 9;
const DQ: u8 = 10;
const DV: u8 = 11;
const DCOLUMNS: u8 = 12;
const DROWS: u8 = 13;
const DWEIGHT: u8 = 14;
const DBIAS: u8 = 15;

/// Mirrors `axial::NormOf`: what batch norm lies on.
#[derive(Clone, Copy, PartialEq)]
enum NormOf {
    Nothing = 0,
    Values = 1,
    Gradient = 2,
    GradientOfBatch = 3,
}

/// Where sums for batch norm's gradients go.
#[derive(Clone, Copy)]
struct NormSums {
    partials: Ptr,
    dweight: Vector,
    dbias: Vector,
}

/// One layer over a part of the maps.
#[derive(Clone, Copy)]
struct Layer<'a> {
    problem: &'a BackwardProblem,
    along: Along,
    part: Part,
    is_first_part: bool,
    v: Source<'a>,
    g: Source<'a>,
    dq: Option<Source<'a>>,
    dv: Option<Source<'a>>,
    adds_dq: bool,
    norm: Norm,
    norm_of: NormOf,
    norm_sums: Option<NormSums>,
    /// Of the table's gradient, if that is wanted.
    table_partials: Ptr,
}

/// What the launches of one layer share.
struct Shares {
    lines: Lines,
    partial_rows: usize,
    partial_pitch: usize,
    partial_begin: i32,
}

impl Shares {
    /// Bytes of the partial sums of all blocks.
    fn bytes(&self, heads: usize) -> usize {
        self.lines.blocks_of_head() * heads * self.partial_rows * self.partial_pitch * 4
    }
}

impl Layer<'_> {
    fn table(&self) -> Table {
        let p = self.problem;
        let (operand, layout) = match self.along {
            Along::Columns => (COLUMNS, p.columns),
            Along::Rows => (ROWS, p.rows),
        };
        Table::of(operand, &layout.unwrap_or(Layout::contiguous([1, 1, 1])))
    }

    /// The gradient of this layer's table.
    fn dtable(&self) -> Option<(u8, Layout<3>)> {
        match self.along {
            Along::Columns => self.problem.dcolumns.map(|t| (DCOLUMNS, t)),
            Along::Rows => self.problem.drows.map(|t| (DROWS, t)),
        }
    }

    fn shares(&self) -> Shares {
        let p = self.problem;
        let [d, e] = [p.q.shape[4], p.v.shape[4]];
        let lines = Lines::new(p.q.shape, e, self.along, self.part, p.dtype);
        let size = 16usize << lines.log2_grains;
        let reach = (self.table().reach as usize).min(lines.axis as usize);
        // Tiles that a tile reaches on either side; with itself, and a tile of offsets more than tiles of keys.
        let aside = reach.saturating_sub(1).div_ceil(size).min(lines.tiles as usize - 1);
        let partial_rows = (2 * aside + 2) * size;
        let partial_pitch = d.next_multiple_of(PITCH);
        let pixels = p.q.shape[..4].iter().product::<usize>();
        let read = pixels.saturating_mul((d + 2 * e) * p.dtype.bytes());
        let of_block = partial_rows * partial_pitch * 4;
        let blocks = (read / PARTIAL_OF_READ / of_block)
            .max(ROWS_LEAST / tile_rows(p.dtype))
            .min((PARTIAL_BYTES + read / PARTIAL_SHARE) / of_block);
        let lines = lines.at_most(self.part.heads, blocks);
        Shares { lines, partial_rows, partial_pitch, partial_begin: -(aside as i32) }
    }

    fn launches(&self) -> Result<Vec<Launch>> {
        let p = self.problem;
        let shares = self.shares();
        let Shares { lines, partial_rows, partial_pitch, partial_begin } = shares;
        let [b, h, y, x, _] = p.q.shape;
        let is_shared = p.affine.is_none_or(|[weight, _]| weight.shape[0] == 1);
        let count = b * y * x * if is_shared { h } else { 1 };
        let dtable = self.dtable();
        let map = |source: &Option<Source<'_>>| source.map_or(Map::NONE, |s| s.map(self.along));
        let y_map = match (&p.y, self.norm_of) {
            (Some(y), NormOf::GradientOfBatch) => Source::Operand(Y, y).map(self.along),
            _ => Map::NONE,
        };
        let params = AxialBwdParams {
            q: Source::Operand(Q, &p.q).map(self.along),
            v: self.v.map(self.along),
            g: self.g.map(self.along),
            y: y_map,
            dq: map(&self.dq),
            dv: map(&self.dv),
            table: self.table(),
            norm: self.norm,
            dweight: self.norm_sums.map_or(Vector::NONE, |s| s.dweight),
            dbias: self.norm_sums.map_or(Vector::NONE, |s| s.dbias),
            table_partials: if dtable.is_some() { self.table_partials } else { Ptr::NULL },
            norm_partials: match (self.norm_of, self.norm_sums) {
                (NormOf::Values, Some(sums)) => sums.partials,
                _ => Ptr::NULL,
            },
            lines,
            inverse_count: 1.0 / count as f32,
            norm_of: self.norm_of as i32,
            adds_dq: self.adds_dq.into(),
            partial_rows: partial_rows as i32,
            partial_pitch: partial_pitch as i32,
            partial_begin,
            pad: 0,
        };
        let blocks = lines.blocks_of_head();
        let mut launches = vec![launch(OP, entry(p), blocks * self.part.heads, &params)?];
        if let (NormOf::Values, Some(sums)) = (self.norm_of, self.norm_sums) {
            launches.push(norm_launch(p, sums, blocks, self.part, !self.is_first_part)?);
        }
        if let Some((operand, layout)) = dtable {
            launches.push(self.table_launch(operand, &layout, shares)?);
        }
        Ok(launches)
    }

    fn table_launch(
        &self,
        operand: u8,
        layout: &Layout<3>,
        Shares { lines, partial_rows, partial_pitch, partial_begin }: Shares,
    ) -> Result<Launch> {
        let [heads, rows, d] = layout.shape;
        let is_shared = heads == 1;
        let params = AxialBwdTableParams {
            partials: self.table_partials,
            table: self.table(),
            dtable: Ptr::operand(operand),
            stride_h: stride(layout, 0),
            stride_row: stride(layout, 1),
            stride_channel: stride(layout, 2),
            lines,
            heads: self.part.heads as i32,
            partial_rows: partial_rows as i32,
            partial_pitch: partial_pitch as i32,
            first_head: if is_shared { 0 } else { self.part.first_head as i32 },
            is_shared: is_shared.into(),
            // Parts with other heads of an own table write other rows of the gradient.
            adds: (if is_shared { !self.is_first_part } else { self.part.first_image > 0 }).into(),
            partial_begin,
        };
        let of = if is_shared { 1 } else { self.part.heads };
        launch(OP, "axial_bwd_table_f32", of * rows * d.div_ceil(TABLE_CHANNELS), &params)
    }
}

fn norm_launch(
    p: &BackwardProblem,
    sums: NormSums,
    blocks: usize,
    part: Part,
    is_later: bool,
) -> Result<Launch> {
    let [norm_heads, e] = p.affine.map_or([1, 1], |[weight, _]| weight.shape);
    let is_shared = norm_heads == 1;
    let params = AxialBwdNormParams {
        partials: sums.partials,
        dweight: sums.dweight,
        dbias: sums.dbias,
        dweight_out: p.dweight.map_or(Vector::NONE, |t| Vector::of(DWEIGHT, &t)),
        dbias_out: p.dbias.map_or(Vector::NONE, |t| Vector::of(DBIAS, &t)),
        heads: part.heads as i32,
        blocks: blocks as i32,
        first_head: if is_shared { 0 } else { part.first_head as i32 },
        is_shared: is_shared.into(),
        e: e as i32,
        adds: (if is_shared { is_later } else { part.first_image > 0 }).into(),
    };
    let of = if is_shared { 1 } else { part.heads };
    launch(OP, "axial_bwd_norm_f32", of * e.div_ceil(NORM_CHANNELS), &params)
}

fn entry(p: &BackwardProblem) -> &'static str {
    match (p.dtype, p.q.shape[4].max(p.v.shape[4]) <= 64) {
        (DType::F32, true) => "axial_bwd_f32_d64",
        (DType::F32, false) => "axial_bwd_f32_d128",
        (DType::F16, true) => "axial_bwd_f16_d64",
        (DType::F16, false) => "axial_bwd_f16_d128",
        (DType::Bf16, true) => "axial_bwd_bf16_d64",
        (DType::Bf16, false) => "axial_bwd_bf16_d128",
    }
}

fn check(p: &BackwardProblem) -> Result<()> {
    check_extent(&p.q)?;
    let maps = [("y", &p.y), ("dq", &p.dq), ("dv", &p.dv)];
    let given = maps.iter().filter_map(|(arg, layout)| layout.as_ref().map(|layout| (*arg, layout)));
    for (arg, layout) in [("q", &p.q), ("v", &p.v), ("d_o", &p.d_o)].into_iter().chain(given) {
        check_contiguous(OP, arg, layout)?;
    }
    p.columns.as_ref().map_or(Ok(()), |t| check_contiguous(OP, "columns", t))?;
    p.rows.as_ref().map_or(Ok(()), |t| check_contiguous(OP, "rows", t))
}

/// What a backward call launches; `adds_dq`: dq is added to what is there.
pub(in crate::ops) fn plan(config: &AxialConfig, p: &BackwardProblem, adds_dq: bool) -> Result<Plan> {
    check(p)?;
    let mut workspace = Arena::default();
    let whole = Part::whole(p.q.shape);
    let (v, g) = (Source::Operand(V, &p.v), Source::Operand(D_O, &p.d_o));
    let dq = p.dq.as_ref().map(|t| Source::Operand(DQ, t));
    let dv = p.dv.as_ref().map(|t| Source::Operand(DV, t));
    let layer = Layer {
        problem: p,
        along: Along::Columns,
        part: whole,
        is_first_part: true,
        v,
        g,
        dq,
        dv,
        adds_dq,
        norm: Norm::NONE,
        norm_of: NormOf::Nothing,
        norm_sums: None,
        table_partials: Ptr::NULL,
    };
    if p.v.is_empty() {
        return plan_nothing(layer, workspace);
    }
    if config.axes != Axes::ColumnsThenRows {
        let along = if config.axes == Axes::Rows { Along::Rows } else { Along::Columns };
        let layer = Layer { along, ..layer };
        if dq.is_none() && dv.is_none() && layer.dtable().is_none() {
            return Ok(Plan::default());
        }
        let bytes = layer.dtable().map_or(0, |_| layer.shares().bytes(whole.heads));
        let table_partials = workspace.take(bytes);
        return workspace.plan(OP, Layer { table_partials, ..layer }.launches()?);
    }
    plan_both(config, layer, workspace)
}

/// Rows, then columns, through the gradient between them: a part of the maps at a time, or, where a sum over all of them is
/// needed first, all at once.
fn plan_both(config: &AxialConfig, layer: Layer<'_>, mut workspace: Arena) -> Result<Plan> {
    let p = layer.problem;
    let has_norm = config.norm != BatchNorm::None;
    let wants_first = p.dq.is_some() || p.dv.is_some() || p.dcolumns.is_some();
    let wants_norm = p.dweight.is_some() || p.dbias.is_some();
    if !wants_first && !wants_norm && p.drows.is_none() {
        return Ok(Plan::default());
    }
    let [_, _, ys, xs, e] = p.v.shape;
    let plane_bytes = ys.saturating_mul(xs).saturating_mul(e * p.dtype.bytes());
    let parts = match config.norm {
        BatchNorm::Train => vec![layer.part],
        _ => Part::split(p.v.shape, SCRATCH_BYTES / plane_bytes),
    };
    let largest = |of: &dyn Fn(Part) -> usize| parts.iter().map(|&part| of(part)).max().unwrap_or(0);
    // A block that holds whole columns may put their gradient where it read that of the rows.
    let has_whole_columns =
        Layer { along: Along::Columns, ..layer }.shares().lines.tiles == 1 && config.norm == BatchNorm::Train;
    let scratch = match layer.dv {
        Some(_) if has_whole_columns => Ptr::NULL,
        _ if wants_first => workspace.take(plane_bytes.saturating_mul(largest(&|part| part.planes()))),
        _ => Ptr::NULL,
    };
    let table_bytes = |along: Along, is_wanted: bool| {
        let bytes = |part: Part| Layer { along, part, ..layer }.shares().bytes(part.heads);
        if is_wanted { largest(&bytes) } else { 0 }
    };
    let partials =
        table_bytes(Along::Rows, p.drows.is_some()).max(table_bytes(Along::Columns, p.dcolumns.is_some()));
    let table_partials = workspace.take(partials);
    let norm_sums = match &p.affine {
        Some([weight, _]) if wants_norm || config.norm == BatchNorm::Train => {
            let blocks = |part: Part| {
                Layer { along: Along::Rows, part, ..layer }.shares().lines.blocks_of_head() * part.heads
            };
            let partials = workspace.take(largest(&blocks).saturating_mul(2 * e * 4));
            let heads = weight.shape[0];
            let mut vector = || Vector::scratch(workspace.take(heads * e * 4), heads, e);
            Some(NormSums { partials, dweight: vector(), dbias: vector() })
        }
        _ => None,
    };
    let statistics = p.statistics.as_ref().map(|[mean, var]| [Vector::of(MEAN, mean), Vector::of(VAR, var)]);
    let norm = norm(config, &p.affine, [WEIGHT, BIAS], statistics);
    let y = p.y.as_ref().map_or(layer.v, |y| Source::Operand(Y, y));
    let mut launches = Vec::new();
    for (i, &part) in parts.iter().enumerate() {
        let between = match (scratch, layer.dv) {
            (Ptr::NULL, Some(dv)) => Some(dv),
            (Ptr::NULL, None) => None,
            (data, _) => Some(Source::Scratch(Scratch { data, shape: p.v.shape, part })),
        };
        let layer = Layer { part, is_first_part: i == 0, norm, norm_sums, table_partials, ..layer };
        let rows = Layer {
            along: Along::Rows,
            v: y,
            dv: if wants_first { between } else { None },
            norm_of: if has_norm { NormOf::Values } else { NormOf::Nothing },
            ..layer
        };
        launches.extend(rows.launches()?);
        if let (true, Some(g)) = (wants_first, between) {
            let norm_of = match config.norm {
                BatchNorm::None => NormOf::Nothing,
                BatchNorm::Eval => NormOf::Gradient,
                BatchNorm::Train => NormOf::GradientOfBatch,
            };
            launches.extend(Layer { g, adds_dq: true, norm_of, ..layer }.launches()?);
        }
    }
    workspace.plan(OP, launches)
}

/// Without pixels the gradients of parameters are 0.
fn plan_nothing(layer: Layer<'_>, mut workspace: Arena) -> Result<Plan> {
    let p = layer.problem;
    let partials = workspace.take(4);
    let mut launches = Vec::new();
    for along in [Along::Columns, Along::Rows] {
        let layer = Layer { along, table_partials: partials, ..layer };
        if let Some((operand, layout)) = layer.dtable().filter(|(_, layout)| !layout.is_empty()) {
            let lines = Lines::nothing(p.q.shape[4], p.v.shape[4]);
            let nothing = Shares { lines, partial_rows: 1, partial_pitch: 1, partial_begin: 0 };
            launches.push(layer.table_launch(operand, &layout, nothing)?);
        }
    }
    if let Some([weight, _]) =
        p.affine.filter(|[weight, _]| !weight.is_empty() && (p.dweight.is_some() || p.dbias.is_some()))
    {
        let [heads, e] = weight.shape;
        let mut vector = || Vector::scratch(workspace.take(heads * e * 4), heads, e);
        let sums = NormSums { partials, dweight: vector(), dbias: vector() };
        let part = Part { heads, ..layer.part };
        launches.push(norm_launch(p, sums, 0, part, false)?);
    }
    workspace.plan(OP, launches)
}
