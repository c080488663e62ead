//! Windows around every query.
//!
//! A dilated window is the plain window on every residue class of the map (rows r, r + dilation, …), so the call is cut into
//! one per class, of tensors with larger strides.
//!
//! A task is a band of rows of one head. It copies its queries, and the keys and values that they see, to planes with the
//! pixels of a row side by side, so that eight neighbouring queries make one vector and no dot product needs a sum across
//! lanes. Relative terms, window and border are one number per query and row, and one per query and column, that the
//! logits start from. The backward pass scatters into the band's own planes; overlapping bands are added in their order,
//! so that results do not depend on the number of threads.

use super::super::math::exp;
use super::super::plane::{Plane, contiguous_parts, store_plane, with_contiguous};
use super::super::vectorised;
use super::residue::Class;
use super::{
    HeadPositions, HeadSums, Maps, Outs, PartSums, Positions, Saved, Tables, Wants, with_contiguous_maybe,
    with_contiguous_three,
};
use crate::Element;
use crate::config::local::{Border, LocalConfig, Sliding, Window};
use crate::tensor::{HostView, HostViewMut};
use rayon::prelude::*;
use std::ops::Range;

/// Queries per vector.
const LANES: usize = 8;
type Lanes = [f32; LANES];
/// Offsets whose dot products are summed together, so that a load of q serves them all.
const OFFSETS: usize = 4;
/// Rows of queries per task.
const BAND: usize = 16;

/// Window offsets of eight neighbouring queries along x.
struct Tile {
    /// First pixel.
    x0: usize,
    /// Key pixel minus query pixel of the first offset.
    first: isize,
    /// For every offset: 0 for the lanes that see it, −∞ for the others.
    mask: Vec<Lanes>,
    /// For every offset the row of the column table.
    rows: Vec<usize>,
}

/// What all tasks of a call share.
struct Shared {
    window: Window,
    scale: f32,
    y: usize,
    x: usize,
    d: usize,
    e: usize,
    tiles: Vec<Tile>,
    /// Zero columns on either side of a plane of keys.
    pad: usize,
}

impl Shared {
    fn new(config: &LocalConfig, window: Sliding, q: [usize; 5], e: usize) -> Self {
        let [_, _, y, x, d] = q;
        let tiles = (0..x).step_by(LANES).map(|x0| Tile::new(window, x, x0)).collect();
        Self { window: window.into(), scale: config.scale, y, x, d, e, tiles, pad: window.size[1] }
    }

    fn bands(&self) -> Vec<Range<usize>> {
        (0..self.y).step_by(BAND).map(|y0| y0..(y0 + BAND).min(self.y)).collect()
    }

    /// The rows of keys that a band of queries sees.
    fn key_rows(&self, band: &Range<usize>) -> Range<usize> {
        let keys = |yi| self.window.slots(0, self.y, yi).filter_map(|slot| slot.key);
        let low = band.clone().flat_map(keys).min().unwrap_or(0);
        let high = band.clone().flat_map(keys).max().unwrap_or(0);
        low..high + 1
    }

    fn key_plane<T: Element>(&self, view: &HostView<'_, T, 5>, bh: [usize; 2], rows: Range<usize>) -> Plane {
        Plane::load(view, bh, rows, self.pad, LANES)
    }
}

impl Tile {
    fn new(window: Sliding, x: usize, x0: usize) -> Self {
        let before = (window.size[1] - 1) / 2;
        let offsets = |xi: usize| {
            Window::from(window).slots(1, x, xi).map(move |slot| match (window.border, slot.key) {
                (Border::Shift, Some(key)) => key as isize - xi as isize,
                _ => slot.row as isize - before as isize,
            })
        };
        let queries = x0..(x0 + LANES).min(x);
        // The pixel itself is in its window, so there is an offset.
        let first = queries.clone().flat_map(offsets).min().unwrap_or(0);
        let last = queries.clone().flat_map(offsets).max().unwrap_or(0);
        let row_of_zero = match window.border {
            Border::Shift => window.size[1] - 1,
            Border::Mask | Border::Zero => before,
        };
        // Lanes past the end of the row see everything, so that they compute zeros and not NaN.
        let mask = (first..=last).map(|offset| {
            std::array::from_fn(|lane| match x0 + lane {
                xi if xi >= x || offsets(xi).any(|seen| seen == offset) => 0.0,
                _ => f32::NEG_INFINITY,
            })
        });
        let rows = (first..=last).map(|offset| (row_of_zero as isize + offset).max(0) as usize);
        Self { x0, first, mask: mask.collect(), rows: rows.collect() }
    }
}

