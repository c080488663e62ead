//! Logic, shifts and bit fields: PTX ISA, *Logic and Shift Instructions* and the bit instructions among *Integer
//! Arithmetic Instructions*.

use super::int::{NOT_A_TYPE, one, three, two};
use super::lanes::{Alu, binary, per_type, ternary, unary};
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::Insn;
use crate::parse::Operand;
use crate::regs::LANES;
use crate::warp::Warp;

/// `and`, `or`, `xor`, `not`, `cnot`.
pub(crate) fn decode_logic(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let ty = op.ty()?;
    if ty == Ty::Pred {
        return predicates(cx, op, args);
    }
    // Compilers spell signed and unsigned types here too, though the manual lists only `.b`.
    match op.base() {
        "not" => {
            let run = per_type!(cx, op, ty, { B16 | U16 | S16: u16, B32 | U32 | S32: u32, B64 | U64 | S64: u64 },
                unary |a| { !a });
            one(cx, op, args, ty, ty, run)
        }
        "cnot" => {
            let run = per_type!(cx, op, ty, { B16: u16, B32: u32, B64: u64 }, unary |a| { (a == 0) as T });
            one(cx, op, args, ty, ty, run)
        }
        base => {
            let run = match base {
                "and" => per_type!(cx, op, ty,
                    { B16 | U16 | S16: u16, B32 | U32 | S32: u32, B64 | U64 | S64: u64 }, binary |a, b| { a & b }),
                "or" => per_type!(cx, op, ty,
                    { B16 | U16 | S16: u16, B32 | U32 | S32: u32, B64 | U64 | S64: u64 }, binary |a, b| { a | b }),
                _ => per_type!(cx, op, ty,
                    { B16 | U16 | S16: u16, B32 | U32 | S32: u32, B64 | U64 | S64: u64 }, binary |a, b| { a ^ b }),
            };
            two(cx, op, args, ty, ty, run)
        }
    }
}

/// Predicate logic; sources may be negated. In `flags`: 0 copy, 1 and, 2 or, 3 xor.
struct PredicateLogic;

impl Alu for PredicateLogic {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b) = (w.pred(i.a), w.pred(i.b));
            let value = match i.flags {
                0 => a,
                1 => a & b,
                2 => a | b,
                _ => a ^ b,
            };
            w.set_pred(i.d, mask, value);
        }
    }
}

fn predicates(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    let kind = match op.base() {
        "not" => 0,
        "and" => 1,
        "or" => 2,
        "xor" => 3,
        _ => return Err(op.refuse(NOT_A_TYPE)),
    };
    cx.count(op, args, if kind == 0 { 2 } else { 3 })?;
    let mut insn = cx.insn(cx.mode.alu::<PredicateLogic>());
    insn.flags = kind;
    insn.d = cx.pred_dst(&args[0])?;
    insn.a = cx.pred_src(&args[1])?;
    insn.b = insn.a;
    if kind == 0 {
        insn.a ^= 1;
    } else {
        insn.b = cx.pred_src(&args[2])?;
    }
    Ok(insn)
}

/// `mov.pred d, a`.
pub(crate) fn copy_predicate(cx: &mut Decoder<'_>, args: &[Operand]) -> Result<Insn, LoadError> {
    let mut insn = cx.insn(cx.mode.alu::<PredicateLogic>());
    insn.d = cx.pred_dst(&args[0])?;
    insn.a = cx.pred_src(&args[1])?;
    insn.b = insn.a;
    Ok(insn)
}

