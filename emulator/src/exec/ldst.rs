//! `ld`, `st`, `ldu`, `prefetch`: PTX ISA, *Data Movement and Conversion Instructions*.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::Op;
use super::mem::{self, Access, Kind, Pointers, lanes};
use super::moves::nothing;
use crate::block::Block;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{Exec, Flow, Insn, NONE};
use crate::parse::{Operand, VarSpace};
use crate::regs::LANES;
use crate::warp::Warp;

/// In `flags`: the element's sign fills a wider register.
const SIGNED: u16 = 1;
/// In `flags`: the data registers have 64 bits.
const WIDE: u16 = 2;
/// In `flags`: volatile, relaxed or stronger.
const STRONG: u16 = 4;

/// A state space as a type, so that each has its own function.
pub(super) trait Space {
    /// Whether f32 atomics may flush subnormals here (global memory does, shared memory does not).
    const FLUSHES: bool;
    /// The choke point of the space.
    fn resolve<const SAN: bool, const COUNT: bool>(
        w: &mut Warp,
        b: &mut Block,
        access: Access<'_>,
    ) -> Option<Pointers>;
}

pub(super) struct Global;
pub(super) struct Shared;
pub(super) struct Local;
pub(super) struct Param;
pub(super) struct Generic;

macro_rules! space {
    ($name:ident, $function:ident, $flushes:literal) => {
        impl Space for $name {
            const FLUSHES: bool = $flushes;

            #[inline(always)]
            fn resolve<const SAN: bool, const COUNT: bool>(
                w: &mut Warp,
                b: &mut Block,
                access: Access<'_>,
            ) -> Option<Pointers> {
                mem::$function::<SAN, COUNT>(w, b, access)
            }
        }
    };
}
space!(Global, global, true);
space!(Shared, shared, false);
space!(Local, local, false);
space!(Param, param, false);
space!(Generic, generic, true);

/// Reads one element per lane. Lanes outside the mask stay zero.
///
/// # Safety
/// The pointers are a choke point's for this mask, and the element lies within the access.
#[inline(always)]
unsafe fn gather<A, T: Copy + Default>(
    pointers: &Pointers,
    mask: u32,
    offset: usize,
    read: impl Fn(*mut A) -> T,
) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    if mask == !0 {
        for l in 0..LANES {
            out[l] = read(pointers[l].wrapping_add(offset).cast());
        }
    } else {
        for l in lanes(mask) {
            out[l] = read(pointers[l].wrapping_add(offset).cast());
        }
    }
    out
}

/// Moves the elements of a load into their registers. Compiled once, not for every space and kind of launch.
#[inline(never)]
unsafe fn load_elements(w: &mut Warp, i: &Insn, mask: u32, pointers: &Pointers) {
    let bytes = i.width as usize;
    let (signed, wide) = (i.flags & SIGNED != 0, i.flags & WIDE != 0);
    for (k, slot) in i.ext.iter().enumerate() {
        let offset = k * bytes;
        // SAFETY: choke points return pointers that are valid and aligned for the whole access; all accesses to
        // device memory are atomic, those to shared and local memory are of this thread only.
        unsafe {
            match (bytes, wide) {
                (4, false) => {
                    let v = gather(pointers, mask, offset, |p| AtomicU32::from_ptr(p).load(Relaxed));
                    w.set(*slot, mask, v);
                }
                (8, _) => {
                    let v = gather(pointers, mask, offset, |p| AtomicU64::from_ptr(p).load(Relaxed));
                    w.set(*slot, mask, v);
                }
                (4, true) => {
                    let v = gather(pointers, mask, offset, |p| AtomicU32::from_ptr(p).load(Relaxed));
                    w.set(*slot, mask, v.map(|x| if signed { x as i32 as i64 as u64 } else { x as u64 }));
                }
                (2, _) => {
                    let v = gather(pointers, mask, offset, |p| AtomicU16::from_ptr(p).load(Relaxed));
                    let v = v.map(|x| if signed { x as i16 as i64 as u64 } else { x as u64 });
                    if wide { w.set(*slot, mask, v) } else { w.set(*slot, mask, v.map(|x| x as u32)) }
                }
                _ => {
                    let v = gather(pointers, mask, offset, |p| AtomicU8::from_ptr(p).load(Relaxed));
                    let v = v.map(|x| if signed { x as i8 as i64 as u64 } else { x as u64 });
                    if wide { w.set(*slot, mask, v) } else { w.set(*slot, mask, v.map(|x| x as u32)) }
                }
            }
        }
    }
}

