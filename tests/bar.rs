//! Two questions to the acceptance rule: does it refuse an honest kernel, and does it notice planted bugs?

mod twin;

use crate::common::gaussian::truth;
use crate::common::random;
use half::{bf16, f16};
use macula::Element;
use macula::gaussian::{GaussianConfig, Kernel, Norm};
use macula::reference::{Bar, Num};
use twin::{Bug, Order, Twin};

fn honest<T: Element>() {
    let plain = GaussianConfig::default();
    let cases = [
        ("one pixel", plain, [1, 1, 1, 1, 3], 1.0),
        ("odd map", plain, [2, 2, 7, 5, 4], 1.0),
        ("one column", plain, [1, 1, 19, 1, 2], 1.0),
        ("a window of 3", GaussianConfig { window: Some(3), ..plain }, [1, 2, 7, 9, 4], 1.0),
        ("a window beyond the map", GaussianConfig { window: Some(11), ..plain }, [1, 2, 3, 5, 4], 1.0),
        ("unnormalised", GaussianConfig { norm: Norm::None, ..plain }, [1, 2, 7, 5, 4], 1.0),
        ("large inputs", plain, [1, 1, 9, 9, 4], 512.0),
        ("small inputs", plain, [1, 1, 9, 9, 4], 1.0 / 512.0),
        ("manhattan", GaussianConfig { kernel: Kernel::Manhattan, ..plain }, [1, 2, 6, 5, 4], 1.0),
        ("exponential", GaussianConfig { kernel: Kernel::Exponential, ..plain }, [1, 2, 6, 5, 4], 1.0),
        ("linear", GaussianConfig { kernel: Kernel::Linear, ..plain }, [1, 2, 6, 5, 4], 1.0),
        ("cauchy", GaussianConfig { kernel: Kernel::Cauchy, ..plain }, [1, 2, 6, 5, 4], 1.0),
    ];
    for (name, config, shape, size) in cases {
        let len = shape.iter().product();
        for seed in 0..5 {
            let (v, d_o) = (random::<T>(2 * seed, len, size), random::<T>(2 * seed + 1, len, size));
            let sigma: Vec<f32> = random::<f32>(seed, shape[1], 1.0).iter().map(|s| 2.3 + 1.9 * s).collect();
            let truth = truth(&config, shape, &v, &sigma, &d_o);
            for order in [Order::FirstToLast, Order::LastToFirst, Order::Lanes] {
                let got = Twin { order, bug: Bug::None }.run(&config, shape, &v, &sigma, &d_o);
                truth.judge(&got).unwrap_or_else(|e| panic!("{} {name}, {order:?}: {e}", T::DTYPE));
            }
        }
    }
}

#[test]
fn honest_kernels_pass() {
    honest::<f32>();
    honest::<f16>();
    honest::<bf16>();
}

fn planted<T: Element>(config: GaussianConfig, unseen: &[Bug]) {
    let shape = [1, 2, 11, 10, 4];
    let len = shape.iter().product();
    let (v, d_o, sigma) = (random::<T>(1, len, 1.0), random::<T>(2, len, 1.0), [1.1f32, 5.9]);
    let truth = truth(&config, shape, &v, &sigma, &d_o);
    for bug in Bug::ALL {
        let got = Twin { order: Order::Lanes, bug }.run(&config, shape, &v, &sigma, &d_o);
        let is_seen = truth.judge(&got).is_err();
        let should = bug != Bug::None && !unseen.contains(&bug);
        assert_eq!(is_seen, should, "{} {}: {bug:?}", T::DTYPE, config.kernel.name());
    }
}

/// What 16-bit kernels do to their weights is no bug there; and an error of a thousandth is less than bf16 can tell.
#[test]
fn planted_bugs_fail() {
    for kernel in Kernel::ALL {
        let config = GaussianConfig { kernel, window: Some(9), ..Default::default() };
        planted::<f32>(config, &[]);
        planted::<f16>(config, &[Bug::HalfWeights]);
        planted::<bf16>(config, &[Bug::HalfWeights]);
    }
}

