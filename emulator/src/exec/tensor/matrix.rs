//! 8 × 8 matrices of 16-bit elements between shared memory and registers, and transposed within a warp.

use super::layout::{Words, transposed};
use super::whole_warp;
use crate::block::Block;
use crate::config::Arch;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::{LoadError, StopKind};
use crate::exec::Op;
use crate::exec::mem::{self, Access, Kind, Pointers};
use crate::ir::{Flow, Insn, NONE};
use crate::memory::SHARED_WINDOW;
use crate::parse::Operand;
use crate::regs::LANES;
use crate::warp::Warp;

/// Rows of a matrix, and bytes of a row: also the alignment that a row's address needs.
const ROWS: usize = 8;
const ROW_BYTES: u32 = 16;
/// Words of a row, and so lanes that share it.
const ROW_WORDS: usize = 4;

/// In `Insn::flags`: the address is generic, not in the shared window's own numbering.
const GENERIC: u16 = 1;

/// What `ldmatrix` and `stmatrix` have in common: the number of matrices and whether they are transposed. Only `.m8n8` with
/// `.b16` elements; the byte forms of newer targets are refused.
fn take_shape(op: &mut Opcode) -> Result<(usize, bool, u16), LoadError> {
    op.need("sync")?;
    op.need("aligned")?;
    op.need("m8n8")?;
    let count = op.must_one_of(&[("x1", 1), ("x2", 2), ("x4", 4)])?;
    let trans = op.take("trans");
    let shared = op.take("shared") || op.take("shared::cta");
    op.need("b16")?;
    Ok((count, trans, if shared { 0 } else { GENERIC }))
}

/// `ldmatrix.sync.aligned.m8n8.{x1,x2,x4}{.trans}{.shared{::cta}}.b16 r, [p]`
pub(super) fn decode_load(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let (count, trans, flags) = take_shape(op)?;
    cx.count(op, args, 2)?;
    let mut insn = cx.insn(match (count, trans) {
        (1, false) => cx.mode.exec::<Load<1, false>>(),
        (1, true) => cx.mode.exec::<Load<1, true>>(),
        (2, false) => cx.mode.exec::<Load<2, false>>(),
        (2, true) => cx.mode.exec::<Load<2, true>>(),
        (_, false) => cx.mode.exec::<Load<4, false>>(),
        (_, true) => cx.mode.exec::<Load<4, true>>(),
    });
    insn.flow = Flow::Aligned;
    insn.flags = flags;
    insn.ext = cx.elements(&args[0], count)?.iter().map(|r| cx.dst(r, Ty::B32)).collect::<Result<_, _>>()?;
    cx.address(&mut insn, &args[1])?;
    Ok(insn)
}

/// `stmatrix.sync.aligned.m8n8.{x1,x2,x4}{.trans}{.shared{::cta}}.b16 [p], r`
pub(super) fn decode_store(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let (count, trans, flags) = take_shape(op)?;
    cx.count(op, args, 2)?;
    let mut insn = cx.insn(match (count, trans) {
        (1, false) => cx.mode.exec::<Store<1, false>>(),
        (1, true) => cx.mode.exec::<Store<1, true>>(),
        (2, false) => cx.mode.exec::<Store<2, false>>(),
        (2, true) => cx.mode.exec::<Store<2, true>>(),
        (_, false) => cx.mode.exec::<Store<4, false>>(),
        (_, true) => cx.mode.exec::<Store<4, true>>(),
    });
    insn.flow = Flow::Aligned;
    insn.flags = flags;
    insn.ext = cx.elements(&args[1], count)?.iter().map(|r| cx.src(r, Ty::B32)).collect::<Result<_, _>>()?;
    cx.address(&mut insn, &args[0])?;
    Ok(insn)
}

