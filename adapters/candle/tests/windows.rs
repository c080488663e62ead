//! Windows of every kind: the op against dense attention with a mask, the layers against what their papers' code does.

use crate::gradients::{TYPES, compare, numbers};
use crate::{map, random};
use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Module, VarBuilder, VarMap};
use macula_candle::modules::{
    HaloAttention, HaloAttentionConfig, NeighborhoodAttention, NeighborhoodAttentionConfig, WindowAttention,
    WindowAttentionConfig,
};
use macula_candle::{Blocks, Border, LocalConfig, Positions, Relative, Sliding, Tables, Window, local};

/// The row of a table that a query at `i` reads for a key at `j`, along an axis of `size` pixels; none when it does not see it.
/// The definition, once more.
fn row(window: Window, axis: usize, size: usize, i: usize, j: usize) -> Option<usize> {
    let (i, j, size) = (i as i64, j as i64, size as i64);
    let row = match window {
        Window::Blocks(Blocks { size: w, offset, halo }) => {
            let (w, offset, halo) = (w[axis] as i64, offset[axis] as i64, halo[axis] as i64);
            let start = (i - offset).div_euclid(w) * w + offset;
            (start - halo..start + w + halo).contains(&j).then_some(j - i + w + halo - 1)
        }
        Window::Sliding(Sliding { size: k, dilation, border }) => {
            let (k, step) = (k[axis] as i64, dilation[axis] as i64);
            if (j - i) % step != 0 {
                return None;
            }
            let t = (j - i) / step;
            match border {
                Border::Shift => {
                    // The window among the pixels i % step, i % step + step, …
                    let count = (size - i % step + step - 1) / step;
                    let first = (i / step - k / 2).clamp(0, count - k);
                    (first..first + k).contains(&(j / step)).then_some(t + k - 1)
                }
                _ => (0..k).contains(&(t + (k - 1) / 2)).then_some(t + (k - 1) / 2),
            }
        }
    };
    row.map(|row| row as usize)
}

/// `[b, h, y, x, c]` with pixels as one dimension.
fn flat(t: &Tensor) -> Result<Tensor> {
    let (b, h, y, x, c) = t.dims5()?;
    t.contiguous()?.reshape((b, h, y * x, c))
}

/// Dense attention with the window as a mask; tables and bias looked up for every pair of pixels.
fn dense(
    [q, k, v]: [&Tensor; 3],
    tables: Option<[&Tensor; 2]>,
    bias: Option<&Tensor>,
    config: &LocalConfig,
) -> Result<Tensor> {
    let (b, h, y, x, d) = q.dims5()?;
    let n = y * x;
    let pairs: Vec<[Option<usize>; 2]> = (0..n * n)
        .map(|p| {
            let (i, j) = (p / n, p % n);
            [row(config.window, 0, y, i / x, j / x), row(config.window, 1, x, i % x, j % x)]
        })
        .collect();
    let look_up = |of: &dyn Fn(&[Option<usize>; 2]) -> usize| {
        Tensor::from_vec(pairs.iter().map(|p| of(p) as u32).collect(), n * n, &Device::Cpu)
    };
    let mut logits = flat(q)?.matmul(&flat(k)?.t()?.contiguous()?)?;
    if let Some(tables) = tables {
        let mut relative = Vec::new();
        for axis in 0..2 {
            let at = look_up(&|p| p[axis].unwrap_or(0))?;
            let (heads, _, channels) = tables[axis].dims3()?;
            relative.push(tables[axis].index_select(&at, 1)?.reshape((1, heads, n, n, channels))?);
        }
        let relative = match config.relative {
            Relative::Concat => Tensor::cat(&relative, 4)?,
            Relative::Sum => (&relative[0] + &relative[1])?,
        };
        let relative = relative.broadcast_as((b, h, n, n, d))?;
        logits = (logits + flat(q)?.unsqueeze(3)?.broadcast_mul(&relative)?.sum(D::Minus1)?)?;
    }
    logits = (logits * f64::from(config.scale))?;
    if let Some(bias) = bias {
        let (heads, rows, columns) = bias.dims3()?;
        let at = look_up(&|p| p[0].unwrap_or(0) * columns + p[1].unwrap_or(0))?;
        let by_pair = bias.reshape((heads, rows * columns))?.index_select(&at, 1)?;
        logits = logits.broadcast_add(&by_pair.reshape((1, heads, n, n))?)?;
    }
    let hidden = pairs.iter().map(|p| if p.iter().all(Option::is_some) { 0.0 } else { -1e9 }).collect();
    let hidden = Tensor::from_vec(hidden, (1, 1, n, n), &Device::Cpu)?.to_dtype(q.dtype())?;
    let p = candle_nn::ops::softmax(&logits.broadcast_add(&hidden)?, 3)?;
    p.matmul(&flat(v)?)?.reshape(v.shape())
}

