//! What shapes fit together.

use super::{BackwardProblem, ForwardProblem, Gsa};
use crate::config::axial::BatchNorm;
use crate::config::gsa::GsaConfig;
use crate::ops::{check_channels, check_shape};
use crate::{Error, Layout, Result};

const OP: &str = Gsa::NAME;

struct Inputs {
    q: Layout<5>,
    k: Layout<5>,
    v: Layout<5>,
    columns: Layout<3>,
    rows: Layout<3>,
    affine: Option<[Layout<2>; 2]>,
}

fn presence(arg: &'static str, is_there: bool, is_wanted: bool) -> Result<()> {
    match (is_there, is_wanted) {
        (true, false) => Err(Error::input(OP, arg, "absent with these settings", "a tensor")),
        (false, true) => Err(Error::input(OP, arg, "given with these settings", "nothing")),
        _ => Ok(()),
    }
}

fn inputs(config: &GsaConfig, p: Inputs) -> Result<()> {
    let ([b, h, y, x, d], e) = (p.q.shape, p.v.shape[4]);
    check_channels(OP, "q", d)?;
    check_channels(OP, "v", e)?;
    check_shape(OP, "k", p.k.shape, p.q.shape)?;
    check_shape(OP, "v", p.v.shape, [b, h, y, x, e])?;
    for (arg, table) in [("columns", p.columns), ("rows", p.rows)] {
        let [heads, rows, _] = table.shape;
        let heads = if heads == 1 { 1 } else { h };
        let rows = if rows % 2 == 1 { rows } else { rows + 1 };
        check_shape(OP, arg, table.shape, [heads, rows, d])?;
    }
    presence("affine", p.affine.is_some(), config.norm != BatchNorm::None)?;
    if let Some([weight, bias]) = p.affine {
        let heads = if weight.shape[0] == 1 { 1 } else { h };
        check_shape(OP, "weight", weight.shape, [heads, e])?;
        check_shape(OP, "bias", bias.shape, weight.shape)?;
    }
    Ok(())
}

fn statistics(
    arg: &'static str,
    statistics: Option<[Layout<2>; 2]>,
    affine: Option<[Layout<2>; 2]>,
) -> Result<()> {
    match (statistics, affine) {
        (Some(s), Some(a)) => s.iter().try_for_each(|s| check_shape(OP, arg, s.shape, a[0].shape)),
        _ => Ok(()),
    }
}

pub(super) fn forward(config: &GsaConfig, p: &ForwardProblem) -> Result<()> {
    let ForwardProblem { q, k, v, columns, rows, affine, .. } = *p;
    inputs(config, Inputs { q, k, v, columns, rows, affine })?;
    check_shape(OP, "o", p.o.shape, v.shape)?;
    presence("given", p.given.is_some(), config.norm == BatchNorm::Eval)?;
    statistics("given", p.given, affine)?;
    p.y.map_or(Ok(()), |y| check_shape(OP, "y", y.shape, v.shape))?;
    if p.batch.is_some() {
        presence("batch", true, config.norm == BatchNorm::Train)?;
    }
    statistics("batch", p.batch, affine)
}

pub(super) fn backward(config: &GsaConfig, p: &BackwardProblem) -> Result<()> {
    let BackwardProblem { q, k, v, columns, rows, affine, .. } = *p;
    inputs(config, Inputs { q, k, v, columns, rows, affine })?;
    check_shape(OP, "d_o", p.d_o.shape, v.shape)?;
    check_shape(OP, "y", p.y.shape, v.shape)?;
    presence("statistics", p.statistics.is_some(), config.norm != BatchNorm::None)?;
    statistics("statistics", p.statistics, affine)?;
    for (arg, grad, like) in [("dq", p.dq, q), ("dk", p.dk, k), ("dv", p.dv, v)] {
        grad.map_or(Ok(()), |grad| check_shape(OP, arg, grad.shape, like.shape))?;
    }
    for (arg, grad, like) in [("dcolumns", p.dcolumns, columns), ("drows", p.drows, rows)] {
        grad.map_or(Ok(()), |grad| check_shape(OP, arg, grad.shape, like.shape))?;
    }
    for (arg, grad) in [("dweight", p.dweight), ("dbias", p.dbias)] {
        if let Some(grad) = grad {
            presence(arg, true, affine.is_some())?;
            affine.map_or(Ok(()), |a| check_shape(OP, arg, grad.shape, a[0].shape))?;
        }
    }
    Ok(())
}

/// Summary, maximum and sum of the content branch.
pub(super) fn content(
    q: Layout<5>,
    e: usize,
    summary: Layout<4>,
    max: Layout<3>,
    sum: Layout<3>,
) -> Result<()> {
    let [b, h, _, _, d] = q.shape;
    check_shape(OP, "content.summary", summary.shape, [b, h, d, e])?;
    check_shape(OP, "content.max", max.shape, [b, h, d])?;
    check_shape(OP, "content.sum", sum.shape, [b, h, d])?;
    let dense = [
        ("content.summary", summary.is_contiguous()),
        ("content.max", max.is_contiguous()),
        ("content.sum", sum.is_contiguous()),
    ];
    match dense.iter().find(|(_, is_dense)| !is_dense) {
        Some((arg, _)) => Err(Error::input(OP, arg, "contiguous", "other strides")),
        None => Ok(()),
    }
}
