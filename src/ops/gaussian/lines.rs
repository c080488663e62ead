//! Plans of the passes over lines: any map, one axis at a time, through a scratch chunk that is used again and again.

use super::params::{BwdLineParams, BwdSumParams, LineParams, NormParams, Strides};
use super::plan::{BackwardProblem, ForwardProblem, Map, OP, radius, rounding};
use crate::config::gaussian::{GaussianConfig, Norm};
use crate::ops::planning::{Arena, grid, launch};
use crate::plan::Ptr;
use crate::{DType, Launch, Layout, Plan, Result};

/// The axis that a pass sums along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    Y,
    X,
}

/// Bytes of an intermediate that stay in the L2 cache of every class until the next pass reads them.
const SCRATCH_BYTES: i64 = 16 << 20;
const SECTOR_BYTES: i32 = 32;

// Constants of `kernels/gaussian_line.cuh` and its kernels.
const TILE: i64 = 64;
const UNIT_BYTES: i64 = 16;
const QUAD: i32 = 4;
const COLUMNS_F32: i64 = 32;
const COLUMNS_16: i64 = 8;
const COLUMNS_BWD: i64 = 16;

/// A part of the work whose intermediate fits the scratch: planes, channels, and outputs of the first pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    first_bh: i32,
    num_bh: i32,
    channel: i32,
    channels: i32,
    first_out: i32,
    num_out: i32,
}

/// How the work is cut: by planes if a plane's intermediate fits the scratch, else by channels, else by outputs of the
/// first pass as well. Then every pass reads the input's halo once more per cut.
struct Cut {
    first: Along,
    planes: i32,
    units: i32,
    outs: i32,
    /// Channels per unit of 16 bytes, and bytes of the intermediate per pixel and unit.
    unit: i32,
    unit_bytes: i64,
}

/// As many as fit, at least `fewest`, at most `whole`.
fn fitting(whole: i32, bytes_of_one: i64, fewest: i32) -> i32 {
    let fit = (SCRATCH_BYTES / bytes_of_one).clamp(fewest.min(whole).into(), whole.into());
    i32::try_from(fit).unwrap_or(whole)
}

impl Cut {
    fn new(map: &Map, first: Along, dtype: DType, unit: i32, unit_bytes: i64) -> Self {
        let (outs, others) = match first {
            Along::Y => (map.y, map.x),
            Along::X => (map.x, map.y),
        };
        let units = (map.d + unit - 1) / unit;
        let out_bytes = i64::from(others) * unit_bytes;
        let channel_bytes = out_bytes * i64::from(outs);
        let plane_bytes = channel_bytes * i64::from(units);
        if plane_bytes <= SCRATCH_BYTES {
            return Self {
                first,
                planes: fitting(map.planes(), plane_bytes, 1),
                units,
                outs,
                unit,
                unit_bytes,
            };
        }
        // Fewer channels than a sector holds would read it more than once.
        let of_sector = SECTOR_BYTES / (unit * dtype.bytes() as i32);
        let units = fitting(units, channel_bytes, of_sector);
        let outs = fitting(outs, out_bytes * i64::from(units), 1);
        Self { first, planes: 1, units, outs, unit, unit_bytes }
    }

    /// Bytes of the intermediate of the largest chunk.
    fn bytes(&self, map: &Map) -> i64 {
        let others = if self.first == Along::Y { map.x } else { map.y };
        let pixels = i64::from(self.planes) * i64::from(self.outs) * i64::from(others);
        pixels * i64::from(self.units) * self.unit_bytes
    }

    /// The chunks of one group of planes, by channels and outputs.
    fn chunks(&self, map: &Map, first_bh: i32, num_bh: i32) -> Vec<Chunk> {
        let outs = if self.first == Along::Y { map.y } else { map.x };
        let mut chunks = Vec::new();
        for (channel, channels) in steps(map.d, self.units * self.unit) {
            for (first_out, num_out) in steps(outs, self.outs) {
                chunks.push(Chunk { first_bh, num_bh, channel, channels, first_out, num_out });
            }
        }
        chunks
    }