/// On maps of 7×6 pixels, of which some are no multiple.
fn windows() -> Vec<Window> {
    vec![
        Window::sliding([3, 4]),
        Sliding::new([3, 3]).dilated([2, 3]).into(),
        Sliding::new([3, 5]).at_border(Border::Shift).into(),
        Sliding::new([3, 3]).dilated([2, 1]).at_border(Border::Shift).into(),
        Window::blocks([3, 4]),
        Blocks::new([4, 3]).offset_by([2, 1]).into(),
        Blocks::new([3, 2]).offset_by([1, 0]).with_halo([1, 2]).into(),
    ]
}

#[test]
fn local_with_a_bias_is_candles() -> Result<()> {
    for dtype in TYPES {
        for (i, window) in windows().into_iter().enumerate() {
            // Shared by the heads and not; in the element type of the maps and not.
            let (heads, bias_dtype) = if i % 2 == 0 { (1, DType::F32) } else { (2, dtype) };
            let config = LocalConfig { window, scale: 0.7, relative: Relative::Sum };
            let [rows, columns] = window.table_rows();
            let mut inputs = vec![
                (map(1, [1, 2, 7, 6, 4])?, dtype),
                (map(2, [1, 2, 7, 6, 4])?, dtype),
                (map(3, [1, 2, 7, 6, 3])?, dtype),
                (random(4, &[heads, rows, columns], -1.0, 1.0)?, bias_dtype),
            ];
            let ours = |t: &[Tensor]| {
                let positions = Positions { tables: None, bias: Some(&t[3]) };
                local(&t[0], &t[1], &t[2], positions, &config)
            };
            let theirs = |t: &[Tensor]| dense([&t[0], &t[1], &t[2]], None, Some(&t[3]), &config);
            compare(&format!("{window:?}"), dtype, &inputs, ours, theirs)?;
            if dtype != DType::F32 {
                continue;
            }
            inputs.push((random(5, &[1, rows, 4], -1.0, 1.0)?, dtype));
            inputs.push((random(6, &[1, columns, 4], -1.0, 1.0)?, dtype));
            let ours = |t: &[Tensor]| {
                let tables = Some(Tables { rel_h: &t[4], rel_w: &t[5] });
                local(&t[0], &t[1], &t[2], Positions { tables, bias: Some(&t[3]) }, &config)
            };
            let theirs =
                |t: &[Tensor]| dense([&t[0], &t[1], &t[2]], Some([&t[4], &t[5]]), Some(&t[3]), &config);
            compare(&format!("{window:?} with tables"), dtype, &inputs, ours, theirs)?;
        }
    }
    Ok(())
}

/// `[rows, columns]`, shared by the heads.
#[test]
fn a_bias_of_two_dimensions_is_shared() -> Result<()> {
    let t = |seed| map(seed, [1, 2, 5, 4, 4])?.to_dtype(DType::F32);
    let (q, k, v) = (t(1)?, t(2)?, t(3)?);
    let bias = random(4, &[3, 3], -1.0, 1.0)?.to_dtype(DType::F32)?;
    let config = LocalConfig { window: Window::sliding([3, 3]), ..LocalConfig::default() };
    let run = |bias: &Tensor| local(&q, &k, &v, Positions { tables: None, bias: Some(bias) }, &config);
    assert_eq!(numbers(&run(&bias)?)?, numbers(&run(&bias.unsqueeze(0)?)?)?);
    Ok(())
}

