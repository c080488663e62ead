//! The reference against itself: gradients against differences, two passes against the definition, extremes.

use crate::common::uniform;
use approx::assert_abs_diff_eq;
use macula::gaussian::{GaussianConfig, Kernel, Norm};
use macula::reference::gaussian::{attention_map, backward, backward_separable, forward, forward_separable};

/// Every kernel with every normaliser, without a window and with one.
fn configs() -> impl Iterator<Item = GaussianConfig> {
    Kernel::ALL.into_iter().flat_map(|kernel| {
        [Norm::Row, Norm::None].into_iter().flat_map(move |norm| {
            [None, Some(3)].into_iter().map(move |window| GaussianConfig { kernel, norm, window })
        })
    })
}

const SHAPE: [usize; 5] = [2, 2, 4, 5, 3];

/// The gradient is the slope of ⟨g, o⟩, by differences so central that they are right to about 1e-9.
#[test]
fn backward_is_the_slope_of_forward() {
    let (v, g) = (uniform(1, 240), uniform(2, 240));
    for config in configs() {
        for sigma in [vec![0.83, 1.9], vec![2.6]] {
            let loss = |v: &[f64], sigma: &[f64]| -> f64 {
                forward(&config, SHAPE, v, sigma).iter().zip(&g).map(|(o, g)| o * g).sum()
            };
            let slope = |values: &[f64], i: usize, loss: &dyn Fn(&[f64]) -> f64| {
                let at = |step: f64| {
                    let mut moved = values.to_vec();
                    moved[i] += step;
                    loss(&moved)
                };
                let h = 1e-3;
                (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * h)
            };
            let grads = backward(&config, SHAPE, &v, &sigma, &g);
            for i in (0..v.len()).step_by(7) {
                let want = slope(&v, i, &|v| loss(v, &sigma));
                assert_abs_diff_eq!(grads.dv[i], want, epsilon = 1e-9);
            }
            for (i, got) in grads.dsigma.iter().enumerate() {
                let want = slope(&sigma, i, &|sigma| loss(&v, sigma));
                assert_abs_diff_eq!(*got, want, epsilon = 1e-8);
            }
        }
    }
}

#[test]
fn two_passes_equal_the_definition() {
    let (v, g) = (uniform(3, 240), uniform(4, 240));
    for config in configs().filter(|config| config.kernel.is_separable()) {
        for sigma in [vec![0.4, 3.0], vec![1.3]] {
            let o = forward_separable(&config, SHAPE, &v, &sigma);
            for (got, want) in o.iter().zip(forward(&config, SHAPE, &v, &sigma)) {
                assert_abs_diff_eq!(*got, want, epsilon = 1e-13);
            }
            let got = backward_separable(&config, SHAPE, &v, &sigma, &g);
            let want = backward(&config, SHAPE, &v, &sigma, &g);
            for (got, want) in got.dv.iter().zip(want.dv).chain(got.dsigma.iter().zip(want.dsigma)) {
                assert_abs_diff_eq!(*got, want, epsilon = 1e-12);
            }
        }
    }
}

/// A plain f32 reading stays finite where the square or the cube of the radius does not.
#[test]
fn extreme_radii_are_finite_in_f32() {
    let (v, g): (Vec<f32>, Vec<f32>) = (0..240).map(|i| ((i % 7) as f32 - 3.0, (i % 5) as f32 - 2.0)).unzip();
    for config in configs() {
        for sigma in [1e-20f32, 1e-30, 1e18, 1e30] {
            let o = forward(&config, SHAPE, &v, &[sigma]);
            let grads = backward(&config, SHAPE, &v, &[sigma], &g);
            let all = o.iter().chain(&grads.dv).chain(&grads.dsigma);
            assert!(all.clone().all(|x| x.is_finite()), "{config:?}, radius {sigma:e}");
            if sigma < 1.0 {
                assert_eq!(o, v, "{config:?}: a tiny radius sees only itself");
                assert_eq!(grads.dv, g);
                assert_eq!(grads.dsigma, [0.0]);
            }
        }
    }
}

#[test]
fn a_map_row_is_what_forward_averages_with() {
    for config in configs() {
        let map = attention_map(&config, [4, 5], [1, 3], 1.7);
        let v = uniform(5, 20);
        let want = forward(&config, [1, 1, 4, 5, 1], &v, &[1.7])[8];
        let got: f64 = map.iter().zip(&v).map(|(a, v)| a * v).sum();
        assert_abs_diff_eq!(got, want, epsilon = 1e-14);
        if config.norm == Norm::Row {
            assert_abs_diff_eq!(map.iter().sum::<f64>(), 1.0, epsilon = 1e-14);
        }
        assert_eq!(map[0] == 0.0, config.window.is_some() || config.kernel == Kernel::Linear);
    }
}
