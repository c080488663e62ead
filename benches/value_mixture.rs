//! `value_mixture` on the CPU device, over the stems of vision models, against the definition.

use crate::inputs::values;
use criterion::{BenchmarkId, Criterion, Throughput};
use half::f16;
use macula::reference::value_mixture as definition;
use macula::value_mixture::Tables;
use macula::{Cpu, Element, Tensor, ValueMixture};
use std::hint::black_box;
use std::time::Duration;

struct Case {
    name: &'static str,
    /// `[m, b, h, y, x, e]`.
    vs: [usize; 6],
    /// Rows and columns of the tables.
    sites: [usize; 2],
}

/// Weights by place in a 4×4 block, over a stem's map at 224²; and by pixel, over a small image.
const CASES: [Case; 2] = [
    Case { name: "m4_b4_112x112_h4_e16_block", vs: [4, 4, 4, 112, 112, 16], sites: [4, 4] },
    Case { name: "m4_b16_32x32_h8_e8_pixel", vs: [4, 16, 8, 32, 32, 8], sites: [32, 32] },
];
/// Channels of the tables.
const R: usize = 16;

fn tables<T>(m: usize, sites: [usize; 2], make: impl Fn([usize; 2], u32) -> T) -> Tables<T> {
    Tables { emb_row: make([sites[0], R], 2), emb_col: make([sites[1], R], 3), nu: make([m, R], 4) }
}

/// The op on a small map is what the definition says.
fn check_small() {
    let (vs, sites) = ([3, 1, 2, 9, 7, 5], [4, 3]);
    let exact = |t: &[f32]| t.iter().copied().map(f64::from).collect::<Vec<f64>>();
    let (maps, made) = (values::<f32, 6>(vs, 1), tables(vs[0], sites, values::<f32, 2>));
    let given = Tables { emb_row: &made.emb_row, emb_col: &made.emb_col, nu: &made.nu };
    let got = ValueMixture::new().forward(&Cpu::new(), &maps, given).unwrap().o.to_vec().unwrap();
    let numbers = made.map(|table| exact(&table.to_vec().unwrap()));
    let shape = definition::Shape { vs, sites, r: R };
    let given = definition::Tables { emb_row: &numbers.emb_row, emb_col: &numbers.emb_col, nu: &numbers.nu };
    let p = definition::weights(shape, given);
    let want = definition::forward(shape, &exact(&maps.to_vec().unwrap()), &p);
    let worst = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    let is_close = worst <= 1e-5;
    assert!(is_close, "off by {worst:e}");
}

fn forward_and_backward<T: Element>(criterion: &mut Criterion, case: &Case) {
    let (cpu, op) = (Cpu::new(), ValueMixture::new());
    let [m, o @ ..] = case.vs;
    let (vs, d_o) = (values::<T, 6>(case.vs, 1), values::<T, 5>(o, 5));
    let made: Tables<Tensor<f32, 2>> = tables(m, case.sites, values::<f32, 2>);
    let given = Tables { emb_row: &made.emb_row, emb_col: &made.emb_col, nu: &made.nu };
    let mut group = criterion.benchmark_group("value_mixture");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(case.vs.iter().product::<usize>() as u64));
    group.bench_function(BenchmarkId::new(format!("forward_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.forward(&cpu, &vs, given).unwrap()));
    });
    group.bench_function(BenchmarkId::new(format!("backward_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.backward(&cpu, &vs, given, &d_o).unwrap()));
    });
    group.finish();
}

pub fn bench(criterion: &mut Criterion) {
    check_small();
    for case in &CASES {
        forward_and_backward::<f32>(criterion, case);
        forward_and_backward::<f16>(criterion, case);
    }
}
