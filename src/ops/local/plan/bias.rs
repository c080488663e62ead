//! What an additive bias table adds to a plan: its copies in shared memory, its entries, and its gradient's partial sums.

use super::params::{Axis, LocalBwdDkvParams, LocalBwdDqParams, LocalFwdParams};
use super::tiling::{PATCH, Tiling, round_up};
use crate::Layout;
use crate::config::local::LocalConfig;
use crate::ops::planning::stride;
use crate::plan::{Divisor, Params, Ptr};
use bytemuck::{Pod, Zeroable};

/// Rows that a walk's last step may read behind a patch's keys.
const TAIL_ROWS: usize = 2;
/// Bytes of the words that say where a warp's sums are; see `kPlaceBytes` in `kernels/local_bias_sums.cuh`.
const PLACE_BYTES: usize = 16;
/// Copies begin at multiples of this.
const ALIGN: usize = 16;

/// Mirrors `Bias` in `kernels/local_bias.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Bias {
    pub data: Ptr,
    pub strides: [i64; 3],
    pub offset: i32,
    pub plane_bytes: i32,
    pub rows: i32,
    pub row_bytes: i32,
    pub wrap_bytes: i32,
    pub pads: [i32; 2],
    pub columns: Divisor,
}

/// Mirrors `BiasGradient` in `kernels/local_bias_sums.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct BiasGradient {
    pub partials: Ptr,
    pub offset: i32,
    pub pitch: i32,
    pub rows: i32,
    pub wrap_bytes: i32,
    pub columns: Divisor,
    pub unused: i32,
}

/// Mirrors `LocalFwdBiasParams` in `kernels/local_fwd.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LocalFwdBiasParams {
    pub plain: LocalFwdParams,
    pub bias: Bias,
}
const _: () =
    assert!(size_of::<LocalFwdBiasParams>() == 600, "change kernels/local_fwd.cuh together with this");

impl Params for LocalFwdBiasParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 144, 192, 200, 248, 528];
}

/// Mirrors `LocalBwdDqBiasParams` in `kernels/local_bwd_dq.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LocalBwdDqBiasParams {
    pub plain: LocalBwdDqParams,
    pub bias: Bias,
    pub gradient: BiasGradient,
}
const _: () =
    assert!(size_of::<LocalBwdDqBiasParams>() == 784, "change kernels/local_bwd_dq.cuh together with this");

impl Params for LocalBwdDqBiasParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 144, 192, 240, 288, 296, 304, 312, 360, 672, 744];
}

/// Mirrors `LocalBwdDkvBiasParams` in `kernels/local_bwd_dkv.cuh`.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct LocalBwdDkvBiasParams {
    pub plain: LocalBwdDkvParams,
    pub bias: Bias,
}
const _: () =
    assert!(size_of::<LocalBwdDkvBiasParams>() == 728, "change kernels/local_bwd_dkv.cuh together with this");

impl Params for LocalBwdDkvBiasParams {
    const POINTERS: &'static [usize] = &[0, 48, 96, 144, 192, 240, 288, 296, 304, 352, 656];
}

macro_rules! entries {
    ($($pass:literal: $($class:literal)*;)*) => {
        &[$($((concat!($pass, "_", $class), concat!($pass, "_bias_", $class)),)*)*]
    };
}

/// Entries without a bias, and with one.
const ENTRIES: &[(&str, &str)] = entries! {
    "local_fwd": "f32" "f16_d32" "f16_d64" "f16_d128" "f16_d32_tall" "f16_d64_tall"
        "bf16_d32" "bf16_d64" "bf16_d128" "bf16_d32_tall" "bf16_d64_tall";
    "local_bwd_dq": "f32" "f16_d32" "f16_d64" "f16_d128" "bf16_d32" "bf16_d64" "bf16_d128";
    "local_bwd_dkv": "f32" "f16_d32" "f16_d64" "f16_d128" "bf16_d32" "bf16_d64" "bf16_d128";
};

/// The entry that does with a bias what `plain` does without.
pub(super) fn entry(plain: &'static str) -> &'static str {
    ENTRIES.iter().find(|(name, _)| *name == plain).map_or(plain, |(_, biased)| biased)
}

/// The bias that kernels know of. Calls without any positions have one of zeros: it says which keys a query sees, and asks for less
/// than relative tables do.
pub(super) fn of_call(
    config: &LocalConfig,
    tables: &Option<[Layout<3>; 2]>,
    bias: &Option<Layout<3>>,
) -> Option<Layout<3>> {
    let [rows, columns] = config.window.table_rows();
    bias.or_else(|| tables.is_none().then(|| Layout::contiguous([1, rows, columns])))
}

/// Copies of a bias table in a block's shared memory, with pads around the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    layout: Layout<3>,
    pads: [usize; 2],
    rows: usize,
    columns: usize,
    is_shared: bool,
}

impl Copy {
    /// For queries that walk over keys, `packed` in a row. `by_head`: all planes of a block belong to one head.
    pub fn of_keys(layout: &Layout<3>, axes: &[Axis; 2], packed: usize, by_head: bool) -> Self {
        let [_, rows, columns] = layout.shape;
        let before = PATCH - 1;
        // A patch's last query begins `before` rows before the first, and the patch's window has as many more.
        let needs = [rows + 2 * before + TAIL_ROWS, before + columns - axes[1].window as usize + packed];
        Self::new(layout, [before, before], needs, packed, by_head)
    }

