//! `local`: windows of 7 and 13 pixels, with and without relative positions; dilated, and Swin's shifted, with its bias.

use super::{Case, Layer, Make};
use crate::timing::Call;
use crate::{Failure, Sizes};
use macula::local::{
    Backward, BackwardProblem, Blocks, Border, Forward, ForwardProblem, LocalConfig, Positions, Sliding,
    Tables, Window,
};
use macula::{Cuda, Element, Layout, Local, Tensor};

/// What says relative positions.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Nothing,
    Tables,
    Bias,
}

const VARIANTS: [(&str, Window, By); 6] = [
    ("k7_rel", Window::sliding([7; 2]), By::Tables),
    (
        "k7_dilated2_shift",
        Window::Sliding(Sliding::new([7; 2]).dilated([2; 2]).at_border(Border::Shift)),
        By::Nothing,
    ),
    ("swin7_shifted3_bias", Window::Blocks(Blocks::new([7; 2]).offset_by([3; 2])), By::Bias),
    ("k7", Window::sliding([7; 2]), By::Nothing),
    ("k13_rel", Window::sliding([13; 2]), By::Tables),
    ("k13", Window::sliding([13; 2]), By::Nothing),
];

fn config(window: Window, d: usize) -> LocalConfig {
    LocalConfig { window, scale: (d as f32).powf(-0.5), ..Default::default() }
}

/// A bias per head.
fn of_bias(by: By, config: &LocalConfig, layer: Layer) -> Option<Layout<3>> {
    let [rows, columns] = config.window.table_rows();
    (by == By::Bias).then(|| Layout::contiguous([layer.shape[1], rows, columns]))
}

fn forward_problem<T: Element>(config: &LocalConfig, layer: Layer, by: By) -> ForwardProblem {
    let plain = ForwardProblem::contiguous(config, layer.shape, layer.shape[4], by == By::Tables, T::DTYPE);
    ForwardProblem { bias: of_bias(by, config, layer), ..plain }
}

fn backward_problem<T: Element>(config: &LocalConfig, layer: Layer, by: By) -> BackwardProblem {
    let plain = BackwardProblem::contiguous(config, layer.shape, layer.shape[4], by == By::Tables, T::DTYPE);
    let bias = of_bias(by, config, layer);
    BackwardProblem { bias, dbias: bias, ..plain }
}

fn tables<T: Element>(
    make: &Make<'_>,
    config: &LocalConfig,
    d: usize,
) -> Result<Tables<Tensor<T, 3>>, Failure> {
    let channels = config.relative.table_channels(d);
    let rows = config.window.table_rows();
    Ok(Tables {
        rel_h: make.tensor(8, [1, rows[0], channels[0]])?,
        rel_w: make.tensor(9, [1, rows[1], channels[1]])?,
    })
}

fn views<T: Element>(tables: Option<&Tables<Tensor<T, 3>>>) -> Option<Tables<macula::View<'_, T, 3>>> {
    tables.map(|t| Tables { rel_h: t.rel_h.view(), rel_w: t.rel_w.view() })
}

fn forward<T: Element>(make: &Make<'_>, layer: Layer, config: LocalConfig, by: By) -> Result<Call, Failure> {
    let (op, on, [b, h, y, x, d]) = (Local::new(config)?, make.gpu.clone(), layer.shape);
    let tensor = |arg| make.tensor::<T, 5>(arg, layer.shape);
    let (q, k, v) = (tensor(1)?, tensor(2)?, tensor(3)?);
    let tables = (by == By::Tables).then(|| tables::<T>(make, &config, d)).transpose()?;
    let bias = of_bias(by, &config, layer).map(|bias| make.tensor::<f32, 3>(10, bias.shape)).transpose()?;
    let (mut o, mut lse) = (make.zeros::<T, 5>(layer.shape)?, make.zeros::<f32, 4>([b, h, y, x])?);
    let problem = forward_problem::<T>(&config, layer, by);
    let mut scratch = make.scratch(op.forward_workspace_bytes(&on, &problem)?)?;
    Ok(Box::new(move || {
        let args = Forward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            tables: views(tables.as_ref()),
            bias: bias.as_ref().map(Tensor::view),
            o: o.view_mut(),
            lse: Some(lse.view_mut()),
        };
        op.forward_into(&on, args, scratch.lend())
    }))
}

