//! The ops composed of candle's operations, with care for time and memory.

use candle_core::{D, Device, Result, Tensor};
use macula_candle::LocalConfig;

/// The product of the last two dimensions, the others alike.
fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let batch = |t: &Tensor| -> Result<Tensor> {
        let outer: usize = t.dims()[..t.rank() - 2].iter().product();
        t.contiguous()?.reshape((outer, t.dim(D::Minus2)?, t.dim(D::Minus1)?))
    };
    let mut shape = a.dims().to_vec();
    shape.pop();
    shape.push(b.dim(D::Minus1)?);
    batch(a)?.matmul(&batch(b)?)?.reshape(shape)
}

/// Weights along one axis, `[h, n, n]`, rows normalised.
fn weights(sigma: &Tensor, n: usize) -> Result<Tensor> {
    let squares: Vec<f32> = (0..n * n).map(|p| ((p / n) as f32 - (p % n) as f32).powi(2)).collect();
    let squares = Tensor::from_vec(squares, (1, n, n), &Device::Cpu)?;
    let w = squares
        .broadcast_mul(&(sigma.sqr()?.recip()? * -0.5)?.reshape((sigma.elem_count(), 1, 1))?)?
        .exp()?;
    w.broadcast_div(&w.sum_keepdim(2)?)
}

/// Two products: along y with `[x, d]` as one dimension, then along x.
pub fn gaussian(v: &Tensor, sigma: &Tensor) -> Result<Tensor> {
    let (b, h, y, x, d) = v.dims5()?;
    let along_y = weights(sigma, y)?.unsqueeze(0)?.broadcast_as((b, h, y, y))?;
    let along_x = weights(sigma, x)?.reshape((1, h, 1, x, x))?.broadcast_as((b, h, y, x, x))?;
    let t = product(&along_y, &v.reshape((b, h, y, x * d))?)?.reshape((b, h, y, x, d))?;
    product(&along_x, &t)
}

/// Softmax over positions of the keys, two products.
pub fn content(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (b, h, y, x, _) = q.dims5()?;
    let flat = |t: &Tensor| t.reshape((b, h, y * x, t.dim(4)?));
    let weights = candle_nn::ops::softmax(&flat(k)?, 2)?;
    let summary = product(&weights.transpose(2, 3)?, &flat(v)?)?;
    product(&flat(q)?, &summary)?.reshape(v.shape())
}

/// Along the second last dimension of `[b, h, lines, n, d]`: all offsets by one product, then gathered.
fn axis(q: &Tensor, v: &Tensor, table: &Tensor) -> Result<Tensor> {
    let (b, h, lines, n, d) = q.dims5()?;
    let scores = q.contiguous()?.reshape((b * h * lines * n, d))?.matmul(&table.t()?)?;
    let at: Vec<u32> = (0..n * n).map(|p| (p % n + n - 1 - p / n) as u32).collect();
    let at = Tensor::from_vec(at, (1, n, n), &Device::Cpu)?.broadcast_as((b * h * lines, n, n))?;
    let at = at.contiguous()?.reshape((b * h * lines * n, n))?;
    let by_pair = scores.gather(&at, 1)?.reshape((b, h, lines, n, n))?;
    product(&by_pair, v)
}

/// Columns, then rows.
pub fn axial(q: &Tensor, v: &Tensor, columns: &Tensor, rows: &Tensor) -> Result<Tensor> {
    let turn = |t: &Tensor| t.transpose(2, 3);
    let y = turn(&axis(&turn(q)?, &turn(v)?, columns)?)?;
    axis(q, &y, rows)
}

/// Windows as shifted slices of padded maps: k² products of whole maps, no k²-fold copies of keys or values.
pub fn local([q, k, v]: [&Tensor; 3], [rel_h, rel_w]: [&Tensor; 2], config: &LocalConfig) -> Result<Tensor> {
    let (_, _, y, x, d) = q.dims5()?;
    let [ky, kx] = config.window.keys();
    let pad = |t: &Tensor| -> Result<Tensor> {
        t.pad_with_zeros(2, (ky - 1) / 2, ky / 2)?.pad_with_zeros(3, (kx - 1) / 2, kx / 2)
    };
    let (k, v) = (pad(k)?, pad(v)?);
    let shifted = |t: &Tensor, i: usize, j: usize| t.narrow(2, i, y)?.narrow(3, j, x);
    let by_row = q.narrow(4, 0, d / 2)?.contiguous()?.broadcast_matmul(&rel_h.t()?)?;
    let by_column = q.narrow(4, d / 2, d - d / 2)?.contiguous()?.broadcast_matmul(&rel_w.t()?)?;
    let mut logits = Vec::with_capacity(ky * kx);
    for (i, j) in (0..ky * kx).map(|p| (p / kx, p % kx)) {
        let dot = (q * shifted(&k, i, j)?)?.sum_keepdim(4)?;
        logits.push((dot + (by_row.narrow(4, i, 1)? + by_column.narrow(4, j, 1)?)?)?);
    }
    let inside = |at: usize, slot: usize, window: usize, size: usize| {
        (0..size as i64).contains(&(at as i64 + slot as i64 - (window as i64 - 1) / 2))
    };
    let hidden: Vec<f32> = (0..y * x * ky * kx)
        .map(|p| {
            let ((yi, xi), (i, j)) = ((p / (kx * ky) / x, p / (kx * ky) % x), (p / kx % ky, p % kx));
            if inside(yi, i, ky, y) && inside(xi, j, kx, x) { 0.0 } else { -1e9 }
        })
        .collect();
    let hidden = Tensor::from_vec(hidden, (1, 1, y, x, ky * kx), &Device::Cpu)?;
    let logits = (Tensor::cat(&logits, 4)? * f64::from(config.scale))?.broadcast_add(&hidden)?;
    let p = candle_nn::ops::softmax(&logits, 4)?;
    let mut o = Tensor::zeros_like(q)?;
    for (i, j) in (0..ky * kx).map(|p| (p / kx, p % kx)) {
        o = (o + shifted(&v, i, j)?.broadcast_mul(&p.narrow(4, i * kx + j, 1)?)?)?;
    }
    Ok(o)
}
