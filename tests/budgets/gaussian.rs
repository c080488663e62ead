//! `gaussian`: 2 passes over memory forward, 3 backward.

use super::{Case, filled, upload, with_scratch};
use half::{bf16, f16};
use macula::gaussian::{Backward, Forward, GaussianConfig};
use macula::{Element, Gaussian, View, ViewMut};

/// Radius in pixels.
const SIGMA: f32 = 3.0;

/// Maps of one launch (planes) and of several (lines), in every element type.
pub fn cases() -> Vec<Case> {
    let plane = [1, 2, 56, 56, 32];
    let lines = [1, 1, 144, 144, 32];
    [plane, lines]
        .into_iter()
        .flat_map(|shape| {
            [
                forward::<f16>(shape),
                forward::<bf16>(shape),
                forward::<f32>(shape),
                backward::<f16>(shape),
                backward::<bf16>(shape),
                backward::<f32>(shape),
            ]
        })
        .collect()
}

fn words<T: Element>([b, h, y, x, d]: [usize; 5]) -> String {
    format!("b{b} h{h} {y}×{x} d{d} σ{SIGMA} {}", T::DTYPE)
}

fn op() -> Gaussian {
    Gaussian::new(GaussianConfig::default()).expect("the default is valid") // proof: tested by the crate
}

fn forward<T: Element>(shape: [usize; 5]) -> Case {
    let call = move |on: &macula::Cuda| {
        let count = shape.iter().product();
        let v = filled::<T>(on, count)?;
        let mut o = filled::<T>(on, count)?;
        let sigma = upload(on, vec![SIGMA; shape[1]])?;
        let args = Forward {
            v: View::new(&v, shape)?,
            sigma: View::new(&sigma, [shape[1]])?,
            o: ViewMut::new(&mut o, shape)?,
        };
        let bytes = op().plan_fwd(&args.problem(), on.gpu())?.workspace_bytes;
        with_scratch(on, bytes, |scratch| op().forward_into(on, args, scratch))
    };
    Case {
        op: "gaussian",
        pass: "forward",
        shape: words::<T>(shape),
        cost: op().forward_cost(shape, T::DTYPE),
        call: Box::new(call),
    }
}

fn backward<T: Element>(shape: [usize; 5]) -> Case {
    let call = move |on: &macula::Cuda| {
        let count = shape.iter().product();
        let (v, d_o) = (filled::<T>(on, count)?, filled::<T>(on, count)?);
        let mut dv = filled::<T>(on, count)?;
        let sigma = upload(on, vec![SIGMA; shape[1]])?;
        let mut dsigma = filled::<f32>(on, shape[1])?;
        let args = Backward {
            v: View::new(&v, shape)?,
            sigma: View::new(&sigma, [shape[1]])?,
            d_o: View::new(&d_o, shape)?,
            dv: Some(ViewMut::new(&mut dv, shape)?),
            dsigma: Some(ViewMut::new(&mut dsigma, [shape[1]])?),
        };
        let bytes = op().plan_bwd(&args.problem(), on.gpu())?.workspace_bytes;
        with_scratch(on, bytes, |scratch| op().backward_into(on, args, scratch))
    };
    Case {
        op: "gaussian",
        pass: "backward",
        shape: words::<T>(shape),
        cost: op().backward_cost(shape, T::DTYPE),
        call: Box::new(call),
    }
}

#[cfg(test)]
mod tests {
    use crate::common::cuda::look_alike;
    use std::collections::BTreeSet;

    /// Most that calls may ask for: bytes as multiples of the minimum, wavefronts as a multiple of those without conflicts.
    struct Budget {
        pass: &'static str,
        /// Size of the map, and whether elements have 32 bits.
        map: &'static str,
        is_wide: bool,
        scratch: f64,
        requested: f64,
        wavefronts: f64,
    }

    const fn budget(
        pass: &'static str,
        map: &'static str,
        is_wide: bool,
        [scratch, requested, wavefronts]: [f64; 3],
    ) -> Budget {
        Budget { pass, map, is_wide, scratch, requested, wavefronts }
    }

    /// 56×56 is one launch: nothing but the tensors. The backward pass of 16-bit planes fetches v twice, the second time from the
    /// cache, because shared memory has no room to keep it.
    ///
    /// 144×144 goes line by line through a scratch chunk that stays in the cache: it is written once and read once, in f32 and
    /// with three parts backward, and every pass reads the band's halo again.
    ///
    /// Wavefronts: the 32-bit plane kernels sum in place, so a warp holds whole columns. Eight lanes that are served together then
    /// hold two to four runs of 4 or 8 pixels, whose distances are multiples of four units of 16 bytes: they meet in the same banks.
    const BUDGETS: [Budget; 8] = [
        budget("forward", "56×56", false, [0.0, 1.05, 1.0]),
        budget("forward", "56×56", true, [0.0, 1.05, 1.1]),
        budget("backward", "56×56", false, [0.01, 1.4, 1.0]),
        budget("backward", "56×56", true, [0.01, 1.05, 2.4]),
        budget("forward", "144×144", false, [1.05, 2.6, 1.0]),
        budget("forward", "144×144", true, [1.05, 2.6, 1.0]),
        budget("backward", "144×144", false, [2.8, 4.8, 1.0]),
        budget("backward", "144×144", true, [1.4, 3.0, 1.0]),
    ];

    #[test]
    fn calls_stay_within_their_budgets() {
        let mut reached = BTreeSet::new();
        for case in super::cases() {
            let Some(got) = case.measure_in_test() else { return };
            let fits = |b: &&Budget| {
                (b.pass, b.is_wide) == (case.pass, case.shape.ends_with(" f32")) && case.shape.contains(b.map)
            };
            let budget = BUDGETS.iter().find(fits).unwrap();
            let (totals, minimum) = (got.totals(), case.cost.min_bytes as f64);
            for (what, has, most) in [
                ("bytes of tensors", got.tensor_bytes() as f64 / minimum, 1.1),
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
}
