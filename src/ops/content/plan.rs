//! Launches and cost of `content`.

mod params;
mod tiling;

use crate::config::content::{ContentConfig, FeatureMap, Form};
use crate::ops::planning::{Arena, Map, check_contiguous, grid};
use crate::plan::{Divisor, Ptr};
use crate::{Content, Cost, DType, Error, Gpu, Launch, Layout, Plan, Result};
use params::{
    ContentBwdKvParams, ContentBwdMergeParams, ContentBwdQParams, ContentFwdKvParams, ContentFwdMergeParams,
    ContentFwdQParams, Positions, Saved, Tiling, form_of,
};
use tiling::{ByRows, Channels, Outer, ROW_WARPS};

const OP: &str = Content::NAME;
/// Positions of a map, and (batch, head) pairs, stay below this.
const EXTENT_MAX: usize = 1 << 30;

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

/// What the launches of a call have in common.
struct Sizes {
    bh: usize,
    heads: Divisor,
    c: Channels,
}

impl Sizes {
    fn of(q: &Layout<5>, v: &Layout<5>, dtype: DType) -> Self {
        let [b, h, _, _, d] = q.shape;
        Self { bh: b * h, heads: Divisor::new(h as u32), c: Channels::of(d, v.shape[4], dtype) }
    }
}

/// What the summary of keys and values takes, and where it ends up, for a call that reads it otherwise than this op does. Such a
/// call has no output either if it has no pixels.
pub(in crate::ops) fn summary(config: &ContentConfig, p: &ForwardProblem, gpu: &Gpu) -> Result<(Plan, Ptr)> {
    if p.q.shape[0] * p.q.shape[1] == 0 || p.o.is_empty() && !p.saves {
        return Ok((Plan::default(), Ptr::NULL));
    }
    let mut scratch = Arena::default();
    let (launches, saved) = summarised(config, p, &mut scratch, gpu)?;
    Ok((scratch.plan(OP, launches)?, saved.summary))
}

/// The launches that make the summary, and where it and its sums end up.
fn summarised(
    config: &ContentConfig,
    p: &ForwardProblem,
    scratch: &mut Arena,
    gpu: &Gpu,
) -> Result<(Vec<Launch>, Saved)> {
    let Sizes { bh, c, .. } = Sizes::of(&p.q, &p.v, p.dtype);
    check_extent(&p.q, "q")?;
    check_extent(&p.k, "k")?;
    for (arg, layout) in [("q", &p.q), ("k", &p.k), ("v", &p.v), ("o", &p.o)] {
        check_contiguous(OP, arg, layout)?;
    }
    let saved = if p.saves {
        Saved { summary: Ptr::operand(4), max: Ptr::operand(5), sum: Ptr::operand(6) }
    } else {
        let summary = scratch.floats(bh * c.d * c.e);
        Saved { summary, max: scratch.floats(bh * c.d), sum: scratch.floats(bh * c.d) }
    };
    let mut launches = Vec::new();
    if p.k.is_empty() {
        launches.push(merge(bh, &c, saved, [Ptr::NULL; 2], 0, 0, Form::Linear(FeatureMap::Relu))?);
    } else {
        summarise(config, p, saved, scratch, gpu, &mut launches)?;
    }
    Ok((launches, saved))
}

