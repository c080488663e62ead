//! The attention of macula's ops, composed of candle's operations: slow, memory hungry, and differentiated by candle.

use candle_core::{DType, Device, Result, Tensor};
use macula_candle::{LocalConfig, Relative};

/// Pixels as one dimension: `[b, h, n, c]`.
fn flat(t: &Tensor) -> Result<Tensor> {
    let (b, h, y, x, c) = t.dims5()?;
    t.reshape((b, h, y * x, c))
}

/// The product of the last two dimensions; candle knows it for few dimensions only.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let batch = |t: &Tensor| -> Result<Tensor> {
        let rank = t.rank();
        let outer: usize = t.dims()[..rank - 2].iter().product();
        t.contiguous()?.reshape((outer, t.dim(rank - 2)?, t.dim(rank - 1)?))
    };
    let mut shape = a.dims().to_vec();
    shape.pop();
    shape.push(b.dim(b.rank() - 1)?);
    batch(a)?.matmul(&batch(b)?)?.reshape(shape)
}

fn constant(values: Vec<f64>, shape: &[usize], like: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(like.dtype())
}

/// A number for every pair of pixels, from (yi, xi) and (yj, xj).
fn pairs(y: usize, x: usize, of: impl Fn([i64; 2], [i64; 2]) -> f64) -> Vec<f64> {
    let at = |n: usize| [(n / x) as i64, (n % x) as i64];
    (0..y * x * y * x).map(|p| of(at(p / (y * x)), at(p % (y * x)))).collect()
}

/// exp(−D² / 2σ²) over all pixels, rows normalised.
pub fn gaussian(v: &Tensor, sigma: &Tensor) -> Result<Tensor> {
    let (b, h, y, x, _) = v.dims5()?;
    let n = y * x;
    let squares = pairs(y, x, |[yi, xi], [yj, xj]| ((yi - yj).pow(2) + (xi - xj).pow(2)) as f64);
    let squares = constant(squares, &[1, n, n], v)?;
    let factor = (sigma.sqr()?.recip()? * -0.5)?.reshape((sigma.elem_count(), 1, 1))?;
    let weights = squares.broadcast_mul(&factor)?.exp()?;
    let map = weights.broadcast_div(&weights.sum_keepdim(2)?)?;
    product(&map.broadcast_as((b, h, n, n))?, &flat(v)?)?.reshape(v.shape())
}

/// Softmax over positions of the keys, per channel.
pub fn content(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let weights = candle_nn::ops::softmax(&flat(k)?, 2)?;
    let summary = product(&weights.transpose(2, 3)?, &flat(v)?)?;
    product(&flat(q)?, &summary)?.reshape(v.shape())
}

/// One axial layer along columns.
pub fn columns(q: &Tensor, v: &Tensor, table: &Tensor) -> Result<Tensor> {
    let (b, h, y, _, d) = q.dims5()?;
    let (heads, rows, _) = table.dims3()?;
    let reach = rows.div_ceil(2) as i64;
    let (mut at, mut seen) = (Vec::new(), Vec::new());
    for i in 0..y as i64 {
        for j in 0..y as i64 {
            at.push((j - i + reach - 1).clamp(0, rows as i64 - 1) as u32);
            seen.push(if (j - i).abs() < reach { 1.0 } else { 0.0 });
        }
    }
    let at = Tensor::from_vec(at, y * y, &Device::Cpu)?;
    let by_pair = table.index_select(&at, 1)?.reshape((1, heads, y, y, d))?.transpose(3, 4)?;
    let by_pair = by_pair.broadcast_as((b, h, y, d, y))?;
    let seen = constant(seen, &[1, 1, y, 1, y], q)?;
    let weights = product(q, &by_pair)?.broadcast_mul(&seen)?;
    let (weights, v) = (weights.permute((0, 1, 3, 2, 4))?, v.permute((0, 1, 3, 2, 4))?);
    product(&weights, &v)?.permute((0, 1, 3, 2, 4))
}

/// One axial layer along rows.
pub fn rows(q: &Tensor, v: &Tensor, table: &Tensor) -> Result<Tensor> {
    columns(&q.transpose(2, 3)?, &v.transpose(2, 3)?, table)?.transpose(2, 3)
}

/// Batch norm of `[b, h, y, x, e]` with `[1 or h, e]` parameters, by the statistics of this batch or given ones.
pub fn batch_norm(y: &Tensor, weight: &Tensor, bias: &Tensor, given: Option<[&Tensor; 2]>) -> Result<Tensor> {
    let (heads, e) = weight.dims2()?;
    let spread = |t: &Tensor| t.reshape((1, heads, 1, 1, e));
    let mean = |t: &Tensor| -> Result<Tensor> {
        if heads == 1 { t.mean_keepdim((0, 1, 2, 3)) } else { t.mean_keepdim((0, 2, 3)) }
    };
    let (centre, var) = match given {
        Some([mean, var]) => (spread(mean)?, spread(var)?),
        None => {
            let centre = mean(y)?;
            (centre.clone(), mean(&y.broadcast_sub(&centre)?.sqr()?)?)
        }
    };
    let hat = y.broadcast_sub(&centre)?.broadcast_div(&(var + 1e-5)?.sqrt()?)?;
    hat.broadcast_mul(&spread(weight)?)?.broadcast_add(&spread(bias)?)
}

/// Softmax over the window around every pixel, masked at borders.
pub fn local([q, k, v]: [&Tensor; 3], tables: Option<[&Tensor; 2]>, config: &LocalConfig) -> Result<Tensor> {
    let (b, h, y, x, d) = q.dims5()?;
    let (n, keys) = (y * x, config.window.keys());
    let slot = |from: i64, to: i64, window: usize| to - from + (window as i64 - 1) / 2;
    let is_seen = |i: [i64; 2], j: [i64; 2]| {
        (0..2).all(|axis| (0..keys[axis] as i64).contains(&slot(i[axis], j[axis], keys[axis])))
    };
    let mut logits = product(&flat(q)?, &flat(k)?.transpose(2, 3)?)?;
    if let Some(tables) = tables {
        let mut parts = Vec::new();
        for axis in 0..2 {
            let window = keys[axis];
            let rows = pairs(y, x, |i, j| slot(i[axis], j[axis], window).clamp(0, window as i64 - 1) as f64);
            let at = Tensor::from_vec(rows, n * n, &Device::Cpu)?.to_dtype(DType::U32)?;
            let (heads, _, channels) = tables[axis].dims3()?;
            parts.push(tables[axis].index_select(&at, 1)?.reshape((1, heads, n, n, channels))?);
        }
        let relative = match config.relative {
            Relative::Concat => Tensor::cat(&parts, 4)?,
            Relative::Sum => (&parts[0] + &parts[1])?,
        };
        let relative = relative.transpose(3, 4)?.broadcast_as((b, h, n, d, n))?;
        let by_position = product(&flat(q)?.unsqueeze(3)?, &relative)?;
        logits = (logits + by_position.reshape((b, h, n, n))?)?;
    }
    let hidden = pairs(y, x, |i, j| if is_seen(i, j) { 0.0 } else { -1e9 });
    let hidden = constant(hidden, &[1, 1, n, n], q)?;
    let logits = (logits * f64::from(config.scale))?.broadcast_add(&hidden)?;
    let p = candle_nn::ops::softmax(&logits, 3)?;
    product(&p, &flat(v)?)?.reshape(v.shape())
}
