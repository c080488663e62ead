//! The op `axial` on CUDA devices.

use crate::axial::{CASES, CONFIGS, Case, Passes, run};
use crate::common::cuda::{assert_all_executed, devices, look_alike, with_scratch, with_settings};
use crate::common::memory::{Lies, Memory, layout};
use crate::common::random;
use half::{bf16, f16};
use macula::axial::{
    Affine, Axes, AxialConfig, Backward, BackwardProblem, BatchNorm, Forward, ForwardProblem, Statistics,
};
use macula::cudarc::driver::CudaSlice;
use macula::{Axial, Cuda, DType, Element, Gpu, Layout, View, ViewMut};
use ptx_emulator::TensorMode;

/// Every case under two orders of warps, taking turns on the devices; the plain one on all, under every rounding.
fn conformance<T: Element>() {
    let devices = devices();
    let cases = CASES.iter().flat_map(|case| CONFIGS.map(|config| (case, config)));
    for (turn, (case, config)) in cases.enumerate() {
        let is_plain = case.name == "plain";
        for (ordinal, on) in devices.iter().enumerate() {
            if !is_plain && turn % devices.len() != ordinal {
                continue;
            }
            let of = |seed, mode| {
                with_settings(seed, mode, || run::<T>(on, case, config, Passes::Both))
                    .unwrap_or_else(|e| panic!("device {ordinal}: {e}"))
            };
            let first = of(0, TensorMode::Exact);
            assert!(first == of(17, TensorMode::Exact), "device {ordinal}, {}: other bits", case.name);
            if is_plain && T::DTYPE != DType::F32 {
                of(0, TensorMode::Sm80);
                of(0, TensorMode::Sm90);
            }
        }
    }
    // Those of `gsa` have a conformance of their own.
    let dtype = format!("_{}", T::DTYPE);
    let is_own = |name: &str| name.starts_with("axial_") && !name.contains("_gsa_") && name.contains(&dtype);
    assert_all_executed(is_own);
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

/// A table's layout beside maps that lie so.
fn table_layout(lies: Lies, [heads, rows, channels]: [usize; 3]) -> Layout<3> {
    let gap = if lies == Lies::Gaps { 3 } else { 0 };
    let row = (channels + gap) as isize;
    Layout::strided([heads, rows, channels], [rows as isize * row, row, 1], gap)
}

/// The layout of batch norm's vectors beside maps that lie so.
fn vector_layout(lies: Lies, shape: [usize; 2]) -> Layout<2> {
    layout(shape, if lies == Lies::Gaps { 5 } else { 0 }, [false; 2])
}

/// What a call into the caller's memory returned.
#[derive(PartialEq)]
struct Results {
    o: Vec<u8>,
    y: Vec<u8>,
    batch: [Vec<u32>; 2],
    /// dq, dv, dcolumns, drows, dweight, dbias; absent ones stay poison.
    grads: Vec<Vec<u8>>,
}

/// Which of dq, dv, the tables' gradients and batch norm's are wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    dq: bool,
    dv: bool,
    dtables: bool,
    daffine: bool,
}

const ALL: Wanted = Wanted { dq: true, dv: true, dtables: true, daffine: true };

