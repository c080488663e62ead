//! `setp`, `set`, `selp`, `slct`: PTX ISA, *Comparison and Selection Instructions* and their half-precision forms.

use super::int::NOT_A_TYPE;
use super::lanes::Alu;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::Insn;
use crate::num::arith::ftz_f32;
use crate::num::half::{bf16_to_f32, f16_to_f32};
use crate::parse::Operand;
use crate::regs::{Bf16, F16, LANES, Lane};
use crate::warp::Warp;

/// A comparison of any type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

const COMPARISONS: &[(&str, Cmp)] = &[
    ("eq", Cmp::Eq),
    ("ne", Cmp::Ne),
    ("lt", Cmp::Lt),
    ("le", Cmp::Le),
    ("gt", Cmp::Gt),
    ("ge", Cmp::Ge),
    // Unsigned integers have names of their own.
    ("lo", Cmp::Lt),
    ("ls", Cmp::Le),
    ("hi", Cmp::Gt),
    ("hs", Cmp::Ge),
    ("equ", Cmp::Equ),
    ("neu", Cmp::Neu),
    ("ltu", Cmp::Ltu),
    ("leu", Cmp::Leu),
    ("gtu", Cmp::Gtu),
    ("geu", Cmp::Geu),
    ("num", Cmp::Num),
    ("nan", Cmp::Nan),
];

/// In `flags` of `setp`: how the third operand combines, and `.ftz`.
const COMBINE: u16 = 3;
const FTZ: u16 = 4;
/// In `flags`: the second result of `d|q` is in `ext[0]`.
const PAIR: u16 = 8;

/// Values that can be compared.
trait Comparable: Lane {
    fn less(a: Self, b: Self) -> bool;
    fn equal(a: Self, b: Self) -> bool;
    /// Neither is NaN.
    fn ordered(a: Self, b: Self) -> bool;
    fn flush(self) -> Self;
}

macro_rules! comparable_int {
    ($($t:ty),*) => {$(
        impl Comparable for $t {
            #[inline(always)]
            fn less(a: Self, b: Self) -> bool { a < b }
            #[inline(always)]
            fn equal(a: Self, b: Self) -> bool { a == b }
            #[inline(always)]
            fn ordered(_: Self, _: Self) -> bool { true }
            #[inline(always)]
            fn flush(self) -> Self { self }
        }
    )*};
}
comparable_int!(u16, i16, u32, i32, u64, i64);

macro_rules! comparable_float {
    ($t:ty, $to:expr, $flush:expr) => {
        impl Comparable for $t {
            #[inline(always)]
            fn less(a: Self, b: Self) -> bool {
                $to(a) < $to(b)
            }
            #[inline(always)]
            fn equal(a: Self, b: Self) -> bool {
                $to(a) == $to(b)
            }
            #[inline(always)]
            fn ordered(a: Self, b: Self) -> bool {
                !$to(a).is_nan() & !$to(b).is_nan()
            }
            #[inline(always)]
            fn flush(self) -> Self {
                $flush(self)
            }
        }
    };
}
comparable_float!(f32, |x: f32| x, ftz_f32);
comparable_float!(f64, |x: f64| x, |x: f64| x);
comparable_float!(F16, |x: F16| f16_to_f32(x.0), |x: F16| F16(crate::num::half::ftz_f16(x.0)));
comparable_float!(Bf16, |x: Bf16| bf16_to_f32(x.0), |x: Bf16| x);

#[inline(always)]
fn compare<T: Comparable>(cmp: Cmp, a: T, b: T) -> bool {
    match cmp {
        Cmp::Eq => T::equal(a, b),
        Cmp::Ne => T::ordered(a, b) & !T::equal(a, b),
        Cmp::Lt => T::less(a, b),
        Cmp::Le => T::less(a, b) | T::equal(a, b),
        Cmp::Gt => T::less(b, a),
        Cmp::Ge => T::less(b, a) | T::equal(a, b),
        Cmp::Equ => !T::ordered(a, b) | T::equal(a, b),
        Cmp::Neu => !T::equal(a, b),
        Cmp::Ltu => !(T::less(b, a) | T::equal(a, b)),
        Cmp::Leu => !T::less(b, a),
        Cmp::Gtu => !(T::less(a, b) | T::equal(a, b)),
        Cmp::Geu => !T::less(a, b),
        Cmp::Num => T::ordered(a, b),
        Cmp::Nan => !T::ordered(a, b),
    }
}

