//! Two passes: along y, then along x.
//!
//! Forward, o = A^y V A^xᵀ. Backward, with g the gradient of o and ∂ = σ d/dσ,
//!
//! ```text
//! H = A^yᵀ g    H' = ∂A^yᵀ g      dV = H A^x      σ dσ = Σ H ∘ (V ∂A^xᵀ) + H' ∘ (V A^xᵀ)
//! ```
//!
//! so that only g is needed outside a tile's rows. Along y the weights are a small matrix of the tile's own, which
//! includes normalisers; along x they depend on distance only, and normalisers multiply before or after.

use super::Method;
use super::tile::{Output, Tile, pitch, sized};
use super::weights::{last_distance, normalisers, reach, weight};
use crate::Element;
use crate::config::gaussian::GaussianConfig;
use crate::cpu::lanes::{self, Lanes, SUMS, Taps, Weights};
use crate::tensor::HostView;
use std::ops::Range;

/// Vectors of input that a pass along y keeps at a time: they stay in the nearest caches.
const COLUMN_VECTORS: usize = 2048;

/// One axis of the map of one radius.
struct Axis {
    /// Weight and pull by distance, up to the last that counts.
    weights: Vec<[f64; 2]>,
    z: Vec<f64>,
    mean: Vec<f64>,
}

impl Axis {
    fn new(config: &GaussianConfig, size: usize, radius: f64) -> Self {
        let last = last_distance(config, reach(config.kernel, radius), size);
        let weights: Vec<[f64; 2]> = (0..=last).map(|dy| weight(config.kernel, dy, 0, radius)).collect();
        let by_distance = |_: usize, dx: usize| weights.get(dx).copied().unwrap_or([0.0; 2]);
        let (z, mean) = normalisers(config, [1, size], by_distance);
        Self { weights, z, mean }
    }

    /// Positions that weigh something in the sums at `sums`.
    fn within_reach(&self, sums: &Range<usize>) -> Range<usize> {
        let last = self.weights.len() - 1;
        sums.start.saturating_sub(last)..(sums.end + last).min(self.z.len())
    }

    /// The weights of the sums at `sums` over `input`; `value` turns weight, pull and both positions (sum, input) into one.
    fn matrix(
        &self,
        sums: Range<usize>,
        input: &Range<usize>,
        value: impl Fn([f64; 2], usize, usize) -> f64,
    ) -> Vec<Weights> {
        let blocks = sums.clone().step_by(SUMS).map(|begin| {
            let positions = self.within_reach(&(begin..(begin + SUMS).min(sums.end)));
            let first = positions.start - input.start;
            let entry = |sum: usize, from: usize| match self.weights.get(sum.abs_diff(from)) {
                Some(weights) if sum < sums.end => value(*weights, sum, from) as f32,
                _ => 0.0,
            };
            let weigh = |from: usize| std::array::from_fn(|i| entry(begin + i, from));
            Weights { first, weights: positions.map(weigh).collect() }
        });
        blocks.collect()
    }
}

/// The map of one radius.
pub(super) struct Separable {
    along_y: Axis,
    along_x: Axis,
    taps: Taps,
    /// 1 / Z^x.
    inverse_x: Vec<f32>,
    /// Pulls are divided by the largest, so that f32 holds them for any radius.
    pull_scale: f64,
    /// Pulls along x less `centre` times the weight: nearly what they are normalised to, away from borders.
    leans: Taps,
    /// What is left of the mean pull along x.
    mean_x: Vec<f32>,
}

/// What a thread keeps.
#[derive(Default)]
pub(super) struct Scratch {
    columns: Vec<Lanes>,
    sums: Vec<Lanes>,
    first_pass: Vec<Lanes>,
    first_pass_lean: Vec<Lanes>,
    values: Vec<Lanes>,
    line: Vec<Lanes>,
    line_lean: Vec<Lanes>,
}

/// The pass along y: the tile `[group][pitch]` of weighted sums of `input`'s rows, times a factor per x.
fn columns<T: Element>(
    (columns, sums): (&mut Vec<Lanes>, &mut Vec<Lanes>),
    input: HostView<'_, T, 5>,
    rows: &Range<usize>,
    tile: &Tile,
    factors: Option<&[f32]>,
    outputs: &mut [(&[Weights], &mut Vec<Lanes>)],
) {
    let x = input.layout.shape[3];
    for (_, output) in outputs.iter_mut() {
        tile.sized(pitch(x), output);
    }
    sized(sums, tile.rows().len());
    let all = tile.sequence_vectors(x);
    let at_once = (COLUMN_VECTORS / rows.len()).max(1);
    for first in (0..all).step_by(at_once) {
        let vectors = first..(first + at_once).min(all);
        tile.load_sequences(input, rows.clone(), vectors.clone(), columns);
        for (vector, column) in vectors.zip(columns.chunks_exact(rows.len())) {
            for (weights, output) in outputs.iter_mut() {
                lanes::sums(column, weights, sums);
                tile.place_sequence(vector, sums, factors, output, x);
            }
        }
    }
}