/// Everything poisoned that is written, guards around everything.
fn run_into<T: Element>(
    on: &Cuda,
    case: &Case,
    config: AxialConfig,
    lies: Lies,
    wants_y: bool,
    wanted: Wanted,
) -> Result<Results, String> {
    let explain = |e: macula::Error| format!("{} {config:?} {lies:?}: {e}", case.name);
    let op = Axial::new(config).map_err(explain)?;
    let [b, h, y, x, d] = case.q;
    let (q_map, v_map) = (lies.layout(case.q), lies.layout([b, h, y, x, case.e]));
    let tables = [0, 1].map(|i| table_layout(lies, [1, 2 * case.reach[i] - 1, d]));
    let vector = vector_layout(lies, [1, case.e]);
    let fill = |seed, count| random::<T>(seed, count, 1.0);
    let q = Memory::holding(q_map, &fill(1, q_map.len()));
    let v = Memory::holding(v_map, &fill(2, v_map.len()));
    let [columns, rows] = [0, 1].map(|i| Memory::holding(tables[i], &fill(4 + i as u64, tables[i].len())));
    let vectors = [0, 1, 2, 3].map(|i| {
        let numbers: Vec<f32> = random::<f32>(6 + i, case.e, 1.0).iter().map(|x| x + 1.5).collect();
        Memory::holding(vector, &numbers)
    });
    let (mut o, mut between) = (Memory::<T, 5>::poisoned(v_map), Memory::<T, 5>::poisoned(v_map));
    let mut batch = [0, 1].map(|_| Memory::<f32, 2>::poisoned(vector));
    let (q_on, v_on, columns_on, rows_on) = (q.upload(on), v.upload(on), columns.upload(on), rows.upload(on));
    let vectors_on = vectors.map(|m| m.upload(on));
    let (mut o_on, mut y_on) = (o.upload(on), between.upload(on));
    let [mut mean_on, mut var_on] = batch.each_ref().map(|m| m.upload(on));

    let has_both = config.axes == Axes::ColumnsThenRows;
    let lend = |i: usize| View::new(&vectors_on[i], vector).map_err(explain);
    let args = Forward {
        q: View::new(&q_on, q_map).map_err(explain)?,
        v: View::new(&v_on, v_map).map_err(explain)?,
        columns: match config.axes {
            Axes::Rows => None,
            _ => Some(View::new(&columns_on, tables[0]).map_err(explain)?),
        },
        rows: match config.axes {
            Axes::Columns => None,
            _ => Some(View::new(&rows_on, tables[1]).map_err(explain)?),
        },
        affine: match config.norm {
            BatchNorm::None => None,
            _ => Some(Affine { weight: lend(0)?, bias: lend(1)? }),
        },
        given: match config.norm {
            BatchNorm::Eval => Some(Statistics { mean: lend(2)?, var: lend(3)? }),
            _ => None,
        },
        o: ViewMut::new(&mut o_on, v_map).map_err(explain)?,
        y: match has_both && wants_y {
            true => Some(ViewMut::new(&mut y_on, v_map).map_err(explain)?),
            false => None,
        },
        batch: match config.norm {
            BatchNorm::Train => Some(Statistics {
                mean: ViewMut::new(&mut mean_on, vector).map_err(explain)?,
                var: ViewMut::new(&mut var_on, vector).map_err(explain)?,
            }),
            _ => None,
        },
    };
    let bytes = op.plan_fwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch).map_err(explain))?;
    o.download(on, &o_on);
    between.download(on, &y_on);
    batch[0].download(on, &mean_on);
    batch[1].download(on, &var_on);
    o.check_guards("o")?;
    between.check_guards("y")?;
    batch.iter().try_for_each(|m| m.check_guards("batch"))?;
    let bytes = |m: &Memory<T, 5>| bytemuck::cast_slice(&m.values()).to_vec();
    let mut results = Results {
        o: bytes(&o),
        y: bytes(&between),
        batch: batch.map(|m| m.values().iter().map(|x| x.to_bits()).collect()),
        grads: Vec::new(),
    };
    if has_both && !wants_y {
        return Ok(results);
    }

    let d_o = Memory::holding(v_map, &fill(3, v_map.len())).upload(on);
    let (mut dq, mut dv) = (Memory::<T, 5>::poisoned(q_map), Memory::<T, 5>::poisoned(v_map));
    let mut dtables = tables.map(Memory::<f32, 3>::poisoned);
    let mut daffine = [vector; 2].map(Memory::<f32, 2>::poisoned);
    let (mut dq_on, mut dv_on) = (dq.upload(on), dv.upload(on));
    let [mut dcolumns_on, mut drows_on] = dtables.each_ref().map(|m| m.upload(on));
    let [mut dweight_on, mut dbias_on] = daffine.each_ref().map(|m| m.upload(on));
    let wants_affine = wanted.daffine && config.norm != BatchNorm::None;
    let args = Backward {
        q: View::new(&q_on, q_map).map_err(explain)?,
        v: View::new(&v_on, v_map).map_err(explain)?,
        columns: match config.axes {
            Axes::Rows => None,
            _ => Some(View::new(&columns_on, tables[0]).map_err(explain)?),
        },
        rows: match config.axes {
            Axes::Columns => None,
            _ => Some(View::new(&rows_on, tables[1]).map_err(explain)?),
        },
        affine: match config.norm {
            BatchNorm::None => None,
            _ => Some(Affine { weight: lend(0)?, bias: lend(1)? }),
        },
        statistics: match config.norm {
            BatchNorm::None => None,
            BatchNorm::Eval => Some(Statistics { mean: lend(2)?, var: lend(3)? }),
            BatchNorm::Train => Some(Statistics {
                mean: View::new(&mean_on, vector).map_err(explain)?,
                var: View::new(&var_on, vector).map_err(explain)?,
            }),
        },
        y: match has_both {
            true => Some(View::new(&y_on, v_map).map_err(explain)?),
            false => None,
        },
        d_o: View::new(&d_o, v_map).map_err(explain)?,
        dq: maybe(wanted.dq, &mut dq_on, q_map)?,
        dv: maybe(wanted.dv, &mut dv_on, v_map)?,
        dcolumns: maybe(wanted.dtables && config.axes != Axes::Rows, &mut dcolumns_on, tables[0])?,
        drows: maybe(wanted.dtables && config.axes != Axes::Columns, &mut drows_on, tables[1])?,
        dweight: maybe(wants_affine, &mut dweight_on, vector)?,
        dbias: maybe(wants_affine, &mut dbias_on, vector)?,
    };
    let bytes_wanted = op.plan_bwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes_wanted, |scratch| op.backward_into(on, args, scratch).map_err(explain))?;
    dq.download(on, &dq_on);
    dv.download(on, &dv_on);
    dq.check_guards("dq")?;
    dv.check_guards("dv")?;
    results.grads.extend([bytes(&dq), bytes(&dv)]);
    for (memory, from) in dtables.iter_mut().zip([&dcolumns_on, &drows_on]) {
        memory.download(on, from);
        memory.check_guards("dtable")?;
        results.grads.push(bytemuck::cast_slice(&memory.values()).to_vec());
    }
    for (memory, from) in daffine.iter_mut().zip([&dweight_on, &dbias_on]) {
        memory.download(on, from);
        memory.check_guards("daffine")?;
        results.grads.push(bytemuck::cast_slice(&memory.values()).to_vec());
    }
    Ok(results)
}

