//! Modules and functions.

use crate::common::{KERNELS, Setup, code, driver};
use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUresult};
use cudarc::driver::{CudaContext, result};
use cudarc::nvrtc::Ptx;
use std::ffi::{CStr, CString, c_void};

/// Loads PTX with a buffer for the error log, and gives the result and the log.
fn load_with_log(ptx: &str) -> (CUresult, String) {
    let image = CString::new(ptx).unwrap();
    let mut log = vec![0u8; 4096];
    let mut options = [
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
        sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        sys::CUjit_option::CU_JIT_WALL_TIME,
    ];
    let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void, std::ptr::null_mut()];
    let mut module = std::ptr::null_mut();
    // SAFETY: options and values are parallel arrays of 3, the buffer is as long as said.
    let result = unsafe {
        sys::cuModuleLoadDataEx(
            &mut module,
            image.as_ptr().cast(),
            3,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    let text = CStr::from_bytes_until_nul(&log).unwrap().to_str().unwrap().to_owned();
    assert_eq!(values[1] as usize, text.len(), "the size slot says how long the log is");
    (result, text)
}

fn load(ptx: &str) -> (CUresult, String) {
    driver();
    let context = CudaContext::new(0).unwrap();
    context.bind_to_thread().unwrap();
    driver().with(|s| s.print = false, || load_with_log(ptx))
}

#[test]
fn a_good_module_has_an_empty_log() {
    assert_eq!(load(KERNELS), (CUresult::CUDA_SUCCESS, String::new()));
}

#[test]
fn the_jit_log_names_the_line_that_is_not_understood() {
    let bad = KERNELS.replacen("add.f32", "frobnicate.f32", 1);
    let line = bad.lines().position(|l| l.contains("frobnicate")).unwrap() + 1;
    let (result, log) = load(&bad);
    assert_eq!(result, CUresult::CUDA_ERROR_INVALID_PTX);
    assert!(log.contains("frobnicate") && log.contains(&format!("line {line}")), "{log}");
}

#[test]
fn cudarc_gets_the_error_too() {
    driver();
    let context = CudaContext::new(0).unwrap();
    let bad = KERNELS.replacen("add.f32", "frobnicate.f32", 1);
    let loaded = driver().with(|s| s.print = false, || context.load_module(Ptx::from_src(bad)));
    assert_eq!(code(loaded), CUresult::CUDA_ERROR_INVALID_PTX);
}

#[test]
fn ptx_that_is_too_new_is_refused_as_an_old_driver_does() {
    let newer = KERNELS.replacen(".version 7.8", ".version 9.0", 1);
    let (result, log) = load(&newer);
    assert_eq!(result, CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    assert!(log.contains("Unsupported .version 9.0"), "{log}");
    driver().with(|s| s.cuda_version = 13_000, || assert_eq!(load(&newer).0, CUresult::CUDA_SUCCESS));
}

#[test]
fn ptx_for_a_newer_device_is_refused() {
    let hopper = KERNELS.replacen(".target sm_80", ".target sm_90", 1);
    assert_eq!(load(&hopper).0, CUresult::CUDA_ERROR_INVALID_PTX);
}

#[test]
fn machine_code_is_refused() {
    let (result, log) = load("\x7fELF is how a cubin begins");
    assert_eq!(result, CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
    assert!(log.contains("cubin"), "{log}");
    assert_eq!(load("no PTX").0, CUresult::CUDA_ERROR_INVALID_IMAGE);
}

#[test]
fn too_much_static_shared_memory_is_refused() {
    let greedy = KERNELS.replacen("[1024];", "[65536];", 1);
    assert_ne!(greedy, KERNELS);
    let (result, log) = load(&greedy);
    assert_eq!(result, CUresult::CUDA_ERROR_INVALID_PTX);
    assert!(log.contains("'rotate' uses too much shared data (0x10000 bytes, 0xc000 max)"), "{log}");
}

#[test]
fn functions_are_found_by_name() {
    let setup = Setup::on(0);
    assert_eq!(code(setup.module.load_function("no_such_kernel")), CUresult::CUDA_ERROR_NOT_FOUND);
    let (one, two) = (setup.function("scale"), setup.function("scale"));
    assert_eq!(one.cu_function(), two.cu_function());
}

#[test]
fn attributes_of_functions() {
    let setup = Setup::on(1);
    let rotate = setup.function("rotate");
    assert_eq!(rotate.max_threads_per_block().unwrap(), 256);
    assert_eq!(rotate.shared_size_bytes().unwrap(), 1024);
    assert_eq!(rotate.local_size_bytes().unwrap(), 0);
    assert_eq!(rotate.ptx_version().unwrap(), 80);
    assert_eq!(rotate.binary_version().unwrap(), 86);
    assert_eq!(rotate.num_regs().unwrap(), 255, "what 256 threads leave to each");
    assert_eq!(setup.function("add_one").num_regs().unwrap(), 64, "what 1024 threads leave to each");
}

#[test]
fn dynamic_shared_memory_can_be_raised_to_the_limit_and_not_beyond() {
    let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let setup = Setup::on(1);
    let rotate = setup.function("rotate");
    let most = (99 << 10) - 1024;
    // SAFETY: the function is alive as long as its module.
    let now =
        || unsafe { result::function::get_function_attribute(rotate.cu_function(), attribute) }.unwrap();
    assert_eq!(now(), (48 << 10) - 1024);
    assert_eq!(code(rotate.set_attribute(attribute, most + 1)), CUresult::CUDA_ERROR_INVALID_VALUE);
    assert_eq!(code(rotate.set_attribute(attribute, -1)), CUresult::CUDA_ERROR_INVALID_VALUE);
    rotate.set_attribute(attribute, most).unwrap();
    assert_eq!(now(), most);
}

#[test]
fn occupancy_follows_from_the_limits() {
    let setup = Setup::on(0);
    let reverse = setup.function("reverse");
    let blocks =
        |threads, shared| reverse.occupancy_max_active_blocks_per_multiprocessor(threads, shared, None);
    assert_eq!(blocks(256, 0).unwrap(), 1, "255 registers");
    assert_eq!(blocks(32, 80 << 10).unwrap(), 2, "two of 81 KiB");
    assert_eq!(blocks(512, 0).unwrap(), 0, "more than the launch bounds");
    let (min_grid, block) =
        setup.function("add_one").occupancy_max_potential_block_size(no_shared, 0, 0, None).unwrap();
    assert_eq!((min_grid, block), (108, 1024));
}

extern "C" fn no_shared(_threads: std::ffi::c_int) -> usize {
    0
}

#[test]
fn globals_can_be_read_and_written() {
    let setup = Setup::on(0);
    let mut counter = setup.module.get_global("counter", &setup.stream).unwrap();
    let read = |c: &cudarc::driver::CudaViewMut<'_, u8>| setup.stream.clone_dtoh(c).unwrap();
    assert_eq!(read(&counter), 5u32.to_le_bytes());
    let kernel = setup.function("count");
    // SAFETY: the kernel has no parameters.
    unsafe { setup.stream.launch_builder(&kernel).launch(crate::common::shape(2, 64, 0)) }.unwrap();
    assert_eq!(read(&counter), 133u32.to_le_bytes());
    setup.stream.memcpy_htod(&7u32.to_le_bytes(), &mut counter).unwrap();
    assert_eq!(read(&counter), 7u32.to_le_bytes());
}

#[test]
fn each_load_has_globals_of_its_own() {
    let (one, two) = (Setup::on(0), Setup::on(0));
    let kernel = one.function("count");
    // SAFETY: the kernel has no parameters.
    unsafe { one.stream.launch_builder(&kernel).launch(crate::common::shape(1, 1, 0)) }.unwrap();
    let value = |s: &Setup| s.stream.clone_dtoh(&s.module.get_global("counter", &s.stream).unwrap()).unwrap();
    assert_eq!(value(&one), 6u32.to_le_bytes());
    assert_eq!(value(&two), 5u32.to_le_bytes());
}
