//! The op `axial`: every case on every device, each element within its own error bar.

mod any;

use crate::common::{check, numbers, random, uniform};
use half::{bf16, f16};
use macula::axial::{Affine, Axes, AxialConfig, BatchNorm, Parameters, Statistics};
use macula::reference::Bar;
use macula::reference::axial as reference;
use macula::{Axial, Cpu, Device, Element, Tensor};

/// One problem. The name says what is odd about it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    /// `[b, h, y, x, d]`.
    pub q: [usize; 5],
    pub e: usize,
    /// L of the column table and of the row table.
    pub reach: [usize; 2],
    /// Whether each head has tables of its own.
    pub per_head_tables: bool,
    /// Whether each head has statistics of its own.
    pub per_head_norm: bool,
}

const PLAIN: Case = Case {
    name: "plain",
    q: [2, 3, 5, 7, 8],
    e: 8,
    reach: [7, 7],
    per_head_tables: false,
    per_head_norm: false,
};

/// Every case is run forward and backward, in every dtype, along each axis and both, with every kind of batch norm.
pub const CASES: &[Case] = &[
    PLAIN,
    Case { name: "one_token", q: [2, 1, 1, 1, 4], e: 4, reach: [1, 1], ..PLAIN },
    // The variance of its batch is 0: batch norm multiplies what y was rounded by with 1/√ε.
    Case { name: "one_number_per_channel", q: [1, 1, 1, 1, 16], e: 2, reach: [6, 1], ..PLAIN },
    Case { name: "one_row", q: [1, 2, 1, 11, 8], e: 8, reach: [1, 11], ..PLAIN },
    Case { name: "one_column", q: [1, 2, 11, 1, 8], e: 8, reach: [11, 1], ..PLAIN },
    Case { name: "short_tables", q: [1, 2, 9, 8, 8], e: 8, reach: [3, 2], ..PLAIN },
    Case { name: "long_tables", q: [1, 2, 3, 4, 8], e: 8, reach: [9, 12], ..PLAIN },
    Case { name: "tables_per_head", per_head_tables: true, ..PLAIN },
    Case { name: "norm_per_head", per_head_norm: true, ..PLAIN },
    Case { name: "one_channel", q: [1, 2, 4, 3, 1], e: 1, ..PLAIN },
    Case { name: "odd_channels", q: [1, 2, 4, 5, 13], e: 11, ..PLAIN },
    Case { name: "d_is_not_e", q: [1, 2, 4, 5, 24], e: 40, ..PLAIN },
    Case { name: "most_channels", q: [1, 1, 4, 3, 128], e: 128, ..PLAIN },
    Case { name: "tile_minus_one", q: [1, 1, 15, 15, 8], e: 8, reach: [15, 15], ..PLAIN },
    Case { name: "tile", q: [1, 1, 16, 16, 16], e: 16, reach: [16, 16], ..PLAIN },
    Case { name: "tile_plus_one", q: [1, 1, 17, 17, 8], e: 8, reach: [17, 17], ..PLAIN },
    Case { name: "many_short_lines", q: [5, 2, 3, 9, 8], e: 8, reach: [3, 9], ..PLAIN },
    Case { name: "block_minus_one", q: [1, 1, 63, 3, 8], e: 8, reach: [63, 3], ..PLAIN },
    Case { name: "block_plus_one", q: [1, 2, 3, 65, 8], e: 16, reach: [3, 65], ..PLAIN },
    Case { name: "long_lines_short_tables", q: [1, 1, 2, 150, 8], e: 8, reach: [1, 20], ..PLAIN },
];

/// Every setting that a case is run with.
pub const CONFIGS: [AxialConfig; 5] = [
    AxialConfig { axes: Axes::Columns, norm: BatchNorm::None, epsilon: 1e-5 },
    AxialConfig { axes: Axes::Rows, norm: BatchNorm::None, epsilon: 1e-5 },
    AxialConfig { axes: Axes::ColumnsThenRows, norm: BatchNorm::None, epsilon: 1e-5 },
    AxialConfig { axes: Axes::ColumnsThenRows, norm: BatchNorm::Eval, epsilon: 1e-5 },
    AxialConfig { axes: Axes::ColumnsThenRows, norm: BatchNorm::Train, epsilon: 1e-5 },
];

impl Case {
    fn shape(&self) -> reference::Shape {
        reference::Shape { q: self.q, e: self.e }
    }

    fn v(&self) -> [usize; 5] {
        let [b, h, y, x, _] = self.q;
        [b, h, y, x, self.e]
    }

    fn table(&self, axis: usize) -> [usize; 3] {
        [if self.per_head_tables { self.q[1] } else { 1 }, 2 * self.reach[axis] - 1, self.q[4]]
    }

