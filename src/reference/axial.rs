//! Reference of [`axial`](crate::axial): one layer along an axis, batch norm, and the two layers in a row.
//!
//! Read as [`Bar`](super::Bar) it mirrors what kernels/axial_fwd.cu and kernels/axial_bwd.cu round to the element type:
//! attention weights, the result between the layers before and after batch norm, and the gradient of the weights.

use super::Num;
use crate::config::axial::{Axes, AxialConfig, BatchNorm};

/// Sizes of a problem.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Shape of q, `[b, h, y, x, d]`.
    pub q: [usize; 5],
    /// Value channels.
    pub e: usize,
}

/// A table of relative positions, `[1 or h, 2L − 1, d]`; row L − 1 is the pixel itself.
#[derive(Clone, Copy)]
pub struct Table<'a, R> {
    /// 1 or h.
    pub heads: usize,
    /// 2L − 1.
    pub rows: usize,
    /// The numbers.
    pub data: &'a [R],
}

/// Batch norm's parameters, `[1 or h, e]` each.
#[derive(Clone, Copy)]
pub struct Affine<'a, R> {
    /// 1 (statistics over batch, heads and pixels) or h (over batch and pixels).
    pub heads: usize,
    /// γ.
    pub weight: &'a [R],
    /// β.
    pub bias: &'a [R],
}

/// Mean and variance, `[1 or h, e]` each.
#[derive(Clone)]
pub struct Statistics<R> {
    /// Mean.
    pub mean: Vec<R>,
    /// Biased variance.
    pub var: Vec<R>,
}

/// Everything that a call reads.
#[derive(Clone, Copy)]
pub struct Inputs<'a, R> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: &'a [R],
    /// Values, `[b, h, y, x, e]`.
    pub v: &'a [R],
    /// Column offsets, unless only rows are attended.
    pub columns: Option<Table<'a, R>>,
    /// Row offsets, unless only columns are attended.
    pub rows: Option<Table<'a, R>>,
    /// Batch norm's parameters, if there is batch norm.
    pub affine: Option<Affine<'a, R>>,
}

/// Results of [`forward`].
pub struct Output<R> {
    /// `[b, h, y, x, e]`.
    pub o: Vec<R>,
    /// The result between the layers, before batch norm; empty with one layer.
    pub y: Vec<R>,
    /// What batch norm used.
    pub statistics: Option<Statistics<R>>,
}

/// Results of [`backward`]; what there is no input for is empty.
pub struct Grads<R> {
    /// `[b, h, y, x, d]`.
    pub dq: Vec<R>,
    /// `[b, h, y, x, e]`.
    pub dv: Vec<R>,
    /// The shape of the column table.
    pub dcolumns: Vec<R>,
    /// The shape of the row table.
    pub drows: Vec<R>,
    /// `[1 or h, e]`.
    pub dweight: Vec<R>,
    /// `[1 or h, e]`.
    pub dbias: Vec<R>,
}

/// Whether a layer runs along y or along x.
#[derive(Clone, Copy, PartialEq)]
enum Along {
    Columns,
    Rows,
}

/// The keys of pixel `ni`: each with its row of the table.
fn keys(
    along: Along,
    shape: Shape,
    table_rows: usize,
    ni: usize,
) -> impl Iterator<Item = (usize, usize)> + Clone {
    let [_, _, y, x, _] = shape.q;
    let (yi, xi) = (ni / x, ni % x);
    let (size, i) = if along == Along::Columns { (y, yi) } else { (x, xi) };
    let reach = table_rows.div_ceil(2);
    (0..size).filter(move |j| j.abs_diff(i) < reach).map(move |j| {
        let mi = if along == Along::Columns { j * x + xi } else { yi * x + j };
        (mi, j + reach - 1 - i)
    })
}

fn weight<R: Num>(q: &[R], table: &Table<'_, R>, hi: usize, row: usize) -> R {
    let hi = if table.heads == 1 { 0 } else { hi };
    let r = &table.data[(hi * table.rows + row) * q.len()..][..q.len()];
    R::sum(q.iter().zip(r).map(|(&q, &r)| q * r))
}

/// One layer: `o_i = Σ_j (q_i · R[j − i]) v_j` along an axis. Not stored yet.
fn layer<R: Num>(along: Along, shape: Shape, q: &[R], v: &[R], table: &Table<'_, R>) -> Vec<R> {
    let ([b, h, y, x, d], e) = (shape.q, shape.e);
    let n = y * x;
    let mut o = Vec::with_capacity(v.len());
    for bh in 0..b * h {
        for ni in 0..n {
            let qi = &q[(bh * n + ni) * d..][..d];
            let seen: Vec<(usize, R)> = keys(along, shape, table.rows, ni)
                .map(|(mi, row)| (mi, weight(qi, table, bh % h, row).stored()))
                .collect();
            o.extend((0..e).map(|ei| R::sum(seen.iter().map(|&(mi, s)| s * v[(bh * n + mi) * e + ei]))));
        }
    }
    o
}

