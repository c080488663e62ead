//! `.f16` and `.bf16` as bit patterns: conversions (PTX ISA, *cvt*) and arithmetic (*Half Precision Floating-Point
//! Instructions*), each rounded once. NaN results are the canonical `0x7fff`.
//!
//! Modifiers are functions to wrap around, as in [`arith`](super::arith): [`ftz_f16`] on operands and result (`.bf16` has
//! no `.ftz`), then [`sat_f16`] or [`relu_f16`].

use super::arith::{NAN_F32, max_f32, min_f32, to_odd_f32, to_odd_f64};
use super::exact::Exact;
use super::round::{Format, Round};

/// The NaN that `.f16` and `.bf16` instructions return.
pub const NAN: u16 = 0x7fff;

// ---- Conversions ------------------------------------------------------------------------------------------------------

/// `cvt.f32.f16`, exact; NaN becomes canonical.
#[inline(always)]
pub fn f16_to_f32(x: u16) -> f32 {
    let magnitude = u32::from(x & 0x7fff);
    // The fields in their f32 places, times the difference of the exponent biases: right for subnormals too.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    let infinite = if magnitude == 0x7c00 { 0x7f80_0000 } else { scaled.to_bits() };
    let unsigned = if magnitude > 0x7c00 { NAN_F32.to_bits() } else { infinite };
    // A canonical NaN is positive.
    let sign = if magnitude > 0x7c00 { 0 } else { u32::from(x & 0x8000) << 16 };
    f32::from_bits(unsigned | sign)
}

/// `cvt.rnd.f16.f32`; NaN becomes `0x7fff`.
#[inline(always)]
pub fn f32_to_f16(x: f32, round: Round) -> u16 {
    let near = f32_to_f16_rn(x);
    directed(x, near, f16_to_f32(near), round)
}

/// Steps from the nearest 16-bit number, `back` in f32, to the neighbour that the mode asks for.
#[inline(always)]
fn directed(x: f32, near: u16, back: f32, round: Round) -> u16 {
    // Neighbours differ by one in magnitude, zero and infinity included; no NaN passes a comparison.
    let (toward_zero, away) = (near.wrapping_sub(1), near.wrapping_add(1));
    let negative = x.to_bits() >> 31 == 1;
    match round {
        Round::Rn | Round::Rna => near,
        Round::Rz => {
            if back.abs() > x.abs() {
                toward_zero
            } else {
                near
            }
        }
        Round::Rm => {
            let below = if negative { away } else { toward_zero };
            if back > x { below } else { near }
        }
        Round::Rp => {
            let above = if negative { toward_zero } else { away };
            if back < x { above } else { near }
        }
    }
}

/// `cvt.rn.f16.f32`, branch-free.
#[inline(always)]
pub fn f32_to_f16_rn(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Subnormal results: adding 0.5 aligns their last place, 2^-24, with f32's, and rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    // Normal ones: move the bias by -112, round the 13 lower bits to nearest even.
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0x0fff + ((magnitude >> 13) & 1)) >> 13;
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    // 65536 and above; from 65520 on `normal` carries into infinity by itself.
    let bounded = if magnitude >= 0x4780_0000 { 0x7c00 } else { finite };
    let signed = bounded as u16 | ((bits >> 16) & 0x8000) as u16;
    if x.is_nan() { NAN } else { signed }
}

