//! `mma.sync` on `.f16`, `.bf16` and `.tf32` matrices.

use std::marker::PhantomData;

use super::layout::{Words, gather_a, gather_b, gather_c, scatter_c};
use super::whole_warp;
use crate::block::Block;
use crate::config::TensorMode;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::exec::Op;
use crate::ir::{Exec, Flow, Insn, NONE};
#[cfg(target_arch = "x86_64")]
use crate::num::tensor::multiply_avx2;
use crate::num::tensor::{AccF16, AccF32, Accumulator, Bf16, Element, F16, Tf32, multiply};
use crate::parse::Operand;
use crate::regs::LANES;
use crate::warp::Warp;

/// In `Insn::flags`: the host has AVX2 and FMA.
const WIDE_HOST: u16 = 1;

/// `mma.sync.aligned.shape.row.col.dtype.atype.btype.ctype d, a, b, c`
pub(super) fn decode(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    const SHAPES: &str = "supported are m16n8k8 and m16n8k16 with f16 or bf16, m16n8k4 and m16n8k8 with tf32";
    op.need("sync")?;
    op.need("aligned")?;
    let Some(k) = op.one_of(&[("m16n8k4", 4), ("m16n8k8", 8), ("m16n8k16", 16)]) else {
        let shape = op.take_prefix("m").unwrap_or_default();
        return Err(op.refuse(&format!("shape `.m{shape}` is not supported; {SHAPES}")));
    };
    op.need("row")?;
    op.need("col")?;
    let (d, a, b, c) = (op.ty()?, op.ty()?, op.ty()?, op.ty()?);
    if a != b || c != d {
        return Err(op.refuse("A and B must be of one type, and C and D"));
    }
    let mode = cx.mode;
    let (run, registers): (Exec, _) = match (k, a, c) {
        (8, Ty::F16, Ty::F32) => (mode.exec::<Mma<F16, AccF32, 8>>(), Registers::of::<F16, AccF32, 8>()),
        (16, Ty::F16, Ty::F32) => (mode.exec::<Mma<F16, AccF32, 16>>(), Registers::of::<F16, AccF32, 16>()),
        (8, Ty::F16, Ty::F16) => (mode.exec::<Mma<F16, AccF16, 8>>(), Registers::of::<F16, AccF16, 8>()),
        (16, Ty::F16, Ty::F16) => (mode.exec::<Mma<F16, AccF16, 16>>(), Registers::of::<F16, AccF16, 16>()),
        (8, Ty::Bf16, Ty::F32) => (mode.exec::<Mma<Bf16, AccF32, 8>>(), Registers::of::<Bf16, AccF32, 8>()),
        (16, Ty::Bf16, Ty::F32) => {
            (mode.exec::<Mma<Bf16, AccF32, 16>>(), Registers::of::<Bf16, AccF32, 16>())
        }
        (4, Ty::Tf32, Ty::F32) => (mode.exec::<Mma<Tf32, AccF32, 4>>(), Registers::of::<Tf32, AccF32, 4>()),
        (8, Ty::Tf32, Ty::F32) => (mode.exec::<Mma<Tf32, AccF32, 8>>(), Registers::of::<Tf32, AccF32, 8>()),
        _ => return Err(op.refuse(&format!("these types are not supported; {SHAPES}"))),
    };
    cx.count(op, args, 4)?;
    let mut insn = cx.insn(run);
    insn.flow = Flow::Aligned;
    insn.flags = if mode.wide { WIDE_HOST } else { 0 };
    let mut slots = Vec::with_capacity(registers.total());
    for element in cx.elements(&args[0], registers.c)? {
        slots.push(cx.dst(element, registers.c_type)?);
    }
    for (operand, count, ty) in [
        (&args[1], registers.a, Ty::B32),
        (&args[2], registers.b, Ty::B32),
        (&args[3], registers.c, registers.c_type),
    ] {
        for element in cx.elements(operand, count)? {
            slots.push(cx.src(element, ty)?);
        }
    }
    insn.ext = slots.into();
    Ok(insn)
}

/// How an element type is packed into registers.
trait Packed {
    /// Elements a register.
    const PACKED: usize;
}

impl Packed for F16 {
    const PACKED: usize = 2;
}
impl Packed for Bf16 {
    const PACKED: usize = 2;
}
impl Packed for Tf32 {
    const PACKED: usize = 1;
}
impl Packed for AccF16 {
    const PACKED: usize = 2;
}
impl Packed for AccF32 {
    const PACKED: usize = 1;
}

