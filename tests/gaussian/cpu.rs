//! The CPU device against the reference.

use crate::common::gaussian::Case;
use crate::common::{random, tried, uniform};
use approx::assert_relative_eq;
use half::{bf16, f16};
use macula::gaussian::{Backward, Forward, GaussianConfig, Kernel, Norm};
use macula::{Cpu, Element, Error, Gaussian, Layout, Tensor, View, ViewMut, Workspace};
use proptest::prelude::*;
use std::sync::Arc;

fn plain() -> GaussianConfig {
    GaussianConfig::default()
}

fn of(kernel: Kernel) -> GaussianConfig {
    GaussianConfig { kernel, ..plain() }
}

fn check_all(case: &Case) {
    let cpu = Cpu::new();
    case.check_host::<f32>(&cpu).unwrap();
    case.check_host::<f16>(&cpu).unwrap();
    case.check_host::<bf16>(&cpu).unwrap();
}

macro_rules! cases {
    ($($name:ident: $config:expr, $shape:expr, $sigma:expr;)*) => {$(
        #[test]
        fn $name() {
            check_all(&Case::new($config, $shape, &$sigma));
        }
    )*};
}

cases! {
    one_pixel: plain(), [2, 3, 1, 1, 5], [0.7, 2.0, 9.0];
    one_pixel_manhattan: of(Kernel::Manhattan), [1, 1, 1, 1, 1], [1.0];
    one_pixel_cauchy: of(Kernel::Cauchy), [3, 1, 1, 1, 2], [1.0];
    one_row: plain(), [1, 2, 1, 37, 3], [1.5];
    one_column: plain(), [1, 2, 37, 1, 3], [1.5];
    one_column_exponential: of(Kernel::Exponential), [1, 2, 23, 1, 3], [1.5, 0.2];
    rows_one_less_than_a_tile: plain(), [1, 1, 15, 4, 4], [2.5];
    rows_of_one_tile: plain(), [1, 1, 16, 5, 4], [2.5];
    rows_one_more_than_a_tile: plain(), [1, 1, 17, 6, 4], [2.5];
    rows_of_three_tiles: plain(), [1, 1, 43, 7, 2], [0.9];
    narrow_band_in_a_long_map: plain(), [1, 1, 70, 3, 2], [1.1];
    d1: plain(), [1, 2, 9, 7, 1], [1.2, 3.3];
    d16: plain(), [1, 1, 9, 7, 16], [1.2];
    d33: plain(), [1, 1, 5, 7, 33], [1.2];
    d40: plain(), [1, 1, 20, 3, 40], [1.2];
    d64: plain(), [1, 1, 5, 6, 64], [1.2];
    d127: plain(), [1, 1, 3, 5, 127], [2.0];
    d128: plain(), [1, 1, 5, 3, 128], [2.0];
    dense_d1: of(Kernel::Cauchy), [1, 2, 6, 7, 1], [1.2, 3.3];
    dense_d17: of(Kernel::Linear), [1, 1, 9, 5, 17], [2.5];
    dense_d128: of(Kernel::Exponential), [1, 1, 3, 4, 128], [1.0];
    one_radius_for_all_heads: plain(), [2, 3, 6, 5, 4], [1.9];
    one_radius_for_all_heads_dense: of(Kernel::Linear), [2, 3, 6, 5, 4], [1.9];
    window_of_one: GaussianConfig { window: Some(1), ..plain() }, [1, 1, 4, 5, 3], [2.0];
    window_beyond_the_map: GaussianConfig { window: Some(31), ..plain() }, [1, 1, 4, 5, 3], [2.0];
    window_across_tiles: GaussianConfig { window: Some(9), ..plain() }, [1, 1, 40, 11, 3], [4.0];
    window_dense: GaussianConfig { window: Some(5), ..of(Kernel::Cauchy) }, [1, 1, 8, 9, 3], [2.0];
    unnormalised: GaussianConfig { norm: Norm::None, ..plain() }, [1, 2, 9, 8, 3], [0.8, 30.0];
    unnormalised_dense: GaussianConfig { norm: Norm::None, ..of(Kernel::Exponential) }, [1, 1, 7, 8, 3], [2.0];
    many_small_maps: plain(), [40, 30, 2, 2, 2], [1.0];
}

#[test]
fn every_number_of_channels() {
    for d in 1..=128 {
        Case::new(plain(), [1, 1, 3, 2, d], &[0.8]).check_host::<f32>(&Cpu::new()).unwrap();
        Case::new(of(Kernel::Linear), [1, 1, 2, 2, d], &[1.8]).check_host::<f16>(&Cpu::new()).unwrap();
    }
}

