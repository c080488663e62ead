//! Weighted sums of vectors of sixteen floats, four sums at a time: four accumulators of two AVX registers are what the
//! registers hold and what hides the latency of a fused multiply-add.

use pulp::{Arch, Simd, WithSimd};

/// Floats that are always worked on together.
pub(crate) const LANES: usize = 16;
/// See [`LANES`].
pub(crate) type Lanes = [f32; LANES];
/// Sums that are made together.
pub(crate) const SUMS: usize = 4;

/// Four sums over a stretch of vectors: their weights, vector by vector.
pub(crate) struct Weights {
    /// The first vector.
    pub first: usize,
    pub weights: Vec<[f32; SUMS]>,
}

/// One vector per sum of `blocks`, into `out`: out = Σ weight · input.
pub(crate) fn sums(input: &[Lanes], blocks: &[Weights], out: &mut [Lanes]) {
    Arch::new().dispatch(Sums { input, blocks, out });
}

struct Sums<'a> {
    input: &'a [Lanes],
    blocks: &'a [Weights],
    out: &'a mut [Lanes],
}

impl WithSimd for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (block, out) in self.blocks.iter().zip(self.out.chunks_mut(SUMS)) {
            let input = &self.input[block.first..][..block.weights.len()];
            for part in 0..parts::<S>() {
                let mut sums = [[simd.splat_f32s(0.0); 2]; SUMS];
                for (input, weights) in input.iter().zip(&block.weights) {
                    accumulate(simd, &mut sums, pair::<S>(input, part), *weights);
                }
                for (sum, out) in sums.into_iter().zip(out.iter_mut()) {
                    *pair_mut::<S>(out, part) = sum;
                }
            }
        }
    }
}

/// Weights that depend on distance only, the same to both sides; none beyond `reach`.
pub(crate) struct Taps {
    reach: usize,
    /// Weights from distance −reach − 3 to reach + 3, zeros at both ends: four neighbours in it are what one vector weighs
    /// in four neighbouring sums.
    padded: Vec<f32>,
}

impl Taps {
    /// From the weights at distances 0, 1, ….
    pub(crate) fn new(weights: impl IntoIterator<Item = f32>) -> Self {
        let half: Vec<f32> = weights.into_iter().collect();
        let reach = half.len().saturating_sub(1);
        let edge = [0.0; SUMS - 1];
        let left = edge.into_iter().chain(half.iter().rev().copied());
        let padded = left.chain(half.iter().skip(1).copied()).chain(edge).collect();
        Self { reach, padded }
    }
}

/// Every vector of `out` becomes the weighted sum of the vectors of `input` around the same place.
pub(crate) fn convolve(input: &[Lanes], taps: &Taps, out: &mut [Lanes]) {
    Arch::new().dispatch(Convolve { input, taps, out, adds: false });
}

/// [`convolve`], added to what is there.
pub(crate) fn add_convolved(input: &[Lanes], taps: &Taps, out: &mut [Lanes]) {
    Arch::new().dispatch(Convolve { input, taps, out, adds: true });
}

struct Convolve<'a> {
    input: &'a [Lanes],
    taps: &'a Taps,
    out: &'a mut [Lanes],
    adds: bool,
}

impl WithSimd for Convolve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Taps { reach, padded } = self.taps;
        for (block, out) in self.out.chunks_mut(SUMS).enumerate() {
            let here = block * SUMS;
            let first = here.saturating_sub(*reach);
            let last = (here + SUMS + reach).min(self.input.len());
            let input = &self.input[first..last];
            // `padded` begins with what the vector at here − reach weighs; the sums' weights in it run backwards.
            let padded = &padded[first + reach - here..];
            for part in 0..parts::<S>() {
                let mut sums = [[simd.splat_f32s(0.0); 2]; SUMS];
                if self.adds {
                    for (sum, out) in sums.iter_mut().rev().zip(out.iter_mut()) {
                        *sum = *pair_mut::<S>(out, part);
                    }
                }
                for (input, weights) in input.iter().zip(padded.windows(SUMS)) {
                    let weights = [weights[0], weights[1], weights[2], weights[3]];
                    accumulate(simd, &mut sums, pair::<S>(input, part), weights);
                }
                for (sum, out) in sums.into_iter().rev().zip(out.iter_mut()) {
                    *pair_mut::<S>(out, part) = sum;
                }
            }
        }
    }
}

/// How many pairs of registers sixteen lanes are.
#[inline(always)]
fn parts<S: Simd>() -> usize {
    LANES / (2 * S::F32_LANES)
}

/// One of them.
#[inline(always)]
fn pair<S: Simd>(lanes: &Lanes, part: usize) -> &[S::f32s; 2] {
    &S::as_simd_f32s(lanes).0.as_chunks().0[part]
}

