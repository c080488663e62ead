//! The op `gsa`: every case on every device, each element within its own error bar.

use crate::common::memory::{Memory, layout};
use crate::common::{check, numbers, random, tried, uniform};
use half::{bf16, f16};
use macula::gsa::{Affine, Backward, BatchNorm, Forward, GsaConfig, Parameters, Statistics};
use macula::reference::{Bar, axial, gsa as reference};
use macula::{Cpu, Device, Element, Error, Gpu, Gsa, Layout, Tensor, Workspace, content};
use proptest::prelude::*;

/// One problem. The name says what is odd about it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub config: GsaConfig,
    /// `[b, h, y, x, d]`.
    pub q: [usize; 5],
    pub e: usize,
    /// L of the column table and of the row table.
    pub reach: [usize; 2],
    /// Whether each head has tables and statistics of its own.
    pub per_head: bool,
}

pub const CONFIG: GsaConfig = GsaConfig { norm_queries: false, norm: BatchNorm::None, epsilon: 1e-5 };

pub const PLAIN: Case =
    Case { name: "plain", config: CONFIG, q: [2, 3, 5, 7, 8], e: 8, reach: [7, 7], per_head: false };

/// Every case is run forward and backward, in every dtype, with every kind of batch norm, queries normalised and not.
pub const CASES: &[Case] = &[
    PLAIN,
    Case { name: "one_token", q: [2, 1, 1, 1, 4], e: 4, reach: [1, 1], ..PLAIN },
    // The variance of its batch is 0: batch norm multiplies what y was rounded by with 1/√ε.
    Case { name: "one_number_per_channel", q: [1, 1, 1, 1, 16], e: 2, reach: [6, 1], ..PLAIN },
    Case { name: "one_row", q: [1, 2, 1, 11, 8], e: 8, reach: [1, 11], ..PLAIN },
    Case { name: "one_column", q: [1, 2, 11, 1, 8], e: 8, reach: [11, 1], ..PLAIN },
    Case { name: "short_tables", q: [1, 2, 9, 8, 8], e: 8, reach: [3, 2], ..PLAIN },
    Case { name: "per_head", per_head: true, ..PLAIN },
    Case { name: "one_channel", q: [1, 2, 4, 3, 1], e: 1, ..PLAIN },
    Case { name: "d_is_not_e", q: [1, 2, 4, 5, 13], e: 22, ..PLAIN },
    Case { name: "tile_plus_one", q: [1, 1, 17, 17, 8], e: 8, reach: [17, 17], ..PLAIN },
];

pub fn configs() -> impl Iterator<Item = GsaConfig> {
    let norms = [BatchNorm::None, BatchNorm::Eval, BatchNorm::Train];
    norms.into_iter().flat_map(|norm| {
        [false, true].map(|norm_queries| GsaConfig { norm_queries, norm, epsilon: CONFIG.epsilon })
    })
}

fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

impl Case {
    fn shape(&self) -> axial::Shape {
        axial::Shape { q: self.q, e: self.e }
    }

    fn v(&self) -> [usize; 5] {
        let [b, h, y, x, _] = self.q;
        [b, h, y, x, self.e]
    }

    fn heads(&self) -> usize {
        if self.per_head { self.q[1] } else { 1 }
    }

    fn table(&self, axis: usize) -> [usize; 3] {
        [self.heads(), 2 * self.reach[axis] - 1, self.q[4]]
    }

    fn norm(&self) -> [usize; 2] {
        [self.heads(), self.e]
    }

    fn has_norm(&self) -> bool {
        self.config.norm != BatchNorm::None
    }

    fn is_eval(&self) -> bool {
        self.config.norm == BatchNorm::Eval
    }

    /// How many numbers the inputs have: q, k, v, columns, rows, weight, bias.
    fn sizes(&self) -> [usize; 7] {
        let (map, norm) = (count(&self.q), count(&self.norm()));
        [map, map, count(&self.v()), count(&self.table(0)), count(&self.table(1)), norm, norm]
    }