/// Writes one element per lane.
#[inline(always)]
unsafe fn scatter<A, T: Copy>(
    pointers: &Pointers,
    mask: u32,
    offset: usize,
    value: &[T; LANES],
    write: impl Fn(*mut A, T),
) {
    if mask == !0 {
        for l in 0..LANES {
            write(pointers[l].wrapping_add(offset).cast(), value[l]);
        }
    } else {
        for l in lanes(mask) {
            write(pointers[l].wrapping_add(offset).cast(), value[l]);
        }
    }
}

/// Moves the elements of a store out of their registers.
#[inline(never)]
unsafe fn store_elements(w: &mut Warp, i: &Insn, mask: u32, pointers: &Pointers) {
    let bytes = i.width as usize;
    for (k, slot) in i.ext.iter().enumerate() {
        let offset = k * bytes;
        // SAFETY: as in `load_elements`.
        unsafe {
            if bytes == 8 {
                let v: [u64; LANES] = w.get(*slot);
                scatter(pointers, mask, offset, &v, |p, x| AtomicU64::from_ptr(p).store(x, Relaxed));
                continue;
            }
            let v: [u32; LANES] = match i.flags & WIDE {
                0 => w.get(*slot),
                _ => {
                    let wide: [u64; LANES] = w.get(*slot);
                    wide.map(|x| x as u32)
                }
            };
            match bytes {
                4 => scatter(pointers, mask, offset, &v, |p, x| AtomicU32::from_ptr(p).store(x, Relaxed)),
                2 => scatter(pointers, mask, offset, &v, |p, x| {
                    AtomicU16::from_ptr(p).store(x as u16, Relaxed)
                }),
                _ => {
                    scatter(pointers, mask, offset, &v, |p, x| AtomicU8::from_ptr(p).store(x as u8, Relaxed))
                }
            }
        }
    }
}

struct Load<S>(std::marker::PhantomData<S>);
struct Store<S>(std::marker::PhantomData<S>);

impl<S: Space> Op for Load<S> {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let addresses = w.addresses(i);
            let bytes = i.width as u32 * i.ext.len() as u32;
            let mut access = Access::new(Kind::Read, mask, &addresses, bytes);
            access.strong = i.flags & STRONG != 0;
            if let Some(pointers) = S::resolve::<SAN, COUNT>(w, b, access) {
                load_elements(w, i, mask, &pointers);
            }
        }
    }
}

impl<S: Space> Op for Store<S> {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let addresses = w.addresses(i);
            let bytes = i.width as u32 * i.ext.len() as u32;
            let mut access = Access::new(Kind::Write, mask, &addresses, bytes);
            access.strong = i.flags & STRONG != 0;
            if let Some(pointers) = S::resolve::<SAN, COUNT>(w, b, access) {
                b.progress += 1;
                store_elements(w, i, mask, &pointers);
            }
        }
    }
}

/// `ld.param` of a constant address: the same in all lanes.
struct LoadParam;

