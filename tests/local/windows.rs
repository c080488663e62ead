//! Dilated windows, blocks and biases: cases, the definition's gradients, what is equal to what, and refusals.

use super::{Bits, Case, Inputs, PLAIN, run, with_borders};
use crate::common::memory::{Memory, layout};
use crate::common::{elements, tried, uniform};
use half::{bf16, f16};
use macula::local::{
    Backward, Blocks, Border, Forward, LocalConfig, Positions, Relative, Sliding, Tables, Window,
};
use macula::reference::local as reference;
use macula::{Cpu, Device, Element, Local, Tensor, Workspace};
use proptest::prelude::*;

const fn dilated(size: [usize; 2], dilation: [usize; 2]) -> Window {
    Window::Sliding(Sliding::new(size).dilated(dilation))
}

const fn blocks(size: [usize; 2], offset: [usize; 2], halo: [usize; 2]) -> Window {
    Window::Blocks(Blocks::new(size).offset_by(offset).with_halo(halo))
}

const SUMMED: Option<(Relative, bool)> = Some((Relative::Sum, false));
const SUMMED_PER_HEAD: Option<(Relative, bool)> = Some((Relative::Sum, true));

/// As [`super::CASES`].
pub const CASES: &[Case] = &[
    Case { name: "dilated", q: [1, 2, 9, 11, 8], window: dilated([3, 3], [2, 3]), ..PLAIN },
    Case { name: "dilated_rows", q: [2, 1, 17, 6, 16], e: 8, window: dilated([5, 3], [3, 1]), ..PLAIN },
    Case { name: "dilated_columns", q: [1, 2, 5, 40, 8], window: dilated([3, 7], [1, 5]), ..PLAIN },
    Case {
        name: "dilated_even_window",
        q: [1, 1, 11, 10, 13],
        e: 24,
        window: dilated([4, 2], [2, 2]),
        ..PLAIN
    },
    Case { name: "dilation_past_grid", q: [1, 2, 3, 5, 8], window: dilated([3, 5], [4, 9]), ..PLAIN },
    Case {
        name: "dilated_large_window",
        q: [1, 1, 28, 27, 32],
        e: 32,
        window: dilated([13, 13], [2, 2]),
        tables: SUMMED_PER_HEAD,
        ..PLAIN
    },
    Case {
        name: "dilated_no_tables",
        q: [1, 1, 16, 16, 64],
        e: 64,
        window: dilated([7, 7], [2, 2]),
        tables: None,
        ..PLAIN
    },
    Case { name: "blocks", q: [2, 3, 8, 8, 8], window: blocks([4, 4], [0, 0], [0, 0]), ..PLAIN },
    Case { name: "swin", q: [2, 2, 14, 14, 32], e: 32, window: blocks([7, 7], [3, 3], [0, 0]), ..PLAIN },
    Case {
        name: "ragged_blocks",
        q: [1, 2, 10, 9, 16],
        window: blocks([7, 7], [0, 0], [0, 0]),
        tables: SUMMED_PER_HEAD,
        ..PLAIN
    },
    Case {
        name: "rectangular_blocks",
        q: [1, 1, 9, 13, 8],
        e: 24,
        window: blocks([2, 5], [1, 2], [0, 0]),
        tables: SUMMED,
        ..PLAIN
    },
    Case {
        name: "one_pixel_blocks",
        q: [1, 2, 6, 7, 8],
        window: blocks([1, 1], [0, 0], [2, 1]),
        tables: SUMMED,
        ..PLAIN
    },
    Case {
        name: "blocks_past_grid",
        q: [2, 1, 5, 3, 8],
        window: blocks([12, 9], [2, 8], [0, 1]),
        tables: SUMMED,
        ..PLAIN
    },
    Case { name: "large_blocks", q: [1, 1, 37, 29, 16], window: blocks([24, 16], [5, 0], [0, 0]), ..PLAIN },
    Case {
        name: "largest_blocks",
        q: [1, 1, 34, 35, 4],
        e: 4,
        window: blocks([33, 32], [1, 0], [0, 0]),
        tables: None,
        ..PLAIN
    },
    Case {
        name: "halo",
        q: [1, 2, 16, 17, 16],
        e: 16,
        window: blocks([8, 8], [0, 0], [3, 3]),
        tables: SUMMED,
        ..PLAIN
    },
    Case {
        name: "halo_past_block",
        q: [1, 1, 11, 12, 8],
        window: blocks([3, 2], [1, 1], [5, 4]),
        tables: SUMMED,
        ..PLAIN
    },
    Case {
        name: "halo_d64",
        q: [1, 1, 13, 9, 64],
        e: 48,
        window: blocks([4, 4], [2, 1], [1, 2]),
        tables: SUMMED,
        ..PLAIN
    },
    Case {
        name: "many_heads_of_small_blocks",
        q: [3, 5, 4, 4, 8],
        window: blocks([2, 2], [0, 0], [0, 0]),
        tables: SUMMED_PER_HEAD,
        ..PLAIN
    },
    Case {
        name: "most_channels_in_blocks",
        q: [1, 1, 7, 6, 128],
        e: 128,
        window: blocks([4, 4], [1, 1], [1, 0]),
        ..PLAIN
    },
    Case {
        name: "one_channel_in_blocks",
        q: [1, 2, 5, 6, 1],
        e: 1,
        window: blocks([2, 3], [1, 0], [1, 0]),
        ..PLAIN
    },
    Case { name: "bias", tables: None, bias: Some(false), ..PLAIN },
    Case { name: "bias_and_tables", q: [2, 3, 6, 5, 16], e: 24, bias: Some(true), ..PLAIN },
    Case { name: "bias_of_scale_zero", scale: 0.0, tables: None, bias: Some(true), ..PLAIN },
    Case {
        name: "bias_of_a_dilated_window",
        q: [1, 2, 9, 8, 8],
        window: dilated([3, 3], [2, 2]),
        bias: Some(true),
        ..PLAIN
    },
    Case {
        name: "bias_of_swin",
        q: [2, 3, 14, 13, 32],
        e: 32,
        window: blocks([7, 7], [3, 3], [0, 0]),
        tables: None,
        bias: Some(true),
        ..PLAIN
    },
    Case {
        name: "bias_of_a_halo",
        q: [1, 2, 9, 7, 8],
        window: blocks([4, 2], [0, 0], [2, 1]),
        tables: SUMMED,
        bias: Some(false),
        ..PLAIN
    },
];