/// `shl`, `shr`: amounts above the width shift everything out.
pub(crate) fn decode_shift(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let ty = op.ty()?;
    let m = cx.mode;
    cx.count(op, args, 3)?;
    let run = match (op.base(), ty) {
        ("shl", Ty::B16 | Ty::U16 | Ty::S16) => {
            binary!(m, |a: u16, b: u32| -> u16 { if b > 15 { 0 } else { a << b } })
        }
        ("shl", Ty::B32 | Ty::U32 | Ty::S32) => {
            binary!(m, |a: u32, b: u32| -> u32 { if b > 31 { 0 } else { a << (b & 31) } })
        }
        ("shl", Ty::B64 | Ty::U64 | Ty::S64) => {
            binary!(m, |a: u64, b: u32| -> u64 { if b > 63 { 0 } else { a << (b & 63) } })
        }
        ("shr", Ty::B16 | Ty::U16) => binary!(m, |a: u16, b: u32| -> u16 { if b > 15 { 0 } else { a >> b } }),
        ("shr", Ty::B32 | Ty::U32) => {
            binary!(m, |a: u32, b: u32| -> u32 { if b > 31 { 0 } else { a >> (b & 31) } })
        }
        ("shr", Ty::B64 | Ty::U64) => {
            binary!(m, |a: u64, b: u32| -> u64 { if b > 63 { 0 } else { a >> (b & 63) } })
        }
        ("shr", Ty::S16) => binary!(m, |a: i16, b: u32| -> i16 { a >> b.min(15) }),
        ("shr", Ty::S32) => binary!(m, |a: i32, b: u32| -> i32 { a >> b.min(31) }),
        ("shr", Ty::S64) => binary!(m, |a: i64, b: u32| -> i64 { a >> b.min(63) }),
        _ => return Err(op.refuse(NOT_A_TYPE)),
    };
    let mut insn = cx.insn(run);
    insn.d = cx.dst(&args[0], ty)?;
    insn.a = cx.src(&args[1], ty)?;
    insn.b = cx.src(&args[2], Ty::U32)?;
    Ok(insn)
}

/// A mask of `len` ones at `pos`, both clipped to `bits`.
#[inline(always)]
fn field32(pos: u32, len: u32) -> u32 {
    let (pos, len) = ((pos & 255).min(32), (len & 255).min(32));
    ((((1u64 << len) - 1) << pos) & 0xffff_ffff) as u32
}

#[inline(always)]
fn field64(pos: u32, len: u32) -> u64 {
    let (pos, len) = ((pos & 255).min(64), (len & 255).min(64));
    (((1u128 << len) - 1) << pos) as u64
}

