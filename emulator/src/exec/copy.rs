//! `cp.async`: copies from global to shared memory. PTX ISA, *Asynchronous copy operations*.
//!
//! The source is read when the copy is issued and the destination is written when it is waited for: the earliest
//! and the latest legal moment, so that a missing wait shows.

use super::Op;
use super::ldst::cache_hints;
use super::mem::{self, Access, Kind, lanes};
use crate::block::Block;
use crate::check;
use crate::count;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::{LoadError, StopKind};
use crate::ir::{Flow, Insn, NONE};
use crate::parse::Operand;
use crate::regs::LANES;
use crate::warp::Warp;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

/// A copy of one lane that is not yet visible.
#[derive(Clone, Copy)]
struct Copy {
    lane: u8,
    bytes: u8,
    /// Number of its group within the lane, or [`OPEN`].
    group: u32,
    /// Offset into the block's shared memory.
    target: u32,
    data: [u8; 16],
}

const OPEN: u32 = u32::MAX;

/// Copies of one warp that are not yet visible, in the order of issue.
#[derive(Default)]
pub(crate) struct Pending {
    copies: Vec<Copy>,
    /// For each lane: groups committed so far.
    groups: [u32; LANES],
}

impl Pending {
    /// Forgets everything: a new block begins.
    pub fn clear(&mut self) {
        self.copies.clear();
        self.groups = [0; LANES];
    }

    fn commit(&mut self, mask: u32) {
        for copy in self.copies.iter_mut().rev() {
            if copy.group == OPEN && mask >> copy.lane & 1 != 0 {
                copy.group = self.groups[copy.lane as usize];
            }
        }
        for l in lanes(mask) {
            self.groups[l] += 1;
        }
    }
}

/// `a`: destination address; `b`: source address row; `c`: size of the source or `NONE`; `width`: bytes;
/// `ext[0]`: predicate source that says to ignore the source, or `NONE`.
struct CopyAsync;

impl Op for CopyAsync {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let targets = w.addresses(i);
            let mut sources: [u64; LANES] = w.get(i.b);
            for source in &mut sources {
                *source = source.wrapping_add(i.target as i32 as i64 as u64);
            }
            let bytes = i.width as u32;
            let mut sizes = if i.c == NONE { [bytes; LANES] } else { w.get(i.c) };
            let ignored = if i.ext[0] == NONE { 0 } else { w.pred(i.ext[0]) };
            let mut reading = 0u32;
            for l in 0..LANES {
                sizes[l] = if ignored >> l & 1 != 0 { 0 } else { sizes[l] };
                reading |= ((sizes[l] > 0) as u32) << l;
            }
            reading &= mask;
            for l in lanes(mask) {
                if sizes[l] > bytes {
                    let text = format!("cp.async of {bytes} bytes from a source of {} bytes", sizes[l]);
                    return b.fault(w, Some(l as u32), StopKind::BadOperand, text);
                }
            }
            let target = Access::new(Kind::Copy, mask, &targets, bytes);
            if mem::shared::<SAN, COUNT>(w, b, target).is_none() {
                return;
            }
            let mut copies =
                [Copy { lane: 0, bytes: bytes as u8, group: OPEN, target: 0, data: [0; 16] }; LANES];
            if reading != 0 {
                // Only the bytes that are read must be there, but the address must suit the whole size.
                let whole = sizes.iter().enumerate().all(|(l, n)| *n == bytes || reading >> l & 1 == 0);
                if whole {
                    let access = Access::new(Kind::Read, reading, &sources, bytes);
                    let Some(pointers) = mem::global::<SAN, COUNT>(w, b, access) else { return };
                    for l in lanes(reading) {
                        for k in 0..bytes as usize / 4 {
                            let word = AtomicU32::from_ptr(pointers[l].add(4 * k).cast()).load(Relaxed);
                            copies[l].data[4 * k..4 * k + 4].copy_from_slice(&word.to_ne_bytes());
                        }
                    }
                } else {
                    for l in lanes(reading) {
                        if !sources[l].is_multiple_of(bytes as u64) {
                            let text = format!("misaligned cp.async of {bytes} bytes from {:#x}", sources[l]);
                            return b.fault(w, Some(l as u32), StopKind::Misaligned, text);
                        }
                        for k in 0..sizes[l] as usize {
                            let at = sources.map(|source| source.wrapping_add(k as u64));
                            let access = Access::new(Kind::Read, 1 << l, &at, 1);
                            let Some(pointers) = mem::global::<SAN, false>(w, b, access) else { return };
                            copies[l].data[k] = AtomicU8::from_ptr(pointers[l]).load(Relaxed);
                        }
                    }
                    if COUNT {
                        let access = Access::new(Kind::Read, reading, &sources, bytes);
                        count::global_parts(&mut b.tally, &b.launch, w.pc, &access, &sizes);
                    }
                }
            }
            for l in lanes(mask) {
                copies[l].lane = l as u8;
                copies[l].target = (targets[l] - crate::block::SHARED_BASE as u64) as u32;
                w.copies.copies.push(copies[l]);
            }
        }
    }
}