/// Shapes of q without a pixel, and every kind of window.
pub fn empty_maps() -> impl Iterator<Item = ([usize; 5], Window)> {
    let maps = [[0, 2, 3, 3, 4], [1, 0, 3, 3, 4], [1, 2, 0, 3, 4], [1, 2, 3, 0, 4]];
    let windows = [PLAIN.window, dilated([3, 3], [2, 2]), blocks([2, 3], [1, 0], [0, 1])];
    maps.into_iter().flat_map(move |q| windows.map(|window| (q, window)))
}

/// d(Σ d_o·o) by every input, by central differences in f64.
#[test]
fn reference_gradients_are_those_of_the_forward_pass() {
    const STEP: f64 = 1e-5;
    let of_windows = [
        Window::sliding([3, 3]),
        dilated([3, 1], [2, 1]),
        blocks([3, 2], [1, 0], [0, 0]),
        blocks([2, 2], [1, 1], [1, 2]),
    ];
    let tables = [None, Some((Relative::Concat, false)), SUMMED_PER_HEAD];
    for (i, (window, tables)) in of_windows.iter().flat_map(|w| tables.map(|t| (*w, t))).enumerate() {
        let bias = [None, Some(true), Some(false)][i % 2 * (1 + i / 2 % 2)];
        let plain = Case { q: [2, 2, 6, 3, 5], e: 3, window, tables, bias, ..PLAIN };
        for case in with_borders(&plain) {
            let count = |shape: &[usize]| shape.iter().product::<usize>();
            let of_tables = case.table_shapes().map(|s| if tables.is_some() { count(&s) } else { 0 });
            let of_bias = if bias.is_some() { count(&case.bias_shape()) } else { 0 };
            let (n, m) = (count(&case.q), count(&case.v_shape()));
            let sizes = [n, n, m, of_tables[0], of_tables[1], of_bias];
            let at = uniform(7, sizes.iter().sum());
            let d_o = uniform(8, m);
            let parts = |mut all: &[f64]| -> [Vec<f64>; 6] {
                sizes.map(|size| {
                    let (own, rest) = all.split_at(size);
                    all = rest;
                    own.to_vec()
                })
            };
            fn lent<'a>(case: &Case, [q, k, v, h, w, bias]: &'a [Vec<f64>; 6]) -> reference::Inputs<'a, f64> {
                let tables = case.tables.map(|_| [&h[..], &w[..]]);
                reference::Inputs { q, k, v, tables, bias: case.bias.map(|_| &bias[..]) }
            }
            let forward = |all: &[f64]| {
                let parts = parts(all);
                reference::forward(&case.config(), case.shape(), lent(&case, &parts))
            };
            let (out, inputs) = (forward(&at), parts(&at));
            let inputs = lent(&case, &inputs);
            let grads = reference::backward(&case.config(), case.shape(), inputs, &out.o, &out.lse, &d_o);
            let [drel_h, drel_w] = grads.dtables;
            let all: Vec<f64> = [grads.dq, grads.dk, grads.dv, drel_h, drel_w, grads.dbias].concat();
            assert_eq!(all.len(), at.len());
            for (i, grad) in all.iter().enumerate() {
                let moved = |by: f64| -> f64 {
                    let mut there = at.clone();
                    there[i] += by;
                    forward(&there).o.iter().zip(&d_o).map(|(o, g)| o * g).sum()
                };
                let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                approx::assert_abs_diff_eq!(slope, *grad, epsilon = 1e-8);
            }
        }
    }
}

