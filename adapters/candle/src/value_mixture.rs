//! `value_mixture` on candle's tensors.

use crate::by_dtype;
use crate::graph::{attach, wants};
use crate::memory::{Buffer, Elem, On, Read, dims, grad_like, maybe_mut, wanted};
use crate::tensors::same_device;
use candle_core::{DType, Result, Tensor};
use macula::ValueMixture;
use macula::value_mixture::{Backward, Forward, Tables};

/// A sum of m maps, each pixel weighed by where it lies: the values of the attention stem.
///
/// `vs`: `[m, b, h, y, x, e]`; the tables emb_row `[rows, r]`, emb_col `[columns, r]` and nu `[m, r]` have any float type and
/// repeat over the map. Returns `[b, h, y, x, e]`. Gradients of all four.
///
/// # Errors
/// Candle's for ranks, element types and devices that do not fit together; macula's, wrapped, for everything else.
pub fn value_mixture(vs: &Tensor, tables: Tables<&Tensor>) -> Result<Tensor> {
    let Tables { emb_row, emb_col, nu } = tables;
    same_device(ValueMixture::NAME, &[vs, emb_row, emb_col, nu])?;
    let tables = [emb_row, emb_col, nu].map(|table| table.to_dtype(DType::F32));
    let [emb_row, emb_col, nu] = tables;
    by_dtype!(ValueMixture::NAME, vs.dtype(), run(vs, [emb_row?, emb_col?, nu?]))
}

/// The op on tables in f32.
fn run<T: Elem>(vs: &Tensor, tables: [Tensor; 3]) -> Result<Tensor> {
    let (op, on) = (ValueMixture::new(), On::of(vs.device(), ValueMixture::NAME)?);
    let [emb_row, emb_col, nu] = &tables;
    let edges = [Some(vs), Some(emb_row), Some(emb_col), Some(nu)];
    let wants = wants(edges);
    let vs = on.readable(vs)?;
    let read = [on.readable(emb_row)?, on.readable(emb_col)?, on.readable(nu)?];
    let shape = dims::<6>(vs.layout())?;
    let table_shapes = [dims::<2>(read[0].layout())?, dims(read[1].layout())?, dims(read[2].layout())?];
    let [_, of_o @ ..] = shape;
    let mut o = Buffer::<T, 5>::new(&on, of_o)?;
    {
        let (vs, [emb_row, emb_col, nu]) = (Read::of(&vs), read.each_ref().map(Read::of));
        let tables = Tables { emb_row: emb_row.view::<f32, 2>()?, emb_col: emb_col.view()?, nu: nu.view()? };
        let args = Forward { vs: vs.view::<T, 6>()?, tables, o: o.view_mut()?, p: None };
        let bytes = op.forward_workspace_bytes(on.device(), &args.problem());
        on.with_workspace(bytes, |workspace| op.forward_into(on.device(), args, workspace))?;
    }
    attach(ValueMixture::NAME, o.into_storage(), &edges, move |_, d_o| {
        let on = On::of(vs.device(), ValueMixture::NAME)?;
        let d_o = on.readable(d_o)?;
        let mut dvs = wanted::<T, 6>(&on, wants[0], shape)?;
        let mut drow = wanted::<f32, 2>(&on, wants[1], table_shapes[0])?;
        let mut dcolumn = wanted::<f32, 2>(&on, wants[2], table_shapes[1])?;
        let mut dnu = wanted::<f32, 2>(&on, wants[3], table_shapes[2])?;
        {
            let (vs, d_o) = (Read::of(&vs), Read::of(&d_o));
            let [emb_row, emb_col, nu] = read.each_ref().map(Read::of);
            let args = Backward {
                vs: vs.view::<T, 6>()?,
                tables: Tables {
                    emb_row: emb_row.view::<f32, 2>()?,
                    emb_col: emb_col.view()?,
                    nu: nu.view()?,
                },
                d_o: d_o.view()?,
                dvs: maybe_mut(&mut dvs)?,
                dtables: Tables {
                    emb_row: maybe_mut(&mut drow)?,
                    emb_col: maybe_mut(&mut dcolumn)?,
                    nu: maybe_mut(&mut dnu)?,
                },
            };
            let bytes = op.backward_workspace_bytes(on.device(), &args.problem());
            on.with_workspace(bytes, |workspace| op.backward_into(on.device(), args, workspace))?;
        }
        Ok(vec![
            grad_like(dvs, &vs)?,
            drow.map(Buffer::into_tensor),
            dcolumn.map(Buffer::into_tensor),
            dnu.map(Buffer::into_tensor),
        ])
    })
}
