//! Runs a warp: fetches, follows control flow, splits and merges lanes.
//!
//! Lanes that agree on the pc are one group, and the group with the lowest pc runs until it reaches the pc of
//! another, with which it then merges. Compilers put the place where branches meet behind the branches, so this
//! finds it without a control-flow graph. A group that branches backwards many times while others wait lets them run
//! too: a lane that spins until another lane of its warp has done something gets what it waits for.

use crate::block::Block;
use crate::error::StopKind;
use crate::exec::barrier::{ALIGNED, ARRIVE};
use crate::exec::mem::lanes;
use crate::ir::{Flow, Insn};
use crate::regs::LANES;
use crate::warp::Warp;

/// How a warp's turn ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// All lanes have exited.
    Done,
    /// All living lanes wait in block-wide barriers (some may wait for those).
    Waiting,
    /// It can go on; others should have their turn.
    Paused,
    /// `block.stop` says why.
    Stopped,
}

/// Turns without fuel after which another group of a diverged warp is preferred.
const ROTATE: u32 = 16;

/// Runs a warp until its turn ends.
pub(crate) fn run<const COUNT: bool>(w: &mut Warp, b: &mut Block, code: &[Insn], fuel: u32) -> Turn {
    w.fuel = fuel;
    if w.active == 0 && !w.pick() {
        return w.idle(b);
    }
    if w.spins >= ROTATE {
        w.spins = 0;
        w.rotate();
    }
    loop {
        if w.pc >= w.limit {
            w.save();
            if !w.pick() {
                return w.idle(b);
            }
        }
        debug_assert!((w.pc as usize) < code.len());
        // SAFETY: every program ends in an exit, branch targets are checked when it is decoded, and only exits,
        // branches and rendezvous change the pc by other than one.
        let i = unsafe { code.get_unchecked(w.pc as usize) };
        // SAFETY: the decoder made the guard.
        let m = w.active & unsafe { w.pred(i.guard) };
        w.steps += 1;
        if COUNT {
            let counts = &mut b.tally.lines[w.pc as usize];
            counts.executions += 1;
            counts.lanes += u64::from(m.count_ones());
        }
        match i.flow {
            Flow::Plain => {
                if m != 0 {
                    // SAFETY: the decoder made the instruction for this warp's program.
                    unsafe { (i.run)(w, b, i, m) };
                }
                w.pc += 1;
            }
            Flow::Effect => {
                if m != 0 {
                    // SAFETY: as above.
                    unsafe { (i.run)(w, b, i, m) };
                    if b.stop.is_some() {
                        return Turn::Stopped;
                    }
                }
                w.pc += 1;
                if w.pause {
                    w.pause = false;
                    w.spins += 1;
                    return Turn::Paused;
                }
            }
            Flow::Branch | Flow::BranchUniform => {
                let rest = w.active & !m;
                if m == 0 {
                    w.pc += 1;
                    continue;
                }
                let backward = i.target <= w.pc;
                if rest == 0 {
                    w.pc = i.target;
                } else {
                    if i.flow == Flow::BranchUniform {
                        let text = "`bra.uni` taken by some lanes only".into();
                        b.fault(w, Some(rest.trailing_zeros()), StopKind::Divergence, text);
                        return Turn::Stopped;
                    }
                    w.diverge(m, i.target, rest, w.pc + 1);
                }
                if backward {
                    if w.active != w.alive {
                        w.relimit();
                    }
                    w.fuel -= 1;
                    if w.fuel == 0 {
                        w.spins += 1;
                        return Turn::Paused;
                    }
                }
            }
            Flow::BranchIndexed => {
                // SAFETY: the decoder made the row.
                let index: [u32; LANES] = unsafe { w.get(i.a) };
                let here = w.pc;
                for l in lanes(w.active) {
                    w.lane_pc[l] = here + 1;
                }
                for l in lanes(m) {
                    match i.ext.get(index[l] as usize) {
                        Some(target) => w.lane_pc[l] = *target,
                        None => {
                            let text = format!("`brx.idx` with index {} of {}", index[l], i.ext.len());
                            b.fault(w, Some(l as u32), StopKind::BadOperand, text);
                            return Turn::Stopped;
                        }
                    }
                }
                w.pick();
                w.fuel -= 1;
                if w.fuel == 0 {
                    w.spins += 1;
                    return Turn::Paused;
                }
            }
            Flow::Exit => {
                w.exit(m);
                b.progress += 1;
                if w.active == 0 && !w.pick() {
                    return w.idle(b);
                }
            }
            Flow::Member => {
                if m == 0 {
                    w.pc += 1;
                    continue;
                }
                if !w.member(b, i, m) {
                    return if b.stop.is_some() { Turn::Stopped } else { w.idle(b) };
                }
            }
            Flow::Aligned | Flow::Barrier if m == 0 => w.pc += 1,
            Flow::Aligned => {
                if m != w.alive && !w.gather_all(m) {
                    if !w.pick() {
                        return w.idle(b);
                    }
                    continue;
                }
                // SAFETY: as above.
                unsafe { (i.run)(w, b, i, w.active) };
                if b.stop.is_some() {
                    return Turn::Stopped;
                }
                w.pc += 1;
            }
            Flow::WarpBarrier => {
                if m == 0 {
                    w.pc += 1;
                    continue;
                }
                if !w.warp_barrier(b, code, i, m) {
                    return if b.stop.is_some() { Turn::Stopped } else { w.idle(b) };
                }
            }
            Flow::Barrier => {
                if i.flags & ALIGNED != 0 && m != w.alive {
                    if !w.gather_all(m) {
                        if !w.pick() {
                            return w.idle(b);
                        }
                        continue;
                    }
                } else if m != w.active {
                    w.set_aside(w.active & !m, w.pc + 1);
                }
                let arriving = w.active;
                // SAFETY: as above.
                unsafe { (i.run)(w, b, i, arriving) };
                if b.stop.is_some() {
                    return Turn::Stopped;
                }
                w.pc += 1;
                b.progress += 1;
                if i.flags & ARRIVE == 0 {
                    w.save();
                    if !w.pick() {
                        return w.idle(b);
                    }
                }
            }
        }
    }
}

