//! The op `value_mixture`: every case on every device, each element within its own error bar.

use crate::common::memory::{Memory, layout};
use crate::common::{check, numbers, random, tried, uniform};
use half::{bf16, f16};
use macula::reference::{Bar, value_mixture as reference};
use macula::value_mixture::{Backward, BackwardProblem, Forward, ForwardProblem, Tables};
use macula::{Cpu, DType, Device, Element, Gpu, Layout, Tensor, ValueMixture, View, ViewMut, Workspace};
use proptest::prelude::*;
use std::sync::Arc;

/// One problem. The name says what is odd about it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    /// `[m, b, h, y, x, e]`.
    pub vs: [usize; 6],
    /// Rows and columns of the tables.
    pub sites: [usize; 2],
    pub r: usize,
    /// The tables are uniform up to this.
    pub size: f64,
}

const PLAIN: Case = Case { name: "plain", vs: [4, 2, 2, 8, 12, 8], sites: [4, 4], r: 8, size: 1.0 };

/// Every case is run forward and backward, in every dtype.
pub const CASES: &[Case] = &[
    PLAIN,
    Case { name: "one_token", vs: [3, 1, 1, 1, 1, 4], sites: [1, 1], ..PLAIN },
    Case { name: "one_mixture", vs: [1, 1, 2, 5, 4, 8], ..PLAIN },
    Case { name: "quartet_plus_one", vs: [5, 1, 2, 4, 5, 8], ..PLAIN },
    Case { name: "more_mixtures_than_lanes", vs: [35, 1, 1, 3, 3, 4], sites: [2, 3], ..PLAIN },
    Case { name: "odd_map", vs: [4, 2, 1, 7, 9, 8], ..PLAIN },
    Case { name: "sites_are_the_map", vs: [3, 2, 2, 5, 6, 8], sites: [5, 6], ..PLAIN },
    Case { name: "sites_past_the_map", vs: [2, 1, 2, 3, 4, 8], sites: [5, 7], ..PLAIN },
    Case { name: "one_site", vs: [4, 1, 2, 5, 5, 16], sites: [1, 1], ..PLAIN },
    Case { name: "one_channel", vs: [4, 1, 3, 5, 6, 1], ..PLAIN },
    Case { name: "odd_channels", vs: [4, 1, 3, 5, 6, 7], ..PLAIN },
    Case { name: "most_channels", vs: [4, 1, 2, 4, 5, 128], ..PLAIN },
    Case { name: "tables_of_one_number", vs: [4, 1, 1, 5, 5, 8], r: 1, ..PLAIN },
    Case { name: "longer_tables_than_a_warp", vs: [4, 1, 1, 5, 5, 8], r: 40, ..PLAIN },
    Case { name: "extreme_scores", vs: [4, 1, 1, 6, 5, 8], size: 60.0, ..PLAIN },
    Case { name: "tiles_of_sites", vs: [2, 1, 1, 1, 300, 8], sites: [1, 300], r: 2, size: 1.0 },
    Case { name: "pixels_split_over_blocks", vs: [2, 2, 1, 40, 40, 8], sites: [2, 2], r: 4, size: 1.0 },
];

/// Inputs.
pub struct Data<T> {
    pub vs: Vec<T>,
    /// emb_row, emb_col, nu.
    pub tables: [Vec<f32>; 3],
    pub d_o: Vec<T>,
}

/// What a run returned.
#[derive(PartialEq)]
pub struct Results<T> {
    pub o: Vec<T>,
    pub p: Vec<f32>,
    pub dvs: Vec<T>,
    /// Of emb_row, emb_col, nu.
    pub dtables: [Vec<f32>; 3],
}

/// How the tensors of a call lie in memory; gradients lie as what they are gradients of.
#[derive(Clone, Copy, Debug)]
pub struct Lies {
    pub vs: Layout<6>,
    pub tables: [Layout<2>; 3],
    pub o: Layout<5>,
}

/// One value per table.
pub fn tables<V>([emb_row, emb_col, nu]: [V; 3]) -> Tables<V> {
    Tables { emb_row, emb_col, nu }
}

impl Case {
    pub fn o(&self) -> [usize; 5] {
        let [_, o @ ..] = self.vs;
        o
    }

    pub fn p(&self) -> [usize; 3] {
        [self.vs[0], self.sites[0], self.sites[1]]
    }

    pub fn tables(&self) -> [[usize; 2]; 3] {
        [self.sites[0], self.sites[1], self.vs[0]].map(|rows| [rows, self.r])
    }

    fn shape(&self) -> reference::Shape {
        reference::Shape { vs: self.vs, sites: self.sites, r: self.r }
    }

