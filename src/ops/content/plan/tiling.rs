//! How positions are split over blocks, and a block's shared memory over tiles.

use crate::ops::planning::UNIT_BYTES;
use crate::{DType, Gpu};

/// Channels and positions of a product come in whole blocks; see `content.cuh`.
const BLOCK: usize = 16;
/// Value channels of a unit.
const SLICE: usize = 64;
/// Channels of a patch; see `content_bwd_q.cu`.
const PATCH_COLUMNS: usize = 32;
/// Warps of a block that multiplies by rows; others have as many, or twice.
pub const ROW_WARPS: usize = 8;
/// Terms of a sum after which it leaves the tensor core; see `prim/mma.cuh`.
const TERMS_MAX: usize = 1024;
/// Bytes of a warp's sums that left the tensor core; mirrors `kKeptBytes` in `content_unit.cuh`.
const KEPT_BYTES: usize = (SLICE / 8 + 1) * 32 * UNIT_BYTES;
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
        count * self.bytes + UNIT_BYTES
    }

    /// Units of 16 bytes of `count` channels.
    pub fn units(&self, count: usize) -> usize {
        count * self.bytes / UNIT_BYTES
    }

    fn is_f32(&self) -> bool {
        self.bytes == size_of::<f32>()
    }

    /// Bytes of a d×e matrix in shared memory; mirrors `Matrix` in `content_rows.cuh`.
    pub fn matrix_bytes(&self) -> usize {
        if self.is_f32() {
            round_up(self.d, 2 * BLOCK) * self.ep * self.bytes
        } else {
            self.dp * self.pitch(self.ep)
        }
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
    /// Of the summary in shared memory, and where the numbers of channels and positions are there; backward.
    pub matrix_bytes: usize,
    pub numbers_at: usize,
    pub shared_bytes: usize,
}

/// How positions are split over blocks, and the summary over warps.
#[derive(Clone, Copy, Debug)]
struct Split {
    warps: usize,
    slices: usize,
    groups: usize,
    per_block: usize,
    splits: usize,
    /// Bytes of a warp for sums that leave the tensor core.
    kept_bytes: usize,
    /// Bytes of the sums of all groups.
    parts: usize,
}

impl Split {
    /// `input_bytes`: of the inputs that `positions` of `bh` pairs of batch and head have. `keeps`: whether sums may be too long
    /// for tensor cores, where partial sums would be large.
    fn of(c: &Channels, warps: usize, bh: usize, positions: usize, input_bytes: usize, keeps: bool) -> Self {
        let slices = c.ep.div_ceil(SLICE);
        let units = c.dp / BLOCK * slices;
        let groups = 1 << (warps / units).max(1).ilog2();
        let partial_bytes = (c.partial() + 2 * c.d) * size_of::<f32>();
        let by_memory = (PARTIALS_BYTES + input_bytes / 20) / bh.saturating_mul(partial_bytes);
        let splits = (BLOCKS / bh).min(positions / SHORTEST).min(by_memory).max(1);
        let mut per_block = round_up(positions.div_ceil(splits), BLOCK);
        if !c.is_f32() && (groups > 1 || !keeps) {
            per_block = per_block.min(TERMS_MAX * groups);
        }
        let is_kept = !c.is_f32() && per_block > TERMS_MAX * groups;
        Self {
            warps,
            slices,
            groups,
            per_block,
            splits: positions.div_ceil(per_block),
            kept_bytes: if is_kept { KEPT_BYTES } else { 0 },
            parts: groups * c.dp * (c.ep + 8 + 2) * size_of::<f32>(),
        }
    }
}

impl Outer {
    /// Patches of a tile, one above the other.
    pub fn patches_log2(&self) -> u32 {
        (self.tile / BLOCK).ilog2()
    }

    fn new(c: &Channels, split: &Split, tile: usize, stages: usize, own_bytes: usize) -> Self {
        let row = c.pitch(c.dp) + c.pitch(c.ep);
        let tiles = stages * tile * row + split.warps * own_bytes;
        Self {
            is_wide: split.warps > ROW_WARPS,
            slices: split.slices,
            groups: split.groups,
            per_block: split.per_block,
            splits: split.splits,
            tile,
            stages,
            stage_bytes: tile * row,
            own_bytes,
            positions_per_pass: split.warps * 32 / (c.units(c.dp) + c.units(c.ep)),
            matrix_bytes: 0,
            numbers_at: 0,
            shared_bytes: tiles.max(split.parts),
        }
    }

