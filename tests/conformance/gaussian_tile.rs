//! The kernels of `gaussian` that are not separable, on CUDA devices.

use super::gaussian::{Case, PLAIN, conformance};
use crate::common::cuda::devices;
use crate::common::memory::Lies;
use half::{bf16, f16};
use macula::gaussian::{GaussianConfig, Kernel, Norm};
use macula::{Gaussian, Tensor};

const KERNELS: [Kernel; 3] = [Kernel::Exponential, Kernel::Linear, Kernel::Cauchy];

const fn of(kernel: Kernel) -> Case {
    Case { kernel, ..PLAIN }
}

const EXPONENTIAL: Case = of(Kernel::Exponential);
const LINEAR: Case = of(Kernel::Linear);
const CAUCHY: Case = of(Kernel::Cauchy);

/// What a kernel does with shapes and memory, which is the same for all three. Tiles are 8×8 pixels; a block takes 16 units of 16
/// bytes of the channels of all images.
const SHAPES: &[Case] = &[
    Case { name: "one_token", shape: [2, 2, 1, 1, 8], ..CAUCHY },
    Case { name: "one_row", shape: [1, 2, 1, 37, 8], ..EXPONENTIAL },
    Case { name: "one_column", shape: [1, 2, 37, 1, 8], ..CAUCHY },
    Case { name: "tile_minus_one", shape: [1, 1, 7, 7, 16], sigma: &[2.0], ..LINEAR },
    Case { name: "tile", shape: [1, 1, 8, 8, 16], sigma: &[2.0], ..EXPONENTIAL },
    Case { name: "tile_plus_one", shape: [1, 1, 9, 17, 16], sigma: &[2.0], ..CAUCHY },
    Case { name: "wide", shape: [1, 1, 6, 70, 8], sigma: &[1.5], ..EXPONENTIAL },
    Case { name: "tall", shape: [1, 1, 70, 6, 8], sigma: &[17.0], ..LINEAR },
    Case { name: "one_tile_of_many", shape: [1, 1, 30, 34, 8], sigma: &[0.4], ..LINEAR },
    Case { name: "a_disc_of_tiles", shape: [1, 1, 30, 34, 8], sigma: &[12.0], ..LINEAR },
    Case { name: "one_channel", shape: [1, 2, 7, 6, 1], ..EXPONENTIAL },
    Case { name: "odd_channels", shape: [1, 2, 7, 6, 33], ..CAUCHY },
    Case { name: "most_channels", shape: [1, 1, 8, 6, 128], sigma: &[1.1], ..LINEAR },
    Case { name: "images_share_a_block", shape: [3, 2, 9, 8, 40], ..EXPONENTIAL },
    Case { name: "images_in_two_blocks", shape: [5, 1, 6, 9, 31], sigma: &[1.7], ..CAUCHY },
    Case { name: "one_radius", shape: [2, 3, 6, 7, 8], sigma: &[1.7], ..LINEAR },
    Case { name: "heads_last", lies: Lies::HeadsLast(3), ..EXPONENTIAL },
    Case { name: "gaps", lies: Lies::Gaps, ..LINEAR },
    Case { name: "gaps_odd", lies: Lies::Gaps, shape: [2, 1, 12, 17, 7], sigma: &[1.5], ..CAUCHY },
];

/// What each has to do right on its own.
const WEIGHTS: &[Case] = &[
    PLAIN,
    Case { name: "window", window: Some(5), ..PLAIN },
    Case { name: "window_of_one", window: Some(1), ..PLAIN },
    Case { name: "window_wide", window: Some(19), shape: [1, 2, 20, 21, 8], sigma: &[2.0, 40.0], ..PLAIN },
    Case { name: "window_past_the_map", window: Some(31), ..PLAIN },
    Case { name: "unnormalised", norm: Norm::None, ..PLAIN },
    Case { name: "unnormalised_flat", norm: Norm::None, sigma: &[40.0, 1e6], ..PLAIN },
    Case { name: "unnormalised_window", norm: Norm::None, window: Some(7), ..PLAIN },
    Case { name: "tiny_radius", sigma: &[1e-20, 0.05], ..PLAIN },
    Case { name: "small_radius", sigma: &[1e-30, 0.9], ..PLAIN },
    Case { name: "huge_radius", sigma: &[1e18, 1e4], ..PLAIN },
    Case { name: "largest_radius", sigma: &[1e30, 3e38], ..PLAIN },
    Case { name: "corner_on_a_pixel", sigma: &[1.0, 5.0], ..PLAIN },
];

fn cases() -> Vec<Case> {
    let all = |kernel| WEIGHTS.iter().map(move |case| Case { kernel, ..*case });
    SHAPES.iter().copied().chain(KERNELS.into_iter().flat_map(all)).collect()
}

const PASSES: [&str; 2] = ["gaussian_fwd_tile", "gaussian_bwd_tile"];

#[test]
fn cuda_f32() {
    conformance::<f32>(&cases(), &PASSES);
}

#[test]
fn cuda_f16() {
    conformance::<f16>(&cases(), &PASSES);
}

#[test]
fn cuda_bf16() {
    conformance::<bf16>(&cases(), &PASSES);
}

/// Sums of more terms than a tensor core may add leave it on the way.
#[test]
fn long_sums() {
    let long = Case { shape: [1, 1, 33, 41, 8], sigma: &[30.0], kernel: Kernel::Cauchy, ..PLAIN };
    conformance::<f16>(&[Case { name: "long", ..long }], &[]);
}

/// Rows of the map sum to 1 because Z sums the rounded weights.
#[test]
fn constants_survive() {
    let on = &devices()[0];
    let shape = [1, 1, 20, 13, 8];
    let v = Tensor::from_vec(vec![f16::from_f32(0.7); 20 * 13 * 8], shape).unwrap().to(on).unwrap();
    let sigma = Tensor::from_vec(vec![4.5f32], [1]).unwrap().to(on).unwrap();
    for kernel in KERNELS {
        let op = Gaussian::new(GaussianConfig { kernel, ..Default::default() }).unwrap();
        let o = op.forward(on, &v, &sigma).unwrap();
        assert_eq!(o.to_vec().unwrap(), v.to_vec().unwrap(), "{kernel:?}");
    }
}
