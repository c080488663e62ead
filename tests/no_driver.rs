//! A machine without an NVIDIA driver. In a binary of its own: one process knows one driver, and here it is none.

#[cfg(feature = "cuda")]
use macula::{Cuda, Error};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether this machine has a driver after all, as a machine with a GPU does.
#[cfg(feature = "cuda")]
fn has_driver() -> bool {
    // SAFETY: loading the driver runs its initialisers, which every CUDA program does; no symbol is used.
    ["libcuda.so", "libcuda.so.1"].iter().any(|name| unsafe { libloading::Library::new(*name) }.is_ok())
}

/// A device that cannot exist, with or without a driver.
#[cfg(feature = "cuda")]
const NO_SUCH_DEVICE: usize = 4096;

#[cfg(feature = "cuda")]
#[test]
fn cuda_is_an_error() {
    if has_driver() {
        assert!(Cuda::new(NO_SUCH_DEVICE).is_err());
        return;
    }
    for ordinal in [0, NO_SUCH_DEVICE, usize::MAX] {
        match Cuda::new(ordinal) {
            Err(e @ Error::NoDriver { .. }) => assert_eq!(
                e.to_string(),
                "no NVIDIA driver: none of libcuda.so, libcuda.so.1 could be loaded; install the driver, or use the `Cpu` \
                 device"
            ),
            Err(e) => panic!("another error: {e}"),
            Ok(_) => panic!("a device without a driver"),
        }
    }
}

const MAIN: &str = r#"
use macula::{Cpu, Gaussian, Tensor};

fn main() -> Result<(), macula::Error> {
    let device = Cpu::new();
    let op = Gaussian::default();
    let v = Tensor::from_vec(vec![2.0f32; 2 * 5 * 4 * 3], [1, 2, 5, 4, 3])?;
    let sigma = Tensor::from_vec(vec![1.5f32, 0.7], [2])?;
    let o = op.forward(&device, &v, &sigma)?;
    assert!(o.to_vec()?.iter().all(|x| (x - 2.0).abs() < 1e-6), "a constant stays what it is");
    let grads = op.backward(&device, &v, &sigma, &o)?;
    assert_eq!(grads.dv.shape(), v.shape());
    assert!(grads.dsigma.to_vec()?.iter().all(|x| x.abs() < 1e-4), "and no radius changes it");
    match macula::Cuda::new(ORDINAL) {
        Ok(_) => println!("opened"),
        Err(e) => println!("refused: {e}"),
    }
    Ok(())
}
"#;

/// A crate outside the workspace that depends on this one by path, and aborts where something panics.
#[cfg(feature = "cuda")]
#[test]
fn a_dependent_that_aborts_on_panic() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dependent");
    std::fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"dependent\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [dependencies]\nmacula = {{ path = {root:?} }}\n\n[profile.dev]\npanic = \"abort\"\ndebug = false\n\n[workspace]\n"
    );
    std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    let ordinal = if has_driver() { NO_SUCH_DEVICE } else { 0 };
    std::fs::write(folder.join("src/main.rs"), MAIN.replace("ORDINAL", &ordinal.to_string())).unwrap();
    // The same versions as here, all of them at hand.
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let run = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--offline"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        // Kernels are not needed to be without a driver.
        .env("MACULA_NVCC", "off")
        .env_remove("MACULA_REQUIRE_KERNELS")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{}\n{out}{err}", run.status);
    let expected = if has_driver() { "refused: " } else { "refused: no NVIDIA driver" };
    assert!(out.starts_with(expected), "{out}{err}");
}
