//! Plans of the passes over planes: maps that fit in shared memory, in one launch.

use super::lines::Along;
use super::params::PlaneParams;
use super::plan::{ForwardProblem, Map, grid, radius};
use crate::config::gaussian::{GaussianConfig, Norm};
use crate::plan::Ptr;
use crate::{DType, Gpu, Launch, Plan, Result};

// Constants of `kernels/gaussian_plane.cuh`.
const AXIS_MAX: i32 = 128;
const UNIT_BYTES: i32 = 16;
const MMA_M: i32 = 16;
const RUN: i32 = 8;
const QUAD: i32 = 4;

/// Wider slices than this make no faster copies, and leave fewer blocks to a multiprocessor.
const ITEM_BYTES_AIM: i32 = 56 << 10;
/// Small items share a block until it holds as much as this, ...
const BLOCK_BYTES_AIM: i32 = 24 << 10;
/// ... if there are as many blocks as this.
const BLOCKS_AIM: i64 = 512;
/// Banks of shared memory, in units: neighbours of one access must differ modulo this.
const BANKS: i32 = 8;

/// What a pass keeps for an item.
#[derive(Clone, Copy)]
pub(super) struct Holds {
    /// Planes of each unit.
    planes: i32,
    /// Arrays by position or distance of each axis, beside the Toeplitz table.
    vectors: i32,
}
pub(super) const FORWARD: Holds = Holds { planes: 1, vectors: 2 };

/// How a block's shared memory is laid out; mirrors `gaussian::Layout` and its `AxisTable`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    log2_units: i32,
    slices: i32,
    pitch: i32,
    unit_stride: i32,
    item_bytes: i32,
    items: i32,
    items_per_block: i32,
}

impl Shared {
    /// `None` where the map is too large for the passes over planes.
    pub fn new(map: &Map, dtype: DType, gpu: &Gpu, holds: Holds) -> Option<Self> {
        if map.y > AXIS_MAX || map.x > AXIS_MAX {
            return None;
        }
        let limit = i32::try_from(gpu.shared_optin_bytes).unwrap_or(i32::MAX) - UNIT_BYTES;
        let units = (map.d * dtype.bytes() as i32 + UNIT_BYTES - 1) / UNIT_BYTES;
        let most = units.unsigned_abs().next_power_of_two().trailing_zeros().cast_signed();
        // As wide as the aim allows; else a sector, else half of one.
        let candidates = (0..=most).rev().map(|log2_units| Self::of(map, dtype, log2_units, units, holds));
        let aimed =
            |s: &Self| s.item_bytes <= if s.log2_units > 1 { ITEM_BYTES_AIM.min(limit) } else { limit };
        let mut shared = candidates.into_iter().find(aimed)?;
        let items = i64::from(map.planes()) * i64::from(shared.slices);
        shared.items = i32::try_from(items).ok()?;
        let by_bytes = i64::from(BLOCK_BYTES_AIM.min(limit) / shared.item_bytes);
        let per_block = by_bytes.min(items / BLOCKS_AIM).max(1);
        shared.items_per_block = i32::try_from(per_block).ok()?;
        Some(shared)
    }

    fn of(map: &Map, dtype: DType, log2_units: i32, units: i32, holds: Holds) -> Self {
        let pitch = map.x | 1;
        // The units of a pixel, and their neighbours, lie in different banks.
        let phase = if log2_units > 3 { 1 } else { BANKS >> log2_units };
        let plane = map.y * pitch;
        let unit_stride = plane + (phase - plane).rem_euclid(BANKS);
        let padded = |n: i32, to: i32| (n + to - 1) / to * to;
        let words = |axis: i32| {
            let toeplitz = 2 * padded(axis, if dtype == DType::F32 { RUN } else { MMA_M });
            toeplitz + holds.vectors * padded(axis, QUAD)
        };
        let tables = (words(map.y) + words(map.x) + QUAD) * 4;
        let item_bytes = holds.planes * (unit_stride << log2_units) * UNIT_BYTES + tables;
        let slices = (units + (1 << log2_units) - 1) >> log2_units;
        Self { log2_units, slices, pitch, unit_stride, item_bytes, items: 0, items_per_block: 1 }
    }

    fn bytes(&self) -> u32 {
        (self.items_per_block * self.item_bytes + UNIT_BYTES).unsigned_abs()
    }

    fn grid(&self) -> Result<u32> {
        grid(
            (i128::from(self.items) + i128::from(self.items_per_block) - 1)
                / i128::from(self.items_per_block),
        )
    }
}

pub(super) fn forward(
    config: &GaussianConfig,
    problem: &ForwardProblem,
    map: &Map,
    shared: &Shared,
) -> Result<Plan> {
    let kernel = match problem.dtype {
        DType::F32 => "gaussian_fwd_plane_f32",
        DType::F16 => "gaussian_fwd_plane_f16",
        DType::Bf16 => "gaussian_fwd_plane_bf16",
    };
    let params = PlaneParams {
        radius: radius(config, &problem.sigma),
        v: Ptr::operand(0),
        o: Ptr::operand(2),
        v_at: map.strides(&problem.v, Along::X, 0),
        o_at: map.strides(&problem.o, Along::X, 0),
        heads: map.h,
        items: shared.items,
        items_per_block: shared.items_per_block,
        slices: shared.slices,
        log2_units: shared.log2_units,
        y: map.y,
        x: map.x,
        channels: map.d,
        pitch: shared.pitch,
        unit_stride: shared.unit_stride,
        item_bytes: shared.item_bytes,
        is_row: (config.norm == Norm::Row).into(),
    };
    let launches = vec![Launch::new(kernel, shared.grid()?, shared.bytes(), &params)];
    Ok(Plan { launches, workspace_bytes: 0 })
}
