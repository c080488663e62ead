//! Reference of [`gaussian`](crate::gaussian): the definition, and for separable kernels the two passes that a GPU makes.
//!
//! [`forward`] and [`backward`] say what the op means. [`forward_separable`] and [`backward_separable`] are equal to them
//! in exact arithmetic, where the map is the outer product of a map along y and one along x; read as
//! [`Bar`](super::Bar) they mirror what kernels/gaussian_fwd.cu and kernels/gaussian_bwd.cu round to the element type:
//! weights, and the result of the first pass.

use super::Num;
use crate::config::gaussian::{GaussianConfig, Kernel, Norm};

/// A kernel may take weights up to this for zero: adding them to the weight of the centre, which is 1, changes nothing
/// in f32. So it can leave out the keys that are further away than that.
pub const DROPPABLE: f64 = 1.0 / (1 << 24) as f64;

/// Gradients of [`backward`].
pub struct Grads<R> {
    /// `[b, h, y, x, d]`.
    pub dv: Vec<R>,
    /// The shape of sigma.
    pub dsigma: Vec<R>,
}

/// A weight and how it follows the radius.
#[derive(Clone, Copy)]
struct Weight<R> {
    /// κ(D, σ).
    w: R,
    /// σ ∂κ/∂σ.
    pull: R,
}

/// The weight of a key `dy` rows and `dx` columns away.
fn weight<R: Num>(kernel: Kernel, dy: usize, dx: usize, sigma: R) -> Weight<R> {
    let of = |x: usize| R::of(x as f64);
    let (zero, one, two) = (R::of(0.0), R::of(1.0), R::of(2.0));
    // (D/σ)², never D² / σ²: for radii far from 1 the square of σ leaves the range of f32.
    let (y, x) = (of(dy) / sigma, of(dx) / sigma);
    let square = y * y + x * x;
    let distance = of(dy * dy + dx * dx).sqrt() / sigma;
    // The pull is the weight times a factor.
    let (w, factor) = match kernel {
        Kernel::Gaussian => ((zero - square / two).exp().droppable(DROPPABLE), square),
        Kernel::Manhattan => ((zero - (y + x)).exp().droppable(DROPPABLE), y + x),
        Kernel::Exponential => ((zero - distance).exp().droppable(DROPPABLE), distance),
        Kernel::Cauchy => {
            // Not droppable: its far weights are many enough to count.
            let w = one / (one + square);
            (w, two * (square * w))
        }
        Kernel::Linear => {
            // There is a corner on the radius itself, where a kernel may take either side.
            let w = (one - distance).max(zero);
            return Weight { w, pull: distance * (one - distance).step() };
        }
    };
    if w.value() == 0.0 {
        // The factor may be infinite in f32, and 0 · ∞ is not 0.
        return Weight { w: zero, pull: zero };
    }
    Weight { w, pull: w * factor }
}

/// The weights of one head, by distance along y and x; nothing outside the window.
struct Table<R> {
    width: usize,
    weights: Vec<Weight<R>>,
}

impl<R: Num> Table<R> {
    fn new(config: &GaussianConfig, [y, x]: [usize; 2], sigma: R) -> Self {
        let half = config.window.map_or(usize::MAX, |window| window / 2);
        let nothing = Weight { w: R::of(0.0), pull: R::of(0.0) };
        let weights = (0..y * x).map(|at| match (at / x, at % x) {
            (dy, dx) if dy <= half && dx <= half => weight(config.kernel, dy, dx, sigma),
            _ => nothing,
        });
        // What tensors are multiplied by; Z is the sum of just these.
        let stored = weights.map(|Weight { w, pull }| Weight { w: w.stored(), pull });
        Self { width: x, weights: stored.collect() }
    }

    /// The weight of key `j` for query `i`, both flattened.
    fn get(&self, i: usize, j: usize) -> Weight<R> {
        let (dy, dx) = ((i / self.width).abs_diff(j / self.width), (i % self.width).abs_diff(j % self.width));
        self.weights[dy * self.width + dx]
    }

