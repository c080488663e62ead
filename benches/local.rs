//! `local` on the CPU device, over the layers of vision models, against the definition and plain loops over windows.

use crate::inputs::values;
use criterion::{BenchmarkId, Criterion, Throughput};
use half::f16;
use macula::local::{Blocks, Border, LocalConfig, Positions, Sliding, Tables, Window};
use macula::reference::local as reference;
use macula::{Cpu, Element, Local, Tensor};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Duration;

struct Case {
    name: &'static str,
    /// `[b, h, y, x, d]`; values have d channels too.
    shape: [usize; 5],
    window: Window,
}

const fn at_border(side: usize, border: Border) -> Window {
    Window::Sliding(Sliding::new([side; 2]).at_border(border))
}

/// Layers of stand-alone attention networks and of neighbourhood attention at 224², dilated too, a map of dense prediction,
/// and Swin's shifted windows.
const CASES: [Case; 7] = [
    Case { name: "b1_56x56_h8_d32_k7", shape: [1, 8, 56, 56, 32], window: Window::sliding([7; 2]) },
    Case { name: "b1_56x56_h8_d64_k7", shape: [1, 8, 56, 56, 64], window: Window::sliding([7; 2]) },
    Case {
        name: "b1_56x56_h4_d32_k13_shift",
        shape: [1, 4, 56, 56, 32],
        window: at_border(13, Border::Shift),
    },
    Case {
        name: "b8_14x14_h16_d32_k7_shift",
        shape: [8, 16, 14, 14, 32],
        window: at_border(7, Border::Shift),
    },
    Case { name: "b1_128x128_h4_d32_k3", shape: [1, 4, 128, 128, 32], window: at_border(3, Border::Zero) },
    Case {
        name: "b1_56x56_h4_d32_k7_shift_dilated4",
        shape: [1, 4, 56, 56, 32],
        window: Window::Sliding(Sliding::new([7; 2]).at_border(Border::Shift).dilated([4; 2])),
    },
    Case {
        name: "b1_56x56_h8_d32_swin7_shifted3",
        shape: [1, 8, 56, 56, 32],
        window: Window::Blocks(Blocks::new([7; 2]).offset_by([3; 2])),
    },
];

impl Case {
    fn config(&self) -> LocalConfig {
        let scale = (self.shape[4] as f32).powf(-0.5);
        LocalConfig { window: self.window, scale, ..LocalConfig::default() }
    }

    /// Shapes of the row table and of the column table, shared by the heads.
    fn table_shapes(&self) -> [[usize; 3]; 2] {
        let (rows, channels) =
            (self.window.table_rows(), self.config().relative.table_channels(self.shape[4]));
        [0, 1].map(|i| [1, rows[i], channels[i]])
    }
}

/// q, k, v, the gradient of the output, and the tables.
struct Inputs<T> {
    q: Tensor<T, 5>,
    k: Tensor<T, 5>,
    v: Tensor<T, 5>,
    d_o: Tensor<T, 5>,
    tables: Tables<Tensor<T, 3>>,
}

impl<T: Element> Inputs<T> {
    fn of(case: &Case) -> Self {
        let [rel_h, rel_w] = case.table_shapes();
        Self {
            q: values(case.shape, 0x1000_0000),
            k: values(case.shape, 0x2000_0000),
            v: values(case.shape, 0x3000_0000),
            d_o: values(case.shape, 0x4000_0000),
            tables: Tables { rel_h: values(rel_h, 0x5000_0000), rel_w: values(rel_w, 0x6000_0000) },
        }
    }

    fn lent(&self) -> Positions<'_, T> {
        Tables { rel_h: &self.tables.rel_h, rel_w: &self.tables.rel_w }.into()
    }
}

/// What one would write first: every query walks over its window of `side` × `side`, border mask, without tables.
fn loops_over_windows(case: &Case, side: usize, [q, k, v]: [&[f32]; 3], o: &mut [f32]) {
    let [_, _, y, x, d] = case.shape;
    let (before, scale) = ((side - 1) / 2, case.config().scale);
    let near = |i: usize, size: usize| i.saturating_sub(before)..(i + side - before).min(size);
    o.par_chunks_mut(x * d).enumerate().for_each(|(row, o)| {
        let (plane, yi) = (row / y * y * x, row % y);
        let mut weights = Vec::with_capacity(side * side);
        for (xi, o) in o.chunks_exact_mut(d).enumerate() {
            let q = &q[(row * x + xi) * d..][..d];
            let pixels = || near(yi, y).flat_map(|yj| near(xi, x).map(move |xj| plane + yj * x + xj));
            weights.clear();
            weights.extend(pixels().map(|j| {
                let k = &k[j * d..][..d];
                scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f32>()
            }));
            let top = weights.iter().fold(f32::NEG_INFINITY, |m, w| m.max(*w));
            weights.iter_mut().for_each(|w| *w = (*w - top).exp());
            let inverse = 1.0 / weights.iter().sum::<f32>();
            o.fill(0.0);
            for (j, w) in pixels().zip(&weights) {
                let v = &v[j * d..][..d];
                o.iter_mut().zip(v).for_each(|(o, v)| *o += w * inverse * v);
            }
        }
    });
}

