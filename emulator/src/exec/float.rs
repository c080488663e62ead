//! f32 and f64 arithmetic: PTX ISA, *Floating-Point Instructions*. The numbers are [`crate::num`]'s.

use super::int::{NOT_A_TYPE, one, two};
use super::lanes::{Alu, binary, ternary, unary};
use super::mem::lanes;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{Exec, Insn};
use crate::num::approx;
use crate::num::arith::{self, ftz_f32, sat_f32, sat_f64};
use crate::num::round::Round;
use crate::parse::Operand;
use crate::regs::{LANES, Lane};
use crate::warp::Warp;

/// `.rn`, `.rz`, `.rm`, `.rp`.
pub(super) const ROUNDS: &[(&str, Round)] =
    &[("rn", Round::Rn), ("rz", Round::Rz), ("rm", Round::Rm), ("rp", Round::Rp)];

/// In `flags`: the rounding mode in the low bits, then these.
const FTZ: u16 = 8;
const SAT: u16 = 16;

/// A rounding mode as bits of `flags`.
pub(super) fn round_bits(round: Round) -> u16 {
    match round {
        Round::Rn => 0,
        Round::Rz => 1,
        Round::Rm => 2,
        Round::Rp => 3,
        Round::Rna => 4,
    }
}

/// The reverse of [`round_bits`].
#[inline(always)]
pub(super) fn round_from(flags: u16) -> Round {
    match flags & 7 {
        0 => Round::Rn,
        1 => Round::Rz,
        2 => Round::Rm,
        3 => Round::Rp,
        _ => Round::Rna,
    }
}

/// An operation with a rounding mode, for every combination of modifiers without a loop of its own.
trait Rounded {
    type T: Lane;
    const ARGS: usize;
    fn lane(a: Self::T, b: Self::T, c: Self::T, round: Round) -> Self::T;
    fn ftz(x: Self::T) -> Self::T;
    fn sat(x: Self::T) -> Self::T;
}

struct General<F>(std::marker::PhantomData<F>);

impl<F: Rounded> Alu for General<F> {
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [F::T; LANES] = w.get(i.a);
            let b: [F::T; LANES] = if F::ARGS > 1 { w.get(i.b) } else { a };
            let c: [F::T; LANES] = if F::ARGS > 2 { w.get(i.c) } else { a };
            let mut r = [F::T::ZERO; LANES];
            for l in lanes(mask) {
                r[l] = general::<F>(a[l], b[l], c[l], i.flags);
            }
            w.set(i.d, mask, r);
        }
    }
}

/// One lane; out of line, so that the modifiers do not multiply the loop.
#[inline(never)]
fn general<F: Rounded>(mut a: F::T, mut b: F::T, mut c: F::T, flags: u16) -> F::T {
    if flags & FTZ != 0 {
        (a, b, c) = (F::ftz(a), F::ftz(b), F::ftz(c));
    }
    let mut x = F::lane(a, b, c, round_from(flags));
    if flags & FTZ != 0 {
        x = F::ftz(x);
    }
    if flags & SAT != 0 {
        x = F::sat(x);
    }
    x
}

macro_rules! rounded {
    ($mode:expr, $t:ty, $args:expr, |$a:ident, $b:ident, $c:ident, $round:ident| $body:block) => {{
        struct F;
        impl Rounded for F {
            type T = $t;
            const ARGS: usize = $args;
            #[inline(always)]
            fn lane($a: $t, $b: $t, $c: $t, $round: Round) -> $t {
                let _ = ($b, $c);
                $body
            }
            #[inline(always)]
            fn ftz(x: $t) -> $t {
                Flush::flush(x)
            }
            #[inline(always)]
            fn sat(x: $t) -> $t {
                Flush::saturate(x)
            }
        }
        $mode.alu::<General<F>>()
    }};
}

/// `.ftz` and `.sat` by type.
trait Flush {
    fn flush(self) -> Self;
    fn saturate(self) -> Self;
}

impl Flush for f32 {
    #[inline(always)]
    fn flush(self) -> f32 {
        ftz_f32(self)
    }
    #[inline(always)]
    fn saturate(self) -> f32 {
        sat_f32(self)
    }
}

impl Flush for f64 {
    #[inline(always)]
    fn flush(self) -> f64 {
        self
    }
    #[inline(always)]
    fn saturate(self) -> f64 {
        sat_f64(self)
    }
}

