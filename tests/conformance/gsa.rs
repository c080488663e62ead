//! The op `gsa` on CUDA devices.

use crate::common::cuda::{assert_all_executed, devices, look_alike, with_scratch, with_settings};
use crate::common::memory::{Lies, Memory, layout};
use crate::common::random;
use crate::gsa::{CASES, CONFIG, Case, PLAIN, configs, results, run};
use half::{bf16, f16};
use macula::cudarc::driver::CudaSlice;
use macula::gsa::{
    Affine, Backward, BackwardProblem, BatchNorm, Forward, ForwardProblem, GsaConfig, Statistics,
};
use macula::{Cuda, DType, Element, Gpu, Gsa, Layout, View, ViewMut, content};
use ptx_emulator::TensorMode;

/// Cases that are large for the emulator.
const LARGE: &[Case] = &[
    // Lines of several images, each with a summary of its own, in one block and in one group of lines.
    Case { name: "short_images", q: [5, 2, 1, 6, 8], e: 12, reach: [1, 6], ..PLAIN },
    Case { name: "images_in_a_group", q: [3, 1, 3, 20, 9], e: 8, reach: [3, 20], ..PLAIN },
    // Longer than a tile, so that even 16-bit maps take a launch per layer.
    Case { name: "long_rows", q: [1, 1, 2, 70, 20], e: 40, reach: [2, 70], ..PLAIN },
    Case { name: "slices", q: [1, 2, 9, 10, 24], e: 100, reach: [9, 10], ..PLAIN },
    // Summaries that small GPUs have no room for.
    Case { name: "wide", q: [2, 1, 3, 5, 120], e: 100, reach: [3, 5], ..PLAIN },
    Case { name: "widest", q: [2, 2, 2, 17, 128], e: 128, reach: [2, 17], ..PLAIN },
];

/// Every case with every setting under two orders of warps, taking turns on the devices; the plain and the widest ones on all,
/// the plain one under every rounding.
fn conformance<T: Element>() {
    let devices = devices();
    let cases = CASES.iter().chain(LARGE).flat_map(|case| configs().map(|config| Case { config, ..*case }));
    for (turn, case) in cases.enumerate() {
        let is_plain = case.name == "plain";
        let is_wide = case.q[4] > 64 && case.config.norm == BatchNorm::None;
        for (ordinal, on) in devices.iter().enumerate() {
            if !is_plain && !is_wide && turn % devices.len() != ordinal {
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
            assert!(first == second.bits(), "device {ordinal}, {case:?}: other bits");
            if is_plain && T::DTYPE != DType::F32 {
                of(0, TensorMode::Sm80);
                of(0, TensorMode::Sm90);
            }
        }
    }
    if T::DTYPE != DType::F32 {
        let dtype = format!("_{}", T::DTYPE);
        assert_all_executed(|name| name.contains("_gsa_") && name.contains(&dtype));
    }
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

/// Which of dq, dk, dv, dcolumns, drows, dweight and dbias are wanted.
type Wanted = [bool; 7];

const ALL: Wanted = [true; 7];

/// What a call into the caller's memory returned, as bytes; what is not wanted stays poison.
#[derive(PartialEq)]
struct Results {
    o: Vec<u8>,
    /// What the forward pass saves, and batch norm's statistics.
    saved: Vec<Vec<u8>>,
    grads: Vec<Vec<u8>>,
}

/// Poisoned memory on a device that a call writes, between guards.
struct Written<'a, T, const R: usize> {
    name: &'static str,
    on: &'a Cuda,
    layout: Layout<R>,
    memory: Memory<T, R>,
    on_device: CudaSlice<T>,
}

impl<'a, T: Element, const R: usize> Written<'a, T, R> {
    fn new(name: &'static str, on: &'a Cuda, layout: Layout<R>) -> Self {
        let memory = Memory::poisoned(layout);
        let on_device = memory.upload(on);
        Self { name, on, layout, memory, on_device }
    }

    fn lend(&mut self) -> ViewMut<'_, T, R> {
        ViewMut::new(&mut self.on_device, self.layout).unwrap()
    }

    fn maybe(&mut self, is_wanted: bool) -> Option<ViewMut<'_, T, R>> {
        is_wanted.then(|| self.lend())
    }

    fn view(&self) -> View<'_, T, R> {
        View::new(&self.on_device, self.layout).unwrap()
    }

    /// The elements' bytes, if guards and gaps are as they were.
    fn bytes(&mut self) -> Result<Vec<u8>, String> {
        self.memory.download(self.on, &self.on_device);
        self.memory.check_guards(self.name)?;
        Ok(bytemuck::cast_slice(&self.memory.values()).to_vec())
    }
}

