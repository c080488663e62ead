//! Blocks, whose queries share one window: products of small matrices.
//!
//! A task is a row of blocks of one head. Scores are a matrix with a column per query, so that softmax and relative terms run
//! over vectors of queries. Where halos overlap, what rows of blocks add to the gradients of k and v is added in their order.

use super::super::math::exp;
use super::super::matrix::Matrix;
use super::super::plane::{contiguous_parts, with_contiguous};
use super::super::vectorised;
use super::{
    HeadPositions, HeadSums, Maps, Outs, PartSums, Positions, Saved, Tables, Wants, with_contiguous_maybe,
    with_contiguous_three,
};
use crate::Element;
use crate::config::local::{Blocks, LocalConfig, Window};
use crate::tensor::{HostView, HostViewMut};
use rayon::prelude::*;
use std::ops::Range;

/// One line of blocks along an axis.
struct Line {
    queries: Range<usize>,
    keys: Range<usize>,
    /// The table's row of the first query and the first key.
    row: usize,
}

impl Line {
    fn all(blocks: &Blocks, axis: usize, size: usize) -> Vec<Self> {
        let (w, halo) = (blocks.size[axis], blocks.halo[axis]);
        let inside = |i: isize| i.clamp(0, size as isize) as usize;
        let mut lines: Vec<Self> = Vec::new();
        while let Some(first) = Some(lines.last().map_or(0, |line| line.queries.end)).filter(|&i| i < size) {
            let start = blocks.start(axis, first);
            let queries = first..inside(start + w as isize);
            let keys = inside(start - halo as isize)..inside(start + (w + halo) as isize);
            let row = keys.start + w + halo - 1 - queries.start;
            lines.push(Self { queries, keys, row });
        }
        lines
    }
}

/// Pixels `[row, column]` of one head, `[pixel][channel]`.
fn gather<T: Element>(
    view: &HostView<'_, T, 5>,
    [bi, hi]: [usize; 2],
    rows: &Range<usize>,
    columns: &Range<usize>,
) -> Matrix {
    let channels = view.layout.shape[4];
    let mut out = Matrix::zeros(rows.len() * columns.len(), channels);
    let pixels = rows.clone().flat_map(|yi| columns.clone().map(move |xi| (yi, xi)));
    for (i, (yi, xi)) in pixels.enumerate() {
        let first = view.layout.at([bi, hi, yi, xi, 0]);
        for (ci, out) in out.row_mut(i)[..channels].iter_mut().enumerate() {
            *out = view.data[first.wrapping_add_signed(ci as isize * view.layout.strides[4])].to_f32();
        }
    }
    out
}

/// Adds `[pixel][channel]` to rows from `first` on of `[y, x, channel]`.
fn scatter(
    from: &Matrix,
    rows: &Range<usize>,
    columns: &Range<usize>,
    first: usize,
    x: usize,
    to: &mut [f32],
) {
    let channels = from.columns();
    let pixels = rows.clone().flat_map(|yi| columns.clone().map(move |xi| (yi - first) * x + xi));
    for (i, pixel) in pixels.enumerate() {
        let to = &mut to[pixel * channels..][..channels];
        to.iter_mut().zip(from.row(i)).for_each(|(to, from)| *to += from);
    }
}

/// The tables of a head with d channels each, zeros where a table has none.
fn full_tables(tables: &Tables, rows: [usize; 2], d: usize) -> [Matrix; 2] {
    [0, 1].map(|axis| {
        let channels = tables.channels[axis].clone();
        let mut out = Matrix::zeros(rows[axis], d);
        for row in 0..rows[axis] {
            out.row_mut(row)[channels.clone()].copy_from_slice(tables.row(axis, row));
        }
        out
    })
}

/// What all tasks of a call share.
struct Shared {
    scale: f32,
    x: usize,
    d: usize,
    lines: [Vec<Line>; 2],
    /// Of every head.
    tables: Option<Vec<[Matrix; 2]>>,
}

impl Shared {
    fn new(config: &LocalConfig, blocks: Blocks, [_, _, y, x, d]: [usize; 5], positions: &Positions) -> Self {
        let rows = Window::from(blocks).table_rows();
        let tables = positions.tables.as_ref().map(|t| t.iter().map(|t| full_tables(t, rows, d)).collect());
        let lines = [Line::all(&blocks, 0, y), Line::all(&blocks, 1, x)];
        Self { scale: config.scale, x, d, lines, tables }
    }

