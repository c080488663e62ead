//! How a launch is cut into tiles, and a block's shared memory into bands: the cheapest cut that fits the GPU.

use super::bias::Copy;
use super::geometry::Sight;
use super::params::{Axis, Frame, TableShape};
use crate::plan::Divisor;

/// Warps of a block.
pub(super) const WARPS: usize = 8;
/// Pixels of a patch along each axis.
pub(super) const PATCH: usize = 4;
/// Keys of a group, and the least that a halo row has.
const GROUP: usize = 8;
/// Keys of a step.
const STEP: usize = 2 * GROUP;
/// Bytes of a unit, and of a line of shared memory.
const UNIT: usize = 16;
pub(super) const LINE: usize = 128;
/// Shared memory that a multiprocessor keeps for itself per block, in bytes.
const RESERVED: usize = 1024;

/// What a launch walks over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub batch: usize,
    pub heads: usize,
    /// The largest map: of a residue class.
    pub size: [usize; 2],
    pub channels: [usize; 2],
    /// Bytes of a pixel in shared memory.
    pub pixel_bytes: usize,
    /// Patches of a warp, one above the other.
    pub patches: usize,
    /// Whether all planes of a block must belong to one head.
    pub by_head: bool,
    /// Bytes of a warp's own memory.
    pub warp_bytes: usize,
    /// Bytes per pixel of a band beside the two tensors, and per block.
    pub extra_pixel_bytes: usize,
    pub extra_bytes: usize,
    /// Bytes per plane of a block.
    pub extra_plane_bytes: usize,
    /// Pixels of a warp's halo row, at least.
    pub packed_min: usize,
    /// What tiles see, along y and x.
    pub sights: [Sight; 2],
    /// Columns behind the halo that are there to be read and not to be seen.
    pub spare: usize,
    /// Bytes that a later phase of the kernel needs where the bands were.
    pub stages_min: usize,
    /// Shared memory that a block may use, in bytes.
    pub shared_max: usize,
    /// Whether registers let two blocks share a multiprocessor.
    pub pairs_up: bool,
}

/// A cut: everything of a frame that depends on tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiling {
    pub frame: Frame,
    /// Parts of the grid whose planes belong to one head, or the whole.
    pub sections: usize,
    pub tiles_per_section: usize,
    pub shared_bytes: usize,
}

impl Tiling {
    pub fn tiles(&self) -> usize {
        self.sections.saturating_mul(self.tiles_per_section)
    }
}

pub(super) const fn round_up(n: usize, to: usize) -> usize {
    n.div_ceil(to) * to
}

/// Pixels of a warp's halo row, as its keys are numbered, when it sees so many.
pub(super) fn packed(seen: usize) -> usize {
    round_up(seen.max(GROUP), 2)
}

/// Smallest number from `n` on that is 4 more than a multiple of 8.
const fn staggered(n: usize) -> usize {
    round_up(n + 4, 8) - 4
}

/// For patches that see so many rows and columns of keys.
pub(super) fn table_shape(seen: [usize; 2]) -> TableShape {
    let row_pitch = staggered(seen[0] + 2);
    let pair_pitch = staggered((packed(seen[1]) + GROUP - 2) / 2);
    let bytes = GROUP * row_pitch * 8 + GROUP * pair_pitch * UNIT;
    TableShape { row_pitch: row_pitch as i32, pair_pitch: pair_pitch as i32, bytes: bytes as i32 }
}

impl Task {
    /// Pixels of a warp's halo row, as its keys are numbered.
    pub fn packed(&self) -> usize {
        packed(self.sights[1].of_patch().max(self.packed_min))
    }

    /// The same with copies of a bias behind everything else.
    pub fn with_bias(self, copy: Option<Copy>) -> Self {
        let Some(copy) = copy else { return self };
        Self {
            extra_plane_bytes: self.extra_plane_bytes + copy.plane_bytes(),
            extra_bytes: self.extra_bytes + copy.block_bytes(),
            ..self
        }
    }

    /// The cheapest tiling; `None` when nothing fits.
    pub fn tile(&self, axes: [Axis; 2]) -> Option<Tiling> {
        // All warps at work, if there is memory for that.
        let most = |warps: usize| {
            let sides = [1, 2, 4, 8].into_iter();
            let patches = sides.clone().flat_map(|rows| sides.clone().map(move |columns| [rows, columns]));
            let patches = patches.filter(move |[rows, columns]| rows * columns <= warps);
            let patches = patches.filter(|patches| self.lies_in_block(*patches, &axes));
            let cuts =
                patches.flat_map(|patches| self.cuts(patches, warps / (patches[0] * patches[1]), axes));
            cuts.min_by_key(|(cost, _)| *cost).map(|(_, tiling)| tiling)
        };
        most(WARPS).or_else(|| most(WARPS / 2)).or_else(|| most(WARPS / 4)).or_else(|| most(1))
    }

    /// Pixels of a tile of these many patches along y and x.
    fn extent(&self, patches: [usize; 2]) -> [usize; 2] {
        [patches[0] * PATCH * self.patches, patches[1] * PATCH]
    }