/// Everything poisoned that is written, guards around everything. Without `saves` nothing is saved, and there is no backward
/// pass.
fn run_into<T: Element>(
    on: &Cuda,
    case: &Case,
    lies: Lies,
    saves: bool,
    wanted: Wanted,
) -> Result<Results, String> {
    let explain = |e: macula::Error| format!("{case:?} {lies:?}: {e}");
    let op = Gsa::new(case.config).map_err(explain)?;
    let ([b, h, y, x, d], e) = (case.q, case.e);
    let (q_map, v_map) = (lies.layout(case.q), lies.layout([b, h, y, x, e]));
    let gap = if lies == Lies::Gaps { 3 } else { 0 };
    let tables = case.reach.map(|reach| {
        let (rows, row) = (2 * reach - 1, d + gap);
        Layout::strided([1, rows, d], [(rows * row) as isize, row as isize, 1], gap)
    });
    let vector = layout([1, e], if lies == Lies::Gaps { 5 } else { 0 }, [false; 2]);
    let map =
        |seed, layout: Layout<5>| Memory::holding(layout, &random::<T>(seed, layout.len(), 1.0)).upload(on);
    let (q, k, v, d_o) = (map(1, q_map), map(2, q_map), map(3, v_map), map(4, v_map));
    let [columns, rows] = [0, 1]
        .map(|i| Memory::holding(tables[i], &random::<T>(5 + i as u64, tables[i].len(), 1.0)).upload(on));
    let vectors = [0, 1, 2, 3].map(|i| {
        let numbers: Vec<f32> = random::<f32>(7 + i, e, 1.0).iter().map(|x| x + 1.5).collect();
        Memory::holding(vector, &numbers).upload(on)
    });
    let lend = |i: usize| View::new(&vectors[i], vector).unwrap();
    let norm = case.config.norm;
    let affine = || (norm != BatchNorm::None).then(|| Affine { weight: lend(0), bias: lend(1) });
    let given = || (norm == BatchNorm::Eval).then(|| Statistics { mean: lend(2), var: lend(3) });
    let [column_view, row_view] =
        [(&columns, tables[0]), (&rows, tables[1])].map(|(table, layout)| View::new(table, layout).unwrap());
    let maps = || {
        let [q, k] = [&q, &k].map(|t| View::new(t, q_map).unwrap());
        let [v, d_o] = [&v, &d_o].map(|t| View::new(t, v_map).unwrap());
        (q, k, v, d_o)
    };

    let (mut o, mut between) = (Written::<T, 5>::new("o", on, v_map), Written::<T, 5>::new("y", on, v_map));
    let mut summary = Written::<f32, 4>::new("summary", on, layout([b, h, d, e], 0, [false; 4]));
    let mut sums =
        ["max", "sum"].map(|name| Written::<f32, 3>::new(name, on, layout([b, h, d], 0, [false; 3])));
    let mut batch = ["mean", "var"].map(|name| Written::<f32, 2>::new(name, on, vector));
    let (views, [max, sum], [mean, var]) = (maps(), &mut sums, &mut batch);
    let args = Forward {
        q: views.0,
        k: views.1,
        v: views.2,
        columns: column_view,
        rows: row_view,
        affine: affine(),
        given: given(),
        o: o.lend(),
        content: saves.then(|| content::Saved { summary: summary.lend(), max: max.lend(), sum: sum.lend() }),
        y: between.maybe(saves),
        batch: (norm == BatchNorm::Train).then(|| Statistics { mean: mean.lend(), var: var.lend() }),
    };
    let bytes = op.plan_fwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch).map_err(explain))?;
    let mut results =
        Results { o: o.bytes()?, saved: vec![between.bytes()?, summary.bytes()?], grads: Vec::new() };
    for sum in &mut sums {
        results.saved.push(sum.bytes()?);
    }
    for statistic in &mut batch {
        results.saved.push(statistic.bytes()?);
    }
    if !saves {
        return Ok(results);
    }

    let mut dqk = ["dq", "dk"].map(|name| Written::<T, 5>::new(name, on, q_map));
    let mut dv = Written::<T, 5>::new("dv", on, v_map);
    let mut dtables = [("dcolumns", tables[0]), ("drows", tables[1])]
        .map(|(name, layout)| Written::<f32, 3>::new(name, on, layout));
    let mut daffine = ["dweight", "dbias"].map(|name| Written::<f32, 2>::new(name, on, vector));
    let (views, [dq, dk]) = (maps(), &mut dqk);
    let ([dcolumns, drows], [dweight, dbias]) = (&mut dtables, &mut daffine);
    let has_affine = norm != BatchNorm::None;
    let args = Backward {
        q: views.0,
        k: views.1,
        v: views.2,
        columns: column_view,
        rows: row_view,
        affine: affine(),
        statistics: match norm {
            BatchNorm::Train => Some(Statistics { mean: batch[0].view(), var: batch[1].view() }),
            _ => given(),
        },
        content: content::Saved { summary: summary.view(), max: sums[0].view(), sum: sums[1].view() },
        y: between.view(),
        d_o: views.3,
        dq: dq.maybe(wanted[0]),
        dk: dk.maybe(wanted[1]),
        dv: dv.maybe(wanted[2]),
        dcolumns: dcolumns.maybe(wanted[3]),
        drows: drows.maybe(wanted[4]),
        dweight: dweight.maybe(wanted[5] && has_affine),
        dbias: dbias.maybe(wanted[6] && has_affine),
    };
    let bytes = op.plan_bwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch).map_err(explain))?;
    results.grads.extend([dqk[0].bytes()?, dqk[1].bytes()?, dv.bytes()?]);
    for table in &mut dtables {
        results.grads.push(table.bytes()?);
    }
    for vector in &mut daffine {
        results.grads.push(vector.bytes()?);
    }
    Ok(results)
}