fn assert_close(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let is_close = worst <= 1e-5;
    assert!(is_close, "{what}: off by {worst:e}");
}

/// Everything that will be timed, on a small map against the definition.
fn check_small(case: &Case) {
    let step = if let Window::Sliding(window) = case.window { window.dilation[0] } else { 1 };
    let side = case.window.keys()[0] * step + 2;
    let case = Case { shape: [1, 2, side, side + 1, 6], ..*case };
    let inputs = Inputs::<f32>::of(&case);
    let (cpu, op) = (Cpu::new(), Local::new(case.config()).unwrap());
    let Inputs { q, k, v, d_o, tables } = &inputs;
    let output = op.forward(&cpu, q, k, v, inputs.lent()).unwrap();
    let grads = op.backward(&cpu, q, k, v, inputs.lent(), &output, d_o).unwrap();

    let exact = |t: Vec<f32>| t.into_iter().map(f64::from).collect::<Vec<_>>();
    let [q, k, v, d_o] = [q, k, v, d_o].map(|t| exact(t.to_vec().unwrap()));
    let [rel_h, rel_w] = [&tables.rel_h, &tables.rel_w].map(|t| exact(t.to_vec().unwrap()));
    let shape = reference::Shape { q: case.shape, e: case.shape[4], table_heads: 1, bias_heads: 1 };
    let exact = reference::Inputs { q: &q, k: &k, v: &v, tables: Some([&rel_h, &rel_w]), bias: None };
    let want = reference::forward(&case.config(), shape, exact);
    let want_grads = reference::backward(&case.config(), shape, exact, &want.o, &want.lse, &d_o);
    let near = |got: Vec<f32>, want: Vec<f64>, what: &str| {
        let want: Vec<f32> = want.into_iter().map(|x| x as f32).collect();
        let largest = want.iter().fold(1.0f32, |m, x| m.max(x.abs()));
        let scaled = |t: Vec<f32>| t.into_iter().map(|x| x / largest).collect::<Vec<_>>();
        assert_close(&scaled(got), &scaled(want), &format!("{} {what}", case.name));
    };
    near(output.o.to_vec().unwrap(), want.o, "o");
    near(grads.dq.to_vec().unwrap(), want_grads.dq, "dq");
    near(grads.dk.to_vec().unwrap(), want_grads.dk, "dk");
    near(grads.dv.to_vec().unwrap(), want_grads.dv, "dv");
    let dtables = grads.dtables.unwrap();
    let [drel_h, drel_w] = want_grads.dtables;
    near(dtables.rel_h.to_vec().unwrap(), drel_h, "drel_h");
    near(dtables.rel_w.to_vec().unwrap(), drel_w, "drel_w");
}

fn forward_and_backward<T: Element>(criterion: &mut Criterion, case: &Case) {
    let (cpu, op) = (Cpu::new(), Local::new(case.config()).unwrap());
    let inputs = Inputs::<T>::of(case);
    let Inputs { q, k, v, d_o, .. } = &inputs;
    let output = op.forward(&cpu, q, k, v, inputs.lent()).unwrap();
    let mut group = criterion.benchmark_group("local");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(case.shape.iter().product::<usize>() as u64));
    group.bench_function(BenchmarkId::new(format!("forward_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.forward(&cpu, q, k, v, inputs.lent()).unwrap()));
    });
    group.bench_function(BenchmarkId::new(format!("backward_{}", T::DTYPE), case.name), |b| {
        b.iter(|| black_box(op.backward(&cpu, q, k, v, inputs.lent(), &output, d_o).unwrap()));
    });
    group.finish();
}

/// Against loops over windows, both without tables.
fn rivals(criterion: &mut Criterion, case: &Case, side: usize) {
    let (cpu, op) = (Cpu::new(), Local::new(case.config()).unwrap());
    let inputs = Inputs::<f32>::of(case);
    let Inputs { q, k, v, .. } = &inputs;
    let own = op.forward(&cpu, q, k, v, Positions::default()).unwrap().o.to_vec().unwrap();
    let [q_data, k_data, v_data] = [q, k, v].map(|t| t.to_vec().unwrap());
    let mut o = vec![0.0; own.len()];
    loops_over_windows(case, side, [&q_data, &k_data, &v_data], &mut o);
    assert_close(&own, &o, case.name);
    let mut group = criterion.benchmark_group("local");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(o.len() as u64));
    group.bench_function(BenchmarkId::new("forward_without_tables_f32", case.name), |b| {
        b.iter(|| black_box(op.forward(&cpu, q, k, v, Positions::default()).unwrap()));
    });
    group.bench_function(BenchmarkId::new("loops_over_windows_f32", case.name), |b| {
        b.iter(|| loops_over_windows(case, side, [&q_data, &k_data, &v_data], &mut o));
    });
    group.finish();
}

pub fn bench(criterion: &mut Criterion) {
    for case in &CASES {
        check_small(case);
        forward_and_backward::<f32>(criterion, case);
        forward_and_backward::<f16>(criterion, case);
        if let Window::Sliding(Sliding { size: [side, _], dilation: [1, 1], border: Border::Mask }) =
            case.window
        {
            rivals(criterion, case, side);
        }
    }
}
