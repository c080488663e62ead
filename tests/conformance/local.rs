//! The op `local` on CUDA devices.

use crate::common::cuda::{assert_all_executed, devices, with_scratch, with_settings};
use crate::common::memory::{Lies, Memory, layout};
use crate::local::windows::{check_shifted_windows, empty_maps};
use crate::local::{
    Bits, Case, Inputs, PLAIN, cases, check_dense_attention, check_neighbourhood, results, run,
};
use half::{bf16, f16};
use macula::local::{Backward, Blocks, Border, Forward, Relative, Sliding, Tables};
use macula::{Cuda, DType, Element, Layout, Local, View, ViewMut};
use ptx_emulator::TensorMode;

/// Every case under two orders of warps, taking turns on the devices; the plain one on all, under every rounding.
fn conformance<T: Element>() {
    let devices = devices();
    for (turn, case) in cases().chain(super::local_bias::cases()).enumerate() {
        let is_plain = case.name == "plain";
        for (ordinal, on) in devices.iter().enumerate() {
            if !is_plain && turn % devices.len() != ordinal {
                continue;
            }
            let of = |seed, mode| {
                with_settings(seed, mode, || run::<T>(on, &case))
                    .unwrap_or_else(|e| panic!("device {ordinal}: {e}"))
            };
            let first = of(0, TensorMode::Exact);
            // The same bits are as right, and need no judge.
            let second = with_settings(17, TensorMode::Exact, || results::<T>(on, &case))
                .unwrap_or_else(|e| panic!("device {ordinal}: {e}"));
            assert!(first == second.bits(), "device {ordinal}, {}: other bits", case.name);
            if is_plain && T::DTYPE != DType::F32 {
                of(0, TensorMode::Sm80);
                of(0, TensorMode::Sm90);
            }
        }
    }
    let dtype = format!("_{}", T::DTYPE);
    assert_all_executed(|name| name.starts_with("local_") && name.contains(&dtype));
}

#[test]
fn cuda_f32() {
    conformance::<f32>();
}

#[test]
fn cuda_f16() {
    conformance::<f16>();
}

#[test]
fn cuda_bf16() {
    conformance::<bf16>();
}

#[test]
fn window_over_the_map_is_dense_attention_on_cuda() {
    check_dense_attention(&devices()[0]);
}

#[test]
fn blocks_with_an_offset_are_shifted_windows_on_cuda() {
    check_shifted_windows(&devices()[0], false);
}

#[test]
fn shift_is_the_neighbourhood_on_cuda() {
    check_neighbourhood(&devices()[0]);
}

/// Runs a case on tensors that lie so: outputs and workspace poisoned, guards around everything. `wants`: dq, dk, dv, drel_h,
/// drel_w; what is not wanted comes back empty.
fn run_into<T: Element>(on: &Cuda, case: &Case, lies: Lies, wants: [bool; 5]) -> Result<Bits, String> {
    let explain = |e: macula::Error| format!("{} {:?} {lies:?} {wants:?}: {e}", case.name, case.window);
    let op = Local::new(case.config()).map_err(explain)?;
    let inputs = Inputs::<T>::of(case);
    let [of_q, of_v] = [case.q, case.v_shape()].map(|shape| lies.layout(shape));
    let of_tables: [Layout<3>; 2] = match lies {
        Lies::Contiguous => case.table_shapes().map(|shape| layout(shape, 0, [false; 3])),
        _ => [0, 1].map(|i| layout(case.table_shapes()[i], 40 + i as u64, [false; 3])),
    };
    let [b, h, y, x, _] = case.q;
    let of_lse = layout([b, h, y, x], 0, [false; 4]);

    let held = |layout, values: &[T]| Memory::holding(layout, values).upload(on);
    let (q, k) = (held(of_q, &inputs.q), held(of_q, &inputs.k));
    let (v, d_o) = (held(of_v, &inputs.v), held(of_v, &inputs.d_o));
    let tables =
        inputs.tables.as_ref().map(|t| [0, 1].map(|i| Memory::holding(of_tables[i], &t[i]).upload(on)));
    let view = |slice, layout| View::<T, 5>::new(slice, layout).map_err(explain);
    let lent = || {
        let Some(tables) = &tables else { return Ok(None) };
        let of = |i: usize| View::<T, 3>::new(&tables[i], of_tables[i]).map_err(explain);
        Ok::<_, String>(Some(Tables { rel_h: of(0)?, rel_w: of(1)? }))
    };

    let mut o = Memory::<T, 5>::poisoned(of_v);
    let mut lse = Memory::<f32, 4>::poisoned(of_lse);
    let (mut o_on, mut lse_on) = (o.upload(on), lse.upload(on));
    let args = Forward {
        q: view(&q, of_q)?,
        k: view(&k, of_q)?,
        v: view(&v, of_v)?,
        tables: lent()?,
        bias: None,
        o: ViewMut::new(&mut o_on, of_v).map_err(explain)?,
        lse: Some(ViewMut::new(&mut lse_on, of_lse).map_err(explain)?),
    };
    let bytes = op.plan_fwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch).map_err(explain))?;

    let mut grads = [of_q, of_q, of_v].map(Memory::<T, 5>::poisoned);
    let mut dtables = of_tables.map(Memory::<f32, 3>::poisoned);
    let mut grads_on = grads.each_ref().map(|grad| grad.upload(on));
    let mut dtables_on = dtables.each_ref().map(|grad| grad.upload(on));
    let [dq, dk, dv] = &mut grads_on;
    let [drel_h, drel_w] = &mut dtables_on;
    let wants_table = [3, 4].map(|i| wants[i] && tables.is_some());
    let args = Backward {
        q: view(&q, of_q)?,
        k: view(&k, of_q)?,
        v: view(&v, of_v)?,
        tables: lent()?,
        bias: None,
        o: view(&o_on, of_v)?,
        lse: View::new(&lse_on, of_lse).map_err(explain)?,
        d_o: view(&d_o, of_v)?,
        dq: wants[0].then(|| ViewMut::new(dq, of_q)).transpose().map_err(explain)?,
        dk: wants[1].then(|| ViewMut::new(dk, of_q)).transpose().map_err(explain)?,
        dv: wants[2].then(|| ViewMut::new(dv, of_v)).transpose().map_err(explain)?,
        drel_h: wants_table[0].then(|| ViewMut::new(drel_h, of_tables[0])).transpose().map_err(explain)?,
        drel_w: wants_table[1].then(|| ViewMut::new(drel_w, of_tables[1])).transpose().map_err(explain)?,
        dbias: None,
    };
    let bytes = op.plan_bwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch).map_err(explain))?;

    o.download(on, &o_on);
    o.check_guards("o")?;
    lse.download(on, &lse_on);
    lse.check_guards("lse")?;
    let mut bits = vec![bytes_of(&o.values()), bytes_of(&lse.values())];
    for (i, (grad, from)) in grads.iter_mut().zip(&grads_on).enumerate() {
        grad.download(on, from);
        grad.check_guards(["dq", "dk", "dv"][i])?;
        bits.push(if wants[i] { bytes_of(&grad.values()) } else { Vec::new() });
    }
    for (i, (grad, from)) in dtables.iter_mut().zip(&dtables_on).enumerate().filter(|_| tables.is_some()) {
        grad.download(on, from);
        grad.check_guards(["drel_h", "drel_w"][i])?;
        bits.push(if wants_table[i] { bytes_of(&grad.values()) } else { Vec::new() });
    }
    Ok(bits)
}