impl Warp {
    /// Remembers where the active group is.
    fn save(&mut self) {
        for l in lanes(self.active) {
            self.lane_pc[l] = self.pc;
        }
    }

    /// Lanes that could run.
    fn runnable(&self) -> u32 {
        self.alive & !self.parked & !self.barred
    }

    /// Makes the runnable group with the lowest pc active. False if there is none.
    pub fn pick(&mut self) -> bool {
        let runnable = self.runnable();
        let low = lanes(runnable).map(|l| self.lane_pc[l]).min();
        match low {
            None => {
                self.active = 0;
                self.limit = u32::MAX;
                false
            }
            Some(low) => {
                self.take(low);
                true
            }
        }
    }

    /// Makes the runnable lanes at `pc` active.
    fn take(&mut self, pc: u32) {
        self.pc = pc;
        self.active = 0;
        self.limit = u32::MAX;
        for l in lanes(self.runnable()) {
            let at = self.lane_pc[l];
            if at == pc {
                self.active |= 1 << l;
            } else if at > pc {
                self.limit = self.limit.min(at);
            }
        }
    }

    /// The active group stays active, wherever it went: merges with who waits there, and finds the next limit.
    fn relimit(&mut self) {
        self.save();
        self.take(self.pc);
    }

    /// Lets the group above the active one run, or the lowest if there is none above.
    fn rotate(&mut self) {
        if self.active == self.runnable() {
            return;
        }
        self.save();
        let above = lanes(self.runnable()).map(|l| self.lane_pc[l]).filter(|at| *at > self.pc).min();
        match above {
            Some(pc) => self.take(pc),
            None => {
                self.pick();
            }
        }
    }