/// One comparison of one type; the comparison is a constant, so that the loop has no branch.
struct Setp<T, const CMP: u8>(std::marker::PhantomData<T>);

const BY_NUMBER: [Cmp; 14] = [
    Cmp::Eq,
    Cmp::Ne,
    Cmp::Lt,
    Cmp::Le,
    Cmp::Gt,
    Cmp::Ge,
    Cmp::Equ,
    Cmp::Neu,
    Cmp::Ltu,
    Cmp::Leu,
    Cmp::Gtu,
    Cmp::Geu,
    Cmp::Num,
    Cmp::Nan,
];

/// The lanes in which the comparison holds.
#[inline(always)]
unsafe fn comparison<T: Comparable, const CMP: u8>(w: &Warp, i: &Insn) -> u32 {
    // SAFETY: the caller's promise.
    let (mut a, mut b): ([T; LANES], [T; LANES]) = unsafe { (w.get(i.a), w.get(i.b)) };
    if i.flags & FTZ != 0 {
        (a, b) = (a.map(T::flush), b.map(T::flush));
    }
    let mut out = 0u32;
    for l in 0..LANES {
        out |= (compare(BY_NUMBER[CMP as usize], a[l], b[l]) as u32) << l;
    }
    out
}

/// The third operand's part.
#[inline(always)]
unsafe fn combined(w: &Warp, i: &Insn, value: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        match i.flags & COMBINE {
            0 => value,
            1 => value & w.pred(i.c),
            2 => value | w.pred(i.c),
            _ => value ^ w.pred(i.c),
        }
    }
}

impl<T: Comparable, const CMP: u8> Alu for Setp<T, CMP> {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let yes = comparison::<T, CMP>(w, i);
            finish(w, i, mask, yes);
        }
    }
}

/// Writes the one or two results of `setp`.
#[inline(always)]
unsafe fn finish(w: &mut Warp, i: &Insn, mask: u32, yes: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let (first, second) = (combined(w, i, yes), combined(w, i, !yes));
        w.set_pred(i.d, mask, first);
        if i.flags & PAIR != 0 {
            w.set_pred(i.ext[0], mask, second);
        }
    }
}

/// `setp` with the comparison in `width`: for types that are rarely compared.
struct SlowSetp<T>(std::marker::PhantomData<T>);

/// `set`: the result is a number, which `imm` holds; the comparison is in `width`.
struct Set<T>(std::marker::PhantomData<T>);

/// As [`comparison`], with the comparison in `width`.
unsafe fn slow_comparison<T: Comparable>(w: &Warp, i: &Insn) -> u32 {
    // SAFETY: the caller's promise.
    let (a, b): ([T; LANES], [T; LANES]) = unsafe { (w.get(i.a), w.get(i.b)) };
    let (cmp, flush) = (BY_NUMBER[i.width as usize], i.flags & FTZ != 0);
    let mut out = 0u32;
    for l in 0..LANES {
        let (a, b) = if flush { (a[l].flush(), b[l].flush()) } else { (a[l], b[l]) };
        out |= (compare(cmp, a, b) as u32) << l;
    }
    out
}

impl<T: Comparable> Alu for SlowSetp<T> {
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let yes = slow_comparison::<T>(w, i);
            finish(w, i, mask, yes);
        }
    }
}

impl<T: Comparable> Alu for Set<T> {
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let yes = slow_comparison::<T>(w, i);
            let yes = combined(w, i, yes);
            let mut r = [0u32; LANES];
            for l in 0..LANES {
                r[l] = if yes >> l & 1 != 0 { i.imm as u32 } else { 0 };
            }
            w.set(i.d, mask, r);
        }
    }
}

/// The function of `setp` for a type and a comparison, with the comparison compiled in.
macro_rules! by_comparison {
    ($m:expr, $t:ty, $cmp:expr, { $($name:ident $number:literal),* }) => {
        match $cmp {
            $(Cmp::$name => $m.alu::<Setp<$t, $number>>(),)*
            // `comparison_of` refuses the others for this type.
            #[allow(unreachable_patterns)]
            _ => $m.alu::<SlowSetp<$t>>(),
        }
    };
    ($m:expr, int $t:ty, $cmp:expr) => {
        by_comparison!($m, $t, $cmp, { Eq 0, Ne 1, Lt 2, Le 3, Gt 4, Ge 5 })
    };
    ($m:expr, float $t:ty, $cmp:expr) => {
        by_comparison!($m, $t, $cmp, { Eq 0, Ne 1, Lt 2, Le 3, Gt 4, Ge 5, Equ 6, Neu 7, Ltu 8, Leu 9, Gtu 10,
            Geu 11, Num 12, Nan 13 })
    };
}

