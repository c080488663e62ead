//! `local` on candle's tensors.

use crate::by_dtype;
use crate::graph::{attach, wants};
use crate::memory::{Buffer, Elem, On, Read, dims, grad_like, maybe_mut, ours, wanted};
use crate::tensors::{same_device, same_dtype, table};
use candle_core::{DType, Result, Tensor};
use macula::local::{Backward, Forward, Tables};
use macula::{Local, LocalConfig};

/// What [`local`] knows of positions: tables, a bias, both or, by default, nothing.
#[derive(Clone, Copy, Default)]
pub struct Positions<'a> {
    /// Relative positions, which meet the queries: `[rows, channels]` shared by the heads, or `[1 or h, rows, channels]`.
    pub tables: Option<Tables<&'a Tensor>>,
    /// What is added to the scaled logits, of any float type: `[rows along y, rows along x]` shared by the heads, or
    /// `[1 or h, rows along y, rows along x]`.
    pub bias: Option<&'a Tensor>,
}

impl<'a> From<Tables<&'a Tensor>> for Positions<'a> {
    fn from(tables: Tables<&'a Tensor>) -> Self {
        Self { tables: Some(tables), bias: None }
    }
}

/// Attention of every pixel to the window around it, or of a block of pixels to each other, with trained relative positions.
///
/// `q`, `k`: `[b, h, y, x, d]`; `v`: `[b, h, y, x, e]`; rows of tables and bias, and channels of tables, are what
/// [`Window`](crate::Window) and [`Relative`](crate::Relative) say. Gradients of all six.
///
/// # Errors
/// Candle's for ranks, element types and devices that do not fit together; macula's, wrapped, for everything else.
pub fn local(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    positions: Positions<'_>,
    config: &LocalConfig,
) -> Result<Tensor> {
    let op = Local::new(*config).map_err(ours)?;
    same_device(Local::NAME, &[q, k, v])?;
    same_dtype(Local::NAME, &[q, k, v])?;
    let tables = match positions.tables {
        Some(t) => {
            same_device(Local::NAME, &[q, t.rel_h, t.rel_w])?;
            Some(Tables { rel_h: table(t.rel_h)?, rel_w: table(t.rel_w)? })
        }
        None => None,
    };
    let bias = match positions.bias {
        Some(bias) => {
            same_device(Local::NAME, &[q, bias])?;
            Some(table(&bias.to_dtype(DType::F32)?)?)
        }
        None => None,
    };
    by_dtype!(Local::NAME, q.dtype(), run(op, [q, k, v], tables, bias))
}