/// Heads last, gaps and misaligned pixels, with and without what is saved: the same bits.
fn any_memory<T: Element>() {
    let on = &devices()[0];
    for (q, e) in [([2, 3, 5, 18, 16], 8), ([1, 2, 3, 4, 5], 7), ([1, 2, 2, 66, 8], 40)] {
        for config in configs() {
            let case = Case { name: "any_memory", config, q, e, reach: [4, 18], per_head: false };
            let plain = run_into::<T>(on, &case, Lies::Contiguous, true, ALL).unwrap();
            for lies in [Lies::HeadsLast(0), Lies::Gaps] {
                let other = run_into::<T>(on, &case, lies, true, ALL).unwrap();
                assert!(plain == other, "{config:?} {lies:?}");
            }
            let without = run_into::<T>(on, &case, Lies::HeadsLast(0), false, ALL).unwrap();
            assert!(plain.o == without.o, "{config:?} with nothing saved");
        }
    }
}

#[test]
fn any_memory_f32() {
    any_memory::<f32>();
}

#[test]
fn any_memory_f16() {
    any_memory::<f16>();
}

/// Distinct bytes of device memory, in passes over a tensor. Channels are few, so that summaries are small beside it; the tables'
/// gradients are left out.
#[test]
fn device_memory_is_visited_as_often_as_promised() {
    let Some(driver) = look_alike() else { return };
    let on = &devices()[0];
    let wanted = [true, true, true, false, false, true, true];
    // A map that fits in shared memory, and one whose columns are longer than a tile, so that its layers are two launches.
    for (q, is_one_launch) in [([1, 1, 40, 40, 8], true), ([1, 1, 70, 40, 8], false)] {
        let tensor = (q.iter().product::<usize>() * DType::F16.bytes()) as f64;
        for config in configs() {
            let case = Case { name: "passes", config, q, e: 8, reach: [q[2], q[3]], per_head: false };
            let (result, launches) =
                driver.counted(|| run_into::<f16>(on, &case, Lies::Contiguous, true, wanted));
            result.unwrap();
            let mut passes = [0.0, 0.0];
            let mut is_backward = false;
            for launch in &launches {
                is_backward |= launch.entry.starts_with("content_bwd");
                if !launch.entry.contains("merge") {
                    let bytes = launch.report.read_bytes() + launch.report.written_bytes();
                    passes[usize::from(is_backward)] += bytes as f64 / tensor;
                }
            }
            // k, v; q, v, o; y besides; or y, q, y, o.
            let forward = match config.norm {
                BatchNorm::None | BatchNorm::Eval if is_one_launch => 6.0,
                _ => 8.0,
            };
            // 7 of content, 11 of axial (12 with batch norm), and what was written of dq and dv is read to be added to.
            let backward = if config.norm == BatchNorm::Train { 21.0 } else { 20.0 };
            let most = [forward, backward];
            let name = format!("{q:?} {config:?}: {passes:.2?} passes");
            assert!((0..2).all(|i| passes[i] <= 1.1 * most[i]), "{name}, not {most:?}");
            assert!((0..2).all(|i| passes[i] >= most[i]), "{name}: not everything was counted");
        }
    }
}

