//! The number type that references are written over.

use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Sub};

/// The arithmetic of a reference. `f64` gives the truth, `f32` a plain single-precision evaluation, and
/// [`Bar`](super::Bar) the truth together with how far from it an honest kernel may be.
///
/// Comparisons look at values only.
pub trait Num:
    Copy
    + Debug
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Send
    + Sync
    + 'static
{
    /// A number that every kernel holds exactly: an input, a small integer, a setting.
    fn of(x: f64) -> Self;

    /// The number itself.
    fn value(self) -> f64;

    /// e to this power.
    fn exp(self) -> Self;

    /// Natural logarithm.
    fn ln(self) -> Self;

    /// Square root.
    fn sqrt(self) -> Self;

    /// The larger one.
    fn max(self, other: Self) -> Self;

    /// 1 above zero, else 0.
    fn step(self) -> Self;

    /// The sum, in an order that is the kernel's own business.
    fn sum(terms: impl IntoIterator<Item = Self>) -> Self;

    /// Marks a place where a kernel writes the tensors' element type, or feeds it to a tensor core.
    fn stored(self) -> Self;

    /// Marks a number that a kernel may take for zero when its magnitude is at most `limit`.
    fn droppable(self, limit: f64) -> Self;
}

macro_rules! float {
    ($t:ty) => {
        impl Num for $t {
            fn of(x: f64) -> Self {
                x as $t
            }
            fn value(self) -> f64 {
                self.into()
            }
            fn exp(self) -> Self {
                self.exp()
            }
            fn ln(self) -> Self {
                self.ln()
            }
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn max(self, other: Self) -> Self {
                self.max(other)
            }
            fn step(self) -> Self {
                if self > 0.0 { 1.0 } else { 0.0 }
            }
            fn sum(terms: impl IntoIterator<Item = Self>) -> Self {
                terms.into_iter().fold(0.0, |sum, term| sum + term)
            }
            fn stored(self) -> Self {
                self
            }
            fn droppable(self, _limit: f64) -> Self {
                self
            }
        }
    };
}
float!(f32);
float!(f64);