    /// Two groups where there was one; the lower goes on.
    fn diverge(&mut self, taken: u32, target: u32, rest: u32, next: u32) {
        if target == next {
            self.pc = next;
            return;
        }
        let (low, low_pc, high, high_pc) =
            if target < next { (taken, target, rest, next) } else { (rest, next, taken, target) };
        for l in lanes(high) {
            self.lane_pc[l] = high_pc;
        }
        self.active = low;
        self.pc = low_pc;
        self.limit = self.limit.min(high_pc);
    }

    /// Some lanes of the active group continue elsewhere, later.
    fn set_aside(&mut self, some: u32, pc: u32) {
        for l in lanes(some) {
            self.lane_pc[l] = pc;
        }
        self.active &= !some;
        if some != 0 {
            self.limit = self.limit.min(pc);
        }
    }

    /// Lanes leave for good; the others of the group go on behind the instruction.
    fn exit(&mut self, leaving: u32) {
        self.alive &= !leaving;
        self.exit_pc = self.pc;
        self.active &= !leaving;
        self.pc += 1;
        if self.parked != 0 {
            // Who waited for the lanes that left need not wait any more.
            self.parked = 0;
            if self.active != 0 {
                self.relimit();
            }
        }
    }

    /// The turn of a warp with no runnable lane.
    fn idle(&mut self, b: &mut Block) -> Turn {
        if b.stop.is_some() {
            return Turn::Stopped;
        }
        if self.alive == 0 {
            return Turn::Done;
        }
        if self.barred != 0 {
            return Turn::Waiting;
        }
        self.stuck(b);
        Turn::Stopped
    }

    /// All living lanes wait for one another in different places.
    #[cold]
    fn stuck(&mut self, b: &mut Block) {
        let first = self.parked.trailing_zeros();
        self.pc = self.lane_pc[(first & 31) as usize];
        let at_first = self.group_at(self.pc);
        let text = format!(
            "lanes {at_first:#010x} of warp {} wait for lanes {:#010x}, which never arrive",
            self.id,
            self.alive & !at_first
        );
        b.fault(self, Some(first), StopKind::Divergence, text);
        let notes = self.whereabouts(b);
        if let Some(stop) = &mut b.stop {
            stop.details.notes = notes;
        }
    }

    fn group_at(&self, pc: u32) -> u32 {
        lanes(self.alive).filter(|l| self.lane_pc[*l] == pc).fold(0, |m, l| m | 1 << l)
    }

    /// One line for each group of lanes: where it is and what it does there.
    pub fn whereabouts(&self, b: &Block) -> Vec<String> {
        let mut out = Vec::new();
        let mut left = self.alive;
        while left != 0 {
            let l = left.trailing_zeros() as usize;
            let waiting = |m: u32| m >> l & 1 != 0;
            // Lanes in a barrier already stand behind it.
            let at = self.lane_pc[l] - waiting(self.barred) as u32;
            let group = lanes(left)
                .filter(|k| {
                    self.lane_pc[*k] == self.lane_pc[l]
                        && (self.barred >> *k & 1 != 0) == waiting(self.barred)
                        && (self.parked >> *k & 1 != 0) == waiting(self.parked)
                })
                .fold(0u32, |m, k| m | 1 << k);
            let stop = b.describe(self.id, None, at, StopKind::Deadlock, String::new());
            let place = match stop.source() {
                Some((file, line)) => format!("{file}:{line}   ptx line {}", stop.ptx_line()),
                None => format!("ptx line {}", stop.ptx_line()),
            };
            let doing = if waiting(self.barred) {
                "waits in a barrier"
            } else if waiting(self.parked) {
                "waits for other lanes"
            } else {
                "runs"
            };
            out.push(format!(
                "warp {} lanes {group:#010x} {doing}   {place}   {}",
                self.id, stop.details.instruction
            ));
            left &= !group;
        }
        if self.alive == 0 {
            out.push(format!("warp {} has exited", self.id));
        }
        out
    }

