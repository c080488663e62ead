//! Launches and cost of `local`.

mod params;
mod tiling;

use crate::config::local::{LocalConfig, Relative};
use crate::plan::Ptr;
use crate::{Cost, DType, Error, Gpu, Launch, Layout, Plan, Result};
use params::{Axis, LocalFwdParams, Map, Table};
use tiling::Task;

/// Window rows above which a warp takes two patches: keys are then shared by most of both.
const TALL_ABOVE: usize = 7;
/// Rows, columns and (batch, head) pairs stay below this.
const EXTENT_MAX: usize = 1 << 28;

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

pub(super) fn forward(config: &LocalConfig, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
    if problem.o.is_empty() {
        return Ok(Plan::default());
    }
    let p = problem;
    check_extent(&p.q)?;
    check_channels(&[("q", &p.q), ("k", &p.k), ("v", &p.v), ("o", &p.o)])?;
    let class = Class::of(p.dtype, &p.q, &p.v);
    let table_shape = tiling::table_shape(config.window);
    let cut = |is_tall: bool| {
        let patches = if is_tall { 2 } else { 1 };
        let warp_bytes = patches * table_shape.bytes as usize;
        let pairs_up = !is_tall && class.channels <= 64;
        Task { patches, warp_bytes, pairs_up, ..task(config, class, &p.q, &p.v, gpu) }
            .tile(axes(config, &p.q))
    };
    let wants_tall = p.dtype != DType::F32 && class.channels <= 64 && config.window[0] > TALL_ABOVE;
    // The tables of two patches can be too large for the smallest GPUs.
    let tall = if wants_tall { cut(true) } else { None };
    let is_tall = tall.is_some();
    let tiling = tall.or_else(|| cut(false)).ok_or_else(too_little_memory)?;
    let (scale_log2, is_negative) = scale_log2(config.scale);
    let params = LocalFwdParams {
        q: Map::of(0, &p.q, p.dtype),
        k: Map::of(1, &p.k, p.dtype),
        v: Map::of(2, &p.v, p.dtype),
        o: Map::of(5, &p.o, p.dtype),
        lse: if p.lse.is_some() { Ptr::operand(6) } else { Ptr::NULL },
        tables: tables(config, p.tables, p.q.shape[4], p.dtype),
        frame: tiling.frame,
        table_shape,
        scale_log2,
        is_negative,
    };
    let kernel = match (p.dtype, class.channels, is_tall) {
        (DType::F32, ..) => "local_fwd_f32",
        (DType::F16, 32, false) => "local_fwd_f16_d32",
        (DType::F16, 64, false) => "local_fwd_f16_d64",
        (DType::F16, 32, true) => "local_fwd_f16_d32_tall",
        (DType::F16, 64, true) => "local_fwd_f16_d64_tall",
        (DType::F16, ..) => "local_fwd_f16_d128",
        (DType::Bf16, 32, false) => "local_fwd_bf16_d32",
        (DType::Bf16, 64, false) => "local_fwd_bf16_d64",
        (DType::Bf16, 32, true) => "local_fwd_bf16_d32_tall",
        (DType::Bf16, 64, true) => "local_fwd_bf16_d64_tall",
        (DType::Bf16, ..) => "local_fwd_bf16_d128",
    };
    let launch = Launch::new(kernel, grid(tiling.tiles)?, tiling.shared_bytes as u32, &params);
    Ok(Plan { launches: vec![launch], workspace_bytes: 0 })
}

pub(super) fn backward(_config: &LocalConfig, _problem: &BackwardProblem, _gpu: &Gpu) -> Result<Plan> {
    Err(Error::unsupported("local", "no CUDA kernels in this build"))
}

/// The compiled class of a problem.
#[derive(Clone, Copy)]
struct Class {
    /// Channels of a pixel in shared memory.
    channels: usize,
    pixel_bytes: usize,
}

impl Class {
    fn of(dtype: DType, q: &Layout<5>, v: &Layout<5>) -> Self {
        let most = q.shape[4].max(v.shape[4]);
        let channels = match dtype {
            DType::F32 => tiling::round_up(most, 32),
            DType::F16 | DType::Bf16 => most.next_power_of_two().max(32),
        };
        Self { channels, pixel_bytes: channels * dtype.bytes() }
    }
}

/// The part of a task that all passes share.
fn task(config: &LocalConfig, class: Class, q: &Layout<5>, v: &Layout<5>, gpu: &Gpu) -> Task {
    let [batch, heads, y, x, d] = q.shape;
    let reach = config.window.map(|k| k - 1);
    Task {
        batch,
        heads,
        size: [y, x],
        channels: [d, v.shape[4]],
        pixel_bytes: class.pixel_bytes,
        patches: 1,
        by_head: false,
        warp_bytes: 0,
        extra_pixel_bytes: 0,
        reach,
        usual_reach: reach,
        shared_max: gpu.shared_optin_bytes as usize,
        shared_min: 0,
        pairs_up: false,
    }
}

