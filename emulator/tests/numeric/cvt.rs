//! `cvt` between floats and integers of every width.

use crate::harness::{pairs, run};
use crate::oracle::{MODES, Sixteen, bits32, f32_values, flushed, patterns, same_f32, same_f64, to_f32};

/// `.f64` numbers around the limits of the other types.
fn f64_values() -> Vec<f64> {
    let mut all: Vec<f64> = f32_values().into_iter().map(f64::from).collect();
    for x in
        [1e-46, 7.1e-46, 2.1e-45, 1e39, 3.402823469e38, 3.4028235677973366e38, 4e9, 1.8446744073709552e19]
    {
        all.extend([x, -x, x * (1.0 + f64::EPSILON), -x * (1.0 - f64::EPSILON)]);
    }
    all.extend([
        1.0 + f64::EPSILON,
        1.0 + f64::from(f32::EPSILON) / 2.0,
        9223372036854775807.0,
        127.5,
        255.5,
        -128.5,
    ]);
    all
}

/// Rounds to an integer as `.rni`, `.rzi`, `.rmi`, `.rpi` say.
fn integral(x: f64, mode: &str) -> f64 {
    match mode {
        "rni" => x.round_ties_even(),
        "rzi" => x.trunc(),
        "rmi" => x.floor(),
        _ => x.ceil(),
    }
}

/// Range of an integer type, and its width.
fn range(ty: &str) -> (i128, i128, u32) {
    let width: u32 = ty[1..].parse().expect("a width");
    if ty.starts_with('s') {
        (-(1 << (width - 1)), (1 << (width - 1)) - 1, width)
    } else {
        (0, (1 << width) - 1, width)
    }
}

const INTEGERS: [&str; 8] = ["u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64"];

/// The register that holds an integer of this type.
fn register(width: u32) -> &'static str {
    match width {
        8 | 16 => "b16",
        32 => "b32",
        _ => "b64",
    }
}

/// Sign- or zero-extends to the register's width.
fn in_register(value: i128, width: u32) -> u64 {
    let bits = if width == 8 { 16 } else { width };
    (value as u64) & (u64::MAX >> (64 - bits))
}

#[test]
fn floats_to_integers() {
    let f16 = Sixteen::f16();
    let sources: [(&str, &str, Vec<u64>, Vec<f64>); 3] = [
        ("f16", "b16", patterns(), patterns().iter().map(|&x| f16.value(x as u16)).collect()),
        ("f32", "f32", bits32(&f32_values()), f32_values().into_iter().map(f64::from).collect()),
        ("f64", "f64", f64_values().iter().map(|x| x.to_bits()).collect(), f64_values()),
    ];
    for ty in INTEGERS {
        let (low, high, width) = range(ty);
        for (from, from_register, bits, values) in &sources {
            for mode in ["rni", "rzi", "rmi", "rpi"] {
                let text = format!("cvt.{mode}.{ty}.{from} %d, %a;");
                let got = run(&text, &[(from_register, bits)], register(width));
                for (row, &x) in values.iter().enumerate() {
                    let want = if x.is_nan() {
                        // PTX ISA, cvt: zero, unless the source is .f64 or the destination has 64 bits.
                        if *from == "f64" || width == 64 { 1i128 << (width - 1) } else { 0 }
                    } else {
                        (integral(x, mode) as i128).clamp(low, high)
                    };
                    let want = match (x.is_nan(), width) {
                        // Which bits lie above an 8-bit NaN result is not said.
                        (true, 8) => continue,
                        _ => in_register(want, width),
                    };
                    assert_eq!(got[row], want, "{text} {x:e}");
                }
            }
        }
    }
}

