//! Every pair of pixels within reach: for kernels that are not separable.
//!
//! With g the gradient of o, γ = g / Z and ∂ = σ d/dσ,
//!
//! ```text
//! o = (w ∗ v) / Z      dV = w ∗ γ      σ dσ = Σ v ∘ (∂w ∗ γ − w ∗ (mean γ))
//! ```
//!
//! where ∗ sums over both axes, row by row, and mean is the mean pull of a query's keys.

use super::Method;
use super::tile::{Output, Tile, zeros};
use super::weights::{last_distance, normalisers, reach, weight};
use crate::Element;
use crate::config::gaussian::GaussianConfig;
use crate::cpu::lanes::{self, Lanes, Taps};
use crate::tensor::HostView;

/// The map of one radius.
pub(super) struct Dense {
    size: [usize; 2],
    /// Weights along x, by distance along y.
    taps: Vec<Taps>,
    /// Pulls along x less `centre` times the weight, by distance along y, divided by `pull_scale`.
    leans: Vec<Taps>,
    /// 1 / Z of every query.
    inverse: Vec<f32>,
    /// What is left of the mean pull of every query.
    mean: Vec<f32>,
    pull_scale: f64,
}

/// What a thread keeps. Of a row, `[group of channels][x]`; of a tile's sums, one row after another.
#[derive(Default)]
pub(super) struct Scratch {
    row: Vec<Lanes>,
    row_mean: Vec<Lanes>,
    sums: Vec<Lanes>,
    leans: Vec<Lanes>,
}

impl Dense {
    fn row_of<'a>(&self, of_queries: &'a [f32], row: usize) -> &'a [f32] {
        &of_queries[row * self.size[1]..][..self.size[1]]
    }

    /// Adds the part of `row` to the sums of every row of the tile, with weights that depend on the distance.
    fn spread(&self, taps: &[Taps], tile: &Tile, row: usize, from: &[Lanes], sums: &mut [Lanes]) {
        let x = self.size[1];
        for (yi, sums) in tile.rows().zip(sums.chunks_exact_mut(from.len())) {
            if let Some(taps) = taps.get(yi.abs_diff(row)) {
                for (from, sums) in from.chunks_exact(x).zip(sums.chunks_exact_mut(x)) {
                    lanes::add_convolved(from, taps, sums);
                }
            }
        }
    }

    /// Rows that weigh something in a tile.
    fn rows(&self, tile: &Tile) -> std::ops::Range<usize> {
        let (rows, last) = (tile.rows(), self.taps.len() - 1);
        rows.start.saturating_sub(last)..(rows.end + last).min(self.size[0])
    }
}

impl Method for Dense {
    const ROWS: usize = 4;
    type Scratch = Scratch;

    fn new(config: &GaussianConfig, size: [usize; 2], radius: f32) -> Self {
        let radius = f64::from(radius);
        let reach = reach(config.kernel, radius);
        let last_y = last_distance(config, reach, size[0]);
        let last_x = |dy: usize| {
            let along =
                if reach.is_finite() { (reach * reach - (dy * dy) as f64).max(0.0).sqrt() } else { reach };
            last_distance(config, along, size[1])
        };
        let lines: Vec<Vec<[f64; 2]>> = (0..=last_y)
            .map(|dy| (0..=last_x(dy)).map(|dx| weight(config.kernel, dy, dx, radius)).collect())
            .collect();
        let value =
            |dy: usize, dx: usize| lines.get(dy).and_then(|line| line.get(dx)).copied().unwrap_or([0.0; 2]);
        let (z, mean) = normalisers(config, size, value);
        let pull_scale = match lines.iter().flatten().map(|[_, pull]| *pull).fold(0.0, f64::max) {
            0.0 => 1.0,
            largest => largest,
        };
        let centre = mean[size[0] / 2 * size[1] + size[1] / 2];
        let taps = |value: &dyn Fn(&[f64; 2]) -> f64| -> Vec<Taps> {
            lines.iter().map(|line| Taps::new(line.iter().map(|weights| value(weights) as f32))).collect()
        };
        Self {
            size,
            taps: taps(&|[w, _]| *w),
            leans: taps(&|[w, pull]| (pull - centre * w) / pull_scale),
            inverse: z.iter().map(|z| (1.0 / z) as f32).collect(),
            mean: mean.iter().map(|mean| ((mean - centre) / pull_scale) as f32).collect(),
            pull_scale,
        }
    }

    fn forward<T: Element>(
        &self,
        scratch: &mut Scratch,
        v: HostView<'_, T, 5>,
        tile: &Tile,
        o: &mut Output<'_, T>,
    ) {
        let x = self.size[1];
        let Scratch { row, sums, .. } = scratch;
        zeros(sums, tile.rows().len() * tile.row(0).groups() * x);
        for yi in self.rows(tile) {
            tile.row(yi).load(v, x, row);
            self.spread(&self.taps, tile, yi, row, sums);
        }
        for (yi, sums) in tile.rows().zip(sums.chunks_exact_mut(row.len())) {
            for (group, line) in sums.chunks_exact_mut(x).enumerate() {
                lanes::scale(line, self.row_of(&self.inverse, yi));
                tile.row(yi).store(group, line, o);
            }
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
        let x = self.size[1];
        let Scratch { row, row_mean, sums, leans } = scratch;
        let count = tile.rows().len() * tile.row(0).groups() * x;
        zeros(sums, count);
        zeros(leans, count);
        for yi in self.rows(tile) {
            tile.row(yi).load(d_o, x, row);
            for line in row.chunks_exact_mut(x) {
                lanes::scale(line, self.row_of(&self.inverse, yi));
            }
            if dv.is_some() {
                self.spread(&self.taps, tile, yi, row, sums);
            }
            if v.is_some() {
                self.spread(&self.leans, tile, yi, row, leans);
                let mean = self.row_of(&self.mean, yi);
                if mean.iter().any(|mean| *mean != 0.0) {
                    zeros(row_mean, row.len());
                    for (to, from) in row_mean.chunks_exact_mut(x).zip(row.chunks_exact(x)) {
                        lanes::subtract_scaled(to, from, mean);
                    }
                    self.spread(&self.taps, tile, yi, row_mean, leans);
                }
            }
        }
        let mut slope = lanes::Inner::default();
        let lines = sums.chunks_exact(row.len()).zip(leans.chunks_exact(row.len()));
        for (yi, (sums, leans)) in tile.rows().zip(lines) {
            if let Some(dv) = &mut dv {
                for (group, line) in sums.chunks_exact(x).enumerate() {
                    tile.row(yi).store(group, line, dv);
                }
            }
            if let Some(v) = v {
                tile.row(yi).load(v, x, row);
                slope.add(row, leans);
            }
        }
        slope.sum() * self.pull_scale
    }
}
