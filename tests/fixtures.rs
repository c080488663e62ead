//! The reference and the CPU device against cases that an independent float64 implementation computed.

use crate::common::cuda::devices;
use crate::common::fixture::ops::{Runner, find};
use crate::common::fixture::{Fixture, gaussian_config, run};
use macula::reference::gaussian;
use macula::{Cpu, Device};
use std::path::Path;

/// Loads every fixture of an op; a folder with too few of them is a mistake too.
fn fixtures(beginning: &str, count: usize) -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let paths = Fixture::paths(&folder, beginning).unwrap();
    assert_eq!(paths.len(), count, "fixtures {beginning}*");
    paths.iter().map(|path| Fixture::load(path).unwrap()).collect()
}

fn gaussian_on(device: &dyn Device) {
    for fixture in fixtures("radius_attn__", 24) {
        run(device, &fixture).unwrap();
    }
}

#[test]
fn gaussian_on_cpu() {
    gaussian_on(&Cpu::new());
}

/// Ops by the beginnings of their files, and how many cases there are.
const OTHER_OPS: [(&str, usize); 9] = [
    ("window_attn__", 28),
    ("window_attn_general__", 12),
    ("block_attn__", 8),
    ("content_attn__", 10),
    ("nonlocal_core__", 1),
    ("axial_pos_attn__", 13),
    ("axial_pos_1d__", 2),
    ("gsa__", 3),
    ("value_mixture__", 1),
];

#[test]
fn other_ops_on_cpu() {
    for (beginning, count) in OTHER_OPS {
        for fixture in fixtures(beginning, count) {
            run(&Cpu::new(), &fixture).unwrap();
        }
    }
}

#[test]
fn other_ops_in_the_reference() {
    for (beginning, count) in OTHER_OPS {
        for fixture in fixtures(beginning, count) {
            let op = find(&fixture.op).unwrap();
            let results =
                (op.results)(&fixture, Runner::Reference).unwrap_or_else(|e| panic!("{}: {e}", fixture.case));
            results.iter().for_each(|(name, got)| fixture.check(name, got).unwrap());
        }
    }
}

/// Every case, in f32, on the device that the tests run kernels on.
#[test]
fn gaussian_on_cuda() {
    gaussian_on(&devices()[0]);
}

/// Every case, in f32, on the device that the tests run kernels on.
#[test]
fn local_on_cuda() {
    let on = &devices()[0];
    for (beginning, count) in [("window_attn__", 28), ("window_attn_general__", 12), ("block_attn__", 8)] {
        for fixture in fixtures(beginning, count) {
            run(on, &fixture).unwrap();
        }
    }
}

/// Every case, likewise; of the non-local ones the dot product.
#[test]
fn content_on_cuda() {
    let on = &devices()[0];
    for (beginning, count) in [("content_attn__", 10), ("nonlocal_core__", 1)] {
        for fixture in fixtures(beginning, count) {
            run(on, &fixture).unwrap();
        }
    }
}

/// The one case, likewise.
#[test]
fn value_mixture_on_cuda() {
    let on = &devices()[0];
    for fixture in fixtures("value_mixture__", 1) {
        run(on, &fixture).unwrap();
    }
}

/// Every case, likewise.
#[test]
fn gsa_on_cuda() {
    let on = &devices()[0];
    for fixture in fixtures("gsa__", 3) {
        run(on, &fixture).unwrap();
    }
}

/// In f64 the reference is right to far more digits than the rule of the fixtures asks for. Results that the file holds
/// in f32 are as good as that.
#[test]
fn gaussian_reference() {
    for fixture in fixtures("radius_attn__", 24) {
        let config = gaussian_config(&fixture).unwrap();
        let shape = fixture.shape("in.v").unwrap();
        let [v, sigma, d_o] = ["in.v", "in.sigma", "up.y"].map(|name| fixture.values(name).unwrap());
        let o = gaussian::forward(&config, shape, v, sigma);
        let grads = gaussian::backward(&config, shape, v, sigma, d_o);
        for (name, got) in [("out.y", o), ("grad.v", grads.dv), ("grad.sigma", grads.dsigma)] {
            fixture.check(name, &got).unwrap();
            let truth = fixture.values(name).unwrap();
            let largest = truth.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            for (truth, got) in truth.iter().zip(&got) {
                let is_same =
                    (truth - got).abs() <= 1e-13 * largest.max(1.0) || *truth == f64::from(*got as f32);
                assert!(is_same, "{}: {name}: {got:e}, not {truth:e}", fixture.case);
            }
        }
    }
}
