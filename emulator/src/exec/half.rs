//! f16, bf16 and their pairs: PTX ISA, *Half Precision Floating-Point Instructions*.

use super::int::{NOT_A_TYPE, one, three, two};
use super::lanes::{binary, ternary, unary};
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{Exec, Insn};
use crate::num::{approx, half};
use crate::parse::Operand;
use crate::regs::{Bf16, Bf16x2, F16, F16x2};

/// A register holding one or two 16-bit floats of one format.
trait Halves: Copy {
    fn map(self, f: impl Fn(u16) -> u16) -> Self;
    fn zip(self, other: Self, f: impl Fn(u16, u16) -> u16) -> Self;
    fn zip3(self, b: Self, c: Self, f: impl Fn(u16, u16, u16) -> u16) -> Self;
}

macro_rules! single {
    ($type:ident) => {
        impl Halves for $type {
            #[inline(always)]
            fn map(self, f: impl Fn(u16) -> u16) -> Self {
                $type(f(self.0))
            }
            #[inline(always)]
            fn zip(self, b: Self, f: impl Fn(u16, u16) -> u16) -> Self {
                $type(f(self.0, b.0))
            }
            #[inline(always)]
            fn zip3(self, b: Self, c: Self, f: impl Fn(u16, u16, u16) -> u16) -> Self {
                $type(f(self.0, b.0, c.0))
            }
        }
    };
}

macro_rules! pair {
    ($type:ident) => {
        impl Halves for $type {
            #[inline(always)]
            fn map(self, f: impl Fn(u16) -> u16) -> Self {
                $type(f(self.0 as u16) as u32 | (f((self.0 >> 16) as u16) as u32) << 16)
            }
            #[inline(always)]
            fn zip(self, b: Self, f: impl Fn(u16, u16) -> u16) -> Self {
                let (low, high) =
                    (f(self.0 as u16, b.0 as u16), f((self.0 >> 16) as u16, (b.0 >> 16) as u16));
                $type(low as u32 | (high as u32) << 16)
            }
            #[inline(always)]
            fn zip3(self, b: Self, c: Self, f: impl Fn(u16, u16, u16) -> u16) -> Self {
                let low = f(self.0 as u16, b.0 as u16, c.0 as u16);
                let high = f((self.0 >> 16) as u16, (b.0 >> 16) as u16, (c.0 >> 16) as u16);
                $type(low as u32 | (high as u32) << 16)
            }
        }
    };
}
single!(F16);
single!(Bf16);
pair!(F16x2);
pair!(Bf16x2);

/// Whether a type is f16 (or its pair) rather than bf16.
fn is_f16(ty: Ty) -> bool {
    matches!(ty, Ty::F16 | Ty::F16x2)
}

/// The same 16-bit function in the four layouts: `$f16` for f16 and f16x2, `$bf16` for bf16 and bf16x2.
macro_rules! layouts {
    ($m:expr, $ty:expr, unary $f16:expr, $bf16:expr) => {
        match $ty {
            Ty::F16 => unary!($m, |a: F16| -> F16 { a.map($f16) }),
            Ty::F16x2 => unary!($m, |a: F16x2| -> F16x2 { a.map($f16) }),
            Ty::Bf16 => unary!($m, |a: Bf16| -> Bf16 { a.map($bf16) }),
            _ => unary!($m, |a: Bf16x2| -> Bf16x2 { a.map($bf16) }),
        }
    };
    ($m:expr, $ty:expr, binary $f16:expr, $bf16:expr) => {
        match $ty {
            Ty::F16 => binary!($m, |a: F16, b: F16| -> F16 { a.zip(b, $f16) }),
            Ty::F16x2 => binary!($m, |a: F16x2, b: F16x2| -> F16x2 { a.zip(b, $f16) }),
            Ty::Bf16 => binary!($m, |a: Bf16, b: Bf16| -> Bf16 { a.zip(b, $bf16) }),
            _ => binary!($m, |a: Bf16x2, b: Bf16x2| -> Bf16x2 { a.zip(b, $bf16) }),
        }
    };
    ($m:expr, $ty:expr, ternary $f16:expr, $bf16:expr) => {
        match $ty {
            Ty::F16 => ternary!($m, |a: F16, b: F16, c: F16| -> F16 { a.zip3(b, c, $f16) }),
            Ty::F16x2 => ternary!($m, |a: F16x2, b: F16x2, c: F16x2| -> F16x2 { a.zip3(b, c, $f16) }),
            Ty::Bf16 => ternary!($m, |a: Bf16, b: Bf16, c: Bf16| -> Bf16 { a.zip3(b, c, $bf16) }),
            _ => ternary!($m, |a: Bf16x2, b: Bf16x2, c: Bf16x2| -> Bf16x2 { a.zip3(b, c, $bf16) }),
        }
    };
    // f16 only, with `.ftz` around operands and result, then `.sat`.
    ($m:expr, $ty:expr, flushed binary $f:path, $sat:expr) => {
        match $ty {
            Ty::F16 => binary!($m, |a: F16, b: F16| -> F16 { a.zip(b, |a, b| flushed2::<$sat>(a, b, $f)) }),
            _ => binary!($m, |a: F16x2, b: F16x2| -> F16x2 { a.zip(b, |a, b| flushed2::<$sat>(a, b, $f)) }),
        }
    };
}

