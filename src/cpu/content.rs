//! `content` on the CPU: O(n), each tensor visited once per pass.
//!
//! Positions are cut into chunks whose size depends on nothing but this file; each chunk makes a summary of its own, and
//! summaries are merged in order, so that results do not depend on the number of threads.

use super::math::{combine, exp};
use super::plane::with_contiguous;
use super::vectorised;
use crate::config::content::{ContentConfig, FeatureMap, Form};
use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Result};
use rayon::prelude::*;
use std::ops::Range;

/// What a forward call reads and writes. Shapes have been checked; nothing is empty. Results are written as `O`.
pub(crate) struct Forward<'a, T, O> {
    pub q: HostView<'a, T, 5>,
    pub k: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    pub o: HostViewMut<'a, O, 5>,
    /// Summary, maximum and sum, contiguous.
    pub saved: Option<(HostViewMut<'a, f32, 4>, HostViewMut<'a, f32, 3>, HostViewMut<'a, f32, 3>)>,
}

/// What a backward call reads and writes. A gradient that is `None` is not computed.
pub(crate) struct Backward<'a, T, O> {
    pub q: HostView<'a, T, 5>,
    pub k: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    /// Summary, maximum and sum, contiguous.
    pub saved: (HostView<'a, f32, 4>, HostView<'a, f32, 3>, HostView<'a, f32, 3>),
    pub d_o: HostView<'a, T, 5>,
    pub dq: Option<HostViewMut<'a, O, 5>>,
    pub dk: Option<HostViewMut<'a, O, 5>>,
    pub dv: Option<HostViewMut<'a, O, 5>>,
}

/// Positions per chunk: long enough that merging costs nothing, short enough to fill many threads.
const CHUNK: usize = 1024;

/// One head's summary of keys and values.
#[derive(Clone)]
struct Summary {
    /// `[d, e]`.
    c: Vec<f32>,
    max: Vec<f32>,
    sum: Vec<f32>,
}

/// Positions of one head, read into f32: `[position, channel]`.
fn rows<T: Element>(view: &HostView<'_, T, 5>, bh: usize, range: Range<usize>) -> Vec<f32> {
    let [_, h, _, x, channels] = view.layout.shape;
    let mut out = Vec::with_capacity(range.len() * channels);
    for ni in range {
        let first = view.layout.at([bh / h, bh % h, ni / x, ni % x, 0]);
        let step = view.layout.strides[4];
        if step == 1 {
            out.extend(view.data[first..first + channels].iter().map(|x| x.to_f32()));
        } else {
            out.extend(
                (0..channels).map(|c| view.data[first.wrapping_add_signed(c as isize * step)].to_f32()),
            );
        }
    }
    out
}

/// `matrix[r] += a[p][r] · b[p]`, summed over the positions p, four at a time.
#[inline(always)]
fn accumulate(a: &[f32], b: &[f32], rows: usize, matrix: &mut [f32]) {
    let n = matrix.len() / rows;
    for (a, b) in a.chunks(4 * rows).zip(b.chunks(4 * n)) {
        if a.len() == 4 * rows {
            let (b0, rest) = b.split_at(n);
            let (b1, rest) = rest.split_at(n);
            let (b2, b3) = rest.split_at(n);
            for (r, out) in matrix.chunks_exact_mut(n).enumerate() {
                let w = [a[r], a[rows + r], a[2 * rows + r], a[3 * rows + r]];
                for i in 0..n {
                    out[i] += w[0] * b0[i] + w[1] * b1[i] + (w[2] * b2[i] + w[3] * b3[i]);
                }
            }
        } else {
            for (a, b) in a.chunks_exact(rows).zip(b.chunks_exact(n)) {
                for (w, out) in a.iter().zip(matrix.chunks_exact_mut(n)) {
                    out.iter_mut().zip(b).for_each(|(out, b)| *out += w * b);
                }
            }
        }
    }
}

fn transposed(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows;
    (0..matrix.len()).map(|i| matrix[i % rows * columns + i / rows]).collect()
}