#[test]
fn integers_to_floats() {
    let f16 = Sixteen::f16();
    for ty in INTEGERS {
        let (low, high, width) = range(ty);
        let mut values: Vec<i128> =
            vec![0, 1, 2, 3, 100, 127, 128, 255, 2047, 2049, 2051, 65504, 65519, 65520];
        for shift in [11, 16, 24, 31, 32, 52, 53, 62, 63] {
            for near in -3..=3 {
                values.push((1i128 << shift) + near);
                values.push((1i128 << shift) + (1 << (shift / 2)) + near);
            }
        }
        values.extend(values.clone().iter().map(|x| -x));
        values.extend([low, high, high - 1, high / 2, high / 3]);
        values.retain(|x| (low..=high).contains(x));
        let bits: Vec<u64> = values.iter().map(|&x| in_register(x, width)).collect();
        for mode in MODES {
            let inputs: &[(&str, &Vec<u64>)] = &[(register(width), &bits)];
            let to_f32 = run(&format!("cvt.{mode}.f32.{ty} %d, %a;"), inputs, "f32");
            let to_f64 = run(&format!("cvt.{mode}.f64.{ty} %d, %a;"), inputs, "f64");
            let to_f16 = run(&format!("cvt.{mode}.f16.{ty} %d, %a;"), inputs, "b16");
            for (row, &x) in values.iter().enumerate() {
                let got = f32::from_bits(to_f32[row] as u32);
                check_integer(&format!("{mode}.f32.{ty}"), x, mode, got.into(), x as f32 == got, |up| {
                    if up { got.next_up().into() } else { got.next_down().into() }
                });
                let got = f64::from_bits(to_f64[row]);
                check_integer(&format!("{mode}.f64.{ty}"), x, mode, got, x as f64 == got, |up| {
                    if up { got.next_up() } else { got.next_down() }
                });
                // Numbers beyond f64's 53 bits are all far above f16's range.
                assert_eq!(to_f16[row], f16.round(x as f64, mode).into(), "{mode}.f16.{ty} {x}");
            }
        }
    }
}

/// Checks a rounded integer by comparing with the result's neighbours, as integers.
fn check_integer(
    what: &str,
    x: i128,
    mode: &str,
    got: f64,
    is_nearest: bool,
    neighbour: impl Fn(bool) -> f64,
) {
    assert!(!(got == 0.0 && got.is_sign_negative()), "{what} {x}: a negative zero");
    if x == 0 {
        return assert_eq!(got, 0.0, "{what} 0");
    }
    let down = match mode {
        "rn" => return assert!(is_nearest, "{what} {x}: {got}"),
        "rm" => true,
        "rp" => false,
        _ => x > 0,
    };
    if down {
        assert!(got as i128 <= x && (neighbour(true).ceil() as i128) > x, "{what} {x}: {got}");
    } else {
        assert!(got as i128 >= x && (neighbour(false).floor() as i128) < x, "{what} {x}: {got}");
    }
}

#[test]
fn between_float_widths() {
    let values = f64_values();
    let bits: Vec<u64> = values.iter().map(|x| x.to_bits()).collect();
    let (f16, bf16) = (Sixteen::f16(), Sixteen::bf16());
    for mode in MODES {
        let narrow = run(&format!("cvt.{mode}.f32.f64 %d, %a;"), &[("f64", &bits)], "f32");
        let half = run(&format!("cvt.{mode}.f16.f64 %d, %a;"), &[("f64", &bits)], "b16");
        for (row, &x) in values.iter().enumerate() {
            let want = to_f32(x, mode);
            assert!(
                same_f32(narrow[row], want),
                "cvt.{mode}.f32.f64 {x:e}: {:#x}, want {want:e}",
                narrow[row]
            );
            assert_eq!(half[row], f16.round(x, mode).into(), "cvt.{mode}.f16.f64 {x:e}");
        }
        let singles = f32_values();
        let half = run(&format!("cvt.{mode}.f16.f32 %d, %a;"), &[("f32", &bits32(&singles))], "b16");
        for (row, &x) in singles.iter().enumerate() {
            assert_eq!(half[row], f16.round(x.into(), mode).into(), "cvt.{mode}.f16.f32 {x:e}");
        }
    }
    for mode in ["rn", "rz"] {
        let singles = f32_values();
        let got = run(&format!("cvt.{mode}.bf16.f32 %d, %a;"), &[("f32", &bits32(&singles))], "b16");
        for (row, &x) in singles.iter().enumerate() {
            assert_eq!(got[row], bf16.round(x.into(), mode).into(), "cvt.{mode}.bf16.f32 {x:e}");
        }
    }
    let singles = f32_values();
    let wide = run("cvt.f64.f32 %d, %a;", &[("f32", &bits32(&singles))], "f64");
    let flushing = run("cvt.rn.ftz.f16.f32 %d, %a;", &[("f32", &bits32(&singles))], "b16");
    for (row, &x) in singles.iter().enumerate() {
        assert!(same_f64(wide[row], x.into()), "cvt.f64.f32 {x:e}");
        assert_eq!(flushing[row], f16.round(flushed(x).into(), "rn").into(), "cvt.rn.ftz.f16.f32 {x:e}");
    }
    let all: Vec<u64> = (0..=0xffff).collect();
    let wide = run("cvt.f32.f16 %d, %a;", &[("b16", &all)], "f32");
    for x in 0..=0xffffu16 {
        assert!(same_f32(wide[usize::from(x)], f16.value(x) as f32), "cvt.f32.f16 {x:#x}");
    }
}

