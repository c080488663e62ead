//! What a machine pretends to be, and how it runs.

/// The device whose limits and instruction set a [`Machine`](crate::Machine) has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Arch {
    /// Compute capability 8.0 (A100).
    #[default]
    Sm80,
    /// Compute capability 8.6 (GeForce RTX 30).
    Sm86,
    /// Compute capability 9.0 (H100).
    Sm90,
}

impl Arch {
    /// Every architecture that can be emulated.
    pub const ALL: [Arch; 3] = [Arch::Sm80, Arch::Sm86, Arch::Sm90];

    /// Compute capability, major and minor.
    pub const fn capability(self) -> (u32, u32) {
        match self {
            Arch::Sm80 => (8, 0),
            Arch::Sm86 => (8, 6),
            Arch::Sm90 => (9, 0),
        }
    }

    /// The name that PTX's `.target` uses, for instance `sm_80`.
    pub const fn name(self) -> &'static str {
        match self {
            Arch::Sm80 => "sm_80",
            Arch::Sm86 => "sm_86",
            Arch::Sm90 => "sm_90",
        }
    }

    /// Number of multiprocessors of the device's usual form.
    pub const fn sm_count(self) -> u32 {
        match self {
            Arch::Sm80 => 108,
            Arch::Sm86 => 84,
            Arch::Sm90 => 132,
        }
    }

    /// Largest shared memory of a block after opting in, in bytes (163, 99 and 227 KiB).
    pub const fn shared_per_block_optin(self) -> u32 {
        match self {
            Arch::Sm80 => 163 * 1024,
            Arch::Sm86 => 99 * 1024,
            Arch::Sm90 => 227 * 1024,
        }
    }

    /// Shared memory of one multiprocessor, in bytes.
    pub const fn shared_per_sm(self) -> u32 {
        match self {
            Arch::Sm80 => 164 * 1024,
            Arch::Sm86 => 100 * 1024,
            Arch::Sm90 => 228 * 1024,
        }
    }

    /// Shared memory of a block without opting in, in bytes.
    pub const fn shared_per_block(self) -> u32 {
        48 * 1024
    }

    /// Largest number of threads resident on one multiprocessor.
    pub const fn threads_per_sm(self) -> u32 {
        match self {
            Arch::Sm86 => 1536,
            Arch::Sm80 | Arch::Sm90 => 2048,
        }
    }

    /// Largest number of blocks resident on one multiprocessor.
    pub const fn blocks_per_sm(self) -> u32 {
        match self {
            Arch::Sm86 => 16,
            Arch::Sm80 | Arch::Sm90 => 32,
        }
    }

    /// 32-bit registers of one multiprocessor.
    pub const fn registers_per_sm(self) -> u32 {
        65536
    }

    /// Largest number of threads in a block.
    pub const fn threads_per_block(self) -> u32 {
        1024
    }

    /// Size of the second-level cache, in bytes.
    pub const fn l2_bytes(self) -> u32 {
        match self {
            Arch::Sm80 => 40 << 20,
            Arch::Sm86 => 6 << 20,
            Arch::Sm90 => 50 << 20,
        }
    }
}

/// How the tensor-core instructions round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TensorMode {
    /// The sum is formed in f64 and rounded once: better than any hardware.
    #[default]
    Exact,
    /// Bit for bit as recorded on A100: groups of 8 (tf32: 4), one extra bit, truncation.
    Sm80,
    /// Bit for bit as recorded on H100: groups of 16 (tf32: 8), two extra bits, truncation.
    Sm90,
}

/// Settings of a machine or of one launch.
///
/// ```
/// use ptx_emulator::{Arch, Config};
/// let config = Config::default().arch(Arch::Sm90).seed(1).threads(2);
/// assert_eq!(config.arch.capability(), (9, 0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The device to be.
    pub arch: Arch,
    /// How tensor-core instructions round.
    pub tensor: TensorMode,
    /// Chooses the order in which warps and blocks run: 0 is forward, 1 is reverse, every other seed shuffles
    /// the warps anew each round and varies how long each runs before the next one's turn.
    pub seed: u64,
    /// Host threads that run blocks; 0 means all of the machine's.
    pub threads: usize,
    /// Checks beyond bounds, alignment and deadlock, which are always on: reads of bytes that nothing has written,
    /// use of bytes that a `cp.async` is still writing, races within a block in shared and global memory and between
    /// blocks in global memory, and barriers for a whole block from which threads have exited. Not found: conflicts
    /// between blocks that both use value-returning atomics or ordered accesses, which may order them; anything that
    /// this launch did not do.
    pub checks: bool,
    /// Counters per instruction in the [`Report`](crate::Report).
    pub counters: bool,
    /// How many turns in a row without any progress (a store, an atomic that changed something, a barrier, an
    /// exit) the warps of a block may spin before the launch is stopped as hanging.
    pub patience: u64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            arch: Arch::default(),
            tensor: TensorMode::default(),
            seed: 0,
            threads: 0,
            checks: false,
            counters: false,
            patience: 1 << 18,
        }
    }
}

impl Config {
    /// The same with another device.
    pub fn arch(mut self, arch: Arch) -> Self {
        self.arch = arch;
        self
    }

    /// The same with another rounding of the tensor cores.
    pub fn tensor(mut self, tensor: TensorMode) -> Self {
        self.tensor = tensor;
        self
    }

    /// The same with another order of warps and blocks.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The same with another number of host threads (0: all).
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The same with checks on or off.
    pub fn checks(mut self, on: bool) -> Self {
        self.checks = on;
        self
    }

    /// The same with counters on or off.
    pub fn counters(mut self, on: bool) -> Self {
        self.counters = on;
        self
    }
}

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dims {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
}

impl Dims {
    /// A grid and a block along x only, with no dynamic shared memory.
    pub const fn linear(blocks: u32, threads: u32) -> Dims {
        Dims { grid: [blocks, 1, 1], block: [threads, 1, 1], shared_bytes: 0 }
    }

    /// Threads of one block.
    pub const fn threads(&self) -> u64 {
        self.block[0] as u64 * self.block[1] as u64 * self.block[2] as u64
    }

    /// Blocks of the grid.
    pub const fn blocks(&self) -> u64 {
        self.grid[0] as u64 * self.grid[1] as u64 * self.grid[2] as u64
    }
}
