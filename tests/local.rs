//! The op `local`: every case on every device, each element within its own error bar.

pub mod windows;

use crate::common::{check, elements, numbers, random, uniform};
use half::{bf16, f16};
use macula::local::{
    Backward, BackwardProblem, Border, Forward, LocalConfig, Positions, Relative, Sliding, Tables, Window,
};
use macula::reference::local as reference;
use macula::reference::{Bar, Num};
use macula::{Cpu, DType, Device, Element, Gpu, Layout, Local, Tensor, View, ViewMut, Workspace};

/// One problem. The name says what is odd about it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    /// `[b, h, y, x, d]`.
    pub q: [usize; 5],
    pub e: usize,
    pub window: Window,
    /// How tables combine, and whether each head has its own.
    pub tables: Option<(Relative, bool)>,
    /// Whether each head has its own bias, if there is one.
    pub bias: Option<bool>,
    /// The factor on the logits, in units of d^−½.
    pub scale: f32,
    /// Inputs are uniform up to this.
    pub size: f64,
}

pub const PLAIN: Case = Case {
    name: "plain",
    q: [2, 3, 6, 7, 8],
    e: 8,
    window: Window::sliding([3, 3]),
    tables: Some((Relative::Concat, false)),
    bias: None,
    scale: 1.0,
    size: 1.0,
};

/// Every case is run forward and backward, in every dtype, with every border rule that it allows. [`windows::CASES`] has more.
pub const CASES: &[Case] = &[
    PLAIN,
    Case { name: "one_token", q: [1, 1, 1, 1, 4], e: 4, window: Window::sliding([1, 1]), ..PLAIN },
    Case {
        name: "one_token_wide_window",
        q: [2, 1, 1, 1, 5],
        e: 3,
        window: Window::sliding([7, 7]),
        ..PLAIN
    },
    Case { name: "odd_grid_odd_tail", q: [1, 2, 5, 9, 13], e: 11, window: Window::sliding([5, 5]), ..PLAIN },
    Case { name: "one_row", q: [1, 1, 1, 19, 16], e: 16, window: Window::sliding([5, 7]), ..PLAIN },
    Case { name: "one_column", q: [1, 1, 18, 1, 16], e: 16, window: Window::sliding([7, 5]), ..PLAIN },
    Case { name: "even_window", q: [1, 2, 7, 6, 16], e: 16, window: Window::sliding([4, 2]), ..PLAIN },
    Case { name: "rectangular_window", q: [1, 1, 9, 8, 8], e: 24, window: Window::sliding([3, 7]), ..PLAIN },
    Case { name: "window_is_grid", q: [1, 2, 7, 7, 32], e: 32, window: Window::sliding([7, 7]), ..PLAIN },
    Case { name: "window_past_grid", q: [1, 1, 4, 5, 16], e: 8, window: Window::sliding([11, 9]), ..PLAIN },
    Case { name: "tile_minus_one", q: [1, 1, 15, 15, 16], e: 16, window: Window::sliding([5, 5]), ..PLAIN },
    Case {
        name: "tile",
        q: [1, 1, 16, 16, 16],
        e: 16,
        window: Window::sliding([5, 5]),
        tables: None,
        ..PLAIN
    },
    Case { name: "tile_plus_one", q: [1, 1, 17, 17, 16], e: 16, window: Window::sliding([5, 5]), ..PLAIN },
    Case { name: "large_window", q: [1, 1, 14, 13, 8], e: 8, window: Window::sliding([13, 13]), ..PLAIN },
    Case { name: "large_window_d64", q: [1, 1, 10, 9, 64], e: 48, window: Window::sliding([9, 9]), ..PLAIN },
    Case { name: "d64", q: [1, 2, 6, 5, 64], e: 64, window: Window::sliding([5, 5]), ..PLAIN },
    Case { name: "one_channel", q: [1, 2, 5, 6, 1], e: 1, window: Window::sliding([3, 3]), ..PLAIN },
    Case { name: "most_channels", q: [1, 1, 5, 4, 128], e: 128, window: Window::sliding([3, 3]), ..PLAIN },
    Case { name: "d_is_not_e", q: [1, 2, 6, 6, 40], e: 72, window: Window::sliding([3, 3]), ..PLAIN },
    Case { name: "summed_tables", q: [1, 2, 6, 7, 16], tables: Some((Relative::Sum, false)), ..PLAIN },
    Case { name: "tables_per_head", q: [2, 3, 6, 5, 8], tables: Some((Relative::Concat, true)), ..PLAIN },
    Case { name: "summed_tables_per_head", q: [2, 2, 6, 5, 8], tables: Some((Relative::Sum, true)), ..PLAIN },
    Case { name: "no_tables", tables: None, ..PLAIN },
    Case {
        name: "map_between_one_and_two_windows",
        q: [1, 1, 14, 19, 8],
        e: 8,
        window: Window::sliding([9, 13]),
        ..PLAIN
    },
    Case {
        name: "map_of_three_windows",
        q: [1, 1, 17, 40, 8],
        e: 8,
        window: Window::sliding([5, 13]),
        ..PLAIN
    },
    Case { name: "tallest_window", q: [1, 1, 36, 5, 8], e: 8, window: Window::sliding([33, 3]), ..PLAIN },
    Case { name: "widest_window", q: [1, 1, 5, 36, 8], e: 8, window: Window::sliding([3, 33]), ..PLAIN },
    Case { name: "largest_window", q: [1, 1, 9, 10, 4], e: 4, window: Window::sliding([33, 33]), ..PLAIN },
    Case {
        name: "more_tiles_than_partials",
        q: [1, 1, 130, 129, 2],
        e: 2,
        window: Window::sliding([3, 1]),
        ..PLAIN
    },
    Case {
        name: "more_heads_than_partials",
        q: [9, 260, 1, 2, 2],
        e: 1,
        window: Window::sliding([1, 3]),
        tables: Some((Relative::Sum, true)),
        ..PLAIN
    },
    Case { name: "negative_scale", scale: -1.5, ..PLAIN },
    Case { name: "scale_of_zero", scale: 0.0, ..PLAIN },
    Case { name: "large_scores", q: [1, 1, 6, 6, 16], size: 12.0, ..PLAIN },
];

