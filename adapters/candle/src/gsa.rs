//! `gsa` on candle's tensors.

use crate::axial::{AxialInputs, AxialOutput, Tracked, statistics};
use crate::by_dtype;
use crate::content::SavedBuffers;
use crate::graph::{attach, wants};
use crate::memory::{Buffer, Elem, On, Read, dims, grad_like, maybe_mut, ours, wanted};
use crate::tensors::{same_device, same_dtype};
use candle_core::{Error, Result, Tensor};
use macula::content::Saved;
use macula::gsa::{Affine, Backward, Forward, Statistics};
use macula::{Gsa, GsaConfig};

/// What [`gsa`] reads besides queries, keys and values.
#[derive(Clone, Copy)]
pub struct GsaInputs<'a> {
    /// Column offsets, `[2L − 1, d]` or `[1 or h, 2L − 1, d]`.
    pub columns: &'a Tensor,
    /// Row offsets, as `columns`.
    pub rows: &'a Tensor,
    /// Batch norm's parameters, `[e]` or `[1 or h, e]`; absent without batch norm.
    pub affine: Option<Affine<&'a Tensor>>,
    /// Mean and variance for [`BatchNorm::Eval`](crate::BatchNorm::Eval), as `affine`. They get no gradient.
    pub given: Option<Statistics<&'a Tensor>>,
}

/// Global self-attention: content and axial attention of the same queries and values, added.
///
/// `q`, `k`: `[b, h, y, x, d]`; `v`: `[b, h, y, x, e]`. Gradients of all three, of the tables and of batch norm's parameters.
///
/// # Errors
/// Candle's for ranks, element types and devices that do not fit together; macula's, wrapped, for everything else.
pub fn gsa(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    inputs: GsaInputs<'_>,
    config: &GsaConfig,
) -> Result<AxialOutput> {
    let op = Gsa::new(*config).map_err(ours)?;
    same_device(Gsa::NAME, &[q, k, v])?;
    same_dtype(Gsa::NAME, &[q, k, v])?;
    let GsaInputs { columns, rows, affine, given } = inputs;
    let inputs = AxialInputs { columns: Some(columns), rows: Some(rows), affine, given };
    let parameters = Tracked::of(Gsa::NAME, q, inputs)?;
    by_dtype!(Gsa::NAME, q.dtype(), run(op, [q, k, v], parameters))
}

fn run<T: Elem>(op: Gsa, [q, k, v]: [&Tensor; 3], parameters: Tracked) -> Result<AxialOutput> {
    let on = On::of(q.device(), Gsa::NAME)?;
    let Tracked { columns, rows, weight, bias, .. } = &parameters;
    let edges = [Some(q), Some(k), Some(v), columns.as_ref(), rows.as_ref(), weight.as_ref(), bias.as_ref()];
    let wants = wants(edges);
    let read = parameters.readable(&on, q)?;
    let (q, k, v) = (on.readable(q)?, on.readable(k)?, on.readable(v)?);
    let shapes = [dims::<5>(q.layout())?, dims(k.layout())?, dims(v.layout())?];
    let (table_shapes, norm_shape) = (read.table_shapes()?, read.norm_shape()?);
    let mut o = Buffer::<T, 5>::new(&on, shapes[2])?;
    let mut y = Buffer::<T, 5>::new(&on, shapes[2])?;
    let mut saved = SavedBuffers::new(&on, shapes[0], shapes[2][4])?;
    let mut batch = read.batch(&on, op.config().norm)?;
    let no_tables = || Error::Msg("gsa: both tables are needed".into()).bt();
    {
        let (q, k, v, parameters) = (Read::of(&q), Read::of(&k), Read::of(&v), read.read());
        let [Some(columns), Some(rows)] = &parameters.tables else { return Err(no_tables()) };
        let args = Forward {
            q: q.view::<T, 5>()?,
            k: k.view()?,
            v: v.view()?,
            columns: columns.view()?,
            rows: rows.view()?,
            affine: parameters.affine()?,
            given: parameters.given()?,
            o: o.view_mut()?,
            content: Some(Saved {
                summary: saved.summary.view_mut()?,
                max: saved.max.view_mut()?,
                sum: saved.sum.view_mut()?,
            }),
            y: Some(y.view_mut()?),
            batch: match &mut batch {
                Some([mean, var]) => Some(Statistics { mean: mean.view_mut()?, var: var.view_mut()? }),
                None => None,
            },
        };
        let bytes = op.forward_workspace_bytes(on.device(), &args.problem());
        on.with_workspace(bytes, |workspace| op.forward_into(on.device(), args, workspace))?;
    }
    let batch = batch.map(|pair| pair.map(Buffer::into_tensor));
    let returned = batch.as_ref().map(|[mean, var]| Statistics { mean: mean.clone(), var: var.clone() });
    let o = attach(Gsa::NAME, o.into_storage(), &edges, move |_, d_o| {
        let on = On::of(q.device(), Gsa::NAME)?;
        let d_o = on.readable(d_o)?;
        let mut dq = wanted::<T, 5>(&on, wants[0], shapes[0])?;
        let mut dk = wanted::<T, 5>(&on, wants[1], shapes[1])?;
        let mut dv = wanted::<T, 5>(&on, wants[2], shapes[2])?;
        let mut dcolumns = wanted::<f32, 3>(&on, wants[3], table_shapes[0])?;
        let mut drows = wanted::<f32, 3>(&on, wants[4], table_shapes[1])?;
        let mut dweight = wanted::<f32, 2>(&on, wants[5], norm_shape)?;
        let mut dbias = wanted::<f32, 2>(&on, wants[6], norm_shape)?;
        {
            let (q, k, v, d_o) = (Read::of(&q), Read::of(&k), Read::of(&v), Read::of(&d_o));
            let parameters = read.read();
            let [Some(columns), Some(rows)] = &parameters.tables else { return Err(no_tables()) };
            let batch = statistics(&batch);
            let args = Backward {
                q: q.view::<T, 5>()?,
                k: k.view()?,
                v: v.view()?,
                columns: columns.view()?,
                rows: rows.view()?,
                affine: parameters.affine()?,
                statistics: match &batch {
                    Some([mean, var]) => Some(Statistics { mean: mean.view()?, var: var.view()? }),
                    None => parameters.given()?,
                },
                content: Saved {
                    summary: saved.summary.view()?,
                    max: saved.max.view()?,
                    sum: saved.sum.view()?,
                },
                y: y.view()?,
                d_o: d_o.view()?,
                dq: maybe_mut(&mut dq)?,
                dk: maybe_mut(&mut dk)?,
                dv: maybe_mut(&mut dv)?,
                dcolumns: maybe_mut(&mut dcolumns)?,
                drows: maybe_mut(&mut drows)?,
                dweight: maybe_mut(&mut dweight)?,
                dbias: maybe_mut(&mut dbias)?,
            };
            let bytes = op.backward_workspace_bytes(on.device(), &args.problem());
            on.with_workspace(bytes, |workspace| op.backward_into(on.device(), args, workspace))?;
        }
        let table = |grad, like: &Option<Tensor>| match like {
            Some(like) => grad_like(grad, like),
            None => Ok(None),
        };
        Ok(vec![
            grad_like(dq, &q)?,
            grad_like(dk, &k)?,
            grad_like(dv, &v)?,
            table(dcolumns, &read.like[0])?,
            table(drows, &read.like[1])?,
            dweight.map(Buffer::into_tensor),
            dbias.map(Buffer::into_tensor),
        ])
    })?;
    Ok(AxialOutput { o, batch: returned })
}
