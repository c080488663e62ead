//! `setp`, `set`, `selp`, `slct` on integers and floats.

use crate::common::{apply, number, ones, pairs, run, specials, triples};

/// All comparisons: name, whether it is for floats only, and its truth for less, equal, greater, unordered.
const COMPARISONS: [(&str, bool, [bool; 4]); 14] = [
    ("eq", false, [false, true, false, false]),
    ("ne", false, [true, false, true, false]),
    ("lt", false, [true, false, false, false]),
    ("le", false, [true, true, false, false]),
    ("gt", false, [false, false, true, false]),
    ("ge", false, [false, true, true, false]),
    ("equ", true, [false, true, false, true]),
    ("neu", true, [true, false, true, true]),
    ("ltu", true, [true, false, false, true]),
    ("leu", true, [true, true, false, true]),
    ("gtu", true, [false, false, true, true]),
    ("geu", true, [false, true, true, true]),
    ("num", true, [true, true, true, false]),
    ("nan", true, [false, false, false, true]),
];

fn outcome(order: Option<std::cmp::Ordering>) -> usize {
    order.map_or(3, |order| (order as i8 + 1) as usize)
}

#[test]
fn integers() {
    for (ty, bits, signed) in [
        ("u16", 16, false),
        ("s16", 16, true),
        ("u32", 32, false),
        ("s32", 32, true),
        ("u64", 64, false),
        ("s64", 64, true),
    ] {
        let (a, b) = pairs(&specials(bits), &specials(bits));
        for (name, _, truth) in COMPARISONS.iter().filter(|(_, float, _)| !float) {
            let text = format!("setp.{name}.{ty} %p, %a, %b;");
            for (k, got) in apply(&text, &[(bits, &a), (bits, &b)], 1).into_iter().enumerate() {
                let order = number(a[k], bits, signed).cmp(&number(b[k], bits, signed));
                assert_eq!(got & 1 != 0, truth[outcome(Some(order))], "{text} of {:#x}, {:#x}", a[k], b[k]);
            }
        }
    }
    let (a, b) = pairs(&specials(32), &specials(32));
    let got = apply("setp.hi.u32 %p, %a, %b;", &[(32, &a), (32, &b)], 1);
    assert!(got.iter().zip(a.iter().zip(&b)).all(|(got, (a, b))| (got & 1 != 0) == (a > b)));
}