/// σ², σ³ and 1/σ² leave the range of f32; results do not.
#[test]
fn extreme_radii() {
    for kernel in Kernel::ALL {
        for norm in [Norm::Row, Norm::None] {
            let sigma = [1e-30, 1e-20, 1e-3, 0.05, 1e4, 1e10, 1e18, 1e30];
            check_all(&Case::new(GaussianConfig { norm, ..of(kernel) }, [2, 8, 4, 5, 3], &sigma));
        }
    }
}

fn kernel() -> impl Strategy<Value = Kernel> {
    proptest::sample::select(Kernel::ALL.to_vec())
}

fn case() -> impl Strategy<Value = Case> {
    let shape = (1..3usize, 1..4usize, 1..21usize, 1..12usize, prop_oneof![4 => 1..9usize, 1 => 9..40usize]);
    let config = (kernel(), any::<bool>(), proptest::option::of((0..8usize).prop_map(|half| 2 * half + 1)));
    let broadcast = proptest::array::uniform2(proptest::array::uniform5(proptest::bool::weighted(0.1)));
    (shape, config, any::<bool>(), any::<u32>(), -3.0..3.0f32, broadcast).prop_map(
        |((b, h, y, x, d), (kernel, is_row, window), is_shared, seed, size, broadcast)| {
            let norm = if is_row { Norm::Row } else { Norm::None };
            let radius = |hi: usize| (size + hi as f32 * 0.3).exp();
            Case {
                config: GaussianConfig { kernel, norm, window },
                shape: [b, h, y, x, d],
                sigma: (0..if is_shared { 1 } else { h }).map(radius).collect(),
                layouts: seed.into(),
                broadcast,
            }
        },
    )
}

proptest! {
    #![proptest_config(tried(60))]

    /// Any shape, any strides, poisoned outputs between guards.
    #[test]
    fn any_layout_f32(case in case()) {
        prop_assert_eq!(case.check_host::<f32>(&Cpu::new()), Ok(()));
    }

    #[test]
    fn any_layout_f16(case in case()) {
        prop_assert_eq!(case.check_host::<f16>(&Cpu::new()), Ok(()));
    }

    #[test]
    fn any_layout_bf16(case in case()) {
        prop_assert_eq!(case.check_host::<bf16>(&Cpu::new()), Ok(()));
    }
}

fn bits<T: Element>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

#[test]
fn threads_do_not_change_a_bit() {
    let with = |threads: usize| {
        Cpu::with_pool(Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()))
    };
    let (one, two, five) = (with(1), with(2), with(5));
    for (kernel, layouts) in [(Kernel::Gaussian, 0), (Kernel::Gaussian, 3), (Kernel::Exponential, 4)] {
        let case = Case { layouts, ..Case::new(of(kernel), [2, 3, 50, 40, 5], &[2.0, 1.0, 4.0]) };
        let want = case.results_host::<f32>(&one);
        for cpu in [&one, &two, &five] {
            let got = case.results_host::<f32>(cpu);
            assert_eq!(bits(&got.o), bits(&want.o));
            assert_eq!(bits(&got.dv), bits(&want.dv));
            assert_eq!(bits(&got.dsigma), bits(&want.dsigma));
        }
    }
}

#[test]
fn each_gradient_alone_is_the_same() {
    for kernel in [Kernel::Gaussian, Kernel::Cauchy] {
        let shape = [2, 2, 19, 8, 3];
        let (v, d_o) = (random::<f32>(1, 1824, 1.0), random::<f32>(2, 1824, 1.0));
        let op = Gaussian::new(of(kernel)).unwrap();
        let run = |wants_v: bool, wants_sigma: bool| {
            let (mut dv, mut dsigma) = (vec![f32::NAN; 1824], vec![f32::NAN; 2]);
            let args = Backward {
                v: View::new(&v, shape).unwrap(),
                sigma: View::new([1.0, 2.0].as_slice(), [2]).unwrap(),
                d_o: View::new(&d_o, shape).unwrap(),
                dv: wants_v.then(|| ViewMut::new(&mut dv, shape).unwrap()),
                dsigma: wants_sigma.then(|| ViewMut::new(&mut dsigma, [2]).unwrap()),
            };
            op.backward_into(&Cpu::new(), args, Workspace::none()).unwrap();
            (dv, dsigma)
        };
        let (dv, dsigma) = run(true, true);
        assert_eq!(run(true, false).0, dv);
        assert_eq!(run(false, true).1, dsigma);
        assert!(run(false, false).0[0].is_nan());
    }
}

