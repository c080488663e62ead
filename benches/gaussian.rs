//! `gaussian` on the CPU device, over the layers of vision models, against the definition and a plain convolution.

use crate::inputs::values;
use criterion::{BenchmarkId, Criterion, Throughput};
use half::f16;
use macula::gaussian::{GaussianConfig, Kernel};
use macula::reference::gaussian::forward as definition;
use macula::{Cpu, Element, Gaussian, Tensor};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Duration;

struct Case {
    name: &'static str,
    /// `[b, h, y, x, d]`
    shape: [usize; 5],
    radius: f32,
}

/// Layers of a ResNet at 224² and of dense prediction; batches are small, for time grows with them and nothing else does.
const CASES: [Case; 5] = [
    Case { name: "b4_56x56_h8_d32", shape: [4, 8, 56, 56, 32], radius: 3.0 },
    Case { name: "b4_56x56_h8_d64", shape: [4, 8, 56, 56, 64], radius: 3.0 },
    Case { name: "b1_128x128_h8_d32", shape: [1, 8, 128, 128, 32], radius: 3.0 },
    Case { name: "b1_512x512_h1_d64", shape: [1, 1, 512, 512, 64], radius: 5.0 },
    Case { name: "b1_512x512_h1_d64_narrow", shape: [1, 1, 512, 512, 64], radius: 1.0 },
];

fn op(kernel: Kernel) -> Gaussian {
    Gaussian::new(GaussianConfig { kernel, ..Default::default() }).unwrap()
}

/// What one would write first: taps of six radii, normalised at borders, one pass along y and one along x.
fn two_pass_convolution(v: &[f32], [_, _, y, x, d]: [usize; 5], radius: f32, t: &mut [f32], o: &mut [f32]) {
    let reach = (6.0 * radius) as usize;
    let weight = |distance: usize| (-0.5 * (distance as f32 / radius).powi(2)).exp();
    let taps: Vec<f32> = (0..=reach).map(weight).collect();
    let near = |i: usize, size: usize| i.saturating_sub(reach)..(i + reach + 1).min(size);
    let inverse = |i: usize, size: usize| 1.0 / near(i, size).map(|j| taps[i.abs_diff(j)]).sum::<f32>();
    let add = |to: &mut [f32], from: &[f32], weight: f32| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += weight * from);
    };
    let line = x * d;
    t.par_chunks_mut(line).enumerate().for_each(|(row, to)| {
        let (plane, yi) = (row / y, row % y);
        let inverse = inverse(yi, y);
        to.fill(0.0);
        for yj in near(yi, y) {
            add(to, &v[(plane * y + yj) * line..][..line], taps[yi.abs_diff(yj)] * inverse);
        }
    });
    o.par_chunks_mut(line).zip(t.par_chunks(line)).for_each(|(to, from)| {
        for (xi, to) in to.chunks_exact_mut(d).enumerate() {
            let inverse = inverse(xi, x);
            to.fill(0.0);
            for xj in near(xi, x) {
                add(to, &from[xj * d..][..d], taps[xi.abs_diff(xj)] * inverse);
            }
        }
    });
}

fn assert_close(got: &[f32], want: &[f32], what: &str) {
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let is_close = worst <= 1e-5;
    assert!(is_close, "{what}: off by {worst:e}");
}

/// The op on one thread's worth of the truth: every kernel and gradient that will be timed, on a small map.
fn check_small(kernel: Kernel) {
    let shape = [1, 1, 13, 9, 5];
    let v = values::<f32, 5>(shape, 1);
    let config = GaussianConfig { kernel, ..Default::default() };
    let o = op(kernel).forward(&Cpu::new(), &v, &Tensor::from_vec(vec![1.7], [1]).unwrap()).unwrap();
    let exact: Vec<f64> = v.to_vec().unwrap().into_iter().map(f64::from).collect();
    let want: Vec<f32> = definition(&config, shape, &exact, &[1.7]).into_iter().map(|x| x as f32).collect();
    assert_close(&o.to_vec().unwrap(), &want, kernel.name());
}

fn forward_and_backward<T: Element>(criterion: &mut Criterion, case: &Case) {
    let (cpu, op) = (Cpu::new(), op(Kernel::Gaussian));
    let (v, d_o) = (values::<T, 5>(case.shape, 1), values::<T, 5>(case.shape, 2));
    let sigma = Tensor::from_vec(vec![case.radius], [1]).unwrap();
    let mut group = criterion.benchmark_group("gaussian");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(case.shape.iter().product::<usize>() as u64));
    group.bench_function(BenchmarkId::new(format!("forward_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.forward(&cpu, &v, &sigma).unwrap()));
    });
    group.bench_function(BenchmarkId::new(format!("backward_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.backward(&cpu, &v, &sigma, &d_o).unwrap()));
    });
    group.finish();
}

fn rivals(criterion: &mut Criterion, case: &Case) {
    let v = values::<f32, 5>(case.shape, 1);
    let sigma = Tensor::from_vec(vec![case.radius], [1]).unwrap();
    let o = op(Kernel::Gaussian).forward(&Cpu::new(), &v, &sigma).unwrap().to_vec().unwrap();
    let v = v.to_vec().unwrap();
    let (mut t, mut rival) = (vec![0.0; v.len()], vec![0.0; v.len()]);
    two_pass_convolution(&v, case.shape, case.radius, &mut t, &mut rival);
    assert_close(&o, &rival, case.name);
    let mut group = criterion.benchmark_group("gaussian");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(v.len() as u64));
    group.bench_function(BenchmarkId::new("two_pass_convolution_f32", case.name), |b| {
        b.iter(|| two_pass_convolution(&v, case.shape, case.radius, &mut t, &mut rival));
    });
    group.finish();
}

/// The definition visits every pair of pixels.
fn small(criterion: &mut Criterion) {
    let shape = [1, 1, 32, 32, 16];
    let (cpu, v) = (Cpu::new(), values::<f32, 5>(shape, 1));
    let sigma = Tensor::from_vec(vec![3.0], [1]).unwrap();
    let mut group = criterion.benchmark_group("gaussian");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(shape.iter().product::<usize>() as u64));
    let name = "b1_32x32_h1_d16";
    for kernel in Kernel::ALL {
        check_small(kernel);
        group.bench_function(BenchmarkId::new(format!("{}_forward_f32", kernel.name()), name), |b| {
            b.iter(|| black_box(op(kernel).forward(&cpu, &v, &sigma).unwrap()));
        });
    }
    let v = v.to_vec().unwrap();
    group.bench_function(BenchmarkId::new("definition_f32", name), |b| {
        b.iter(|| black_box(definition(&GaussianConfig::default(), shape, &v, &[3.0f32])));
    });
    group.finish();
}

pub fn bench(criterion: &mut Criterion) {
    small(criterion);
    for case in &CASES {
        forward_and_backward::<f32>(criterion, case);
        forward_and_backward::<f16>(criterion, case);
        rivals(criterion, case);
    }
}
