//! Global memory: which bytes have been written, and which blocks of a launch accessed each word.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::clock::Stamp;
use crate::exec::mem::{Access, Kind, lanes};
use crate::regs::LANES;

/// The number of a launch: as many as fit into a mark; 0 is none.
pub(crate) const LAUNCHES: u64 = 1 << 10;
const BLOCKS: u64 = 1 << 21;

/// Who accessed a word in which launch; 0 is nobody.
///
/// From the top: launch (10 bits), block (21), atomic (1), several blocks (1), bytes of the word (4), instruction (17),
/// thread (10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mark(u64);

const PC_SHIFT: u32 = 10;
const BYTES_SHIFT: u32 = 27;
const BYTES: u64 = 15 << BYTES_SHIFT;
const MANY: u64 = 1 << 31;
const ATOMIC: u64 = 1 << 32;
const BLOCK_SHIFT: u32 = 33;
const LAUNCH_SHIFT: u32 = 54;

impl Mark {
    fn new(launch: u64, block: u64, atomic: bool, pc: u32, thread: u32) -> Mark {
        Mark(
            launch << LAUNCH_SHIFT
                | (block % BLOCKS) << BLOCK_SHIFT
                | if atomic { ATOMIC } else { 0 }
                | (pc as u64 & 0x1_ffff) << PC_SHIFT
                | thread as u64 & 1023,
        )
    }

    fn same_launch(self, other: Mark) -> bool {
        self.0 >> LAUNCH_SHIFT == other.0 >> LAUNCH_SHIFT
    }

    fn same_block(self, other: Mark) -> bool {
        self.0 >> BLOCK_SHIFT == other.0 >> BLOCK_SHIFT
    }

    pub fn block(self) -> u64 {
        self.0 >> BLOCK_SHIFT & (BLOCKS - 1)
    }

    pub fn pc(self) -> u32 {
        (self.0 >> PC_SHIFT) as u32 & 0x1_ffff
    }

    pub fn thread(self) -> u32 {
        self.0 as u32 & 1023
    }

    /// Whether `mine`, by another block of the launch, conflicts.
    fn conflicts(self, mine: Mark) -> bool {
        self.same_launch(mine)
            && (self.0 & MANY != 0 || !self.same_block(mine))
            && self.0 & mine.0 & BYTES != 0
            && self.0 & mine.0 & ATOMIC == 0
    }
}

/// Who is about to access.
#[derive(Clone, Copy)]
pub(crate) struct Accessor<'a> {
    pub launch: u64,
    pub block: u64,
    pub warp: u32,
    pub pc: u32,
    /// For each block: whether it has synchronised with others through memory; empty if the kernel cannot.
    pub communicates: &'a [AtomicBool],
}

/// What was found, and by which lane at which offset of the allocation.
pub(crate) enum Trouble {
    Unwritten {
        lane: u32,
        offset: u64,
    },
    /// With another block.
    Race {
        lane: u32,
        offset: u64,
        earlier: Mark,
        wrote: bool,
    },
    /// With another thread of the block.
    Within {
        lane: u32,
        offset: u64,
        earlier: Stamp,
        wrote: bool,
    },
}

struct Marks {
    writes: Vec<AtomicU64>,
    reads: Vec<AtomicU64>,
}

/// What is known of one allocation.
pub(crate) struct Shadow {
    len: u64,
    /// One bit per byte that has been written.
    written: Box<[AtomicU64]>,
    /// A launch without checks may have written anything.
    trusted: AtomicBool,
    /// One mark per word; made when a launch with checks first touches the allocation.
    marks: OnceLock<Marks>,
}

fn zeros(count: usize) -> Vec<AtomicU64> {
    std::iter::repeat_with(|| AtomicU64::new(0)).take(count).collect()
}

/// The bits `from..to` of a word.
fn bits(from: u64, to: u64) -> u64 {
    (!0u64 >> (64 - (to - from))) << from
}

impl Shadow {
    pub fn new(len: u64) -> Shadow {
        Shadow {
            len,
            written: zeros(len.div_ceil(64) as usize).into_boxed_slice(),
            trusted: AtomicBool::new(false),
            marks: OnceLock::new(),
        }
    }

    /// Everything counts as written.
    pub fn trust(&self) {
        self.trusted.store(true, Relaxed);
    }

    /// Forgets which blocks accessed what.
    pub fn forget(&self) {
        if let Some(marks) = self.marks.get() {
            for mark in marks.writes.iter().chain(&marks.reads) {
                mark.store(0, Relaxed);
            }
        }
    }

    /// The bytes `offset..offset + count` have been written.
    pub fn write(&self, offset: u64, count: u64) {
        self.words(offset, count, |word, mask| {
            if word.load(Relaxed) & mask != mask {
                word.fetch_or(mask, Relaxed);
            }
            true
        });
    }

    /// The bytes are as if never written.
    pub fn unwrite(&self, offset: u64, count: u64) {
        self.words(offset, count, |word, mask| {
            word.fetch_and(!mask, Relaxed);
            true
        });
    }