/// Fills the operands of `op d, a[, b[, c]]` all of one type.
fn operands(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    args: &[Operand],
    ty: Ty,
    count: usize,
    run: Exec,
) -> Result<Insn, LoadError> {
    cx.count(op, args, count + 1)?;
    let mut insn = cx.insn(run);
    insn.d = cx.dst(&args[0], ty)?;
    insn.a = cx.src(&args[1], ty)?;
    if count > 1 {
        insn.b = cx.src(&args[2], ty)?;
    }
    if count > 2 {
        insn.c = cx.src(&args[3], ty)?;
    }
    Ok(insn)
}

/// Modifiers of an arithmetic instruction.
struct Modifiers {
    round: Option<Round>,
    ftz: bool,
    sat: bool,
}

fn modifiers(op: &mut Opcode, ty: Ty, sat_allowed: bool) -> Result<Modifiers, LoadError> {
    let round = op.one_of(ROUNDS);
    let ftz = ty == Ty::F32 && op.take("ftz");
    let sat = sat_allowed && ty == Ty::F32 && op.take("sat");
    Ok(Modifiers { round, ftz, sat })
}

impl Modifiers {
    fn plain(&self) -> bool {
        self.round.unwrap_or(Round::Rn) == Round::Rn && !self.ftz && !self.sat
    }

    /// `.ftz` and nothing else, as whole programs are compiled with.
    fn flushed(&self) -> bool {
        self.round.unwrap_or(Round::Rn) == Round::Rn && self.ftz && !self.sat
    }

    fn flags(&self) -> u16 {
        round_bits(self.round.unwrap_or(Round::Rn)) + self.ftz as u16 * FTZ + self.sat as u16 * SAT
    }
}