    /// The reference's view of inputs in the order of [`Case::sizes`].
    fn inputs<'a, R>(&self, parts: &'a [Vec<R>]) -> reference::Inputs<'a, R> {
        let table = |axis: usize| {
            let [heads, rows, _] = self.table(axis);
            Some(axial::Table { heads, rows, data: &parts[3 + axis] })
        };
        let affine = axial::Affine { heads: self.heads(), weight: &parts[5], bias: &parts[6] };
        let affine = self.has_norm().then_some(affine);
        let (q, v) = (&parts[0], &parts[2]);
        reference::Inputs {
            axial: axial::Inputs { q, v, columns: table(0), rows: table(1), affine },
            k: &parts[1],
        }
    }
}

/// The numbers of a problem, by a seed.
struct Data<T> {
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    d_o: Vec<T>,
    tables: [Vec<T>; 2],
    /// Weight, bias, mean, variance.
    norm: [Vec<f32>; 4],
}

impl<T: Element> Data<T> {
    fn of(case: &Case) -> Self {
        let map = |seed, shape: [usize; 5]| random::<T>(seed, count(&shape), 1.0);
        let norm = |i: usize| {
            // Weight and variance are positive.
            let shift = if [0, 3].contains(&i) { 1.5 } else { 0.0 };
            uniform(6 + i as u64, count(&case.norm())).iter().map(|x| (x + shift) as f32).collect()
        };
        Self {
            q: map(1, case.q),
            k: map(2, case.q),
            v: map(3, case.v()),
            d_o: map(4, case.v()),
            tables: [0, 1].map(|axis| random::<T>(10 + axis as u64, count(&case.table(axis)), 0.5)),
            norm: [0, 1, 2, 3].map(norm),
        }
    }

    /// As the reference takes them.
    fn parts(&self) -> Vec<Vec<Bar<T>>> {
        let maps = [&self.q, &self.k, &self.v, &self.tables[0], &self.tables[1]].map(|x| numbers::<T, _>(x));
        let norms = [&self.norm[0], &self.norm[1]].map(|x| numbers::<f32, _>(x));
        maps.into_iter().chain(norms).collect()
    }

    fn given(&self) -> axial::Statistics<Bar<T>> {
        let [_, _, mean, var] = &self.norm;
        axial::Statistics { mean: numbers::<f32, _>(mean), var: numbers::<f32, _>(var) }
    }
}

/// What both passes returned.
pub struct Results<T> {
    o: Vec<T>,
    y: Vec<T>,
    /// Summary, maximum and sum of the content.
    content: [Vec<f32>; 3],
    /// Mean and variance of the batch.
    batch: Option<[Vec<f32>; 2]>,
    /// dq, dk and dv.
    maps: [Vec<T>; 3],
    /// dcolumns and drows.
    tables: [Vec<f32>; 2],
    /// dweight and dbias.
    affine: Option<[Vec<f32>; 2]>,
}

fn label<T: Element>(case: &Case, tensor: &str) -> String {
    format!("{} {:?} {} {tensor}", case.name, case.config, T::DTYPE)
}

/// Forward and backward on a device, not judged.
pub fn results<T: Element>(on: &dyn Device, case: &Case) -> Result<Results<T>, String> {
    compute(on, case, &Data::of(case)).map_err(|e| label::<T>(case, &e.to_string()))
}

