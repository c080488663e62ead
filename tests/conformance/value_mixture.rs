//! The op `value_mixture` on CUDA devices.

use crate::common::cuda::{assert_all_executed, devices, with_scratch, with_settings};
use crate::common::memory::{Memory, layout};
use crate::value_mixture::{CASES, Case, Lies, Results, tables};
use half::{bf16, f16};
use macula::value_mixture::{Backward, Forward};
use macula::{Cuda, Element, Layout, ValueMixture, View, ViewMut};
use ptx_emulator::TensorMode;

/// Every case under two orders of warps, taking turns on the devices: plans are the same on all of them.
fn conformance<T: Element>() {
    let devices = devices();
    for (turn, case) in CASES.iter().enumerate() {
        let (ordinal, mode) = (turn % devices.len(), TensorMode::Exact);
        let of = |seed| {
            let run = || run_into::<T>(&devices[ordinal], case, &case.contiguous(), [true; 4]);
            with_settings(seed, mode, run).unwrap_or_else(|e| panic!("device {ordinal}: {e}"))
        };
        let first = of(0);
        case.judge(&first).unwrap_or_else(|e| panic!("device {ordinal}: {e}"));
        assert!(first == of(17), "device {ordinal}, {}: other bits", case.name);
    }
    let dtype = format!("_{}", T::DTYPE);
    assert_all_executed(|name| name.starts_with("value_mixture_") && name.contains(&dtype));
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

/// On device memory that lies so, with guards around everything and poison in outputs and scratch; gradients that are not
/// wanted (of vs, emb_row, emb_col, nu) stay poison.
fn run_into<T: Element>(on: &Cuda, case: &Case, lies: &Lies, wants: [bool; 4]) -> Result<Results<T>, String> {
    let explain = |e: macula::Error| format!("{case:?}: {e}");
    let data = case.data::<T>();
    let vs = Memory::holding(lies.vs, &data.vs).upload(on);
    let d_o = Memory::holding(lies.o, &data.d_o).upload(on);
    let given = [0, 1, 2].map(|i| Memory::holding(lies.tables[i], &data.tables[i]).upload(on));
    let view = |i: usize| View::new(&given[i], lies.tables[i]).unwrap();
    let of_p = layout(case.p(), 0, [false; 3]);
    let (mut o, mut p) = (Memory::<T, 5>::poisoned(lies.o), Memory::<f32, 3>::poisoned(of_p));
    let (mut o_on, mut p_on) = (o.upload(on), p.upload(on));
    let args = Forward {
        vs: View::new(&vs, lies.vs).map_err(explain)?,
        tables: tables([0, 1, 2].map(view)),
        o: ViewMut::new(&mut o_on, lies.o).map_err(explain)?,
        p: Some(ViewMut::new(&mut p_on, of_p).map_err(explain)?),
    };
    let op = ValueMixture::new();
    let bytes = op.plan_fwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch).map_err(explain))?;

    let mut dvs = Memory::<T, 6>::poisoned(lies.vs);
    let mut dtables = lies.tables.map(Memory::<f32, 2>::poisoned);
    let mut dvs_on = dvs.upload(on);
    let mut dtables_on = dtables.each_ref().map(|grad| grad.upload(on));
    let mut grads = dtables_on.iter_mut().zip(lies.tables).zip(&wants[1..]);
    let dtables_into = [(); 3].map(|()| {
        let ((grad, lies), wanted) = grads.next().unwrap();
        wanted.then(|| ViewMut::new(grad, lies).unwrap())
    });
    let args = Backward {
        vs: View::new(&vs, lies.vs).map_err(explain)?,
        tables: tables([0, 1, 2].map(view)),
        d_o: View::new(&d_o, lies.o).map_err(explain)?,
        dvs: wants[0].then(|| ViewMut::new(&mut dvs_on, lies.vs).unwrap()),
        dtables: tables(dtables_into),
    };
    let bytes = op.plan_bwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch).map_err(explain))?;

    o.download(on, &o_on);
    p.download(on, &p_on);
    dvs.download(on, &dvs_on);
    dtables.iter_mut().zip(&dtables_on).for_each(|(grad, from)| grad.download(on, from));
    o.check_guards("o")?;
    p.check_guards("p")?;
    dvs.check_guards("dvs")?;
    dtables.iter().try_for_each(|grad| grad.check_guards("a gradient of a table"))?;
    let dtables = dtables.each_ref().map(Memory::values);
    Ok(Results { o: o.values(), p: p.values(), dvs: dvs.values(), dtables })
}

