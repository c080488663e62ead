//! The op `gaussian` on CUDA devices.

use crate::common::cuda::{assert_all_executed, devices, with_scratch, with_settings};
use crate::common::gaussian::{Results, truth};
use crate::common::memory::{Lies, Memory, layout};
use crate::common::random;
use half::{bf16, f16};
use macula::gaussian::{Backward, BackwardProblem, Forward, ForwardProblem, GaussianConfig, Kernel, Norm};
use macula::{Cuda, DType, Element, Gaussian, Layout, View, ViewMut};
use ptx_emulator::TensorMode;

#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub shape: [usize; 5],
    /// One per head, or one for all.
    pub sigma: &'static [f32],
    pub kernel: Kernel,
    pub norm: Norm,
    pub window: Option<usize>,
    pub lies: Lies,
}

pub const PLAIN: Case = Case {
    name: "plain",
    shape: [1, 2, 9, 11, 16],
    sigma: &[0.8, 2.5],
    kernel: Kernel::Gaussian,
    norm: Norm::Row,
    window: None,
    lies: Lies::Contiguous,
};

const CASES: &[Case] = &[
    PLAIN,
    Case { name: "one_token", shape: [2, 2, 1, 1, 8], ..PLAIN },
    Case { name: "one_row", shape: [1, 2, 1, 37, 8], ..PLAIN },
    Case { name: "one_column", shape: [1, 2, 37, 1, 8], ..PLAIN },
    Case { name: "tile_minus_one", shape: [1, 1, 15, 15, 16], sigma: &[2.0], ..PLAIN },
    Case { name: "tile", shape: [1, 1, 16, 16, 16], sigma: &[2.0], ..PLAIN },
    Case { name: "tile_plus_one", shape: [1, 1, 17, 17, 16], sigma: &[2.0], ..PLAIN },
    Case { name: "wide", shape: [1, 1, 6, 70, 8], sigma: &[6.0], ..PLAIN },
    Case { name: "tall", shape: [1, 1, 70, 6, 8], sigma: &[6.0], ..PLAIN },
    Case { name: "large_for_one_block", shape: [1, 1, 75, 76, 16], sigma: &[1.5], ..PLAIN },
    Case { name: "too_long_for_one_block", shape: [1, 1, 131, 9, 16], sigma: &[1.5], ..PLAIN },
    Case { name: "too_wide_for_one_block", shape: [1, 2, 5, 300, 9], sigma: &[2.5, 60.0], ..PLAIN },
    Case { name: "one_channel", shape: [1, 2, 7, 6, 1], ..PLAIN },
    Case { name: "odd_channels", shape: [1, 2, 7, 6, 33], ..PLAIN },
    Case { name: "most_channels", shape: [1, 1, 8, 6, 128], sigma: &[1.1], ..PLAIN },
    Case { name: "one_radius", shape: [2, 3, 6, 7, 8], sigma: &[1.7], ..PLAIN },
    Case { name: "many_small_maps", shape: [3, 8, 4, 4, 8], sigma: &[1.0], ..PLAIN },
    Case { name: "window", window: Some(5), ..PLAIN },
    Case { name: "window_of_one", window: Some(1), ..PLAIN },
    Case { name: "window_past_the_map", window: Some(31), ..PLAIN },
    Case { name: "unnormalised", norm: Norm::None, ..PLAIN },
    Case { name: "unnormalised_flat", norm: Norm::None, sigma: &[40.0, 1e6], ..PLAIN },
    Case { name: "manhattan", kernel: Kernel::Manhattan, ..PLAIN },
    Case {
        name: "manhattan_window_unnormalised",
        kernel: Kernel::Manhattan,
        window: Some(7),
        norm: Norm::None,
        ..PLAIN
    },
    Case { name: "tiny_radius", sigma: &[1e-20, 0.05], ..PLAIN },
    Case { name: "huge_radius", sigma: &[1e18, 1e4], ..PLAIN },
    Case { name: "heads_last", lies: Lies::HeadsLast(3), ..PLAIN },
    Case { name: "gaps", lies: Lies::Gaps, ..PLAIN },
    Case { name: "gaps_large", lies: Lies::Gaps, shape: [1, 1, 75, 76, 7], sigma: &[1.5], ..PLAIN },
    Case { name: "gaps_long", lies: Lies::Gaps, shape: [1, 2, 140, 7, 7], ..PLAIN },
];

impl Case {
    fn config(&self) -> GaussianConfig {
        GaussianConfig { kernel: self.kernel, norm: self.norm, window: self.window }
    }

    fn layout(&self) -> Layout<5> {
        self.lies.layout(self.shape)
    }
}

