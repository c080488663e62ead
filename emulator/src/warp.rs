//! The state of one warp.

use crate::ir::{Insn, PredSrc, Slot};
use crate::program::Program;
use crate::regs::{LANES, Lane, Regs, Row};

/// What uninitialised registers hold; never zero, so that code which relies on zeros is noticed.
const POISON: u32 = 0xdead_beef;

/// 32 lanes in lock step where they agree, in groups of equal pc where they do not.
///
/// Exactly one group is *active* at a time: `pc` and `active` are its. The other living lanes wait: *runnable*
/// ones at `lane_pc`, *parked* ones at a warp-level rendezvous, *barred* ones in a block-wide barrier.
pub(crate) struct Warp {
    /// The registers.
    pub regs: Regs,
    preds: Box<[u32]>,
    /// Number of the warp in its block.
    pub id: u32,
    /// The instruction being executed.
    pub pc: u32,
    /// Lanes of the active group.
    pub active: u32,
    /// Lanes that have not exited.
    pub alive: u32,
    /// Lanes that there were.
    pub existing: u32,
    /// Where lanes last exited.
    pub exit_pc: u32,
    /// What the warp knows of what others did.
    pub clock: crate::check::clock::Clock,
    /// The lowest pc at which another runnable group waits above the active one: reaching it means to merge.
    pub limit: u32,
    /// Where each lane outside the active group continues.
    pub lane_pc: [u32; LANES],
    /// Lanes that wait for other lanes of this warp.
    pub parked: u32,
    /// Lanes that wait in a block-wide barrier, together and per barrier.
    pub barred: u32,
    /// For each barrier: this warp's lanes waiting in it.
    pub barrier_lanes: [u32; 16],
    /// For each barrier: lanes that have arrived since the warp was last whole in it, and what they counted.
    pub arrived: [u32; 16],
    pub arrived_count: [u32; 16],
    /// `bar.red` in progress: kind and destination.
    pub reduction: (u16, Slot),
    /// Set by an instruction that wants the other warps to run first (`nanosleep`, a failed `try_wait`).
    pub pause: bool,
    /// Backward branches left in this turn.
    pub fuel: u32,
    /// Turns in a row that ended for want of fuel.
    pub spins: u32,
    /// Warp instructions executed.
    pub steps: u64,
    /// Local memory: `local_bytes` for each lane, one lane after the other.
    pub local: Box<[u64]>,
    /// Bytes of local memory per lane.
    pub local_bytes: u32,
    /// cp.async copies issued and not yet visible.
    pub copies: crate::exec::copy::Pending,
}

impl Warp {
    /// A warp whose constants are filled and whose everything else awaits [`Warp::start`].
    pub fn new(program: &Program, id: u32) -> Warp {
        let mut rows = vec![Row([POISON; LANES]); program.rows].into_boxed_slice();
        for (slot, row) in &program.constants {
            rows[*slot as usize] = *row;
        }
        let mut preds = vec![0u32; program.preds].into_boxed_slice();
        preds[0] = !0;
        let words = (program.local_bytes as usize).div_ceil(8) * LANES;
        Warp {
            regs: Regs::new(rows),
            preds,
            id,
            pc: 0,
            active: 0,
            alive: 0,
            existing: 0,
            exit_pc: 0,
            clock: crate::check::clock::Clock::new(id),
            limit: u32::MAX,
            lane_pc: [0; LANES],
            parked: 0,
            barred: 0,
            barrier_lanes: [0; 16],
            arrived: [0; 16],
            arrived_count: [0; 16],
            reduction: (0, 0),
            pause: false,
            fuel: 0,
            spins: 0,
            steps: 0,
            local: vec![!0; words].into_boxed_slice(),
            local_bytes: program.local_bytes.div_ceil(8) * 8,
            copies: Default::default(),
        }
    }

    /// Puts the lanes of `exists` at the first instruction with fresh registers and local memory.
    pub fn start(&mut self, program: &Program, exists: u32) {
        for range in &program.resets {
            for row in &mut self.regs.rows_mut()[range.clone()] {
                row.0 = [POISON; LANES];
            }
        }
        self.preds[1..].fill(0);
        self.local.fill(!0);
        self.pc = 0;
        self.active = exists;
        self.alive = exists;
        self.existing = exists;
        self.clock = crate::check::clock::Clock::new(self.id);
        self.limit = u32::MAX;
        self.parked = 0;
        self.barred = 0;
        self.barrier_lanes = [0; 16];
        self.arrived = [0; 16];
        self.arrived_count = [0; 16];
        self.reduction = (0, 0);
        self.pause = false;
        self.spins = 0;
        self.steps = 0;
        self.copies.clear();
    }

    /// The mask of a predicate source.
    ///
    /// # Safety
    /// `source` was handed out by the decoder of this warp's program.
    #[inline(always)]
    pub unsafe fn pred(&self, source: PredSrc) -> u32 {
        debug_assert!(((source >> 1) as usize) < self.preds.len());
        // SAFETY: the caller's promise.
        let mask = unsafe { *self.preds.get_unchecked((source >> 1) as usize) };
        mask ^ (source & 1).wrapping_neg()
    }

    /// Sets the lanes of `mask` of predicate number `index`.
    ///
    /// # Safety
    /// `index` was handed out by the decoder of this warp's program.
    #[inline(always)]
    pub unsafe fn set_pred(&mut self, index: Slot, mask: u32, value: u32) {
        debug_assert!((index as usize) < self.preds.len());
        // SAFETY: the caller's promise.
        let pred = unsafe { self.preds.get_unchecked_mut(index as usize) };
        *pred = (*pred & !mask) | (value & mask);
    }

    /// The value of each lane of a register.
    ///
    /// # Safety
    /// `slot` was handed out by the decoder of this warp's program for a register at least as wide as `T`.
    #[inline(always)]
    pub unsafe fn get<T: Lane>(&self, slot: Slot) -> [T; LANES] {
        // SAFETY: the caller's promise.
        unsafe { self.regs.get(slot) }
    }

    /// Sets the lanes of `mask` of a register.
    ///
    /// # Safety
    /// As [`Warp::get`].
    #[inline(always)]
    pub unsafe fn set<T: Lane>(&mut self, slot: Slot, mask: u32, value: [T; LANES]) {
        // SAFETY: the caller's promise.
        unsafe { self.regs.set(slot, mask, value) }
    }

    /// The address of each lane: row `a` (64-bit if [`ADDRESS_64`](crate::decode::ADDRESS_64) is in `flags`,
    /// absent if [`NONE`](crate::ir::NONE)) plus `imm`.
    ///
    /// # Safety
    /// `insn` was made by [`Decoder::address`](crate::decode::Decoder::address) for this warp's program.
    #[inline(always)]
    pub unsafe fn addresses(&self, insn: &Insn) -> [u64; LANES] {
        let mut out = [insn.imm as u64; LANES];
        if insn.a == crate::ir::NONE {
            return out;
        }
        if insn.flags & crate::decode::ADDRESS_64 != 0 {
            // SAFETY: the caller's promise.
            let base: [u64; LANES] = unsafe { self.get(insn.a) };
            for l in 0..LANES {
                out[l] = base[l].wrapping_add(insn.imm as u64);
            }
        } else {
            // SAFETY: the caller's promise.
            let base: [u32; LANES] = unsafe { self.get(insn.a) };
            for l in 0..LANES {
                out[l] = base[l].wrapping_add(insn.imm as u32) as u64;
            }
        }
        out
    }
}
