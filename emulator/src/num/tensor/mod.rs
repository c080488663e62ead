//! `D = A · B + C` on 16 × 8 tiles as tensor cores compute it (PTX ISA, *Matrix multiply-accumulate operation using
//! `mma` instruction*: the manual leaves order, precision and rounding of the sum open).
//!
//! [`TensorMode::Exact`] multiplies exactly, adds in `f64` in order of k, beginning with C, and rounds once to nearest even.
//!
//! The other modes are models of hardware. Per group of products: all products and the accumulator are aligned to the largest
//! exponent among them, cut off below the accumulator's 23 fraction bits plus some extra ones, added as integers, and the sum
//! is rounded towards zero to `.f32`, which is the accumulator of the next group.
//!
//! | mode | group of f16, bf16 | group of tf32 | extra bits |
//! | --- | --- | --- | --- |
//! | [`TensorMode::Sm80`] | 8 | 4 | 1 |
//! | [`TensorMode::Sm90`] | 16 | 8 | 2 |
//!
//! They agree bit for bit with what Khattak and Mikaitis recorded on A100 and H100 ("Accurate Models of NVIDIA Tensor Cores",
//! arXiv 2512.07004) for `.f32` accumulators. Their data are random normal numbers; subnormals follow the same rule
//! with the format's smallest exponent, infinities and NaN follow IEEE 754, overflow follows rounding towards zero. With `.f16`
//! accumulators the last group's sum is rounded to nearest even; that is an assumption without recorded data.

mod lanes;

use std::ops::Range;

use lanes::{Lanes, Portable};

use super::arith::canonical_f32;
use super::half::{bf16_to_f32, f16_to_f32, f32_to_f16_rn, f64_to_odd_f32};
use crate::TensorMode;

/// Rows of A and C.
pub const ROWS: usize = 16;
/// Columns of B and C.
pub const COLUMNS: usize = 8;

/// The type of A's and B's elements.
pub trait Element {
    /// Products per group of the `Sm80` model.
    const SM80_GROUP: usize;
    /// Whether it is `.f16`, whose tiles have a multiple of eight columns.
    const IS_F16: bool = false;
    /// The number that the low bits of a word encode.
    fn value(bits: u32) -> f32;
    /// A finite element as an 11-bit significand (10 of them fraction) and the exponent of its first bit. Subnormal numbers
    /// are not normalised.
    fn parts(bits: u32) -> (u32, i32);
    /// Whether it is below zero, or −0.
    fn negative(bits: u32) -> bool;
    /// Whether it is infinite or NaN.
    fn special(bits: u32) -> bool;
}

/// `.f16`, in the low half of a word.
pub struct F16;
/// `.bf16`, in the low half of a word.
pub struct Bf16;
/// `.tf32`: the upper 19 bits of a word; the others are ignored.
pub struct Tf32;

impl Element for F16 {
    const SM80_GROUP: usize = 8;
    const IS_F16: bool = true;

    #[inline(always)]
    fn value(bits: u32) -> f32 {
        f16_to_f32(bits as u16)
    }

    #[inline(always)]
    fn parts(bits: u32) -> (u32, i32) {
        let field = (bits >> 10) & 0x1f;
        ((bits & 0x3ff) | ((field != 0) as u32) << 10, field.max(1) as i32 - 15)
    }

    #[inline(always)]
    fn negative(bits: u32) -> bool {
        bits & 0x8000 != 0
    }

    #[inline(always)]
    fn special(bits: u32) -> bool {
        bits & 0x7c00 == 0x7c00
    }
}

impl Element for Bf16 {
    const SM80_GROUP: usize = 8;

    #[inline(always)]
    fn value(bits: u32) -> f32 {
        bf16_to_f32(bits as u16)
    }

    #[inline(always)]
    fn parts(bits: u32) -> (u32, i32) {
        let field = (bits >> 7) & 0xff;
        // Eight bits, moved to where f16 has its eleven.
        (((bits & 0x7f) | ((field != 0) as u32) << 7) << 3, field.max(1) as i32 - 127)
    }

    #[inline(always)]
    fn negative(bits: u32) -> bool {
        bits & 0x8000 != 0
    }

