//! Runs blocks: the turns of warps, barriers, deadlocks, and blocks on host threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::block::{Barrier, Block, Bytes, LaunchInfo};
use crate::check;
use crate::check::shared::Shadow;
use crate::count::Tally;
use crate::error::{Stop, StopKind};
use crate::exec::barrier::deliver;
use crate::interpret::{Turn, run};
use crate::program::Special;
use crate::regs::LANES;
use crate::warp::Warp;

/// Backward branches in a turn.
const FUEL: u32 = 256;
/// Rounds without progress after which a block counts as waiting for another one.
const STALLED: u64 = 64;
/// Blocks that one host thread keeps going at once when they wait for each other.
const RESIDENT: usize = 1024;

/// A sequence of numbers from a seed (SplitMix64).
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

/// What a launch adds up to.
#[derive(Default)]
pub(crate) struct Totals {
    pub warp_instructions: u64,
    pub tally: Tally,
}

/// A block and its warps, used for one block after the other.
struct Resident {
    block: Block,
    warps: Vec<Warp>,
    turns: Vec<Turn>,
    order: Vec<usize>,
    random: Random,
    /// Position in the order of blocks.
    index: u64,
    /// Rounds since anything happened.
    idle: u64,
}

enum Step {
    Done,
    Going,
    Stopped(Stop),
}

impl Resident {
    fn new(info: &Arc<LaunchInfo>, params: &[u8], counters: bool) -> Resident {
        let program = &info.program;
        let threads = info.dims.threads() as u32;
        let fixed = program.shared_bytes.next_multiple_of(program.dynamic_align.max(1));
        let shared =
            if info.dims.shared_bytes == 0 { program.shared_bytes } else { fixed + info.dims.shared_bytes };
        let mut bytes = Bytes::new(params.len(), 0);
        bytes.as_mut_slice().copy_from_slice(params);
        let block = Block {
            launch: info.clone(),
            ctaid: [0; 3],
            shared: Bytes::new(shared as usize, !0),
            params: bytes,
            barriers: [Barrier::default(); 16],
            shadow: (info.number != 0).then(|| Box::new(Shadow::new(shared as usize))),
            stop: None,
            progress: 0,
            clock: 0,
            tally: Tally::new(if counters { program.code.len() } else { 0 }),
        };
        let count = threads.div_ceil(32);
        Resident {
            block,
            warps: (0..count).map(|id| Warp::new(program, id)).collect(),
            turns: vec![Turn::Paused; count as usize],
            order: (0..count as usize).collect(),
            random: Random(0),
            index: 0,
            idle: 0,
        }
    }