pub(super) fn forward(config: &ContentConfig, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
    let p = problem;
    let Sizes { bh, heads, c } = Sizes::of(&p.q, &p.v, p.dtype);
    if bh == 0 || p.o.is_empty() && !p.saves {
        return Ok(Plan::default());
    }
    let mut scratch = Arena::default();
    let (mut launches, saved) = summarised(config, p, &mut scratch, gpu)?;
    if !p.o.is_empty() {
        let n = p.q.shape[2] * p.q.shape[3];
        // Its warps all work.
        let rows = ByRows::plan(&c, bh, n, c.pitch(c.dp), c.dp, gpu).filter(|rows| rows.warps == ROW_WARPS);
        let rows = rows.ok_or_else(too_little_memory)?;
        let params = ContentFwdQParams {
            q: Map::of(0, &p.q, p.dtype),
            o: Map::of(3, &p.o, p.dtype),
            summary: saved.summary,
            sum: saved.sum,
            queries: Positions::of(&[&p.q, &p.o], rows.per_block),
            heads,
            units: Divisor::new(c.units(c.dp) as u32),
            d: c.d as i32,
            e: c.e as i32,
            form: form_of(config.form),
            stages: rows.stages as i32,
            shrink: config.form.shrink(p.k.shape[2] * p.k.shape[3]),
            tile_bytes: rows.tile_bytes as i32,
        };
        let kernel = match p.dtype {
            DType::F32 => "content_fwd_q_f32",
            DType::F16 => "content_fwd_q_f16",
            DType::Bf16 => "content_fwd_q_bf16",
        };
        let blocks = grid(OP, bh.saturating_mul(n.div_ceil(rows.per_block)))?;
        launches.push(Launch::new(kernel, blocks, rows.shared_bytes as u32, &params));
    }
    scratch.plan(OP, launches)
}

/// The launches that make the summary of keys and values.
fn summarise(
    config: &ContentConfig,
    p: &ForwardProblem,
    saved: Saved,
    scratch: &mut Arena,
    gpu: &Gpu,
    launches: &mut Vec<Launch>,
) -> Result<()> {
    let Sizes { bh, heads, c } = Sizes::of(&p.q, &p.v, p.dtype);
    let m = p.k.shape[2] * p.k.shape[3];
    let inputs = [&p.q, &p.k, &p.v].iter().fold(0usize, |sum, t| sum.saturating_add(t.len()));
    let input_bytes = inputs.saturating_mul(p.dtype.bytes());
    let outer = Outer::forward(&c, bh, m, input_bytes, gpu).ok_or_else(too_little_memory)?;
    let parts = if outer.splits > 1 {
        let count = bh.saturating_mul(outer.splits);
        [scratch.floats(count.saturating_mul(c.partial())), scratch.floats(count.saturating_mul(2 * c.d))]
    } else {
        [Ptr::NULL; 2]
    };
    let params = ContentFwdKvParams {
        k: Map::of(1, &p.k, p.dtype),
        v: Map::of(2, &p.v, p.dtype),
        saved,
        partials: parts[0],
        stats: parts[1],
        keys: Positions::of(&[&p.k, &p.v], outer.per_block),
        heads,
        d: c.d as i32,
        e: c.e as i32,
        form: form_of(config.form),
        tiling: tiling_of(&c, &outer),
    };
    let kernel = match (p.dtype, outer.is_wide) {
        (DType::F32, false) => "content_fwd_kv_f32",
        (DType::F32, true) => "content_fwd_kv_f32_wide",
        (DType::F16, false) => "content_fwd_kv_f16",
        (DType::F16, true) => "content_fwd_kv_f16_wide",
        (DType::Bf16, false) => "content_fwd_kv_bf16",
        (DType::Bf16, true) => "content_fwd_kv_bf16_wide",
    };
    let blocks = grid(OP, bh.saturating_mul(outer.splits))?;
    launches.push(Launch::new(kernel, blocks, outer.shared_bytes as u32, &params));
    if outer.splits > 1 {
        launches.push(merge(bh, &c, saved, parts, outer.splits, m, config.form)?);
    }
    Ok(())
}

fn tiling_of(c: &Channels, outer: &Outer) -> Tiling {
    Tiling {
        units_per_position: Divisor::new((c.units(c.dp) + c.units(c.ep)) as u32),
        positions_per_pass: outer.positions_per_pass as i32,
        slices: outer.slices as i32,
        groups: outer.groups as i32,
        tile: outer.tile as i32,
        stages: outer.stages as i32,
        stage_bytes: outer.stage_bytes as i32,
        own_bytes: outer.own_bytes as i32,
    }
}