fn axes(config: &LocalConfig, q: &Layout<5>) -> [Axis; 2] {
    [0, 1].map(|i| tiling::axis(config, i, q.shape[2 + i]))
}

fn tables(config: &LocalConfig, layouts: Option<[Layout<3>; 2]>, d: usize, dtype: DType) -> [Table; 2] {
    let first = match config.relative {
        Relative::Concat => [0, d / 2],
        Relative::Sum => [0, 0],
    };
    match layouts {
        Some(layouts) => [0, 1].map(|i| Table::of(3 + i as u8, &layouts[i], first[i], dtype)),
        None => [Table::NONE; 2],
    }
}

/// Kernels count pixels, planes and tiles in 32 bits.
fn check_extent(q: &Layout<5>) -> Result<()> {
    let [b, h, y, x, _] = q.shape;
    if y.max(x) >= EXTENT_MAX || b.saturating_mul(h) >= EXTENT_MAX {
        let what = format!("maps of 2^28 rows, columns or (batch, head) pairs and more, got {:?}", q.shape);
        return Err(Error::unsupported("local", what));
    }
    Ok(())
}

/// Kernels read neighbouring channels together.
fn check_channels(tensors: &[(&str, &Layout<5>)]) -> Result<()> {
    for (arg, layout) in tensors {
        if layout.shape[4] > 1 && layout.strides[4] != 1 {
            let what = format!("`{arg}` with {} elements from channel to channel; only 1", layout.strides[4]);
            return Err(Error::unsupported("local", what));
        }
    }
    Ok(())
}

fn grid(tiles: usize) -> Result<u32> {
    u32::try_from(tiles)
        .ok()
        .filter(|&tiles| tiles <= i32::MAX as u32)
        .ok_or_else(|| Error::unsupported("local", format!("{tiles} tiles, more than a grid holds")))
}

fn too_little_memory() -> Error {
    Error::unsupported("local", "GPUs with less shared memory per block than 99 KiB")
}

/// |α|·log2 e, and whether α is negative. Never 0: masked scores are −∞, and −∞·0 is no number.
fn scale_log2(scale: f32) -> (f32, i32) {
    ((scale.abs() * std::f32::consts::LOG2_E).max(f32::MIN_POSITIVE), (scale < 0.0).into())
}

pub(super) fn forward_cost(config: &LocalConfig, problem: &ForwardProblem) -> Cost {
    let work = Work::of(config, &problem.q, &problem.v, problem.tables);
    let tensors = (2 * work.d + 2 * work.e) * work.pixels * problem.dtype.bytes() as u64;
    let lse = if problem.lse.is_some() { 4 * work.pixels } else { 0 };
    Cost {
        flops: work.pixels * (2 * work.keys * (work.d + work.e) + work.table_flops),
        min_bytes: tensors + lse + work.table_elements * problem.dtype.bytes() as u64,
        exps: work.pixels * work.keys,
    }
}

pub(super) fn backward_cost(config: &LocalConfig, problem: &BackwardProblem) -> Cost {
    let work = Work::of(config, &problem.q, &problem.v, problem.tables);
    let tensors = (4 * work.d + 4 * work.e) * work.pixels * problem.dtype.bytes() as u64;
    Cost {
        flops: work.pixels * (2 * work.keys * (3 * work.d + 2 * work.e) + 3 * work.table_flops),
        min_bytes: tensors + 4 * work.pixels + work.table_elements * (problem.dtype.bytes() as u64 + 4),
        exps: work.pixels * work.keys,
    }
}

/// What the mathematics needs (SPEC of the op: every query has its whole window).
struct Work {
    pixels: u64,
    keys: u64,
    d: u64,
    e: u64,
    table_flops: u64,
    table_elements: u64,
}

impl Work {
    fn of(config: &LocalConfig, q: &Layout<5>, v: &Layout<5>, tables: Option<[Layout<3>; 2]>) -> Self {
        let [ky, kx] = config.window.map(|k| k as u64);
        let d = q.shape[4] as u64;
        let channels = config.relative.table_channels(q.shape[4]).map(|c| c as u64);
        Self {
            pixels: q.shape[..4].iter().map(|&n| n as u64).product(),
            keys: ky * kx,
            d,
            e: v.shape[4] as u64,
            table_flops: if tables.is_some() { 2 * (ky * channels[0] + kx * channels[1]) } else { 0 },
            table_elements: tables.iter().flatten().map(|t| t.len() as u64).sum(),
        }
    }
}
