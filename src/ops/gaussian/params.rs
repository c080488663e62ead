//! Mirrors of the parameter structs in `kernels/gaussian.cuh`: same fields, same order.

use crate::plan::{Params, Ptr};
use bytemuck::{Pod, Zeroable};
use std::mem::offset_of;

/// Mirrors `GaussianStrides`: where an element lies, in elements from index 0 of the tensor.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Strides {
    pub offset: i64,
    pub b: i64,
    pub h: i64,
    pub line: i64,
    pub axis: i64,
}
impl Strides {
    /// Of a tensor that the launch does not touch.
    pub const ZERO: Strides = Strides { offset: 0, b: 0, h: 0, line: 0, axis: 0 };
}
const _: () = assert!(size_of::<Strides>() == 40, "change kernels/gaussian.cuh together with this");

/// Mirrors `GaussianRadius`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Radius {
    pub sigma: Ptr,
    pub stride: i64,
    pub reach: i32,
    pub kernel: i32,
}
const _: () = assert!(size_of::<Radius>() == 24, "change kernels/gaussian.cuh together with this");

/// Mirrors `GaussianNormParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct NormParams {
    pub radius: Radius,
    pub tables: Ptr,
    pub y: i32,
    pub x: i32,
    pub is_row: i32,
    pub is_backward: i32,
    pub rounding: i32,
    pub pad: i32,
}
const _: () = assert!(size_of::<NormParams>() == 56, "change kernels/gaussian.cuh together with this");
impl Params for NormParams {
    const POINTERS: &'static [usize] = &[offset_of!(Self, radius.sigma), offset_of!(Self, tables)];
}

/// Mirrors `GaussianLineParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LineParams {
    pub radius: Radius,
    pub src: Ptr,
    pub dst: Ptr,
    pub tables: Ptr,
    pub src_at: Strides,
    pub dst_at: Strides,
    pub table_stride: i64,
    pub pre: i64,
    pub post_axis: i64,
    pub post_line: i64,
    pub post_axis_step: i32,
    pub heads: i32,
    pub first_bh: i32,
    pub axis: i32,
    pub first_out: i32,
    pub num_out: i32,
    pub num_lines: i32,
    pub channels: i32,
}
const _: () = assert!(size_of::<LineParams>() == 192, "change kernels/gaussian.cuh together with this");
impl Params for LineParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, radius.sigma),
        offset_of!(Self, src),
        offset_of!(Self, dst),
        offset_of!(Self, tables),
    ];
}

/// Mirrors `GaussianBwdLineParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BwdLineParams {
    pub radius: Radius,
    pub d_o: Ptr,
    pub dv: Ptr,
    pub v: Ptr,
    pub ghat: Ptr,
    pub ehat: Ptr,
    pub partials: Ptr,
    pub tables: Ptr,
    pub in_at: Strides,
    pub out_at: Strides,
    pub scratch_at: Strides,
    pub table_stride: i64,
    pub partials_bh: i64,
    pub first_partial: i64,
    pub post_line: i64,
    pub mean_line: i64,
    pub pre: i64,
    pub mean_axis: i64,
    pub heads: i32,
    pub first_bh: i32,
    pub axis: i32,
    pub first_out: i32,
    pub num_out: i32,
    pub num_lines: i32,
    pub channels: i32,
    pub pad: i32,
}
const _: () = assert!(size_of::<BwdLineParams>() == 288, "change kernels/gaussian.cuh together with this");
impl Params for BwdLineParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, radius.sigma),
        offset_of!(Self, d_o),
        offset_of!(Self, dv),
        offset_of!(Self, v),
        offset_of!(Self, ghat),
        offset_of!(Self, ehat),
        offset_of!(Self, partials),
        offset_of!(Self, tables),
    ];
}

/// Mirrors `GaussianBwdSumParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BwdSumParams {
    pub radius: Radius,
    pub partials: Ptr,
    pub dsigma: Ptr,
    pub per_bh: i64,
    pub dsigma_stride: i64,
    pub b: i32,
    pub heads: i32,
}
const _: () = assert!(size_of::<BwdSumParams>() == 64, "change kernels/gaussian.cuh together with this");
impl Params for BwdSumParams {
    const POINTERS: &'static [usize] =
        &[offset_of!(Self, radius.sigma), offset_of!(Self, partials), offset_of!(Self, dsigma)];
}

