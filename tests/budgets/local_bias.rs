//! `local` without tables, with a bias or without: the passes over memory are those of [`super::local`], and a bias is read, and its
//! gradient written, once.

use super::local::{WINDOWS, config, words};
use super::{Call, Case, filled, with_scratch};
use half::{bf16, f16};
use macula::local::{Backward, BackwardProblem, Forward, ForwardProblem, LocalConfig, Window};
use macula::{Cost, Element, Layout, Local, View, ViewMut, Workspace};

const HEADS: usize = 2;

/// Windows of both heights of patches, every class of channels; dilated windows and blocks.
pub fn cases() -> Vec<Case> {
    let calls = [(32, 7), (64, 7), (128, 7), (32, 13), (64, 13)].map(|(d, k)| (map(d), square(k)));
    let forward_halves =
        calls.into_iter().flat_map(|(map, w)| [forward::<f16>(map, w), forward::<bf16>(map, w)]);
    let seven = &calls[..3];
    let halves = seven.iter().flat_map(|&(map, w)| [backward::<f16>(map, w), backward::<bf16>(map, w)]);
    let floats = [forward::<f32>(map(32), square(7)), backward::<f32>(map(32), square(7))];
    let others = WINDOWS.into_iter().flat_map(|(map, w)| [forward::<f16>(map, w), backward::<f16>(map, w)]);
    let without = |d: usize, k: usize| {
        [call::<f16>("forward", map(d), square(k), false), call::<f16>("backward", map(d), square(k), false)]
    };
    let without = [(32, 7), (64, 7), (64, 13)].into_iter().flat_map(move |(d, k)| without(d, k));
    forward_halves.chain(halves).chain(floats).chain(others).chain(without).collect()
}

const fn map(d: usize) -> [usize; 5] {
    [1, HEADS, 32, 32, d]
}

const fn square(k: usize) -> Window {
    Window::sliding([k, k])
}

/// A table per head.
fn layout(config: &LocalConfig, [_, h, ..]: [usize; 5]) -> Layout<3> {
    let [rows, columns] = config.window.table_rows();
    Layout::contiguous([h, rows, columns])
}

/// A call with a bias per head and no other positions.
fn forward<T: Element>(shape: [usize; 5], window: Window) -> Case {
    call::<T>("forward", shape, window, true)
}

/// As [`forward`], for all gradients.
fn backward<T: Element>(shape: [usize; 5], window: Window) -> Case {
    call::<T>("backward", shape, window, true)
}

/// A call of a pass, with a bias per head or without any positions.
fn call<T: Element>(pass: &'static str, shape: [usize; 5], window: Window, has_bias: bool) -> Case {
    let (cost, call) = match pass {
        "forward" => forward_call::<T>(shape, window, has_bias),
        _ => backward_call::<T>(shape, window, has_bias),
    };
    let positions = if has_bias { "bias" } else { "no positions" };
    Case { op: "local", pass, shape: format!("{}, {positions}", words::<T>(shape, window)), cost, call }
}

fn forward_call<T: Element>(shape: [usize; 5], window: Window, has_bias: bool) -> (Cost, Call) {
    let d = shape[4];
    let config = config(d, window);
    let layout = layout(&config, shape);
    let op = Local::new(config).expect("a valid window"); // proof: windows of up to 33 keys are
    let plain = ForwardProblem::contiguous(&config, shape, d, false, T::DTYPE);
    let problem = ForwardProblem { bias: has_bias.then_some(layout), ..plain };
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
            bias: has_bias.then(|| View::new(&bias, layout)).transpose()?,
            o: ViewMut::new(&mut o, shape)?,
            lse: Some(ViewMut::new(&mut lse, of_lse)?),
        };
        op.forward_into(on, args, Workspace::none())?;
        Ok(None)
    };
    (op.forward_cost(&problem), Box::new(call))
}

