//! `local` with a bias: the passes over memory are those of [`super::local`], and the table is read, and its gradient written, once.

use super::{Case, filled, with_scratch};
use half::{bf16, f16};
use macula::local::{Backward, BackwardProblem, Forward, ForwardProblem, LocalConfig, Window};
use macula::{Element, Layout, Local, View, ViewMut, Workspace};

const HEADS: usize = 2;

/// Windows of both heights of patches, every class of channels.
pub fn cases() -> Vec<Case> {
    let calls = [(32, 7), (64, 7), (128, 7), (32, 13), (64, 13)];
    let forward_halves = calls.into_iter().flat_map(|(d, k)| [forward::<f16>(d, k), forward::<bf16>(d, k)]);
    let halves = [32, 64, 128].into_iter().flat_map(|d| [backward::<f16>(d, 7), backward::<bf16>(d, 7)]);
    forward_halves.chain(halves).chain([forward::<f32>(32, 7), backward::<f32>(32, 7)]).collect()
}

fn config(d: usize, k: usize) -> LocalConfig {
    LocalConfig { window: Window::sliding([k, k]), scale: (d as f32).powf(-0.5), ..LocalConfig::default() }
}

fn shape(d: usize) -> [usize; 5] {
    [1, HEADS, 32, 32, d]
}

fn bias(k: usize) -> Layout<3> {
    Layout::contiguous([HEADS, k, k])
}

fn words<T: Element>(d: usize, k: usize) -> String {
    let [b, h, y, x, _] = shape(d);
    format!("b{b} h{h} {y}×{x} d{d} {k}×{k} bias {}", T::DTYPE)
}

/// A forward call with a bias per head and no other positions.
pub fn forward<T: Element>(d: usize, k: usize) -> Case {
    let (config, shape, layout) = (config(d, k), shape(d), bias(k));
    let op = Local::new(config).expect("a valid window"); // proof: windows of up to 33 keys are
    let plain = ForwardProblem::contiguous(&config, shape, d, false, T::DTYPE);
    let problem = ForwardProblem { bias: Some(layout), ..plain };
    let call = move |on: &macula::Cuda| {
        let make = || filled::<T>(on, shape.iter().product());
        let (q, keys, v, mut o) = (make()?, make()?, make()?, make()?);
        let bias = filled::<f32>(on, layout.len())?;
        let of_lse = problem.lse.expect("asked for"); // proof: `contiguous` above
        let mut lse = filled::<f32>(on, of_lse.len())?;
        let args = Forward {
            q: View::new(&q, shape)?,
            k: View::new(&keys, shape)?,
            v: View::new(&v, shape)?,
            tables: None,
            bias: Some(View::new(&bias, layout)?),
            o: ViewMut::new(&mut o, shape)?,
            lse: Some(ViewMut::new(&mut lse, of_lse)?),
        };
        op.forward_into(on, args, Workspace::none())?;
        Ok(None)
    };
    let cost = op.forward_cost(&problem);
    Case { op: "local", pass: "forward", shape: words::<T>(d, k), cost, call: Box::new(call) }
}

/// A backward call for all gradients. The numbers that stand for o and lse are no such: no count depends on them.
pub fn backward<T: Element>(d: usize, k: usize) -> Case {
    let (config, shape, layout) = (config(d, k), shape(d), bias(k));
    let op = Local::new(config).expect("a valid window"); // proof: windows of up to 33 keys are
    let plain = BackwardProblem::contiguous(&config, shape, d, false, T::DTYPE);
    let problem = BackwardProblem { bias: Some(layout), dbias: Some(layout), ..plain };
    let call = move |on: &macula::Cuda| {
        let make = || filled::<T>(on, shape.iter().product());
        let (q, keys, v, o, d_o) = (make()?, make()?, make()?, make()?, make()?);
        let (mut dq, mut dk, mut dv) = (make()?, make()?, make()?);
        let (bias, mut dbias) = (filled::<f32>(on, layout.len())?, filled::<f32>(on, layout.len())?);
        let lse = filled::<f32>(on, problem.lse.len())?;
        let args = Backward {
            q: View::new(&q, shape)?,
            k: View::new(&keys, shape)?,
            v: View::new(&v, shape)?,
            tables: None,
            bias: Some(View::new(&bias, layout)?),
            o: View::new(&o, shape)?,
            lse: View::new(&lse, problem.lse)?,
            d_o: View::new(&d_o, shape)?,
            dq: Some(ViewMut::new(&mut dq, shape)?),
            dk: Some(ViewMut::new(&mut dk, shape)?),
            dv: Some(ViewMut::new(&mut dv, shape)?),
            drel_h: None,
            drel_w: None,
            dbias: Some(ViewMut::new(&mut dbias, layout)?),
        };
        let bytes = op.plan_bwd(&args.problem(), on.gpu())?.workspace_bytes;
        with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch))
    };
    let cost = op.backward_cost(&problem);
    Case { op: "local", pass: "backward", shape: words::<T>(d, k), cost, call: Box::new(call) }
}

#[cfg(test)]
mod tests {
    use super::{HEADS, forward};
    use half::f16;

    /// Groups of 16 queries, which warps take.
    const PATCHES: u64 = HEADS as u64 * 32 * 32 / 16;

    /// Turns of shared memory for 16 queries. A step of 16 keys asks for 8 rows of the bias; 7×7 windows take 7 steps.
    #[test]
    fn shared_memory_is_asked_little() {
        let case = forward::<f16>(64, 7);
        let Some(got) = case.measure_in_test() else { return };
        let wavefronts = got.totals().wavefronts as f64 / PATCHES as f64;
        assert!(wavefronts <= 505.0, "{}: {wavefronts} wavefronts for 16 queries", case.name());
    }

    /// Instructions for 16 queries, of PTX: 400 more than without a bias and with tables.
    #[test]
    fn instructions_stay_few() {
        let case = forward::<f16>(64, 7);
        let Some(got) = case.measure_in_test() else { return };
        let instructions: u64 = got.launches.iter().map(|launch| launch.report.warp_instructions).sum();
        assert!(instructions <= 3200 * PATCHES, "{}: {} for 16 queries", case.name(), instructions / PATCHES);
    }
}
