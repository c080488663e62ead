//! What is timed: every op, forward and backward, over the layers of vision models.

mod axial;
mod content;
mod gaussian;
mod gsa;
mod local;
mod value_mixture;

use crate::memory::{Scratch, random};
use crate::timing::{Call, time};
use crate::{Failure, Sizes};
use half::{bf16, f16};
use macula::{Cost, Cuda, DType, Element};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A layer: `[b, h, y, x, channels]`.
#[derive(Clone, Copy)]
pub struct Layer {
    pub name: &'static str,
    pub shape: [usize; 5],
}

/// S1, S2, S3 are a ResNet's first stage with a large batch, dense prediction, and one large image; the others are the later
/// stages of a ResNet at 224².
const FULL: [Layer; 8] = [
    Layer { name: "S1_b64_56x56_h8_d64", shape: [64, 8, 56, 56, 64] },
    Layer { name: "S1_b64_56x56_h8_d32", shape: [64, 8, 56, 56, 32] },
    Layer { name: "S2_b16_128x128_h8_d64", shape: [16, 8, 128, 128, 64] },
    Layer { name: "S2_b16_128x128_h8_d32", shape: [16, 8, 128, 128, 32] },
    Layer { name: "S3_b1_512x512_h8_d64", shape: [1, 8, 512, 512, 64] },
    Layer { name: "b64_28x28_h8_d64", shape: [64, 8, 28, 28, 64] },
    Layer { name: "b64_14x14_h8_d64", shape: [64, 8, 14, 14, 64] },
    Layer { name: "b64_7x7_h8_d64", shape: [64, 8, 7, 7, 64] },
];
const TINY: [Layer; 1] = [Layer { name: "tiny_b1_8x8_h1_d16", shape: [1, 1, 8, 8, 16] }];

impl Sizes {
    fn layers(self) -> &'static [Layer] {
        match self {
            Sizes::Full => &FULL,
            Sizes::Quick => &FULL[..1],
            Sizes::Tiny => &TINY,
        }
    }

    /// bf16 everywhere, the others where they tell something new.
    fn dtypes(self, layer: &Layer) -> Vec<DType> {
        match self {
            Sizes::Full if layer.name.starts_with("S1") || layer.name.starts_with("S2") => {
                DType::ALL.to_vec()
            }
            Sizes::Full => vec![DType::Bf16],
            Sizes::Quick => vec![DType::Bf16, DType::F32],
            Sizes::Tiny => vec![DType::F16, DType::F32],
        }
    }

    /// How long one timing may take.
    fn limit(self) -> Duration {
        Duration::from_millis(if self == Sizes::Tiny { 1 } else { 300 })
    }
}

/// One call to time: `make` builds a set of buffers and the call on them, with a seed.
pub struct Case<'a> {
    pub op: &'static str,
    pub pass: &'static str,
    /// What is special about its settings, such as `k7_rel`.
    pub variant: &'static str,
    pub layer: Layer,
    pub dtype: DType,
    pub cost: Cost,
    pub make: Box<dyn Fn(u64) -> Result<Call, Failure> + 'a>,
}

/// Buffers of all sets together, at least: several times any L2 cache.
const ROTATED_BYTES: u64 = 256 << 20;
const SETS_MAX: u64 = 64;

fn time_case(gpu: &Cuda, case: &Case<'_>, sizes: Sizes) -> Value {
    let sets = match sizes {
        Sizes::Tiny => 2,
        _ => (ROTATED_BYTES / case.cost.min_bytes.max(1)).clamp(1, SETS_MAX),
    };
    let measure = || -> Result<Value, Failure> {
        let mut calls = (0..sets).map(|seed| (case.make)(seed)).collect::<Result<Vec<Call>, _>>()?;
        Ok(time(gpu, &mut calls, sizes.limit())?.json())
    };
    let Case { op, pass, variant, layer, dtype, cost, .. } = case;
    let mut entry = json!({
        "op": op,
        "pass": pass,
        "variant": variant,
        "layer": layer.name,
        "shape": layer.shape,
        "dtype": dtype.name(),
        "min_bytes": cost.min_bytes,
        "flops": cost.flops,
        "exps": cost.exps,
    });
    match measure() {
        Ok(timing) => {
            let us = timing["graph_us"][0].as_f64().unwrap_or(f64::NAN);
            let rate = cost.min_bytes as f64 / us * 1e-6;
            println!(
                "{op} {pass} {variant} {dtype} {}: {us:.1} µs, {rate:.3} TB/s of the least bytes",
                layer.name
            );
            entry["time"] = timing;
        }
        Err(e) => {
            println!("{op} {pass} {variant} {dtype} {}: {e}", layer.name);
            entry["missing"] = e.to_string().into();
        }
    }
    entry
}

fn cases<'a, T: Element>(gpu: &'a Cuda, layer: Layer, sizes: Sizes) -> Vec<Case<'a>> {
    let mut all = gaussian::cases::<T>(gpu, layer);
    all.extend(local::cases::<T>(gpu, layer, sizes));
    all.extend(content::cases::<T>(gpu, layer));
    all.extend(axial::cases::<T>(gpu, layer));
    all.extend(gsa::cases::<T>(gpu, layer));
    all.extend(value_mixture::cases::<T>(gpu, layer));
    all
}

/// All of it, or what there is time for: the rest is named.
pub fn time_all(gpu: &Cuda, sizes: Sizes, op: Option<&str>, limit: Duration) -> Result<Value, Failure> {
    let begin = Instant::now();
    let (mut entries, mut skipped, mut failed) = (Vec::new(), Vec::new(), 0);
    for layer in sizes.layers() {
        for dtype in sizes.dtypes(layer) {
            let cases = match dtype {
                DType::F32 => cases::<f32>(gpu, *layer, sizes),
                DType::F16 => cases::<f16>(gpu, *layer, sizes),
                DType::Bf16 => cases::<bf16>(gpu, *layer, sizes),
            };
            for case in cases.iter().filter(|case| op.is_none_or(|op| op == case.op)) {
                if begin.elapsed() > limit {
                    let Case { op, pass, variant, .. } = case;
                    skipped.push(format!("{op} {pass} {variant} {dtype} {}", layer.name));
                    continue;
                }
                let entry = time_case(gpu, case, sizes);
                failed += usize::from(entry.get("time").is_none());
                entries.push(entry);
            }
        }
    }
    println!(
        "{} timed, {failed} not to be had, {} skipped for want of time",
        entries.len() - failed,
        skipped.len()
    );
    if entries.len() == failed {
        return Err("nothing could be timed".into());
    }
    Ok(json!({ "entries": entries, "skipped": skipped }))
}

/// What building a case's buffers needs over and over.
pub(crate) struct Make<'a> {
    pub gpu: &'a Cuda,
    pub seed: u64,
}

impl Make<'_> {
    /// Random numbers in [−1, 1), others for every set and argument.
    pub fn tensor<T: Element, const R: usize>(
        &self,
        arg: u64,
        shape: [usize; R],
    ) -> Result<macula::Tensor<T, R>, Failure> {
        random(self.gpu, self.seed * 16 + arg, shape, 1.0)
    }

    pub fn zeros<T: Element, const R: usize>(
        &self,
        shape: [usize; R],
    ) -> Result<macula::Tensor<T, R>, Failure> {
        Ok(macula::Tensor::zeros(self.gpu, shape)?)
    }

    pub fn scratch(&self, bytes: usize) -> Result<Scratch, Failure> {
        Scratch::new(self.gpu, bytes)
    }
}