    #[inline(always)]
    fn special(bits: u32) -> bool {
        bits & 0x7f80 == 0x7f80
    }
}

impl Element for Tf32 {
    const SM80_GROUP: usize = 4;

    #[inline(always)]
    fn value(bits: u32) -> f32 {
        f32::from_bits(bits & 0xffff_e000)
    }

    #[inline(always)]
    fn parts(bits: u32) -> (u32, i32) {
        let field = (bits >> 23) & 0xff;
        (((bits >> 13) & 0x3ff) | ((field != 0) as u32) << 10, field.max(1) as i32 - 127)
    }

    #[inline(always)]
    fn negative(bits: u32) -> bool {
        bits & 0x8000_0000 != 0
    }

    #[inline(always)]
    fn special(bits: u32) -> bool {
        bits & 0x7f80_0000 == 0x7f80_0000
    }
}

/// The type of C and D, as the low bits of a word.
pub trait Accumulator {
    /// The number that the word encodes.
    fn load(bits: u32) -> f32;
    /// A sum in `f64`, rounded to nearest even.
    fn nearest(sum: f64) -> u32;
    /// Whether the models round towards zero, to `.f32`, at the end as they do between groups; else to nearest.
    const TRUNCATES: bool;
}

/// `.f32` accumulators.
pub struct AccF32;
/// `.f16` accumulators.
pub struct AccF16;

impl Accumulator for AccF32 {
    const TRUNCATES: bool = true;

    #[inline(always)]
    fn load(bits: u32) -> f32 {
        f32::from_bits(bits)
    }

    #[inline(always)]
    fn nearest(sum: f64) -> u32 {
        canonical_f32(sum as f32).to_bits()
    }
}

impl Accumulator for AccF16 {
    const TRUNCATES: bool = false;

    #[inline(always)]
    fn load(bits: u32) -> f32 {
        f16_to_f32(bits as u16)
    }

    #[inline(always)]
    fn nearest(sum: f64) -> u32 {
        f32_to_f16_rn(f64_to_odd_f32(sum)).into()
    }
}

/// A row of C or of B.
type Columns<T> = [T; COLUMNS];

/// `c = a · b + c`, all as the bits of their types, one element a word. The order of the columns does not matter, as long as
/// `b` and `c` agree.
#[inline]
pub fn multiply<E: Element, A: Accumulator, const K: usize>(
    mode: TensorMode,
    a: &[[u32; K]; ROWS],
    b: &[Columns<u32>; K],
    c: &mut [Columns<u32>; ROWS],
) {
    // SAFETY: plain loops need nothing of the host.
    unsafe { multiply_with::<Portable, E, A, K>(mode, a, b, c) }
}

/// [`multiply`] with AVX2, FMA and F16C, and the same bits.
///
/// # Safety
/// The host must have these features; a caller that is compiled for them need not say `unsafe`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub fn multiply_avx2<E: Element, A: Accumulator, const K: usize>(
    mode: TensorMode,
    a: &[[u32; K]; ROWS],
    b: &[Columns<u32>; K],
    c: &mut [Columns<u32>; ROWS],
) {
    // SAFETY: this function's own features.
    unsafe { multiply_with::<lanes::Avx2, E, A, K>(mode, a, b, c) }
}

/// # Safety
/// The host has what `L` needs.
#[inline(always)]
unsafe fn multiply_with<L: Lanes, E: Element, A: Accumulator, const K: usize>(
    mode: TensorMode,
    a: &[[u32; K]; ROWS],
    b: &[Columns<u32>; K],
    c: &mut [Columns<u32>; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match mode {
            TensorMode::Exact => exact::<L, E, A, K>(a, b, c),
            TensorMode::Sm80 => model::<L, E, A, K, 1>(E::SM80_GROUP.min(K), a, b, c),
            TensorMode::Sm90 => model::<L, E, A, K, 2>(K, a, b, c),
        }
    }
}

