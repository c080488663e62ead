//! `cvt` (PTX ISA, *Data Movement and Conversion Instructions: cvt*) except for the 16-bit floats, which are in
//! [`half`](super::half).

use super::arith::{NAN_F32, nan_if_f32};
use super::exact::Exact;
use super::round::{Format, Round, round_to};

/// `cvt.rnd.f32.f64`. NaN becomes canonical.
#[inline(always)]
pub fn f64_to_f32(x: f64, round: Round) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    let bits = near.to_bits();
    // The neighbours of a float differ by one in magnitude, zero and infinity included.
    let (toward_zero, away) = (f32::from_bits(bits.wrapping_sub(1)), f32::from_bits(bits.wrapping_add(1)));
    let negative = x.to_bits() >> 63 == 1;
    let rounded = match round {
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
    };
    nan_if_f32(x.is_nan(), rounded)
}

/// `cvt.f64.f32`, exact.
#[inline(always)]
pub fn f32_to_f64(x: f32) -> f64 {
    x.into()
}

/// `cvt.{rni,rzi,rmi,rpi}.f32.f32`: to an integral value, as a float.
#[inline(always)]
pub fn integral_f32(x: f32, round: Round) -> f32 {
    match round {
        Round::Rn => x.round_ties_even(),
        Round::Rz => x.trunc(),
        Round::Rm => x.floor(),
        Round::Rp => x.ceil(),
        Round::Rna => x.round(),
    }
}

/// `cvt.{rni,rzi,rmi,rpi}.f64.f64`.
#[inline(always)]
pub fn integral_f64(x: f64, round: Round) -> f64 {
    match round {
        Round::Rn => x.round_ties_even(),
        Round::Rz => x.trunc(),
        Round::Rm => x.floor(),
        Round::Rp => x.ceil(),
        Round::Rna => x.round(),
    }
}

/// An integer type that floats convert to and from.
pub trait Integer: Copy {
    /// The nearest value in range; NaN becomes 0.
    fn saturate(x: f64) -> Self;
    /// What NaN becomes when the source is `.f64` or the destination has 64 bits: the top bit alone.
    const NAN: Self;
    /// Whether the type has 64 bits.
    const WIDE: bool;
    /// Sign and magnitude.
    fn parts(self) -> (bool, u64);
}

macro_rules! integers {
    ($($ty:ident $wide:literal),*) => {$(
        impl Integer for $ty {
            const NAN: Self = (1u64 << ($ty::BITS - 1)) as $ty;
            const WIDE: bool = $wide;
            #[inline(always)]
            fn saturate(x: f64) -> Self {
                x as $ty
            }
            #[inline(always)]
            #[allow(unused_comparisons)]
            fn parts(self) -> (bool, u64) {
                let negative = self < 0;
                (negative, if negative { (self as i64).unsigned_abs() } else { self as u64 })
            }
        }
    )*};
}
integers!(u8 false, u16 false, u32 false, u64 true, i8 false, i16 false, i32 false, i64 true);

/// `cvt.irnd.<integer>.<f16 | bf16 | f32>`: rounds to an integer, then clamps to the range of `T` (float to integer always
/// saturates). NaN becomes 0, or the top bit alone when `T` has 64 bits.
#[inline(always)]
pub fn f32_to_int<T: Integer>(x: f32, round: Round) -> T {
    if T::WIDE & x.is_nan() {
        return T::NAN;
    }
    T::saturate(integral_f32(x, round).into())
}

/// `cvt.irnd.<integer>.f64`: as [`f32_to_int`], with NaN becoming the top bit alone for every `T`.
#[inline(always)]
pub fn f64_to_int<T: Integer>(x: f64, round: Round) -> T {
    if x.is_nan() {
        return T::NAN;
    }
    T::saturate(integral_f64(x, round))
}

