//! The `.approx` functions: the manual's tables of special values exactly, its error bounds elsewhere.

use crate::harness::{Random, pairs, run};
use crate::oracle::{Sixteen, bits32, f32_values, flushed, same_f32};

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

/// How far a result may be off.
enum Bound {
    Relative(f64),
    Absolute(f64),
    /// Units of the last place of the f32 nearest to the true result.
    Ulp(f64),
}

fn within(got: f32, truth: f64, bound: &Bound) -> bool {
    let near = truth as f32;
    if !near.is_finite() || near == 0.0 {
        return got == near;
    }
    let error = (f64::from(got) - truth).abs();
    match bound {
        Bound::Relative(r) => error <= r * truth.abs(),
        Bound::Absolute(a) => error <= *a,
        Bound::Ulp(n) => error <= n * (f64::from(near.abs().next_up()) - f64::from(near.abs())),
    }
}

fn sample(low: f32, high: f32) -> Vec<f32> {
    let mut random = Random(11);
    (0..3000).map(|_| low + (high - low) * (random.next() as f32 / 4294967296.0)).collect()
}

#[test]
fn special_values_of_the_manual() {
    let tiny = f32::from_bits(0x0000_0fff);
    type Table = Vec<(f32, f32)>;
    let tables: Vec<(&str, Table)> = vec![
        (
            "ex2.approx.ftz.f32",
            vec![(-INF, 0.0), (-tiny, 1.0), (-0.0, 1.0), (0.0, 1.0), (tiny, 1.0), (INF, INF), (NAN, NAN)],
        ),
        (
            "ex2.approx.f32",
            vec![(-INF, 0.0), (-0.0, 1.0), (INF, INF), (NAN, NAN), (-140.0, f32::from_bits(1 << 9))],
        ),
        (
            "ex2.approx.ftz.f32",
            vec![(-127.0, 0.0), (-200.0, 0.0), (128.0, INF), (3.0, 8.0), (-126.0, f32::MIN_POSITIVE)],
        ),
        (
            "lg2.approx.f32",
            vec![(-INF, NAN), (-1.0, NAN), (-0.0, -INF), (0.0, -INF), (INF, INF), (NAN, NAN), (1.0, 0.0)],
        ),
        ("lg2.approx.ftz.f32", vec![(-tiny, -INF), (tiny, -INF)]),
        ("rcp.approx.f32", vec![(-INF, -0.0), (-0.0, -INF), (0.0, INF), (INF, 0.0), (NAN, NAN)]),
        ("rcp.approx.ftz.f32", vec![(-INF, -0.0), (-tiny, -INF), (tiny, INF), (INF, 0.0), (NAN, NAN)]),
        ("sqrt.approx.f32", vec![(-INF, NAN), (-1.0, NAN), (-0.0, -0.0), (0.0, 0.0), (INF, INF), (NAN, NAN)]),
        ("sqrt.approx.ftz.f32", vec![(-tiny, -0.0), (tiny, 0.0)]),
        (
            "rsqrt.approx.f32",
            vec![(-INF, NAN), (-1.0, NAN), (-0.0, -INF), (0.0, INF), (INF, 0.0), (NAN, NAN)],
        ),
        ("rsqrt.approx.ftz.f32", vec![(-tiny, -INF), (tiny, INF)]),
        ("sin.approx.f32", vec![(-INF, NAN), (-0.0, -0.0), (0.0, 0.0), (INF, NAN), (NAN, NAN)]),
        ("sin.approx.ftz.f32", vec![(-tiny, -0.0), (tiny, 0.0)]),
        ("cos.approx.f32", vec![(-INF, NAN), (-0.0, 1.0), (0.0, 1.0), (INF, NAN), (NAN, NAN)]),
        ("cos.approx.ftz.f32", vec![(tiny, 1.0)]),
        ("tanh.approx.f32", vec![(-INF, -1.0), (-0.0, -0.0), (0.0, 0.0), (INF, 1.0), (NAN, NAN)]),
    ];
    for (name, table) in tables {
        let (x, want): (Vec<f32>, Vec<f32>) = table.into_iter().unzip();
        let got = run(&format!("{name} %d, %a;"), &[("f32", &bits32(&x))], "f32");
        for row in 0..x.len() {
            assert!(
                same_f32(got[row], want[row]),
                "{name} {:e}: {:#x}, want {:e}",
                x[row],
                got[row],
                want[row]
            );
        }
    }
}

