//! How the lines of a map are shared out to blocks; see `kernels/axial.cuh`.

use super::params::{Lines, Map};
use super::plan::OP;
use crate::ops::planning::stride;
use crate::plan::{Divisor, Ptr};
use crate::{DType, Error, Layout, Result};
use bytemuck::Zeroable;

/// Pixels of a grain.
const GRAIN: usize = 16;
/// Blocks beyond which a block takes several groups of lines, and reads the table once for all of them.
const BLOCKS_ENOUGH: usize = 2048;
/// Groups that a block takes at most for that.
const GROUPS_MOST: usize = 16;
/// Pixels that a block takes at least, so that what it leaves besides its output is small.
const PIXELS_LEAST: usize = 64;
/// Rows, columns, lines of a head and (batch, head) pairs stay below this.
const EXTENT_MAX: usize = 1 << 28;

/// The axis that a layer runs along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    Columns,
    Rows,
}

/// The images and heads of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub first_image: usize,
    pub images: usize,
    pub first_head: usize,
    pub heads: usize,
}

impl Part {
    pub fn whole(shape: [usize; 5]) -> Self {
        Self { first_image: 0, images: shape[0], first_head: 0, heads: shape[1] }
    }

    /// Parts of which none has more than `planes` (image, head) pairs, unless that is 0.
    pub fn split(shape: [usize; 5], planes: usize) -> Vec<Self> {
        let [images, heads] = [shape[0], shape[1]];
        let [image_step, head_step] = match planes / heads.max(1) {
            0 => [1, planes.max(1)],
            several => [several, heads],
        };
        let mut parts = Vec::new();
        for first_image in (0..images).step_by(image_step) {
            for first_head in (0..heads).step_by(head_step) {
                parts.push(Self {
                    first_image,
                    images: image_step.min(images - first_image),
                    first_head,
                    heads: head_step.min(heads - first_head),
                });
            }
        }
        parts
    }

    pub fn planes(&self) -> usize {
        self.images * self.heads
    }
}

/// A contiguous tensor in scratch memory that holds a part of `[b, h, y, x, channels]`.
#[derive(Clone, Copy)]
pub(super) struct Scratch {
    pub data: Ptr,
    pub shape: [usize; 5],
    pub part: Part,
}

/// A tensor as a layer walks it.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Operand(u8, &'a Layout<5>),
    Scratch(Scratch),
}

impl Source<'_> {
    pub fn map(&self, along: Along) -> Map {
        let (data, offset, [stride_b, stride_h, y, x]) = match self {
            Source::Operand(operand, layout) => {
                (Ptr::operand(*operand), 0, [0, 1, 2, 3].map(|i| stride(layout, i)))
            }
            Source::Scratch(Scratch { data, shape: [_, _, y, x, channels], part }) => {
                let [y, x, channels] = [*y, *x, *channels].map(|n| n as i64);
                let plane = y * x * channels;
                let image = part.heads as i64 * plane;
                let offset = -(part.first_image as i64 * image + part.first_head as i64 * plane);
                (*data, offset, [image, plane, x * channels, channels])
            }
        };
        let (stride_line, stride_axis) = match along {
            Along::Columns => (x, y),
            Along::Rows => (y, x),
        };
        Map { data, offset, stride_b, stride_h, stride_line, stride_axis }
    }
}

/// Rows of a block's tiles.
pub(super) fn tile_rows(dtype: DType) -> usize {
    match dtype {
        DType::F32 => 32,
        DType::F16 | DType::Bf16 => 64,
    }
}

impl Lines {
    /// Of a layer over a part of a map of `shape`, `[b, h, y, x, d]`.
    pub fn new(shape: [usize; 5], e: usize, along: Along, part: Part, dtype: DType) -> Self {
        let [_, _, y, x, d] = shape;
        let (axis, across) = match along {
            Along::Columns => (y, x),
            Along::Rows => (x, y),
        };
        let most = tile_rows(dtype) / GRAIN;
        let grains = axis.div_ceil(GRAIN).next_power_of_two().min(most);
        let (size, slots) = (grains * GRAIN, most / grains);
        let tiles = axis.div_ceil(size);
        let groups = (part.images * across).div_ceil(slots);
        let blocks = groups * tiles * part.heads;
        let for_pixels = PIXELS_LEAST.div_ceil(slots * axis.min(size));
        let per_block = (blocks / BLOCKS_ENOUGH).clamp(1, GROUPS_MOST).max(for_pixels).min(groups);
        // Sizes are below `EXTENT_MAX`, `check_extent` has seen to it.
        let int = |n: usize| n as i32;
        Self {
            axis: int(axis),
            lines: int(part.images * across),
            per_image: Divisor::new(across as u32),
            first_image: int(part.first_image),
            first_head: int(part.first_head),
            tiles: int(tiles),
            log2_grains: int(grains.ilog2() as usize),
            groups: int(groups),
            groups_per_block: int(per_block),
            blocks: int(groups.div_ceil(per_block)),
            d: int(d),
            e: int(e),
            tiles_per_block: 1,
        }
    }

    /// Of a map without pixels.
    pub fn nothing(d: usize, e: usize) -> Self {
        Self { d: d as i32, e: e as i32, per_image: Divisor::new(1), tiles_per_block: 1, ..Self::zeroed() }
    }

    /// With at most `most` blocks over `heads` heads, if that can be: a block takes more lines, and then more tiles.
    pub fn at_most(self, heads: usize, most: usize) -> Self {
        let groups = self.groups as usize;
        let per_block = (groups * self.tiles as usize * heads).div_ceil(most.max(1));
        let per_block = per_block.max(self.groups_per_block as usize).min(groups);
        let blocks = groups.div_ceil(per_block);
        let tiles_per_block = (blocks * self.tiles as usize * heads).div_ceil(most.max(1));
        Self {
            groups_per_block: per_block as i32,
            blocks: blocks as i32,
            tiles_per_block: tiles_per_block.min(self.tiles as usize).max(1) as i32,
            ..self
        }
    }

    /// Blocks of one head.
    pub fn blocks_of_head(&self) -> usize {
        self.blocks as usize * (self.tiles as usize).div_ceil(self.tiles_per_block as usize)
    }
}

/// Kernels count pixels, lines and planes in 32 bits.
pub(super) fn check_extent(q: &Layout<5>) -> Result<()> {
    let [b, h, y, x, _] = q.shape;
    let lines = b.saturating_mul(y.max(x));
    if lines >= EXTENT_MAX || b.saturating_mul(h) >= EXTENT_MAX {
        let what = format!(
            "maps of 2^28 rows or columns over all images, or (batch, head) pairs, got {:?}",
            q.shape
        );
        return Err(Error::unsupported(OP, what));
    }
    Ok(())
}