/// `cvt.rzi.s32.f32`, the common case, branch-free.
#[inline(always)]
pub fn f32_to_s32_rz(x: f32) -> i32 {
    x as i32
}

/// `cvt.rnd.f32.<integer>`.
#[inline(always)]
pub fn int_to_f32<T: Integer>(x: T, round: Round) -> f32 {
    let (negative, magnitude) = x.parts();
    f32::from_bits(unsigned_zero(Format::F32, negative, magnitude, round) as u32)
}

/// `cvt.rnd.f64.<integer>`.
#[inline(always)]
pub fn int_to_f64<T: Integer>(x: T, round: Round) -> f64 {
    let (negative, magnitude) = x.parts();
    f64::from_bits(unsigned_zero(Format::F64, negative, magnitude, round))
}

/// `cvt.rnd.{f16,bf16}.<integer>`, as the format's bits.
#[inline(always)]
pub fn int_to_half<T: Integer>(x: T, format: Format, round: Round) -> u16 {
    let (negative, magnitude) = x.parts();
    unsigned_zero(format, negative, magnitude, round) as u16
}

#[inline(always)]
fn unsigned_zero(format: Format, negative: bool, magnitude: u64, round: Round) -> u64 {
    if format == Format::F32 && round == Round::Rn {
        let rounded = magnitude as f32;
        return (if negative { -rounded } else { rounded }).to_bits().into();
    }
    round_to(format, negative, magnitude.into(), 0, round)
}

/// `cvt.rna.tf32.f32`: 10 fraction bits, ties away from zero; the 13 bits below are zero. NaN becomes canonical.
#[inline(always)]
pub fn f32_to_tf32_rna(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x1000) & 0xffff_e000;
    let finite = if bits & 0x7f80_0000 == 0x7f80_0000 { bits } else { rounded };
    if x.is_nan() { NAN_F32.to_bits() } else { finite }
}

