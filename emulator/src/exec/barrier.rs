//! Block-wide barriers: `bar` and `barrier`. PTX ISA, *Parallel Synchronization: bar, barrier*.
//!
//! A barrier counts arrivals. A whole warp counts 32 however many threads it has; single lanes of the unaligned
//! forms count one each until the last living lane of their warp makes it whole. Without a thread count the
//! barrier completes when every living thread of the block has arrived.

use super::Op;
use super::mem::lanes;
use crate::block::{Barrier, Block};
use crate::check;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::{LoadError, StopKind};
use crate::ir::{ALWAYS, Flow, Insn, NONE};
use crate::parse::Operand;
use crate::regs::LANES;
use crate::warp::Warp;

/// In `flags`.
pub(crate) const ARRIVE: u16 = 1;
/// All lanes of the warp arrive together or it is an error.
pub(crate) const ALIGNED: u16 = 2;
/// Reductions: 0 none, else popc, and, or.
pub(crate) const RED_SHIFT: u16 = 2;
const POPC: u16 = 1;
const AND: u16 = 2;
const OR: u16 = 3;

/// The arrival of some lanes: `a` barrier row, `b` count row or `NONE`, `c` predicate source, `d` result. The
/// interpreter has made sure that aligned forms come with all living lanes; it marks the lanes as waiting.
struct Arrive;

impl Op for Arrive {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        let (ids, counts): ([u32; LANES], [u32; LANES]) =
            unsafe { (w.get(i.a), if i.b == NONE { [0; LANES] } else { w.get(i.b) }) };
        // SAFETY: the caller's promise.
        let yes = unsafe { w.pred(i.c) };
        let first = mask.trailing_zeros() as usize;
        for l in lanes(mask) {
            let (id, count) = (ids[l], counts[l]);
            if id > 15 {
                let text = format!("barrier {id}: only 0 to 15 exist");
                return b.fault(w, Some(l as u32), StopKind::BadOperand, text);
            }
            if i.flags & ALIGNED != 0 && (id, count) != (ids[first], counts[first]) {
                let text = "an aligned barrier whose operands differ between lanes".into();
                return b.fault(w, Some(l as u32), StopKind::BadOperand, text);
            }
            if i.b != NONE && (count == 0 || count % 32 != 0) {
                let text = format!("a barrier for {count} threads: a multiple of 32 is wanted");
                return b.fault(w, Some(l as u32), StopKind::BadOperand, text);
            }
        }
        let mut left = mask;
        while left != 0 {
            let l = left.trailing_zeros() as usize;
            let (id, count) = (ids[l], counts[l]);
            let group = lanes(left).filter(|k| ids[*k] == id).fold(0u32, |m, k| m | 1 << k);
            left &= !group;
            let expected = if i.b == NONE { None } else { Some(count) };
            let barrier = &mut b.barriers[id as usize];
            if barrier.used && barrier.expected != expected {
                let name = |e: Option<u32>| e.map_or("all threads".to_string(), |n| format!("{n} threads"));
                let (have, want) = (name(barrier.expected), name(expected));
                let text = format!("barrier {id} waits for {have}, and this arrival says {want}");
                return b.fault(w, Some(l as u32), StopKind::BadOperand, text);
            }
            *barrier = Barrier { used: true, expected, ..*barrier };
            if SAN {
                check::arrive(w, b, id as usize);
            }
            let barrier = &mut b.barriers[id as usize];
            if i.flags & ARRIVE == 0 {
                w.barrier_lanes[id as usize] |= group;
                w.barred |= group;
                barrier.lanes += group.count_ones();
                barrier.trues += (yes & group).count_ones();
            }
            // The lane that makes the warp whole brings what is missing to 32.
            w.arrived[id as usize] |= group;
            let whole = w.arrived[id as usize] & w.alive == w.alive;
            let before = w.arrived_count[id as usize];
            let now = if whole { 32 } else { w.arrived[id as usize].count_ones() };
            barrier.arrived += now - before;
            if whole {
                (w.arrived[id as usize], w.arrived_count[id as usize]) = (0, 0);
            } else {
                w.arrived_count[id as usize] = now;
            }
            let full = barrier.expected.is_some_and(|n| barrier.arrived > n);
            if full {
                let text = format!("barrier {id}: {} arrivals for {count} threads", barrier.arrived);
                return b.fault(w, Some(l as u32), StopKind::BadOperand, text);
            }
        }
        if i.flags >> RED_SHIFT != 0 {
            // The result is known when the barrier completes: see `deliver`.
            w.reduction = (i.flags >> RED_SHIFT, i.d);
        }
    }
}

/// Gives a completed barrier's reduction to the lanes that waited.
pub(crate) fn deliver(w: &mut Warp, barrier: &Barrier, waited: u32) {
    let (kind, d) = w.reduction;
    // SAFETY: the decoder made the destination that `Arrive` left here.
    unsafe {
        match kind {
            POPC => w.set(d, waited, [barrier.trues; LANES]),
            AND => w.set_pred(d, waited, ((barrier.trues == barrier.lanes) as u32).wrapping_neg()),
            OR => w.set_pred(d, waited, ((barrier.trues != 0) as u32).wrapping_neg()),
            _ => {}
        }
    }
    w.reduction = (0, 0);
}

/// `bar…`, `barrier…`.
pub(crate) fn decode(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    if op.has("cluster") {
        return super::hopper::decode(cx, op, args);
    }
    let bar = op.base() == "bar";
    if bar && op.take("warp") {
        op.need("sync")?;
        cx.count(op, args, 1)?;
        let mut insn = super::moves::nothing(cx);
        insn.flow = Flow::WarpBarrier;
        insn.c = cx.src(&args[0], Ty::B32)?;
        return Ok(insn);
    }
    op.take("cta");
    let kind = op.must_one_of(&[("sync", 0), ("arrive", 1), ("red", 2)])?;
    let aligned = op.take("aligned") || bar;
    let mut insn = cx.insn(cx.mode.exec::<Arrive>());
    insn.flow = Flow::Barrier;
    insn.flags = (kind == 1) as u16 * ARRIVE + aligned as u16 * ALIGNED;
    insn.c = ALWAYS;
    let mut rest = args;
    if kind == 2 {
        let red = op.must_one_of(&[("popc", POPC), ("and", AND), ("or", OR)])?;
        op.need(if red == POPC { "u32" } else { "pred" })?;
        insn.flags |= red << RED_SHIFT;
        let [d, middle @ .., c] = args else { return Err(op.refuse("operands are missing")) };
        insn.d = if red == POPC { cx.dst(d, Ty::U32)? } else { cx.pred_dst(d)? };
        insn.c = cx.pred_src(c)?;
        rest = middle;
    }
    match rest {
        [id] if kind != 1 => insn.a = cx.src(id, Ty::U32)?,
        [id, count] => {
            insn.a = cx.src(id, Ty::U32)?;
            insn.b = cx.src(count, Ty::U32)?;
        }
        _ => return Err(op.refuse("a barrier and a number of threads are wanted")),
    }
    Ok(insn)
}
