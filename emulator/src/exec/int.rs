//! Integer arithmetic: PTX ISA, *Integer Arithmetic Instructions* and *Extended-Precision Integer Arithmetic*.

use super::lanes::{Alu, binary, per_type, ternary};
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{Exec, Insn};
use crate::parse::Operand;
use crate::regs::{LANES, Lane};
use crate::warp::Warp;

pub(super) const NOT_A_TYPE: &str = "not a type of this instruction";

/// `op d, a;`
pub(super) fn one(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    args: &[Operand],
    ty: Ty,
    result: Ty,
    run: Exec,
) -> Result<Insn, LoadError> {
    cx.count(op, args, 2)?;
    let mut insn = cx.insn(run);
    insn.d = cx.dst(&args[0], result)?;
    insn.a = cx.src(&args[1], ty)?;
    Ok(insn)
}

/// `op d, a, b;`
pub(super) fn two(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    args: &[Operand],
    ty: Ty,
    result: Ty,
    run: Exec,
) -> Result<Insn, LoadError> {
    cx.count(op, args, 3)?;
    let mut insn = cx.insn(run);
    insn.d = cx.dst(&args[0], result)?;
    insn.a = cx.src(&args[1], ty)?;
    insn.b = cx.src(&args[2], ty)?;
    Ok(insn)
}

/// `op d, a, b, c;`
pub(super) fn three(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    args: &[Operand],
    ty: Ty,
    third: Ty,
    run: Exec,
) -> Result<Insn, LoadError> {
    cx.count(op, args, 4)?;
    let mut insn = cx.insn(run);
    insn.d = cx.dst(&args[0], third)?;
    insn.a = cx.src(&args[1], ty)?;
    insn.b = cx.src(&args[2], ty)?;
    insn.c = cx.src(&args[3], third)?;
    Ok(insn)
}

