//! What tests share: seeded data, and the one rule for "close enough".

pub mod cuda;
pub mod fixture;
pub mod gaussian;
pub mod memory;

use macula::Element;
use macula::reference::{Bar, Num};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};

/// A property of random cases is tried this often, on the same cases every time, so that what fails is the change at
/// hand. `PROPTEST_CASES` asks for a search instead: that many cases, other ones in every run.
pub fn tried(cases: u32) -> ProptestConfig {
    let given = ProptestConfig { failure_persistence: None, ..Default::default() };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => given,
        None => ProptestConfig { cases, rng_seed: RngSeed::Fixed(0), ..given },
    }
}

/// Uniform in [−1, 1), the same on every machine.
pub fn uniform(seed: u64, len: usize) -> Vec<f64> {
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
    (0..len).map(|_| next()).collect()
}

/// The nearest elements: rounding the inputs is not the kernel's error.
pub fn elements<T: Element>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&x| T::from_f32(x as f32)).collect()
}

/// Uniform elements in [−`size`, `size`).
pub fn random<T: Element>(seed: u64, len: usize, size: f64) -> Vec<T> {
    elements(&uniform(seed, len).iter().map(|x| x * size).collect::<Vec<_>>())
}

/// Elements as a reference takes them.
pub fn numbers<T: Element, R: Num>(elements: &[T]) -> Vec<R> {
    elements.iter().map(|x| R::of(x.to_f32().into())).collect()
}

/// Every element within its own bar.
pub fn check<T: Element, G: Element>(name: &str, truth: &[Bar<T>], got: &[G]) -> Result<(), String> {
    if truth.len() != got.len() {
        return Err(format!("{name}: {} elements, not {}", got.len(), truth.len()));
    }
    for (i, (bar, got)) in truth.iter().zip(got).enumerate() {
        let got = f64::from(got.to_f32());
        if !bar.allows(got) {
            let (value, error) = (bar.value, bar.error);
            let off = (got - value).abs();
            return Err(format!(
                "{name}[{i}]: got {got:e}, truth {value:e}, error {off:.2e}, bar {error:.2e}"
            ));
        }
    }
    Ok(())
}