/// Runs a case on a device: outputs and workspace poisoned, guards around everything.
pub fn run<T: Element>(on: &Cuda, case: &Case) -> Result<Results<T, f32>, String> {
    let explain = |e: macula::Error| format!("{} {}: {e}", case.name, T::DTYPE);
    let op = Gaussian::new(case.config()).map_err(explain)?;
    let count = case.shape.iter().product();
    let v = Memory::holding(case.layout(), &random::<T>(1, count, 1.0));
    let d_o = Memory::holding(case.layout(), &random::<T>(2, count, 1.0));
    let heads = layout([case.sigma.len()], 0, [false]);
    let sigma = Memory::holding(heads, case.sigma);
    let (v_on, d_o_on, sigma_on) = (v.upload(on), d_o.upload(on), sigma.upload(on));
    let (mut o, mut dv) = (Memory::<T, 5>::poisoned(case.layout()), Memory::<T, 5>::poisoned(case.layout()));
    let mut dsigma = Memory::<f32, 1>::poisoned(heads);
    let (mut o_on, mut dv_on, mut dsigma_on) = (o.upload(on), dv.upload(on), dsigma.upload(on));
    let view = |slice| View::new(slice, case.layout()).map_err(explain);

    let args = Forward {
        v: view(&v_on)?,
        sigma: View::new(&sigma_on, heads).map_err(explain)?,
        o: ViewMut::new(&mut o_on, case.layout()).map_err(explain)?,
    };
    let bytes = op.plan_fwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.forward_into(on, args, scratch).map_err(explain))?;
    let args = Backward {
        v: view(&v_on)?,
        sigma: View::new(&sigma_on, heads).map_err(explain)?,
        d_o: view(&d_o_on)?,
        dv: Some(ViewMut::new(&mut dv_on, case.layout()).map_err(explain)?),
        dsigma: Some(ViewMut::new(&mut dsigma_on, heads).map_err(explain)?),
    };
    let bytes = op.plan_bwd(&args.problem(), on.gpu()).map_err(explain)?.workspace_bytes;
    with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch).map_err(explain))?;

    o.download(on, &o_on);
    dv.download(on, &dv_on);
    dsigma.download(on, &dsigma_on);
    o.check_guards("o")?;
    dv.check_guards("dv")?;
    dsigma.check_guards("dsigma")?;
    Ok(Results { o: o.values(), dv: dv.values(), dsigma: dsigma.values() })
}

fn bits<T: Element>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

/// Beginnings of the names of entries that the cases execute.
const PASSES: [&str; 5] =
    ["gaussian_fwd_line", "gaussian_fwd_plane", "gaussian_bwd_row", "gaussian_bwd_col", "gaussian_bwd_plane"];

/// Every case on every device; the small ones under every rounding of tensor cores and two orders. They execute all entries
/// of these passes.
pub fn conformance<T: Element>(cases: &[Case], passes: &[&str]) {
    for (ordinal, on) in devices().iter().enumerate() {
        for case in cases {
            let v = random::<T>(1, case.shape.iter().product(), 1.0);
            let d_o = random::<T>(2, v.len(), 1.0);
            let truth = truth(&case.config(), case.shape, &v, case.sigma, &d_o);
            let judge = |got: &Results<T, f32>| {
                truth
                    .judge(got)
                    .map_err(|e| format!("device {ordinal}, {}, {}: {e}", case.name, T::DTYPE))
                    .unwrap();
            };
            let is_small = v.len() < 10_000;
            let modes = [TensorMode::Exact, TensorMode::Sm80, TensorMode::Sm90];
            let modes = if T::DTYPE == DType::F32 || !is_small { &modes[..1] } else { &modes[..] };
            for &mode in modes {
                let first = with_settings(0, mode, || run::<T>(on, case)).unwrap();
                judge(&first);
                if is_small {
                    let second = with_settings(17, mode, || run::<T>(on, case)).unwrap();
                    let same = bits(&first.o) == bits(&second.o)
                        && bits(&first.dv) == bits(&second.dv)
                        && bits(&first.dsigma) == bits(&second.dsigma);
                    assert!(same, "device {ordinal}, {}: another order of warps gives other bits", case.name);
                }
            }
        }
    }
    for pass in passes {
        let dtype = format!("_{}", T::DTYPE);
        assert_all_executed(|name| name.starts_with(pass) && name.contains(&dtype));
    }
}

#[test]
fn cuda_f32() {
    conformance::<f32>(CASES, &PASSES);
}

#[test]
fn cuda_f16() {
    conformance::<f16>(CASES, &PASSES);
}

#[test]
fn cuda_bf16() {
    conformance::<bf16>(CASES, &PASSES);
}

