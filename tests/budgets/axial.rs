//! `axial`: 3 passes over memory in one launch, 6 in two, 11 backward; the tables' partial sums, in the workspace, are counted
//! apart.

use super::{Call, Case, filled, with_scratch};
use half::{bf16, f16};
use macula::axial::{
    Affine, AxialConfig, Backward, BackwardProblem, BatchNorm, Forward, ForwardProblem, Statistics,
};
use macula::{Axial, Cuda, Element, Error, Layout, View, ViewMut};

/// Maps of few channels, done in one launch in 16 bits, and of many; batch norm takes two launches and one for statistics.
pub fn cases() -> Vec<Case> {
    let map = |d: usize| [1, 2, 32, 32, d];
    let plain = [
        both::<f16>(map(64), BatchNorm::None),
        both::<bf16>(map(64), BatchNorm::None),
        both::<f32>(map(64), BatchNorm::None),
        both::<f16>(map(128), BatchNorm::None),
        both::<bf16>(map(128), BatchNorm::None),
        both::<f32>(map(128), BatchNorm::None),
        both::<f16>(map(64), BatchNorm::Train),
        both::<bf16>(map(64), BatchNorm::Train),
    ];
    plain.into_iter().flatten().collect()
}

fn tables([_, _, y, x, d]: [usize; 5]) -> [[usize; 3]; 2] {
    [y, x].map(|size| [1, 2 * size - 1, d])
}

fn forward_problem<T: Element>(shape: [usize; 5], norm: BatchNorm) -> ForwardProblem {
    let (map, tables) = (Layout::contiguous(shape), tables(shape).map(Layout::contiguous));
    let statistics = (norm != BatchNorm::None).then_some([Layout::contiguous([1, shape[4]]); 2]);
    ForwardProblem {
        dtype: T::DTYPE,
        q: map,
        v: map,
        columns: Some(tables[0]),
        rows: Some(tables[1]),
        affine: statistics,
        given: None,
        o: map,
        // What a training step saves; the single launch then writes it besides.
        y: (norm != BatchNorm::None).then_some(map),
        batch: statistics,
    }
}

fn backward_problem<T: Element>(shape: [usize; 5], norm: BatchNorm) -> BackwardProblem {
    let ForwardProblem { dtype, q, v, columns, rows, affine, batch, .. } = forward_problem::<T>(shape, norm);
    BackwardProblem {
        dtype,
        q,
        v,
        columns,
        rows,
        affine,
        statistics: batch,
        y: Some(v),
        d_o: v,
        dq: Some(q),
        dv: Some(v),
        dcolumns: columns,
        drows: rows,
        dweight: affine.map(|a| a[0]),
        dbias: affine.map(|a| a[1]),
    }
}

fn both<T: Element>(shape: [usize; 5], norm: BatchNorm) -> [Case; 2] {
    let op = Axial::new(AxialConfig { norm, ..AxialConfig::default() });
    let op = op.expect("these settings go together"); // proof: columns then rows take every norm
    let [b, h, y, x, d] = shape;
    let words = if norm == BatchNorm::Train { ", batch norm" } else { "" };
    let case = |pass, cost, call: Call| Case {
        op: "axial",
        pass,
        shape: format!("b{b} h{h} {y}×{x} d{d} {}{words}", T::DTYPE),
        cost,
        call,
    };
    let (of_forward, of_backward) = (forward_problem::<T>(shape, norm), backward_problem::<T>(shape, norm));
    let forward = move |on: &Cuda| forward::<T>(on, &op, &of_forward);
    let backward = move |on: &Cuda| backward::<T>(on, &op, &of_backward);
    [
        case("forward", op.forward_cost(&of_forward), Box::new(forward)),
        case("backward", op.backward_cost(&of_backward), Box::new(backward)),
    ]
}

