//! Results and gradients of every op, in every element type, against candle's composition in f64.

use crate::{compose, map, random};
use candle_core::{DType, Result, Tensor, Var};
use macula_candle::{
    Affine, Axes, AxialConfig, AxialInputs, BatchNorm, ContentConfig, GaussianConfig, GsaConfig, GsaInputs,
    LocalConfig, Positions, Relative, Statistics, Tables, Window, axial, content, gaussian, gsa, local,
};

pub const TYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// What part of the largest number of a tensor an element may be off. Sums of a few hundred products.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-5,
        DType::F16 => 8e-3,
        _ => 6e-2,
    }
}

pub fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    t.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

#[track_caller]
fn check(name: &str, got: &Tensor, want: &Tensor, dtype: DType) -> Result<()> {
    assert_eq!(got.dims(), want.dims(), "{name}");
    let (got, want) = (numbers(got)?, numbers(want)?);
    let largest = want.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    assert!(largest > 1e-3, "{name}: nothing to compare");
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let is_close = (got - want).abs() <= tolerance(dtype) * largest;
        assert!(is_close, "{name} {dtype:?} [{i}]: got {got}, want {want}, largest {largest}");
    }
    Ok(())
}

/// An input: numbers, and the element type that our op gets them in.
pub type Input = (Tensor, DType);

/// Our op and candle's composition get the same numbers; results and all gradients must agree.
pub fn compare(
    name: &str,
    dtype: DType,
    inputs: &[Input],
    ours: impl Fn(&[Tensor]) -> Result<Tensor>,
    theirs: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    let rounded = inputs.iter().map(|(t, dtype)| t.to_dtype(*dtype)).collect::<Result<Vec<_>>>()?;
    let our_vars = rounded.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let their_vars =
        rounded.iter().map(|t| Var::from_tensor(&t.to_dtype(DType::F64)?)).collect::<Result<Vec<_>>>()?;
    let tensors = |vars: &[Var]| vars.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>();
    let (o, want) = (ours(&tensors(&our_vars))?, theirs(&tensors(&their_vars))?);
    assert_eq!(o.dtype(), dtype);
    check(&format!("{name} o"), &o, &want, dtype)?;
    let upstream = random(99, o.dims(), -1.0, 1.0)?.to_dtype(dtype)?;
    let grads = (&o * &upstream)?.sum_all()?.backward()?;
    let want = (want * upstream.to_dtype(DType::F64)?)?.sum_all()?.backward()?;
    for (i, (ours, theirs)) in our_vars.iter().zip(&their_vars).enumerate() {
        let got = grads.get(ours).unwrap_or_else(|| panic!("{name}: no gradient of input {i}"));
        assert_eq!(got.dtype(), ours.dtype());
        check(&format!("{name} gradient of input {i}"), got, want.get(theirs).unwrap(), dtype)?;
    }
    Ok(())
}

#[test]
fn gaussian_is_candles() -> Result<()> {
    for dtype in TYPES {
        for (sigma, sigma_dtype) in [(3, DType::F32), (1, DType::F32), (3, dtype)] {
            let inputs = [(map(1, [2, 3, 5, 6, 4])?, dtype), (random(2, &[sigma], 0.6, 2.5)?, sigma_dtype)];
            let ours = |t: &[Tensor]| gaussian(&t[0], &t[1], &GaussianConfig::default());
            compare("gaussian", dtype, &inputs, ours, |t| compose::gaussian(&t[0], &t[1]))?;
        }
    }
    Ok(())
}

#[test]
fn content_is_candles() -> Result<()> {
    for dtype in TYPES {
        let inputs = [
            (map(1, [2, 2, 4, 5, 6])?, dtype),
            (map(2, [2, 2, 4, 5, 6])?, dtype),
            (map(3, [2, 2, 4, 5, 3])?, dtype),
        ];
        let ours = |t: &[Tensor]| content(&t[0], &t[1], &t[2], &ContentConfig::default());
        compare("content", dtype, &inputs, ours, |t| compose::content(&t[0], &t[1], &t[2]))?;
    }
    Ok(())
}

