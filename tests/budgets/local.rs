//! `local`: 4 passes over memory forward.

use super::{Case, filled};
use half::{bf16, f16};
use macula::local::{Forward, ForwardProblem, LocalConfig, Tables};
use macula::{Element, Local, View, ViewMut, Workspace};

/// Maps of whole tiles: the windows and channels that models use, in every element type.
pub fn cases() -> Vec<Case> {
    let map = |d: usize| [1, 1, 32, 32, d];
    let calls = [(map(32), 7), (map(64), 7), (map(128), 7), (map(32), 13), (map(64), 13)];
    let halves = calls.into_iter().flat_map(|(map, k)| [forward::<f16>(map, k), forward::<bf16>(map, k)]);
    halves.chain([forward::<f32>(map(32), 7)]).collect()
}

/// A forward call with relative positions, and the logarithms that training needs.
pub fn forward<T: Element>(shape: [usize; 5], k: usize) -> Case {
    let [b, h, y, x, d] = shape;
    let config = LocalConfig { window: [k, k], scale: (d as f32).powf(-0.5), ..LocalConfig::default() };
    let op = Local::new(config).expect("a valid window"); // proof: windows of up to 33 pixels are
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
            o: ViewMut::new(&mut o, shape)?,
            lse: Some(ViewMut::new(&mut lse, [b, h, y, x])?),
        };
        op.forward_into(on, args, Workspace::none())?;
        Ok(None)
    };
    Case {
        op: "local",
        pass: "forward",
        shape: format!("b{b} h{h} {y}×{x} d{d} {k}×{k} {}", T::DTYPE),
        cost: op.forward_cost(&problem),
        call: Box::new(call),
    }
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
