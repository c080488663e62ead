//! The op `content`: every case on every device, each element within its own error bar.

mod any;

use crate::common::{check, numbers, random, uniform};
use half::{bf16, f16};
use macula::content::{Backward, ContentConfig, FeatureMap, Form, Forward, Saved};
use macula::reference::Bar;
use macula::reference::content as reference;
use macula::{Content, Cpu, Device, Element, Layout, Tensor, View, ViewMut, Workspace};

/// One problem. The name says what is odd about it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    /// `[b, h, y, x, d]`.
    pub q: [usize; 5],
    /// Map of the keys.
    pub keys: [usize; 2],
    pub e: usize,
    /// Queries and keys are uniform up to this.
    pub size: f64,
}

const PLAIN: Case = Case { name: "plain", q: [2, 3, 5, 7, 8], keys: [5, 7], e: 8, size: 1.0 };

/// Every case is run forward and backward, in every dtype and form.
pub const CASES: &[Case] = &[
    PLAIN,
    Case { name: "one_token", q: [1, 1, 1, 1, 4], keys: [1, 1], e: 4, ..PLAIN },
    Case { name: "one_channel", q: [1, 2, 4, 5, 1], keys: [4, 5], e: 1, ..PLAIN },
    Case { name: "odd_channels", q: [1, 2, 5, 5, 13], keys: [5, 5], e: 7, ..PLAIN },
    Case { name: "most_channels", q: [1, 1, 5, 6, 128], keys: [5, 6], e: 128, ..PLAIN },
    Case { name: "d_is_not_e", q: [1, 2, 6, 6, 24], keys: [6, 6], e: 72, ..PLAIN },
    Case { name: "other_keys", q: [2, 1, 4, 5, 16], keys: [3, 3], e: 16, ..PLAIN },
    Case { name: "one_key", q: [1, 2, 4, 5, 16], keys: [1, 1], e: 8, ..PLAIN },
    Case { name: "tile_minus_one", q: [1, 1, 3, 21, 16], keys: [3, 21], e: 16, ..PLAIN },
    Case { name: "tile", q: [1, 1, 8, 8, 16], keys: [8, 8], e: 16, ..PLAIN },
    Case { name: "tile_plus_one", q: [1, 1, 5, 13, 16], keys: [5, 13], e: 16, ..PLAIN },
    Case { name: "chunk_plus_one", q: [1, 1, 25, 41, 8], keys: [25, 41], e: 8, ..PLAIN },
    Case { name: "large_keys", q: [1, 1, 6, 7, 8], size: 40.0, ..PLAIN },
];

impl Case {
    fn k(&self) -> [usize; 5] {
        let [b, h, _, _, d] = self.q;
        [b, h, self.keys[0], self.keys[1], d]
    }

    fn v(&self) -> [usize; 5] {
        let [b, h, y, x, _] = self.k();
        [b, h, y, x, self.e]
    }

    fn o(&self) -> [usize; 5] {
        let [b, h, y, x, _] = self.q;
        [b, h, y, x, self.e]
    }

    fn shape(&self) -> reference::Shape {
        let [b, h, y, x, d] = self.q;
        reference::Shape { bh: b * h, n: y * x, m: self.keys[0] * self.keys[1], d, e: self.e }
    }
}

fn count(shape: [usize; 5]) -> usize {
    shape.iter().product()
}

/// What a run returned, for comparing bits.
pub type Bits = Vec<Vec<u8>>;

/// What both passes returned, and what they were given.
pub struct Results<T> {
    /// q, k, v and dO.
    inputs: [Vec<T>; 4],
    o: Vec<T>,
    /// Summary, maximum and sum.
    saved: [Vec<f32>; 3],
    /// dq, dk and dv.
    grads: [Vec<T>; 3],
}

/// Forward and backward on a device, not judged.
pub fn results<T: Element>(on: &dyn Device, case: &Case, form: Form) -> Result<Results<T>, String> {
    compute(on, case, form).map_err(|e| format!("{} {form:?}: {e}", case.name))
}

fn compute<T: Element>(on: &dyn Device, case: &Case, form: Form) -> macula::Result<Results<T>> {
    let op = Content::new(ContentConfig { form });
    let q = random::<T>(1, count(case.q), case.size);
    let k = random::<T>(2, count(case.k()), case.size);
    let v = random::<T>(3, count(case.v()), 1.0);
    let g = random::<T>(4, count(case.o()), 1.0);
    let put = |data: &[T], shape| Tensor::from_vec(data.to_vec(), shape)?.to(on);
    let (tq, tk, tv, tg) = (put(&q, case.q)?, put(&k, case.k())?, put(&v, case.v())?, put(&g, case.o())?);
    let output = op.forward(on, &tq, &tk, &tv)?;
    let saved = &output.saved;
    let grads = op.backward(on, &tq, &tk, &tv, saved, &tg)?;
    Ok(Results {
        inputs: [q, k, v, g],
        o: output.o.to_vec()?,
        saved: [saved.summary.to_vec()?, saved.max.to_vec()?, saved.sum.to_vec()?],
        grads: [grads.dq.to_vec()?, grads.dk.to_vec()?, grads.dv.to_vec()?],
    })
}