/// `cvt.f32.bf16`, exact (a shift in hardware too, so NaN keeps its payload).
#[inline(always)]
pub fn bf16_to_f32(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// `cvt.rnd.bf16.f32`; NaN becomes `0x7fff`.
#[inline(always)]
pub fn f32_to_bf16(x: f32, round: Round) -> u16 {
    let near = f32_to_bf16_rn(x);
    directed(x, near, bf16_to_f32(near), round)
}

/// `cvt.rn.bf16.f32`, branch-free.
#[inline(always)]
pub fn f32_to_bf16_rn(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if x.is_nan() { NAN } else { rounded as u16 }
}

/// `cvt.rnd.f16.f64`.
pub fn f64_to_f16(x: f64, round: Round) -> u16 {
    Exact::from(x).round(Format::F16, round) as u16
}

/// `cvt.rnd.bf16.f64`.
pub fn f64_to_bf16(x: f64, round: Round) -> u16 {
    Exact::from(x).round(Format::BF16, round) as u16
}

/// `.satfinite` of `cvt` to `.f16`: infinities become ±65504, NaN stays.
#[inline(always)]
pub fn satfinite_f16(x: u16) -> u16 {
    if x & 0x7fff == 0x7c00 { x - 1 } else { x }
}

/// `.satfinite` of `cvt` to `.bf16`: infinities become the largest finite numbers, NaN stays.
#[inline(always)]
pub fn satfinite_bf16(x: u16) -> u16 {
    if x & 0x7fff == 0x7f80 { x - 1 } else { x }
}

// ---- Modifiers --------------------------------------------------------------------------------------------------------

/// `.ftz`: a subnormal `.f16` becomes zero of the same sign.
#[inline(always)]
pub fn ftz_f16(x: u16) -> u16 {
    if x & 0x7c00 == 0 { x & 0x8000 } else { x }
}

/// `.sat` of `.f16`: clamps to [0, 1]; NaN becomes +0.
#[inline(always)]
pub fn sat_f16(x: u16) -> u16 {
    const ONE: u16 = 0x3c00;
    let bounded = if x > ONE { ONE } else { x };
    if x > 0x7c00 { 0 } else { bounded }
}

/// `.relu` of both formats: what has a minus sign becomes +0; NaN becomes canonical.
#[inline(always)]
pub fn relu_f16(x: u16) -> u16 {
    relu(x, 0x7c00)
}

/// As [`relu_f16`], for `.bf16`.
#[inline(always)]
pub fn relu_bf16(x: u16) -> u16 {
    relu(x, 0x7f80)
}

#[inline(always)]
fn relu(x: u16, infinity: u16) -> u16 {
    let positive = if x & 0x8000 != 0 { 0 } else { x };
    if x & 0x7fff > infinity { NAN } else { positive }
}

// ---- .f16 -------------------------------------------------------------------------------------------------------------
// f32 has 24 bits, two more than twice f16's 11: sums, products and quotients that are rounded to f32 first round to f16 as
// if once (Figueroa, "When is double rounding innocuous?", 1995). Fused operations need the odd rounding in between.

/// `add.f16`.
#[inline(always)]
pub fn add_f16(a: u16, b: u16) -> u16 {
    f32_to_f16_rn(f16_to_f32(a) + f16_to_f32(b))
}

/// `sub.f16`.
#[inline(always)]
pub fn sub_f16(a: u16, b: u16) -> u16 {
    f32_to_f16_rn(f16_to_f32(a) - f16_to_f32(b))
}

/// `mul.f16`.
#[inline(always)]
pub fn mul_f16(a: u16, b: u16) -> u16 {
    f32_to_f16_rn(f16_to_f32(a) * f16_to_f32(b))
}

/// `fma.rn.f16`.
#[inline(always)]
pub fn fma_f16(a: u16, b: u16, c: u16) -> u16 {
    // 22 bits: exact.
    let product = f16_to_f32(a) * f16_to_f32(b);
    let c = f16_to_f32(c);
    let sum = product + c;
    let c_part = sum - product;
    let lost = (product - (sum - c_part)) + (c - c_part);
    f32_to_f16_rn(to_odd_f32(sum, lost))
}

/// `max.f16`: the other operand of a NaN, the canonical NaN of two; +0 above −0.
#[inline(always)]
pub fn max_f16(a: u16, b: u16) -> u16 {
    extreme(a, b, 0x7c00, max_f32)
}

/// `min.f16`.
#[inline(always)]
pub fn min_f16(a: u16, b: u16) -> u16 {
    extreme(a, b, 0x7c00, min_f32)
}

/// `neg.f16` and `neg.bf16`.
#[inline(always)]
pub fn neg(x: u16) -> u16 {
    x ^ 0x8000
}

/// `abs.f16` and `abs.bf16`.
#[inline(always)]
pub fn abs(x: u16) -> u16 {
    x & 0x7fff
}

// ---- .bf16 ------------------------------------------------------------------------------------------------------------
// f32 has three times bf16's 8 bits, and the same exponents: sums and products round to f32 first without harm, also where
// they are subnormal, because then they are exact or the product's 16 bits are rounded to odd below.

/// `add.bf16`.
#[inline(always)]
pub fn add_bf16(a: u16, b: u16) -> u16 {
    f32_to_bf16_rn(bf16_to_f32(a) + bf16_to_f32(b))
}

/// `sub.bf16`.
#[inline(always)]
pub fn sub_bf16(a: u16, b: u16) -> u16 {
    f32_to_bf16_rn(bf16_to_f32(a) - bf16_to_f32(b))
}

/// `mul.bf16`.
#[inline(always)]
pub fn mul_bf16(a: u16, b: u16) -> u16 {
    // Exact in f64; in f32 it may underflow.
    f32_to_bf16_rn(f64_to_odd_f32(f64::from(bf16_to_f32(a)) * f64::from(bf16_to_f32(b))))
}

/// `fma.rn.bf16`.
#[inline(always)]
pub fn fma_bf16(a: u16, b: u16, c: u16) -> u16 {
    let product = f64::from(bf16_to_f32(a)) * f64::from(bf16_to_f32(b));
    let c = f64::from(bf16_to_f32(c));
    let sum = product + c;
    let c_part = sum - product;
    let lost = (product - (sum - c_part)) + (c - c_part);
    f32_to_bf16_rn(f64_to_odd_f32(to_odd_f64(sum, lost)))
}

/// Narrows to f32, rounding to odd.
#[inline(always)]
pub(super) fn f64_to_odd_f32(x: f64) -> f32 {
    let near = x as f32;
    let (bits, back) = (near.to_bits(), f64::from(near));
    let step = if back.abs() > x.abs() { u32::MAX } else { 1 };
    let inexact = (back < x) | (back > x);
    f32::from_bits(if inexact & (bits & 1 == 0) { bits.wrapping_add(step) } else { bits })
}

/// `max.bf16`.
#[inline(always)]
pub fn max_bf16(a: u16, b: u16) -> u16 {
    extreme(a, b, 0x7f80, max_f32)
}

/// `min.bf16`.
#[inline(always)]
pub fn min_bf16(a: u16, b: u16) -> u16 {
    extreme(a, b, 0x7f80, min_f32)
}

/// `.NaN` of `min` and `max`, around their result: the canonical NaN if either `.f16` operand is NaN.
#[inline(always)]
pub fn nan_f16(a: u16, b: u16, otherwise: u16) -> u16 {
    if (a & 0x7fff > 0x7c00) | (b & 0x7fff > 0x7c00) { NAN } else { otherwise }
}

/// As [`nan_f16`], for `.bf16`.
#[inline(always)]
pub fn nan_bf16(a: u16, b: u16, otherwise: u16) -> u16 {
    if (a & 0x7fff > 0x7f80) | (b & 0x7fff > 0x7f80) { NAN } else { otherwise }
}

/// Both formats order as integers once the sign is spread, so the comparison is done on f32 encodings of those integers'
/// kind: the fields moved up by 16, NaN recognised by `infinity`.
#[inline(always)]
fn extreme(a: u16, b: u16, infinity: u16, of: impl Fn(f32, f32) -> f32) -> u16 {
    let (a_nan, b_nan) = (a & 0x7fff > infinity, b & 0x7fff > infinity);
    // Every 16-bit pattern that is no NaN is, moved up, a finite f32 or an infinity, in the same order.
    let either =
        (of(f32::from_bits(u32::from(a) << 16), f32::from_bits(u32::from(b) << 16)).to_bits() >> 16) as u16;
    let of_b = if b_nan { NAN } else { b };
    let without_b = if b_nan { a } else { either };
    if a_nan { of_b } else { without_b }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: [Round; 4] = [Round::Rn, Round::Rz, Round::Rm, Round::Rp];

    fn f16_exact(x: u16) -> Exact {
        exact(x, 10, 15)
    }

    fn bf16_exact(x: u16) -> Exact {
        exact(x, 7, 127)
    }

    /// Decodes by the definition of the format.
    fn exact(x: u16, fraction_bits: u32, bias: i32) -> Exact {
        let negative = x >> 15 == 1;
        let field = ((x & 0x7fff) >> fraction_bits) as i32;
        let fraction = u128::from(x & ((1 << fraction_bits) - 1));
        if field == 2 * bias + 1 {
            return if fraction == 0 { Exact::Infinite { negative } } else { Exact::Nan };
        }
        let hidden = u128::from(field > 0) << fraction_bits;
        let exponent = field.max(1) - bias - fraction_bits as i32;
        Exact::Finite { negative, significand: fraction | hidden, exponent }
    }

    #[test]
    fn every_f16_and_bf16_widens_and_returns() {
        for x in 0..=u16::MAX {
            let wide = f16_to_f32(x);
            assert_eq!(wide.to_bits(), f16_exact(x).to_f32(Round::Rn).to_bits(), "{x:#x}");
            let nan = x & 0x7fff > 0x7c00;
            for round in ROUNDS {
                assert_eq!(f32_to_f16(wide, round), if nan { NAN } else { x }, "{x:#x} {round:?}");
            }
            let wide = bf16_to_f32(x);
            let nan = x & 0x7fff > 0x7f80;
            for round in ROUNDS {
                assert_eq!(f32_to_bf16(wide, round), if nan { NAN } else { x }, "{x:#x} {round:?}");
            }
        }
    }

    #[test]
    fn narrowing_in_every_mode() {
        let mut state = 7u32;
        for i in 0..400_000u32 {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            // Bits, values around f16's range, and ties.
            let near_f16 = (state & 0x807f_ffff) | (100 + (state >> 23) % 46) << 23;
            let bits = match i % 4 {
                0 => state,
                1 => near_f16,
                2 => (near_f16 & 0xffff_e000) | 0x1000,
                _ => (state & 0xffff_0000) | 0x8000,
            };
            let x = f32::from_bits(bits);
            for round in ROUNDS {
                let want = Exact::from(x).round(Format::F16, round) as u16;
                assert_eq!(f32_to_f16(x, round), want, "{x:e} {bits:#x} {round:?}");
                let want = Exact::from(x).round(Format::BF16, round) as u16;
                assert_eq!(f32_to_bf16(x, round), want, "{x:e} {bits:#x} {round:?}");
            }
        }
    }

    /// Patterns of every kind: specials, neighbours of powers of two, and a spread of others.
    fn patterns() -> Vec<u16> {
        let mut all = Vec::new();
        for sign in [0u16, 0x8000] {
            for x in [0, 1, 2, 0x3ff, 0x400, 0x401, 0x3bff, 0x3c00, 0x3c01, 0x7bff, 0x7c00, 0x7c01, 0x7fff] {
                all.push(sign | x);
            }
            for x in
                [0x7f, 0x80, 0x81, 0x3f7f, 0x3f80, 0x3f81, 0x7f7f, 0x7f80, 0x7f81, 0x0053, 0x2000, 0x1fe3]
            {
                all.push(sign | x);
            }
        }
        let mut state = 99u32;
        for _ in 0..70 {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            all.push((state >> 16) as u16);
        }
        all
    }

    #[test]
    fn arithmetic_rounds_once() {
        type Binary = fn(u16, u16) -> u16;
        type Case = (Format, fn(u16) -> Exact, [Binary; 3], fn(u16, u16, u16) -> u16);
        let rn = Round::Rn;
        let formats: [Case; 2] = [
            (Format::F16, f16_exact, [add_f16, sub_f16, mul_f16], fma_f16),
            (Format::BF16, bf16_exact, [add_bf16, sub_bf16, mul_bf16], fma_bf16),
        ];
        let patterns = patterns();
        for (format, exact, [add, sub, mul], fma) in formats {
            for &a in &patterns {
                for &b in &patterns {
                    let (x, y) = (exact(a), exact(b));
                    let want = |e: Exact| e.round(format, rn) as u16;
                    assert_eq!(add(a, b), want(x.plus(y, rn)), "{a:#x} + {b:#x} {format:?}");
                    assert_eq!(sub(a, b), want(x.plus(exact(neg(b)), rn)), "{a:#x} - {b:#x} {format:?}");
                    assert_eq!(mul(a, b), want(x.times(y)), "{a:#x} * {b:#x} {format:?}");
                    for &c in &patterns {
                        let want = want(x.times(y).plus(exact(c), rn));
                        assert_eq!(fma(a, b, c), want, "fma {a:#x} {b:#x} {c:#x} {format:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_f16_product_and_sum_with_a_few() {
        for b in [0x3555u16, 0x0001, 0x03ff, 0x7bff, 0x1400, 0xb801] {
            for a in 0..=u16::MAX {
                let (x, y) = (f16_exact(a), f16_exact(b));
                assert_eq!(mul_f16(a, b), x.times(y).round(Format::F16, Round::Rn) as u16, "{a:#x} * {b:#x}");
                assert_eq!(
                    add_f16(a, b),
                    x.plus(y, Round::Rn).round(Format::F16, Round::Rn) as u16,
                    "{a:#x} + {b:#x}"
                );
            }
        }
    }

    #[test]
    fn extremes() {
        let nan = 0xfe12;
        assert_eq!(max_f16(nan, 0x3c00), 0x3c00);
        assert_eq!(max_f16(0xbc00, nan), 0xbc00);
        assert_eq!(max_f16(nan, nan), NAN);
        assert_eq!(max_f16(0x8000, 0), 0);
        assert_eq!(min_f16(0, 0x8000), 0x8000);
        assert_eq!(max_f16(0x7c00, 0x7bff), 0x7c00);
        assert_eq!(min_f16(0xfc00, nan), 0xfc00);
        assert_eq!(min_f16(1, 2), 1);
        assert_eq!(max_f16(0x8001, 0x8002), 0x8001);
        assert_eq!(max_bf16(0x7f81, 0x3f80), 0x3f80);
        assert_eq!(min_bf16(0x7f80, 0x7f7f), 0x7f7f);
        assert_eq!(nan_f16(nan, 1, 1), NAN);
        assert_eq!(nan_bf16(0x7f80, 1, 1), 1);
    }

    #[test]
    fn modifiers() {
        assert_eq!(ftz_f16(0x83ff), 0x8000);
        assert_eq!(ftz_f16(0x0400), 0x0400);
        assert_eq!(sat_f16(0x7e00), 0);
        assert_eq!(sat_f16(0xfe00), 0);
        assert_eq!(sat_f16(0x7c00), 0x3c00);
        assert_eq!(sat_f16(0xbc00), 0);
        assert_eq!(sat_f16(0x3800), 0x3800);
        assert_eq!(relu_f16(0x8000), 0);
        assert_eq!(relu_f16(0xfe00), NAN);
        assert_eq!(relu_bf16(0xff80), 0);
        assert_eq!(relu_bf16(0x7f80), 0x7f80);
        assert_eq!(satfinite_f16(0xfc00), 0xfbff);
        assert_eq!(satfinite_bf16(0x7f80), 0x7f7f);
        assert_eq!(satfinite_f16(NAN), NAN);
    }
}