impl Case {
    pub fn config(&self) -> LocalConfig {
        let relative = self.tables.map_or(Relative::Concat, |t| t.0);
        let scale = self.scale * (self.q[4] as f32).powf(-0.5);
        LocalConfig { window: self.window, scale, relative }
    }

    /// Whether the border rule fits the window and the map.
    fn is_allowed(&self) -> bool {
        match self.window {
            Window::Sliding(Sliding { size, dilation, border: Border::Shift }) => {
                (0..2).all(|i| size[i] % 2 == 1 && size[i] * dilation[i] <= self.q[2 + i])
            }
            _ => true,
        }
    }

    fn shape(&self) -> reference::Shape {
        let table_heads = if self.tables.is_some_and(|t| t.1) { self.q[1] } else { 1 };
        let bias_heads = if self.bias == Some(true) { self.q[1] } else { 1 };
        reference::Shape { q: self.q, e: self.e, table_heads, bias_heads }
    }

    pub fn v_shape(&self) -> [usize; 5] {
        let [b, h, y, x, _] = self.q;
        [b, h, y, x, self.e]
    }

    pub fn table_shapes(&self) -> [[usize; 3]; 2] {
        let channels = self.config().relative.table_channels(self.q[4]);
        let rows = self.window.table_rows();
        [0, 1].map(|i| [self.shape().table_heads, rows[i], channels[i]])
    }

    pub fn bias_shape(&self) -> [usize; 3] {
        let [rows, columns] = self.window.table_rows();
        [self.shape().bias_heads, rows, columns]
    }
}

/// Random inputs of a case.
pub struct Inputs<T> {
    pub q: Vec<T>,
    pub k: Vec<T>,
    pub v: Vec<T>,
    pub tables: Option<[Vec<T>; 2]>,
    pub bias: Option<Vec<f32>>,
    pub d_o: Vec<T>,
}

