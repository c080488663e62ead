//! macula's ops in candle against the same attention composed of candle's own operations, and as candle's users meet them.

mod compose;
mod edges;
mod gradients;
mod layouts;
mod mixture;
mod modules;
mod windows;

use candle_core::{Device, Result, Tensor};

/// Uniform in [−1, 1), the same on every machine.
fn uniform(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    // The first few numbers of a small seed are small too.
    for _ in 0..8 {
        next();
    }
    (0..count).map(|_| next()).collect()
}

/// Uniform numbers in [`low`, `high`), in f64.
fn random(seed: u64, shape: &[usize], low: f64, high: f64) -> Result<Tensor> {
    let numbers = uniform(seed, shape.iter().product());
    let scaled = numbers.iter().map(|x| low + (x + 1.0) / 2.0 * (high - low)).collect();
    Tensor::from_vec(scaled, shape, &Device::Cpu)
}

/// A map of numbers in [−1, 1).
fn map(seed: u64, shape: [usize; 5]) -> Result<Tensor> {
    random(seed, &shape, -1.0, 1.0)
}
