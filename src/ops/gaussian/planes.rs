//! Plans of the passes over planes: maps that fit in shared memory, in one launch.

use super::lines::{Along, sum};
use super::params::{BwdPlaneParams, Items, PlaneParams, Strides};
use super::plan::{BackwardProblem, ForwardProblem, Map, OP, radius};
use crate::config::gaussian::{GaussianConfig, Norm};
use crate::ops::planning::{Arena, grid};
use crate::plan::Ptr;
use crate::{DType, Gpu, Launch, Plan, Result};

// Constants of `kernels/gaussian_plane.cuh`.
const AXIS_MAX: i32 = 128;
const UNIT_BYTES: i32 = 16;
const MMA_M: i32 = 16;
const RUN: i32 = 8;
const QUAD: i32 = 4;
const WARPS: i32 = 8;

/// Wider slices than this make no faster copies, and leave fewer blocks to a multiprocessor.
const ITEM_BYTES_AIM: i32 = 56 << 10;
/// Small items share a block until it holds as much as this, ...
const BLOCK_BYTES_AIM: i32 = 24 << 10;
/// ... if there are as many blocks as this.
const BLOCKS_AIM: i64 = 512;
/// Banks of shared memory, in units: neighbours of one access must differ modulo this.
const BANKS: i32 = 8;

/// What a pass keeps for an item; mirrors `gaussian::AxisTable` and `gaussian::Layout`.
#[derive(Clone, Copy)]
struct Holds {
    /// Planes of each unit.
    planes: i32,
    /// Toeplitz tables of each axis.
    toeplitz: i32,
    /// Vectors of each axis' length.
    vectors: i32,
    /// Floats behind the tables.
    tail: i32,
}

impl Holds {
    const FORWARD: Holds = Holds { planes: 1, toeplitz: 1, vectors: 2, tail: QUAD };

    fn backward(dtype: DType, has_dsigma: bool) -> Self {
        let (planes, toeplitz) = (1 + i32::from(has_dsigma), 1 + i32::from(dtype == DType::F32));
        Self { planes, toeplitz, vectors: 4, tail: QUAD + WARPS }
    }
}

/// How a block's shared memory is laid out.
#[derive(Clone, Copy, Debug)]
struct Shared {
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
    fn new(map: &Map, dtype: DType, gpu: &Gpu, holds: Holds) -> Option<Self> {
        if map.y > AXIS_MAX || map.x > AXIS_MAX {
            return None;
        }
        let limit = i32::try_from(gpu.shared_optin_bytes).unwrap_or(i32::MAX) - UNIT_BYTES;
        let units = (map.d * dtype.bytes() as i32 + UNIT_BYTES - 1) / UNIT_BYTES;
        let most = units.unsigned_abs().next_power_of_two().trailing_zeros().cast_signed();
        // As wide as the aim allows; else a sector, else half of one.
        let aimed =
            |s: &Self| s.item_bytes <= if s.log2_units > 1 { ITEM_BYTES_AIM.min(limit) } else { limit };
        let widths = (0..=most).rev();
        let mut shared = widths.map(|log2| Self::of(map, dtype, log2, units, holds)).find(aimed)?;
        let items = i64::from(map.planes()) * i64::from(shared.slices);
        shared.items = i32::try_from(items).ok()?;
        let by_bytes = i64::from(BLOCK_BYTES_AIM / shared.item_bytes);
        shared.items_per_block = i32::try_from(by_bytes.min(items / BLOCKS_AIM).max(1)).ok()?;
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
            holds.toeplitz * toeplitz + holds.vectors * padded(axis, QUAD)
        };
        let tables = (words(map.y) + words(map.x) + holds.tail) * 4;
        let item_bytes = holds.planes * (unit_stride << log2_units) * UNIT_BYTES + tables;
        let slices = (units + (1 << log2_units) - 1) >> log2_units;
        Self { log2_units, slices, pitch, unit_stride, item_bytes, items: 0, items_per_block: 1 }
    }

    fn bytes(&self) -> u32 {
        (self.items_per_block * self.item_bytes + UNIT_BYTES).unsigned_abs()
    }

    fn grid(&self) -> Result<u32> {
        grid(
            OP,
            (i128::from(self.items) + i128::from(self.items_per_block) - 1)
                / i128::from(self.items_per_block),
        )
    }

    fn params(&self, config: &GaussianConfig, map: &Map) -> Items {
        Items {
            heads: map.h,
            items: self.items,
            items_per_block: self.items_per_block,
            slices: self.slices,
            log2_units: self.log2_units,
            y: map.y,
            x: map.x,
            channels: map.d,
            pitch: self.pitch,
            unit_stride: self.unit_stride,
            item_bytes: self.item_bytes,
            is_row: (config.norm == Norm::Row).into(),
        }
    }
}

/// `None` where the map is too large.
pub(super) fn forward(
    config: &GaussianConfig,
    problem: &ForwardProblem,
    map: &Map,
    gpu: &Gpu,
) -> Option<Result<Plan>> {
    let shared = Shared::new(map, problem.dtype, gpu, Holds::FORWARD)?;
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
        items: shared.params(config, map),
    };
    let launch = shared.grid().map(|grid| Launch::new(kernel, grid, shared.bytes(), &params));
    Some(launch.map(|launch| Plan { launches: vec![launch], workspace_bytes: 0 }))
}

/// `None` where the map is too large, or nothing is wanted.
pub(super) fn backward(
    config: &GaussianConfig,
    problem: &BackwardProblem,
    map: &Map,
    gpu: &Gpu,
) -> Option<Result<Plan>> {
    if problem.dv.is_none() && problem.dsigma.is_none() {
        return None;
    }
    let shared =
        Shared::new(map, problem.dtype, gpu, Holds::backward(problem.dtype, problem.dsigma.is_some()))?;
    Some(backward_with(config, problem, map, &shared))
}

fn backward_with(
    config: &GaussianConfig,
    problem: &BackwardProblem,
    map: &Map,
    shared: &Shared,
) -> Result<Plan> {
    let kernel = match problem.dtype {
        DType::F32 => "gaussian_bwd_plane_f32",
        DType::F16 => "gaussian_bwd_plane_f16",
        DType::Bf16 => "gaussian_bwd_plane_bf16",
    };
    let mut scratch = Arena::default();
    let partials = problem.dsigma.map(|_| scratch.take(i64::from(shared.items) * 4));
    let at = |layout| map.strides(layout, Along::X, 0);
    let params = BwdPlaneParams {
        radius: radius(config, &problem.sigma),
        v: Ptr::operand(0),
        d_o: Ptr::operand(2),
        dv: problem.dv.map_or(Ptr::NULL, |_| Ptr::operand(3)),
        partials: partials.unwrap_or(Ptr::NULL),
        v_at: at(&problem.v),
        d_o_at: at(&problem.d_o),
        dv_at: problem.dv.as_ref().map_or(Strides::ZERO, at),
        items: shared.params(config, map),
    };
    let mut launches = vec![Launch::new(kernel, shared.grid()?, shared.bytes(), &params)];
    if let (Some(dsigma), Some(partials)) = (&problem.dsigma, partials) {
        launches.push(sum(config, problem, map.b, dsigma, partials, i64::from(shared.slices))?);
    }
    scratch.plan(OP, launches)
}