impl<T: Element> Inputs<T> {
    pub fn of(case: &Case) -> Self {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let make = |seed: u64, shape: &[usize]| random::<T>(seed, count(shape), case.size);
        let tables = case.table_shapes();
        Self {
            q: make(1, &case.q),
            k: make(2, &case.q),
            v: random(3, count(&case.v_shape()), 1.0),
            tables: case.tables.map(|_| [make(4, &tables[0]), make(5, &tables[1])]),
            bias: case.bias.map(|_| random(9, count(&case.bias_shape()), case.size)),
            d_o: random(6, count(&case.v_shape()), 1.0),
        }
    }
}

/// What a run returned, for comparing bits.
pub type Bits = Vec<Vec<u8>>;

/// What both passes returned.
pub struct Results<T> {
    o: Vec<T>,
    lse: Vec<f32>,
    /// dq, dk and dv.
    maps: [Vec<T>; 3],
    tables: Option<[Vec<f32>; 2]>,
    bias: Option<Vec<f32>>,
}

/// Forward and backward on a device, not judged.
pub fn results<T: Element>(on: &dyn Device, case: &Case) -> Result<Results<T>, String> {
    compute(on, case, &Inputs::of(case)).map_err(|e| format!("{} {:?}: {e}", case.name, case.window))
}

fn compute<T: Element>(on: &dyn Device, case: &Case, inputs: &Inputs<T>) -> macula::Result<Results<T>> {
    let op = Local::new(case.config())?;
    let put = |data: &Vec<T>, shape| Tensor::from_vec(data.clone(), shape)?.to(on);
    let (q, k) = (put(&inputs.q, case.q)?, put(&inputs.k, case.q)?);
    let (v, d_o) = (put(&inputs.v, case.v_shape())?, put(&inputs.d_o, case.v_shape())?);
    let tables = match &inputs.tables {
        Some(t) => {
            let put = |i: usize| Tensor::from_vec(t[i].clone(), case.table_shapes()[i])?.to(on);
            Some(Tables { rel_h: put(0)?, rel_w: put(1)? })
        }
        None => None,
    };
    let bias = match &inputs.bias {
        Some(bias) => Some(Tensor::from_vec(bias.clone(), case.bias_shape())?.to(on)?),
        None => None,
    };
    let lent = Positions {
        tables: tables.as_ref().map(|t| Tables { rel_h: &t.rel_h, rel_w: &t.rel_w }),
        bias: bias.as_ref(),
    };
    let output = op.forward(on, &q, &k, &v, lent)?;
    let grads = op.backward(on, &q, &k, &v, lent, &output, &d_o)?;
    Ok(Results {
        o: output.o.to_vec()?,
        lse: output.lse.to_vec()?,
        maps: [grads.dq.to_vec()?, grads.dk.to_vec()?, grads.dv.to_vec()?],
        tables: match grads.dtables {
            Some(t) => Some([t.rel_h.to_vec()?, t.rel_w.to_vec()?]),
            None => None,
        },
        bias: grads.dbias.map(|bias| bias.to_vec()).transpose()?,
    })
}

impl<T: Element> Results<T> {
    pub fn bits(&self) -> Bits {
        let bytes = |values: &Vec<T>| bytemuck::cast_slice(values).to_vec();
        let of_f32 = |values: &Vec<f32>| bytemuck::cast_slice(values).to_vec();
        let mut bits = vec![bytes(&self.o), of_f32(&self.lse)];
        bits.extend(self.maps.iter().map(bytes));
        bits.extend(self.tables.iter().flatten().chain(&self.bias).map(of_f32));
        bits
    }

