//! Launches and cost of `local`.

mod bias;
mod geometry;
mod params;
mod tiling;

use crate::config::local::{LocalConfig, Relative, Window};
use crate::ops::planning::{Map, check_contiguous, grid};
use crate::plan::{Divisor, Ptr};
use crate::{Cost, DType, Error, Gpu, Launch, Layout, Local, Plan, Result};
use bias::{LocalBwdDkvBiasParams, LocalBwdDqBiasParams, LocalFwdBiasParams};
use geometry::{Geometry, Sight};
use params::{
    LocalBwdDkvParams, LocalBwdDqParams, LocalBwdDrelParams, LocalFwdParams, LocalQueryTerms, Table,
    TableGradient,
};
use tiling::{Task, Tiling};

const OP: &str = Local::NAME;
/// Window rows above which a warp takes two patches: keys are then shared by most of both.
const TALL_ABOVE: usize = 7;
/// Bytes of a warp's sums of 16 table rows; see `kSkewBytes` in `kernels/local_bwd_dq.cuh`.
const SKEWED_BYTES: usize = 16 * 20 * 4;
/// Bytes of a query's lse and δ in shared memory.
const PAIR_BYTES: usize = 8;
/// The same with where the query's window starts; see `kPairBytes` in `kernels/local_bwd_dkv.cuh`.
const BIASED_PAIR_BYTES: usize = 16;
/// Lanes of a warp.
const LANES: usize = 32;
/// Blocks that make partial sums: at least and at most so many, if there are tiles enough.
const PARTIALS_MIN: usize = 256;
const PARTIALS_MAX: usize = 2048;
/// Where partial sums may begin in the workspace.
const WORKSPACE_ALIGN: usize = 256;
/// Rows, columns and (batch, head) pairs stay below this.
const EXTENT_MAX: usize = 1 << 28;

/// A forward call: element type and layouts. Operands: 0 q, 1 k, 2 v, 3 rel_h, 4 rel_w, 5 o, 6 lse, 7 bias.
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
    /// What is added to the scaled logits, `[1 or h, rows along y, rows along x]`, f32.
    pub bias: Option<Layout<3>>,
    /// Output, the shape of v.
    pub o: Layout<5>,
    /// Log-sum-exp of the logits, `[b, h, y, x]`, contiguous.
    pub lse: Option<Layout<4>>,
}

/// A backward call: element type and layouts. Operands: 0 q, 1 k, 2 v, 3 rel_h, 4 rel_w, 5 o, 6 lse, 7 d_o, 8 dq, 9 dk,
/// 10 dv, 11 drel_h, 12 drel_w, 13 bias, 14 dbias.
#[derive(Clone, Copy, Debug)]
pub struct BackwardProblem {
    /// Element type of everything but lse, the bias and gradients of tables and bias, which are f32.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Keys, the shape of q.
    pub k: Layout<5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: Layout<5>,
    /// Row table and column table, `[1 or h, rows, channels]`.
    pub tables: Option<[Layout<3>; 2]>,
    /// What is added to the scaled logits, `[1 or h, rows along y, rows along x]`, f32.
    pub bias: Option<Layout<3>>,
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
    /// Gradient of the bias, when wanted.
    pub dbias: Option<Layout<3>>,
}