/// Registers of each operand.
struct Registers {
    a: usize,
    b: usize,
    /// Of C and of D.
    c: usize,
    c_type: Ty,
}

impl Registers {
    const fn of<E: Packed, A: Packed, const K: usize>() -> Registers {
        let a = 16 * K / LANES / E::PACKED;
        let c_type = if A::PACKED == 1 { Ty::F32 } else { Ty::F16x2 };
        Registers { a, b: a / 2, c: 16 * 8 / LANES / A::PACKED, c_type }
    }

    const fn total(&self) -> usize {
        self.a + self.b + 2 * self.c
    }
}

/// The registers of a shape and types. `Insn::ext` holds the slots of D, A, B and C, in this order.
struct Mma<E, A, const K: usize>(PhantomData<(E, A)>);

impl<E: Element + Packed, A: Accumulator + Packed, const K: usize> Op for Mma<E, A, K> {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        if !whole_warp(w, b, mask) {
            return;
        }
        let mode = b.launch.tensor;
        #[cfg(target_arch = "x86_64")]
        if i.flags & WIDE_HOST != 0 {
            // SAFETY: the flag says that the host has the features; the rest is the caller's promise.
            unsafe { tile_wide::<E, A, K>(w, i, mode) };
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { tile_base::<E, A, K>(w, i, mode) };
    }
}

/// [`tile`] for any host. A function of its own, as [`tile_wide`].
///
/// # Safety
/// As [`Op::run`].
#[inline(never)]
unsafe fn tile_base<E: Element + Packed, A: Accumulator + Packed, const K: usize>(
    w: &mut Warp,
    i: &Insn,
    mode: TensorMode,
) {
    // SAFETY: the caller's promise.
    unsafe { tile::<E, A, K, false>(w, i, mode) }
}

/// [`tile`] as vector code. A function of its own, so that it is compiled once and not for every kind of launch.
///
/// # Safety
/// The host has these features, and as [`Op::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
#[inline(never)]
unsafe fn tile_wide<E: Element + Packed, A: Accumulator + Packed, const K: usize>(
    w: &mut Warp,
    i: &Insn,
    mode: TensorMode,
) {
    // SAFETY: the caller's promise.
    unsafe { tile::<E, A, K, true>(w, i, mode) }
}

/// # Safety
/// As [`Op::run`].
#[inline(always)]
unsafe fn tile<E: Element + Packed, A: Accumulator + Packed, const K: usize, const WIDE: bool>(
    w: &mut Warp,
    i: &Insn,
    mode: TensorMode,
) {
    let registers = const { Registers::of::<E, A, K>() };
    let (d_slots, slots) = i.ext.split_at(registers.c);
    let (a_slots, slots) = slots.split_at(registers.a);
    let (b_slots, c_slots) = slots.split_at(registers.b);
    // SAFETY: the decoder's slots.
    let (of_a, of_b, of_c) =
        unsafe { (|q: usize| w.get(a_slots[q]), |q: usize| w.get(b_slots[q]), |q: usize| w.get(c_slots[q])) };
    let (a, b) = if E::PACKED == 2 {
        (gather_a::<2, K>(of_a), gather_b::<2, K>(of_b))
    } else {
        (gather_a::<1, K>(of_a), gather_b::<1, K>(of_b))
    };
    let mut c = if A::PACKED == 2 { gather_c::<2>(of_c) } else { gather_c::<1>(of_c) };
    match () {
        // SAFETY: `WIDE` says that the host has the features.
        #[cfg(target_arch = "x86_64")]
        () if WIDE => unsafe { multiply_avx2::<E, A, K>(mode, &a, &b, &mut c) },
        () => multiply::<E, A, K>(mode, &a, &b, &mut c),
    }
    let mut words: [Words; 4] = [[0; LANES]; 4];
    if A::PACKED == 2 {
        scatter_c::<2>(&c, &mut words[..2]);
    } else {
        scatter_c::<1>(&c, &mut words);
    }
    for (&slot, words) in d_slots.iter().zip(words) {
        if slot != NONE {
            // SAFETY: the decoder's slot.
            unsafe { w.set(slot, !0, words) };
        }
    }
}
