//! Mirrors of the parameter structs in `kernels/axial*.cu` and `.cuh`: same fields, same order.

use crate::Layout;
use crate::ops::planning::stride;
use crate::plan::{Divisor, Params, Ptr};
use bytemuck::{Pod, Zeroable};
use std::mem::offset_of;

/// Mirrors `axial::Map`: a tensor as a launch walks it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Map {
    pub data: Ptr,
    pub offset: i64,
    pub stride_b: i64,
    pub stride_h: i64,
    pub stride_line: i64,
    pub stride_axis: i64,
}
const _: () = assert!(size_of::<Map>() == 48, "change kernels/axial.cuh together with this");

impl Map {
    pub const NONE: Map =
        Map { data: Ptr::NULL, offset: 0, stride_b: 0, stride_h: 0, stride_line: 0, stride_axis: 0 };
}

/// Mirrors `axial::Table`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Table {
    pub data: Ptr,
    pub stride_h: i64,
    pub stride_row: i64,
    pub reach: i64,
}
const _: () = assert!(size_of::<Table>() == 32, "change kernels/axial.cuh together with this");

impl Table {
    pub fn of(operand: u8, layout: &Layout<3>) -> Self {
        Self {
            data: Ptr::operand(operand),
            stride_h: stride(layout, 0),
            stride_row: stride(layout, 1),
            reach: layout.shape[1].div_ceil(2) as i64,
        }
    }
}

/// Mirrors `axial::Vector`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Vector {
    pub data: Ptr,
    pub stride_h: i64,
    pub stride_channel: i64,
}
const _: () = assert!(size_of::<Vector>() == 24, "change kernels/axial.cuh together with this");

impl Vector {
    pub const NONE: Vector = Vector { data: Ptr::NULL, stride_h: 0, stride_channel: 0 };

    pub fn of(operand: u8, layout: &Layout<2>) -> Self {
        let data = Ptr::operand(operand);
        Self { data, stride_h: stride(layout, 0), stride_channel: stride(layout, 1) }
    }

    /// Rows of `e` numbers, one after the other.
    pub fn scratch(data: Ptr, heads: usize, e: usize) -> Self {
        Self { data, stride_h: if heads == 1 { 0 } else { e as i64 }, stride_channel: 1 }
    }
}

/// Mirrors `axial::Norm`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Norm {
    pub weight: Vector,
    pub bias: Vector,
    pub mean: Vector,
    pub var: Vector,
    pub epsilon: f32,
    pub pad: i32,
}
const _: () = assert!(size_of::<Norm>() == 104, "change kernels/axial.cuh together with this");

impl Norm {
    pub const NONE: Norm = Norm {
        weight: Vector::NONE,
        bias: Vector::NONE,
        mean: Vector::NONE,
        var: Vector::NONE,
        epsilon: 0.0,
        pad: 0,
    };
}

/// Mirrors `axial::Summary`: what gsa adds.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Summary {
    pub data: Ptr,
    pub heads: i32,
    pub rows: i32,
    pub norms_queries: i32,
    pub pad: i32,
}
const _: () = assert!(size_of::<Summary>() == 24, "change kernels/axial.cuh together with this");

impl Summary {
    pub const NONE: Summary = Summary { data: Ptr::NULL, heads: 0, rows: 0, norms_queries: 0, pad: 0 };
}

/// Mirrors `axial::Lines`: the work of a launch.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Lines {
    pub axis: i32,
    pub lines: i32,
    pub per_image: Divisor,
    pub first_image: i32,
    pub first_head: i32,
    pub tiles: i32,
    pub log2_grains: i32,
    pub groups: i32,
    pub groups_per_block: i32,
    pub blocks: i32,
    pub d: i32,
    pub e: i32,
    pub tiles_per_block: i32,
}
const _: () = assert!(size_of::<Lines>() == 60, "change kernels/axial.cuh together with this");

/// Mirrors `AxialFwdParams`; its tensors are an array there.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AxialFwdParams {
    pub q: Map,
    pub v: Map,
    pub o: Map,
    pub table: Table,
    pub norm: Norm,
    pub summary: Summary,
    pub partials: Ptr,
    pub lines: Lines,
    pub pad: i32,
}
const _: () = assert!(size_of::<AxialFwdParams>() == 376, "change kernels/axial_fwd.cu together with this");

impl Params for AxialFwdParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, q.data),
        offset_of!(Self, v.data),
        offset_of!(Self, o.data),
        offset_of!(Self, table.data),
        offset_of!(Self, norm.weight.data),
        offset_of!(Self, norm.bias.data),
        offset_of!(Self, norm.mean.data),
        offset_of!(Self, norm.var.data),
        offset_of!(Self, summary.data),
        offset_of!(Self, partials),
    ];
}

