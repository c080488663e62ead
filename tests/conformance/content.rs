//! The op `content` on CUDA devices.

use crate::common::cuda::{assert_all_executed, devices, with_scratch, with_settings};
use crate::common::memory::{Memory, layout};
use crate::common::random;
use crate::content::{CASES, Case, results, run};
use half::{bf16, f16};
use macula::content::{
    Backward, BackwardProblem, ContentConfig, FeatureMap, Form, Forward, ForwardProblem, Saved,
};
use macula::{Content, Cuda, DType, Element, Layout, Tensor, View, ViewMut};
use ptx_emulator::TensorMode;

/// Cases that are large for the emulator: long enough for every way to split positions.
const LARGE: &[Case] = &[
    Case { name: "many_splits", q: [1, 1, 3, 4, 16], keys: [37, 41], e: 24, size: 1.0 },
    Case { name: "splits_of_wide_sums", q: [1, 1, 2, 9, 128], keys: [16, 25], e: 120, size: 1.0 },
    Case { name: "wide_sums", q: [1, 1, 2, 9, 72], keys: [20, 30], e: 72, size: 6.0 },
];

/// Every case in every form under two orders of warps, taking turns on the devices; the plain one on all, under every
/// rounding.
fn conformance<T: Element>() {
    let devices = devices();
    let cases = CASES.iter().chain(LARGE).flat_map(|case| Form::ALL.map(|form| (case, form)));
    for (turn, (case, form)) in cases.enumerate() {
        let is_plain = case.name == "plain";
        for (ordinal, on) in devices.iter().enumerate() {
            if !is_plain && turn % devices.len() != ordinal {
                continue;
            }
            let of = |seed, mode| {
                with_settings(seed, mode, || run::<T>(on, case, form))
                    .unwrap_or_else(|e| panic!("device {ordinal}: {e}"))
            };
            let first = of(0, TensorMode::Exact);
            // The same bits are as right, and need no judge.
            let second = with_settings(17, TensorMode::Exact, || results::<T>(on, case, form))
                .unwrap_or_else(|e| panic!("device {ordinal}: {e}"));
            assert!(first == second.bits(), "device {ordinal}, {}: other bits", case.name);
            if is_plain && T::DTYPE != DType::F32 {
                of(0, TensorMode::Sm80);
                of(0, TensorMode::Sm90);
            }
        }
    }
    let dtype = format!("_{}", T::DTYPE);
    assert_all_executed(|name| name.starts_with("content_") && name.contains(&dtype));
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

/// Sums of more than 1024 terms per warp leave the tensor core on their way.
#[test]
fn long_sums() {
    let case = Case { name: "long_sums", q: [4, 8, 1, 1, 128], keys: [26, 40], e: 128, size: 3.0 };
    let on = &devices()[0];
    with_settings(0, TensorMode::Sm80, || run::<f16>(on, &case, Form::default())).unwrap();
}

/// How the tensors of a call lie in memory.
fn layouts(shape: [usize; 5]) -> [Layout<5>; 3] {
    let [b, h, y, x, d] = shape;
    let mut heads_last = Layout::contiguous([b, y, x, h, d]).permute([0, 3, 1, 2, 4]).unwrap();
    heads_last.offset = 3;
    // Rows and pixels with odd gaps, rows backwards: nothing is aligned to 16 bytes.
    let pixel = d as isize + 1;
    let row = x as isize * pixel + 3;
    let (head, image) = (y as isize * row, (h * y) as isize * row);
    let gaps = Layout::strided(shape, [image, head, -row, pixel, 1], (y - 1) * row as usize + 5);
    [layout(shape, 0, [false; 5]), heads_last, gaps]
}

/// Forward into memory of these layouts (of q, k, v, o), with guards around everything and poison in outputs and scratch.
fn forward_into<T: Element>(
    on: &Cuda,
    form: Form,
    lies: [Layout<5>; 4],
    saves: bool,
) -> Result<Vec<T>, String> {
    let explain = |e: macula::Error| e.to_string();
    let holding = |i: usize| Memory::holding(lies[i], &random::<T>(i as u64, lies[i].len(), 1.0));
    let inputs = [0, 1, 2].map(|i| holding(i).upload(on));
    let [b, h, _, _, d] = lies[0].shape;
    let e = lies[2].shape[4];
    let mut o = Memory::<T, 5>::poisoned(lies[3]);
    let mut summary = Memory::<f32, 4>::poisoned(layout([b, h, d, e], 0, [false; 4]));
    let stats = layout([b, h, d], 0, [false; 3]);
    let (mut max, mut sum) = (Memory::<f32, 3>::poisoned(stats), Memory::<f32, 3>::poisoned(stats));
    let (mut o_on, mut summary_on) = (o.upload(on), summary.upload(on));
    let (mut max_on, mut sum_on) = (max.upload(on), sum.upload(on));
    let view = |i: usize| View::new(&inputs[i], lies[i]).map_err(explain);
    let saved = Saved {
        summary: ViewMut::new(&mut summary_on, layout([b, h, d, e], 0, [false; 4])).map_err(explain)?,
        max: ViewMut::new(&mut max_on, stats).map_err(explain)?,
        sum: ViewMut::new(&mut sum_on, stats).map_err(explain)?,
    };
    let o_view = ViewMut::new(&mut o_on, lies[3]).map_err(explain)?;
    let args = Forward { q: view(0)?, k: view(1)?, v: view(2)?, o: o_view, saved: saves.then_some(saved) };
    let op = Content::new(ContentConfig { form });
    let bytes = op.plan_fwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch).map_err(explain))?;
    o.download(on, &o_on);
    summary.download(on, &summary_on);
    max.download(on, &max_on);
    sum.download(on, &sum_on);
    o.check_guards("o")?;
    summary.check_guards("summary")?;
    max.check_guards("max")?;
    sum.check_guards("sum")?;
    let numbers = [summary.values(), max.values(), sum.values()].concat();
    if saves && numbers.iter().any(|x| !x.is_finite()) {
        return Err("not all of what forward saves was written".into());
    }
    Ok(o.values())
}