fn run<T: Elem>(
    op: Local,
    [q, k, v]: [&Tensor; 3],
    tables: Option<Tables<Tensor>>,
    bias: Option<Tensor>,
) -> Result<Tensor> {
    let on = On::of(q.device(), Local::NAME)?;
    let (rel_h, rel_w) = (tables.as_ref().map(|t| &t.rel_h), tables.as_ref().map(|t| &t.rel_w));
    let edges = [Some(q), Some(k), Some(v), rel_h, rel_w, bias.as_ref()];
    let wants = wants(edges);
    // The tables as they were given, for the element type of their gradients, and as they are read.
    let given = [rel_h.map(Tensor::detach), rel_w.map(Tensor::detach)];
    let read_table = |t: &Option<Tensor>| -> Result<Option<Tensor>> {
        t.as_ref().map(|t| on.readable(&t.to_dtype(q.dtype())?)).transpose()
    };
    let [rel_h, rel_w] = [read_table(&given[0])?, read_table(&given[1])?];
    let table_shape = |t: &Option<Tensor>| t.as_ref().map_or(Ok([0; 3]), |t| dims::<3>(t.layout()));
    let bias = bias.as_ref().map(|bias| on.readable(bias)).transpose()?;
    let table_shapes = [table_shape(&rel_h)?, table_shape(&rel_w)?, table_shape(&bias)?];
    let (q, k, v) = (on.readable(q)?, on.readable(k)?, on.readable(v)?);
    let shapes = [dims::<5>(q.layout())?, dims(k.layout())?, dims(v.layout())?];
    let [b, h, y, x, _] = shapes[0];
    let mut o = Buffer::<T, 5>::new(&on, shapes[2])?;
    let mut lse = Buffer::<f32, 4>::new(&on, [b, h, y, x])?;
    {
        let (q, k, v) = (Read::of(&q), Read::of(&k), Read::of(&v));
        let (rel_h, rel_w) = (rel_h.as_ref().map(Read::of), rel_w.as_ref().map(Read::of));
        let biased = bias.as_ref().map(Read::of);
        let tables = match (&rel_h, &rel_w) {
            (Some(rel_h), Some(rel_w)) => Some(Tables { rel_h: rel_h.view::<T, 3>()?, rel_w: rel_w.view()? }),
            _ => None,
        };
        let args = Forward {
            q: q.view::<T, 5>()?,
            k: k.view()?,
            v: v.view()?,
            tables,
            bias: biased.as_ref().map(Read::view::<f32, 3>).transpose()?,
            o: o.view_mut()?,
            lse: Some(lse.view_mut()?),
        };
        let bytes = op.forward_workspace_bytes(on.device(), &args.problem());
        on.with_workspace(bytes, |workspace| op.forward_into(on.device(), args, workspace))?;
    }
    attach(Local::NAME, o.into_storage(), &edges, move |o, d_o| {
        let on = On::of(q.device(), Local::NAME)?;
        let d_o = on.readable(d_o)?;
        let mut dq = wanted::<T, 5>(&on, wants[0], shapes[0])?;
        let mut dk = wanted::<T, 5>(&on, wants[1], shapes[1])?;
        let mut dv = wanted::<T, 5>(&on, wants[2], shapes[2])?;
        let mut drel_h = wanted::<f32, 3>(&on, wants[3], table_shapes[0])?;
        let mut drel_w = wanted::<f32, 3>(&on, wants[4], table_shapes[1])?;
        let mut dbias = wanted::<f32, 3>(&on, wants[5], table_shapes[2])?;
        {
            let (q, k, v) = (Read::of(&q), Read::of(&k), Read::of(&v));
            let (rel_h, rel_w) = (rel_h.as_ref().map(Read::of), rel_w.as_ref().map(Read::of));
            let biased = bias.as_ref().map(Read::of);
            let tables = match (&rel_h, &rel_w) {
                (Some(rel_h), Some(rel_w)) => {
                    Some(Tables { rel_h: rel_h.view::<T, 3>()?, rel_w: rel_w.view()? })
                }
                _ => None,
            };
            let (o, d_o) = (Read::of(o), Read::of(&d_o));
            let args = Backward {
                q: q.view::<T, 5>()?,
                k: k.view()?,
                v: v.view()?,
                tables,
                bias: biased.as_ref().map(Read::view::<f32, 3>).transpose()?,
                o: o.view()?,
                lse: lse.view()?,
                d_o: d_o.view()?,
                dq: maybe_mut(&mut dq)?,
                dk: maybe_mut(&mut dk)?,
                dv: maybe_mut(&mut dv)?,
                drel_h: maybe_mut(&mut drel_h)?,
                drel_w: maybe_mut(&mut drel_w)?,
                dbias: maybe_mut(&mut dbias)?,
            };
            let bytes = op.backward_workspace_bytes(on.device(), &args.problem());
            on.with_workspace(bytes, |workspace| op.backward_into(on.device(), args, workspace))?;
        }
        let table = |grad, given: &Option<Tensor>| match given {
            Some(given) => grad_like(grad, given),
            None => Ok(None),
        };
        let tables = [table(drel_h, &given[0])?, table(drel_w, &given[1])?];
        let [drel_h, drel_w] = tables;
        let dbias = dbias.map(Buffer::into_tensor);
        Ok(vec![grad_like(dq, &q)?, grad_like(dk, &k)?, grad_like(dv, &v)?, drel_h, drel_w, dbias])
    })
}
