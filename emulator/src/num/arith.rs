//! `.f32` and `.f64` arithmetic: PTX ISA, *Floating-Point Instructions*: `add`, `sub`, `mul`, `fma`, `div`, `rcp`,
//! `sqrt`, `min`, `max`.
//!
//! `.rn` is the host's own arithmetic. The directed modes of `.f32` add, subtract, multiply and fuse in `f64` (rounded to
//! odd, so that the second rounding is the only one that counts) and are branch-free too; everything else directed is
//! [`exact`](super::exact).
//!
//! Modifiers are functions to wrap around: `.ftz` is [`ftz_f32`] on every operand and on the result, `.sat` is
//! [`sat_f32`] on the result, after `.ftz`.
//!
//! NaN results: the manual leaves the payload of `.f32` open; hardware gives `0x7fffffff`. `.rn` results here keep what
//! the host gives, because canonical payloads cost the hot path; [`canonical_f32`] is there for who compares bits. `min`
//! and `max`, which the manual defines, return the canonical NaN.

use super::convert::f64_to_f32;
use super::exact::Exact;
use super::round::Round;

/// The `.f32` NaN that hardware returns.
pub const NAN_F32: f32 = f32::from_bits(0x7fff_ffff);

/// Any NaN becomes [`NAN_F32`].
#[inline(always)]
pub fn canonical_f32(x: f32) -> f32 {
    // NOTE: on integers throughout. The compiler may keep a float's own NaN for `if x.is_nan() { NAN_F32 } else { x }`:
    // to it one NaN is as good as another.
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff_ffff } else { bits })
}

/// [`NAN_F32`] where `is_nan`, else `x`, which must not be NaN then.
#[inline(always)]
pub(super) fn nan_if_f32(is_nan: bool, x: f32) -> f32 {
    f32::from_bits(if is_nan { 0x7fff_ffff } else { x.to_bits() })
}

