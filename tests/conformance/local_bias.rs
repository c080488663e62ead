//! The bias of the op `local` on CUDA devices.

use crate::common::cuda::{devices, with_scratch, with_settings};
use crate::common::memory::{Memory, layout};
use crate::local::{Bits, Case, Inputs, PLAIN, run, with_borders};
use half::f16;
use macula::local::{Backward, Border, Forward, Relative, Sliding, Window};
use macula::{Cuda, Element, Layout, Local, View, ViewMut};
use ptx_emulator::TensorMode;

const SUMMED: Option<(Relative, bool)> = Some((Relative::Sum, false));

/// Every class of channels, for patches of one height and of two, and what is odd about bias tables.
pub const CASES: &[Case] = &[
    Case { name: "bias_per_head", q: [2, 3, 6, 5, 8], bias: Some(true), tables: None, ..PLAIN },
    Case {
        name: "bias_d32",
        q: [1, 2, 9, 10, 32],
        e: 24,
        window: Window::sliding([5, 7]),
        bias: Some(true),
        ..PLAIN
    },
    Case {
        name: "bias_d64",
        q: [1, 2, 7, 9, 64],
        e: 40,
        window: Window::sliding([7, 7]),
        bias: Some(true),
        tables: None,
        ..PLAIN
    },
    Case {
        name: "bias_d128",
        q: [1, 2, 5, 6, 128],
        e: 72,
        window: Window::sliding([3, 5]),
        bias: Some(true),
        tables: SUMMED,
        ..PLAIN
    },
    Case {
        name: "bias_d128_alone",
        q: [1, 1, 6, 5, 100],
        e: 128,
        window: Window::sliding([5, 3]),
        bias: Some(false),
        tables: None,
        ..PLAIN
    },
    Case {
        name: "bias_tall_d32",
        q: [1, 1, 14, 13, 32],
        e: 32,
        window: Window::sliding([13, 13]),
        bias: Some(false),
        tables: None,
        ..PLAIN
    },
    Case {
        name: "bias_tall_d64",
        q: [1, 1, 11, 10, 64],
        e: 48,
        window: Window::sliding([9, 9]),
        bias: Some(false),
        tables: SUMMED,
        ..PLAIN
    },
    Case {
        name: "bias_odd_everything",
        q: [1, 2, 5, 9, 13],
        e: 11,
        window: Window::sliding([4, 2]),
        bias: Some(true),
        ..PLAIN
    },
    Case {
        name: "bias_past_grid",
        q: [1, 1, 4, 5, 16],
        window: Window::sliding([11, 9]),
        bias: Some(false),
        tables: None,
        ..PLAIN
    },
    Case {
        name: "bias_tallest",
        q: [1, 1, 36, 5, 8],
        window: Window::sliding([33, 3]),
        bias: Some(false),
        tables: None,
        ..PLAIN
    },
    Case {
        name: "bias_widest",
        q: [1, 1, 5, 36, 8],
        window: Window::sliding([3, 33]),
        bias: Some(false),
        ..PLAIN
    },
    Case {
        name: "bias_of_many_small_planes",
        q: [5, 6, 2, 3, 8],
        e: 4,
        window: Window::sliding([3, 3]),
        bias: Some(true),
        tables: None,
        ..PLAIN
    },
    Case {
        name: "bias_of_many_tiles",
        q: [1, 1, 130, 129, 2],
        e: 2,
        window: Window::sliding([3, 1]),
        bias: Some(false),
        tables: None,
        ..PLAIN
    },
    Case {
        name: "bias_of_more_heads_than_partials",
        q: [9, 260, 1, 2, 2],
        e: 1,
        window: Window::sliding([1, 3]),
        bias: Some(true),
        tables: None,
        ..PLAIN
    },
    Case {
        name: "bias_and_tables_of_more_heads_than_partials",
        q: [9, 260, 1, 2, 2],
        e: 1,
        window: Window::sliding([1, 3]),
        bias: Some(true),
        tables: SUMMED,
        ..PLAIN
    },
    Case { name: "bias_of_negative_scale", scale: -1.5, bias: Some(true), ..PLAIN },
    Case { name: "large_bias", q: [1, 1, 6, 6, 16], size: 12.0, bias: Some(false), ..PLAIN },
];

pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().flat_map(with_borders)
}