#[test]
fn error_bounds_of_the_manual() {
    let pi = std::f32::consts::PI;
    type Case = (&'static str, (f32, f32), fn(f64) -> f64, Bound);
    let cases: Vec<Case> = vec![
        ("ex2.approx.f32", (-149.0, 128.0), f64::exp2, Bound::Ulp(2.0)),
        ("ex2.approx.ftz.f32", (-126.0, 128.0), f64::exp2, Bound::Ulp(2.0)),
        ("lg2.approx.f32", (0.5, 2.0), f64::log2, Bound::Absolute(2f64.powi(-22))),
        ("lg2.approx.f32", (2.0, 1e30), f64::log2, Bound::Relative(2f64.powi(-22))),
        ("rcp.approx.f32", (-7.0, 100.0), f64::recip, Bound::Ulp(1.0)),
        ("sqrt.approx.f32", (0.0, 1e20), f64::sqrt, Bound::Relative(2f64.powi(-23))),
        ("rsqrt.approx.f32", (1e-20, 1e3), |x| 1.0 / x.sqrt(), Bound::Relative(2f64.powf(-22.9))),
        ("sin.approx.f32", (-2.0 * pi, 2.0 * pi), f64::sin, Bound::Absolute(2f64.powf(-20.5))),
        ("cos.approx.f32", (-2.0 * pi, 2.0 * pi), f64::cos, Bound::Absolute(2f64.powf(-20.5))),
        ("sin.approx.ftz.f32", (-314.0, 314.0), f64::sin, Bound::Absolute(2f64.powf(-14.7))),
        ("tanh.approx.f32", (-9.0, 9.0), f64::tanh, Bound::Relative(2f64.powi(-11))),
    ];
    for (name, (low, high), truth, bound) in cases {
        let x = sample(low, high);
        let got = run(&format!("{name} %d, %a;"), &[("f32", &bits32(&x))], "f32");
        for row in 0..x.len() {
            let got = f32::from_bits(got[row] as u32);
            let truth = truth(x[row].into());
            let truth =
                if name.contains("ftz") { f64::from(flushed(truth as f32)).max(truth) } else { truth };
            assert!(within(got, truth, &bound), "{name} {:e}: {got:e}, truth {truth:e}", x[row]);
        }
    }
}

#[test]
fn approximate_divisions() {
    let values = f32_values();
    let (a, b) = pairs(&bits32(&values), &bits32(&values));
    let inputs: &[(&str, &Vec<u64>)] = &[("f32", &a), ("f32", &b)];
    let approx = run("div.approx.f32 %d, %a, %b;", inputs, "f32");
    let full = run("div.full.f32 %d, %a, %b;", inputs, "f32");
    for row in 0..a.len() {
        let (x, y) = (f32::from_bits(a[row] as u32), f32::from_bits(b[row] as u32));
        let truth = f64::from(x) / f64::from(y);
        let special = truth.is_nan() || !(x / y).is_normal();
        let (got, got_full) = (f32::from_bits(approx[row] as u32), f32::from_bits(full[row] as u32));
        assert!(
            if special { same_f32(full[row], x / y) } else { within(got_full, truth, &Bound::Ulp(2.0)) },
            "div.full {x:e} {y:e}: {got_full:e}"
        );
        let size = y.abs();
        if size > 2f32.powi(126) && size < INF {
            // The reciprocal is flushed: zero, or NaN for infinite (or NaN) numerators.
            assert!(if x.is_finite() { got == 0.0 } else { got.is_nan() }, "div.approx {x:e} {y:e}: {got:e}");
        } else if size >= f32::MIN_POSITIVE && !special {
            assert!(within(got, truth, &Bound::Ulp(2.0)), "div.approx {x:e} {y:e}: {got:e}");
        }
    }
}

#[test]
fn sixteen_bits() {
    let all: Vec<u64> = (0..=0xffff).collect();
    let (f16, bf16) = (Sixteen::f16(), Sixteen::bf16());
    let ex2 = run("ex2.approx.f16 %d, %a;", &[("b16", &all)], "b16");
    let ex2_bf16 = run("ex2.approx.ftz.bf16 %d, %a;", &[("b16", &all)], "b16");
    let tanh = run("tanh.approx.f16 %d, %a;", &[("b16", &all)], "b16");
    let tanh_bf16 = run("tanh.approx.bf16 %d, %a;", &[("b16", &all)], "b16");
    for bits in 0..=0xffffu16 {
        let row = usize::from(bits);
        let (h, b) = (f16.value(bits), bf16.value(bits));
        if h.is_nan() {
            assert_eq!((ex2[row], tanh[row]), (0x7fff, 0x7fff), "{bits:#x}");
        } else {
            let got = f16.value(ex2[row] as u16);
            let truth = h.exp2();
            if truth >= 65520.0 {
                assert_eq!(got, f64::INFINITY, "ex2.f16 {h}");
            } else if truth >= 2f64.powi(-14) {
                assert!((got - truth).abs() <= 2f64.powf(-9.9) * truth, "ex2.f16 {h}: {got}");
            } else {
                assert!((got - truth).abs() <= 2f64.powi(-24), "ex2.f16 {h}: {got}");
            }
            let got = f16.value(tanh[row] as u16);
            assert!((got - h.tanh()).abs() <= 2f64.powf(-10.987), "tanh.f16 {h}: {got}");
        }
        if b.is_nan() {
            assert_eq!((ex2_bf16[row], tanh_bf16[row]), (0x7fff, 0x7fff), "{bits:#x}");
        } else {
            let got = bf16.value(ex2_bf16[row] as u16);
            let truth = b.exp2();
            if truth < 2f64.powi(-126) {
                assert!(got == 0.0 || got == 2f64.powi(-126), "ex2.ftz.bf16 {b}: {got}");
            } else if truth < 3.38e38 {
                assert!((got - truth).abs() <= 2f64.powi(-7) * truth, "ex2.ftz.bf16 {b}: {got}");
            }
            let got = bf16.value(tanh_bf16[row] as u16);
            assert!((got - b.tanh()).abs() <= 2f64.powi(-8), "tanh.bf16 {b}: {got}");
        }
    }
    let packed: Vec<u64> = all.iter().map(|x| x | (0xffff - x) << 16).collect();
    let pairs = run("ex2.approx.f16x2 %d, %a;", &[("b32", &packed)], "b32");
    for row in 0..all.len() {
        assert_eq!(pairs[row], ex2[row] | ex2[0xffff - row] << 16, "ex2.approx.f16x2 {row:#x}");
    }
}