    /// Puts block number `index` of the launch's order at its beginning.
    fn start(&mut self, index: u64, number: u64) {
        let info = self.block.launch.clone();
        let [gx, gy, _] = info.dims.grid.map(u64::from);
        self.index = index;
        self.idle = 0;
        self.random = Random(info.seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let b = &mut self.block;
        b.ctaid = [(number % gx) as u32, (number / gx % gy) as u32, (number / (gx * gy)) as u32];
        b.barriers = [Barrier::default(); 16];
        // All ones is NaN in every float format.
        b.shared.as_mut_slice().fill(!0);
        b.clock = 0;
        if let Some(shadow) = &mut b.shadow {
            shadow.start(number);
        }
        let threads = info.dims.threads() as u32;
        for w in &mut self.warps {
            let first = w.id * 32;
            let exists = if threads - first >= 32 { !0 } else { (1u32 << (threads - first)) - 1 };
            w.start(&info.program, exists);
            for (special, slot) in &info.program.specials {
                let row = &mut w.regs.rows_mut()[*slot as usize].0;
                for l in 0..LANES {
                    row[l] = special_value(*special, b, first, l as u32);
                }
            }
        }
        self.turns.fill(Turn::Paused);
        let count = self.warps.len();
        for (k, slot) in self.order.iter_mut().enumerate() {
            *slot = if info.seed == 1 { count - 1 - k } else { k };
        }
    }

    /// One turn for every warp that can run.
    fn round<const COUNT: bool>(&mut self) -> Step {
        let info = self.block.launch.clone();
        let before = self.block.progress;
        if info.seed > 1 {
            for k in (1..self.order.len()).rev() {
                let j = (self.random.next() % (k as u64 + 1)) as usize;
                self.order.swap(k, j);
            }
        }
        let mut ran = false;
        for k in 0..self.order.len() {
            let number = self.order[k];
            if self.turns[number] != Turn::Paused {
                continue;
            }
            ran = true;
            let fuel = if info.seed > 1 { 1 + (self.random.next() % FUEL as u64) as u32 } else { FUEL };
            let turn = run::<COUNT>(&mut self.warps[number], &mut self.block, &info.program.code, fuel);
            self.turns[number] = turn;
            match turn {
                Turn::Paused => {}
                Turn::Waiting | Turn::Done => {
                    self.complete_barriers();
                    if let Some(stop) = self.block.stop.take() {
                        return Step::Stopped(stop);
                    }
                }
                Turn::Stopped => {
                    if let Some(stop) = self.block.stop.take() {
                        return Step::Stopped(stop);
                    }
                }
            }
        }
        if !ran {
            if self.turns.iter().all(|turn| *turn == Turn::Done) {
                return Step::Done;
            }
            return Step::Stopped(self.deadlock());
        }
        self.idle = if self.block.progress == before { self.idle + 1 } else { 0 };
        Step::Going
    }

    /// Releases who waits in barriers that are complete.
    fn complete_barriers(&mut self) {
        for id in 0..16 {
            let barrier = self.block.barriers[id];
            if !barrier.used {
                continue;
            }
            let complete = match barrier.expected {
                Some(count) => barrier.arrived >= count,
                None => self.warps.iter().all(|w| w.alive & !w.barrier_lanes[id] == 0),
            };
            if !complete {
                continue;
            }
            if self.block.shadow.is_some() && barrier.expected.is_none() {
                self.refuse_exits(id);
            }
            for (w, turn) in self.warps.iter_mut().zip(&mut self.turns) {
                (w.arrived[id], w.arrived_count[id]) = (0, 0);
                let waited = w.barrier_lanes[id];
                if waited == 0 {
                    continue;
                }
                deliver(w, &barrier, waited);
                if let Some(shadow) = &self.block.shadow {
                    w.clock.acquire(&shadow.joins[id], waited, w.alive);
                }
                w.barrier_lanes[id] = 0;
                w.barred &= !waited;
                w.spins = 0;
                if *turn == Turn::Waiting {
                    *turn = Turn::Paused;
                }
            }
            self.block.barriers[id] = Barrier::default();
            if let Some(shadow) = &mut self.block.shadow {
                shadow.joins[id] = Default::default();
            }
            self.block.progress += 1;
        }
    }

    /// A barrier without a count is for all threads of the block: those that have exited cannot come.
    fn refuse_exits(&mut self, id: usize) {
        let Some(gone) = self.warps.iter().find(|w| w.alive != w.existing) else { return };
        let Some(waits) = self.warps.iter().find(|w| w.barrier_lanes[id] != 0) else { return };
        check::report::early_exit(waits, gone, &mut self.block, waits.barrier_lanes[id]);
    }

    #[cold]
    fn deadlock(&self) -> Stop {
        self.standstill(StopKind::Deadlock, "deadlock: every warp waits for one that never comes")
    }

    #[cold]
    fn standstill(&self, kind: StopKind, text: &str) -> Stop {
        let mut stop = Stop::launch(&self.block.launch.program.name, text.into());
        stop.details.kind = kind;
        stop.details.block = Some(self.block.ctaid);
        for (id, barrier) in self.block.barriers.iter().enumerate().filter(|(_, barrier)| barrier.used) {
            stop.details.notes.push(match barrier.expected {
                Some(count) => format!("barrier {id}: {} of {count} threads have arrived", barrier.arrived),
                None => format!("barrier {id}: {} threads have arrived, all are wanted", barrier.arrived),
            });
        }
        for w in &self.warps {
            stop.details.notes.extend(w.whereabouts(&self.block));
        }
        stop
    }
}

fn special_value(special: Special, b: &Block, first: u32, lane: u32) -> u32 {
    let dims = b.launch.dims;
    let [x, y, _] = dims.block;
    let thread = first + lane;
    let below = ((1u64 << lane) - 1) as u32;
    match special {
        Special::Tid(0) => thread % x,
        Special::Tid(1) => thread / x % y,
        Special::Tid(_) => thread / (x * y),
        Special::Ntid(axis) => dims.block[axis],
        Special::Ctaid(axis) => b.ctaid[axis],
        Special::Nctaid(axis) => dims.grid[axis],
        Special::Laneid => lane,
        Special::Warpid => first / 32,
        Special::Nwarpid => (dims.threads() as u32).div_ceil(32),
        Special::Smid => 0,
        Special::Nsmid => b.launch.arch.sm_count(),
        Special::Gridid | Special::Zero => 0,
        Special::One => 1,
        Special::LanemaskEq => 1 << lane,
        Special::LanemaskLt => below,
        Special::LanemaskLe => below | 1 << lane,
        Special::LanemaskGt => !(below | 1 << lane),
        Special::LanemaskGe => !below,
        Special::DynamicSharedBytes => dims.shared_bytes,
        Special::TotalSharedBytes => b.shared.len() as u32,
    }
}

/// The number of the block that is `index`-th in the seed's order.
fn block_number(index: u64, count: u64, seed: u64) -> u64 {
    match seed {
        0 => index,
        1 => count - 1 - index,
        _ => {
            // A step that has no divisor in common with the count visits every block once.
            let mut random = Random(seed);
            let start = random.next() % count;
            let mut step = (random.next() % count) | 1;
            while gcd(step, count) != 1 {
                step += 2;
            }
            ((start as u128 + step as u128 * index as u128) % count as u128) as u64
        }
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Shared by the host threads of a launch.
struct Shared {
    next: AtomicU64,
    /// Position of the earliest block that stopped: later ones need not start.
    stopped: AtomicU64,
    stop: Mutex<Option<(u64, Stop)>>,
    totals: Mutex<Totals>,
    abandon: AtomicBool,
}

/// Runs every block of a launch.
pub(crate) fn launch(
    info: Arc<LaunchInfo>,
    params: &[u8],
    threads: usize,
    counters: bool,
) -> Result<Totals, Stop> {
    let count = info.dims.blocks();
    let threads = if info.program.ordered { 1 } else { threads.min(count as usize).max(1) };
    let shared = Shared {
        next: AtomicU64::new(0),
        stopped: AtomicU64::new(u64::MAX),
        stop: Mutex::new(None),
        totals: Mutex::new(Totals::default()),
        abandon: AtomicBool::new(false),
    };
    let work = || match counters {
        true => worker::<true>(&info, params, &shared),
        false => worker::<false>(&info, params, &shared),
    };
    if threads == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    let stop = shared.stop.into_inner().unwrap_or_else(|poison| poison.into_inner());
    match stop {
        Some((_, stop)) => Err(stop),
        None => Ok(shared.totals.into_inner().unwrap_or_else(|poison| poison.into_inner())),
    }
}

fn worker<const COUNT: bool>(info: &Arc<LaunchInfo>, params: &[u8], shared: &Shared) {
    let count = info.dims.blocks();
    let mut going: Vec<Resident> = Vec::new();
    let mut spare: Vec<Resident> = Vec::new();
    let mut totals = Totals::default();
    let merged = |resident: &Resident, totals: &mut Totals| {
        totals.warp_instructions += resident.warps.iter().map(|w| w.steps).sum::<u64>();
    };
    while !shared.abandon.load(Ordering::Relaxed) {
        // A block waits for another one, perhaps one that has not begun: begin it.
        if going.is_empty() || (going.len() < RESIDENT && going.iter().all(|r| r.idle >= STALLED)) {
            let index = shared.next.fetch_add(1, Ordering::Relaxed);
            if index < count && index < shared.stopped.load(Ordering::Relaxed) {
                let mut resident = spare.pop().unwrap_or_else(|| Resident::new(info, params, COUNT));
                resident.start(index, block_number(index, count, info.seed));
                going.push(resident);
            } else if going.is_empty() {
                break;
            }
        }
        let mut k = 0;
        while k < going.len() {
            let resident = &mut going[k];
            // A block that is alone need not look left and right after every round.
            let step = loop {
                match resident.round::<COUNT>() {
                    Step::Going if resident.idle < STALLED => {}
                    step => break step,
                }
            };
            match step {
                Step::Going => {
                    if resident.idle > info.patience {
                        let text = "the warps spin and nothing happens any more";
                        let stop = resident.standstill(StopKind::Hang, text);
                        record(shared, resident.index, stop);
                        let gone = going.swap_remove(k);
                        merged(&gone, &mut totals);
                        continue;
                    }
                    k += 1;
                }
                Step::Done => {
                    let done = going.swap_remove(k);
                    merged(&done, &mut totals);
                    spare.push(done);
                    // The others may have waited for this one.
                    going.iter_mut().for_each(|r| r.idle = 0);
                }
                Step::Stopped(stop) => {
                    record(shared, resident.index, stop);
                    going.swap_remove(k);
                }
            }
        }
    }
    let mut sum = shared.totals.lock().unwrap_or_else(|poison| poison.into_inner());
    sum.warp_instructions += totals.warp_instructions;
    if COUNT {
        for resident in spare.iter().chain(&going) {
            sum.tally.merge(&resident.block.tally);
        }
    }
}

/// Keeps the stop of the earliest block, so that it does not depend on which host thread was faster.
fn record(shared: &Shared, index: u64, stop: Stop) {
    shared.stopped.fetch_min(index, Ordering::Relaxed);
    let mut slot = shared.stop.lock().unwrap_or_else(|poison| poison.into_inner());
    if slot.as_ref().is_none_or(|(earlier, _)| index < *earlier) {
        *slot = Some((index, stop));
    }
}
