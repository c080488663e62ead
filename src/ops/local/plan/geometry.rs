//! Windows as kernels see them: the fields of an axis that say which keys a query sees, and how many pixels a tile sees.

use super::params::Axis;
use super::tiling::PATCH;
use crate::Layout;
use crate::config::local::{Blocks, Border, LocalConfig, Sliding, Window};

/// The axes of a problem, y and x.
pub(super) struct Geometry {
    pub axes: [Axis; 2],
    /// Pixels of the largest map that tiles walk over.
    pub size: [usize; 2],
}

impl Geometry {
    pub fn of(config: &LocalConfig, q: &Layout<5>) -> Self {
        let [(y, size_y), (x, size_x)] = [0, 1].map(|i| axis(config, i, q.shape[2 + i]));
        Self { axes: [y, x], size: [size_y, size_x] }
    }

    /// Of queries.
    pub fn sights(&self) -> [Sight; 2] {
        self.axes.each_ref().map(Sight::of_queries)
    }
}

/// The geometry of one axis, not yet tiled, and the pixels of the largest map that tiles walk over: of a residue class.
fn axis(config: &LocalConfig, i: usize, size: usize) -> (Axis, usize) {
    let rows = config.window.table_rows()[i];
    let plain = Axis { size: size as i32, dilation: 1, table_rows: rows as i32, ..Axis::default() };
    match config.window {
        Window::Sliding(Sliding { size: window, dilation, border }) => {
            let is_shifted = border == Border::Shift;
            let (window, before) = (window[i], (window[i] - 1) / 2);
            // Steps beyond the map are all alike.
            let dilation = dilation[i].min(size).max(1);
            let axis = Axis {
                dilation: dilation as i32,
                window: window as i32,
                before: before as i32,
                is_shifted: is_shifted.into(),
                has_outside: (border == Border::Zero).into(),
                table_origin: (if is_shifted { window - 1 } else { before }) as i32,
                ..plain
            };
            (axis, size.div_ceil(dilation))
        }
        Window::Blocks(blocks) => (block_axis(&blocks, i, plain), size),
    }
}

fn block_axis(blocks: &Blocks, i: usize, plain: Axis) -> Axis {
    let (w, halo) = (blocks.size[i] as i32, blocks.halo[i] as i32);
    let plain = Axis { table_origin: w + halo - 1, ..plain };
    let start = blocks.start(i, 0) as i32;
    if w == 1 {
        // Every query has a window of its own.
        Axis { window: 2 * halo + 1, before: halo, ..plain }
    } else if start + w >= plain.size {
        // One block holds the map: nothing lies around it.
        Axis { window: plain.size, before: 0, block: plain.size, block_start: 0, ..plain }
    } else {
        Axis { window: w + 2 * halo, before: halo, block: w, block_start: start, ..plain }
    }
}

/// How many pixels are seen along one axis.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sight {
    /// Every pixel sees others of its own.
    Sliding {
        /// How many pixels further than a tile its halo reaches: the most, and what most patches need.
        reach: usize,
        usual_reach: usize,
        /// Maps that exceed a tile by no more than this may be its halo as a whole.
        whole_reach: usize,
        /// The largest halo that there can be.
        halo_max: usize,
    },
    /// All queries of a block see these keys.
    Window { keys: usize },
    /// A key of a block sees all queries of the blocks whose halo holds it.
    Gather { block: usize, halo: usize, halo_max: usize },
}

impl Sight {
    /// Of queries: the keys of their windows.
    pub fn of_queries(axis: &Axis) -> Self {
        let keys = axis.window as usize;
        match axis.block {
            0 => {
                Self::Sliding { reach: keys - 1, usual_reach: keys - 1, whole_reach: 0, halo_max: usize::MAX }
            }
            _ => Self::Window { keys },
        }
    }

    /// Of keys: the queries whose windows hold them. `is_cut`: those outside the map are left out.
    pub fn of_keys(axis: &Axis, size: usize, is_cut: bool) -> Self {
        let halo_max = if is_cut || axis.is_shifted == 1 { size } else { usize::MAX };
        let reach = axis.window as usize - 1;
        match (axis.block, axis.is_shifted) {
            (0, 0) => Self::Sliding { reach, usual_reach: reach, whole_reach: 0, halo_max },
            // A key near one border is seen from further away, and one near two from everywhere.
            (0, _) => Self::Sliding {
                reach: reach + reach / 2,
                usual_reach: reach,
                whole_reach: 2 * reach,
                halo_max,
            },
            (block, _) => Self::Gather { block: block as usize, halo: axis.before as usize, halo_max },
        }
    }

    /// Pixels that a patch sees: what most need.
    pub fn of_patch(self) -> usize {
        match self {
            Self::Sliding { usual_reach, .. } => PATCH + usual_reach,
            Self::Window { keys } => keys,
            Self::Gather { block, halo, .. } => {
                starts(block, PATCH).map(|at| gathered(block, halo, at, PATCH).1).max().unwrap_or(block)
            }
        }
    }