/// `shf`, `bfe`, `bfi`, `bfind`, `brev`, `clz`, `popc`, `fns`, `prmt`, `lop3`, `bmsk`, `szext`.
pub(crate) fn decode(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    let m = cx.mode;
    match op.base() {
        "popc" | "clz" => {
            let ty = op.ty()?;
            let run = match (op.base(), ty) {
                ("popc", Ty::B32) => unary!(m, |a: u32| -> u32 { a.count_ones() }),
                ("popc", Ty::B64) => unary!(m, |a: u64| -> u32 { a.count_ones() }),
                (_, Ty::B32) => unary!(m, |a: u32| -> u32 { a.leading_zeros() }),
                (_, Ty::B64) => unary!(m, |a: u64| -> u32 { a.leading_zeros() }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            one(cx, op, args, ty, Ty::U32, run)
        }
        "brev" => {
            let ty = op.ty()?;
            let run = per_type!(cx, op, ty, { B32: u32, B64: u64 }, unary |a| { a.reverse_bits() });
            one(cx, op, args, ty, ty, run)
        }
        "bfind" => {
            let amount = op.take("shiftamt");
            let ty = op.ty()?;
            // The highest bit that differs from the sign; all ones where there is none.
            let run = match (ty, amount) {
                (Ty::U32, false) => unary!(m, |a: u32| -> u32 { 31u32.wrapping_sub(a.leading_zeros()) }),
                (Ty::U32, true) => unary!(m, |a: u32| -> u32 { if a == 0 { !0 } else { a.leading_zeros() } }),
                (Ty::S32, false) => {
                    unary!(m, |a: i32| -> u32 { 31u32.wrapping_sub((a ^ a >> 31).leading_zeros()) })
                }
                (Ty::S32, true) => unary!(m, |a: i32| -> u32 {
                    let b = a ^ a >> 31;
                    if b == 0 { !0 } else { b.leading_zeros() }
                }),
                (Ty::U64, false) => unary!(m, |a: u64| -> u32 { 63u32.wrapping_sub(a.leading_zeros()) }),
                (Ty::U64, true) => unary!(m, |a: u64| -> u32 { if a == 0 { !0 } else { a.leading_zeros() } }),
                (Ty::S64, false) => {
                    unary!(m, |a: i64| -> u32 { 63u32.wrapping_sub((a ^ a >> 63).leading_zeros()) })
                }
                (Ty::S64, true) => unary!(m, |a: i64| -> u32 {
                    let b = a ^ a >> 63;
                    if b == 0 { !0 } else { b.leading_zeros() }
                }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            one(cx, op, args, ty, Ty::U32, run)
        }
        "bfe" => {
            let ty = op.ty()?;
            cx.count(op, args, 4)?;
            let run = match ty {
                Ty::U32 => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                    (a as u64 >> (b & 255).min(63)) as u32 & field32(0, c)
                }),
                // Bits above the field are copies of its top bit, or of the number's where the field reaches past it.
                Ty::S32 => ternary!(m, |a: i32, b: u32, c: u32| -> i32 {
                    let (pos, len) = (b & 255, c & 255);
                    if len == 0 {
                        0
                    } else {
                        let top = (pos + len - 1).min(31);
                        let sign = if a >> top & 1 != 0 { !0u32 } else { 0 };
                        let field =
                            if pos > 31 { 0 } else { (a as u32 >> pos) & field32(0, len.min(32 - pos)) };
                        let kept = field32(0, len.min(32u32.saturating_sub(pos)));
                        (field | sign & !kept) as i32
                    }
                }),
                Ty::U64 => ternary!(m, |a: u64, b: u32, c: u32| -> u64 {
                    (a as u128 >> (b & 255).min(127)) as u64 & field64(0, c)
                }),
                Ty::S64 => ternary!(m, |a: i64, b: u32, c: u32| -> i64 {
                    let (pos, len) = (b & 255, c & 255);
                    if len == 0 {
                        0
                    } else {
                        let top = (pos + len - 1).min(63);
                        let sign = if a >> top & 1 != 0 { !0u64 } else { 0 };
                        let field =
                            if pos > 63 { 0 } else { (a as u64 >> pos) & field64(0, len.min(64 - pos)) };
                        let kept = field64(0, len.min(64u32.saturating_sub(pos)));
                        (field | sign & !kept) as i64
                    }
                }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            let mut insn = cx.insn(run);
            insn.d = cx.dst(&args[0], ty)?;
            insn.a = cx.src(&args[1], ty)?;
            insn.b = cx.src(&args[2], Ty::U32)?;
            insn.c = cx.src(&args[3], Ty::U32)?;
            Ok(insn)
        }
        "bfi" => {
            let ty = op.ty()?;
            cx.count(op, args, 5)?;
            let run = match ty {
                Ty::B32 => m.alu::<Bfi32>(),
                Ty::B64 => m.alu::<Bfi64>(),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            let mut insn = cx.insn(run);
            insn.d = cx.dst(&args[0], ty)?;
            insn.a = cx.src(&args[1], ty)?;
            insn.b = cx.src(&args[2], ty)?;
            insn.c = cx.src(&args[3], Ty::U32)?;
            insn.ext = Box::new([cx.src(&args[4], Ty::U32)?]);
            Ok(insn)
        }
        "bmsk" => {
            let clamp = op.must_one_of(&[("clamp", true), ("wrap", false)])?;
            op.need("b32")?;
            let run = match clamp {
                true => binary!(m, |a: u32, b: u32| -> u32 {
                    ((((1u64 << b.min(32)) - 1) as u128) << a.min(64)) as u32
                }),
                false => {
                    binary!(m, |a: u32, b: u32| -> u32 { (((1u64 << (b & 31)) - 1) << (a & 31)) as u32 })
                }
            };
            two(cx, op, args, Ty::B32, Ty::B32, run)
        }
        "szext" => {
            let clamp = op.must_one_of(&[("clamp", true), ("wrap", false)])?;
            let ty = op.ty()?;
            let run = match (ty, clamp) {
                (Ty::U32, true) => binary!(m, |a: u32, b: u32| -> u32 { a & field32(0, b.min(32)) }),
                (Ty::U32, false) => binary!(m, |a: u32, b: u32| -> u32 { a & field32(0, b & 31) }),
                (Ty::S32, true) => binary!(m, |a: i32, b: u32| -> i32 {
                    let n = b.min(32);
                    if n == 0 { 0 } else { a << (32 - n) >> (32 - n) }
                }),
                (Ty::S32, false) => binary!(m, |a: i32, b: u32| -> i32 {
                    let n = b & 31;
                    if n == 0 { 0 } else { a << (32 - n) >> (32 - n) }
                }),
                _ => return Err(op.refuse(NOT_A_TYPE)),
            };
            two(cx, op, args, ty, ty, run)
        }
        "shf" => {
            let left = op.must_one_of(&[("l", true), ("r", false)])?;
            let clamp = op.must_one_of(&[("clamp", true), ("wrap", false)])?;
            op.need("b32")?;
            let run = match (left, clamp) {
                (true, false) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                    ((((b as u64) << 32 | a as u64) << (c & 31)) >> 32) as u32
                }),
                (true, true) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                    ((((b as u64) << 32 | a as u64) << c.min(32)) >> 32) as u32
                }),
                (false, false) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                    (((b as u64) << 32 | a as u64) >> (c & 31)) as u32
                }),
                (false, true) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                    (((b as u64) << 32 | a as u64) >> c.min(32)) as u32
                }),
            };
            three(cx, op, args, Ty::B32, Ty::B32, run)
        }
        "prmt" => {
            op.need("b32")?;
            let run =
                match op.one_of(&[("f4e", 0), ("b4e", 1), ("rc8", 2), ("ecl", 3), ("ecr", 4), ("rc16", 5)]) {
                    None => ternary!(m, |a: u32, b: u32, c: u32| -> u32 { permute(a, b, c) }),
                    Some(0) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                        permute(a, b, [0x3210, 0x4321, 0x5432, 0x6543][(c & 3) as usize])
                    }),
                    Some(1) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                        permute(a, b, [0x5670, 0x6701, 0x7012, 0x0123][(c & 3) as usize])
                    }),
                    Some(2) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                        permute(a, b, [0x0000, 0x1111, 0x2222, 0x3333][(c & 3) as usize])
                    }),
                    Some(3) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                        permute(a, b, [0x3210, 0x3211, 0x3222, 0x3333][(c & 3) as usize])
                    }),
                    Some(4) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                        permute(a, b, [0x0000, 0x1110, 0x2210, 0x3210][(c & 3) as usize])
                    }),
                    Some(_) => ternary!(m, |a: u32, b: u32, c: u32| -> u32 {
                        permute(a, b, [0x1010, 0x3232, 0x1010, 0x3232][(c & 3) as usize])
                    }),
                };
            three(cx, op, args, Ty::B32, Ty::B32, run)
        }
        "lop3" => {
            // A form with a predicate beside the result exists (`lop3.or.b32 d|p, …, q`).
            let combine = op.one_of(&[("or", 1u16), ("and", 2)]);
            op.need("b32")?;
            cx.count(op, args, if combine.is_some() { 6 } else { 5 })?;
            let mut insn = cx.insn(m.alu::<Lop3>());
            match (&args[0], combine) {
                (Operand::Pair(d, p), Some(_)) => {
                    insn.d = cx.dst(d, Ty::B32)?;
                    insn.ext = Box::new([cx.pred_dst(p)?, cx.pred_src(&args[5])?]);
                }
                (d, None) => insn.d = cx.dst(d, Ty::B32)?,
                _ => return Err(op.refuse("a pair `d|p` is wanted")),
            }
            insn.flags = combine.unwrap_or(0);
            insn.a = cx.src(&args[1], Ty::B32)?;
            insn.b = cx.src(&args[2], Ty::B32)?;
            insn.c = cx.src(&args[3], Ty::B32)?;
            match args[4] {
                Operand::Int(table) if table < 256 => insn.imm = table as i64,
                _ => return Err(op.refuse("a table of 8 bits is wanted")),
            }
            Ok(insn)
        }
        "fns" => {
            op.need("b32")?;
            let run = ternary!(m, |a: u32, b: u32, c: i32| -> u32 { nth_set(a, b, c) });
            cx.count(op, args, 4)?;
            let mut insn = cx.insn(run);
            insn.d = cx.dst(&args[0], Ty::B32)?;
            insn.a = cx.src(&args[1], Ty::B32)?;
            insn.b = cx.src(&args[2], Ty::B32)?;
            insn.c = cx.src(&args[3], Ty::S32)?;
            Ok(insn)
        }
        _ => Err(op.refuse("unknown instruction")),
    }
}

