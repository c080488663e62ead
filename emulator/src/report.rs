//! What a finished launch reports.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use crate::count::SECTOR_BYTES;
pub use crate::count::class::Class;

/// What an instruction did in a launch, or several instructions together.
///
/// Memory is counted by requests: one instruction of one warp that accesses global or shared memory with at least one lane,
/// be it a load, a store, an atomic, a matrix load or a `cp.async`. Generic accesses count for the memory that they reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// Times a warp executed it, be it with all guards false.
    pub executions: u64,
    /// Lanes that executed it with a true guard, summed over the executions.
    pub lanes: u64,
    /// Requests to global memory.
    pub global_requests: u64,
    /// Bytes that the lanes asked of global memory.
    pub global_bytes: u64,
    /// Sectors (32 bytes) that the requests touched: different ones within a request, summed over the requests.
    pub sectors: u64,
    /// Sectors that could hold the different bytes of each request: what `sectors` is when the lanes' bytes lie together.
    pub ideal_sectors: u64,
    /// Requests to shared memory.
    pub shared_requests: u64,
    /// Bytes that the lanes asked of shared memory.
    pub shared_bytes: u64,
    /// Turns that shared memory took: in each, every one of its 32 banks serves one word.
    pub wavefronts: u64,
    /// Turns without bank conflicts: 1 for a request of up to 4 bytes per lane, 2 for 8 bytes, 4 for 16, and 1 for each
    /// matrix of `ldmatrix`; less where lanes are missing.
    pub ideal_wavefronts: u64,
    /// Floating-point operations of tensor cores, a multiply-add counting two.
    pub tensor_flops: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.executions += other.executions;
        self.lanes += other.lanes;
        self.global_requests += other.global_requests;
        self.global_bytes += other.global_bytes;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
        self.shared_requests += other.shared_requests;
        self.shared_bytes += other.shared_bytes;
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
        self.tensor_flops += other.tensor_flops;
    }
}

impl Add for Counts {
    type Output = Counts;

    fn add(mut self, other: Counts) -> Counts {
        self += other;
        self
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(all: I) -> Counts {
        all.fold(Counts::default(), Add::add)
    }
}

impl Counts {
    /// The fields that concern memory and tensor cores, by name.
    pub(crate) fn fields(&self) -> [(&'static str, u64); 11] {
        [
            ("executions", self.executions),
            ("lanes", self.lanes),
            ("global_requests", self.global_requests),
            ("global_bytes", self.global_bytes),
            ("sectors", self.sectors),
            ("ideal_sectors", self.ideal_sectors),
            ("shared_requests", self.shared_requests),
            ("shared_bytes", self.shared_bytes),
            ("wavefronts", self.wavefronts),
            ("ideal_wavefronts", self.ideal_wavefronts),
            ("tensor_flops", self.tensor_flops),
        ]
    }
}

/// What one line of PTX did in a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// Source file and line, where the PTX has line information.
    pub source: Option<(String, u32)>,
    /// The instruction.
    pub instruction: String,
    /// Its kind.
    pub class: Class,
    /// What it did.
    pub counts: Counts,
}

/// What a launch touched of one allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Buffer {
    /// Address of the allocation.
    pub address: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Different sectors (32 bytes) that the launch read, by atomics too.
    pub read_sectors: u64,
    /// Different sectors that it wrote, by atomics too.
    pub written_sectors: u64,
}

impl Buffer {
    /// Bytes of the different sectors that were read.
    pub fn read_bytes(&self) -> u64 {
        self.read_sectors * SECTOR_BYTES
    }

    /// Bytes of the different sectors that were written.
    pub fn written_bytes(&self) -> u64 {
        self.written_sectors * SECTOR_BYTES
    }
}

/// What a launch did. All but the first three fields stay empty unless
/// [`Config::counters`](crate::Config::counters) is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Name of the kernel.
    pub kernel: String,
    /// Blocks that ran.
    pub blocks: u64,
    /// Instructions executed, counted once per warp.
    pub warp_instructions: u64,
    /// One entry per instruction, in the order of the text.
    pub lines: Vec<Line>,
    /// One entry per allocation of global memory that was touched, in the order of addresses.
    pub buffers: Vec<Buffer>,
}

impl Report {
    /// The counts of all instructions together.
    pub fn totals(&self) -> Counts {
        self.lines.iter().map(|line| line.counts).sum()
    }

    /// The counts by kind of instruction; kinds that were not executed are left out.
    pub fn mix(&self) -> Vec<(Class, Counts)> {
        let of = |class| self.lines.iter().filter(|line| line.class == class).map(|line| line.counts).sum();
        let all = Class::ALL.map(|class| (class, of(class)));
        all.into_iter().filter(|(_, counts): &(Class, Counts)| counts.executions != 0).collect()
    }

    /// The counts by line of the source, where the PTX has line information, in the order of files and lines.
    pub fn by_source(&self) -> Vec<(&str, u32, Counts)> {
        let mut all = std::collections::BTreeMap::<(&str, u32), Counts>::new();
        for line in &self.lines {
            if let Some((file, number)) = &line.source {
                *all.entry((file, *number)).or_default() += line.counts;
            }
        }
        all.into_iter().map(|((file, line), counts)| (file, line, counts)).collect()
    }

    /// Bytes of the different sectors that were read: what has to come from device memory at least once.
    pub fn read_bytes(&self) -> u64 {
        self.buffers.iter().map(Buffer::read_bytes).sum()
    }

    /// Bytes of the different sectors that were written.
    pub fn written_bytes(&self) -> u64 {
        self.buffers.iter().map(Buffer::written_bytes).sum()
    }

    /// Bytes of all requested sectors, with repetition: what the second-level cache hands out.
    pub fn requested_bytes(&self) -> u64 {
        self.totals().sectors * SECTOR_BYTES
    }

    /// All of it as one JSON object.
    pub fn to_json(&self) -> String {
        crate::json::of(self)
    }
}