/// # Safety
/// As [`multiply_with`].
#[inline(always)]
unsafe fn exact<L: Lanes, E: Element, A: Accumulator, const K: usize>(
    a: &[[u32; K]; ROWS],
    b: &[Columns<u32>; K],
    c: &mut [Columns<u32>; ROWS],
) {
    let mut b_values = [[0f64; COLUMNS]; K];
    for k in 0..K {
        // SAFETY: the caller's promise.
        b_values[k] = unsafe { values::<L, E, COLUMNS>(&b[k]) };
    }
    for r in 0..ROWS {
        // SAFETY: the caller's promise.
        let a_values = unsafe { values::<L, E, K>(&a[r]) };
        let mut start = [0f64; COLUMNS];
        for n in 0..COLUMNS {
            start[n] = A::load(c[r][n]).into();
        }
        // SAFETY: the caller's promise.
        let sum = unsafe {
            let mut sum = L::load_f64(&start);
            for k in 0..K {
                sum = L::mul_add(L::splat_f64(a_values[k]), L::load_f64(&b_values[k]), sum);
            }
            L::store_f64(sum)
        };
        for n in 0..COLUMNS {
            c[r][n] = A::nearest(sum[n]);
        }
    }
}

/// The numbers that elements encode, exact.
///
/// # Safety
/// As [`multiply_with`].
#[inline(always)]
unsafe fn values<L: Lanes, E: Element, const N: usize>(bits: &[u32; N]) -> [f64; N] {
    let mut out = [0f64; N];
    if E::IS_F16 {
        for first in (0..N).step_by(COLUMNS) {
            let mut part = [0; COLUMNS];
            part.copy_from_slice(&bits[first..first + COLUMNS]);
            // SAFETY: the caller's promise.
            let part = unsafe { L::f16_to_f32(&part) };
            for n in 0..COLUMNS {
                out[first + n] = part[n].into();
            }
        }
    } else {
        for n in 0..N {
            out[n] = E::value(bits[n]).into();
        }
    }
    out
}

/// The exponent of a zero: so low that it never is the largest.
const NO_EXPONENT: i32 = -4096;
/// The largest exponent counts as this at least, so that a sum of zeros needs no special case.
const LOWEST_EXPONENT: i32 = -133;

/// Numbers prepared for the model.
struct Parts<const N: usize> {
    /// All ones if negative, else 0.
    sign: [i32; N],
    significand: [i32; N],
    exponent: [i32; N],
}

impl<const N: usize> Parts<N> {
    const ZERO: Self = Parts { sign: [0; N], significand: [0; N], exponent: [0; N] };

    #[inline(always)]
    fn set(&mut self, n: usize, negative: bool, significand: u32, exponent: i32) {
        self.sign[n] = -(negative as i32);
        self.significand[n] = significand as i32;
        self.exponent[n] = if significand == 0 { NO_EXPONENT } else { exponent };
    }

    #[inline(always)]
    fn of<E: Element>(bits: &[u32; N]) -> Self {
        let mut out = Self::ZERO;
        for n in 0..N {
            let (significand, exponent) = E::parts(bits[n]);
            out.set(n, E::negative(bits[n]), significand, exponent);
        }
        out
    }

    #[inline(always)]
    fn of_f32(values: &[f32; N]) -> Self {
        let mut out = Self::ZERO;
        for n in 0..N {
            let bits = values[n].to_bits();
            let field = (bits >> 23) & 0xff;
            let significand = (bits & 0x7f_ffff) | ((field != 0) as u32) << 23;
            out.set(n, bits >> 31 == 1, significand, field.max(1) as i32 - 127);
        }
        out
    }
}

