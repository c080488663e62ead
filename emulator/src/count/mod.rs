//! Counters: what every instruction of a launch asked of memory.
//!
//! The choke points of [`crate::exec::mem`] call in here when a launch counts; [`banks`] and [`sectors`] are the
//! models, [`class`] sorts instructions, and [`crate::report`] is what users see.

pub(crate) mod banks;
pub(crate) mod class;
pub(crate) mod sectors;

use crate::block::LaunchInfo;
use crate::exec::mem::{Access, Kind, lanes};
use crate::regs::LANES;
use crate::report::Counts;
use sectors::{Touched, distinct};

/// Bytes of a sector: what device memory and its caches hand out at least.
pub(crate) const SECTOR_BYTES: u64 = 32;

/// What one host thread has counted, indexed as the program's code; empty when counters are off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub lines: Vec<Counts>,
}

impl Tally {
    pub fn new(instructions: usize) -> Tally {
        Tally { lines: vec![Counts::default(); instructions] }
    }

    pub fn merge(&mut self, other: &Tally) {
        self.lines.resize(other.lines.len().max(self.lines.len()), Counts::default());
        for (sum, part) in self.lines.iter_mut().zip(&other.lines) {
            *sum += *part;
        }
    }
}

/// A warp's request to shared memory.
pub(crate) fn shared(tally: &mut Tally, pc: u32, access: &Access<'_>) {
    let Some(line) = tally.lines.get_mut(pc as usize) else { return };
    // Lanes that change the same word take turns; those that read or overwrite it do not.
    let one_by_one = access.kind == Kind::Atomic;
    let (wavefronts, ideal) = banks::wavefronts(access.addresses, access.mask, access.bytes, one_by_one);
    line.shared_requests += 1;
    line.shared_bytes += u64::from(access.mask.count_ones() * access.bytes);
    line.wavefronts += u64::from(wavefronts);
    line.ideal_wavefronts += u64::from(ideal);
}

/// A warp's request to global memory, of as many bytes for each lane.
pub(crate) fn global(tally: &mut Tally, launch: &LaunchInfo, pc: u32, access: &Access<'_>) {
    let bytes = u64::from(access.bytes);
    let wanted = u64::from(distinct(access.addresses, access.mask, access.bytes.trailing_zeros())) * bytes;
    let lane_bytes = u64::from(access.mask.count_ones()) * bytes;
    request(tally, launch, pc, access, lane_bytes, wanted);
}

/// A warp's request to global memory that reads `sizes` bytes, at most `access.bytes` and not zero for any lane.
pub(crate) fn global_parts(
    tally: &mut Tally,
    launch: &LaunchInfo,
    pc: u32,
    access: &Access<'_>,
    sizes: &[u32; LANES],
) {
    let mut parts: Vec<(u64, u32)> = lanes(access.mask).map(|l| (access.addresses[l], sizes[l])).collect();
    let lane_bytes = parts.iter().map(|part| u64::from(part.1)).sum();
    // Of lanes that read from one address, the longest.
    parts.sort_unstable_by(|a, b| b.cmp(a));
    parts.dedup_by_key(|part| part.0);
    let wanted = parts.iter().map(|part| u64::from(part.1)).sum();
    request(tally, launch, pc, access, lane_bytes, wanted);
}

/// `wanted`: distinct bytes.
fn request(
    tally: &mut Tally,
    launch: &LaunchInfo,
    pc: u32,
    access: &Access<'_>,
    lane_bytes: u64,
    wanted: u64,
) {
    let Some(line) = tally.lines.get_mut(pc as usize) else { return };
    line.global_requests += 1;
    line.global_bytes += lane_bytes;
    // Accesses are aligned to their size, so that each lane's lies in one sector.
    line.sectors += u64::from(distinct(access.addresses, access.mask, SECTOR_BYTES.trailing_zeros()));
    line.ideal_sectors += wanted.div_ceil(SECTOR_BYTES);
    if let Some(touched) = &launch.touched {
        touch(touched, launch, access);
    }
}

fn touch(touched: &Touched, launch: &LaunchInfo, access: &Access<'_>) {
    let mut left = access.mask;
    while left != 0 {
        let first = access.addresses[left.trailing_zeros() as usize];
        let Some(owner) = launch.memory.owner(first) else { return };
        let here = lanes(left)
            .filter(|l| access.addresses[*l].wrapping_sub(owner.base) < owner.len)
            .fold(0u32, |mask, l| mask | 1 << l);
        // Constants are read through a cache of their own.
        if !owner.read_only {
            let number = launch.memory.index(first);
            touched.mark(number, owner, access.addresses, here, access.kind);
        }
        // The first lane's access was inside its allocation, so that this ends.
        left &= !here & (left - 1);
    }
}