use half::{ftz_f16, sat_f16};

#[inline(always)]
fn flushed2<const SAT: bool>(a: u16, b: u16, f: impl Fn(u16, u16) -> u16) -> u16 {
    let r = ftz_f16(f(ftz_f16(a), ftz_f16(b)));
    if SAT { sat_f16(r) } else { r }
}

/// `add`, `sub`, `mul`, `fma`, `min`, `max`, `neg`, `abs` of 16-bit floats.
pub(crate) fn decode(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
    ty: Ty,
) -> Result<Insn, LoadError> {
    let m = cx.mode;
    let base = op.base().to_string();
    match base.as_str() {
        "add" | "sub" | "mul" => {
            op.take("rn");
            let (ftz, sat) = if is_f16(ty) { (op.take("ftz"), op.take("sat")) } else { (false, false) };
            macro_rules! form {
                ($f16:path, $bf16:path) => {
                    match (ftz, sat) {
                        (false, false) => layouts!(m, ty, binary $f16, $bf16),
                        (false, true) => layouts!(m, ty, binary |a, b| sat_f16($f16(a, b)), $bf16),
                        (true, false) => layouts!(m, ty, flushed binary $f16, false),
                        (true, true) => layouts!(m, ty, flushed binary $f16, true),
                    }
                };
            }
            let run: Exec = match base.as_str() {
                "add" => form!(half::add_f16, half::add_bf16),
                "sub" => form!(half::sub_f16, half::sub_bf16),
                _ => form!(half::mul_f16, half::mul_bf16),
            };
            two(cx, op, args, ty, ty, run)
        }
        "fma" => {
            op.need("rn")?;
            let (ftz, sat) = if is_f16(ty) { (op.take("ftz"), op.take("sat")) } else { (false, false) };
            let relu = op.take("relu");
            // Each lane takes the same way, so the branches on the modifiers are outside the loop.
            let run: Exec = match (ftz, sat, relu) {
                (false, false, false) => layouts!(m, ty, ternary half::fma_f16, half::fma_bf16),
                (false, false, true) => {
                    layouts!(m, ty, ternary | a, b, c | half::relu_f16(half::fma_f16(a, b, c)), |a, b, c| {
                        half::relu_bf16(half::fma_bf16(a, b, c))
                    })
                }
                (false, true, false) => {
                    layouts!(m, ty, ternary | a, b, c | sat_f16(half::fma_f16(a, b, c)), half::fma_bf16)
                }
                (true, false, false) => layouts!(m, ty, ternary fma_ftz, half::fma_bf16),
                (true, false, true) => {
                    layouts!(m, ty, ternary | a, b, c | half::relu_f16(fma_ftz(a, b, c)), half::fma_bf16)
                }
                (true, true, false) => {
                    layouts!(m, ty, ternary | a, b, c | sat_f16(fma_ftz(a, b, c)), half::fma_bf16)
                }
                (_, true, true) => return Err(op.refuse("`.sat` and `.relu` exclude each other")),
            };
            three(cx, op, args, ty, ty, run)
        }
        "min" | "max" => {
            let ftz = is_f16(ty) && op.take("ftz");
            let nan = op.take("NaN");
            let xorsign = op.take("xorsign");
            if xorsign {
                op.need("abs")?;
            }
            macro_rules! form {
                ($f16:path, $bf16:path) => {
                    match (ftz, nan, xorsign) {
                        (false, false, false) => layouts!(m, ty, binary $f16, $bf16),
                        (false, true, false) => layouts!(m, ty,
                            binary |a, b| half::nan_f16(a, b, $f16(a, b)), |a, b| half::nan_bf16(a, b, $bf16(a, b))),
                        (false, false, true) => layouts!(m, ty,
                            binary |a, b| xorsign_abs(a, b, 0x7c00, $f16), |a, b| xorsign_abs(a, b, 0x7f80, $bf16)),
                        (false, true, true) => layouts!(m, ty,
                            binary |a, b| half::nan_f16(a, b, xorsign_abs(a, b, 0x7c00, $f16)),
                            |a, b| half::nan_bf16(a, b, xorsign_abs(a, b, 0x7f80, $bf16))),
                        (true, false, false) => layouts!(m, ty, flushed binary $f16, false),
                        (true, true, false) => layouts!(m, ty,
                            binary |a, b| half::nan_f16(a, b, flushed2::<false>(a, b, $f16)), $bf16),
                        (true, _, true) => return Err(op.refuse("not supported together with `.ftz`")),
                    }
                };
            }
            let run: Exec = match base.as_str() {
                "min" => form!(half::min_f16, half::min_bf16),
                _ => form!(half::max_f16, half::max_bf16),
            };
            two(cx, op, args, ty, ty, run)
        }
        "neg" | "abs" => {
            let ftz = is_f16(ty) && op.take("ftz");
            let run: Exec = match (base.as_str(), ftz) {
                ("neg", false) => layouts!(m, ty, unary half::neg, half::neg),
                ("neg", true) => layouts!(m, ty, unary | a | half::neg(ftz_f16(a)), half::neg),
                (_, false) => layouts!(m, ty, unary half::abs, half::abs),
                (_, true) => layouts!(m, ty, unary | a | half::abs(ftz_f16(a)), half::abs),
            };
            one(cx, op, args, ty, ty, run)
        }
        _ => Err(op.refuse(NOT_A_TYPE)),
    }
}

