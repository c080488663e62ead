//! f16, bf16 and their pairs: PTX ISA, *Half Precision Floating-Point Instructions*.

use super::int::{NOT_A_TYPE, one, three, two};
use super::lanes::{Alu, binary, ternary, unary};
use super::mem::lanes;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{Exec, Insn, NONE};
use crate::num::half::{ftz_f16, sat_f16};
use crate::num::{approx, half};
use crate::parse::Operand;
use crate::regs::{Bf16, Bf16x2, F16, F16x2, LANES};
use crate::warp::Warp;

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
}

/// The operation of a [`General`] instruction, in `width`.
const OPERATIONS: [&str; 8] = ["add", "sub", "mul", "fma", "min", "max", "neg", "abs"];

/// In `flags`.
const FTZ: u16 = 1;
const SAT: u16 = 2;
const RELU: u16 = 4;
const NAN: u16 = 8;
const XORSIGN: u16 = 16;
const BF16: u16 = 32;
const PAIR: u16 = 64;

/// Any operation with modifiers, one lane at a time.
struct General;

impl Alu for General {
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let read = |slot| if slot == NONE { [0u32; LANES] } else { w.get(slot) };
            let (a, b, c) = (read(i.a), read(i.b), read(i.c));
            let mut r = [0u32; LANES];
            for l in lanes(mask) {
                let half = |shift: u32| {
                    let part = |x: u32| (x >> shift) as u16;
                    general(i.width, part(a[l]), part(b[l]), part(c[l]), i.flags) as u32
                };
                r[l] = half(0) | if i.flags & PAIR != 0 { half(16) << 16 } else { 0 };
            }
            w.set(i.d, mask, r);
        }
    }
}

/// One number.
fn general(operation: u8, a: u16, b: u16, c: u16, flags: u16) -> u16 {
    let bf16 = flags & BF16 != 0;
    let flush = |x: u16| if flags & FTZ != 0 { ftz_f16(x) } else { x };
    let (a, b, c) = (flush(a), flush(b), flush(c));
    let infinity = if bf16 { 0x7f80 } else { 0x7c00 };
    let is_nan = |x: u16| x & 0x7fff > infinity;
    let extreme = |f16: fn(u16, u16) -> u16, bf16_f: fn(u16, u16) -> u16| {
        let f = if bf16 { bf16_f } else { f16 };
        let r = match flags & XORSIGN {
            0 => f(a, b),
            // Of the magnitudes, with the signs multiplied; NaN stays as it is.
            _ => match f(a & 0x7fff, b & 0x7fff) {
                r if is_nan(r) => r,
                r => r | (a ^ b) & 0x8000,
            },
        };
        if flags & NAN != 0 && (is_nan(a) || is_nan(b)) { half::NAN } else { r }
    };
    let r = match (OPERATIONS[operation as usize], bf16) {
        ("add", false) => half::add_f16(a, b),
        ("add", true) => half::add_bf16(a, b),
        ("sub", false) => half::sub_f16(a, b),
        ("sub", true) => half::sub_bf16(a, b),
        ("mul", false) => half::mul_f16(a, b),
        ("mul", true) => half::mul_bf16(a, b),
        ("fma", false) => half::fma_f16(a, b, c),
        ("fma", true) => half::fma_bf16(a, b, c),
        ("min", _) => extreme(half::min_f16, half::min_bf16),
        ("max", _) => extreme(half::max_f16, half::max_bf16),
        ("neg", _) => half::neg(a),
        _ => half::abs(a),
    };
    let r = flush(r);
    let r = match flags & RELU {
        0 => r,
        _ if bf16 => half::relu_bf16(r),
        _ => half::relu_f16(r),
    };
    if flags & SAT != 0 { sat_f16(r) } else { r }
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
    let Some(operation) = OPERATIONS.iter().position(|name| *name == base) else {
        return Err(op.refuse(NOT_A_TYPE));
    };
    let arithmetic = operation < 4;
    let extreme = base == "min" || base == "max";
    if base == "fma" {
        op.need("rn")?;
    } else if arithmetic {
        op.take("rn");
    }
    let ftz = is_f16(ty) && op.take("ftz");
    let sat = is_f16(ty) && arithmetic && op.take("sat");
    let relu = base == "fma" && op.take("relu");
    let nan = extreme && op.take("NaN");
    let xorsign = extreme && op.take("xorsign");
    if xorsign {
        op.need("abs")?;
    }
    if sat && relu {
        return Err(op.refuse("`.sat` and `.relu` exclude each other"));
    }
    let flags = ftz as u16 * FTZ
        + sat as u16 * SAT
        + relu as u16 * RELU
        + nan as u16 * NAN
        + xorsign as u16 * XORSIGN;
    let run: Exec = if flags != 0 {
        m.alu::<General>()
    } else {
        match base.as_str() {
            "add" => layouts!(m, ty, binary half::add_f16, half::add_bf16),
            "sub" => layouts!(m, ty, binary half::sub_f16, half::sub_bf16),
            "mul" => layouts!(m, ty, binary half::mul_f16, half::mul_bf16),
            "fma" => layouts!(m, ty, ternary half::fma_f16, half::fma_bf16),
            "min" => layouts!(m, ty, binary half::min_f16, half::min_bf16),
            "max" => layouts!(m, ty, binary half::max_f16, half::max_bf16),
            "neg" => layouts!(m, ty, unary half::neg, half::neg),
            _ => layouts!(m, ty, unary half::abs, half::abs),
        }
    };
    let mut insn = match operation {
        3 => three(cx, op, args, ty, ty, run)?,
        6 | 7 => one(cx, op, args, ty, ty, run)?,
        _ => two(cx, op, args, ty, ty, run)?,
    };
    insn.width = operation as u8;
    insn.flags = flags
        + matches!(ty, Ty::Bf16 | Ty::Bf16x2) as u16 * BF16
        + matches!(ty, Ty::F16x2 | Ty::Bf16x2) as u16 * PAIR;
    Ok(insn)
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
