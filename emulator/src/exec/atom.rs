//! `atom` and `red`: PTX ISA, *Parallel Synchronization and Communication Instructions*.
//!
//! Each lane's operation is one atomic step, also between host threads. Lanes go in ascending order (descending
//! for seed 1), which is one of the orders that hardware may take.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::Op;
use super::ldst::{Generic, Global, Shared, Space, SpaceName, cache_hints, ordering, space};
use super::mem::{Access, Kind, Pointers};
use crate::block::Block;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{Flow, Insn, NONE};
use crate::memory::SHARED_WINDOW;
use crate::num::arith::ftz_f32;
use crate::num::half;
use crate::parse::Operand;
use crate::regs::LANES;
use crate::warp::Warp;

/// What happens to the word in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
enum Action {
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Add,
    Inc,
    Dec,
    Min,
    Max,
}

const ACTIONS: &[(&str, Action)] = &[
    ("and", Action::And),
    ("or", Action::Or),
    ("xor", Action::Xor),
    ("exch", Action::Exch),
    ("cas", Action::Cas),
    ("add", Action::Add),
    ("inc", Action::Inc),
    ("dec", Action::Dec),
    ("min", Action::Min),
    ("max", Action::Max),
];

const BY_NUMBER: [Action; 10] = [
    Action::And,
    Action::Or,
    Action::Xor,
    Action::Exch,
    Action::Cas,
    Action::Add,
    Action::Inc,
    Action::Dec,
    Action::Min,
    Action::Max,
];

/// How the bits of an operand are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Number {
    Unsigned,
    Signed,
    F32,
    F64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
}

const NUMBERS: [Number; 8] = [
    Number::Unsigned,
    Number::Signed,
    Number::F32,
    Number::F64,
    Number::F16,
    Number::F16x2,
    Number::Bf16,
    Number::Bf16x2,
];

/// Both halves of a pair.
fn pairs(a: u64, b: u64, f: impl Fn(u16, u16) -> u16) -> u64 {
    f(a as u16, b as u16) as u64 | (f((a >> 16) as u16, (b >> 16) as u16) as u64) << 16
}

/// The new word. `bits` is its width; `flush` says that f32 sums flush subnormals, as they do in global memory.
fn apply(action: Action, number: Number, bits: u32, old: u64, b: u64, c: u64, flush: bool) -> u64 {
    let sign = |x: u64| (x << (64 - bits)) as i64 >> (64 - bits);
    match (action, number) {
        (Action::And, _) => old & b,
        (Action::Or, _) => old | b,
        (Action::Xor, _) => old ^ b,
        (Action::Exch, _) => b,
        (Action::Cas, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        (Action::Inc, _) => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        (Action::Dec, _) => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        (Action::Add, Number::Unsigned | Number::Signed) => old.wrapping_add(b),
        (Action::Add, Number::F32) => {
            let (x, y) = (f32::from_bits(old as u32), f32::from_bits(b as u32));
            let sum = if flush { ftz_f32(ftz_f32(x) + ftz_f32(y)) } else { x + y };
            sum.to_bits() as u64
        }
        (Action::Add, Number::F64) => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        (Action::Add, Number::F16) => half::add_f16(old as u16, b as u16) as u64,
        (Action::Add, Number::Bf16) => half::add_bf16(old as u16, b as u16) as u64,
        (Action::Add, Number::F16x2) => pairs(old, b, half::add_f16),
        (Action::Add, Number::Bf16x2) => pairs(old, b, half::add_bf16),
        (Action::Min, Number::Signed) => sign(old).min(sign(b)) as u64,
        (Action::Max, Number::Signed) => sign(old).max(sign(b)) as u64,
        (Action::Min, Number::F16) => half::min_f16(old as u16, b as u16) as u64,
        (Action::Max, Number::F16) => half::max_f16(old as u16, b as u16) as u64,
        (Action::Min, Number::Bf16) => half::min_bf16(old as u16, b as u16) as u64,
        (Action::Max, Number::Bf16) => half::max_bf16(old as u16, b as u16) as u64,
        (Action::Min, Number::F16x2) => pairs(old, b, half::min_f16),
        (Action::Max, Number::F16x2) => pairs(old, b, half::max_f16),
        (Action::Min, Number::Bf16x2) => pairs(old, b, half::min_bf16),
        (Action::Max, Number::Bf16x2) => pairs(old, b, half::max_bf16),
        (Action::Min, _) => old.min(b),
        (Action::Max, _) => old.max(b),
    }
}

/// `flags`: the action in the low byte, the number above it; `width`: bytes; `d`: destination, `b`, `c`: operands or
/// `NONE`.
struct Atom<S>(std::marker::PhantomData<S>);

/// Replaces a word by `f` of it; returns the old one.
macro_rules! replace {
    ($atomic:ident, $pointer:expr, $f:expr) => {{
        // SAFETY: the choke point checked bounds and alignment; all accesses to it are atomic.
        let word = unsafe { $atomic::from_ptr($pointer.cast()) };
        let mut old = word.load(Ordering::Relaxed);
        loop {
            let new = $f(old as u64) as _;
            match word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break (old as u64, new as u64),
                Err(now) => old = now,
            }
        }
    }};
}

impl<S: Space> Op for Atom<S> {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        let addresses = unsafe { w.addresses(i) };
        let mut access = Access::new(Kind::Atomic, mask, &addresses, i.width as u32);
        access.strong = i.d != NONE;
        if let Some(pointers) = S::resolve::<SAN, COUNT>(w, b, access) {
            // SAFETY: as above.
            unsafe { perform(w, b, i, mask, &pointers, &addresses, S::FLUSHES) };
        }
    }
}

