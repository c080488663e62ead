//! Arguments and results of `local`, and the call as the planner and the CPU see it.

use super::{BackwardProblem, ForwardProblem, Local, LocalConfig};
use crate::{DType, Element, Layout, Result, Tensor, View, ViewMut, cpu};

/// Relative positions: one table for rows, one for columns.
#[derive(Clone, Copy)]
pub struct Tables<V> {
    /// For row offsets, `[1 or h, rows, channels]`; [`Window::table_rows`](super::Window::table_rows) counts them.
    pub rel_h: V,
    /// For column offsets, likewise.
    pub rel_w: V,
}

impl<V> Tables<V> {
    pub(super) fn map<W>(self, f: impl Fn(V) -> W) -> Tables<W> {
        Tables { rel_h: f(self.rel_h), rel_w: f(self.rel_w) }
    }
}

/// What a call with owned tensors knows of positions: tables, a bias, both or, by default, nothing.
#[derive(Clone, Copy)]
pub struct Positions<'a, T> {
    /// Relative positions, which meet the queries.
    pub tables: Option<Tables<&'a Tensor<T, 3>>>,
    /// What is added to the scaled logits, `[1 or h, rows along y, rows along x]`.
    pub bias: Option<&'a Tensor<f32, 3>>,
}

impl<T> Default for Positions<'_, T> {
    fn default() -> Self {
        Self { tables: None, bias: None }
    }
}

impl<'a, T> From<Tables<&'a Tensor<T, 3>>> for Positions<'a, T> {
    fn from(tables: Tables<&'a Tensor<T, 3>>) -> Self {
        Self { tables: Some(tables), bias: None }
    }
}

/// Arguments of [`Local::forward_into`](super::Local::forward_into).
pub struct Forward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Keys, the shape of q.
    pub k: View<'a, T, 5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: View<'a, T, 5>,
    /// Relative positions, if any.
    pub tables: Option<Tables<View<'a, T, 3>>>,
    /// What is added to the scaled logits, if anything: `[1 or h, rows along y, rows along x]`.
    pub bias: Option<View<'a, f32, 3>>,
    /// Output, the shape of v. Written whole.
    pub o: ViewMut<'a, T, 5>,
    /// Natural log-sum-exp of the logits, scaled and biased, `[b, h, y, x]`; the backward pass needs it.
    pub lse: Option<ViewMut<'a, f32, 4>>,
}

/// Arguments of [`Local::backward_into`](super::Local::backward_into). Gradients are written whole; one that is `None` is not computed.
pub struct Backward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Keys, the shape of q.
    pub k: View<'a, T, 5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: View<'a, T, 5>,
    /// Relative positions, if any.
    pub tables: Option<Tables<View<'a, T, 3>>>,
    /// What is added to the scaled logits, if anything: `[1 or h, rows along y, rows along x]`.
    pub bias: Option<View<'a, f32, 3>>,
    /// What the forward pass returned.
    pub o: View<'a, T, 5>,
    /// What the forward pass returned, `[b, h, y, x]`.
    pub lse: View<'a, f32, 4>,
    /// Gradient of the output.
    pub d_o: View<'a, T, 5>,
    /// Gradient of q.
    pub dq: Option<ViewMut<'a, T, 5>>,
    /// Gradient of k.
    pub dk: Option<ViewMut<'a, T, 5>>,
    /// Gradient of v.
    pub dv: Option<ViewMut<'a, T, 5>>,
    /// Gradient of the row table, its shape.
    pub drel_h: Option<ViewMut<'a, f32, 3>>,
    /// Gradient of the column table, its shape.
    pub drel_w: Option<ViewMut<'a, f32, 3>>,
    /// Gradient of the bias, its shape.
    pub dbias: Option<ViewMut<'a, f32, 3>>,
}

/// What [`Local::forward`](super::Local::forward) returns.
pub struct Output<T> {
    /// Output, `[b, h, y, x, e]`.
    pub o: Tensor<T, 5>,
    /// Natural log-sum-exp of the logits, scaled and biased, `[b, h, y, x]`.
    pub lse: Tensor<f32, 4>,
}

/// What [`Local::backward`](super::Local::backward) returns.
pub struct Grads<T> {
    /// Gradient of q.
    pub dq: Tensor<T, 5>,
    /// Gradient of k.
    pub dk: Tensor<T, 5>,
    /// Gradient of v.
    pub dv: Tensor<T, 5>,
    /// Gradients of the tables, if there are tables.
    pub dtables: Option<Tables<Tensor<f32, 3>>>,
    /// Gradient of the bias, if there is one.
    pub dbias: Option<Tensor<f32, 3>>,
}