/// # Safety
/// As [`multiply_with`].
#[inline(always)]
unsafe fn model<L: Lanes, E: Element, A: Accumulator, const K: usize, const EXTRA: i32>(
    group: usize,
    a: &[[u32; K]; ROWS],
    b: &[Columns<u32>; K],
    c: &mut [Columns<u32>; ROWS],
) {
    // NOTE: loops rather than `map` and closures, which might not be compiled for the caller's vector unit.
    let mut b_parts = [const { Parts::<COLUMNS>::ZERO }; K];
    let mut b_special = false;
    for k in 0..K {
        b_parts[k] = Parts::of::<E>(&b[k]);
        for n in 0..COLUMNS {
            // A product has 20 fraction bits; the sum has 23 and the extra ones.
            b_parts[k].significand[n] <<= 3 + EXTRA;
            b_special |= E::special(b[k][n]);
        }
    }
    for r in 0..ROWS {
        let a_parts = Parts::of::<E>(&a[r]);
        let mut special = b_special;
        for k in 0..K {
            special |= E::special(a[r][k]);
        }
        let mut accumulator = [0f32; COLUMNS];
        for n in 0..COLUMNS {
            let start = A::load(c[r][n]);
            special |= !start.is_finite();
            accumulator[n] = if start.is_finite() { start } else { 0.0 };
        }
        // SAFETY: the caller's promise.
        let (truncated, sum) = unsafe {
            let mut sum = add_group::<L, K, EXTRA>(0..group, &a_parts, &b_parts, &accumulator);
            for first in (group..K).step_by(group) {
                let truncated = L::store(L::to_f32_rz(sum));
                for n in 0..COLUMNS {
                    accumulator[n] = f32::from_bits(truncated[n] as u32);
                }
                sum = add_group::<L, K, EXTRA>(first..first + group, &a_parts, &b_parts, &accumulator);
            }
            (L::store(L::to_f32_rz(sum)), L::store_f64(sum))
        };
        let old = c[r];
        for n in 0..COLUMNS {
            c[r][n] = if A::TRUNCATES { truncated[n] as u32 } else { A::nearest(sum[n]) };
        }
        if special {
            overwrite_specials::<E, A, K>(&a[r], b, &old, &mut c[r]);
        }
    }
}

/// One group for all columns of a row, before rounding.
///
/// # Safety
/// As [`multiply_with`].
#[inline(always)]
unsafe fn add_group<L: Lanes, const K: usize, const EXTRA: i32>(
    group: Range<usize>,
    a: &Parts<K>,
    b: &[Parts<COLUMNS>; K],
    accumulator: &Columns<f32>,
) -> L::D {
    let c = Parts::of_f32(accumulator);
    // SAFETY: the caller's promise.
    unsafe {
        let c_exponent = L::load(&c.exponent);
        let mut largest = L::max(c_exponent, L::splat(LOWEST_EXPONENT));
        for k in group.clone() {
            largest = L::max(largest, L::add(L::splat(a.exponent[k]), L::load(&b[k].exponent)));
        }
        let negate = |magnitude, sign| L::sub(L::xor(magnitude, sign), sign);
        // 16 products below 2^22 · 2^5 fit 31 bits.
        let mut products = L::splat(0);
        for k in group {
            let exponent = L::add(L::splat(a.exponent[k]), L::load(&b[k].exponent));
            let magnitude = L::mul(L::splat(a.significand[k]), L::load(&b[k].significand));
            let aligned = L::shift_right(magnitude, L::sub(largest, exponent));
            products = L::add(products, negate(aligned, L::xor(L::splat(a.sign[k]), L::load(&b[k].sign))));
        }
        let magnitude = L::mul(L::load(&c.significand), L::splat(1 << EXTRA));
        let aligned = negate(L::shift_right(magnitude, L::sub(largest, c_exponent)), L::load(&c.sign));
        // Both below 2^31, so their sum is exact in f64; its last bit's weight is a power of two in f64's range.
        let sum = L::add_f64(L::to_f64(products), L::to_f64(aligned));
        L::mul_f64(sum, L::power_of_two(L::sub(largest, L::splat(23 + EXTRA))))
    }
}