/// Runs a case without tables on a bias that lies so, outputs and workspace poisoned, guards around everything. `wants`: dq, dk,
/// dv, dbias; what is not wanted comes back empty.
fn run_into<T: Element>(
    on: &Cuda,
    case: &Case,
    inputs: &Inputs<T>,
    of_bias: Layout<3>,
    wants: [bool; 4],
) -> Result<Bits, String> {
    let explain = |e: macula::Error| format!("{} {:?} {wants:?}: {e}", case.name, case.window);
    let op = Local::new(case.config()).map_err(explain)?;
    let [b, h, y, x, _] = case.q;
    let [of_q, of_v] = [case.q, case.v_shape()].map(|shape| layout(shape, 0, [false; 5]));
    let of_lse = layout([b, h, y, x], 0, [false; 4]);
    let held = |layout, values: &[T]| Memory::holding(layout, values).upload(on);
    let (q, k) = (held(of_q, &inputs.q), held(of_q, &inputs.k));
    let (v, d_o) = (held(of_v, &inputs.v), held(of_v, &inputs.d_o));
    let bias = Memory::holding(of_bias, inputs.bias.as_deref().unwrap()).upload(on);
    let view = |slice, layout| View::<T, 5>::new(slice, layout).map_err(explain);

    let mut o = Memory::<T, 5>::poisoned(of_v);
    let mut lse = Memory::<f32, 4>::poisoned(of_lse);
    let (mut o_on, mut lse_on) = (o.upload(on), lse.upload(on));
    let args = Forward {
        q: view(&q, of_q)?,
        k: view(&k, of_q)?,
        v: view(&v, of_v)?,
        tables: None,
        bias: Some(View::new(&bias, of_bias).map_err(explain)?),
        o: ViewMut::new(&mut o_on, of_v).map_err(explain)?,
        lse: Some(ViewMut::new(&mut lse_on, of_lse).map_err(explain)?),
    };
    let bytes = op.plan_fwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch).map_err(explain))?;

    let mut grads = [of_q, of_q, of_v].map(Memory::<T, 5>::poisoned);
    let mut dbias = Memory::<f32, 3>::poisoned(of_bias);
    let mut grads_on = grads.each_ref().map(|grad| grad.upload(on));
    let mut dbias_on = dbias.upload(on);
    let [dq, dk, dv] = &mut grads_on;
    let args = Backward {
        q: view(&q, of_q)?,
        k: view(&k, of_q)?,
        v: view(&v, of_v)?,
        tables: None,
        bias: Some(View::new(&bias, of_bias).map_err(explain)?),
        o: view(&o_on, of_v)?,
        lse: View::new(&lse_on, of_lse).map_err(explain)?,
        d_o: view(&d_o, of_v)?,
        dq: wants[0].then(|| ViewMut::new(dq, of_q)).transpose().map_err(explain)?,
        dk: wants[1].then(|| ViewMut::new(dk, of_q)).transpose().map_err(explain)?,
        dv: wants[2].then(|| ViewMut::new(dv, of_v)).transpose().map_err(explain)?,
        drel_h: None,
        drel_w: None,
        dbias: wants[3].then(|| ViewMut::new(&mut dbias_on, of_bias)).transpose().map_err(explain)?,
    };
    let bytes = op.plan_bwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch).map_err(explain))?;

    o.download(on, &o_on);
    o.check_guards("o")?;
    lse.download(on, &lse_on);
    lse.check_guards("lse")?;
    let mut bits =
        vec![bytemuck::cast_slice(&o.values()).to_vec(), bytemuck::cast_slice(&lse.values()).to_vec()];
    for (i, (grad, from)) in grads.iter_mut().zip(&grads_on).enumerate() {
        grad.download(on, from);
        grad.check_guards(["dq", "dk", "dv"][i])?;
        bits.push(if wants[i] { bytemuck::cast_slice(&grad.values()).to_vec() } else { Vec::new() });
    }
    dbias.download(on, &dbias_on);
    dbias.check_guards("dbias")?;
    bits.push(if wants[3] { bytemuck::cast_slice(&dbias.values()).to_vec() } else { Vec::new() });
    Ok(bits)
}

/// Every window and border: without tables, kernels with a bias find out for themselves which keys a query sees.
#[test]
fn bias_alone_at_every_window() {
    let devices = devices();
    for (turn, case) in crate::local::cases().filter(|case| case.bias.is_none()).enumerate() {
        let case = Case { tables: None, bias: Some(turn % 2 == 0), ..case };
        let ordinal = turn % devices.len();
        with_settings(0, TensorMode::Exact, || run::<f16>(&devices[ordinal], &case))
            .unwrap_or_else(|e| panic!("device {ordinal}: {e}"));
    }
}

