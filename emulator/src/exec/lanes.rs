//! Arithmetic on 32 lanes: a function of one lane's values becomes an instruction, compiled once for any x86-64
//! and once for AVX2 with FMA; the decoder picks by what the host has.

use crate::block::Block;
use crate::decode::Mode;
use crate::exec::Op;
use crate::ir::{Exec, Insn};
use crate::regs::{LANES, Lane};
use crate::warp::Warp;

/// An arithmetic instruction: reads and writes registers only.
pub(crate) trait Alu {
    /// Executes it for the lanes of `mask`.
    ///
    /// # Safety
    /// That of [`Exec`].
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32);
}

unsafe fn alu_base<O: Alu>(w: &mut Warp, _: &mut Block, i: &Insn, mask: u32) {
    // SAFETY: the caller's promise.
    unsafe { O::run(w, i, mask) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn alu_wide<O: Alu>(w: &mut Warp, _: &mut Block, i: &Insn, mask: u32) {
    // SAFETY: the caller's promise.
    unsafe { O::run(w, i, mask) }
}

/// The function of an arithmetic operation for a mode.
pub(crate) fn dispatch_alu<O: Alu>(mode: Mode) -> Exec {
    #[cfg(target_arch = "x86_64")]
    if mode.wide {
        return alu_wide::<O>;
    }
    let _ = mode;
    alu_base::<O>
}

unsafe fn op_base<O: Op, const SAN: bool, const COUNT: bool>(
    w: &mut Warp,
    b: &mut Block,
    i: &Insn,
    mask: u32,
) {
    // SAFETY: the caller's promise.
    unsafe { O::run::<SAN, COUNT>(w, b, i, mask) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn op_wide<O: Op>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
    // SAFETY: the caller's promise.
    unsafe { O::run::<false, false>(w, b, i, mask) }
}

/// The function of an operation for a mode.
pub(crate) fn dispatch<O: Op>(mode: Mode) -> Exec {
    // Checks and counters cost more than wide vectors save here.
    #[cfg(target_arch = "x86_64")]
    if mode.wide && !mode.san && !mode.count {
        return op_wide::<O>;
    }
    match (mode.san, mode.count) {
        (false, false) => op_base::<O, false, false>,
        (false, true) => op_base::<O, false, true>,
        (true, false) => op_base::<O, true, false>,
        (true, true) => op_base::<O, true, true>,
    }
}

/// Whether this host can run the wide functions.
pub(crate) fn host_is_wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("avx2")
            && has!("fma")
            && has!("f16c")
            && has!("bmi1")
            && has!("bmi2")
            && has!("lzcnt")
            && has!("popcnt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `d = f(a)` in each lane.
pub(crate) trait Map1 {
    type A: Lane;
    type R: Lane;
    fn lane(a: Self::A) -> Self::R;
}

/// `d = f(a, b)` in each lane.
pub(crate) trait Map2 {
    type A: Lane;
    type B: Lane;
    type R: Lane;
    fn lane(a: Self::A, b: Self::B) -> Self::R;
}

/// `d = f(a, b, c)` in each lane.
pub(crate) trait Map3 {
    type A: Lane;
    type B: Lane;
    type C: Lane;
    type R: Lane;
    fn lane(a: Self::A, b: Self::B, c: Self::C) -> Self::R;
}

/// A [`Map1`] as an instruction.
pub(crate) struct One<F>(std::marker::PhantomData<F>);
/// A [`Map2`] as an instruction.
pub(crate) struct Two<F>(std::marker::PhantomData<F>);
/// A [`Map3`] as an instruction.
pub(crate) struct Three<F>(std::marker::PhantomData<F>);

impl<F: Map1> Alu for One<F> {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [F::A; LANES] = w.get(i.a);
            let mut r = [F::R::ZERO; LANES];
            for l in 0..LANES {
                r[l] = F::lane(a[l]);
            }
            w.set(i.d, mask, r);
        }
    }
}

impl<F: Map2> Alu for Two<F> {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [F::A; LANES] = w.get(i.a);
            let b: [F::B; LANES] = w.get(i.b);
            let mut r = [F::R::ZERO; LANES];
            for l in 0..LANES {
                r[l] = F::lane(a[l], b[l]);
            }
            w.set(i.d, mask, r);
        }
    }
}

