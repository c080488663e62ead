//! `content` on the CPU device, over the layers of vision models, against the definition.

use crate::inputs::values;
use criterion::{BenchmarkId, Criterion, Throughput};
use half::f16;
use macula::content::{ContentConfig, Form};
use macula::reference::content as definition;
use macula::{Content, Cpu, Element, Tensor};
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

/// The op on a small map is what the definition says.
fn check_small(config: ContentConfig) {
    let shape @ [b, h, y, x, d] = [1, 2, 9, 7, 5];
    let tensors = [1, 2, 3].map(|seed| values::<f32, 5>(shape, seed));
    let [q, k, v] = &tensors;
    let got = Content::new(config).forward(&Cpu::new(), q, k, v).unwrap().o.to_vec().unwrap();
    let exact = |t: &Tensor<f32, 5>| t.to_vec().unwrap().into_iter().map(f64::from).collect::<Vec<f64>>();
    let sizes = definition::Shape { bh: b * h, n: y * x, m: y * x, d, e: d };
    let want = definition::forward(&config, sizes, &exact(q), &exact(k), &exact(v)).o;
    let worst = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    let is_close = worst <= 1e-4;
    assert!(is_close, "off by {worst:e}");
}

fn forward_and_backward<T: Element>(
    criterion: &mut Criterion,
    case: &Case,
    form: &str,
    config: ContentConfig,
) {
    let (cpu, op) = (Cpu::new(), Content::new(config));
    let [q, k, v, d_o] = [1, 2, 3, 4].map(|seed| values::<T, 5>(case.shape, seed));
    let saved = op.forward(&cpu, &q, &k, &v).unwrap().saved;
    let mut group = criterion.benchmark_group("content");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(case.shape.iter().product::<usize>() as u64));
    group.bench_function(BenchmarkId::new(format!("forward_{form}_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.forward(&cpu, &q, &k, &v).unwrap()));
    });
    group.bench_function(BenchmarkId::new(format!("backward_{form}_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.backward(&cpu, &q, &k, &v, &saved, &d_o).unwrap()));
    });
    group.finish();
}

pub fn bench(criterion: &mut Criterion) {
    Form::ALL.into_iter().for_each(|form| check_small(ContentConfig { form }));
    let dot_product = ContentConfig { form: Form::DotProduct };
    for case in &CASES {
        forward_and_backward::<f32>(criterion, case, "softmax", ContentConfig::default());
        forward_and_backward::<f16>(criterion, case, "softmax", ContentConfig::default());
    }
    forward_and_backward::<f32>(criterion, &CASES[0], "dot_product", dot_product);
}
