//! `.f16`, `.f16x2`, `.bf16`, `.bf16x2` arithmetic.

use crate::harness::{pairs, run, triples};
use crate::oracle::{Sixteen, patterns};

fn packed(low: u64, high: u64) -> u64 {
    low | high << 16
}

/// The operation on both halves, the second with its rows reversed, so that mixing up halves shows.
fn run_x2(text: &str, columns: &[&Vec<u64>]) -> Vec<(u64, u64)> {
    let doubled: Vec<Vec<u64>> =
        columns.iter().map(|c| c.iter().zip(c.iter().rev()).map(|(&x, &y)| packed(x, y)).collect()).collect();
    let inputs: Vec<(&str, &Vec<u64>)> = doubled.iter().map(|c| ("b32", c)).collect();
    run(text, &inputs, "b32").into_iter().map(|d| (d & 0xffff, d >> 16)).collect()
}

fn flushed(format: &Sixteen, bits: u64) -> u64 {
    if format.subnormal(bits as u16) { bits & 0x8000 } else { bits }
}

fn saturated(x: u16) -> u16 {
    // NaN, −0 and below give +0.
    if x > 0x7c00 { 0 } else { x.min(0x3c00) }
}

fn rectified(x: u16, nan: bool) -> u16 {
    if nan {
        0x7fff
    } else if x >> 15 == 1 {
        0
    } else {
        x
    }
}

#[test]
fn f16_sums_and_products_with_every_modifier() {
    let f16 = Sixteen::f16();
    let (a, b) = pairs(&patterns(), &patterns());
    for op in ["add", "sub", "mul"] {
        for (ftz, sat) in [("", ""), (".ftz", ""), ("", ".sat"), (".ftz", ".sat")] {
            let want = |x: u64, y: u64| {
                let operand = |x| f16.value(if ftz.is_empty() { x } else { flushed(f16, x) } as u16);
                let (x, y) = (operand(x), operand(y));
                // Sums of f16 have at most 41 bits, products 22.
                let exact = match op {
                    "add" => x + y,
                    "sub" => x - y,
                    _ => x * y,
                };
                let rounded = f16.round(exact, "rn");
                let rounded = if ftz.is_empty() { rounded } else { flushed(f16, rounded.into()) as u16 };
                u64::from(if sat.is_empty() { rounded } else { saturated(rounded) })
            };
            let text = format!("{op}{ftz}{sat}.f16 %d, %a, %b;");
            let got = run(&text, &[("b16", &a), ("b16", &b)], "b16");
            let text_x2 = format!("{op}.rn{ftz}{sat}.f16x2 %d, %a, %b;");
            let got_x2 = run_x2(&text_x2, &[&a, &b]);
            let rows = a.len();
            for row in 0..rows {
                let (x, y) = (a[row], b[row]);
                assert_eq!(got[row], want(x, y), "{text} {x:#x} {y:#x}");
                let other = rows - 1 - row;
                assert_eq!(got_x2[row], (want(x, y), want(a[other], b[other])), "{text_x2} row {row}");
            }
        }
    }
}

#[test]
fn fma_rounds_once() {
    for (name, format) in [("f16", Sixteen::f16()), ("bf16", Sixteen::bf16())] {
        let (a, b, c) = triples(&patterns().into_iter().step_by(2).collect::<Vec<_>>());
        for modifier in ["", ".ftz", ".sat", ".relu"] {
            if name == "bf16" && (modifier == ".ftz" || modifier == ".sat") {
                continue;
            }
            let want = |x: u64, y: u64, z: u64| {
                let operand =
                    |x| format.value(if modifier == ".ftz" { flushed(format, x) } else { x } as u16);
                let product = operand(x) * operand(y);
                let sum = product + operand(z);
                // f64 loses something only where the smaller term is below every place that counts; a hint of it decides
                // ties, and the larger term alone is no tie, being a 16-bit number or a product far above.
                let rounded = format.round(sum, "rn");
                u64::from(match modifier {
                    ".ftz" => flushed(format, rounded.into()) as u16,
                    ".sat" => saturated(rounded),
                    ".relu" => rectified(rounded, sum.is_nan()),
                    _ => rounded,
                })
            };
            let text = format!("fma.rn{modifier}.{name} %d, %a, %b, %c;");
            let got = run(&text, &[("b16", &a), ("b16", &b), ("b16", &c)], "b16");
            let text_x2 = format!("fma.rn{modifier}.{name}x2 %d, %a, %b, %c;");
            let got_x2 = run_x2(&text_x2, &[&a, &b, &c]);
            let rows = a.len();
            for row in 0..rows {
                let (x, y, z) = (a[row], b[row], c[row]);
                // A bf16 product may be a tie that a term 100 places below decides: f64 cannot tell.
                let (product, term) =
                    (format.value(x as u16) * format.value(y as u16), format.value(z as u16));
                let decided = product == 0.0 || term == 0.0 || (product / term).abs() < 2f64.powi(36);
                if !decided {
                    continue;
                }
                assert_eq!(got[row], want(x, y, z), "{text} {x:#x} {y:#x} {z:#x}");
                assert_eq!(got_x2[row].0, got[row], "{text_x2} {x:#x} {y:#x} {z:#x}");
                assert_eq!(got_x2[rows - 1 - row].1, got[row], "{text_x2} {x:#x} {y:#x} {z:#x}");
            }
        }
    }
}

