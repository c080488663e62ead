//! The attention map of one query.

use macula::gaussian::{GaussianConfig, Kernel, Norm};
use macula::{Error, Gaussian};

/// A row of A times a one-hot map is one weight; here by the definition, written once more.
#[test]
fn follows_the_definition() {
    let (size, query, sigma) = ([5usize, 7usize], [1usize, 5usize], 1.7f64);
    for kernel in Kernel::ALL {
        for (norm, window) in [(Norm::Row, None), (Norm::None, None), (Norm::Row, Some(3))] {
            let op = Gaussian::new(GaussianConfig { kernel, norm, window }).unwrap();
            let map = op.attention_map(size, query, sigma as f32).unwrap();
            let weights: Vec<f64> = (0..35)
                .map(|j| {
                    let (dy, dx) = ((j / 7usize).abs_diff(query[0]), (j % 7).abs_diff(query[1]));
                    if window.is_some_and(|w| dy > w / 2 || dx > w / 2) {
                        return 0.0;
                    }
                    let (dy, dx) = (dy as f64, dx as f64);
                    let distance = dy.hypot(dx);
                    match kernel {
                        Kernel::Gaussian => (-distance.powi(2) / (2.0 * sigma.powi(2))).exp(),
                        Kernel::Manhattan => (-(dy + dx) / sigma).exp(),
                        Kernel::Exponential => (-distance / sigma).exp(),
                        Kernel::Linear => (1.0 - distance / sigma).max(0.0),
                        Kernel::Cauchy => 1.0 / (1.0 + (distance / sigma).powi(2)),
                    }
                })
                .collect();
            let z = if norm == Norm::Row { weights.iter().sum() } else { 1.0 };
            assert_eq!(map.len(), 35);
            for (j, (weight, got)) in weights.iter().zip(&map).enumerate() {
                // σ is rounded to f32 on the way in.
                let is_close = (weight / z - f64::from(*got)).abs() <= 1e-6;
                assert!(is_close, "{kernel:?} {norm:?} {window:?} key {j}: {got}, not {}", weight / z);
            }
        }
    }
}

#[test]
fn refuses_what_has_no_map() {
    let text = |size, query, sigma| match Gaussian::default().attention_map(size, query, sigma) {
        Err(e @ Error::Input { .. }) => e.to_string(),
        other => panic!("{size:?} {query:?} {sigma}: {other:?}"),
    };
    assert_eq!(
        text([5, 7], [5, 0], 1.0),
        "gaussian: `query` must be inside the map of 5 rows and 7 columns, got [5, 0]"
    );
    text([5, 7], [0, 7], 1.0);
    text([0, 0], [0, 0], 1.0);
    text([usize::MAX, 2], [0, 0], 1.0);
    assert_eq!(text([5, 7], [0, 0], 0.0), "gaussian: `sigma` must be positive and finite, got 0");
    text([5, 7], [0, 0], -1.0);
    text([5, 7], [0, 0], f32::NAN);
    text([5, 7], [0, 0], f32::INFINITY);
}

/// The extremes of the radius: only the query itself, and everything alike.
#[test]
fn extreme_radii_are_finite() {
    let map = |sigma| Gaussian::default().attention_map([3, 4], [1, 2], sigma).unwrap();
    let one_hot: Vec<f32> = (0..12).map(|j| if j == 6 { 1.0 } else { 0.0 }).collect();
    assert_eq!(map(1e-20), one_hot);
    map(1e18).iter().for_each(|&w| approx::assert_relative_eq!(w, 1.0 / 12.0));
}