fn forward<T: Element>(on: &Cuda, op: &Axial, problem: &ForwardProblem) -> Result<Option<u64>, Error> {
    let (shape, count, e) = (problem.q.shape, problem.q.len(), problem.v.shape[4]);
    let [tall, wide] = tables(shape);
    let [q, v] = [filled::<T>(on, count)?, filled::<T>(on, count)?];
    let (columns, rows) = (filled::<T>(on, tall[1] * tall[2])?, filled::<T>(on, wide[1] * wide[2])?);
    let [weight, bias] = [filled::<f32>(on, e)?, filled::<f32>(on, e)?];
    let [mut mean, mut var] = [filled::<f32>(on, e)?, filled::<f32>(on, e)?];
    let [mut o, mut y] = [filled::<T>(on, count)?, filled::<T>(on, count)?];
    let affine = match problem.affine {
        Some(_) => Some(Affine { weight: View::new(&weight, [1, e])?, bias: View::new(&bias, [1, e])? }),
        None => None,
    };
    let batch = match problem.batch {
        Some(_) => {
            Some(Statistics { mean: ViewMut::new(&mut mean, [1, e])?, var: ViewMut::new(&mut var, [1, e])? })
        }
        None => None,
    };
    let y = match problem.y {
        Some(_) => Some(ViewMut::new(&mut y, shape)?),
        None => None,
    };
    let args = Forward {
        q: View::new(&q, shape)?,
        v: View::new(&v, shape)?,
        columns: Some(View::new(&columns, tall)?),
        rows: Some(View::new(&rows, wide)?),
        affine,
        given: None,
        o: ViewMut::new(&mut o, shape)?,
        y,
        batch,
    };
    let bytes = op.plan_fwd(problem, on.gpu())?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch))
}

fn backward<T: Element>(on: &Cuda, op: &Axial, problem: &BackwardProblem) -> Result<Option<u64>, Error> {
    let (shape, count, e) = (problem.q.shape, problem.q.len(), problem.v.shape[4]);
    let [tall, wide] = tables(shape);
    let [q, v, y, d_o] =
        [filled::<T>(on, count)?, filled::<T>(on, count)?, filled::<T>(on, count)?, filled::<T>(on, count)?];
    let [mut dq, mut dv] = [filled::<T>(on, count)?, filled::<T>(on, count)?];
    let (columns, rows) = (filled::<T>(on, tall[1] * tall[2])?, filled::<T>(on, wide[1] * wide[2])?);
    let (mut dcolumns, mut drows) =
        (filled::<f32>(on, tall[1] * tall[2])?, filled::<f32>(on, wide[1] * wide[2])?);
    let [weight, bias, mean] = [filled::<f32>(on, e)?, filled::<f32>(on, e)?, filled::<f32>(on, e)?];
    // Variances are not negative.
    let var = super::upload(on, vec![1.0f32; e])?;
    let [mut dweight, mut dbias] = [filled::<f32>(on, e)?, filled::<f32>(on, e)?];
    let (affine, statistics, dweight, dbias) = match problem.affine {
        Some(_) => (
            Some(Affine { weight: View::new(&weight, [1, e])?, bias: View::new(&bias, [1, e])? }),
            Some(Statistics { mean: View::new(&mean, [1, e])?, var: View::new(&var, [1, e])? }),
            Some(ViewMut::new(&mut dweight, [1, e])?),
            Some(ViewMut::new(&mut dbias, [1, e])?),
        ),
        None => (None, None, None, None),
    };
    let args = Backward {
        q: View::new(&q, shape)?,
        v: View::new(&v, shape)?,
        columns: Some(View::new(&columns, tall)?),
        rows: Some(View::new(&rows, wide)?),
        affine,
        statistics,
        y: Some(View::new(&y, shape)?),
        d_o: View::new(&d_o, shape)?,
        dq: Some(ViewMut::new(&mut dq, shape)?),
        dv: Some(ViewMut::new(&mut dv, shape)?),
        dcolumns: Some(ViewMut::new(&mut dcolumns, tall)?),
        drows: Some(ViewMut::new(&mut drows, wide)?),
        dweight,
        dbias,
    };
    let bytes = op.plan_bwd(problem, on.gpu())?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The single launch, without what a training step saves, visits q, v and o once each.
    #[test]
    fn one_launch_visits_every_tensor_once() {
        for case in cases().iter().filter(|case| case.pass == "forward") {
            let Some(got) = case.measure_in_test() else { return };
            if got.launches.len() == 1 {
                let of_minimum = got.tensor_bytes() as f64 / case.cost.min_bytes as f64;
                assert!((1.0..=1.1).contains(&of_minimum), "{}: {of_minimum}", case.name());
            }
        }
    }

    /// Every compiled kernel of the op is in a case.
    #[test]
    fn every_entry_is_counted() {
        let mut counted = std::collections::BTreeSet::new();
        for case in cases() {
            let Some(got) = case.measure_in_test() else { return };
            counted.extend(got.launches.into_iter().map(|launch| launch.entry.to_string()));
        }
        // Those that add the other branch of `gsa` are launched by its cases.
        let is_own = |name: &&str| name.starts_with("axial_") && !name.contains("_gsa_");
        let compiled = macula::kernel::all().iter().map(|k| k.name).filter(is_own);
        let missing: Vec<&str> = compiled.filter(|name| !counted.contains(*name)).collect();
        assert!(missing.is_empty(), "in no case: {missing:?}");
    }
}
