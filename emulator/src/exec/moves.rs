//! `mov`, `cvta`, `isspacep`, `createpolicy`: PTX ISA, *Data Movement and Conversion Instructions*.

use super::Op;
use super::bits::copy_predicate;
use super::int::NOT_A_TYPE;
use super::lanes::{Alu, binary, unary};
use crate::block::Block;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{Exec, Flow, Insn};
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::parse::Operand;
use crate::regs::LANES;
use crate::warp::Warp;

/// `mov.type d, a`, and its packing and unpacking forms.
pub(crate) fn decode_mov(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    let ty = op.ty()?;
    cx.count(op, args, 2)?;
    if ty == Ty::Pred {
        return copy_predicate(cx, args);
    }
    if !matches!(ty.bits(), 16 | 32 | 64) || matches!(ty, Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32) {
        return Err(op.refuse(NOT_A_TYPE));
    }
    match (&args[0], &args[1]) {
        (Operand::Vector(parts), whole) => return unpack(cx, op, parts, whole, ty),
        (whole, Operand::Vector(parts)) => return pack(cx, op, whole, parts, ty),
        (_, Operand::Special(name)) => {
            if let Some(insn) = clock(cx, op, name, &args[0], ty)? {
                return Ok(insn);
            }
        }
        _ => {}
    }
    let mut insn = cx.insn(copy(cx, ty));
    insn.d = cx.dst(&args[0], ty)?;
    insn.a = cx.src(&args[1], ty)?;
    Ok(insn)
}

fn copy(cx: &Decoder<'_>, ty: Ty) -> Exec {
    match ty.bits() {
        64 => unary!(cx.mode, |a: u64| -> u64 { a }),
        _ => unary!(cx.mode, |a: u32| -> u32 { a }),
    }
}

/// `mov.b64 d, {a, b}` and its like: the first element is the lowest. In `width`: bits of an element.
struct Pack;
struct Unpack;

impl Alu for Pack {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = i.width as u32;
            let low = (1u64 << bits) - 1;
            let mut r = [0u64; LANES];
            for (k, slot) in i.ext.iter().enumerate() {
                let part: [u32; LANES] = w.get(*slot);
                for l in 0..LANES {
                    r[l] |= (part[l] as u64 & low) << (k as u32 * bits);
                }
            }
            if i.flags != 0 {
                w.set(i.d, mask, r);
            } else {
                w.set(i.d, mask, r.map(|x| x as u32));
            }
        }
    }
}

impl Alu for Unpack {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = i.width as u32;
            let low = (1u64 << bits) - 1;
            let whole: [u64; LANES] = match i.flags {
                0 => {
                    let narrow: [u32; LANES] = w.get(i.a);
                    narrow.map(u64::from)
                }
                _ => w.get(i.a),
            };
            for (k, slot) in i.ext.iter().enumerate() {
                let mut r = [0u32; LANES];
                for l in 0..LANES {
                    r[l] = (whole[l] >> (k as u32 * bits) & low) as u32;
                }
                w.set(*slot, mask, r);
            }
        }
    }
}

/// The type of one of `count` equal parts.
fn part(op: &Opcode, ty: Ty, count: usize) -> Result<Ty, LoadError> {
    match (ty.bits() / count.max(1) as u32, count) {
        (8, 2 | 4) => Ok(Ty::B8),
        (16, 2 | 4) => Ok(Ty::B16),
        (32, 2) => Ok(Ty::B32),
        _ => Err(op.refuse("not a number of parts of this type")),
    }
}

fn pack(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    whole: &Operand,
    parts: &[Operand],
    ty: Ty,
) -> Result<Insn, LoadError> {
    let each = part(op, ty, parts.len())?;
    let run = match (ty.bits(), each) {
        (32, Ty::B16) => binary!(cx.mode, |a: u32, b: u32| -> u32 { a & 0xffff | b << 16 }),
        (64, Ty::B32) => binary!(cx.mode, |a: u32, b: u32| -> u64 { a as u64 | (b as u64) << 32 }),
        _ => cx.mode.alu::<Pack>(),
    };
    let mut insn = cx.insn(run);
    insn.d = cx.dst(whole, ty)?;
    insn.width = each.bits() as u8;
    insn.flags = (ty.bits() == 64) as u16;
    let mut slots = Vec::new();
    for part in parts {
        slots.push(cx.src(part, each)?);
    }
    (insn.a, insn.b) = (slots[0], slots[1]);
    insn.ext = slots.into_boxed_slice();
    Ok(insn)
}

fn unpack(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    parts: &[Operand],
    whole: &Operand,
    ty: Ty,
) -> Result<Insn, LoadError> {
    let each = part(op, ty, parts.len())?;
    let mut insn = cx.insn(cx.mode.alu::<Unpack>());
    insn.a = cx.src(whole, ty)?;
    insn.width = each.bits() as u8;
    insn.flags = (ty.bits() == 64) as u16;
    let mut slots = Vec::new();
    for part in parts {
        slots.push(cx.dst(part, each)?);
    }
    insn.ext = slots.into_boxed_slice();
    Ok(insn)
}

