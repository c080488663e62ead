//! `value_mixture` on the CPU: each map visited once per pass, row by row.
//!
//! Rows are shared out to threads; what a row adds to the gradients of the tables is kept apart and added up in the order of
//! the rows, so that results do not depend on the threads.

use super::math::exp;
use super::memory::{Piece, read, split, write};
use super::vectorised;
use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Layout};
use rayon::prelude::*;

/// What a forward call reads and writes. Shapes have been checked; no table is empty.
pub(crate) struct Forward<'a, T> {
    pub vs: HostView<'a, T, 6>,
    pub emb_row: HostView<'a, f32, 2>,
    pub emb_col: HostView<'a, f32, 2>,
    pub nu: HostView<'a, f32, 2>,
    pub o: HostViewMut<'a, T, 5>,
    /// Contiguous.
    pub p: Option<HostViewMut<'a, f32, 3>>,
}

/// What a backward call reads and writes. A gradient that is `None` is not computed.
pub(crate) struct Backward<'a, T> {
    pub vs: HostView<'a, T, 6>,
    pub emb_row: HostView<'a, f32, 2>,
    pub emb_col: HostView<'a, f32, 2>,
    pub nu: HostView<'a, f32, 2>,
    pub d_o: HostView<'a, T, 5>,
    pub dvs: Option<HostViewMut<'a, T, 6>>,
    pub demb_row: Option<HostViewMut<'a, f32, 2>>,
    pub demb_col: Option<HostViewMut<'a, f32, 2>>,
    pub dnu: Option<HostViewMut<'a, f32, 2>>,
}

/// The tables, `[rows, r]`, `[columns, r]` and `[m, r]`, and the weights that follow from them.
struct Weights {
    rows: usize,
    columns: usize,
    r: usize,
    emb_row: Vec<f32>,
    emb_col: Vec<f32>,
    nu: Vec<f32>,
    /// `[m, rows, columns]`.
    p: Vec<f32>,
}

fn table(view: &HostView<'_, f32, 2>) -> Vec<f32> {
    let [rows, r] = view.layout.shape;
    (0..rows * r).map(|i| view.data[view.layout.at([i / r, i % r])]).collect()
}

impl Weights {
    fn new(
        emb_row: &HostView<'_, f32, 2>,
        emb_col: &HostView<'_, f32, 2>,
        nu: &HostView<'_, f32, 2>,
    ) -> Self {
        let ([rows, r], [columns, _], [m, _]) = (emb_row.layout.shape, emb_col.layout.shape, nu.layout.shape);
        let (emb_row, emb_col, nu) = (table(emb_row), table(emb_col), table(nu));
        let sites = rows * columns;
        let mut p = vec![0.0; m * sites];
        let mut scores = vec![0.0; m];
        for site in 0..sites {
            let (row, column) = (&emb_row[site / columns * r..][..r], &emb_col[site % columns * r..][..r]);
            for (score, nu) in scores.iter_mut().zip(nu.chunks_exact(r)) {
                *score = (0..r).map(|ri| (row[ri] + column[ri]) * nu[ri]).sum();
            }
            let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|score| *score = exp(*score - top));
            let sum: f32 = scores.iter().sum();
            for (mi, power) in scores.iter().enumerate() {
                p[mi * sites + site] = power / sum;
            }
        }
        Self { rows, columns, r, emb_row, emb_col, nu, p }
    }

    /// The weights of a mixture along a row of the map; they repeat.
    fn of_row(&self, mi: usize, yi: usize) -> &[f32] {
        &self.p[(mi * self.rows + yi % self.rows) * self.columns..][..self.columns]
    }
}

/// A row of pixels in memory: where it begins, and the strides of pixels and of channels.
#[derive(Clone, Copy)]
struct Row {
    at: usize,
    strides: [isize; 2],
}

impl Row {
    fn of<const R: usize>(layout: &Layout<R>, index: [usize; R]) -> Self {
        Self { at: layout.at(index), strides: [layout.strides[R - 2], layout.strides[R - 1]] }
    }

    fn is_dense(&self, channels: usize) -> bool {
        self.strides == [channels as isize, 1]
    }

    fn pixel(&self, xi: usize) -> usize {
        self.at.wrapping_add_signed(xi as isize * self.strides[0])
    }

    /// As `[pixel, channel]`.
    fn read<T: Element>(&self, data: &[T], channels: usize, to: &mut [f32]) {
        if self.is_dense(channels) {
            return read(data, self.at, 1, to);
        }
        for (xi, pixel) in to.chunks_exact_mut(channels).enumerate() {
            read(data, self.pixel(xi), self.strides[1], pixel);
        }
    }

    fn write<T: Element>(&self, data: &mut [T], channels: usize, from: &[f32]) {
        if self.is_dense(channels) {
            return write(data, self.at, 1, from);
        }
        for (xi, pixel) in from.chunks_exact(channels).enumerate() {
            write(data, self.pixel(xi), self.strides[1], pixel);
        }
    }
}

