//! What plans launch is what was compiled: the same parameter bytes, no more shared memory, no entry without a use.

use std::collections::BTreeSet;

use macula::axial::{self, Axes, Axial, AxialConfig, BatchNorm};
use macula::config::gaussian::{GaussianConfig, Kernel, Norm};
use macula::content::{self, Content, ContentConfig, Form};
use macula::gaussian::{BackwardProblem, ForwardProblem, Gaussian};
use macula::gsa::{self, Gsa, GsaConfig};
use macula::local::{self, Blocks, Border, Local, LocalConfig, Relative, Sliding, Window};
use macula::value_mixture::{self, ValueMixture};
use macula::{DType, Gpu, Layout, Plan, kernel};

use crate::tools;

/// Maps of every kind that plans tell apart: one pixel, small, one row, one column, odd, large; few and many channels.
const SHAPES: [[usize; 5]; 8] = [
    [1, 1, 1, 1, 1],
    [2, 3, 7, 7, 8],
    [1, 2, 1, 33, 5],
    [1, 2, 65, 1, 16],
    [2, 1, 14, 13, 32],
    [1, 8, 56, 56, 64],
    [4, 2, 17, 200, 128],
    [1, 1, 300, 301, 24],
];

/// Plans of every op over the shapes, with words to find each again.
fn plans() -> Vec<(String, macula::Result<Plan>)> {
    let mut plans = Vec::new();
    for gpu in Gpu::CLASSES {
        for dtype in DType::ALL {
            for shape in SHAPES {
                let at = format!("{dtype:?} {shape:?} on {gpu:?}");
                gaussian(&mut plans, shape, dtype, &gpu, &at);
                local(&mut plans, shape, dtype, &gpu, &at);
                local_bias(&mut plans, shape, dtype, &gpu, &at);
                axial(&mut plans, shape, dtype, &gpu, &at);
                content(&mut plans, shape, dtype, &gpu, &at);
                gsa(&mut plans, shape, dtype, &gpu, &at);
                value_mixture(&mut plans, shape, dtype, &gpu, &at);
            }
        }
    }
    plans
}

fn gaussian(
    plans: &mut Vec<(String, macula::Result<Plan>)>,
    shape: [usize; 5],
    dtype: DType,
    gpu: &Gpu,
    at: &str,
) {
    for kernel in Kernel::ALL {
        for (norm, window) in [(Norm::Row, None), (Norm::None, None), (Norm::Row, Some(7))] {
            let config = GaussianConfig { kernel, norm, window };
            let op = Gaussian::new(config).unwrap();
            let forward = ForwardProblem::contiguous(shape, dtype);
            plans.push((format!("gaussian forward {config:?} {at}"), op.plan_fwd(&forward, gpu)));
            let backward = BackwardProblem::contiguous(shape, dtype);
            plans.push((format!("gaussian backward {config:?} {at}"), op.plan_bwd(&backward, gpu)));
        }
    }
}

fn local(
    plans: &mut Vec<(String, macula::Result<Plan>)>,
    shape: [usize; 5],
    dtype: DType,
    gpu: &Gpu,
    at: &str,
) {
    let mut windows: Vec<Window> = Vec::new();
    for size in [[1, 1], [3, 3], [7, 7], [6, 8], [13, 13], [33, 1], [33, 33]] {
        for border in Border::ALL {
            let fits = |i: usize| size[i] % 2 == 1 && size[i] <= shape[2 + i];
            if border != Border::Shift || fits(0) && fits(1) {
                windows.push(Sliding::new(size).at_border(border).into());
            }
        }
    }
    windows.extend([[2, 3], [1, 16]].map(|by| Window::from(Sliding::new([7, 13]).dilated(by))));
    for (size, halo) in [(4, 0), (7, 0), (8, 3), (16, 8), (32, 0), (3, 15), (1, 16), (33, 0)] {
        windows.push(Blocks::new([size; 2]).offset_by([size / 2; 2]).with_halo([halo; 2]).into());
    }
    for window in windows {
        let config = LocalConfig { window, relative: Relative::Sum, ..LocalConfig::default() };
        let op = Local::new(config).unwrap();
        let e = shape[4].min(40);
        let forward = local::ForwardProblem::contiguous(&config, shape, e, true, dtype);
        plans.push((format!("local forward {config:?} {at}"), op.plan_fwd(&forward, gpu)));
        let backward = local::BackwardProblem::contiguous(&config, shape, e, true, dtype);
        plans.push((format!("local backward {config:?} {at}"), op.plan_bwd(&backward, gpu)));
    }
}

