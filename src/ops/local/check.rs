//! Which settings and shapes `local` takes.

use super::super::{check_channels, check_shape};
use super::{BackwardProblem, Blocks, Border, ForwardProblem, Local, LocalConfig, Sliding, Window};
use crate::{Error, Layout, Result};

const OP: &str = Local::NAME;

pub(super) fn config(config: &LocalConfig) -> Result<()> {
    match &config.window {
        Window::Sliding(window) => sliding(window)?,
        Window::Blocks(window) => blocks(window)?,
    }
    if config.scale.is_finite() { Ok(()) } else { Err(Error::input(OP, "scale", "finite", config.scale)) }
}

fn sliding(window: &Sliding) -> Result<()> {
    let Sliding { size, dilation, border } = window;
    if size.iter().any(|k| !(1..=Local::WINDOW_MAX).contains(k)) {
        let want = format!("1 to {} keys along each axis", Local::WINDOW_MAX);
        return Err(Error::input(OP, "window.size", want, format!("{size:?}")));
    }
    if *border == Border::Shift && size.iter().any(|k| k % 2 == 0) {
        return Err(Error::input(OP, "window.size", "odd for border shift", format!("{size:?}")));
    }
    if dilation.contains(&0) {
        let want = "1 or more pixels along each axis";
        return Err(Error::input(OP, "window.dilation", want, format!("{dilation:?}")));
    }
    Ok(())
}

fn blocks(window: &Blocks) -> Result<()> {
    let Blocks { size, offset, halo } = window;
    if size.contains(&0) {
        return Err(Error::input(OP, "window.size", "1 or more pixels along each axis", format!("{size:?}")));
    }
    if Window::from(*window).keys().iter().any(|keys| *keys > Local::WINDOW_MAX) {
        let want =
            format!("at most {} pixels along each axis, with the halo on both sides", Local::WINDOW_MAX);
        return Err(Error::input(OP, "window.size", want, format!("{size:?} and a halo of {halo:?}")));
    }
    if (0..2).any(|i| offset[i] >= size[i]) {
        let want = format!("less than the block, {size:?}");
        return Err(Error::input(OP, "window.offset", want, format!("{offset:?}")));
    }
    Ok(())
}

/// What both passes read.
struct Inputs<'a> {
    q: &'a Layout<5>,
    k: &'a Layout<5>,
    v: &'a Layout<5>,
    tables: &'a Option<[Layout<3>; 2]>,
    bias: &'a Option<Layout<3>>,
}

fn inputs(config: &LocalConfig, inputs: &Inputs<'_>) -> Result<()> {
    let Inputs { q, k, v, tables, bias } = inputs;
    let [b, h, y, x, d] = q.shape;
    check_channels(OP, "q", d)?;
    check_channels(OP, "v", v.shape[4])?;
    check_shape(OP, "k", k.shape, q.shape)?;
    check_shape(OP, "v", v.shape, [b, h, y, x, v.shape[4]])?;
    if let (Window::Sliding(Sliding { size, dilation, border: Border::Shift }), false) =
        (config.window, q.is_empty())
        && [0, 1].iter().any(|&i| size[i].saturating_mul(dilation[i]) > [y, x][i])
    {
        let want =
            format!("at most what the map, [{y}, {x}], holds at dilation {dilation:?}, for border shift");
        return Err(Error::input(OP, "window.size", want, format!("{size:?}")));
    }
    let (rows, channels) = (config.window.table_rows(), config.relative.table_channels(d));
    let heads = |shape: [usize; 3]| if shape[0] == 1 { 1 } else { h };
    for (i, (arg, table)) in ["rel_h", "rel_w"].iter().zip(tables.iter().flatten()).enumerate() {
        check_shape(OP, arg, table.shape, [heads(table.shape), rows[i], channels[i]])?;
    }
    bias.map_or(Ok(()), |bias| check_shape(OP, "bias", bias.shape, [heads(bias.shape), rows[0], rows[1]]))
}

pub(super) fn forward(config: &LocalConfig, p: &ForwardProblem) -> Result<()> {
    inputs(config, &Inputs { q: &p.q, k: &p.k, v: &p.v, tables: &p.tables, bias: &p.bias })?;
    check_shape(OP, "o", p.o.shape, p.v.shape)?;
    p.lse.map_or(Ok(()), |l| lse(&l, &p.q))
}

pub(super) fn backward(config: &LocalConfig, p: &BackwardProblem) -> Result<()> {
    inputs(config, &Inputs { q: &p.q, k: &p.k, v: &p.v, tables: &p.tables, bias: &p.bias })?;
    check_shape(OP, "o", p.o.shape, p.v.shape)?;
    check_shape(OP, "d_o", p.d_o.shape, p.v.shape)?;
    lse(&p.lse, &p.q)?;
    for (arg, grad, like) in [("dq", p.dq, p.q), ("dk", p.dk, p.k), ("dv", p.dv, p.v)] {
        grad.map_or(Ok(()), |g| check_shape(OP, arg, g.shape, like.shape))?;
    }
    let table = |i: usize| p.tables.map(|tables| tables[i]);
    let positions = [
        ("drel_h", p.drel_h, table(0), "absent without tables"),
        ("drel_w", p.drel_w, table(1), "absent without tables"),
        ("dbias", p.dbias, p.bias, "absent without a bias"),
    ];
    for (arg, grad, of, want) in positions {
        match (grad, of) {
            (Some(grad), Some(of)) => check_shape(OP, arg, grad.shape, of.shape)?,
            (Some(_), None) => return Err(Error::input(OP, arg, want, "a tensor")),
            (None, _) => {}
        }
    }
    Ok(())
}

fn lse(lse: &Layout<4>, q: &Layout<5>) -> Result<()> {
    let [b, h, y, x, _] = q.shape;
    check_shape(OP, "lse", lse.shape, [b, h, y, x])?;
    if lse.is_contiguous() { Ok(()) } else { Err(Error::input(OP, "lse", "contiguous", format!("{lse:?}"))) }
}
