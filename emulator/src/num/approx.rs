//! The `.approx` functions of PTX ISA, *Floating-Point Instructions* and *Half Precision Floating-Point Instructions*.
//!
//! Hardware computes these from tables that NVIDIA does not publish; the manual gives an error bound and the results for
//! special values. Here every result lies within the bound (most are rounded correctly from `f64`) and special values are
//! exact. Code that is right must be right for every result within the bound: [`perturbed`] makes others.
//!
//! | instruction | manual's bound | here |
//! | --- | --- | --- |
//! | `ex2.approx.f32` | 2 ulp | < 1.2 ulp |
//! | `lg2.approx.f32` | 2⁻²² absolute in (0.5, 2), else relative | 0.5 ulp |
//! | `rcp.approx.f32` | 1 ulp | 0.5 ulp |
//! | `sqrt.approx.f32` | 2⁻²³ relative | 0.5 ulp |
//! | `rsqrt.approx.f32` | 2⁻²²·⁹ relative | 0.5 ulp |
//! | `sin`, `cos.approx.f32` | 2⁻²⁰·⁵ absolute in [−2π, 2π], 2⁻¹⁴·⁷ in [−100π, 100π] | 0.5 ulp |
//! | `tanh.approx.f32` | 2⁻¹¹ relative | 0.5 ulp |
//! | `div.approx.f32`, `div.full.f32` | 2 ulp (`.approx`: for \|b\| in [2⁻¹²⁶, 2¹²⁶]) | 0.5 ulp |
//! | `ex2.approx.f16`, `.bf16` | 2⁻⁹·⁹, 2⁻⁷ relative | 0.5 ulp of the format, and a little |
//! | `tanh.approx.f16`, `.bf16` | 2⁻¹⁰·⁹⁸⁷, 2⁻⁸ absolute | 0.5 ulp of the format |
//!
//! `.ftz` is [`ftz_f32`] on the operand and on the result, as elsewhere.

use std::f32::consts::LN_2;

use super::arith::{NAN_F32, canonical_f32, ftz_f32, nan_if_f32};
use super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16_rn, f32_to_f16_rn};

/// `ex2.approx.f32`: 2^a; subnormal results are kept. −∞ → +0, +∞ → +∞, integers → exact powers of two.
#[inline(always)]
pub fn ex2(a: f32) -> f32 {
    // 2^f on [−0.5, 0.5] as 1 + f · g(f); the polynomial's own error is 2^-28.9 (minimax, fitted for relative error).
    const G: [f32; 6] = [LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_4, 0.000_153_533_62];
    // 1.5 · 2^23: adding it leaves the nearest integer in the last bits.
    const SHIFTER: f32 = 12_582_912.0;
    // Beyond these the result is 0 or ∞ already. NaN fails both comparisons.
    let above = if a < -152.0 { -152.0 } else { a };
    let x = if above > 129.0 { 129.0 } else { above };
    let shifted = x + SHIFTER;
    let n = shifted.to_bits().wrapping_sub(SHIFTER.to_bits()) as i32;
    let f = x - (shifted - SHIFTER);
    let g = G[0] + f * (G[1] + f * (G[2] + f * (G[3] + f * (G[4] + f * G[5]))));
    // Two factors, because 2^n itself may be subnormal or 2^129.
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let result = (1.0 + f * g) * power(half) * power(n.wrapping_sub(half));
    nan_if_f32(a.is_nan(), result)
}

/// `ex2.approx.ftz.f32`: subnormal operands count as 0 (result 1), subnormal results become +0.
#[inline(always)]
pub fn ex2_ftz(a: f32) -> f32 {
    // A subnormal operand gives 1 without help.
    ftz_f32(ex2(a))
}

/// `lg2.approx.f32`: log₂ a. ±0 → −∞, below zero → NaN, +∞ → +∞.
#[inline]
pub fn lg2(a: f32) -> f32 {
    canonical_f32(f64::from(a).log2() as f32)
}

/// `lg2.approx.ftz.f32`.
#[inline]
pub fn lg2_ftz(a: f32) -> f32 {
    lg2(ftz_f32(a))
}