pub(super) fn forward(config: &LocalConfig, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
    if problem.o.is_empty() {
        return Ok(Plan::default());
    }
    let p = problem;
    check_extent(&p.q)?;
    for (arg, layout) in [("q", &p.q), ("k", &p.k), ("v", &p.v), ("o", &p.o)] {
        check_contiguous(OP, arg, layout)?;
    }
    let class = Class::of(p.dtype, &p.q, &p.v);
    let geometry = Geometry::of(config, &p.q);
    let table_shape = tiling::table_shape(geometry.sights().map(Sight::of_patch));
    let task = task(&geometry, class, &p.q, &p.v, gpu);
    let bias = bias::of_call(config, &p.tables, &p.bias);
    let copy = bias.map(|bias| bias::Copy::of_keys(&bias, &geometry.axes, task.packed(), false));
    let cut = |is_tall: bool| {
        let patches = if is_tall { 2 } else { 1 };
        let warp_bytes = if p.tables.is_some() { patches * table_shape.bytes as usize } else { 0 };
        let pairs_up = !is_tall && class.channels <= 64;
        Task { patches, warp_bytes, pairs_up, ..task.with_bias(copy) }.tile(geometry.axes)
    };
    let wants_tall =
        p.dtype != DType::F32 && class.channels <= 64 && geometry.axes[0].window as usize > TALL_ABOVE;
    // The tables of two patches can be too large for the smallest GPUs.
    let tall = if wants_tall { cut(true) } else { None };
    let is_tall = tall.is_some();
    let tiling = tall.or_else(|| cut(false)).ok_or_else(too_little_memory)?;
    let (scale, is_negative) = exponent_scale(config.scale, p.dtype);
    let params = LocalFwdParams {
        q: Map::of(0, &p.q, p.dtype),
        k: Map::of(1, &p.k, p.dtype),
        v: Map::of(2, &p.v, p.dtype),
        o: Map::of(5, &p.o, p.dtype),
        lse: if p.lse.is_some() { Ptr::operand(6) } else { Ptr::NULL },
        tables: tables(config, p.tables, p.q.shape[4], p.dtype),
        frame: tiling.frame,
        table_shape,
        scale,
        is_negative,
        unused: 0,
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
    let (grid, shared_bytes) = (grid(OP, tiling.tiles())?, tiling.shared_bytes as u32);
    let launch = match copy {
        Some(copy) => {
            let data = p.bias.map_or(Ptr::NULL, |_| Ptr::operand(7));
            let params = LocalFwdBiasParams { plain: params, bias: copy.params(data, &tiling) };
            Launch::new(bias::entry(kernel), grid, shared_bytes, &params)
        }
        None => Launch::new(kernel, grid, shared_bytes, &params),
    };
    Ok(Plan { launches: vec![launch], workspace_bytes: 0 })
}

pub(super) fn backward(config: &LocalConfig, problem: &BackwardProblem, gpu: &Gpu) -> Result<Plan> {
    let p = problem;
    if p.q.is_empty() {
        return Ok(empty_backward(p));
    }
    check_extent(&p.q)?;
    for (arg, layout) in [("q", &p.q), ("k", &p.k), ("v", &p.v), ("o", &p.o), ("d_o", &p.d_o)] {
        check_contiguous(OP, arg, layout)?;
    }
    for (arg, grad) in [("dq", &p.dq), ("dk", &p.dk), ("dv", &p.dv)] {
        grad.as_ref().map_or(Ok(()), |grad| check_contiguous(OP, arg, grad))?;
    }

    let wants_tables = p.tables.is_some() && (p.drel_h.is_some() || p.drel_w.is_some());
    let wants_bias = p.bias.is_some() && p.dbias.is_some();
    let wants_delta = p.dk.is_some();
    let delta_bytes = if wants_delta {
        tiling::round_up(4 * p.q.shape[..4].iter().product::<usize>(), WORKSPACE_ALIGN)
    } else {
        0
    };
    let mut plan = Plan { launches: Vec::new(), workspace_bytes: delta_bytes };
    if p.dq.is_some() || wants_tables || wants_bias || wants_delta {
        dq(config, p, gpu, [wants_tables, wants_bias], &mut plan)?;
    }
    if p.dk.is_some() || p.dv.is_some() {
        dkv(config, p, gpu, &mut plan)?;
    }
    Ok(plan)
}

/// Without pixels the gradients of tables and bias are zero.
fn empty_backward(p: &BackwardProblem) -> Plan {
    let mut plan = Plan::default();
    if let Some(tables) = &p.tables {
        let heads = tables[0].shape[0].max(tables[1].shape[0]);
        drel(p, tables, Partials::none(heads), 0.0, &mut plan);
    }
    if let Some(bias) = &p.bias {
        dbias(p, bias, Partials::none(bias.shape[0]), &mut plan);
    }
    plan
}

/// Launches what makes dq, δ and the gradients of tables and bias. The workspace begins with δ.
fn dq(
    config: &LocalConfig,
    p: &BackwardProblem,
    gpu: &Gpu,
    [wants_tables, wants_bias]: [bool; 2],
    plan: &mut Plan,
) -> Result<()> {
    let class = Class::of(p.dtype, &p.q, &p.v);
    let geometry = Geometry::of(config, &p.q);
    let seen = geometry.sights().map(Sight::of_patch);
    let packed_min = if wants_bias { bias::Sums::columns(&geometry.axes) } else { 0 };
    let table_shape = tiling::table_shape([seen[0], seen[1].max(packed_min)]);
    let is_f32 = p.dtype == DType::F32;
    let bias = bias::of_call(config, &p.tables, &p.bias);
    // See `kSumsAreShared` in `kernels/local_bwd_dq.cuh`.
    let sums_are_shared = is_f32 || bias.is_some() && class.channels > 64;
    let sums_offset = if sums_are_shared && p.tables.is_some() { table_shape.bytes } else { 0 };
    let by_head = wants_tables && p.tables.iter().flatten().any(|table| table.shape[0] > 1)
        || wants_bias && p.bias.is_some_and(|bias| bias.shape[0] > 1);
    // The tables' gradients: sums of 16 table rows, skewed, of every warp, and with tensor cores the queries.
    let skewed_bytes = tiling::WARPS * SKEWED_BYTES;
    let staged_bytes =
        if is_f32 { 0 } else { tiling::WARPS * tiling::PATCH * tiling::PATCH * class.pixel_bytes };
    let task = Task { packed_min, ..task(&geometry, class, &p.q, &p.v, gpu) };
    let copy = bias.map(|bias| bias::Copy::of_keys(&bias, &geometry.axes, task.packed(), by_head));
    let bias_sums = bias::Sums::new(&geometry.axes, task.packed());
    let table_bytes = if p.tables.is_some() { table_shape.bytes } else { 0 };
    let bias_offset = (table_bytes + sums_offset) as usize;
    let task = Task {
        by_head,
        warp_bytes: bias_offset + if wants_bias { bias_sums.bytes() } else { 0 },
        stages_min: if p.tables.is_some() { skewed_bytes + staged_bytes } else { 0 },
        ..task.with_bias(copy)
    };
    let tiling = task.tile(geometry.axes).ok_or_else(too_little_memory)?;
    let (exponent_scale, is_negative) = exponent_scale(config.scale, p.dtype);

    // Each block makes one partial of the gradients of tables and bias, from a run of tiles.
    let rows: usize = p.tables.iter().flatten().map(|table| table.shape[1]).sum();
    let table_bytes = if wants_tables { 4 * rows * p.q.shape[4] } else { 0 };
    let bias_bytes = match &p.bias {
        Some(bias) if wants_bias => 4 * bias.shape[1] * bias.shape[2],
        _ => 0,
    };
    let (tiles_per_block, blocks_per_section) = if wants_tables || wants_bias {
        runs(&tiling, table_bytes + bias_bytes, p.q.len() * p.dtype.bytes())
    } else {
        (1, tiling.tiles_per_section)
    };
    let blocks = tiling.sections * blocks_per_section;
    let mut partials = |bytes: usize| {
        let data = if bytes > 0 { Ptr::workspace(plan.workspace_bytes as u64) } else { Ptr::NULL };
        plan.workspace_bytes += tiling::round_up(blocks * bytes, WORKSPACE_ALIGN);
        Partials { data, sections: tiling.sections, blocks_per_section }
    };
    let (of_tables, of_bias) = (partials(table_bytes), partials(bias_bytes));
    let params = LocalBwdDqParams {
        q: Map::of(0, &p.q, p.dtype),
        k: Map::of(1, &p.k, p.dtype),
        v: Map::of(2, &p.v, p.dtype),
        o: Map::of(5, &p.o, p.dtype),
        d_o: Map::of(7, &p.d_o, p.dtype),
        dq: p.dq.as_ref().map_or(Map::NONE, |layout| Map::of(8, layout, p.dtype)),
        lse: Ptr::operand(6),
        delta: if p.dk.is_some() { Ptr::workspace(0) } else { Ptr::NULL },
        partials: of_tables.data,
        tables: tables(config, p.tables, p.q.shape[4], p.dtype),
        frame: tiling.frame,
        table_shape,
        sums_offset,
        staged_offset: skewed_bytes as i32,
        blocks_per_section: Divisor::new(blocks_per_section as u32),
        tiles_per_section: tiling.tiles_per_section as i32,
        tiles_per_block: tiles_per_block as i32,
        scale: config.scale,
        exponent_scale,
        is_negative,
        unused: 0,
    };
    let kernel = match (p.dtype, class.channels) {
        (DType::F32, _) => "local_bwd_dq_f32",
        (DType::F16, 32) => "local_bwd_dq_f16_d32",
        (DType::F16, 64) => "local_bwd_dq_f16_d64",
        (DType::F16, _) => "local_bwd_dq_f16_d128",
        (DType::Bf16, 32) => "local_bwd_dq_bf16_d32",
        (DType::Bf16, 64) => "local_bwd_dq_bf16_d64",
        (DType::Bf16, _) => "local_bwd_dq_bf16_d128",
    };
    let (grid, shared_bytes) = (grid(OP, blocks)?, tiling.shared_bytes as u32);
    plan.launches.push(match (copy, &bias) {
        (Some(copy), Some(bias)) => {
            let gradient = bias_sums.params(of_bias.data, bias_offset, bias, &tiling);
            let data = p.bias.map_or(Ptr::NULL, |_| Ptr::operand(13));
            let params = LocalBwdDqBiasParams { plain: params, bias: copy.params(data, &tiling), gradient };
            Launch::new(bias::entry(kernel), grid, shared_bytes, &params)
        }
        _ => Launch::new(kernel, grid, shared_bytes, &params),
    });
    if let (true, Some(tables)) = (wants_tables, &p.tables) {
        drel(p, tables, of_tables, config.scale.abs(), plan);
    }
    if let (true, Some(bias)) = (wants_bias, &p.bias) {
        dbias(p, bias, of_bias, plan);
    }
    Ok(())
}

/// Tiles of a block and blocks of a section, so that all partials stay within 2 % of a tensor's bytes or 256 blocks, and
/// within 2048 blocks.
fn runs(tiling: &Tiling, partial_bytes: usize, tensor_bytes: usize) -> (usize, usize) {
    let most = (tensor_bytes / 50 / partial_bytes.max(1)).clamp(PARTIALS_MIN, PARTIALS_MAX);
    let per_section = most.div_ceil(tiling.sections).min(tiling.tiles_per_section);
    let tiles = tiling.tiles_per_section.div_ceil(per_section);
    (tiles, tiling.tiles_per_section.div_ceil(tiles))
}

/// Partial sums in the workspace.
#[derive(Clone, Copy)]
struct Partials {
    /// Null: there are none.
    data: Ptr,
    sections: usize,
    blocks_per_section: usize,
}

impl Partials {
    fn none(sections: usize) -> Self {
        Self { data: Ptr::NULL, sections, blocks_per_section: 0 }
    }
}

/// Launches the sum over the tables' partials.
fn drel(p: &BackwardProblem, tables: &[Layout<3>; 2], partials: Partials, scale: f32, plan: &mut Plan) {
    let d = p.q.shape[4];
    let first = [0, d - tables[1].shape[2]];
    let gradients = [(11, p.drel_h), (12, p.drel_w)];
    let gradients = [0, 1].map(|i| {
        let (operand, gradient) = &gradients[i];
        TableGradient::of(*operand, gradient.as_ref(), &tables[i], first[i])
    });
    sum_partials(gradients, d, partials, scale, plan);
}

/// Launches the sum over the bias' partials: a table whose rows have a channel per column.
fn dbias(p: &BackwardProblem, bias: &Layout<3>, partials: Partials, plan: &mut Plan) {
    let gradients = [TableGradient::of(14, p.dbias.as_ref(), bias, 0), TableGradient::NONE];
    sum_partials(gradients, bias.shape[2], partials, 1.0, plan);
}

/// Launches a sum over partials of two tables with `d` channels together.
fn sum_partials(gradients: [TableGradient; 2], d: usize, partials: Partials, scale: f32, plan: &mut Plan) {
    let rows: i32 = gradients.iter().map(|gradient| gradient.rows).sum();
    let elements = (rows as usize * d).div_ceil(LANES);
    let params = LocalBwdDrelParams {
        partials: partials.data,
        gradients,
        d: d as i32,
        blocks_per_section: partials.blocks_per_section as i32,
        elements: Divisor::new(elements as u32),
        channels: Divisor::new(d as u32),
        sections: partials.sections as i32,
        scale,
    };
    let shared_bytes = tiling::WARPS * LANES * 4;
    let blocks = (partials.sections * elements) as u32;
    plan.launches.push(Launch::new("local_bwd_drel_f32", blocks, shared_bytes as u32, &params));
}

/// Launches what makes dk and dv. The workspace begins with δ.
fn dkv(config: &LocalConfig, p: &BackwardProblem, gpu: &Gpu, plan: &mut Plan) -> Result<()> {
    let class = Class::of(p.dtype, &p.q, &p.v);
    let geometry = Geometry::of(config, &p.q);
    let [axis_y, axis_x] = &geometry.axes;
    let [y, x] = geometry.size;
    let sights = [Sight::of_keys(axis_y, y, true), Sight::of_keys(axis_x, x, false)];
    let packed = tiling::packed(sights[1].of_patch());
    // Columns that patches read in vain. Every patch reads whole rows of `packed` queries, or up to 7 more than it needs, and
    // no query twice. With border shift it needs at least those to one side.
    let unseen = if axis_x.is_shifted == 1 {
        (packed - (axis_x.window as usize - 1) / 2 - 1).max(7)
    } else {
        packed - sights[1].of_patch_min()
    };
    // The halo of a gathering tile holds them as it is.
    let spare = if matches!(sights[1], Sight::Gather { .. }) { 0 } else { unseen };
    // Offsets that a patch may ask for beyond those of a table: between a key at one end and a query at the other.
    let pad_y = tiling::PATCH - 1;
    let pad_x = pad_y + unseen;
    let rows = geometry.axes.map(|axis| axis.table_rows as usize);
    let bias = bias::of_call(config, &p.tables, &p.bias);
    let pitch = if p.tables.is_some() { query_pitch(pad_y + rows[0] + pad_x + rows[1]) } else { 0 };
    let pair_bytes = if bias.is_some() { BIASED_PAIR_BYTES } else { PAIR_BYTES };
    let task = Task {
        sights,
        spare,
        extra_pixel_bytes: pair_bytes + 4 * pitch,
        extra_bytes: tiling::round_up(4 * pitch, tiling::LINE) + tiling::LINE,
        ..task(&geometry, class, &p.q, &p.v, gpu)
    };
    let copy = bias.map(|bias| bias::Copy::of_queries(&bias, packed, pad_x));
    let tiling = task.with_bias(copy).tile(geometry.axes).ok_or_else(|| {
        let (channels, bytes) = (class.channels, gpu.shared_optin_bytes);
        let [k_y, k_x] = config.window.keys();
        let kind = match config.window {
            Window::Sliding(window) => format!("border {}", window.border.name()),
            Window::Blocks(_) => "of blocks".to_owned(),
        };
        let what = format!(
            "gradients of k and v for {k_y}×{k_x} windows, {kind}, {channels} channels in {} on a GPU with {bytes} bytes of \
             shared memory per block; fewer channels or 16-bit elements need less",
            p.dtype,
        );
        Error::unsupported(OP, what)
    })?;
    let frame = tiling.frame;
    let band_pixels = (frame.planes * frame.band_rows * frame.axes[1].halo) as usize;
    let (exponent_scale, is_negative) = exponent_scale(config.scale, p.dtype);
    // Two sums of more channels than this are too many for a thread's registers.
    let is_together = p.dtype != DType::F32 && class.channels <= 64;
    let roles = if is_together || p.dk.is_none() || p.dv.is_none() { 1 } else { 2 };
    let params = LocalBwdDkvParams {
        q: Map::of(0, &p.q, p.dtype),
        k: Map::of(1, &p.k, p.dtype),
        v: Map::of(2, &p.v, p.dtype),
        d_o: Map::of(7, &p.d_o, p.dtype),
        dk: p.dk.as_ref().map_or(Map::NONE, |layout| Map::of(9, layout, p.dtype)),
        dv: p.dv.as_ref().map_or(Map::NONE, |layout| Map::of(10, layout, p.dtype)),
        lse: Ptr::operand(6),
        delta: if p.dk.is_some() { Ptr::workspace(0) } else { Ptr::NULL },
        tables: tables(config, p.tables, p.q.shape[4], p.dtype),
        frame,
        terms: LocalQueryTerms {
            pitch: pitch as i32,
            pad_y: pad_y as i32,
            pad_x: pad_x as i32,
            offset: tiling::round_up(band_pixels * pair_bytes, tiling::LINE) as i32,
        },
        halo_x: Divisor::new(frame.axes[1].halo as u32),
        scale: config.scale,
        exponent_scale,
        is_negative,
        roles,
        unused: 0,
    };
    let kernel = match (p.dtype, class.channels) {
        (DType::F32, _) => "local_bwd_dkv_f32",
        (DType::F16, 32) => "local_bwd_dkv_f16_d32",
        (DType::F16, 64) => "local_bwd_dkv_f16_d64",
        (DType::F16, _) => "local_bwd_dkv_f16_d128",
        (DType::Bf16, 32) => "local_bwd_dkv_bf16_d32",
        (DType::Bf16, 64) => "local_bwd_dkv_bf16_d64",
        (DType::Bf16, _) => "local_bwd_dkv_bf16_d128",
    };
    let (grid, shared_bytes) = (grid(OP, tiling.tiles() * roles as usize)?, tiling.shared_bytes as u32);
    plan.launches.push(match copy {
        Some(copy) => {
            let data = p.bias.map_or(Ptr::NULL, |_| Ptr::operand(13));
            let params = LocalBwdDkvBiasParams { plain: params, bias: copy.params(data, &tiling) };
            Launch::new(bias::entry(kernel), grid, shared_bytes, &params)
        }
        None => Launch::new(kernel, grid, shared_bytes, &params),
    });
    Ok(())
}

/// Floats of a query's terms from `least` on, so that the lanes of a warp read four queries without bank conflicts.
fn query_pitch(least: usize) -> usize {
    let even = least.next_multiple_of(2);
    if even.is_multiple_of(8) { even + 2 } else { even }
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
fn task(geometry: &Geometry, class: Class, q: &Layout<5>, v: &Layout<5>, gpu: &Gpu) -> Task {
    let [batch, heads, _, _, d] = q.shape;
    Task {
        batch,
        heads,
        size: geometry.size,
        channels: [d, v.shape[4]],
        pixel_bytes: class.pixel_bytes,
        patches: 1,
        by_head: false,
        warp_bytes: 0,
        extra_pixel_bytes: 0,
        extra_bytes: 0,
        extra_plane_bytes: 0,
        packed_min: 0,
        sights: geometry.sights(),
        spare: 0,
        stages_min: 0,
        shared_max: gpu.shared_optin_bytes as usize,
        pairs_up: false,
    }
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
        return Err(Error::unsupported(OP, what));
    }
    Ok(())
}

fn too_little_memory() -> Error {
    Error::unsupported(OP, "GPUs with less shared memory per block than 99 KiB")
}

/// |α| for `Exponent` of `kernels/prim/softmax.cuh`, which takes f32 scores in base e and others in base 2; and whether α is
/// negative. Never 0: masked scores are −∞, and −∞·0 is no number.
fn exponent_scale(scale: f32, dtype: DType) -> (f32, i32) {
    let base = if dtype == DType::F32 { 1.0 } else { std::f32::consts::LOG2_E };
    ((scale.abs() * base).max(f32::MIN_POSITIVE), (scale < 0.0).into())
}

pub(super) fn forward_cost(config: &LocalConfig, problem: &ForwardProblem) -> Cost {
    let work = Work::of(config, &problem.q, &problem.v, problem.tables);
    let tensors = (2 * work.d + 2 * work.e) * work.pixels * problem.dtype.bytes() as u64;
    let lse = if problem.lse.is_some() { 4 * work.pixels } else { 0 };
    Cost {
        flops: work.pixels * (2 * work.keys * (work.d + work.e) + work.table_flops),
        min_bytes: tensors
            + lse
            + work.table_elements * problem.dtype.bytes() as u64
            + 4 * elements(&problem.bias),
        exps: work.pixels * work.keys,
    }
}

pub(super) fn backward_cost(config: &LocalConfig, problem: &BackwardProblem) -> Cost {
    let work = Work::of(config, &problem.q, &problem.v, problem.tables);
    let tensors = (4 * work.d + 4 * work.e) * work.pixels * problem.dtype.bytes() as u64;
    Cost {
        flops: work.pixels * (2 * work.keys * (3 * work.d + 2 * work.e) + 3 * work.table_flops),
        min_bytes: tensors
            + 4 * work.pixels
            + work.table_elements * (problem.dtype.bytes() as u64 + 4)
            + 4 * (elements(&problem.bias) + elements(&problem.dbias)),
        exps: work.pixels * work.keys,
    }
}

fn elements(bias: &Option<Layout<3>>) -> u64 {
    bias.map_or(0, |bias| bias.len() as u64)
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
        let [ky, kx] = config.window.keys().map(|k| k as u64);
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