/// The comparison, checked against the type.
fn comparison_of(op: &mut Opcode, ty: Ty) -> Result<Cmp, LoadError> {
    let unsigned_name = ["lo", "ls", "hi", "hs"].iter().any(|word| op.has(word));
    let cmp = op.must_one_of(COMPARISONS)?;
    let unordered = !matches!(cmp, Cmp::Eq | Cmp::Ne | Cmp::Lt | Cmp::Le | Cmp::Gt | Cmp::Ge);
    let bits = matches!(ty, Ty::B16 | Ty::B32 | Ty::B64);
    if (unordered && !ty.float())
        || (unsigned_name && (ty.float() || ty.signed()))
        || (bits && !matches!(cmp, Cmp::Eq | Cmp::Ne))
    {
        return Err(op.refuse("not a comparison of this type"));
    }
    Ok(cmp)
}

const BOOLEANS: &[(&str, u16)] = &[("and", 1), ("or", 2), ("xor", 3)];

/// Operands `a, b[, c]` and the combining modifier.
fn sources(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    args: &[Operand],
    ty: Ty,
    insn: &mut Insn,
    combine: Option<u16>,
) -> Result<(), LoadError> {
    cx.count(op, args, if combine.is_some() { 4 } else { 3 })?;
    insn.a = cx.src(&args[1], ty)?;
    insn.b = cx.src(&args[2], ty)?;
    if let Some(combine) = combine {
        insn.flags |= combine;
        insn.c = cx.pred_src(&args[3])?;
    }
    Ok(())
}

/// `setp.cmp[.bool][.ftz].type p[|q], a, b[, c]`.
pub(crate) fn decode_setp(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let ty = op.ty()?;
    let cmp = comparison_of(op, ty)?;
    let combine = op.one_of(BOOLEANS);
    let ftz = matches!(ty, Ty::F32 | Ty::F16 | Ty::F16x2) && op.take("ftz");
    let m = cx.mode;
    if matches!(ty, Ty::F16x2 | Ty::Bf16x2) {
        return pairs_setp(cx, op, args, ty, cmp, combine, ftz);
    }
    let run = match ty {
        Ty::B16 | Ty::U16 => m.alu::<SlowSetp<u16>>(),
        Ty::S16 => m.alu::<SlowSetp<i16>>(),
        Ty::B32 | Ty::U32 => by_comparison!(m, int u32, cmp),
        Ty::S32 => by_comparison!(m, int i32, cmp),
        Ty::B64 | Ty::U64 => by_comparison!(m, int u64, cmp),
        Ty::S64 => by_comparison!(m, int i64, cmp),
        Ty::F16 => m.alu::<SlowSetp<F16>>(),
        Ty::Bf16 => m.alu::<SlowSetp<Bf16>>(),
        Ty::F32 => by_comparison!(m, float f32, cmp),
        Ty::F64 => by_comparison!(m, float f64, cmp),
        _ => return Err(op.refuse(NOT_A_TYPE)),
    };
    let mut insn = cx.insn(run);
    insn.width = number_of(cmp);
    insn.flags = ftz as u16 * FTZ;
    match args.first() {
        Some(Operand::Pair(p, q)) => {
            insn.d = cx.pred_dst(p)?;
            insn.ext = Box::new([cx.pred_dst(q)?]);
            insn.flags |= PAIR;
        }
        Some(p) => insn.d = cx.pred_dst(p)?,
        None => return Err(op.refuse("operands are missing")),
    }
    sources(cx, op, args, ty, &mut insn, combine)?;
    Ok(insn)
}