/// Threads along the e channels of a merge, as a power of two.
fn merge_lanes_log2(e: usize) -> i32 {
    e.div_ceil(4).next_power_of_two().ilog2() as i32
}

/// Bytes of `MergeSmem` in `content_fwd_merge.cu`: a float4 and a float per thread, a float per warp.
const MERGE_SHARED: u32 = 256 * 20 + 8 * 4;
/// Of that in `content_bwd_merge.cu`, without the latter.
const BWD_MERGE_SHARED: u32 = 256 * 20;

fn merge(
    bh: usize,
    c: &Channels,
    saved: Saved,
    [partials, stats]: [Ptr; 2],
    splits: usize,
    positions: usize,
    form: Form,
) -> Result<Launch> {
    let params = ContentFwdMergeParams {
        saved,
        partials,
        stats,
        channels: Divisor::new(c.d as u32),
        e: c.e as i32,
        form: form_of(form),
        splits: splits as i32,
        positions: positions as i32,
        lanes_log2: merge_lanes_log2(c.e),
    };
    Ok(Launch::new("content_fwd_merge_f32", grid(OP, bh.saturating_mul(c.d))?, MERGE_SHARED, &params))
}

pub(super) fn backward(config: &ContentConfig, problem: &BackwardProblem, gpu: &Gpu) -> Result<Plan> {
    let (mut plan, of_keys) = backward_parts(config, problem, false, gpu)?;
    plan.launches.extend(of_keys);
    Ok(plan)
}

/// All launches but the one that makes dk and dv, and that one; `adds_dv`: dv is added to what is there then.
pub(in crate::ops) fn backward_parts(
    config: &ContentConfig,
    p: &BackwardProblem,
    adds_dv: bool,
    gpu: &Gpu,
) -> Result<(Plan, Option<Launch>)> {
    let Sizes { bh, heads, c } = Sizes::of(&p.q, &p.v, p.dtype);
    let has_queries = !p.q.is_empty();
    // What is not there has no gradient, and what nobody wants needs none.
    let wants_keys = (p.dk.is_some() || p.dv.is_some()) && !p.k.is_empty();
    let wants_queries = p.dq.is_some() && has_queries;
    if bh == 0 || !wants_keys && !wants_queries {
        return Ok((Plan::default(), None));
    }
    check_extent(&p.q, "q")?;
    check_extent(&p.k, "k")?;
    for (arg, layout) in [("q", &p.q), ("k", &p.k), ("v", &p.v), ("d_o", &p.d_o)] {
        check_contiguous(OP, arg, layout)?;
    }
    for (arg, grad) in [("dq", &p.dq), ("dk", &p.dk), ("dv", &p.dv)] {
        grad.as_ref().map_or(Ok(()), |grad| check_contiguous(OP, arg, grad))?;
    }
    let (summary, max, sum) = (Ptr::operand(3), Ptr::operand(4), Ptr::operand(5));
    let shrink = config.form.shrink(p.k.shape[2] * p.k.shape[3]);
    let mut scratch = Arena::default();
    let (mut launches, mut of_keys) = (Vec::new(), None);
    let (mut splits, mut partials, mut totals) = (0, Ptr::NULL, Ptr::NULL);
    if has_queries {
        let n = p.q.shape[2] * p.q.shape[3];
        let inputs = [&p.q, &p.k, &p.v, &p.d_o].iter().fold(0usize, |sum, t| sum.saturating_add(t.len()));
        let input_bytes = inputs.saturating_mul(p.dtype.bytes());
        let outer = Outer::backward(&c, bh, n, input_bytes, gpu).ok_or_else(too_little_memory)?;
        splits = outer.splits;
        if wants_keys {
            let count = bh.saturating_mul(splits);
            partials = scratch.floats(count.saturating_mul(c.partial()));
            totals = scratch.floats(count.saturating_mul(c.d));
        }
        let params = ContentBwdQParams {
            q: Map::of(0, &p.q, p.dtype),
            d_o: Map::of(6, &p.d_o, p.dtype),
            dq: p.dq.as_ref().map_or(Map::NONE, |dq| Map::of(7, dq, p.dtype)),
            summary,
            sum,
            partials,
            totals,
            queries: positions_of(&[Some(&p.q), Some(&p.d_o), p.dq.as_ref()], outer.per_block),
            heads,
            d: c.d as i32,
            e: c.e as i32,
            form: form_of(config.form),
            shrink,
            tiling: tiling_of(&c, &outer),
            matrix_bytes: outer.matrix_bytes as i32,
            numbers_at: outer.numbers_at as i32,
            patches_log2: outer.patches_log2() as i32,
        };
        let kernel = match (p.dtype, outer.is_wide) {
            (DType::F32, false) => "content_bwd_q_f32",
            (DType::F32, true) => "content_bwd_q_f32_wide",
            (DType::F16, false) => "content_bwd_q_f16",
            (DType::F16, true) => "content_bwd_q_f16_wide",
            (DType::Bf16, false) => "content_bwd_q_bf16",
            (DType::Bf16, true) => "content_bwd_q_bf16_wide",
        };
        launches.push(Launch::new(
            kernel,
            grid(OP, bh.saturating_mul(splits))?,
            outer.shared_bytes as u32,
            &params,
        ));
    }
    if wants_keys {
        let (dc, shift) = (scratch.floats(bh * c.d * c.e), scratch.floats(bh * c.d));
        let params = ContentBwdMergeParams {
            partials,
            totals,
            summary,
            sum,
            dc,
            shift,
            channels: Divisor::new(c.d as u32),
            e: c.e as i32,
            form: form_of(config.form),
            splits: splits as i32,
            shrink,
            lanes_log2: merge_lanes_log2(c.e),
        };
        launches.push(Launch::new(
            "content_bwd_merge_f32",
            grid(OP, bh.saturating_mul(c.d))?,
            BWD_MERGE_SHARED,
            &params,
        ));
        of_keys = Some(key_side(config, p, [dc, shift, max], adds_dv, gpu)?);
    }
    Ok((scratch.plan(OP, launches)?, of_keys))
}