/// `movmatrix.sync.aligned.m8n8.trans.b16 d, a`
pub(super) fn decode_move(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    for word in ["sync", "aligned", "m8n8", "trans", "b16"] {
        op.need(word)?;
    }
    cx.count(op, args, 2)?;
    let mut insn = cx.insn(cx.mode.exec::<Transpose>());
    insn.flow = Flow::Aligned;
    insn.d = cx.dst(&args[0], Ty::B32)?;
    insn.a = cx.src(&args[1], Ty::B32)?;
    Ok(insn)
}

/// Host pointers to the matrices' rows: lane `8 q + r` gives the address of row `r` of matrix `q`.
///
/// # Safety
/// That of [`Op::run`].
#[inline(always)]
unsafe fn rows<const SAN: bool, const COUNT: bool>(
    w: &mut Warp,
    b: &mut Block,
    i: &Insn,
    kind: Kind,
    count: usize,
) -> Option<Pointers> {
    // SAFETY: the caller's promise.
    let mut addresses = unsafe { w.addresses(i) };
    if i.flags & GENERIC != 0 {
        // Anything but shared memory is out of its bounds afterwards.
        addresses = addresses.map(|address| address.wrapping_sub(SHARED_WINDOW));
    }
    let mask = ((1u64 << (ROWS * count)) - 1) as u32;
    let mut access = Access::new(kind, mask, &addresses, ROW_BYTES);
    access.collective = true;
    mem::shared::<SAN, COUNT>(w, b, access)
}

/// PTX ISA, *`ldmatrix`*.
struct Load<const N: usize, const TRANS: bool>;

impl<const N: usize, const TRANS: bool> Op for Load<N, TRANS> {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        if !whole_warp(w, b, mask) {
            return;
        }
        // SAFETY: the caller's promise.
        let Some(rows) = (unsafe { rows::<SAN, COUNT>(w, b, i, Kind::Read, N) }) else { return };
        for q in 0..N {
            let mut words: Words = [0; LANES];
            for r in 0..ROWS {
                // SAFETY: the pointer is valid for 16 bytes and aligned to them; shared memory belongs to this thread.
                let row = unsafe { rows[ROWS * q + r].cast::<[u32; ROW_WORDS]>().read() };
                words[ROW_WORDS * r..][..ROW_WORDS].copy_from_slice(&row);
            }
            let words = if TRANS { transposed(&words) } else { words };
            if i.ext[q] != NONE {
                // SAFETY: the decoder's slot.
                unsafe { w.set(i.ext[q], mask, words) };
            }
        }
    }
}

/// PTX ISA, *`stmatrix`*: `sm_90` and later.
struct Store<const N: usize, const TRANS: bool>;

impl<const N: usize, const TRANS: bool> Op for Store<N, TRANS> {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        if !whole_warp(w, b, mask) {
            return;
        }
        if b.launch.arch != Arch::Sm90 {
            b.fault(w, None, StopKind::BadOperand, "stmatrix needs an sm_90 device".into());
            return;
        }
        // SAFETY: the caller's promise.
        let Some(rows) = (unsafe { rows::<SAN, COUNT>(w, b, i, Kind::Write, N) }) else { return };
        for q in 0..N {
            // SAFETY: the decoder's slot.
            let words: Words = unsafe { w.get(i.ext[q]) };
            let words = if TRANS { transposed(&words) } else { words };
            for r in 0..ROWS {
                let row: [u32; ROW_WORDS] = std::array::from_fn(|t| words[ROW_WORDS * r + t]);
                // SAFETY: as in `Load`.
                unsafe { rows[ROWS * q + r].cast::<[u32; ROW_WORDS]>().write(row) };
            }
        }
        b.progress += 1;
    }
}

/// PTX ISA, *`movmatrix`*.
struct Transpose;

impl Op for Transpose {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        if !whole_warp(w, b, mask) || i.d == NONE {
            return;
        }
        // SAFETY: the decoder's slots.
        unsafe {
            let words: Words = w.get(i.a);
            w.set(i.d, mask, transposed(&words));
        }
    }
}