/// Parameters with numbers of their own, and the layer built from them.
fn layer<L>(build: impl FnOnce(VarBuilder<'_>) -> Result<L>) -> Result<(VarMap, L)> {
    let vars = VarMap::new();
    let built = build(VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
    let mut all: Vec<_> = vars.data().lock().unwrap().iter().map(|(n, v)| (n.clone(), v.clone())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    for (seed, (_, var)) in all.iter().enumerate() {
        var.set(&random(40 + seed as u64, var.dims(), -0.7, 0.7)?.to_dtype(DType::F32)?)?;
    }
    Ok((vars, built))
}

fn parameter(vars: &VarMap, name: &str) -> Tensor {
    vars.data().lock().unwrap()[name].as_tensor().clone()
}

fn image(shape: [usize; 4]) -> Result<Tensor> {
    random(7, &shape, -1.0, 1.0)?.to_dtype(DType::F32)
}

fn assert_close(got: &Tensor, want: &Tensor) -> Result<()> {
    assert_eq!(got.dims(), want.dims());
    for (i, (got, want)) in numbers(got)?.iter().zip(&numbers(want)?).enumerate() {
        assert!((got - want).abs() <= 2e-5, "[{i}]: {got}, want {want}");
    }
    Ok(())
}

/// A linear layer on the last dimension.
fn linear(xs: &Tensor, vars: &VarMap, name: &str) -> Result<Tensor> {
    let weight = parameter(vars, &format!("{name}.weight"));
    xs.broadcast_matmul(&weight.t()?)?.broadcast_add(&parameter(vars, &format!("{name}.bias")))
}

/// Maps of one window size, as Swin's public code does it: roll, cut into windows, masked attention with a bias by the table's index of
/// query minus key, put together, roll back.
fn swin(xs: &Tensor, vars: &VarMap, heads: usize, w: usize, shift: usize) -> Result<Tensor> {
    let (b, c, y, x) = xs.dims4()?;
    let d = c / heads;
    let xs = xs.permute((0, 2, 3, 1))?.contiguous()?;
    let rolled = xs.roll(-(shift as i32), 1)?.roll(-(shift as i32), 2)?;
    let (across, down, n) = (x / w, y / w, w * w);
    let cut = rolled.reshape((b, down, w, across, w, c))?.permute((0, 1, 3, 2, 4, 5))?.contiguous()?;
    let cut = cut.reshape((b * down * across, n, c))?;
    let qkv = linear(&cut, vars, "qkv")?.reshape((b * down * across, n, 3, heads, d))?;
    let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (q, k, v) = ((part(0)? * (d as f64).powf(-0.5))?, part(1)?, part(2)?);
    let mut logits = q.matmul(&k.t()?.contiguous()?)?;
    let index = |p: usize| {
        let (i, j) = (p / n, p % n);
        let delta = |i: usize, j: usize| i + w - 1 - j;
        (delta(i / w, j / w) * (2 * w - 1) + delta(i % w, j % w)) as u32
    };
    let at = Tensor::from_vec((0..n * n).map(index).collect(), n * n, &Device::Cpu)?;
    let bias = parameter(vars, "relative_position_bias_table").index_select(&at, 0)?.t()?.contiguous()?;
    logits = logits.broadcast_add(&bias.reshape((1, heads, n, n))?)?;
    // Pixels that the roll brought together are of different regions.
    let region = |i: usize, size: usize| if i < size - w { 0 } else { 1 + usize::from(i >= size - shift) };
    let label = |window: usize, i: usize| {
        let (yi, xi) = (window / across * w + i / w, window % across * w + i % w);
        if shift == 0 { [0; 2] } else { [region(yi, y), region(xi, x)] }
    };
    let masked = |p: usize| {
        let (window, i, j) = (p / n / n, p / n % n, p % n);
        if label(window, i) == label(window, j) { 0.0f32 } else { -100.0 }
    };
    let windows = down * across;
    let mask =
        Tensor::from_vec((0..windows * n * n).map(masked).collect(), (1, windows, 1, n, n), &Device::Cpu)?;
    logits = logits.reshape((b, windows, heads, n, n))?.broadcast_add(&mask)?.reshape(logits.shape())?;
    let o = candle_nn::ops::softmax(&logits, 3)?.matmul(&v)?.transpose(1, 2)?.contiguous()?;
    let o = linear(&o.reshape((b * windows, n, c))?, vars, "proj")?;
    let o = o.reshape((b, down, across, w, w, c))?.permute((0, 1, 3, 2, 4, 5))?.contiguous()?;
    let o = o.reshape((b, y, x, c))?;
    o.roll(shift as i32, 1)?.roll(shift as i32, 2)?.permute((0, 3, 1, 2))
}

#[test]
fn window_attention_is_swins() -> Result<()> {
    for (w, shift) in [(4, 0), (4, 2), (3, 1)] {
        let config =
            WindowAttentionConfig { heads: 2, window: [w; 2], shift: [shift; 2], ..Default::default() };
        let (vars, layer) = layer(|vb| WindowAttention::new(8, config, vb))?;
        let xs = image([2, 8, 3 * w, 2 * w])?;
        assert_close(&layer.forward(&xs)?, &swin(&xs, &vars, 2, w, shift)?)?;
    }
    Ok(())
}

/// Queries, keys and values of a packed projection, `[b, h, y, x, d]`, from a map; then attention; then the other projection.
fn packed(
    xs: &Tensor,
    vars: &VarMap,
    heads: usize,
    attend: impl FnOnce([&Tensor; 3]) -> Result<Tensor>,
) -> Result<Tensor> {
    let (b, c, y, x) = xs.dims4()?;
    let qkv = linear(&xs.permute((0, 2, 3, 1))?.contiguous()?, vars, "qkv")?;
    let part = |i: usize| {
        let part = qkv.narrow(3, i * c, c)?.contiguous()?.reshape((b, y, x, heads, c / heads))?;
        part.permute((0, 3, 1, 2, 4))?.contiguous()
    };
    let o = attend([&part(0)?, &part(1)?, &part(2)?])?;
    let o = o.permute((0, 2, 3, 1, 4))?.contiguous()?.reshape((b, y, x, c))?;
    linear(&o, vars, "proj")?.permute((0, 3, 1, 2))
}

/// Windows at the border of a map that is no multiple are smaller; a head of its own bias.
#[test]
fn window_attention_on_ragged_maps() -> Result<()> {
    let config = WindowAttentionConfig { heads: 2, window: [4, 3], shift: [2, 0], ..Default::default() };
    let (vars, layer) = layer(|vb| WindowAttention::new(8, config, vb))?;
    let xs = image([1, 8, 7, 5])?;
    let window = Blocks::new([4, 3]).offset_by([2, 0]).into();
    let op = LocalConfig { window, scale: 0.5, ..LocalConfig::default() };
    let bias = layer.bias()?;
    let want = packed(&xs, &vars, 2, |qkv| dense(qkv, None, Some(&bias), &op))?;
    assert_close(&layer.forward(&xs)?, &want)
}

#[test]
fn neighborhood_attention_is_dense_attention_with_a_mask() -> Result<()> {
    for (dilation, has_bias) in [([1, 1], true), ([2, 1], true), ([1, 2], false)] {
        let config = NeighborhoodAttentionConfig { kernel: [3, 3], dilation, has_bias, ..Default::default() };
        let (vars, layer) = layer(|vb| NeighborhoodAttention::new(8, config, vb))?;
        let xs = image([2, 8, 7, 6])?;
        let window = Sliding::new([3, 3]).dilated(dilation).at_border(Border::Shift).into();
        let op = LocalConfig { window, scale: 0.5, ..LocalConfig::default() };
        let rpb = has_bias.then(|| parameter(&vars, "rpb"));
        let want = packed(&xs, &vars, 2, |qkv| dense(qkv, None, rpb.as_ref(), &op))?;
        assert_close(&layer.forward(&xs)?, &want)?;
    }
    Ok(())
}

#[test]
fn halo_attention_is_dense_attention_with_a_mask() -> Result<()> {
    let config = HaloAttentionConfig { heads: 2, block: [3, 2], halo: [1, 2], output: true };
    let (vars, layer) = layer(|vb| HaloAttention::new(6, 8, config, vb))?;
    let xs = image([2, 6, 7, 6])?;
    let op = LocalConfig {
        window: Blocks::new([3, 2]).with_halo([1, 2]).into(),
        scale: 0.5,
        relative: Relative::Sum,
    };
    let pixels = xs.permute((0, 2, 3, 1))?.contiguous()?;
    let project = |name: &str| {
        let weight = parameter(&vars, &format!("{name}.weight"));
        let all = pixels.broadcast_matmul(&weight.t()?)?.reshape((2, 7, 6, 2, 4))?;
        all.permute((0, 3, 1, 2, 4))?.contiguous()
    };
    let (q, k, v) = (project("query")?, project("key")?, project("value")?);
    let tables = [&parameter(&vars, "rel_h"), &parameter(&vars, "rel_w")];
    let o = dense([&q, &k, &v], Some(tables), None, &op)?;
    let o = o.permute((0, 2, 3, 1, 4))?.contiguous()?.reshape((2, 7, 6, 8))?;
    assert_close(&layer.forward(&xs)?, &linear(&o, &vars, "output")?.permute((0, 3, 1, 2))?)
}

/// What the op does not take is refused when the layer is made.
#[test]
fn settings_are_checked_once() {
    let refused = |what: &str, result: Result<()>| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    };
    let vb = || VarBuilder::zeros(DType::F32, &Device::Cpu);
    let config = WindowAttentionConfig { shift: [7, 0], ..Default::default() };
    refused("local:", WindowAttention::new(6, config, vb()).map(|_| ()));
    let config = NeighborhoodAttentionConfig { kernel: [4, 3], ..Default::default() };
    refused("local:", NeighborhoodAttention::new(6, config, vb()).map(|_| ()));
    let config = HaloAttentionConfig { heads: 2, halo: [20, 0], ..Default::default() };
    refused("local:", HaloAttention::new(6, 6, config, vb()).map(|_| ()));
    refused("cannot be dealt out", WindowAttention::new(8, Default::default(), vb()).map(|_| ()));
}