#[test]
fn a_tiny_term_decides_a_tie() {
    // A tie by construction: (1 + 2^-5)(1 + 2^-6) = 1 + 3·2^-6 + 2^-11.
    let (a, b) = (0x3c20u64, 0x3c10u64);
    for (c, want) in [(0u64, 0x3c30), (1, 0x3c31), (0x8001, 0x3c30)] {
        let got = run(
            "fma.rn.f16 %d, %a, %b, %c;",
            &[("b16", &vec![a]), ("b16", &vec![b]), ("b16", &vec![c])],
            "b16",
        );
        assert_eq!(got[0], want, "{c:#x}");
    }
    // The same in bf16, (1 + 2^-3)(1 + 2^-5) = 1 + 5·2^-5 + 2^-8, with the smallest subnormal, far below f64's reach.
    let (a, b) = (0x3f90u64, 0x3f84u64);
    for (c, want) in [(0u64, 0x3f94), (1, 0x3f95), (0x8001, 0x3f94)] {
        let got = run(
            "fma.rn.bf16 %d, %a, %b, %c;",
            &[("b16", &vec![a]), ("b16", &vec![b]), ("b16", &vec![c])],
            "b16",
        );
        assert_eq!(got[0], want, "{c:#x}");
    }
}

#[test]
fn extremes_signs_and_comparisons() {
    for (name, format) in [("f16", Sixteen::f16()), ("bf16", Sixteen::bf16())] {
        let values = patterns();
        let (a, b) = pairs(&values, &values);
        for op in ["max", "min"] {
            for nan in ["", ".NaN"] {
                let want = |x: u64, y: u64| {
                    let (vx, vy) = (format.value(x as u16), format.value(y as u16));
                    match (vx.is_nan(), vy.is_nan()) {
                        (true, true) => 0x7fff,
                        (true, _) | (_, true) if !nan.is_empty() => 0x7fff,
                        (true, false) => y,
                        (false, true) => x,
                        _ => {
                            let x_below = vx < vy || (vx == vy && x >> 15 == 1);
                            if x_below == (op == "min") { x } else { y }
                        }
                    }
                };
                let text = format!("{op}{nan}.{name} %d, %a, %b;");
                let got = run(&text, &[("b16", &a), ("b16", &b)], "b16");
                let got_x2 = run_x2(&format!("{op}{nan}.{name}x2 %d, %a, %b;"), &[&a, &b]);
                for row in 0..a.len() {
                    assert_eq!(got[row], want(a[row], b[row]), "{text} {:#x} {:#x}", a[row], b[row]);
                    assert_eq!(got_x2[row].0, got[row], "{text} x2");
                    assert_eq!(got_x2[a.len() - 1 - row].1, got[row], "{text} x2");
                }
            }
        }
        let negated = run(&format!("neg.{name} %d, %a;"), &[("b16", &values)], "b16");
        let sizes = run_x2(&format!("abs.{name}x2 %d, %a;"), &[&values]);
        for (row, &x) in values.iter().enumerate() {
            if !format.value(x as u16).is_nan() {
                assert_eq!(negated[row], x ^ 0x8000, "neg.{name} {x:#x}");
                assert_eq!(sizes[row].0, x & 0x7fff, "abs.{name}x2 {x:#x}");
            }
        }
    }
    let f16 = Sixteen::f16();
    let (a, b) = pairs(&patterns(), &patterns());
    for (compare, want) in [
        ("eq", (|x, y| x == y) as fn(f64, f64) -> bool),
        ("lt", |x, y| x < y),
        ("geu", |x, y| !(x < y)),
        ("nan", |x, y| x.is_nan() || y.is_nan()),
    ] {
        let text = format!("setp.{compare}.f16 %p, %a, %b; selp.b32 %d, 1, 0, %p;");
        let got = run(&text, &[("b16", &a), ("b16", &b)], "b32");
        for row in 0..a.len() {
            let (x, y) = (f16.value(a[row] as u16), f16.value(b[row] as u16));
            assert_eq!(got[row] == 1, want(x, y), "{text} {x:e} {y:e}");
        }
    }
}