fn backward<T: Element>(make: &Make<'_>, layer: Layer, config: LocalConfig, by: By) -> Result<Call, Failure> {
    let (op, on, d) = (Local::new(config)?, make.gpu.clone(), layer.shape[4]);
    let tensor = |arg| make.tensor::<T, 5>(arg, layer.shape);
    let (q, k, v, d_o) = (tensor(1)?, tensor(2)?, tensor(3)?, tensor(4)?);
    let tables = (by == By::Tables).then(|| tables::<T>(make, &config, d)).transpose()?;
    let bias = of_bias(by, &config, layer).map(|bias| make.tensor::<f32, 3>(10, bias.shape)).transpose()?;
    let zeros = || make.zeros::<T, 5>(layer.shape);
    let (mut dq, mut dk, mut dv) = (zeros()?, zeros()?, zeros()?);
    let problem = backward_problem::<T>(&config, layer, by);
    let mut scratch = make.scratch(op.backward_workspace_bytes(&on, &problem)?)?;
    let positions = Positions {
        tables: tables.as_ref().map(|t| Tables { rel_h: &t.rel_h, rel_w: &t.rel_w }),
        bias: bias.as_ref(),
    };
    let out = op.forward(&on, &q, &k, &v, positions)?;
    let mut dtables = match &tables {
        Some(t) => {
            let (rel_h, rel_w) =
                (make.zeros::<f32, 3>(t.rel_h.shape())?, make.zeros::<f32, 3>(t.rel_w.shape())?);
            Some(Tables { rel_h, rel_w })
        }
        None => None,
    };
    let mut dbias = match &bias {
        Some(bias) => Some(make.zeros::<f32, 3>(bias.shape())?),
        None => None,
    };
    Ok(Box::new(move || {
        let (drel_h, drel_w) = match &mut dtables {
            Some(t) => (Some(t.rel_h.view_mut()), Some(t.rel_w.view_mut())),
            None => (None, None),
        };
        let args = Backward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            tables: views(tables.as_ref()),
            bias: bias.as_ref().map(Tensor::view),
            o: out.o.view(),
            lse: out.lse.view(),
            d_o: d_o.view(),
            dq: Some(dq.view_mut()),
            dk: Some(dk.view_mut()),
            dv: Some(dv.view_mut()),
            drel_h,
            drel_w,
            dbias: dbias.as_mut().map(Tensor::view_mut),
        };
        op.backward_into(&on, args, scratch.lend())
    }))
}

pub fn cases<T: Element>(gpu: &Cuda, layer: Layer, sizes: Sizes) -> Vec<Case<'_>> {
    let d = layer.shape[4];
    let case = |variant, pass, cost, make| Case {
        op: Local::NAME,
        pass,
        variant,
        layer,
        dtype: T::DTYPE,
        cost,
        make,
    };
    // Border shift wants a map that holds the window.
    let fits = |window: Window| match window {
        Window::Sliding(Sliding { size, dilation, border: Border::Shift }) => {
            (0..2).all(|i| layer.shape[2 + i] >= size[i] * dilation[i])
        }
        _ => true,
    };
    let both = |(variant, window, by): (&'static str, Window, By)| {
        let config = config(window, d);
        let op = Local::new(config).ok()?;
        let fwd = op.forward_cost(&forward_problem::<T>(&config, layer, by));
        let bwd = op.backward_cost(&backward_problem::<T>(&config, layer, by));
        let make_fwd = Box::new(move |seed| forward::<T>(&Make { gpu, seed }, layer, config, by));
        let make_bwd = Box::new(move |seed| backward::<T>(&Make { gpu, seed }, layer, config, by));
        Some([case(variant, "forward", fwd, make_fwd as _), case(variant, "backward", bwd, make_bwd)])
    };
    // Without tables the kernels do strictly less: a rehearsal needs one of each window.
    let wanted = if sizes == Sizes::Tiny { &VARIANTS[..4] } else { &VARIANTS[..] };
    wanted.iter().copied().filter(|(_, window, _)| fits(*window)).filter_map(both).flatten().collect()
}
