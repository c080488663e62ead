//! How many blocks fit a multiprocessor: the calculator of the CUDA toolkit, as pure functions.

use crate::profile::{MAX_BLOCK_THREADS, Profile, REGISTERS, SHARED_RESERVED, WARP};

/// Registers are given to a warp in units of 256, that is, 8 a thread.
const REGISTER_UNIT: u32 = 8;
/// Shared memory is given to a block in units of 128 bytes since sm_80.
const SHARED_UNIT: u32 = 128;
/// The most registers that a thread can have.
const MAX_THREAD_REGISTERS: u32 = 255;

/// What a block of a kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    pub threads: u32,
    pub registers: u32,
    pub shared_bytes: u32,
}

/// Blocks of this kind that one multiprocessor holds at a time.
pub fn blocks(profile: &Profile, needs: Needs) -> u32 {
    let warps = needs.threads.div_ceil(WARP).max(1);
    let by_threads = profile.arch.threads_per_sm() / WARP / warps;
    let registers = needs.registers.next_multiple_of(REGISTER_UNIT).max(REGISTER_UNIT) * WARP;
    let by_registers = REGISTERS / registers / warps;
    let shared = needs.shared_bytes.next_multiple_of(SHARED_UNIT) + SHARED_RESERVED;
    let by_shared = profile.arch.shared_per_sm() / shared;
    profile.arch.blocks_per_sm().min(by_threads).min(by_registers).min(by_shared)
}

/// The registers a thread can have at most in a kernel that is launched with up to `max_threads` threads, of which a
/// multiprocessor is to hold `min_blocks`.
///
/// PTX names no register count: it has as many virtual registers as it likes, and only ptxas knows how many real ones
/// they need. This bound is what launch bounds leave to ptxas, so an occupancy computed from it is a lower bound.
pub fn most_registers(max_threads: u32, min_blocks: u32) -> u32 {
    let threads = max_threads.clamp(1, MAX_BLOCK_THREADS).next_multiple_of(WARP) * min_blocks.clamp(1, 32);
    let fair = REGISTERS / threads / REGISTER_UNIT * REGISTER_UNIT;
    fair.clamp(REGISTER_UNIT, MAX_THREAD_REGISTERS)
}

/// The block size, a multiple of a warp and at most `limit` threads, that keeps most threads resident, with the blocks
/// a multiprocessor then holds. Of equal ones the largest.
pub fn best_block(profile: &Profile, limit: u32, needs: impl Fn(u32) -> Needs) -> Option<(u32, u32)> {
    let mut best = None;
    let mut most = 0;
    let mut size = limit.min(MAX_BLOCK_THREADS);
    while size > 0 {
        let held = blocks(profile, needs(size));
        if held * size > most {
            most = held * size;
            best = Some((size, held));
        }
        size = (size - 1) / WARP * WARP;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptx_emulator::Arch;

    fn needs(threads: u32, registers: u32, shared_bytes: u32) -> Needs {
        Needs { threads, registers, shared_bytes }
    }

    /// Figures of NVIDIA's occupancy spreadsheet.
    #[test]
    fn each_limit_binds() {
        let a100 = Profile::of(Arch::Sm80);
        assert_eq!(blocks(&a100, needs(32, 16, 0)), 32, "blocks");
        assert_eq!(blocks(&a100, needs(1024, 32, 0)), 2, "threads");
        assert_eq!(blocks(&a100, needs(256, 128, 0)), 2, "registers");
        assert_eq!(blocks(&a100, needs(128, 32, 48 << 10)), 3, "shared memory");
        assert_eq!(blocks(&a100, needs(128, 32, 163 << 10)), 1, "the most shared memory");
        assert_eq!(
            blocks(&Profile::of(Arch::Sm86), needs(1024, 32, 0)),
            1,
            "1536 threads hold one such block"
        );
    }

    #[test]
    fn launch_bounds_leave_so_many_registers() {
        assert_eq!(most_registers(1024, 1), 64);
        assert_eq!(most_registers(512, 1), 128);
        assert_eq!(most_registers(128, 1), 255);
        assert_eq!(most_registers(128, 4), 128);
    }

    #[test]
    fn the_best_block_fills_the_multiprocessor() {
        let a100 = Profile::of(Arch::Sm80);
        assert_eq!(best_block(&a100, 1024, |t| needs(t, 32, 0)), Some((1024, 2)));
        assert_eq!(best_block(&Profile::of(Arch::Sm86), 1024, |t| needs(t, 32, 0)), Some((768, 2)));
        assert_eq!(
            best_block(&a100, 100, |t| needs(t, 32, 0)),
            Some((64, 32)),
            "100 threads waste a warp's rest"
        );
        assert_eq!(best_block(&a100, 1024, |t| needs(t, 32, 512 << 10)), None);
    }
}