/// A row of the window: the row of keys (none outside the map with border zero) and the row of the table.
struct KeyRow {
    key: Option<usize>,
    table: usize,
}

/// The band of one task: what it reads.
struct Band<'a> {
    shared: &'a Shared,
    q: Plane,
    k: Plane,
    v: Plane,
    positions: HeadPositions<'a>,
}

/// Logits or weights of eight queries: `[window row][offset][lane]`.
struct Scores {
    of: Vec<Lanes>,
    offsets: usize,
}

#[inline(always)]
fn load(row: &[f32], at: usize) -> Lanes {
    let mut lanes = [0.0; LANES];
    lanes.copy_from_slice(&row[at..at + LANES]);
    lanes
}

#[inline(always)]
fn multiply_add(sum: &mut Lanes, a: &Lanes, b: &Lanes) {
    for lane in 0..LANES {
        sum[lane] += a[lane] * b[lane];
    }
}

#[inline(always)]
fn multiply_add_scalar(sum: &mut Lanes, a: &Lanes, b: f32) {
    for lane in 0..LANES {
        sum[lane] += a[lane] * b;
    }
}

impl<'a> Band<'a> {
    fn key_rows(&self, yi: usize) -> Vec<KeyRow> {
        let slots = self.shared.window.slots(0, self.shared.y, yi);
        slots.map(|slot| KeyRow { key: slot.key, table: slot.row }).collect()
    }