    /// Z of query `i`, and the mean pull of its keys; 1 and 0 where nothing is normalised.
    fn row(&self, norm: Norm, i: usize) -> (R, R) {
        match norm {
            Norm::None => (R::of(1.0), R::of(0.0)),
            Norm::Row => {
                let keys = 0..self.weights.len();
                let z = R::sum(keys.clone().map(|j| self.get(i, j).w));
                (z, R::sum(keys.map(|j| self.get(i, j).pull)) / z)
            }
        }
    }
}

/// The attention map `[y, x]` of one query.
pub fn attention_map<R: Num>(
    config: &GaussianConfig,
    size: [usize; 2],
    query: [usize; 2],
    sigma: R,
) -> Vec<R> {
    let table = Table::new(config, size, sigma);
    let i = query[0] * size[1] + query[1];
    let (z, _) = table.row(config.norm, i);
    (0..size[0] * size[1]).map(|j| table.get(i, j).w / z).collect()
}

/// `o = A(σ) v`: `v` is `[b, h, y, x, d]`, `sigma` `[h]` or `[1]`.
pub fn forward<R: Num>(config: &GaussianConfig, shape: [usize; 5], v: &[R], sigma: &[R]) -> Vec<R> {
    let [b, h, y, x, d] = shape;
    let n = y * x;
    let mut o = Vec::with_capacity(v.len());
    for bh in 0..b * h {
        let table = Table::new(config, [y, x], sigma[bh % h % sigma.len()]);
        for i in 0..n {
            let (z, _) = table.row(config.norm, i);
            for di in 0..d {
                let terms = (0..n).map(|j| table.get(i, j).w * v[(bh * n + j) * d + di]);
                o.push((R::sum(terms) / z).stored());
            }
        }
    }
    o
}

/// Gradients of `v` and `sigma` for the gradient `d_o` of the output.
pub fn backward<R: Num>(
    config: &GaussianConfig,
    shape: [usize; 5],
    v: &[R],
    sigma: &[R],
    d_o: &[R],
) -> Grads<R> {
    let [b, h, y, x, d] = shape;
    let n = y * x;
    let mut dv = Vec::with_capacity(v.len());
    let mut dsigma = vec![Vec::new(); sigma.len()];
    for bh in 0..b * h {
        let radius = sigma[bh % h % sigma.len()];
        let table = Table::new(config, [y, x], radius);
        let rows: Vec<(R, R)> = (0..n).map(|i| table.row(config.norm, i)).collect();
        let at = |ni: usize, di: usize| (bh * n + ni) * d + di;
        for j in 0..n {
            for di in 0..d {
                let terms = (0..n).map(|i| table.get(i, j).w * (d_o[at(i, di)] / rows[i].0).stored());
                dv.push(R::sum(terms).stored());
            }
        }
        // ∂A_ij/∂σ = (pull_ij − w_ij · mean_i) / (Z_i σ)
        for (i, &(z, mean)) in rows.iter().enumerate() {
            let terms = (0..n).map(|j| {
                let Weight { w, pull } = table.get(i, j);
                (pull - w * mean) * R::sum((0..d).map(|di| d_o[at(i, di)] * v[at(j, di)]))
            });
            dsigma[bh % h % sigma.len()].push(R::sum(terms) / z / radius);
        }
    }
    Grads { dv, dsigma: dsigma.into_iter().map(R::sum).collect() }
}

/// A separable map along one axis: weights by distance, and for each query Z and the mean pull.
struct Axis<R> {
    weights: Vec<Weight<R>>,
    rows: Vec<(R, R)>,
    /// A power of two that keeps sums of products with weights in the range of the values.
    scale: R,
}

impl<R: Num> Axis<R> {
    fn new(config: &GaussianConfig, size: usize, sigma: R) -> Self {
        // Along one axis the weights are those of a map with one column.
        let table = Table::new(config, [size, 1], sigma);
        let rows: Vec<(R, R)> = (0..size).map(|i| table.row(config.norm, i)).collect();
        let total = 2.0 * table.weights.iter().map(|weight| weight.w.value()).sum::<f64>();
        let scale = match config.norm {
            Norm::Row => 1.0,
            Norm::None => (-total.log2().ceil()).exp2(),
        };
        Self { weights: table.weights, rows, scale: R::of(scale) }
    }

    fn w(&self, i: usize, j: usize) -> R {
        self.weights[i.abs_diff(j)].w
    }