fn local_bias(
    plans: &mut Vec<(String, macula::Result<Plan>)>,
    shape: [usize; 5],
    dtype: DType,
    gpu: &Gpu,
    at: &str,
) {
    for size in [[1, 1], [7, 7], [6, 8], [13, 13], [33, 33]] {
        let config = LocalConfig {
            window: Sliding::new(size).into(),
            relative: Relative::Sum,
            ..LocalConfig::default()
        };
        let op = Local::new(config).unwrap();
        for (heads, has_tables) in [(1, false), (shape[1], true)] {
            let bias = Some(Layout::contiguous([heads, size[0], size[1]]));
            let forward = local::ForwardProblem::contiguous(&config, shape, shape[4], has_tables, dtype);
            let forward = local::ForwardProblem { bias, ..forward };
            plans.push((format!("local forward with bias {config:?} {at}"), op.plan_fwd(&forward, gpu)));
            let backward = local::BackwardProblem::contiguous(&config, shape, shape[4], has_tables, dtype);
            let backward = local::BackwardProblem { bias, dbias: bias, ..backward };
            plans.push((format!("local backward with bias {config:?} {at}"), op.plan_bwd(&backward, gpu)));
        }
    }
}

fn content(
    plans: &mut Vec<(String, macula::Result<Plan>)>,
    shape: [usize; 5],
    dtype: DType,
    gpu: &Gpu,
    at: &str,
) {
    for form in Form::ALL {
        for e in [1, 40, 128] {
            let op = Content::new(ContentConfig { form });
            let keys = [shape[2], shape[3]];
            let forward = content::ForwardProblem::contiguous(shape, keys, e, dtype);
            plans.push((format!("content forward {form:?} e {e} {at}"), op.plan_fwd(&forward, gpu)));
            let backward = content::BackwardProblem::contiguous(shape, keys, e, dtype);
            plans.push((format!("content backward {form:?} e {e} {at}"), op.plan_bwd(&backward, gpu)));
        }
    }
}

fn value_mixture(
    plans: &mut Vec<(String, macula::Result<Plan>)>,
    shape: [usize; 5],
    dtype: DType,
    gpu: &Gpu,
    at: &str,
) {
    let ([b, h, y, x, e], op) = (shape, ValueMixture::new());
    for (m, sites) in [(1, [1, 1]), (4, [4, 4]), (7, [y, x])] {
        let vs = [m, b, h, y, x, e];
        let forward = value_mixture::ForwardProblem::contiguous(vs, sites, 12, dtype);
        plans.push((format!("value_mixture forward {m} {sites:?} {at}"), op.plan_fwd(&forward, gpu)));
        let backward = value_mixture::BackwardProblem::contiguous(vs, sites, 12, dtype);
        plans.push((format!("value_mixture backward {m} {sites:?} {at}"), op.plan_bwd(&backward, gpu)));
    }
}

fn axial(
    plans: &mut Vec<(String, macula::Result<Plan>)>,
    shape: [usize; 5],
    dtype: DType,
    gpu: &Gpu,
    at: &str,
) {
    let [b, h, y, x, d] = shape;
    let e = d.min(40);
    let v = Layout::contiguous([b, h, y, x, e]);
    let vectors = [Layout::contiguous([1, e]); 2];
    for axes in Axes::ALL {
        for norm in [BatchNorm::None, BatchNorm::Eval, BatchNorm::Train] {
            let has_both = axes == Axes::ColumnsThenRows;
            let Ok(op) = Axial::new(AxialConfig { axes, norm, ..AxialConfig::default() }) else { continue };
            let columns = (axes != Axes::Rows).then_some(Layout::contiguous([1, 2 * y - 1, d]));
            let rows = (axes != Axes::Columns).then_some(Layout::contiguous([h, 2 * x - 1, d]));
            let affine = (norm != BatchNorm::None).then_some(vectors);
            let forward = axial::ForwardProblem {
                dtype,
                q: Layout::contiguous(shape),
                v,
                columns,
                rows,
                affine,
                given: (norm == BatchNorm::Eval).then_some(vectors),
                o: v,
                y: has_both.then_some(v),
                batch: (norm == BatchNorm::Train).then_some(vectors),
            };
            plans.push((format!("axial forward {axes:?} {norm:?} {at}"), op.plan_fwd(&forward, gpu)));
            let backward = axial::BackwardProblem {
                dtype,
                q: forward.q,
                v,
                columns,
                rows,
                affine,
                statistics: affine,
                y: forward.y,
                d_o: v,
                dq: Some(forward.q),
                dv: Some(v),
                dcolumns: columns,
                drows: rows,
                dweight: affine.map(|a| a[0]),
                dbias: affine.map(|a| a[1]),
            };
            plans.push((format!("axial backward {axes:?} {norm:?} {at}"), op.plan_bwd(&backward, gpu)));
        }
    }
}

