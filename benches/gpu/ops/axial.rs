//! `axial`: columns, then rows, without batch norm between.

use super::{Case, Layer, Make};
use crate::Failure;
use crate::timing::Call;
use macula::axial::{Backward, BackwardProblem, Forward, ForwardProblem, Parameters};
use macula::{Axial, Cuda, DType, Element, Layout, Tensor};

fn tables<T: Element>(make: &Make<'_>, [_, _, y, x, d]: [usize; 5]) -> Result<[Tensor<T, 3>; 2], Failure> {
    // Sums over a whole line twice: small weights keep f16 in range.
    let table =
        |arg, size: usize| crate::memory::random(make.gpu, make.seed * 16 + arg, [1, 2 * size - 1, d], 0.05);
    Ok([table(8, y)?, table(9, x)?])
}

fn table_layouts([_, _, y, x, d]: [usize; 5]) -> [Option<Layout<3>>; 2] {
    [y, x].map(|size| Some(Layout::contiguous([1, 2 * size - 1, d])))
}

fn forward_problem(shape: [usize; 5], dtype: DType) -> ForwardProblem {
    let (all, [columns, rows]) = (Layout::contiguous(shape), table_layouts(shape));
    let y = Some(all);
    ForwardProblem { dtype, q: all, v: all, columns, rows, affine: None, given: None, o: all, y, batch: None }
}

fn backward_problem(shape: [usize; 5], dtype: DType) -> BackwardProblem {
    let (all, [columns, rows]) = (Layout::contiguous(shape), table_layouts(shape));
    BackwardProblem {
        dtype,
        q: all,
        v: all,
        columns,
        rows,
        affine: None,
        statistics: None,
        y: Some(all),
        d_o: all,
        dq: Some(all),
        dv: Some(all),
        dcolumns: columns,
        drows: rows,
        dweight: None,
        dbias: None,
    }
}

fn forward<T: Element>(make: &Make<'_>, layer: Layer) -> Result<Call, Failure> {
    let (op, on) = (Axial::default(), make.gpu.clone());
    let tensor = |arg| make.tensor::<T, 5>(arg, layer.shape);
    let (q, v, [columns, rows]) = (tensor(1)?, tensor(2)?, tables::<T>(make, layer.shape)?);
    let (mut o, mut y) = (make.zeros::<T, 5>(layer.shape)?, make.zeros::<T, 5>(layer.shape)?);
    let problem = forward_problem(layer.shape, T::DTYPE);
    let mut scratch = make.scratch(op.forward_workspace_bytes(&on, &problem)?)?;
    Ok(Box::new(move || {
        let args = Forward {
            q: q.view(),
            v: v.view(),
            columns: Some(columns.view()),
            rows: Some(rows.view()),
            affine: None,
            given: None,
            o: o.view_mut(),
            y: Some(y.view_mut()),
            batch: None,
        };
        op.forward_into(&on, args, scratch.lend())
    }))
}

fn backward<T: Element>(make: &Make<'_>, layer: Layer) -> Result<Call, Failure> {
    let (op, on) = (Axial::default(), make.gpu.clone());
    let tensor = |arg| make.tensor::<T, 5>(arg, layer.shape);
    let (q, v, d_o, [columns, rows]) = (tensor(1)?, tensor(2)?, tensor(3)?, tables::<T>(make, layer.shape)?);
    let parameters = Parameters { columns: Some(&columns), rows: Some(&rows), affine: None, given: None };
    let y = op.forward(&on, &q, &v, &parameters)?.saved.y.ok_or("the forward pass saved nothing")?;
    let (mut dq, mut dv) = (make.zeros::<T, 5>(layer.shape)?, make.zeros::<T, 5>(layer.shape)?);
    let (mut dcolumns, mut drows) =
        (make.zeros::<f32, 3>(columns.shape())?, make.zeros::<f32, 3>(rows.shape())?);
    let problem = backward_problem(layer.shape, T::DTYPE);
    let mut scratch = make.scratch(op.backward_workspace_bytes(&on, &problem)?)?;
    Ok(Box::new(move || {
        let args = Backward {
            q: q.view(),
            v: v.view(),
            columns: Some(columns.view()),
            rows: Some(rows.view()),
            affine: None,
            statistics: None,
            y: Some(y.view()),
            d_o: d_o.view(),
            dq: Some(dq.view_mut()),
            dv: Some(dv.view_mut()),
            dcolumns: Some(dcolumns.view_mut()),
            drows: Some(drows.view_mut()),
            dweight: None,
            dbias: None,
        };
        op.backward_into(&on, args, scratch.lend())
    }))
}

pub fn cases<T: Element>(gpu: &Cuda, layer: Layer) -> Vec<Case<'_>> {
    let (op, shape) = (Axial::default(), layer.shape);
    let case = |pass, cost, make| Case {
        op: Axial::NAME,
        pass,
        variant: "columns_then_rows",
        layer,
        dtype: T::DTYPE,
        cost,
        make,
    };
    let fwd = op.forward_cost(&forward_problem(shape, T::DTYPE));
    let bwd = op.backward_cost(&backward_problem(shape, T::DTYPE));
    vec![
        case("forward", fwd, Box::new(move |seed| forward::<T>(&Make { gpu, seed }, layer)) as _),
        case("backward", bwd, Box::new(move |seed| backward::<T>(&Make { gpu, seed }, layer))),
    ]
}