    /// The intermediate of a chunk as a tensor. The first pass counts its outputs from the map's border on, the second
    /// has them as lines and counts from 0.
    fn strides(&self, map: &Map, chunk: &Chunk, along: Along) -> Strides {
        let pixel = i64::from((chunk.channels + self.unit - 1) / self.unit * self.unit);
        let (ys, xs) = match self.first {
            Along::Y => (chunk.num_out, map.x),
            Along::X => (map.y, chunk.num_out),
        };
        let row = i64::from(xs) * pixel;
        let plane = i64::from(ys) * row;
        let (line, axis) = match along {
            Along::Y => (pixel, row),
            Along::X => (row, pixel),
        };
        let skipped = if along == self.first { i64::from(chunk.first_out) * axis } else { 0 };
        let offset = -i64::from(chunk.first_bh) * plane - skipped;
        Strides { offset, b: i64::from(map.h) * plane, h: plane, line, axis }
    }
}

/// (first, count) of each step.
fn steps(whole: i32, step: i32) -> impl Iterator<Item = (i32, i32)> {
    let mut at = 0i32;
    std::iter::from_fn(move || {
        let first = at;
        at = at.saturating_add(step);
        (first < whole).then(|| (first, step.min(whole - first)))
    })
}

/// A tensor of the call, for the second pass over a chunk.
fn from_line(mut at: Strides, line: i32) -> Strides {
    at.offset += i64::from(line) * at.line;
    at
}

/// The factors that `gaussian_fwd_norm_f32` makes, one table per radius.
struct Tables {
    at: Ptr,
    stride: i64,
    first: i64,
    mean_y: i64,
    second: i64,
    mean_x: i64,
    last: i64,
}
const NO_FACTOR: i64 = -1;

impl Tables {
    fn new(scratch: &mut Arena, map: &Map, radii: usize) -> Self {
        let (y, x) = (i64::from(map.y), i64::from(map.x));
        let stride = 2 * (y + x) + 1;
        let at = scratch.take(radii as i64 * stride * 4);
        Self { at, stride, first: 0, mean_y: y, second: 2 * y, mean_x: 2 * y + x, last: 2 * (y + x) }
    }

    /// The launch that fills them.
    fn launch(
        &self,
        config: &GaussianConfig,
        map: &Map,
        sigma: &Layout<1>,
        what: Direction,
    ) -> Result<Launch> {
        let params = NormParams {
            radius: radius(config, sigma),
            tables: self.at,
            y: map.y,
            x: map.x,
            is_row: (config.norm == Norm::Row).into(),
            is_backward: what.is_backward.into(),
            rounding: rounding(what.weights),
            pad: 0,
        };
        launch(OP, "gaussian_fwd_norm_f32", sigma.shape[0] as i128, &params)
    }
}

/// What the tables are for: which factors, of weights rounded how.
struct Direction {
    is_backward: bool,
    weights: DType,
}

/// Which factors of a table a pass applies: to inputs, to outputs by position (or one for all), to outputs by line.
#[derive(Clone, Copy)]
struct Factors {
    pre: i64,
    post_axis: i64,
    post_axis_step: i32,
    post_line: i64,
}
impl Factors {
    const NONE: Factors =
        Factors { pre: NO_FACTOR, post_axis: NO_FACTOR, post_axis_step: 0, post_line: NO_FACTOR };
}