fn case() -> impl Strategy<Value = Case> {
    let size = || proptest::array::uniform2(1..8usize);
    let sliding =
        (size(), proptest::array::uniform2(1..4usize), 0..3usize).prop_map(|(size, dilation, border)| {
            Window::from(Sliding::new(size).dilated(dilation).at_border(Border::ALL[border]))
        });
    let blocks = (size(), proptest::array::uniform2(0..8usize), proptest::array::uniform2(0..4usize))
        .prop_map(|(size, at, halo)| blocks(size, [at[0] % size[0], at[1] % size[1]], halo));
    let window = prop_oneof![sliding, blocks];
    let relative = prop_oneof![Just(Relative::Concat), Just(Relative::Sum)];
    let tables = proptest::option::of((relative, any::<bool>()));
    let bias = proptest::option::of(any::<bool>());
    let shape = (1..3usize, 1..3usize, 1..14usize, 1..14usize, 1..12usize);
    (shape, window, 1..12usize, tables, bias)
        .prop_map(|((b, h, y, x, d), window, e, tables, bias)| Case {
            name: "random",
            q: [b, h, y, x, d],
            e,
            window,
            tables,
            bias,
            ..PLAIN
        })
        .prop_filter("border shift wants odd windows that fit", Case::is_allowed)
}