/// `add`, `sub`, `mul`, `fma`, `mad`, `div`, `rcp`, `sqrt`, `rsqrt`, `min`, `max`, `neg`, `abs` of `.f32` and `.f64`.
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
            let mods = modifiers(op, ty, true)?;
            let run = match (base.as_str(), ty, mods.plain()) {
                ("add", Ty::F32, true) => binary!(m, |a: f32, b: f32| -> f32 { a + b }),
                ("sub", Ty::F32, true) => binary!(m, |a: f32, b: f32| -> f32 { a - b }),
                ("mul", Ty::F32, true) => binary!(m, |a: f32, b: f32| -> f32 { a * b }),
                ("add", Ty::F64, true) => binary!(m, |a: f64, b: f64| -> f64 { a + b }),
                ("sub", Ty::F64, true) => binary!(m, |a: f64, b: f64| -> f64 { a - b }),
                ("mul", Ty::F64, true) => binary!(m, |a: f64, b: f64| -> f64 { a * b }),
                ("add", Ty::F32, _) if mods.flushed() => {
                    binary!(m, |a: f32, b: f32| -> f32 { ftz_f32(ftz_f32(a) + ftz_f32(b)) })
                }
                ("sub", Ty::F32, _) if mods.flushed() => {
                    binary!(m, |a: f32, b: f32| -> f32 { ftz_f32(ftz_f32(a) - ftz_f32(b)) })
                }
                ("mul", Ty::F32, _) if mods.flushed() => {
                    binary!(m, |a: f32, b: f32| -> f32 { ftz_f32(ftz_f32(a) * ftz_f32(b)) })
                }
                ("add", Ty::F32, false) => rounded!(m, f32, 2, |a, b, c, r| { arith::add_f32(a, b, r) }),
                ("sub", Ty::F32, false) => rounded!(m, f32, 2, |a, b, c, r| { arith::sub_f32(a, b, r) }),
                ("mul", Ty::F32, false) => rounded!(m, f32, 2, |a, b, c, r| { arith::mul_f32(a, b, r) }),
                ("add", _, false) => rounded!(m, f64, 2, |a, b, c, r| { arith::add_f64(a, b, r) }),
                ("sub", _, false) => rounded!(m, f64, 2, |a, b, c, r| { arith::sub_f64(a, b, r) }),
                _ => rounded!(m, f64, 2, |a, b, c, r| { arith::mul_f64(a, b, r) }),
            };
            let mut insn = operands(cx, op, args, ty, 2, run)?;
            insn.flags = mods.flags();
            Ok(insn)
        }
        "fma" | "mad" => {
            let mods = modifiers(op, ty, true)?;
            if mods.round.is_none() {
                return Err(op.refuse("a rounding mode is missing"));
            }
            let run = match (ty, mods.plain()) {
                (Ty::F32, true) if m.wide => ternary!(m, |a: f32, b: f32, c: f32| -> f32 { a.mul_add(b, c) }),
                (Ty::F32, true) => {
                    ternary!(m, |a: f32, b: f32, c: f32| -> f32 { arith::fma_f32_portable(a, b, c) })
                }
                (Ty::F64, true) => ternary!(m, |a: f64, b: f64, c: f64| -> f64 { a.mul_add(b, c) }),
                (Ty::F32, _) if m.wide && mods.flushed() => ternary!(m, |a: f32, b: f32, c: f32| -> f32 {
                    ftz_f32(ftz_f32(a).mul_add(ftz_f32(b), ftz_f32(c)))
                }),
                (Ty::F32, false) => rounded!(m, f32, 3, |a, b, c, r| { arith::fma_f32(a, b, c, r) }),
                _ => rounded!(m, f64, 3, |a, b, c, r| { arith::fma_f64(a, b, c, r) }),
            };
            let mut insn = operands(cx, op, args, ty, 3, run)?;
            insn.flags = mods.flags();
            Ok(insn)
        }
        "div" => divide(cx, op, args, ty),
        "rcp" | "sqrt" => {
            let approximate = op.take("approx");
            let mods = modifiers(op, ty, false)?;
            if approximate == mods.round.is_some() {
                return Err(op.refuse("either `.approx` or a rounding mode is wanted"));
            }
            let run = match (base.as_str(), ty, approximate) {
                ("rcp", Ty::F32, true) if mods.ftz => unary!(m, |a: f32| -> f32 { approx::rcp_ftz(a) }),
                ("rcp", Ty::F32, true) => unary!(m, |a: f32| -> f32 { approx::rcp(a) }),
                ("sqrt", Ty::F32, true) if mods.ftz => unary!(m, |a: f32| -> f32 { approx::sqrt_ftz(a) }),
                ("sqrt", Ty::F32, true) => unary!(m, |a: f32| -> f32 { approx::sqrt(a) }),
                // `rcp.approx.ftz.f64` keeps the upper 32 bits of operand and result only.
                ("rcp", Ty::F64, true) if op.take("ftz") => unary!(m, |a: f64| -> f64 {
                    let upper = |x: f64| f64::from_bits(x.to_bits() & !0xffff_ffff);
                    let flush = |x: f64| if x.is_subnormal() { 0f64.copysign(x) } else { x };
                    flush(upper(1.0 / flush(upper(a))))
                }),
                (_, _, true) => return Err(op.refuse(NOT_A_TYPE)),
                ("rcp", Ty::F32, _) if mods.plain() => unary!(m, |a: f32| -> f32 { 1.0 / a }),
                ("sqrt", Ty::F32, _) if mods.plain() => unary!(m, |a: f32| -> f32 { a.sqrt() }),
                ("rcp", Ty::F64, _) if mods.plain() => unary!(m, |a: f64| -> f64 { 1.0 / a }),
                ("sqrt", Ty::F64, _) if mods.plain() => unary!(m, |a: f64| -> f64 { a.sqrt() }),
                ("rcp", Ty::F32, _) => rounded!(m, f32, 1, |a, b, c, r| { arith::rcp_f32(a, r) }),
                ("sqrt", Ty::F32, _) => rounded!(m, f32, 1, |a, b, c, r| { arith::sqrt_f32(a, r) }),
                ("rcp", _, _) => rounded!(m, f64, 1, |a, b, c, r| { arith::rcp_f64(a, r) }),
                _ => rounded!(m, f64, 1, |a, b, c, r| { arith::sqrt_f64(a, r) }),
            };
            let mut insn = operands(cx, op, args, ty, 1, run)?;
            insn.flags = mods.flags();
            Ok(insn)
        }
        "rsqrt" => {
            op.need("approx")?;
            let ftz = op.take("ftz");
            let run = match (ty, ftz) {
                (Ty::F32, false) => unary!(m, |a: f32| -> f32 { approx::rsqrt(a) }),
                (Ty::F32, true) => unary!(m, |a: f32| -> f32 { approx::rsqrt_ftz(a) }),
                (Ty::F64, false) => unary!(m, |a: f64| -> f64 { approx::rsqrt_f64(a) }),
                // As `rcp.approx.ftz.f64`: the upper halves only.
                _ => unary!(m, |a: f64| -> f64 {
                    let upper = |x: f64| f64::from_bits(x.to_bits() & !0xffff_ffff);
                    let flush = |x: f64| if x.is_subnormal() { 0f64.copysign(x) } else { x };
                    upper(approx::rsqrt_f64(flush(upper(a))))
                }),
            };
            one(cx, op, args, ty, ty, run)
        }
        "min" | "max" => extreme(cx, op, args, ty),
        "neg" | "abs" => {
            let ftz = ty == Ty::F32 && op.take("ftz");
            let run = match (base.as_str(), ty, ftz) {
                ("neg", Ty::F32, false) => unary!(m, |a: f32| -> f32 { -a }),
                ("neg", Ty::F32, true) => unary!(m, |a: f32| -> f32 { -ftz_f32(a) }),
                ("neg", _, _) => unary!(m, |a: f64| -> f64 { -a }),
                (_, Ty::F32, false) => unary!(m, |a: f32| -> f32 { a.abs() }),
                (_, Ty::F32, true) => unary!(m, |a: f32| -> f32 { ftz_f32(a).abs() }),
                _ => unary!(m, |a: f64| -> f64 { a.abs() }),
            };
            one(cx, op, args, ty, ty, run)
        }
        _ => Err(op.refuse(NOT_A_TYPE)),
    }
}