/// Every row that a box of rows has, as indices from `first` on.
fn rows_of<const R: usize>(shape: [usize; R], first: [usize; R]) -> impl Iterator<Item = [usize; R]> {
    let count = shape[..R - 2].iter().product();
    (0..count).map(move |mut at| {
        let mut index = first;
        for k in (0..R - 2).rev() {
            index[k] += at % shape[k];
            at /= shape[k];
        }
        index
    })
}

/// The same index, counted from the beginning of a piece.
fn within<const R: usize>(mut index: [usize; R], first: [usize; R]) -> [usize; R] {
    index.iter_mut().zip(first).for_each(|(i, first)| *i -= first);
    index
}

/// `to += weight · from`, pixel by pixel.
#[inline(always)]
fn add_weighed(to: &mut [f32], from: &[f32], weights: &[f32], channels: usize) {
    let pixels = to.chunks_exact_mut(channels).zip(from.chunks_exact(channels));
    for ((to, from), w) in pixels.zip(weights.iter().cycle()) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += w * from);
    }
}

/// The product of two pixels.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (a_wide, a_rest) = a.as_chunks::<LANES>();
    let (b_wide, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a_wide.iter().zip(b_wide) {
        for i in 0..LANES {
            sums[i] += a[i] * b[i];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// Output, and weights if they are wanted.
pub(crate) fn forward<T: Element>(args: Forward<'_, T>) {
    let Forward { vs, emb_row, emb_col, nu, o, p } = args;
    let weights = Weights::new(&emb_row, &emb_col, &nu);
    if let Some(p) = p {
        p.data[p.layout.offset..][..weights.p.len()].copy_from_slice(&weights.p);
    }
    if o.layout.is_empty() {
        return;
    }
    let [m, .., x, e] = vs.layout.shape;
    let scratch = || (vec![0.0; x * e], vec![0.0; x * e]);
    split(o, [1, 1, 1, x, e]).into_par_iter().for_each_init(scratch, |(sum, v), piece| {
        let Piece { view: o, first } = piece;
        for index in rows_of(o.layout.shape, first) {
            let [bi, hi, yi, ..] = index;
            sum.fill(0.0);
            for mi in 0..m {
                Row::of(&vs.layout, [mi, bi, hi, yi, 0, 0]).read(vs.data, e, v);
                vectorised(|| add_weighed(sum, v, weights.of_row(mi, yi), e));
            }
            Row::of(&o.layout, within(index, first)).write(o.data, e, sum);
        }
    });
}

/// What a row of one map adds to the gradients of the weights, by column of the tables.
struct Share {
    /// `[m, b, h, y, 0, 0]`.
    row: [usize; 6],
    dots: Vec<f32>,
}

/// What a thread keeps from row to row.
#[derive(Default)]
struct Scratch {
    g: Vec<f32>,
    v: Vec<f32>,
}

/// All gradients that are asked for.
pub(crate) fn backward<T: Element>(args: Backward<'_, T>) {
    let Backward { vs, emb_row, emb_col, nu, d_o, dvs, demb_row, demb_col, dnu } = args;
    let wants_tables = demb_row.is_some() || demb_col.is_some() || dnu.is_some();
    if dvs.is_none() && !wants_tables {
        return;
    }
    let weights = Weights::new(&emb_row, &emb_col, &nu);
    let mut shares =
        if d_o.layout.is_empty() { Vec::new() } else { walk(&weights, vs, d_o, dvs, wants_tables) };
    if wants_tables {
        shares.sort_unstable_by_key(|share| share.row);
        store_tables(&weights, &dscores(&weights, &shares), [demb_row, demb_col, dnu]);
    }
}

/// Writes dvs, if wanted, and returns the shares, if wanted.
fn walk<T: Element>(
    weights: &Weights,
    vs: HostView<'_, T, 6>,
    d_o: HostView<'_, T, 5>,
    dvs: Option<HostViewMut<'_, T, 6>>,
    wants_tables: bool,
) -> Vec<Share> {
    let [m, b, h, y, x, e] = vs.layout.shape;
    let visit = |scratch: &mut Scratch, row: [usize; 6], out: Option<(&mut [T], Row)>| {
        let [mi, bi, hi, yi, ..] = row;
        if wants_tables {
            Row::of(&vs.layout, row).read(vs.data, e, &mut scratch.v);
        }
        let mut dots = vec![0.0; if wants_tables { weights.columns.min(x) } else { 0 }];
        let Scratch { g, v } = scratch;
        vectorised(|| {
            if wants_tables {
                for (xi, (g, v)) in g.chunks_exact(e).zip(v.chunks_exact(e)).enumerate() {
                    dots[xi % weights.columns] += dot(g, v);
                }
            }
            if out.is_some() {
                v.fill(0.0);
                add_weighed(v, g, weights.of_row(mi, yi), e);
            }
        });
        if let Some((data, row)) = out {
            row.write(data, e, v);
        }
        wants_tables.then_some(Share { row: [mi, bi, hi, yi, 0, 0], dots })
    };
    // One visit to a row of d_o for all of its mixtures.
    let begin = |scratch: &mut Scratch, [_, bi, hi, yi, ..]: [usize; 6]| {
        scratch.g.resize(x * e, 0.0);
        scratch.v.resize(x * e, 0.0);
        Row::of(&d_o.layout, [bi, hi, yi, 0, 0]).read(d_o.data, e, &mut scratch.g);
    };
    match dvs {
        Some(dvs) => {
            let mut pieces = split(dvs, [1, 1, 1, 1, x, e]);
            let place = |[mi, bi, hi, yi, ..]: [usize; 6]| [bi, hi, yi, mi];
            pieces.sort_unstable_by_key(|piece| place(piece.first));
            let groups: Vec<&mut [Piece<'_, T, 6>]> =
                pieces.chunk_by_mut(|a, b| place(a.first)[..3] == place(b.first)[..3]).collect();
            let of_group = |scratch: &mut Scratch, group: &mut [Piece<'_, T, 6>]| {
                let mut shares = Vec::new();
                let mut read = None;
                for Piece { view, first } in group {
                    for row in rows_of(view.layout.shape, *first) {
                        if read != Some(place(row)[..3].to_vec()) {
                            begin(scratch, row);
                            read = Some(place(row)[..3].to_vec());
                        }
                        let to = Row::of(&view.layout, within(row, *first));
                        shares.extend(visit(scratch, row, Some((view.data, to))));
                    }
                }
                shares
            };
            groups.into_par_iter().map_init(Scratch::default, of_group).flatten_iter().collect()
        }
        None => {
            let of_row = |scratch: &mut Scratch, at: usize| {
                let (bi, hi, yi) = (at / y / h, at / y % h, at % y);
                begin(scratch, [0, bi, hi, yi, 0, 0]);
                let visit_one = |mi| visit(scratch, [mi, bi, hi, yi, 0, 0], None);
                (0..m).filter_map(visit_one).collect::<Vec<_>>()
            };
            (0..b * h * y).into_par_iter().map_init(Scratch::default, of_row).flatten_iter().collect()
        }
    }
}

/// Gradients of the scores, `[m, rows, columns]`, from the shares in order.
fn dscores(weights: &Weights, shares: &[Share]) -> Vec<f64> {
    let Weights { rows, columns, p, .. } = weights;
    let sites = rows * columns;
    let mut dp = vec![0.0f64; p.len()];
    for Share { row: [mi, _, _, yi, ..], dots } in shares {
        let first = mi * sites + yi % rows * columns;
        dp[first..].iter_mut().zip(dots).for_each(|(dp, dot)| *dp += f64::from(*dot));
    }
    let mut inner = vec![0.0f64; sites];
    for (i, dp) in dp.iter().enumerate() {
        inner[i % sites] += f64::from(p[i]) * dp;
    }
    dp.iter().enumerate().map(|(i, dp)| f64::from(p[i]) * (dp - inner[i % sites])).collect()
}

/// Gradients of row, column and mixture tables.
fn store_tables(weights: &Weights, dscores: &[f64], to: [Option<HostViewMut<'_, f32, 2>>; 3]) {
    let Weights { rows, columns, r, emb_row, emb_col, nu, .. } = weights;
    let (rows, columns, r) = (*rows, *columns, *r);
    let m = nu.len() / r;
    let (mut by_row, mut by_column) = (vec![0.0f64; m * rows], vec![0.0f64; m * columns]);
    for (i, dscore) in dscores.iter().enumerate() {
        by_row[i / columns] += dscore;
        by_column[i / columns / rows * columns + i % columns] += dscore;
    }
    let times = |a: f64, b: f32| a * f64::from(b);
    let [drow, dcolumn, dnu] = to;
    let along = |by: &[f64], count: usize, i: usize, ri: usize| -> f64 {
        (0..m).map(|mi| times(by[mi * count + i], nu[mi * r + ri])).sum()
    };
    fill(drow, |i, ri| along(&by_row, rows, i, ri));
    fill(dcolumn, |i, ri| along(&by_column, columns, i, ri));
    fill(dnu, |mi, ri| {
        let of_rows = (0..rows).map(|yi| times(by_row[mi * rows + yi], emb_row[yi * r + ri]));
        let of_columns = (0..columns).map(|xi| times(by_column[mi * columns + xi], emb_col[xi * r + ri]));
        of_rows.chain(of_columns).sum()
    });
}

fn fill(to: Option<HostViewMut<'_, f32, 2>>, value: impl Fn(usize, usize) -> f64) {
    let Some(HostViewMut { data, layout }) = to else { return };
    let [rows, r] = layout.shape;
    for (i, ri) in (0..rows).flat_map(|i| (0..r).map(move |ri| (i, ri))) {
        data[layout.at([i, ri])] = value(i, ri) as f32;
    }
}