impl Op for LoadParam {
    #[inline(always)]
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        let bytes = i.width as u32 * i.ext.len() as u32;
        let addresses = [i.imm as u64; LANES];
        // One lane stands for all.
        let access = Access::new(Kind::Read, mask & mask.wrapping_neg(), &addresses, bytes);
        let lane = mask.trailing_zeros() as usize;
        if let Some(pointers) = mem::param::<SAN, COUNT>(w, b, access) {
            // SAFETY: as in `Load`; every lane reads what the one may read.
            unsafe { load_elements(w, i, mask, &[pointers[lane]; LANES]) };
        }
    }
}

/// Where an instruction goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SpaceName {
    Global,
    Const,
    Shared,
    Local,
    Param,
    Generic,
}

/// Takes the space's word.
pub(super) fn space(op: &mut Opcode) -> Result<SpaceName, LoadError> {
    if op.has("shared::cluster") {
        return Err(op.refuse("distributed shared memory is not supported"));
    }
    Ok(op
        .one_of(&[
            ("global", SpaceName::Global),
            ("shared::cta", SpaceName::Shared),
            ("shared", SpaceName::Shared),
            ("local", SpaceName::Local),
            ("param::entry", SpaceName::Param),
            ("param::func", SpaceName::Param),
            ("param", SpaceName::Param),
            ("const", SpaceName::Const),
        ])
        .unwrap_or(SpaceName::Generic))
}

/// Takes what concerns caches only. Returns whether a policy operand follows.
pub(super) fn cache_hints(op: &mut Opcode) -> bool {
    for word in ["ca", "cg", "cs", "lu", "cv", "wb", "wt", "unified"] {
        op.take(word);
    }
    for word in ["evict_normal", "evict_unchanged", "evict_first", "evict_last", "no_allocate"] {
        op.take(&format!("L1::{word}"));
        op.take(&format!("L2::{word}"));
    }
    for word in ["L2::64B", "L2::128B", "L2::256B"] {
        op.take(word);
    }
    op.take("L2::cache_hint")
}

/// Takes ordering and scope. Every access here is at least relaxed, and fences order nothing more: blocks of one
/// launch that communicate run on one host thread (see [`Program::ordered`](crate::program::Program::ordered)).
pub(super) fn ordering(op: &mut Opcode) -> bool {
    let strong = op
        .one_of(&[
            ("weak", false),
            ("relaxed", true),
            ("acquire", true),
            ("release", true),
            ("acq_rel", true),
            ("volatile", true),
            ("mmio", true),
        ])
        .unwrap_or(false);
    op.one_of(&[("cta", ()), ("cluster", ()), ("gpu", ()), ("sys", ())]);
    strong
}

fn vector(op: &mut Opcode) -> Result<usize, LoadError> {
    if op.has("v8") {
        return Err(op.refuse("eight elements need sm_100"));
    }
    Ok(op.one_of(&[("v2", 2), ("v4", 4)]).unwrap_or(1))
}

/// `ld…` and `ldu…`.
pub(crate) fn decode_load(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let strong = ordering(op);
    let mut space = space(op)?;
    if op.take("nc") && space != SpaceName::Global {
        return Err(op.refuse("`.nc` is for `.global` only"));
    }
    let policy = cache_hints(op);
    let count = vector(op)?;
    let ty = element_type(op)?;
    cx.count(op, args, if policy { 3 } else { 2 })?;
    if strong && matches!(space, SpaceName::Global | SpaceName::Generic) {
        cx.ordered = true;
    }
    let elements = cx.elements(&args[0], count)?;
    if cx.variable_space(&args[1]) == Some(VarSpace::Local) {
        space = SpaceName::Local;
    }
    let mut insn = cx.insn(cx.mode.exec::<LoadParam>());
    cx.address(&mut insn, &args[1])?;
    let m = cx.mode;
    insn.run = match space {
        SpaceName::Param if insn.a == NONE => insn.run,
        SpaceName::Param => m.exec::<Load<Param>>(),
        SpaceName::Global | SpaceName::Const => m.exec::<Load<Global>>(),
        SpaceName::Shared => m.exec::<Load<Shared>>(),
        SpaceName::Local => m.exec::<Load<Local>>(),
        SpaceName::Generic => m.exec::<Load<Generic>>(),
    };
    insn.flow = Flow::Effect;
    insn.width = ty.bytes() as u8;
    let mut slots = Vec::new();
    let mut wide = None;
    for element in elements {
        let (slot, bits) = cx.dst_at_least(element, ty)?;
        slots.push(slot);
        // A sink takes any width.
        if *element != Operand::Sink {
            same_width(cx, element, &mut wide, bits == 64)?;
        }
    }
    insn.flags |=
        strong as u16 * STRONG + ty.signed() as u16 * SIGNED + wide.unwrap_or(ty.bits() == 64) as u16 * WIDE;
    insn.ext = slots.into_boxed_slice();
    Ok(insn)
}

