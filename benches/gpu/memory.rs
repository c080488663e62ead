//! Tensors on the device, full of random numbers.

use crate::Failure;
use macula::{Cuda, Element, Tensor, Workspace};

/// Numbers that repeat after so many: enough that nothing gains by it, and quick to make.
const PERIOD: usize = 1 << 20;

/// Uniform in [−1, 1), the same on every machine.
fn uniform(seed: u64, len: usize) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    // The first few numbers of a small seed are small too.
    for _ in 0..8 {
        next();
    }
    std::iter::repeat_with(next).take(len)
}

/// Uniform in [−`size`, `size`).
pub fn random<T: Element, const R: usize>(
    on: &Cuda,
    seed: u64,
    shape: [usize; R],
    size: f32,
) -> Result<Tensor<T, R>, Failure> {
    let count: usize = shape.iter().product();
    let part: Vec<T> = uniform(seed, count.min(PERIOD)).map(|x| T::from_f32(x * size)).collect();
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        all.extend_from_slice(&part[..part.len().min(count - all.len())]);
    }
    Ok(Tensor::from_vec(all, shape)?.to(on)?)
}

/// Scratch that a call may borrow again and again.
pub struct Scratch(Option<macula::cudarc::driver::CudaSlice<u8>>);

impl Scratch {
    pub fn new(on: &Cuda, bytes: usize) -> Result<Self, Failure> {
        Ok(Self((bytes > 0).then(|| on.stream().alloc_zeros::<u8>(bytes)).transpose()?))
    }

    pub fn lend(&mut self) -> Workspace<'_> {
        self.0.as_mut().map_or(Workspace::none(), Workspace::new)
    }
}
