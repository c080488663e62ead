//! Memory of any layout, and graphs of any form.

use crate::{map, random};
use candle_core::{DType, Result, Tensor, Var};
use macula_candle::{
    Affine, AxialConfig, AxialInputs, BatchNorm, ContentConfig, GaussianConfig, GsaConfig, GsaInputs,
    LocalConfig, Positions, Tables, Window, axial, content, gaussian, gsa, local,
};

fn bits(t: &Tensor) -> Result<Vec<u32>> {
    Ok(t.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
}

/// Heads last (what a projection leaves), channels first (what a convolution leaves), a slice of a larger map.
fn views(t: &Tensor) -> Result<Vec<Tensor>> {
    let heads_last = t.permute((0, 2, 3, 1, 4))?.contiguous()?.permute((0, 3, 1, 2, 4))?;
    let channels_first = t.permute((0, 1, 4, 2, 3))?.contiguous()?.permute((0, 1, 3, 4, 2))?;
    let around = t.pad_with_zeros(2, 1, 2)?.pad_with_zeros(4, 3, 1)?;
    let slice = around.narrow(2, 1, t.dim(2)?)?.narrow(4, 3, t.dim(4)?)?;
    Ok(vec![heads_last, channels_first, slice])
}

#[test]
fn any_layout_gives_the_same_bits() -> Result<()> {
    let f32s = |seed| map(seed, [2, 3, 4, 5, 6])?.to_dtype(DType::F32);
    let (q, k, v) = (f32s(1)?, f32s(2)?, f32s(3)?);
    let upstream = f32s(4)?;
    let run = |q: &Tensor, k: &Tensor, v: &Tensor, upstream: &Tensor| -> Result<Vec<Vec<u32>>> {
        let vars = [Var::from_tensor(&q.contiguous()?)?, Var::from_tensor(k)?, Var::from_tensor(v)?];
        let o = local(&vars[0], &vars[1], &vars[2], Positions::default(), &LocalConfig::default())?;
        let grads = (o.clone() * upstream)?.sum_all()?.backward()?;
        let mut all = vec![bits(&o)?];
        for var in &vars {
            all.push(bits(grads.get(var).unwrap())?);
        }
        let o = content(q, k, v, &ContentConfig::default())?;
        all.push(bits(&o)?);
        let sigma = Tensor::new(&[0.7f32, 1.5, 3.0], v.device())?;
        all.push(bits(&gaussian(v, &sigma, &GaussianConfig::default())?)?);
        Ok(all)
    };
    let want = run(&q, &k, &v, &upstream)?;
    for (((q, k), v), upstream) in views(&q)?.iter().zip(views(&k)?).zip(views(&v)?).zip(views(&upstream)?) {
        assert_eq!(run(q, &k, &v, &upstream)?, want);
    }
    Ok(())
}

/// The gradient of a sum is one number, broadcast.
#[test]
fn gradients_without_strides() -> Result<()> {
    let v = Var::from_tensor(&map(1, [1, 2, 4, 5, 3])?.to_dtype(DType::F32)?)?;
    let sigma = Var::from_tensor(&Tensor::new(&[1f32, 2.0], v.device())?)?;
    let of = |spread: bool| -> Result<Vec<Vec<u32>>> {
        let o = gaussian(&v, &sigma, &GaussianConfig::default())?;
        let loss = match spread {
            true => (&o * o.ones_like()?)?.sum_all()?,
            false => o.sum_all()?,
        };
        let grads = loss.backward()?;
        Ok(vec![bits(grads.get(&v).unwrap())?, bits(grads.get(&sigma).unwrap())?])
    };
    assert_eq!(of(false)?, of(true)?);
    Ok(())
}

/// One tensor as queries, keys and values: its gradient is the sum of three.
#[test]
fn one_tensor_in_three_places() -> Result<()> {
    let x = Var::from_tensor(&map(1, [1, 2, 4, 5, 6])?.to_dtype(DType::F32)?)?;
    let apart = [0; 3].map(|_| Var::from_tensor(&x.copy().unwrap().detach()).unwrap());
    let together = content(&x, &x, &x, &ContentConfig::default())?.sqr()?.sum_all()?.backward()?;
    let o = content(&apart[0], &apart[1], &apart[2], &ContentConfig::default())?;
    let grads = o.sqr()?.sum_all()?.backward()?;
    let [a, b, c] = apart.each_ref().map(|v| grads.get(v).unwrap().clone());
    let sum = ((a + b)? + c)?;
    let off = (together.get(&x).unwrap() - sum)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(off < 1e-5, "{off}");
    Ok(())
}

/// Whichever inputs are constants, the others get what they get when all are variables.
fn constants(name: &str, inputs: &[Tensor], op: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    let run = |tracked: u32| -> Result<Vec<Option<Vec<u32>>>> {
        let vars = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
        let tensor = |i: usize| match tracked >> i & 1 {
            1 => vars[i].as_tensor().clone(),
            _ => inputs[i].clone(),
        };
        let tensors: Vec<Tensor> = (0..inputs.len()).map(tensor).collect();
        let grads = op(&tensors)?.sqr()?.sum_all()?.backward()?;
        vars.iter().map(|v| grads.get(v).map(bits).transpose()).collect()
    };
    let all = run((1 << inputs.len()) - 1)?;
    assert!(all.iter().all(Option::is_some), "{name}");
    for tracked in 0..1 << inputs.len() {
        for (i, (got, want)) in run(tracked)?.iter().zip(&all).enumerate() {
            let want = if tracked >> i & 1 == 1 { want.as_ref() } else { None };
            assert!(got.as_ref() == want, "{name}: input {i} of {tracked:b}");
        }
    }
    Ok(())
}

#[test]
fn any_of_the_inputs_may_be_constants() -> Result<()> {
    let t = |seed, shape: &[usize]| random(seed, shape, -1.0, 1.0)?.to_dtype(DType::F32);
    let (q, k) = (t(1, &[1, 2, 3, 4, 5])?, t(2, &[1, 2, 3, 4, 5])?);
    let v = t(3, &[1, 2, 3, 4, 3])?;
    let (columns, rows) = (t(4, &[1, 5, 5])?, t(5, &[2, 7, 5])?);
    let (weight, bias) = (t(6, &[1, 3])?, t(7, &[1, 3])?);
    let norm = BatchNorm::Train;

    let inputs =
        [q.clone(), k.clone(), v.clone(), columns.clone(), rows.clone(), weight.clone(), bias.clone()];
    constants("gsa", &inputs, |t| {
        let affine = Some(Affine { weight: &t[5], bias: &t[6] });
        let parameters = GsaInputs { columns: &t[3], rows: &t[4], affine, given: None };
        Ok(gsa(&t[0], &t[1], &t[2], parameters, &GsaConfig { norm, ..GsaConfig::default() })?.o)
    })?;
    let inputs = [q.clone(), v.clone(), columns, rows, weight, bias];
    constants("axial", &inputs, |t| {
        let affine = Some(Affine { weight: &t[4], bias: &t[5] });
        let parameters = AxialInputs { columns: Some(&t[2]), rows: Some(&t[3]), affine, given: None };
        Ok(axial(&t[0], &t[1], parameters, &AxialConfig { norm, ..AxialConfig::default() })?.o)
    })?;
    let inputs = [q.clone(), k.clone(), v.clone(), t(8, &[1, 3, 2])?, t(9, &[1, 3, 3])?];
    constants("local", &inputs, |t| {
        let config = LocalConfig { window: Window::sliding([3, 3]), ..LocalConfig::default() };
        local(&t[0], &t[1], &t[2], Tables { rel_h: &t[3], rel_w: &t[4] }.into(), &config)
    })?;
    let inputs = [q, k, v.clone()];
    constants("content", &inputs, |t| content(&t[0], &t[1], &t[2], &ContentConfig::default()))?;
    let inputs = [v, random(10, &[2], 0.5, 2.0)?.to_dtype(DType::F32)?];
    constants("gaussian", &inputs, |t| gaussian(&t[0], &t[1], &GaussianConfig::default()))
}

/// A graph can be walked again, by several threads too.
#[test]
fn backward_more_than_once() -> Result<()> {
    let t = |seed, shape: &[usize]| Var::from_tensor(&random(seed, shape, -1.0, 1.0)?.to_dtype(DType::F32)?);
    let shape = [1, 2, 6, 6, 4];
    let (q, k, v) = (t(1, &shape)?, t(2, &shape)?, t(3, &shape)?);
    let (rel_h, rel_w) = (t(4, &[7, 2])?, t(5, &[7, 2])?);
    let tables = Tables { rel_h: rel_h.as_tensor(), rel_w: rel_w.as_tensor() };
    let loss = local(&q, &k, &v, tables.into(), &LocalConfig::default())?.sqr()?.sum_all()?;
    let vars = [q, k, v, rel_h, rel_w];
    let walk = || -> Result<Vec<Vec<u32>>> {
        let grads = loss.backward()?;
        vars.iter().map(|v| bits(grads.get(v).unwrap())).collect()
    };
    let want = walk()?;
    std::thread::scope(|scope| {
        let walks = [0; 4].map(|_| scope.spawn(|| walk().unwrap()));
        for walk in walks {
            assert_eq!(walk.join().unwrap(), want);
        }
    });
    Ok(())
}