    fn block<'a>(&'a self, positions: HeadPositions<'a>, hi: usize, y: &'a Line, x: &'a Line) -> Block<'a> {
        let width = x.queries.len();
        let places = (0..y.queries.len() * width).map(|i| [i / width, i % width]).collect();
        Block {
            scale: self.scale,
            axes: [y, x],
            places,
            tables: self.tables.as_ref().map(|t| &t[hi]),
            positions,
        }
    }
}

/// One block of one head.
struct Block<'a> {
    scale: f32,
    axes: [&'a Line; 2],
    /// Of every query in the block.
    places: Vec<[usize; 2]>,
    tables: Option<&'a [Matrix; 2]>,
    positions: HeadPositions<'a>,
}

impl Block<'_> {
    /// The table's row of a query, which is `place` pixels into the block, and a key, `key` pixels into its window.
    #[inline(always)]
    fn row(&self, axis: usize, place: [usize; 2], key: usize) -> usize {
        self.axes[axis].row + key - place[axis]
    }

    fn key_place(&self, key: usize) -> [usize; 2] {
        let width = self.axes[1].keys.len();
        [key / width, key % width]
    }

    /// `[key][query]`: α (q·k + q·r) + bias.
    #[inline(always)]
    fn logits(&self, q: &Matrix, k: &Matrix) -> Matrix {
        let mut logits = k.times(q);
        // Relative terms: `[key row or column][query]`.
        let terms = self.tables.map(|tables| {
            [0, 1].map(|axis| {
                let by_row = tables[axis].times(q);
                let mut terms = Matrix::zeros(self.axes[axis].keys.len(), q.columns());
                for key in 0..terms.rows() {
                    for (i, (term, place)) in terms.row_mut(key).iter_mut().zip(&self.places).enumerate() {
                        *term = by_row.row(self.row(axis, *place, key))[i];
                    }
                }
                terms
            })
        });
        for key in 0..logits.rows() {
            let at = self.key_place(key);
            let logits = logits.row_mut(key);
            if let Some([rows, columns]) = &terms {
                for ((logit, row), column) in logits.iter_mut().zip(rows.row(at[0])).zip(columns.row(at[1])) {
                    *logit += row + column;
                }
            }
            logits.iter_mut().for_each(|logit| *logit *= self.scale);
            if let Some(bias) = self.positions.bias {
                for (logit, place) in logits.iter_mut().zip(&self.places) {
                    *logit += bias.values[bias.at(self.row(0, *place, at[0]), self.row(1, *place, at[1]))];
                }
            }
        }
        logits
    }
}

/// Turns logits into exp(logit − maximum); returns maxima and sums, per query.
#[inline(always)]
fn softmax(scores: &mut Matrix) -> [Vec<f32>; 2] {
    let queries = scores.row(0).len();
    let mut top = vec![f32::NEG_INFINITY; queries];
    for key in 0..scores.rows() {
        for (top, score) in top.iter_mut().zip(scores.row(key)) {
            *top = if *score > *top { *score } else { *top };
        }
    }
    let mut sum = vec![0.0; queries];
    for key in 0..scores.rows() {
        for ((score, top), sum) in scores.row_mut(key).iter_mut().zip(&top).zip(&mut sum) {
            *score = exp(*score - top);
            *sum += *score;
        }
    }
    [top, sum]
}