impl<T: Element> Results<T> {
    pub fn bits(&self) -> Bits {
        let bytes = |values: &Vec<T>| bytemuck::cast_slice(values).to_vec();
        let mut bits = vec![bytes(&self.o)];
        bits.extend(self.saved.iter().map(|values| bytemuck::cast_slice(values).to_vec()));
        bits.extend(self.grads.iter().map(bytes));
        bits
    }

    /// Each element against its bar.
    fn judge(&self, case: &Case, form: Form) -> Result<(), String> {
        let config = ContentConfig { form };
        let name = |tensor: &str| format!("{} {form:?} {} {tensor}", case.name, T::DTYPE);
        let [rq, rk, rv, rg] = self.inputs.each_ref().map(|x| numbers::<T, Bar<T>>(x));
        let truth = reference::forward(&config, case.shape(), &rq, &rk, &rv);
        let [summary, max, sum] = &self.saved;
        check(&name("max"), &truth.max, max)?;
        check(&name("sum"), &truth.sum, sum)?;
        check(&name("summary"), &truth.summary, summary)?;
        check(&name("o"), &truth.o, &self.o)?;

        // The backward pass is judged on what it was given: the summary of this device.
        let [rsummary, rmax, rsum] = [summary, max, sum].map(|x| numbers::<f32, Bar<T>>(x));
        let truth =
            reference::backward(&config, case.shape(), [&rq, &rk, &rv], [&rsummary, &rmax, &rsum], &rg);
        let [dq, dk, dv] = &self.grads;
        for (tensor, want, got) in [("dq", &truth.dq, dq), ("dk", &truth.dk, dk), ("dv", &truth.dv, dv)] {
            check(&name(tensor), want, got)?;
        }
        Ok(())
    }
}

/// Forward and backward on a device, each element against its bar.
pub fn run<T: Element>(on: &dyn Device, case: &Case, form: Form) -> Result<Bits, String> {
    let results = results::<T>(on, case, form)?;
    results.judge(case, form)?;
    Ok(results.bits())
}