/// The comparison of each half of a pair, by the number in `width`. In `imm`: bf16 rather than f16.
#[inline(always)]
unsafe fn half_comparisons(w: &Warp, i: &Insn) -> (u32, u32) {
    // SAFETY: the caller's promise.
    let (a, b): ([u32; LANES], [u32; LANES]) = unsafe { (w.get(i.a), w.get(i.b)) };
    let cmp = BY_NUMBER[i.width as usize];
    let (ftz, bf16) = (i.flags & FTZ != 0, i.flags & BF16 != 0);
    let number = |bits: u32| -> f32 {
        let bits = bits as u16;
        match (bf16, ftz) {
            (true, _) => bf16_to_f32(bits),
            (false, true) => f16_to_f32(crate::num::half::ftz_f16(bits)),
            (false, false) => f16_to_f32(bits),
        }
    };
    let (mut low, mut high) = (0u32, 0u32);
    for l in 0..LANES {
        low |= (compare(cmp, number(a[l]), number(b[l])) as u32) << l;
        high |= (compare(cmp, number(a[l] >> 16), number(b[l] >> 16)) as u32) << l;
    }
    (low, high)
}

/// In `flags`: the pair is bf16.
const BF16: u16 = 16;

/// `setp` of a pair: `p` is the low half's, `q` the high half's.
struct PairSetp;

impl Alu for PairSetp {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, high) = half_comparisons(w, i);
            let (low, high) = (combined(w, i, low), combined(w, i, high));
            w.set_pred(i.d, mask, low);
            w.set_pred(i.ext[0], mask, high);
        }
    }
}

/// `set` of a pair: a half of each result. In `imm`: what a true half holds.
struct PairSet;

impl Alu for PairSet {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, high) = half_comparisons(w, i);
            let (low, high) = (combined(w, i, low), combined(w, i, high));
            let mut r = [0u32; LANES];
            for l in 0..LANES {
                let half = |yes: u32| if yes >> l & 1 != 0 { i.imm as u32 & 0xffff } else { 0 };
                r[l] = half(low) | half(high) << 16;
            }
            w.set(i.d, mask, r);
        }
    }
}

fn number_of(cmp: Cmp) -> u8 {
    BY_NUMBER.iter().position(|c| *c == cmp).unwrap_or(0) as u8
}

fn pairs_setp(
    cx: &mut Decoder<'_>,
    op: &Opcode,
    args: &[Operand],
    ty: Ty,
    cmp: Cmp,
    combine: Option<u16>,
    ftz: bool,
) -> Result<Insn, LoadError> {
    let Some(Operand::Pair(p, q)) = args.first() else { return Err(op.refuse("a pair `p|q` is wanted")) };
    let mut insn = cx.insn(cx.mode.alu::<PairSetp>());
    insn.d = cx.pred_dst(p)?;
    insn.ext = Box::new([cx.pred_dst(q)?]);
    insn.width = number_of(cmp);
    insn.flags = ftz as u16 * FTZ + (ty == Ty::Bf16x2) as u16 * BF16;
    sources(cx, op, args, ty, &mut insn, combine)?;
    Ok(insn)
}

/// `set.cmp[.bool][.ftz].dtype.stype d, a, b[, c]`.
pub(crate) fn decode_set(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    let (result, ty) = (op.ty()?, op.ty()?);
    let cmp = comparison_of(op, ty)?;
    let combine = op.one_of(BOOLEANS);
    let ftz = matches!(ty, Ty::F32 | Ty::F16 | Ty::F16x2) && op.take("ftz");
    let m = cx.mode;
    // What true is: all ones for an integer, one for a float.
    let truth = match result {
        Ty::U32 | Ty::S32 => !0u32,
        Ty::F32 => 1f32.to_bits(),
        Ty::U16 | Ty::S16 => 0xffff,
        Ty::F16 | Ty::F16x2 => 0x3c00,
        Ty::Bf16 | Ty::Bf16x2 => 0x3f80,
        _ => return Err(op.refuse(NOT_A_TYPE)),
    };
    let first = args.first().ok_or_else(|| op.refuse("operands are missing"))?;
    let mut insn;
    if matches!(ty, Ty::F16x2 | Ty::Bf16x2) {
        if result.bits() != 32 || result == Ty::F32 {
            return Err(op.refuse(NOT_A_TYPE));
        }
        insn = cx.insn(m.alu::<PairSet>());
        insn.width = number_of(cmp);
        insn.flags = (ty == Ty::Bf16x2) as u16 * BF16;
    } else {
        insn = cx.insn(match ty {
            Ty::B16 | Ty::U16 => m.alu::<Set<u16>>(),
            Ty::S16 => m.alu::<Set<i16>>(),
            Ty::B32 | Ty::U32 => m.alu::<Set<u32>>(),
            Ty::S32 => m.alu::<Set<i32>>(),
            Ty::B64 | Ty::U64 => m.alu::<Set<u64>>(),
            Ty::S64 => m.alu::<Set<i64>>(),
            Ty::F16 => m.alu::<Set<F16>>(),
            Ty::Bf16 => m.alu::<Set<Bf16>>(),
            Ty::F32 => m.alu::<Set<f32>>(),
            Ty::F64 => m.alu::<Set<f64>>(),
            _ => return Err(op.refuse(NOT_A_TYPE)),
        });
        insn.width = number_of(cmp);
    }
    insn.imm = truth as i64;
    insn.flags |= ftz as u16 * FTZ;
    insn.d = cx.dst(first, result)?;
    sources(cx, op, args, ty, &mut insn, combine)?;
    Ok(insn)
}