#[test]
fn local_is_candles() -> Result<()> {
    for dtype in TYPES {
        let maps = [
            (map(1, [2, 2, 4, 5, 6])?, dtype),
            (map(2, [2, 2, 4, 5, 6])?, dtype),
            (map(3, [2, 2, 4, 5, 3])?, dtype),
        ];
        let config = LocalConfig { window: Window::sliding([3, 5]), scale: 0.7, ..LocalConfig::default() };
        let ours = |t: &[Tensor]| local(&t[0], &t[1], &t[2], Positions::default(), &config);
        let theirs = |t: &[Tensor]| compose::local([&t[0], &t[1], &t[2]], None, &config);
        compare("local", dtype, &maps, ours, theirs)?;
        // Tables of another element type than the maps, too.
        for (relative, heads, table_dtype) in
            [(Relative::Concat, 1, dtype), (Relative::Sum, 2, dtype), (Relative::Concat, 2, DType::F32)]
        {
            let config = LocalConfig { relative, ..config };
            let [dh, dw] = relative.table_channels(6);
            let mut inputs = maps.to_vec();
            inputs.push((random(4, &[heads, 3, dh], -1.0, 1.0)?, table_dtype));
            inputs.push((random(5, &[heads, 5, dw], -1.0, 1.0)?, table_dtype));
            let ours = |t: &[Tensor]| {
                let tables = Tables { rel_h: &t[3], rel_w: &t[4] };
                local(&t[0], &t[1], &t[2], tables.into(), &config)
            };
            let theirs = |t: &[Tensor]| {
                // What is computed with is rounded to the element type of the maps.
                let round = |t: &Tensor| t.to_dtype(dtype)?.to_dtype(DType::F64);
                let tables = match table_dtype == dtype {
                    true => [t[3].clone(), t[4].clone()],
                    false => [round(&t[3])?, round(&t[4])?],
                };
                compose::local([&t[0], &t[1], &t[2]], Some([&tables[0], &tables[1]]), &config)
            };
            compare(&format!("local {relative:?}"), dtype, &inputs, ours, theirs)?;
        }
    }
    Ok(())
}

/// q, v, both tables, weight, bias.
fn axial_inputs(dtype: DType, heads: usize) -> Result<Vec<Input>> {
    Ok(vec![
        (map(1, [2, 2, 4, 5, 6])?, dtype),
        (map(2, [2, 2, 4, 5, 3])?, dtype),
        (random(3, &[heads, 7, 6], -1.0, 1.0)?, dtype),
        (random(4, &[heads, 5, 6], -1.0, 1.0)?, dtype),
        (random(5, &[heads, 3], 0.5, 1.5)?, DType::F32),
        (random(6, &[heads, 3], -1.0, 1.0)?, DType::F32),
    ])
}

#[test]
fn axial_is_candles_along_one_axis() -> Result<()> {
    for dtype in TYPES {
        for heads in [1, 2] {
            let inputs = &axial_inputs(dtype, heads)?[..3];
            let config = |axes| AxialConfig { axes, ..AxialConfig::default() };
            let ours = |t: &[Tensor]| {
                let inputs = AxialInputs { columns: Some(&t[2]), ..AxialInputs::default() };
                Ok(axial(&t[0], &t[1], inputs, &config(Axes::Columns))?.o)
            };
            compare("columns", dtype, inputs, ours, |t| compose::columns(&t[0], &t[1], &t[2]))?;
            let ours = |t: &[Tensor]| {
                let inputs = AxialInputs { rows: Some(&t[2]), ..AxialInputs::default() };
                Ok(axial(&t[0], &t[1], inputs, &config(Axes::Rows))?.o)
            };
            compare("rows", dtype, inputs, ours, |t| compose::rows(&t[0], &t[1], &t[2]))?;
        }
    }
    Ok(())
}

/// Mean and variance of evaluation, `[heads, 3]`.
fn given(heads: usize) -> Result<[Tensor; 2]> {
    let f32s = |t: Tensor| t.to_dtype(DType::F32);
    Ok([f32s(random(7, &[heads, 3], -1.0, 1.0)?)?, f32s(random(8, &[heads, 3], 0.5, 1.5)?)?])
}

/// Both layers by candle, with or without batch norm between them.
fn compose_axial(t: &[Tensor], norm: BatchNorm, given: &[Tensor; 2]) -> Result<Tensor> {
    let y = compose::columns(&t[0], &t[1], &t[2])?;
    let wide = [given[0].to_dtype(DType::F64)?, given[1].to_dtype(DType::F64)?];
    let z = match norm {
        BatchNorm::None => y,
        BatchNorm::Eval => compose::batch_norm(&y, &t[4], &t[5], Some([&wide[0], &wide[1]]))?,
        BatchNorm::Train => compose::batch_norm(&y, &t[4], &t[5], None)?,
    };
    compose::rows(&t[0], &z, &t[3])
}