/// `rcp.approx.f32`. ±0 → ±∞, ±∞ → ±0; subnormal operands and results are kept.
#[inline(always)]
pub fn rcp(a: f32) -> f32 {
    canonical_f32(1.0 / a)
}

/// `rcp.approx.ftz.f32`.
#[inline(always)]
pub fn rcp_ftz(a: f32) -> f32 {
    ftz_f32(rcp(ftz_f32(a)))
}

/// `sqrt.approx.f32`. −0 → −0, below zero → NaN.
#[inline(always)]
pub fn sqrt(a: f32) -> f32 {
    canonical_f32(a.sqrt())
}

/// `sqrt.approx.ftz.f32`: a negative subnormal gives −0.
#[inline(always)]
pub fn sqrt_ftz(a: f32) -> f32 {
    sqrt(ftz_f32(a))
}

/// `rsqrt.approx.f32`. ±0 → ±∞, below zero → NaN, +∞ → +0.
#[inline(always)]
pub fn rsqrt(a: f32) -> f32 {
    // √−0 is −0, whose reciprocal is −∞.
    canonical_f32((1.0 / f64::from(a).sqrt()) as f32)
}

/// `rsqrt.approx.ftz.f32`: a negative subnormal gives −∞.
#[inline(always)]
pub fn rsqrt_ftz(a: f32) -> f32 {
    rsqrt(ftz_f32(a))
}

/// `rsqrt.approx.f64`.
#[inline]
pub fn rsqrt_f64(a: f64) -> f64 {
    1.0 / a.sqrt()
}

/// `sin.approx.f32`. ±∞ → NaN.
#[inline]
pub fn sin(a: f32) -> f32 {
    canonical_f32(f64::from(a).sin() as f32)
}

/// `sin.approx.ftz.f32`.
#[inline]
pub fn sin_ftz(a: f32) -> f32 {
    ftz_f32(sin(ftz_f32(a)))
}

/// `cos.approx.f32`. ±∞ → NaN.
#[inline]
pub fn cos(a: f32) -> f32 {
    canonical_f32(f64::from(a).cos() as f32)
}

/// `cos.approx.ftz.f32`.
#[inline]
pub fn cos_ftz(a: f32) -> f32 {
    cos(ftz_f32(a))
}

/// `tanh.approx.f32`; subnormals are kept (there is no `.ftz`).
#[inline]
pub fn tanh(a: f32) -> f32 {
    canonical_f32(f64::from(a).tanh() as f32)
}

/// `div.approx.f32`, defined as a · (1/b): for |b| above 2¹²⁶ the reciprocal is flushed, so finite a give ±0 and
/// infinite a give NaN.
#[inline(always)]
pub fn div(a: f32, b: f32) -> f32 {
    const LIMIT: f32 = f32::from_bits((126 + 127) << 23);
    let huge = (b.abs() > LIMIT) & (b.abs() < f32::INFINITY);
    let zero = f32::from_bits((a.to_bits() ^ b.to_bits()) & 0x8000_0000);
    let flushed = if a.abs() < f32::INFINITY { zero } else { NAN_F32 };
    canonical_f32(if huge { flushed } else { a / b })
}

/// `div.approx.ftz.f32`.
#[inline(always)]
pub fn div_ftz(a: f32, b: f32) -> f32 {
    ftz_f32(div(ftz_f32(a), ftz_f32(b)))
}

/// `div.full.f32`: the whole range, 2 ulp.
#[inline(always)]
pub fn div_full(a: f32, b: f32) -> f32 {
    canonical_f32(a / b)
}

/// `div.full.ftz.f32`.
#[inline(always)]
pub fn div_full_ftz(a: f32, b: f32) -> f32 {
    ftz_f32(div_full(ftz_f32(a), ftz_f32(b)))
}

/// `ex2.approx.f16`; subnormals are kept.
#[inline(always)]
pub fn ex2_f16(a: u16) -> u16 {
    f32_to_f16_rn(ex2(f16_to_f32(a)))
}

/// `ex2.approx.ftz.bf16`.
#[inline(always)]
pub fn ex2_ftz_bf16(a: u16) -> u16 {
    f32_to_bf16_rn(ex2_ftz(bf16_to_f32(a)))
}