/// A radius that is not positive makes NaN of its head and leaves the others alone: nothing may wait to look at it.
#[test]
fn radius_that_is_not_positive() {
    let on = &devices()[0];
    for (kernel, norm) in
        Kernel::ALL.into_iter().flat_map(|kernel| [(kernel, Norm::Row), (kernel, Norm::None)])
    {
        for bad in [0.0, -1.0, f32::NAN] {
            let sigma: &'static [f32] = vec![bad, 1.0].leak();
            let got = run::<f32>(on, &Case { sigma, kernel, norm, ..PLAIN }).unwrap();
            for of_both in [&got.o, &got.dv] {
                let (first, second) = of_both.split_at(of_both.len() / 2);
                let is_right = first.iter().all(|x| x.is_nan()) && second.iter().all(|x| x.is_finite());
                assert!(is_right, "{kernel:?} {norm:?}, σ = {bad}");
            }
            assert!(got.dsigma[0].is_nan() && got.dsigma[1].is_finite(), "{kernel:?} {norm:?}, σ = {bad}");
        }
    }
}

#[test]
fn gradients_are_optional() {
    let on = &devices()[0];
    let count = PLAIN.shape.iter().product();
    let v = on.stream().clone_htod(&random::<f32>(1, count, 1.0)).unwrap();
    let d_o = on.stream().clone_htod(&random::<f32>(2, count, 1.0)).unwrap();
    let sigma = on.stream().clone_htod(PLAIN.sigma).unwrap();
    for kernel in [Kernel::Gaussian, Kernel::Linear] {
        let whole = run::<f32>(on, &Case { kernel, ..PLAIN }).unwrap();
        for (wants_dv, wants_dsigma) in [(true, false), (false, true), (false, false)] {
            let mut dv = on.stream().alloc_zeros::<f32>(count).unwrap();
            let mut dsigma = on.stream().alloc_zeros::<f32>(2).unwrap();
            let args = Backward {
                v: View::new(&v, PLAIN.shape).unwrap(),
                sigma: View::new(&sigma, [2]).unwrap(),
                d_o: View::new(&d_o, PLAIN.shape).unwrap(),
                dv: wants_dv.then(|| ViewMut::new(&mut dv, PLAIN.shape).unwrap()),
                dsigma: wants_dsigma.then(|| ViewMut::new(&mut dsigma, [2]).unwrap()),
            };
            let op = Gaussian::new(GaussianConfig { kernel, ..Default::default() }).unwrap();
            let bytes = op.plan_bwd(&args.problem(), on.gpu()).unwrap().workspace_bytes;
            with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch).map_err(|e| e.to_string()))
                .unwrap();
            let got = on.stream().clone_dtoh(&dv).unwrap();
            assert_eq!(got, if wants_dv { whole.dv.clone() } else { vec![0.0; count] });
            let got = on.stream().clone_dtoh(&dsigma).unwrap();
            assert_eq!(got, if wants_dsigma { whole.dsigma.clone() } else { vec![0.0; 2] });
        }
    }
}

#[test]
fn empty_maps_give_zero_radius_gradients() {
    let on = &devices()[0];
    for shape in [[0, 2, 3, 3, 4], [1, 2, 0, 3, 4], [1, 2, 3, 0, 4]] {
        let empty = on.stream().clone_htod(&[0.0f32]).unwrap();
        let sigma = on.stream().clone_htod(&[1.0f32, 2.0]).unwrap();
        let mut dsigma = on.stream().clone_htod(&[f32::NAN; 2]).unwrap();
        let args = Backward {
            v: View::new(&empty, shape).unwrap(),
            sigma: View::new(&sigma, [2]).unwrap(),
            d_o: View::new(&empty, shape).unwrap(),
            dv: None,
            dsigma: Some(ViewMut::new(&mut dsigma, [2]).unwrap()),
        };
        let op = Gaussian::default();
        let bytes = op.plan_bwd(&args.problem(), on.gpu()).unwrap().workspace_bytes;
        with_scratch(on, bytes, |scratch| op.backward_into(on, args, scratch).map_err(|e| e.to_string()))
            .unwrap();
        assert_eq!(on.stream().clone_dtoh(&dsigma).unwrap(), [0.0, 0.0], "{shape:?}");
    }
}

#[test]
fn plans_name_compiled_entries_on_every_class() {
    for gpu in macula::Gpu::CLASSES {
        for dtype in DType::ALL {
            for shape in [[1, 1, 1, 1, 1], [2, 8, 56, 56, 64], [1, 4, 200, 300, 40], [64, 12, 7, 7, 32]] {
                let op = Gaussian::default();
                let forward = op.plan_fwd(&ForwardProblem::contiguous(shape, dtype), &gpu).unwrap();
                let backward = op.plan_bwd(&BackwardProblem::contiguous(shape, dtype), &gpu).unwrap();
                for launch in forward.launches.iter().chain(&backward.launches) {
                    let entry =
                        macula::kernel::find(launch.kernel).unwrap_or_else(|| panic!("{}", launch.kernel));
                    assert_eq!(entry.param_bytes as usize, launch.params().len(), "{}", launch.kernel);
                    assert!(launch.shared_bytes <= entry.shared_bytes, "{}", launch.kernel);
                    assert!(launch.shared_bytes <= gpu.shared_optin_bytes, "{}", launch.kernel);
                }
            }
        }
    }
}