/// Batch norm's parameters and statistics as the settings want them.
fn norm_inputs<'a>(
    t: &'a [Tensor],
    norm: BatchNorm,
    given: &'a [Tensor; 2],
) -> (Option<Affine<&'a Tensor>>, Option<Statistics<&'a Tensor>>) {
    let affine = (norm != BatchNorm::None).then(|| Affine { weight: &t[4], bias: &t[5] });
    let given = (norm == BatchNorm::Eval).then(|| Statistics { mean: &given[0], var: &given[1] });
    (affine, given)
}

#[test]
fn axial_is_candles() -> Result<()> {
    for dtype in TYPES {
        for (norm, heads) in [
            (BatchNorm::None, 1),
            (BatchNorm::Eval, 2),
            (BatchNorm::Eval, 1),
            (BatchNorm::Train, 1),
            (BatchNorm::Train, 2),
        ] {
            let inputs = axial_inputs(dtype, heads)?;
            let inputs = if norm == BatchNorm::None { &inputs[..4] } else { &inputs[..] };
            let statistics = given(heads)?;
            let config = AxialConfig { norm, ..AxialConfig::default() };
            let ours = |t: &[Tensor]| {
                let (affine, given) = norm_inputs(t, norm, &statistics);
                let inputs = AxialInputs { columns: Some(&t[2]), rows: Some(&t[3]), affine, given };
                Ok(axial(&t[0], &t[1], inputs, &config)?.o)
            };
            let theirs = |t: &[Tensor]| compose_axial(t, norm, &statistics);
            compare(&format!("axial {norm:?} {heads}"), dtype, inputs, ours, theirs)?;
        }
    }
    Ok(())
}

#[test]
fn gsa_is_candles() -> Result<()> {
    for dtype in TYPES {
        for (norm, heads) in
            [(BatchNorm::None, 2), (BatchNorm::Eval, 1), (BatchNorm::Train, 1), (BatchNorm::Train, 2)]
        {
            // Keys come last, so that the others keep their places.
            let mut inputs = axial_inputs(dtype, heads)?;
            if norm == BatchNorm::None {
                inputs.truncate(4);
            }
            inputs.push((map(9, [2, 2, 4, 5, 6])?, dtype));
            let statistics = given(heads)?;
            let config = GsaConfig { norm, ..GsaConfig::default() };
            let ours = |t: &[Tensor]| {
                let (affine, given) = norm_inputs(t, norm, &statistics);
                let inputs = GsaInputs { columns: &t[2], rows: &t[3], affine, given };
                Ok(gsa(&t[0], &t[t.len() - 1], &t[1], inputs, &config)?.o)
            };
            let theirs = |t: &[Tensor]| {
                let by_content = compose::content(&t[0], &t[t.len() - 1], &t[1])?;
                by_content + compose_axial(t, norm, &statistics)?
            };
            compare(&format!("gsa {norm:?} {heads}"), dtype, &inputs, ours, theirs)?;
        }
    }
    Ok(())
}

/// The statistics of a batch, which a module averages.
#[test]
fn statistics_of_the_batch_are_returned() -> Result<()> {
    let inputs = axial_inputs(DType::F32, 1)?;
    let t = inputs.iter().map(|(t, _)| t.to_dtype(DType::F32)).collect::<Result<Vec<_>>>()?;
    let config = AxialConfig { norm: BatchNorm::Train, ..AxialConfig::default() };
    let affine = Some(Affine { weight: &t[4], bias: &t[5] });
    let parameters = AxialInputs { columns: Some(&t[2]), rows: Some(&t[3]), affine, given: None };
    let batch = axial(&t[0], &t[1], parameters, &config)?.batch.unwrap();
    let y = compose::columns(&t[0], &t[1], &t[2])?;
    let mean = y.mean_keepdim((0, 1, 2, 3))?;
    let var = y.broadcast_sub(&mean)?.sqr()?.mean_keepdim((0, 1, 2, 3))?;
    check("mean", &batch.mean, &mean.reshape((1, 3))?, DType::F32)?;
    check("var", &batch.var, &var.reshape((1, 3))?, DType::F32)
}