    /// σ ∂A_ij/∂σ.
    fn lean(&self, i: usize, j: usize) -> R {
        let (Weight { w, pull }, (z, mean)) = (self.weights[i.abs_diff(j)], self.rows[i]);
        (pull - w * mean) / z
    }
}

/// [`forward`] of a separable kernel in two passes, along y and then along x.
pub fn forward_separable<R: Num>(config: &GaussianConfig, shape: [usize; 5], v: &[R], sigma: &[R]) -> Vec<R> {
    let [b, h, y, x, d] = shape;
    let mut o = Vec::with_capacity(v.len());
    for bh in 0..b * h {
        let radius = sigma[bh % h % sigma.len()];
        let (along_y, along_x) = (Axis::new(config, y, radius), Axis::new(config, x, radius));
        let t = columns(&along_y, [y, x, d], &v[bh * y * x * d..][..y * x * d]);
        for (yi, xi, di) in indices([y, x, d]) {
            let terms = (0..x).map(|xj| along_x.w(xi, xj) * t[(yi * x + xj) * d + di]);
            o.push((R::sum(terms) / along_x.rows[xi].0 / along_y.scale).stored());
        }
    }
    o
}

/// [`backward`] of a separable kernel: the gradient goes back along x, then along y; `t` is computed again.
pub fn backward_separable<R: Num>(
    config: &GaussianConfig,
    shape: [usize; 5],
    v: &[R],
    sigma: &[R],
    d_o: &[R],
) -> Grads<R> {
    let [b, h, y, x, d] = shape;
    let plane = y * x * d;
    let mut dv = Vec::with_capacity(v.len());
    let mut dsigma = vec![Vec::new(); sigma.len()];
    for bh in 0..b * h {
        let radius = sigma[bh % h % sigma.len()];
        let (along_y, along_x) = (Axis::new(config, y, radius), Axis::new(config, x, radius));
        let (v, g) = (&v[bh * plane..][..plane], &d_o[bh * plane..][..plane]);
        let at = |yi: usize, xi: usize, di: usize| (yi * x + xi) * d + di;
        let t = columns(&along_y, [y, x, d], v);
        let mut back = Vec::with_capacity(plane);
        for (yi, xj, di) in indices([y, x, d]) {
            let terms =
                (0..x).map(|xi| along_x.w(xi, xj) * (g[at(yi, xi, di)] / along_x.rows[xi].0).stored());
            back.push((R::sum(terms) * along_x.scale).stored());
        }
        for (yj, xj, di) in indices([y, x, d]) {
            let terms =
                (0..y).map(|yi| along_y.w(yi, yj) * (back[at(yi, xj, di)] / along_y.rows[yi].0).stored());
            dv.push((R::sum(terms) / along_x.scale).stored());
        }
        let along_x_terms = (0..x * x).map(|ij| {
            let (xi, xj) = (ij / x, ij % x);
            let products = indices([y, 1, d]).map(|(yi, _, di)| g[at(yi, xi, di)] * t[at(yi, xj, di)]);
            along_x.lean(xi, xj) * R::sum(products) / along_y.scale
        });
        let along_y_terms = (0..y * y).map(|ij| {
            let (yi, yj) = (ij / y, ij % y);
            let products = indices([1, x, d]).map(|(_, xi, di)| back[at(yi, xi, di)] * v[at(yj, xi, di)]);
            along_y.lean(yi, yj) * R::sum(products) / along_x.scale
        });
        dsigma[bh % h % sigma.len()].push(R::sum(along_x_terms.chain(along_y_terms)) / radius);
    }
    Grads { dv, dsigma: dsigma.into_iter().map(R::sum).collect() }
}

/// The first pass, as it is stored: divided by Z, or scaled where nothing is normalised.
fn columns<R: Num>(along_y: &Axis<R>, [y, x, d]: [usize; 3], v: &[R]) -> Vec<R> {
    let mut t = Vec::with_capacity(v.len());
    for (yi, xi, di) in indices([y, x, d]) {
        let terms = (0..y).map(|yj| along_y.w(yi, yj) * v[(yj * x + xi) * d + di]);
        t.push((R::sum(terms) / along_y.rows[yi].0 * along_y.scale).stored());
    }
    t
}

/// Every index of a plane, in the order of memory.
fn indices([y, x, d]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..y * x * d).map(move |at| (at / (x * d), at / d % x, at % d))
}