/// `prmt`: each nibble of `selector` picks a byte of `b:a`; its top bit replicates that byte's sign.
#[inline(always)]
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = (b as u64) << 32 | a as u64;
    let mut out = 0;
    for k in 0..4 {
        let nibble = selector >> (4 * k) & 15;
        let byte = (bytes >> (8 * (nibble & 7))) as u8;
        let byte = if nibble & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        out |= (byte as u32) << (8 * k);
    }
    out
}

/// `fns`: the position of the n-th set bit from `base` upwards, or downwards for negative n.
fn nth_set(mask: u32, base: u32, offset: i32) -> u32 {
    if base > 31 {
        return !0;
    }
    if offset == 0 {
        return if mask >> base & 1 != 0 { base } else { !0 };
    }
    let mut left = offset.unsigned_abs();
    let mut at = base as i32;
    while (0..32).contains(&at) {
        left -= mask >> at & 1;
        if left == 0 {
            return at as u32;
        }
        at += offset.signum();
    }
    !0
}

struct Bfi32;
struct Bfi64;

impl Alu for Bfi32 {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b): ([u32; LANES], [u32; LANES]) = (w.get(i.a), w.get(i.b));
            let (pos, len): ([u32; LANES], [u32; LANES]) = (w.get(i.c), w.get(i.ext[0]));
            let mut r = [0u32; LANES];
            for l in 0..LANES {
                let field = field32(pos[l], len[l]);
                let moved = ((a[l] as u64) << (pos[l] & 255).min(32)) as u32;
                r[l] = b[l] & !field | moved & field;
            }
            w.set(i.d, mask, r);
        }
    }
}