    /// Each element against its bar.
    fn judge(&self, case: &Case, inputs: &Inputs<T>) -> Result<(), String> {
        let [rq, rk, rv] = [&inputs.q, &inputs.k, &inputs.v].map(|x| numbers::<T, Bar<T>>(x));
        let rt = inputs.tables.as_ref().map(|t| [numbers::<T, Bar<T>>(&t[0]), numbers::<T, Bar<T>>(&t[1])]);
        let rb = inputs.bias.as_ref().map(|b| numbers::<f32, Bar<T>>(b));
        let lent_bars = reference::Inputs {
            q: &rq,
            k: &rk,
            v: &rv,
            tables: rt.as_ref().map(|t| [t[0].as_slice(), t[1].as_slice()]),
            bias: rb.as_deref(),
        };
        let name = |tensor: &str| format!("{} {:?} {} {tensor}", case.name, case.window, T::DTYPE);
        let truth = reference::forward(&case.config(), case.shape(), lent_bars);
        check(&name("o"), &truth.o, &self.o)?;
        check(&name("lse"), &truth.lse, &self.lse)?;

        // The backward pass is judged on what it was given: the o and lse of this device.
        let truth = reference::backward(
            &case.config(),
            case.shape(),
            lent_bars,
            &numbers::<T, Bar<T>>(&self.o),
            &numbers::<f32, Bar<T>>(&self.lse),
            &numbers::<T, Bar<T>>(&inputs.d_o),
        );
        let [dq, dk, dv] = &self.maps;
        for (tensor, want, got) in [("dq", &truth.dq, dq), ("dk", &truth.dk, dk), ("dv", &truth.dv, dv)] {
            check(&name(tensor), want, got)?;
        }
        if let Some([rel_h, rel_w]) = &self.tables {
            check(&name("drel_h"), &truth.dtables[0], rel_h)?;
            check(&name("drel_w"), &truth.dtables[1], rel_w)?;
        }
        if let Some(bias) = &self.bias {
            check(&name("dbias"), &truth.dbias, bias)?;
        }
        Ok(())
    }
}

/// Forward and backward on a device, each element against its bar.
pub fn run<T: Element>(on: &dyn Device, case: &Case) -> Result<Bits, String> {
    let results = results::<T>(on, case)?;
    results.judge(case, &Inputs::of(case))?;
    Ok(results.bits())
}

/// Every case with every border rule that it allows.
pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().chain(windows::CASES).flat_map(with_borders)
}

pub fn with_borders(case: &Case) -> Vec<Case> {
    let of = |window: Window| Case { window, ..*case };
    match case.window {
        Window::Sliding(window) => {
            let cases = Border::ALL.map(|border| of(window.at_border(border).into()));
            cases.into_iter().filter(Case::is_allowed).collect()
        }
        Window::Blocks(_) => vec![*case],
    }
}

/// Every case on the CPU.
fn run_all<T: Element>() {
    for case in cases() {
        run::<T>(&Cpu::new(), &case).unwrap();
    }
}

#[test]
fn cpu_f32() {
    run_all::<f32>();
}

#[test]
fn cpu_f16() {
    run_all::<f16>();
}

#[test]
fn cpu_bf16() {
    run_all::<bf16>();
}

/// A window that holds the whole map, without tables, is dense softmax attention.
pub fn check_dense_attention(on: &dyn Device) {
    let [y, x, d] = [5, 4, 6];
    let config = LocalConfig { window: Window::sliding([9, 7]), scale: 0.3, ..LocalConfig::default() };
    let n = y * x;
    let [q, k, v] = [1, 2, 3].map(|seed| elements::<f32>(&uniform(seed, n * d)));
    let put = |t: &Vec<f32>| Tensor::from_vec(t.clone(), [1, 1, y, x, d]).unwrap().to(on).unwrap();
    let [tq, tk, tv] = [&q, &k, &v].map(put);
    let o = Local::new(config)
        .unwrap()
        .forward(on, &tq, &tk, &tv, Positions::default())
        .unwrap()
        .o
        .to_vec()
        .unwrap();
    for i in 0..n {
        let dot =
            |j: usize| -> f64 { (0..d).map(|c| f64::from(q[i * d + c]) * f64::from(k[j * d + c])).sum() };
        let p: Vec<f64> = (0..n).map(|j| (f64::from(config.scale) * dot(j)).exp()).collect();
        let z: f64 = p.iter().sum();
        for c in 0..d {
            let want: f64 = (0..n).map(|j| p[j] / z * f64::from(v[j * d + c])).sum();
            approx::assert_abs_diff_eq!(f64::from(o[i * d + c]), want, epsilon = 1e-6);
        }
    }
}