#[inline(always)]
fn feature(map: FeatureMap, x: f32) -> f32 {
    match map {
        FeatureMap::Relu => x.max(0.0),
        FeatureMap::EluPlusOne => x.max(0.0) + exp(x.min(0.0)),
    }
}

#[inline(always)]
fn slope(map: FeatureMap, x: f32) -> f32 {
    match map {
        FeatureMap::Relu if x > 0.0 => 1.0,
        FeatureMap::Relu => 0.0,
        FeatureMap::EluPlusOne => exp(x.min(0.0)),
    }
}

/// Turns keys into weights, before they are divided by the sum of their channel.
#[inline(always)]
fn weigh_keys(form: Form, keys: &mut [f32], max: &[f32]) {
    for row in keys.chunks_exact_mut(max.len()) {
        match form {
            Form::Softmax { .. } => row.iter_mut().zip(max).for_each(|(k, max)| *k = exp(*k - max)),
            Form::DotProduct => {}
            Form::Linear(map) => row.iter_mut().for_each(|k| *k = feature(map, *k)),
        }
    }
}

/// Turns the queries of a position into weights.
#[inline(always)]
fn weigh_query(form: Form, q: &mut [f32]) {
    match form {
        Form::Softmax { norm_queries: false } | Form::DotProduct => {}
        Form::Softmax { norm_queries: true } => {
            let top = q.iter().fold(f32::NEG_INFINITY, |top, &q| if q > top { q } else { top });
            q.iter_mut().for_each(|q| *q = exp(*q - top));
            let z: f32 = q.iter().sum();
            q.iter_mut().for_each(|q| *q /= z);
        }
        Form::Linear(map) => q.iter_mut().for_each(|q| *q = feature(map, *q)),
    }
}

#[inline(always)]
fn summarise_chunk(form: Form, mut keys: Vec<f32>, values: &[f32], d: usize, e: usize) -> Summary {
    let mut max = vec![0.0; d];
    if let Form::Softmax { .. } = form {
        max.fill(f32::NEG_INFINITY);
        for row in keys.chunks_exact(d) {
            max.iter_mut().zip(row).for_each(|(max, &k)| *max = if k > *max { k } else { *max });
        }
    }
    weigh_keys(form, &mut keys, &max);
    let mut sum = vec![0.0; d];
    keys.chunks_exact(d).for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, k)| *sum += k));
    let mut c = vec![0.0; d * e];
    accumulate(&keys, values, d, &mut c);
    Summary { c, max, sum }
}

/// Two neighbouring chunks as one, with the larger maximum.
fn merge(mut a: Summary, b: &Summary, e: usize) -> Summary {
    for c in 0..a.max.len() {
        let max = if b.max[c] > a.max[c] { b.max[c] } else { a.max[c] };
        let (fa, fb) = (exp(a.max[c] - max), exp(b.max[c] - max));
        a.max[c] = max;
        a.sum[c] = a.sum[c] * fa + b.sum[c] * fb;
        for (a, b) in a.c[c * e..][..e].iter_mut().zip(&b.c[c * e..][..e]) {
            *a = *a * fa + b * fb;
        }
    }
    a
}

fn chunks(count: usize) -> Vec<Range<usize>> {
    (0..count).step_by(CHUNK).map(|start| start..(start + CHUNK).min(count)).collect()
}

fn positions<T>(view: &HostView<'_, T, 5>) -> usize {
    view.layout.shape[2] * view.layout.shape[3]
}

