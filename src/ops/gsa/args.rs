//! Arguments of [`Gsa`]: views for callers with memory of their own, tensors for the others.

use super::{BackwardProblem, ForwardProblem, Gsa, check};
use crate::ops::{axial, content, host_pair};
use crate::{Element, Result, Tensor, View, ViewMut, cpu};

/// Arguments of [`Gsa::forward_into`].
pub struct Forward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Keys, `[b, h, y, x, d]`.
    pub k: View<'a, T, 5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: View<'a, T, 5>,
    /// Column offsets, `[1 or h, 2L − 1, d]`.
    pub columns: View<'a, T, 3>,
    /// Row offsets, `[1 or h, 2L − 1, d]`.
    pub rows: View<'a, T, 3>,
    /// Batch norm's parameters; absent without batch norm.
    pub affine: Option<axial::Affine<View<'a, f32, 2>>>,
    /// Mean and variance for [`BatchNorm::Eval`](super::BatchNorm::Eval).
    pub given: Option<axial::Statistics<View<'a, f32, 2>>>,
    /// Output, `[b, h, y, x, e]`. Written whole.
    pub o: ViewMut<'a, T, 5>,
    /// Where to save what the backward pass of the content branch needs.
    pub content: Option<content::Saved<ViewMut<'a, f32, 4>, ViewMut<'a, f32, 3>>>,
    /// Where to save the result between columns and rows, the shape of v; the backward pass needs it.
    pub y: Option<ViewMut<'a, T, 5>>,
    /// Where mean and variance of [`BatchNorm::Train`](super::BatchNorm::Train) go; the backward pass needs them.
    pub batch: Option<axial::Statistics<ViewMut<'a, f32, 2>>>,
}

/// Arguments of [`Gsa::backward_into`]. Gradients are written whole; one that is `None` is not computed.
pub struct Backward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Keys, `[b, h, y, x, d]`.
    pub k: View<'a, T, 5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: View<'a, T, 5>,
    /// Column offsets, `[1 or h, 2L − 1, d]`.
    pub columns: View<'a, T, 3>,
    /// Row offsets, `[1 or h, 2L − 1, d]`.
    pub rows: View<'a, T, 3>,
    /// Batch norm's parameters; absent without batch norm.
    pub affine: Option<axial::Affine<View<'a, f32, 2>>>,
    /// Mean and variance that the forward pass used: given to it, or returned by it.
    pub statistics: Option<axial::Statistics<View<'a, f32, 2>>>,
    /// What the forward pass saved of the content branch.
    pub content: content::Saved<View<'a, f32, 4>, View<'a, f32, 3>>,
    /// What the forward pass wrote between columns and rows.
    pub y: View<'a, T, 5>,
    /// Gradient of the output.
    pub d_o: View<'a, T, 5>,
    /// Gradient of q.
    pub dq: Option<ViewMut<'a, T, 5>>,
    /// Gradient of k.
    pub dk: Option<ViewMut<'a, T, 5>>,
    /// Gradient of v.
    pub dv: Option<ViewMut<'a, T, 5>>,
    /// Gradient of the column table, its shape.
    pub dcolumns: Option<ViewMut<'a, f32, 3>>,
    /// Gradient of the row table, its shape.
    pub drows: Option<ViewMut<'a, f32, 3>>,
    /// Gradient of batch norm's weight, its shape.
    pub dweight: Option<ViewMut<'a, f32, 2>>,
    /// Gradient of batch norm's bias, its shape.
    pub dbias: Option<ViewMut<'a, f32, 2>>,
}

/// What [`Gsa::forward`] reads besides q, k and v.
#[derive(Clone, Copy)]
pub struct Parameters<'a, T> {
    /// Column offsets, `[1 or h, 2L − 1, d]`.
    pub columns: &'a Tensor<T, 3>,
    /// Row offsets, `[1 or h, 2L − 1, d]`.
    pub rows: &'a Tensor<T, 3>,
    /// Batch norm's parameters; absent without batch norm.
    pub affine: Option<axial::Affine<&'a Tensor<f32, 2>>>,
    /// Mean and variance for [`BatchNorm::Eval`](super::BatchNorm::Eval).
    pub given: Option<axial::Statistics<&'a Tensor<f32, 2>>>,
}

/// What the forward pass saves for the backward pass.
pub struct Saved<T> {
    /// Of the content branch.
    pub content: content::SavedTensors,
    /// The result between columns and rows, the shape of v.
    pub y: Tensor<T, 5>,
    /// Mean and variance of this batch, for [`BatchNorm::Train`](super::BatchNorm::Train).
    pub batch: Option<axial::Statistics<Tensor<f32, 2>>>,
}

/// What [`Gsa::forward`] returns.
pub struct Output<T> {
    /// Output, `[b, h, y, x, e]`.
    pub o: Tensor<T, 5>,
    /// What the backward pass needs.
    pub saved: Saved<T>,
}

/// What [`Gsa::backward`] returns; what there is no input for is `None`.
pub struct Grads<T> {
    /// Gradient of q.
    pub dq: Tensor<T, 5>,
    /// Gradient of k.
    pub dk: Tensor<T, 5>,
    /// Gradient of v.
    pub dv: Tensor<T, 5>,
    /// Gradient of the column table.
    pub dcolumns: Tensor<f32, 3>,
    /// Gradient of the row table.
    pub drows: Tensor<f32, 3>,
    /// Gradients of batch norm's parameters.
    pub daffine: Option<axial::Affine<Tensor<f32, 2>>>,
}

