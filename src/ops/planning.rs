//! What the planner of every op needs: the parts of a workspace, grids, and what kernels ask of a layout.

// Without `cuda` plans are made and tested, and nothing launches them.
#![cfg_attr(not(feature = "cuda"), allow(dead_code))]

use crate::kernel::find;
use crate::plan::{Params, Ptr};
use crate::{DType, Error, Launch, Layout, Plan, Result};
use bytemuck::{Pod, Zeroable};

/// Bytes of the widest access; see `prim/base.cuh`.
pub(super) const UNIT_BYTES: usize = 16;
/// Alignment of the parts of a workspace, in bytes.
const ALIGN: u64 = 256;
/// No machine has so much memory; far below what a [`Ptr`] can say.
const WORKSPACE_MAX: u64 = 1 << 55;

/// The parts of a workspace that were handed out, one behind the other.
#[derive(Default)]
pub(super) struct Arena {
    bytes: u64,
}

impl Arena {
    /// A part of so many bytes. Sizes that do not fit 64 bits are refused by [`Arena::plan`].
    pub fn take(&mut self, bytes: impl TryInto<u64>) -> Ptr {
        let at = self.bytes;
        let aligned = bytes.try_into().ok().and_then(|bytes| bytes.checked_next_multiple_of(ALIGN));
        self.bytes = at.saturating_add(aligned.unwrap_or(u64::MAX));
        Ptr::workspace(at.min(WORKSPACE_MAX))
    }

    /// A part for so many f32.
    pub fn floats(&mut self, count: usize) -> Ptr {
        self.take(count.saturating_mul(size_of::<f32>()))
    }

    /// The plan that uses these parts.
    pub fn plan(self, op: &'static str, launches: Vec<Launch>) -> Result<Plan> {
        let workspace_bytes = usize::try_from(self.bytes)
            .ok()
            .filter(|_| self.bytes < WORKSPACE_MAX)
            .ok_or_else(|| Error::unsupported(op, "a workspace that is larger than any machine's memory"))?;
        Ok(Plan { launches, workspace_bytes })
    }
}

/// Blocks of a launch.
pub(super) fn grid(op: &'static str, blocks: impl TryInto<u32> + Copy + std::fmt::Display) -> Result<u32> {
    blocks.try_into().ok().filter(|&blocks| blocks <= i32::MAX as u32).ok_or_else(|| {
        Error::unsupported(op, format!("{blocks} blocks, more than the 2³¹ − 1 of one launch"))
    })
}

/// A launch of an entry with all the shared memory that it exports.
pub(super) fn launch<P: Params>(
    op: &'static str,
    kernel: &'static str,
    blocks: impl TryInto<u32> + Copy + std::fmt::Display,
    params: &P,
) -> Result<Launch> {
    let shared_bytes = find(kernel).map_or(0, |entry| entry.shared_bytes);
    Ok(Launch::new(kernel, grid(op, blocks)?, shared_bytes, params))
}

/// Kernels read neighbouring channels, which are the last dimension, together.
pub(super) fn check_contiguous<const R: usize>(
    op: &'static str,
    arg: &str,
    layout: &Layout<R>,
) -> Result<()> {
    if layout.shape[R - 1] > 1 && layout.strides[R - 1] != 1 {
        let what = format!("`{arg}` with {} elements from channel to channel; only 1", layout.strides[R - 1]);
        return Err(Error::unsupported(op, what));
    }
    Ok(())
}

/// Strides of dimensions of size 1 are never walked, and must not spoil the alignment of the others.
pub(super) fn stride<const R: usize>(layout: &Layout<R>, i: usize) -> i64 {
    if layout.shape[i] == 1 { 0 } else { layout.strides[i] as i64 }
}

/// Whether every pixel is aligned if the first one is, and has whole units of channels.
pub(super) fn is_wide(strides: &[i64], channels: usize, dtype: DType) -> bool {
    let unit = UNIT_BYTES / dtype.bytes();
    channels.is_multiple_of(unit) && strides.iter().all(|s| s % unit as i64 == 0)
}

/// Mirrors `prim::Map`: a tensor `[b, h, y, x, channels]`, channels contiguous; strides in elements.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Map {
    pub data: Ptr,
    pub strides: [i64; 4],
    pub is_wide: i64,
}
const _: () = assert!(size_of::<Map>() == 48, "change kernels/prim/element.cuh together with this");

impl Map {
    /// No tensor: kernels look at the pointer.
    pub const NONE: Map = Map { data: Ptr::NULL, strides: [0; 4], is_wide: 0 };

    pub fn of(operand: u8, layout: &Layout<5>, dtype: DType) -> Self {
        let strides = [0, 1, 2, 3].map(|i| stride(layout, i));
        let is_wide = is_wide(&strides, layout.shape[4], dtype).into();
        Self { data: Ptr::operand(operand), strides, is_wide }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_aligned() {
        let mut arena = Arena::default();
        let parts = [arena.take(1), arena.floats(64), arena.take(0), arena.take(257)];
        assert_eq!(parts, [0, 256, 512, 512].map(Ptr::workspace));
        assert_eq!(arena.plan("op", Vec::new()).unwrap().workspace_bytes, 1024);
    }

    #[test]
    fn a_workspace_beyond_all_memory_is_refused() {
        for bytes in [usize::MAX, 1 << 55] {
            let mut arena = Arena::default();
            arena.take(bytes);
            arena.take(bytes);
            let error = arena.plan("op", Vec::new()).unwrap_err();
            assert!(matches!(error, Error::Unsupported { op: "op", .. }), "{error}");
        }
    }

    #[test]
    fn a_grid_ends_at_the_largest_i32() {
        assert_eq!(grid("op", i32::MAX as usize).unwrap(), i32::MAX as u32);
        assert!(grid("op", 1usize << 31).is_err());
        assert!(grid("op", -1i128).is_err());
    }
}