/// In a row in which something is infinite or NaN, gives the columns that meet it what IEEE 754 says.
#[cold]
#[inline(never)]
fn overwrite_specials<E: Element, A: Accumulator, const K: usize>(
    a: &[u32; K],
    b: &[Columns<u32>; K],
    c: &Columns<u32>,
    out: &mut Columns<u32>,
) {
    for n in 0..COLUMNS {
        let mut total = f64::from(A::load(c[n]));
        let mut special = !total.is_finite();
        for k in 0..K {
            special |= E::special(a[k]) | E::special(b[k][n]);
            total += f64::from(E::value(a[k])) * f64::from(E::value(b[k][n]));
        }
        if special {
            out[n] = A::nearest(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One dot product: row 0, column 0 of a tile whose other elements are zero.
    fn dot<E: Element, A: Accumulator, const K: usize>(
        mode: TensorMode,
        a: &[u32],
        b: &[u32],
        c: u32,
    ) -> u32 {
        let mut a_tile = [[0; K]; ROWS];
        let mut b_tile = [[0; COLUMNS]; K];
        let mut c_tile = [[0; COLUMNS]; ROWS];
        for k in 0..a.len() {
            (a_tile[0][k], b_tile[k][0]) = (a[k], b[k]);
        }
        c_tile[0][0] = c;
        #[cfg(target_arch = "x86_64")]
        let before = c_tile;
        multiply::<E, A, K>(mode, &a_tile, &b_tile, &mut c_tile);
        #[cfg(target_arch = "x86_64")]
        if crate::exec::lanes::host_is_wide() {
            let mut wide = before;
            // SAFETY: the host has the features.
            unsafe { multiply_avx2::<E, A, K>(mode, &a_tile, &b_tile, &mut wide) };
            assert_eq!(wide, c_tile, "AVX2 and plain loops differ in {mode:?}");
        }
        c_tile[0][0]
    }

    fn dot_f16(mode: TensorMode, pairs: &[(f32, f32)], c: f32) -> f32 {
        let bits = |x: f32| u32::from(f32_to_f16_rn(x));
        let (a, b): (Vec<u32>, Vec<u32>) = pairs.iter().map(|&(x, y)| (bits(x), bits(y))).unzip();
        f32::from_bits(dot::<F16, AccF32, 16>(mode, &a, &b, c.to_bits()))
    }

    const MODES: [TensorMode; 3] = [TensorMode::Exact, TensorMode::Sm80, TensorMode::Sm90];
    const ULP: f32 = f32::EPSILON;

    #[test]
    fn small_integers_are_exact_in_every_mode() {
        for mode in MODES {
            let pairs: Vec<_> = (0..16).map(|k| (k as f32, (k % 5) as f32 - 2.0)).collect();
            let want: f32 = pairs.iter().map(|(x, y)| x * y).sum();
            assert_eq!(dot_f16(mode, &pairs, 3.5), want + 3.5, "{mode:?}");
        }
    }

    #[test]
    fn the_modes_differ_as_the_hardware_does() {
        // 1 and some quarters of its last place, 2^-23. Three: nearest rounds up, both models cut off.
        let c = 1.0;
        let quarter = (2f32.powi(-12), 2f32.powi(-13));
        assert_eq!(dot_f16(TensorMode::Exact, &[quarter; 3], c), 1.0 + ULP);
        assert_eq!(dot_f16(TensorMode::Sm80, &[quarter; 3], c), 1.0);
        assert_eq!(dot_f16(TensorMode::Sm90, &[quarter; 3], c), 1.0);
        // Four quarters: one extra bit loses each of them, two extra bits keep them.
        assert_eq!(dot_f16(TensorMode::Sm80, &[quarter; 4], c), 1.0);
        assert_eq!(dot_f16(TensorMode::Sm90, &[quarter; 4], c), 1.0 + ULP);
        // Two halves: one extra bit keeps them if they meet in one group of 8, and loses them if not.
        let half = (2f32.powi(-12), 2f32.powi(-12));
        let nothing = (0.0, 0.0);
        let mut apart = [nothing; 16];
        (apart[0], apart[15]) = (half, half);
        assert_eq!(dot_f16(TensorMode::Sm80, &[half; 2], c), 1.0 + ULP);
        assert_eq!(dot_f16(TensorMode::Sm80, &apart, c), 1.0);
        assert_eq!(dot_f16(TensorMode::Sm90, &apart, c), 1.0 + ULP);
    }

    #[test]
    fn groups_of_tf32_are_half_as_long() {
        let half = 2f32.powi(-12).to_bits();
        let spread = |at: usize| {
            let mut x = [0u32; 8];
            (x[0], x[at]) = (half, half);
            x
        };
        for (mode, at, want) in
            [(TensorMode::Sm80, 3, 1.0 + ULP), (TensorMode::Sm80, 4, 1.0), (TensorMode::Sm90, 7, 1.0 + ULP)]
        {
            let x = spread(at);
            let got = dot::<Tf32, AccF32, 8>(mode, &x, &x, 1f32.to_bits());
            assert_eq!(f32::from_bits(got), want, "{mode:?} {at}");
        }
    }

    #[test]
    fn tf32_ignores_the_low_bits() {
        for mode in MODES {
            let a = [1.5f32.to_bits() | 0x1fff];
            let got = dot::<Tf32, AccF32, 4>(mode, &a, &[2f32.to_bits() | 0x1000], 0);
            assert_eq!(f32::from_bits(got), 3.0, "{mode:?}");
        }
    }

    #[test]
    fn specials_stay_in_their_column() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        for mode in MODES {
            assert_eq!(dot_f16(mode, &[(1.0, 1.0)], -inf), -inf, "{mode:?}");
            assert_eq!(dot_f16(mode, &[(inf, 2.0), (-1.0, 1.0)], 1.0), inf, "{mode:?}");
            assert_eq!(dot_f16(mode, &[(inf, 0.0)], 1.0).to_bits(), 0x7fff_ffff, "{mode:?}");
            assert_eq!(dot_f16(mode, &[(inf, 1.0), (inf, -1.0)], 1.0).to_bits(), 0x7fff_ffff, "{mode:?}");
            assert_eq!(dot_f16(mode, &[(nan, 0.0)], 1.0).to_bits(), 0x7fff_ffff, "{mode:?}");
            assert_eq!(dot_f16(mode, &[], nan).to_bits(), 0x7fff_ffff, "{mode:?}");
            // Neighbours of a special column, and of a special accumulator, are not concerned.
            let one = u32::from(f32_to_f16_rn(1.0));
            let mut b = [[one; COLUMNS]; 8];
            b[2][3] = 0x7c00;
            let mut c = [[1f32.to_bits(); COLUMNS]; ROWS];
            c[1][1] = (-inf).to_bits();
            multiply::<F16, AccF32, 8>(mode, &[[one; 8]; ROWS], &b, &mut c);
            for r in 0..ROWS {
                for n in 0..COLUMNS {
                    let want = if n == 3 {
                        inf
                    } else if (r, n) == (1, 1) {
                        -inf
                    } else {
                        9.0
                    };
                    assert_eq!(f32::from_bits(c[r][n]), want, "{mode:?} {r} {n}");
                }
            }
        }
    }

    #[test]
    fn half_accumulators() {
        let bits = |x: f32| u32::from(f32_to_f16_rn(x));
        for mode in MODES {
            // 2048 + 1 + 1: with f16 steps of 2, the sum is rounded once.
            let got =
                dot::<F16, AccF16, 16>(mode, &[bits(1.0), bits(1.0)], &[bits(1.0), bits(1.0)], bits(2048.0));
            assert_eq!(f16_to_f32(got as u16), 2050.0, "{mode:?}");
            let got = dot::<F16, AccF16, 16>(mode, &[bits(3.0)], &[bits(1.0)], bits(2048.0));
            assert_eq!(f16_to_f32(got as u16), 2052.0, "{mode:?}: a tie goes to even");
            let got = dot::<F16, AccF16, 8>(mode, &[bits(300.0)], &[bits(300.0)], 0);
            assert_eq!(got, 0x7c00, "{mode:?}");
        }
    }

    #[test]
    fn subnormals_and_underflow() {
        for mode in MODES {
            let got = dot::<F16, AccF32, 8>(mode, &[0x0001], &[0x8001], 0);
            assert_eq!(f32::from_bits(got), -(2f32.powi(-48)), "{mode:?}");
            let tiny = f32::from_bits(3).to_bits();
            assert_eq!(dot::<F16, AccF32, 8>(mode, &[], &[], tiny), tiny, "{mode:?}");
        }
        // bf16 2^-100 · 2^-100 underflows.
        let x = 2f32.powi(-100).to_bits() >> 16;
        for mode in MODES {
            assert_eq!(dot::<Bf16, AccF32, 8>(mode, &[x], &[x], 0), 0, "{mode:?}");
        }
    }
}
