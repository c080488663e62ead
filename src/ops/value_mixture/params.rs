//! The parameter structs of `kernels/value_mixture*`: same fields, same order.

use crate::Layout;
use crate::plan::{Divisor, Params, Ptr};
use bytemuck::{Pod, Zeroable};
use std::mem::offset_of;

/// Mirrors `Map` of `value_mixture.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Map {
    pub data: Ptr,
    /// Of m, b, h, y, x.
    pub strides: [i64; 5],
    pub is_wide: i64,
}
const _: () = assert!(size_of::<Map>() == 56, "change kernels/value_mixture.cuh together with this");

impl Map {
    /// No tensor.
    pub const NONE: Map = Map { data: Ptr::NULL, strides: [0; 5], is_wide: 0 };
}

/// Mirrors `Table` of `value_mixture.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Table {
    pub data: Ptr,
    pub strides: [i64; 2],
}
const _: () = assert!(size_of::<Table>() == 24, "change kernels/value_mixture.cuh together with this");

impl Table {
    /// No table.
    pub const NONE: Table = Table { data: Ptr::NULL, strides: [0; 2] };

    pub fn of(operand: u8, layout: &Layout<2>) -> Self {
        Self { data: Ptr::operand(operand), strides: layout.strides.map(|stride| stride as i64) }
    }
}

/// Mirrors `ValueMixtureFwdWeightsParams` in `kernels/value_mixture_fwd_weights.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ValueMixtureFwdWeightsParams {
    pub row: Table,
    pub column: Table,
    pub nu: Table,
    pub p: Ptr,
    pub columns: Divisor,
    pub sites: i32,
    pub mixtures: i32,
    pub channels: i32,
}
const _: () = assert!(
    size_of::<ValueMixtureFwdWeightsParams>() == 104,
    "change kernels/value_mixture_fwd_weights.cu together with this"
);

impl Params for ValueMixtureFwdWeightsParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, row.data),
        offset_of!(Self, column.data),
        offset_of!(Self, nu.data),
        offset_of!(Self, p),
    ];
}

/// Mirrors `ValueMixtureFwdParams` in `kernels/value_mixture_fwd.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ValueMixtureFwdParams {
    pub vs: Map,
    pub o: Map,
    pub p: Ptr,
    pub units: Divisor,
    pub columns: Divisor,
    pub rows: Divisor,
    pub heads: Divisor,
    pub table_rows: Divisor,
    pub table_columns: Divisor,
    pub pixels: i32,
    pub pixels_per_block: i32,
    pub mixtures: i32,
    pub channels: i32,
}
const _: () = assert!(
    size_of::<ValueMixtureFwdParams>() == 208,
    "change kernels/value_mixture_fwd.cu together with this"
);

impl Params for ValueMixtureFwdParams {
    const POINTERS: &'static [usize] =
        &[offset_of!(Self, vs.data), offset_of!(Self, o.data), offset_of!(Self, p)];
}

/// Mirrors `ValueMixtureBwdParams` in `kernels/value_mixture_bwd.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ValueMixtureBwdParams {
    pub vs: Map,
    pub d_o: Map,
    pub dvs: Map,
    pub p: Ptr,
    pub partials: Ptr,
    pub units: Divisor,
    pub columns: Divisor,
    pub quartets: Divisor,
    pub tiles: Divisor,
    pub seen_rows: Divisor,
    pub across: Divisor,
    pub down: Divisor,
    pub heads: Divisor,
    pub table_rows: i32,
    pub table_columns: i32,
    pub seen_columns: i32,
    pub y: i32,
    pub x: i32,
    pub pixels: i32,
    pub repeats: i32,
    pub pixels_per_block: i32,
    pub splits: i32,
    pub mixtures: i32,
    pub channels: i32,
    pub tree: i32,
}
const _: () = assert!(
    size_of::<ValueMixtureBwdParams>() == 328,
    "change kernels/value_mixture_bwd.cu together with this"
);

impl Params for ValueMixtureBwdParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, vs.data),
        offset_of!(Self, d_o.data),
        offset_of!(Self, dvs.data),
        offset_of!(Self, p),
        offset_of!(Self, partials),
    ];
}

/// Mirrors `ValueMixtureBwdScoresParams` in `kernels/value_mixture_bwd_sum.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ValueMixtureBwdScoresParams {
    pub p: Ptr,
    pub partials: Ptr,
    pub dscores: Ptr,
    pub columns: Divisor,
    pub sites: i32,
    pub seen_rows: i32,
    pub seen_columns: i32,
    pub splits: i32,
    pub mixtures: i32,
}
const _: () = assert!(
    size_of::<ValueMixtureBwdScoresParams>() == 56,
    "change kernels/value_mixture_bwd_sum.cu together with this"
);

impl Params for ValueMixtureBwdScoresParams {
    const POINTERS: &'static [usize] =
        &[offset_of!(Self, p), offset_of!(Self, partials), offset_of!(Self, dscores)];
}

/// Mirrors `ValueMixtureBwdTablesParams` in `kernels/value_mixture_bwd_sum.cu`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct ValueMixtureBwdTablesParams {
    pub row: Table,
    pub column: Table,
    pub nu: Table,
    pub drow: Table,
    pub dcolumn: Table,
    pub dnu: Table,
    pub dscores: Ptr,
    pub margins: Ptr,
    pub span: Divisor,
    pub channels: Divisor,
    pub rows: i32,
    pub columns: i32,
    pub mixtures: i32,
    pub pad: i32,
}
const _: () = assert!(
    size_of::<ValueMixtureBwdTablesParams>() == 200,
    "change kernels/value_mixture_bwd_sum.cu together with this"
);

impl Params for ValueMixtureBwdTablesParams {
    const POINTERS: &'static [usize] = &[
        offset_of!(Self, row.data),
        offset_of!(Self, column.data),
        offset_of!(Self, nu.data),
        offset_of!(Self, drow.data),
        offset_of!(Self, dcolumn.data),
        offset_of!(Self, dnu.data),
        offset_of!(Self, dscores),
        offset_of!(Self, margins),
    ];
}
