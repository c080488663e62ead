//! Rounding modes, the formats that PTX rounds to, and the one function that rounds.

/// How a result that does not fit is rounded (PTX ISA, *Rounding Modifiers*).
///
/// The integer forms `.rni`, `.rzi`, `.rmi` and `.rpi` are [`Rn`](Self::Rn), [`Rz`](Self::Rz), [`Rm`](Self::Rm) and
/// [`Rp`](Self::Rp) applied to integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Round {
    /// `.rn`: to nearest, ties to even.
    #[default]
    Rn,
    /// `.rz`: towards zero.
    Rz,
    /// `.rm`: towards negative infinity.
    Rm,
    /// `.rp`: towards positive infinity.
    Rp,
    /// `.rna`: to nearest, ties away from zero (only `cvt.rna.tf32.f32`).
    Rna,
}

/// A binary floating-point format with IEEE 754's encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Bits of the exponent field.
    pub exponent_bits: u32,
    /// Bits of the fraction field, without the hidden bit.
    pub fraction_bits: u32,
}

impl Format {
    /// `.f16`.
    pub const F16: Self = Self { exponent_bits: 5, fraction_bits: 10 };
    /// `.bf16`.
    pub const BF16: Self = Self { exponent_bits: 8, fraction_bits: 7 };
    /// `.tf32`, as the upper 19 bits of an `.f32`: the encoding here is 19 bits wide.
    pub const TF32: Self = Self { exponent_bits: 8, fraction_bits: 10 };
    /// `.f32`.
    pub const F32: Self = Self { exponent_bits: 8, fraction_bits: 23 };
    /// `.f64`.
    pub const F64: Self = Self { exponent_bits: 11, fraction_bits: 52 };

    /// The exponent of the smallest normal number: −126 for `.f32`.
    pub const fn min_exponent(self) -> i32 {
        2 - (1 << (self.exponent_bits - 1))
    }

    /// The encoding of +∞.
    pub const fn infinity(self) -> u64 {
        ((1 << self.exponent_bits) - 1) << self.fraction_bits
    }

    /// The sign bit.
    pub const fn sign(self) -> u64 {
        1 << (self.exponent_bits + self.fraction_bits)
    }

    /// The canonical NaN of the formats narrower than 64 bits, `0x7fff` and `0x7fffffff`: all ones but the sign. `.f64`
    /// has the quiet bit alone.
    pub const fn canonical_nan(self) -> u64 {
        if self.fraction_bits == 52 { 0x7ff8_0000_0000_0000 } else { self.sign() - 1 }
    }
}

/// Rounds `±significand · 2^exponent` once into `format` and returns its encoding.
///
/// What was lost below the significand's last bit must be in that bit already (set if anything was lost), two bits or
/// more below the last bit that is kept. Subnormal results round at the format's last place; overflow goes to infinity or
/// to the largest finite number, as the mode says.
pub fn round_to(format: Format, negative: bool, significand: u128, exponent: i32, round: Round) -> u64 {
    let sign = if negative { format.sign() } else { 0 };
    if significand == 0 {
        return sign;
    }
    let fraction_bits = format.fraction_bits as i32;
    let width = 128 - significand.leading_zeros() as i32;
    let top = exponent + width - 1;
    // The weight of the last bit kept: the format's precision, but not below its smallest subnormal.
    let last = top.max(format.min_exponent()) - fraction_bits;
    let shift = last - exponent;
    let kept = match shift {
        ..=0 => (significand << -shift) as u64,
        1..=127 => {
            let kept = (significand >> shift) as u64;
            let lost = significand & ((1 << shift) - 1);
            kept + rounds_up(round, negative, kept & 1 == 1, lost, 1 << (shift - 1)) as u64
        }
        _ => rounds_up(round, negative, false, 1, 2) as u64,
    };
    // `kept` carries its hidden bit, if normal, into the exponent field; a carry out of rounding goes there as well.
    let biased = (last + fraction_bits - format.min_exponent()) as u64;
    let encoded = kept.wrapping_add(biased << format.fraction_bits);
    if encoded >= format.infinity() || biased >= format.infinity() >> format.fraction_bits {
        let finite = match round {
            Round::Rn | Round::Rna => false,
            Round::Rz => true,
            Round::Rm => !negative,
            Round::Rp => negative,
        };
        return sign | (format.infinity() - finite as u64);
    }
    sign | encoded
}

/// Whether the magnitude grows by one last place, given the bits lost and half of one last place.
fn rounds_up(round: Round, negative: bool, odd: bool, lost: u128, half: u128) -> bool {
    match round {
        Round::Rn => lost > half || (lost == half && odd),
        Round::Rna => lost >= half,
        Round::Rz => false,
        Round::Rm => negative && lost > 0,
        Round::Rp => !negative && lost > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32_of(significand: u128, exponent: i32, round: Round) -> f32 {
        f32::from_bits(round_to(Format::F32, false, significand, exponent, round) as u32)
    }

    #[test]
    fn exact_values_pass() {
        assert_eq!(f32_of(3, -1, Round::Rn), 1.5);
        assert_eq!(f32_of(1, -149, Round::Rp), f32::from_bits(1));
        assert_eq!(f32_of((1 << 24) - 1, 104, Round::Rz), f32::MAX);
        assert_eq!(round_to(Format::F16, true, 0, 5, Round::Rn), 0x8000);
        assert_eq!(round_to(Format::F64, true, 1, 0, Round::Rn), (-1f64).to_bits());
    }

    #[test]
    fn ties_and_directions() {
        // 1 + 2^-24 lies half-way between 1 and its successor.
        let half_way = (1 << 24) + 1;
        assert_eq!(f32_of(half_way, -24, Round::Rn), 1.0);
        assert_eq!(f32_of(half_way, -24, Round::Rna), 1.0 + f32::EPSILON);
        assert_eq!(f32_of(half_way, -24, Round::Rz), 1.0);
        assert_eq!(f32_of(half_way, -24, Round::Rm), 1.0);
        assert_eq!(f32_of(half_way, -24, Round::Rp), 1.0 + f32::EPSILON);
        assert_eq!(round_to(Format::F32, true, half_way, -24, Round::Rm) as u32, 0xbf80_0001);
    }

    #[test]
    fn overflow_and_underflow() {
        for (round, want) in [
            (Round::Rn, f32::INFINITY),
            (Round::Rz, f32::MAX),
            (Round::Rm, f32::MAX),
            (Round::Rp, f32::INFINITY),
        ] {
            assert_eq!(f32_of(1, 128, round), want, "{round:?}");
            assert_eq!(f32_of(1, 1000, round), want, "{round:?}");
        }
        assert_eq!(f32_of(1, -150, Round::Rn), 0.0);
        assert_eq!(f32_of(3, -151, Round::Rn), f32::from_bits(1));
        assert_eq!(f32_of(1, -1000, Round::Rp), f32::from_bits(1));
        assert_eq!(f32_of(1, -1000, Round::Rn), 0.0);
        assert_eq!(round_to(Format::F16, false, 65520, 0, Round::Rn), 0x7c00);
        assert_eq!(round_to(Format::F16, false, 65519, 0, Round::Rn), 0x7bff);
    }
}