#[test]
fn floats() {
    let f32s: Vec<u64> =
        [0.0f32, -0.0, 1.0, -1.0, 1e-40, -1e-40, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]
            .map(|x| x.to_bits() as u64)
            .to_vec();
    let f64s: Vec<u64> = [0.0f64, -0.0, 1.0, -2.5, 1e-310, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]
        .map(f64::to_bits)
        .to_vec();
    let f16s: Vec<u64> = vec![0, 0x8000, 0x3c00, 0xbc00, 1, 0x8001, 0x7c00, 0xfc00, 0x7e00];
    let bf16s: Vec<u64> = vec![0, 0x8000, 0x3f80, 0xbf80, 1, 0x7f80, 0xff80, 0x7fc0];
    let half = |x: u64| ptx_emulator::num::half::f16_to_f32(x as u16) as f64;
    let brain = |x: u64| f32::from_bits((x as u32) << 16) as f64;
    type Value<'a> = &'a dyn Fn(u64) -> f64;
    let cases: [(&str, u32, &[u64], Value<'_>); 4] = [
        ("f32", 32, &f32s, &|x| f32::from_bits(x as u32) as f64),
        ("f64", 64, &f64s, &f64::from_bits),
        ("f16", 16, &f16s, &half),
        ("bf16", 16, &bf16s, &brain),
    ];
    for (ty, bits, values, value) in cases {
        let (a, b) = pairs(values, values);
        for (name, _, truth) in COMPARISONS {
            let text = format!("setp.{name}.{ty} %p, %a, %b;");
            for (k, got) in apply(&text, &[(bits, &a), (bits, &b)], 1).into_iter().enumerate() {
                let want = truth[outcome(value(a[k]).partial_cmp(&value(b[k])))];
                assert_eq!(got & 1 != 0, want, "{text} of {:#x}, {:#x}", a[k], b[k]);
            }
        }
    }
    // `.ftz` makes the subnormals equal to zero.
    let (a, b) = pairs(&f32s, &f32s);
    let flush = |x: u64| {
        let x = f32::from_bits(x as u32);
        if x.is_subnormal() { 0.0 } else { x }
    };
    for (k, got) in apply("setp.lt.ftz.f32 %p, %a, %b;", &[(32, &a), (32, &b)], 1).into_iter().enumerate() {
        assert_eq!(got & 1 != 0, flush(a[k]) < flush(b[k]), "{:#x} {:#x}", a[k], b[k]);
    }
}

#[test]
fn combined_and_paired() {
    // p = (a < b) op !c, q = !(a < b) op !c
    for (op, f) in
        [("and", (|x, y| x & y) as fn(bool, bool) -> bool), ("or", |x, y| x | y), ("xor", |x, y| x ^ y)]
    {
        let (a, b, c) = triples(&[1, 2], &[1, 2, 3], &[0, 1]);
        for (second, flip) in [("%p", false), ("%q", true)] {
            let text = format!(
                "{{ .reg .pred %x, %y; setp.ne.u32 %x, %c, 0; setp.lt.{op}.s32 %p|%q, %a, %b, !%x;\n\
                 selp.b32 %s, 1, 0, {second}; setp.ne.u32 %p, %s, 0; }}"
            );
            for (k, got) in apply(&text, &[(32, &a), (32, &b), (32, &c)], 1).into_iter().enumerate() {
                let want = f((a[k] < b[k]) != flip, c[k] == 0);
                assert_eq!(got & 1 != 0, want, "{op} {second} {} {} {}", a[k], b[k], c[k]);
            }
        }
    }
}

#[test]
fn set_gives_numbers() {
    let (a, b) = pairs(&[1, 2], &[1, 2]);
    let both = [(32, a.as_slice()), (32, b.as_slice())];
    assert_eq!(apply("set.lt.u32.s32 %d, %a, %b;", &both, 32), [0, 0xffff_ffff, 0, 0]);
    let one = 1f32.to_bits() as u64;
    assert_eq!(apply("set.ge.f32.u32 %d, %a, %b;", &both, 32), [one, 0, one, one]);
    // Pairs of f16: 1.0 and 2.0.
    let x = [0x3c00_4000u64, 0x4000_3c00, 0x7e00_3c00];
    let y = [0x3c00_3c00u64, 0x3c00_3c00, 0x3c00_3c00];
    let both = [(32, &x[..]), (32, &y[..])];
    assert_eq!(apply("set.gt.u32.f16x2 %d, %a, %b;", &both, 32), [0x0000_ffff, 0xffff_0000, 0]);
    assert_eq!(apply("set.gtu.f16x2.f16x2 %d, %a, %b;", &both, 32), [0x0000_3c00, 0x3c00_0000, 0x3c00_0000]);
    let got = apply(
        "setp.gt.f16x2 %p|%q, %a, %b;\nselp.b32 %s, 2, 0, %q;\nselp.b32 %d, 1, 0, %p;\nor.b32 %d, %d, %s;",
        &both,
        32,
    );
    assert_eq!(got, [1, 2, 0]);
}

#[test]
fn selections() {
    let (a, b) = pairs(&specials(64), &[7]);
    let got = apply("setp.lt.u64 %p, %a, %b;\nselp.b64 %d, %a, %b, %p;", &[(64, &a), (64, &b)], 64);
    assert!(got.iter().zip(&a).all(|(got, a)| *got == (*a).min(7)));
    let got = apply("setp.lt.u64 %p, %a, %b;\nselp.b64 %d, %a, %b, !%p;", &[(64, &a), (64, &b)], 64);
    assert!(got.iter().zip(&a).all(|(got, a)| *got == (*a).max(7)));
    let c = specials(32);
    let (one, two) = (vec![1; c.len()], vec![2; c.len()]);
    let got = apply("slct.b32.s32 %d, %a, %b, %c;", &[(32, &one), (32, &two), (32, &c)], 32);
    assert!(got.iter().zip(&c).all(|(got, c)| *got == if (*c as i32) >= 0 { 1 } else { 2 }));
    let c = [0.0f32, -0.0, 1.0, -1.0, f32::NAN, -1e-40].map(|x| x.to_bits() as u64);
    let (one, two) = (vec![1; c.len()], vec![2; c.len()]);
    let columns = [(32, one.as_slice()), (32, two.as_slice()), (32, &c[..])];
    assert_eq!(apply("slct.b32.f32 %d, %a, %b, %c;", &columns, 32), [1, 1, 1, 2, 2, 2]);
    assert_eq!(apply("slct.ftz.b32.f32 %d, %a, %b, %c;", &columns, 32), [1, 1, 1, 2, 2, 1]);
    assert_eq!(ones(1), 1);
}

#[test]
fn predicate_logic() {
    // Bits of the lane as predicates; every operation, with negated sources.
    let text = "and.b32 %r1, %t, 1;\nsetp.eq.u32 %p1, %r1, 1;\nand.b32 %r1, %t, 2;\nsetp.eq.u32 %p2, %r1, 2;\n\
                and.pred %p3, %p1, %p2;\nor.pred %p4, %p1, %p2;\nxor.pred %p5, %p1, %p2;\nnot.pred %p6, %p1;\n\
                and.pred %p7, %p1, !%p2;\nmov.pred %p8, %p2;\nmov.pred %p9, 1;\n\
                selp.b32 %r2, 1, 0, %p3;\nselp.b32 %r3, 2, 0, %p4;\nselp.b32 %r4, 4, 0, %p5;\nselp.b32 %r5, 8, 0, %p6;\n\
                selp.b32 %r6, 16, 0, %p7;\nselp.b32 %r7, 32, 0, %p8;\nselp.b32 %r8, 64, 0, %p9;\n\
                or.b32 %r2, %r2, %r3;\nor.b32 %r2, %r2, %r4;\nor.b32 %r2, %r2, %r5;\nor.b32 %r2, %r2, %r6;\n\
                or.b32 %r2, %r2, %r7;\nor.b32 %r2, %r2, %r8;\nst.global.u32 [%at], %r2;";
    assert_eq!(run(text, 4, 4), [8 + 64, 2 + 4 + 16 + 64, 2 + 4 + 8 + 32 + 64, 1 + 2 + 32 + 64]);
}