    /// The forward pass over keys and values; `None` when nothing fits, which no GPU of the classes reaches.
    pub fn forward(c: &Channels, bh: usize, positions: usize, input_bytes: usize, gpu: &Gpu) -> Option<Self> {
        let units = c.dp / BLOCK * c.ep.div_ceil(SLICE);
        let warps = if units > ROW_WARPS { 2 * ROW_WARPS } else { ROW_WARPS };
        let split = Split::of(c, warps, bh, positions, input_bytes, true);
        let scratch = if c.is_f32() { BLOCK * (BLOCK + 4) * size_of::<f32>() } else { 0 };
        let fit = |limit: usize| {
            let mut best: Option<((usize, usize, usize), Self)> = None;
            for stages in [2, 3] {
                for tile in [16, 32, 64, 128, 256] {
                    let plan = Self::new(c, &split, tile, stages, scratch + split.kept_bytes);
                    let is_enough = tile > BLOCK * split.groups && plan.stage_bytes > STAGE_BYTES;
                    if tile % (BLOCK * split.groups) != 0 || plan.shared_bytes > limit || is_enough {
                        continue;
                    }
                    // A barrier per tile: it should not be for fewer than 64 positions.
                    let merit = (tile.min(64), stages, tile);
                    if best.is_none_or(|(most, _)| merit > most) {
                        best = Some((merit, plan));
                    }
                }
            }
            best.map(|(_, plan)| plan)
        };
        let whole = gpu.shared_optin_bytes as usize;
        if warps > ROW_WARPS {
            fit(whole)
        } else {
            fit(half_of(gpu)).or_else(|| fit(whole.min(NARROW_SHARED_MAX)))
        }
    }

    /// The backward pass over queries and the gradient of the output.
    pub fn backward(
        c: &Channels,
        bh: usize,
        positions: usize,
        input_bytes: usize,
        gpu: &Gpu,
    ) -> Option<Self> {
        let warps = if c.d > SLICE { 2 * ROW_WARPS } else { ROW_WARPS };
        let whole = gpu.shared_optin_bytes as usize;
        let limits = if warps > ROW_WARPS { [whole, whole] } else { [half_of(gpu), whole] };
        // The smallest GPUs have no room for long sums beside all else.
        let cuts = [true, false].into_iter().flat_map(|keeps| limits.map(|limit| (keeps, limit)));
        cuts.filter_map(|(keeps, limit)| {
            let split = Split::of(c, warps, bh, positions, input_bytes, keeps);
            Self::cut_backward(c, &split, limit)
        })
        .next()
    }

    fn cut_backward(c: &Channels, split: &Split, limit: usize) -> Option<Self> {
        let sides = c.dp.div_ceil(PATCH_COLUMNS);
        let matrix_bytes = c.matrix_bytes();
        // Every warp a patch, if that fits; tiles have as many positions as sums take in turn, at least.
        let most = split.warps / sides * BLOCK;
        let tiles =
            [128, 64, 32, 16].into_iter().filter(|&tile| tile <= most && tile % (BLOCK * split.groups) == 0);
        tiles.flat_map(|tile| [(tile, 2), (tile, 1)]).find_map(|(tile, stages)| {
            let tiles = Self::new(c, split, tile, stages, split.kept_bytes);
            let numbers_at = matrix_bytes + stages * tiles.stage_bytes + split.warps * split.kept_bytes;
            // Of channels; of positions: their scale, what goes through the normaliser, a sum per patch.
            let numbers = c.dp + tile * (3 + sides);
            let shared_bytes = (numbers_at + numbers * size_of::<f32>()).max(split.parts);
            (shared_bytes <= limit).then_some(Self { matrix_bytes, numbers_at, shared_bytes, ..tiles })
        })
    }
}

/// What the entries with 8 warps export; see `content_fwd_kv.cu`.
const NARROW_SHARED_MAX: usize = 227 * 1024 / 2;

/// A launch that multiplies positions by a summary.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByRows {
    pub per_block: usize,
    pub stages: usize,
    /// That work: where memory is short not all.
    pub warps: usize,
    pub tile_bytes: usize,
    pub shared_bytes: usize,
}

impl ByRows {
    /// `position_bytes` of a position in shared memory, and `floats` there beside the matrix.
    pub fn plan(
        c: &Channels,
        bh: usize,
        positions: usize,
        position_bytes: usize,
        floats: usize,
        gpu: &Gpu,
    ) -> Option<Self> {
        let rows = if c.is_f32() { 8 } else { 16 };
        let step = rows * ROW_WARPS;
        let blocks = (BLOCKS / bh).max(1);
        let per_block = round_up(positions.div_ceil(blocks), step).min(round_up(positions, rows));
        let tile_bytes = rows * position_bytes;
        let fit = |limit: usize, warps: usize| {
            [3, 2, 1].into_iter().find_map(|stages| {
                let beside = floats * size_of::<f32>() + warps * stages * tile_bytes;
                let shared_bytes = c.matrix_bytes() + beside;
                (shared_bytes <= limit).then_some(Self { per_block, stages, warps, tile_bytes, shared_bytes })
            })
        };
        let whole = gpu.shared_optin_bytes as usize;
        let all = fit(half_of(gpu), ROW_WARPS).or_else(|| fit(whole, ROW_WARPS));
        all.or_else(|| (1..ROW_WARPS).rev().find_map(|warps| fit(whole, warps)))
    }
}
