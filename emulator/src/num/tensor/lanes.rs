//! Eight columns at a time: the few operations that a tile needs, as plain loops and for AVX2.
//!
//! Plain loops are not enough for speed: the compiler sees a sum over k and vectorises that, with a gather for every operand.

use super::super::half::f16_to_f32;
use super::{COLUMNS, Columns};

/// Operations on eight `i32` or eight `f64`.
///
/// # Safety
/// Every function needs the vector unit that the implementation is named after.
pub(super) unsafe trait Lanes {
    /// Eight `i32`.
    type I: Copy;
    /// Eight `f64`.
    type D: Copy;

    unsafe fn splat(x: i32) -> Self::I;
    unsafe fn load(x: &Columns<i32>) -> Self::I;
    unsafe fn store(x: Self::I) -> Columns<i32>;
    unsafe fn add(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn sub(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn mul(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn max(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn xor(a: Self::I, b: Self::I) -> Self::I;
    /// Shifts zeros in from the left; by 32 or more gives 0.
    unsafe fn shift_right(x: Self::I, by: Self::I) -> Self::I;
    /// `2^x`, for exponents of normal numbers.
    unsafe fn power_of_two(x: Self::I) -> Self::D;
    unsafe fn to_f64(x: Self::I) -> Self::D;
    /// The numbers that the low halves encode in f16; which NaN a NaN becomes is open.
    unsafe fn f16_to_f32(x: &Columns<u32>) -> Columns<f32>;
    /// The bits of each number rounded to f32 towards zero; not for NaN.
    unsafe fn to_f32_rz(x: Self::D) -> Self::I;

    unsafe fn splat_f64(x: f64) -> Self::D;
    unsafe fn load_f64(x: &Columns<f64>) -> Self::D;
    unsafe fn store_f64(x: Self::D) -> Columns<f64>;
    unsafe fn add_f64(a: Self::D, b: Self::D) -> Self::D;
    unsafe fn mul_f64(a: Self::D, b: Self::D) -> Self::D;
    /// `a · b + c`, for products that are exact: fused or not is the same.
    unsafe fn mul_add(a: Self::D, b: Self::D, c: Self::D) -> Self::D;
}

/// Loops, for any host.
pub(super) struct Portable;

#[inline(always)]
fn each<T: Copy, R: Copy + Default>(a: Columns<T>, f: impl Fn(T) -> R) -> Columns<R> {
    let mut out = [R::default(); COLUMNS];
    for n in 0..COLUMNS {
        out[n] = f(a[n]);
    }
    out
}

#[inline(always)]
fn both<T: Copy + Default>(a: Columns<T>, b: Columns<T>, f: impl Fn(T, T) -> T) -> Columns<T> {
    let mut out = [T::default(); COLUMNS];
    for n in 0..COLUMNS {
        out[n] = f(a[n], b[n]);
    }
    out
}

// SAFETY: needs nothing.
unsafe impl Lanes for Portable {
    type I = Columns<i32>;
    type D = Columns<f64>;

    #[inline(always)]
    unsafe fn splat(x: i32) -> Self::I {
        [x; COLUMNS]
    }
    #[inline(always)]
    unsafe fn load(x: &Columns<i32>) -> Self::I {
        *x
    }
    #[inline(always)]
    unsafe fn store(x: Self::I) -> Columns<i32> {
        x
    }
    #[inline(always)]
    unsafe fn add(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| a.max(b))
    }
    #[inline(always)]
    unsafe fn xor(a: Self::I, b: Self::I) -> Self::I {
        both(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    unsafe fn shift_right(x: Self::I, by: Self::I) -> Self::I {
        both(x, by, |x, by| (x as u32).checked_shr(by as u32).unwrap_or(0) as i32)
    }
    #[inline(always)]
    unsafe fn power_of_two(x: Self::I) -> Self::D {
        each(x, |x| f64::from_bits(((x + 1023) as u64) << 52))
    }
    #[inline(always)]
    unsafe fn to_f64(x: Self::I) -> Self::D {
        each(x, f64::from)
    }
    #[inline(always)]
    unsafe fn f16_to_f32(x: &Columns<u32>) -> Columns<f32> {
        each(*x, |x| f16_to_f32(x as u16))
    }
    #[inline(always)]
    unsafe fn to_f32_rz(x: Self::D) -> Self::I {
        each(x, |x| {
            let near = x as f32;
            near.to_bits() as i32 - (f64::from(near).abs() > x.abs()) as i32
        })
    }
    #[inline(always)]
    unsafe fn splat_f64(x: f64) -> Self::D {
        [x; COLUMNS]
    }
    #[inline(always)]
    unsafe fn load_f64(x: &Columns<f64>) -> Self::D {
        *x
    }
    #[inline(always)]
    unsafe fn store_f64(x: Self::D) -> Columns<f64> {
        x
    }
    #[inline(always)]
    unsafe fn add_f64(a: Self::D, b: Self::D) -> Self::D {
        both(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn mul_f64(a: Self::D, b: Self::D) -> Self::D {
        both(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::D, b: Self::D, c: Self::D) -> Self::D {
        both(both(a, b, |a, b| a * b), c, |product, c| product + c)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Columns, Lanes};

    /// AVX2, FMA and F16C.
    pub(in super::super) struct Avx2;

    // SAFETY: every function needs AVX2, FMA and F16C, and nothing else: pointers come from references to 32 or 64 bytes.
    unsafe impl Lanes for Avx2 {
        type I = __m256i;
        type D = (__m256d, __m256d);

        #[inline(always)]
        unsafe fn splat(x: i32) -> Self::I {
            unsafe { _mm256_set1_epi32(x) }
        }
        #[inline(always)]
        unsafe fn load(x: &Columns<i32>) -> Self::I {
            unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
        }
        #[inline(always)]
        unsafe fn store(x: Self::I) -> Columns<i32> {
            // SAFETY: both are 32 bytes of plain integers.
            unsafe { std::mem::transmute(x) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::I, b: Self::I) -> Self::I {
            unsafe { _mm256_add_epi32(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::I, b: Self::I) -> Self::I {
            unsafe { _mm256_sub_epi32(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::I, b: Self::I) -> Self::I {
            unsafe { _mm256_mullo_epi32(a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: Self::I, b: Self::I) -> Self::I {
            unsafe { _mm256_max_epi32(a, b) }
        }
        #[inline(always)]
        unsafe fn xor(a: Self::I, b: Self::I) -> Self::I {
            unsafe { _mm256_xor_si256(a, b) }
        }
        #[inline(always)]
        unsafe fn shift_right(x: Self::I, by: Self::I) -> Self::I {
            unsafe { _mm256_srlv_epi32(x, by) }
        }
        #[inline(always)]
        unsafe fn power_of_two(x: Self::I) -> Self::D {
            unsafe {
                let biased = _mm256_add_epi32(x, _mm256_set1_epi32(1023));
                let low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(biased));
                let high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256::<1>(biased));
                let place = |x| _mm256_castsi256_pd(_mm256_slli_epi64::<52>(x));
                (place(low), place(high))
            }
        }
        #[inline(always)]
        unsafe fn to_f64(x: Self::I) -> Self::D {
            unsafe {
                (
                    _mm256_cvtepi32_pd(_mm256_castsi256_si128(x)),
                    _mm256_cvtepi32_pd(_mm256_extracti128_si256::<1>(x)),
                )
            }
        }
        #[inline(always)]
        unsafe fn f16_to_f32(x: &Columns<u32>) -> Columns<f32> {
            unsafe {
                let low = _mm_loadu_si128(x.as_ptr().cast());
                let high = _mm_loadu_si128(x.as_ptr().add(4).cast());
                // SAFETY: both are 32 bytes of plain numbers.
                std::mem::transmute(_mm256_cvtph_ps(_mm_packus_epi32(low, high)))
            }
        }
        #[inline(always)]
        unsafe fn to_f32_rz((low, high): Self::D) -> Self::I {
            unsafe {
                let sign = _mm256_set1_pd(-0.0);
                let (near_low, near_high) = (_mm256_cvtpd_ps(low), _mm256_cvtpd_ps(high));
                // All ones where rounding went away from zero, which is −1.
                let away_low = _mm256_cmp_pd::<_CMP_GT_OQ>(
                    _mm256_andnot_pd(sign, _mm256_cvtps_pd(near_low)),
                    _mm256_andnot_pd(sign, low),
                );
                let away_high = _mm256_cmp_pd::<_CMP_GT_OQ>(
                    _mm256_andnot_pd(sign, _mm256_cvtps_pd(near_high)),
                    _mm256_andnot_pd(sign, high),
                );
                let (away_low, away_high) = (_mm256_castpd_si256(away_low), _mm256_castpd_si256(away_high));
                // Halve the width; the pack works within 128-bit halves, which the permutation repairs.
                let away = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(away_low, away_high));
                // Pairs of 16-bit masks became one 32-bit mask each, because both halves of a 64-bit mask are equal.
                let near = _mm256_set_m128i(_mm_castps_si128(near_high), _mm_castps_si128(near_low));
                _mm256_add_epi32(near, away)
            }
        }
        #[inline(always)]
        unsafe fn splat_f64(x: f64) -> Self::D {
            unsafe { (_mm256_set1_pd(x), _mm256_set1_pd(x)) }
        }
        #[inline(always)]
        unsafe fn load_f64(x: &Columns<f64>) -> Self::D {
            unsafe { (_mm256_loadu_pd(x.as_ptr()), _mm256_loadu_pd(x.as_ptr().add(4))) }
        }
        #[inline(always)]
        unsafe fn store_f64(x: Self::D) -> Columns<f64> {
            // SAFETY: both are 64 bytes of plain numbers, in this order.
            unsafe { std::mem::transmute([x.0, x.1]) }
        }
        #[inline(always)]
        unsafe fn add_f64(a: Self::D, b: Self::D) -> Self::D {
            unsafe { (_mm256_add_pd(a.0, b.0), _mm256_add_pd(a.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn mul_f64(a: Self::D, b: Self::D) -> Self::D {
            unsafe { (_mm256_mul_pd(a.0, b.0), _mm256_mul_pd(a.1, b.1)) }
        }
        #[inline(always)]
        unsafe fn mul_add(a: Self::D, b: Self::D, c: Self::D) -> Self::D {
            unsafe { (_mm256_fmadd_pd(a.0, b.0, c.0), _mm256_fmadd_pd(a.1, b.1, c.1)) }
        }
    }
}
