//! `value_mixture` against the same mixture composed of candle's operations.

use crate::gradients::{TYPES, compare};
use crate::random;
use candle_core::{DType, Device, Result, Tensor};
use macula_candle::{MixtureTables, value_mixture};

/// Weights by site, looked up for every pixel, and a weighed sum.
fn composed(t: &[Tensor]) -> Result<Tensor> {
    let (vs, emb_row, emb_col, nu) = (&t[0], &t[1], &t[2], &t[3]);
    let ([rows, r], columns, m) = ([emb_row.dim(0)?, emb_row.dim(1)?], emb_col.dim(0)?, nu.dim(0)?);
    let (y, x) = (vs.dim(3)?, vs.dim(4)?);
    let by_site = emb_row.unsqueeze(1)?.broadcast_add(&emb_col.unsqueeze(0)?)?;
    let scores = by_site.reshape((rows * columns, r))?.matmul(&nu.t()?.contiguous()?)?;
    let p = candle_nn::ops::softmax(&scores, 1)?.t()?.contiguous()?;
    let site = |ni: usize| (ni / x % rows * columns + ni % x % columns) as u32;
    let sites = Tensor::from_vec((0..y * x).map(site).collect(), y * x, &Device::Cpu)?;
    let p = p.index_select(&sites, 1)?.reshape(vec![m, 1, 1, y, x, 1])?;
    p.broadcast_mul(vs)?.sum(0)
}

#[test]
fn value_mixture_is_candles() -> Result<()> {
    for dtype in TYPES {
        // Tables of another element type than the maps, too.
        for (sites, table_dtype) in [([2, 3], DType::F32), ([4, 5], DType::F32), ([3, 2], dtype)] {
            let table = |seed, rows| -> Result<_> { Ok((random(seed, &[rows, 4], -1.0, 1.0)?, table_dtype)) };
            let vs = (random(1, &[3, 2, 2, 4, 5, 6], -1.0, 1.0)?, dtype);
            let inputs = [vs, table(2, sites[0])?, table(3, sites[1])?, table(4, 3)?];
            let ours = |t: &[Tensor]| {
                value_mixture(&t[0], MixtureTables { emb_row: &t[1], emb_col: &t[2], nu: &t[3] })
            };
            compare("value_mixture", dtype, &inputs, ours, composed)?;
        }
    }
    Ok(())
}

/// One projection makes all maps; the op reads it where it is.
#[test]
fn maps_are_a_view_of_a_projection() -> Result<()> {
    let (m, h, e) = (4, 2, 3);
    let projected = random(1, &[2, 5, 6, m * h * e], -1.0, 1.0)?.to_dtype(DType::F32)?;
    let vs = projected.reshape(vec![2, 5, 6, m, h, e])?.permute(vec![3, 0, 4, 1, 2, 5])?;
    let table = |seed, rows| random(seed, &[rows, 4], -1.0, 1.0)?.to_dtype(DType::F32);
    let (emb_row, emb_col, nu) = (table(2, 4)?, table(3, 4)?, table(4, m)?);
    let run = |vs: &Tensor| -> Result<Vec<f32>> {
        let tables = MixtureTables { emb_row: &emb_row, emb_col: &emb_col, nu: &nu };
        value_mixture(vs, tables)?.flatten_all()?.to_vec1()
    };
    assert_eq!(run(&vs)?, run(&vs.contiguous()?)?);
    Ok(())
}
