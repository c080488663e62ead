//! `value_mixture`: the four maps of a stem, whose weights follow from the place in a 4×4 block.

use super::{Case, Layer, Make};
use crate::Failure;
use crate::timing::Call;
use macula::value_mixture::{Backward, BackwardProblem, Forward, ForwardProblem, Tables};
use macula::{Cuda, Element, Tensor, ValueMixture};

const MIXTURES: usize = 4;
const SITES: [usize; 2] = [4, 4];
/// Channels of the tables.
const R: usize = 16;

fn vs(layer: Layer) -> [usize; 6] {
    let [b, h, y, x, e] = layer.shape;
    [MIXTURES, b, h, y, x, e]
}

fn tables(make: &Make<'_>) -> Result<Tables<Tensor<f32, 2>>, Failure> {
    Ok(Tables {
        emb_row: make.tensor(3, [SITES[0], R])?,
        emb_col: make.tensor(4, [SITES[1], R])?,
        nu: make.tensor(5, [MIXTURES, R])?,
    })
}

fn forward<T: Element>(make: &Make<'_>, layer: Layer) -> Result<Call, Failure> {
    let (op, on) = (ValueMixture::new(), make.gpu.clone());
    let (vs, tables) = (make.tensor::<T, 6>(1, vs(layer))?, tables(make)?);
    let mut o = make.zeros::<T, 5>(layer.shape)?;
    let problem = ForwardProblem { wants_p: false, ..problem::<T>(layer) };
    let mut scratch = make.scratch(op.forward_workspace_bytes(&on, &problem)?)?;
    Ok(Box::new(move || {
        let tables =
            Tables { emb_row: tables.emb_row.view(), emb_col: tables.emb_col.view(), nu: tables.nu.view() };
        let args = Forward { vs: vs.view(), tables, o: o.view_mut(), p: None };
        op.forward_into(&on, args, scratch.lend())
    }))
}

fn backward<T: Element>(make: &Make<'_>, layer: Layer) -> Result<Call, Failure> {
    let (op, on) = (ValueMixture::new(), make.gpu.clone());
    let (shape, tables) = (vs(layer), tables(make)?);
    let (vs, d_o) = (make.tensor::<T, 6>(1, shape)?, make.tensor::<T, 5>(2, layer.shape)?);
    let mut dvs = make.zeros::<T, 6>(shape)?;
    let (mut drow, mut dcolumn) =
        (make.zeros::<f32, 2>([SITES[0], R])?, make.zeros::<f32, 2>([SITES[1], R])?);
    let mut dnu = make.zeros::<f32, 2>([MIXTURES, R])?;
    let problem = BackwardProblem::contiguous(shape, SITES, R, T::DTYPE);
    let mut scratch = make.scratch(op.backward_workspace_bytes(&on, &problem)?)?;
    Ok(Box::new(move || {
        let args = Backward {
            vs: vs.view(),
            tables: Tables {
                emb_row: tables.emb_row.view(),
                emb_col: tables.emb_col.view(),
                nu: tables.nu.view(),
            },
            d_o: d_o.view(),
            dvs: Some(dvs.view_mut()),
            dtables: Tables {
                emb_row: Some(drow.view_mut()),
                emb_col: Some(dcolumn.view_mut()),
                nu: Some(dnu.view_mut()),
            },
        };
        op.backward_into(&on, args, scratch.lend())
    }))
}

fn problem<T: Element>(layer: Layer) -> ForwardProblem {
    ForwardProblem::contiguous(vs(layer), SITES, R, T::DTYPE)
}

pub fn cases<T: Element>(gpu: &Cuda, layer: Layer) -> Vec<Case<'_>> {
    let op = ValueMixture::new();
    let case = |pass, cost, make| Case {
        op: ValueMixture::NAME,
        pass,
        variant: "m4_4x4",
        layer,
        dtype: T::DTYPE,
        cost,
        make,
    };
    let fwd = op.forward_cost(&ForwardProblem { wants_p: false, ..problem::<T>(layer) });
    let bwd = op.backward_cost(&BackwardProblem::contiguous(vs(layer), SITES, R, T::DTYPE));
    vec![
        case("forward", fwd, Box::new(move |seed| forward::<T>(&Make { gpu, seed }, layer)) as _),
        case("backward", bwd, Box::new(move |seed| backward::<T>(&Make { gpu, seed }, layer))),
    ]
}