    /// An aligned instruction: true if all living lanes are here and active. Else the lanes that are here park, those
    /// whose guard fails go on, and no group is active.
    fn gather_all(&mut self, arriving: u32) -> bool {
        let waiting =
            lanes(self.parked).filter(|l| self.lane_pc[*l] == self.pc).fold(0u32, |m, l| m | 1 << l);
        let here = arriving | waiting;
        if here == self.alive {
            self.parked = 0;
            self.active = here;
            self.limit = u32::MAX;
            return true;
        }
        self.set_aside(self.active & !arriving, self.pc + 1);
        self.save();
        self.parked |= arriving;
        self.active = 0;
        false
    }

    /// An instruction with a member mask. False if no group can go on.
    fn member(&mut self, b: &mut Block, i: &Insn, arriving: u32) -> bool {
        // SAFETY: the decoder made the row.
        let masks: [u32; LANES] = unsafe { self.get(i.c) };
        let first = arriving.trailing_zeros();
        let members = masks[first as usize];
        // The usual case: everyone who is named, and nobody else, is here.
        if arriving == self.active
            && members & self.alive == arriving
            && lanes(arriving).all(|l| masks[l] == members)
        {
            // SAFETY: the decoder made the instruction.
            unsafe { (i.run)(self, b, i, arriving) };
            self.pc += 1;
            return b.stop.is_none();
        }
        self.set_aside(self.active & !arriving, self.pc + 1);
        let waiting =
            lanes(self.parked).filter(|l| self.lane_pc[*l] == self.pc).fold(0u32, |m, l| m | 1 << l);
        let same = lanes(arriving | waiting).filter(|l| masks[*l] == members).fold(0u32, |m, l| m | 1 << l);
        if let Some(l) = lanes(same).find(|l| members >> l & 1 == 0) {
            let text = format!("the member mask {members:#010x} does not name the executing lane {l}");
            b.fault(self, Some(l as u32), StopKind::BadOperand, text);
            return false;
        }
        self.save();
        if same == members & self.alive {
            self.parked &= !same;
            // SAFETY: as above.
            unsafe { (i.run)(self, b, i, same) };
            if b.stop.is_some() {
                return false;
            }
            for l in lanes(same) {
                self.lane_pc[l] = self.pc + 1;
            }
        } else {
            self.parked |= same;
        }
        self.pick()
    }

    /// `bar.warp.sync`: as [`Warp::member`], wherever the members stand. False if no group can go on.
    fn warp_barrier(&mut self, b: &mut Block, code: &[Insn], i: &Insn, arriving: u32) -> bool {
        // SAFETY: the decoder made the row.
        let masks: [u32; LANES] = unsafe { self.get(i.c) };
        let members = masks[arriving.trailing_zeros() as usize];
        if arriving == self.active
            && members & self.alive == arriving
            && lanes(arriving).all(|l| masks[l] == members)
        {
            self.clock.meet(arriving, self.alive);
            self.pc += 1;
            return true;
        }
        self.set_aside(self.active & !arriving, self.pc + 1);
        self.save();
        let mut same = 0u32;
        for l in lanes(arriving | self.parked) {
            let there = &code[self.lane_pc[l] as usize];
            if there.flow == Flow::WarpBarrier {
                // SAFETY: the decoder made the row.
                let mask: [u32; LANES] = unsafe { self.get(there.c) };
                same |= ((mask[l] == members) as u32) << l;
            }
        }
        if let Some(l) = lanes(same).find(|l| members >> l & 1 == 0) {
            let text = format!("the member mask {members:#010x} does not name the executing lane {l}");
            b.fault(self, Some(l as u32), StopKind::BadOperand, text);
            return false;
        }
        if same == members & self.alive {
            self.parked &= !same;
            self.clock.meet(same, self.alive);
            for l in lanes(same) {
                self.lane_pc[l] += 1;
            }
        } else {
            self.parked |= same & arriving;
        }
        self.pick()
    }
}