    pub fn data<T: Element>(&self) -> Data<T> {
        let [row, column, nu] = self.tables().map(|shape| shape.iter().product());
        Data {
            vs: random(1, self.vs.iter().product(), 1.0),
            tables: [(2, row), (3, column), (4, nu)].map(|(seed, count)| random(seed, count, self.size)),
            d_o: random(5, self.o().iter().product(), 1.0),
        }
    }

    /// Contiguous, between guards.
    pub fn contiguous(&self) -> Lies {
        self.any_layout(0)
    }

    /// In any order, by a seed.
    fn any_layout(&self, seed: u64) -> Lies {
        let of = |i: u64| seed.wrapping_mul(7 + i);
        let [row, column, nu] = self.tables();
        let table = |shape, i| layout(shape, of(i), [false; 2]);
        Lies {
            vs: layout(self.vs, of(0), [false; 6]),
            tables: [table(row, 1), table(column, 2), table(nu, 3)],
            o: layout(self.o(), of(4), [false; 5]),
        }
    }

    /// The first complaint about a result.
    pub fn judge<T: Element>(&self, got: &Results<T>) -> Result<(), String> {
        let data = self.data::<T>();
        let name = |tensor: &str| format!("{} {} {tensor}", self.name, T::DTYPE);
        let (vs, d_o) = (numbers::<T, Bar<T>>(&data.vs), numbers(&data.d_o));
        let [emb_row, emb_col, nu] = data.tables.each_ref().map(|table| numbers::<f32, Bar<T>>(table));
        let tables = reference::Tables { emb_row: &emb_row, emb_col: &emb_col, nu: &nu };
        let p = reference::weights(self.shape(), tables);
        check(&name("p"), &p, &got.p)?;
        check(&name("o"), &reference::forward(self.shape(), &vs, &p), &got.o)?;
        let grads = reference::backward(self.shape(), &vs, tables, &p, &d_o);
        check(&name("dvs"), &grads.dvs, &got.dvs)?;
        check(&name("demb_row"), &grads.demb_row, &got.dtables[0])?;
        check(&name("demb_col"), &grads.demb_col, &got.dtables[1])?;
        check(&name("dnu"), &grads.dnu, &got.dtables[2])
    }

    /// On tensors of its own, on any device.
    pub fn run<T: Element>(&self, on: &dyn Device) -> macula::Result<Results<T>> {
        let data = self.data::<T>();
        let vs = Tensor::from_vec(data.vs, self.vs)?.to(on)?;
        let d_o = Tensor::from_vec(data.d_o, self.o())?.to(on)?;
        let mut made = Vec::new();
        for (table, shape) in data.tables.into_iter().zip(self.tables()) {
            made.push(Tensor::from_vec(table, shape)?.to(on)?);
        }
        let of = Tables { emb_row: &made[0], emb_col: &made[1], nu: &made[2] };
        let op = ValueMixture::new();
        let out = op.forward(on, &vs, of)?;
        let grads = op.backward(on, &vs, of, &d_o)?;
        let Tables { emb_row, emb_col, nu } = grads.dtables;
        let dtables = [emb_row.to_vec()?, emb_col.to_vec()?, nu.to_vec()?];
        Ok(Results { o: out.o.to_vec()?, p: out.p.to_vec()?, dvs: grads.dvs.to_vec()?, dtables })
    }

    /// On host memory that lies so: outputs poisoned, between guards.
    fn run_host<T: Element>(&self, on: &dyn Device, lies: &Lies) -> Result<Results<T>, String> {
        let explain = |e: macula::Error| format!("{self:?}: {e}");
        let data = self.data::<T>();
        let (vs, d_o) = (Memory::holding(lies.vs, &data.vs), Memory::holding(lies.o, &data.d_o));
        let given = [0, 1, 2].map(|i| Memory::holding(lies.tables[i], &data.tables[i]));
        let mut o = Memory::<T, 5>::poisoned(lies.o);
        let mut p = Memory::<f32, 3>::poisoned(layout(self.p(), 0, [false; 3]));
        let args = Forward {
            vs: vs.view(),
            tables: tables(given.each_ref().map(Memory::view)),
            o: o.view_mut(),
            p: Some(p.view_mut()),
        };
        ValueMixture::new().forward_into(on, args, Workspace::none()).map_err(explain)?;
        let mut dvs = Memory::<T, 6>::poisoned(lies.vs);
        let mut dtables = lies.tables.map(Memory::<f32, 2>::poisoned);
        let args = Backward {
            vs: vs.view(),
            tables: tables(given.each_ref().map(Memory::view)),
            d_o: d_o.view(),
            dvs: Some(dvs.view_mut()),
            dtables: tables(dtables.each_mut().map(|grad| Some(grad.view_mut()))),
        };
        ValueMixture::new().backward_into(on, args, Workspace::none()).map_err(explain)?;
        o.check_guards("o")?;
        p.check_guards("p")?;
        dvs.check_guards("dvs")?;
        dtables.iter().try_for_each(|grad| grad.check_guards("a gradient of a table"))?;
        let dtables = dtables.each_ref().map(Memory::values);
        Ok(Results { o: o.values(), p: p.values(), dvs: dvs.values(), dtables })
    }
}

