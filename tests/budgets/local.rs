//! `local`: 4 passes over memory forward; backward 12, in two launches of 6.

use super::{Case, filled, with_scratch};
use half::{bf16, f16};
use macula::local::{
    Backward, BackwardProblem, Blocks, Forward, ForwardProblem, LocalConfig, Sliding, Tables, Window,
};
use macula::{Element, Local, View, ViewMut, Workspace};

/// A dilated window; Swin's windows and shifted ones; HaloNet's.
pub const WINDOWS: [([usize; 5], Window); 4] = [
    ([1, 1, 32, 32, 32], Window::Sliding(Sliding::new([7, 7]).dilated([2, 2]))),
    ([1, 2, 28, 28, 32], Window::blocks([7, 7])),
    ([1, 2, 28, 28, 32], Window::Blocks(Blocks::new([7, 7]).offset_by([3, 3]))),
    ([1, 1, 32, 32, 32], Window::Blocks(Blocks::new([8, 8]).with_halo([3, 3]))),
];

/// Maps of whole tiles: the windows and channels that models use, in every element type.
pub fn cases() -> Vec<Case> {
    let map = |d: usize| [1, 1, 32, 32, d];
    let calls = [(map(32), 7), (map(64), 7), (map(128), 7), (map(32), 13), (map(64), 13)];
    let calls = calls.map(|(map, k)| (map, Window::sliding([k, k])));
    let halves = calls.into_iter().flat_map(|(map, w)| [forward::<f16>(map, w), forward::<bf16>(map, w)]);
    let backward_halves =
        calls.into_iter().flat_map(|(map, w)| [backward::<f16>(map, w), backward::<bf16>(map, w)]);
    let seven = Window::sliding([7, 7]);
    let floats = [forward::<f32>(map(32), seven), backward::<f32>(map(32), seven)];
    let others = WINDOWS.into_iter().flat_map(|(map, w)| [forward::<f16>(map, w), backward::<f16>(map, w)]);
    halves.chain(backward_halves).chain(floats).chain(others).chain(super::local_bias::cases()).collect()
}

pub fn config(d: usize, window: Window) -> LocalConfig {
    LocalConfig { window, scale: (d as f32).powf(-0.5), ..LocalConfig::default() }
}

pub fn words<T: Element>([b, h, y, x, d]: [usize; 5], window: Window) -> String {
    let by = |[y, x]: [usize; 2]| format!("{y}×{x}");
    let window = match window {
        Window::Sliding(Sliding { size, dilation: [1, 1], .. }) => by(size),
        Window::Sliding(Sliding { size, dilation, .. }) => format!("{} step {}", by(size), by(dilation)),
        Window::Blocks(Blocks { size, offset: [0, 0], halo: [0, 0] }) => format!("blocks {}", by(size)),
        Window::Blocks(Blocks { size, offset, halo: [0, 0] }) => {
            format!("blocks {} from {}", by(size), by(offset))
        }
        Window::Blocks(Blocks { size, halo, .. }) => format!("blocks {} halo {}", by(size), by(halo)),
    };
    format!("b{b} h{h} {y}×{x} d{d} {window} {}", T::DTYPE)
}

/// A forward call with relative positions, and the logarithms that training needs.
pub fn forward<T: Element>(shape: [usize; 5], window: Window) -> Case {
    let [b, h, y, x, d] = shape;
    let config = config(d, window);
    let op = Local::new(config).expect("a valid window"); // proof: windows of up to 33 keys are
    let problem = ForwardProblem::contiguous(&config, shape, d, true, T::DTYPE);
    let call = move |on: &macula::Cuda| {
        let count = shape.iter().product();
        let [q, keys, v] = [filled::<T>(on, count)?, filled::<T>(on, count)?, filled::<T>(on, count)?];
        let layouts = problem.tables.expect("tables were asked for"); // proof: `contiguous` above
        let [rel_h, rel_w] = [0, 1].map(|i| filled::<T>(on, layouts[i].shape.iter().product()));
        let (rel_h, rel_w) = (rel_h?, rel_w?);
        let mut o = filled::<T>(on, count)?;
        let mut lse = filled::<f32>(on, b * h * y * x)?;
        let args = Forward {
            q: View::new(&q, shape)?,
            k: View::new(&keys, shape)?,
            v: View::new(&v, shape)?,
            tables: Some(Tables {
                rel_h: View::new(&rel_h, layouts[0])?,
                rel_w: View::new(&rel_w, layouts[1])?,
            }),
            bias: None,
            o: ViewMut::new(&mut o, shape)?,
            lse: Some(ViewMut::new(&mut lse, [b, h, y, x])?),
        };
        op.forward_into(on, args, Workspace::none())?;
        Ok(None)
    };
    Case {
        op: "local",
        pass: "forward",
        shape: words::<T>(shape, window),
        cost: op.forward_cost(&problem),
        call: Box::new(call),
    }
}