    /// Whether no half of such a tile lies beyond its block.
    fn lies_in_block(&self, patches: [usize; 2], axes: &[Axis; 2]) -> bool {
        let tile = self.extent(patches);
        (0..2).all(|i| axes[i].block == 0 || patches[i] == 1 || tile[i] / 2 < axes[i].block as usize)
    }

    /// The cuts of shared memory for tiles of these many patches in this many planes, with their costs.
    fn cuts(
        &self,
        patches: [usize; 2],
        planes: usize,
        axes: [Axis; 2],
    ) -> impl Iterator<Item = (u64, Tiling)> + '_ {
        let tile = self.extent(patches);
        let packed = self.packed();
        let halo = [0, 1].map(|i| {
            let (read, spare) = if i == 1 { (packed, self.spare) } else { (0, 0) };
            self.sights[i].of_tile(tile[i], self.size[i], read) + spare
        });
        let section = if self.by_head { self.batch } else { self.batch * self.heads };
        let sections = self.batch * self.heads / section;
        let groups = sections * section.div_ceil(planes);
        // Tiles lie in a block as a whole.
        let per_block = [0, 1].map(|i| (axes[i].block as usize).div_ceil(tile[i]).max(1));
        let tiles = [0, 1].map(|i| match axes[i].block {
            0 => self.size[i].div_ceil(tile[i]),
            block => {
                (axes[i].size - axes[i].block_start).cast_unsigned().div_ceil(block as u32) as usize
                    * per_block[i]
            }
        });
        let classes = (axes[0].dilation as usize).saturating_mul(axes[1].dilation as usize);
        let warps = patches[0] * patches[1] * planes;

        let whole = std::iter::once((halo[0], 1));
        let bands = [16, 12, 8, 4, 2, 1].into_iter().filter(move |&rows| rows < halo[0]);
        let bands = bands.clone().map(|rows| (rows, 2)).chain(bands.map(|rows| (rows, 1)));
        whole.chain(bands).filter_map(move |(band_rows, stages)| {
            let pixels = band_rows * halo[1];
            let plane_bytes = round_up(pixels * self.pixel_bytes, LINE);
            let stage_bytes = planes * 2 * plane_bytes;
            let warp_offset = (stages * stage_bytes).max(self.stages_min);
            let extra = round_up(planes * pixels * self.extra_pixel_bytes, LINE) + self.extra_bytes;
            let shared_bytes =
                warp_offset + warps * self.warp_bytes + extra + planes * self.extra_plane_bytes;
            if shared_bytes > self.shared_max {
                return None;
            }
            // In steps of 16 keys of every warp, which take about 30 clocks for a multiprocessor's four schedulers.
            let bands = halo[0].div_ceil(band_rows);
            let own_rows = match axes[0].block {
                0 => PATCH * (self.patches - 1) + self.sights[0].of_patch(),
                _ => self.sights[0].of_patch(),
            };
            let steps = if bands == 1 {
                (own_rows * packed).div_ceil(STEP)
            } else {
                // Warps wait for each other at every band.
                bands * (band_rows.min(own_rows) * packed).div_ceil(STEP) + bands
            };
            let load = planes * halo[0] * halo[1] * self.pixel_bytes.div_ceil(LINE) * 4 / 30;
            let is_paired = self.pairs_up && 2 * (shared_bytes + RESERVED) <= self.shared_max + RESERVED;
            // Nothing hides the load but another block, or a second stage.
            let percent = match (is_paired, stages) {
                (true, _) => 100,
                (false, 2) => 115,
                (false, _) => 140,
            };
            let of_plane = tiles[0].saturating_mul(tiles[1]).saturating_mul(classes);
            let tiles_per_section = of_plane.saturating_mul(groups / sections);
            let blocks = tiles_per_section.saturating_mul(sections) as u64;
            let cost =
                blocks.saturating_mul((steps * WARPS * self.patches + load) as u64).saturating_mul(percent);
            let mut axes = axes;
            for i in 0..2 {
                axes[i].patches_log2 = patches[i].ilog2() as i32;
                axes[i].tiles = Divisor::new(tiles[i] as u32);
                axes[i].tiles_per_block = per_block[i] as i32;
                axes[i].halo = halo[i] as i32;
            }
            let frame = Frame {
                axes,
                batch: Divisor::new(self.batch as u32),
                groups_per_section: Divisor::new(section.div_ceil(planes) as u32),
                heads: self.heads as i32,
                d: self.channels[0] as i32,
                e: self.channels[1] as i32,
                planes: planes as i32,
                section: section as i32,
                packed: packed as i32,
                packed_factor: (1u64 << 32).div_ceil(packed as u64) as u32,
                band_rows: band_rows as i32,
                stages: stages as i32,
                pixel_bytes: self.pixel_bytes as i32,
                plane_bytes: plane_bytes as i32,
                stage_bytes: stage_bytes as i32,
                warp_offset: warp_offset as i32,
                warp_bytes: self.warp_bytes as i32,
            };
            Some((cost, Tiling { frame, sections, tiles_per_section, shared_bytes }))
        })
    }
}
