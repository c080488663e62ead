//! Tensors to compute with.

use macula::{Element, Tensor};

/// Numbers in −1..1 that look random.
pub fn values<T: Element, const R: usize>(shape: [usize; R], seed: u32) -> Tensor<T, R> {
    let value = |i: u32| f32::from((i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 16) as i16) / 32768.0;
    let count = shape.iter().product::<usize>() as u32;
    Tensor::from_vec((0..count).map(|i| T::from_f32(value(i))).collect(), shape).unwrap()
}