/// As [`run`], in memory of any layout: outputs poisoned, between guards; the same bits as contiguous tensors.
fn any_layout<T: Element>(case: &Case, seed: u64) -> Result<(), String> {
    let explain = |e: macula::Error| format!("{case:?}: {e}");
    let plain = run::<T>(&Cpu::new(), case)?;
    let (op, data) = (Local::new(case.config()).map_err(explain)?, Inputs::<T>::of(case));
    let [b, h, y, x, _] = case.q;
    let five = |shape, seed| layout::<5>(shape, seed, [false; 5]);
    let q = Memory::holding(five(case.q, seed), &data.q);
    let k = Memory::holding(five(case.q, seed + 1), &data.k);
    let v = Memory::holding(five(case.v_shape(), seed + 2), &data.v);
    let d_o = Memory::holding(five(case.v_shape(), seed + 3), &data.d_o);
    let of_tables = [0, 1].map(|i| layout(case.table_shapes()[i], seed + 4 + i as u64, [false; 3]));
    let of_bias = layout(case.bias_shape(), seed + 6, [false; 3]);
    let tables = data.tables.as_ref().map(|t| [0, 1].map(|i| Memory::holding(of_tables[i], &t[i])));
    let bias = data.bias.as_ref().map(|b| Memory::holding(of_bias, b));
    let lent = || tables.as_ref().map(|t| Tables { rel_h: t[0].view(), rel_w: t[1].view() });

    let mut o = Memory::<T, 5>::poisoned(five(case.v_shape(), seed + 7));
    let mut lse = Memory::<f32, 4>::poisoned(layout([b, h, y, x], 0, [false; 4]));
    let args = Forward {
        q: q.view(),
        k: k.view(),
        v: v.view(),
        tables: lent(),
        bias: bias.as_ref().map(Memory::view),
        o: o.view_mut(),
        lse: Some(lse.view_mut()),
    };
    op.forward_into(&Cpu::new(), args, Workspace::none()).map_err(explain)?;
    let [mut dq, mut dk, mut dv] = [(case.q, 8), (case.q, 9), (case.v_shape(), 10)]
        .map(|(s, i)| Memory::<T, 5>::poisoned(five(s, seed + i)));
    let [mut drel_h, mut drel_w, mut dbias] =
        [of_tables[0], of_tables[1], of_bias].map(Memory::<f32, 3>::poisoned);
    let args = Backward {
        q: q.view(),
        k: k.view(),
        v: v.view(),
        tables: lent(),
        bias: bias.as_ref().map(Memory::view),
        o: o.view(),
        lse: lse.view(),
        d_o: d_o.view(),
        dq: Some(dq.view_mut()),
        dk: Some(dk.view_mut()),
        dv: Some(dv.view_mut()),
        drel_h: tables.is_some().then(|| drel_h.view_mut()),
        drel_w: tables.is_some().then(|| drel_w.view_mut()),
        dbias: bias.is_some().then(|| dbias.view_mut()),
    };
    op.backward_into(&Cpu::new(), args, Workspace::none()).map_err(explain)?;

    let mut got = Bits::new();
    for (name, memory) in [("o", &o), ("dq", &dq), ("dk", &dk), ("dv", &dv)] {
        memory.check_guards(name)?;
        got.push(bytemuck::cast_slice(&memory.values()).to_vec());
    }
    got.insert(1, bytemuck::cast_slice(&lse.values()).to_vec());
    for (memory, is_there) in
        [(&drel_h, tables.is_some()), (&drel_w, tables.is_some()), (&dbias, bias.is_some())]
    {
        memory.check_guards("gradients of positions")?;
        if is_there {
            got.push(bytemuck::cast_slice(&memory.values()).to_vec());
        }
    }
    if got == plain { Ok(()) } else { Err(format!("{case:?}: other bits in other layouts")) }
}