fn maybe<'a, T: Element, const R: usize>(
    is_wanted: bool,
    memory: &'a mut CudaSlice<T>,
    layout: Layout<R>,
) -> Result<Option<ViewMut<'a, T, R>>, String> {
    match is_wanted {
        true => ViewMut::new(memory, layout).map(Some).map_err(|e| e.to_string()),
        false => Ok(None),
    }
}

/// Heads last, gaps and misaligned pixels, with and without the result between the layers: the same bits.
fn any_memory<T: Element>() {
    let on = &devices()[0];
    for (q, e) in [([2, 3, 5, 18, 16], 8), ([1, 2, 3, 4, 5], 7), ([1, 2, 2, 66, 8], 40)] {
        let case = Case { name: "any_memory", q, e, reach: [4, 18], ..CASES[0] };
        for config in CONFIGS {
            let plain = run_into::<T>(on, &case, config, Lies::Contiguous, true, ALL).unwrap();
            for lies in [Lies::HeadsLast(0), Lies::Gaps] {
                let other = run_into::<T>(on, &case, config, lies, true, ALL).unwrap();
                assert!(plain == other, "{config:?} {lies:?}");
            }
            let without = run_into::<T>(on, &case, config, Lies::HeadsLast(0), false, ALL).unwrap();
            assert!(plain.o == without.o, "{config:?} without y");
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

/// Distinct bytes of device memory, in passes over a tensor. The tables' gradients leave sums besides, not counted here.
#[test]
fn device_memory_is_visited_as_often_as_promised() {
    let Some(driver) = look_alike() else { return };
    let on = &devices()[0];
    let wanted = Wanted { dtables: false, ..ALL };
    // A map that fits in shared memory and one that does not, so that its layers are two launches.
    for (q, is_one_launch) in [([1, 2, 18, 20, 64], true), ([1, 2, 40, 56, 64], false)] {
        let case = Case { name: "passes", q, e: 64, reach: [q[2], q[3]], ..CASES[0] };
        let tensor = (q.iter().product::<usize>() * DType::F16.bytes()) as f64;
        for config in CONFIGS {
            let (result, launches) =
                driver.counted(|| run_into::<f16>(on, &case, config, Lies::Contiguous, true, wanted));
            result.unwrap();
            let mut passes = [0.0, 0.0];
            for launch in &launches {
                let bytes = launch.report.read_bytes() + launch.report.written_bytes();
                passes[usize::from(launch.entry.starts_with("axial_bwd"))] += bytes as f64 / tensor;
            }
            let has_both = config.axes == Axes::ColumnsThenRows;
            let forward = match (has_both, config.norm) {
                (false, _) => 3.0,
                // What lies between the layers is written besides.
                (true, BatchNorm::None | BatchNorm::Eval) if is_one_launch => 4.0,
                (true, _) => 6.0,
            };
            let backward = match (has_both, config.norm) {
                (false, _) => 5.0,
                (true, BatchNorm::Train) => 12.0,
                (true, _) => 11.0,
            };
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
    const NONE: Wanted = Wanted { dq: false, dv: false, dtables: false, daffine: false };
    for q in [[1, 2, 5, 6, 8], [1, 1, 67, 3, 8]] {
        let case = Case { name: "optional", q, e: 8, reach: [5, 6], ..CASES[0] };
        for config in CONFIGS {
            let all = run_into::<f16>(on, &case, config, Lies::Contiguous, true, ALL).unwrap();
            for wanted in [
                NONE,
                Wanted { dq: true, ..NONE },
                Wanted { dv: true, ..NONE },
                Wanted { dtables: true, ..NONE },
                Wanted { daffine: true, ..NONE },
            ] {
                let some = run_into::<f16>(on, &case, config, Lies::Contiguous, true, wanted).unwrap();
                let is_wanted =
                    [wanted.dq, wanted.dv, wanted.dtables, wanted.dtables, wanted.daffine, wanted.daffine];
                for (i, is_wanted) in is_wanted.into_iter().enumerate() {
                    let is_poison = some.grads[i].iter().all(|&byte| byte == 0xff);
                    let is_right = if is_wanted { some.grads[i] == all.grads[i] } else { is_poison };
                    assert!(is_right, "{config:?} {wanted:?}: gradient {i}");
                }
            }
        }
    }
}

/// Without pixels nothing is written but statistics and the gradients of parameters, which are 0.
#[test]
fn empty_maps() {
    let on = &devices()[0];
    for q in [[0, 2, 3, 3, 4], [1, 2, 0, 3, 4], [1, 2, 3, 0, 4]] {
        let case = Case { name: "empty", q, e: 5, reach: [3, 3], ..CASES[0] };
        for config in CONFIGS {
            let got = run_into::<f32>(on, &case, config, Lies::Contiguous, true, ALL).unwrap();
            if config.norm == BatchNorm::Train {
                assert_eq!(got.batch.concat(), vec![0; 10]);
            }
            let is_there = |axes| config.axes == axes || config.axes == Axes::ColumnsThenRows;
            for (i, is_there) in [(2, is_there(Axes::Columns)), (3, is_there(Axes::Rows))] {
                assert!(!is_there || got.grads[i].iter().all(|&byte| byte == 0), "{config:?}");
            }
            let has_norm = config.norm != BatchNorm::None;
            assert!(!has_norm || got.grads[4..].concat().iter().all(|&byte| byte == 0), "{config:?}");
        }
    }
}

fn problem(shape: [usize; 5], e: usize, dtype: DType, config: AxialConfig) -> ForwardProblem {
    let [b, h, y, x, d] = shape;
    let v = Layout::contiguous([b, h, y, x, e]);
    let table = |size: usize| Some(Layout::contiguous([1, 2 * size - 1, d]));
    let pair = Some([Layout::contiguous([1, e]); 2]);
    let has_both = config.axes == Axes::ColumnsThenRows;
    ForwardProblem {
        dtype,
        q: Layout::contiguous(shape),
        v,
        columns: if config.axes == Axes::Rows { None } else { table(y) },
        rows: if config.axes == Axes::Columns { None } else { table(x) },
        affine: if config.norm == BatchNorm::None { None } else { pair },
        given: if config.norm == BatchNorm::Eval { pair } else { None },
        o: v,
        y: has_both.then_some(v),
        batch: if config.norm == BatchNorm::Train { pair } else { None },
    }
}

fn backward_problem(p: &ForwardProblem) -> BackwardProblem {
    BackwardProblem {
        dtype: p.dtype,
        q: p.q,
        v: p.v,
        columns: p.columns,
        rows: p.rows,
        affine: p.affine,
        statistics: p.affine,
        y: p.y,
        d_o: p.v,
        dq: Some(p.q),
        dv: Some(p.v),
        dcolumns: p.columns,
        drows: p.rows,
        dweight: p.affine.map(|a| a[0]),
        dbias: p.affine.map(|a| a[1]),
    }
}

/// More groups of lines to a block than one sum may be of before it leaves the tensor core: the later sums are added to the first.
#[test]
fn sums_for_tables_leave_the_tensor_core_in_time() {
    let case = Case { name: "many_lines", q: [1, 1, 1, 17_000, 8], e: 8, reach: [1, 1], ..CASES[0] };
    let op = Axial::new(CONFIGS[0]).unwrap();
    let call = backward_problem(&problem(case.q, case.e, DType::F16, CONFIGS[0]));
    let blocks = op.plan_bwd(&call, &Gpu::SM90).unwrap().launches[0].grid;
    // Four lines of a block's rows make a group, and 16 groups a sum.
    assert!(blocks * 4 * 16 < 17_000, "{blocks} blocks are too many for what is tested");
    run::<f16>(&devices()[0], &case, CONFIGS[0], Passes::Both).unwrap();
}

/// A layer's blocks leave sums for its table: many of them where there is much to read beside, and few enough otherwise.
#[test]
fn partial_sums_are_a_small_part_of_what_is_read() {
    let config = CONFIGS[2];
    let op = Axial::new(config).unwrap();
    // Blocks of a layer: one for each group of lines; two for each multiprocessor; an eighth of what is read; what scratch allows.
    for (shape, blocks) in [
        ([1, 2, 32, 32, 64], 32),
        ([8, 8, 32, 32, 64], 256),
        ([32, 8, 32, 32, 64], 768),
        ([64, 8, 56, 56, 64], 819),
    ] {
        let call = backward_problem(&problem(shape, 64, DType::F16, config));
        let plan = op.plan_bwd(&call, &Gpu::SM90).unwrap();
        let layers: Vec<u32> =
            plan.launches.iter().filter(|l| l.kernel.starts_with("axial_bwd_f16")).map(|l| l.grid).collect();
        assert!(layers.iter().all(|&grid| grid <= blocks && grid > blocks * 2 / 3), "{shape:?}: {layers:?}");
    }
}

/// What is not on CUDA is refused by name; what the plan lends itself stays small.
#[test]
fn plans() {
    for config in CONFIGS {
        let op = Axial::new(config).unwrap();
        let mut strided = problem([1, 2, 4, 4, 8], 8, DType::F16, config);
        strided.q = Layout::contiguous([1, 2, 4, 8, 4]).permute([0, 1, 2, 4, 3]).unwrap();
        let text = op.plan_fwd(&strided, &Gpu::SM80).unwrap_err().to_string();
        assert!(text.contains("`q` with 4 elements from channel to channel"), "{text}");
        for dtype in DType::ALL {
            for shape in [[64, 8, 56, 56, 64], [1, 8, 512, 512, 64], [1, 1, 1, 100_000, 8]] {
                for wants_y in [true, false] {
                    let call = problem(shape, shape[4], dtype, config);
                    let call = ForwardProblem { y: if wants_y { call.y } else { None }, ..call };
                    let plan = op.plan_fwd(&call, &Gpu::SM80).unwrap();
                    let inputs = 2 * call.q.len() * dtype.bytes();
                    let most = inputs / 20 + (17 << 20);
                    assert!(plan.workspace_bytes <= most, "{call:?}: {}", plan.workspace_bytes);
                }
                let call = backward_problem(&problem(shape, shape[4], dtype, config));
                let plan = op.plan_bwd(&call, &Gpu::SM80).unwrap();
                // Long columns under batch norm of the batch need their gradient whole, before it is used.
                let tile = if dtype == DType::F32 { 32 } else { 64 };
                let is_whole = config.norm == BatchNorm::Train && shape[2] > tile;
                let inputs = 3 * call.q.len() * dtype.bytes();
                let most = inputs / 20 + (36 << 20) + if is_whole { inputs / 3 } else { 0 };
                assert!(plan.workspace_bytes <= most, "{call:?}: {}", plan.workspace_bytes);
            }
        }
        let huge = problem([1, 1, 1 << 28, 1, 8], 8, DType::F16, config);
        assert!(op.plan_fwd(&huge, &Gpu::SM80).unwrap_err().to_string().contains("2^28"));
        let cost = op.forward_cost(&problem([1, 2, 3, 4, 8], 16, DType::F16, config));
        assert!(cost.flops > 0 && cost.min_bytes >= 2 * 24 * (8 + 2 * 16));
    }
}
