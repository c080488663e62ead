//! Weights of one radius, in f64.

use crate::config::gaussian::{GaussianConfig, Kernel, Norm};

/// Weight κ(D, σ) and pull σ ∂κ/∂σ at a distance given in pixels along both axes.
pub(super) fn weight(kernel: Kernel, dy: usize, dx: usize, radius: f64) -> [f64; 2] {
    let (y, x) = (dy as f64 / radius, dx as f64 / radius);
    let square = y * y + x * x;
    let distance = square.sqrt();
    let (w, factor) = match kernel {
        Kernel::Gaussian => ((-0.5 * square).exp(), square),
        Kernel::Manhattan => ((-(y + x)).exp(), y + x),
        Kernel::Exponential => ((-distance).exp(), distance),
        Kernel::Linear if distance < 1.0 => return [1.0 - distance, distance],
        Kernel::Linear => return [0.0, 0.0],
        Kernel::Cauchy => (1.0 / (1.0 + square), 2.0 * square / (1.0 + square)),
    };
    // The factor may be infinite.
    if w == 0.0 { [0.0, 0.0] } else { [w, w * factor] }
}

/// The distance beyond which all weights together are less than f32's last bit of their sum; infinite where there is none.
pub(super) fn reach(kernel: Kernel, radius: f64) -> f64 {
    radius
        * match kernel {
            Kernel::Gaussian => 6.0,
            Kernel::Manhattan => 18.0,
            Kernel::Exponential => 21.0,
            Kernel::Linear => 1.0,
            Kernel::Cauchy => f64::INFINITY,
        }
}

/// The last distance along an axis of `size` pixels that has a weight.
pub(super) fn last_distance(config: &GaussianConfig, reach: f64, size: usize) -> usize {
    let window = config.window.map_or(usize::MAX, |window| window / 2);
    // A float beyond the largest integer becomes that.
    (reach as usize).min(window).min(size - 1)
}

/// Sums over all keys of a query, for every query of a map, from the sums over one quadrant.
///
/// `quadrant[dy · x + dx]` is the sum of what lies 0 to dy below and 0 to dx to the right.
pub(super) fn around(quadrant: &[f64], [y, x]: [usize; 2]) -> Vec<f64> {
    let at = |dy: usize, dx: usize| quadrant[dy * x + dx];
    // Both halves of a line, its middle once.
    let line = |dy: usize, xi: usize| at(dy, xi) + at(dy, x - 1 - xi) - at(dy, 0);
    (0..y * x)
        .map(|i| {
            let (yi, xi) = (i / x, i % x);
            line(yi, xi) + line(y - 1 - yi, xi) - line(0, xi)
        })
        .collect()
}

/// Sums over quadrants, of values by distance.
pub(super) fn quadrants([y, x]: [usize; 2], value: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; y * x];
    for dy in 0..y {
        let mut line = 0.0;
        for dx in 0..x {
            line += value(dy, dx);
            sums[dy * x + dx] = line + if dy > 0 { sums[(dy - 1) * x + dx] } else { 0.0 };
        }
    }
    sums
}

/// Z and mean pull of every query of a map; 1 and 0 where nothing is normalised.
pub(super) fn normalisers(
    config: &GaussianConfig,
    size: [usize; 2],
    value: impl Fn(usize, usize) -> [f64; 2],
) -> (Vec<f64>, Vec<f64>) {
    if config.norm == Norm::None {
        return (vec![1.0; size[0] * size[1]], vec![0.0; size[0] * size[1]]);
    }
    let z = around(&quadrants(size, |dy, dx| value(dy, dx)[0]), size);
    let pull = around(&quadrants(size, |dy, dx| value(dy, dx)[1]), size);
    let mean = pull.iter().zip(&z).map(|(pull, z)| pull / z).collect();
    (z, mean)
}
