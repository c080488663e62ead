//! What results must be, by the plainest means.

use std::sync::OnceLock;

/// Rounding modes as PTX spells them.
pub const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

/// Exact results as f64, rounded to f32 by looking at the neighbours.
pub fn to_f32(exact: f64, mode: &str) -> f32 {
    let near = exact as f32;
    if exact.is_nan() || exact.is_infinite() {
        return near;
    }
    match mode {
        "rn" => near,
        "rm" if f64::from(near) > exact => near.next_down(),
        "rp" if f64::from(near) < exact => near.next_up(),
        "rz" if exact > 0.0 && f64::from(near) > exact => near.next_down(),
        "rz" if exact < 0.0 && f64::from(near) < exact => near.next_up(),
        _ => near,
    }
}

/// A 16-bit format as the list of its non-negative numbers; the last one stands for infinity.
pub struct Sixteen {
    magnitudes: Vec<f64>,
    fraction_bits: u32,
}

impl Sixteen {
    pub fn f16() -> &'static Self {
        static TABLE: OnceLock<Sixteen> = OnceLock::new();
        TABLE.get_or_init(|| Self::new(10, 15))
    }

    pub fn bf16() -> &'static Self {
        static TABLE: OnceLock<Sixteen> = OnceLock::new();
        TABLE.get_or_init(|| Self::new(7, 127))
    }

    fn new(fraction_bits: u32, bias: i32) -> Self {
        let infinity = ((2 * bias + 1) as u32) << fraction_bits;
        let magnitude = |bits: u32| {
            let (field, fraction) = (bits >> fraction_bits, bits & ((1 << fraction_bits) - 1));
            let scaled = f64::from(fraction) / f64::from(1 << fraction_bits);
            if field == 0 {
                scaled * 2f64.powi(1 - bias)
            } else {
                (1.0 + scaled) * 2f64.powi(field as i32 - bias)
            }
        };
        Self { magnitudes: (0..=infinity).map(magnitude).collect(), fraction_bits }
    }

    /// The number that the bits encode.
    pub fn value(&self, bits: u16) -> f64 {
        let index = usize::from(bits & 0x7fff);
        let last = self.magnitudes.len() - 1;
        let magnitude = match index {
            _ if index > last => return f64::NAN,
            _ if index == last => f64::INFINITY,
            _ => self.magnitudes[index],
        };
        if bits >> 15 == 1 { -magnitude } else { magnitude }
    }

    /// An exact number, rounded: the list is searched, ties go to even.
    pub fn round(&self, exact: f64, mode: &str) -> u16 {
        if exact.is_nan() {
            return 0x7fff;
        }
        let sign = ((exact.to_bits() >> 63) as u16) << 15;
        let (x, last) = (exact.abs(), self.magnitudes.len() - 1);
        if x == f64::INFINITY {
            return sign | last as u16;
        }
        let below = self.magnitudes.partition_point(|&m| m <= x) - 1;
        let below = below.min(last - 1);
        let (low, high) = (self.magnitudes[below], self.magnitudes[below + 1]);
        let up = match mode {
            "rn" => {
                let middle = (low + high) / 2.0;
                x > middle || (x == middle && below % 2 == 1)
            }
            "rz" => false,
            "rm" => sign != 0 && (x > low),
            _ => sign == 0 && (x > low),
        };
        sign | (below + up as usize) as u16
    }

    /// Whether the bits encode a subnormal number.
    pub fn subnormal(&self, bits: u16) -> bool {
        let magnitude = bits & 0x7fff;
        magnitude != 0 && magnitude < 1 << self.fraction_bits
    }
}

/// `.f32` numbers of every kind.
pub fn f32_values() -> Vec<f32> {
    let mut all = vec![
        0.0,
        1.0,
        1.0 + f32::EPSILON,
        1.0 - f32::EPSILON / 2.0,
        1.5,
        2.5,
        3.0,
        1.0 / 3.0,
        16777215.0,
        16777216.0,
        65504.0,
        65520.0,
        2147483648.0,
        4294967040.0,
        9.3e18,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::MIN_POSITIVE * 1.5,
        f32::from_bits(1),
        f32::from_bits(0x007f_ffff),
        f32::INFINITY,
        f32::NAN,
        1e-20,
        1e20,
        0.499_999_97,
        0.5,
    ];
    let mut random = super::harness::Random(3);
    for _ in 0..12 {
        // Of like size, so that sums round.
        all.push(f32::from_bits(0x3f00_0000 + random.next() % 0x0200_0000));
        all.push(f32::from_bits(random.next() & 0x7fff_ffff));
    }
    let negatives: Vec<f32> = all.iter().map(|x| -x).collect();
    all.extend(negatives);
    all
}

/// 16-bit patterns of every kind, for both formats.
pub fn patterns() -> Vec<u64> {
    let mut all = Vec::new();
    for sign in [0u64, 0x8000] {
        for x in [0, 1, 2, 3, 0x3fe, 0x3ff, 0x400, 0x401, 0x3555, 0x3bff, 0x3c00, 0x3c01, 0x7bff, 0x7c00] {
            all.push(sign | x);
        }
        for x in [0x7c01, 0x7e00, 0x7fff, 0x7f, 0x80, 0x3eab, 0x3f7f, 0x3f80, 0x3f81, 0x4049, 0x7f7f, 0x7f80]
        {
            all.push(sign | x);
        }
    }
    let mut random = super::harness::Random(4);
    for _ in 0..10 {
        all.push(u64::from(random.next() as u16));
    }
    all
}

/// Bits of f32 values.
pub fn bits32(values: &[f32]) -> Vec<u64> {
    values.iter().map(|x| u64::from(x.to_bits())).collect()
}

/// `.ftz` of an f32.
pub fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// Equal bits, or two NaN.
pub fn same_f32(got: u64, want: f32) -> bool {
    let got = f32::from_bits(got as u32);
    got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan())
}

/// Equal bits, or two NaN.
pub fn same_f64(got: u64, want: f64) -> bool {
    let got = f64::from_bits(got);
    got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan())
}