/// Mirrors `GaussianItems`: how planes lie in the shared memory of a block.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Items {
    pub heads: i32,
    pub items: i32,
    pub items_per_block: i32,
    pub slices: i32,
    pub log2_units: i32,
    pub y: i32,
    pub x: i32,
    pub channels: i32,
    pub pitch: i32,
    pub unit_stride: i32,
    pub item_bytes: i32,
    pub is_row: i32,
}
const _: () = assert!(size_of::<Items>() == 48, "change kernels/gaussian.cuh together with this");

/// Mirrors `GaussianPlaneParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct PlaneParams {
    pub radius: Radius,
    pub v: Ptr,
    pub o: Ptr,
    pub v_at: Strides,
    pub o_at: Strides,
    pub items: Items,
}
const _: () = assert!(size_of::<PlaneParams>() == 168, "change kernels/gaussian.cuh together with this");
impl Params for PlaneParams {
    const POINTERS: &'static [usize] =
        &[offset_of!(Self, radius.sigma), offset_of!(Self, v), offset_of!(Self, o)];
}

/// Mirrors `GaussianBwdPlaneParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BwdPlaneParams {
    pub radius: Radius,
    pub v: Ptr,
    pub d_o: Ptr,
    pub dv: Ptr,
    pub partials: Ptr,
    pub v_at: Strides,
    pub d_o_at: Strides,
    pub dv_at: Strides,
    pub items: Items,
}
const _: () = assert!(size_of::<BwdPlaneParams>() == 224, "change kernels/gaussian.cuh together with this");
impl Params for BwdPlaneParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, radius.sigma),
        offset_of!(Self, v),
        offset_of!(Self, d_o),
        offset_of!(Self, dv),
        offset_of!(Self, partials),
    ];
}

/// Mirrors `GaussianTiles`: how maps are cut into tiles of queries, and channels into groups of columns.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Tiles {
    pub y: i32,
    pub x: i32,
    pub channels: i32,
    pub units: i32,
    pub columns: i32,
    pub groups: i32,
    pub rows_of_tiles: i32,
    pub tiles_of_row: i32,
}
const _: () = assert!(size_of::<Tiles>() == 32, "change kernels/gaussian_tile.cuh together with this");

/// Mirrors `GaussianTileNormParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct TileNormParams {
    pub radius: Radius,
    pub inverse: Ptr,
    pub mean: Ptr,
    pub tiles: Tiles,
    pub rounding: i32,
    pub pad: i32,
}
const _: () =
    assert!(size_of::<TileNormParams>() == 80, "change kernels/gaussian_tile.cuh together with this");
impl Params for TileNormParams {
    const POINTERS: &'static [usize] =
        &[offset_of!(Self, radius.sigma), offset_of!(Self, inverse), offset_of!(Self, mean)];
}

/// Mirrors `GaussianTileParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct TileParams {
    pub radius: Radius,
    pub src: Ptr,
    pub dst: Ptr,
    pub inverse: Ptr,
    pub src_at: Strides,
    pub dst_at: Strides,
    pub tiles: Tiles,
    pub scales_inputs: i32,
    pub pad: i32,
}
const _: () = assert!(size_of::<TileParams>() == 168, "change kernels/gaussian_tile.cuh together with this");
impl Params for TileParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, radius.sigma),
        offset_of!(Self, src),
        offset_of!(Self, dst),
        offset_of!(Self, inverse),
    ];
}

/// Mirrors `GaussianBwdTileParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BwdTileParams {
    pub radius: Radius,
    pub v: Ptr,
    pub d_o: Ptr,
    pub partials: Ptr,
    pub inverse: Ptr,
    pub mean: Ptr,
    pub v_at: Strides,
    pub d_o_at: Strides,
    pub tiles: Tiles,
}
const _: () =
    assert!(size_of::<BwdTileParams>() == 176, "change kernels/gaussian_tile.cuh together with this");
impl Params for BwdTileParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, radius.sigma),
        offset_of!(Self, v),
        offset_of!(Self, d_o),
        offset_of!(Self, partials),
        offset_of!(Self, inverse),
        offset_of!(Self, mean),
    ];
}
