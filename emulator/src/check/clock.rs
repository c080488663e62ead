//! What each warp knows of the others: vector clocks.
//!
//! A warp's time advances with everything that orders its accesses: block-wide barriers and the warp's own. Another
//! warp's access is ordered before mine if it happened before the time of that warp which I know of (the horizon);
//! another lane's of my own warp if a warp barrier came between. Shuffles, votes, `ldmatrix` and their like order nothing:
//! lanes wait for each other there, and still see each other's accesses to memory in any order.

use crate::exec::mem::lanes;
use crate::regs::LANES;

/// Warps of a block, at most.
pub(crate) const WARPS: usize = 32;

/// Who accessed something, when, and by which instruction; 0 is nobody.
///
/// From the top: time (32 bits), instruction (20), atomic (1), several lanes of the warp (1), thread (10).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Stamp(pub u64);

const MANY: u64 = 1 << 10;
const ATOMIC: u64 = 1 << 11;
const PC_SHIFT: u32 = 12;
const PC: u64 = 0xf_ffff;
const TIME_SHIFT: u32 = 32;
/// The time of a write that is still under way.
const IN_FLIGHT: u32 = u32::MAX;

impl Stamp {
    pub const NOBODY: Stamp = Stamp(0);

    pub fn new(time: u32, pc: u32, thread: u32) -> Stamp {
        Stamp((time as u64) << TIME_SHIFT | (pc as u64 & PC) << PC_SHIFT | thread as u64 & 1023)
    }

    pub fn atomic_if(self, yes: bool) -> Stamp {
        Stamp(self.0 | if yes { ATOMIC } else { 0 })
    }

    /// The same access, made by the warp as a whole.
    pub fn many_if(self, yes: bool) -> Stamp {
        Stamp(self.0 | if yes { MANY } else { 0 })
    }

    pub fn in_flight(self) -> Stamp {
        self.at(IN_FLIGHT)
    }

    /// The same access at another time.
    pub fn at(self, time: u32) -> Stamp {
        Stamp(self.0 & !(!0 << TIME_SHIFT) | (time as u64) << TIME_SHIFT)
    }

    #[inline(always)]
    pub fn time(self) -> u32 {
        (self.0 >> TIME_SHIFT) as u32
    }

    pub fn is_in_flight(self) -> bool {
        self.time() == IN_FLIGHT
    }

    pub fn pc(self) -> u32 {
        (self.0 >> PC_SHIFT & PC) as u32
    }

    #[inline(always)]
    pub fn thread(self) -> u32 {
        self.0 as u32 & 1023
    }

    #[inline(always)]
    fn warp(self) -> usize {
        (self.0 as usize & 1023) / LANES
    }

    fn lane(self) -> usize {
        self.0 as usize % LANES
    }

    pub fn is_many(self) -> bool {
        self.0 & MANY != 0
    }

    pub fn is_atomic(self) -> bool {
        self.0 & ATOMIC != 0
    }

    /// The same lanes at the same time, with the same strength.
    #[inline(always)]
    pub fn same_moment(self, other: Stamp) -> bool {
        (self.0 ^ other.0) & !(PC << PC_SHIFT) == 0
    }

    /// Both by lanes of one warp between the same two synchronisations.
    pub fn together(self, other: Stamp) -> bool {
        self.time() == other.time() && self.warp() == other.warp()
    }

    /// Both readers in one: atomic only if both are.
    pub fn merged(self, other: Stamp) -> Stamp {
        Stamp(self.0 & !(ATOMIC & !other.0) | MANY)
    }
}

/// The clock of one warp.
pub(crate) struct Clock {
    /// The warp's own time.
    pub time: u32,
    /// For each warp: accesses before this time are known. For the warp itself: ordered between all its lanes.
    pub horizon: [u32; WARPS],
    warp: usize,
    /// `pairs[a][b]`: lane `a` knows lane `b`'s accesses before this time; only when lanes synchronised in parts.
    pairs: Option<Box<[[u32; LANES]; LANES]>>,
}