/// Each gradient alone has the bits that it has beside the others; one that is not wanted is not written.
#[test]
fn gradients_are_optional() {
    let on = &devices()[0];
    for q in [[1, 2, 5, 6, 8], [1, 1, 67, 3, 8]] {
        for config in configs() {
            let case = Case { name: "optional", config, q, e: 8, reach: [5, 6], per_head: false };
            let all = run_into::<f16>(on, &case, Lies::Contiguous, true, ALL).unwrap();
            let alone = (0..7).map(|i| std::array::from_fn(|k| k == i));
            for wanted in alone.chain([[false; 7]]) {
                let wanted: Wanted = wanted;
                let some = run_into::<f16>(on, &case, Lies::Contiguous, true, wanted).unwrap();
                for (i, is_wanted) in wanted.into_iter().enumerate() {
                    let is_poison = some.grads[i].iter().all(|&byte| byte == 0xff);
                    let is_right = if is_wanted { some.grads[i] == all.grads[i] } else { is_poison };
                    assert!(is_right, "{config:?} {wanted:?}: gradient {i}");
                }
            }
        }
    }
}

/// Without pixels nothing is written but summaries, statistics and the gradients of parameters, which are 0.
#[test]
fn empty_maps() {
    let on = &devices()[0];
    for q in [[0, 2, 3, 3, 4], [1, 2, 0, 3, 4], [1, 2, 3, 0, 4]] {
        for config in configs() {
            let case = Case { name: "empty", config, q, e: 5, reach: [3, 3], per_head: false };
            let got = run_into::<f32>(on, &case, Lies::Contiguous, true, ALL).unwrap();
            let of_train = if config.norm == BatchNorm::Train { &got.saved[4..] } else { &[] };
            let of_norm = if config.norm == BatchNorm::None { &[] } else { &got.grads[5..] };
            let zeros = [&got.saved[1..4], of_train, &got.grads[3..5], of_norm].concat().concat();
            assert!(zeros.iter().all(|&byte| byte == 0), "{case:?}");
        }
    }
}

fn problem(shape: [usize; 5], dtype: DType, config: GsaConfig) -> ForwardProblem {
    let [_, _, y, x, d] = shape;
    let (map, pair) = (Layout::contiguous(shape), Some([Layout::contiguous([1, d]); 2]));
    ForwardProblem {
        dtype,
        q: map,
        k: map,
        v: map,
        columns: Layout::contiguous([1, 2 * y - 1, d]),
        rows: Layout::contiguous([1, 2 * x - 1, d]),
        affine: if config.norm == BatchNorm::None { None } else { pair },
        given: if config.norm == BatchNorm::Eval { pair } else { None },
        o: map,
        saves_content: true,
        y: Some(map),
        batch: if config.norm == BatchNorm::Train { pair } else { None },
    }
}