fn compute<T: Element>(on: &dyn Device, case: &Case, data: &Data<T>) -> macula::Result<Results<T>> {
    let op = Gsa::new(case.config)?;
    let five = |data: &[T], shape| Tensor::from_vec(data.to_vec(), shape)?.to(on);
    let table = |axis: usize| Tensor::from_vec(data.tables[axis].clone(), case.table(axis))?.to(on);
    let norm = |i: usize| Tensor::from_vec(data.norm[i].clone(), case.norm())?.to(on);
    let (q, k) = (five(&data.q, case.q)?, five(&data.k, case.q)?);
    let (v, d_o) = (five(&data.v, case.v())?, five(&data.d_o, case.v())?);
    let (columns, rows) = (table(0)?, table(1)?);
    let (weight, bias, mean, var) = (norm(0)?, norm(1)?, norm(2)?, norm(3)?);
    let parameters = Parameters {
        columns: &columns,
        rows: &rows,
        affine: case.has_norm().then_some(Affine { weight: &weight, bias: &bias }),
        given: case.is_eval().then_some(Statistics { mean: &mean, var: &var }),
    };
    let output = op.forward(on, &q, &k, &v, parameters)?;
    let saved = &output.saved;
    let grads = op.backward(on, &q, &k, &v, parameters, saved, &d_o)?;
    Ok(Results {
        o: output.o.to_vec()?,
        y: saved.y.to_vec()?,
        content: [saved.content.summary.to_vec()?, saved.content.max.to_vec()?, saved.content.sum.to_vec()?],
        batch: match &saved.batch {
            Some(batch) => Some([batch.mean.to_vec()?, batch.var.to_vec()?]),
            None => None,
        },
        maps: [grads.dq.to_vec()?, grads.dk.to_vec()?, grads.dv.to_vec()?],
        tables: [grads.dcolumns.to_vec()?, grads.drows.to_vec()?],
        affine: match &grads.daffine {
            Some(Affine { weight, bias }) => Some([weight.to_vec()?, bias.to_vec()?]),
            None => None,
        },
    })
}

impl<T: Element> Results<T> {
    pub fn bits(&self) -> Vec<u8> {
        let of_t = [&self.o, &self.y].into_iter().chain(&self.maps);
        let of_f32 = self.content.iter().chain(self.batch.iter().flatten()).chain(&self.tables);
        let of_f32 = of_f32.chain(self.affine.iter().flatten());
        let mut bits: Vec<u8> = Vec::new();
        of_t.for_each(|values| bits.extend_from_slice(bytemuck::cast_slice(values)));
        of_f32.for_each(|values| bits.extend_from_slice(bytemuck::cast_slice(values)));
        bits
    }

    /// Each element against its bar.
    fn judge(&self, case: &Case, data: &Data<T>) -> Result<(), String> {
        let name = |tensor: &str| label::<T>(case, tensor);
        let (parts, given) = (data.parts(), case.has_norm().then_some(data.given()));
        let inputs = case.inputs(&parts);
        let (_, mut saved) = reference::forward(&case.config, case.shape(), inputs, given.as_ref());

        // The rows and the backward pass are judged on what they were given: what this device saved.
        check(&name("y"), &saved.y, &self.y)?;
        saved.y = numbers::<T, _>(&self.y);
        for (i, got) in self.content.iter().enumerate() {
            check(&name(["summary", "max", "sum"][i]), &saved.content[i], got)?;
            saved.content[i] = numbers::<f32, _>(got);
        }
        if let (Some([mean, var]), Some(want)) = (&self.batch, &saved.statistics) {
            check(&name("mean"), &want.mean, mean)?;
            check(&name("var"), &want.var, var)?;
            saved.statistics =
                Some(axial::Statistics { mean: numbers::<f32, _>(mean), var: numbers::<f32, _>(var) });
        }
        if let Some(rows) = inputs.axial.rows {
            let statistics = saved.statistics.as_ref();
            let o = reference::second_layer(&case.config, case.shape(), inputs, &rows, &saved.y, statistics);
            check(&name("o"), &o, &self.o)?;
        }
        let rd_o = numbers::<T, _>(&data.d_o);
        let want = reference::backward(&case.config, case.shape(), inputs, &saved, &rd_o);
        let [dq, dk, dv] = &self.maps;
        for (tensor, want, got) in
            [("dq", &want.axial.dq, dq), ("dk", &want.dk, dk), ("dv", &want.axial.dv, dv)]
        {
            check(&name(tensor), want, got)?;
        }
        let [dcolumns, drows] = &self.tables;
        check(&name("dcolumns"), &want.axial.dcolumns, dcolumns)?;
        check(&name("drows"), &want.axial.drows, drows)?;
        if let Some([weight, bias]) = &self.affine {
            check(&name("dweight"), &want.axial.dweight, weight)?;
            check(&name("dbias"), &want.axial.dbias, bias)?;
        }
        Ok(())
    }
}

