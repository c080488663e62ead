//! Numbers with a 128-bit significand: sums, products, quotients and roots of `.f64` operands without error, up to a last
//! bit that tells whether anything lies below. Rounding them is [`round_to`].

use super::round::{Format, Round, round_to};

/// `±significand · 2^exponent`, infinite, or not a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exact {
    /// A finite number; zero has significand 0 and keeps its sign.
    Finite {
        /// Below zero, or −0.
        negative: bool,
        /// Its last bit is also set when anything was lost below.
        significand: u128,
        /// The weight of the significand's last bit.
        exponent: i32,
    },
    /// ±∞.
    Infinite {
        /// −∞.
        negative: bool,
    },
    /// Not a number.
    Nan,
}

use Exact::{Finite, Infinite, Nan};

impl From<f64> for Exact {
    fn from(x: f64) -> Self {
        let bits = x.to_bits();
        let negative = bits >> 63 == 1;
        let fraction = bits & ((1 << 52) - 1);
        match (bits >> 52) & 0x7ff {
            0x7ff if fraction == 0 => Infinite { negative },
            0x7ff => Nan,
            0 => Finite { negative, significand: fraction.into(), exponent: -1074 },
            biased => {
                Finite { negative, significand: (fraction | 1 << 52).into(), exponent: biased as i32 - 1075 }
            }
        }
    }
}

impl From<f32> for Exact {
    fn from(x: f32) -> Self {
        f64::from(x).into()
    }
}

/// Shifts right, keeping in the last bit whether any set bit was lost.
fn shift_right_sticky(significand: u128, by: u32) -> u128 {
    if by >= 128 {
        return (significand != 0) as u128;
    }
    (significand >> by) | (significand & ((1u128 << by) - 1) != 0) as u128
}

impl Exact {
    /// The encoding in `format`, rounded once. NaN becomes the format's canonical one.
    pub fn round(self, format: Format, round: Round) -> u64 {
        match self {
            Nan => format.canonical_nan(),
            Infinite { negative } => format.infinity() | if negative { format.sign() } else { 0 },
            Finite { negative, significand, exponent } => {
                round_to(format, negative, significand, exponent, round)
            }
        }
    }

    /// Rounded to `.f32`.
    pub fn to_f32(self, round: Round) -> f32 {
        f32::from_bits(self.round(Format::F32, round) as u32)
    }

    /// Rounded to `.f64`.
    pub fn to_f64(self, round: Round) -> f64 {
        f64::from_bits(self.round(Format::F64, round))
    }

    /// `self + other`. `round` decides only the sign of an exact zero (−0 under [`Round::Rm`]).
    pub fn plus(self, other: Self, round: Round) -> Self {
        let (a, b) = match (self, other) {
            (Nan, _) | (_, Nan) => return Nan,
            (Infinite { negative: a }, Infinite { negative: b }) if a != b => return Nan,
            (Infinite { negative }, _) | (_, Infinite { negative }) => return Infinite { negative },
            (Finite { negative, significand: 0, .. }, Finite { negative: other, significand: 0, .. }) => {
                let negative = if negative == other { negative } else { round == Round::Rm };
                return Finite { negative, significand: 0, exponent: 0 };
            }
            (Finite { significand: 0, .. }, b) => return b,
            (a, Finite { significand: 0, .. }) => return a,
            (
                Finite { negative: an, significand: a, exponent: ae },
                Finite { negative: bn, significand: b, exponent: be },
            ) => {
                // Both with their top bit at 126, so that the sum has room. A product of two `.f64` has 106 bits: when
                // bits are lost from the smaller one, it lies more than 20 places below and cannot cancel the larger.
                let (a_up, b_up) = (a.leading_zeros() as i32 - 1, b.leading_zeros() as i32 - 1);
                let (a, b) = ((an, a << a_up, ae - a_up), (bn, b << b_up, be - b_up));
                if a.2 >= b.2 { (a, b) } else { (b, a) }
            }
        };
        let ((large_negative, large, exponent), (small_negative, small, small_exponent)) = (a, b);
        let small = shift_right_sticky(small, (exponent - small_exponent) as u32);
        if large_negative == small_negative {
            return Finite { negative: large_negative, significand: large + small, exponent };
        }
        let negative = if large == small { round == Round::Rm } else { large_negative != (small > large) };
        Finite { negative, significand: large.abs_diff(small), exponent }
    }

    /// `self · other`, for operands of at most 64 bits.
    pub fn times(self, other: Self) -> Self {
        match (self, other) {
            (Nan, _) | (_, Nan) => Nan,
            (Infinite { .. }, Finite { significand: 0, .. })
            | (Finite { significand: 0, .. }, Infinite { .. }) => Nan,
            (
                Finite { negative: an, significand: a, exponent: ae },
                Finite { negative: bn, significand: b, exponent: be },
            ) => Finite { negative: an != bn, significand: a * b, exponent: ae + be },
            (a, b) => Infinite { negative: a.is_negative() != b.is_negative() },
        }
    }

