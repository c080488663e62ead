//! Plans: what a call will launch, decided without a device.
//!
//! `plan_fwd` and `plan_bwd` of an op are pure functions from a checked problem and the limits of a GPU to a [`Plan`]. So
//! grids, workspaces and refusals are tested anywhere, for every class of GPU.

// Without `cuda` plans are made and tested, and nothing launches them.
#![cfg_attr(not(feature = "cuda"), allow(dead_code))]

/// What a plan needs to know of a GPU. A plain value: plans for any GPU are made on any machine. The number of
/// multiprocessors is left out on purpose, so that results do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Shared memory that one block may opt in to, in bytes.
    pub shared_optin_bytes: u32,
}

impl Gpu {
    /// A100, and like it sm_87: 163 KiB of shared memory per block.
    pub const SM80: Gpu = Gpu { capability: (8, 0), shared_optin_bytes: 163 * 1024 };
    /// RTX 30 and, with the same limit, RTX 40 and 50 (sm_89, sm_120): 99 KiB.
    pub const SM86: Gpu = Gpu { capability: (8, 6), shared_optin_bytes: 99 * 1024 };
    /// H100, and with the same limit B200 (sm_100): 227 KiB.
    pub const SM90: Gpu = Gpu { capability: (9, 0), shared_optin_bytes: 227 * 1024 };
    /// One of each class of shared memory.
    pub const CLASSES: [Gpu; 3] = [Gpu::SM86, Gpu::SM80, Gpu::SM90];
}

/// The work of one call: what the mathematics needs, not what a kernel happens to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Floating-point operations; a multiply-add is two.
    pub flops: u64,
    /// Bytes of tensors that must be read or written at least once.
    pub min_bytes: u64,
    /// Exponentials.
    pub exps: u64,
}

/// A pointer in a parameter struct. In a plan it names an operand and a byte offset into it; at launch the device
/// replaces it by an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Ptr(u64);

/// The operand number of the caller's workspace.
pub(crate) const WORKSPACE: u8 = 0xfe;
const OFFSET_BITS: u32 = 56;

impl Ptr {
    /// An operand that is absent; kernels test for it.
    pub const NULL: Ptr = Ptr(0);

    /// The first element of operand `index`.
    pub const fn operand(index: u8) -> Ptr {
        Ptr((index as u64 + 1) << OFFSET_BITS)
    }

    /// Byte `offset` of the workspace; offsets stay far below 2⁵⁶, for no memory is that large.
    pub const fn workspace(offset: u64) -> Ptr {
        Ptr(((WORKSPACE as u64 + 1) << OFFSET_BITS) | offset)
    }

    /// So many bytes further; [`Ptr::NULL`] stays what it is.
    const fn plus(self, offset: u64) -> Ptr {
        if self.0 == 0 { self } else { Ptr(self.0 + offset) }
    }

    /// Operand and byte offset; `None` for [`Ptr::NULL`].
    pub const fn target(self) -> Option<(u8, u64)> {
        match self.0 >> OFFSET_BITS {
            0 => None,
            operand => Some((operand as u8 - 1, self.0 & ((1 << OFFSET_BITS) - 1))),
        }
    }
}

/// A number that kernels divide by; mirrors `prim::Divisor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Divisor {
    value: u32,
    factor: u32,
    shift: u32,
}

impl Divisor {
    /// For dividends below 2³¹. A divisor of 0 becomes 1.
    pub fn new(value: u32) -> Self {
        let value = value.max(1);
        let shift = u32::BITS - (value - 1).leading_zeros();
        let factor = ((((1u64 << shift) - u64::from(value)) << 32) / u64::from(value) + 1) as u32;
        Self { value, factor, shift }
    }
}

/// A kernel's parameter struct, mirrored field by field from its `.cuh`.
pub trait Params: bytemuck::NoUninit {
    /// Byte offsets of its [`Ptr`] fields.
    const POINTERS: &'static [usize];
}

/// Room for the largest parameter struct; the driver reads as many bytes as the entry declares.
pub const PARAM_BYTES_MAX: usize = 1024;

/// One kernel launch.
#[derive(Clone)]
pub struct Launch {
    /// The entry, such as `gaussian_fwd_f16`.
    pub kernel: &'static str,
    /// Blocks, along x only (y and z stop at 65535).
    pub grid: u32,
    /// Dynamic shared memory; at most what the entry exports and the GPU allows.
    pub shared_bytes: u32,
    pub(crate) params: ParamBlock,
    pub(crate) param_bytes: usize,
    pub(crate) pointers: &'static [usize],
}

/// Parameter bytes at the alignment that a `.param` may ask for.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct ParamBlock(pub [u8; PARAM_BYTES_MAX]);