/// `o = softmax(α(q·k + q·r) + bias) v` over the window of each block.
pub(super) fn forward<T: Element>(
    config: &LocalConfig,
    blocks: Blocks,
    maps: Maps<'_, T>,
    positions: &Positions,
    o: HostViewMut<'_, T, 5>,
    lse: Option<HostViewMut<'_, f32, 4>>,
) {
    let [_, h, y, x, _] = maps.q.layout.shape;
    let e = maps.v.layout.shape[4];
    let shared = Shared::new(config, blocks, maps.q.layout.shape, positions);
    let task = |bh: usize, line: &Line, o: &mut [T], mut lse: Option<&mut [f32]>| {
        let at = [bh / h, bh % h];
        vectorised(|| {
            for column in &shared.lines[1] {
                let block = shared.block(positions.of_head(bh % h), bh % h, line, column);
                let q = gather(&maps.q, at, &line.queries, &column.queries).transposed();
                let k = gather(&maps.k, at, &line.keys, &column.keys);
                let v = gather(&maps.v, at, &line.keys, &column.keys);
                let mut scores = block.logits(&q, &k);
                let [top, sum] = softmax(&mut scores);
                let out = scores.transposed_times(&v);
                for (i, place) in block.places.iter().enumerate() {
                    let pixel = place[0] * x + column.queries.start + place[1];
                    for (o, out) in o[pixel * e..][..e].iter_mut().zip(out.row(i)) {
                        *o = T::from_f32(out / sum[i]);
                    }
                    if let Some(lse) = &mut lse {
                        lse[pixel] = top[i] + sum[i].ln();
                    }
                }
            }
        });
    };
    let write = |o: &mut [T], lse: Option<&mut [f32]>| {
        let o_planes = o.chunks_mut(y * x * e);
        let lse_planes = contiguous_parts(lse, y * x, o_planes.len());
        let mut tasks = Vec::new();
        for (bh, (o, lse)) in o_planes.zip(lse_planes).enumerate() {
            let lse = cut_rows(lse, &shared.lines[0], x);
            let parts = cut_rows(Some(o), &shared.lines[0], x * e).into_iter().flatten().zip(lse);
            tasks.extend(shared.lines[0].iter().zip(parts).map(|(line, (o, lse))| (bh, line, o, lse)));
        }
        tasks.into_par_iter().for_each(|(bh, line, o, lse)| task(bh, line, o, lse));
    };
    with_contiguous(o, |o| with_contiguous_maybe(lse, |lse| write(o, lse)));
}

/// The rows of queries of each line.
fn cut_rows<'a, T>(whole: Option<&'a mut [T]>, lines: &[Line], row: usize) -> Vec<Option<&'a mut [T]>> {
    let mut rest = whole;
    let mut cut = |line: &Line| {
        let (own, after) = rest.take()?.split_at_mut(line.queries.len() * row);
        rest = Some(after);
        Some(own)
    };
    lines.iter().map(&mut cut).collect()
}

/// What a row of blocks adds to the gradients of its head: `[row, column, channel]`, empty where not wanted.
struct LineGrads {
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    sums: PartSums,
}