#[test]
fn window_over_the_map_is_dense_attention() {
    check_dense_attention(&Cpu::new());
}

/// A window with border shift.
fn shifted(size: [usize; 2]) -> Window {
    Sliding::new(size).at_border(Border::Shift).into()
}

/// Border shift on a map that is not square: every query sees the k×k block of pixels nearest to it.
pub fn check_neighbourhood(on: &dyn Device) {
    let [y, x] = [5, 8];
    let k = 5;
    let config = LocalConfig { window: shifted([k, k]), ..LocalConfig::default() };
    // Equal keys make every weight 1/k²; values with a channel per pixel show which pixels are seen.
    let n = y * x;
    let equal = Tensor::from_vec(vec![0.0f32; n], [1, 1, y, x, 1]).unwrap().to(on).unwrap();
    let own = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
    let v = Tensor::from_vec(own, [1, 1, y, x, n]).unwrap().to(on).unwrap();
    let o = Local::new(config)
        .unwrap()
        .forward(on, &equal, &equal, &v, Positions::default())
        .unwrap()
        .o
        .to_vec()
        .unwrap();
    for (i, weights) in o.chunks(n).enumerate() {
        for (j, got) in weights.iter().enumerate() {
            let near = |i: usize, j: usize, size: usize| {
                let start = i.saturating_sub(k / 2).min(size - k);
                (start..start + k).contains(&j)
            };
            let is_seen = near(i / x, j / x, y) && near(i % x, j % x, x);
            let want = if is_seen { 1.0 / (k * k) as f32 } else { 0.0 };
            approx::assert_abs_diff_eq!(*got, want, epsilon = 1e-7);
        }
    }
}

#[test]
fn shift_is_the_neighbourhood() {
    check_neighbourhood(&Cpu::new());
}

/// Heads-last memory, broadcast and flipped inputs, padded outputs: the same bits as contiguous tensors.
#[test]
fn any_strides() {
    let case = Case { q: [2, 3, 5, 6, 4], e: 4, ..PLAIN };
    let [b, h, y, x, d] = case.q;
    let op = Local::new(case.config()).unwrap();
    let inputs = Inputs::<f32>::of(&case);
    let heads_last = Layout::contiguous([b, y, x, h, d]).permute([0, 3, 1, 2, 4]).unwrap();
    let place = |data: &[f32]| {
        let mut out = vec![0.0; data.len()];
        for (i, value) in data.iter().enumerate() {
            let [c, xi, yi, hi, bi] = [i % d, i / d % x, i / d / x % y, i / d / x / y % h, i / d / x / y / h];
            out[(((bi * y + yi) * x + xi) * h + hi) * d + c] = *value;
        }
        out
    };
    let tensor = |data: &Vec<f32>| Tensor::from_vec(data.clone(), case.q).unwrap();
    let [tq, tk, tv, tg] = [&inputs.q, &inputs.k, &inputs.v, &inputs.d_o].map(tensor);
    let cpu = Cpu::new();
    let output = op.forward(&cpu, &tq, &tk, &tv, Positions::default()).unwrap();
    let grads = op.backward(&cpu, &tq, &tk, &tv, Positions::default(), &output, &tg).unwrap();

    let [q, k, v, g] = [&inputs.q, &inputs.k, &inputs.v, &inputs.d_o].map(|data| place(data));
    let view = |data: &'static [f32]| View::new(data, heads_last).unwrap();
    let [q, k, v, g] = [q, k, v, g].map(|data| view(data.leak()));
    // One pixel of padding between rows of the outputs, which must stay as it is.
    let pitch = (x + 1) as isize * d as isize;
    let padded_strides = [h as isize * y as isize * pitch, y as isize * pitch, pitch, d as isize, 1];
    let padded = Layout::strided(case.q, padded_strides, 0);
    let room = b * h * y * (x + 1) * d;
    let mut outs = [(); 4].map(|()| vec![f32::NAN; room]);
    let mut lse = vec![f32::NAN; b * h * y * x];
    let [o, dq, dk, dv] = &mut outs;
    let forward = Forward {
        q,
        k,
        v,
        tables: None,
        bias: None,
        o: ViewMut::new(&mut *o, padded).unwrap(),
        lse: Some(ViewMut::new(&mut lse, [b, h, y, x]).unwrap()),
    };
    op.forward_into(&cpu, forward, Workspace::none()).unwrap();
    let backward = Backward {
        q,
        k,
        v,
        tables: None,
        bias: None,
        o: View::new(&*o, padded).unwrap(),
        lse: View::new(&lse, [b, h, y, x]).unwrap(),
        d_o: g,
        dq: Some(ViewMut::new(dq, padded).unwrap()),
        dk: Some(ViewMut::new(dk, padded).unwrap()),
        dv: Some(ViewMut::new(dv, padded).unwrap()),
        drel_h: None,
        drel_w: None,
        dbias: None,
    };
    op.backward_into(&cpu, backward, Workspace::none()).unwrap();
    let want = [output.o, grads.dq, grads.dk, grads.dv].map(|t| t.to_vec().unwrap());
    for (got, want) in outs.iter().zip(&want) {
        for (row, want) in got.chunks((x + 1) * d).zip(want.chunks(x * d)) {
            assert_eq!(&row[..x * d], want);
            assert!(row[x * d..].iter().all(|x| x.is_nan()), "padding was written");
        }
    }
}

