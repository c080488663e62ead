//! `cvt`: PTX ISA, *Data Movement and Conversion Instructions: cvt*.
//!
//! Common pairs of types have a vector loop each; all others share [`General`], one lane at a time.

use super::float::{ROUNDS, round_bits, round_from};
use super::lanes::{Alu, binary, unary};
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{Exec, Insn};
use crate::num::arith::{ftz_f32, sat_f32, sat_f64};
use crate::num::convert::{
    f32_to_int, f32_to_tf32, f32_to_tf32_rna, f64_to_f32, f64_to_int, int_to_f32, int_to_f64, int_to_half,
    integral_f32, integral_f64,
};
use crate::num::half::{
    bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_bf16_rn, f32_to_f16, f32_to_f16_rn, f64_to_bf16, f64_to_f16,
    ftz_f16, relu_bf16, relu_f16, sat_f16, satfinite_bf16, satfinite_f16,
};
use crate::num::round::{Format, Round};
use crate::parse::Operand;
use crate::regs::{Bf16, F16, LANES};
use crate::warp::Warp;

/// In `flags`, above the rounding mode.
const FTZ: u16 = 8;
const SAT: u16 = 16;
const RELU: u16 = 32;
const SATFINITE: u16 = 64;
/// Rounds to an integral value (`.rni` and so on).
const INTEGRAL: u16 = 128;
/// The source register has 64 bits, the destination register has 64 bits.
const WIDE_SOURCE: u16 = 256;
const WIDE_RESULT: u16 = 512;

const INTEGRAL_ROUNDS: &[(&str, Round)] =
    &[("rni", Round::Rn), ("rzi", Round::Rz), ("rmi", Round::Rm), ("rpi", Round::Rp)];

fn is_int(ty: Ty) -> bool {
    matches!(ty, Ty::U8 | Ty::S8 | Ty::U16 | Ty::S16 | Ty::U32 | Ty::S32 | Ty::U64 | Ty::S64)
}

/// `cvt…`.
pub(crate) fn decode(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    if op.has("pack") {
        return Err(op.refuse("`cvt.pack` is not supported"));
    }
    let to = op.ty()?;
    let from = op.ty()?;
    let integral = op.one_of(INTEGRAL_ROUNDS);
    let round = match op.take("rna") {
        true => Some(Round::Rna),
        false => op.one_of(ROUNDS),
    };
    let ftz = op.take("ftz");
    let sat = op.take("sat");
    let (relu, satfinite) = (op.take("relu"), op.take("satfinite"));
    let flags = round_bits(integral.or(round).unwrap_or(Round::Rn))
        | (ftz as u16 * FTZ)
        | (sat as u16 * SAT)
        | (relu as u16 * RELU)
        | (satfinite as u16 * SATFINITE)
        | (integral.is_some() as u16 * INTEGRAL);

    check(op, to, from, integral, round)?;
    if ftz && from != Ty::F32 && to != Ty::F32 && from != Ty::F16 {
        return Err(op.refuse("`.ftz` concerns `.f32` only"));
    }
    if (relu || satfinite)
        && !(from == Ty::F32 && matches!(to, Ty::F16 | Ty::Bf16 | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32))
    {
        return Err(op.refuse("not a modifier of these types"));
    }
    if matches!(to, Ty::F16x2 | Ty::Bf16x2) {
        return packed(cx, op, args, to, flags);
    }
    cx.count(op, args, 2)?;
    let (a, from_bits) = cx.src_at_least(&args[1], from)?;
    let (d, to_bits) = cx.dst_at_least(&args[0], to)?;
    let exact = from_bits.max(32) == from.bits().max(32) && to_bits.max(32) == to.bits().max(32);
    let run = match fast(cx, to, from, flags).filter(|_| exact) {
        Some(run) => run,
        None => cx.mode.alu::<General>(),
    };
    let mut insn = cx.insn(run);
    insn.flags = flags | ((from_bits == 64) as u16 * WIDE_SOURCE) | ((to_bits == 64) as u16 * WIDE_RESULT);
    (insn.a, insn.d) = (a, d);
    insn.ext = Box::new([from as u32, to as u32]);
    Ok(insn)
}

