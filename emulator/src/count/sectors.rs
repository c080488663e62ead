//! Global memory: sectors of a request, and those that a launch touched at all.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::SECTOR_BYTES;
use crate::exec::mem::{Kind, lanes};
use crate::memory::{Allocation, Table};
use crate::regs::LANES;
use crate::report::Buffer;

/// Smallest and largest value of the mask's lanes.
fn range(values: &[u64; LANES], mask: u32) -> (u64, u64) {
    lanes(mask).fold((u64::MAX, 0), |(low, high), l| (low.min(values[l]), high.max(values[l])))
}

/// Different values of `address >> shift` among the lanes of a mask.
pub(super) fn distinct(addresses: &[u64; LANES], mask: u32, shift: u32) -> u32 {
    let (low, high) = range(addresses, mask);
    if (high >> shift).wrapping_sub(low >> shift) < 64 {
        let base = low >> shift;
        return lanes(mask).fold(0u64, |seen, l| seen | 1 << ((addresses[l] >> shift) - base)).count_ones();
    }
    let mut all = [0u64; LANES];
    let mut count = 0;
    for l in lanes(mask) {
        all[count] = addresses[l] >> shift;
        count += 1;
    }
    let all = &mut all[..count];
    all.sort_unstable();
    1 + all.windows(2).filter(|pair| pair[0] != pair[1]).count() as u32
}

/// A bit for every sector of an allocation.
struct Bits(Box<[AtomicU64]>);

impl Bits {
    fn new(sectors: u64) -> Bits {
        Bits((0..sectors.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Sets bits of one word.
    #[inline(always)]
    fn set(&self, word: u64, bits: u64) {
        let word = &self.0[word as usize];
        // Most sectors are touched more than once, and reading does not disturb other host threads.
        if bits & !word.load(Relaxed) != 0 {
            word.fetch_or(bits, Relaxed);
        }
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.load(Relaxed).count_ones())).sum()
    }
}

struct Sectors {
    read: Bits,
    written: Bits,
}

/// The sectors that a launch touched, for every allocation that there was when it began.
pub(crate) struct Touched {
    /// By number of the allocation; made when the launch first touches it.
    allocations: Box<[OnceLock<Sectors>]>,
}

impl Touched {
    pub fn new(table: &Table) -> Touched {
        Touched { allocations: (0..table.len()).map(|_| OnceLock::new()).collect() }
    }

    /// Marks what the lanes of a mask access in allocation `number`, all inside it.
    pub(super) fn mark(
        &self,
        number: usize,
        owner: &Allocation,
        addresses: &[u64; LANES],
        mask: u32,
        kind: Kind,
    ) {
        let Some(slot) = self.allocations.get(number) else { return };
        let sectors = slot.get_or_init(|| {
            let count = owner.len.div_ceil(SECTOR_BYTES);
            Sectors { read: Bits::new(count), written: Bits::new(count) }
        });
        let sector = |address: u64| (address - owner.base) / SECTOR_BYTES;
        let (low, high) = range(addresses, mask);
        let (first, last) = (sector(low) / 64, sector(high) / 64);
        let set = |word: u64, bits: u64| {
            if kind != Kind::Write {
                sectors.read.set(word, bits);
            }
            if kind != Kind::Read {
                sectors.written.set(word, bits);
            }
        };
        if last - first > 1 {
            return lanes(mask)
                .for_each(|l| set(sector(addresses[l]) / 64, 1 << (sector(addresses[l]) % 64)));
        }
        let mut words = [0u64; 2];
        for l in lanes(mask) {
            let at = sector(addresses[l]);
            words[(at / 64 - first) as usize] |= 1 << (at % 64);
        }
        for (word, bits) in (first..).zip(words).filter(|(_, bits)| *bits != 0) {
            set(word, bits);
        }
    }

    /// What was touched, in the order of addresses.
    pub fn buffers(&self, table: &Table) -> Vec<Buffer> {
        let slots = self.allocations.iter().enumerate();
        slots
            .filter_map(|(number, slot)| {
                let (sectors, owner) = (slot.get()?, table.at(number)?);
                Some(Buffer {
                    address: owner.base,
                    bytes: owner.len,
                    read_sectors: sectors.read.count(),
                    written_sectors: sectors.written.count(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mask: u32, shift: u32, address: impl Fn(u64) -> u64) -> u32 {
        distinct(&std::array::from_fn(|l| address(l as u64)), mask, shift)
    }

    #[test]
    fn distinct_values() {
        assert_eq!(of(!0, 5, |l| 4 * l), 4);
        assert_eq!(of(!0, 5, |l| 16 + 4 * l), 5, "misaligned");
        assert_eq!(of(!0, 5, |l| 8 * l), 8);
        assert_eq!(of(!0, 5, |l| 4096 * l), 32, "far apart");
        assert_eq!(of(!0, 5, |l| (1 << 40) + 4096 * (l % 3)), 3, "far apart and repeated");
        assert_eq!(of(!0, 5, |l| (l % 2) << 40), 2);
        assert_eq!(of(!0, 5, |_| 7), 1);
        assert_eq!(of(0x10, 5, |l| 4 * l), 1);
        assert_eq!(of(0x8000_0001, 5, |l| 4096 * l), 2);
    }
}
