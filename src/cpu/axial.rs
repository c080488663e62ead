//! `axial` on the CPU.
//!
//! A line of pixels at a time: its attention weights are one small matrix, made from the queries and the table, used, and
//! forgotten. Lines of a head run in parallel; sums over lines are added in order.

use super::math::combine;
use super::plane::{Lines, with_contiguous};
use super::vectorised;
use crate::config::axial::{Axes, AxialConfig, BatchNorm};
use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Result};
use rayon::prelude::*;

/// What a forward call reads and writes. Shapes have been checked; nothing is empty. Results are written as `O`.
pub(crate) struct Forward<'a, T, O> {
    pub q: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    pub columns: Option<HostView<'a, T, 3>>,
    pub rows: Option<HostView<'a, T, 3>>,
    /// Weight and bias.
    pub affine: Option<[HostView<'a, f32, 2>; 2]>,
    /// Mean and variance of [`BatchNorm::Eval`].
    pub given: Option<[HostView<'a, f32, 2>; 2]>,
    pub o: HostViewMut<'a, O, 5>,
    /// The result between the layers.
    pub y: Option<HostViewMut<'a, T, 5>>,
    /// Where mean and variance of [`BatchNorm::Train`] go.
    pub statistics: Option<[HostViewMut<'a, f32, 2>; 2]>,
}

/// What a backward call reads and writes. A gradient that is `None` is not computed.
pub(crate) struct Backward<'a, T, O> {
    pub q: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    pub columns: Option<HostView<'a, T, 3>>,
    pub rows: Option<HostView<'a, T, 3>>,
    pub affine: Option<[HostView<'a, f32, 2>; 2]>,
    /// Mean and variance: the caller's, or those of this batch.
    pub statistics: Option<[HostView<'a, f32, 2>; 2]>,
    /// The result between the layers, as the forward pass wrote it.
    pub y: Option<HostView<'a, T, 5>>,
    pub d_o: HostView<'a, T, 5>,
    pub dq: Option<HostViewMut<'a, O, 5>>,
    pub dv: Option<HostViewMut<'a, O, 5>>,
    pub dcolumns: Option<HostViewMut<'a, f32, 3>>,
    pub drows: Option<HostViewMut<'a, f32, 3>>,
    pub dweight: Option<HostViewMut<'a, f32, 2>>,
    pub dbias: Option<HostViewMut<'a, f32, 2>>,
}

/// A table of one head: row after row, and column after column.
struct Table {
    rows: usize,
    by_row: Vec<f32>,
    by_channel: Vec<f32>,
}

impl Table {
    fn load<T: Element>(view: &HostView<'_, T, 3>, hi: usize) -> Self {
        let [heads, rows, d] = view.layout.shape;
        let hi = if heads == 1 { 0 } else { hi };
        let at = |row: usize, di: usize| view.data[view.layout.at([hi, row, di])].to_f32();
        Self {
            rows,
            by_row: (0..rows * d).map(|i| at(i / d, i % d)).collect(),
            by_channel: (0..rows * d).map(|i| at(i % rows, i / rows)).collect(),
        }
    }

    fn load_all<T: Element>(view: Option<&HostView<'_, T, 3>>, h: usize) -> Vec<Table> {
        view.map_or(Vec::new(), |view| (0..h).map(|hi| Table::load(view, hi)).collect())
    }

    /// L.
    fn reach(&self) -> usize {
        self.rows.div_ceil(2)
    }

    /// The keys that pixel `i` of a line of `size` sees, and the table row of the first of them.
    fn seen(&self, size: usize, i: usize) -> (std::ops::Range<usize>, usize) {
        let low = (i + 1).saturating_sub(self.reach());
        (low..(i + self.reach()).min(size), low + self.reach() - 1 - i)
    }

    /// The weights of pixel `i`, into `out[j]` for the keys that it sees.
    #[inline(always)]
    fn weights(&self, size: usize, i: usize, q: &[f32], out: &mut [f32]) -> std::ops::Range<usize> {
        let (seen, row) = self.seen(size, i);
        let out = &mut out[seen.clone()];
        out.fill(0.0);
        combine(q, &self.by_channel, self.rows, row, out);
        seen
    }
}

/// One layer of one head, `[y, x, channels]` in f32.
fn layer(lines: Lines, q: &[f32], v: &[f32], table: &Table) -> Vec<f32> {
    let (size, d, e) = (lines.size, q.len() / lines.pixels(), v.len() / lines.pixels());
    let results: Vec<Vec<f32>> = (0..lines.count)
        .into_par_iter()
        .map(|line| {
            let (q, v) = (lines.gather(q, line, d), lines.gather(v, line, e));
            vectorised(|| {
                let (mut o, mut s) = (vec![0.0; size * e], vec![0.0; size]);
                for (i, o) in o.chunks_exact_mut(e).enumerate() {
                    let seen = table.weights(size, i, &q[i * d..][..d], &mut s);
                    combine(&s[seen.clone()], &v[seen.start * e..], e, 0, o);
                }
                o
            })
        })
        .collect();
    lines.scatter(&results, e)
}

/// Gradients of one layer of one head.
struct LayerGrads {
    dq: Vec<f32>,
    dv: Vec<f32>,
    dtable: Vec<f64>,
}

fn layer_backward(lines: Lines, q: &[f32], v: &[f32], table: &Table, g: &[f32]) -> LayerGrads {
    let (size, d, e) = (lines.size, q.len() / lines.pixels(), v.len() / lines.pixels());
    let results: Vec<[Vec<f32>; 3]> = (0..lines.count)
        .into_par_iter()
        .map(|line| {
            let (q, v, g) = (lines.gather(q, line, d), lines.gather(v, line, e), lines.gather(g, line, e));
            vectorised(|| {
                let mut v_by_channel = vec![0.0; v.len()];
                (0..v.len()).for_each(|i| v_by_channel[i % e * size + i / e] = v[i]);
                let (mut dq, mut dv) = (vec![0.0; size * d], vec![0.0; size * e]);
                let mut dtable = vec![0.0; table.by_row.len()];
                // Weights by key, so that each dv is one sum.
                let mut s_by_key = vec![0.0; size * size];
                let (mut s, mut ds) = (vec![0.0; size], vec![0.0; size]);
                for i in 0..size {
                    let qi = &q[i * d..][..d];
                    let seen = table.weights(size, i, qi, &mut s);
                    let (_, row) = table.seen(size, i);
                    seen.clone().for_each(|j| s_by_key[j * size + i] = s[j]);
                    let ds = &mut ds[seen.clone()];
                    ds.fill(0.0);
                    combine(&g[i * e..][..e], &v_by_channel, size, seen.start, ds);
                    combine(ds, &table.by_row[row * d..], d, 0, &mut dq[i * d..][..d]);
                    for (ds, dr) in ds.iter().zip(dtable[row * d..].chunks_exact_mut(d)) {
                        dr.iter_mut().zip(qi).for_each(|(dr, q)| *dr += ds * q);
                    }
                }
                for (s, dv) in s_by_key.chunks_exact(size).zip(dv.chunks_exact_mut(e)) {
                    combine(s, &g, e, 0, dv);
                }
                [dq, dv, dtable]
            })
        })
        .collect();
    let mut dtable = vec![0.0f64; table.by_row.len()];
    for [_, _, part] in &results {
        dtable.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part));
    }
    let (dq, dv): (Vec<_>, Vec<_>) = results.into_iter().map(|[dq, dv, _]| (dq, dv)).unzip();
    LayerGrads { dq: lines.scatter(&dq, d), dv: lines.scatter(&dv, e), dtable }
}

/// Count, mean and summed squares of deviations, mergeable.
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn of(values: impl Iterator<Item = f32> + Clone) -> Self {
        let count = values.clone().count() as f64;
        let mean = values.clone().map(f64::from).sum::<f64>() / count.max(1.0);
        Self { count, mean, squares: values.map(|x| (f64::from(x) - mean).powi(2)).sum() }
    }

    /// Chan et al. 1979.
    fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let apart = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + apart * other.count / count,
            squares: self.squares + other.squares + apart * apart * self.count * other.count / count,
        }
    }
}