impl<F: Map3> Alu for Three<F> {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let a: [F::A; LANES] = w.get(i.a);
            let b: [F::B; LANES] = w.get(i.b);
            let c: [F::C; LANES] = w.get(i.c);
            let mut r = [F::R::ZERO; LANES];
            for l in 0..LANES {
                r[l] = F::lane(a[l], b[l], c[l]);
            }
            w.set(i.d, mask, r);
        }
    }
}

/// `unary!(mode, |x: u32| -> u32 { !x })`: the function of an instruction `d = f(a)`.
macro_rules! unary {
    ($mode:expr, |$a:ident: $A:ty| -> $R:ty $body:block) => {{
        struct F;
        impl $crate::exec::lanes::Map1 for F {
            type A = $A;
            type R = $R;
            #[inline(always)]
            fn lane($a: $A) -> $R $body
        }
        $mode.alu::<$crate::exec::lanes::One<F>>()
    }};
}

/// `binary!(mode, |x: u32, y: u32| -> u32 { x & y })`: the function of an instruction `d = f(a, b)`.
macro_rules! binary {
    ($mode:expr, |$a:ident: $A:ty, $b:ident: $B:ty| -> $R:ty $body:block) => {{
        struct F;
        impl $crate::exec::lanes::Map2 for F {
            type A = $A;
            type B = $B;
            type R = $R;
            #[inline(always)]
            fn lane($a: $A, $b: $B) -> $R $body
        }
        $mode.alu::<$crate::exec::lanes::Two<F>>()
    }};
}

/// `ternary!(mode, |x: u32, y: u32, z: u32| -> u32 { … })`: the function of an instruction `d = f(a, b, c)`.
macro_rules! ternary {
    ($mode:expr, |$a:ident: $A:ty, $b:ident: $B:ty, $c:ident: $C:ty| -> $R:ty $body:block) => {{
        struct F;
        impl $crate::exec::lanes::Map3 for F {
            type A = $A;
            type B = $B;
            type C = $C;
            type R = $R;
            #[inline(always)]
            fn lane($a: $A, $b: $B, $c: $C) -> $R $body
        }
        $mode.alu::<$crate::exec::lanes::Three<F>>()
    }};
}

/// One function over several types: `per_type!(cx, op, ty, { U32 | S32: u32, U64: u64 }, binary |a, b| { a ^ b })`.
/// Other types are refused. In the body `T` is the type.
macro_rules! per_type {
    ($cx:expr, $op:expr, $ty:expr, { $($($variant:ident)|+ : $t:ty),+ $(,)? }, unary |$a:ident| $body:block) => {
        match $ty {
            $($($crate::decode::Ty::$variant)|+ => {
                #[allow(dead_code)]
                type T = $t;
                $crate::exec::lanes::unary!($cx.mode, |$a: T| -> T $body)
            })+
            _ => return Err($op.refuse("not a type of this instruction")),
        }
    };
    ($cx:expr, $op:expr, $ty:expr, { $($($variant:ident)|+ : $t:ty),+ $(,)? }, binary |$a:ident, $b:ident| $body:block) => {
        match $ty {
            $($($crate::decode::Ty::$variant)|+ => {
                #[allow(dead_code)]
                type T = $t;
                $crate::exec::lanes::binary!($cx.mode, |$a: T, $b: T| -> T $body)
            })+
            _ => return Err($op.refuse("not a type of this instruction")),
        }
    };
    ($cx:expr, $op:expr, $ty:expr, { $($($variant:ident)|+ : $t:ty),+ $(,)? }, ternary |$a:ident, $b:ident, $c:ident| $body:block) => {
        match $ty {
            $($($crate::decode::Ty::$variant)|+ => {
                #[allow(dead_code)]
                type T = $t;
                $crate::exec::lanes::ternary!($cx.mode, |$a: T, $b: T, $c: T| -> T $body)
            })+
            _ => return Err($op.refuse("not a type of this instruction")),
        }
    };
}

pub(crate) use {binary, per_type, ternary, unary};