    /// `Σ_c a[c] · b[c]` of every query in the tile with every key of a window row.
    #[inline(always)]
    fn dots(&self, tile: &Tile, a: &Plane, yi: usize, b: &Plane, key: usize, out: &mut [Lanes]) {
        let start = (b.column(tile.x0) as isize + tile.first) as usize;
        for (block, out) in out.chunks_mut(OFFSETS).enumerate() {
            let mut sums = [[0.0; LANES]; OFFSETS];
            for ci in 0..a.channels() {
                let left = load(a.row(ci, yi), a.column(tile.x0));
                let right = &b.row(ci, key)[start + block * OFFSETS..][..OFFSETS + LANES - 1];
                for (offset, sum) in sums.iter_mut().enumerate() {
                    multiply_add(sum, &left, &load(right, offset));
                }
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }

    /// α (q·k + q·r) + bias + mask.
    #[inline(always)]
    fn logits(&self, tile: &Tile, yi: usize, rows: &[KeyRow], scores: &mut Scores) {
        let scale = self.shared.scale;
        scores.offsets = tile.mask.len();
        scores.of.clear();
        scores.of.resize(rows.len() * scores.offsets, [0.0; LANES]);
        let columns: Vec<Lanes> = tile.rows.iter().map(|&row| self.relative(tile, yi, 1, row)).collect();
        for (row, out) in rows.iter().zip(scores.of.chunks_mut(scores.offsets)) {
            if let Some(key) = row.key {
                self.dots(tile, &self.q, yi, &self.k, key, out);
            }
            let relative = self.relative(tile, yi, 0, row.table);
            for (((out, column), mask), of_column) in
                out.iter_mut().zip(&columns).zip(&tile.mask).zip(&tile.rows)
            {
                let bias = self.positions.bias.map_or(0.0, |b| b.values[b.at(row.table, *of_column)]);
                for lane in 0..LANES {
                    out[lane] = scale * (out[lane] + relative[lane] + column[lane]) + (bias + mask[lane]);
                }
            }
        }
    }

    /// q·r of a row of one table.
    #[inline(always)]
    fn relative(&self, tile: &Tile, yi: usize, axis: usize, row: usize) -> Lanes {
        let mut sum = [0.0; LANES];
        if let Some(tables) = self.positions.tables {
            // A window that a border hides from every lane has no row of its own.
            for (ci, &r) in tables.channels[axis].clone().zip(tables.row(axis, row)) {
                multiply_add_scalar(&mut sum, &load(self.q.row(ci, yi), self.q.column(tile.x0)), r);
            }
        }
        sum
    }

    /// `Σ weight · b` over the window, for every channel of b.
    #[inline(always)]
    fn average(
        &self,
        tile: &Tile,
        rows: &[KeyRow],
        weights: &Scores,
        b: &Plane,
        mut out: impl FnMut(usize, Lanes),
    ) {
        const CHANNELS: usize = 4;
        let start = (b.column(tile.x0) as isize + tile.first) as usize;
        for c0 in (0..b.channels()).step_by(CHANNELS) {
            let mut sums = [[0.0; LANES]; CHANNELS];
            for (row, weights) in rows.iter().zip(weights.of.chunks(weights.offsets)) {
                let Some(key) = row.key else { continue };
                let width = weights.len() + LANES - 1;
                // Past the last channel the last one is summed again, and dropped.
                let b: [&[f32]; CHANNELS] =
                    std::array::from_fn(|i| &b.row((c0 + i).min(b.channels() - 1), key)[start..][..width]);
                for (offset, weight) in weights.iter().enumerate() {
                    for i in 0..CHANNELS {
                        multiply_add(&mut sums[i], weight, &load(b[i], offset));
                    }
                }
            }
            for (i, sum) in sums.into_iter().enumerate().take(b.channels() - c0) {
                out(c0 + i, sum);
            }
        }
    }

    /// `b += weight · a` for every key of the window: the transpose of [`Band::average`].
    #[inline(always)]
    fn scatter(&self, tile: &Tile, yi: usize, rows: &[KeyRow], weights: &Scores, a: &Plane, b: &mut Plane) {
        let start = (b.column(tile.x0) as isize + tile.first) as usize;
        for ci in 0..a.channels() {
            let left = load(a.row(ci, yi), a.column(tile.x0));
            for (row, weights) in rows.iter().zip(weights.of.chunks(weights.offsets)) {
                let Some(key) = row.key else { continue };
                let into = &mut b.row_mut(ci, key)[start..][..weights.len() + LANES - 1];
                for (offset, weight) in weights.iter().enumerate() {
                    let mut sum = load(into, offset);
                    multiply_add(&mut sum, &left, weight);
                    into[offset..offset + LANES].copy_from_slice(&sum);
                }
            }
        }
    }
}

/// Turns logits into exp(logit − maximum); returns maximum and sum.
#[inline(always)]
fn softmax(scores: &mut Scores) -> (Lanes, Lanes) {
    let mut top = [f32::NEG_INFINITY; LANES];
    for score in &scores.of {
        for lane in 0..LANES {
            top[lane] = if score[lane] > top[lane] { score[lane] } else { top[lane] };
        }
    }
    let mut sum = [0.0; LANES];
    for score in &mut scores.of {
        for lane in 0..LANES {
            score[lane] = exp(score[lane] - top[lane]);
            sum[lane] += score[lane];
        }
    }
    (top, sum)
}

/// `o = softmax(α(q·k + q·r) + bias) v` over the window.
pub(super) fn forward<T: Element>(
    config: &LocalConfig,
    window: Sliding,
    maps: Maps<'_, T>,
    positions: &Positions,
    mut o: HostViewMut<'_, T, 5>,
    mut lse: Option<HostViewMut<'_, f32, 4>>,
) {
    for class in Class::all(&window, maps.q.layout.shape) {
        let lse = lse.as_mut().map(|lse| class.of_mut(lse));
        forward_class(config, class.window, class.maps(&maps), positions, class.of_mut(&mut o), lse);
    }
}

/// All gradients that are asked for; sums for tables and bias of every head.
pub(super) fn backward<T: Element>(
    config: &LocalConfig,
    window: Sliding,
    saved: Saved<'_, T>,
    positions: &Positions,
    mut outs: Outs<'_, T>,
) -> Vec<HeadSums> {
    let [b, h, ..] = saved.maps.q.layout.shape;
    let mut sums = vec![HeadSums::default(); b * h];
    for class in Class::all(&window, saved.maps.q.layout.shape) {
        let saved = Saved {
            maps: class.maps(&saved.maps),
            o: class.of(&saved.o),
            lse: class.of(&saved.lse),
            d_o: class.of(&saved.d_o),
        };
        let outs = Outs {
            wants: outs.wants,
            dq: outs.dq.as_mut().map(|out| class.of_mut(out)),
            dk: outs.dk.as_mut().map(|out| class.of_mut(out)),
            dv: outs.dv.as_mut().map(|out| class.of_mut(out)),
        };
        let of_class = backward_class(config, class.window, saved, positions, outs);
        sums.iter_mut().zip(&of_class).for_each(|(sum, of_class)| sum.add(of_class));
    }
    sums
}

fn forward_class<T: Element>(
    config: &LocalConfig,
    window: Sliding,
    maps: Maps<'_, T>,
    positions: &Positions,
    o: HostViewMut<'_, T, 5>,
    lse: Option<HostViewMut<'_, f32, 4>>,
) {
    let Maps { q, k, v } = maps;
    let [_, h, y, x, _] = q.layout.shape;
    let e = v.layout.shape[4];
    let shared = Shared::new(config, window, q.layout.shape, e);
    let task = |bh: usize, rows: Range<usize>, o: &mut [T], mut lse: Option<&mut [f32]>| {
        let at = [bh / h, bh % h];
        let keys = shared.key_rows(&rows);
        let band = Band {
            shared: &shared,
            q: Plane::load(&q, at, rows.clone(), 0, LANES),
            k: shared.key_plane(&k, at, keys.clone()),
            v: shared.key_plane(&v, at, keys),
            positions: positions.of_head(bh % h),
        };
        vectorised(|| {
            let mut scores = Scores { of: Vec::new(), offsets: 0 };
            for yi in rows.clone() {
                let key_rows = band.key_rows(yi);
                for tile in &shared.tiles {
                    band.logits(tile, yi, &key_rows, &mut scores);
                    let (top, sum) = softmax(&mut scores);
                    let lanes = LANES.min(x - tile.x0);
                    let pixel = (yi - rows.start) * x + tile.x0;
                    band.average(tile, &key_rows, &scores, &band.v, |ei, out| {
                        for lane in 0..lanes {
                            o[(pixel + lane) * e + ei] = T::from_f32(out[lane] / sum[lane]);
                        }
                    });
                    if let Some(lse) = &mut lse {
                        for lane in 0..lanes {
                            lse[pixel + lane] = top[lane] + sum[lane].ln();
                        }
                    }
                }
            }
        });
    };
    let write = |o: &mut [T], lse: Option<&mut [f32]>| {
        let o_planes = o.chunks_mut(y * x * e);
        let lse_planes = contiguous_parts(lse, y * x, o_planes.len());
        let tasks: Vec<_> = o_planes
            .zip(lse_planes)
            .enumerate()
            .flat_map(|(bh, (o, lse))| {
                let bands = shared.bands();
                let lse_bands = contiguous_parts(lse, BAND * x, bands.len());
                let parts: Vec<_> = bands
                    .into_iter()
                    .zip(o.chunks_mut(BAND * x * e))
                    .zip(lse_bands)
                    .map(|((rows, o), lse)| (bh, rows, o, lse))
                    .collect();
                parts
            })
            .collect();
        tasks.into_par_iter().for_each(|(bh, rows, o, lse)| task(bh, rows, o, lse));
    };
    with_contiguous(o, |o| with_contiguous_maybe(lse, |lse| write(o, lse)));
}

/// What a band adds to the gradients of its head.
struct BandGrads {
    rows: Range<usize>,
    keys: Range<usize>,
    dq: Option<Plane>,
    dk: Option<Plane>,
    dv: Option<Plane>,
    sums: PartSums,
}

fn backward_class<T: Element>(
    config: &LocalConfig,
    window: Sliding,
    saved: Saved<'_, T>,
    positions: &Positions,
    outs: Outs<'_, T>,
) -> Vec<HeadSums> {
    let [b, h, y, x, d] = saved.maps.q.layout.shape;
    let e = saved.maps.v.layout.shape[4];
    let shared = Shared::new(config, window, saved.maps.q.layout.shape, e);
    let Outs { wants, dq, dk, dv } = outs;
    let head = |bh: usize, outs: [Option<&mut [T]>; 3]| -> HeadSums {
        let of_head = positions.of_head(bh % h);
        let bands: Vec<BandGrads> = shared
            .bands()
            .into_par_iter()
            .map(|rows| {
                vectorised(|| band_backward(&shared, &saved, of_head, [bh / h, bh % h], rows, &wants))
            })
            .collect();
        let [dq, dk, dv] = outs;
        if let Some(dq) = dq {
            for (band, out) in bands.iter().zip(dq.chunks_mut(BAND * x * d)) {
                if let Some(plane) = &band.dq {
                    store_plane(plane, band.rows.clone(), out);
                }
            }
        }
        let sum_bands = |channels: usize, out: Option<&mut [T]>, pick: fn(&BandGrads) -> &Option<Plane>| {
            if let Some(out) = out {
                let mut sum = Plane::zeros(channels, 0..y, x, shared.pad, LANES);
                for band in &bands {
                    pick(band).iter().for_each(|plane| sum.add_rows(plane, band.keys.clone()));
                }
                store_plane(&sum, 0..y, out);
            }
        };
        sum_bands(d, dk, |band| &band.dk);
        sum_bands(e, dv, |band| &band.dv);
        HeadSums::of(bands.iter().map(|band| &band.sums))
    };
    let mut sums = Vec::new();
    with_contiguous_three([dq, dk, dv], |[dq, dk, dv]| {
        let parts = contiguous_parts(dq, y * x * d, b * h)
            .zip(contiguous_parts(dk, y * x * d, b * h))
            .zip(contiguous_parts(dv, y * x * e, b * h));
        let tasks: Vec<_> = parts.enumerate().map(|(bh, ((dq, dk), dv))| (bh, [dq, dk, dv])).collect();
        sums = tasks.into_par_iter().map(|(bh, outs)| head(bh, outs)).collect();
    });
    sums
}

#[inline(always)]
fn band_backward<T: Element>(
    shared: &Shared,
    saved: &Saved<'_, T>,
    positions: HeadPositions<'_>,
    at: [usize; 2],
    rows: Range<usize>,
    wants: &Wants,
) -> BandGrads {
    let (x, d, e, scale) = (shared.x, shared.d, shared.e, shared.scale);
    let keys = shared.key_rows(&rows);
    let band = Band {
        shared,
        q: Plane::load(&saved.maps.q, at, rows.clone(), 0, LANES),
        k: shared.key_plane(&saved.maps.k, at, keys.clone()),
        v: shared.key_plane(&saved.maps.v, at, keys.clone()),
        positions,
    };
    let g = Plane::load(&saved.d_o, at, rows.clone(), 0, LANES);
    let o = Plane::load(&saved.o, at, rows.clone(), 0, LANES);
    let mut dq = wants.dq.then(|| Plane::zeros(d, rows.clone(), x, 0, LANES));
    let mut dk = wants.dk.then(|| Plane::zeros(d, keys.clone(), x, shared.pad, LANES));
    let mut dv = wants.dv.then(|| Plane::zeros(e, keys.clone(), x, shared.pad, LANES));
    let mut sums = PartSums::zeros(positions, wants);
    let mut p = Scores { of: Vec::new(), offsets: 0 };
    let mut ds = Scores { of: Vec::new(), offsets: 0 };
    for yi in rows.clone() {
        let key_rows = band.key_rows(yi);
        for tile in &shared.tiles {
            band.logits(tile, yi, &key_rows, &mut p);
            let lse: Lanes = std::array::from_fn(|lane| match tile.x0 + lane {
                xi if xi < x => saved.lse.data[saved.lse.layout.at([at[0], at[1], yi, xi])],
                // A lane without a pixel has no weights.
                _ => f32::INFINITY,
            });
            for p in &mut p.of {
                for lane in 0..LANES {
                    p[lane] = exp(p[lane] - lse[lane]);
                }
            }
            if let Some(dv) = &mut dv {
                band.scatter(tile, yi, &key_rows, &p, &g, dv);
            }
            if !wants.scores() {
                continue;
            }
            let mut delta = [0.0; LANES];
            for ei in 0..e {
                multiply_add(
                    &mut delta,
                    &load(g.row(ei, yi), g.column(tile.x0)),
                    &load(o.row(ei, yi), o.column(tile.x0)),
                );
            }
            ds.offsets = p.offsets;
            ds.of.clear();
            ds.of.resize(p.of.len(), [0.0; LANES]);
            for (row, out) in key_rows.iter().zip(ds.of.chunks_mut(p.offsets)) {
                if let Some(key) = row.key {
                    band.dots(tile, &g, yi, &band.v, key, out);
                }
            }
            for (ds, p) in ds.of.iter_mut().zip(&p.of) {
                for lane in 0..LANES {
                    // A key that is not there has p = 0, whatever the product says.
                    ds[lane] = if p[lane] == 0.0 { 0.0 } else { p[lane] * (ds[lane] - delta[lane]) };
                }
            }
            if let (Some(bias), Some(sums)) = (positions.bias, sums.bias()) {
                for (row, ds) in key_rows.iter().zip(ds.of.chunks(ds.offsets)) {
                    for (ds, column) in ds.iter().zip(&tile.rows) {
                        sums[bias.at(row.table, *column)] += ds.iter().sum::<f32>();
                    }
                }
            }
            for lane in ds.of.iter_mut().flatten() {
                *lane *= scale;
            }
            if let Some(dk) = &mut dk {
                band.scatter(tile, yi, &key_rows, &ds, &band.q, dk);
            }
            if let Some(dq) = &mut dq {
                let at = dq.column(tile.x0);
                band.average(tile, &key_rows, &ds, &band.k, |ci, out| {
                    dq.row_mut(ci, yi)[at..at + LANES].copy_from_slice(&out);
                });
            }
            if let Some(tables) = positions.tables {
                band.backward_tables(tile, yi, &key_rows, &ds, tables, dq.as_mut(), &mut sums);
            }
        }
    }
    BandGrads { rows, keys, dq, dk, dv, sums }
}

impl Band<'_> {
    /// The part of dq that comes through the tables, and the tables' own gradients.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // one step of `band_backward`
    fn backward_tables(
        &self,
        tile: &Tile,
        yi: usize,
        rows: &[KeyRow],
        ds: &Scores,
        tables: &Tables,
        mut dq: Option<&mut Plane>,
        sums: &mut PartSums,
    ) {
        let row_sums =
            rows.iter().zip(ds.of.chunks(ds.offsets)).map(|(row, ds)| (0, row.table, sum_lanes(ds.iter())));
        let column_sums = tile
            .rows
            .iter()
            .enumerate()
            .map(|(offset, &row)| (1, row, sum_lanes(ds.of.iter().skip(offset).step_by(ds.offsets))));
        for (axis, row, sum) in row_sums.chain(column_sums) {
            let channels = tables.channels[axis].clone();
            if let Some(dq) = &mut dq {
                let at = dq.column(tile.x0);
                for (ci, &r) in channels.clone().zip(tables.row(axis, row)) {
                    let into = &mut dq.row_mut(ci, yi)[at..at + LANES];
                    let mut lanes = load(into, 0);
                    multiply_add_scalar(&mut lanes, &sum, r);
                    into.copy_from_slice(&lanes);
                }
            }
            let count = channels.len();
            if !sums.0[axis].is_empty() {
                for (ci, out) in channels.zip(&mut sums.0[axis][row * count..][..count]) {
                    let q = load(self.q.row(ci, yi), self.q.column(tile.x0));
                    *out += (0..LANES).map(|lane| q[lane] * sum[lane]).sum::<f32>();
                }
            }
        }
    }
}

#[inline(always)]
fn sum_lanes<'a>(lanes: impl Iterator<Item = &'a Lanes>) -> Lanes {
    lanes.fold([0.0; LANES], |mut sum, lanes| {
        (0..LANES).for_each(|lane| sum[lane] += lanes[lane]);
        sum
    })
}
