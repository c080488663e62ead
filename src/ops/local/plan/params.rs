//! The parameter structs of `kernels/local*.cuh`: same fields, same order.

use crate::Layout;
use crate::plan::{Params, Ptr};
use bytemuck::{Pod, Zeroable};

/// A tensor `[b, h, y, x, channels]`; strides in elements.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Map {
    pub data: Ptr,
    pub strides: [i64; 4],
}

impl Map {
    pub const NULL: Map = Map { data: Ptr::NULL, strides: [0; 4] };

    pub fn of(operand: u8, layout: &Layout<5>) -> Self {
        Self { data: Ptr::operand(operand), strides: [0, 1, 2, 3].map(|i| stride(layout, i)) }
    }
}

/// Strides of dimensions of size 1 are never walked, and must not spoil the alignment of the others.
fn stride<const R: usize>(layout: &Layout<R>, i: usize) -> i64 {
    if layout.shape[i] == 1 { 0 } else { layout.strides[i] as i64 }
}

/// A relative table `[heads, rows, channels]` of channels `first..first + channels` of q.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Table {
    pub data: Ptr,
    pub stride_h: i64,
    pub stride_row: i64,
    pub stride_channel: i64,
    pub first: i32,
    pub channels: i32,
}

impl Table {
    pub const NULL: Table =
        Table { data: Ptr::NULL, stride_h: 0, stride_row: 0, stride_channel: 0, first: 0, channels: 0 };

    pub fn of(operand: u8, layout: &Layout<3>, first: usize) -> Self {
        let channels = layout.shape[2];
        Self {
            data: if channels == 0 { Ptr::NULL } else { Ptr::operand(operand) },
            stride_h: stride(layout, 0),
            stride_row: stride(layout, 1),
            stride_channel: if channels == 1 { 1 } else { layout.strides[2] as i64 },
            first: first as i32,
            channels: channels as i32,
        }
    }
}

/// One axis of the problem and of its tiling; see `local.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Axis {
    pub size: i32,
    pub dilation: i32,
    pub window: i32,
    pub before: i32,
    pub is_shifted: i32,
    pub has_outside: i32,
    pub block: i32,
    pub block_start: i32,
    pub table_rows: i32,
    pub table_origin: i32,
    pub patches: i32,
    pub tiles: i32,
    pub tiles_per_block: i32,
    pub halo: i32,
}

/// The whole launch; see `local.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Frame {
    pub axes: [Axis; 2],
    pub batch: i32,
    pub heads: i32,
    pub d: i32,
    pub e: i32,
    pub planes: i32,
    pub section: i32,
    pub groups_per_section: i32,
    pub groups: i32,
    pub packed: i32,
    pub band_rows: i32,
    pub stages: i32,
    pub pixel_bytes: i32,
    pub plane_bytes: i32,
    pub stage_bytes: i32,
    pub warp_bytes: i32,
}

/// How a warp's memory is cut into tables; see `local_table.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct TableShape {
    pub row_pitch: i32,
    pub pair_pitch: i32,
    pub bytes: i32,
}

/// Mirrors `LocalFwdParams` in `kernels/local_fwd.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LocalFwdParams {
    pub q: Map,
    pub k: Map,
    pub v: Map,
    pub o: Map,
    pub lse: Ptr,
    pub tables: [Table; 2],
    pub frame: Frame,
    pub table_shape: TableShape,
    pub scale_log2: f32,
    pub is_negative: i32,
}
const _: () = assert!(size_of::<LocalFwdParams>() == 440, "change kernels/local_fwd.cuh together with this");

impl Params for LocalFwdParams {
    const POINTERS: &'static [usize] = &[0, 40, 80, 120, 160, 168, 208];
}