#[test]
fn same_bits_on_one_thread_and_on_three() {
    let case = Case { q: [1, 2, 37, 11, 8], window: Window::sliding([5, 3]), ..PLAIN };
    let inputs = Inputs::<f32>::of(&case);
    let op = Local::new(case.config()).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let cpu = Cpu::with_pool(std::sync::Arc::new(pool));
        let tensor = |data: &Vec<f32>| Tensor::from_vec(data.clone(), case.q).unwrap();
        let [q, k, v, g] = [&inputs.q, &inputs.k, &inputs.v, &inputs.d_o].map(tensor);
        let t = inputs.tables.as_ref().unwrap();
        let [h, w] = [0, 1].map(|i| Tensor::from_vec(t[i].clone(), case.table_shapes()[i]).unwrap());
        let tables = Positions::from(Tables { rel_h: &h, rel_w: &w });
        let output = op.forward(&cpu, &q, &k, &v, tables).unwrap();
        let grads = op.backward(&cpu, &q, &k, &v, tables, &output, &g).unwrap();
        let t = grads.dtables.unwrap();
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        [output.o, grads.dq, grads.dk, grads.dv]
            .map(|t| bits(t.to_vec().unwrap()))
            .into_iter()
            .chain([t.rel_h, t.rel_w].map(|t| bits(t.to_vec().unwrap())))
            .chain([bits(output.lse.to_vec().unwrap())])
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn empty_maps_are_fine_and_table_gradients_are_zero() {
    for (q, window) in windows::empty_maps() {
        let case = Case { q, e: 4, window, tables: Some((Relative::Concat, false)), ..PLAIN };
        let op = Local::new(case.config()).unwrap();
        let empty = Tensor::from_vec(Vec::<f32>::new(), q).unwrap();
        let shapes = case.table_shapes();
        let [h, w] = shapes.map(|s| Tensor::from_vec(vec![1.0f32; s.iter().product()], s).unwrap());
        let tables = Positions::from(Tables { rel_h: &h, rel_w: &w });
        let output = op.forward(&Cpu::new(), &empty, &empty, &empty, tables).unwrap();
        let grads = op.backward(&Cpu::new(), &empty, &empty, &empty, tables, &output, &empty).unwrap();
        assert!(grads.dtables.unwrap().rel_h.to_vec().unwrap().iter().all(|x| *x == 0.0));
    }
}

#[test]
fn refusals_say_what_was_wanted_and_what_came() {
    let refused = |config: LocalConfig| Local::new(config).unwrap_err().to_string();
    let plain = LocalConfig::default();
    assert_eq!(refused(LocalConfig { scale: f32::NAN, ..plain }), "local: `scale` must be finite, got NaN");
    let op = Local::new(LocalConfig { window: shifted([7, 7]), ..plain }).unwrap();
    let t = |shape: [usize; 5]| Tensor::from_vec(vec![0.0f32; shape.iter().product()], shape).unwrap();
    let run = |q, k, v| {
        op.forward(&Cpu::new(), &t(q), &t(k), &t(v), Positions::default()).err().unwrap().to_string()
    };
    assert_eq!(
        run([1, 1, 6, 9, 4], [1, 1, 6, 9, 4], [1, 1, 6, 9, 4]),
        "local: `window.size` must be at most what the map, [6, 9], holds at dilation [1, 1], for border shift, got [7, 7]"
    );
    assert_eq!(
        run([1, 1, 8, 9, 4], [1, 1, 8, 8, 4], [1, 1, 8, 9, 4]),
        "local: `k` must be of shape [1, 1, 8, 9, 4], got [1, 1, 8, 8, 4]"
    );
    assert_eq!(
        run([1, 1, 8, 9, 129], [1, 1, 8, 9, 129], [1, 1, 8, 9, 4]),
        "local: `q` must be of 1 to 128 channels per head, got 129"
    );
    let h = Tensor::from_vec(vec![0.0f32; 7 * 2], [1, 7, 2]).unwrap();
    let q = t([1, 1, 8, 9, 4]);
    let tables = Tables { rel_h: &h, rel_w: &h }.into();
    assert_eq!(
        op.forward(&Cpu::new(), &q, &q, &q, tables).err().unwrap().to_string(),
        "local: `rel_h` must be of shape [1, 13, 2], got [1, 7, 2]"
    );
}

/// What a GPU has no memory for is named, with what to do.
#[test]
fn large_shifted_windows_in_f32_want_a_large_gpu() {
    let config = LocalConfig { window: shifted([33, 33]), ..LocalConfig::default() };
    let op = Local::new(config).unwrap();
    let plan = |d: usize, dtype, gpu| {
        op.plan_bwd(&BackwardProblem::contiguous(&config, [1, 1, 200, 200, d], d, true, dtype), &gpu)
    };
    assert_eq!(
        plan(128, DType::F32, Gpu::SM86).unwrap_err().to_string(),
        "local: gradients of k and v for 33×33 windows, border shift, 128 channels in f32 on a GPU with 101376 bytes of shared \
         memory per block; fewer channels or 16-bit elements need less"
    );
    assert!(plan(64, DType::F32, Gpu::SM86).is_ok() && plan(128, DType::F16, Gpu::SM86).is_ok());
    assert!(plan(128, DType::F32, Gpu::SM80).is_ok() && plan(128, DType::F32, Gpu::SM90).is_ok());
}

/// The bar is a number type like any other.
#[test]
fn bar_holds_the_value_of_the_truth() {
    let case = PLAIN;
    let inputs = Inputs::<f32>::of(&case);
    fn forward<R: Num>(case: &Case, inputs: &Inputs<f32>) -> Vec<R> {
        let [q, k, v] = [&inputs.q, &inputs.k, &inputs.v].map(|x| numbers::<f32, R>(x));
        reference::forward(
            &case.config(),
            case.shape(),
            reference::Inputs { q: &q, k: &k, v: &v, tables: None, bias: None },
        )
        .o
    }
    let (truth, bars) = (forward::<f64>(&case, &inputs), forward::<Bar<f32>>(&case, &inputs));
    for (truth, bar) in truth.iter().zip(&bars) {
        approx::assert_abs_diff_eq!(*truth, bar.value, epsilon = 1e-14);
    }
}
