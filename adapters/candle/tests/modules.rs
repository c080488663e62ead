//! The layers: they learn, every parameter gets a gradient, and they are the same after they were saved and loaded.

use crate::random;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{AdamW, Module, ModuleT, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use macula_candle::modules::{
    AxialAttention, AxialAttentionConfig, ContentAttention, ContentAttentionConfig, GaussianAttention,
    GaussianAttentionConfig, GsaModule, GsaModuleConfig, HaloAttention, HaloAttentionConfig, LocalAttention,
    LocalAttentionConfig, NeighborhoodAttention, NeighborhoodAttentionConfig, WindowAttention,
    WindowAttentionConfig,
};
use std::collections::BTreeSet;

/// A layer, whatever its trait.
type Layer = Box<dyn Fn(&Tensor, bool) -> Result<Tensor>>;
type Build = fn(VarBuilder<'_>) -> Result<Layer>;

/// Every layer from 8 to 8 channels with 2 heads, with all the parameters it can have.
const LAYERS: [(&str, Build, usize); 8] = [
    ("gaussian", gaussian, 3),
    ("local", local, 5),
    ("axial", axial, 10),
    ("content", content, 5),
    ("gsa", gsa, 11),
    ("window", window, 5),
    ("halo", halo, 7),
    ("neighborhood", neighborhood, 5),
];

fn gaussian(vb: VarBuilder<'_>) -> Result<Layer> {
    let config = GaussianAttentionConfig { heads: 2, output: true, ..GaussianAttentionConfig::default() };
    let layer = GaussianAttention::new(8, config, vb)?;
    Ok(Box::new(move |xs, _| layer.forward(xs)))
}

fn local(vb: VarBuilder<'_>) -> Result<Layer> {
    let layer = LocalAttention::new(8, 8, LocalAttentionConfig { heads: 2, ..Default::default() }, vb)?;
    Ok(Box::new(move |xs, _| layer.forward(xs)))
}

fn axial(vb: VarBuilder<'_>) -> Result<Layer> {
    let config = AxialAttentionConfig {
        heads: 2,
        norm_per_head: true,
        output: true,
        ..AxialAttentionConfig::of_map(5, 6)
    };
    let layer = AxialAttention::new(8, 8, config, vb)?;
    Ok(Box::new(move |xs, train| layer.forward_t(xs, train)))
}

fn content(vb: VarBuilder<'_>) -> Result<Layer> {
    let config =
        ContentAttentionConfig { heads: 2, key_channels: Some(3), output: true, ..Default::default() };
    let layer = ContentAttention::new(8, 8, config, vb)?;
    Ok(Box::new(move |xs, _| layer.forward(xs)))
}

fn window(vb: VarBuilder<'_>) -> Result<Layer> {
    let config = WindowAttentionConfig { heads: 2, window: [3, 4], shift: [1, 2], ..Default::default() };
    let layer = WindowAttention::new(8, config, vb)?;
    Ok(Box::new(move |xs, _| layer.forward(xs)))
}

fn halo(vb: VarBuilder<'_>) -> Result<Layer> {
    let config = HaloAttentionConfig { heads: 2, block: [3, 3], halo: [1, 2], output: true };
    let layer = HaloAttention::new(8, 8, config, vb)?;
    Ok(Box::new(move |xs, _| layer.forward(xs)))
}

fn neighborhood(vb: VarBuilder<'_>) -> Result<Layer> {
    let config = NeighborhoodAttentionConfig { kernel: [3, 5], ..Default::default() };
    let layer = NeighborhoodAttention::new(8, config, vb)?;
    Ok(Box::new(move |xs, _| layer.forward(xs)))
}

fn gsa(vb: VarBuilder<'_>) -> Result<Layer> {
    let config =
        GsaModuleConfig { heads: 2, key_channels: Some(3), output: true, ..GsaModuleConfig::of_map(5, 6) };
    let layer = GsaModule::new(8, 8, config, vb)?;
    Ok(Box::new(move |xs, train| layer.forward_t(xs, train)))
}

/// Parameters by name, their values the same on every run.
fn parameters(build: Build) -> Result<(VarMap, Layer)> {
    let vars = VarMap::new();
    let layer = build(VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu))?;
    let data = vars.data().lock().unwrap();
    for (i, name) in data.keys().cloned().collect::<BTreeSet<_>>().into_iter().enumerate() {
        let var: &Var = &data[&name];
        if !name.starts_with("norm.") {
            var.set(&random(i as u64, var.dims(), -0.7, 0.7)?.to_dtype(DType::F32)?)?;
        }
    }
    drop(data);
    Ok((vars, layer))
}

fn images(seed: u64) -> Result<Tensor> {
    random(seed, &[3, 8, 5, 6], -1.0, 1.0)?.to_dtype(DType::F32)
}

#[test]
fn every_parameter_gets_a_gradient() -> Result<()> {
    for (name, build, count) in LAYERS {
        let (vars, layer) = parameters(build)?;
        let o = layer(&images(1)?, true)?;
        assert_eq!(o.dims(), [3, 8, 5, 6], "{name}");
        let grads = (o * images(2)?)?.sum_all()?.backward()?;
        let data = vars.data().lock().unwrap();
        assert_eq!(data.len(), count, "{name}: {:?}", data.keys());
        for (parameter, var) in data.iter().filter(|(parameter, _)| !parameter.contains("running")) {
            let grad = grads.get(var).unwrap_or_else(|| panic!("{name}: no gradient of {parameter}"));
            assert!(grad.abs()?.max_all()?.to_scalar::<f32>()? > 1e-6, "{name}: {parameter} is not used");
        }
    }
    Ok(())
}

#[test]
fn a_training_step_lowers_the_loss() -> Result<()> {
    for (name, build, _) in LAYERS {
        let (vars, layer) = parameters(build)?;
        let (xs, target) = (images(1)?, images(2)?);
        let loss = || -> Result<Tensor> { (layer(&xs, true)? - &target)?.sqr()?.mean_all() };
        let mut optimizer = AdamW::new(vars.all_vars(), ParamsAdamW { lr: 1e-3, ..Default::default() })?;
        let mut last = loss()?.to_scalar::<f32>()?;
        for step in 0..3 {
            optimizer.backward_step(&loss()?)?;
            let now = loss()?.to_scalar::<f32>()?;
            assert!(now < last, "{name}, step {step}: {now}, before {last}");
            last = now;
        }
    }
    Ok(())
}

#[test]
fn saved_and_loaded() -> Result<()> {
    for (name, build, _) in LAYERS {
        let (vars, layer) = parameters(build)?;
        // Running statistics that are not the initial ones.
        layer(&images(1)?, true)?;
        let want = layer(&images(2)?, false)?.flatten_all()?.to_vec1::<f32>()?;
        let file =
            std::env::temp_dir().join(format!("macula-candle-{}-{name}.safetensors", std::process::id()));
        vars.save(&file)?;
        let data = std::fs::read(&file)?;
        std::fs::remove_file(&file)?;
        let vb = VarBuilder::from_buffered_safetensors(data, DType::F32, &Device::Cpu)?;
        let got = build(vb)?(&images(2)?, false)?.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(got, want, "{name}");
    }
    Ok(())
}

/// After enough batches, evaluation normalises by what training did.
#[test]
fn running_statistics_become_those_of_the_batches() -> Result<()> {
    for build in [axial as Build, gsa] {
        let (vars, layer) = parameters(build)?;
        let xs = images(1)?;
        for _ in 0..200 {
            layer(&xs, true)?;
        }
        // The running variance is unbiased: larger by n / (n − 1). Nothing else differs.
        let data = vars.data().lock().unwrap();
        let var = &data["norm.running_var"];
        let n = if var.rank() == 2 { 3.0 * 30.0 } else { 2.0 * 3.0 * 30.0 };
        var.set(&(var.as_detached_tensor() * ((n - 1.0) / n))?)?;
        let (evaluated, trained) = (layer(&xs, false)?, layer(&xs, true)?);
        let off = (evaluated - &trained)?.abs()?.max_all()?.to_scalar::<f32>()?;
        let size = trained.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(off < 1e-4 * size, "{off} of {size}");
    }
    Ok(())
}

#[test]
fn radii_start_where_they_should() -> Result<()> {
    for radius in [0.3, 2.0, 60.0] {
        let vars = VarMap::new();
        let config = GaussianAttentionConfig { heads: 64, radius, value: false, ..Default::default() };
        let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
        let layer = GaussianAttention::new(64, config, vb)?;
        let rho = &vars.data().lock().unwrap()["rho"];
        rho.set(&Tensor::full((radius + (-(-radius).exp_m1()).ln()) as f32, 64, &Device::Cpu)?)?;
        let middle = layer.radii()?.get(0)?.to_scalar::<f32>()?;
        assert!((f64::from(middle) / radius - 1.0).abs() < 1e-5, "{middle}, not {radius}");
    }
    Ok(())
}

/// A layer's heads and projections are those of the op: head 1 of two sees the second half of the channels.
#[test]
fn channels_are_dealt_out_in_order() -> Result<()> {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let config = GaussianAttentionConfig { heads: 2, value: false, ..Default::default() };
    let layer = GaussianAttention::new(8, config, vb)?;
    // Softplus of 50 is 50 pixels: an average over the map. Softplus of −50 is 0 in f32: the pixel itself.
    vars.data().lock().unwrap()["rho"].set(&Tensor::new(&[50f32, -50.0], &Device::Cpu)?)?;
    let xs = images(1)?;
    let o = layer.forward(&xs)?;
    let sharp = (o.narrow(1, 4, 4)? - xs.narrow(1, 4, 4)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert_eq!(sharp, 0.0);
    let mean = xs.narrow(1, 0, 4)?.mean_keepdim((2, 3))?;
    let flat = o.narrow(1, 0, 4)?.broadcast_sub(&mean)?.abs()?.max_all()?.to_scalar::<f32>()?;
    assert!(flat < 0.02, "{flat}");
    Ok(())
}

#[test]
fn channels_that_heads_cannot_share_are_refused() {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let refused = LocalAttention::new(8, 9, LocalAttentionConfig { heads: 2, ..Default::default() }, vb);
    assert!(refused.unwrap_err().to_string().contains("9 channels cannot be dealt out to 2 heads"));
}
