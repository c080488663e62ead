//! A block's shared memory, and the barriers that order accesses to it.

use super::cells::{Cells, Problem};
use super::clock::{Clock, Stamp, WARPS};
use super::pages::Pages;
use crate::block::SHARED_BASE;
use crate::exec::mem::{Access, Kind, lanes};

/// Something wrong with an access.
pub(crate) struct Finding {
    pub lane: u32,
    /// Byte of the block's shared memory.
    pub offset: u64,
    pub problem: Problem,
}

/// What is known of one block.
pub(crate) struct Shadow {
    cells: Cells<true>,
    /// What it does to global memory.
    pub pages: Pages,
    /// For each barrier: what those who arrived know.
    pub joins: [[u32; WARPS]; 16],
    /// The block's number.
    pub block: u64,
}

impl Shadow {
    /// Of a block with so many bytes of shared memory.
    pub fn new(bytes: usize) -> Shadow {
        Shadow { cells: Cells::new(bytes), pages: Pages::default(), joins: [[0; WARPS]; 16], block: 0 }
    }

    /// Forgets everything: a new block begins.
    pub fn start(&mut self, block: u64) {
        self.cells.clear();
        self.pages.clear();
        self.joins = [[0; WARPS]; 16];
        self.block = block;
    }

    /// Checks and records an access whose bounds and alignment are known to be good.
    pub fn access(&mut self, clock: &Clock, warp: u32, pc: u32, access: &Access<'_>) -> Result<(), Finding> {
        let base = stamp(clock, warp, pc, access);
        let offset = |l: usize| access.addresses[l] - SHARED_BASE as u64;
        for l in lanes(access.mask) {
            let mine = Stamp(base.0 + l as u64);
            if let Err((offset, problem)) = self.cells.check(clock, offset(l), access, mine) {
                return Err(Finding { lane: l as u32, offset, problem });
            }
        }
        if access.kind == Kind::Read {
            return Ok(());
        }
        for l in lanes(access.mask) {
            let mine = Stamp(base.0 + l as u64);
            let write = if access.kind == Kind::Copy { mine.in_flight() } else { mine };
            self.cells.written(offset(l), access.bytes, write);
        }
        Ok(())
    }

    /// A copy has been waited for by its thread.
    pub fn land(&mut self, offset: u32, bytes: u32, thread: u32, time: u32) {
        self.cells.land(offset as u64, bytes, thread, time);
    }
}

/// The stamp of lane 0 of an access that is about to happen.
pub(crate) fn stamp(clock: &Clock, warp: u32, pc: u32, access: &Access<'_>) -> Stamp {
    Stamp::new(clock.time, pc, warp * 32)
        .atomic_if(access.strong || access.kind == Kind::Atomic)
        .many_if(access.collective)
}
