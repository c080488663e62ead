//! Cases computed in float64 by an independent implementation, and the rule that judges a result by them.
//!
//! A file holds inputs `in.*`, the gradient `up.y` of the output, results `out.*` and gradients `grad.*`, and as metadata
//! the op, its attributes, and for each result its largest magnitude and the error of a plain float32 evaluation.
//!
//! Used by the tests and by `examples/check_fixtures.rs`, which brings files of its own.

use macula::gaussian::{GaussianConfig, Kernel, Norm};
use macula::{Device, Gaussian, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One file.
pub struct Fixture {
    pub case: String,
    pub op: String,
    pub attrs: Map<String, Value>,
    absmax: Map<String, Value>,
    f32_err: Map<String, Value>,
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

impl Fixture {
    /// The files of a folder whose names begin so, in the order of their names.
    pub fn paths(folder: &Path, beginning: &str) -> Result<Vec<PathBuf>, String> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
            .map_err(|e| format!("{}: {e}", folder.display()))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning)))
            .collect();
        paths.sort();
        Ok(paths)
    }

    pub fn load(path: &Path) -> Result<Self, String> {
        let case = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let explain = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let bytes = std::fs::read(path).map_err(|e| explain(&e))?;
        let (_, head) = SafeTensors::read_metadata(&bytes).map_err(|e| explain(&e))?;
        let metadata = head.metadata().clone().unwrap_or_default();
        let object = |key: &str| -> Result<Map<String, Value>, String> {
            serde_json::from_str(metadata.get(key).map_or("{}", String::as_str)).map_err(|e| explain(&e))
        };
        let mut tensors = BTreeMap::new();
        for (name, tensor) in SafeTensors::deserialize(&bytes).map_err(|e| explain(&e))?.iter() {
            let values = match tensor.dtype() {
                Dtype::F32 => tensor
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes).into())
                    .collect(),
                Dtype::F64 => {
                    tensor.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
                }
                other => return Err(explain(&format!("{name} is {other:?}"))),
            };
            tensors.insert(name.to_owned(), (tensor.shape().to_vec(), values));
        }
        let op = metadata.get("op").cloned().unwrap_or_default();
        Ok(Self {
            case,
            op,
            attrs: object("attrs")?,
            absmax: object("absmax")?,
            f32_err: object("f32_err")?,
            tensors,
        })
    }

    /// The numbers of a tensor.
    pub fn values(&self, name: &str) -> Result<&[f64], String> {
        self.tensors.get(name).map(|t| t.1.as_slice()).ok_or(format!("{}: no tensor {name}", self.case))
    }

    /// The sizes of a tensor.
    pub fn shape<const R: usize>(&self, name: &str) -> Result<[usize; R], String> {
        let shape = &self.tensors.get(name).ok_or(format!("{}: no tensor {name}", self.case))?.0;
        shape.as_slice().try_into().map_err(|_| format!("{}: {name} has shape {shape:?}", self.case))
    }

    /// An input as a tensor on the host.
    pub fn tensor<const R: usize>(&self, name: &str) -> Result<Tensor<f32, R>, String> {
        let data = self.values(name)?.iter().map(|&x| x as f32).collect();
        Tensor::from_vec(data, self.shape(name)?).map_err(|e| e.to_string())
    }

    /// |error| ≤ 16 · (error of a plain float32 evaluation) + 1e-5 · (largest magnitude) + 1e-6 · (largest magnitude of all
    /// gradients, for gradients). The first term is missing where float32 gave NaN.
    pub fn check(&self, name: &str, got: &[f64]) -> Result<(), String> {
        let truth = self.values(name)?;
        if truth.len() != got.len() {
            return Err(format!("{}: {name} has {} elements, not {}", self.case, got.len(), truth.len()));
        }
        let largest = |name: &str| self.absmax.get(name).and_then(Value::as_f64);
        let scale = largest(name).ok_or(format!("{}: no absmax of {name}", self.case))?;
        let plain = self.f32_err.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        let gradients = match name.starts_with("grad.") {
            true => self
                .absmax
                .keys()
                .filter(|name| name.starts_with("grad."))
                .filter_map(|name| largest(name))
                .fold(0.0, f64::max),
            false => 0.0,
        };
        let bar = 16.0 * plain + 1e-5 * scale + 1e-6 * gradients;
        for (i, (truth, got)) in truth.iter().zip(got).enumerate() {
            let error = (truth - got).abs();
            let within = error <= bar;
            if !within {
                return Err(format!(
                    "{}: {name}[{i}]: got {got:e}, truth {truth:e}, error {error:.2e}, bar {bar:.2e}",
                    self.case
                ));
            }
        }
        Ok(())
    }
}

/// Runs the op of a fixture forward and backward on a device and judges every result.
pub fn run(on: &dyn Device, fixture: &Fixture) -> Result<(), String> {
    match fixture.op.as_str() {
        "radius_attn" => run_gaussian(on, fixture),
        other => Err(format!("{}: no op is called {other}", fixture.case)),
    }
}

/// The settings in the attributes of a `radius_attn` case.
pub fn gaussian_config(fixture: &Fixture) -> Result<GaussianConfig, String> {
    let mut config = GaussianConfig::default();
    for (key, value) in &fixture.attrs {
        let unknown = || format!("{}: {key} = {value} is unknown", fixture.case);
        match key.as_str() {
            "kernel" => {
                let kernel = Kernel::ALL.into_iter().find(|kernel| value == kernel.name());
                config.kernel = kernel.ok_or_else(unknown)?;
            }
            "norm" if value == "row" => config.norm = Norm::Row,
            "norm" if value == "none" => config.norm = Norm::None,
            "window" if value.is_null() => config.window = None,
            "window" => config.window = Some(value.as_u64().ok_or_else(unknown)? as usize),
            _ => return Err(unknown()),
        }
    }
    Ok(config)
}

fn run_gaussian(on: &dyn Device, fixture: &Fixture) -> Result<(), String> {
    let explain = |e: macula::Error| format!("{}: {e}", fixture.case);
    let op = Gaussian::new(gaussian_config(fixture)?).map_err(explain)?;
    let v = fixture.tensor::<5>("in.v")?.to(on).map_err(explain)?;
    let sigma = fixture.tensor::<1>("in.sigma")?.to(on).map_err(explain)?;
    let d_o = fixture.tensor::<5>("up.y")?.to(on).map_err(explain)?;
    let numbers = |data: Vec<f32>| data.into_iter().map(f64::from).collect::<Vec<_>>();
    let o = op.forward(on, &v, &sigma).map_err(explain)?.to_vec().map_err(explain)?;
    fixture.check("out.y", &numbers(o))?;
    let grads = op.backward(on, &v, &sigma, &d_o).map_err(explain)?;
    fixture.check("grad.v", &numbers(grads.dv.to_vec().map_err(explain)?))?;
    fixture.check("grad.sigma", &numbers(grads.dsigma.to_vec().map_err(explain)?))
}