fn summarise<T: Element>(form: Form, k: &HostView<'_, T, 5>, v: &HostView<'_, T, 5>, bh: usize) -> Summary {
    let (m, d, e) = (positions(k), k.layout.shape[4], v.layout.shape[4]);
    let parts: Vec<Summary> = chunks(m)
        .into_par_iter()
        .map(|range| {
            let (keys, values) = (rows(k, bh, range.clone()), rows(v, bh, range));
            vectorised(|| summarise_chunk(form, keys, &values, d, e))
        })
        .collect();
    let nothing = Summary { c: vec![0.0; d * e], max: vec![0.0; d], sum: vec![0.0; d] };
    let mut whole = parts.into_iter().reduce(|a, b| merge(a, &b, e)).unwrap_or(nothing);
    match form {
        Form::Softmax { .. } => {
            for (row, sum) in whole.c.chunks_exact_mut(e).zip(&whole.sum) {
                row.iter_mut().for_each(|c| *c /= sum);
            }
        }
        Form::DotProduct => {
            whole.sum.fill(m as f32);
            whole.c.iter_mut().for_each(|c| *c /= m as f32);
        }
        Form::Linear(_) => {}
    }
    whole
}

/// `o = Q̂ (K̂ᵀ v)`.
pub(crate) fn forward<T: Element, O: Element>(config: &ContentConfig, args: Forward<'_, T, O>) -> Result<()> {
    let Forward { q, k, v, o, saved } = args;
    let form = config.form;
    let [b, h, ..] = q.layout.shape;
    let (n, d, e) = (positions(&q), q.layout.shape[4], v.layout.shape[4]);
    let summaries: Vec<Summary> = (0..b * h).into_par_iter().map(|bh| summarise(form, &k, &v, bh)).collect();
    with_contiguous(o, |o| {
        let tasks: Vec<_> = o
            .chunks_mut((n * e).max(1))
            .enumerate()
            .flat_map(|(bh, o)| o.chunks_mut(CHUNK * e).enumerate().map(move |c| (bh, c)))
            .collect();
        tasks.into_par_iter().for_each(|(bh, (chunk, o))| {
            let start = chunk * CHUNK;
            let mut queries = rows(&q, bh, start..start + o.len() / e);
            vectorised(|| {
                let mut sums = vec![0.0f32; e];
                for (query, o) in queries.chunks_exact_mut(d).zip(o.chunks_exact_mut(e)) {
                    weigh_query(form, query);
                    sums.fill(0.0);
                    combine(query, &summaries[bh].c, e, 0, &mut sums);
                    let z = normaliser(form, query, &summaries[bh].sum);
                    o.iter_mut().zip(&sums).for_each(|(o, sum)| *o = O::from_f32(sum / z));
                }
            });
        });
    });
    if let Some((c, max, sum)) = saved {
        let write = |out: &mut [f32], part: fn(&Summary) -> &[f32]| {
            let parts = summaries.iter().flat_map(|s| part(s).iter().copied());
            out.iter_mut().zip(parts).for_each(|(out, x)| *out = x);
        };
        write(&mut c.data[c.layout.offset..], |s| &s.c);
        write(&mut max.data[max.layout.offset..], |s| &s.max);
        write(&mut sum.data[sum.layout.offset..], |s| &s.sum);
    }
    Ok(())
}

#[inline(always)]
fn normaliser(form: Form, weights: &[f32], sum: &[f32]) -> f32 {
    match form {
        Form::Linear(_) => weights.iter().zip(sum).map(|(w, s)| w * s).sum::<f32>() + Form::EPSILON,
        _ => 1.0,
    }
}

/// What the queries of a head pass on to its keys and values.
#[derive(Clone)]
struct SummaryGrad {
    /// `[d, e]`.
    dc: Vec<f32>,
    dsum: Vec<f32>,
}

