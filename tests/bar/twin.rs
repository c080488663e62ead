//! The op `gaussian` in honest f32, in orders of summation that differ from the reference's, with bugs on request.

use crate::common::gaussian::Results;
use macula::gaussian::{GaussianConfig, Kernel, Norm};
use macula::{DType, Element};

#[derive(Clone, Copy, Debug)]
pub enum Order {
    FirstToLast,
    LastToFirst,
    /// Eight lanes of fused multiply-adds, then a tree.
    Lanes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bug {
    None,
    OneNan,
    OneZero,
    LastRowNotWritten,
    LastKeyDropped,
    LastKeyDroppedForLastQuery,
    RadiusOffByFivePercent,
    CentralNormaliserEverywhere,
    WindowTooWide,
    MeanForgotten,
    HalfWeights,
}

impl Bug {
    pub const ALL: [Bug; 11] = [
        Bug::None,
        Bug::OneNan,
        Bug::OneZero,
        Bug::LastRowNotWritten,
        Bug::LastKeyDropped,
        Bug::LastKeyDroppedForLastQuery,
        Bug::RadiusOffByFivePercent,
        Bug::CentralNormaliserEverywhere,
        Bug::WindowTooWide,
        Bug::MeanForgotten,
        Bug::HalfWeights,
    ];
}

pub struct Twin {
    pub order: Order,
    pub bug: Bug,
}

impl Twin {
    /// Σ a · b.
    fn dot(&self, terms: impl Iterator<Item = (f32, f32)>) -> f32 {
        let mut terms: Vec<(f32, f32)> = terms.collect();
        match self.order {
            Order::FirstToLast => terms.iter().map(|(a, b)| a * b).sum(),
            Order::LastToFirst => {
                terms.reverse();
                terms.iter().map(|(a, b)| a * b).sum()
            }
            Order::Lanes => {
                let mut lanes = [0f32; 8];
                terms.iter().enumerate().for_each(|(i, (a, b))| lanes[i % 8] = a.mul_add(*b, lanes[i % 8]));
                let [a, b, c, d, e, f, g, h] = lanes;
                ((a + b) + (c + d)) + ((e + f) + (g + h))
            }
        }
    }

    /// Weight and pull of a key, the weight rounded as tensor cores take it.
    fn weight<T: Element>(&self, config: &GaussianConfig, [dy, dx]: [usize; 2], sigma: f32) -> (f32, f32) {
        let half = config.window.map_or(usize::MAX, |k| k / 2 + usize::from(self.bug == Bug::WindowTooWide));
        if dy > half || dx > half {
            return (0.0, 0.0);
        }
        let inverse = 1.0 / if self.bug == Bug::RadiusOffByFivePercent { sigma * 1.05 } else { sigma };
        let (y, x) = (dy as f32 * inverse, dx as f32 * inverse);
        let square = y.mul_add(y, x * x);
        let distance = square.sqrt();
        let base2 = std::f32::consts::LOG2_E;
        let (w, factor) = match config.kernel {
            Kernel::Gaussian => ((square * (-0.5 * base2)).exp2(), square),
            Kernel::Manhattan => (((y + x) * -base2).exp2(), y + x),
            Kernel::Exponential => ((distance * -base2).exp2(), distance),
            Kernel::Cauchy => (1.0 / (1.0 + square), 2.0 * square / (1.0 + square)),
            Kernel::Linear if distance < 1.0 => (1.0 - distance, distance / (1.0 - distance)),
            Kernel::Linear => (0.0, 0.0),
        };
        let stored = if self.bug == Bug::HalfWeights { half::f16::from_f32(w).to_f32() } else { w };
        let stored = if T::DTYPE == DType::F32 { stored } else { T::from_f32(stored).to_f32() };
        (stored, w * factor)
    }

    pub fn run<T: Element>(
        &self,
        config: &GaussianConfig,
        [b, h, y, x, d]: [usize; 5],
        v: &[T],
        sigma: &[f32],
        d_o: &[T],
    ) -> Results<T, f32> {
        let n = y * x;
        let round = |x: f32| T::from_f32(x).to_f32();
        let (mut o, mut dv, mut dsigma) = (Vec::new(), Vec::new(), vec![0f32; h]);
        for bh in 0..b * h {
            let at = |ni: usize, di: usize| (bh * n + ni) * d + di;
            let pair = |i: usize, j: usize| {
                let dropped = match self.bug {
                    Bug::LastKeyDropped => j + 1 == n && i != j,
                    Bug::LastKeyDroppedForLastQuery => j + 2 == n && i + 1 == n,
                    _ => false,
                };
                let apart = [(i / x).abs_diff(j / x), (i % x).abs_diff(j % x)];
                if dropped { (0.0, 0.0) } else { self.weight::<T>(config, apart, sigma[bh % h]) }
            };
            let row = |i: usize| match config.norm {
                Norm::None => (1.0, 0.0),
                Norm::Row => {
                    let i =
                        if self.bug == Bug::CentralNormaliserEverywhere { (y / 2) * x + x / 2 } else { i };
                    let z = self.dot((0..n).map(|j| (pair(i, j).0, 1.0)));
                    let mean = self.dot((0..n).map(|j| (pair(i, j).1, 1.0))) / z;
                    (z, if self.bug == Bug::MeanForgotten { 0.0 } else { mean })
                }
            };
            let rows: Vec<(f32, f32)> = (0..n).map(row).collect();
            for (i, &(z, _)) in rows.iter().enumerate() {
                for di in 0..d {
                    let sum = self.dot((0..n).map(|j| (pair(i, j).0, v[at(j, di)].to_f32())));
                    o.push(T::from_f32(sum * (1.0 / z)));
                    let back =
                        self.dot((0..n).map(|q| (pair(q, i).0, round(d_o[at(q, di)].to_f32() / rows[q].0))));
                    dv.push(T::from_f32(back));
                }
                let slope = self.dot((0..n).map(|j| {
                    let (w, pull) = pair(i, j);
                    let product = self.dot((0..d).map(|di| (d_o[at(i, di)].to_f32(), v[at(j, di)].to_f32())));
                    (pull - w * rows[i].1, product)
                }));
                dsigma[bh % h] += slope / z / sigma[bh % h];
            }
        }
        let last = o.len() - 1;
        match self.bug {
            Bug::OneNan => o[last] = T::from_f32(f32::NAN),
            Bug::OneZero => o[last / 2] = T::from_f32(0.0),
            Bug::LastRowNotWritten => dv[last + 1 - x * d..].fill(T::from_f32(0.0)),
            _ => {}
        }
        Results { o, dv, dsigma }
    }
}
