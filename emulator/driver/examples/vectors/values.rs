//! Kinds of values: registers, inputs, and when two results are the same.

use super::forms::{Bound, Form, Layout, ROWS};

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any bits.
    I16,
    I32,
    I64,
    Pred,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    F32,
    F64,
    /// Not zero.
    Divisor16,
    Divisor32,
    Divisor64,
    /// Amounts of shifts and widths of fields: mostly up to 70, some huge.
    Shift,
    /// 0 to 31.
    Lane,
    /// −3 to 34.
    Near,
    /// 0 to 16; the same in all of the first warp.
    Few,
    /// The last operand of `shfl`.
    Clamp,
    /// f32 within two turns.
    Angle,
    /// f32 that can be divided by without leaving the range of approximations.
    Factor,
    /// Terms of matrix products: near 1, in the last warp any.
    Term16x2,
    Termb16x2,
    Term32,
}

const NAMES: [(&str, Kind); 23] = [
    ("i16", Kind::I16),
    ("i32", Kind::I32),
    ("i64", Kind::I64),
    ("pred", Kind::Pred),
    ("f16", Kind::F16),
    ("bf16", Kind::Bf16),
    ("f16x2", Kind::F16x2),
    ("bf16x2", Kind::Bf16x2),
    ("f32", Kind::F32),
    ("f64", Kind::F64),
    ("divisor16", Kind::Divisor16),
    ("divisor32", Kind::Divisor32),
    ("divisor64", Kind::Divisor64),
    ("shift", Kind::Shift),
    ("lane", Kind::Lane),
    ("near", Kind::Near),
    ("few", Kind::Few),
    ("clamp", Kind::Clamp),
    ("angle", Kind::Angle),
    ("factor", Kind::Factor),
    ("term16x2", Kind::Term16x2),
    ("termb16x2", Kind::Termb16x2),
    ("term32", Kind::Term32),
];

const F32S: [u32; 32] = [
    0,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x3f00_0000,
    0x4000_0000,
    0x3fc0_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc1_2345,
    0x7f80_0001,
    1,
    0x8000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x3f80_0001,
    0x3f7f_ffff,
    0x4b80_0000,
    0x4f00_0000,
    0xcf00_0000,
    0x4f7f_ffff,
    0x5f00_0000,
    0x477f_e000,
    0x477f_f000,
    0x42ff_0000,
    0x4300_8000,
    0x4020_0000,
    0xc060_0000,
    0x3300_0000,
];
const F16S: [u16; 20] = [
    0, 0x8000, 0x3c00, 0xbc00, 0x3800, 0x4000, 0x7c00, 0xfc00, 0x7e00, 0x7c01, 1, 0x8001, 0x3ff, 0x400,
    0x7bff, 0xfbff, 0x3c01, 0x3bff, 0x4100, 0xc300,
];
const F64S: [u64; 20] = [
    0,
    1 << 63,
    0x3ff0 << 48,
    0xbff0 << 48,
    0x3fe0 << 48,
    0x4000 << 48,
    0x7ff0 << 48,
    0xfff0 << 48,
    0x7ff8 << 48,
    (0x7ff0 << 48) + 1,
    1,
    (1 << 63) + 1,
    (0x10 << 48) - 1,
    0x10 << 48,
    (0x7ff0 << 48) - 1,
    (0x3ff0 << 48) + 1,
    0x41e0 << 48,
    0x41ef_ffff_ffe0_0000,
    0x43e0 << 48,
    0x4004 << 48,
];

/// Numbers that follow from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}

/// FNV-1a.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The operands of every row, as the form's kernel reads them.
pub fn inputs(form: &Form) -> Vec<u8> {
    let layout = Layout::of(form);
    let mut bytes = vec![0; ROWS * layout.row_in];
    let mut random = Random(hash(form.name.as_bytes()));
    for row in 0..ROWS {
        for (kind, offset, _) in &layout.operands {
            let at = row * layout.row_in + offset;
            let value = kind.value(row, &mut random).to_le_bytes();
            bytes[at..at + kind.bytes()].copy_from_slice(&value[..kind.bytes()]);
        }
    }
    bytes
}

impl Kind {
    pub fn parse(name: &str) -> Option<Kind> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// Bytes in memory.
    pub fn bytes(self) -> usize {
        match self {
            Kind::I16 | Kind::F16 | Kind::Bf16 | Kind::Divisor16 => 2,
            Kind::I64 | Kind::F64 | Kind::Divisor64 => 8,
            _ => 4,
        }
    }