    fn norm(&self) -> [usize; 2] {
        [if self.per_head_norm { self.q[1] } else { 1 }, self.e]
    }
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// What a run returned, for comparing bits.
pub type Bits = Vec<Vec<u8>>;

fn bits<T: Element>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Batch norm's weight, bias, mean and variance.
fn norm_vectors(case: &Case) -> [Vec<f32>; 4] {
    [0, 1, 2, 3].map(|i| {
        let numbers = uniform(6 + i, count(&case.norm()));
        // Weight and variance are positive.
        let shift = if i % 3 == 0 { 1.5 } else { 0.0 };
        numbers.iter().map(|x| (x + shift) as f32).collect()
    })
}

/// Which passes a device has.
#[derive(Clone, Copy, PartialEq)]
pub enum Passes {
    Forward,
    Both,
}

/// Forward and backward on a device, each element against its bar.
pub fn run<T: Element>(
    on: &dyn Device,
    case: &Case,
    config: AxialConfig,
    passes: Passes,
) -> Result<Bits, String> {
    let explain = |e: macula::Error| format!("{} {config:?}: {e}", case.name);
    let op = Axial::new(config).map_err(explain)?;
    let q = random::<T>(1, count(&case.q), 1.0);
    let v = random::<T>(2, count(&case.v()), 1.0);
    let g = random::<T>(3, count(&case.v()), 1.0);
    let tables = [0, 1].map(|axis| random::<T>(4 + axis as u64, count(&case.table(axis)), 0.5));
    let norm = norm_vectors(case);
    let put5 =
        |data: &[T], shape| Tensor::from_vec(data.to_vec(), shape).and_then(|t| t.to(on)).map_err(explain);
    let put3 = |axis: usize| {
        Tensor::from_vec(tables[axis].clone(), case.table(axis)).and_then(|t| t.to(on)).map_err(explain)
    };
    let put2 =
        |i: usize| Tensor::from_vec(norm[i].clone(), case.norm()).and_then(|t| t.to(on)).map_err(explain);
    let (tq, tv, tg) = (put5(&q, case.q)?, put5(&v, case.v())?, put5(&g, case.v())?);
    let (columns, rows) = (put3(0)?, put3(1)?);
    let (weight, bias, mean, var) = (put2(0)?, put2(1)?, put2(2)?, put2(3)?);
    let parameters = Parameters {
        columns: (config.axes != Axes::Rows).then_some(&columns),
        rows: (config.axes != Axes::Columns).then_some(&rows),
        affine: (config.norm != BatchNorm::None).then_some(Affine { weight: &weight, bias: &bias }),
        given: (config.norm == BatchNorm::Eval).then_some(Statistics { mean: &mean, var: &var }),
    };
    let output = op.forward(on, &tq, &tv, &parameters).map_err(explain)?;

    let [rq, rv, rg] = [&q, &v, &g].map(|x| numbers::<T, Bar<T>>(x));
    let rtables = tables.each_ref().map(|t| numbers::<T, Bar<T>>(t));
    let rnorm = norm.each_ref().map(|x| numbers::<f32, Bar<T>>(x));
    let table = |axis: usize, is_used: bool| {
        let [heads, rows, _] = case.table(axis);
        is_used.then_some(reference::Table { heads, rows, data: &rtables[axis] })
    };
    let inputs = reference::Inputs {
        q: &rq,
        v: &rv,
        columns: table(0, config.axes != Axes::Rows),
        rows: table(1, config.axes != Axes::Columns),
        affine: (config.norm != BatchNorm::None).then_some(reference::Affine {
            heads: case.norm()[0],
            weight: &rnorm[0],
            bias: &rnorm[1],
        }),
    };
    let given = reference::Statistics { mean: rnorm[2].clone(), var: rnorm[3].clone() };
    let truth = reference::forward(&config, case.shape(), inputs, Some(&given));
    let name =
        |tensor: &str| format!("{} {:?} {:?} {} {tensor}", case.name, config.axes, config.norm, T::DTYPE);
    let mut statistics = given;
    let mut y = Vec::new();
    if let Some(tensor) = &output.saved.y {
        y = tensor.to_vec().map_err(explain)?;
        check(&name("y"), &truth.y, &y)?;
    }
    let o = output.o.to_vec().map_err(explain)?;
    let mut results = vec![bits(&y), bits(&o)];
    if let (Some(batch), Some(want)) = (&output.saved.batch, &truth.statistics) {
        let (mean, var) = (batch.mean.to_vec().map_err(explain)?, batch.var.to_vec().map_err(explain)?);
        check(&name("mean"), &want.mean, &mean)?;
        check(&name("var"), &want.var, &var)?;
        results.extend([bits(&mean), bits(&var)]);
        statistics = reference::Statistics { mean: numbers::<f32, _>(&mean), var: numbers::<f32, _>(&var) };
    }
    // What comes after them is judged on what it was given: this device's y and statistics.
    let ry = numbers::<T, Bar<T>>(&y);
    let want_o = match (config.axes, inputs.rows) {
        (Axes::ColumnsThenRows, Some(rows)) => {
            reference::second_layer(&config, case.shape(), inputs, &rows, &ry, Some(&statistics))
        }
        _ => truth.o,
    };
    check(&name("o"), &want_o, &o)?;
    if passes == Passes::Forward {
        return Ok(results);
    }

    let grads = op.backward(on, &tq, &tv, &parameters, &output.saved, &tg).map_err(explain)?;
    let truth = reference::backward(&config, case.shape(), inputs, &ry, Some(&statistics), &rg);
    let (dq, dv) = (grads.dq.to_vec().map_err(explain)?, grads.dv.to_vec().map_err(explain)?);
    check(&name("dq"), &truth.dq, &dq)?;
    check(&name("dv"), &truth.dv, &dv)?;
    results.extend([bits(&dq), bits(&dv)]);
    for (tensor, want, got) in
        [("dcolumns", &truth.dcolumns, &grads.dcolumns), ("drows", &truth.drows, &grads.drows)]
    {
        if let Some(got) = got {
            let got = got.to_vec().map_err(explain)?;
            check(&name(tensor), want, &got)?;
            results.push(bits(&got));
        }
    }
    if let Some(affine) = &grads.daffine {
        let (dweight, dbias) =
            (affine.weight.to_vec().map_err(explain)?, affine.bias.to_vec().map_err(explain)?);
        check(&name("dweight"), &truth.dweight, &dweight)?;
        check(&name("dbias"), &truth.dbias, &dbias)?;
        results.extend([bits(&dweight), bits(&dbias)]);
    }
    Ok(results)
}

/// Every case with every setting.
fn run_all<T: Element>(on: &dyn Device) {
    for case in CASES {
        for config in CONFIGS {
            run::<T>(on, case, config, Passes::Both).unwrap();
        }
    }
}

#[test]
fn cpu_f32() {
    run_all::<f32>(&Cpu::new());
}

#[test]
fn cpu_f16() {
    run_all::<f16>(&Cpu::new());
}

#[test]
fn cpu_bf16() {
    run_all::<bf16>(&Cpu::new());
}

/// d(Σ d_o·o) by every input, by central differences in f64.
#[test]
fn reference_gradients_are_those_of_the_forward_pass() {
    const STEP: f64 = 1e-5;
    let cases = [
        Case { q: [2, 2, 3, 4, 3], e: 2, reach: [3, 4], ..PLAIN },
        Case { q: [2, 2, 4, 3, 3], e: 2, reach: [2, 2], per_head_tables: true, per_head_norm: true, ..PLAIN },
    ];
    for case in cases {
        for config in CONFIGS {
            let sizes = [
                count(&case.q),
                count(&case.v()),
                count(&case.table(0)),
                count(&case.table(1)),
                count(&case.norm()),
                count(&case.norm()),
            ];
            let at = uniform(7, sizes.iter().sum());
            let d_o = uniform(8, count(&case.v()));
            let given = reference::Statistics {
                mean: uniform(9, count(&case.norm())),
                var: uniform(10, count(&case.norm())).iter().map(|x| x + 1.5).collect(),
            };
            let cut = |all: &[f64]| -> Vec<Vec<f64>> {
                let mut rest = all;
                let mut take = |n: usize| {
                    let (part, left) = rest.split_at(n);
                    rest = left;
                    part.to_vec()
                };
                sizes.iter().map(|&n| take(n)).collect()
            };
            fn inputs<'a>(
                case: &Case,
                config: AxialConfig,
                parts: &'a [Vec<f64>],
            ) -> reference::Inputs<'a, f64> {
                let table = |axis: usize| {
                    let [heads, rows, _] = case.table(axis);
                    reference::Table { heads, rows, data: &parts[2 + axis] }
                };
                reference::Inputs {
                    q: &parts[0],
                    v: &parts[1],
                    columns: (config.axes != Axes::Rows).then(|| table(0)),
                    rows: (config.axes != Axes::Columns).then(|| table(1)),
                    affine: (config.norm != BatchNorm::None).then(|| reference::Affine {
                        heads: case.norm()[0],
                        weight: &parts[4],
                        bias: &parts[5],
                    }),
                }
            }
            let forward = |parts: &[Vec<f64>]| {
                reference::forward(&config, case.shape(), inputs(&case, config, parts), Some(&given))
            };
            let parts = cut(&at);
            let out = forward(&parts);
            let grads = reference::backward(
                &config,
                case.shape(),
                inputs(&case, config, &parts),
                &out.y,
                out.statistics.as_ref(),
                &d_o,
            );
            let all = [grads.dq, grads.dv, grads.dcolumns, grads.drows, grads.dweight, grads.dbias];
            let mut first = 0;
            for (part, size) in all.iter().zip(sizes) {
                for (i, grad) in part.iter().enumerate() {
                    let moved = |by: f64| -> f64 {
                        let mut there = at.clone();
                        there[first + i] += by;
                        forward(&cut(&there)).o.iter().zip(&d_o).map(|(o, g)| o * g).sum()
                    };
                    let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                    approx::assert_abs_diff_eq!(slope, *grad, epsilon = 2e-8 * (1.0 + grad.abs()));
                }
                first += size;
            }
        }
    }
}