/// A product with A or its transpose: one pass along each axis, or one pass where y has a single position.
struct Product<'a> {
    dtype: DType,
    map: &'a Map,
    radius: super::params::Radius,
    tables: &'a Tables,
    src: (Ptr, &'a Layout<5>),
    dst: (Ptr, &'a Layout<5>),
    first: Along,
    along_y: Factors,
    along_x: Factors,
}

impl Product<'_> {
    fn launches(&self, scratch: &mut Arena) -> Result<Vec<Launch>> {
        let (src, dst) = (self.src, self.dst);
        let planes = self.map.planes();
        if self.map.y == 1 {
            let whole = Chunk {
                first_bh: 0,
                num_bh: planes,
                channel: 0,
                channels: self.map.d,
                first_out: 0,
                num_out: self.map.x,
            };
            let from = self.map.strides(src.1, Along::X, 0);
            let to = self.map.strides(dst.1, Along::X, 0);
            return Ok(vec![self.pass(Along::X, &whole, true, (src.0, from), (dst.0, to))?]);
        }
        let cut = Cut::new(
            self.map,
            self.first,
            self.dtype,
            UNIT_BYTES as i32 / self.dtype.bytes() as i32,
            UNIT_BYTES,
        );
        let between = scratch.take(cut.bytes(self.map));
        let second = if self.first == Along::Y { Along::X } else { Along::Y };
        let mut launches = Vec::new();
        for (first_bh, num_bh) in steps(planes, cut.planes) {
            for chunk in cut.chunks(self.map, first_bh, num_bh) {
                let from = self.map.strides(src.1, self.first, chunk.channel);
                let via = cut.strides(self.map, &chunk, self.first);
                launches.push(self.pass(self.first, &chunk, true, (src.0, from), (between, via))?);
                let via = cut.strides(self.map, &chunk, second);
                let to = from_line(self.map.strides(dst.1, second, chunk.channel), chunk.first_out);
                launches.push(self.pass(second, &chunk, false, (between, via), (dst.0, to))?);
            }
        }
        Ok(launches)
    }

    fn pass(
        &self,
        along: Along,
        chunk: &Chunk,
        is_first: bool,
        (src, src_at): (Ptr, Strides),
        (dst, dst_at): (Ptr, Strides),
    ) -> Result<Launch> {
        let (kernel, columns, unit) = match self.dtype {
            DType::F32 => ("gaussian_fwd_line_f32", COLUMNS_F32, 4),
            DType::F16 => ("gaussian_fwd_line_f16", COLUMNS_16, 8),
            DType::Bf16 => ("gaussian_fwd_line_bf16", COLUMNS_16, 8),
        };
        let (axis, lines, factors) = match along {
            Along::Y => (self.map.y, self.map.x, self.along_y),
            Along::X => (self.map.x, self.map.y, self.along_x),
        };
        // The first pass cuts its outputs and takes every line; the second takes those outputs as its lines.
        let (first_out, num_out, first_line, num_lines) = if is_first {
            (chunk.first_out, chunk.num_out, 0, lines)
        } else {
            (0, axis, chunk.first_out, chunk.num_out)
        };
        let by_line = |first: i64| if first == NO_FACTOR { first } else { first + i64::from(first_line) };
        let params = LineParams {
            radius: self.radius,
            src,
            dst,
            tables: self.tables.at,
            src_at,
            dst_at,
            table_stride: self.tables.stride,
            pre: factors.pre,
            post_axis: factors.post_axis,
            post_line: by_line(factors.post_line),
            post_axis_step: factors.post_axis_step,
            heads: self.map.h,
            first_bh: chunk.first_bh,
            axis,
            first_out,
            num_out,
            num_lines,
            channels: chunk.channels,
        };
        let units = (chunk.channels + unit - 1) / unit;
        let blocks = blocks(num_out, num_lines, units, columns) * i128::from(chunk.num_bh);
        launch(OP, kernel, blocks, &params)
    }
}

/// Blocks of one plane of a pass.
fn blocks(outs: i32, lines: i32, per_line: i32, columns: i64) -> i128 {
    let tiles = (i64::from(outs) + TILE - 1) / TILE;
    let groups = (i64::from(lines) * i64::from(per_line) + columns - 1) / columns;
    i128::from(tiles) * i128::from(groups)
}