/// Large terms that cancel: a bar that trusted one order would refuse the others.
#[test]
fn any_order_of_summation_passes() {
    let terms: Vec<f32> =
        (0..4096).map(|i| (if i % 2 == 0 { 1.0 } else { -1.0 }) * (1e4 + i as f32 * 0.37)).collect();
    let bar: Bar<f32> = Num::sum(terms.iter().map(|&x| Bar::of(x.into())));
    let sorted = {
        let mut terms = terms.clone();
        terms.sort_by(f32::total_cmp);
        terms.iter().sum::<f32>()
    };
    for got in [terms.iter().sum::<f32>(), terms.iter().rev().sum(), sorted] {
        assert!(bar.allows(got.into()), "{got}, truth {} ± {}", bar.value, bar.error);
    }
}

#[test]
fn what_is_not_a_number_near_the_truth_fails() {
    let bar: Bar<f32> = Bar::of(2.0) / Bar::of(3.0);
    assert!(bar.allows(f64::from(2.0f32 / 3.0)));
    assert!(bar.error < 1e-6);
    for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 0.6667] {
        assert!(!bar.allows(wrong), "{wrong}");
    }
    // A bar without end allows nothing, and infinity is right only where it is the truth.
    let unknown: Bar<f32> = Bar::of(1.0) / (Bar::of(1.0) - Bar::of(2.0) / Bar::of(3.0) * Bar::of(1.5));
    assert!(!unknown.allows(1.0) && !unknown.allows(f64::NAN));
    let beyond: Bar<f16> = Bar::of(70000.0).stored();
    assert!(beyond.allows(f64::INFINITY) && !beyond.allows(65504.0));
}

/// A GPU's approximate exp2 gives 0 for powers below the smallest normal number, 2⁻¹²⁶, and for no others.
#[test]
fn powers_below_the_normal_numbers_may_be_zero() {
    let power = |x: f64| -> Bar<f32> { Bar::of(x).exp() };
    assert!(power(-88.0).allows(0.0) && power(-100.0).allows(0.0));
    assert!(!power(-87.0).allows(0.0));
    assert!(!power(-88.0).allows(3.0 * (-88f64).exp()));
}

/// Every operation of f32, and both ways to store, stay inside the bars of many operands.
#[test]
fn operations_of_f32_stay_inside() {
    fn allow(name: &str, bar: Bar<f32>, got: f32, a: f32, b: f32) {
        assert!(
            bar.allows(got.into()),
            "{name}({a:e}, {b:e}) = {got:e}, truth {:e} ± {:e}",
            bar.value,
            bar.error
        );
        assert!(
            bar.error <= 1e-4 * bar.value.abs() + 1e-30,
            "{name}({a:e}, {b:e}): a bar of {:e}",
            bar.error
        );
    }
    let (left, right) = (random::<f32>(7, 4000, 40.0), random::<f32>(8, 4000, 3.0));
    for (&a, &b) in left.iter().zip(&right) {
        let (x, y): (Bar<f32>, Bar<f32>) = (Bar::of(a.into()), Bar::of(b.into()));
        allow("add", x + y, a + b, a, b);
        allow("sub", x - y, a - b, a, b);
        allow("mul", x * y, a * b, a, b);
        allow("div", x / y, a / b, a, b);
        allow("exp", x.exp(), a.exp(), a, b);
        allow("ln", (x * x + Bar::of(2.0)).ln(), (a * a + 2.0).ln(), a, b);
        allow("sqrt", (x * x + y * y).sqrt(), (a * a + b * b).sqrt(), a, b);
        allow("max", x.max(y), a.max(b), a, b);
    }
    for &a in &left {
        let (half, brain): (Bar<f16>, Bar<bf16>) = (Bar::of(a.into()).stored(), Bar::of(a.into()).stored());
        assert!(half.allows(f16::from_f32(a).into()) && brain.allows(bf16::from_f32(a).into()));
        assert!(half.error < 4e-2 && brain.error < 0.3);
    }
}
