//! `gsa`: 5 passes over memory forward, 20 backward: 7 of `content`, 11 of `axial`, and one each for dq and dv, which the second
//! branch reads to add to. Partial sums, in the workspace, are counted apart.

use super::{Call, Case, filled, upload, with_scratch};
use half::{bf16, f16};
use macula::content::Saved;
use macula::gsa::{
    Affine, Backward, BackwardProblem, BatchNorm, Forward, ForwardProblem, GsaConfig, Statistics,
};
use macula::{Cuda, Element, Error, Gsa, Layout, View, ViewMut};

const SHAPE: [usize; 5] = [1, 2, 32, 32, 64];

/// Maps whose positional branch is one launch in 16 bits; batch norm takes two, and one for statistics.
pub fn cases() -> Vec<Case> {
    let all = [
        both::<f16>(BatchNorm::None),
        both::<bf16>(BatchNorm::None),
        both::<f32>(BatchNorm::None),
        both::<f16>(BatchNorm::Train),
    ];
    all.into_iter().flatten().collect()
}

fn tables() -> [[usize; 3]; 2] {
    let [_, _, y, x, d] = SHAPE;
    [y, x].map(|size| [1, 2 * size - 1, d])
}

fn forward_problem<T: Element>(norm: BatchNorm) -> ForwardProblem {
    let (map, [columns, rows]) = (Layout::contiguous(SHAPE), tables().map(Layout::contiguous));
    let vectors = (norm != BatchNorm::None).then_some([Layout::contiguous([1, SHAPE[4]]); 2]);
    ForwardProblem {
        dtype: T::DTYPE,
        q: map,
        k: map,
        v: map,
        columns,
        rows,
        affine: vectors,
        given: None,
        o: map,
        saves_content: true,
        // What a training step saves; the single launch then writes it besides.
        y: (norm != BatchNorm::None).then_some(map),
        batch: vectors,
    }
}

fn backward_problem<T: Element>(norm: BatchNorm) -> BackwardProblem {
    let ForwardProblem { dtype, q, k, v, columns, rows, affine, batch, .. } = forward_problem::<T>(norm);
    BackwardProblem {
        dtype,
        q,
        k,
        v,
        columns,
        rows,
        affine,
        statistics: batch,
        y: v,
        d_o: v,
        dq: Some(q),
        dk: Some(k),
        dv: Some(v),
        dcolumns: Some(columns),
        drows: Some(rows),
        dweight: affine.map(|a| a[0]),
        dbias: affine.map(|a| a[1]),
    }
}

fn both<T: Element>(norm: BatchNorm) -> [Case; 2] {
    let op = Gsa::new(GsaConfig { norm, ..GsaConfig::default() });
    let op = op.expect("these settings are fine"); // proof: only ε can be wrong
    let [b, h, y, x, d] = SHAPE;
    let words = if norm == BatchNorm::Train { ", batch norm" } else { "" };
    let case = |pass, cost, call: Call| Case {
        op: "gsa",
        pass,
        shape: format!("b{b} h{h} {y}×{x} d{d} {}{words}", T::DTYPE),
        cost,
        call,
    };
    let (of_forward, of_backward) = (forward_problem::<T>(norm), backward_problem::<T>(norm));
    let forward = move |on: &Cuda| forward::<T>(on, &op, &of_forward);
    let backward = move |on: &Cuda| backward::<T>(on, &op, &of_backward);
    [
        case("forward", op.forward_cost(&of_forward), Box::new(forward)),
        case("backward", op.backward_cost(&of_backward), Box::new(backward)),
    ]
}

fn forward<T: Element>(on: &Cuda, op: &Gsa, problem: &ForwardProblem) -> Result<Option<u64>, Error> {
    let ([b, h, _, _, d], count, [tall, wide]) = (SHAPE, problem.q.len(), tables());
    let map = || filled::<T>(on, count);
    let (q, k, v, mut o, mut y) = (map()?, map()?, map()?, map()?, map()?);
    let (columns, rows) = (filled::<T>(on, tall[1] * d)?, filled::<T>(on, wide[1] * d)?);
    let singles = |count: usize| filled::<f32>(on, count);
    let (mut summary, mut max, mut sum) = (singles(b * h * d * d)?, singles(b * h * d)?, singles(b * h * d)?);
    let (weight, bias, mut mean, mut var) = (singles(d)?, singles(d)?, singles(d)?, singles(d)?);
    let has_norm = problem.affine.is_some();
    let vector = [1, d];
    let affine = Affine { weight: View::new(&weight, vector)?, bias: View::new(&bias, vector)? };
    let batch = Statistics { mean: ViewMut::new(&mut mean, vector)?, var: ViewMut::new(&mut var, vector)? };
    let saved = Saved {
        summary: ViewMut::new(&mut summary, [b, h, d, d])?,
        max: ViewMut::new(&mut max, [b, h, d])?,
        sum: ViewMut::new(&mut sum, [b, h, d])?,
    };
    let y = ViewMut::new(&mut y, SHAPE)?;
    let args = Forward {
        q: View::new(&q, SHAPE)?,
        k: View::new(&k, SHAPE)?,
        v: View::new(&v, SHAPE)?,
        columns: View::new(&columns, tall)?,
        rows: View::new(&rows, wide)?,
        affine: has_norm.then_some(affine),
        given: None,
        o: ViewMut::new(&mut o, SHAPE)?,
        content: Some(saved),
        y: has_norm.then_some(y),
        batch: has_norm.then_some(batch),
    };
    let bytes = op.plan_fwd(problem, on.gpu())?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch))
}

