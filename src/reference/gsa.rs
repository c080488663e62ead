//! Reference of [`gsa`](crate::gsa): the sum of [`content`] and [`axial`].
//!
//! Read as [`Bar`](super::Bar) it allows a kernel to store the part of one branch before it adds the other's.

use super::{Num, axial, content};
use crate::config::gsa::GsaConfig;

/// Everything that a call reads.
#[derive(Clone, Copy)]
pub struct Inputs<'a, R> {
    /// Queries, values, tables and batch norm, as the positional branch takes them.
    pub axial: axial::Inputs<'a, R>,
    /// Keys, `[b, h, y, x, d]`.
    pub k: &'a [R],
}

/// What the forward pass returns for the backward pass.
pub struct Saved<R> {
    /// Of the content branch: summary `[b, h, d, e]`, largest key `[b, h, d]`, sum of weights `[b, h, d]`.
    pub content: [Vec<R>; 3],
    /// The result between columns and rows, `[b, h, y, x, e]`.
    pub y: Vec<R>,
    /// What batch norm used.
    pub statistics: Option<axial::Statistics<R>>,
}

/// Results of [`backward`].
pub struct Grads<R> {
    /// Of keys, `[b, h, y, x, d]`.
    pub dk: Vec<R>,
    /// Of everything else.
    pub axial: axial::Grads<R>,
}

fn content_shape(shape: axial::Shape) -> content::Shape {
    let [b, h, y, x, d] = shape.q;
    content::Shape { bh: b * h, n: y * x, m: y * x, d, e: shape.e }
}

fn sum<R: Num>(a: Vec<R>, b: &[R]) -> Vec<R> {
    a.into_iter().zip(b).map(|(a, b)| (a + *b).stored()).collect()
}

/// `o`, `[b, h, y, x, e]`, and what the backward pass needs; `given` are the statistics of evaluation.
pub fn forward<R: Num>(
    config: &GsaConfig,
    shape: axial::Shape,
    inputs: Inputs<'_, R>,
    given: Option<&axial::Statistics<R>>,
) -> (Vec<R>, Saved<R>) {
    let axial::Inputs { q, v, .. } = inputs.axial;
    let by_content = content::forward(&config.content(), content_shape(shape), q, inputs.k, v);
    let by_position = axial::forward(&config.axial(), shape, inputs.axial, given);
    let content::Output { o, summary, max, sum: weights } = by_content;
    let axial::Output { o: other, y, statistics } = by_position;
    (sum(o, &other), Saved { content: [summary, max, weights], y, statistics })
}

/// `o` of the y and the statistics that a device returned, see [`axial::second_layer`].
pub fn second_layer<R: Num>(
    config: &GsaConfig,
    shape: axial::Shape,
    inputs: Inputs<'_, R>,
    rows: &axial::Table<'_, R>,
    y: &[R],
    statistics: Option<&axial::Statistics<R>>,
) -> Vec<R> {
    let axial::Inputs { q, v, .. } = inputs.axial;
    let by_content = content::forward(&config.content(), content_shape(shape), q, inputs.k, v);
    sum(by_content.o, &axial::second_layer(&config.axial(), shape, inputs.axial, rows, y, statistics))
}

/// Gradients of every input, given the gradient `d_o` of the output.
pub fn backward<R: Num>(
    config: &GsaConfig,
    shape: axial::Shape,
    inputs: Inputs<'_, R>,
    saved: &Saved<R>,
    d_o: &[R],
) -> Grads<R> {
    let axial::Inputs { q, v, .. } = inputs.axial;
    let summary = saved.content.each_ref().map(Vec::as_slice);
    let content::Grads { dq, dk, dv } =
        content::backward(&config.content(), content_shape(shape), [q, inputs.k, v], summary, d_o);
    let statistics = saved.statistics.as_ref();
    let by_position = axial::backward(&config.axial(), shape, inputs.axial, &saved.y, statistics, d_o);
    let (dq, dv) = (sum(dq, &by_position.dq), sum(dv, &by_position.dv));
    Grads { dk, axial: axial::Grads { dq, dv, ..by_position } }
}