/// Twice as wide.
fn widened(op: &Opcode, ty: Ty) -> Result<Ty, LoadError> {
    Ok(match ty {
        Ty::U16 => Ty::U32,
        Ty::S16 => Ty::S32,
        Ty::U32 => Ty::U64,
        Ty::S32 => Ty::S64,
        _ => return Err(op.refuse(NOT_A_TYPE)),
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Lo,
    Hi,
    Wide,
}

const PARTS: &[(&str, Part)] = &[("lo", Part::Lo), ("hi", Part::Hi), ("wide", Part::Wide)];

/// `add`, `sub`, `min`, `max`, `mul`, `mad`, `div`, `rem`, `abs`, `neg`, `sad` of an integer type.
pub(crate) fn decode(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
    ty: Ty,
) -> Result<Insn, LoadError> {
    match op.base() {
        "add" | "sub" => add(cx, op, args, ty),
        "mul" => mul(cx, op, args, ty),
        "mad" => mad(cx, op, args, ty),
        "div" => {
            // Division by zero gives all ones on every device, the manual leaves it open.
            let run = per_type!(cx, op, ty, { U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64 },
                binary |a, b| { if b == 0 { !0 } else { a.wrapping_div(b) } });
            two(cx, op, args, ty, ty, run)
        }
        "rem" => {
            let run = per_type!(cx, op, ty, { U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64 },
                binary |a, b| { if b == 0 { a } else { a.wrapping_rem(b) } });
            two(cx, op, args, ty, ty, run)
        }
        "min" | "max" => min_max(cx, op, args, ty),
        "abs" => {
            let run = per_type!(cx, op, ty, { S16: i16, S32: i32, S64: i64 }, unary |a| { a.wrapping_abs() });
            one(cx, op, args, ty, ty, run)
        }
        "neg" => {
            let run = per_type!(cx, op, ty, { S16: i16, S32: i32, S64: i64 }, unary |a| { a.wrapping_neg() });
            one(cx, op, args, ty, ty, run)
        }
        _ => Err(op.refuse(NOT_A_TYPE)),
    }
}

fn add(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand], ty: Ty) -> Result<Insn, LoadError> {
    let plus = op.base() == "add";
    if op.take("cc") {
        return if plus {
            carry::<CarryAdd>(cx, op, args, ty, true, false)
        } else {
            carry::<CarrySub>(cx, op, args, ty, true, false)
        };
    }
    if op.take("sat") {
        if ty != Ty::S32 {
            return Err(op.refuse(NOT_A_TYPE));
        }
        let run = match plus {
            true => binary!(cx.mode, |a: i32, b: i32| -> i32 { a.saturating_add(b) }),
            false => binary!(cx.mode, |a: i32, b: i32| -> i32 { a.saturating_sub(b) }),
        };
        return two(cx, op, args, ty, ty, run);
    }
    let run = match plus {
        true => per_type!(cx, op, ty, { U16 | S16: u16, U32 | S32: u32, U64 | S64: u64 },
            binary |a, b| { a.wrapping_add(b) }),
        false => per_type!(cx, op, ty, { U16 | S16: u16, U32 | S32: u32, U64 | S64: u64 },
            binary |a, b| { a.wrapping_sub(b) }),
    };
    two(cx, op, args, ty, ty, run)
}

fn mul(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand], ty: Ty) -> Result<Insn, LoadError> {
    let m = cx.mode;
    match op.must_one_of(PARTS)? {
        Part::Lo => {
            let run = per_type!(cx, op, ty, { U16 | S16: u16, U32 | S32: u32, U64 | S64: u64 },
                binary |a, b| { a.wrapping_mul(b) });
            two(cx, op, args, ty, ty, run)
        }
        Part::Hi => {
            let run = match ty {
                Ty::U16 => binary!(m, |a: u16, b: u16| -> u16 { ((a as u32 * b as u32) >> 16) as u16 }),
                Ty::S16 => binary!(m, |a: i16, b: i16| -> i16 { ((a as i32 * b as i32) >> 16) as i16 }),
                Ty::U32 => binary!(m, |a: u32, b: u32| -> u32 { ((a as u64 * b as u64) >> 32) as u32 }),
                Ty::S32 => binary!(m, |a: i32, b: i32| -> i32 { ((a as i64 * b as i64) >> 32) as i32 }),
                Ty::U64 => binary!(m, |a: u64, b: u64| -> u64 { ((a as u128 * b as u128) >> 64) as u64 }),
                Ty::S64 => binary!(m, |a: i64, b: i64| -> i64 { ((a as i128 * b as i128) >> 64) as i64 }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            two(cx, op, args, ty, ty, run)
        }
        Part::Wide => {
            let run = match ty {
                Ty::U16 => binary!(m, |a: u16, b: u16| -> u32 { a as u32 * b as u32 }),
                Ty::S16 => binary!(m, |a: i16, b: i16| -> i32 { a as i32 * b as i32 }),
                Ty::U32 => binary!(m, |a: u32, b: u32| -> u64 { a as u64 * b as u64 }),
                Ty::S32 => binary!(m, |a: i32, b: i32| -> i64 { a as i64 * b as i64 }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            let result = widened(op, ty)?;
            two(cx, op, args, ty, result, run)
        }
    }
}

fn mad(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand], ty: Ty) -> Result<Insn, LoadError> {
    let part = op.must_one_of(PARTS)?;
    if op.take("cc") {
        return match part {
            Part::Lo => carry::<CarryMadLo>(cx, op, args, ty, true, false),
            Part::Hi => carry::<CarryMadHi>(cx, op, args, ty, true, false),
            Part::Wide => Err(op.refuse("`.wide` has no carry")),
        };
    }
    let saturate = op.take("sat");
    if saturate && (part != Part::Hi || ty != Ty::S32) {
        return Err(op.refuse("`.sat` is for `.hi.s32` only"));
    }
    let m = cx.mode;
    match part {
        Part::Lo => {
            let run = per_type!(cx, op, ty, { U16 | S16: u16, U32 | S32: u32, U64 | S64: u64 },
                ternary |a, b, c| { a.wrapping_mul(b).wrapping_add(c) });
            three(cx, op, args, ty, ty, run)
        }
        Part::Hi => {
            let run = match ty {
                Ty::U16 => ternary!(m, |a: u16, b: u16, c: u16| -> u16 {
                    (((a as u32 * b as u32) >> 16) as u16).wrapping_add(c)
                }),
                Ty::S16 => ternary!(m, |a: i16, b: i16, c: i16| -> i16 {
                    (((a as i32 * b as i32) >> 16) as i16).wrapping_add(c)
                }),
                Ty::U32 => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                    (((a as u64 * b as u64) >> 32) as u32).wrapping_add(c)
                }),
                Ty::S32 if saturate => ternary!(m, |a: i32, b: i32, c: i32| -> i32 {
                    (((a as i64 * b as i64) >> 32) as i32).saturating_add(c)
                }),
                Ty::S32 => ternary!(m, |a: i32, b: i32, c: i32| -> i32 {
                    (((a as i64 * b as i64) >> 32) as i32).wrapping_add(c)
                }),
                Ty::U64 => ternary!(m, |a: u64, b: u64, c: u64| -> u64 {
                    (((a as u128 * b as u128) >> 64) as u64).wrapping_add(c)
                }),
                Ty::S64 => ternary!(m, |a: i64, b: i64, c: i64| -> i64 {
                    (((a as i128 * b as i128) >> 64) as i64).wrapping_add(c)
                }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            three(cx, op, args, ty, ty, run)
        }
        Part::Wide => {
            let run = match ty {
                Ty::U16 => {
                    ternary!(m, |a: u16, b: u16, c: u32| -> u32 { (a as u32 * b as u32).wrapping_add(c) })
                }
                Ty::S16 => {
                    ternary!(m, |a: i16, b: i16, c: i32| -> i32 { (a as i32 * b as i32).wrapping_add(c) })
                }
                Ty::U32 => {
                    ternary!(m, |a: u32, b: u32, c: u64| -> u64 { (a as u64 * b as u64).wrapping_add(c) })
                }
                Ty::S32 => {
                    ternary!(m, |a: i32, b: i32, c: i64| -> i64 { (a as i64 * b as i64).wrapping_add(c) })
                }
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            let result = widened(op, ty)?;
            three(cx, op, args, ty, result, run)
        }
    }
}

fn min_max(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand], ty: Ty) -> Result<Insn, LoadError> {
    let relu = op.take("relu");
    if relu && ty != Ty::S32 {
        return Err(op.refuse("`.relu` is for `.s32` only"));
    }
    let run = match (op.base(), relu) {
        ("min", false) => per_type!(cx, op, ty,
            { U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64 }, binary |a, b| { a.min(b) }),
        (_, false) => per_type!(cx, op, ty,
            { U16: u16, S16: i16, U32: u32, S32: i32, U64: u64, S64: i64 }, binary |a, b| { a.max(b) }),
        ("min", true) => binary!(cx.mode, |a: i32, b: i32| -> i32 { a.min(b).max(0) }),
        (_, true) => binary!(cx.mode, |a: i32, b: i32| -> i32 { a.max(b).max(0) }),
    };
    two(cx, op, args, ty, ty, run)
}

/// `addc`, `subc`, `madc`.
pub(crate) fn decode_carry(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let ty = op.ty()?;
    match op.base() {
        "addc" => {
            let out = op.take("cc");
            carry::<CarryAdd>(cx, op, args, ty, out, true)
        }
        "subc" => {
            let out = op.take("cc");
            carry::<CarrySub>(cx, op, args, ty, out, true)
        }
        _ => {
            let part = op.must_one_of(PARTS)?;
            let out = op.take("cc");
            match part {
                Part::Lo => carry::<CarryMadLo>(cx, op, args, ty, out, true),
                Part::Hi => carry::<CarryMadHi>(cx, op, args, ty, out, true),
                Part::Wide => Err(op.refuse("`.wide` has no carry")),
            }
        }
    }
}

/// Arithmetic with carry: `d` is `ops(a, b, c, carry in)`, with the carry out.
trait Carry {
    const THIRD: bool;
    fn narrow(a: u32, b: u32, c: u32, carry: bool, signed: bool) -> (u32, bool);
    fn wide(a: u64, b: u64, c: u64, carry: bool, signed: bool) -> (u64, bool);
}

struct CarryAdd;
struct CarrySub;
struct CarryMadLo;
struct CarryMadHi;

impl Carry for CarryAdd {
    const THIRD: bool = false;
    #[inline(always)]
    fn narrow(a: u32, b: u32, _: u32, carry: bool, _: bool) -> (u32, bool) {
        let sum = a as u64 + b as u64 + carry as u64;
        (sum as u32, sum >> 32 != 0)
    }
    #[inline(always)]
    fn wide(a: u64, b: u64, _: u64, carry: bool, _: bool) -> (u64, bool) {
        let sum = a as u128 + b as u128 + carry as u128;
        (sum as u64, sum >> 64 != 0)
    }
}

impl Carry for CarrySub {
    const THIRD: bool = false;
    // The carry of a subtraction is its borrow.
    #[inline(always)]
    fn narrow(a: u32, b: u32, _: u32, borrow: bool, _: bool) -> (u32, bool) {
        let difference = (a as u64).wrapping_sub(b as u64).wrapping_sub(borrow as u64);
        (difference as u32, difference >> 32 != 0)
    }
    #[inline(always)]
    fn wide(a: u64, b: u64, _: u64, borrow: bool, _: bool) -> (u64, bool) {
        let difference = (a as u128).wrapping_sub(b as u128).wrapping_sub(borrow as u128);
        (difference as u64, difference >> 64 != 0)
    }
}

impl Carry for CarryMadLo {
    const THIRD: bool = true;
    #[inline(always)]
    fn narrow(a: u32, b: u32, c: u32, carry: bool, signed: bool) -> (u32, bool) {
        CarryAdd::narrow(a.wrapping_mul(b), c, 0, carry, signed)
    }
    #[inline(always)]
    fn wide(a: u64, b: u64, c: u64, carry: bool, signed: bool) -> (u64, bool) {
        CarryAdd::wide(a.wrapping_mul(b), c, 0, carry, signed)
    }
}

impl Carry for CarryMadHi {
    const THIRD: bool = true;
    #[inline(always)]
    fn narrow(a: u32, b: u32, c: u32, carry: bool, signed: bool) -> (u32, bool) {
        let high = match signed {
            true => ((a as i32 as i64 * b as i32 as i64) >> 32) as u32,
            false => ((a as u64 * b as u64) >> 32) as u32,
        };
        CarryAdd::narrow(high, c, 0, carry, signed)
    }
    #[inline(always)]
    fn wide(a: u64, b: u64, c: u64, carry: bool, signed: bool) -> (u64, bool) {
        let high = match signed {
            true => ((a as i64 as i128 * b as i64 as i128) >> 64) as u64,
            false => ((a as u128 * b as u128) >> 64) as u64,
        };
        CarryAdd::wide(high, c, 0, carry, signed)
    }
}

/// In `flags`: reads the carry, writes the carry, is signed, and in `ext[0]` the carry's predicate index.
const CARRY_IN: u16 = 1;
const CARRY_OUT: u16 = 2;
const CARRY_SIGNED: u16 = 4;

fn carry<C: Carry + 'static>(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    args: &[Operand],
    ty: Ty,
    out: bool,
    input: bool,
) -> Result<Insn, LoadError> {
    let run = match ty {
        Ty::U32 | Ty::S32 => cx.mode.alu::<Carried<C, u32>>(),
        Ty::U64 | Ty::S64 => cx.mode.alu::<Carried<C, u64>>(),
        _ => return Err(op.refuse(NOT_A_TYPE)),
    };
    let mut insn = if C::THIRD { three(cx, op, args, ty, ty, run)? } else { two(cx, op, args, ty, ty, run)? };
    insn.flags = input as u16 * CARRY_IN + out as u16 * CARRY_OUT + ty.signed() as u16 * CARRY_SIGNED;
    insn.ext = Box::new([cx.carry()]);
    Ok(insn)
}

struct Carried<C, T>(std::marker::PhantomData<(C, T)>);

macro_rules! carried {
    ($type:ty, $function:ident) => {
        impl<C: Carry> Alu for Carried<C, $type> {
            #[inline(always)]
            unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
                // SAFETY: the caller's promise.
                unsafe {
                    let a: [$type; LANES] = w.get(i.a);
                    let b: [$type; LANES] = w.get(i.b);
                    let c: [$type; LANES] = if C::THIRD { w.get(i.c) } else { a };
                    let flag = i.ext[0];
                    let input = if i.flags & CARRY_IN != 0 { w.pred(flag * 2) } else { 0 };
                    let signed = i.flags & CARRY_SIGNED != 0;
                    let mut r = [<$type>::ZERO; LANES];
                    let mut out = 0u32;
                    for l in 0..LANES {
                        let (value, carry) = C::$function(a[l], b[l], c[l], input >> l & 1 != 0, signed);
                        r[l] = value;
                        out |= (carry as u32) << l;
                    }
                    w.set(i.d, mask, r);
                    if i.flags & CARRY_OUT != 0 {
                        w.set_pred(flag, mask, out);
                    }
                }
            }
        }
    };
}
carried!(u32, narrow);
carried!(u64, wide);

/// `sad`, `mul24`, `mad24`, `dp4a`, `dp2a`.
pub(crate) fn decode_special(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let m = cx.mode;
    match op.base() {
        "sad" => {
            let ty = op.ty()?;
            let run = match ty {
                Ty::U16 => ternary!(m, |a: u16, b: u16, c: u16| -> u16 { c.wrapping_add(a.abs_diff(b)) }),
                Ty::S16 => ternary!(m, |a: i16, b: i16, c: u16| -> u16 { c.wrapping_add(a.abs_diff(b)) }),
                Ty::U32 => ternary!(m, |a: u32, b: u32, c: u32| -> u32 { c.wrapping_add(a.abs_diff(b)) }),
                Ty::S32 => ternary!(m, |a: i32, b: i32, c: u32| -> u32 { c.wrapping_add(a.abs_diff(b)) }),
                Ty::U64 => ternary!(m, |a: u64, b: u64, c: u64| -> u64 { c.wrapping_add(a.abs_diff(b)) }),
                Ty::S64 => ternary!(m, |a: i64, b: i64, c: u64| -> u64 { c.wrapping_add(a.abs_diff(b)) }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            three(cx, op, args, ty, ty, run)
        }
        "dp4a" => {
            let (left, right) = (op.ty()?, op.ty()?);
            let run = match (left, right) {
                (Ty::U32, Ty::U32) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                    (0..4).fold(c, |s, k| s.wrapping_add((a >> (8 * k) & 255) * (b >> (8 * k) & 255)))
                }),
                (Ty::S32, Ty::S32) => ternary!(m, |a: u32, b: u32, c: i32| -> i32 {
                    (0..4).fold(c, |s, k| {
                        s.wrapping_add((a >> (8 * k)) as i8 as i32 * (b >> (8 * k)) as i8 as i32)
                    })
                }),
                (Ty::S32, Ty::U32) => ternary!(m, |a: u32, b: u32, c: i32| -> i32 {
                    (0..4).fold(c, |s, k| {
                        s.wrapping_add((a >> (8 * k)) as i8 as i32 * (b >> (8 * k) & 255) as i32)
                    })
                }),
                (Ty::U32, Ty::S32) => ternary!(m, |a: u32, b: u32, c: i32| -> i32 {
                    (0..4).fold(c, |s, k| {
                        s.wrapping_add((a >> (8 * k) & 255) as i32 * (b >> (8 * k)) as i8 as i32)
                    })
                }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            three(cx, op, args, Ty::B32, Ty::B32, run)
        }
        "mul24" | "mad24" => {
            let high = op.must_one_of(&[("lo", false), ("hi", true)])?;
            let ty = op.ty()?;
            let mul = op.base() == "mul24";
            // The middle 32 bits of the 48-bit product, counted from bit 16 for `.hi`.
            let run = match (mul, ty, high) {
                (true, Ty::U32, false) => binary!(m, |a: u32, b: u32| -> u32 {
                    ((a & 0xff_ffff) as u64 * (b & 0xff_ffff) as u64) as u32
                }),
                (true, Ty::U32, true) => binary!(m, |a: u32, b: u32| -> u32 {
                    (((a & 0xff_ffff) as u64 * (b & 0xff_ffff) as u64) >> 16) as u32
                }),
                (true, Ty::S32, false) => binary!(m, |a: i32, b: i32| -> i32 {
                    ((a << 8 >> 8) as i64 * (b << 8 >> 8) as i64) as i32
                }),
                (true, Ty::S32, true) => binary!(m, |a: i32, b: i32| -> i32 {
                    (((a << 8 >> 8) as i64 * (b << 8 >> 8) as i64) >> 16) as i32
                }),
                (false, Ty::U32, false) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                    (((a & 0xff_ffff) as u64 * (b & 0xff_ffff) as u64) as u32).wrapping_add(c)
                }),
                (false, Ty::U32, true) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                    ((((a & 0xff_ffff) as u64 * (b & 0xff_ffff) as u64) >> 16) as u32).wrapping_add(c)
                }),
                (false, Ty::S32, false) => ternary!(m, |a: i32, b: i32, c: i32| -> i32 {
                    (((a << 8 >> 8) as i64 * (b << 8 >> 8) as i64) as i32).wrapping_add(c)
                }),
                (false, Ty::S32, true) => ternary!(m, |a: i32, b: i32, c: i32| -> i32 {
                    ((((a << 8 >> 8) as i64 * (b << 8 >> 8) as i64) >> 16) as i32).wrapping_add(c)
                }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            if mul { two(cx, op, args, ty, ty, run) } else { three(cx, op, args, ty, ty, run) }
        }
        _ => Err(op.refuse("unknown instruction")),
    }
}