fn divide(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand], ty: Ty) -> Result<Insn, LoadError> {
    let m = cx.mode;
    let kind = op.one_of(&[("approx", 0), ("full", 1)]);
    let mods = modifiers(op, ty, false)?;
    if kind.is_some() == mods.round.is_some() {
        return Err(op.refuse("one of `.approx`, `.full` or a rounding mode is wanted"));
    }
    let run = match (kind, ty) {
        (Some(0), Ty::F32) if mods.ftz => binary!(m, |a: f32, b: f32| -> f32 { approx::div_ftz(a, b) }),
        (Some(0), Ty::F32) => binary!(m, |a: f32, b: f32| -> f32 { approx::div(a, b) }),
        (Some(_), Ty::F32) if mods.ftz => binary!(m, |a: f32, b: f32| -> f32 { approx::div_full_ftz(a, b) }),
        (Some(_), Ty::F32) => binary!(m, |a: f32, b: f32| -> f32 { approx::div_full(a, b) }),
        (Some(_), _) => return Err(op.refuse(NOT_A_TYPE)),
        (None, Ty::F32) if mods.plain() => binary!(m, |a: f32, b: f32| -> f32 { a / b }),
        (None, Ty::F64) if mods.plain() => binary!(m, |a: f64, b: f64| -> f64 { a / b }),
        (None, Ty::F32) => rounded!(m, f32, 2, |a, b, c, r| { arith::div_f32(a, b, r) }),
        (None, _) => rounded!(m, f64, 2, |a, b, c, r| { arith::div_f64(a, b, r) }),
    };
    let mut insn = two(cx, op, args, ty, ty, run)?;
    insn.flags = mods.flags();
    Ok(insn)
}

fn extreme(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand], ty: Ty) -> Result<Insn, LoadError> {
    let m = cx.mode;
    let max = op.base() == "max";
    if ty == Ty::F64 {
        let run = match max {
            true => binary!(m, |a: f64, b: f64| -> f64 { arith::max_f64(a, b) }),
            false => binary!(m, |a: f64, b: f64| -> f64 { arith::min_f64(a, b) }),
        };
        return two(cx, op, args, ty, ty, run);
    }
    let ftz = op.take("ftz");
    let nan = op.take("NaN");
    let xorsign = op.take("xorsign");
    if xorsign {
        op.need("abs")?;
    }
    if args.len() == 4 {
        return Err(op.refuse("three sources need sm_100"));
    }
    macro_rules! form {
        ($f:path) => {
            match (ftz, xorsign) {
                (false, false) => binary!(m, |a: f32, b: f32| -> f32 { $f(a, b) }),
                (true, false) => binary!(m, |a: f32, b: f32| -> f32 { $f(ftz_f32(a), ftz_f32(b)) }),
                (false, true) => binary!(m, |a: f32, b: f32| -> f32 { arith::xorsign_abs_f32(a, b, $f) }),
                (true, true) => {
                    binary!(m, |a: f32, b: f32| -> f32 { arith::xorsign_abs_f32(ftz_f32(a), ftz_f32(b), $f) })
                }
            }
        };
    }
    let run = match (max, nan) {
        (true, false) => form!(arith::max_f32),
        (true, true) => form!(arith::max_nan_f32),
        (false, false) => form!(arith::min_f32),
        (false, true) => form!(arith::min_nan_f32),
    };
    two(cx, op, args, ty, ty, run)
}