struct LayerGrads<R> {
    dq: Vec<R>,
    dv: Vec<R>,
    dtable: Vec<R>,
}

/// Gradients of one layer, not stored yet.
fn layer_backward<R: Num>(
    along: Along,
    shape: Shape,
    q: &[R],
    v: &[R],
    table: &Table<'_, R>,
    g: &[R],
) -> LayerGrads<R> {
    let ([b, h, y, x, d], e) = (shape.q, shape.e);
    let n = y * x;
    let mut dq = Vec::with_capacity(q.len());
    let mut dv_terms = vec![Vec::new(); v.len()];
    let mut table_terms = vec![Vec::new(); table.data.len()];
    for bh in 0..b * h {
        let hi = if table.heads == 1 { 0 } else { bh % h };
        for ni in 0..n {
            let (qi, gi) = (&q[(bh * n + ni) * d..][..d], &g[(bh * n + ni) * e..][..e]);
            let mut dq_terms = vec![Vec::new(); d];
            for (mi, row) in keys(along, shape, table.rows, ni) {
                let s = weight(qi, table, bh % h, row).stored();
                let vj = &v[(bh * n + mi) * e..][..e];
                let ds = R::sum(gi.iter().zip(vj).map(|(&g, &v)| g * v)).stored();
                for di in 0..d {
                    let at = (hi * table.rows + row) * d + di;
                    dq_terms[di].push(ds * table.data[at]);
                    table_terms[at].push(ds * qi[di]);
                }
                for ei in 0..e {
                    dv_terms[(bh * n + mi) * e + ei].push(s * gi[ei]);
                }
            }
            dq.extend(dq_terms.into_iter().map(R::sum));
        }
    }
    let sums = |terms: Vec<Vec<R>>| terms.into_iter().map(R::sum).collect();
    LayerGrads { dq, dv: sums(dv_terms), dtable: sums(table_terms) }
}

/// Which statistics element `i` of a `[b, h, y, x, e]` tensor belongs to.
fn channel(shape: Shape, heads: usize, i: usize) -> usize {
    let ([_, h, y, x, _], e) = (shape.q, shape.e);
    let hi = if heads == 1 { 0 } else { i / (y * x * e) % h };
    hi * e + i % e
}

fn batch_statistics<R: Num>(shape: Shape, heads: usize, y: &[R]) -> Statistics<R> {
    let count = R::of((y.len() / (heads * shape.e)) as f64);
    let of = |c: usize| (0..y.len()).filter(move |&i| channel(shape, heads, i) == c).map(|i| y[i]);
    let mean: Vec<R> = (0..heads * shape.e).map(|c| R::sum(of(c)) / count).collect();
    let var =
        (0..heads * shape.e).map(|c| R::sum(of(c).map(|y| (y - mean[c]) * (y - mean[c]))) / count).collect();
    Statistics { mean, var }
}

/// 1 / √(var + ε).
fn inverse_deviation<R: Num>(config: &AxialConfig, var: R) -> R {
    R::of(1.0) / (var + R::of(config.epsilon.into())).sqrt()
}

/// What the second layer reads.
fn normalised<R: Num>(
    config: &AxialConfig,
    shape: Shape,
    affine: Option<Affine<'_, R>>,
    statistics: Option<&Statistics<R>>,
    y: &[R],
) -> Vec<R> {
    match (affine, statistics) {
        (Some(affine), Some(statistics)) => y
            .iter()
            .enumerate()
            .map(|(i, &y)| {
                let c = channel(shape, affine.heads, i);
                let scale = affine.weight[c] * inverse_deviation(config, statistics.var[c]);
                ((y - statistics.mean[c]) * scale + affine.bias[c]).stored()
            })
            .collect(),
        _ => y.to_vec(),
    }
}

/// The op; `given` are the statistics of [`BatchNorm::Eval`].
pub fn forward<R: Num>(
    config: &AxialConfig,
    shape: Shape,
    inputs: Inputs<'_, R>,
    given: Option<&Statistics<R>>,
) -> Output<R> {
    let stored = |o: Vec<R>| o.into_iter().map(R::stored).collect::<Vec<R>>();
    let one = |along, table: Option<Table<'_, R>>| Output {
        o: table.map_or(Vec::new(), |t| stored(layer(along, shape, inputs.q, inputs.v, &t))),
        y: Vec::new(),
        statistics: None,
    };
    let (columns, rows) = match (config.axes, inputs.columns, inputs.rows) {
        (Axes::Columns, columns, _) => return one(Along::Columns, columns),
        (Axes::Rows, _, rows) => return one(Along::Rows, rows),
        (Axes::ColumnsThenRows, Some(columns), Some(rows)) => (columns, rows),
        _ => return one(Along::Columns, None),
    };
    let exact = layer(Along::Columns, shape, inputs.q, inputs.v, &columns);
    let statistics = match (config.norm, inputs.affine) {
        // Of the numbers before they are stored.
        (BatchNorm::Train, Some(affine)) => Some(batch_statistics(shape, affine.heads, &exact)),
        (BatchNorm::Eval, _) => given.cloned(),
        _ => None,
    };
    let y = stored(exact);
    let o = second_layer(config, shape, inputs, &rows, &y, statistics.as_ref());
    Output { o, y, statistics }
}

