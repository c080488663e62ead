//! Elementary functions that the compiler can vectorise.

/// e to this power, within 2 units in the last place; 0 below −87.3 and infinity above 88.7. No branches.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding this rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³
    /// ln 2 in two parts, the first with so few digits that multiples of it are exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.722_84;
    let clamped = x.clamp(LOWEST, HIGHEST);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    // Minimax polynomial of e^r on ±ln 2 / 2 (Cephes).
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_6e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // 2ⁿ in two factors, since n may be 128, one more than the exponent holds.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let y = p * power(half) * power(n - half);
    if x < LOWEST {
        0.0
    } else if x > HIGHEST {
        f32::INFINITY
    } else {
        y
    }
}

/// `out += Σ_r a[r] · matrix[r · pitch + first ..]`, four rows at a time.
#[inline(always)]
pub(crate) fn combine(a: &[f32], matrix: &[f32], pitch: usize, first: usize, out: &mut [f32]) {
    let n = out.len();
    let row = |r: usize| &matrix[r * pitch + first..][..n];
    let quads = a.len() / 4 * 4;
    for r in (0..quads).step_by(4) {
        let (m0, m1, m2, m3) = (row(r), row(r + 1), row(r + 2), row(r + 3));
        for i in 0..n {
            out[i] += a[r] * m0[i] + a[r + 1] * m1[i] + (a[r + 2] * m2[i] + a[r + 3] * m3[i]);
        }
    }
    for (r, a) in a.iter().enumerate().skip(quads) {
        out.iter_mut().zip(row(r)).for_each(|(out, m)| *out += a * m);
    }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_right_to_two_units() {
        for i in -87_000..88_000 {
            let x = i as f32 * 1e-3;
            let truth = f64::from(x).exp();
            let off = (f64::from(exp(x)) - truth).abs() / truth;
            assert!(off <= 2.0 * f64::from(f32::EPSILON), "exp({x}) is off by {off:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(100.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }
}
