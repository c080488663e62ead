//! What an emulated device says of itself: the limits that programs plan with, and the attributes of the driver API.
//!
//! The numbers are those of one part of each class: A100 (sm_80), RTX A6000 (sm_86), H100 SXM (sm_90). Where the
//! look-alike cannot do what the part can (managed memory, mapped host memory, cooperative launches, clusters), it says
//! so, and a program that asks first is not misled.

use ptx_emulator::Arch;

/// Threads of a block, in total and along x and y.
pub const MAX_BLOCK_THREADS: u32 = 1024;
/// Threads of a block along x, y, z.
pub const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Blocks of a grid along x, y, z.
pub const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];
/// Shared memory of a block without an opt-in; also the most that may be static.
pub const SHARED_PER_BLOCK: u32 = 48 << 10;
/// Shared memory that the system keeps from every block since sm_80.
pub const SHARED_RESERVED: u32 = 1 << 10;
/// Threads of a warp.
pub const WARP: u32 = 32;
/// Registers of a multiprocessor, and of a block.
pub const REGISTERS: u32 = 64 << 10;

/// How the name of every emulated device begins, and that of no real one.
pub const DEVICE_NAME: &str = "PTX emulator";

/// A device's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub arch: Arch,
    clock_khz: u32,
    memory_clock_khz: u32,
    memory_bus_bits: u32,
    f64_ratio: u32,
    async_engines: u32,
}

impl Profile {
    /// The profile of an architecture.
    pub const fn of(arch: Arch) -> Profile {
        match arch {
            Arch::Sm80 => Profile {
                arch,
                clock_khz: 1_410_000,
                memory_clock_khz: 1_215_000,
                memory_bus_bits: 5120,
                f64_ratio: 2,
                async_engines: 3,
            },
            Arch::Sm86 => Profile {
                arch,
                clock_khz: 1_800_000,
                memory_clock_khz: 8_001_000,
                memory_bus_bits: 384,
                f64_ratio: 32,
                async_engines: 2,
            },
            Arch::Sm90 => Profile {
                arch,
                clock_khz: 1_980_000,
                memory_clock_khz: 2_619_000,
                memory_bus_bits: 5120,
                f64_ratio: 2,
                async_engines: 3,
            },
        }
    }

    /// Shared memory that a block may have after an opt-in.
    pub fn shared_optin(&self) -> u32 {
        self.arch.shared_per_block_optin()
    }

    /// The name that `cuDeviceGetName` gives.
    pub fn name(&self) -> String {
        format!("{DEVICE_NAME} ({})", self.arch.name())
    }

    /// The value of `CUdevice_attribute` number `attribute` for the `ordinal`-th device; `None` if CUDA 11.8 has no
    /// such attribute. Texture and surface sizes are 0: there are none.
    pub fn attribute(&self, attribute: u32, ordinal: u32) -> Option<i32> {
        let (major, minor) = self.arch.capability();
        let value = match attribute {
            1 => MAX_BLOCK_THREADS,
            2..=4 => MAX_BLOCK[attribute as usize - 2],
            5..=7 => MAX_GRID[attribute as usize - 5],
            8 => SHARED_PER_BLOCK,
            9 => 64 << 10,         // TOTAL_CONSTANT_MEMORY
            10 => WARP,            // WARP_SIZE
            11 => i32::MAX as u32, // MAX_PITCH
            12 => REGISTERS,       // MAX_REGISTERS_PER_BLOCK
            13 => self.clock_khz,  // CLOCK_RATE
            14 | 30 => 512,        // TEXTURE_ALIGNMENT, SURFACE_ALIGNMENT
            16 => self.arch.sm_count(),
            31 => 1,           // CONCURRENT_KERNELS
            32 => 1,           // ECC_ENABLED
            33 => ordinal + 1, // PCI_BUS_ID
            36 => self.memory_clock_khz,
            37 => self.memory_bus_bits,
            38 => self.arch.l2_bytes(),
            39 => self.arch.threads_per_sm(),
            40 => self.async_engines,
            41 => 1,  // UNIFIED_ADDRESSING
            51 => 32, // TEXTURE_PITCH_ALIGNMENT
            75 => major,
            76 => minor,
            78 => 1,      // STREAM_PRIORITIES_SUPPORTED
            79 | 80 => 1, // GLOBAL_ and LOCAL_L1_CACHE_SUPPORTED
            81 => self.arch.shared_per_sm(),
            82 => REGISTERS, // MAX_REGISTERS_PER_MULTIPROCESSOR
            85 => ordinal,   // MULTI_GPU_BOARD_GROUP_ID
            87 => self.f64_ratio,
            90 => 1, // COMPUTE_PREEMPTION_SUPPORTED
            97 => self.shared_optin(),
            99 => 1, // HOST_REGISTER_SUPPORTED
            106 => self.arch.blocks_per_sm(),
            111 => SHARED_RESERVED,
            115 => 1, // MEMORY_POOLS_SUPPORTED
            15 => 1,  // GPU_OVERLAP
            17..=29 | 34 | 35 | 42..=50 | 52..=74 | 77 => 0,
            83 | 84 | 86 | 88 | 89 | 91..=96 | 98 | 100..=105 | 107..=110 | 112..=114 | 116..=124 => 0,
            _ => return None,
        };
        i32::try_from(value).ok()
    }
}

/// `CUuuid` of the `ordinal`-th device.
pub fn uuid(arch: Arch, ordinal: u32) -> [u8; 16] {
    let mut id = *b"ptx-emulator\0\0\0\0";
    let (major, minor) = arch.capability();
    id[13] = major as u8;
    id[14] = minor as u8;
    id[15] = ordinal as u8;
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_classes_of_shared_memory() {
        let optin = [Arch::Sm80, Arch::Sm86, Arch::Sm90].map(|a| Profile::of(a).attribute(97, 0));
        assert_eq!(optin, [Some(163 << 10), Some(99 << 10), Some(227 << 10)]);
    }

    #[test]
    fn every_attribute_of_cuda_11_8_is_known_and_no_other() {
        let profile = Profile::of(Arch::Sm80);
        assert!((1..=124).all(|a| profile.attribute(a, 0).is_some()));
        assert_eq!(profile.attribute(0, 0), None);
        assert_eq!(profile.attribute(125, 0), None);
    }

    #[test]
    fn a_block_fits_its_multiprocessor() {
        for arch in [Arch::Sm80, Arch::Sm86, Arch::Sm90] {
            let p = Profile::of(arch);
            assert!(p.shared_optin() + SHARED_RESERVED <= p.arch.shared_per_sm(), "{arch:?}");
        }
    }
}