/// What the rows make of `y`, the result between the layers: `o` of [`Axes::ColumnsThenRows`].
///
/// A device is judged on the y and the statistics that it returned. Their errors are judged apart; in here batch norm
/// may divide them by as little as √ε, and what it subtracts from y is off by the same amount as y is.
pub fn second_layer<R: Num>(
    config: &AxialConfig,
    shape: Shape,
    inputs: Inputs<'_, R>,
    rows: &Table<'_, R>,
    y: &[R],
    statistics: Option<&Statistics<R>>,
) -> Vec<R> {
    let z = normalised(config, shape, inputs.affine, statistics, y);
    layer(Along::Rows, shape, inputs.q, &z, rows).into_iter().map(R::stored).collect()
}

/// Gradients of every input, given what the forward pass returned between the layers and the gradient `d_o` of its output.
pub fn backward<R: Num>(
    config: &AxialConfig,
    shape: Shape,
    inputs: Inputs<'_, R>,
    y: &[R],
    statistics: Option<&Statistics<R>>,
    d_o: &[R],
) -> Grads<R> {
    let stored = |o: Vec<R>| o.into_iter().map(R::stored).collect::<Vec<R>>();
    let nothing = Grads {
        dq: Vec::new(),
        dv: Vec::new(),
        dcolumns: Vec::new(),
        drows: Vec::new(),
        dweight: Vec::new(),
        dbias: Vec::new(),
    };
    let one = |along, table: &Table<'_, R>| layer_backward(along, shape, inputs.q, inputs.v, table, d_o);
    let (columns, rows) = match (config.axes, inputs.columns, inputs.rows) {
        (Axes::Columns, Some(t), _) => {
            let LayerGrads { dq, dv, dtable } = one(Along::Columns, &t);
            return Grads { dq: stored(dq), dv: stored(dv), dcolumns: dtable, ..nothing };
        }
        (Axes::Rows, _, Some(t)) => {
            let LayerGrads { dq, dv, dtable } = one(Along::Rows, &t);
            return Grads { dq: stored(dq), dv: stored(dv), drows: dtable, ..nothing };
        }
        (Axes::ColumnsThenRows, Some(columns), Some(rows)) => (columns, rows),
        _ => return nothing,
    };
    let z = normalised(config, shape, inputs.affine, statistics, y);
    let second = layer_backward(Along::Rows, shape, inputs.q, &z, &rows, d_o);
    let dz = stored(second.dv);
    let (mut dweight, mut dbias) = (Vec::new(), Vec::new());
    let dy = match (inputs.affine, statistics) {
        (Some(affine), Some(statistics)) => {
            let channels = affine.heads * shape.e;
            let (mut by_weight, mut by_bias) = (vec![Vec::new(); channels], vec![Vec::new(); channels]);
            let hat: Vec<R> = y
                .iter()
                .enumerate()
                .map(|(i, &y)| {
                    let c = channel(shape, affine.heads, i);
                    (y - statistics.mean[c]) * inverse_deviation(config, statistics.var[c])
                })
                .collect();
            for (i, (&dz, &hat)) in dz.iter().zip(&hat).enumerate() {
                let c = channel(shape, affine.heads, i);
                by_weight[c].push(dz * hat);
                by_bias[c].push(dz);
            }
            dweight = by_weight.into_iter().map(R::sum).collect();
            dbias = by_bias.into_iter().map(R::sum).collect();
            let count = R::of((y.len() / channels) as f64);
            dz.iter()
                .zip(&hat)
                .enumerate()
                .map(|(i, (&dz, &hat))| {
                    let c = channel(shape, affine.heads, i);
                    let scale = affine.weight[c] * inverse_deviation(config, statistics.var[c]);
                    let centred = match config.norm {
                        BatchNorm::Train => dz - dbias[c] / count - hat * (dweight[c] / count),
                        _ => dz,
                    };
                    (scale * centred).stored()
                })
                .collect()
        }
        _ => dz,
    };
    let first = layer_backward(Along::Columns, shape, inputs.q, inputs.v, &columns, &dy);
    // A kernel may store the part of one layer before it adds the other's.
    let dq = second.dq.into_iter().zip(first.dq).map(|(a, b)| (a.stored() + b).stored()).collect();
    Grads { dq, dv: stored(first.dv), dcolumns: first.dtable, drows: second.dtable, dweight, dbias }
}