/// Gradients in memory of these layouts (of q, k, v, d_o), those that are wanted; guards and poison likewise.
fn backward_into<T: Element>(
    on: &Cuda,
    form: Form,
    lies: [Layout<5>; 4],
    wants: [bool; 3],
) -> Result<[Option<Vec<T>>; 3], String> {
    let explain = |e: macula::Error| e.to_string();
    let inputs =
        [0, 1, 2, 3].map(|i| Memory::holding(lies[i], &random::<T>(i as u64, lies[i].len(), 1.0)).upload(on));
    let [b, h, _, _, d] = lies[0].shape;
    // Any numbers do for what forward saves.
    let saved = [b * h * d * lies[2].shape[4], b * h * d, b * h * d];
    let saved = [0, 1, 2].map(|i| {
        let values: Vec<f32> = random(7 + i as u64, saved[i], 1.0);
        on.stream().clone_htod(&values.iter().map(|x| x.abs() + 1.0).collect::<Vec<_>>()).unwrap()
    });
    let mut grads = [0, 1, 2].map(|i| Memory::<T, 5>::poisoned(lies[i]));
    let mut grads_on = grads.each_ref().map(|grad| grad.upload(on));
    let view = |i: usize| View::new(&inputs[i], lies[i]).map_err(explain);
    let [dq_on, dk_on, dv_on] = &mut grads_on;
    let args = Backward {
        q: view(0)?,
        k: view(1)?,
        v: view(2)?,
        saved: Saved {
            summary: View::new(&saved[0], [b, h, d, lies[2].shape[4]]).map_err(explain)?,
            max: View::new(&saved[1], [b, h, d]).map_err(explain)?,
            sum: View::new(&saved[2], [b, h, d]).map_err(explain)?,
        },
        d_o: view(3)?,
        dq: wants[0].then(|| ViewMut::new(dq_on, lies[0]).unwrap()),
        dk: wants[1].then(|| ViewMut::new(dk_on, lies[1]).unwrap()),
        dv: wants[2].then(|| ViewMut::new(dv_on, lies[2]).unwrap()),
    };
    let op = Content::new(ContentConfig { form });
    let bytes = op.plan_bwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch).map_err(explain))?;
    let mut values = [None, None, None];
    for i in 0..3 {
        grads[i].download(on, &grads_on[i]);
        grads[i].check_guards("a gradient")?;
        values[i] = wants[i].then(|| grads[i].values());
    }
    Ok(values)
}

