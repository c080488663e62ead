//! What one block does to global memory: races between its own threads.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::cells::{Cells, Problem};
use super::clock::{Clock, Stamp};
use super::shared::stamp;
use crate::exec::mem::{Access, Kind, lanes};

/// Bytes of a page; no access crosses its end.
const PAGE: u64 = 1 << PAGE_SHIFT;
const PAGE_SHIFT: u32 = 12;

/// Page numbers are spread well enough by one multiplication.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The pages that a block has touched.
#[derive(Default)]
pub(crate) struct Pages {
    /// Where a page's cells are.
    places: HashMap<u64, usize, BuildHasherDefault<Spread>>,
    /// Those in `places` first, then some of earlier blocks.
    cells: Vec<Cells<false>>,
    /// The last page, which the next access most often wants.
    last: Option<(u64, usize)>,
}

impl Pages {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.places.clear();
        self.last = None;
    }

    #[inline(always)]
    fn at(&mut self, address: u64) -> &mut Cells<false> {
        let number = address >> PAGE_SHIFT;
        let place = match self.last {
            Some((last, place)) if last == number => place,
            _ => self.find(number),
        };
        &mut self.cells[place]
    }

    #[inline(never)]
    fn find(&mut self, number: u64) -> usize {
        let next = self.places.len();
        let place = *self.places.entry(number).or_insert(next);
        if place == self.cells.len() {
            self.cells.push(Cells::new(PAGE as usize));
        } else if place == next {
            self.cells[place].clear();
        }
        self.last = Some((number, place));
        place
    }

    /// Checks and records an access whose bounds and alignment are known to be good. A conflict comes with its lane, its
    /// address, the earlier access and whether that was a write.
    pub fn access(
        &mut self,
        clock: &Clock,
        warp: u32,
        pc: u32,
        access: &Access<'_>,
    ) -> Result<(), (u32, u64, Stamp, bool)> {
        let base = stamp(clock, warp, pc, access);
        for l in lanes(access.mask) {
            let mine = Stamp(base.0 + l as u64);
            let address = access.addresses[l];
            match self.at(address).check(clock, address % PAGE, access, mine) {
                Err((offset, Problem::Race { earlier, wrote })) => {
                    return Err((l as u32, address - address % PAGE + offset, earlier, wrote));
                }
                // Nothing is copied to global memory, and whether it was written is known elsewhere.
                Err((_, Problem::InFlight { .. } | Problem::Unwritten)) | Ok(()) => {}
            }
        }
        if access.kind != Kind::Read {
            for l in lanes(access.mask) {
                let address = access.addresses[l];
                self.at(address).written(address % PAGE, access.bytes, Stamp(base.0 + l as u64));
            }
        }
        Ok(())
    }
}