/// All gradients that are asked for; sums for tables and bias of every head.
pub(super) fn backward<T: Element>(
    config: &LocalConfig,
    blocks: Blocks,
    saved: Saved<'_, T>,
    positions: &Positions,
    outs: Outs<'_, T>,
) -> Vec<HeadSums> {
    let [b, h, y, x, d] = saved.maps.q.layout.shape;
    let e = saved.maps.v.layout.shape[4];
    let shared = Shared::new(config, blocks, saved.maps.q.layout.shape, positions);
    let Outs { wants, dq, dk, dv } = outs;
    let head = |bh: usize, [dq, dk, dv]: [Option<&mut [T]>; 3]| -> HeadSums {
        let of_head = positions.of_head(bh % h);
        let lines = &shared.lines[0];
        let grads: Vec<LineGrads> = lines
            .par_iter()
            .map(|line| {
                vectorised(|| line_backward(&shared, &saved, of_head, [bh / h, bh % h], line, &wants))
            })
            .collect();
        if let Some(dq) = dq {
            let all = grads.iter().flat_map(|line| &line.dq);
            dq.iter_mut().zip(all).for_each(|(to, from)| *to = T::from_f32(*from));
        }
        let sum_lines = |channels: usize, out: Option<&mut [T]>, pick: fn(&LineGrads) -> &[f32]| {
            if let Some(out) = out {
                let mut sum = vec![0.0; y * x * channels];
                for (line, grads) in lines.iter().zip(&grads) {
                    let to = &mut sum[line.keys.start * x * channels..];
                    to.iter_mut().zip(pick(grads)).for_each(|(to, from)| *to += from);
                }
                out.iter_mut().zip(sum).for_each(|(to, from)| *to = T::from_f32(from));
            }
        };
        sum_lines(d, dk, |line| &line.dk);
        sum_lines(e, dv, |line| &line.dv);
        HeadSums::of(grads.iter().map(|line| &line.sums))
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
fn line_backward<T: Element>(
    shared: &Shared,
    saved: &Saved<'_, T>,
    positions: HeadPositions<'_>,
    at: [usize; 2],
    line: &Line,
    wants: &Wants,
) -> LineGrads {
    let Saved { maps, o, lse, d_o } = saved;
    let (x, d, e) = (shared.x, shared.d, maps.v.layout.shape[4]);
    let zeros = |is_wanted: bool, rows: usize, channels: usize| {
        vec![0.0; if is_wanted { rows * x * channels } else { 0 }]
    };
    let mut grads = LineGrads {
        dq: zeros(wants.dq, line.queries.len(), d),
        dk: zeros(wants.dk, line.keys.len(), d),
        dv: zeros(wants.dv, line.keys.len(), e),
        sums: PartSums::zeros(positions, wants),
    };
    for column in &shared.lines[1] {
        let block = shared.block(positions, at[1], line, column);
        let q = gather(&maps.q, at, &line.queries, &column.queries);
        let g = gather(d_o, at, &line.queries, &column.queries);
        let k = gather(&maps.k, at, &line.keys, &column.keys);
        let mut p = block.logits(&q.transposed(), &k);
        // Columns without a query have no weights.
        let mut logsums = vec![f32::INFINITY; p.row(0).len()];
        for (logsum, place) in logsums.iter_mut().zip(&block.places) {
            let [yi, xi] = [line.queries.start + place[0], column.queries.start + place[1]];
            *logsum = lse.data[lse.layout.at([at[0], at[1], yi, xi])];
        }
        for key in 0..p.rows() {
            p.row_mut(key).iter_mut().zip(&logsums).for_each(|(p, lse)| *p = exp(*p - lse));
        }
        if wants.dv {
            scatter(&p.times(&g), &line.keys, &column.keys, line.keys.start, x, &mut grads.dv);
        }
        if !wants.scores() {
            continue;
        }
        let v = gather(&maps.v, at, &line.keys, &column.keys);
        let o = gather(o, at, &line.queries, &column.queries);
        let mut deltas = vec![0.0; logsums.len()];
        for (i, delta) in deltas.iter_mut().enumerate().take(o.rows()) {
            *delta = g.row(i).iter().zip(o.row(i)).map(|(g, o)| g * o).sum();
        }
        let mut ds = v.times(&g.transposed());
        for key in 0..ds.rows() {
            for ((ds, p), delta) in ds.row_mut(key).iter_mut().zip(p.row(key)).zip(&deltas) {
                // A key that is not there has p = 0, whatever the product says.
                *ds = if *p == 0.0 { 0.0 } else { p * (*ds - delta) };
            }
        }
        block.add_bias_sums(&ds, &mut grads.sums);
        for key in 0..ds.rows() {
            ds.row_mut(key).iter_mut().for_each(|ds| *ds *= shared.scale);
        }
        if wants.dk {
            scatter(&ds.times(&q), &line.keys, &column.keys, line.keys.start, x, &mut grads.dk);
        }
        let mut dq = if wants.dq { ds.transposed_times(&k) } else { Matrix::zeros(q.rows(), d) };
        block.backward_tables(&ds, &q, &mut dq, &mut grads.sums);
        if wants.dq {
            scatter(&dq, &line.queries, &column.queries, line.queries.start, x, &mut grads.dq);
        }
    }
    grads
}

impl Block<'_> {
    /// Sums of score gradients, before the factor α, by offset.
    #[inline(always)]
    fn add_bias_sums(&self, ds: &Matrix, sums: &mut PartSums) {
        let (Some(bias), Some(sums)) = (self.positions.bias, sums.bias()) else { return };
        for key in 0..ds.rows() {
            let at = self.key_place(key);
            for (ds, place) in ds.row(key).iter().zip(&self.places) {
                sums[bias.at(self.row(0, *place, at[0]), self.row(1, *place, at[1]))] += ds;
            }
        }
    }

    /// The part of dq that comes through the tables, and the tables' own gradients.
    #[inline(always)]
    fn backward_tables(&self, ds: &Matrix, q: &Matrix, dq: &mut Matrix, sums: &mut PartSums) {
        let (Some(tables), Some(full)) = (self.positions.tables, self.tables) else { return };
        for (axis, full) in full.iter().enumerate() {
            // Score gradients by table row: `[row][query]`.
            let mut by_row = Matrix::zeros(full.rows(), ds.columns());
            for key in 0..ds.rows() {
                let at = self.key_place(key)[axis];
                for (i, (ds, place)) in ds.row(key).iter().zip(&self.places).enumerate() {
                    by_row.row_mut(self.row(axis, *place, at))[i] += ds;
                }
            }
            by_row.add_transposed_times(full, dq);
            let channels = tables.channels[axis].clone();
            if !sums.0[axis].is_empty() {
                let of_rows = by_row.times(q);
                for (row, sums) in sums.0[axis].chunks_mut(channels.len()).enumerate() {
                    sums.iter_mut().zip(&of_rows.row(row)[channels.clone()]).for_each(|(sum, x)| *sum += x);
                }
            }
        }
    }
}
