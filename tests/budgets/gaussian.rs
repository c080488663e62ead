//! `gaussian`: 2 passes over memory forward, 3 backward.

use super::{Case, filled, upload, with_scratch};
use half::{bf16, f16};
use macula::gaussian::{Backward, Forward, GaussianConfig, Kernel};
use macula::{Element, Gaussian, View, ViewMut};

/// Settings and shape of a call.
#[derive(Clone, Copy)]
struct Call {
    kernel: Kernel,
    shape: [usize; 5],
    /// Radius in pixels.
    sigma: f32,
}

/// Maps of one launch (planes) and of several (lines).
const SEPARABLE: [Call; 2] = [
    Call { kernel: Kernel::Gaussian, shape: [1, 2, 56, 56, 32], sigma: 3.0 },
    Call { kernel: Kernel::Gaussian, shape: [1, 1, 144, 144, 32], sigma: 3.0 },
];

/// All pairs of tiles, tiles within a radius, and tiles within a smaller one.
const TILES: [Call; 3] = [
    Call { kernel: Kernel::Cauchy, shape: [4, 1, 32, 32, 32], sigma: 3.0 },
    Call { kernel: Kernel::Linear, shape: [4, 1, 32, 32, 32], sigma: 10.0 },
    Call { kernel: Kernel::Linear, shape: [4, 1, 32, 32, 32], sigma: 3.0 },
];

/// In every element type.
pub fn cases() -> Vec<Case> {
    SEPARABLE
        .into_iter()
        .chain(TILES)
        .flat_map(|call| {
            [
                forward::<f16>(call),
                forward::<bf16>(call),
                forward::<f32>(call),
                backward::<f16>(call),
                backward::<bf16>(call),
                backward::<f32>(call),
            ]
        })
        .collect()
}

impl Call {
    fn words<T: Element>(self) -> String {
        let Call { kernel, shape: [b, h, y, x, d], sigma } = self;
        let name = if kernel == Kernel::Gaussian { "" } else { kernel.name() };
        let space = if name.is_empty() { "" } else { " " };
        format!("b{b} h{h} {y}×{x} d{d} {name}{space}σ{sigma} {}", T::DTYPE)
    }

    fn op(self) -> Gaussian {
        let config = GaussianConfig { kernel: self.kernel, ..Default::default() };
        Gaussian::new(config).expect("only windows can be wrong") // proof: there is none
    }
}

fn forward<T: Element>(call: Call) -> Case {
    let Call { shape, sigma, .. } = call;
    let op = call.op();
    let make = move |on: &macula::Cuda| {
        let count = shape.iter().product();
        let v = filled::<T>(on, count)?;
        let mut o = filled::<T>(on, count)?;
        let sigma = upload(on, vec![sigma; shape[1]])?;
        let args = Forward {
            v: View::new(&v, shape)?,
            sigma: View::new(&sigma, [shape[1]])?,
            o: ViewMut::new(&mut o, shape)?,
        };
        let bytes = op.plan_fwd(&args.problem(), on.gpu())?.workspace_bytes;
        with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch))
    };
    Case {
        op: "gaussian",
        pass: "forward",
        shape: call.words::<T>(),
        cost: op.forward_cost(shape, T::DTYPE),
        call: Box::new(make),
    }
}

fn backward<T: Element>(call: Call) -> Case {
    let Call { shape, sigma, .. } = call;
    let op = call.op();
    let make = move |on: &macula::Cuda| {
        let count = shape.iter().product();
        let (v, d_o) = (filled::<T>(on, count)?, filled::<T>(on, count)?);
        let mut dv = filled::<T>(on, count)?;
        let sigma = upload(on, vec![sigma; shape[1]])?;
        let mut dsigma = filled::<f32>(on, shape[1])?;
        let args = Backward {
            v: View::new(&v, shape)?,
            sigma: View::new(&sigma, [shape[1]])?,
            d_o: View::new(&d_o, shape)?,
            dv: Some(ViewMut::new(&mut dv, shape)?),
            dsigma: Some(ViewMut::new(&mut dsigma, [shape[1]])?),
        };
        let bytes = op.plan_bwd(&args.problem(), on.gpu())?.workspace_bytes;
        with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch))
    };
    Case {
        op: "gaussian",
        pass: "backward",
        shape: call.words::<T>(),
        cost: op.backward_cost(shape, T::DTYPE),
        call: Box::new(make),
    }
}

#[cfg(test)]
mod tests {
    use crate::common::cuda::look_alike;
    use std::collections::BTreeSet;

    /// Most that calls may ask for: bytes as multiples of the minimum, wavefronts as a multiple of those without conflicts.
    struct Budget {
        pass: &'static str,
        /// Of the map or the settings, and whether elements have 32 bits.
        words: &'static str,
        is_wide: bool,
        tensors: f64,
        scratch: f64,
        requested: f64,
        wavefronts: f64,
    }

    const fn budget(
        pass: &'static str,
        words: &'static str,
        is_wide: bool,
        [tensors, scratch, requested, wavefronts]: [f64; 4],
    ) -> Budget {
        Budget { pass, words, is_wide, tensors, scratch, requested, wavefronts }
    }