    /// `self / other`, for operands of at most 53 bits; the quotient has 65 bits or more.
    pub fn over(self, other: Self) -> Self {
        match (self, other) {
            (Nan, _) | (_, Nan) | (Infinite { .. }, Infinite { .. }) => Nan,
            (Finite { significand: 0, .. }, Finite { significand: 0, .. }) => Nan,
            (a @ Infinite { .. }, b) | (a, b @ Finite { significand: 0, .. }) => {
                Infinite { negative: a.is_negative() != b.is_negative() }
            }
            (a, b @ Infinite { .. }) => {
                Finite { negative: a.is_negative() != b.is_negative(), significand: 0, exponent: 0 }
            }
            (
                Finite { negative: an, significand: a, exponent: ae },
                Finite { negative: bn, significand: b, exponent: be },
            ) => {
                let up = a.leading_zeros().min(127) as i32;
                let dividend = a << up;
                let significand = (dividend / b) | !dividend.is_multiple_of(b) as u128;
                Finite { negative: an != bn, significand, exponent: ae - up - be }
            }
        }
    }

    /// `√self`, for operands of at most 53 bits; the root has 63 bits or more. √−0 is −0.
    pub fn sqrt(self) -> Self {
        match self {
            Finite { significand: 0, .. } | Infinite { negative: false } => self,
            Finite { negative: false, significand, exponent } => {
                let mut up = significand.leading_zeros() as i32;
                up -= (exponent - up) & 1;
                let radicand = significand << up;
                let root = radicand.isqrt();
                Finite {
                    negative: false,
                    significand: root | (root * root != radicand) as u128,
                    exponent: (exponent - up) / 2,
                }
            }
            _ => Nan,
        }
    }

    fn is_negative(self) -> bool {
        matches!(self, Finite { negative: true, .. } | Infinite { negative: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f64; 22] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        3.0,
        1.0 / 3.0,
        -1e-300,
        1e300,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        1e-310,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        1.0 + f64::EPSILON,
        -(1.0 - f64::EPSILON / 2.0),
        9007199254740993.0,
        1e16,
        -1e-16,
        123456.789,
    ];

    fn same(got: f64, want: f64, what: &str) {
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{what}: {got:e} for {want:e}"
        );
    }

    #[test]
    fn agrees_with_the_hosts_nearest_even() {
        for a in VALUES {
            let x = Exact::from(a);
            same(x.to_f64(Round::Rn), a, "identity");
            same(x.sqrt().to_f64(Round::Rn), a.sqrt(), &format!("sqrt {a:e}"));
            for b in VALUES {
                let y = Exact::from(b);
                same(x.plus(y, Round::Rn).to_f64(Round::Rn), a + b, &format!("{a:e} + {b:e}"));
                same(x.times(y).to_f64(Round::Rn), a * b, &format!("{a:e} * {b:e}"));
                same(x.over(y).to_f64(Round::Rn), a / b, &format!("{a:e} / {b:e}"));
                for c in VALUES {
                    let got = x.times(y).plus(Exact::from(c), Round::Rn).to_f64(Round::Rn);
                    same(got, a.mul_add(b, c), &format!("fma {a:e} {b:e} {c:e}"));
                }
            }
        }
    }

    #[test]
    fn directions_bracket_the_nearest() {
        for a in VALUES {
            for b in VALUES {
                let quotient = Exact::from(a).over(Exact::from(b));
                let (down, near, up) =
                    (quotient.to_f64(Round::Rm), quotient.to_f64(Round::Rn), quotient.to_f64(Round::Rp));
                if near.is_nan() {
                    continue;
                }
                assert!(down <= near && near <= up, "{a:e} / {b:e}");
                let zero = if near > 0.0 { down } else { up };
                same(
                    quotient.to_f64(Round::Rz),
                    if near == 0.0 { near } else { zero },
                    &format!("{a:e} / {b:e} rz"),
                );
            }
        }
    }

    #[test]
    fn an_exact_zero_is_negative_only_when_rounding_down() {
        let (a, b) = (Exact::from(1.5), Exact::from(-1.5));
        same(a.plus(b, Round::Rn).to_f64(Round::Rn), 0.0, "rn");
        same(a.plus(b, Round::Rm).to_f64(Round::Rm), -0.0, "rm");
        same(Exact::from(0.0).plus(Exact::from(-0.0), Round::Rm).to_f64(Round::Rm), -0.0, "zeros");
    }
}
