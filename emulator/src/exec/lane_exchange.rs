//! Instructions in which the lanes of a warp look at each other: `shfl.sync`, `vote.sync`, `match.sync`,
//! `redux.sync`, `activemask`, `elect.sync`. PTX ISA, *Data Movement* and *Parallel Synchronization*.
//!
//! All but `activemask` have a member mask: the interpreter runs them when every living member has arrived
//! ([`Flow::Member`]), with exactly those lanes in the mask. None of them orders accesses to memory.

use super::Op;
use super::mem::lanes;
use crate::block::Block;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{Flow, Insn, NONE};
use crate::parse::Operand;
use crate::regs::LANES;
use crate::warp::Warp;

/// What a lane reads from one that does not take part: undefined on hardware, and never a plausible number here.
const NOBODY: u32 = 0xdead_beef;

struct Shuffle;

impl Op for Shuffle {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, _: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [u32; LANES] = w.get(i.a);
            let b: [u32; LANES] = w.get(i.b);
            let bound: [u32; LANES] = w.get(i.ext[0]);
            let mut r = [0u32; LANES];
            let mut valid = 0u32;
            for l in 0..LANES {
                let lane = l as u32;
                let (delta, clamp, segment) = (b[l] & 31, bound[l] & 31, bound[l] >> 8 & 31);
                let (low, high) = (lane & segment, lane & segment | clamp & !segment);
                let (source, inside) = match i.flags {
                    0 => {
                        let j = lane.wrapping_sub(delta);
                        (j, j as i32 >= high as i32)
                    }
                    1 => (lane + delta, lane + delta <= high),
                    2 => (lane ^ delta, lane ^ delta <= high),
                    _ => {
                        let j = low | delta & !segment;
                        (j, j <= high)
                    }
                };
                let j = if inside { source & 31 } else { lane };
                r[l] = if mask >> j & 1 != 0 { a[j as usize] } else { NOBODY };
                valid |= (inside as u32) << l;
            }
            w.set(i.d, mask, r);
            if i.ext[1] != NONE {
                w.set_pred(i.ext[1], mask, valid);
            }
        }
    }
}

/// `shfl.sync.mode.b32 d[|p], a, b, c, membermask`.
pub(crate) fn decode_shfl(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    op.need("sync")?;
    let mode = op.must_one_of(&[("up", 0), ("down", 1), ("bfly", 2), ("idx", 3)])?;
    op.need("b32")?;
    cx.count(op, args, 5)?;
    let mut insn = member(cx, &args[4], cx.mode.exec::<Shuffle>())?;
    insn.flags = mode;
    let (d, p) = pair(&args[0]);
    insn.d = cx.dst(d, Ty::B32)?;
    let p = match p {
        Some(p) => cx.pred_dst(p)?,
        None => NONE,
    };
    insn.a = cx.src(&args[1], Ty::B32)?;
    insn.b = cx.src(&args[2], Ty::B32)?;
    insn.ext = Box::new([cx.src(&args[3], Ty::B32)?, p]);
    Ok(insn)
}

/// An instruction with a member mask.
fn member(cx: &mut Decoder<'_>, mask: &Operand, run: crate::ir::Exec) -> Result<Insn, LoadError> {
    let mut insn = cx.insn(run);
    insn.flow = Flow::Member;
    insn.c = cx.src(mask, Ty::B32)?;
    Ok(insn)
}

fn pair(operand: &Operand) -> (&Operand, Option<&Operand>) {
    match operand {
        Operand::Pair(d, p) => (d, Some(p)),
        d => (d, None),
    }
}

/// `flags`: 0 all, 1 any, 2 uni, 3 ballot.
struct Vote;

impl Op for Vote {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, _: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let yes = w.pred(i.a) & mask;
            match i.flags {
                0 => w.set_pred(i.d, mask, ((yes == mask) as u32).wrapping_neg()),
                1 => w.set_pred(i.d, mask, ((yes != 0) as u32).wrapping_neg()),
                2 => w.set_pred(i.d, mask, ((yes == mask || yes == 0) as u32).wrapping_neg()),
                _ => w.set(i.d, mask, [yes; LANES]),
            }
        }
    }
}

/// `vote.sync.mode.pred p, [!]a, membermask`, `vote.sync.ballot.b32 d, [!]a, membermask`.
pub(crate) fn decode_vote(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    op.need("sync")?;
    let mode = op.must_one_of(&[("all", 0), ("any", 1), ("uni", 2), ("ballot", 3)])?;
    op.need(if mode == 3 { "b32" } else { "pred" })?;
    cx.count(op, args, 3)?;
    let mut insn = member(cx, &args[2], cx.mode.exec::<Vote>())?;
    insn.flags = mode;
    insn.d = if mode == 3 { cx.dst(&args[0], Ty::B32)? } else { cx.pred_dst(&args[0])? };
    insn.a = cx.pred_src(&args[1])?;
    Ok(insn)
}

