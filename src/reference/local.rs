//! Reference of [`local`](crate::local): the definition, window slot by window slot.
//!
//! Read as [`Bar`](super::Bar) it mirrors what kernels/local_fwd.cu and kernels/local_bwd.cu round to the element type:
//! the softmax weights (and the normaliser sums the rounded ones), and the gradient of the logits.

use super::Num;
use crate::config::local::{LocalConfig, Relative};

/// Sizes of a problem.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Shape of q and k, `[b, h, y, x, d]`.
    pub q: [usize; 5],
    /// Value channels.
    pub e: usize,
    /// Tables per axis: 1 or h.
    pub table_heads: usize,
    /// Biases: 1 or h.
    pub bias_heads: usize,
}

/// Contiguous inputs.
#[derive(Clone, Copy)]
pub struct Inputs<'a, R> {
    /// `[b, h, y, x, d]`.
    pub q: &'a [R],
    /// `[b, h, y, x, d]`.
    pub k: &'a [R],
    /// `[b, h, y, x, e]`.
    pub v: &'a [R],
    /// Row table and column table, `[1 or h, rows, channels]`.
    pub tables: Option<[&'a [R]; 2]>,
    /// What is added to the scaled logits, `[1 or h, rows, rows]`.
    pub bias: Option<&'a [R]>,
}

/// Results of [`forward`].
pub struct Output<R> {
    /// `[b, h, y, x, e]`.
    pub o: Vec<R>,
    /// `[b, h, y, x]`.
    pub lse: Vec<R>,
}

/// Results of [`backward`].
pub struct Grads<R> {
    /// `[b, h, y, x, d]`.
    pub dq: Vec<R>,
    /// `[b, h, y, x, d]`.
    pub dk: Vec<R>,
    /// `[b, h, y, x, e]`.
    pub dv: Vec<R>,
    /// Of the tables, their shapes; empty without tables.
    pub dtables: [Vec<R>; 2],
    /// Of the bias, its shape; empty without one.
    pub dbias: Vec<R>,
}

/// A key in the window of a query: its pixel (none outside the map with border zero) and its rows of the two tables.
struct Key {
    pixel: Option<usize>,
    rows: [usize; 2],
}

struct Problem<'a, R> {
    config: &'a LocalConfig,
    shape: Shape,
    inputs: Inputs<'a, R>,
}

impl<'a, R: Num> Problem<'a, R> {
    fn keys(&self, ni: usize) -> Vec<Key> {
        let [_, _, y, x, _] = self.shape.q;
        let mut keys = Vec::new();
        for a in self.config.window.slots(0, y, ni / x) {
            for b in self.config.window.slots(1, x, ni % x) {
                let pixel = a.key.zip(b.key).map(|(yj, xj)| yj * x + xj);
                keys.push(Key { pixel, rows: [a.row, b.row] });
            }
        }
        keys
    }

    /// Where channel `di` of the relative position is: its place in the row table and in the column table.
    fn relative(&self, bh: usize, rows: [usize; 2], di: usize) -> [Option<usize>; 2] {
        let [_, h, _, _, d] = self.shape.q;
        let channels = self.config.relative.table_channels(d);
        let hi = if self.shape.table_heads == 1 { 0 } else { bh % h };
        let counts = self.config.window.table_rows();
        [0, 1].map(|i| {
            let ci = match self.config.relative {
                Relative::Concat if i == 1 => di.checked_sub(channels[0]),
                _ => Some(di),
            };
            ci.filter(|&ci| ci < channels[i]).map(|ci| (hi * counts[i] + rows[i]) * channels[i] + ci)
        })
    }

    /// Where the bias of a key is, if there is one.
    fn bias(&self, bh: usize, rows: [usize; 2]) -> Option<usize> {
        let hi = if self.shape.bias_heads == 1 { 0 } else { bh % self.shape.q[1] };
        let counts = self.config.window.table_rows();
        self.inputs.bias.map(|_| (hi * counts[0] + rows[0]) * counts[1] + rows[1])
    }

    /// The summands of channel `di` of k + r. They stay apart, as kernels keep them.
    fn key_and_position(&self, bh: usize, key: &Key, di: usize) -> impl Iterator<Item = R> {
        let [_, _, y, x, d] = self.shape.q;
        let content = key.pixel.map(|mi| self.inputs.k[(bh * y * x + mi) * d + di]);
        let places = self.relative(bh, key.rows, di);
        let tables = self.inputs.tables;
        let position = [0, 1].into_iter().filter_map(move |i| tables.zip(places[i]).map(|(t, at)| t[i][at]));
        content.into_iter().chain(position)
    }

