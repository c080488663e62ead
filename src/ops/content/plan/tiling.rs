//! How positions are split over blocks, and a block's shared memory over tiles.

use super::params::UNIT;
use crate::{DType, Gpu};

/// Channels and positions of a product come in whole blocks; see `content.cuh`.
const BLOCK: usize = 16;
/// Value channels of a unit.
const SLICE: usize = 64;
/// Warps of a block that multiplies by rows.
const ROW_WARPS: usize = 8;
/// Terms of a sum after which it leaves the tensor core; see `prim/mma.cuh`.
const TERMS_MAX: usize = 1024;
/// Blocks of a launch, if there is work for so many: eight for each multiprocessor of the largest GPUs, so that the last
/// wave costs little.
const BLOCKS: usize = 1056;
/// Positions of a split, at least: fewer would be done before their partial sums are written.
const SHORTEST: usize = 128;
/// Partial sums take at most this much, and a twentieth of the inputs.
const PARTIALS_BYTES: usize = 2 << 20;
/// Shared memory that a multiprocessor keeps for itself per block, in bytes.
const RESERVED: usize = 1024;
/// Bytes of a tile that hide the latency of memory.
const STAGE_BYTES: usize = 24 << 10;

pub(super) const fn round_up(n: usize, to: usize) -> usize {
    n.div_ceil(to) * to
}

/// Channel counts, and what they are in shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channels {
    pub d: usize,
    pub e: usize,
    pub dp: usize,
    pub ep: usize,
    pub bytes: usize,
}

impl Channels {
    pub fn of(d: usize, e: usize, dtype: DType) -> Self {
        let column_block = if dtype == DType::F32 { 2 * BLOCK } else { BLOCK };
        Self { d, e, dp: round_up(d, BLOCK), ep: round_up(e, column_block), bytes: dtype.bytes() }
    }

    /// Bytes of a position of `count` channels in shared memory; mirrors `pitch_of` in `content.cuh`.
    pub fn pitch(&self, count: usize) -> usize {
        count * self.bytes + UNIT
    }

    /// Units of 16 bytes of `count` channels.
    pub fn units(&self, count: usize) -> usize {
        count * self.bytes / UNIT
    }

    fn is_f32(&self) -> bool {
        self.bytes == size_of::<f32>()
    }

    /// Floats of a partial summary in memory, without maximum and sum.
    pub fn partial(&self) -> usize {
        self.d * round_up(self.e, 4)
    }
}

/// Shared memory of a block when two are to share a multiprocessor.
fn half_of(gpu: &Gpu) -> usize {
    (gpu.shared_optin_bytes as usize + RESERVED) / 2 - RESERVED
}

/// The launch that sums over positions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    pub is_wide: bool,
    pub slices: usize,
    pub groups: usize,
    pub per_block: usize,
    pub splits: usize,
    pub tile: usize,
    pub stages: usize,
    pub stage_bytes: usize,
    pub own_bytes: usize,
    pub positions_per_pass: usize,
    pub shared_bytes: usize,
}

impl Outer {
    /// Sums over `positions` of `bh` pairs of batch and head, whose inputs have `input_bytes`; `None` when nothing fits, which
    /// no GPU of the classes reaches.
    pub fn plan(c: &Channels, bh: usize, positions: usize, input_bytes: usize, gpu: &Gpu) -> Option<Self> {
        let slices = c.ep.div_ceil(SLICE);
        let units = c.dp / BLOCK * slices;
        let is_wide = units > ROW_WARPS;
        let warps = if is_wide { 2 * ROW_WARPS } else { ROW_WARPS };
        let groups = 1 << (warps / units).ilog2();

        let partial_bytes = (c.partial() + 2 * c.d) * size_of::<f32>();
        let by_memory = (PARTIALS_BYTES + input_bytes / 20) / bh.saturating_mul(partial_bytes);
        let splits = (BLOCKS / bh).min(positions / SHORTEST).min(by_memory).max(1);
        let mut per_block = round_up(positions.div_ceil(splits), BLOCK);
        if !c.is_f32() && groups > 1 {
            per_block = per_block.min(TERMS_MAX * groups);
        }
        let splits = positions.div_ceil(per_block);

        let scratch = if c.is_f32() { BLOCK * (BLOCK + 4) * size_of::<f32>() } else { 0 };
        let is_kept = !c.is_f32() && per_block > TERMS_MAX * groups;
        let own_bytes = scratch + if is_kept { BLOCK * SLICE * size_of::<f32>() } else { 0 };
        let parts = groups * c.dp * (c.ep + 8 + 2) * size_of::<f32>();
        let row = c.pitch(c.dp) + c.pitch(c.ep);
        let fit = |limit: usize| {
            let mut best: Option<((usize, usize, usize), Self)> = None;
            for stages in [2, 3] {
                for tile in [16, 32, 64, 128, 256] {
                    let stage_bytes = tile * row;
                    let shared_bytes = (stages * stage_bytes + warps * own_bytes).max(parts);
                    let is_enough = tile > BLOCK * groups && stage_bytes > STAGE_BYTES;
                    if tile % (BLOCK * groups) != 0 || shared_bytes > limit || is_enough {
                        continue;
                    }
                    // A barrier per tile: it should not be for fewer than 64 positions.
                    let merit = (tile.min(64), stages, tile);
                    let positions_per_pass = warps * 32 / (c.units(c.dp) + c.units(c.ep));
                    let plan = Self {
                        is_wide,
                        slices,
                        groups,
                        per_block,
                        splits,
                        tile,
                        stages,
                        stage_bytes,
                        own_bytes,
                        positions_per_pass,
                        shared_bytes,
                    };
                    if best.is_none_or(|(most, _)| merit > most) {
                        best = Some((merit, plan));
                    }
                }
            }
            best.map(|(_, plan)| plan)
        };
        let whole = gpu.shared_optin_bytes as usize;
        if is_wide { fit(whole) } else { fit(half_of(gpu)).or_else(|| fit(whole.min(NARROW_SHARED_MAX))) }
    }
}

/// What the entries with 8 warps export; see `content_fwd_kv.cu`.
const NARROW_SHARED_MAX: usize = 227 * 1024 / 2;

/// A launch that multiplies positions by a summary.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByRows {
    pub per_block: usize,
    pub stages: usize,
    pub tile_bytes: usize,
    pub shared_bytes: usize,
}

impl ByRows {
    /// `position_bytes` of a position in shared memory.
    pub fn plan(c: &Channels, bh: usize, positions: usize, position_bytes: usize, floats: usize, gpu: &Gpu) -> Option<Self> {
        let rows = if c.is_f32() { 8 } else { 16 };
        let step = rows * ROW_WARPS;
        let blocks = (BLOCKS / bh).max(1);
        let per_block = round_up(positions.div_ceil(blocks), step).min(round_up(positions, rows));
        let matrix = c.dp * if c.is_f32() { c.ep * c.bytes } else { c.pitch(c.ep) };
        let out = if c.is_f32() { 0 } else { rows * (SLICE * c.bytes + UNIT) };
        let tile_bytes = rows * position_bytes;
        let fit = |limit: usize| {
            [3, 2, 1].into_iter().find_map(|stages| {
                let shared_bytes = matrix + floats * size_of::<f32>() + ROW_WARPS * (stages * tile_bytes + out);
                (shared_bytes <= limit).then_some(Self { per_block, stages, tile_bytes, shared_bytes })
            })
        };
        fit(half_of(gpu)).or_else(|| fit(gpu.shared_optin_bytes as usize))
    }
}