/// One of them, to write.
#[inline(always)]
fn pair_mut<S: Simd>(lanes: &mut Lanes, part: usize) -> &mut [S::f32s; 2] {
    &mut S::as_mut_simd_f32s(lanes).0.as_chunks_mut().0[part]
}

/// Adds a pair of registers, weighted, to each sum.
#[inline(always)]
fn accumulate<S: Simd>(simd: S, sums: &mut [[S::f32s; 2]; SUMS], input: &[S::f32s; 2], weights: [f32; SUMS]) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        let weight = simd.splat_f32s(weight);
        // Fused where the machine fuses.
        sum[0] = simd.mul_add_e_f32s(input[0], weight, sum[0]);
        sum[1] = simd.mul_add_e_f32s(input[1], weight, sum[1]);
    }
}

/// Multiplies each vector by its factor.
pub(crate) fn scale(vectors: &mut [Lanes], factors: &[f32]) {
    for (vector, factor) in vectors.iter_mut().zip(factors) {
        vector.iter_mut().for_each(|x| *x *= factor);
    }
}

/// Subtracts the vectors of `from`, each times its factor.
pub(crate) fn subtract_scaled(to: &mut [Lanes], from: &[Lanes], factors: &[f32]) {
    for ((to, from), factor) in to.iter_mut().zip(from).zip(factors) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to -= from * factor);
    }
}

/// An inner product, added up in f64.
#[derive(Default)]
pub(crate) struct Inner([f64; LANES]);

impl Inner {
    /// Adds Σ a · b.
    pub(crate) fn add(&mut self, a: &[Lanes], b: &[Lanes]) {
        for (a, b) in a.iter().zip(b) {
            for (sum, (a, b)) in self.0.iter_mut().zip(a.iter().zip(b)) {
                *sum += f64::from(*a) * f64::from(*b);
            }
        }
    }

    /// All of it.
    pub(crate) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(count: usize) -> Vec<Lanes> {
        (0..count).map(|i| std::array::from_fn(|lane| ((i * 31 + lane * 7) % 23) as f32 - 11.0)).collect()
    }

    /// Small integers: every order of summation gives the same.
    #[test]
    fn convolve_adds_what_is_near() {
        for (count, reach) in [(1, 0), (1, 5), (3, 1), (4, 2), (9, 3), (13, 40)] {
            let (input, mut out) = (vectors(count), vec![[f32::NAN; LANES]; count]);
            convolve(&vectors(count), &Taps::new([1.0]), &mut out);
            let before = out.clone();
            let weight =
                |distance: usize| if distance <= reach { (reach + 2 - distance) as f32 } else { 0.0 };
            add_convolved(&input, &Taps::new((0..=reach).map(weight)), &mut out);
            for (i, lane) in (0..count).flat_map(|i| (0..LANES).map(move |lane| (i, lane))) {
                let sum: f32 = (0..count).map(|j| weight(i.abs_diff(j)) * input[j][lane]).sum();
                assert_eq!(out[i][lane], before[i][lane] + sum, "{count} vectors, reach {reach}, sum {i}");
            }
        }
    }

    #[test]
    fn sums_take_any_weights() {
        let input = vectors(7);
        let mut out = vec![[f32::NAN; LANES]; 6];
        let weigh = |first: usize, count: usize| Weights {
            first,
            weights: (first..first + count).map(|k| std::array::from_fn(|i| (k * i) as f32)).collect(),
        };
        sums(&input, &[weigh(0, 7), weigh(3, 2)], &mut out);
        for (at, out) in out.iter().enumerate() {
            let vectors = if at < SUMS { 0..7 } else { 3..5 };
            let sum: f32 = vectors.map(|k| (k * (at % SUMS)) as f32 * input[k][5]).sum();
            assert_eq!(out[5], sum);
        }
    }

    /// What a machine without wide registers runs.
    #[test]
    fn one_float_at_a_time_is_the_same() {
        let (input, taps) = (vectors(11), Taps::new([3.0, 2.0, 1.0]));
        let (mut wide, mut narrow) = (vectors(11), vectors(11));
        add_convolved(&input, &taps, &mut wide);
        Convolve { input: &input, taps: &taps, out: &mut narrow, adds: true }.with_simd(pulp::Scalar);
        assert_eq!(wide, narrow);
        let blocks = [Weights { first: 2, weights: vec![[1.0, 2.0, 3.0, 4.0]; 6] }];
        sums(&input, &blocks, &mut wide[..3]);
        Sums { input: &input, blocks: &blocks, out: &mut narrow[..3] }.with_simd(pulp::Scalar);
        assert_eq!(wide, narrow);
    }
}
