//! The parameter structs of `kernels/local*.cuh`: same fields, same order.

use crate::ops::planning::{Map, is_wide, stride};
use crate::plan::{Divisor, Params, Ptr};
use crate::{DType, Layout};
use bytemuck::{Pod, Zeroable};

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
    pub is_wide: i64,
}

impl Table {
    /// No table, or one without channels.
    pub const NONE: Table = Table {
        data: Ptr::NULL,
        stride_h: 0,
        stride_row: 0,
        stride_channel: 0,
        first: 0,
        channels: 0,
        is_wide: 0,
    };

    pub fn of(operand: u8, layout: &Layout<3>, first: usize, dtype: DType) -> Self {
        let channels = layout.shape[2];
        if channels == 0 {
            return Self::NONE;
        }
        let (stride_h, stride_row) = (stride(layout, 0), stride(layout, 1));
        let stride_channel = if channels == 1 { 1 } else { layout.strides[2] as i64 };
        let wide = stride_channel == 1 && is_wide(&[stride_h, stride_row, first as i64], channels, dtype);
        Self {
            data: Ptr::operand(operand),
            stride_h,
            stride_row,
            stride_channel,
            first: first as i32,
            channels: channels as i32,
            is_wide: wide.into(),
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
    pub patches_log2: i32,
    pub tiles: Divisor,
    pub tiles_per_block: i32,
    pub halo: i32,
}

/// The whole launch; see `local.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Frame {
    pub axes: [Axis; 2],
    pub batch: Divisor,
    pub groups_per_section: Divisor,
    pub heads: i32,
    pub d: i32,
    pub e: i32,
    pub planes: i32,
    pub section: i32,
    pub packed: i32,
    pub packed_factor: u32,
    pub band_rows: i32,
    pub stages: i32,
    pub pixel_bytes: i32,
    pub plane_bytes: i32,
    pub stage_bytes: i32,
    pub warp_offset: i32,
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
    pub scale: f32,
    pub is_negative: i32,
    pub unused: i32,
}
const _: () = assert!(size_of::<LocalFwdParams>() == 528, "change kernels/local_fwd.cuh together with this");

impl Params for LocalFwdParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 144, 192, 200, 248];
}

/// Mirrors `LocalBwdDqParams` in `kernels/local_bwd_dq.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LocalBwdDqParams {
    pub q: Map,
    pub k: Map,
    pub v: Map,
    pub o: Map,
    pub d_o: Map,
    pub dq: Map,
    pub lse: Ptr,
    pub delta: Ptr,
    pub partials: Ptr,
    pub tables: [Table; 2],
    pub frame: Frame,
    pub table_shape: TableShape,
    pub sums_offset: i32,
    pub staged_offset: i32,
    pub blocks_per_section: Divisor,
    pub tiles_per_section: i32,
    pub tiles_per_block: i32,
    pub scale: f32,
    pub exponent_scale: f32,
    pub is_negative: i32,
    pub unused: i32,
}
const _: () =
    assert!(size_of::<LocalBwdDqParams>() == 672, "change kernels/local_bwd_dq.cuh together with this");

impl Params for LocalBwdDqParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 144, 192, 240, 288, 296, 304, 312, 360];
}

/// What shared memory holds of a query in `local_bwd_dkv`; see `kernels/local_bwd_dkv.cuh`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LocalQueryTerms {
    pub pitch: i32,
    pub pad_y: i32,
    pub pad_x: i32,
    pub offset: i32,
}

/// Mirrors `LocalBwdDkvParams` in `kernels/local_bwd_dkv.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LocalBwdDkvParams {
    pub q: Map,
    pub k: Map,
    pub v: Map,
    pub d_o: Map,
    pub dk: Map,
    pub dv: Map,
    pub lse: Ptr,
    pub delta: Ptr,
    pub tables: [Table; 2],
    pub frame: Frame,
    pub terms: LocalQueryTerms,
    pub halo_x: Divisor,
    pub scale: f32,
    pub exponent_scale: f32,
    pub is_negative: i32,
    pub roles: i32,
    pub unused: i32,
}
const _: () =
    assert!(size_of::<LocalBwdDkvParams>() == 656, "change kernels/local_bwd_dkv.cuh together with this");

impl Params for LocalBwdDkvParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 144, 192, 240, 288, 296, 304, 352];
}

/// A table's gradient in f32; see `kernels/local_bwd_drel.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct TableGradient {
    pub data: Ptr,
    pub strides: [i64; 3],
    pub first: i32,
    pub channels: i32,
    pub rows: i32,
    pub is_shared: i32,
}

impl TableGradient {
    /// No table.
    pub const NONE: TableGradient =
        TableGradient { data: Ptr::NULL, strides: [0; 3], first: 0, channels: 0, rows: 0, is_shared: 0 };

    /// The gradient of `table`, whose rows count also when it is not wanted.
    pub fn of(operand: u8, gradient: Option<&Layout<3>>, table: &Layout<3>, first: usize) -> Self {
        let strides = gradient.map_or([0; 3], |layout| [0, 1, 2].map(|i| stride(layout, i)));
        let is_there = gradient.is_some_and(|layout| layout.shape[2] > 0);
        Self {
            data: if is_there { Ptr::operand(operand) } else { Ptr::NULL },
            strides,
            first: first as i32,
            channels: table.shape[2] as i32,
            rows: table.shape[1] as i32,
            is_shared: (table.shape[0] == 1).into(),
        }
    }
}

/// Mirrors `LocalBwdDrelParams` in `kernels/local_bwd_drel.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LocalBwdDrelParams {
    pub partials: Ptr,
    pub gradients: [TableGradient; 2],
    pub d: i32,
    pub blocks_per_section: i32,
    pub elements: Divisor,
    pub channels: Divisor,
    pub sections: i32,
    pub scale: f32,
}
const _: () =
    assert!(size_of::<LocalBwdDrelParams>() == 144, "change kernels/local_bwd_drel.cu together with this");

impl Params for LocalBwdDrelParams {
    const POINTERS: &'static [usize] = &[0, 8, 56];
}