pub(super) fn forward(config: &GaussianConfig, problem: &ForwardProblem, map: &Map) -> Result<Plan> {
    let mut scratch = Arena::default();
    let tables = Tables::new(&mut scratch, map, problem.sigma.shape[0]);
    let direction = Direction { is_backward: false, weights: problem.dtype };
    let mut launches = vec![tables.launch(config, map, &problem.sigma, direction)?];
    let by_position = |post_axis| Factors { post_axis, post_axis_step: 1, ..Factors::NONE };
    let product = Product {
        dtype: problem.dtype,
        map,
        radius: radius(config, &problem.sigma),
        tables: &tables,
        src: (Ptr::operand(0), &problem.v),
        dst: (Ptr::operand(2), &problem.o),
        first: Along::Y,
        along_y: by_position(tables.first),
        along_x: by_position(tables.second),
    };
    launches.extend(product.launches(&mut scratch)?);
    scratch.plan(OP, launches)
}

const D_O: Ptr = Ptr::operand(2);
const DV: Ptr = Ptr::operand(3);
const DSIGMA: Ptr = Ptr::operand(4);

pub(super) fn backward(config: &GaussianConfig, problem: &BackwardProblem, map: &Map) -> Result<Plan> {
    match (&problem.dv, &problem.dsigma) {
        (None, None) => Ok(Plan::default()),
        (Some(dv), None) => backward_v(config, problem, map, dv),
        (_, Some(dsigma)) => backward_both(config, problem, map, dsigma),
    }
}

/// `dv = Aᵀ d_o` alone.
fn backward_v(config: &GaussianConfig, problem: &BackwardProblem, map: &Map, dv: &Layout<5>) -> Result<Plan> {
    let mut scratch = Arena::default();
    let tables = Tables::new(&mut scratch, map, problem.sigma.shape[0]);
    let direction = Direction { is_backward: true, weights: problem.dtype };
    let mut launches = vec![tables.launch(config, map, &problem.sigma, direction)?];
    let pre = if config.norm == Norm::Row { tables.second } else { NO_FACTOR };
    let product = Product {
        dtype: problem.dtype,
        map,
        radius: radius(config, &problem.sigma),
        tables: &tables,
        src: (D_O, &problem.d_o),
        dst: (DV, dv),
        first: Along::X,
        along_y: Factors { post_axis: tables.last, ..Factors::NONE },
        along_x: Factors { pre, post_line: tables.first, ..Factors::NONE },
    };
    launches.extend(product.launches(&mut scratch)?);
    scratch.plan(OP, launches)
}