    /// Bytes copied from elsewhere are as written as they were there. In overlapping ranges of one allocation what was
    /// overwritten counts as written.
    pub fn inherit(&self, offset: u64, source: &Shadow, from: u64, count: u64) {
        if std::ptr::eq(self, source) || source.is_written(from, count) {
            return;
        }
        for k in 0..count {
            if !source.is_written(from + k, 1) {
                self.unwrite(offset + k, 1);
            }
        }
    }

    /// Whether all the bytes have been written.
    pub fn is_written(&self, offset: u64, count: u64) -> bool {
        self.trusted.load(Relaxed)
            || self.words(offset, count, |word, mask| word.load(Relaxed) & mask == mask)
    }

    #[inline(always)]
    fn words(&self, offset: u64, count: u64, mut each: impl FnMut(&AtomicU64, u64) -> bool) -> bool {
        let (mut at, end) = (offset, (offset + count).min(self.len));
        while at < end {
            let stop = (at | 63).wrapping_add(1).min(end);
            let last = (stop - 1) % 64 + 1;
            if !each(&self.written[(at / 64) as usize], bits(at % 64, last)) {
                return false;
            }
            at = stop;
        }
        true
    }

    /// Checks and records an access that lies inside the allocation.
    pub fn access(
        &self,
        base: u64,
        read_only: bool,
        by: Accessor<'_>,
        access: &Access<'_>,
    ) -> Result<(), Trouble> {
        let bytes = access.bytes as u64;
        let first = access.addresses[0];
        let contiguous = access.mask == !0
            && (0..LANES)
                .fold(true, |yes, l| yes & (access.addresses[l] == first.wrapping_add(l as u64 * bytes)));
        if access.kind != Kind::Write {
            let all = contiguous && self.is_written(first - base, bytes * LANES as u64);
            if !all {
                for l in lanes(access.mask) {
                    let offset = access.addresses[l] - base;
                    if !self.is_written(offset, bytes) {
                        let at = (offset..offset + bytes).find(|at| !self.is_written(*at, 1));
                        return Err(Trouble::Unwritten { lane: l as u32, offset: at.unwrap_or(offset) });
                    }
                }
            }
        } else if contiguous {
            self.write(first - base, bytes * LANES as u64);
        } else {
            for l in lanes(access.mask) {
                self.write(access.addresses[l] - base, bytes);
            }
        }
        if read_only {
            return Ok(());
        }
        let marks = self.marks.get_or_init(|| {
            let count = self.len.div_ceil(4) as usize;
            Marks { writes: zeros(count), reads: zeros(count) }
        });
        let atomic = access.strong || access.kind == Kind::Atomic;
        let mark = Mark::new(by.launch, by.block, atomic, by.pc, by.warp * 32);
        for l in lanes(access.mask) {
            let offset = access.addresses[l] - base;
            let mine = Mark(mark.0 + l as u64);
            let trouble = if bytes >= 4 {
                let mine = Mark(mine.0 | BYTES);
                let first = (offset / 4) as usize;
                (first..first + access.bytes as usize / 4)
                    .find_map(|word| marks.touch(word, mine, access.kind))
            } else {
                let within = ((1u64 << bytes) - 1) << (offset % 4);
                marks.touch((offset / 4) as usize, Mark(mine.0 | within << BYTES_SHIFT), access.kind)
            };
            if let Some((earlier, wrote)) = trouble {
                let talks = |block: u64| by.communicates.get(block as usize).is_some_and(|x| x.load(Relaxed));
                if talks(by.block) && talks(earlier.block()) {
                    continue;
                }
                return Err(Trouble::Race { lane: l as u32, offset, earlier, wrote });
            }
        }
        Ok(())
    }
}

impl Marks {
    /// Records an access to a word; returns the mark it conflicts with and whether that was a write.
    #[inline(always)]
    fn touch(&self, word: usize, mine: Mark, kind: Kind) -> Option<(Mark, bool)> {
        let (writes, reads) = (&self.writes[word], &self.reads[word]);
        let written = Mark(writes.load(Relaxed));
        if written.conflicts(mine) {
            return Some((written, true));
        }
        let read = Mark(reads.load(Relaxed));
        if kind == Kind::Read {
            let next = if !read.same_launch(mine) {
                mine
            } else {
                let many = if read.same_block(mine) { 0 } else { MANY };
                Mark((read.0 | mine.0 & BYTES | many) & !(ATOMIC & !mine.0))
            };
            if next != read {
                reads.store(next.0, Relaxed);
            }
            return None;
        }
        if read.conflicts(mine) {
            return Some((read, false));
        }
        let kept = if written.same_block(mine) { written.0 & BYTES } else { 0 };
        writes.store(mine.0 | kept, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_bytes_are_known_to_the_byte() {
        let shadow = Shadow::new(200);
        shadow.write(3, 130);
        assert!(shadow.is_written(3, 130) && shadow.is_written(64, 1) && shadow.is_written(132, 1));
        assert!(!shadow.is_written(2, 1) && !shadow.is_written(133, 1) && !shadow.is_written(100, 34));
        shadow.unwrite(64, 64);
        assert!(shadow.is_written(3, 61) && !shadow.is_written(64, 1) && shadow.is_written(128, 5));
        shadow.trust();
        assert!(shadow.is_written(0, 200));
    }
}
