//! Memory of one block: who wrote and read each byte last, and which of that is a race.

use super::clock::{Clock, Stamp};
use crate::exec::mem::{Access, Kind};

/// What is known of one granule.
#[derive(Clone, Copy, Default)]
struct Cell {
    write: Stamp,
    /// Readers since the write that nothing orders; two warps are enough for a writer to meet one that is not its own.
    reads: [Stamp; 2],
}

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Unwritten,
    InFlight { earlier: Stamp },
    Race { earlier: Stamp, wrote: bool },
}

/// Some bytes of memory, as one block uses them.
///
/// `OWN`: the memory begins with the block, so that what it has not written nobody has.
pub(crate) struct Cells<const OWN: bool> {
    cells: Vec<Cell>,
    /// Bytes of a granule are `1 << shift`: words until the first narrower access, then bytes.
    shift: u32,
}

const WORD_SHIFT: u32 = 2;

impl<const OWN: bool> Cells<OWN> {
    pub fn new(bytes: usize) -> Self {
        Cells { cells: vec![Cell::default(); bytes.div_ceil(4)], shift: WORD_SHIFT }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.cells.fill(Cell::default());
    }

    /// Byte granules from now on.
    #[cold]
    #[inline(never)]
    fn refine(&mut self) {
        self.cells = self.cells.iter().flat_map(|cell| [*cell; 4]).collect();
        self.shift = 0;
    }

    /// The granules of `bytes` bytes; none outside the memory.
    #[inline(always)]
    fn at(&mut self, offset: u64, bytes: u32) -> &mut [Cell] {
        let first = offset as usize >> self.shift;
        let count = (bytes >> self.shift) as usize;
        self.cells.get_mut(first..first + count).unwrap_or_default()
    }

    /// Checks one lane's access and remembers it if it is a read. What is wrong comes with the byte where.
    #[inline(always)]
    pub fn check(
        &mut self,
        clock: &Clock,
        offset: u64,
        access: &Access<'_>,
        mine: Stamp,
    ) -> Result<(), (u64, Problem)> {
        if access.bytes < 4 && self.shift != 0 {
            self.refine();
        }
        let shift = self.shift;
        for (k, cell) in self.at(offset, access.bytes).iter_mut().enumerate() {
            let unwritten = OWN && cell.write == Stamp::NOBODY;
            let done = match access.kind {
                Kind::Read | Kind::Atomic if unwritten => Err(Problem::Unwritten),
                Kind::Read => read(cell, clock, mine),
                Kind::Write | Kind::Copy | Kind::Atomic => write(cell, clock, mine),
            };
            done.map_err(|problem| (offset + ((k as u64) << shift), problem))?;
        }
        Ok(())
    }

    /// Remembers one lane's write. After the checks of all lanes: those that write the same byte in one instruction do
    /// not race with each other.
    #[inline(always)]
    pub fn written(&mut self, offset: u64, bytes: u32, write: Stamp) {
        for cell in self.at(offset, bytes) {
            *cell = Cell { write, reads: [Stamp::NOBODY; 2] };
        }
    }

    /// A copy has been waited for by its thread.
    pub fn land(&mut self, offset: u64, bytes: u32, thread: u32, time: u32) {
        for cell in self.at(offset, bytes) {
            if cell.write.is_in_flight() && cell.write.thread() == thread {
                cell.write = cell.write.at(time);
            }
        }
    }
}

#[inline(always)]
fn read(cell: &mut Cell, clock: &Clock, mine: Stamp) -> Result<(), Problem> {
    let written = cell.write;
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
