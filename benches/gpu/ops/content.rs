//! `content`: the softmax form of GSA.

use super::{Case, Layer, Make};
use crate::Failure;
use crate::timing::Call;
use macula::content::{Backward, BackwardProblem, Forward, ForwardProblem, Saved};
use macula::{Content, Cuda, Element};

fn forward<T: Element>(make: &Make<'_>, layer: Layer) -> Result<Call, Failure> {
    let (op, on, [b, h, y, x, d]) = (Content::default(), make.gpu.clone(), layer.shape);
    let tensor = |arg| make.tensor::<T, 5>(arg, layer.shape);
    let (q, k, v) = (tensor(1)?, tensor(2)?, tensor(3)?);
    let mut o = make.zeros::<T, 5>(layer.shape)?;
    let (mut summary, mut max) = (make.zeros::<f32, 4>([b, h, d, d])?, make.zeros::<f32, 3>([b, h, d])?);
    let mut sum = make.zeros::<f32, 3>([b, h, d])?;
    let problem = ForwardProblem::contiguous(layer.shape, [y, x], d, T::DTYPE);
    let mut scratch = make.scratch(op.forward_workspace_bytes(&on, &problem)?)?;
    Ok(Box::new(move || {
        let saved = Saved { summary: summary.view_mut(), max: max.view_mut(), sum: sum.view_mut() };
        let args = Forward { q: q.view(), k: k.view(), v: v.view(), o: o.view_mut(), saved: Some(saved) };
        op.forward_into(&on, args, scratch.lend())
    }))
}

fn backward<T: Element>(make: &Make<'_>, layer: Layer) -> Result<Call, Failure> {
    let (op, on, [_, _, y, x, d]) = (Content::default(), make.gpu.clone(), layer.shape);
    let tensor = |arg| make.tensor::<T, 5>(arg, layer.shape);
    let (q, k, v, d_o) = (tensor(1)?, tensor(2)?, tensor(3)?, tensor(4)?);
    let zeros = || make.zeros::<T, 5>(layer.shape);
    let (mut dq, mut dk, mut dv) = (zeros()?, zeros()?, zeros()?);
    let problem = BackwardProblem::contiguous(layer.shape, [y, x], d, T::DTYPE);
    let mut scratch = make.scratch(op.backward_workspace_bytes(&on, &problem)?)?;
    let saved = op.forward(&on, &q, &k, &v)?.saved;
    Ok(Box::new(move || {
        let args = Backward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            saved: Saved { summary: saved.summary.view(), max: saved.max.view(), sum: saved.sum.view() },
            d_o: d_o.view(),
            dq: Some(dq.view_mut()),
            dk: Some(dk.view_mut()),
            dv: Some(dv.view_mut()),
        };
        op.backward_into(&on, args, scratch.lend())
    }))
}

pub fn cases<T: Element>(gpu: &Cuda, layer: Layer) -> Vec<Case<'_>> {
    let (op, [_, _, y, x, d]) = (Content::default(), layer.shape);
    let case = |pass, cost, make| Case {
        op: Content::NAME,
        pass,
        variant: "softmax",
        layer,
        dtype: T::DTYPE,
        cost,
        make,
    };
    let fwd = op.forward_cost(&ForwardProblem::contiguous(layer.shape, [y, x], d, T::DTYPE));
    let bwd = op.backward_cost(&BackwardProblem::contiguous(layer.shape, [y, x], d, T::DTYPE));
    vec![
        case("forward", fwd, Box::new(move |seed| forward::<T>(&Make { gpu, seed }, layer)) as _),
        case("backward", bwd, Box::new(move |seed| backward::<T>(&Make { gpu, seed }, layer))),
    ]
}