struct Commit;

impl Op for Commit {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, _: &mut Block, _: &Insn, mask: u32) {
        w.copies.commit(mask);
    }
}

/// `imm`: groups that may stay in flight; `flags`: `wait_all`, which commits first.
struct Wait;

impl Op for Wait {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        if i.flags != 0 {
            w.copies.commit(mask);
        }
        let mut pending = std::mem::take(&mut w.copies.copies);
        let groups = w.copies.groups;
        let shared = b.shared.as_mut_slice();
        let mut landed = Vec::new();
        pending.retain(|copy| {
            let lane = copy.lane as usize;
            let due = mask >> lane & 1 != 0
                && copy.group != OPEN
                && (copy.group as u64) + (i.imm as u64) < groups[lane] as u64;
            if due {
                // Bounds were checked when the copy was issued.
                let (at, n) = (copy.target as usize, copy.bytes as usize);
                shared[at..at + n].copy_from_slice(&copy.data[..n]);
                if SAN {
                    landed.push((copy.lane, copy.target, copy.bytes));
                }
            }
            !due
        });
        for (lane, offset, bytes) in landed {
            check::landed(w, b, lane as u32, offset, bytes as u32);
        }
        w.copies.copies = pending;
        b.progress += 1;
    }
}

/// `cp.async…`.
pub(crate) fn decode(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    if op.has("bulk") || op.has("mbarrier") || op.has("reduce") {
        return super::hopper::decode(cx, op, args);
    }
    op.need("async")?;
    if op.take("commit_group") {
        cx.count(op, args, 0)?;
        return Ok(cx.insn(cx.mode.exec::<Commit>()));
    }
    let all = op.take("wait_all");
    if all || op.take("wait_group") {
        cx.count(op, args, !all as usize)?;
        let mut insn = cx.insn(cx.mode.exec::<Wait>());
        insn.flags = all as u16;
        insn.imm = match args.first() {
            None => 0,
            Some(Operand::Int(n)) => (*n).min(u32::MAX as u64) as i64,
            Some(other) => return Err(cx.error(cx.show(other), "a constant is wanted")),
        };
        return Ok(insn);
    }
    let global_only = op.has("cg");
    if !op.has("ca") && !global_only {
        return Err(op.refuse("one of `.ca`, `.cg` is missing"));
    }
    if !op.take("shared") {
        op.need("shared::cta")?;
    }
    op.need("global")?;
    let policy = cache_hints(op);
    let wanted = 3 + policy as usize;
    if args.len() != wanted && args.len() != wanted + 1 {
        return Err(op.refuse(&format!("takes {wanted} or {} operands, got {}", wanted + 1, args.len())));
    }
    let size = match args[2] {
        Operand::Int(16) => 16,
        Operand::Int(n @ (4 | 8)) if !global_only => n as u8,
        _ => return Err(op.refuse("a size of 4, 8 or 16 bytes is wanted (`.cg`: 16)")),
    };
    let mut insn = cx.insn(cx.mode.exec::<CopyAsync>());
    insn.flow = Flow::Effect;
    insn.width = size;
    cx.address(&mut insn, &args[0])?;
    let mut source = cx.insn(insn.run);
    cx.address(&mut source, &args[1])?;
    if source.a == NONE {
        insn.b = cx.constant(source.imm as u64, true);
    } else if source.flags & crate::decode::ADDRESS_64 != 0 {
        insn.b = source.a;
        insn.target =
            i32::try_from(source.imm).map_err(|_| op.refuse("an offset of more than 31 bits"))? as u32;
    } else {
        return Err(op.refuse("a 64-bit source address is wanted"));
    }
    insn.ext = Box::new([NONE]);
    if args.len() == wanted + 1 {
        // A size, or a predicate that says to ignore the source.
        let is_pred = match &args[3] {
            Operand::Not(_) => true,
            other => cx.declared(other) == Some(Ty::Pred),
        };
        if is_pred {
            insn.ext[0] = cx.pred_src(&args[3])?;
        } else {
            insn.c = cx.src(&args[3], Ty::U32)?;
        }
    }
    Ok(insn)
}