fn backward_problem(p: &ForwardProblem) -> BackwardProblem {
    BackwardProblem {
        dtype: p.dtype,
        q: p.q,
        k: p.k,
        v: p.v,
        columns: p.columns,
        rows: p.rows,
        affine: p.affine,
        statistics: p.affine,
        y: p.v,
        d_o: p.v,
        dq: Some(p.q),
        dk: Some(p.k),
        dv: Some(p.v),
        dcolumns: Some(p.columns),
        drows: Some(p.rows),
        dweight: p.affine.map(|a| a[0]),
        dbias: p.affine.map(|a| a[1]),
    }
}

/// What is not on CUDA is refused in the name of this op; what the plan lends itself stays small.
#[test]
fn plans() {
    for config in configs() {
        let op = Gsa::new(config).unwrap();
        for (arg, shape) in [("k", [1, 2, 4, 4, 8]), ("q", [1, 2, 4, 4, 8])] {
            let mut strided = problem(shape, DType::F16, config);
            let across = Layout::contiguous([1, 2, 4, 8, 4]).permute([0, 1, 2, 4, 3]).unwrap();
            *(if arg == "k" { &mut strided.k } else { &mut strided.q }) = across;
            let text = op.plan_fwd(&strided, &Gpu::SM80).unwrap_err().to_string();
            assert_eq!(text, format!("gsa: `{arg}` with 4 elements from channel to channel; only 1"));
        }
        for dtype in DType::ALL {
            for shape in [[64, 8, 56, 56, 64], [1, 8, 512, 512, 64], [1, 1, 1, 100_000, 8]] {
                for saves in [true, false] {
                    let call = problem(shape, dtype, config);
                    let y = if saves { call.y } else { None };
                    let call = ForwardProblem { y, saves_content: saves, ..call };
                    let plan = op.plan_fwd(&call, &Gpu::SM80).unwrap();
                    let inputs = 3 * call.q.len() * dtype.bytes();
                    let summaries = shape[0] * shape[1] * shape[4] * (shape[4] + 2) * 4;
                    let most = inputs / 20 + (20 << 20) + if saves { 0 } else { summaries };
                    assert!(plan.workspace_bytes <= most, "{call:?}: {}", plan.workspace_bytes);
                }
                let call = backward_problem(&problem(shape, dtype, config));
                let plan = op.plan_bwd(&call, &Gpu::SM80).unwrap();
                let tile = if dtype == DType::F32 { 32 } else { 64 };
                let is_whole = config.norm == BatchNorm::Train && shape[2] > tile;
                let inputs = 4 * call.q.len() * dtype.bytes();
                let summaries = shape[0] * shape[1] * shape[4] * (shape[4] + 2) * 4;
                let most = inputs / 10 + (39 << 20) + summaries + if is_whole { inputs / 4 } else { 0 };
                assert!(plan.workspace_bytes <= most, "{call:?}: {}", plan.workspace_bytes);
            }
        }
        let huge = problem([1, 1, 1 << 28, 1, 8], DType::F16, config);
        let text = op.plan_fwd(&huge, &Gpu::SM80).unwrap_err().to_string();
        assert!(text.starts_with("gsa: ") && text.contains("2^28"), "{text}");
    }
    // Two launches make the summary, and one all else.
    let call = ForwardProblem { y: None, ..problem([8, 8, 28, 28, 64], DType::F16, CONFIG) };
    let plan = Gsa::default().plan_fwd(&call, &Gpu::SM80).unwrap();
    let entries: Vec<&str> = plan.launches.iter().map(|launch| launch.kernel).collect();
    assert_eq!(entries, ["content_fwd_kv_f16", "content_fwd_merge_f32", "axial_fwd_map_gsa_f16"]);
}