/// All gradients that are asked for.
pub(crate) fn backward<T: Element, O: Element>(
    config: &ContentConfig,
    args: Backward<'_, T, O>,
) -> Result<()> {
    let Backward { q, k, v, saved, d_o, dq, dk, dv } = args;
    let form = config.form;
    let [b, h, ..] = q.layout.shape;
    let (d, e) = (q.layout.shape[4], v.layout.shape[4]);
    let head = |view: &[f32], bh: usize, len: usize| view[bh * len..][..len].to_vec();
    let saved: Vec<Summary> = (0..b * h)
        .map(|bh| Summary {
            c: head(&saved.0.data[saved.0.layout.offset..], bh, d * e),
            max: head(&saved.1.data[saved.1.layout.offset..], bh, d),
            sum: head(&saved.2.data[saved.2.layout.offset..], bh, d),
        })
        .collect();
    let needs_summary = dk.is_some() || dv.is_some();
    let mut grads: Vec<Vec<SummaryGrad>> = Vec::new();
    with_parts(dq, positions(&q) * d, b * h, |parts| {
        grads = parts
            .into_par_iter()
            .enumerate()
            .map(|(bh, dq)| query_side(form, &q, &d_o, &saved[bh], bh, dq, needs_summary))
            .collect();
    });
    if !needs_summary {
        return Ok(());
    }
    let merged: Vec<SummaryGrad> = grads
        .into_iter()
        .map(|parts| {
            let zero = SummaryGrad { dc: vec![0.0; d * e], dsum: vec![0.0; d] };
            parts.into_iter().fold(zero, |mut all, part| {
                all.dc.iter_mut().zip(&part.dc).for_each(|(a, b)| *a += b);
                all.dsum.iter_mut().zip(&part.dsum).for_each(|(a, b)| *a += b);
                all
            })
        })
        .collect();
    with_parts(dk, positions(&k) * d, b * h, |dk_parts| {
        with_parts(dv, positions(&k) * e, b * h, |dv_parts| {
            let tasks: Vec<_> = dk_parts.into_iter().zip(dv_parts).collect();
            tasks
                .into_par_iter()
                .enumerate()
                .for_each(|(bh, (dk, dv))| key_side(form, [&k, &v], &saved[bh], &merged[bh], bh, dk, dv));
        });
    });
    Ok(())
}

/// Lends an output in `count` equal parts; parts of an output that nobody wants are `None`.
fn with_parts<T: Element>(
    out: Option<HostViewMut<'_, T, 5>>,
    part: usize,
    count: usize,
    write: impl FnOnce(Vec<Option<&mut [T]>>),
) {
    match out {
        Some(out) => with_contiguous(out, |out| write(out.chunks_mut(part).map(Some).collect())),
        None => write((0..count).map(|_| None).collect()),
    }
}

/// Chunks of an output that may be absent.
fn output_chunks<T>(out: Option<&mut [T]>, chunk: usize, count: usize) -> Vec<Option<&mut [T]>> {
    match out {
        Some(out) => out.chunks_mut(chunk).map(Some).collect(),
        None => (0..count).map(|_| None).collect(),
    }
}

/// dq, and for every chunk of queries its part of the gradient of the summary.
fn query_side<T: Element, O: Element>(
    form: Form,
    q: &HostView<'_, T, 5>,
    d_o: &HostView<'_, T, 5>,
    saved: &Summary,
    bh: usize,
    dq: Option<&mut [O]>,
    needs_summary: bool,
) -> Vec<SummaryGrad> {
    let (n, d, e) = (positions(q), q.layout.shape[4], d_o.layout.shape[4]);
    let c_transposed = transposed(&saved.c, d);
    let ranges = chunks(n);
    let outs = output_chunks(dq, CHUNK * d, ranges.len());
    let task = |range: Range<usize>, mut dq: Option<&mut [O]>| {
        let mut part = SummaryGrad { dc: vec![0.0; d * e], dsum: vec![0.0; d] };
        let raw = rows(q, bh, range.clone());
        let (mut weights, mut g) = (raw.clone(), rows(d_o, bh, range.clone()));
        let (mut dw, mut o) = (vec![0.0f32; d], vec![0.0f32; e]);
        for i in 0..range.len() {
            let w = &mut weights[i * d..][..d];
            let gi = &mut g[i * e..][..e];
            weigh_query(form, w);
            dw.fill(0.0);
            if let Form::Linear(_) = form {
                let z = normaliser(form, w, &saved.sum);
                o.fill(0.0);
                combine(w, &saved.c, e, 0, &mut o);
                gi.iter_mut().for_each(|g| *g /= z);
                let through = gi.iter().zip(&o).map(|(g, o)| g * o).sum::<f32>() / z;
                dw.iter_mut().zip(&saved.sum).for_each(|(dw, sum)| *dw = -sum * through);
                part.dsum.iter_mut().zip(&*w).for_each(|(dsum, w)| *dsum -= w * through);
            }
            let Some(dq) = &mut dq else { continue };
            combine(gi, &c_transposed, d, 0, &mut dw);
            let mean: f32 = w.iter().zip(&dw).map(|(w, dw)| w * dw).sum();
            for c in 0..d {
                dq[i * d + c] = O::from_f32(match form {
                    Form::Softmax { norm_queries: true } => w[c] * (dw[c] - mean),
                    Form::Softmax { norm_queries: false } | Form::DotProduct => dw[c],
                    Form::Linear(map) => dw[c] * slope(map, raw[i * d + c]),
                });
            }
        }
        if needs_summary {
            accumulate(&weights, &g, d, &mut part.dc);
        }
        part
    };
    let tasks: Vec<_> = ranges.into_iter().zip(outs).collect();
    tasks.into_par_iter().map(|(range, dq)| vectorised(|| task(range, dq))).collect()
}