/// A backward call for all gradients. The numbers that stand for o and lse are no such: no count depends on them.
pub fn backward<T: Element>(shape: [usize; 5], window: Window) -> Case {
    let [b, h, y, x, d] = shape;
    let config = config(d, window);
    let op = Local::new(config).expect("a valid window"); // proof: windows of up to 33 keys are
    let problem = BackwardProblem::contiguous(&config, shape, d, true, T::DTYPE);
    let call = move |on: &macula::Cuda| {
        let make = || filled::<T>(on, shape.iter().product());
        let (q, keys, v, o, d_o) = (make()?, make()?, make()?, make()?, make()?);
        let (mut dq, mut dk, mut dv) = (make()?, make()?, make()?);
        let layouts = problem.tables.expect("tables were asked for"); // proof: `contiguous` above
        let count = |i: usize| layouts[i].shape.iter().product();
        let (rel_h, rel_w) = (filled::<T>(on, count(0))?, filled::<T>(on, count(1))?);
        let (mut drel_h, mut drel_w) = (filled::<f32>(on, count(0))?, filled::<f32>(on, count(1))?);
        let lse = filled::<f32>(on, b * h * y * x)?;
        let args = Backward {
            q: View::new(&q, shape)?,
            k: View::new(&keys, shape)?,
            v: View::new(&v, shape)?,
            tables: Some(Tables {
                rel_h: View::new(&rel_h, layouts[0])?,
                rel_w: View::new(&rel_w, layouts[1])?,
            }),
            bias: None,
            o: View::new(&o, shape)?,
            lse: View::new(&lse, [b, h, y, x])?,
            d_o: View::new(&d_o, shape)?,
            dq: Some(ViewMut::new(&mut dq, shape)?),
            dk: Some(ViewMut::new(&mut dk, shape)?),
            dv: Some(ViewMut::new(&mut dv, shape)?),
            drel_h: Some(ViewMut::new(&mut drel_h, layouts[0])?),
            drel_w: Some(ViewMut::new(&mut drel_w, layouts[1])?),
            dbias: None,
        };
        let bytes = op.plan_bwd(&args.problem(), on.gpu())?.workspace_bytes;
        with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch))
    };
    Case {
        op: "local",
        pass: "backward",
        shape: words::<T>(shape, window),
        cost: op.backward_cost(&problem),
        call: Box::new(call),
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::{Case, Measured};
    use super::{WINDOWS, Window, backward, forward};
    use crate::common::cuda::look_alike;
    use half::f16;
    use std::collections::BTreeSet;

    const fn square(k: usize) -> Window {
        Window::sliding([k, k])
    }

    const fn map(d: usize) -> [usize; 5] {
        [1, 1, 32, 32, d]
    }

    /// Queries of a map in groups of 16, as warps take them.
    pub fn patches(map: [usize; 5]) -> f64 {
        map[..4].iter().product::<usize>() as f64 / 16.0
    }

    /// Forward every tensor is fetched and written once; backward by each of the two launches that need it.
    #[test]
    fn device_bytes_are_those_of_the_tensors() {
        let mut reached = BTreeSet::new();
        for case in super::cases() {
            let Some(got) = case.measure_in_test() else { return };
            // The minimum counts 8 tensors backward.
            let passes = if case.pass == "forward" { 1.0 } else { 12.0 / 8.0 };
            let of_minimum = got.tensor_bytes() as f64 / (passes * case.cost.min_bytes as f64);
            assert!((0.99..=1.1).contains(&of_minimum), "{}: {of_minimum}", case.name());
            reached.extend(got.launches.into_iter().map(|launch| launch.entry));
        }
        if look_alike().is_some() {
            let all = macula::kernel::all().iter().map(|kernel| kernel.name);
            let missing: Vec<&str> =
                all.filter(|name| name.starts_with("local_") && !reached.contains(*name)).collect();
            assert!(missing.is_empty(), "no case reaches {missing:?}");
        }
    }

    /// Scores that tensor cores compute for a query, be they used or masked. `d` is a channel class; `tables`: rows of the relative
    /// tables.
    pub fn score_slots(got: &Measured, map: [usize; 5], tables: Option<usize>) -> f64 {
        let d = map[4];
        let flops = got.totals().tensor_flops as f64 / patches(map) / 16.0;
        // Both tables, 8 rows at a time.
        let of_tables = tables.map_or(0, |rows| 2 * rows.next_multiple_of(8) * 2 * d);
        // A score, its share of the weighted sum, and a sum of weights that takes 8 columns.
        (flops - of_tables as f64) / (2 * d + 2 * d + 16) as f64
    }

    /// Channels and windows of both heights of patches, and the most scores for a query. A 7×7 window has 49 keys; four queries side
    /// by side see 10 columns, and keys come 16 at a time.
    pub const HEIGHTS: [(usize, usize, f64); 5] =
        [(32, 7, 112.0), (64, 7, 112.0), (128, 7, 112.0), (32, 13, 288.0), (64, 13, 288.0)];

    #[test]
    fn few_scores_are_computed_in_vain() {
        for (d, k, most) in HEIGHTS {
            let case = forward::<f16>(map(d), square(k));
            let Some(got) = case.measure_in_test() else { return };
            let slots = score_slots(&got, map(d), Some(k));
            assert!(slots <= most && slots >= (k * k) as f64, "{}: {slots} scores per query", case.name());
        }
    }

    /// Turns of shared memory for 16 queries.
    #[test]
    fn shared_memory_is_asked_little() {
        for (case, most) in [
            (forward::<f16>(map(64), square(7)), 430.0),
            (forward::<f16>(map(32), square(7)), 285.0),
            (forward::<f16>(map(64), square(13)), 735.0),
            (backward::<f16>(map(64), square(7)), 1500.0),
        ] {
            let Some(got) = case.measure_in_test() else { return };
            let wavefronts = got.totals().wavefronts as f64 / patches(map(64));
            assert!(wavefronts <= most, "{}: {wavefronts} wavefronts for 16 queries", case.name());
        }
    }

    /// Turns of shared memory for 16 queries of each of [`WINDOWS`], forward and backward.
    pub fn windows_ask_little(
        forward: impl Fn([usize; 5], Window) -> Case,
        backward: impl Fn([usize; 5], Window) -> Case,
        most: [[f64; 2]; 4],
    ) {
        for ((map, window), most) in WINDOWS.into_iter().zip(most) {
            for (case, most) in [forward(map, window), backward(map, window)].into_iter().zip(most) {
                let Some(got) = case.measure_in_test() else { return };
                let wavefronts = got.totals().wavefronts as f64 / patches(map);
                assert!(wavefronts <= most, "{}: {wavefronts} wavefronts for 16 queries", case.name());
            }
        }
    }

    /// Dilated windows cost what plain ones do, and blocks of 7×7, though 49 queries take 64 places. A shifted grid has 25 of them
    /// where 16 would do. HaloNet's windows are 14×14.
    #[test]
    fn every_window_asks_little() {
        let most = [[262.0, 880.0], [272.0, 960.0], [360.0, 1225.0], [430.0, 2700.0]];
        windows_ask_little(forward::<f16>, backward::<f16>, most);
    }

    /// Instructions for 16 queries, of PTX: up to 7 steps of 148 and what moves maxima, and 1215 once, for places, tables, loads
    /// and stores. An H100 issues them in little more time than it moves the bytes.
    #[test]
    fn instructions_stay_few() {
        let case = forward::<f16>(map(64), square(7));
        let Some(got) = case.measure_in_test() else { return };
        let instructions = got.warp_instructions() as f64 / patches(map(64));
        assert!(instructions <= 2700.0, "{}: {instructions} for 16 queries", case.name());
    }
}