/// Which roundings a pair of types needs and allows.
fn check(
    op: &Opcode,
    to: Ty,
    from: Ty,
    integral: Option<Round>,
    round: Option<Round>,
) -> Result<(), LoadError> {
    let value = |ty: Ty| is_int(ty) || matches!(ty, Ty::F16 | Ty::Bf16 | Ty::F32 | Ty::F64);
    let packed = matches!(to, Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32);
    if !value(from) || !(value(to) || (packed && from == Ty::F32)) {
        return Err(op.refuse("not a pair of types of `cvt`"));
    }
    if round == Some(Round::Rna) && to != Ty::Tf32 {
        return Err(op.refuse("`.rna` is for `.tf32` only"));
    }
    let narrower = match (is_int(to), is_int(from)) {
        (true, true) => {
            if integral.is_some() || round.is_some() {
                return Err(op.refuse("no rounding between integers"));
            }
            return Ok(());
        }
        (true, false) => {
            if integral.is_none() || round.is_some() {
                return Err(op.refuse("one of `.rni`, `.rzi`, `.rmi`, `.rpi` is missing"));
            }
            return Ok(());
        }
        (false, true) => true,
        (false, false) => to.bits() < from.bits() || packed || (to.bits() == from.bits() && to != from),
    };
    if narrower {
        if round.is_none() || integral.is_some() {
            return Err(op.refuse("one of `.rn`, `.rz`, `.rm`, `.rp` is missing"));
        }
    } else if round.is_some() || (integral.is_some() && to != from) {
        return Err(op.refuse("no rounding to a wider type"));
    }
    Ok(())
}

/// The pairs that have a loop of their own.
fn fast(cx: &Decoder<'_>, to: Ty, from: Ty, flags: u16) -> Option<Exec> {
    let m = cx.mode;
    let rounding_only = flags & !(7 | INTEGRAL);
    if rounding_only != 0 {
        return match (to, from, flags) {
            (Ty::F32, Ty::F32, SAT) => Some(unary!(m, |a: f32| -> f32 { sat_f32(a) })),
            (Ty::F32, Ty::F32, FTZ) => Some(unary!(m, |a: f32| -> f32 { ftz_f32(a) })),
            _ => None,
        };
    }
    let round = round_from(flags);
    let nearest = round == Round::Rn;
    Some(match (to, from) {
        (Ty::S64, Ty::S32) => unary!(m, |a: i32| -> i64 { a as i64 }),
        (Ty::U64, Ty::S32) => unary!(m, |a: i32| -> i64 { a as i64 }),
        (Ty::U64 | Ty::S64, Ty::U32) => unary!(m, |a: u32| -> u64 { a as u64 }),
        (Ty::U32 | Ty::S32, Ty::U64 | Ty::S64) => unary!(m, |a: u64| -> u32 { a as u32 }),
        (Ty::U32 | Ty::S32, Ty::U16) => unary!(m, |a: u16| -> u32 { a as u32 }),
        (Ty::U32 | Ty::S32, Ty::S16) => unary!(m, |a: i16| -> i32 { a as i32 }),
        (Ty::U32 | Ty::S32, Ty::U8) => unary!(m, |a: u8| -> u32 { a as u32 }),
        (Ty::U32 | Ty::S32, Ty::S8) => unary!(m, |a: i8| -> i32 { a as i32 }),
        (Ty::U16 | Ty::S16, Ty::U32 | Ty::S32) => unary!(m, |a: u32| -> u16 { a as u16 }),
        (Ty::U64 | Ty::S64, Ty::U16) => unary!(m, |a: u16| -> u64 { a as u64 }),
        (Ty::U64 | Ty::S64, Ty::S16) => unary!(m, |a: i16| -> i64 { a as i64 }),
        (Ty::F32, Ty::S32) if nearest => unary!(m, |a: i32| -> f32 { a as f32 }),
        (Ty::F32, Ty::U32) if nearest => unary!(m, |a: u32| -> f32 { a as f32 }),
        (Ty::F64, Ty::S32) if nearest => unary!(m, |a: i32| -> f64 { a as f64 }),
        (Ty::F64, Ty::U32) if nearest => unary!(m, |a: u32| -> f64 { a as f64 }),
        (Ty::S32, Ty::F32) if nearest => unary!(m, |a: f32| -> i32 { f32_to_int(a, Round::Rn) }),
        (Ty::S32, Ty::F32) if round == Round::Rz => unary!(m, |a: f32| -> i32 { a as i32 }),
        (Ty::S32, Ty::F32) if round == Round::Rm => unary!(m, |a: f32| -> i32 { f32_to_int(a, Round::Rm) }),
        (Ty::U32, Ty::F32) if round == Round::Rz => unary!(m, |a: f32| -> u32 { a as u32 }),
        (Ty::F32, Ty::F32) if flags & INTEGRAL != 0 => match round {
            Round::Rn => unary!(m, |a: f32| -> f32 { integral_f32(a, Round::Rn) }),
            Round::Rz => unary!(m, |a: f32| -> f32 { integral_f32(a, Round::Rz) }),
            Round::Rm => unary!(m, |a: f32| -> f32 { integral_f32(a, Round::Rm) }),
            _ => unary!(m, |a: f32| -> f32 { integral_f32(a, Round::Rp) }),
        },
        (Ty::F32, Ty::F32) => unary!(m, |a: f32| -> f32 { a }),
        (Ty::F32, Ty::F16) => unary!(m, |a: F16| -> f32 { f16_to_f32(a.0) }),
        (Ty::F32, Ty::Bf16) => unary!(m, |a: Bf16| -> f32 { bf16_to_f32(a.0) }),
        (Ty::F16, Ty::F32) if nearest => unary!(m, |a: f32| -> F16 { F16(f32_to_f16_rn(a)) }),
        (Ty::Bf16, Ty::F32) if nearest => unary!(m, |a: f32| -> Bf16 { Bf16(f32_to_bf16_rn(a)) }),
        (Ty::Tf32, Ty::F32) if round == Round::Rna => unary!(m, |a: f32| -> u32 { f32_to_tf32_rna(a) }),
        (Ty::F64, Ty::F32) => unary!(m, |a: f32| -> f64 { a as f64 }),
        (Ty::F32, Ty::F64) if nearest => unary!(m, |a: f64| -> f32 { a as f32 }),
        _ => return None,
    })
}