fn cpu<T: Element>() {
    for case in CASES {
        let got = case.run::<T>(&Cpu::new()).unwrap();
        case.judge(&got).unwrap();
    }
}

#[test]
fn cpu_f32() {
    cpu::<f32>();
}

#[test]
fn cpu_f16() {
    cpu::<f16>();
}

#[test]
fn cpu_bf16() {
    cpu::<bf16>();
}

fn case() -> impl Strategy<Value = Case> {
    let maps = (1..7usize, 1..3usize, 1..4usize, 1..8usize, 1..8usize, 1..20usize);
    let tables = (proptest::array::uniform2(1..9usize), 1..5usize, 0.0..3.0f64);
    (maps, tables).prop_map(|((m, b, h, y, x, e), (sites, r, size))| Case {
        name: "random",
        vs: [m, b, h, y, x, e],
        sites,
        r,
        size,
    })
}

fn any_layout<T: Element>(case: &Case, seed: u32) -> Result<(), String> {
    let got = case.run_host::<T>(&Cpu::new(), &case.any_layout(seed.into()))?;
    case.judge(&got)
}

proptest! {
    #![proptest_config(tried(60))]

    /// Any shape, any strides, poisoned outputs between guards.
    #[test]
    fn any_layout_f32(case in case(), seed in any::<u32>()) {
        prop_assert_eq!(any_layout::<f32>(&case, seed), Ok(()));
    }

    #[test]
    fn any_layout_f16(case in case(), seed in any::<u32>()) {
        prop_assert_eq!(any_layout::<f16>(&case, seed), Ok(()));
    }

    #[test]
    fn any_layout_bf16(case in case(), seed in any::<u32>()) {
        prop_assert_eq!(any_layout::<bf16>(&case, seed), Ok(()));
    }
}

/// d(Σ d_o·o) by every input, by central differences in f64.
#[test]
fn reference_gradients_are_those_of_the_forward_pass() {
    const STEP: f64 = 1e-5;
    for (vs, sites) in [([3, 2, 1, 5, 4, 2], [2, 3]), ([2, 1, 2, 2, 3, 3], [3, 3])] {
        let case = Case { vs, sites, r: 3, ..PLAIN };
        let [row, column, nu] = case.tables().map(|shape| shape.iter().product::<usize>());
        let sizes = [vs.iter().product(), row, column, nu];
        let at = uniform(7, sizes.iter().sum());
        let d_o = uniform(8, case.o().iter().product());
        let cut = |all: &[f64]| {
            let mut rest = all.iter().copied();
            sizes.map(|n| rest.by_ref().take(n).collect::<Vec<f64>>())
        };
        let loss = |all: &[f64]| -> f64 {
            let [vs, emb_row, emb_col, nu] = cut(all);
            let tables = reference::Tables { emb_row: &emb_row, emb_col: &emb_col, nu: &nu };
            let p = reference::weights(case.shape(), tables);
            reference::forward(case.shape(), &vs, &p).iter().zip(&d_o).map(|(o, g)| o * g).sum()
        };
        let [vs, emb_row, emb_col, nu] = cut(&at);
        let tables = reference::Tables { emb_row: &emb_row, emb_col: &emb_col, nu: &nu };
        let p = reference::weights(case.shape(), tables);
        let grads = reference::backward(case.shape(), &vs, tables, &p, &d_o);
        let all = [grads.dvs, grads.demb_row, grads.demb_col, grads.dnu].concat();
        assert_eq!(all.len(), at.len());
        for (i, grad) in all.iter().enumerate() {
            let moved = |by: f64| {
                let mut there = at.clone();
                there[i] += by;
                loss(&there)
            };
            let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            approx::assert_abs_diff_eq!(slope, *grad, epsilon = 2e-8 * (1.0 + grad.abs()));
        }
    }
}