impl Alu for Bfi64 {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b): ([u64; LANES], [u64; LANES]) = (w.get(i.a), w.get(i.b));
            let (pos, len): ([u32; LANES], [u32; LANES]) = (w.get(i.c), w.get(i.ext[0]));
            let mut r = [0u64; LANES];
            for l in 0..LANES {
                let field = field64(pos[l], len[l]);
                let moved = ((a[l] as u128) << (pos[l] & 255).min(64)) as u64;
                r[l] = b[l] & !field | moved & field;
            }
            w.set(i.d, mask, r);
        }
    }
}

struct Lop3;

impl Alu for Lop3 {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b, c): ([u32; LANES], [u32; LANES], [u32; LANES]) = (w.get(i.a), w.get(i.b), w.get(i.c));
            let mut r = [0u32; LANES];
            // Entry k of the table is the result for a, b, c = bits 2, 1, 0 of k.
            for k in 0..8u32 {
                if i.imm >> k & 1 != 0 {
                    let (na, nb, nc) =
                        ((k >> 2 & 1).wrapping_sub(1), (k >> 1 & 1).wrapping_sub(1), (k & 1).wrapping_sub(1));
                    for l in 0..LANES {
                        r[l] |= (a[l] ^ na) & (b[l] ^ nb) & (c[l] ^ nc);
                    }
                }
            }
            w.set(i.d, mask, r);
            if i.flags != 0 {
                let mut any = 0u32;
                for l in 0..LANES {
                    any |= ((r[l] != 0) as u32) << l;
                }
                let q = w.pred(i.ext[1]);
                let value = if i.flags == 1 { any | q } else { any & q };
                w.set_pred(i.ext[0], mask, value);
            }
        }
    }
}
