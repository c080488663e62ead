//! Processes: which driver is found, and what the environment chooses.

use crate::common::driver;
use cudarc::driver::CudaContext;
use cudarc::driver::sys::CUresult;
use ptx_emulator_driver::ptx_emulator::{Arch, TensorMode};
use ptx_emulator_driver::{InstallError, install};
use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::process::Command;

/// Set in a child process, to the name of the test that it is there for.
const CHILD: &str = "PTX_EMULATOR_DRIVER_TEST_CHILD";

/// Runs `body` in a process of its own: this binary again, with this test only.
pub fn in_child(test: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    if std::env::var(CHILD).as_deref() == Ok(test) {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, test);
    for (name, value) in variables {
        child.env(name, value);
    }
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the child {} failed:\n{text}", output.status);
    assert!(text.contains("1 passed"), "the child ran nothing:\n{text}");
}

/// A folder with another libcuda under both names. Its functions jump to nowhere: who calls one dies.
struct OtherDriver(PathBuf);

impl OtherDriver {
    fn new(test: &str) -> OtherDriver {
        let folder = std::env::temp_dir().join(format!("ptx-emulator-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let libraries: [(&str, &[u8]); 2] = [
            ("libcuda.so", include_bytes!(concat!(env!("OUT_DIR"), "/libcuda.so"))),
            ("libcuda.so.1", include_bytes!(concat!(env!("OUT_DIR"), "/libcuda.so.1"))),
        ];
        for (name, contents) in libraries {
            std::fs::write(folder.join(name), contents).unwrap();
        }
        OtherDriver(folder)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for OtherDriver {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Opens a library by name, as programs look for their driver, and gives the first word of its jump table.
fn first_jump(name: &CStr) -> usize {
    // SAFETY: C strings, and a table of words that lives as long as the library, which is never closed.
    unsafe {
        let library = libc_dl::dlopen(name.as_ptr(), libc_dl::NOW);
        assert!(!library.is_null(), "{name:?} is not found");
        let table = libc_dl::dlsym(library, c"PTX_EMULATOR_TABLE".as_ptr());
        assert!(!table.is_null());
        *table.cast::<usize>()
    }
}

mod libc_dl {
    use std::ffi::{c_char, c_int, c_void};
    pub const NOW: c_int = 2;
    unsafe extern "C" {
        pub fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
        pub fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }
}

/// The other driver is really found when nothing is installed; the next test would prove nothing otherwise.
#[test]
fn without_installation_the_driver_on_the_path_is_found() {
    let other = OtherDriver::new("found");
    let test = "process::without_installation_the_driver_on_the_path_is_found";
    in_child(test, &[("LD_LIBRARY_PATH", other.path())], || {
        assert_eq!(first_jump(c"libcuda.so"), 0);
        assert_eq!(first_jump(c"libcuda.so.1"), 0);
    });
}

#[test]
fn the_look_alike_wins_over_a_driver_on_the_path() {
    let other = OtherDriver::new("wins");
    let test = "process::the_look_alike_wins_over_a_driver_on_the_path";
    in_child(test, &[("LD_LIBRARY_PATH", other.path())], || {
        driver();
        assert_ne!(first_jump(c"libcuda.so"), 0);
        assert_ne!(first_jump(c"libcuda.so.1"), 0);
        assert_eq!(CudaContext::new(0).unwrap().name().unwrap(), "PTX emulator (sm_80)");
    });
}

#[test]
fn a_driver_that_is_loaded_already_is_an_error() {
    for name in ["libcuda.so", "libcuda.so.1"] {
        let other = OtherDriver::new("loaded");
        let test = "process::a_driver_that_is_loaded_already_is_an_error";
        in_child(test, &[("LD_LIBRARY_PATH", other.path()), ("LOAD_FIRST", name)], || {
            let name = std::env::var("LOAD_FIRST").unwrap();
            first_jump(&CString::new(name.clone()).unwrap());
            let error = install().unwrap_err();
            assert_eq!(error, InstallError::OtherDriver(name));
            assert_eq!(install().unwrap_err(), error);
        });
    }
}

#[test]
fn installing_from_many_threads_gives_one_driver() {
    in_child("process::installing_from_many_threads_gives_one_driver", &[], || {
        let drivers: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..16).map(|_| scope.spawn(|| std::ptr::from_ref(driver()) as usize)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(drivers.iter().all(|d| *d == drivers[0]));
    });
}

#[test]
fn the_environment_chooses() {
    let variables = [
        ("PTX_EMULATOR_SEED", "9"),
        ("PTX_EMULATOR_TENSOR", "sm90"),
        ("PTX_EMULATOR_DEVICES", "sm_86"),
        ("PTX_EMULATOR_MEMORY_MIB", "256"),
        ("PTX_EMULATOR_CUDA_VERSION", "12040"),
    ];
    in_child("process::the_environment_chooses", &variables, || {
        let settings = driver().settings();
        assert_eq!((settings.seed, settings.tensor), (9, TensorMode::Sm90));
        assert_eq!(driver().devices(), [Arch::Sm86]);
        let context = CudaContext::new(0).unwrap();
        assert_eq!(context.compute_capability().unwrap(), (8, 6));
        assert_eq!(context.total_mem().unwrap(), 256 << 20);
        let mut version = 0;
        // SAFETY: the pointer is to a local variable.
        let asked = unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut version) };
        assert_eq!((asked, version), (CUresult::CUDA_SUCCESS, 12_040));
        driver().configure(|s| s.seed = 10);
        assert_eq!(driver().settings().seed, 10);
        driver().reset();
        assert_eq!(driver().settings().seed, 9, "as the environment chose");
    });
}

#[test]
fn no_device_is_an_error_and_no_panic() {
    in_child("process::no_device_is_an_error_and_no_panic", &[("PTX_EMULATOR_DEVICES", "")], || {
        driver();
        assert_eq!(crate::common::code(CudaContext::new(0)), CUresult::CUDA_ERROR_NO_DEVICE);
    });
}

#[test]
fn a_variable_that_is_not_understood_is_an_error() {
    let test = "process::a_variable_that_is_not_understood_is_an_error";
    in_child(test, &[("PTX_EMULATOR_SEED", "many")], || {
        let error = install().unwrap_err();
        assert_eq!(error.to_string(), "PTX_EMULATOR_SEED must be a number, got `many`");
    });
}

#[test]
fn nothing_works_before_initialisation() {
    in_child("process::nothing_works_before_initialisation", &[], || {
        driver();
        type GetCount = unsafe extern "C" fn(*mut i32) -> CUresult;
        let mut count = 0;
        // SAFETY: the type is that of the function; the pointer is to a local variable.
        let asked = unsafe { crate::common::symbol::<GetCount>("cuDeviceGetCount")(&mut count) };
        assert_eq!(asked, CUresult::CUDA_ERROR_NOT_INITIALIZED);
    });
}