/// Heads last, odd gaps, rows backwards, gradients left out: the same bits as contiguous tensors and all gradients.
fn any_strides_backward<T: Element>() {
    let on = &devices()[0];
    for (d, e) in [(16, 24), (13, 7)] {
        let of = |maps: [usize; 2], channels| layouts([2, 3, maps[0], maps[1], channels]);
        let (q, k, v, g) = (of([5, 4], d), of([3, 7], d), of([3, 7], e), of([5, 4], e));
        for form in [Form::default(), Form::Linear(FeatureMap::EluPlusOne)] {
            let first = backward_into::<T>(on, form, [q[0], k[0], v[0], g[0]], [true; 3]).unwrap();
            let wants =
                [[true; 3], [true, false, false], [false, true, false], [false, false, true], [false; 3]];
            for (i, wants) in [1, 2, 0, 0, 0].into_iter().zip(wants) {
                let got = backward_into::<T>(on, form, [q[i], k[i], v[i], g[i]], wants).unwrap();
                for (got, first) in got.iter().zip(&first) {
                    let (Some(got), Some(first)) = (got, first) else { continue };
                    assert!(bytes_of(got) == bytes_of(first), "d {d}, e {e}, layout {i}, {wants:?} {form:?}");
                }
            }
        }
    }
}

/// Heads last, odd gaps, rows backwards, nothing saved: the same bits as contiguous tensors.
fn any_strides<T: Element>() {
    let on = &devices()[0];
    for (d, e) in [(16, 24), (13, 7)] {
        let of = |maps: [usize; 2], channels| layouts([2, 3, maps[0], maps[1], channels]);
        let (q, k, v, o) = (of([5, 4], d), of([3, 7], d), of([3, 7], e), of([5, 4], e));
        let form = Form::Softmax { norm_queries: true };
        let first = forward_into::<T>(on, form, [q[0], k[0], v[0], o[0]], true).unwrap();
        for (i, saves) in [(0, false), (1, true), (2, true)] {
            let got = forward_into::<T>(on, form, [q[i], k[i], v[i], o[i]], saves).unwrap();
            assert!(bytes_of(&got) == bytes_of(&first), "d {d}, e {e}, layout {i}, {}", T::DTYPE);
        }
    }
}

fn bytes_of<T: Element>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

#[test]
fn any_strides_f32() {
    any_strides::<f32>();
    any_strides_backward::<f32>();
}

#[test]
fn any_strides_f16() {
    any_strides::<f16>();
    any_strides_backward::<f16>();
}

#[test]
fn empty_maps() {
    let on = &devices()[0];
    let op = Content::new(ContentConfig::default());
    let tensor = |shape: [usize; 5]| {
        Tensor::from_vec(vec![1.0f32; shape.iter().product()], shape).unwrap().to(on).unwrap()
    };
    let (none, some) = (tensor([1, 2, 0, 3, 4]), tensor([1, 2, 2, 2, 4]));
    let saved = op.forward(on, &none, &some, &some).unwrap().saved;
    let grads = op.backward(on, &none, &some, &some, &saved, &none).unwrap();
    assert!([grads.dk, grads.dv].iter().all(|grad| grad.to_vec().unwrap().iter().all(|x| *x == 0.0)));
    assert!(saved.sum.to_vec().unwrap().iter().all(|x| *x == 4.0));
    let saved = op.forward(on, &none, &none, &none).unwrap().saved;
    for x in [saved.summary.to_vec(), saved.max.to_vec(), saved.sum.to_vec()].map(Result::unwrap).concat() {
        assert_eq!(x, 0.0);
    }
    assert!(op.forward(on, &some, &none, &none).is_err());
}

/// One large image fills a GPU, and partial sums stay small beside it.
#[test]
fn one_large_map_is_split_over_many_blocks() {
    for gpu in macula::Gpu::CLASSES {
        for dtype in DType::ALL {
            for d in [16, 64, 128] {
                let problem = ForwardProblem::contiguous([1, 1, 1024, 1024, d], [1024, 1024], d, dtype);
                let plan = Content::default().plan_fwd(&problem, &gpu).unwrap();
                let blocks: Vec<u32> = plan.launches.iter().map(|launch| launch.grid).collect();
                assert!(blocks[0] >= 132 && blocks[2] >= 132, "{blocks:?}");
                let inputs = 3 * 1024 * 1024 * d * dtype.bytes();
                assert!(plan.workspace_bytes <= inputs / 20 + (3 << 20), "{} bytes", plan.workspace_bytes);
                let problem = BackwardProblem::contiguous([1, 1, 1024, 1024, d], [1024, 1024], d, dtype);
                let plan = Content::default().plan_bwd(&problem, &gpu).unwrap();
                let blocks: Vec<u32> = plan.launches.iter().map(|launch| launch.grid).collect();
                assert!(blocks[0] >= 132 && blocks[2] >= 132, "{blocks:?}");
                assert!(
                    plan.workspace_bytes <= inputs / 3 * 4 / 15 + (3 << 20),
                    "{} bytes",
                    plan.workspace_bytes
                );
            }
        }
    }
}