/// Tables that are written out over the whole map give the same bits as small ones that repeat.
#[test]
fn small_tables_repeat() {
    let case = Case { vs: [3, 2, 2, 7, 10, 5], sites: [2, 4], ..PLAIN };
    let (cpu, op, data) = (Cpu::new(), ValueMixture::new(), case.data::<f32>());
    let vs = Tensor::from_vec(data.vs, case.vs).unwrap();
    let d_o = Tensor::from_vec(data.d_o, case.o()).unwrap();
    let run = |sizes: [usize; 2]| {
        let over = |table: &[f32], rows: usize| {
            let whole = table.iter().copied().cycle().take(rows * case.r).collect();
            Tensor::from_vec(whole, [rows, case.r]).unwrap()
        };
        let [emb_row, emb_col, nu] = &data.tables;
        let made = [over(emb_row, sizes[0]), over(emb_col, sizes[1]), over(nu, case.vs[0])];
        let of = tables(made.each_ref());
        let o = op.forward(&cpu, &vs, of).unwrap().o;
        let dvs = op.backward(&cpu, &vs, of, &d_o).unwrap().dvs;
        [o.to_vec().unwrap(), dvs.to_vec().unwrap()]
    };
    assert_eq!(run([2, 4]), run([7, 10]));
}

/// Where every mixture has the same score, the output is the mean of the maps; where one has by far the highest, that map.
#[test]
fn weights_at_their_extremes() {
    let shape @ [m, ..] = [4, 1, 2, 3, 5, 4];
    let vs = Tensor::from_vec(random::<f32>(1, shape.iter().product(), 1.0), shape).unwrap();
    let ones = |rows| Tensor::from_vec(vec![1.0f32; rows], [rows, 1]).unwrap();
    let (row, column) = (ones(2), ones(3));
    let run = |nu: Vec<f32>| {
        let nu = Tensor::from_vec(nu, [m, 1]).unwrap();
        let of = Tables { emb_row: &row, emb_col: &column, nu: &nu };
        ValueMixture::new().forward(&Cpu::new(), &vs, of).unwrap().o.to_vec().unwrap()
    };
    let values = vs.to_vec().unwrap();
    let maps: Vec<&[f32]> = values.chunks(values.len() / m).collect();
    for (i, mean) in run(vec![0.5; m]).iter().enumerate() {
        let want = maps.iter().map(|map| map[i]).sum::<f32>() / m as f32;
        approx::assert_abs_diff_eq!(*mean, want, epsilon = 1e-6);
    }
    assert_eq!(run(vec![-3e37, 0.0, 1e38, 9e37]), maps[2]);
}

#[test]
fn threads_do_not_change_a_bit() {
    let case = Case { vs: [4, 2, 3, 13, 10, 6], ..PLAIN };
    for seed in [0, 3, 4] {
        let lies = case.any_layout(seed);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            case.run_host::<f32>(&Cpu::with_pool(Arc::new(pool)), &lies).unwrap()
        };
        let one = run(1);
        assert!(one == run(3) && one == run(5), "layout {seed}");
    }
}

fn lend(to: &mut Vec<f32>, shape: [usize; 2], wanted: bool) -> Option<ViewMut<'_, f32, 2>> {
    wanted.then(|| ViewMut::new(to, shape).unwrap())
}

#[test]
fn each_gradient_alone_is_the_same() {
    let case = Case { vs: [5, 2, 2, 6, 7, 5], sites: [3, 4], ..PLAIN };
    let data = case.data::<f32>();
    let run = |wants: [bool; 4]| {
        let mut dvs = vec![f32::NAN; data.vs.len()];
        let mut grads = data.tables.each_ref().map(|table| vec![f32::NAN; table.len()]);
        let [row, column, nu] = &mut grads;
        let shapes = case.tables();
        let view = |i: usize| View::new(&data.tables[i], shapes[i]).unwrap();
        let args = Backward {
            vs: View::new(&data.vs, case.vs).unwrap(),
            tables: tables([0, 1, 2].map(view)),
            d_o: View::new(&data.d_o, case.o()).unwrap(),
            dvs: wants[0].then(|| ViewMut::new(&mut dvs, case.vs).unwrap()),
            dtables: tables([
                lend(row, shapes[0], wants[1]),
                lend(column, shapes[1], wants[2]),
                lend(nu, shapes[2], wants[3]),
            ]),
        };
        ValueMixture::new().backward_into(&Cpu::new(), args, Workspace::none()).unwrap();
        let [row, column, nu] = grads;
        [dvs, row, column, nu]
    };
    let whole = run([true; 4]);
    for k in 0..4 {
        let got = run([0, 1, 2, 3].map(|i| i == k));
        for i in 0..4 {
            assert!(if i == k { got[i] == whole[i] } else { got[i].iter().all(|x| x.is_nan()) });
        }
    }
    assert!(run([false; 4]).concat().iter().all(|x| x.is_nan()));
}