    /// The type of its register.
    pub fn register(self) -> &'static str {
        match (self, self.bytes()) {
            (Kind::Pred, _) => "pred",
            (_, 2) => "b16",
            (_, 8) => "b64",
            _ => "b32",
        }
    }

    fn value(self, row: usize, random: &mut Random) -> u64 {
        let special = random.below(5) < 3;
        let bits = random.next();
        let integer = |random: &mut Random, width: u32| {
            let top = 1u64 << (width - 1);
            let any = [
                0,
                1,
                2,
                3,
                7,
                255,
                0x80,
                0x7f,
                top,
                top - 1,
                top + 1,
                u64::MAX,
                u64::MAX - 1,
                0x8000,
                0xffff,
            ];
            if special { random.of(&any) } else { bits }
        };
        match self {
            Kind::I16 => integer(random, 16),
            Kind::I32 => integer(random, 32),
            Kind::I64 => integer(random, 64),
            Kind::Divisor16 => match integer(random, 16) {
                x if x & 0xffff == 0 => 3,
                x => x,
            },
            Kind::Divisor32 => match integer(random, 32) {
                x if x & 0xffff_ffff == 0 => 3,
                x => x,
            },
            Kind::Divisor64 => integer(random, 64).max(1),
            // The first warp agrees on yes, the second on no.
            Kind::Pred => u64::from(row < 32 || (row >= 64 && bits % 2 == 1)),
            Kind::Shift => match bits % 8 {
                0 => random.of(&[255, 256, 0x1_0000, 0x8000_0000, 0xffff_ffff]),
                _ => random.below(71),
            },
            Kind::Lane => bits % 32,
            Kind::Near => (bits % 38).wrapping_sub(3),
            Kind::Few => {
                if row < 32 {
                    8
                } else {
                    bits % 17
                }
            }
            Kind::Clamp => match special {
                true => random.of(&[0x1f, 0, 0x1c03, 0x181f, 0x101f, 0x1807]),
                false => (bits % 32) | (((bits >> 8) % 32) << 8),
            },
            Kind::F16 => u64::from(half(random, special, Half::F16)),
            Kind::Bf16 => u64::from(half(random, special, Half::Bf16)),
            Kind::F16x2 => pair(random, special, Half::F16),
            Kind::Bf16x2 => pair(random, special, Half::Bf16),
            Kind::F32 if special => u64::from(random.of(&F32S)),
            Kind::F32 if bits.is_multiple_of(2) => bits >> 8 & 0xffff_ffff,
            Kind::F32 => u64::from(near_one(bits, 10)),
            Kind::F64 if special => random.of(&F64S),
            Kind::F64 if bits.is_multiple_of(2) => random.next(),
            Kind::F64 => (bits & (1 << 63 | ((1 << 52) - 1))) | (1013 + bits % 21) << 52,
            Kind::Angle => {
                let turn = (bits % 2_000_001) as f32 / 1e6 - 1.0;
                u64::from((turn * std::f32::consts::TAU).to_bits())
            }
            Kind::Factor => u64::from(near_one(bits, 60)),
            Kind::Term16x2 if row < 96 || !special => {
                let term = |bits: u64| bits & 0x83ff | (11 + (bits >> 20) % 7) << 10;
                term(bits) | term(bits >> 30) << 16
            }
            Kind::Term16x2 => pair(random, true, Half::F16),
            Kind::Termb16x2 if row < 96 || !special => {
                u64::from(near_one(bits, 4) >> 16 | near_one(bits >> 20, 4) & 0xffff_0000)
            }
            Kind::Termb16x2 => pair(random, true, Half::Bf16),
            Kind::Term32 if row < 96 || !special => u64::from(near_one(bits, 4)),
            Kind::Term32 => u64::from(random.of(&F32S)),
        }
    }

    /// Whether two results are the same: bit by bit, but that any two NaN are, and approximate ones within their bound.
    pub fn agree(self, want: u64, got: u64, bound: Option<Bound>) -> bool {
        if want == got {
            return true;
        }
        let halves =
            |of: Kind| (0..2).all(|k| of.agree(want >> (16 * k) & 0xffff, got >> (16 * k) & 0xffff, bound));
        let (a, b) = match self {
            Kind::F16x2 => return halves(Kind::F16),
            Kind::Bf16x2 => return halves(Kind::Bf16),
            Kind::F16 => (f16_value(want as u16), f16_value(got as u16)),
            Kind::Bf16 => (f32_value(want << 16), f32_value(got << 16)),
            Kind::F32 => (f32_value(want), f32_value(got)),
            Kind::F64 => (f64::from_bits(want), f64::from_bits(got)),
            _ => return false,
        };
        match bound {
            _ if a.is_nan() && b.is_nan() => true,
            Some(bound) => (a - b).abs() <= bound.absolute.max(bound.relative * a.abs()),
            None => false,
        }
    }
}

fn f32_value(bits: u64) -> f64 {
    f64::from(f32::from_bits(bits as u32))
}

fn f16_value(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// A float whose exponent is at most so far from 1's.
fn near_one(bits: u64, exponents: u32) -> u32 {
    let bits = (bits >> 3) as u32;
    bits & 0x807f_ffff | (127 - exponents + bits % (2 * exponents + 1)) << 23
}

#[derive(Clone, Copy)]
enum Half {
    F16,
    Bf16,
}

fn half(random: &mut Random, special: bool, of: Half) -> u16 {
    let bits = random.next();
    match (of, special) {
        (Half::F16, true) => random.of(&F16S),
        (Half::F16, false) if bits.is_multiple_of(2) => (bits >> 8) as u16,
        (Half::F16, false) => (bits & 0x83ff | (10 + (bits >> 20) % 10) << 10) as u16,
        (Half::Bf16, true) => (random.of(&F32S) >> 16) as u16,
        (Half::Bf16, false) if bits.is_multiple_of(2) => (bits >> 8) as u16,
        (Half::Bf16, false) => (near_one(bits, 8) >> 16) as u16,
    }
}

fn pair(random: &mut Random, special: bool, of: Half) -> u64 {
    u64::from(half(random, special, of)) | u64::from(half(random, special, of)) << 16
}