/// A projection's output seen as vs, so that heads follow each other in memory; odd gaps, rows and mixtures backwards.
fn layouts(case: &Case) -> [Lies; 2] {
    let ([m, b, h, y, x, e], plain) = (case.vs, case.contiguous());
    let mut vs = Layout::contiguous([b, y, x, m, h, e]).permute([3, 0, 4, 1, 2, 5]).unwrap();
    let mut o = Layout::contiguous([b, y, x, h, e]).permute([0, 3, 1, 2, 4]).unwrap();
    (vs.offset, o.offset) = (16, 32);
    let heads_last = Lies { vs, o, ..plain };
    let pixel = e as isize + 1;
    let row = x as isize * pixel + 3;
    let (head, image) = (y as isize * row, (h * y) as isize * row);
    let map = b as isize * image + 1;
    let backwards = (y - 1) * row as usize + (m - 1) * map as usize + 5;
    let vs = Layout::strided(case.vs, [-map, image, head, -row, pixel, 1], backwards);
    let o = Layout::strided(case.o(), [image, head, -row, pixel, 1], (y - 1) * row as usize + 5);
    // Tables by channel, their rows backwards.
    let turned = plain.tables.map(|table| {
        let [rows, r] = table.shape;
        Layout::strided([rows, r], [-1, rows as isize + 2], rows + 3)
    });
    [heads_last, Lies { vs, o, tables: turned }]
}

fn bytes_of<T: Element>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// Outputs are the same bits however the tensors lie. Sums for the tables follow the threads, and so the layout: they are
/// judged.
fn any_strides<T: Element>() {
    let on = &devices()[0];
    for e in [4, 16, 7] {
        let case = Case { vs: [5, 2, 3, 5, 6, e], sites: [2, 4], ..CASES[0] };
        let first = run_into::<T>(on, &case, &case.contiguous(), [true; 4]).unwrap();
        for (i, lies) in layouts(&case).iter().enumerate() {
            let got = run_into::<T>(on, &case, lies, [true; 4]).unwrap();
            case.judge(&got).unwrap_or_else(|e| panic!("layout {i}: {e}"));
            assert!(bytes_of(&got.o) == bytes_of(&first.o), "e {e}, layout {i}");
            assert!(bytes_of(&got.dvs) == bytes_of(&first.dvs), "e {e}, layout {i}");
        }
    }
}

#[test]
fn any_strides_f32() {
    any_strides::<f32>();
}

#[test]
fn any_strides_f16() {
    any_strides::<f16>();
}

/// One that is wanted alone is the same, and the others are left alone.
#[test]
fn gradients_are_optional() {
    let on = &devices()[0];
    let case = Case { vs: [5, 1, 2, 4, 6, 8], ..CASES[0] };
    let run = |wants| run_into::<f32>(on, &case, &case.contiguous(), wants).unwrap();
    let of = |got: Results<f32>| {
        let [row, column, nu] = got.dtables;
        [got.dvs, row, column, nu]
    };
    let whole = of(run([true; 4]));
    for k in 0..4 {
        let got = of(run([0, 1, 2, 3].map(|i| i == k)));
        for i in 0..4 {
            assert!(if i == k { got[i] == whole[i] } else { got[i].iter().all(|x| x.is_nan()) });
        }
    }
    assert!(of(run([false; 4])).concat().iter().all(|x| x.is_nan()));
}

/// Weights come all the same, and gradients of the tables are 0.
#[test]
fn empty_maps() {
    let on = &devices()[0];
    for axis in 1..5 {
        let mut case = CASES[0];
        case.vs[axis] = 0;
        let got = case.run::<f32>(on).unwrap();
        let want = case.run::<f32>(&macula::Cpu::new()).unwrap();
        for (got, want) in got.p.iter().zip(&want.p) {
            approx::assert_abs_diff_eq!(*got, *want, epsilon = 1e-6);
        }
        assert!(got.dtables.concat().iter().all(|x| *x == 0.0));
    }
}