/// `.ftz`: a subnormal becomes zero of the same sign.
#[inline(always)]
pub fn ftz_f32(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits(if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

/// `.sat`: clamps to [0, 1]; NaN becomes +0.
#[inline(always)]
pub fn sat_f32(x: f32) -> f32 {
    // Written so that NaN and −0 fail the first comparison.
    let low = if x > 0.0 { x } else { 0.0 };
    if low > 1.0 { 1.0 } else { low }
}

/// `.sat` of `cvt.sat.f64.*`.
#[inline(always)]
pub fn sat_f64(x: f64) -> f64 {
    let low = if x > 0.0 { x } else { 0.0 };
    if low > 1.0 { 1.0 } else { low }
}

/// Given `sum` rounded to nearest and the sign of what rounding lost, the neighbour with an odd last bit, if anything was
/// lost. A number rounded to odd can be rounded again to a format two bits or more narrower, in any mode, as if once.
#[inline(always)]
pub(crate) fn to_odd_f64(sum: f64, lost: f64) -> f64 {
    let bits = sum.to_bits();
    let away = (lost > 0.0) == (sum > 0.0);
    let step = if away { 1 } else { u64::MAX };
    // A NaN or infinite sum has a NaN rest, which both comparisons deny.
    let inexact = (lost > 0.0) | (lost < 0.0);
    f64::from_bits(if inexact & (bits & 1 == 0) { bits.wrapping_add(step) } else { bits })
}

/// As [`to_odd_f64`].
#[inline(always)]
pub(crate) fn to_odd_f32(sum: f32, lost: f32) -> f32 {
    let bits = sum.to_bits();
    let away = (lost > 0.0) == (sum > 0.0);
    let step = if away { 1 } else { u32::MAX };
    let inexact = (lost > 0.0) | (lost < 0.0);
    f32::from_bits(if inexact & (bits & 1 == 0) { bits.wrapping_add(step) } else { bits })
}

/// `a + b` rounded to odd, and −0 for an exact zero from unlike terms under `.rm`.
#[inline(always)]
fn add_odd(a: f64, b: f64, round: Round) -> f64 {
    let sum = a + b;
    // Knuth's two-sum: `sum + lost` is `a + b` without error (`.f32` terms and their products are far from f64's limits).
    let b_part = sum - a;
    let lost = (a - (sum - b_part)) + (b - b_part);
    let unlike_zero = round == Round::Rm && sum == 0.0 && !(a == 0.0 && a.to_bits() == b.to_bits());
    if unlike_zero { -0.0 } else { to_odd_f64(sum, lost) }
}

/// `add.f32`.
#[inline(always)]
pub fn add_f32(a: f32, b: f32, round: Round) -> f32 {
    match round {
        Round::Rn => a + b,
        _ => f64_to_f32(add_odd(a.into(), b.into(), round), round),
    }
}

/// `sub.f32`.
#[inline(always)]
pub fn sub_f32(a: f32, b: f32, round: Round) -> f32 {
    match round {
        Round::Rn => a - b,
        _ => f64_to_f32(add_odd(a.into(), -f64::from(b), round), round),
    }
}

/// `mul.f32`.
#[inline(always)]
pub fn mul_f32(a: f32, b: f32, round: Round) -> f32 {
    match round {
        Round::Rn => a * b,
        // 48 bits: exact in f64.
        _ => f64_to_f32(f64::from(a) * f64::from(b), round),
    }
}

/// `fma.f32` (and `mad.f32`, which is the same on every target this crate knows).
///
/// `.rn` is [`f32::mul_add`]: one instruction where the caller is compiled for FMA, a library call elsewhere;
/// [`fma_f32_portable`] is the vectorisable form for such callers.
#[inline(always)]
pub fn fma_f32(a: f32, b: f32, c: f32, round: Round) -> f32 {
    match round {
        Round::Rn => a.mul_add(b, c),
        _ => f64_to_f32(add_odd(f64::from(a) * f64::from(b), c.into(), round), round),
    }
}

/// `fma.rn.f32` without the host's fused instruction, and the same bits.
#[inline(always)]
pub fn fma_f32_portable(a: f32, b: f32, c: f32) -> f32 {
    add_odd(f64::from(a) * f64::from(b), c.into(), Round::Rn) as f32
}

/// `div.f32` with a rounding mode (IEEE 754).
#[inline(always)]
pub fn div_f32(a: f32, b: f32, round: Round) -> f32 {
    match round {
        Round::Rn => a / b,
        _ => Exact::from(a).over(b.into()).to_f32(round),
    }
}

/// `rcp.f32` with a rounding mode (IEEE 754).
#[inline(always)]
pub fn rcp_f32(a: f32, round: Round) -> f32 {
    div_f32(1.0, a, round)
}

/// `sqrt.f32` with a rounding mode (IEEE 754).
#[inline(always)]
pub fn sqrt_f32(a: f32, round: Round) -> f32 {
    match round {
        Round::Rn => a.sqrt(),
        _ => Exact::from(a).sqrt().to_f32(round),
    }
}

/// `add.f64`.
#[inline(always)]
pub fn add_f64(a: f64, b: f64, round: Round) -> f64 {
    match round {
        Round::Rn => a + b,
        _ => Exact::from(a).plus(b.into(), round).to_f64(round),
    }
}

/// `sub.f64`.
#[inline(always)]
pub fn sub_f64(a: f64, b: f64, round: Round) -> f64 {
    match round {
        Round::Rn => a - b,
        _ => add_f64(a, -b, round),
    }
}

/// `mul.f64`.
#[inline(always)]
pub fn mul_f64(a: f64, b: f64, round: Round) -> f64 {
    match round {
        Round::Rn => a * b,
        _ => Exact::from(a).times(b.into()).to_f64(round),
    }
}

/// `fma.f64` and `mad.f64`.
#[inline(always)]
pub fn fma_f64(a: f64, b: f64, c: f64, round: Round) -> f64 {
    match round {
        Round::Rn => a.mul_add(b, c),
        _ => Exact::from(a).times(b.into()).plus(c.into(), round).to_f64(round),
    }
}

/// `div.f64`.
#[inline(always)]
pub fn div_f64(a: f64, b: f64, round: Round) -> f64 {
    match round {
        Round::Rn => a / b,
        _ => Exact::from(a).over(b.into()).to_f64(round),
    }
}

/// `rcp.f64`.
#[inline(always)]
pub fn rcp_f64(a: f64, round: Round) -> f64 {
    div_f64(1.0, a, round)
}

/// `sqrt.f64`.
#[inline(always)]
pub fn sqrt_f64(a: f64, round: Round) -> f64 {
    match round {
        Round::Rn => a.sqrt(),
        _ => Exact::from(a).sqrt().to_f64(round),
    }
}

/// `max.f32`: the other operand of a NaN, the canonical NaN of two; +0 above −0.
#[inline(always)]
pub fn max_f32(a: f32, b: f32) -> f32 {
    // Equal operands differ at most in a zero's sign, and `&` of the two signs is that of the larger zero.
    let equal = f32::from_bits(a.to_bits() & b.to_bits());
    let larger = if a > b {
        a
    } else if a < b {
        b
    } else {
        equal
    };
    either_nan_f32(a, b, larger)
}

/// `min.f32`: the other operand of a NaN, the canonical NaN of two; −0 below +0.
#[inline(always)]
pub fn min_f32(a: f32, b: f32) -> f32 {
    let equal = f32::from_bits(a.to_bits() | b.to_bits());
    let smaller = if a < b {
        a
    } else if a > b {
        b
    } else {
        equal
    };
    either_nan_f32(a, b, smaller)
}

#[inline(always)]
fn either_nan_f32(a: f32, b: f32, neither: f32) -> f32 {
    let without_b = if b.is_nan() { a } else { neither };
    canonical_f32(if a.is_nan() { b } else { without_b })
}

/// `max.NaN.f32`: the canonical NaN if either operand is NaN.
#[inline(always)]
pub fn max_nan_f32(a: f32, b: f32) -> f32 {
    nan_if_f32(a.is_nan() | b.is_nan(), max_f32(a, b))
}

/// `min.NaN.f32`: the canonical NaN if either operand is NaN.
#[inline(always)]
pub fn min_nan_f32(a: f32, b: f32) -> f32 {
    nan_if_f32(a.is_nan() | b.is_nan(), min_f32(a, b))
}

/// `.xorsign.abs` of `min` and `max`: the operation on the magnitudes, with the operands' signs multiplied.
#[inline(always)]
pub fn xorsign_abs_f32(a: f32, b: f32, of_magnitudes: impl Fn(f32, f32) -> f32) -> f32 {
    let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
    let magnitude = of_magnitudes(a.abs(), b.abs());
    if magnitude.is_nan() { magnitude } else { f32::from_bits(magnitude.to_bits() | sign) }
}

/// `max.f64`: as [`max_f32`], with the canonical `.f64` NaN.
#[inline(always)]
pub fn max_f64(a: f64, b: f64) -> f64 {
    let equal = f64::from_bits(a.to_bits() & b.to_bits());
    let larger = if a > b {
        a
    } else if a < b {
        b
    } else {
        equal
    };
    either_nan_f64(a, b, larger)
}

/// `min.f64`: as [`min_f32`], with the canonical `.f64` NaN.
#[inline(always)]
pub fn min_f64(a: f64, b: f64) -> f64 {
    let equal = f64::from_bits(a.to_bits() | b.to_bits());
    let smaller = if a < b {
        a
    } else if a > b {
        b
    } else {
        equal
    };
    either_nan_f64(a, b, smaller)
}

#[inline(always)]
fn either_nan_f64(a: f64, b: f64, neither: f64) -> f64 {
    let without_b = if b.is_nan() { a } else { neither };
    let one = if a.is_nan() { b } else { without_b };
    f64::from_bits(if a.is_nan() & b.is_nan() { 0x7ff8_0000_0000_0000 } else { one.to_bits() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: [Round; 4] = [Round::Rn, Round::Rz, Round::Rm, Round::Rp];

    fn values() -> Vec<f32> {
        let mut all = vec![
            0.0,
            1.0,
            1.0 + f32::EPSILON,
            1.0 - f32::EPSILON / 2.0,
            3.0,
            1.0 / 3.0,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::from_bits(1),
            f32::from_bits(0x007f_ffff),
            f32::INFINITY,
            f32::NAN,
            2f32.powi(-75),
            2f32.powi(64) + 2f32.powi(42),
            16777217.0,
            1e-20,
        ];
        let mut state = 0x1234_5678_u32;
        for _ in 0..24 {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            all.push(f32::from_bits(state & 0x7fff_ffff));
        }
        let negatives: Vec<f32> = all.iter().map(|x| -x).collect();
        all.extend(negatives);
        all
    }

    fn same(got: f32, want: f32, what: impl Fn() -> String) {
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{}: {got:e} {:#x}, want {want:e} {:#x}",
            what(),
            got.to_bits(),
            want.to_bits()
        );
    }

    #[test]
    fn f32_in_every_mode_agrees_with_exact_arithmetic() {
        let values = values();
        for round in ROUNDS {
            for &a in &values {
                let x = Exact::from(a);
                same(sqrt_f32(a, round), x.sqrt().to_f32(round), || format!("sqrt {a:e} {round:?}"));
                same(rcp_f32(a, round), Exact::from(1f32).over(x).to_f32(round), || {
                    format!("rcp {a:e} {round:?}")
                });
                for &b in &values {
                    let y = Exact::from(b);
                    let what = |op: &'static str| move || format!("{a:e} {op} {b:e} {round:?}");
                    same(add_f32(a, b, round), x.plus(y, round).to_f32(round), what("+"));
                    same(sub_f32(a, b, round), x.plus((-b).into(), round).to_f32(round), what("-"));
                    same(mul_f32(a, b, round), x.times(y).to_f32(round), what("*"));
                    same(div_f32(a, b, round), x.over(y).to_f32(round), what("/"));
                    for &c in &values {
                        let want = x.times(y).plus(c.into(), round).to_f32(round);
                        same(fma_f32(a, b, c, round), want, || format!("fma {a:e} {b:e} {c:e} {round:?}"));
                        if round == Round::Rn {
                            same(fma_f32_portable(a, b, c), want, || {
                                format!("portable fma {a:e} {b:e} {c:e}")
                            });
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn f64_directed_brackets() {
        assert_eq!(add_f64(1.0, 1e-300, Round::Rp), 1.0 + f64::EPSILON);
        assert_eq!(sub_f64(1.0, 1e-300, Round::Rz), 1.0 - f64::EPSILON / 2.0);
        assert_eq!(mul_f64(5e-324, 0.5, Round::Rp), 5e-324);
        assert_eq!(fma_f64(1.0, 1.0, 5e-324, Round::Rm), 1.0);
        assert_eq!(rcp_f64(3.0, Round::Rp), 1.0 / 3.0 + f64::EPSILON / 4.0);
        assert_eq!(div_f64(1.0, 3.0, Round::Rz), 1.0 / 3.0);
        assert_eq!(sqrt_f64(2.0, Round::Rm), 2f64.sqrt() - f64::EPSILON);
    }

    #[test]
    fn extremes_know_nan_and_the_sign_of_zero() {
        let nan = f32::from_bits(0xffc0_1234);
        assert_eq!(max_f32(nan, 1.0), 1.0);
        assert_eq!(max_f32(1.0, nan), 1.0);
        assert_eq!(max_f32(nan, nan).to_bits(), 0x7fff_ffff);
        assert_eq!(min_f32(nan, f32::INFINITY), f32::INFINITY);
        assert_eq!(max_f32(-0.0, 0.0).to_bits(), 0);
        assert_eq!(max_f32(0.0, -0.0).to_bits(), 0);
        assert_eq!(min_f32(0.0, -0.0).to_bits(), 0x8000_0000);
        assert_eq!(min_f32(-0.0, 0.0).to_bits(), 0x8000_0000);
        assert_eq!(max_nan_f32(nan, 1.0).to_bits(), 0x7fff_ffff);
        assert_eq!(min_nan_f32(1.0, 2.0), 1.0);
        assert_eq!(xorsign_abs_f32(-3.0, 2.0, max_f32), -3.0);
        assert_eq!(xorsign_abs_f32(-3.0, -2.0, min_f32), 2.0);
        assert_eq!(max_f64(f64::NAN, 2.0), 2.0);
        assert_eq!(min_f64(0.0, -0.0).to_bits(), 1 << 63);
    }

    #[test]
    fn modifiers() {
        assert_eq!(ftz_f32(-f32::from_bits(0x007f_ffff)).to_bits(), 0x8000_0000);
        assert_eq!(ftz_f32(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
        assert_eq!(sat_f32(f32::NAN).to_bits(), 0);
        assert_eq!(sat_f32(-0.0).to_bits(), 0);
        assert_eq!(sat_f32(7.0), 1.0);
        assert_eq!(sat_f32(0.25), 0.25);
    }
}