#[inline(always)]
fn fma_ftz(a: u16, b: u16, c: u16) -> u16 {
    ftz_f16(half::fma_f16(ftz_f16(a), ftz_f16(b), ftz_f16(c)))
}

/// `.xorsign.abs`: of the magnitudes, with the signs multiplied; NaN stays as it is.
#[inline(always)]
fn xorsign_abs(a: u16, b: u16, infinity: u16, f: impl Fn(u16, u16) -> u16) -> u16 {
    let r = f(a & 0x7fff, b & 0x7fff);
    if r & 0x7fff > infinity { r } else { r | (a ^ b) & 0x8000 }
}

/// `ex2.approx`, `tanh.approx` of 16-bit floats.
pub(crate) fn decode_function(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
    ty: Ty,
    ftz: bool,
) -> Result<Insn, LoadError> {
    let m = cx.mode;
    let run: Exec = match (op.base(), ty, ftz) {
        ("ex2", Ty::F16 | Ty::F16x2, false) | ("ex2", Ty::Bf16 | Ty::Bf16x2, true) => {
            layouts!(m, ty, unary approx::ex2_f16, approx::ex2_ftz_bf16)
        }
        ("tanh", Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2, false) => {
            layouts!(m, ty, unary approx::tanh_f16, approx::tanh_bf16)
        }
        _ => return Err(op.refuse("not a form of this instruction")),
    };
    one(cx, op, args, ty, ty, run)
}