/// The lanes' operations, one after the other.
///
/// # Safety
/// That of [`Op::run`]; the pointers are a choke point's for this mask.
#[inline(never)]
unsafe fn perform(
    w: &mut Warp,
    b: &mut Block,
    i: &Insn,
    mask: u32,
    pointers: &Pointers,
    addresses: &[u64; LANES],
    flushes: bool,
) {
    let bytes = i.width as u32;
    let read = |slot| -> [u64; LANES] {
        // SAFETY: the caller's promise.
        unsafe {
            match (slot, bytes) {
                (NONE, _) => [0; LANES],
                (slot, 8) => w.get(slot),
                (slot, 2) => w.get::<u16>(slot).map(u64::from),
                (slot, _) => w.get::<u32>(slot).map(u64::from),
            }
        }
    };
    let (second, third) = (read(i.b), read(i.c));
    let action = BY_NUMBER[(i.flags & 255) as usize];
    let number = NUMBERS[(i.flags >> 8 & 15) as usize];
    let mut out = [0u64; LANES];
    let mut changed = false;
    for k in 0..LANES {
        let l = if b.launch.seed == 1 { LANES - 1 - k } else { k };
        if mask >> l & 1 == 0 {
            continue;
        }
        let flush = flushes && addresses[l] < SHARED_WINDOW;
        let f = |old: u64| apply(action, number, bytes * 8, old, second[l], third[l], flush);
        let (old, new) = match bytes {
            2 => replace!(AtomicU16, pointers[l], f),
            4 => replace!(AtomicU32, pointers[l], f),
            _ => replace!(AtomicU64, pointers[l], f),
        };
        out[l] = old;
        changed |= old != new;
    }
    b.progress += changed as u64;
    if i.d != NONE {
        // SAFETY: the caller's promise.
        unsafe {
            if bytes == 8 {
                w.set(i.d, mask, out);
            } else {
                w.set(i.d, mask, out.map(|x| x as u32));
            }
        }
    }
}

/// `atom…` and `red…`.
pub(crate) fn decode(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    if op.has("async") {
        return super::hopper::decode(cx, op, args);
    }
    if op.has("v2") || op.has("v4") || op.has("v8") {
        return Err(op.refuse("vector atomics need sm_90 and are not supported"));
    }
    let returns = op.base() == "atom";
    ordering(op);
    let space = space(op)?;
    let policy = op.has("L2::cache_hint");
    cache_hints(op);
    let action = op.must_one_of(ACTIONS)?;
    let noftz = op.take("noftz");
    let ty = op.ty()?;
    let number = match ty {
        Ty::B16 | Ty::B32 | Ty::U32 | Ty::B64 | Ty::U64 => Number::Unsigned,
        Ty::S32 | Ty::S64 => Number::Signed,
        Ty::F32 => Number::F32,
        Ty::F64 => Number::F64,
        Ty::F16 => Number::F16,
        Ty::F16x2 => Number::F16x2,
        Ty::Bf16 => Number::Bf16,
        Ty::Bf16x2 => Number::Bf16x2,
        _ => return Err(op.refuse("not a type of atomics")),
    };
    let bits_only = matches!(ty, Ty::B16 | Ty::B32 | Ty::B64);
    let half = matches!(number, Number::F16 | Number::F16x2 | Number::Bf16 | Number::Bf16x2);
    let allowed = match action {
        Action::And | Action::Or | Action::Xor => matches!(ty, Ty::B32 | Ty::B64),
        Action::Exch => matches!(ty, Ty::B32 | Ty::B64),
        Action::Cas => bits_only,
        Action::Add => !bits_only && (half == noftz),
        Action::Inc | Action::Dec => ty == Ty::U32,
        Action::Min | Action::Max => matches!(ty, Ty::U32 | Ty::S32 | Ty::U64 | Ty::S64) || (half && noftz),
    };
    if !allowed || (!returns && matches!(action, Action::Exch | Action::Cas)) {
        return Err(op.refuse("not an operation of this type"));
    }
    let shift = returns as usize;
    let wanted = 2 + shift + (action == Action::Cas) as usize + policy as usize;
    cx.count(op, args, wanted)?;
    let mut insn = cx.insn(match space {
        SpaceName::Global => cx.mode.exec::<Atom<Global>>(),
        SpaceName::Shared => cx.mode.exec::<Atom<Shared>>(),
        SpaceName::Generic => cx.mode.exec::<Atom<Generic>>(),
        _ => return Err(op.refuse("not a space of atomics")),
    });
    insn.flow = Flow::Effect;
    cx.address(&mut insn, &args[shift])?;
    insn.width = ty.bytes() as u8;
    // The address's own flag is above these.
    insn.flags |= action as u16 | (number as u16) << 8;
    insn.b = cx.src(&args[shift + 1], ty)?;
    if action == Action::Cas {
        insn.c = cx.src(&args[shift + 2], ty)?;
    }
    let used = returns && args[0] != Operand::Sink;
    if used {
        insn.d = cx.dst(&args[0], ty)?;
    }
    let commutes = !matches!(
        number,
        Number::F32 | Number::F64 | Number::F16 | Number::F16x2 | Number::Bf16 | Number::Bf16x2
    ) && !matches!(action, Action::Exch | Action::Cas | Action::Inc | Action::Dec);
    if space != SpaceName::Shared && (used || !commutes) {
        cx.ordered = true;
    }
    Ok(insn)
}
