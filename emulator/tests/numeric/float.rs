//! `.f32` and `.f64` arithmetic.

use crate::harness::{pairs, run, triples};
use crate::oracle::{MODES, bits32, f32_values, flushed, same_f32, same_f64, to_f32};

/// A sum, rounded to f32 once, with IEEE 754's sign of an exact zero; not for `.rn`.
fn rounded_sum(a: f64, b: f64, mode: &str) -> f32 {
    let sum = a + b;
    let b_part = sum - a;
    let lost = (a - (sum - b_part)) + (b - b_part);
    let like_zeros = a == 0.0 && a.to_bits() == b.to_bits();
    if sum == 0.0 && mode == "rm" && !like_zeros {
        return -0.0;
    }
    // Between two f32 it does not matter what f64 lost; at an f32 only the side does.
    let at_f32 = f64::from(sum as f32) == sum;
    match lost {
        _ if !at_f32 => to_f32(sum, mode),
        l if l > 0.0 => to_f32(sum.next_up(), mode),
        l if l < 0.0 => to_f32(sum.next_down(), mode),
        _ => to_f32(sum, mode),
    }
}

fn at(values: &[u64], row: usize) -> f32 {
    f32::from_bits(values[row] as u32)
}

#[test]
fn add_sub_mul_f32_in_every_mode() {
    let values = bits32(&f32_values());
    let (a, b) = pairs(&values, &values);
    for mode in MODES {
        for ftz in ["", ".ftz"] {
            let operand = |x: f32| f64::from(if ftz.is_empty() { x } else { flushed(x) });
            let result = |x: f32| if ftz.is_empty() { x } else { flushed(x) };
            for op in ["add", "sub", "mul"] {
                let text = format!("{op}.{mode}{ftz}.f32 %d, %a, %b;");
                let got = run(&text, &[("f32", &a), ("f32", &b)], "f32");
                for row in 0..a.len() {
                    let (x, y) = (operand(at(&a, row)), operand(at(&b, row)));
                    let want = match (op, mode) {
                        ("add", "rn") => (x + y) as f32,
                        ("sub", "rn") => (x - y) as f32,
                        ("add", _) => rounded_sum(x, y, mode),
                        ("sub", _) => rounded_sum(x, -y, mode),
                        _ => to_f32(x * y, mode),
                    };
                    assert!(
                        same_f32(got[row], result(want)),
                        "{text} {x:e} {y:e}: {:#x}, want {want:e}",
                        got[row]
                    );
                }
            }
        }
    }
}

#[test]
fn spellings_without_a_mode_round_to_nearest() {
    let values = bits32(&f32_values());
    let (a, b) = pairs(&values, &values);
    for (op, f) in
        [("add", (|x, y| x + y) as fn(f32, f32) -> f32), ("sub", |x, y| x - y), ("mul", |x, y| x * y)]
    {
        let got = run(&format!("{op}.f32 %d, %a, %b;"), &[("f32", &a), ("f32", &b)], "f32");
        let sat = run(&format!("{op}.ftz.sat.f32 %d, %a, %b;"), &[("f32", &a), ("f32", &b)], "f32");
        for row in 0..a.len() {
            let (x, y) = (at(&a, row), at(&b, row));
            assert!(same_f32(got[row], f(x, y)), "{op} {x:e} {y:e}");
            let want = flushed(f(flushed(x), flushed(y)));
            let want = if want.is_nan() || want <= 0.0 { 0.0 } else { want.min(1.0) };
            assert_eq!(sat[row] as u32, want.to_bits(), "{op}.ftz.sat {x:e} {y:e}");
        }
    }
}

#[test]
fn fma_f32_in_every_mode() {
    let values: Vec<f32> = f32_values().into_iter().step_by(2).collect();
    let (a, b, c) = triples(&bits32(&values));
    for mode in MODES {
        let text = format!("fma.{mode}.f32 %d, %a, %b, %c;");
        let got = run(&text, &[("f32", &a), ("f32", &b), ("f32", &c)], "f32");
        for row in 0..a.len() {
            let (x, y, z) = (at(&a, row), at(&b, row), at(&c, row));
            let product = f64::from(x) * f64::from(y);
            let want = if mode == "rn" { x.mul_add(y, z) } else { rounded_sum(product, z.into(), mode) };
            assert!(same_f32(got[row], want), "{text} {x:e} {y:e} {z:e}: {:#x}, want {want:e}", got[row]);
        }
    }
}

