//! Reference of [`content`](crate::content): the summary of keys and values, then queries times summary.
//!
//! Read as [`Bar`](super::Bar) it mirrors what kernels/content_*.cu round to the element type to feed it to tensor cores:
//! weights of keys and queries, the summary and its gradient, what goes through the normaliser of the linear forms.

use super::Num;
use crate::config::content::{ContentConfig, FeatureMap, Form};

/// Sizes of a problem.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Batch times heads.
    pub bh: usize,
    /// Query positions.
    pub n: usize,
    /// Key positions.
    pub m: usize,
    /// Channels of queries and keys.
    pub d: usize,
    /// Channels of values.
    pub e: usize,
}

/// Results of [`forward`].
pub struct Output<R> {
    /// `[bh, n, e]`.
    pub o: Vec<R>,
    /// The summary C, `[bh, d, e]`.
    pub summary: Vec<R>,
    /// Largest key per channel, `[bh, d]`; 0 where no softmax is taken.
    pub max: Vec<R>,
    /// Sum of the keys' weights per channel, `[bh, d]`; the number of keys for the dot product.
    pub sum: Vec<R>,
}

/// Results of [`backward`].
pub struct Grads<R> {
    /// `[bh, n, d]`.
    pub dq: Vec<R>,
    /// `[bh, m, d]`.
    pub dk: Vec<R>,
    /// `[bh, m, e]`.
    pub dv: Vec<R>,
}

fn feature<R: Num>(map: FeatureMap, x: R) -> R {
    let zero = R::of(0.0);
    match map {
        FeatureMap::Relu => x.max(zero),
        FeatureMap::EluPlusOne if x.value() > 0.0 => x + R::of(1.0),
        FeatureMap::EluPlusOne => x.exp(),
    }
}

/// dφ/dx.
fn slope<R: Num>(map: FeatureMap, x: R) -> R {
    match map {
        FeatureMap::Relu => x.step(),
        FeatureMap::EluPlusOne if x.value() > 0.0 => R::of(1.0),
        FeatureMap::EluPlusOne => x.exp(),
    }
}

/// The weights of one query's channels.
fn query_weights<R: Num>(form: Form, q: &[R]) -> Vec<R> {
    match form {
        Form::Softmax { norm_queries: false } | Form::DotProduct => q.to_vec(),
        Form::Softmax { norm_queries: true } => {
            let top = q.iter().copied().reduce(R::max).unwrap_or(R::of(0.0));
            let w: Vec<R> = q.iter().map(|&q| (q - top).exp()).collect();
            let z = R::sum(w.iter().copied());
            w.into_iter().map(|w| w / z).collect()
        }
        Form::Linear(map) => q.iter().map(|&q| feature(map, q)).collect(),
    }
}

/// The weight of a key before it is divided by the sum of its channel.
fn key_weight<R: Num>(form: Form, k: R, max: R) -> R {
    match form {
        Form::Softmax { .. } => (k - max).exp(),
        Form::DotProduct => k,
        Form::Linear(map) => feature(map, k),
    }
}

/// What the summary of a channel is divided by.
fn divisor<R: Num>(form: Form, sum: R) -> R {
    if let Form::Linear(_) = form { R::of(1.0) } else { sum }
}

/// What a query's output is divided by.
fn normaliser<R: Num>(form: Form, weights: &[R], sum: &[R]) -> R {
    match form {
        Form::Linear(_) => {
            R::sum(weights.iter().zip(sum).map(|(&w, &s)| w * s)) + R::of(Form::EPSILON.into())
        }
        _ => R::of(1.0),
    }
}

/// `o = Q̂ (K̂ᵀ v)`, and what the backward pass needs again.
pub fn forward<R: Num>(config: &ContentConfig, shape: Shape, q: &[R], k: &[R], v: &[R]) -> Output<R> {
    let (Shape { bh, n, m, d, e }, form) = (shape, config.form);
    let mut out = Output { o: Vec::new(), summary: Vec::new(), max: Vec::new(), sum: Vec::new() };
    for bhi in 0..bh {
        let (k, v) = (&k[bhi * m * d..][..m * d], &v[bhi * m * e..][..m * e]);
        for c in 0..d {
            let keys = || (0..m).map(|j| k[j * d + c]);
            let max = match form {
                Form::Softmax { .. } => keys().reduce(R::max).unwrap_or(R::of(0.0)),
                _ => R::of(0.0),
            };
            let w: Vec<R> = keys().map(|k| key_weight(form, k, max)).collect();
            let sum = match form {
                Form::DotProduct => R::of(m as f64),
                _ => R::sum(w.iter().map(|w| w.stored())),
            };
            for ei in 0..e {
                let terms = w.iter().enumerate().map(|(j, w)| w.stored() * v[j * e + ei]);
                out.summary.push(R::sum(terms) / divisor(form, sum));
            }
            out.max.push(max);
            out.sum.push(sum);
        }
        let (summary, sum) = (&out.summary[bhi * d * e..], &out.sum[bhi * d..]);
        let shrink = R::of(form.shrink(m).into());
        for i in 0..n {
            let w = query_weights(form, &q[(bhi * n + i) * d..][..d]);
            let z = normaliser(form, &w, sum);
            for ei in 0..e {
                let shrunk = |c: usize| (summary[c * e + ei] * shrink).stored();
                let terms = w.iter().enumerate().map(|(c, w)| w.stored() * shrunk(c));
                out.o.push((R::sum(terms) / (z * shrink)).stored());
            }
        }
    }
    out
}

