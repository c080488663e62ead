//! The parameter structs of `kernels/local*.cuh`: same fields, same order.

use crate::plan::{Divisor, Params, Ptr};
use crate::{DType, Layout};
use bytemuck::{Pod, Zeroable};

/// Bytes of the widest access; see `prim/base.cuh`.
const UNIT: usize = 16;

/// A tensor `[b, h, y, x, channels]`, channels contiguous; strides in elements.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Map {
    pub data: Ptr,
    pub strides: [i64; 4],
    pub is_wide: i64,
}

impl Map {
    pub fn of(operand: u8, layout: &Layout<5>, dtype: DType) -> Self {
        let strides = [0, 1, 2, 3].map(|i| stride(layout, i));
        Self {
            data: Ptr::operand(operand),
            strides,
            is_wide: is_wide(&strides, layout.shape[4], dtype).into(),
        }
    }
}

/// Whether every pixel is aligned if the first one is, and has whole units of channels.
fn is_wide(strides: &[i64], channels: usize, dtype: DType) -> bool {
    let unit = UNIT / dtype.bytes();
    channels.is_multiple_of(unit) && strides.iter().all(|s| s % unit as i64 == 0)
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
const _: () = assert!(size_of::<LocalFwdParams>() == 520, "change kernels/local_fwd.cuh together with this");

impl Params for LocalFwdParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 144, 192, 200, 248];
}
