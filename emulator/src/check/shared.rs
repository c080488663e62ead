//! A block's shared memory: who wrote and read each byte last, and what is still being copied.

use super::clock::{Clock, Stamp, WARPS};
use super::report::{Finding, Problem};
use crate::block::SHARED_BASE;
use crate::exec::mem::{Access, Kind, lanes};

/// What is known of one granule.
#[derive(Clone, Copy, Default)]
struct Cell {
    write: Stamp,
    /// Readers since the write that nothing orders; two warps are enough for a writer to meet one that is not its own.
    reads: [Stamp; 2],
}

/// The shadow of one block's shared memory.
pub(crate) struct Shadow {
    cells: Vec<Cell>,
    bytes: usize,
    /// Bytes of a granule are `1 << shift`: words until the first narrower access, then bytes.
    shift: u32,
    /// For each barrier: what those who arrived know.
    pub joins: [[u32; WARPS]; 16],
    /// The block's number.
    pub block: u64,
}

const WORD_SHIFT: u32 = 2;

impl Shadow {
    pub fn new(bytes: usize) -> Shadow {
        let cells = vec![Cell::default(); bytes.div_ceil(4)];
        Shadow { cells, bytes, shift: WORD_SHIFT, joins: [[0; WARPS]; 16], block: 0 }
    }

    /// Forgets everything: a new block begins.
    pub fn start(&mut self, block: u64) {
        self.cells.fill(Cell::default());
        self.joins = [[0; WARPS]; 16];
        self.block = block;
    }

    /// Byte granules from now on.
    #[cold]
    fn refine(&mut self) {
        let words = std::mem::take(&mut self.cells);
        self.cells = words.iter().flat_map(|cell| [*cell; 4]).take(self.bytes.next_multiple_of(4)).collect();
        self.shift = 0;
    }

    /// Granules of `bytes` bytes at a shared address. The choke point has checked bounds and alignment.
    #[inline(always)]
    fn cells(&mut self, address: u64, bytes: u32) -> &mut [Cell] {
        let first = (address - SHARED_BASE as u64) as usize >> self.shift;
        let count = (bytes >> self.shift) as usize;
        self.cells.get_mut(first..first + count).unwrap_or_default()
    }

    /// Checks and records an access whose bounds are known to be good.
    pub fn access(&mut self, clock: &Clock, warp: u32, pc: u32, access: &Access<'_>) -> Result<(), Finding> {
        if access.bytes < 4 && self.shift != 0 {
            self.refine();
        }
        let base = Stamp::new(clock.time, pc, warp * 32)
            .atomic_if(access.strong || access.kind == Kind::Atomic)
            .many_if(access.collective);
        let found = |l: usize, k: usize, shift: u32, problem: Problem| {
            let at = access.addresses[l] - SHARED_BASE as u64;
            Finding { lane: l as u32, offset: at + ((k as u64) << shift), problem }
        };
        let shift = self.shift;
        for l in lanes(access.mask) {
            let mine = Stamp(base.0 + l as u64);
            let cells = self.cells(access.addresses[l], access.bytes);
            for (k, cell) in cells.iter_mut().enumerate() {
                let done = match access.kind {
                    Kind::Read => read(cell, clock, mine),
                    Kind::Write | Kind::Copy => write(cell, clock, mine),
                    Kind::Atomic if cell.write == Stamp::NOBODY => Err(Problem::Unwritten),
                    Kind::Atomic => write(cell, clock, mine),
                };
                if let Err(problem) = done {
                    return Err(found(l, k, shift, problem));
                }
            }
        }
        if access.kind == Kind::Read {
            return Ok(());
        }
        // After all checks: lanes that write the same byte in one instruction do not race with each other.
        for l in lanes(access.mask) {
            let mine = Stamp(base.0 + l as u64);
            let write = if access.kind == Kind::Copy { mine.in_flight() } else { mine };
            for cell in self.cells(access.addresses[l], access.bytes) {
                *cell = Cell { write, reads: [Stamp::NOBODY; 2] };
            }
        }
        Ok(())
    }

    /// A copy has been waited for by its thread.
    pub fn land(&mut self, offset: u32, bytes: u32, thread: u32, time: u32) {
        for cell in self.cells(offset as u64 + SHARED_BASE as u64, bytes) {
            if cell.write.is_in_flight() && cell.write.thread() == thread {
                cell.write = cell.write.at(time);
            }
        }
    }
}

#[inline(always)]
fn read(cell: &mut Cell, clock: &Clock, mine: Stamp) -> Result<(), Problem> {
    let written = cell.write;
    if written == Stamp::NOBODY {
        return Err(Problem::Unwritten);
    }
    if !clock.after(written, mine) {
        conflict(written, true, mine)?;
    }
    if !cell.reads[0].same_moment(mine) {
        note(cell, clock, mine);
    }
    Ok(())
}

/// Remembers a reader.
fn note(cell: &mut Cell, clock: &Clock, mine: Stamp) {
    for slot in &mut cell.reads {
        if clock.after(*slot, mine) {
            *slot = mine;
            return;
        }
        if slot.together(mine) {
            *slot = slot.merged(mine);
            return;
        }
    }
}

#[inline(always)]
fn write(cell: &Cell, clock: &Clock, mine: Stamp) -> Result<(), Problem> {
    if !clock.after(cell.write, mine) {
        conflict(cell.write, true, mine)?;
    }
    for reader in cell.reads {
        if !clock.after(reader, mine) {
            conflict(reader, false, mine)?;
        }
    }
    Ok(())
}

/// Two accesses that nothing orders.
#[cold]
#[inline(never)]
fn conflict(earlier: Stamp, wrote: bool, mine: Stamp) -> Result<(), Problem> {
    if earlier.is_in_flight() {
        return Err(Problem::InFlight { earlier });
    }
    if earlier.is_atomic() && mine.is_atomic() {
        return Ok(());
    }
    Err(Problem::Race { earlier, wrote })
}