/// `flags` bit 0: all (else any); bit 1: 64 bits.
struct Match;

impl Op for Match {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, _: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [u64; LANES] =
                if i.flags & 2 != 0 { w.get(i.a) } else { w.get::<u32>(i.a).map(u64::from) };
            let mut same = [0u32; LANES];
            for l in lanes(mask) {
                for k in lanes(mask) {
                    same[l] |= ((a[k] == a[l]) as u32) << k;
                }
            }
            if i.flags & 1 != 0 {
                let first = same[mask.trailing_zeros() as usize];
                let all = first == mask;
                w.set(i.d, mask, [if all { mask } else { 0 }; LANES]);
                if i.ext[0] != NONE {
                    w.set_pred(i.ext[0], mask, (all as u32).wrapping_neg());
                }
            } else {
                w.set(i.d, mask, same);
            }
        }
    }
}

/// `match.any.sync.type d, a, membermask`, `match.all.sync.type d[|p], a, membermask`.
pub(crate) fn decode_match(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    op.need("sync")?;
    let all = op.must_one_of(&[("any", 0), ("all", 1)])?;
    let ty = op.ty()?;
    if !matches!(ty, Ty::B32 | Ty::B64) {
        return Err(op.refuse(super::int::NOT_A_TYPE));
    }
    cx.count(op, args, 3)?;
    let mut insn = member(cx, &args[2], cx.mode.exec::<Match>())?;
    insn.flags = all | ((ty == Ty::B64) as u16 * 2);
    let (d, p) = pair(&args[0]);
    insn.d = cx.dst(d, Ty::B32)?;
    insn.ext = Box::new([match p {
        Some(p) if all == 1 => cx.pred_dst(p)?,
        Some(_) => return Err(op.refuse("`.any` has no predicate result")),
        None => NONE,
    }]);
    insn.a = cx.src(&args[1], ty)?;
    Ok(insn)
}

/// `flags`: 0 add, 1 min, 2 max, 3 and, 4 or, 5 xor; `width`: signed.
struct Redux;

impl Op for Redux {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, _: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [u32; LANES] = w.get(i.a);
            let all = lanes(mask).map(|l| a[l]).reduce(|x, y| match (i.flags, i.width) {
                (0, _) => x.wrapping_add(y),
                (1, 0) => x.min(y),
                (1, _) => (x as i32).min(y as i32) as u32,
                (2, 0) => x.max(y),
                (2, _) => (x as i32).max(y as i32) as u32,
                (3, _) => x & y,
                (4, _) => x | y,
                _ => x ^ y,
            });
            w.set(i.d, mask, [all.unwrap_or(0); LANES]);
        }
    }
}

/// `redux.sync.op.type d, a, membermask`.
pub(crate) fn decode_redux(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    op.need("sync")?;
    let kind = op.must_one_of(&[("add", 0), ("min", 1), ("max", 2), ("and", 3), ("or", 4), ("xor", 5)])?;
    let ty = op.ty()?;
    let allowed = if kind < 3 { matches!(ty, Ty::U32 | Ty::S32) } else { ty == Ty::B32 };
    if !allowed {
        return Err(op.refuse(super::int::NOT_A_TYPE));
    }
    cx.count(op, args, 3)?;
    let mut insn = member(cx, &args[2], cx.mode.exec::<Redux>())?;
    insn.flags = kind;
    insn.width = ty.signed() as u8;
    insn.d = cx.dst(&args[0], ty)?;
    insn.a = cx.src(&args[1], ty)?;
    Ok(insn)
}

struct ActiveMask;

impl Op for ActiveMask {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, _: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe { w.set(i.d, mask, [mask; LANES]) };
    }
}

/// `activemask.b32 d`: the lanes that happen to run together.
pub(crate) fn decode_activemask(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    op.need("b32")?;
    cx.count(op, args, 1)?;
    let mut insn = cx.insn(cx.mode.exec::<ActiveMask>());
    insn.d = cx.dst(&args[0], Ty::B32)?;
    Ok(insn)
}

struct Elect;

impl Op for Elect {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, _: &mut Block, i: &Insn, mask: u32) {
        let leader = mask.trailing_zeros();
        // SAFETY: the caller's promise.
        unsafe {
            w.set(i.d, mask, [leader; LANES]);
            w.set_pred(i.ext[0], mask, 1 << leader);
        }
    }
}

/// `elect.sync d|p, membermask`: the lowest member is elected, always the same one.
pub(crate) fn decode_elect(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    op.need("sync")?;
    cx.count(op, args, 2)?;
    let Operand::Pair(d, p) = &args[0] else { return Err(op.refuse("a pair `d|p` is wanted")) };
    let mut insn = member(cx, &args[1], cx.mode.exec::<Elect>())?;
    insn.d = cx.dst(d, Ty::B32)?;
    insn.ext = Box::new([cx.pred_dst(p)?]);
    Ok(insn)
}