/// `cvt.rnd.f16x2.f32 d, a, b`: `a` goes to the high half.
fn packed(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    args: &[Operand],
    to: Ty,
    flags: u16,
) -> Result<Insn, LoadError> {
    cx.count(op, args, 3)?;
    if flags & (FTZ | SAT | INTEGRAL) != 0 {
        return Err(op.refuse("not a modifier of these types"));
    }
    let m = cx.mode;
    let run = match (to, flags) {
        (Ty::F16x2, 0) => {
            binary!(m, |a: f32, b: f32| -> u32 { (f32_to_f16_rn(a) as u32) << 16 | f32_to_f16_rn(b) as u32 })
        }
        (Ty::Bf16x2, 0) => binary!(m, |a: f32, b: f32| -> u32 {
            (f32_to_bf16_rn(a) as u32) << 16 | f32_to_bf16_rn(b) as u32
        }),
        _ => m.alu::<Packed>(),
    };
    let mut insn = cx.insn(run);
    insn.flags = flags;
    insn.width = (to == Ty::Bf16x2) as u8;
    insn.d = cx.dst(&args[0], to)?;
    insn.a = cx.src(&args[1], Ty::F32)?;
    insn.b = cx.src(&args[2], Ty::F32)?;
    Ok(insn)
}

/// Packed conversions with modifiers.
struct Packed;

impl Alu for Packed {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b): ([f32; LANES], [f32; LANES]) = (w.get(i.a), w.get(i.b));
            let half = |x: f32| narrow(x, i.width != 0, i.flags) as u32;
            let mut r = [0u32; LANES];
            for l in 0..LANES {
                r[l] = half(a[l]) << 16 | half(b[l]);
            }
            w.set(i.d, mask, r);
        }
    }
}

/// f32 to a 16-bit float with every modifier.
fn narrow(x: f32, bf16: bool, flags: u16) -> u16 {
    let x = if flags & FTZ != 0 { ftz_f32(x) } else { x };
    let round = round_from(flags);
    let mut r = if bf16 { f32_to_bf16(x, round) } else { f32_to_f16(x, round) };
    if flags & SATFINITE != 0 {
        r = if bf16 { satfinite_bf16(r) } else { satfinite_f16(r) };
    }
    if flags & RELU != 0 {
        r = if bf16 { relu_bf16(r) } else { relu_f16(r) };
    }
    if flags & SAT != 0 && !bf16 {
        r = sat_f16(r);
    }
    r
}

/// Any pair of types, one lane at a time.
struct General;

impl Alu for General {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let source: [u64; LANES] = match i.flags & WIDE_SOURCE {
                0 => {
                    let narrow: [u32; LANES] = w.get(i.a);
                    narrow.map(u64::from)
                }
                _ => w.get(i.a),
            };
            let mut r = [0u64; LANES];
            for l in super::mem::lanes(mask) {
                r[l] = convert(source[l], i.ext[0], i.ext[1], i.flags);
            }
            if i.flags & WIDE_RESULT != 0 {
                w.set(i.d, mask, r);
            } else {
                w.set(i.d, mask, r.map(|x| x as u32));
            }
        }
    }
}

/// A number between its two types.
enum Number {
    Int(i128),
    F32(f32),
    F64(f64),
}