fn contiguous(case: &Case) -> Layout<3> {
    layout(case.bias_shape(), 0, [false; 3])
}

/// Wherever the bias lies, the bits are the same; and so is a gradient, whichever others are wanted.
fn lies_and_wants<T: Element>() {
    let on = &devices()[0];
    for border in Border::ALL {
        let window = Sliding::new([5, 3]).at_border(border).into();
        let case = Case { q: [2, 3, 5, 9, 8], e: 12, window, tables: None, bias: Some(true), ..PLAIN };
        let (plain, inputs) = (run::<T>(on, &case).unwrap(), Inputs::<T>::of(&case));
        for of_bias in [contiguous(&case), layout(case.bias_shape(), 41, [false; 3])] {
            let got = run_into::<T>(on, &case, &inputs, of_bias, [true; 4]).unwrap();
            assert!(got == plain, "{border:?}: other bits");
        }
        for wanted in 0..1u32 << 4 {
            let wants = [0, 1, 2, 3].map(|i| wanted >> i & 1 == 1);
            let got = run_into::<T>(on, &case, &inputs, contiguous(&case), wants).unwrap();
            for (i, (got, plain)) in got.iter().zip(&plain).enumerate() {
                let is_wanted = i < 2 || wants[i - 2];
                assert!(got == if is_wanted { plain } else { &[][..] }, "{wants:?}: result {i}");
            }
        }
    }
}

#[test]
fn bias_in_any_place_for_any_gradient_f32() {
    lies_and_wants::<f32>();
}

#[test]
fn bias_in_any_place_for_any_gradient_f16() {
    lies_and_wants::<f16>();
}

/// What no query reads may hold anything, also where a tile's queries outside the map would read it.
#[test]
fn entries_that_nobody_reads_reach_nothing() {
    fn check<T: Element>(on: &Cuda, case: &Case) {
        let [_, _, y, x, _] = case.q;
        let [_, rows, columns] = case.bias_shape();
        let mut inputs = Inputs::<T>::of(case);
        let is_read = |at: usize| {
            let reaches = |slot: usize, count: usize, size: usize| slot.abs_diff((count - 1) / 2) < size;
            reaches(at / columns % rows, rows, y) && reaches(at % columns, columns, x)
        };
        let bits = |inputs: &Inputs<T>| run_into::<T>(on, case, inputs, contiguous(case), [true; 4]).unwrap();
        let plain = bits(&inputs);
        for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let bias = inputs.bias.as_mut().unwrap();
            bias.iter_mut().enumerate().filter(|(at, _)| !is_read(*at)).for_each(|(_, b)| *b = poison);
            assert!(bits(&inputs) == plain, "{}: {poison} leaks", T::DTYPE);
        }
        let dbias: &[f32] = bytemuck::cast_slice(&plain[5]);
        let mut unread = (0..dbias.len()).filter(|&at| !is_read(at)).peekable();
        assert!(unread.peek().is_some() && unread.all(|at| dbias[at] == 0.0));
    }
    let on = &devices()[0];
    for size in [[11, 9], [5, 13]] {
        let window = Window::sliding(size);
        let case = Case { q: [1, 2, 3, 5, 8], e: 8, window, tables: None, bias: Some(true), ..PLAIN };
        check::<f32>(on, &case);
        check::<f16>(on, &case);
    }
}

/// −∞ hides a key, as a number far below all others does; a query without any key has no average.
#[test]
fn minus_infinity_hides() {
    let on = &devices()[0];
    let case = Case { tables: None, bias: Some(false), ..PLAIN };
    let with = |hidden: &[usize], bias: f32| {
        let mut inputs = Inputs::<f32>::of(&case);
        hidden.iter().for_each(|&at| inputs.bias.as_mut().unwrap()[at] = bias);
        run_into::<f32>(on, &case, &inputs, contiguous(&case), [true; 4]).unwrap()
    };
    assert!(with(&[1, 3, 8], f32::NEG_INFINITY) == with(&[1, 3, 8], -1e30));
    let nothing = with(&[0, 1, 2, 3, 4, 5, 6, 7, 8], f32::NEG_INFINITY);
    let of = |i: usize| bytemuck::pod_collect_to_vec::<u8, f32>(&nothing[i]);
    assert!(of(0).iter().all(|o| o.is_nan()), "o");
    assert!(of(1).iter().all(|lse| *lse == f32::NEG_INFINITY), "lse");
}