    /// 56×56 is one launch: nothing but the tensors. The backward pass of 16-bit planes fetches v twice, the second time from the
    /// cache, because shared memory has no room to keep it.
    ///
    /// 144×144 goes line by line through a scratch chunk that stays in the cache: it is written once and read once, in f32 and
    /// with three parts backward, and every pass reads the band's halo again.
    ///
    /// Wavefronts: the 32-bit plane kernels sum in place, so a warp holds whole columns. Eight lanes that are served together then
    /// hold two to four runs of 4 or 8 pixels, whose distances are multiples of four units of 16 bytes: they meet in the same banks.
    ///
    /// Tile by tile, every tile of queries requests all tiles of keys that it reaches: of 16 all, 11.25 and 6.25 on average for the two
    /// radii. The gradient of the radius reads v and the
    /// gradient of the output once more, and what queries are divided by is read again with every tile.
    const BUDGETS: [Budget; 20] = [
        budget("forward", "56×56", false, [1.1, 0.0, 1.05, 1.0]),
        budget("forward", "56×56", true, [1.1, 0.0, 1.05, 1.1]),
        budget("backward", "56×56", false, [1.1, 0.01, 1.4, 1.0]),
        budget("backward", "56×56", true, [1.1, 0.01, 1.05, 2.4]),
        budget("forward", "144×144", false, [1.1, 1.05, 2.6, 1.0]),
        budget("forward", "144×144", true, [1.1, 1.05, 2.6, 1.0]),
        budget("backward", "144×144", false, [1.1, 2.8, 4.8, 1.0]),
        budget("backward", "144×144", true, [1.1, 1.4, 3.0, 1.0]),
        budget("forward", "cauchy", false, [1.01, 0.1, 8.6, 1.0]),
        budget("forward", "cauchy", true, [1.01, 0.1, 8.6, 1.0]),
        budget("backward", "cauchy", false, [1.34, 0.1, 11.9, 1.0]),
        budget("backward", "cauchy", true, [1.34, 0.1, 11.9, 1.0]),
        budget("forward", "linear σ10", false, [1.01, 0.1, 6.2, 1.0]),
        budget("forward", "linear σ10", true, [1.01, 0.1, 6.2, 1.0]),
        budget("backward", "linear σ10", false, [1.34, 0.1, 8.6, 1.0]),
        budget("backward", "linear σ10", true, [1.34, 0.1, 8.6, 1.0]),
        budget("forward", "linear σ3", false, [1.01, 0.1, 3.7, 1.0]),
        budget("forward", "linear σ3", true, [1.01, 0.1, 3.7, 1.0]),
        budget("backward", "linear σ3", false, [1.34, 0.1, 5.2, 1.0]),
        budget("backward", "linear σ3", true, [1.34, 0.1, 5.2, 1.0]),
    ];

    #[test]
    fn calls_stay_within_their_budgets() {
        let mut reached = BTreeSet::new();
        for case in super::cases() {
            let Some(got) = case.measure_in_test() else { return };
            let fits = |b: &&Budget| {
                (b.pass, b.is_wide) == (case.pass, case.shape.ends_with(" f32"))
                    && case.shape.contains(b.words)
            };
            let budget = BUDGETS.iter().find(fits).unwrap();
            let (totals, minimum) = (got.totals(), case.cost.min_bytes as f64);
            for (what, has, most) in [
                ("bytes of tensors", got.tensor_bytes() as f64 / minimum, budget.tensors),
                ("bytes of scratch", got.scratch_bytes() as f64 / minimum, budget.scratch),
                ("requested bytes", got.requested_bytes() as f64 / minimum, budget.requested),
                ("sectors", totals.sectors as f64 / totals.ideal_sectors as f64, 1.01),
                ("wavefronts", totals.wavefronts as f64 / totals.ideal_wavefronts as f64, budget.wavefronts),
            ] {
                assert!(has <= most, "{}: {what} {has:.3}, budget {most}", case.name());
            }
            // Nothing is counted as saved that was not done.
            assert!(got.tensor_bytes() as f64 >= minimum, "{}: less than the minimum", case.name());
            reached.extend(got.launches.into_iter().map(|launch| launch.entry));
        }
        if look_alike().is_some() {
            let all = macula::kernel::all().iter().map(|kernel| kernel.name);
            let missing: Vec<&str> =
                all.filter(|name| name.starts_with("gaussian_") && !reached.contains(*name)).collect();
            assert!(missing.is_empty(), "no case reaches {missing:?}");
        }
    }

    /// Pairs of tiles, of 16 × 16: a radius of 10 pixels does not reach from a tile to the second along both axes, one of 3 not
    /// to the second along either. Nothing is multiplied in vain: all pixels and columns of these tiles exist.
    #[test]
    fn linear_visits_only_tiles_within_the_radius() {
        let products_of_a_pair = 2 * 64 * 64 * 128;
        for case in super::cases().iter().filter(|case| case.shape.ends_with(" f16")) {
            let pairs = match &case.shape {
                shape if shape.contains("cauchy") => 256,
                shape if shape.contains("linear σ10") => 14 * 14 - 4 * 4,
                shape if shape.contains("linear σ3") => 10 * 10,
                _ => continue,
            };
            let Some(got) = case.measure_in_test() else { return };
            let products = if case.pass == "forward" { 1 } else { 2 };
            assert_eq!(got.totals().tensor_flops, products * pairs * products_of_a_pair, "{}", case.name());
            assert!(!case.shape.contains("cauchy") || got.totals().tensor_flops == case.cost.flops);
        }
    }
}