proptest! {
    #![proptest_config(tried(48))]

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

/// Results of a case on a device: o, lse, dq, dk, dv, gradient of the bias.
fn results(on: &dyn Device, case: &Case, [q, k, v, d_o]: [&[f64]; 4], bias: &[f64]) -> Vec<Vec<f64>> {
    let put = |data: &[f64], shape| Tensor::from_vec(elements::<f32>(data), shape).unwrap().to(on).unwrap();
    let op = Local::new(case.config()).unwrap();
    let [q, k, v, d_o] =
        [(q, case.q), (k, case.q), (v, case.v_shape()), (d_o, case.v_shape())].map(|(t, s)| put(t, s));
    let bias = case
        .bias
        .map(|_| Tensor::from_vec(elements::<f32>(bias), case.bias_shape()).unwrap().to(on).unwrap());
    let positions = Positions { tables: None, bias: bias.as_ref() };
    let out = op.forward(on, &q, &k, &v, positions).unwrap();
    let grads = op.backward(on, &q, &k, &v, positions, &out, &d_o).unwrap();
    let wide = |t: Vec<f32>| t.into_iter().map(f64::from).collect::<Vec<_>>();
    let mut results = vec![wide(out.o.to_vec().unwrap()), wide(out.lse.to_vec().unwrap())];
    results.extend([grads.dq, grads.dk, grads.dv].map(|t| wide(t.to_vec().unwrap())));
    results.extend(grads.dbias.map(|t| wide(t.to_vec().unwrap())));
    results
}

/// Swin's shifted windows as its authors write them: the map rolled by −s, cut into windows, keys of other regions
/// masked, the result rolled back. `case` says sizes; returns what [`results`] does.
fn rolled_and_masked(case: &Case, w: usize, s: usize, inputs: [&[f64]; 4], bias: &[f64]) -> Vec<Vec<f64>> {
    let [_, h, y, x, d] = case.q;
    let scale = f64::from(case.config().scale);
    let [q, k, v, g] = inputs;
    let n = y * x;
    // Where pixel (yi, xi) of the rolled map comes from.
    let from = |yi: usize, xi: usize| (yi + s) % y * x + (xi + s) % x;
    let region = |i: usize, size: usize| usize::from(i >= size - w) + usize::from(i >= size - s);
    let mut results = [d, 1, d, d, d].map(|channels| vec![0.0; h * n * channels]).to_vec();
    results.push(vec![0.0; bias.len()]);
    let side = 2 * w - 1;
    for hi in 0..h {
        let row = |t: &[f64], pixel: usize| t[(hi * n + pixel) * d..][..d].to_vec();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (yi, xi) in (0..y).flat_map(|yi| (0..x).map(move |xi| (yi, xi))) {
            let (own, mut keys) = (from(yi, xi), Vec::new());
            for (yj, xj) in (0..w).flat_map(|a| (0..w).map(move |b| (yi / w * w + a, xi / w * w + b))) {
                let is_masked = region(yi, y) != region(yj, y) || region(xi, x) != region(xj, x);
                let offset = hi * side * side + (yj + w - 1 - yi) * side + xj + w - 1 - xi;
                let masked = if is_masked { f64::NEG_INFINITY } else { 0.0 };
                let other = from(yj, xj);
                let logit = scale * dot(&row(q, own), &row(k, other)) + bias[offset] + masked;
                keys.push((other, offset, logit));
            }
            let lse = keys.iter().map(|key| key.2.exp()).sum::<f64>().ln();
            let mut o = vec![0.0; d];
            for (other, _, logit) in &keys {
                o.iter_mut().zip(row(v, *other)).for_each(|(o, v)| *o += (logit - lse).exp() * v);
            }
            let delta = dot(&row(g, own), &o);
            let at = |pixel: usize, c: usize| (hi * n + pixel) * d + c;
            results[1][hi * n + own] = lse;
            for (c, o) in o.iter().enumerate() {
                results[0][at(own, c)] = *o;
            }
            for (other, offset, logit) in keys {
                let p = (logit - lse).exp();
                let ds = p * (dot(&row(g, own), &row(v, other)) - delta);
                results[5][offset] += ds;
                for c in 0..d {
                    results[2][at(own, c)] += scale * ds * k[at(other, c)];
                    results[3][at(other, c)] += scale * ds * q[at(own, c)];
                    results[4][at(other, c)] += p * g[at(own, c)];
                }
            }
        }
    }
    results
}

/// Blocks with an offset are Swin's shifted windows. `has_bias`: with its bias of relative positions.
pub fn check_shifted_windows(on: &dyn Device, has_bias: bool) {
    for (w, s, [y, x]) in [(4, 2, [8, 12]), (7, 3, [14, 14]), (4, 1, [12, 4])] {
        let case = Case {
            q: [1, 2, y, x, 6],
            e: 6,
            window: blocks([w, w], [s, s], [0, 0]),
            tables: None,
            bias: has_bias.then_some(true),
            ..PLAIN
        };
        let count = case.q.iter().product();
        let inputs = [1, 2, 3, 4].map(|seed| uniform(seed, count));
        let bias: Vec<f64> = match has_bias {
            true => uniform(5, case.bias_shape().iter().product()),
            false => vec![0.0; 2 * (2 * w - 1) * (2 * w - 1)],
        };
        let inputs = inputs.each_ref().map(Vec::as_slice);
        let want = rolled_and_masked(&case, w, s, inputs, &bias);
        let got = results(on, &case, inputs, &bias);
        assert_eq!(got.len(), if has_bias { 6 } else { 5 });
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(want) {
                approx::assert_abs_diff_eq!(*got, *want, epsilon = 2e-6 * (1.0 + want.abs()));
            }
            assert!(want.iter().any(|x| x.abs() > 0.1), "result {i} of {y}×{x} is empty");
        }
    }
}

#[test]
fn blocks_with_an_offset_are_shifted_windows() {
    check_shifted_windows(&Cpu::new(), false);
    check_shifted_windows(&Cpu::new(), true);
}