#[test]
fn empty_maps() {
    for axis in 1..5 {
        let mut case = PLAIN;
        case.vs[axis] = 0;
        let got = case.run::<f32>(&Cpu::new()).unwrap();
        assert!(got.o.is_empty() && got.dvs.is_empty());
        assert!(got.p.iter().all(|p| (0.0..=1.0).contains(p)) && got.p.iter().any(|p| *p > 0.0));
        assert!(got.dtables.concat().iter().all(|x| *x == 0.0));
    }
}

#[test]
fn refusals_say_what_was_wanted_and_what_came() {
    let run = |vs: [usize; 6], shapes: [[usize; 2]; 3]| {
        let zeros = |shape: [usize; 2]| Tensor::<f32, 2>::zeros(&Cpu::new(), shape).unwrap();
        let made = shapes.map(zeros);
        let vs = Tensor::<f32, 6>::zeros(&Cpu::new(), vs).unwrap();
        let out = ValueMixture::new().forward(&Cpu::new(), &vs, tables(made.each_ref()));
        out.err().unwrap().to_string()
    };
    let plain = [4, 1, 1, 3, 3, 2];
    assert_eq!(
        run(plain, [[4, 8], [4, 7], [4, 8]]),
        "value_mixture: `emb_col` must be of shape [4, 8], got [4, 7]"
    );
    assert_eq!(
        run(plain, [[4, 8], [4, 8], [3, 8]]),
        "value_mixture: `nu` must be of shape [4, 8], got [3, 8]"
    );
    assert_eq!(
        run(plain, [[0, 8], [4, 8], [4, 8]]),
        "value_mixture: `emb_row` must be of at least one row, got 0"
    );
    assert_eq!(
        run([4, 1, 1, 3, 3, 200], [[4, 8], [4, 8], [4, 8]]),
        "value_mixture: `vs` must be of 1 to 128 channels per head, got 200"
    );
    let none = [0, 1, 1, 3, 3, 2];
    let text = run(none, [[4, 8], [4, 8], [0, 8]]);
    assert_eq!(text, "value_mixture: `vs` must be of at least one mixture, got 0");
}

/// A workspace is small beside the maps, tables that repeat provided, and one large image fills a GPU.
#[test]
fn plans_of_large_maps() {
    let op = ValueMixture::new();
    for dtype in DType::ALL {
        for vs in [[4, 1, 1, 1024, 1024, 16], [4, 64, 1, 112, 112, 64], [4, 1, 8, 512, 512, 8]] {
            let inputs = vs.iter().product::<usize>() / 4 * 5 * dtype.bytes();
            let problem = BackwardProblem::contiguous(vs, [4, 4], 16, dtype);
            let plan = op.plan_bwd(&problem, &Gpu::SM90).unwrap();
            assert!(plan.launches[1].grid >= 1024, "{:?}", plan.launches);
            assert!(plan.workspace_bytes <= inputs / 20, "{} of {inputs}", plan.workspace_bytes);
            let problem = ForwardProblem::contiguous(vs, [4, 4], 16, dtype);
            let plan = op.plan_fwd(&problem, &Gpu::SM90).unwrap();
            assert_eq!(plan.workspace_bytes, 0);
        }
    }
}

/// Too many pixels or numbers for 32 bits are refused, and what a kernel cannot walk over is.
#[test]
fn plans_refuse_what_kernels_cannot_count() {
    let op = ValueMixture::new();
    let text = |vs: [usize; 6], sites: [usize; 2]| {
        let problem = ForwardProblem::contiguous(vs, sites, 4, DType::F16);
        op.plan_fwd(&problem, &Gpu::SM90).unwrap_err().to_string()
    };
    assert!(text([1, 1 << 20, 1, 32, 32, 1], [1, 1]).contains("pixels"));
    assert!(text([1, 1, 1, 2, 2, 1], [1 << 15, 1 << 15]).contains("tables"));
    assert!(text([1 << 29, 1, 1, 2, 2, 1], [1, 1]).contains("tables"));
    let mut problem = ForwardProblem::contiguous([2, 1, 1, 4, 4, 8], [4, 4], 4, DType::F16);
    problem.vs.strides[5] = 2;
    let text = op.plan_fwd(&problem, &Gpu::SM90).unwrap_err().to_string();
    assert!(text.contains("`vs` with 2 elements from channel to channel"), "{text}");
}
