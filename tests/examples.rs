//! The examples, run inside this process: what they find, what they write, and how they end.

#[path = "../examples/attention_maps/main.rs"]
#[allow(dead_code)] // `main` itself
mod attention_maps;
#[path = "../examples/check_fixtures/main.rs"]
#[allow(dead_code)]
mod check_fixtures;
#[path = "../examples/kernel_report/options.rs"]
#[allow(dead_code)]
mod kernel_report;
#[path = "../examples/kernel_report/listing.rs"]
mod kernel_report_listing;
#[path = "../examples/kernel_report/model.rs"]
#[allow(dead_code)]
mod kernel_report_model;
#[path = "../examples/learn_radius/main.rs"]
#[allow(dead_code)]
mod learn_radius;

mod fixtures;
#[path = "examples/kernel_report.rs"]
mod kernel_report_tests;
mod pictures;

use std::ffi::OsString;
use std::path::PathBuf;

/// The options that each example of this crate accepts; used by the test of README.md.
pub fn accepts(example: &str, args: &[&str]) -> Result<(), String> {
    let args = words(args);
    match example {
        "attention_maps" => attention_maps::Options::parse(args).map(drop),
        "check_fixtures" => check_fixtures::Options::parse(args).map(drop),
        "kernel_report" => kernel_report::Options::parse(args).map(drop),
        "learn_radius" => learn_radius::Options::parse(args).map(drop),
        _ => return Err(format!("no example is called {example}")),
    }
    .map_err(|e| e.to_string())
}

fn words(args: &[&str]) -> Vec<OsString> {
    args.iter().map(OsString::from).collect()
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("examples").join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    std::fs::create_dir_all(&path).unwrap();
    path
}