fn gsa(
    plans: &mut Vec<(String, macula::Result<Plan>)>,
    shape: [usize; 5],
    dtype: DType,
    gpu: &Gpu,
    at: &str,
) {
    let [b, h, y, x, d] = shape;
    for e in [d.min(40), 128] {
        let (q, v) = (Layout::contiguous(shape), Layout::contiguous([b, h, y, x, e]));
        let (columns, rows) = (Layout::contiguous([1, 2 * y - 1, d]), Layout::contiguous([h, 2 * x - 1, d]));
        for norm in [BatchNorm::None, BatchNorm::Eval, BatchNorm::Train] {
            let op = Gsa::new(GsaConfig { norm, ..GsaConfig::default() }).unwrap();
            let vectors = Some([Layout::contiguous([1, e]); 2]);
            let affine = if norm == BatchNorm::None { None } else { vectors };
            for saves in [true, false] {
                let forward = gsa::ForwardProblem {
                    dtype,
                    q,
                    k: q,
                    v,
                    columns,
                    rows,
                    affine,
                    given: if norm == BatchNorm::Eval { vectors } else { None },
                    o: v,
                    saves_content: saves,
                    y: saves.then_some(v),
                    batch: if norm == BatchNorm::Train { vectors } else { None },
                };
                plans.push((format!("gsa forward {norm:?} e {e} {saves} {at}"), op.plan_fwd(&forward, gpu)));
            }
            let backward = gsa::BackwardProblem {
                dtype,
                q,
                k: q,
                v,
                columns,
                rows,
                affine,
                statistics: affine,
                y: v,
                d_o: v,
                dq: Some(q),
                dk: Some(q),
                dv: Some(v),
                dcolumns: Some(columns),
                drows: Some(rows),
                dweight: affine.map(|a| a[0]),
                dbias: affine.map(|a| a[1]),
            };
            plans.push((format!("gsa backward {norm:?} e {e} {at}"), op.plan_bwd(&backward, gpu)));
        }
    }
}

#[test]
fn plans_and_entries_agree() {
    if kernel::all().is_empty() {
        // build.rs has refused this already where kernels are required.
        return;
    }
    let mut findings = Vec::new();
    let mut planned = BTreeSet::new();
    for (call, plan) in plans() {
        let plan = match plan {
            Ok(plan) => plan,
            Err(why) => {
                findings.push(format!("{call}: {why}"));
                continue;
            }
        };
        for launch in &plan.launches {
            planned.insert(launch.kernel);
            let Some(entry) = kernel::find(launch.kernel) else {
                findings.push(format!("{call}: launches `{}`, which was not compiled", launch.kernel));
                continue;
            };
            if launch.params().len() != entry.param_bytes as usize {
                let (has, wants) = (launch.params().len(), entry.param_bytes);
                findings.push(format!(
                    "{call}: {} takes {wants} parameter bytes, the mirror has {has}",
                    entry.name
                ));
            }
            if launch.shared_bytes > entry.shared_bytes {
                let (asks, most) = (launch.shared_bytes, entry.shared_bytes);
                findings.push(format!(
                    "{call}: {} exports {most} shared bytes, the plan asks for {asks}",
                    entry.name
                ));
            }
            if launch.grid == 0 {
                findings.push(format!("{call}: {} is launched with no block", entry.name));
            }
        }
    }
    for entry in kernel::all().iter().filter(|entry| !planned.contains(entry.name)) {
        findings.push(format!("`{}` was compiled, and no plan of this table launches it", entry.name));
    }
    tools::none_of(findings);
}