    /// α q·(k + r) + bias, term by term as kernels sum them.
    fn logit(&self, bh: usize, ni: usize, key: &Key) -> R {
        let [_, _, y, x, d] = self.shape.q;
        let q = &self.inputs.q[(bh * y * x + ni) * d..][..d];
        let terms =
            q.iter().enumerate().flat_map(|(di, &q)| self.key_and_position(bh, key, di).map(move |r| q * r));
        let logit = R::of(self.config.scale.into()) * R::sum(terms);
        match (self.inputs.bias, self.bias(bh, key.rows)) {
            (Some(bias), Some(at)) => logit + bias[at],
            _ => logit,
        }
    }

    fn value(&self, bh: usize, key: &Key, ei: usize) -> R {
        let [_, _, y, x, _] = self.shape.q;
        key.pixel.map_or(R::of(0.0), |mi| self.inputs.v[(bh * y * x + mi) * self.shape.e + ei])
    }
}

/// `o = softmax(α q·(k + r) + bias) v` over the window, and the logarithm of the softmax's denominator.
pub fn forward<R: Num>(config: &LocalConfig, shape: Shape, inputs: Inputs<'_, R>) -> Output<R> {
    let problem = Problem { config, shape, inputs };
    let [b, h, y, x, _] = shape.q;
    let mut out = Output { o: Vec::new(), lse: Vec::new() };
    for bh in 0..b * h {
        for ni in 0..y * x {
            let keys = problem.keys(ni);
            let logits: Vec<R> = keys.iter().map(|key| problem.logit(bh, ni, key)).collect();
            let top = logits.iter().copied().reduce(R::max).unwrap_or(R::of(0.0));
            let p: Vec<R> = logits.iter().map(|&l| (l - top).exp()).collect();
            let z = R::sum(p.iter().map(|p| p.stored()));
            for ei in 0..shape.e {
                let terms = keys.iter().zip(&p).map(|(key, p)| p.stored() * problem.value(bh, key, ei));
                out.o.push((R::sum(terms) / z).stored());
            }
            out.lse.push(top + R::sum(p.iter().copied()).ln());
        }
    }
    out
}

/// Gradients of every input, given what the forward pass returned and the gradient `d_o` of its output.
pub fn backward<R: Num>(
    config: &LocalConfig,
    shape: Shape,
    inputs: Inputs<'_, R>,
    o: &[R],
    lse: &[R],
    d_o: &[R],
) -> Grads<R> {
    let problem = Problem { config, shape, inputs };
    let ([b, h, _, _, d], e, n) = (shape.q, shape.e, shape.q[2] * shape.q[3]);
    let scale = R::of(config.scale.into());
    // Terms are gathered first and summed once, since the order of a sum is the kernel's own business.
    let mut dq = Vec::with_capacity(inputs.q.len());
    let mut dk_terms = vec![Vec::new(); inputs.k.len()];
    let mut dv_terms = vec![Vec::new(); inputs.v.len()];
    let mut bias_terms = vec![Vec::new(); inputs.bias.map_or(0, <[R]>::len)];
    let mut table_terms = inputs.tables.map(|t| t.map(|t| vec![Vec::new(); t.len()])).unwrap_or_default();
    for bh in 0..b * h {
        for ni in 0..n {
            let row = bh * n + ni;
            let g = &d_o[row * e..][..e];
            let delta = R::sum(g.iter().zip(&o[row * e..][..e]).map(|(&g, &o)| g * o));
            let mut dq_terms = vec![Vec::new(); d];
            for key in &problem.keys(ni) {
                let p = (problem.logit(bh, ni, key) - lse[row]).exp();
                let dp = R::sum(g.iter().enumerate().map(|(ei, &g)| g * problem.value(bh, key, ei)));
                let ds = (p * (dp - delta)).stored();
                if let Some(at) = problem.bias(bh, key.rows) {
                    bias_terms[at].push(ds);
                }
                for di in 0..d {
                    let q = inputs.q[row * d + di];
                    dq_terms[di].extend(problem.key_and_position(bh, key, di).map(|r| ds * r));
                    if let Some(mi) = key.pixel {
                        dk_terms[(bh * n + mi) * d + di].push(ds * q);
                    }
                    for (terms, at) in table_terms.iter_mut().zip(problem.relative(bh, key.rows, di)) {
                        if let (Some(at), true) = (at, !terms.is_empty()) {
                            terms[at].push(ds * q);
                        }
                    }
                }
                if let Some(mi) = key.pixel {
                    for (ei, &g) in g.iter().enumerate() {
                        dv_terms[(bh * n + mi) * e + ei].push(p.stored() * g);
                    }
                }
            }
            dq.extend(dq_terms.into_iter().map(|terms| (scale * R::sum(terms)).stored()));
        }
    }
    Grads {
        dq,
        dk: dk_terms.into_iter().map(|terms| (scale * R::sum(terms)).stored()).collect(),
        dv: dv_terms.into_iter().map(|terms| R::sum(terms).stored()).collect(),
        dtables: table_terms.map(|t| t.into_iter().map(|terms| scale * R::sum(terms)).collect()),
        dbias: bias_terms.into_iter().map(R::sum).collect(),
    }
}
