//! The parameter structs of `kernels/content*`: same fields, same order.

use crate::Layout;
use crate::config::content::{FeatureMap, Form};
use crate::ops::planning::Map;
use crate::plan::{Divisor, Params, Ptr};
use bytemuck::{Pod, Zeroable};

/// The positions of a map, and how blocks share them; see `content.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Positions {
    pub count: i32,
    pub per_block: i32,
    pub columns: Divisor,
    pub blocks: Divisor,
}

impl Positions {
    /// Positions of the maps of `tensors`, which have one shape, `per_block` to a block.
    pub fn of(tensors: &[&Layout<5>], per_block: usize) -> Self {
        let [_, _, y, x, _] = tensors[0].shape;
        let follows = |t: &&Layout<5>| y == 1 || t.strides[2] == (x as isize).wrapping_mul(t.strides[3]);
        let is_one_row = x > 1 && tensors.iter().all(follows);
        let columns = if is_one_row { y * x } else { x };
        Self {
            count: (y * x) as i32,
            per_block: per_block as i32,
            columns: Divisor::new(columns as u32),
            blocks: Divisor::new((y * x).div_ceil(per_block) as u32),
        }
    }
}

/// `Form` of `content.cuh`.
pub(super) fn form_of(form: Form) -> i32 {
    match form {
        Form::Softmax { norm_queries: false } => 0,
        Form::Softmax { norm_queries: true } => 1,
        Form::DotProduct => 2,
        Form::Linear(FeatureMap::EluPlusOne) => 3,
        Form::Linear(FeatureMap::Relu) => 4,
    }
}

/// Summary, maximum and sum; see `content.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Saved {
    pub summary: Ptr,
    pub max: Ptr,
    pub sum: Ptr,
}

/// How the positions of a block are cut into tiles; see `content_tile.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Tiling {
    pub units_per_position: Divisor,
    pub positions_per_pass: i32,
    pub slices: i32,
    pub groups: i32,
    pub tile: i32,
    pub stages: i32,
    pub stage_bytes: i32,
    pub own_bytes: i32,
}

/// Mirrors `ContentFwdKvParams` in `kernels/content_fwd_kv.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ContentFwdKvParams {
    pub k: Map,
    pub v: Map,
    pub saved: Saved,
    pub partials: Ptr,
    pub stats: Ptr,
    pub keys: Positions,
    pub heads: Divisor,
    pub d: i32,
    pub e: i32,
    pub form: i32,
    pub tiling: Tiling,
}
const _: () =
    assert!(size_of::<ContentFwdKvParams>() == 232, "change kernels/content_fwd_kv.cu together with this");

impl Params for ContentFwdKvParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 104, 112, 120, 128];
}

/// Mirrors `ContentFwdMergeParams` in `kernels/content_fwd_merge.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ContentFwdMergeParams {
    pub saved: Saved,
    pub partials: Ptr,
    pub stats: Ptr,
    pub channels: Divisor,
    pub e: i32,
    pub form: i32,
    pub splits: i32,
    pub positions: i32,
    pub lanes_log2: i32,
}
const _: () = assert!(
    size_of::<ContentFwdMergeParams>() == 72,
    "change kernels/content_fwd_merge.cu together with this"
);

impl Params for ContentFwdMergeParams {
    const POINTERS: &'static [usize] = &[0, 8, 16, 24, 32];
}

/// Mirrors `ContentFwdQParams` in `kernels/content_fwd_q.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ContentFwdQParams {
    pub q: Map,
    pub o: Map,
    pub summary: Ptr,
    pub sum: Ptr,
    pub queries: Positions,
    pub heads: Divisor,
    pub units: Divisor,
    pub d: i32,
    pub e: i32,
    pub form: i32,
    pub stages: i32,
    pub shrink: f32,
    pub tile_bytes: i32,
}
const _: () =
    assert!(size_of::<ContentFwdQParams>() == 192, "change kernels/content_fwd_q.cu together with this");

impl Params for ContentFwdQParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 104];
}

/// Mirrors `ContentBwdQParams` in `kernels/content_bwd_q.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ContentBwdQParams {
    pub q: Map,
    pub d_o: Map,
    pub dq: Map,
    pub summary: Ptr,
    pub sum: Ptr,
    pub partials: Ptr,
    pub totals: Ptr,
    pub queries: Positions,
    pub heads: Divisor,
    pub d: i32,
    pub e: i32,
    pub form: i32,
    pub shrink: f32,
    pub tiling: Tiling,
    pub matrix_bytes: i32,
    pub numbers_at: i32,
    pub patches_log2: i32,
}
const _: () =
    assert!(size_of::<ContentBwdQParams>() == 288, "change kernels/content_bwd_q.cu together with this");

impl Params for ContentBwdQParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 144, 152, 160, 168];
}

/// Mirrors `ContentBwdMergeParams` in `kernels/content_bwd_merge.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ContentBwdMergeParams {
    pub partials: Ptr,
    pub totals: Ptr,
    pub summary: Ptr,
    pub sum: Ptr,
    pub dc: Ptr,
    pub shift: Ptr,
    pub channels: Divisor,
    pub e: i32,
    pub form: i32,
    pub splits: i32,
    pub shrink: f32,
    pub lanes_log2: i32,
}
const _: () = assert!(
    size_of::<ContentBwdMergeParams>() == 80,
    "change kernels/content_bwd_merge.cu together with this"
);

impl Params for ContentBwdMergeParams {
    const POINTERS: &'static [usize] = &[0, 8, 16, 24, 32, 40];
}

/// Mirrors `ContentBwdKvParams` in `kernels/content_bwd_kv.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ContentBwdKvParams {
    pub k: Map,
    pub v: Map,
    pub dk: Map,
    pub dv: Map,
    pub dc: Ptr,
    pub shift: Ptr,
    pub max: Ptr,
    pub keys: Positions,
    pub heads: Divisor,
    pub k_units: Divisor,
    pub v_units: Divisor,
    pub d: i32,
    pub e: i32,
    pub form: i32,
    pub stages: i32,
    pub tile_bytes: i32,
    pub own_bytes: i32,
    pub warps: i32,
    pub adds_dv: i32,
    pub pad: i32,
}
const _: () =
    assert!(size_of::<ContentBwdKvParams>() == 320, "change kernels/content_bwd_kv.cu together with this");

impl Params for ContentBwdKvParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 144, 192, 200, 208];
}