#[test]
fn division_and_roots_in_every_mode() {
    let values = f32_values();
    let (a, b) = pairs(&bits32(&values), &bits32(&values));
    for mode in MODES {
        let quotients = run(&format!("div.{mode}.f32 %d, %a, %b;"), &[("f32", &a), ("f32", &b)], "f32");
        for row in 0..a.len() {
            let (x, y) = (at(&a, row), at(&b, row));
            check_quotient(&format!("div.{mode}"), x, y, f32::from_bits(quotients[row] as u32), mode);
        }
        let bits = bits32(&values);
        let reciprocals = run(&format!("rcp.{mode}.f32 %d, %a;"), &[("f32", &bits)], "f32");
        let roots = run(&format!("sqrt.{mode}.f32 %d, %a;"), &[("f32", &bits)], "f32");
        for (row, &x) in values.iter().enumerate() {
            check_quotient(&format!("rcp.{mode}"), 1.0, x, f32::from_bits(reciprocals[row] as u32), mode);
            let got = f32::from_bits(roots[row] as u32);
            let near = x.sqrt();
            if near.is_nan() || near.is_infinite() || near == 0.0 {
                assert!(same_f32(roots[row], near), "sqrt.{mode} {x:e}");
                continue;
            }
            // Squares of f32 are exact in f64: the neighbours bracket x.
            let square = |r: f32| f64::from(r) * f64::from(r);
            match mode {
                "rn" => assert_eq!(got, near, "sqrt.rn {x:e}"),
                "rp" => {
                    assert!(
                        square(got) >= x.into() && square(got.next_down()) < x.into(),
                        "sqrt.rp {x:e} {got:e}"
                    )
                }
                _ => assert!(
                    square(got) <= x.into() && square(got.next_up()) > x.into(),
                    "sqrt.{mode} {x:e} {got:e}"
                ),
            }
        }
    }
}

/// Checks `x / y` by multiplying back, which is exact in f64.
fn check_quotient(what: &str, x: f32, y: f32, got: f32, mode: &str) {
    let near = x / y;
    if near.is_nan() || x.is_infinite() || y.is_infinite() || x == 0.0 || y == 0.0 {
        assert!(same_f32(got.to_bits().into(), near), "{what} {x:e} / {y:e}: {got:e}, want {near:e}");
        return;
    }
    if mode == "rn" {
        assert_eq!(got.to_bits(), near.to_bits(), "{what} {x:e} / {y:e}");
        return;
    }
    let negative = (x < 0.0) != (y < 0.0);
    assert_eq!(got.is_sign_negative(), negative, "{what} {x:e} / {y:e}: sign");
    let away = match mode {
        "rz" => false,
        "rm" => negative,
        _ => !negative,
    };
    // |got| is the largest that, multiplied back, is not above |x|, or the smallest not below.
    let back = |q: f32| f64::from(q.abs()) * f64::from(y.abs());
    let (got, x_size) = (got.abs(), f64::from(x.abs()));
    if away {
        assert!(got.is_infinite() || back(got) >= x_size, "{what} {x:e} / {y:e}: {got:e} too small");
        assert!(got == 0.0 || back(got.next_down()) < x_size, "{what} {x:e} / {y:e}: {got:e} too large");
    } else {
        assert!(back(got) <= x_size, "{what} {x:e} / {y:e}: {got:e} too large");
        assert!(got == f32::MAX || back(got.next_up()) > x_size, "{what} {x:e} / {y:e}: {got:e} too small");
    }
}

