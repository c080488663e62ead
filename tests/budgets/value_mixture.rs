//! `value_mixture`: with m maps, m + 1 passes over memory forward and 2m + 1 backward; the weights and partial sums, in the
//! workspace, are counted apart.

use super::{Call, Case, filled, with_scratch};
use half::{bf16, f16};
use macula::value_mixture::{Backward, BackwardProblem, Forward, ForwardProblem, Tables};
use macula::{Cuda, Element, Error, ValueMixture, View, ViewMut};

/// The four maps of a stem, weights by place in a 4×4 block; and weights by pixel.
const SITES: [[usize; 2]; 2] = [[4, 4], [32, 64]];
const VS: [usize; 6] = [4, 1, 2, 32, 64, 32];
/// Channels of the tables.
const R: usize = 16;

/// Every element type over both kinds of tables.
pub fn cases() -> Vec<Case> {
    SITES
        .into_iter()
        .flat_map(|sites| [both::<f16>(sites), both::<bf16>(sites), both::<f32>(sites)])
        .flatten()
        .collect()
}

fn both<T: Element>(sites: [usize; 2]) -> [Case; 2] {
    let op = ValueMixture::new();
    let ([m, b, h, y, x, e], [rows, columns]) = (VS, sites);
    let (of_forward, of_backward) = (
        ForwardProblem::contiguous(VS, sites, R, T::DTYPE),
        BackwardProblem::contiguous(VS, sites, R, T::DTYPE),
    );
    let case = |pass, cost, call: Call| Case {
        op: ValueMixture::NAME,
        pass,
        shape: format!("m{m} b{b} h{h} {y}×{x} e{e} {rows}×{columns} sites {}", T::DTYPE),
        cost,
        call,
    };
    let forward = move |on: &Cuda| forward::<T>(on, &of_forward);
    let backward = move |on: &Cuda| backward::<T>(on, &of_backward);
    [
        case("forward", op.forward_cost(&of_forward), Box::new(forward)),
        case("backward", op.backward_cost(&of_backward), Box::new(backward)),
    ]
}

fn forward<T: Element>(on: &Cuda, problem: &ForwardProblem) -> Result<Option<u64>, Error> {
    let (op, tables) = (ValueMixture::new(), problem.tables);
    let (vs, mut o) = (filled::<T>(on, problem.vs.len())?, filled::<T>(on, problem.o.len())?);
    let table = |like: macula::Layout<2>| filled::<f32>(on, like.len());
    let (emb_row, emb_col, nu) = (table(tables.emb_row)?, table(tables.emb_col)?, table(tables.nu)?);
    let sites = [tables.nu.shape[0], tables.emb_row.shape[0], tables.emb_col.shape[0]];
    let mut p = filled::<f32>(on, sites.iter().product())?;
    let args = Forward {
        vs: View::new(&vs, problem.vs)?,
        tables: Tables {
            emb_row: View::new(&emb_row, tables.emb_row)?,
            emb_col: View::new(&emb_col, tables.emb_col)?,
            nu: View::new(&nu, tables.nu)?,
        },
        o: ViewMut::new(&mut o, problem.o)?,
        p: Some(ViewMut::new(&mut p, sites)?),
    };
    let bytes = op.plan_fwd(problem, on.gpu())?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch))
}

fn backward<T: Element>(on: &Cuda, problem: &BackwardProblem) -> Result<Option<u64>, Error> {
    let (op, tables) = (ValueMixture::new(), problem.tables);
    let (vs, d_o) = (filled::<T>(on, problem.vs.len())?, filled::<T>(on, problem.d_o.len())?);
    let mut dvs = filled::<T>(on, problem.vs.len())?;
    let table = |like: macula::Layout<2>| filled::<f32>(on, like.len());
    let (emb_row, emb_col, nu) = (table(tables.emb_row)?, table(tables.emb_col)?, table(tables.nu)?);
    let (mut drow, mut dcolumn) = (table(tables.emb_row)?, table(tables.emb_col)?);
    let mut dnu = table(tables.nu)?;
    let args = Backward {
        vs: View::new(&vs, problem.vs)?,
        tables: Tables {
            emb_row: View::new(&emb_row, tables.emb_row)?,
            emb_col: View::new(&emb_col, tables.emb_col)?,
            nu: View::new(&nu, tables.nu)?,
        },
        d_o: View::new(&d_o, problem.d_o)?,
        dvs: Some(ViewMut::new(&mut dvs, problem.vs)?),
        dtables: Tables {
            emb_row: Some(ViewMut::new(&mut drow, tables.emb_row)?),
            emb_col: Some(ViewMut::new(&mut dcolumn, tables.emb_col)?),
            nu: Some(ViewMut::new(&mut dnu, tables.nu)?),
        },
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

    /// What goes through the workspace, where tables repeat, is next to nothing beside the maps.
    #[test]
    fn scratch_bytes_are_few() {
        for case in super::cases().iter().filter(|case| case.shape.contains("4×4 sites")) {
            let Some(got) = case.measure_in_test() else { return };
            let part = got.scratch_bytes() as f64 / case.cost.min_bytes as f64;
            assert!(part <= 0.02, "{}: {part}", case.name());
        }
    }
}