/// A halo around single pixels is a window, and one block over the map is dense attention; so is a large window.
#[test]
fn some_windows_are_others() {
    let case = |window| Case { q: [1, 2, 6, 7, 5], e: 5, window, tables: None, ..PLAIN };
    let count: usize = PLAIN.q.iter().product::<usize>().max(6 * 7 * 2 * 5);
    let inputs = [1, 2, 3, 4].map(|seed| uniform(seed, count)[..6 * 7 * 2 * 5].to_vec());
    let inputs = inputs.each_ref().map(Vec::as_slice);
    let of = |window: Window| {
        let case = case(window);
        results(&Cpu::new(), &case, inputs, &vec![0.0; case.bias_shape().iter().product()])
    };
    let near = |a: Window, b: Window| {
        for (a, b) in of(a).iter().flatten().zip(of(b).iter().flatten()) {
            approx::assert_abs_diff_eq!(*a, *b, epsilon = 2e-6);
        }
    };
    near(blocks([1, 1], [0, 0], [2, 1]), Window::sliding([5, 3]));
    near(blocks([9, 8], [0, 0], [0, 0]), Window::sliding([13, 15]));
    near(blocks([6, 7], [0, 0], [0, 0]), blocks([2, 3], [1, 2], [6, 7]));
}

#[test]
fn refusals_of_windows() {
    let refused = |window: Window| {
        let config = LocalConfig { window, ..LocalConfig::default() };
        Local::new(config).unwrap_err().to_string()
    };
    let words = [
        (Window::sliding([41, 7]), "size` must be 1 to 33 keys along each axis, got [41, 7]"),
        (Window::sliding([3, 0]), "size` must be 1 to 33 keys along each axis, got [3, 0]"),
        (
            Sliding::new([4, 7]).at_border(Border::Shift).into(),
            "size` must be odd for border shift, got [4, 7]",
        ),
        (dilated([3, 3], [1, 0]), "dilation` must be 1 or more pixels along each axis, got [1, 0]"),
        (Window::blocks([0, 7]), "size` must be 1 or more pixels along each axis, got [0, 7]"),
        (blocks([7, 4], [3, 4], [0, 0]), "offset` must be less than the block, [7, 4], got [3, 4]"),
        (
            blocks([16, 8], [0, 0], [9, 4]),
            "size` must be at most 33 pixels along each axis, with the halo on both sides, got [16, 8] and a halo of [9, 4]",
        ),
        (
            blocks([1, 1], [0, 0], [usize::MAX, 0]),
            "size` must be at most 33 pixels along each axis, with the halo on both sides, got [1, 1] and a halo of \
             [18446744073709551615, 0]",
        ),
    ];
    for (window, words) in words {
        assert_eq!(refused(window), format!("local: `window.{words}"));
    }

    let shift = Sliding::new([3, 5]).dilated([2, 3]).at_border(Border::Shift);
    let op = Local::new(LocalConfig { window: shift.into(), ..LocalConfig::default() }).unwrap();
    let t = Tensor::from_vec(vec![0.0f32; 6 * 14], [1, 1, 6, 14, 1]).unwrap();
    assert_eq!(
        op.forward(&Cpu::new(), &t, &t, &t, Positions::default()).err().unwrap().to_string(),
        "local: `window.size` must be at most what the map, [6, 14], holds at dilation [2, 3], for border shift, got [3, 5]"
    );
    let op = Local::new(LocalConfig { window: Window::blocks([2, 2]), ..LocalConfig::default() }).unwrap();
    let bias = Tensor::from_vec(vec![0.0f32; 6], [1, 3, 2]).unwrap();
    let positions = Positions { tables: None, bias: Some(&bias) };
    assert_eq!(
        op.forward(&Cpu::new(), &t, &t, &t, positions).err().unwrap().to_string(),
        "local: `bias` must be of shape [1, 3, 3], got [1, 3, 2]"
    );
}

/// Bits do not depend on the number of threads, for the windows that have their own loops.
#[test]
fn same_bits_on_one_thread_and_on_three() {
    let windows = [dilated([5, 3], [2, 3]), blocks([4, 5], [1, 2], [2, 1])];
    for window in windows {
        let case = Case { q: [1, 2, 37, 11, 8], window, bias: Some(false), ..PLAIN };
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            run::<f32>(&Cpu::with_pool(std::sync::Arc::new(pool)), &case).unwrap()
        };
        assert!(with(1) == with(3), "{window:?}");
    }
}