#[test]
fn extremes_signs_and_comparisons() {
    let values = bits32(&f32_values());
    let (a, b) = pairs(&values, &values);
    let inputs: &[(&str, &Vec<u64>)] = &[("f32", &a), ("f32", &b)];
    for (op, take_first) in [("max", (|x, y| x > y) as fn(f32, f32) -> bool), ("min", |x, y| x < y)] {
        let plain = run(&format!("{op}.f32 %d, %a, %b;"), inputs, "f32");
        let strict = run(&format!("{op}.NaN.f32 %d, %a, %b;"), inputs, "f32");
        for row in 0..a.len() {
            let (x, y) = (at(&a, row), at(&b, row));
            let want = match (x.is_nan(), y.is_nan()) {
                (true, true) => 0x7fff_ffff,
                (true, false) => y.to_bits(),
                (false, true) => x.to_bits(),
                // −0 is below +0.
                _ if x == 0.0 && y == 0.0 => {
                    let x_below = x.is_sign_negative() && !y.is_sign_negative();
                    if x_below == (op == "min") { x.to_bits() } else { y.to_bits() }
                }
                _ if take_first(x, y) => x.to_bits(),
                _ => y.to_bits(),
            };
            assert_eq!(plain[row] as u32, want, "{op} {x:e} {y:e}");
            let want = if x.is_nan() || y.is_nan() { 0x7fff_ffff } else { want };
            assert_eq!(strict[row] as u32, want, "{op}.NaN {x:e} {y:e}");
        }
    }
    for (compare, want) in [
        ("eq", (|x, y| x == y) as fn(f32, f32) -> bool),
        ("ne", |x, y| x < y || x > y),
        ("lt", |x, y| x < y),
        ("le", |x, y| x <= y),
        ("gt", |x, y| x > y),
        ("ge", |x, y| x >= y),
        ("equ", |x, y| !(x < y || x > y)),
        ("neu", |x, y| x != y),
        ("ltu", |x, y| !(x >= y)),
        ("leu", |x, y| !(x > y)),
        ("gtu", |x, y| !(x <= y)),
        ("geu", |x, y| !(x < y)),
        ("num", |x, y| !x.is_nan() && !y.is_nan()),
        ("nan", |x, y| x.is_nan() || y.is_nan()),
    ] {
        let text = format!("setp.{compare}.f32 %p, %a, %b; selp.b32 %d, 1, 0, %p;");
        let got = run(&text, inputs, "b32");
        for row in 0..a.len() {
            let (x, y) = (at(&a, row), at(&b, row));
            assert_eq!(got[row] == 1, want(x, y), "{text} {x:e} {y:e}");
        }
    }
    let negated = run("neg.f32 %d, %a;", &[("f32", &values)], "f32");
    let sizes = run("abs.ftz.f32 %d, %a;", &[("f32", &values)], "f32");
    for (row, &x) in values.iter().enumerate() {
        let x = f32::from_bits(x as u32);
        assert!(same_f32(negated[row], -x), "neg {x:e}");
        assert!(same_f32(sizes[row], flushed(x).abs()), "abs.ftz {x:e}");
    }
}

#[test]
fn f64_arithmetic() {
    let values: Vec<u64> = [
        0.0,
        -0.0,
        1.0,
        -3.0,
        1.0 / 3.0,
        1e300,
        -1e-300,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        f64::INFINITY,
        f64::NAN,
        1.0 + f64::EPSILON,
        9007199254740993.0,
    ]
    .map(f64::to_bits)
    .to_vec();
    let (a, b) = pairs(&values, &values);
    let at = |values: &[u64], row: usize| f64::from_bits(values[row]);
    for (op, f) in [
        ("add", (|x, y| x + y) as fn(f64, f64) -> f64),
        ("sub", |x, y| x - y),
        ("mul", |x, y| x * y),
        ("div.rn", |x, y| x / y),
    ] {
        let got = run(&format!("{op}.f64 %d, %a, %b;"), &[("f64", &a), ("f64", &b)], "f64");
        for row in 0..a.len() {
            let (x, y) = (at(&a, row), at(&b, row));
            assert!(same_f64(got[row], f(x, y)), "{op} {x:e} {y:e}");
        }
    }
    let (a, b, c) = triples(&values);
    let got = run("fma.rn.f64 %d, %a, %b, %c;", &[("f64", &a), ("f64", &b), ("f64", &c)], "f64");
    for row in 0..a.len() {
        let (x, y, z) = (at(&a, row), at(&b, row), at(&c, row));
        assert!(same_f64(got[row], x.mul_add(y, z)), "fma {x:e} {y:e} {z:e}");
    }
    // Directed modes, by hand: one more than 1 is lost below the last place.
    let (one, tiny) = (vec![1f64.to_bits()], vec![1e-300f64.to_bits()]);
    let up = 1.0 + f64::EPSILON;
    let down = 1.0 - f64::EPSILON / 2.0;
    for (text, want) in [
        ("add.rp.f64 %d, %a, %b;", up),
        ("add.rz.f64 %d, %a, %b;", 1.0),
        ("sub.rz.f64 %d, %a, %b;", down),
        ("sub.rm.f64 %d, %a, %b;", down),
        ("sub.rp.f64 %d, %a, %b;", 1.0),
        ("mul.rm.f64 %d, %a, %b;", 1e-300),
        ("fma.rp.f64 %d, %a, %a, %b;", up),
        ("div.rz.f64 %d, %b, %a;", 1e-300),
    ] {
        let got = run(text, &[("f64", &one), ("f64", &tiny)], "f64");
        assert_eq!(f64::from_bits(got[0]), want, "{text}");
    }
}