/// One value; the result is extended to 64 bits by its own sign.
#[inline(never)]
fn convert(bits: u64, from: u32, to: u32, flags: u16) -> u64 {
    const U8: u32 = Ty::U8 as u32;
    const U16: u32 = Ty::U16 as u32;
    const U32: u32 = Ty::U32 as u32;
    const U64: u32 = Ty::U64 as u32;
    const S8: u32 = Ty::S8 as u32;
    const S16: u32 = Ty::S16 as u32;
    const S32: u32 = Ty::S32 as u32;
    const S64: u32 = Ty::S64 as u32;
    const F16: u32 = Ty::F16 as u32;
    const BF16: u32 = Ty::Bf16 as u32;
    const TF32: u32 = Ty::Tf32 as u32;
    const F32: u32 = Ty::F32 as u32;
    const F64: u32 = Ty::F64 as u32;
    let round = round_from(flags);
    let (ftz, sat) = (flags & FTZ != 0, flags & SAT != 0);
    let number = match from {
        U8 => Number::Int(bits as u8 as i128),
        U16 => Number::Int(bits as u16 as i128),
        U32 => Number::Int(bits as u32 as i128),
        U64 => Number::Int(bits as i128),
        S8 => Number::Int(bits as i8 as i128),
        S16 => Number::Int(bits as i16 as i128),
        S32 => Number::Int(bits as i32 as i128),
        S64 => Number::Int(bits as i64 as i128),
        F16 => Number::F32(f16_to_f32(if ftz { ftz_f16(bits as u16) } else { bits as u16 })),
        BF16 => Number::F32(bf16_to_f32(bits as u16)),
        F64 => Number::F64(f64::from_bits(bits)),
        _ => {
            let x = f32::from_bits(bits as u32);
            Number::F32(if ftz { ftz_f32(x) } else { x })
        }
    };
    macro_rules! to_int {
        ($t:ty) => {
            match number {
                Number::Int(x) if sat => x.clamp(<$t>::MIN as i128, <$t>::MAX as i128) as $t as i64 as u64,
                Number::Int(x) => x as $t as i64 as u64,
                Number::F32(x) => f32_to_int::<$t>(x, round) as i64 as u64,
                Number::F64(x) => f64_to_int::<$t>(x, round) as i64 as u64,
            }
        };
    }
    match to {
        U8 => to_int!(u8),
        U16 => to_int!(u16),
        U32 => to_int!(u32),
        U64 => to_int!(u64),
        S8 => to_int!(i8),
        S16 => to_int!(i16),
        S32 => to_int!(i32),
        S64 => to_int!(i64),
        F32 | TF32 => {
            let x = match number {
                Number::Int(x) if x > i64::MAX as i128 => int_to_f32(x as u64, round),
                Number::Int(x) => int_to_f32(x as i64, round),
                Number::F32(x) if to == TF32 => {
                    let mut r = f32_to_tf32(x, round);
                    if flags & SATFINITE != 0 && r & 0x7fff_ffff == 0x7f80_0000 {
                        r -= 0x2000;
                    }
                    if flags & RELU != 0 && r >> 31 != 0 {
                        r = 0;
                    }
                    return r as u64;
                }
                Number::F32(x) if flags & INTEGRAL != 0 => integral_f32(x, round),
                Number::F32(x) => x,
                Number::F64(x) => f64_to_f32(x, round),
            };
            let x = if ftz { ftz_f32(x) } else { x };
            (if sat { sat_f32(x) } else { x }).to_bits() as u64
        }
        F64 => {
            let x = match number {
                Number::Int(x) if x > i64::MAX as i128 => int_to_f64(x as u64, round),
                Number::Int(x) => int_to_f64(x as i64, round),
                Number::F32(x) => x as f64,
                Number::F64(x) if flags & INTEGRAL != 0 => integral_f64(x, round),
                Number::F64(x) => x,
            };
            (if sat { sat_f64(x) } else { x }).to_bits()
        }
        _ => {
            let bf16 = to == BF16;
            let format = if bf16 { Format::BF16 } else { Format::F16 };
            let r = match number {
                Number::Int(x) if x > i64::MAX as i128 => int_to_half(x as u64, format, round),
                Number::Int(x) => int_to_half(x as i64, format, round),
                Number::F32(x) if flags & INTEGRAL != 0 => narrow(integral_f32(x, round), bf16, 0),
                Number::F32(x) => return narrow(x, bf16, flags) as u64,
                Number::F64(x) if bf16 => f64_to_bf16(x, round),
                Number::F64(x) => f64_to_f16(x, round),
            };
            (if sat && !bf16 { sat_f16(r) } else { r }) as u64
        }
    }
}