/// Batch norm of one channel as scale and shift.
#[derive(Clone, Copy)]
struct Channel {
    weight: f32,
    bias: f32,
    mean: f32,
    inverse_deviation: f32,
}

impl Channel {
    fn apply(&self, y: f32) -> f32 {
        (y - self.mean) * (self.weight * self.inverse_deviation) + self.bias
    }

    fn hat(&self, y: f32) -> f32 {
        (y - self.mean) * self.inverse_deviation
    }
}

/// The channels of one head.
fn channels(
    affine: &[HostView<'_, f32, 2>; 2],
    statistics: [&dyn Fn(usize, usize) -> f32; 2],
    epsilon: f32,
    hi: usize,
) -> Vec<Channel> {
    let [heads, e] = affine[0].layout.shape;
    let hi = if heads == 1 { 0 } else { hi };
    let of = |view: &HostView<'_, f32, 2>, ei| view.data[view.layout.at([hi, ei])];
    let channel = |ei| Channel {
        weight: of(&affine[0], ei),
        bias: of(&affine[1], ei),
        mean: statistics[0](hi, ei),
        inverse_deviation: 1.0 / (statistics[1](hi, ei) + epsilon).sqrt(),
    };
    (0..e).map(channel).collect()
}

fn store<O: Element>(values: &[f32], out: &mut [O]) {
    out.iter_mut().zip(values).for_each(|(out, x)| *out = O::from_f32(*x));
}

/// The op.
pub(crate) fn forward<T: Element, O: Element>(config: &AxialConfig, args: Forward<'_, T, O>) -> Result<()> {
    let Forward { q, v, columns, rows, affine, given, o, y: y_out, statistics } = args;
    let [b, h, y, x, _] = q.layout.shape;
    let e = v.layout.shape[4];
    let plane = y * x * e;
    let tables = [Table::load_all(columns.as_ref(), h), Table::load_all(rows.as_ref(), h)];
    let [along_columns, along_rows] = [Lines::columns(y, x), Lines::rows(y, x)];
    if config.axes != Axes::ColumnsThenRows {
        let (lines, tables) = match config.axes {
            Axes::Columns => (along_columns, &tables[0]),
            _ => (along_rows, &tables[1]),
        };
        with_contiguous(o, |o| {
            o.par_chunks_mut(plane).enumerate().for_each(|(bh, o)| {
                store(&layer(lines, &q.head(bh), &v.head(bh), &tables[bh % h]), o);
            });
        });
        return Ok(());
    }
    let mut own = Vec::new();
    let first = |y_all: &mut [T]| -> Vec<Vec<Moments>> {
        y_all
            .par_chunks_mut(plane)
            .enumerate()
            .map(|(bh, out)| {
                let result = layer(along_columns, &q.head(bh), &v.head(bh), &tables[0][bh % h]);
                store(&result, out);
                match config.norm {
                    // Of the numbers before they are stored.
                    BatchNorm::Train => {
                        (0..e).map(|ei| Moments::of(result.iter().skip(ei).step_by(e).copied())).collect()
                    }
                    _ => Vec::new(),
                }
            })
            .collect()
    };
    let second = |y_all: &[T], moments: &[Vec<Moments>], o: &mut [O]| -> Vec<Moments> {
        let heads = affine.as_ref().map_or(1, |a| a[0].layout.shape[0]);
        let merged: Vec<Moments> = match config.norm {
            BatchNorm::Train => (0..heads * e)
                .map(|c| {
                    let mine = moments.iter().enumerate().filter(|(bh, _)| heads == 1 || bh % h == c / e);
                    mine.map(|(_, m)| m[c % e]).fold(Moments::default(), Moments::merge)
                })
                .collect(),
            _ => Vec::new(),
        };
        let mean = |hi: usize, ei: usize| match &given {
            Some(given) => given[0].data[given[0].layout.at([hi, ei])],
            None => merged.get(hi * e + ei).map_or(0.0, |m| m.mean as f32),
        };
        let var = |hi: usize, ei: usize| match &given {
            Some(given) => given[1].data[given[1].layout.at([hi, ei])],
            None => merged.get(hi * e + ei).map_or(1.0, |m| (m.squares / m.count) as f32),
        };
        o.par_chunks_mut(plane).zip(y_all.par_chunks(plane)).enumerate().for_each(|(bh, (o, y))| {
            let mut z: Vec<f32> = y.iter().map(|y| y.to_f32()).collect();
            if let Some(affine) = affine.as_ref().filter(|_| config.norm != BatchNorm::None) {
                let channels = channels(affine, [&mean, &var], config.epsilon, bh % h);
                z.chunks_exact_mut(e)
                    .for_each(|z| z.iter_mut().zip(&channels).for_each(|(z, c)| *z = c.apply(*z)));
            }
            store(&layer(along_rows, &q.head(bh), &z, &tables[1][bh % h]), o);
        });
        merged
    };
    let mut merged = Vec::new();
    with_contiguous(o, |o| match y_out {
        Some(out) => with_contiguous(out, |y_all| {
            let moments = first(y_all);
            merged = second(y_all, &moments, o);
        }),
        None => {
            own = vec![T::default(); b * h * plane];
            let moments = first(&mut own);
            merged = second(&own, &moments, o);
        }
    });
    if let Some([mean, var]) = statistics {
        for (c, m) in merged.iter().enumerate() {
            mean.data[mean.layout.at([c / e, c % e])] = m.mean as f32;
            var.data[var.layout.at([c / e, c % e])] = (m.squares / m.count) as f32;
        }
    }
    Ok(())
}

/// What one head contributes.
struct HeadGrads {
    dq: Vec<f32>,
    dv: Vec<f32>,
    dcolumns: Vec<f64>,
    drows: Vec<f64>,
}

/// All gradients that are asked for.
pub(crate) fn backward<T: Element, O: Element>(config: &AxialConfig, args: Backward<'_, T, O>) -> Result<()> {
    let Backward {
        q,
        v,
        columns,
        rows,
        affine,
        statistics,
        y: y_in,
        d_o,
        dq,
        dv,
        dcolumns,
        drows,
        dweight,
        dbias,
    } = args;
    let [b, h, y, x, d] = q.layout.shape;
    let e = v.layout.shape[4];
    let tables = [Table::load_all(columns.as_ref(), h), Table::load_all(rows.as_ref(), h)];
    let [along_columns, along_rows] = [Lines::columns(y, x), Lines::rows(y, x)];
    let heads: Vec<HeadGrads> = match (config.axes, &y_in) {
        (Axes::ColumnsThenRows, Some(y_in)) => {
            let norm = affine.as_ref().zip(statistics.as_ref()).filter(|_| config.norm != BatchNorm::None);
            let norm_channels = |hi: usize| {
                norm.map(|(affine, s)| {
                    let mean = |hi: usize, ei: usize| s[0].data[s[0].layout.at([hi, ei])];
                    let var = |hi: usize, ei: usize| s[1].data[s[1].layout.at([hi, ei])];
                    channels(affine, [&mean, &var], config.epsilon, hi)
                })
            };
            let second: Vec<LayerGrads> = (0..b * h)
                .into_par_iter()
                .map(|bh| {
                    let mut z = y_in.head(bh);
                    if let Some(channels) = norm_channels(bh % h) {
                        z.chunks_exact_mut(e)
                            .for_each(|z| z.iter_mut().zip(&channels).for_each(|(z, c)| *z = c.apply(*z)));
                    }
                    layer_backward(along_rows, &q.head(bh), &z, &tables[1][bh % h], &d_o.head(bh))
                })
                .collect();
            // Σ dz·x̂ and Σ dz of every head and channel.
            let sums: Vec<Vec<[f64; 2]>> = (0..b * h)
                .into_par_iter()
                .map(|bh| {
                    let Some(channels) = norm_channels(bh % h) else { return Vec::new() };
                    let mut sums = vec![[0.0; 2]; e];
                    for (y, dz) in y_in.head(bh).chunks_exact(e).zip(second[bh].dv.chunks_exact(e)) {
                        for ei in 0..e {
                            sums[ei][0] += f64::from(dz[ei]) * f64::from(channels[ei].hat(y[ei]));
                            sums[ei][1] += f64::from(dz[ei]);
                        }
                    }
                    sums
                })
                .collect();
            let norm_heads = affine.as_ref().map_or(1, |a| a[0].layout.shape[0]);
            let totals: Vec<[f64; 2]> = (0..if norm.is_some() { norm_heads * e } else { 0 })
                .map(|c| {
                    let mine = sums.iter().enumerate().filter(|(bh, _)| norm_heads == 1 || bh % h == c / e);
                    mine.fold([0.0; 2], |sum, (_, s)| [sum[0] + s[c % e][0], sum[1] + s[c % e][1]])
                })
                .collect();
            for (which, out) in [dweight, dbias].into_iter().enumerate() {
                if let Some(out) = out {
                    totals
                        .iter()
                        .enumerate()
                        .for_each(|(c, total)| out.data[out.layout.at([c / e, c % e])] = total[which] as f32);
                }
            }
            let count = (b * h / norm_heads * y * x) as f64;
            second
                .into_par_iter()
                .enumerate()
                .map(|(bh, second)| {
                    let mut dy = second.dv;
                    if let Some(channels) = norm_channels(bh % h) {
                        let first = if norm_heads == 1 { 0 } else { bh % h * e };
                        for (y, dy) in y_in.head(bh).chunks_exact(e).zip(dy.chunks_exact_mut(e)) {
                            for (ei, channel) in channels.iter().enumerate() {
                                let [by_weight, by_bias] = totals[first + ei].map(|t| (t / count) as f32);
                                let centred = match config.norm {
                                    BatchNorm::Train => dy[ei] - by_bias - channel.hat(y[ei]) * by_weight,
                                    _ => dy[ei],
                                };
                                dy[ei] = channel.weight * channel.inverse_deviation * centred;
                            }
                        }
                    }
                    let first =
                        layer_backward(along_columns, &q.head(bh), &v.head(bh), &tables[0][bh % h], &dy);
                    let dq = second.dq.iter().zip(&first.dq).map(|(a, b)| a + b).collect();
                    HeadGrads { dq, dv: first.dv, dcolumns: first.dtable, drows: second.dtable }
                })
                .collect()
        }
        (axes, _) => {
            let (lines, tables) = match axes {
                Axes::Rows => (along_rows, &tables[1]),
                _ => (along_columns, &tables[0]),
            };
            let head = |bh: usize| {
                let LayerGrads { dq, dv, dtable } =
                    layer_backward(lines, &q.head(bh), &v.head(bh), &tables[bh % h], &d_o.head(bh));
                let nothing = Vec::new();
                match axes {
                    Axes::Rows => HeadGrads { dq, dv, dcolumns: nothing, drows: dtable },
                    _ => HeadGrads { dq, dv, dcolumns: dtable, drows: nothing },
                }
            };
            (0..b * h).into_par_iter().map(head).collect()
        }
    };
    if let Some(out) = dq {
        with_contiguous(out, |out| {
            out.par_chunks_mut(y * x * d).zip(&heads).for_each(|(out, head)| store(&head.dq, out));
        });
    }
    if let Some(out) = dv {
        with_contiguous(out, |out| {
            out.par_chunks_mut(y * x * e).zip(&heads).for_each(|(out, head)| store(&head.dv, out));
        });
    }
    if let Some(out) = dcolumns {
        store_table(out, heads.iter().map(|head| &head.dcolumns), h);
    }
    if let Some(out) = drows {
        store_table(out, heads.iter().map(|head| &head.drows), h);
    }
    Ok(())
}

/// Sums over the batch, and over the heads where they share a table.
fn store_table<'a>(
    out: HostViewMut<'_, f32, 3>,
    heads: impl Iterator<Item = &'a Vec<f64>> + Clone,
    h: usize,
) {
    let [tables, rows, d] = out.layout.shape;
    for i in 0..tables * rows * d {
        let (ti, at) = (i / (rows * d), i % (rows * d));
        let mine = heads.clone().enumerate().filter(|(bh, _)| tables == 1 || bh % h == ti);
        let sum: f64 = mine.filter_map(|(_, head)| head.get(at)).sum();
        out.data[out.layout.at([ti, at / d, at % d])] = sum as f32;
    }
}
