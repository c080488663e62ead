//! The register file of a warp: rows of 32 lanes, and how each number type reads and writes one.

use crate::ir::Slot;

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// One 32-bit register of all lanes. 64-bit registers are two rows, read as `[u64; 32]`.
#[derive(Clone, Copy)]
#[repr(C, align(128))]
pub(crate) struct Row(pub [u32; LANES]);

/// All rows of one warp.
pub(crate) struct Regs {
    rows: Box<[Row]>,
}

impl Regs {
    pub fn new(rows: Box<[Row]>) -> Regs {
        Regs { rows }
    }

    /// The rows themselves, to fill constants and special registers.
    pub fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    /// # Safety
    /// `slot` is a row of this file.
    #[inline(always)]
    unsafe fn row(&self, slot: Slot) -> &[u32; LANES] {
        debug_assert!((slot as usize) < self.rows.len());
        // SAFETY: the caller's promise.
        unsafe { &self.rows.get_unchecked(slot as usize).0 }
    }

    /// # Safety
    /// `slot` is a row of this file.
    #[inline(always)]
    unsafe fn row_mut(&mut self, slot: Slot) -> &mut [u32; LANES] {
        debug_assert!((slot as usize) < self.rows.len());
        // SAFETY: the caller's promise.
        unsafe { &mut self.rows.get_unchecked_mut(slot as usize).0 }
    }

    /// # Safety
    /// `slot` and `slot + 1` are rows of this file.
    #[inline(always)]
    unsafe fn wide(&self, slot: Slot) -> &[u64; LANES] {
        debug_assert!((slot as usize) + 1 < self.rows.len());
        // SAFETY: two consecutive rows are 256 bytes of plain integers, aligned to 128.
        unsafe { &*self.rows.as_ptr().add(slot as usize).cast() }
    }

    /// # Safety
    /// `slot` and `slot + 1` are rows of this file.
    #[inline(always)]
    unsafe fn wide_mut(&mut self, slot: Slot) -> &mut [u64; LANES] {
        debug_assert!((slot as usize) + 1 < self.rows.len());
        // SAFETY: as in `wide`, and `self` is borrowed mutably.
        unsafe { &mut *self.rows.as_mut_ptr().add(slot as usize).cast() }
    }

    /// The value of each lane.
    ///
    /// # Safety
    /// `slot` was handed out by the decoder of this warp's program for a register at least as wide as `T`.
    #[inline(always)]
    pub unsafe fn get<T: Lane>(&self, slot: Slot) -> [T; LANES] {
        // SAFETY: the caller's promise.
        unsafe { T::load(self, slot) }
    }

    /// Sets the lanes of `mask`.
    ///
    /// # Safety
    /// As [`Regs::get`].
    #[inline(always)]
    pub unsafe fn set<T: Lane>(&mut self, slot: Slot, mask: u32, value: [T; LANES]) {
        // SAFETY: the caller's promise.
        unsafe { T::store(self, slot, mask, value) }
    }
}

/// A number type that a register can hold.
pub(crate) trait Lane: Copy {
    /// Any value, to start an array with.
    const ZERO: Self;
    /// # Safety
    /// As [`Regs::get`].
    unsafe fn load(regs: &Regs, slot: Slot) -> [Self; LANES];
    /// # Safety
    /// As [`Regs::get`].
    unsafe fn store(regs: &mut Regs, slot: Slot, mask: u32, value: [Self; LANES]);
}

/// A 16-bit float as its bits (binary16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct F16(pub u16);
/// A bfloat16 as its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bf16(pub u16);
/// Two binary16 in one register, the first in the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct F16x2(pub u32);
/// Two bfloat16 in one register, the first in the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bf16x2(pub u32);

macro_rules! lane {
    ($type:ty, $zero:expr, $load:ident, $store:ident, $from:expr, $into:expr) => {
        impl Lane for $type {
            const ZERO: Self = $zero;

            #[inline(always)]
            unsafe fn load(regs: &Regs, slot: Slot) -> [Self; LANES] {
                // SAFETY: the caller's promise.
                let row = unsafe { regs.$load(slot) };
                let mut value = [Self::ZERO; LANES];
                for l in 0..LANES {
                    value[l] = $from(row[l]);
                }
                value
            }

            #[inline(always)]
            unsafe fn store(regs: &mut Regs, slot: Slot, mask: u32, value: [Self; LANES]) {
                // SAFETY: the caller's promise.
                let row = unsafe { regs.$store(slot) };
                if mask == !0 {
                    for l in 0..LANES {
                        row[l] = $into(value[l]);
                    }
                } else {
                    for l in 0..LANES {
                        row[l] = if mask >> l & 1 != 0 { $into(value[l]) } else { row[l] };
                    }
                }
            }
        }
    };
}

lane!(u32, 0, row, row_mut, |x: u32| x, |x: u32| x);
lane!(i32, 0, row, row_mut, |x: u32| x as i32, |x: i32| x as u32);
lane!(f32, 0.0, row, row_mut, f32::from_bits, f32::to_bits);
lane!(u64, 0, wide, wide_mut, |x: u64| x, |x: u64| x);
lane!(i64, 0, wide, wide_mut, |x: u64| x as i64, |x: i64| x as u64);
lane!(f64, 0.0, wide, wide_mut, f64::from_bits, f64::to_bits);
lane!(u16, 0, row, row_mut, |x: u32| x as u16, |x: u16| x as u32);
lane!(i16, 0, row, row_mut, |x: u32| x as i16, |x: i16| x as u16 as u32);
lane!(u8, 0, row, row_mut, |x: u32| x as u8, |x: u8| x as u32);
lane!(i8, 0, row, row_mut, |x: u32| x as i8, |x: i8| x as u8 as u32);
lane!(F16, F16(0), row, row_mut, |x: u32| F16(x as u16), |x: F16| x.0 as u32);
lane!(Bf16, Bf16(0), row, row_mut, |x: u32| Bf16(x as u16), |x: Bf16| x.0 as u32);
lane!(F16x2, F16x2(0), row, row_mut, F16x2, |x: F16x2| x.0);
lane!(Bf16x2, Bf16x2(0), row, row_mut, Bf16x2, |x: Bf16x2| x.0);