struct Selp<T>(std::marker::PhantomData<T>);

impl<T: Lane> Alu for Selp<T> {
    #[inline(always)]
    unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b): ([T; LANES], [T; LANES]) = (w.get(i.a), w.get(i.b));
            let p = w.pred(i.c);
            let mut r = [T::ZERO; LANES];
            for l in 0..LANES {
                r[l] = if p >> l & 1 != 0 { a[l] } else { b[l] };
            }
            w.set(i.d, mask, r);
        }
    }
}

/// `selp.type d, a, b, p`.
pub(crate) fn decode_selp(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let ty = op.ty()?;
    cx.count(op, args, 4)?;
    let run = match ty.bits() {
        16 => cx.mode.alu::<Selp<u16>>(),
        32 => cx.mode.alu::<Selp<u32>>(),
        64 => cx.mode.alu::<Selp<u64>>(),
        _ => return Err(op.refuse(NOT_A_TYPE)),
    };
    let mut insn = cx.insn(run);
    insn.d = cx.dst(&args[0], ty)?;
    insn.a = cx.src(&args[1], ty)?;
    insn.b = cx.src(&args[2], ty)?;
    insn.c = cx.pred_src(&args[3])?;
    Ok(insn)
}

/// `slct.type.{s32,f32} d, a, b, c`: `a` where `c >= 0` (−0 counts, NaN does not), else `b`.
struct Slct<T, C>(std::marker::PhantomData<(T, C)>);

macro_rules! slct {
    ($c:ty, |$x:ident, $ftz:ident| $test:expr) => {
        impl<T: Lane> Alu for Slct<T, $c> {
            #[inline(always)]
            unsafe fn run(w: &mut Warp, i: &Insn, mask: u32) {
                // SAFETY: the caller's promise.
                unsafe {
                    let (a, b): ([T; LANES], [T; LANES]) = (w.get(i.a), w.get(i.b));
                    let c: [$c; LANES] = w.get(i.c);
                    let $ftz = i.flags & FTZ != 0;
                    let mut r = [T::ZERO; LANES];
                    for l in 0..LANES {
                        let $x = c[l];
                        r[l] = if $test { a[l] } else { b[l] };
                    }
                    w.set(i.d, mask, r);
                }
            }
        }
    };
}
slct!(i32, |x, _ftz| x >= 0);
slct!(f32, |x, ftz| (if ftz { ftz_f32(x) } else { x }) >= 0.0);

/// See [`Slct`].
pub(crate) fn decode_slct(
    cx: &mut Decoder<'_>,
    op: &mut Opcode,
    args: &[Operand],
) -> Result<Insn, LoadError> {
    let ftz = op.take("ftz");
    let (ty, third) = (op.ty()?, op.ty()?);
    cx.count(op, args, 4)?;
    let m = cx.mode;
    let run = match (ty.bits(), third) {
        (16, Ty::S32) => m.alu::<Slct<u16, i32>>(),
        (32, Ty::S32) => m.alu::<Slct<u32, i32>>(),
        (64, Ty::S32) => m.alu::<Slct<u64, i32>>(),
        (16, Ty::F32) => m.alu::<Slct<u16, f32>>(),
        (32, Ty::F32) => m.alu::<Slct<u32, f32>>(),
        (64, Ty::F32) => m.alu::<Slct<u64, f32>>(),
        _ => return Err(op.refuse(NOT_A_TYPE)),
    };
    let mut insn = cx.insn(run);
    insn.flags = ftz as u16 * FTZ;
    insn.d = cx.dst(&args[0], ty)?;
    insn.a = cx.src(&args[1], ty)?;
    insn.b = cx.src(&args[2], ty)?;
    insn.c = cx.src(&args[3], third)?;
    Ok(insn)
}
