//! Integer arithmetic, logic, shifts and bit fields against 128-bit integers.

use crate::common::{apply, number, ones, pairs, specials, triples};

const TYPES: [(&str, u32, bool); 6] = [
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

/// Checks `d = op(a)`.
fn one(text: &str, bits: u32, result: u32, want: impl Fn(u64) -> u64) {
    let a = specials(bits);
    for (x, got) in a.iter().zip(apply(text, &[(bits, &a)], result)) {
        assert_eq!(got & ones(result), want(*x) & ones(result), "{text} of {x:#x}");
    }
}

/// Checks `d = op(a, b)`.
fn two(text: &str, bits: [u32; 2], result: u32, want: impl Fn(u64, u64) -> u64) {
    let (a, b) = pairs(&specials(bits[0]), &specials(bits[1]));
    let got = apply(text, &[(bits[0], &a), (bits[1], &b)], result);
    for ((x, y), got) in a.iter().zip(&b).zip(got) {
        assert_eq!(got & ones(result), want(*x, *y) & ones(result), "{text} of {x:#x}, {y:#x}");
    }
}

/// Checks `d = op(a, b, c)`.
fn three(text: &str, bits: [u32; 3], result: u32, want: impl Fn(u64, u64, u64) -> u64) {
    let some = |bits| -> Vec<u64> { specials(bits).into_iter().step_by(2).chain([ones(bits)]).collect() };
    let (a, b, c) = triples(&some(bits[0]), &some(bits[1]), &some(bits[2]));
    let got = apply(text, &[(bits[0], &a), (bits[1], &b), (bits[2], &c)], result);
    for (k, got) in got.into_iter().enumerate() {
        let want = want(a[k], b[k], c[k]) & ones(result);
        assert_eq!(got & ones(result), want, "{text} of {:#x}, {:#x}, {:#x}", a[k], b[k], c[k]);
    }
}

#[test]
fn arithmetic_of_two() {
    for (ty, bits, signed) in TYPES {
        let n = |x| number(x, bits, signed);
        let two = |op: &str, want: &dyn Fn(i128, i128) -> i128| {
            two(&format!("{op}.{ty} %d, %a, %b;"), [bits, bits], bits, |x, y| want(n(x), n(y)) as u64);
        };
        two("add", &|x, y| x + y);
        two("sub", &|x, y| x - y);
        two("mul.lo", &|x, y| x.wrapping_mul(y));
        two("mul.hi", &|x, y| {
            if signed { (x * y) >> bits } else { ((x as u128).wrapping_mul(y as u128) >> bits) as i128 }
        });
        two("div", &|x, y| if y == 0 { -1 } else { x / y });
        two("rem", &|x, y| if y == 0 { x } else { x % y });
        two("min", &|x, y| x.min(y));
        two("max", &|x, y| x.max(y));
    }
}

#[test]
fn arithmetic_of_one() {
    for (ty, bits, _) in TYPES.into_iter().filter(|(_, _, signed)| *signed) {
        one(&format!("abs.{ty} %d, %a;"), bits, bits, |x| number(x, bits, true).unsigned_abs() as u64);
        one(&format!("neg.{ty} %d, %a;"), bits, bits, |x| (-number(x, bits, true)) as u64);
    }
}

#[test]
fn products_and_sums() {
    for (ty, bits, signed) in TYPES {
        let n = |x| number(x, bits, signed);
        three(&format!("mad.lo.{ty} %d, %a, %b, %c;"), [bits; 3], bits, |x, y, z| {
            n(x).wrapping_mul(n(y)).wrapping_add(n(z)) as u64
        });
        three(&format!("mad.hi.{ty} %d, %a, %b, %c;"), [bits; 3], bits, |x, y, z| {
            let high =
                if signed { (n(x) * n(y)) >> bits } else { (((x as u128) * (y as u128)) >> bits) as i128 };
            (high as u64).wrapping_add(z)
        });
        three(&format!("sad.{ty} %d, %a, %b, %c;"), [bits; 3], bits, |x, y, z| {
            z.wrapping_add((n(x) - n(y)).unsigned_abs() as u64)
        });
        if bits < 64 {
            two(&format!("mul.wide.{ty} %d, %a, %b;"), [bits; 2], bits * 2, |x, y| (n(x) * n(y)) as u64);
            three(&format!("mad.wide.{ty} %d, %a, %b, %c;"), [bits, bits, bits * 2], bits * 2, |x, y, z| {
                ((n(x) * n(y)) as u64).wrapping_add(z)
            });
        }
    }
    three("mad.hi.sat.s32 %d, %a, %b, %c;", [32; 3], 32, |x, y, z| {
        let high = (number(x, 32, true) * number(y, 32, true)) >> 32;
        (high + number(z, 32, true)).clamp(i32::MIN as i128, i32::MAX as i128) as u64
    });
    let clamp = |x: i128| x.clamp(i32::MIN as i128, i32::MAX as i128) as u64;
    let n = |x| number(x, 32, true);
    two("add.sat.s32 %d, %a, %b;", [32; 2], 32, |x, y| clamp(n(x) + n(y)));
    two("sub.sat.s32 %d, %a, %b;", [32; 2], 32, |x, y| clamp(n(x) - n(y)));
    two("min.relu.s32 %d, %a, %b;", [32; 2], 32, |x, y| n(x).min(n(y)).max(0) as u64);
}

#[test]
fn carries() {
    // 128-bit sums, differences and products from 64- and 32-bit parts.
    two("add.cc.u64 %w, %a, %b;\naddc.u64 %d, 0, 0;", [64; 2], 64, |x, y| {
        ((x as u128 + y as u128) >> 64) as u64
    });
    two("sub.cc.u64 %w, %a, %b;\nsubc.u64 %d, 0, 0;", [64; 2], 64, |x, y| if x < y { !0 } else { 0 });
    two("add.cc.u32 %s, %a, %b;\naddc.cc.u32 %s, %a, %b;\naddc.u32 %d, 0, 0;", [32; 2], 32, |x, y| {
        (((x | x << 32) as u128 + (y | y << 32) as u128) >> 64) as u64
    });
    two("sub.cc.u32 %s, %a, %b;\nsubc.u32 %d, %b, %a;", [32; 2], 32, |x, y| {
        y.wrapping_sub(x).wrapping_sub((x < y) as u64)
    });
    // 64 × 64 → upper 64, by 32-bit limbs of a and b held in one register each.
    two(
        "{\n.reg .b32 al, ah, bl, bh, c0, c1, c2, c3;\n\
         mov.b64 {al, ah}, %a;\nmov.b64 {bl, bh}, %b;\n\
         mul.lo.u32 c0, al, bl;\nmul.hi.u32 c1, al, bl;\n\
         mad.lo.cc.u32 c1, al, bh, c1;\nmadc.hi.u32 c2, al, bh, 0;\n\
         mad.lo.cc.u32 c1, ah, bl, c1;\nmadc.hi.cc.u32 c2, ah, bl, c2;\naddc.u32 c3, 0, 0;\n\
         mad.lo.cc.u32 c2, ah, bh, c2;\nmadc.hi.u32 c3, ah, bh, c3;\n\
         mov.b64 %d, {c2, c3};\n}",
        [64; 2],
        64,
        |x, y| ((x as u128 * y as u128) >> 64) as u64,
    );
}

#[test]
fn logic() {
    for bits in [16, 32, 64] {
        two(&format!("and.b{bits} %d, %a, %b;"), [bits; 2], bits, |x, y| x & y);
        two(&format!("or.b{bits} %d, %a, %b;"), [bits; 2], bits, |x, y| x | y);
        two(&format!("xor.b{bits} %d, %a, %b;"), [bits; 2], bits, |x, y| x ^ y);
        one(&format!("not.b{bits} %d, %a;"), bits, bits, |x| !x);
        one(&format!("cnot.b{bits} %d, %a;"), bits, bits, |x| (x == 0) as u64);
    }
    for table in [0u32, 0x96, 0xe8, 0xca, 0x80, 0xfe, 0xff, 0x1d] {
        three(&format!("lop3.b32 %d, %a, %b, %c, {table};"), [32; 3], 32, |x, y, z| {
            (0..32).fold(0, |r, k| {
                let index = (x >> k & 1) << 2 | (y >> k & 1) << 1 | z >> k & 1;
                r | (table as u64 >> index & 1) << k
            })
        });
    }
}

#[test]
fn shifts() {
    for (ty, bits, signed) in TYPES {
        let by = |n: u64| (n & ones(32)).min(127) as u32;
        two(&format!("shr.{ty} %d, %a, %b;"), [bits, 32], bits, |x, y| {
            (number(x, bits, signed) >> by(y)) as u64
        });
    }
    for bits in [16, 32, 64] {
        two(
            &format!("shl.b{bits} %d, %a, %b;"),
            [bits, 32],
            bits,
            |x, y| if y >= bits as u64 { 0 } else { x << y },
        );
    }
    let joined = |low: u64, high: u64| (high << 32 | low) as u128;
    three("shf.l.wrap.b32 %d, %a, %b, %c;", [32; 3], 32, |x, y, z| (joined(x, y) << (z & 31) >> 32) as u64);
    three("shf.r.wrap.b32 %d, %a, %b, %c;", [32; 3], 32, |x, y, z| (joined(x, y) >> (z & 31)) as u64);
    three("shf.l.clamp.b32 %d, %a, %b, %c;", [32; 3], 32, |x, y, z| (joined(x, y) << z.min(32) >> 32) as u64);
    three("shf.r.clamp.b32 %d, %a, %b, %c;", [32; 3], 32, |x, y, z| (joined(x, y) >> z.min(32)) as u64);
}

#[test]
fn counting_bits() {
    one("popc.b32 %d, %a;", 32, 32, |x| x.count_ones() as u64);
    one("popc.b64 %d, %a;", 64, 32, |x| x.count_ones() as u64);
    one("clz.b32 %d, %a;", 32, 32, |x| (x as u32).leading_zeros() as u64);
    one("clz.b64 %d, %a;", 64, 32, |x| x.leading_zeros() as u64);
    one("brev.b32 %d, %a;", 32, 32, |x| (x as u32).reverse_bits() as u64);
    one("brev.b64 %d, %a;", 64, 64, u64::reverse_bits);
    for (ty, bits, signed) in TYPES.into_iter().filter(|(_, bits, _)| *bits > 16) {
        // The manual's definition: the highest bit that differs from the sign.
        let found = |x: u64| -> Option<u32> {
            let x = if signed && number(x, bits, true) < 0 { !x & ones(bits) } else { x };
            (0..bits).rev().find(|k| x >> k & 1 != 0)
        };
        one(&format!("bfind.{ty} %d, %a;"), bits, 32, |x| found(x).map_or(!0, u64::from));
        one(&format!("bfind.shiftamt.{ty} %d, %a;"), bits, 32, |x| {
            found(x).map_or(!0, |k| (bits - 1 - k) as u64)
        });
    }
}

#[test]
fn bit_fields() {
    for (ty, bits, signed) in TYPES.into_iter().filter(|(_, bits, _)| *bits > 16) {
        three(&format!("bfe.{ty} %d, %a, %b, %c;"), [bits, 32, 32], bits, |a, b, c| {
            let (pos, len) = (b & 255, c & 255);
            let top = bits as u64 - 1;
            let sign = signed && len != 0 && a >> (pos + len - 1).min(top) & 1 != 0;
            (0..bits as u64).fold(0, |d, k| {
                let bit = if k < len && pos + k <= top { a >> (pos + k) & 1 != 0 } else { sign };
                d | (bit as u64) << k
            })
        });
    }
    for bits in [32u32, 64] {
        let a = [ones(bits), 0x1234_5678_9abc_def1 & ones(bits)];
        let b = [0, ones(bits), 0xaaaa_5555_aaaa_5555 & ones(bits)];
        let positions = [0, 1, 7, 31, 32, 33, 63, 64, 255, 256];
        for len in [0u64, 1, 8, 31, 32, 33, 64, 255, 257] {
            let (a, b, c) = triples(&a, &b, &positions);
            let text = format!("bfi.b{bits} %d, %a, %b, %c, {len};");
            for (k, got) in apply(&text, &[(bits, &a), (bits, &b), (32, &c)], bits).into_iter().enumerate() {
                let (pos, len) = (c[k] & 255, len & 255);
                let mut want = b[k];
                for j in 0..len.min((bits as u64).saturating_sub(pos)) {
                    want = want & !(1 << (pos + j)) | (a[k] >> j & 1) << (pos + j);
                }
                assert_eq!(got & ones(bits), want, "{text} of {:#x}, {:#x}, {:#x}", a[k], b[k], c[k]);
            }
        }
    }
}

#[test]
fn permutations_and_products() {
    let byte = |x: u64, y: u64, k: u64| (if k < 4 { x >> (8 * k) } else { y >> (8 * (k - 4)) }) & 255;
    three("prmt.b32 %d, %a, %b, %c;", [32; 3], 32, |x, y, z| {
        (0..4).fold(0, |r, k| {
            let nibble = z >> (4 * k) & 15;
            let b = byte(x, y, nibble & 7);
            let b = if nibble & 8 == 0 { b } else { (b >> 7) * 255 };
            r | b << (8 * k)
        })
    });
    three("prmt.b32.f4e %d, %a, %b, %c;", [32; 3], 32, |x, y, z| {
        (0..4).fold(0, |r, k| r | byte(x, y, (z & 3) + k) << (8 * k))
    });
    three("prmt.b32.rc16 %d, %a, %b, %c;", [32; 3], 32, |x, y, z| {
        let half =
            if z & 1 == 0 { byte(x, y, 0) | byte(x, y, 1) << 8 } else { byte(x, y, 2) | byte(x, y, 3) << 8 };
        half | half << 16
    });
    three("dp4a.u32.s32 %d, %a, %b, %c;", [32; 3], 32, |x, y, z| {
        let sum: i64 = (0..4).map(|k| (x >> (8 * k) & 255) as i64 * (y >> (8 * k)) as u8 as i8 as i64).sum();
        z.wrapping_add(sum as u64)
    });
    two("mul24.hi.s32 %d, %a, %b;", [32; 2], 32, |x, y| {
        ((number(x, 24, true) * number(y, 24, true)) >> 16) as u64
    });
    two("bmsk.clamp.b32 %d, %a, %b;", [32; 2], 32, |x, y| {
        (0..32).filter(|k| *k >= x && *k < x.saturating_add(y)).fold(0, |r, k| r | 1 << k)
    });
}

#[test]
fn packs() {
    two("mov.b64 %d, {%a, %b};", [32; 2], 64, |x, y| x | y << 32);
    two("mov.b32 %d, {%a, %b};", [16; 2], 32, |x, y| x | y << 16);
    one("{ .reg .b16 x, y, z, w; mov.b64 {x, y, z, w}, %a; mov.b64 %d, {w, z, y, x}; }", 64, 64, |x| {
        (0..4).fold(0, |r, k| r | (x >> (16 * k) & 0xffff) << (48 - 16 * k))
    });
    one("{ .reg .b32 x; mov.b64 {_, x}, %a; mov.b32 %d, x; }", 64, 32, |x| x >> 32);
    one("{ .reg .b16 x; mov.b32 {x, _}, %a; cvt.u32.u16 %d, x; }", 32, 32, |x| x & 0xffff);
}