/// Mirrors `AxialFwdNormParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AxialFwdNormParams {
    pub partials: Ptr,
    pub mean: Vector,
    pub var: Vector,
    pub mean_out: Vector,
    pub var_out: Vector,
    pub count: i32,
    pub e: i32,
}
const _: () =
    assert!(size_of::<AxialFwdNormParams>() == 112, "change kernels/axial_fwd_norm.cu together with this");

impl Params for AxialFwdNormParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, partials),
        offset_of!(Self, mean.data),
        offset_of!(Self, var.data),
        offset_of!(Self, mean_out.data),
        offset_of!(Self, var_out.data),
    ];
}

/// Mirrors `AxialBwdParams`; its tensors are an array there.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AxialBwdParams {
    pub q: Map,
    pub v: Map,
    pub g: Map,
    pub y: Map,
    pub dq: Map,
    pub dv: Map,
    pub table: Table,
    pub norm: Norm,
    pub dweight: Vector,
    pub dbias: Vector,
    pub table_partials: Ptr,
    pub norm_partials: Ptr,
    pub lines: Lines,
    pub inverse_count: f32,
    pub norm_of: i32,
    pub adds_dq: i32,
    pub partial_rows: i32,
    pub partial_pitch: i32,
    pub partial_begin: i32,
    pub pad: i32,
}
const _: () = assert!(size_of::<AxialBwdParams>() == 576, "change kernels/axial_bwd.cuh together with this");

impl Params for AxialBwdParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, q.data),
        offset_of!(Self, v.data),
        offset_of!(Self, g.data),
        offset_of!(Self, y.data),
        offset_of!(Self, dq.data),
        offset_of!(Self, dv.data),
        offset_of!(Self, table.data),
        offset_of!(Self, norm.weight.data),
        offset_of!(Self, norm.bias.data),
        offset_of!(Self, norm.mean.data),
        offset_of!(Self, norm.var.data),
        offset_of!(Self, dweight.data),
        offset_of!(Self, dbias.data),
        offset_of!(Self, table_partials),
        offset_of!(Self, norm_partials),
    ];
}

/// Mirrors `AxialBwdTableParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AxialBwdTableParams {
    pub partials: Ptr,
    pub table: Table,
    pub dtable: Ptr,
    pub stride_h: i64,
    pub stride_row: i64,
    pub stride_channel: i64,
    pub lines: Lines,
    pub heads: i32,
    pub partial_rows: i32,
    pub partial_pitch: i32,
    pub first_head: i32,
    pub is_shared: i32,
    pub adds: i32,
    pub partial_begin: i32,
}
const _: () =
    assert!(size_of::<AxialBwdTableParams>() == 160, "change kernels/axial_bwd_sum.cu together with this");

impl Params for AxialBwdTableParams {
    const POINTERS: &'static [usize] =
        &[offset_of!(Self, partials), offset_of!(Self, table.data), offset_of!(Self, dtable)];
}

/// Mirrors `AxialBwdNormParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AxialBwdNormParams {
    pub partials: Ptr,
    pub dweight: Vector,
    pub dbias: Vector,
    pub dweight_out: Vector,
    pub dbias_out: Vector,
    pub heads: i32,
    pub blocks: i32,
    pub first_head: i32,
    pub is_shared: i32,
    pub e: i32,
    pub adds: i32,
}
const _: () =
    assert!(size_of::<AxialBwdNormParams>() == 128, "change kernels/axial_bwd_sum.cu together with this");

impl Params for AxialBwdNormParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, partials),
        offset_of!(Self, dweight.data),
        offset_of!(Self, dbias.data),
        offset_of!(Self, dweight_out.data),
        offset_of!(Self, dbias_out.data),
    ];
}

/// Mirrors `AxialFwdMapParams`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct AxialFwdMapParams {
    pub q: Map,
    pub v: Map,
    pub y: Map,
    pub o: Map,
    pub columns: Table,
    pub rows: Table,
    pub norm: Norm,
    pub summary: Summary,
    pub along_columns: Lines,
    pub along_rows: Lines,
    pub heads: i32,
    pub slices: i32,
    pub log2_units: i32,
    pub pitch: i32,
}
const _: () =
    assert!(size_of::<AxialFwdMapParams>() == 520, "change kernels/axial_fwd_map.cu together with this");

impl Params for AxialFwdMapParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, q.data),
        offset_of!(Self, v.data),
        offset_of!(Self, y.data),
        offset_of!(Self, o.data),
        offset_of!(Self, columns.data),
        offset_of!(Self, rows.data),
        offset_of!(Self, norm.weight.data),
        offset_of!(Self, norm.bias.data),
        offset_of!(Self, norm.mean.data),
        offset_of!(Self, norm.var.data),
        offset_of!(Self, summary.data),
    ];
}
