//! `gsa` on the CPU device, over the layers of vision models, against the definition.

use crate::inputs::values;
use criterion::{BenchmarkId, Criterion, Throughput};
use half::f16;
use macula::gsa::{Affine, BatchNorm, GsaConfig, Parameters};
use macula::reference::{axial, gsa as definition};
use macula::{Cpu, Element, Gsa, Tensor};
use std::hint::black_box;
use std::time::Duration;

struct Case {
    name: &'static str,
    /// `[b, h, y, x, d]`, of q, k and v.
    shape: [usize; 5],
}

/// Layers of a ResNet at 224² and of dense prediction; batches are small, for time grows with them and nothing else does.
const CASES: [Case; 3] = [
    Case { name: "b1_56x56_h8_d32", shape: [1, 8, 56, 56, 32] },
    Case { name: "b1_56x56_h8_d64", shape: [1, 8, 56, 56, 64] },
    Case { name: "b1_128x128_h2_d64", shape: [1, 2, 128, 128, 64] },
];

/// Column and row table that reach the whole map.
fn tables<T: Element>([_, _, y, x, d]: [usize; 5]) -> [Tensor<T, 3>; 2] {
    [values([1, 2 * y - 1, d], 5), values([1, 2 * x - 1, d], 6)]
}

/// The op on a small map is what the definition says.
fn check_small() {
    let shape = [1, 2, 9, 7, 5];
    let [q, k, v] = [1, 2, 3].map(|seed| values::<f32, 5>(shape, seed));
    let [columns, rows] = tables(shape);
    let parameters = Parameters { columns: &columns, rows: &rows, affine: None, given: None };
    let got = Gsa::default().forward(&Cpu::new(), &q, &k, &v, parameters).unwrap().o.to_vec().unwrap();
    let exact = |data: Vec<f32>| data.into_iter().map(f64::from).collect::<Vec<f64>>();
    let [q, k, v] = [q, k, v].map(|t| exact(t.to_vec().unwrap()));
    let tables = [columns, rows].map(|t| (t.shape()[1], exact(t.to_vec().unwrap())));
    let [columns, rows] =
        tables.each_ref().map(|(rows, data)| Some(axial::Table { heads: 1, rows: *rows, data }));
    let axial_inputs = axial::Inputs { q: &q, v: &v, columns, rows, affine: None };
    let inputs = definition::Inputs { axial: axial_inputs, k: &k };
    let sizes = axial::Shape { q: shape, e: shape[4] };
    let (want, _) = definition::forward(&GsaConfig::default(), sizes, inputs, None);
    let worst = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    let is_close = worst <= 1e-4;
    assert!(is_close, "off by {worst:e}");
}

fn forward_and_backward<T: Element>(criterion: &mut Criterion, case: &Case, norm: BatchNorm) {
    let (cpu, op) = (Cpu::new(), Gsa::new(GsaConfig { norm, ..GsaConfig::default() }).unwrap());
    let [q, k, v, d_o] = [1, 2, 3, 4].map(|seed| values::<T, 5>(case.shape, seed));
    let [columns, rows] = tables::<T>(case.shape);
    let ones = Tensor::from_vec(vec![1.0f32; case.shape[4]], [1, case.shape[4]]).unwrap();
    let affine = (norm != BatchNorm::None).then_some(Affine { weight: &ones, bias: &ones });
    let parameters = Parameters { columns: &columns, rows: &rows, affine, given: None };
    let saved = op.forward(&cpu, &q, &k, &v, parameters).unwrap().saved;
    let mut group = criterion.benchmark_group("gsa");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(case.shape.iter().product::<usize>() as u64));
    let norm = if norm == BatchNorm::None { "" } else { "_normed" };
    group.bench_function(BenchmarkId::new(format!("forward{norm}_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.forward(&cpu, &q, &k, &v, parameters).unwrap()));
    });
    group.bench_function(BenchmarkId::new(format!("backward{norm}_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.backward(&cpu, &q, &k, &v, parameters, &saved, &d_o).unwrap()));
    });
    group.finish();
}

pub fn bench(criterion: &mut Criterion) {
    check_small();
    for case in &CASES {
        forward_and_backward::<f32>(criterion, case, BatchNorm::None);
        forward_and_backward::<f16>(criterion, case, BatchNorm::None);
    }
    forward_and_backward::<f32>(criterion, &CASES[0], BatchNorm::Train);
}