/// Registers that count time: every reading is later than the one before.
struct Clock;

impl Op for Clock {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        b.clock += 32;
        let now = b.clock << i.imm;
        // SAFETY: the caller's promise.
        unsafe {
            match i.flags {
                0 => w.set(i.d, mask, [now as u32; LANES]),
                1 => w.set(i.d, mask, [(now >> 32) as u32; LANES]),
                _ => w.set(i.d, mask, [now; LANES]),
            }
        }
    }
}

fn clock(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    name: &str,
    target: &Operand,
    ty: Ty,
) -> Result<Option<Insn>, LoadError> {
    // Which half, and how many clocks a step is: global time is in nanoseconds, coarser than clocks.
    let (half, shift) = match name {
        "clock" => (0, 0),
        "clock_hi" => (1, 0),
        "clock64" => (2, 0),
        "globaltimer" => (2, 5),
        "globaltimer_lo" => (0, 5),
        "globaltimer_hi" => (1, 5),
        _ => return Ok(None),
    };
    if (half == 2) != (ty.bits() == 64) {
        return Err(op.refuse(NOT_A_TYPE));
    }
    let mut insn = cx.insn(cx.mode.exec::<Clock>());
    (insn.flags, insn.imm) = (half, shift);
    insn.d = cx.dst(target, ty)?;
    Ok(Some(insn))
}

fn window(op: &mut Opcode) -> Result<u64, LoadError> {
    op.must_one_of(&[
        ("global", 0),
        ("const", 0),
        ("shared::cta", SHARED_WINDOW),
        ("shared", SHARED_WINDOW),
        ("local", LOCAL_WINDOW),
        ("param::entry", PARAM_WINDOW),
        ("param", PARAM_WINDOW),
    ])
}

/// `cvta[.to].space.size d, a`.
pub(crate) fn decode_cvta(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let to = op.take("to");
    let window = window(op)?;
    op.need("u64")?;
    cx.count(op, args, 2)?;
    let run = match to {
        _ if window == 0 => copy(cx, Ty::U64),
        true => binary!(cx.mode, |a: u64, b: u64| -> u64 { a.wrapping_sub(b) }),
        false => binary!(cx.mode, |a: u64, b: u64| -> u64 { a.wrapping_add(b) }),
    };
    let mut insn = cx.insn(run);
    insn.d = cx.dst(&args[0], Ty::U64)?;
    insn.a = cx.src(&args[1], Ty::U64)?;
    insn.b = cx.constant(window, true);
    Ok(insn)
}

/// In `imm`: the window, or 0 for global memory.
struct IsSpace;

impl Alu for IsSpace {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [u64; LANES] = w.get(i.a);
            let window = i.imm as u64;
            let mut yes = 0u32;
            for l in 0..LANES {
                let own = if a[l] >= PARAM_WINDOW { a[l] >> 56 << 56 } else { 0 };
                yes |= ((own == window) as u32) << l;
            }
            w.set_pred(i.d, mask, yes);
        }
    }
}

/// `isspacep.space p, a`.
pub(crate) fn decode_isspacep(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    if op.has("const") {
        return Err(op.refuse("constant memory is not a window here"));
    }
    let window = window(op)?;
    cx.count(op, args, 2)?;
    let mut insn = cx.insn(cx.mode.alu::<IsSpace>());
    insn.imm = window as i64;
    insn.d = cx.pred_dst(&args[0])?;
    insn.a = cx.src(&args[1], Ty::U64)?;
    Ok(insn)
}

/// `createpolicy…`: a cache policy is a number that only caches look at, and there are none here.
pub(crate) fn decode_policy(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    op.must_one_of(&[("fractional", ()), ("range", ()), ("cvt", ())])?;
    op.take("global");
    for word in ["L2::evict_last", "L2::evict_normal", "L2::evict_first", "L2::evict_unchanged", "L2"] {
        op.take(word);
    }
    op.need("b64")?;
    let Some(first) = args.first() else { return Err(op.refuse("operands are missing")) };
    let mut insn = cx.insn(copy(cx, Ty::B64));
    insn.d = cx.dst(first, Ty::B64)?;
    insn.a = cx.constant(0, true);
    Ok(insn)
}

/// An instruction that does nothing here.
pub(crate) fn nothing(cx: &mut Decoder<'_>) -> Insn {
    struct Nothing;
    impl Alu for Nothing {
        unsafe fn run(_: &mut Warp, _: &Insn, _: u32) {}
    }
    let mut insn = cx.insn(cx.mode.alu::<Nothing>());
    insn.flow = Flow::Plain;
    insn
}