/// `cvt.{rn,rz,rna}.tf32.f32`.
#[inline(always)]
pub fn f32_to_tf32(x: f32, round: Round) -> u32 {
    if round == Round::Rna {
        return f32_to_tf32_rna(x);
    }
    if x.is_nan() {
        return NAN_F32.to_bits();
    }
    (Exact::from(x).round(Format::TF32, round) << 13) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDS: [Round; 4] = [Round::Rn, Round::Rz, Round::Rm, Round::Rp];

    #[test]
    fn narrowing_agrees_with_exact_arithmetic() {
        let mut state = 1u64;
        for i in 0..200_000u64 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Exponents around f32's range, plus every kind of bit pattern.
            let exponent = 1023 - 160 + (state >> 32) % 300;
            let bits = if i % 4 == 0 { state } else { (state & 0x800f_ffff_ffff_ffff) | exponent << 52 };
            let x = f64::from_bits(if i % 3 == 0 { bits & !0x1fff_ffff } else { bits });
            for round in ROUNDS {
                let (got, want) = (f64_to_f32(x, round), Exact::from(x).to_f32(round));
                assert_eq!(got.to_bits(), want.to_bits(), "{x:e} {round:?}");
            }
        }
    }

    #[test]
    fn to_integers() {
        assert_eq!(f32_to_int::<i32>(2.5, Round::Rn), 2);
        assert_eq!(f32_to_int::<i32>(-2.5, Round::Rm), -3);
        assert_eq!(f32_to_int::<i32>(-2.5, Round::Rp), -2);
        assert_eq!(f32_to_int::<i32>(-2.9, Round::Rz), -2);
        assert_eq!(f32_to_int::<i32>(3e9, Round::Rz), i32::MAX);
        assert_eq!(f32_to_int::<u32>(-1.0, Round::Rz), 0);
        assert_eq!(f32_to_int::<u8>(300.0, Round::Rz), 255);
        assert_eq!(f32_to_int::<i16>(f32::NEG_INFINITY, Round::Rz), i16::MIN);
        assert_eq!(f32_to_int::<i64>(f32::INFINITY, Round::Rz), i64::MAX);
        assert_eq!(f64_to_int::<u64>(1.8446744073709552e19, Round::Rz), u64::MAX);
        assert_eq!(f64_to_int::<i64>(-9.3e18, Round::Rz), i64::MIN);
    }

    #[test]
    fn nan_to_integers() {
        assert_eq!(f32_to_int::<i32>(f32::NAN, Round::Rz), 0);
        assert_eq!(f32_to_int::<u16>(f32::NAN, Round::Rz), 0);
        assert_eq!(f32_to_int::<i64>(f32::NAN, Round::Rz), i64::MIN);
        assert_eq!(f32_to_int::<u64>(f32::NAN, Round::Rz), 1 << 63);
        assert_eq!(f64_to_int::<i32>(f64::NAN, Round::Rz), i32::MIN);
        assert_eq!(f64_to_int::<u32>(f64::NAN, Round::Rz), 1 << 31);
    }

    #[test]
    fn from_integers() {
        assert_eq!(int_to_f32(16777217i32, Round::Rn), 16777216.0);
        assert_eq!(int_to_f32(16777217i32, Round::Rp), 16777218.0);
        assert_eq!(int_to_f32(-16777217i32, Round::Rz), -16777216.0);
        assert_eq!(int_to_f32(-16777217i64, Round::Rm), -16777218.0);
        assert_eq!(int_to_f32(u64::MAX, Round::Rn), 18446744073709551615u64 as f32);
        assert_eq!(int_to_f32(i64::MIN, Round::Rn), i64::MIN as f32);
        assert_eq!(int_to_f32(i32::MIN, Round::Rn), i32::MIN as f32);
        assert_eq!(int_to_f32(0i32, Round::Rm).to_bits(), 0);
        assert_eq!(int_to_f64(u64::MAX, Round::Rz), 18446744073709549568.0);
        assert_eq!(int_to_half(65520i32, Format::F16, Round::Rn), 0x7c00);
        assert_eq!(int_to_half(2049i32, Format::F16, Round::Rn), 0x6800);
        assert_eq!(int_to_half(257u32, Format::BF16, Round::Rn), 0x4380);
    }

    #[test]
    fn integral_values() {
        assert_eq!(integral_f32(-0.4, Round::Rn).to_bits(), 0x8000_0000);
        assert_eq!(integral_f32(0.5, Round::Rn), 0.0);
        assert_eq!(integral_f32(1.5, Round::Rn), 2.0);
        assert_eq!(integral_f32(-1.5, Round::Rm), -2.0);
        assert_eq!(integral_f64(1.1, Round::Rp), 2.0);
    }

    #[test]
    fn tf32() {
        let at = |bits: u32| f32::from_bits(bits);
        assert_eq!(f32_to_tf32_rna(at(0x3f80_1000)), 0x3f80_2000);
        assert_eq!(f32_to_tf32(at(0x3f80_1000), Round::Rn), 0x3f80_0000);
        assert_eq!(f32_to_tf32(at(0x3f80_3000), Round::Rn), 0x3f80_4000);
        assert_eq!(f32_to_tf32(at(0x3f80_1fff), Round::Rz), 0x3f80_0000);
        assert_eq!(f32_to_tf32_rna(at(0x3f80_0fff)), 0x3f80_0000);
        assert_eq!(f32_to_tf32_rna(f32::MAX), 0x7f80_0000);
        assert_eq!(f32_to_tf32_rna(f32::NEG_INFINITY), 0xff80_0000);
        assert_eq!(f32_to_tf32_rna(at(0xff80_0001)), 0x7fff_ffff);
        assert_eq!(f32_to_tf32_rna(at(0x8000_0fff)), 0x8000_0000);
        assert_eq!(f32_to_tf32(at(0x0000_1001), Round::Rn), 0x0000_2000);
    }
}