fn backward<T: Element>(on: &Cuda, op: &Gsa, problem: &BackwardProblem) -> Result<Option<u64>, Error> {
    let ([b, h, _, _, d], count, [tall, wide]) = (SHAPE, problem.q.len(), tables());
    let map = || filled::<T>(on, count);
    let (q, k, v, y, d_o) = (map()?, map()?, map()?, map()?, map()?);
    let (mut dq, mut dk, mut dv) = (map()?, map()?, map()?);
    let (columns, rows) = (filled::<T>(on, tall[1] * d)?, filled::<T>(on, wide[1] * d)?);
    let singles = |count: usize| filled::<f32>(on, count);
    let (mut dcolumns, mut drows) = (singles(tall[1] * d)?, singles(wide[1] * d)?);
    // Sums and variances are positive.
    let ones = |count: usize| upload(on, vec![1.0f32; count]);
    let (summary, max, sum) = (singles(b * h * d * d)?, ones(b * h * d)?, ones(b * h * d)?);
    let (weight, bias, mean, var) = (singles(d)?, singles(d)?, singles(d)?, ones(d)?);
    let (mut dweight, mut dbias) = (singles(d)?, singles(d)?);
    let has_norm = problem.affine.is_some();
    let vector = [1, d];
    let affine = Affine { weight: View::new(&weight, vector)?, bias: View::new(&bias, vector)? };
    let statistics = Statistics { mean: View::new(&mean, vector)?, var: View::new(&var, vector)? };
    let (dweight, dbias) = (ViewMut::new(&mut dweight, vector)?, ViewMut::new(&mut dbias, vector)?);
    let args = Backward {
        q: View::new(&q, SHAPE)?,
        k: View::new(&k, SHAPE)?,
        v: View::new(&v, SHAPE)?,
        columns: View::new(&columns, tall)?,
        rows: View::new(&rows, wide)?,
        affine: has_norm.then_some(affine),
        statistics: has_norm.then_some(statistics),
        content: Saved {
            summary: View::new(&summary, [b, h, d, d])?,
            max: View::new(&max, [b, h, d])?,
            sum: View::new(&sum, [b, h, d])?,
        },
        y: View::new(&y, SHAPE)?,
        d_o: View::new(&d_o, SHAPE)?,
        dq: Some(ViewMut::new(&mut dq, SHAPE)?),
        dk: Some(ViewMut::new(&mut dk, SHAPE)?),
        dv: Some(ViewMut::new(&mut dv, SHAPE)?),
        dcolumns: Some(ViewMut::new(&mut dcolumns, tall)?),
        drows: Some(ViewMut::new(&mut drows, wide)?),
        dweight: has_norm.then_some(dweight),
        dbias: has_norm.then_some(dbias),
    };
    let bytes = op.plan_bwd(problem, on.gpu())?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// k and v once for the summary, then q, v and o; without batch norm what lies between the layers stays in shared memory in
    /// 16 bits. Backward what lies between them is in the workspace, or in dv with batch norm.
    #[test]
    fn device_bytes_are_those_of_the_passes() {
        for case in cases() {
            let Some(got) = case.measure_in_test() else { return };
            let has_norm = case.name().contains("batch norm");
            let passes = match (case.pass, has_norm) {
                ("forward", false) if case.name().contains("f32") => 6,
                ("forward", false) => 5,
                ("forward", true) => 8,
                (_, false) => 18,
                (_, true) => 21,
            };
            let element_bytes = if case.name().contains("f32") { 4 } else { 2 };
            let tensor = SHAPE.iter().product::<usize>() * element_bytes;
            let of_promised = got.tensor_bytes() as f64 / (passes * tensor) as f64;
            assert!((1.0..=1.1).contains(&of_promised), "{}: {of_promised} of {passes} passes", case.name());
        }
    }
}
