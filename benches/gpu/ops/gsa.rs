//! `gsa`: content and axial attention of the same queries and values, without batch norm.

use super::{Case, Layer, Make};
use crate::Failure;
use crate::timing::Call;
use macula::content::Saved;
use macula::gsa::{Backward, BackwardProblem, Forward, ForwardProblem, Parameters};
use macula::{Cuda, DType, Element, Gsa, Layout, Tensor};

fn tables<T: Element>(make: &Make<'_>, [_, _, y, x, d]: [usize; 5]) -> Result<[Tensor<T, 3>; 2], Failure> {
    // As for `axial`: small weights keep f16 in range.
    let table =
        |arg, size: usize| crate::memory::random(make.gpu, make.seed * 16 + arg, [1, 2 * size - 1, d], 0.05);
    Ok([table(8, y)?, table(9, x)?])
}

fn table_layouts([_, _, y, x, d]: [usize; 5]) -> [Layout<3>; 2] {
    [y, x].map(|size| Layout::contiguous([1, 2 * size - 1, d]))
}

fn forward_problem(shape: [usize; 5], dtype: DType) -> ForwardProblem {
    let (map, [columns, rows]) = (Layout::contiguous(shape), table_layouts(shape));
    ForwardProblem {
        dtype,
        q: map,
        k: map,
        v: map,
        columns,
        rows,
        affine: None,
        given: None,
        o: map,
        saves_content: true,
        y: Some(map),
        batch: None,
    }
}

fn backward_problem(shape: [usize; 5], dtype: DType) -> BackwardProblem {
    let (map, [columns, rows]) = (Layout::contiguous(shape), table_layouts(shape));
    BackwardProblem {
        dtype,
        q: map,
        k: map,
        v: map,
        columns,
        rows,
        affine: None,
        statistics: None,
        y: map,
        d_o: map,
        dq: Some(map),
        dk: Some(map),
        dv: Some(map),
        dcolumns: Some(columns),
        drows: Some(rows),
        dweight: None,
        dbias: None,
    }
}

fn forward<T: Element>(make: &Make<'_>, layer: Layer) -> Result<Call, Failure> {
    let (op, on, [b, h, _, _, d]) = (Gsa::default(), make.gpu.clone(), layer.shape);
    let tensor = |arg| make.tensor::<T, 5>(arg, layer.shape);
    let (q, k, v, [columns, rows]) = (tensor(1)?, tensor(2)?, tensor(3)?, tables::<T>(make, layer.shape)?);
    let (mut o, mut y) = (make.zeros::<T, 5>(layer.shape)?, make.zeros::<T, 5>(layer.shape)?);
    let mut summary = make.zeros::<f32, 4>([b, h, d, d])?;
    let (mut max, mut sum) = (make.zeros::<f32, 3>([b, h, d])?, make.zeros::<f32, 3>([b, h, d])?);
    let problem = forward_problem(layer.shape, T::DTYPE);
    let mut scratch = make.scratch(op.forward_workspace_bytes(&on, &problem)?)?;
    Ok(Box::new(move || {
        let saved = Saved { summary: summary.view_mut(), max: max.view_mut(), sum: sum.view_mut() };
        let args = Forward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            columns: columns.view(),
            rows: rows.view(),
            affine: None,
            given: None,
            o: o.view_mut(),
            content: Some(saved),
            y: Some(y.view_mut()),
            batch: None,
        };
        op.forward_into(&on, args, scratch.lend())
    }))
}

fn backward<T: Element>(make: &Make<'_>, layer: Layer) -> Result<Call, Failure> {
    let (op, on) = (Gsa::default(), make.gpu.clone());
    let tensor = |arg| make.tensor::<T, 5>(arg, layer.shape);
    let (q, k, v, d_o) = (tensor(1)?, tensor(2)?, tensor(3)?, tensor(4)?);
    let [columns, rows] = tables::<T>(make, layer.shape)?;
    let parameters = Parameters { columns: &columns, rows: &rows, affine: None, given: None };
    let saved = op.forward(&on, &q, &k, &v, parameters)?.saved;
    let zeros = || make.zeros::<T, 5>(layer.shape);
    let (mut dq, mut dk, mut dv) = (zeros()?, zeros()?, zeros()?);
    let (mut dcolumns, mut drows) =
        (make.zeros::<f32, 3>(columns.shape())?, make.zeros::<f32, 3>(rows.shape())?);
    let problem = backward_problem(layer.shape, T::DTYPE);
    let mut scratch = make.scratch(op.backward_workspace_bytes(&on, &problem)?)?;
    Ok(Box::new(move || {
        let content = &saved.content;
        let args = Backward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            columns: columns.view(),
            rows: rows.view(),
            affine: None,
            statistics: None,
            content: Saved {
                summary: content.summary.view(),
                max: content.max.view(),
                sum: content.sum.view(),
            },
            y: saved.y.view(),
            d_o: d_o.view(),
            dq: Some(dq.view_mut()),
            dk: Some(dk.view_mut()),
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
    let (op, shape) = (Gsa::default(), layer.shape);
    let case =
        |pass, cost, make| Case { op: Gsa::NAME, pass, variant: "plain", layer, dtype: T::DTYPE, cost, make };
    let fwd = op.forward_cost(&forward_problem(shape, T::DTYPE));
    let bwd = op.backward_cost(&backward_problem(shape, T::DTYPE));
    vec![
        case("forward", fwd, Box::new(move |seed| forward::<T>(&Make { gpu, seed }, layer)) as _),
        case("backward", bwd, Box::new(move |seed| backward::<T>(&Make { gpu, seed }, layer))),
    ]
}