#[test]
fn same_bits_on_one_thread_and_on_three() {
    let case = Case { q: [2, 2, 13, 17, 8], reach: [13, 17], ..PLAIN };
    let config = CONFIGS[4];
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let cpu = Cpu::with_pool(std::sync::Arc::new(pool));
        let t5 = |seed, shape: [usize; 5]| {
            Tensor::from_vec(random::<f32>(seed, count(&shape), 1.0), shape).unwrap()
        };
        let t3 = |seed, shape: [usize; 3]| {
            Tensor::from_vec(random::<f32>(seed, count(&shape), 1.0), shape).unwrap()
        };
        let ones = Tensor::from_vec(vec![1.0f32; case.e], [1, case.e]).unwrap();
        let (q, v, g) = (t5(1, case.q), t5(2, case.v()), t5(3, case.v()));
        let (columns, rows) = (t3(4, case.table(0)), t3(5, case.table(1)));
        let affine = Some(Affine { weight: &ones, bias: &ones });
        let parameters = Parameters { columns: Some(&columns), rows: Some(&rows), affine, given: None };
        let output = Axial::new(config).unwrap().forward(&cpu, &q, &v, &parameters).unwrap();
        let grads =
            Axial::new(config).unwrap().backward(&cpu, &q, &v, &parameters, &output.saved, &g).unwrap();
        let tables = [grads.dcolumns, grads.drows].map(|t| t.unwrap().to_vec().unwrap());
        let maps = [output.o, grads.dq, grads.dv].map(|t| t.to_vec().unwrap());
        (tables, maps, grads.daffine.unwrap().weight.to_vec().unwrap())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn refusals_say_what_was_wanted_and_what_came() {
    let text =
        Axial::new(AxialConfig { axes: Axes::Rows, norm: BatchNorm::Train, epsilon: 1e-5 }).unwrap_err();
    assert_eq!(text.to_string(), "axial: `norm` must be none with one direction, got Train");
    let op = Axial::new(AxialConfig::default()).unwrap();
    let map = Tensor::from_vec(vec![0.0f32; 2 * 3 * 4], [1, 1, 2, 3, 4]).unwrap();
    let table = |rows: usize| Tensor::from_vec(vec![0.0f32; rows * 4], [1, rows, 4]).unwrap();
    let run = |columns: Option<&Tensor<f32, 3>>, rows: Option<&Tensor<f32, 3>>| {
        let parameters = Parameters { columns, rows, affine: None, given: None };
        op.forward(&Cpu::new(), &map, &map, &parameters).err().unwrap().to_string()
    };
    assert_eq!(run(None, Some(&table(3))), "axial: `columns` must be given with these settings, got nothing");
    assert_eq!(
        run(Some(&table(4)), Some(&table(3))),
        "axial: `columns` must be of shape [1, 5, 4], got [1, 4, 4]"
    );
}

#[test]
fn empty_maps_are_fine_and_parameter_gradients_are_zero() {
    let op = Axial::new(AxialConfig::default()).unwrap();
    let empty = Tensor::from_vec(Vec::<f32>::new(), [2, 1, 0, 3, 4]).unwrap();
    let table = Tensor::from_vec(vec![1.0f32; 12], [1, 3, 4]).unwrap();
    let parameters = Parameters { columns: Some(&table), rows: Some(&table), affine: None, given: None };
    let output = op.forward(&Cpu::new(), &empty, &empty, &parameters).unwrap();
    let grads = op.backward(&Cpu::new(), &empty, &empty, &parameters, &output.saved, &empty).unwrap();
    assert_eq!(grads.drows.unwrap().to_vec().unwrap(), vec![0.0; 12]);
}