/// dk and dv of one head.
fn key_side<T: Element, O: Element>(
    form: Form,
    [k, v]: [&HostView<'_, T, 5>; 2],
    saved: &Summary,
    grad: &SummaryGrad,
    bh: usize,
    dk: Option<&mut [O]>,
    dv: Option<&mut [O]>,
) {
    let (m, d, e) = (positions(k), k.layout.shape[4], v.layout.shape[4]);
    let dc_transposed = transposed(&grad.dc, d);
    let dot =
        |c: usize| -> f32 { saved.c[c * e..][..e].iter().zip(&grad.dc[c * e..]).map(|(a, b)| a * b).sum() };
    let means: Vec<f32> = (0..d).map(dot).collect();
    let inverse: Vec<f32> = match form {
        Form::Linear(_) => vec![1.0; d],
        _ => saved.sum.iter().map(|sum| 1.0 / sum).collect(),
    };
    let ranges = chunks(m);
    let dk_chunks = output_chunks(dk, CHUNK * d, ranges.len());
    let dv_chunks = output_chunks(dv, CHUNK * e, ranges.len());
    let task = |range: Range<usize>, mut dk: Option<&mut [O]>, mut dv: Option<&mut [O]>| {
        let raw = rows(k, bh, range.clone());
        let values = rows(v, bh, range.clone());
        let mut weights = raw.clone();
        weigh_keys(form, &mut weights, &saved.max);
        let (mut direct, mut sums) = (vec![0.0f32; d], vec![0.0f32; e]);
        for j in 0..range.len() {
            let w = &mut weights[j * d..][..d];
            w.iter_mut().zip(&inverse).for_each(|(w, inverse)| *w *= inverse);
            if let Some(dk) = &mut dk {
                direct.fill(0.0);
                combine(&values[j * e..][..e], &dc_transposed, d, 0, &mut direct);
                for c in 0..d {
                    dk[j * d + c] = O::from_f32(match form {
                        Form::Softmax { .. } => w[c] * (direct[c] - means[c]),
                        Form::DotProduct => direct[c] * inverse[c],
                        Form::Linear(map) => (direct[c] + grad.dsum[c]) * slope(map, raw[j * d + c]),
                    });
                }
            }
            if let Some(dv) = &mut dv {
                sums.fill(0.0);
                combine(w, &grad.dc, e, 0, &mut sums);
                dv[j * e..][..e].iter_mut().zip(&sums).for_each(|(dv, sum)| *dv = O::from_f32(*sum));
            }
        }
    };
    let tasks: Vec<_> = ranges.into_iter().zip(dk_chunks).zip(dv_chunks).collect();
    tasks.into_par_iter().for_each(|((range, dk), dv)| vectorised(|| task(range, dk, dv)));
}