/// `ex2`, `lg2`, `sin`, `cos`, `tanh` of `.f32`.
pub(crate) fn decode_function(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let m = cx.mode;
    op.need("approx")?;
    let ftz = op.take("ftz");
    let ty = op.ty()?;
    if ty != Ty::F32 {
        return super::half::decode_function(cx, op, args, ty, ftz);
    }
    // Within the manual's bound, not the hardware's bits: see `num::approx`.
    let run = match (op.base(), ftz) {
        ("ex2", false) => unary!(m, |a: f32| -> f32 { approx::ex2(a) }),
        ("ex2", true) => unary!(m, |a: f32| -> f32 { approx::ex2_ftz(a) }),
        ("lg2", false) => unary!(m, |a: f32| -> f32 { approx::lg2(a) }),
        ("lg2", true) => unary!(m, |a: f32| -> f32 { approx::lg2_ftz(a) }),
        ("sin", false) => unary!(m, |a: f32| -> f32 { approx::sin(a) }),
        ("sin", true) => unary!(m, |a: f32| -> f32 { approx::sin_ftz(a) }),
        ("cos", false) => unary!(m, |a: f32| -> f32 { approx::cos(a) }),
        ("cos", true) => unary!(m, |a: f32| -> f32 { approx::cos_ftz(a) }),
        ("tanh", false) => unary!(m, |a: f32| -> f32 { approx::tanh(a) }),
        _ => return Err(op.refuse("not a form of this instruction")),
    };
    one(cx, op, args, ty, ty, run)
}

/// `copysign d, a, b`: the magnitude of `b` with the sign of `a`.
pub(crate) fn decode_copysign(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let ty = op.ty()?;
    let run = match ty {
        Ty::F32 => binary!(cx.mode, |a: f32, b: f32| -> f32 { b.copysign(a) }),
        Ty::F64 => binary!(cx.mode, |a: f64, b: f64| -> f64 { b.copysign(a) }),
        _ => return Err(op.refuse(NOT_A_TYPE)),
    };
    two(cx, op, args, ty, ty, run)
}

/// In `flags` of [`TestP`].
const CLASSES: &[(&str, u16)] =
    &[("finite", 0), ("infinite", 1), ("number", 2), ("notanumber", 3), ("normal", 4), ("subnormal", 5)];

struct TestP<T>(std::marker::PhantomData<T>);

macro_rules! test_p {
    ($type:ty) => {
        impl Alu for TestP<$type> {
            #[inline(always)]
            unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
                // SAFETY: the caller's promise.
                unsafe {
                    let a: [$type; LANES] = w.get(i.a);
                    let mut out = 0u32;
                    for l in 0..LANES {
                        let x = a[l];
                        let yes = match i.flags {
                            0 => x.is_finite(),
                            1 => x.is_infinite(),
                            2 => !x.is_nan(),
                            3 => x.is_nan(),
                            // "As a special case, positive and negative zero are considered normal numbers."
                            4 => x.is_normal() || x == 0.0,
                            _ => x.is_subnormal(),
                        };
                        out |= (yes as u32) << l;
                    }
                    w.set_pred(i.d, mask, out);
                }
            }
        }
    };
}
test_p!(f32);
test_p!(f64);

/// `testp.class.type p, a`.
pub(crate) fn decode_testp(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let class = op.must_one_of(CLASSES)?;
    let ty = op.ty()?;
    cx.count(op, args, 2)?;
    let run = match ty {
        Ty::F32 => cx.mode.alu::<TestP<f32>>(),
        Ty::F64 => cx.mode.alu::<TestP<f64>>(),
        _ => return Err(op.refuse(NOT_A_TYPE)),
    };
    let mut insn = cx.insn(run);
    insn.flags = class;
    insn.d = cx.pred_dst(&args[0])?;
    insn.a = cx.src(&args[1], ty)?;
    Ok(insn)
}