/// `st…`.
pub(crate) fn decode_store(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    if op.has("async") || op.has("bulk") {
        return super::hopper::decode(cx, op, args);
    }
    let strong = ordering(op);
    let mut space = space(op)?;
    let policy = cache_hints(op);
    let count = vector(op)?;
    let ty = element_type(op)?;
    cx.count(op, args, if policy { 3 } else { 2 })?;
    if strong && matches!(space, SpaceName::Global | SpaceName::Generic) {
        cx.ordered = true;
    }
    let elements = cx.elements(&args[1], count)?;
    if cx.variable_space(&args[0]) == Some(VarSpace::Local) {
        space = SpaceName::Local;
    }
    let m = cx.mode;
    let run: Exec = match space {
        SpaceName::Param => m.exec::<Store<Param>>(),
        SpaceName::Global => m.exec::<Store<Global>>(),
        SpaceName::Const => return Err(op.refuse("constant memory cannot be stored to")),
        SpaceName::Shared => m.exec::<Store<Shared>>(),
        SpaceName::Local => m.exec::<Store<Local>>(),
        SpaceName::Generic => m.exec::<Store<Generic>>(),
    };
    let mut insn = cx.insn(run);
    cx.address(&mut insn, &args[0])?;
    insn.flow = Flow::Effect;
    insn.width = ty.bytes() as u8;
    let mut slots = Vec::new();
    let mut wide = None;
    for element in elements {
        let (slot, bits) = cx.src_at_least(element, ty)?;
        slots.push(slot);
        same_width(cx, element, &mut wide, bits == 64)?;
    }
    insn.flags |= wide.unwrap_or(false) as u16 * WIDE + strong as u16 * STRONG;
    insn.ext = slots.into_boxed_slice();
    Ok(insn)
}

fn same_width(
    cx: &Decoder<'_>,
    element: &Operand,
    wide: &mut Option<bool>,
    this: bool,
) -> Result<(), LoadError> {
    match wide {
        Some(other) if *other != this => Err(cx.error(cx.show(element), "elements of different widths")),
        _ => {
            *wide = Some(this);
            Ok(())
        }
    }
}

fn element_type(op: &mut Opcode) -> Result<Ty, LoadError> {
    let ty = op.ty()?;
    match ty {
        Ty::B128 => Err(op.refuse("128-bit registers are not supported")),
        Ty::Pred | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32 | Ty::Bf16 => Err(op.refuse("not a type of memory")),
        ty => Ok(ty),
    }
}

/// `prefetch`, `prefetchu`, `discard`, `applypriority`: caches only.
pub(crate) fn decode_prefetch(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    if op.has("tensormap") {
        return super::hopper::decode(cx, op, args);
    }
    space(op)?;
    for word in ["L1", "L2", "L2::evict_last", "L2::evict_normal"] {
        op.take(word);
    }
    let mut insn = nothing(cx);
    match args.first() {
        Some(address) => cx.address(&mut insn, address)?,
        None => return Err(op.refuse("operands are missing")),
    }
    Ok(insn)
}