impl Launch {
    /// A launch of `kernel` with these parameters.
    pub fn new<P: Params>(kernel: &'static str, grid: u32, shared_bytes: u32, params: &P) -> Self {
        const { assert!(size_of::<P>() <= PARAM_BYTES_MAX, "raise PARAM_BYTES_MAX") };
        let mut block = ParamBlock([0; PARAM_BYTES_MAX]);
        let bytes = bytemuck::bytes_of(params);
        block.0[..bytes.len()].copy_from_slice(bytes);
        Self { kernel, grid, shared_bytes, params: block, param_bytes: bytes.len(), pointers: P::POINTERS }
    }

    /// The parameter struct's bytes, pointers still symbolic.
    pub fn params(&self) -> &[u8] {
        &self.params.0[..self.param_bytes]
    }

    /// The same launch as a part of another call: `operand` says which pointer of that call each operand is, and the workspace
    /// begins so many bytes into that of the call.
    pub(crate) fn within(mut self, operand: impl Fn(u8) -> Ptr, workspace: u64) -> Self {
        for &at in self.pointers {
            let field = &mut self.params.0[at..at + 8];
            let mut word = [0; 8];
            word.copy_from_slice(field);
            let there = match Ptr(u64::from_ne_bytes(word)).target() {
                None => Ptr::NULL,
                Some((WORKSPACE, offset)) => Ptr::workspace(workspace + offset),
                Some((index, offset)) => operand(index).plus(offset),
            };
            field.copy_from_slice(&there.0.to_ne_bytes());
        }
        self
    }

    /// The parameters with every pointer replaced by what `address` answers for its operand and byte offset.
    pub(crate) fn resolve<E>(&self, address: impl Fn(u8, u64) -> Result<u64, E>) -> Result<ParamBlock, E> {
        let mut block = self.params;
        for &at in self.pointers {
            let field = &mut block.0[at..at + 8];
            let mut word = [0; 8];
            word.copy_from_slice(field);
            if let Some((operand, offset)) = Ptr(u64::from_ne_bytes(word)).target() {
                field.copy_from_slice(&address(operand, offset)?.to_ne_bytes());
            }
        }
        Ok(block)
    }
}

impl std::fmt::Debug for Launch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}<<<{}, {} B>>>", self.kernel, self.grid, self.shared_bytes)
    }
}

/// What one call will launch, in order, on one stream.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The launches; empty when there is nothing to compute.
    pub launches: Vec<Launch>,
    /// Bytes of scratch that the caller has to lend.
    pub workspace_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C)]
    struct Two {
        a: Ptr,
        n: u64,
        b: Ptr,
        c: Ptr,
    }
    impl Params for Two {
        const POINTERS: &'static [usize] = &[0, 16, 24];
    }

    #[test]
    fn divisors_divide() {
        for value in (1..300).chain([1 << 16, (1 << 20) - 1, (1 << 30) + 1, (1 << 31) - 1]) {
            let d = Divisor::new(value);
            let near = [value - 1, value, value.saturating_mul(7), value.saturating_mul(7) - 1];
            for n in (0..300).chain(near).chain([(1 << 31) - 1, (1 << 31) - 2]).filter(|n| *n < 1 << 31) {
                // As the kernels do it: the high half of a product, a sum below 2³², a shift.
                let high = ((u64::from(n) * u64::from(d.factor)) >> 32) as u32;
                assert_eq!((high + n) >> d.shift, n / value, "{n} / {value}");
            }
        }
    }

    #[test]
    fn pointers_become_addresses_and_nothing_else_changes() {
        let two = Two { a: Ptr::operand(3), n: u64::MAX, b: Ptr::workspace(40), c: Ptr::NULL };
        let launch = Launch::new("k", 1, 0, &two);
        let block = launch
            .resolve(|operand, offset| match operand {
                3 => Ok::<u64, ()>(1000 + offset),
                WORKSPACE => Ok(2000 + offset),
                _ => Err(()),
            })
            .unwrap();
        let words: &[u64] = bytemuck::cast_slice(&block.0[..32]);
        assert_eq!(words, [1000, u64::MAX, 2040, 0]);
    }

    #[test]
    fn launches_become_parts_of_other_calls() {
        let two = Two { a: Ptr::operand(3), n: u64::MAX, b: Ptr::workspace(40), c: Ptr::NULL };
        let as_operand = |index| Launch::new("k", 1, 0, &two).within(|i| Ptr::operand(i + index), 100);
        let words = |launch: Launch| bytemuck::cast_slice::<u8, u64>(&launch.params.0[..32]).to_vec();
        assert_eq!(words(as_operand(2)), [Ptr::operand(5).0, u64::MAX, Ptr::workspace(140).0, 0]);
        let into_workspace = Launch::new("k", 1, 0, &two).within(|_| Ptr::workspace(8), 0);
        assert_eq!(words(into_workspace), [Ptr::workspace(8).0, u64::MAX, Ptr::workspace(40).0, 0]);
        let absent = Launch::new("k", 1, 0, &two).within(|_| Ptr::NULL, 0);
        assert_eq!(words(absent)[0], 0);
    }
}
