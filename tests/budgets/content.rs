//! `content`: 4 passes over memory forward, 7 backward; partial sums of splits, in the workspace, are counted apart.

use super::{Call, Case, filled, with_scratch};
use half::{bf16, f16};
use macula::content::{Backward, BackwardProblem, ContentConfig, Form, Forward, ForwardProblem, Saved};
use macula::{Content, Cuda, Element, Error, View, ViewMut};

/// Maps that are split over blocks, of few and of many channels.
pub fn cases() -> Vec<Case> {
    let map = |d: usize| [1, 1, 32, 64, d];
    let halves = [32, 64, 128].into_iter().flat_map(|d| [both::<f16>(map(d)), both::<bf16>(map(d))]);
    halves.chain([both::<f32>(map(32)), both::<f32>(map(64))]).flatten().collect()
}

fn both<T: Element>(shape: [usize; 5]) -> [Case; 2] {
    let op = Content::new(ContentConfig { form: Form::default() });
    let [b, h, y, x, d] = shape;
    let (of_forward, of_backward) = (
        ForwardProblem::contiguous(shape, [y, x], d, T::DTYPE),
        BackwardProblem::contiguous(shape, [y, x], d, T::DTYPE),
    );
    let case = |pass, cost, call: Call| Case {
        op: "content",
        pass,
        shape: format!("b{b} h{h} {y}×{x} d{d} {}", T::DTYPE),
        cost,
        call,
    };
    let forward = move |on: &Cuda| forward::<T>(on, &op, &of_forward, shape);
    let backward = move |on: &Cuda| backward::<T>(on, &op, &of_backward, shape);
    [
        case("forward", op.forward_cost(&of_forward), Box::new(forward)),
        case("backward", op.backward_cost(&of_backward), Box::new(backward)),
    ]
}

fn forward<T: Element>(
    on: &Cuda,
    op: &Content,
    problem: &ForwardProblem,
    shape: [usize; 5],
) -> Result<Option<u64>, Error> {
    let ([b, h, _, _, d], count) = (shape, shape.iter().product());
    let [q, k, v] = [filled::<T>(on, count)?, filled::<T>(on, count)?, filled::<T>(on, count)?];
    let mut o = filled::<T>(on, count)?;
    let mut summary = filled::<f32>(on, b * h * d * d)?;
    let (mut max, mut sum) = (filled::<f32>(on, b * h * d)?, filled::<f32>(on, b * h * d)?);
    let saved = Saved {
        summary: ViewMut::new(&mut summary, [b, h, d, d])?,
        max: ViewMut::new(&mut max, [b, h, d])?,
        sum: ViewMut::new(&mut sum, [b, h, d])?,
    };
    let args = Forward {
        q: View::new(&q, shape)?,
        k: View::new(&k, shape)?,
        v: View::new(&v, shape)?,
        o: ViewMut::new(&mut o, shape)?,
        saved: Some(saved),
    };
    let bytes = op.plan_fwd(problem, on.gpu())?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch))
}

fn backward<T: Element>(
    on: &Cuda,
    op: &Content,
    problem: &BackwardProblem,
    shape: [usize; 5],
) -> Result<Option<u64>, Error> {
    let ([b, h, _, _, d], count) = (shape, shape.iter().product());
    let [q, k, v, d_o] =
        [filled::<T>(on, count)?, filled::<T>(on, count)?, filled::<T>(on, count)?, filled::<T>(on, count)?];
    let [mut dq, mut dk, mut dv] =
        [filled::<T>(on, count)?, filled::<T>(on, count)?, filled::<T>(on, count)?];
    let summary = filled::<f32>(on, b * h * d * d)?;
    let (max, sum) = (filled::<f32>(on, b * h * d)?, filled::<f32>(on, b * h * d)?);
    let args = Backward {
        q: View::new(&q, shape)?,
        k: View::new(&k, shape)?,
        v: View::new(&v, shape)?,
        saved: Saved {
            summary: View::new(&summary, [b, h, d, d])?,
            max: View::new(&max, [b, h, d])?,
            sum: View::new(&sum, [b, h, d])?,
        },
        d_o: View::new(&d_o, shape)?,
        dq: Some(ViewMut::new(&mut dq, shape)?),
        dk: Some(ViewMut::new(&mut dk, shape)?),
        dv: Some(ViewMut::new(&mut dv, shape)?),
    };
    let bytes = op.plan_bwd(problem, on.gpu())?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch))
}

#[cfg(test)]
mod tests {
    /// Every tensor is fetched and written once.
    #[test]
    fn device_bytes_are_those_of_the_tensors() {
        for case in super::cases() {
            let Some(got) = case.measure_in_test() else { return };
            let of_minimum = got.tensor_bytes() as f64 / case.cost.min_bytes as f64;
            assert!((1.0..=1.1).contains(&of_minimum), "{}: {of_minimum}", case.name());
        }
    }
}