impl<'a, T: Element> Forward<'a, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> ForwardProblem {
        ForwardProblem {
            dtype: T::DTYPE,
            q: self.q.layout(),
            k: self.k.layout(),
            v: self.v.layout(),
            tables: self.tables.as_ref().map(|t| [t.rel_h.layout(), t.rel_w.layout()]),
            bias: self.bias.as_ref().map(View::layout),
            o: self.o.layout(),
            lse: self.lse.as_ref().map(ViewMut::layout),
        }
    }

    pub(super) fn host(self) -> Result<cpu::local::Forward<'a, T>> {
        const OP: &str = Local::NAME;
        Ok(cpu::local::Forward {
            q: self.q.host(OP, "q")?,
            k: self.k.host(OP, "k")?,
            v: self.v.host(OP, "v")?,
            tables: host_tables(self.tables)?,
            bias: self.bias.map(|t| t.host(OP, "bias")).transpose()?,
            o: self.o.host(OP, "o")?,
            lse: self.lse.map(|t| t.host(OP, "lse")).transpose()?,
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
            tables: self.tables.as_ref().map(|t| [t.rel_h.layout(), t.rel_w.layout()]),
            bias: self.bias.as_ref().map(View::layout),
            o: self.o.layout(),
            lse: self.lse.layout(),
            d_o: self.d_o.layout(),
            dq: self.dq.as_ref().map(ViewMut::layout),
            dk: self.dk.as_ref().map(ViewMut::layout),
            dv: self.dv.as_ref().map(ViewMut::layout),
            drel_h: self.drel_h.as_ref().map(ViewMut::layout),
            drel_w: self.drel_w.as_ref().map(ViewMut::layout),
            dbias: self.dbias.as_ref().map(ViewMut::layout),
        }
    }

    pub(super) fn host(self) -> Result<cpu::local::Backward<'a, T>> {
        const OP: &str = Local::NAME;
        Ok(cpu::local::Backward {
            q: self.q.host(OP, "q")?,
            k: self.k.host(OP, "k")?,
            v: self.v.host(OP, "v")?,
            tables: host_tables(self.tables)?,
            bias: self.bias.map(|t| t.host(OP, "bias")).transpose()?,
            o: self.o.host(OP, "o")?,
            lse: self.lse.host(OP, "lse")?,
            d_o: self.d_o.host(OP, "d_o")?,
            dq: self.dq.map(|t| t.host(OP, "dq")).transpose()?,
            dk: self.dk.map(|t| t.host(OP, "dk")).transpose()?,
            dv: self.dv.map(|t| t.host(OP, "dv")).transpose()?,
            drel_h: self.drel_h.map(|t| t.host(OP, "drel_h")).transpose()?,
            drel_w: self.drel_w.map(|t| t.host(OP, "drel_w")).transpose()?,
            dbias: self.dbias.map(|t| t.host(OP, "dbias")).transpose()?,
        })
    }
}

fn host_tables<T: Element>(
    tables: Option<Tables<View<'_, T, 3>>>,
) -> Result<Option<[crate::tensor::HostView<'_, T, 3>; 2]>> {
    match tables {
        Some(t) => Ok(Some([t.rel_h.host(Local::NAME, "rel_h")?, t.rel_w.host(Local::NAME, "rel_w")?])),
        None => Ok(None),
    }
}

impl ForwardProblem {
    /// Contiguous tensors: q of `shape`, `e` value channels, tables if wanted, and no bias.
    pub fn contiguous(
        config: &LocalConfig,
        shape: [usize; 5],
        e: usize,
        has_tables: bool,
        dtype: DType,
    ) -> Self {
        let [b, h, y, x, _] = shape;
        let v = Layout::contiguous([b, h, y, x, e]);
        Self {
            dtype,
            q: shape.into(),
            k: shape.into(),
            v,
            tables: has_tables.then(|| contiguous_tables(config, shape[4])),
            bias: None,
            o: v,
            lse: Some([b, h, y, x].into()),
        }
    }
}

impl BackwardProblem {
    /// Contiguous tensors, as [`ForwardProblem::contiguous`], and all gradients.
    pub fn contiguous(
        config: &LocalConfig,
        shape: [usize; 5],
        e: usize,
        has_tables: bool,
        dtype: DType,
    ) -> Self {
        let [b, h, y, x, _] = shape;
        let (q, v) = (Layout::contiguous(shape), Layout::contiguous([b, h, y, x, e]));
        let tables = has_tables.then(|| contiguous_tables(config, shape[4]));
        Self {
            dtype,
            q,
            k: q,
            v,
            tables,
            bias: None,
            o: v,
            lse: [b, h, y, x].into(),
            d_o: v,
            dq: Some(q),
            dk: Some(q),
            dv: Some(v),
            drel_h: tables.map(|t| t[0]),
            drel_w: tables.map(|t| t[1]),
            dbias: None,
        }
    }
}

/// Tables shared by the heads.
fn contiguous_tables(config: &LocalConfig, d: usize) -> [Layout<3>; 2] {
    let channels = config.relative.table_channels(d);
    let rows = config.window.table_rows();
    [0, 1].map(|i| Layout::contiguous([1, rows[i], channels[i]]))
}