/// Every case in every form.
pub fn run_all<T: Element>(on: &dyn Device) {
    for case in CASES {
        for form in Form::ALL {
            run::<T>(on, case, form).unwrap();
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
    let case = Case { q: [1, 2, 2, 3, 4], keys: [3, 3], e: 3, ..PLAIN };
    for form in Form::ALL {
        let config = ContentConfig { form };
        let sizes = [count(case.q), count(case.k()), count(case.v())];
        let total: usize = sizes.iter().sum();
        let at = uniform(7, total);
        let d_o = uniform(8, count(case.o()));
        let split = |all: &[f64]| -> [Vec<f64>; 3] {
            let (q, rest) = all.split_at(sizes[0]);
            let (k, v) = rest.split_at(sizes[1]);
            [q.to_vec(), k.to_vec(), v.to_vec()]
        };
        let forward = |all: &[f64]| {
            let [q, k, v] = split(all);
            reference::forward(&config, case.shape(), &q, &k, &v)
        };
        let loss = |all: &[f64]| -> f64 { forward(all).o.iter().zip(&d_o).map(|(o, g)| o * g).sum() };
        let out = forward(&at);
        let [q, k, v] = split(&at);
        let saved = [&out.summary[..], &out.max, &out.sum];
        let grads = reference::backward(&config, case.shape(), [&q, &k, &v], saved, &d_o);
        for (i, grad) in [grads.dq, grads.dk, grads.dv].concat().iter().enumerate() {
            if form == Form::Linear(FeatureMap::Relu) && at[i].abs() < 10.0 * STEP {
                continue; // the corner of relu has no slope
            }
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

/// Equal values come out as they went in: the weights of a query sum to 1 where both sides are normalised.
#[test]
fn constants_are_kept() {
    for form in [Form::Softmax { norm_queries: true }, Form::Linear(FeatureMap::EluPlusOne)] {
        let tensor = |seed| Tensor::from_vec(random::<f32>(seed, 9 * 4, 2.0), [1, 1, 3, 3, 4]).unwrap();
        let v = Tensor::from_vec(vec![3.0f32; 9 * 4], [1, 1, 3, 3, 4]).unwrap();
        let op = Content::new(ContentConfig { form });
        let o = op.forward(&Cpu::new(), &tensor(1), &tensor(2), &v).unwrap().o.to_vec().unwrap();
        for x in o {
            approx::assert_relative_eq!(x, 3.0, max_relative = 1e-5);
        }
    }
}

#[test]
fn heads_last_memory_and_padded_outputs() {
    let case = Case { q: [2, 3, 4, 5, 4], keys: [4, 5], e: 4, ..PLAIN };
    let [b, h, y, x, d] = case.q;
    let op = Content::new(ContentConfig::default());
    let cpu = Cpu::new();
    let heads_last = Layout::contiguous([b, y, x, h, d]).permute([0, 3, 1, 2, 4]).unwrap();
    let data = [1, 2, 3, 4].map(|seed| random::<f32>(seed, count(case.q), 1.0));
    // The same numbers as contiguous tensors.
    let dense = data.each_ref().map(|data| {
        let place = |i: usize| {
            let [c, xi, yi, hi, bi] = [i % d, i / d % x, i / d / x % y, i / d / x / y % h, i / d / x / y / h];
            data[(((bi * y + yi) * x + xi) * h + hi) * d + c]
        };
        Tensor::from_vec((0..data.len()).map(place).collect(), case.q).unwrap()
    });
    let [tq, tk, tv, tg] = &dense;
    let output = op.forward(&cpu, tq, tk, tv).unwrap();
    let grads = op.backward(&cpu, tq, tk, tv, &output.saved, tg).unwrap();
    let [q, k, v, g] = data.each_ref().map(|data| View::new(data, heads_last).unwrap());
    let pitch = (x * d + 1) as isize;
    let strides = [(h * y) as isize * pitch, y as isize * pitch, pitch, d as isize, 1];
    let padded = Layout::strided(case.q, strides, 0);
    let mut outs = [(); 4].map(|()| vec![f32::NAN; b * h * y * (x * d + 1)]);
    let [o, dq, dk, dv] = &mut outs;
    let args = Forward { q, k, v, o: ViewMut::new(o, padded).unwrap(), saved: None };
    op.forward_into(&cpu, args, Workspace::none()).unwrap();
    let saved = &output.saved;
    let saved = Saved { summary: saved.summary.view(), max: saved.max.view(), sum: saved.sum.view() };
    let [dq, dk, dv] = [dq, dk, dv].map(|out| Some(ViewMut::new(out, padded).unwrap()));
    op.backward_into(&cpu, Backward { q, k, v, saved, d_o: g, dq, dk, dv }, Workspace::none()).unwrap();
    let want = [output.o, grads.dq, grads.dk, grads.dv].map(|t| t.to_vec().unwrap());
    for (got, want) in outs.iter().zip(&want) {
        for (row, want) in got.chunks(x * d + 1).zip(want.chunks(x * d)) {
            assert_eq!(&row[..x * d], want);
            assert!(row[x * d].is_nan(), "padding was written");
        }
    }
}

#[test]
fn same_bits_on_one_thread_and_on_three() {
    let shape = [1, 1, 60, 70, 8];
    let tensor = |seed| Tensor::from_vec(random::<f32>(seed, count(shape), 1.0), shape).unwrap();
    let op = Content::new(ContentConfig::default());
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let cpu = Cpu::with_pool(std::sync::Arc::new(pool));
        let (q, k, v, g) = (tensor(1), tensor(2), tensor(3), tensor(4));
        let output = op.forward(&cpu, &q, &k, &v).unwrap();
        let grads = op.backward(&cpu, &q, &k, &v, &output.saved, &g).unwrap();
        [output.o, grads.dq, grads.dk, grads.dv].map(|t| t.to_vec().unwrap())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn empty_maps() {
    let op = Content::new(ContentConfig::default());
    let tensor = |shape: [usize; 5]| Tensor::from_vec(vec![1.0f32; count(shape)], shape).unwrap();
    let (none, some) = (tensor([1, 2, 0, 3, 4]), tensor([1, 2, 2, 2, 4]));
    let output = op.forward(&Cpu::new(), &none, &some, &some).unwrap();
    let grads = op.backward(&Cpu::new(), &none, &some, &some, &output.saved, &none).unwrap();
    assert!(grads.dk.to_vec().unwrap().iter().all(|x| *x == 0.0));
    let text = op.forward(&Cpu::new(), &some, &none, &none).err().unwrap().to_string();
    assert_eq!(text, "content: `k` must be not empty when there are queries, got [1, 2, 0, 3, 4]");
    assert!(op.forward(&Cpu::new(), &none, &none, &none).is_ok());
}

#[test]
fn refusals_say_what_was_wanted_and_what_came() {
    let op = Content::new(ContentConfig::default());
    let tensor = |shape: [usize; 5]| Tensor::from_vec(vec![1.0f32; count(shape)], shape).unwrap();
    let run =
        |q, k, v| op.forward(&Cpu::new(), &tensor(q), &tensor(k), &tensor(v)).err().unwrap().to_string();
    let plain = [1, 2, 3, 3, 4];
    assert_eq!(
        run(plain, [1, 2, 3, 3, 5], plain),
        "content: `k` must be of shape [1, 2, 3, 3, 4], got [1, 2, 3, 3, 5]"
    );
    assert_eq!(
        run(plain, plain, [1, 2, 3, 2, 4]),
        "content: `v` must be of shape [1, 2, 3, 3, 4], got [1, 2, 3, 2, 4]"
    );
    assert_eq!(
        run([1, 2, 3, 3, 200], [1, 2, 3, 3, 200], plain),
        "content: `q` must be of 1 to 128 channels per head, got 200"
    );
}
