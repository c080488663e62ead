//! The element types that tensors may have.

use half::{bf16, f16};

/// The type of a tensor's elements, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    Bf16,
}

impl DType {
    /// Every element type, for tables of tests and benches.
    pub const ALL: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

    /// Bytes per element.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::Bf16 => 2,
        }
    }

    /// The name used in kernel entries: `f32`, `f16`, `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// What the device layer asks of an element, so that user code names no other crate.
#[cfg(feature = "cuda")]
pub trait Repr: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits {}
#[cfg(feature = "cuda")]
impl<T: cudarc::driver::DeviceRepr + cudarc::driver::ValidAsZeroBits> Repr for T {}
/// What the device layer asks of an element, so that user code names no other crate.
#[cfg(not(feature = "cuda"))]
pub trait Repr {}
#[cfg(not(feature = "cuda"))]
impl<T> Repr for T {}

/// An element type of q, k, v and o: `f32`, [`half::f16`] or [`half::bf16`]. Sealed.
pub trait Element:
    sealed::Sealed + Repr + bytemuck::Pod + Default + PartialEq + std::fmt::Debug + Send + Sync + 'static
{
    /// This type as a value.
    const DTYPE: DType;
    /// Rounds to nearest, ties to even.
    fn from_f32(x: f32) -> Self;
    /// Exact.
    fn to_f32(self) -> f32;
}

macro_rules! element {
    ($t:ty, $dtype:ident, $from:expr, $to:expr) => {
        impl sealed::Sealed for $t {}
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn from_f32(x: f32) -> Self {
                $from(x)
            }
            #[inline(always)]
            fn to_f32(self) -> f32 {
                $to(self)
            }
        }
    };
}
element!(f32, F32, |x| x, |x| x);
element!(f16, F16, f16::from_f32, f16::to_f32);
element!(bf16, Bf16, bf16::from_f32, bf16::to_f32);
