//! `check_fixtures`: that it sees what is wrong, and says so by its exit code.

use super::check_fixtures::{Options, check, run};
use super::{folder, words};
use std::path::Path;

fn fixtures() -> String {
    format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"))
}

/// The exit code.
fn code(args: &[&str]) -> u8 {
    run(words(args))
}

/// A folder with one case, its bytes changed.
fn folder_with(name: &str, case: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (path, file) = (folder(name), format!("radius_attn__{case}.safetensors"));
    let mut bytes = std::fs::read(Path::new(&fixtures()).join(&file)).unwrap();
    change(&mut bytes);
    std::fs::write(path.join(&file), bytes).unwrap();
    path.display().to_string()
}

/// Multiplies the largest number of a float64 tensor.
fn scale_largest(bytes: &mut [u8], tensor: &str, factor: f64) {
    let head_bytes = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let head: serde_json::Value = serde_json::from_slice(&bytes[8..8 + head_bytes]).unwrap();
    assert_eq!(head[tensor]["dtype"], "F64");
    let place = |i: usize| 8 + head_bytes + head[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
    let numbers = bytes[place(0)..place(1)].chunks_exact_mut(8);
    let number = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().unwrap());
    let largest = numbers.max_by(|a, b| number(a).abs().total_cmp(&number(b).abs())).unwrap();
    let changed = number(largest) * factor;
    largest.copy_from_slice(&changed.to_le_bytes());
}

#[test]
fn every_case_is_right_on_cpu_and_reference() {
    for device in ["cpu", "reference"] {
        let args = words(&[&fixtures(), "--device", device, "--op", "radius_attn"]);
        let tally = check(&Options::parse(args).unwrap()).unwrap();
        assert_eq!((tally.passed, tally.failed, tally.unsupported), (24, 0, 0), "{device}");
        assert_eq!(code(&[&fixtures(), "--device", device, "--op", "radius_attn"]), 0);
    }
}

#[test]
fn one_output_changed_by_one_percent_fails() {
    for tensor in ["out.y", "grad.v", "grad.sigma"] {
        let name = format!("changed_{tensor}");
        let unchanged = folder_with(&name, "cauchy", |bytes| scale_largest(bytes, tensor, 1.0));
        assert_eq!(code(&[&unchanged]), 0);
        let changed = folder_with(&name, "cauchy", |bytes| scale_largest(bytes, tensor, 1.01));
        assert_eq!((code(&[&changed]), code(&[&changed, "--device", "reference"])), (1, 1), "{tensor}");
        let nan = folder_with(&name, "cauchy", |bytes| scale_largest(bytes, tensor, f64::NAN));
        assert_eq!(code(&[&nan]), 1);
    }
}

#[test]
fn a_run_of_nothing_fails() {
    assert_eq!(code(&[&folder("empty").display().to_string()]), 1);
    assert_eq!(code(&["no/such/folder"]), 1);
    assert_eq!(code(&[&fixtures(), "--op", "no_such_op"]), 1);
    // An op that exists, and no case of it.
    let other = folder_with("other", "cauchy", |_| ());
    assert_eq!(code(&[&other, "--op", "window_attn"]), 1);
    // A file of an op that does not exist: named, and nothing ran.
    let unknown = folder_with("unknown", "cauchy", |bytes| {
        let (known, unknown) = (b"\"op\":\"radius_attn\"", b"\"op\":\"radius_attm\"");
        let at = bytes.windows(known.len()).position(|window| window == known).unwrap();
        bytes[at..at + known.len()].copy_from_slice(unknown);
    });
    let tally = check(&Options::parse(words(&[&unknown])).unwrap()).unwrap();
    assert_eq!(tally.not_implemented.into_iter().collect::<Vec<_>>(), [("radius_attm".to_owned(), 1)]);
    assert_eq!(code(&[&unknown]), 1);
}

#[test]
fn a_broken_file_fails() {
    let broken = folder_with("broken", "cauchy", |bytes| bytes.truncate(bytes.len() - 1));
    assert_eq!(code(&[&broken]), 1);
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for args in [&[][..], &["--op"], &["a", "b"], &["a", "--device", "abacus"], &["a", "--no-such-option"]] {
        assert_eq!(code(args), 2, "{args:?}");
    }
    assert_eq!(code(&["--help"]), 0);
}