#[test]
fn empty_maps_are_fine() {
    for axis in 0..4 {
        let mut shape = [2, 3, 4, 5, 6];
        shape[axis] = 0;
        let sigma = Tensor::from_vec(vec![1.0f32], [1]).unwrap();
        let empty = Tensor::<f32, 5>::from_vec(vec![], shape).unwrap();
        let o = plain_op().forward(&Cpu::new(), &empty, &sigma).unwrap();
        assert_eq!(o.shape(), shape);
        let grads = plain_op().backward(&Cpu::new(), &empty, &sigma, &empty).unwrap();
        assert_eq!(grads.dsigma.to_vec().unwrap(), [0.0]);
        assert_eq!(grads.dv.shape(), shape);
    }
}

fn plain_op() -> Gaussian {
    Gaussian::new(plain()).unwrap()
}

#[test]
fn a_radius_that_is_not_positive_is_refused() {
    let v = Tensor::from_vec(vec![1.0f32; 8], [1, 2, 2, 2, 1]).unwrap();
    for radius in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let sigma = Tensor::from_vec(vec![1.0, radius], [2]).unwrap();
        let refused = plain_op().forward(&Cpu::new(), &v, &sigma).err();
        assert!(matches!(refused, Some(Error::Input { arg: "sigma", .. })), "{radius}: {refused:?}");
        let refused = plain_op().backward(&Cpu::new(), &v, &sigma, &v).err();
        assert!(matches!(refused, Some(Error::Input { arg: "sigma", .. })), "{radius}: {refused:?}");
    }
}

#[test]
fn constants_survive_normalisation() {
    for kernel in Kernel::ALL {
        let v = Tensor::from_vec(vec![f16::from_f32(0.7); 30 * 20 * 3], [1, 1, 30, 20, 3]).unwrap();
        let sigma = Tensor::from_vec(vec![4.5f32], [1]).unwrap();
        let o = Gaussian::new(of(kernel)).unwrap().forward(&Cpu::new(), &v, &sigma).unwrap();
        assert_eq!(o.to_vec().unwrap(), v.to_vec().unwrap(), "{kernel:?}");
    }
}

#[test]
fn heads_in_another_order_give_outputs_in_another_order() {
    let case = |layout: Layout<5>, sigma: [f32; 3]| {
        let data = random::<f32>(1, 3 * 77 * 4, 1.0);
        let (mut o, shape) = (vec![0f32; data.len()], layout.shape);
        let args = Forward {
            v: View::new(&data, layout).unwrap(),
            sigma: View::new(sigma.as_slice(), [3]).unwrap(),
            o: ViewMut::new(&mut o, shape).unwrap(),
        };
        plain_op().forward_into(&Cpu::new(), args, Workspace::none()).unwrap();
        o
    };
    let plane = 77 * 4;
    let straight = Layout::contiguous([1, 3, 11, 7, 4]);
    let mut backwards = straight;
    (backwards.strides[1], backwards.offset) = (-(plane as isize), 2 * plane);
    let (a, b) = (case(straight, [1.0, 2.0, 3.0]), case(backwards, [3.0, 2.0, 1.0]));
    for hi in 0..3 {
        assert_eq!(a[hi * plane..][..plane], b[(2 - hi) * plane..][..plane]);
    }
}

/// Away from borders, what is seen moves with the picture.
#[test]
fn a_shifted_map_has_a_shifted_output() {
    let (y, x) = (24, 21);
    let picture = uniform(9, y * x);
    for kernel in Kernel::ALL {
        let op = Gaussian::new(GaussianConfig { window: Some(7), ..of(kernel) }).unwrap();
        let run = |dy: usize, dx: usize| {
            let pixel = |i: usize| picture[(i / x + dy) % y * x + (i % x + dx) % x] as f32;
            let v = Tensor::from_vec((0..y * x).map(pixel).collect(), [1, 1, y, x, 1]).unwrap();
            let sigma = Tensor::from_vec(vec![2.0f32], [1]).unwrap();
            op.forward(&Cpu::new(), &v, &sigma).unwrap().to_vec().unwrap()
        };
        let (still, moved) = (run(0, 0), run(2, 5));
        for (yi, xi) in (3..y - 5).flat_map(|yi| (3..x - 8).map(move |xi| (yi, xi))) {
            let (got, want) = (moved[yi * x + xi], still[(yi + 2) * x + xi + 5]);
            assert_relative_eq!(got, want, epsilon = 1e-6);
        }
    }
}