impl<'a, T: Element> Forward<'a, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> ForwardProblem {
        ForwardProblem {
            dtype: T::DTYPE,
            q: self.q.layout(),
            k: self.k.layout(),
            v: self.v.layout(),
            columns: self.columns.layout(),
            rows: self.rows.layout(),
            affine: self.affine.as_ref().map(|a| [a.weight.layout(), a.bias.layout()]),
            given: self.given.as_ref().map(|s| [s.mean.layout(), s.var.layout()]),
            o: self.o.layout(),
            saves_content: self.content.is_some(),
            y: self.y.as_ref().map(ViewMut::layout),
            batch: self.batch.as_ref().map(|s| [s.mean.layout(), s.var.layout()]),
        }
    }

    /// The saved tensors of the content branch, which the planner does not see.
    pub(super) fn check_content(&self) -> Result<()> {
        self.content.as_ref().map_or(Ok(()), |s| {
            let (q, e) = (self.q.layout(), self.v.shape()[4]);
            check::content(q, e, s.summary.layout(), s.max.layout(), s.sum.layout())
        })
    }

    pub(super) fn host(self) -> Result<cpu::gsa::Forward<'a, T>> {
        const OP: &str = Gsa::NAME;
        let content = match self.content {
            Some(s) => {
                let summary = s.summary.host(OP, "content.summary")?;
                Some((summary, s.max.host(OP, "content.max")?, s.sum.host(OP, "content.sum")?))
            }
            None => None,
        };
        let statistics = match self.batch {
            Some(s) => Some([s.mean.host(OP, "batch.mean")?, s.var.host(OP, "batch.var")?]),
            None => None,
        };
        Ok(cpu::gsa::Forward {
            q: self.q.host(OP, "q")?,
            k: self.k.host(OP, "k")?,
            v: self.v.host(OP, "v")?,
            columns: self.columns.host(OP, "columns")?,
            rows: self.rows.host(OP, "rows")?,
            affine: host_pair(OP, self.affine.map(|a| [a.weight, a.bias]), "affine")?,
            given: host_pair(OP, self.given.map(|s| [s.mean, s.var]), "given")?,
            o: self.o.host(OP, "o")?,
            content,
            y: self.y.map(|t| t.host(OP, "y")).transpose()?,
            statistics,
        })
    }
}

impl<'a, T: Element> Backward<'a, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> BackwardProblem {
        BackwardProblem {
            dtype: T::DTYPE,
            q: self.q.layout(),
            k: self.k.layout(),
            v: self.v.layout(),
            columns: self.columns.layout(),
            rows: self.rows.layout(),
            affine: self.affine.as_ref().map(|a| [a.weight.layout(), a.bias.layout()]),
            statistics: self.statistics.as_ref().map(|s| [s.mean.layout(), s.var.layout()]),
            y: self.y.layout(),
            d_o: self.d_o.layout(),
            dq: self.dq.as_ref().map(ViewMut::layout),
            dk: self.dk.as_ref().map(ViewMut::layout),
            dv: self.dv.as_ref().map(ViewMut::layout),
            dcolumns: self.dcolumns.as_ref().map(ViewMut::layout),
            drows: self.drows.as_ref().map(ViewMut::layout),
            dweight: self.dweight.as_ref().map(ViewMut::layout),
            dbias: self.dbias.as_ref().map(ViewMut::layout),
        }
    }

    /// As [`Forward::check_content`].
    pub(super) fn check_content(&self) -> Result<()> {
        let (s, q, e) = (&self.content, self.q.layout(), self.v.shape()[4]);
        check::content(q, e, s.summary.layout(), s.max.layout(), s.sum.layout())
    }

    pub(super) fn host(self) -> Result<cpu::gsa::Backward<'a, T>> {
        const OP: &str = Gsa::NAME;
        let s = self.content;
        let summary = s.summary.host(OP, "content.summary")?;
        Ok(cpu::gsa::Backward {
            q: self.q.host(OP, "q")?,
            k: self.k.host(OP, "k")?,
            v: self.v.host(OP, "v")?,
            columns: self.columns.host(OP, "columns")?,
            rows: self.rows.host(OP, "rows")?,
            affine: host_pair(OP, self.affine.map(|a| [a.weight, a.bias]), "affine")?,
            statistics: host_pair(OP, self.statistics.map(|s| [s.mean, s.var]), "statistics")?,
            content: (summary, s.max.host(OP, "content.max")?, s.sum.host(OP, "content.sum")?),
            y: self.y.host(OP, "y")?,
            d_o: self.d_o.host(OP, "d_o")?,
            dq: self.dq.map(|t| t.host(OP, "dq")).transpose()?,
            dk: self.dk.map(|t| t.host(OP, "dk")).transpose()?,
            dv: self.dv.map(|t| t.host(OP, "dv")).transpose()?,
            dcolumns: self.dcolumns.map(|t| t.host(OP, "dcolumns")).transpose()?,
            drows: self.drows.map(|t| t.host(OP, "drows")).transpose()?,
            dweight: self.dweight.map(|t| t.host(OP, "dweight")).transpose()?,
            dbias: self.dbias.map(|t| t.host(OP, "dbias")).transpose()?,
        })
    }
}