/// Both gradients, in f32 arithmetic for every element type: two passes with two intermediates, then the sum of partials.
fn backward_both(
    config: &GaussianConfig,
    problem: &BackwardProblem,
    map: &Map,
    dsigma: &Layout<1>,
) -> Result<Plan> {
    let mut scratch = Arena::default();
    let tables = Tables::new(&mut scratch, map, problem.sigma.shape[0]);
    let direction = Direction { is_backward: true, weights: DType::F32 };
    let mut launches = vec![tables.launch(config, map, &problem.sigma, direction)?];
    let (row, col) = match problem.dtype {
        DType::F32 => ("gaussian_bwd_row_f32", "gaussian_bwd_col_f32"),
        DType::F16 => ("gaussian_bwd_row_f16", "gaussian_bwd_col_f16"),
        DType::Bf16 => ("gaussian_bwd_row_bf16", "gaussian_bwd_col_bf16"),
    };

    let cut = Cut::new(map, Along::X, problem.dtype, QUAD, 2 * UNIT_BYTES);
    let half = cut.bytes(map) / 2;
    let (ghat, ehat) = (scratch.take(half), scratch.take(half));
    let quads = |chunk: &Chunk| (chunk.channels + QUAD - 1) / QUAD;
    let col_blocks = |chunk: &Chunk| blocks(map.y, chunk.num_out, quads(chunk), COLUMNS_BWD);
    let partials_bh: i128 = cut.chunks(map, 0, 1).iter().map(col_blocks).sum();
    let partials_bh = i64::from(grid(OP, partials_bh)?);
    let partials = scratch.take(partials_bh * i64::from(map.planes()) * 4);

    let common = BwdLineParams {
        radius: radius(config, &problem.sigma),
        d_o: D_O,
        dv: problem.dv.map_or(Ptr::NULL, |_| DV),
        v: Ptr::operand(0),
        ghat,
        ehat,
        partials,
        tables: tables.at,
        in_at: Strides::ZERO,
        out_at: Strides::ZERO,
        scratch_at: Strides::ZERO,
        table_stride: tables.stride,
        partials_bh,
        first_partial: 0,
        post_line: tables.first,
        mean_line: tables.mean_y,
        pre: tables.second,
        mean_axis: tables.mean_x,
        heads: map.h,
        first_bh: 0,
        axis: 0,
        first_out: 0,
        num_out: 0,
        num_lines: 0,
        channels: 0,
        pad: 0,
    };
    for (first_bh, num_bh) in steps(map.planes(), cut.planes) {
        let mut first_partial = 0;
        for chunk in cut.chunks(map, first_bh, num_bh) {
            let common = BwdLineParams { first_bh, channels: chunk.channels, ..common };
            let params = BwdLineParams {
                in_at: map.strides(&problem.d_o, Along::X, chunk.channel),
                scratch_at: cut.strides(map, &chunk, Along::X),
                axis: map.x,
                first_out: chunk.first_out,
                num_out: chunk.num_out,
                num_lines: map.y,
                ..common
            };
            let row_blocks = blocks(chunk.num_out, map.y, quads(&chunk), COLUMNS_BWD);
            launches.push(launch(OP, row, row_blocks * i128::from(num_bh), &params)?);
            let here = |layout| from_line(map.strides(layout, Along::Y, chunk.channel), chunk.first_out);
            let params = BwdLineParams {
                in_at: here(&problem.v),
                out_at: problem.dv.as_ref().map_or(Strides::ZERO, here),
                scratch_at: cut.strides(map, &chunk, Along::Y),
                axis: map.y,
                num_out: map.y,
                num_lines: chunk.num_out,
                first_partial,
                ..common
            };
            launches.push(launch(OP, col, col_blocks(&chunk) * i128::from(num_bh), &params)?);
            first_partial += i64::from(grid(OP, col_blocks(&chunk))?);
        }
    }
    launches.push(sum(config, problem, map.b, dsigma, partials, partials_bh)?);
    scratch.plan(OP, launches)
}

/// `dsigma` from the partial sums of `[b, h]` planes; `b` is 1 where partials are sums over images, too.
pub(super) fn sum(
    config: &GaussianConfig,
    problem: &BackwardProblem,
    b: i32,
    dsigma: &Layout<1>,
    partials: Ptr,
    per_bh: i64,
) -> Result<Launch> {
    let heads = i32::try_from(problem.v.shape[1]).unwrap_or(0); // proof: checked by Map, or empty
    let params = BwdSumParams {
        radius: radius(config, &problem.sigma),
        partials,
        dsigma: DSIGMA,
        per_bh,
        dsigma_stride: dsigma.strides[0] as i64,
        b,
        heads,
    };
    launch(OP, "gaussian_bwd_sum_f32", dsigma.shape[0] as i128, &params)
}

/// An empty map: the gradient of sigma is 0, and there is nothing else.
pub(super) fn backward_of_nothing(config: &GaussianConfig, problem: &BackwardProblem) -> Result<Plan> {
    let mut launches = Vec::new();
    if let Some(dsigma) = problem.dsigma.filter(|dsigma| !dsigma.is_empty()) {
        launches.push(sum(config, problem, 0, &dsigma, Ptr::NULL, 0)?);
    }
    Ok(Plan { launches, workspace_bytes: 0 })
}