/// The launch that makes dk and dv.
fn key_side(
    config: &ContentConfig,
    p: &BackwardProblem,
    [dc, shift, max]: [Ptr; 3],
    adds_dv: bool,
    gpu: &Gpu,
) -> Result<Launch> {
    let Sizes { bh, heads, c } = Sizes::of(&p.q, &p.v, p.dtype);
    let m = p.k.shape[2] * p.k.shape[3];
    let position_bytes = c.pitch(c.dp) + c.pitch(c.ep);
    let rows = ByRows::plan(&c, bh, m, position_bytes, 2 * c.dp, gpu).ok_or_else(too_little_memory)?;
    let params = ContentBwdKvParams {
        k: Map::of(1, &p.k, p.dtype),
        v: Map::of(2, &p.v, p.dtype),
        dk: p.dk.as_ref().map_or(Map::NONE, |dk| Map::of(8, dk, p.dtype)),
        dv: p.dv.as_ref().map_or(Map::NONE, |dv| Map::of(9, dv, p.dtype)),
        dc,
        shift,
        max,
        keys: positions_of(&[Some(&p.k), Some(&p.v), p.dk.as_ref(), p.dv.as_ref()], rows.per_block),
        heads,
        k_units: Divisor::new(c.units(c.dp) as u32),
        v_units: Divisor::new(c.units(c.ep) as u32),
        d: c.d as i32,
        e: c.e as i32,
        form: form_of(config.form),
        stages: rows.stages as i32,
        tile_bytes: rows.tile_bytes as i32,
        own_bytes: (rows.stages * rows.tile_bytes) as i32,
        warps: rows.warps as i32,
        adds_dv: adds_dv.into(),
        pad: 0,
    };
    let kernel = match p.dtype {
        DType::F32 => "content_bwd_kv_f32",
        DType::F16 => "content_bwd_kv_f16",
        DType::Bf16 => "content_bwd_kv_bf16",
    };
    Ok(Launch::new(
        kernel,
        grid(OP, bh.saturating_mul(m.div_ceil(rows.per_block)))?,
        rows.shared_bytes as u32,
        &params,
    ))
}