fn bytes_of<T: Element>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

fn same_everywhere<T: Element>(on: &Cuda, case: &Case) {
    let plain = run::<T>(on, case).unwrap();
    for lies in [Lies::Contiguous, Lies::HeadsLast(16), Lies::HeadsLast(3), Lies::Gaps] {
        let got = run_into::<T>(on, case, lies, [true; 5]).unwrap();
        assert!(got == plain, "{} {case:?} {lies:?}: other bits", T::DTYPE);
    }
}

/// Wherever tensors lie, the bits are those of contiguous ones.
fn layouts<T: Element>() {
    let on = &devices()[0];
    for border in Border::ALL {
        for relative in [Relative::Concat, Relative::Sum] {
            let tables = Some((relative, true));
            let window = Sliding::new([5, 3]).at_border(border).into();
            let case = Case { q: [2, 3, 5, 9, 16], e: 24, window, tables, ..PLAIN };
            let odd = Case { q: [2, 2, 6, 5, 7], e: 9, ..case };
            for case in [case, odd] {
                same_everywhere::<T>(on, &case);
            }
        }
    }
}

/// The same where strides are multiplied, and where tiles begin outside the map.
#[test]
fn layouts_of_dilated_windows_and_blocks() {
    let on = &devices()[0];
    let dilated = Sliding::new([3, 5]).dilated([2, 3]).into();
    let blocks = Blocks::new([4, 3]).offset_by([1, 2]).with_halo([0, 1]).into();
    for window in [dilated, blocks] {
        let case = Case { q: [2, 2, 9, 7, 16], e: 24, window, tables: Some((Relative::Sum, true)), ..PLAIN };
        same_everywhere::<f32>(on, &case);
        same_everywhere::<f16>(on, &case);
    }
}

#[test]
fn layouts_f32() {
    layouts::<f32>();
}

#[test]
fn layouts_f16() {
    layouts::<f16>();
}

/// A gradient is the same whichever others are wanted, and one that is not wanted is not touched.
#[test]
fn gradients_are_optional() {
    fn check<T: Element>(on: &Cuda, case: &Case) {
        let plain = run::<T>(on, case).unwrap();
        for wanted in 0..1u32 << 5 {
            let wants = [0, 1, 2, 3, 4].map(|i| wanted >> i & 1 == 1);
            let got = run_into::<T>(on, case, Lies::Contiguous, wants).unwrap();
            for (i, (got, plain)) in got.iter().zip(&plain).enumerate() {
                let is_wanted = i < 2 || wants[i - 2];
                assert!(got == if is_wanted { plain } else { &[][..] }, "{wants:?}: result {i}");
            }
        }
    }
    let on = &devices()[0];
    for tables in [None, Some((Relative::Concat, false)), Some((Relative::Concat, true))] {
        let case = Case { q: [1, 2, 5, 6, 8], tables, ..PLAIN };
        check::<f32>(on, &case);
        check::<f16>(on, &case);
    }
    // Two kinds of blocks, one for each of dk and dv.
    check::<bf16>(on, &Case { q: [1, 1, 3, 4, 96], e: 80, ..PLAIN });
}

#[test]
fn empty_maps_give_zero_table_gradients() {
    let on = &devices()[0];
    for (q, window) in empty_maps() {
        let case = Case { q, e: 4, window, tables: Some((Relative::Concat, false)), ..PLAIN };
        let got = run_into::<f32>(on, &case, Lies::Contiguous, [true; 5]).unwrap();
        assert!(!got[5].is_empty() && got[5..].iter().flatten().all(|&byte| byte == 0), "{q:?}");
    }
}
