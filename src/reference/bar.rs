//! A number that knows how wrong an honest kernel may have made it.

use super::Num;
use crate::{DType, Element};
use std::cmp::Ordering;
use std::marker::PhantomData;
use std::ops::{Add, Div, Mul, Sub};

/// The truth in f64, and a bound on how far from it a kernel may be whose arithmetic is f32 and whose tensors are `T`.
///
/// This is running error analysis: every operation takes over what its operands were off and adds what it may round
/// away itself. A kernel may fuse a product into a sum, sum in any order ([`Num::sum`] allows the worst one), and use
/// the approximate exp2, logarithm, reciprocal and square root of a GPU. Where it is coarser than f32, the reference
/// says [`Num::stored`] in the same place. Nobody chooses a tolerance.
#[derive(Clone, Copy, Debug)]
pub struct Bar<T> {
    /// The truth.
    pub value: f64,
    /// How far from it is allowed.
    pub error: f64,
    element: PhantomData<fn() -> T>,
}

/// Largest relative error of one rounding to f32.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;
/// Largest error of rounding to f32 what is too small for that: half of the smallest subnormal number, 2⁻¹⁵⁰.
const TINY: f64 = half_of_smallest(149);
/// Units that a GPU's approximate exp2, logarithm, reciprocal and square root are off by, with one product or sum before
/// or after (the change of base, the numerator).
const APPROXIMATE: f64 = 4.0;

/// Half of 2^−`digits`.
const fn half_of_smallest(digits: u32) -> f64 {
    let (mut x, mut i) = (0.5, 0);
    while i < digits {
        x *= 0.5;
        i += 1;
    }
    x
}

/// Halfway from the largest number, whose exponent is `exponent`, to the next power of two.
const fn overflow(unit: f64, exponent: u32) -> f64 {
    (2.0 - unit) * (1u128 << exponent) as f64
}

/// How an element type rounds: relative error, error below the normal numbers, and where infinity begins.
struct Rounding {
    unit: f64,
    tiny: f64,
    overflow: f64,
}

const fn rounding(dtype: DType) -> Rounding {
    match dtype {
        DType::F32 => Rounding { unit: UNIT, tiny: TINY, overflow: overflow(UNIT, 127) },
        DType::F16 => {
            Rounding { unit: 1.0 / 2048.0, tiny: half_of_smallest(24), overflow: overflow(1.0 / 2048.0, 15) }
        }
        DType::Bf16 => {
            Rounding { unit: 1.0 / 256.0, tiny: half_of_smallest(133), overflow: overflow(1.0 / 256.0, 127) }
        }
    }
}

impl<T: Element> Bar<T> {
    /// A sum's rounding per addition. Tensor cores, which 16-bit elements are fed to, truncate instead of rounding.
    const SUM_UNIT: f64 = match T::DTYPE {
        DType::F32 => UNIT,
        DType::F16 | DType::Bf16 => 2.0 * UNIT,
    };

    fn new(value: f64, error: f64) -> Self {
        Self { value, error, element: PhantomData }
    }

    /// The result of an f32 operation that is right to `units`, on operands that already put `error` into it.
    fn rounded(value: f64, error: f64, units: f64) -> Self {
        Self::new(value, error + units * UNIT * (value.abs() + error) + TINY)
    }

    /// Zero in every kernel: adding and multiplying it rounds nothing.
    fn is_exact_zero(self) -> bool {
        self.value == 0.0 && self.error == 0.0
    }

    /// Whether a kernel's result is right: equal to the truth (which may be infinite), or off by at most the bar. NaN is
    /// never right, and a bar that is not finite allows nothing.
    pub fn allows(&self, got: f64) -> bool {
        got == self.value || self.error.is_finite() && (got - self.value).abs() <= self.error
    }
}

impl<T: Element> Add for Bar<T> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        if self.is_exact_zero() {
            return other;
        }
        if other.is_exact_zero() {
            return self;
        }
        Self::rounded(self.value + other.value, self.error + other.error, 1.0)
    }
}

impl<T: Element> Sub for Bar<T> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + Self::new(-other.value, other.error)
    }
}