#[test]
fn packed_pairs() {
    let values = f32_values();
    let (a, b) = pairs(&bits32(&values), &bits32(&values));
    for (name, format) in [("f16x2", Sixteen::f16()), ("bf16x2", Sixteen::bf16())] {
        for mode in ["rn", "rz"] {
            for relu in ["", ".relu"] {
                let text = format!("cvt.{mode}{relu}.{name}.f32 %d, %a, %b;");
                let got = run(&text, &[("f32", &a), ("f32", &b)], "b32");
                let half = |bits: u64| {
                    let x = f32::from_bits(bits as u32);
                    if !relu.is_empty() && x.is_sign_negative() && !x.is_nan() {
                        return 0;
                    }
                    u64::from(format.round(x.into(), mode))
                };
                for row in 0..a.len() {
                    // The first operand goes to the upper half.
                    let want = half(a[row]) << 16 | half(b[row]);
                    assert_eq!(got[row], want, "{text} {:#x} {:#x}", a[row], b[row]);
                }
            }
        }
    }
}

#[test]
fn integral_floats_and_saturation() {
    let values = f32_values();
    let bits = bits32(&values);
    for mode in ["rni", "rzi", "rmi", "rpi"] {
        let got = run(&format!("cvt.{mode}.f32.f32 %d, %a;"), &[("f32", &bits)], "f32");
        for (row, &x) in values.iter().enumerate() {
            assert!(same_f32(got[row], integral(x.into(), mode) as f32), "cvt.{mode}.f32.f32 {x:e}");
        }
    }
    let got = run("cvt.sat.f32.f32 %d, %a;", &[("f32", &bits)], "f32");
    for (row, &x) in values.iter().enumerate() {
        let want = if x > 0.0 { x.min(1.0) } else { 0.0 };
        assert_eq!(got[row] as u32, want.to_bits(), "cvt.sat.f32.f32 {x:e}");
    }
}

#[test]
fn tf32() {
    let mut values = f32_values();
    for low in [0xfff, 0x1000, 0x1001, 0x1fff, 0x2fff, 0x3000] {
        values.extend(
            [1, 0x3f80_0000, 0xbf80_0000u32, 0x7f7f_e000, 0x0040_0000].map(|x| f32::from_bits(x | low)),
        );
    }
    let got = run("cvt.rna.tf32.f32 %d, %a;", &[("f32", &bits32(&values))], "b32");
    for (row, &x) in values.iter().enumerate() {
        let want = if x.is_nan() {
            0x7fff_ffff
        } else if x.is_infinite() || x == 0.0 {
            x.to_bits()
        } else {
            // Ten fraction bits; `round` takes ties away from zero.
            let exponent = x.abs().max(f32::MIN_POSITIVE).log2().floor() as i32;
            let exponent = if 2f64.powi(exponent) > f64::from(x.abs()).max(2f64.powi(-126)) {
                exponent - 1
            } else {
                exponent
            };
            let place = 2f64.powi(exponent - 10);
            (((f64::from(x) / place).round() * place) as f32).to_bits()
        };
        assert_eq!(got[row] as u32, want, "cvt.rna.tf32.f32 {x:e} {:#x}", x.to_bits());
    }
}