/// The numbers that stand for o and lse are no such: no count depends on them.
fn backward_call<T: Element>(shape: [usize; 5], window: Window, has_bias: bool) -> (Cost, Call) {
    let d = shape[4];
    let config = config(d, window);
    let layout = layout(&config, shape);
    let op = Local::new(config).expect("a valid window"); // proof: windows of up to 33 keys are
    let plain = BackwardProblem::contiguous(&config, shape, d, false, T::DTYPE);
    let bias_layout = has_bias.then_some(layout);
    let problem = BackwardProblem { bias: bias_layout, dbias: bias_layout, ..plain };
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
            bias: has_bias.then(|| View::new(&bias, layout)).transpose()?,
            o: View::new(&o, shape)?,
            lse: View::new(&lse, problem.lse)?,
            d_o: View::new(&d_o, shape)?,
            dq: Some(ViewMut::new(&mut dq, shape)?),
            dk: Some(ViewMut::new(&mut dk, shape)?),
            dv: Some(ViewMut::new(&mut dv, shape)?),
            drel_h: None,
            drel_w: None,
            dbias: has_bias.then(|| ViewMut::new(&mut dbias, layout)).transpose()?,
        };
        let bytes = op.plan_bwd(&args.problem(), on.gpu())?.workspace_bytes;
        with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch))
    };
    (op.backward_cost(&problem), Box::new(call))
}

#[cfg(test)]
mod tests {
    use super::super::Measured;
    use super::super::local::tests::{HEIGHTS, patches, score_slots, windows_ask_little};
    use super::{backward, call, forward, map, square};
    use half::f16;

    fn wavefronts(got: &Measured, map: [usize; 5]) -> f64 {
        got.totals().wavefronts as f64 / patches(map)
    }

    /// As without a bias.
    #[test]
    fn few_scores_are_computed_in_vain() {
        for (d, k, most) in HEIGHTS {
            let case = forward::<f16>(map(d), square(k));
            let Some(got) = case.measure_in_test() else { return };
            let slots = score_slots(&got, map(d), None);
            assert!(slots <= most && slots >= (k * k) as f64, "{}: {slots} scores per query", case.name());
        }
    }

    /// Turns of shared memory for 16 queries: fewer than with tables, of which a step of 16 keys asks for 12 rows, and of the bias
    /// for 8.
    #[test]
    fn shared_memory_is_asked_little() {
        let seven = square(7);
        for (case, d, most) in [
            (forward::<f16>(map(32), seven), 32, 200.0),
            (forward::<f16>(map(64), seven), 64, 345.0),
            (forward::<f16>(map(128), seven), 128, 630.0),
            (forward::<f16>(map(32), square(13)), 32, 345.0),
            (forward::<f16>(map(64), square(13)), 64, 575.0),
            (backward::<f16>(map(32), seven), 32, 735.0),
            (backward::<f16>(map(64), seven), 64, 1160.0),
            (call::<f16>("forward", map(64), seven, false), 64, 345.0),
            (call::<f16>("backward", map(64), seven, false), 64, 1090.0),
        ] {
            let Some(got) = case.measure_in_test() else { return };
            let wavefronts = wavefronts(&got, map(d));
            assert!(wavefronts <= most, "{}: {wavefronts} wavefronts for 16 queries", case.name());
        }
    }

    /// As with tables, and less.
    #[test]
    fn every_window_asks_little() {
        let most = [[180.0, 670.0], [152.0, 645.0], [190.0, 770.0], [292.0, 1605.0]];
        windows_ask_little(forward::<f16>, backward::<f16>, most);
    }

    /// Instructions for 16 queries, of PTX, within the bound of a window with tables.
    #[test]
    fn instructions_stay_few() {
        for (case, most) in
            [(forward::<f16>(map(64), square(7)), 2650.0), (backward::<f16>(map(64), square(7)), 7600.0)]
        {
            let Some(got) = case.measure_in_test() else { return };
            let instructions = got.warp_instructions() as f64 / patches(map(64));
            assert!(instructions <= most, "{}: {instructions} for 16 queries", case.name());
        }
    }
}