impl Method for Separable {
    const ROWS: usize = 16;
    type Scratch = Scratch;

    fn new(config: &GaussianConfig, [y, x]: [usize; 2], radius: f32) -> Self {
        let radius = f64::from(radius);
        let (along_y, along_x) = (Axis::new(config, y, radius), Axis::new(config, x, radius));
        let pulls = along_y.weights.iter().chain(&along_x.weights).map(|[_, pull]| *pull);
        let pull_scale = match pulls.fold(0.0, f64::max) {
            0.0 => 1.0,
            largest => largest,
        };
        let centre = along_x.mean[x / 2];
        let lean = |[w, pull]: &[f64; 2]| ((pull - centre * w) / pull_scale) as f32;
        Self {
            taps: Taps::new(along_x.weights.iter().map(|[w, _]| *w as f32)),
            inverse_x: along_x.z.iter().map(|z| (1.0 / z) as f32).collect(),
            pull_scale,
            leans: Taps::new(along_x.weights.iter().map(lean)),
            mean_x: along_x.mean.iter().map(|mean| ((mean - centre) / pull_scale) as f32).collect(),
            along_y,
            along_x,
        }
    }

    fn forward<T: Element>(
        &self,
        scratch: &mut Scratch,
        v: HostView<'_, T, 5>,
        tile: &Tile,
        o: &mut Output<'_, T>,
    ) {
        let x = self.along_x.z.len();
        let rows = self.along_y.within_reach(&tile.rows());
        let weights = self.along_y.matrix(tile.rows(), &rows, |[w, _], yi, _| w / self.along_y.z[yi]);
        let Scratch { columns: buffer, sums, first_pass, line, .. } = scratch;
        columns((buffer, sums), v, &rows, tile, None, &mut [(&weights, first_pass)]);
        for (group, first_pass) in first_pass.chunks_exact(pitch(x)).enumerate() {
            sized(line, x);
            lanes::convolve(&first_pass[..x], &self.taps, line);
            lanes::scale(line, &self.inverse_x);
            tile.store(group, line, o);
        }
    }

    fn backward<T: Element>(
        &self,
        scratch: &mut Scratch,
        v: Option<HostView<'_, T, 5>>,
        d_o: HostView<'_, T, 5>,
        tile: &Tile,
        mut dv: Option<&mut Output<'_, T>>,
    ) -> f64 {
        let x = self.along_x.z.len();
        let Axis { z, mean, .. } = &self.along_y;
        let rows = self.along_y.within_reach(&tile.rows());
        let Scratch { columns: buffer, sums, first_pass, first_pass_lean, values, line, line_lean } = scratch;
        let weights = self.along_y.matrix(tile.rows(), &rows, |[w, _], _, yi| w / z[yi]);
        let leans = if v.is_some() {
            let lean = |[w, pull]: [f64; 2], _, yi: usize| (pull - mean[yi] * w) / z[yi] / self.pull_scale;
            self.along_y.matrix(tile.rows(), &rows, lean)
        } else {
            Vec::new()
        };
        let outputs =
            &mut [(weights.as_slice(), &mut *first_pass), (leans.as_slice(), &mut *first_pass_lean)];
        let wanted = if v.is_some() { 2 } else { 1 };
        columns((buffer, sums), d_o, &rows, tile, Some(&self.inverse_x), &mut outputs[..wanted]);
        if let Some(dv) = &mut dv {
            for (group, first_pass) in first_pass.chunks_exact(pitch(x)).enumerate() {
                sized(line, x);
                lanes::convolve(&first_pass[..x], &self.taps, line);
                tile.store(group, line, dv);
            }
        }
        let Some(v) = v else { return 0.0 };
        tile.load(v, pitch(x), values);
        let mut slope = lanes::Inner::default();
        let firsts = first_pass.chunks_exact(pitch(x)).zip(first_pass_lean.chunks_exact(pitch(x)));
        for (values, (first_pass, first_pass_lean)) in values.chunks_exact(pitch(x)).zip(firsts) {
            sized(line, x);
            sized(line_lean, x);
            lanes::convolve(&values[..x], &self.taps, line);
            lanes::convolve(&values[..x], &self.leans, line_lean);
            lanes::subtract_scaled(line_lean, line, &self.mean_x);
            slope.add(first_pass, line_lean);
            slope.add(first_pass_lean, line);
        }
        slope.sum() * self.pull_scale
    }
}
