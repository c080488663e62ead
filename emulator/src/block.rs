//! The state of one thread block.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::check::shared::Shadow;
use crate::config::{Arch, Dims, TensorMode};
use crate::count::Tally;
use crate::count::sectors::Touched;
use crate::error::{Details, Stop, StopKind};
use crate::memory::Table;
use crate::program::Program;
use crate::warp::Warp;

/// Shared memory that the system keeps for itself: a block's own begins behind it, so that address 0 is invalid.
pub(crate) const SHARED_BASE: u32 = 1024;

/// Bytes with the alignment that shared memory and parameters need.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
struct Chunk([u8; 128]);

/// Bytes aligned to 128, not growing.
pub(crate) struct Bytes {
    chunks: Box<[Chunk]>,
    len: usize,
}

impl Bytes {
    pub fn new(len: usize, fill: u8) -> Bytes {
        Bytes { chunks: vec![Chunk([fill; 128]); len.div_ceil(128)].into_boxed_slice(), len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.chunks.as_mut_ptr().cast()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: the chunks hold at least `len` initialised bytes.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}

/// What is the same for all blocks of a launch.
pub(crate) struct LaunchInfo {
    pub program: Arc<Program>,
    pub memory: Arc<Table>,
    pub dims: Dims,
    pub arch: Arch,
    pub tensor: TensorMode,
    pub seed: u64,
    pub patience: u64,
    /// Number of the launch among those with checks, 0 without.
    pub number: u64,
    /// For each block: whether it synchronised with others through memory; empty if the kernel cannot.
    pub communicates: Box<[AtomicBool]>,
    /// Sectors of global memory that were touched; when counters are on.
    pub touched: Option<Touched>,
}

/// A block-wide barrier's arrivals since it last completed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Barrier {
    /// Threads that have arrived (a whole warp counts 32).
    pub arrived: u32,
    /// Threads that complete it; `None` means all living threads of the block.
    pub expected: Option<u32>,
    /// Whether anything has arrived.
    pub used: bool,
    /// `bar.red`: how many arrived lanes had the predicate true, and how many lanes arrived.
    pub trues: u32,
    pub lanes: u32,
}

/// One thread block while it runs. Only one host thread touches it.
pub(crate) struct Block {
    /// The launch.
    pub launch: Arc<LaunchInfo>,
    /// Position in the grid.
    pub ctaid: [u32; 3],
    /// Shared memory; byte 0 has the shared address [`SHARED_BASE`].
    pub shared: Bytes,
    /// The kernel's parameters.
    pub params: Bytes,
    /// Named barriers.
    pub barriers: [Barrier; 16],
    /// Who accessed which byte of shared memory; when checks are on.
    pub shadow: Option<Box<Shadow>>,
    /// Why the launch must stop.
    pub stop: Option<Stop>,
    /// Grows with every store, atomic that changed something, completed barrier and exit.
    pub progress: u64,
    /// What `%clock` returns next.
    pub clock: u64,
    /// What was counted per instruction, when counters are on.
    pub tally: Tally,
}

impl Block {
    /// Records why the launch must stop; the interpreter sees it after the instruction. The first one stays.
    #[cold]
    #[inline(never)]
    pub fn fault(&mut self, warp: &Warp, lane: Option<u32>, kind: StopKind, text: String) {
        if self.stop.is_some() {
            return;
        }
        let stop = self.describe(warp.id, lane, warp.pc, kind, text);
        self.stop = Some(stop);
    }

    /// A stop at instruction `pc`.
    pub fn describe(&self, warp: u32, lane: Option<u32>, pc: u32, kind: StopKind, text: String) -> Stop {
        let program = &self.launch.program;
        let place = program.places.get(pc as usize).copied().unwrap_or_default();
        let details = Details {
            kind,
            kernel: program.name.clone(),
            block: Some(self.ctaid),
            thread: lane.map(|lane| self.thread(warp, lane)),
            line: place.line,
            source: program.source(place),
            instruction: program.spellings.get(pc as usize).map(|s| s.to_string()).unwrap_or_default(),
            text,
            verb: "",
            other: None,
            notes: Vec::new(),
        };
        Stop { details: Box::new(details) }
    }

    /// The index of a lane's thread in the block.
    pub fn thread(&self, warp: u32, lane: u32) -> [u32; 3] {
        let [x, y, _] = self.launch.dims.block;
        let flat = warp * 32 + lane;
        [flat % x, flat / x % y, flat / (x * y)]
    }
}