fn positions_of(tensors: &[Option<&Layout<5>>], per_block: usize) -> Positions {
    let present: Vec<&Layout<5>> = tensors.iter().copied().flatten().collect();
    Positions::of(&present, per_block)
}

/// Kernels count positions, blocks and (batch, head) pairs in 32 bits.
fn check_extent(t: &Layout<5>, arg: &str) -> Result<()> {
    let [b, h, y, x, _] = t.shape;
    if b.saturating_mul(h) >= EXTENT_MAX || y.saturating_mul(x) >= EXTENT_MAX {
        let what = format!("2^30 positions or (batch, head) pairs and more, got `{arg}` of {:?}", t.shape);
        return Err(Error::unsupported(OP, what));
    }
    Ok(())
}

fn too_little_memory() -> Error {
    Error::unsupported(OP, "GPUs with less shared memory per block than 99 KiB")
}

pub(super) fn forward_cost(config: &ContentConfig, problem: &ForwardProblem) -> Cost {
    let work = Work::of(&problem.q, &problem.k, &problem.v, problem.dtype);
    Cost {
        flops: 2 * (work.n + work.m) * work.d * work.e,
        min_bytes: work.tensor_bytes + if problem.saves { work.saved_bytes } else { 0 },
        exps: work.exps(config.form),
    }
}

pub(super) fn backward_cost(config: &ContentConfig, problem: &BackwardProblem) -> Cost {
    let work = Work::of(&problem.q, &problem.k, &problem.v, problem.dtype);
    let wanted = |grad: &Option<Layout<5>>, channels: u64| if grad.is_some() { channels } else { 0 };
    let grads = work.n * wanted(&problem.dq, work.d)
        + work.m * (wanted(&problem.dk, work.d) + wanted(&problem.dv, work.e));
    Cost {
        flops: 4 * (work.n + work.m) * work.d * work.e,
        min_bytes: work.tensor_bytes + work.saved_bytes + grads * problem.dtype.bytes() as u64,
        exps: work.exps(config.form),
    }
}

/// What the mathematics needs.
struct Work {
    /// Queries and keys of all (batch, head) pairs.
    n: u64,
    m: u64,
    d: u64,
    e: u64,
    /// q, k, v and o, or its gradient.
    tensor_bytes: u64,
    saved_bytes: u64,
}

impl Work {
    fn of(q: &Layout<5>, k: &Layout<5>, v: &Layout<5>, dtype: DType) -> Self {
        let pixels = |t: &Layout<5>| t.shape[..4].iter().map(|&n| n as u64).product::<u64>();
        let (n, m, d, e) = (pixels(q), pixels(k), q.shape[4] as u64, v.shape[4] as u64);
        let bh = (q.shape[0] * q.shape[1]) as u64;
        Self {
            n,
            m,
            d,
            e,
            tensor_bytes: (n + m) * (d + e) * dtype.bytes() as u64,
            saved_bytes: 4 * bh * d * (e + 2),
        }
    }

    fn exps(&self, form: Form) -> u64 {
        match form {
            Form::Softmax { norm_queries: false } => self.m * self.d,
            Form::Softmax { norm_queries: true } | Form::Linear(FeatureMap::EluPlusOne) => {
                (self.n + self.m) * self.d
            }
            Form::DotProduct | Form::Linear(FeatureMap::Relu) => 0,
        }
    }
}