    /// For keys that walk over queries, `packed` in a row. `pad_x`: columns that a patch asks for before the table's first.
    pub fn of_queries(layout: &Layout<3>, packed: usize, pad_x: usize) -> Self {
        let [_, rows, columns] = layout.shape;
        let before = PATCH - 1;
        // Queries come in pairs, of which the first may be the last that there is.
        let pad_x = pad_x + 1;
        Self::new(layout, [before, pad_x], [before + rows + before, pad_x + columns + before], packed, false)
    }

    fn new(
        layout: &Layout<3>,
        pads: [usize; 2],
        [rows, columns]: [usize; 2],
        packed: usize,
        by_head: bool,
    ) -> Self {
        Self {
            layout: *layout,
            pads,
            rows,
            columns: pitch(columns, packed),
            is_shared: by_head || layout.shape[0] == 1,
        }
    }

    fn bytes(&self) -> usize {
        round_up(4 * self.rows * self.columns, ALIGN)
    }

    /// Bytes for each plane of a block.
    pub fn plane_bytes(&self) -> usize {
        if self.is_shared { 0 } else { self.bytes() }
    }

    /// Bytes for a block, however many planes it has.
    pub fn block_bytes(&self) -> usize {
        if self.is_shared { self.bytes() } else { 0 }
    }

    /// The copies are the last part of shared memory. `data` may be null.
    pub fn params(&self, data: Ptr, tiling: &Tiling) -> Bias {
        let copies = tiling.frame.planes as usize * self.plane_bytes() + self.block_bytes();
        Bias {
            data,
            strides: [0, 1, 2].map(|i| stride(&self.layout, i)),
            offset: (tiling.shared_bytes - copies) as i32,
            plane_bytes: self.plane_bytes() as i32,
            rows: self.rows as i32,
            row_bytes: 4 * self.columns as i32,
            wrap_bytes: 4 * (self.columns as i32 - tiling.frame.packed),
            pads: self.pads.map(|pad| pad as i32),
            columns: Divisor::new(self.columns as u32),
        }
    }
}

/// Floats of a copy's row from `least` on, so that a warp's reads meet no bank conflict: of 8 neighbouring keys (or queries) every
/// other one at a time, seen from two rows of four queries (or keys).
fn pitch(least: usize, packed: usize) -> usize {
    const BANKS: usize = 32;
    let free = match packed {
        // Keys around the end of a row lie in three of them. (Longer rows leave some conflicts at their ends.)
        10..=18 if !packed.is_multiple_of(8) => packed + 2..=packed / 2 + 11,
        _ => 10..=22,
    };
    (least..least + BANKS).find(|pitch| free.contains(&(pitch % BANKS))).unwrap_or(least)
}

/// A warp's sums of score gradients by offset from the query.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    pitch: usize,
    rows: usize,
}

impl Sums {
    /// Columns of a patch's window, and those that its last query begins after its first.
    pub fn columns(axes: &[Axis; 2]) -> usize {
        axes[1].window as usize + PATCH - 1
    }

    pub fn new(axes: &[Axis; 2], packed: usize) -> Self {
        // Groups of 8 neighbouring sums of four rows: no bank conflict.
        let pitch = round_up(packed + 8, 16) - 8;
        Self { pitch, rows: axes[0].window as usize + 2 * (PATCH - 1) + TAIL_ROWS }
    }

    pub fn bytes(&self) -> usize {
        PLACE_BYTES + 4 * self.rows * self.pitch
    }

    /// `offset`: of a warp's sums in its memory; `partials` may be null.
    pub fn params(&self, partials: Ptr, offset: usize, bias: &Layout<3>, tiling: &Tiling) -> BiasGradient {
        BiasGradient {
            partials,
            offset: offset as i32,
            pitch: self.pitch as i32,
            rows: self.rows as i32,
            wrap_bytes: 4 * (self.pitch as i32 - tiling.frame.packed),
            columns: Divisor::new(bias.shape[2] as u32),
            unused: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Whether the rows of 8 neighbouring keys, seen from two rows of four queries, lie in different banks.
    fn meets_no_conflict(packed: usize, pitch: usize, first: usize) -> bool {
        let entry = |lane: usize| {
            let (key, g) = (first + lane % 4 * 2, lane / 4);
            // Far enough from 0 for all that lies before.
            100 * pitch + key / packed * pitch + key % packed - g / PATCH * pitch - g % PATCH
        };
        (0..2).all(|second| {
            let entries: BTreeSet<usize> = (0..32).map(|lane| entry(lane) + second).collect();
            let banks: BTreeSet<usize> = entries.iter().map(|entry| entry % 32).collect();
            banks.len() == entries.len()
        })
    }

    #[test]
    fn copies_meet_no_bank_conflict() {
        for (least, packed) in
            (0..200).flat_map(|least| (8..=36).step_by(2).map(move |packed| (least, packed)))
        {
            let pitch = pitch(least, packed);
            assert!((least..least + 32).contains(&pitch));
            assert!(meets_no_conflict(1000, pitch, 0), "{least} {packed}");
            // Around the end of a row, which is short in the windows that are used most.
            let mut starts = (0..if packed <= 18 { packed * 8 } else { 0 }).step_by(8);
            assert!(starts.all(|first| meets_no_conflict(packed, pitch, first)), "{least} {packed}");
        }
    }
}