/// `tanh.approx.f16`; subnormals are kept.
#[inline]
pub fn tanh_f16(a: u16) -> u16 {
    f32_to_f16_rn(tanh(f16_to_f32(a)))
}

/// `tanh.approx.bf16`; subnormals are kept.
#[inline]
pub fn tanh_bf16(a: u16) -> u16 {
    f32_to_bf16_rn(tanh(bf16_to_f32(a)))
}

/// Moves a result away from zero by `ulps` last places (towards zero if negative), to try code against another
/// approximation. Zeros, infinities and NaN stay; no result becomes one of them.
#[inline(always)]
pub fn perturbed(x: f32, ulps: i32) -> f32 {
    let bits = x.to_bits();
    let magnitude = (bits & 0x7fff_ffff) as i32;
    let moved = magnitude.saturating_add(ulps).clamp(1, 0x7f7f_ffff);
    let special = (magnitude == 0) | (magnitude >= 0x7f80_0000);
    f32::from_bits(if special { bits } else { bits & 0x8000_0000 | moved as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INF: f32 = f32::INFINITY;

    fn check_table(name: &str, f: fn(f32) -> f32, table: &[(f32, f32)]) {
        for &(x, want) in table {
            let got = f(x);
            let want = canonical_f32(want);
            assert_eq!(got.to_bits(), want.to_bits(), "{name}({x:e}) = {got:e}, want {want:e}");
        }
    }

    #[test]
    fn special_values() {
        let tiny = f32::from_bits(0x0000_1000);
        let nan = f32::from_bits(0xffc1_2345);
        let always = |table: &[(f32, f32)]| [table, &[(nan, f32::NAN)]].concat();
        check_table("ex2", ex2, &always(&[(-INF, 0.0), (INF, INF), (0.0, 1.0), (-0.0, 1.0), (tiny, 1.0)]));
        check_table("ex2", ex2, &[(-149.0, f32::from_bits(1)), (-126.5, 2f32.powi(-127) * 2f32.sqrt())]);
        check_table(
            "ex2",
            ex2,
            &[(128.0, INF), (1e30, INF), (-1e30, 0.0), (-151.0, 0.0), (127.0, 2f32.powi(127))],
        );
        check_table(
            "ex2.ftz",
            ex2_ftz,
            &always(&[(-127.0, 0.0), (-126.0, 2f32.powi(-126)), (-INF, 0.0), (INF, INF)]),
        );
        check_table(
            "lg2",
            lg2,
            &always(&[(0.0, -INF), (-0.0, -INF), (INF, INF), (-INF, f32::NAN), (-1.0, f32::NAN)]),
        );
        check_table("lg2", lg2, &[(1.0, 0.0), (8.0, 3.0), (f32::from_bits(1), -149.0)]);
        check_table("lg2.ftz", lg2_ftz, &[(tiny, -INF), (-tiny, -INF)]);
        check_table("rcp", rcp, &always(&[(-INF, -0.0), (-0.0, -INF), (0.0, INF), (INF, 0.0), (4.0, 0.25)]));
        check_table("rcp.ftz", rcp_ftz, &[(-tiny, -INF), (tiny, INF), (2f32.powi(127), 0.0)]);
        check_table("sqrt", sqrt, &always(&[(-INF, f32::NAN), (-1.0, f32::NAN), (-0.0, -0.0), (INF, INF)]));
        check_table("sqrt.ftz", sqrt_ftz, &[(-tiny, -0.0), (tiny, 0.0)]);
        check_table(
            "rsqrt",
            rsqrt,
            &always(&[(-INF, f32::NAN), (-2.0, f32::NAN), (-0.0, -INF), (0.0, INF), (INF, 0.0)]),
        );
        check_table("rsqrt.ftz", rsqrt_ftz, &[(-tiny, -INF), (tiny, INF)]);
        check_table("sin", sin, &always(&[(-INF, f32::NAN), (INF, f32::NAN), (-0.0, -0.0), (0.0, 0.0)]));
        check_table("sin.ftz", sin_ftz, &[(-tiny, -0.0)]);
        check_table("cos", cos, &always(&[(-INF, f32::NAN), (INF, f32::NAN), (-0.0, 1.0), (tiny, 1.0)]));
        check_table("tanh", tanh, &always(&[(-INF, -1.0), (INF, 1.0), (-0.0, -0.0), (tiny, tiny)]));
    }

    #[test]
    fn divisions() {
        assert_eq!(div(3.0, 2.0), 1.5);
        assert_eq!(div(-1e30, 2f32.powi(127)).to_bits(), 0x8000_0000);
        assert_eq!(div(INF, 2f32.powi(127)).to_bits(), 0x7fff_ffff);
        assert_eq!(div(INF, 2f32.powi(126)), INF);
        assert_eq!(div(1.0, INF), 0.0);
        assert_eq!(div_full(1e30, 2f32.powi(127)), 1e30 / 2f32.powi(127));
        assert_eq!(div_full_ftz(1e-38, 1e10).to_bits(), 0);
        assert_eq!(div_ftz(1.0, f32::from_bits(5)), INF);
    }

    /// Error in units of the last place of the f32 nearest to `want`.
    fn ulps(got: f32, want: f64) -> f64 {
        let near = (want as f32).abs();
        let ulp = f64::from(f32::from_bits(near.to_bits() + 1)) - f64::from(near);
        (f64::from(got) - want).abs() / ulp
    }

    #[test]
    fn ex2_within_its_bound_everywhere() {
        let mut worst = 0.0f64;
        let mut x = -150.0f32;
        while x < 128.0 {
            let got = ex2(x);
            if got.is_finite() {
                worst = worst.max(ulps(got, f64::from(x).exp2()));
            }
            x += 0.000_37;
        }
        assert!(worst < 1.2, "{worst} ulp");
        for n in -149..128 {
            assert_eq!(ex2(n as f32), 2f64.powi(n) as f32, "2^{n}");
        }
    }

    #[test]
    fn halves_within_their_bounds() {
        for x in 0..=u16::MAX {
            let (h, b) = (f64::from(f16_to_f32(x)), f64::from(bf16_to_f32(x)));
            let value = f64::from(f16_to_f32(ex2_f16(x)));
            if h.exp2() >= 2f64.powi(-14) && h.exp2() < 65504.0 {
                assert!((value / h.exp2() - 1.0).abs() < 2f64.powf(-9.9), "ex2.f16 {h}");
            }
            let value = f64::from(bf16_to_f32(ex2_ftz_bf16(x)));
            if b.exp2() >= 2f64.powi(-125) && b.exp2() < 2f64.powi(127) {
                assert!((value / b.exp2() - 1.0).abs() < 2f64.powi(-7), "ex2.bf16 {b}");
            }
            if !h.is_nan() {
                assert!(
                    (f64::from(f16_to_f32(tanh_f16(x))) - h.tanh()).abs() < 2f64.powf(-10.987),
                    "tanh.f16 {h}"
                );
            } else {
                assert_eq!((tanh_f16(x), ex2_f16(x)), (0x7fff, 0x7fff));
            }
            if !b.is_nan() {
                assert!(
                    (f64::from(bf16_to_f32(tanh_bf16(x))) - b.tanh()).abs() <= 2f64.powi(-8),
                    "tanh.bf16 {b}"
                );
            } else {
                assert_eq!((tanh_bf16(x), ex2_ftz_bf16(x)), (0x7fff, 0x7fff));
            }
        }
    }

    #[test]
    fn perturbation_moves_by_ulps_and_spares_specials() {
        assert_eq!(perturbed(1.0, 1), 1.0 + f32::EPSILON);
        assert_eq!(perturbed(-1.0, -2), -(1.0 - f32::EPSILON));
        for x in [0.0, -0.0, INF, -INF] {
            assert_eq!(perturbed(x, 2).to_bits(), x.to_bits());
        }
        assert_eq!(perturbed(f32::from_bits(1), -5), f32::from_bits(1));
        assert_eq!(perturbed(f32::MAX, 5), f32::MAX);
    }
}