    /// The fewest pixels that a patch sees, where that depends on its place.
    pub fn of_patch_min(self) -> usize {
        match self {
            Self::Sliding { .. } | Self::Window { .. } => self.of_patch(),
            Self::Gather { block, halo, .. } => {
                starts(block, PATCH).map(|at| gathered(block, halo, at, PATCH).1).min().unwrap_or(block)
            }
        }
    }

    /// Pixels of the halo of a tile of `extent` pixels, on maps of `size`. Patches read `read` pixels or what they see.
    pub fn of_tile(self, extent: usize, size: usize, read: usize) -> usize {
        match self {
            Self::Sliding { reach, usual_reach, whole_reach, halo_max } => {
                let most = if size <= extent + whole_reach {
                    size.max(extent + usual_reach)
                } else {
                    extent + reach
                };
                most.min(halo_max)
            }
            Self::Window { keys } => keys,
            Self::Gather { block, halo, halo_max } => {
                let of_tile = |at: usize| {
                    let (first, seen) = gathered(block, halo, at, extent);
                    let patches = (at..(at + extent).min(block)).step_by(PATCH);
                    let ends =
                        patches.map(|patch| gathered(block, halo, patch, PATCH).0 - first + read as isize);
                    ends.map(|end| end as usize).max().unwrap_or(0).max(seen)
                };
                starts(block, extent).map(of_tile).max().unwrap_or(0).min(halo_max)
            }
        }
    }
}

/// Where tiles of `extent` pixels start in a block.
fn starts(block: usize, extent: usize) -> impl Iterator<Item = usize> {
    (0..block).step_by(extent)
}

/// The queries that see keys `at` and following of a block: the first, from the block's own first pixel, and how many.
fn gathered(block: usize, halo: usize, at: usize, extent: usize) -> (isize, usize) {
    let (block, halo) = (block as isize, halo as isize);
    let last = (at + extent).min(block as usize) as isize - 1;
    let blocks = [(at as isize - halo).div_euclid(block), (last + halo).div_euclid(block)];
    (blocks[0] * block, ((blocks[1] - blocks[0] + 1) * block) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted pixel by pixel: a patch sees no more than `of_patch`, a tile no more than `of_tile`.
    #[test]
    fn sights_are_what_is_seen() {
        let size = 61;
        for (block, halo, offset) in
            [(2, 0, 1), (4, 0, 0), (7, 0, 3), (8, 3, 0), (3, 5, 2), (6, 2, 1), (16, 8, 5)]
        {
            let window = Blocks::new([block, 1]).offset_by([offset, 0]).with_halo([halo, 0]);
            let config = LocalConfig { window: window.into(), ..LocalConfig::default() };
            let (axis, _) = axis(&config, 0, size);
            let sight = Sight::of_keys(&axis, size, true);
            let read = sight.of_patch();
            let sees = |query: usize, key: usize| {
                config.window.slots(0, size, query).any(|slot| slot.key == Some(key))
            };
            for extent in [PATCH, 2 * PATCH, 4 * PATCH] {
                let per_block = block.div_ceil(extent);
                for tile in 0..(size + block - offset) / block * per_block {
                    let start = axis.block_start + (tile / per_block * block) as isize as i32;
                    let first = start + (tile % per_block * extent) as i32;
                    let end = (first + extent as i32).min(start + block as i32).min(size as i32);
                    let seen = |from: i32, to: i32| {
                        let keys = from.max(0) as usize..to.max(0) as usize;
                        let queries = (0..size).filter(|&query| keys.clone().any(|key| sees(query, key)));
                        let ends = queries.clone().min().zip(queries.max());
                        ends.map_or(0, |(first, last)| last + 1 - first)
                    };
                    assert!(seen(first, end) <= sight.of_tile(extent, size, 0), "{window:?} {extent}");
                    for patch in (first..end).step_by(PATCH) {
                        assert!(seen(patch, (patch + PATCH as i32).min(end)) <= read, "{window:?} patch");
                    }
                }
            }
        }
    }

    #[test]
    fn sights_of_the_windows_in_use() {
        let sight = |block: usize, halo: usize, size: usize| {
            let window = Blocks::new([block, 1]).with_halo([halo, 0]);
            let config = LocalConfig { window: window.into(), ..LocalConfig::default() };
            let (axis, _) = axis(&config, 0, size);
            (
                Sight::of_queries(&axis).of_tile(8, size, 0),
                Sight::of_keys(&axis, size, true).of_tile(8, size, 0),
            )
        };
        // Swin, and HaloNet: keys and queries of a tile of 8.
        assert_eq!(sight(7, 0, 56), (7, 7));
        assert_eq!(sight(8, 3, 56), (14, 24));
        // One pixel with a halo is a window; one block over the map ends with it.
        assert_eq!(sight(1, 3, 56), (14, 14));
        assert_eq!(sight(24, 2, 7), (7, 7));
    }
}