impl<T: Element> Mul for Bar<T> {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        if self.is_exact_zero() || other.is_exact_zero() {
            return Self::of(0.0);
        }
        let error =
            self.error * other.value.abs() + other.error * self.value.abs() + self.error * other.error;
        Self::rounded(self.value * other.value, error, 1.0)
    }
}

impl<T: Element> Div for Bar<T> {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        if self.is_exact_zero() {
            return self;
        }
        let value = self.value / other.value;
        let least = other.value.abs() - other.error;
        let error =
            if least > 0.0 { (self.error + value.abs() * other.error) / least } else { f64::INFINITY };
        Self::rounded(value, error, APPROXIMATE)
    }
}

impl<T> PartialEq for Bar<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T> PartialOrd for Bar<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T: Element> Num for Bar<T> {
    fn of(x: f64) -> Self {
        Self::new(x, 0.0)
    }

    fn value(self) -> f64 {
        self.value
    }

    fn exp(self) -> Self {
        let value = self.value.exp();
        if value == 0.0 {
            // Far below f32's smallest number; the exponent itself may be beyond f32's largest.
            return Self::new(0.0, TINY);
        }
        // exp(x + e) − exp(x), without forming e^e − 1, which overflows for exponents that are off by a lot.
        let grown = -(self.value + self.error).exp() * (-self.error).exp_m1();
        // The change of base rounds the exponent, so its size counts.
        let rounded = Self::rounded(value, grown, APPROXIMATE * (1.0 + self.value.abs()));
        // Below the normal numbers the approximate exp2 gives 0.
        let is_normal = value - rounded.error >= f64::from(f32::MIN_POSITIVE);
        if is_normal { rounded } else { Self::new(value, rounded.error.max(value)) }
    }

    fn ln(self) -> Self {
        let value = self.value.ln();
        let least = self.value - self.error;
        let error = if least > 0.0 { self.error / least } else { f64::INFINITY };
        // Near 1 the approximate logarithm is right to an absolute error only.
        Self::rounded(value, error + APPROXIMATE * UNIT, APPROXIMATE)
    }

    fn sqrt(self) -> Self {
        if self.is_exact_zero() {
            return self;
        }
        let least = self.value - self.error;
        let error = if least > self.error {
            0.5 * self.error / least.sqrt()
        } else {
            (self.value + self.error).sqrt()
        };
        Self::rounded(self.value.sqrt(), error, APPROXIMATE)
    }

    fn max(self, other: Self) -> Self {
        Self::new(self.value.max(other.value), self.error.max(other.error))
    }

    fn step(self) -> Self {
        // A kernel that is off by more than the distance to zero may fall on the other side.
        let is_sure = self.value.abs() > self.error || self.error == 0.0;
        Self::new(self.value.step(), if is_sure { 0.0 } else { 1.0 })
    }

    fn sum(terms: impl IntoIterator<Item = Self>) -> Self {
        let (mut value, mut error, mut size, mut count) = (0.0, 0.0, 0.0, 0u64);
        for term in terms {
            if !term.is_exact_zero() {
                value += term.value;
                error += term.error;
                size += term.value.abs() + term.error;
                count += 1;
            }
        }
        // Whatever the order, no partial sum is larger than `size`, and there are count − 1 additions.
        let drift = count.saturating_sub(1) as f64 * Self::SUM_UNIT;
        Self::new(value, error + size * drift * (1.0 + drift))
    }

    fn stored(self) -> Self {
        let Rounding { unit, tiny, overflow } = rounding(T::DTYPE);
        if self.is_exact_zero() {
            self
        } else if self.value.abs() - self.error >= overflow {
            Self::new(f64::INFINITY.copysign(self.value), 0.0)
        } else if self.value.abs() + self.error >= overflow {
            Self::new(self.value, f64::INFINITY)
        } else {
            Self::new(self.value, self.error + unit * (self.value.abs() + self.error) + tiny)
        }
    }

    fn droppable(self, limit: f64) -> Self {
        if self.value.abs() <= limit { Self::new(self.value, self.error.max(self.value.abs())) } else { self }
    }
}