/// Forward and backward on a device, each element against its bar. Returns the bits of all results.
pub fn run<T: Element>(on: &dyn Device, case: &Case) -> Result<Vec<u8>, String> {
    let results = results::<T>(on, case)?;
    results.judge(case, &Data::of(case))?;
    Ok(results.bits())
}

/// Every case with every setting.
pub fn run_all<T: Element>(on: &dyn Device) {
    for case in CASES {
        for config in configs() {
            run::<T>(on, &Case { config, ..*case }).unwrap();
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
    for (i, config) in configs().enumerate() {
        let case = Case { config, q: [2, 2, 3, 4, 3], e: 2, reach: [3, 2], per_head: i % 2 == 1, ..PLAIN };
        let sizes = case.sizes();
        let at = uniform(7, sizes.iter().sum());
        let d_o = uniform(8, count(&case.v()));
        let given = axial::Statistics {
            mean: uniform(9, count(&case.norm())),
            var: uniform(10, count(&case.norm())).iter().map(|x| x + 1.5).collect(),
        };
        let given = case.is_eval().then_some(given);
        let cut = |all: &[f64]| -> Vec<Vec<f64>> {
            let mut rest = all.iter().copied();
            sizes.iter().map(|&n| rest.by_ref().take(n).collect()).collect()
        };
        let forward = |parts: &[Vec<f64>]| {
            reference::forward(&case.config, case.shape(), case.inputs(parts), given.as_ref())
        };
        let parts = cut(&at);
        let (_, saved) = forward(&parts);
        let grads = reference::backward(&case.config, case.shape(), case.inputs(&parts), &saved, &d_o);
        let axial = grads.axial;
        let all =
            [axial.dq, grads.dk, axial.dv, axial.dcolumns, axial.drows, axial.dweight, axial.dbias].concat();
        assert_eq!(all.len(), at.len() - if case.has_norm() { 0 } else { sizes[5] + sizes[6] });
        for (i, grad) in all.iter().enumerate() {
            let moved = |by: f64| -> f64 {
                let mut there = at.clone();
                there[i] += by;
                forward(&cut(&there)).0.iter().zip(&d_o).map(|(o, g)| o * g).sum()
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            approx::assert_abs_diff_eq!(slope, *grad, epsilon = 2e-8 * (1.0 + grad.abs()));
        }
    }
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (1..3usize, 1..3usize, 1..9usize, 1..9usize, 1..12usize);
    let config = proptest::sample::select(configs().collect::<Vec<_>>());
    (shape, config, 1..12usize, proptest::array::uniform2(1..10usize), any::<bool>()).prop_map(
        |((b, h, y, x, d), config, e, reach, per_head)| Case {
            name: "random",
            config,
            q: [b, h, y, x, d],
            e,
            reach,
            per_head,
        },
    )
}

/// As [`run`], in memory of any layout: outputs poisoned, between guards; the same bits as contiguous tensors.
fn any_layout<T: Element>(case: &Case, seed: u64) -> Result<(), String> {
    let name = |e: macula::Error| format!("{case:?}: {e}");
    let (cpu, op, data) = (Cpu::new(), Gsa::new(case.config).map_err(name)?, Data::<T>::of(case));
    let five = |shape, seed| layout::<5>(shape, seed, [false; 5]);
    let q = Memory::holding(five(case.q, seed), &data.q);
    let k = Memory::holding(five(case.q, seed + 1), &data.k);
    let v = Memory::holding(five(case.v(), seed + 2), &data.v);
    let d_o = Memory::holding(five(case.v(), seed + 3), &data.d_o);
    let tables = [0, 1].map(|axis| {
        let layout = layout::<3>(case.table(axis), seed + 4 + axis as u64, [false; 3]);
        Memory::holding(layout, &data.tables[axis])
    });
    let norm = [0, 1, 2, 3].map(|i| {
        let layout = layout::<2>(case.norm(), seed + 6 + i as u64, [false; 2]);
        Memory::holding(layout, &data.norm[i])
    });
    let mut o = Memory::<T, 5>::poisoned(five(case.v(), seed + 10));
    let mut y = Memory::<T, 5>::poisoned(five(case.v(), seed + 11));
    let mut batch = [12, 13].map(|i| Memory::poisoned(layout::<2>(case.norm(), seed + i, [false; 2])));
    let [b, h, _, _, d] = case.q;
    let mut summary = vec![f32::NAN; b * h * d * case.e];
    let (mut max, mut sum) = (vec![f32::NAN; b * h * d], vec![f32::NAN; b * h * d]);
    let [mean_out, var_out] = &mut batch;
    let affine = case.has_norm().then(|| Affine { weight: norm[0].view(), bias: norm[1].view() });
    let given = case.is_eval().then(|| Statistics { mean: norm[2].view(), var: norm[3].view() });
    let is_train = case.config.norm == BatchNorm::Train;
    let forward = Forward {
        q: q.view(),
        k: k.view(),
        v: v.view(),
        columns: tables[0].view(),
        rows: tables[1].view(),
        affine,
        given,
        o: o.view_mut(),
        content: Some(content::Saved {
            summary: macula::ViewMut::new(&mut summary, [b, h, d, case.e]).map_err(name)?,
            max: macula::ViewMut::new(&mut max, [b, h, d]).map_err(name)?,
            sum: macula::ViewMut::new(&mut sum, [b, h, d]).map_err(name)?,
        }),
        y: Some(y.view_mut()),
        batch: is_train.then(|| Statistics { mean: mean_out.view_mut(), var: var_out.view_mut() }),
    };
    op.forward_into(&cpu, forward, Workspace::none()).map_err(name)?;
    let mut maps = [case.q, case.q, case.v()].map(|shape| Memory::<T, 5>::poisoned(five(shape, seed + 14)));
    let mut dtables =
        [0, 1].map(|axis| Memory::poisoned(layout::<3>(case.table(axis), seed + 15, [false; 3])));
    let mut dnorm = [16, 17].map(|i| Memory::poisoned(layout::<2>(case.norm(), seed + i, [false; 2])));
    let [dq, dk, dv] = &mut maps;
    let [dcolumns, drows] = &mut dtables;
    let [dweight, dbias] = &mut dnorm;
    let statistics = match is_train {
        true => Some(Statistics { mean: batch[0].view(), var: batch[1].view() }),
        false => given,
    };
    let backward = Backward {
        q: q.view(),
        k: k.view(),
        v: v.view(),
        columns: tables[0].view(),
        rows: tables[1].view(),
        affine,
        statistics,
        content: content::Saved {
            summary: macula::View::new(&summary, [b, h, d, case.e]).map_err(name)?,
            max: macula::View::new(&max, [b, h, d]).map_err(name)?,
            sum: macula::View::new(&sum, [b, h, d]).map_err(name)?,
        },
        y: y.view(),
        d_o: d_o.view(),
        dq: Some(dq.view_mut()),
        dk: Some(dk.view_mut()),
        dv: Some(dv.view_mut()),
        dcolumns: Some(dcolumns.view_mut()),
        drows: Some(drows.view_mut()),
        dweight: case.has_norm().then(|| dweight.view_mut()),
        dbias: case.has_norm().then(|| dbias.view_mut()),
    };
    op.backward_into(&cpu, backward, Workspace::none()).map_err(name)?;
    for (tensor, memory) in [("o", &o), ("y", &y), ("dq", &maps[0]), ("dk", &maps[1]), ("dv", &maps[2])] {
        memory.check_guards(tensor)?;
    }
    dtables.iter().try_for_each(|memory| memory.check_guards("dtable"))?;
    batch.iter().chain(&dnorm).try_for_each(|memory| memory.check_guards("batch norm"))?;

    let host = |data: &[T], shape| Tensor::from_vec(data.to_vec(), shape).map_err(name);
    let host2 = |i: usize| Tensor::from_vec(data.norm[i].clone(), case.norm()).map_err(name);
    let (q, k) = (host(&data.q, case.q)?, host(&data.k, case.q)?);
    let (v, d_o) = (host(&data.v, case.v())?, host(&data.d_o, case.v())?);
    let columns = Tensor::from_vec(data.tables[0].clone(), case.table(0)).map_err(name)?;
    let rows = Tensor::from_vec(data.tables[1].clone(), case.table(1)).map_err(name)?;
    let (weight, bias, mean, var) = (host2(0)?, host2(1)?, host2(2)?, host2(3)?);
    let parameters = Parameters {
        columns: &columns,
        rows: &rows,
        affine: case.has_norm().then_some(Affine { weight: &weight, bias: &bias }),
        given: case.is_eval().then_some(Statistics { mean: &mean, var: &var }),
    };
    let output = op.forward(&cpu, &q, &k, &v, parameters).map_err(name)?;
    let grads = op.backward(&cpu, &q, &k, &v, parameters, &output.saved, &d_o).map_err(name)?;
    let same = |tensor: &str, got: Vec<T>, want: &Tensor<T, 5>| match got == want.to_vec().map_err(name)? {
        true => Ok(()),
        false => Err(format!("{case:?}: {tensor} depends on the layout")),
    };
    same("o", o.values(), &output.o)?;
    same("dq", maps[0].values(), &grads.dq)?;
    same("dk", maps[1].values(), &grads.dk)?;
    same("dv", maps[2].values(), &grads.dv)?;
    let tables = [dtables[0].values(), dtables[1].values()];
    if tables != [grads.dcolumns.to_vec().map_err(name)?, grads.drows.to_vec().map_err(name)?] {
        return Err(format!("{case:?}: gradients of tables depend on the layout"));
    }
    Ok(())
}

proptest! {
    #![proptest_config(tried(40))]

    #[test]
    fn any_shape(case in case()) {
        prop_assert_eq!(run::<f32>(&Cpu::new(), &case).map(drop), Ok(()));
        prop_assert_eq!(run::<bf16>(&Cpu::new(), &case).map(drop), Ok(()));
    }

    #[test]
    fn any_strides(case in case(), seed in any::<u32>()) {
        prop_assert_eq!(any_layout::<f32>(&case, seed.into()), Ok(()));
        prop_assert_eq!(any_layout::<f16>(&case, seed.into()), Ok(()));
    }
}

/// The sum of both branches, rounded once: closer to it than two rounded parts could be.
#[test]
fn parts_are_added_before_they_are_rounded() {
    let case = PLAIN;
    let data = Data::<bf16>::of(&case);
    let op = Gsa::new(case.config).unwrap();
    let wide = |data: &[bf16]| data.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
    let run16 = {
        let five = |data: &[bf16], shape| Tensor::from_vec(data.to_vec(), shape).unwrap();
        let table = |axis: usize| Tensor::from_vec(data.tables[axis].clone(), case.table(axis)).unwrap();
        let (columns, rows) = (table(0), table(1));
        let parameters = Parameters { columns: &columns, rows: &rows, affine: None, given: None };
        let (q, k, v) = (five(&data.q, case.q), five(&data.k, case.q), five(&data.v, case.v()));
        op.forward(&Cpu::new(), &q, &k, &v, parameters).unwrap()
    };
    // In f32 from the y that was stored in 16 bits, by the ops themselves.
    let five = |data: &[bf16], shape| Tensor::from_vec(wide(data), shape).unwrap();
    let (q, k, v) = (five(&data.q, case.q), five(&data.k, case.q), five(&data.v, case.v()));
    let rows = Tensor::from_vec(wide(&data.tables[1]), case.table(1)).unwrap();
    let y = Tensor::from_vec(wide(&run16.saved.y.to_vec().unwrap()), case.v()).unwrap();
    let config = macula::AxialConfig { axes: macula::axial::Axes::Rows, ..case.config.axial() };
    let parameters =
        macula::axial::Parameters { columns: None, rows: Some(&rows), affine: None, given: None };
    let by_position = macula::Axial::new(config).unwrap().forward(&Cpu::new(), &q, &y, &parameters).unwrap();
    let by_content = macula::Content::new(case.config.content()).forward(&Cpu::new(), &q, &k, &v).unwrap();
    let (a, b) = (by_content.o.to_vec().unwrap(), by_position.o.to_vec().unwrap());
    let want: Vec<bf16> = a.iter().zip(&b).map(|(a, b)| bf16::from_f32(a + b)).collect();
    assert_eq!(run16.o.to_vec().unwrap(), want);
}

#[test]
fn same_bits_on_one_thread_and_on_three() {
    let config = GsaConfig { norm: BatchNorm::Train, ..CONFIG };
    let case = Case { config, q: [2, 2, 13, 17, 8], reach: [13, 17], ..PLAIN };
    let data = Data::<f32>::of(&case);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let cpu = Cpu::with_pool(std::sync::Arc::new(pool));
        let five = |data: &[f32], shape| Tensor::from_vec(data.to_vec(), shape).unwrap();
        let table = |axis: usize| Tensor::from_vec(data.tables[axis].clone(), case.table(axis)).unwrap();
        let norm = |i: usize| Tensor::from_vec(data.norm[i].clone(), case.norm()).unwrap();
        let (q, k, v, d_o) = (
            five(&data.q, case.q),
            five(&data.k, case.q),
            five(&data.v, case.v()),
            five(&data.d_o, case.v()),
        );
        let (columns, rows, weight, bias) = (table(0), table(1), norm(0), norm(1));
        let affine = Some(Affine { weight: &weight, bias: &bias });
        let parameters = Parameters { columns: &columns, rows: &rows, affine, given: None };
        let op = Gsa::new(case.config).unwrap();
        let output = op.forward(&cpu, &q, &k, &v, parameters).unwrap();
        let grads = op.backward(&cpu, &q, &k, &v, parameters, &output.saved, &d_o).unwrap();
        let maps = [output.o, grads.dq, grads.dk, grads.dv].map(|t| t.to_vec().unwrap());
        (maps, [grads.dcolumns, grads.drows].map(|t| t.to_vec().unwrap()))
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn empty_maps_are_fine_and_parameter_gradients_are_zero() {
    let op = Gsa::new(CONFIG).unwrap();
    for shape in [[0, 2, 3, 3, 4], [1, 0, 3, 3, 4], [1, 2, 0, 3, 4], [1, 2, 3, 0, 4]] {
        let empty = Tensor::from_vec(Vec::<f32>::new(), shape).unwrap();
        let table = Tensor::from_vec(vec![1.0f32; 12], [1, 3, 4]).unwrap();
        let parameters = Parameters { columns: &table, rows: &table, affine: None, given: None };
        let output = op.forward(&Cpu::new(), &empty, &empty, &empty, parameters).unwrap();
        let saved = &output.saved;
        let grads = op.backward(&Cpu::new(), &empty, &empty, &empty, parameters, saved, &empty).unwrap();
        assert_eq!(grads.dcolumns.to_vec().unwrap(), vec![0.0; 12]);
        assert_eq!(grads.drows.to_vec().unwrap(), vec![0.0; 12]);
    }
}

#[test]
fn refusals_say_what_was_wanted_and_what_came() {
    assert_eq!(
        Gsa::new(GsaConfig { epsilon: -1.0, ..CONFIG }).unwrap_err().to_string(),
        "gsa: `epsilon` must be finite and not negative, got -1"
    );
    let tensor = |shape: [usize; 5]| Tensor::from_vec(vec![0.0f32; count(&shape)], shape).unwrap();
    let table = |rows: usize| Tensor::from_vec(vec![0.0f32; rows * 4], [1, rows, 4]).unwrap();
    let ones = Tensor::from_vec(vec![1.0f32; 4], [1, 4]).unwrap();
    let run = |config, q, k, rows, affine| {
        let (columns, rows) = (table(3), table(rows));
        let parameters = Parameters { columns: &columns, rows: &rows, affine, given: None };
        let op = Gsa::new(config).unwrap();
        let v = tensor([1, 2, 3, 3, 4]);
        op.forward(&Cpu::new(), &tensor(q), &tensor(k), &v, parameters).err().unwrap().to_string()
    };
    let plain = [1, 2, 3, 3, 4];
    assert_eq!(
        run(CONFIG, plain, [1, 2, 3, 2, 4], 3, None),
        "gsa: `k` must be of shape [1, 2, 3, 3, 4], got [1, 2, 3, 2, 4]"
    );
    assert_eq!(run(CONFIG, plain, plain, 4, None), "gsa: `rows` must be of shape [1, 5, 4], got [1, 4, 4]");
    let train = GsaConfig { norm: BatchNorm::Train, ..CONFIG };
    assert_eq!(
        run(train, plain, plain, 3, None),
        "gsa: `affine` must be given with these settings, got nothing"
    );
    let affine = Some(Affine { weight: &ones, bias: &ones });
    assert_eq!(
        run(CONFIG, plain, plain, 3, affine),
        "gsa: `affine` must be absent with these settings, got a tensor"
    );
    let eval = GsaConfig { norm: BatchNorm::Eval, ..CONFIG };
    assert_eq!(
        run(eval, plain, plain, 3, affine),
        "gsa: `given` must be given with these settings, got nothing"
    );
}

fn problem(case: &Case) -> macula::gsa::ForwardProblem {
    macula::gsa::ForwardProblem {
        dtype: macula::DType::F16,
        q: case.q.into(),
        k: case.q.into(),
        v: case.v().into(),
        columns: case.table(0).into(),
        rows: case.table(1).into(),
        affine: None,
        given: None,
        o: case.v().into(),
        saves_content: false,
        y: None,
        batch: None,
    }
}

#[test]
fn plans_refuse_shapes_that_do_not_fit_together() {
    let op = Gsa::new(CONFIG).unwrap();
    let wrong = macula::gsa::ForwardProblem { k: Layout::contiguous([1; 5]), ..problem(&PLAIN) };
    assert!(matches!(op.plan_fwd(&wrong, &Gpu::SM90), Err(Error::Input { arg: "k", .. })));
}

/// Four tensors and two tables are what must be moved; the work is that of both branches.
#[test]
fn cost_reads_what_both_branches_share_once() {
    let op = Gsa::new(CONFIG).unwrap();
    let [b, h, y, x, d] = PLAIN.q;
    let cost = op.forward_cost(&problem(&PLAIN));
    let tables = 2 * 13 * d;
    assert_eq!(cost.min_bytes, 2 * (b * h * y * x * (2 * d + 2 * PLAIN.e) + tables) as u64);
    let p = problem(&PLAIN);
    let of_content = macula::Content::new(CONFIG.content()).forward_cost(&content::ForwardProblem {
        dtype: p.dtype,
        q: p.q,
        k: p.k,
        v: p.v,
        o: p.o,
        saves: false,
    });
    assert!(cost.flops >= of_content.flops);
    assert_eq!(cost.exps, of_content.exps);
}