/// Gradients of q, k and v, given what the forward pass returned (all but o) and the gradient `d_o` of its output.
pub fn backward<R: Num>(
    config: &ContentConfig,
    shape: Shape,
    [q, k, v]: [&[R]; 3],
    [summary, max, sum]: [&[R]; 3],
    d_o: &[R],
) -> Grads<R> {
    let (Shape { bh, n, m, d, e }, form) = (shape, config.form);
    let mut grads = Grads { dq: Vec::new(), dk: Vec::new(), dv: Vec::new() };
    for bhi in 0..bh {
        let (q, g) = (&q[bhi * n * d..][..n * d], &d_o[bhi * n * e..][..n * e]);
        let (k, v) = (&k[bhi * m * d..][..m * d], &v[bhi * m * e..][..m * e]);
        let (summary, max, sum) =
            (&summary[bhi * d * e..][..d * e], &max[bhi * d..][..d], &sum[bhi * d..][..d]);
        let mut dc_terms = vec![Vec::with_capacity(n); d * e];
        let mut dsum_terms = vec![Vec::new(); d];
        // As the forward pass reads the summary; results are multiplied with it where it does not cancel.
        let shrink = R::of(form.shrink(m).into());
        for i in 0..n {
            let qi = &q[i * d..][..d];
            let w = query_weights(form, qi);
            let z = normaliser(form, &w, sum) * shrink;
            let gi = &g[i * e..][..e];
            let direct: Vec<R> = (0..d)
                .map(|c| R::sum((0..e).map(|ei| gi[ei] * (summary[c * e + ei] * shrink).stored())))
                .collect();
            // Linear forms: o · g, which goes through the normaliser.
            let through = match form {
                Form::Linear(_) => R::sum(w.iter().zip(&direct).map(|(w, &direct)| w.stored() * direct)) / z,
                _ => R::of(0.0),
            };
            for c in 0..d {
                let share = if let Form::Linear(_) = form { w[c] / z } else { w[c] }.stored();
                for ei in 0..e {
                    dc_terms[c * e + ei].push(share * gi[ei]);
                }
                dsum_terms[c].push(R::of(0.0) - share * through.stored());
            }
            let mean = R::sum(w.iter().zip(&direct).map(|(&w, &direct)| w * direct));
            grads.dq.extend((0..d).map(|c| {
                match form {
                    Form::Softmax { norm_queries: true } => w[c] * (direct[c] - mean),
                    Form::Softmax { norm_queries: false } | Form::DotProduct => direct[c],
                    Form::Linear(map) => (direct[c] - sum[c] * shrink * through) * (slope(map, qi[c]) / z),
                }
                .stored()
            }));
        }
        let dsum: Vec<R> = dsum_terms.into_iter().map(|terms| R::sum(terms) * shrink).collect();
        // Divided as the summary was, so that weights of keys need not be.
        let dc: Vec<R> = dc_terms
            .into_iter()
            .enumerate()
            .map(|(i, terms)| match form {
                Form::Linear(_) => R::sum(terms) * shrink,
                _ => R::sum(terms) / sum[i / e],
            })
            .collect();
        for j in 0..m {
            for c in 0..d {
                let vj = &v[j * e..][..e];
                let direct = R::sum(vj.iter().enumerate().map(|(ei, &v)| v * dc[c * e + ei].stored()));
                let dk = match form {
                    Form::Softmax { .. } => {
                        let mean = R::sum((0..e).map(|ei| summary[c * e + ei] * dc[c * e + ei]));
                        key_weight(form, k[j * d + c], max[c]) * (direct - mean)
                    }
                    Form::DotProduct => direct,
                    Form::Linear(map) => (direct + dsum[c]) * slope(map, k[j * d + c]),
                };
                grads.dk.push(dk.stored());
            }
            for ei in 0..e {
                let weight = |c: usize| key_weight(form, k[j * d + c], max[c]).stored();
                let terms = (0..d).map(|c| weight(c) * dc[c * e + ei].stored());
                grads.dv.push(R::sum(terms).stored());
            }
        }
    }
    grads
}