impl Clock {
    pub fn new(warp: u32) -> Clock {
        Clock { time: 1, horizon: [1; WARPS], warp: warp as usize % WARPS, pairs: None }
    }

    /// The lanes of `mask` synchronise; `alive` are all there are.
    pub fn meet(&mut self, mask: u32, alive: u32) {
        self.time += 1;
        if mask & alive == alive {
            self.horizon[self.warp] = self.time;
            return;
        }
        let pairs = self.pairs.get_or_insert_with(|| Box::new([[0; LANES]; LANES]));
        let mut joined = [0u32; LANES];
        for l in lanes(mask) {
            for (sum, known) in joined.iter_mut().zip(&pairs[l]) {
                *sum = (*sum).max(*known);
            }
        }
        for l in lanes(mask) {
            joined[l] = self.time;
        }
        for l in lanes(mask) {
            pairs[l] = joined;
        }
    }

    /// The warp arrives at a barrier: what it knows and did goes into `join`.
    pub fn release(&mut self, join: &mut [u32; WARPS]) {
        for (sum, known) in join.iter_mut().zip(&self.horizon) {
            *sum = (*sum).max(*known);
        }
        self.time += 1;
        join[self.warp] = join[self.warp].max(self.time);
    }

    /// The warp leaves a barrier and knows what all who arrived did.
    pub fn acquire(&mut self, join: &[u32; WARPS], waited: u32, alive: u32) {
        let own = self.horizon[self.warp];
        for (known, sum) in self.horizon.iter_mut().zip(join) {
            *known = (*known).max(*sum);
        }
        // Its own lanes are ordered only if they were there.
        self.horizon[self.warp] = own;
        self.meet(waited, alive);
    }

    /// Whether an access is ordered before `mine`, which is about to happen.
    #[inline(always)]
    pub fn after(&self, earlier: Stamp, mine: Stamp) -> bool {
        earlier.time() < self.horizon[earlier.warp()] || self.after_in_warp(earlier, mine)
    }

    fn after_in_warp(&self, earlier: Stamp, mine: Stamp) -> bool {
        if earlier.warp() != self.warp || earlier.is_in_flight() {
            return false;
        }
        if earlier.thread() == mine.thread() && !earlier.is_many() && !mine.is_many() {
            return true;
        }
        let Some(pairs) = &self.pairs else { return false };
        let known = &pairs[mine.lane()];
        if earlier.is_many() || mine.is_many() {
            // Which lanes they were is not kept: any meeting since then counts.
            return known.iter().any(|time| earlier.time() < *time);
        }
        earlier.time() < known[earlier.lane()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_orders_what_came_before_it_only() {
        let (mut a, mut b) = (Clock::new(0), Clock::new(1));
        let (early, mine) = (Stamp::new(a.time, 7, 3), Stamp::new(b.time, 9, 40));
        assert!(!b.after(early, mine));
        let mut join = [0; WARPS];
        a.release(&mut join);
        let late = Stamp::new(a.time, 8, 3);
        b.release(&mut join);
        b.acquire(&join, !0, !0);
        assert!(b.after(early, mine) && !b.after(late, mine));
        assert!(!a.after(Stamp::new(1, 9, 40), Stamp::new(a.time, 9, 3)), "a did not wait");
    }

    #[test]
    fn lanes_that_meet_in_parts_know_each_other_and_whom_those_met() {
        let mut clock = Clock::new(0);
        let stamp = |clock: &Clock, lane| Stamp::new(clock.time, 0, lane);
        let zero = stamp(&clock, 0);
        assert!(clock.after(zero, stamp(&clock, 0)) && !clock.after(zero, stamp(&clock, 1)));
        clock.meet(0b011, !0);
        assert!(clock.after(zero, stamp(&clock, 1)) && !clock.after(zero, stamp(&clock, 2)));
        clock.meet(0b110, !0);
        assert!(clock.after(zero, stamp(&clock, 2)) && !clock.after(zero, stamp(&clock, 3)));
        clock.meet(!0, !0);
        assert!(clock.after(zero, stamp(&clock, 3)));
    }
}
