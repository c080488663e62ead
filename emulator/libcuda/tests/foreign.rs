//! A program that is not ours finds the look-alike on its library path and runs on it.

#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

#[path = "../examples/vector_add.rs"]
mod vector_add;

use std::path::PathBuf;
use std::process::{Command, Output};

/// Set in the child process that is the program.
const CHILD: &str = "PTX_EMULATOR_LIBCUDA_TEST_CHILD";

/// The shared library that cargo built beside this test.
fn library() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("libptx_emulator_libcuda.so");
    assert!(beside.is_file(), "{} is not there", beside.display());
    beside
}

/// Runs this test binary again through `run.sh`, as the program of one test.
fn run(test: &str, variables: &[(&str, &str)]) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/run.sh");
    let mut program = Command::new(script);
    program.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture", "--test-threads=1"]);
    program.env("PTX_EMULATOR_LIBCUDA", library()).env(CHILD, test);
    for (name, value) in variables {
        program.env(name, value);
    }
    program.output().unwrap()
}

fn is_child(test: &str) -> bool {
    std::env::var(CHILD).as_deref() == Ok(test)
}

#[test]
fn a_program_runs_on_the_library() {
    let test = "a_program_runs_on_the_library";
    if is_child(test) {
        vector_add::main().unwrap();
        return;
    }
    for (devices, name) in [("sm_80", "sm_80"), ("sm_90,sm_80", "sm_90")] {
        let output = run(test, &[("PTX_EMULATOR_DEVICES", devices)]);
        let text = String::from_utf8_lossy(&output.stdout);
        let wanted = format!("1000 of 1000 sums are right on PTX emulator ({name})");
        assert!(output.status.success() && text.contains(&wanted), "{output:?}");
    }
}

/// A variable that is not understood fails `cuInit`, and says so where a user looks.
#[test]
fn a_wrong_variable_is_told() {
    let test = "a_wrong_variable_is_told";
    if is_child(test) {
        let error = cudarc::driver::CudaContext::new(0).unwrap_err();
        assert_eq!(error.0, cudarc::driver::sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        return;
    }
    let output = run(test, &[("PTX_EMULATOR_TENSOR", "fast")]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{output:?}");
    assert!(told.contains("PTX_EMULATOR_TENSOR must be exact, sm80 or sm90, got `fast`"), "{told}");
}

/// As libcuda.so.1 is to be found by programs that are linked to it.
#[test]
fn the_library_has_the_drivers_soname() {
    let elf = std::fs::read(library()).unwrap();
    assert!(elf.windows(14).any(|w| w == b"\0libcuda.so.1\0"));
}
