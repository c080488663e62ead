//! What a real driver refuses is refused, with its error.

use crate::common::{Setup, code, driver, shape, symbol};
use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg, result};
use std::ffi::c_void;

/// Launches `add_one` or another kernel of the same parameters on a small buffer.
fn launch(setup: &Setup, name: &str, config: LaunchConfig) -> Result<(), DriverError> {
    let mut x = setup.stream.alloc_zeros::<f32>(64)?;
    let kernel = setup.function(name);
    let mut launch = setup.stream.launch_builder(&kernel);
    launch.arg(&mut x).arg(&64u32);
    // SAFETY: the arguments are the kernel's.
    unsafe { launch.launch(config) }.map(|_| ())
}

#[test]
fn launch_dimensions() {
    let setup = Setup::on(0);
    let with = |grid, block| {
        launch(&setup, "add_one", LaunchConfig { grid_dim: grid, block_dim: block, shared_mem_bytes: 0 })
    };
    assert!(with((1, 65_535, 1), (1, 1, 1)).is_ok());
    for (grid, block) in [
        ((0, 1, 1), (32, 1, 1)),
        ((1, 1, 0), (32, 1, 1)),
        ((1, 1, 1), (0, 1, 1)),
        ((1, 65_536, 1), (32, 1, 1)),
        ((1, 1, 65_536), (32, 1, 1)),
        ((1 << 31, 1, 1), (32, 1, 1)),
        ((1, 1, 1), (1025, 1, 1)),
        ((1, 1, 1), (1, 1, 65)),
        ((1, 1, 1), (32, 33, 1)),
    ] {
        assert_eq!(
            code(with(grid, block)),
            CUresult::CUDA_ERROR_INVALID_VALUE,
            "grid {grid:?} block {block:?}"
        );
    }
}

#[test]
fn more_threads_than_the_launch_bounds() {
    let setup = Setup::on(0);
    assert!(launch(&setup, "reverse", shape(1, 256, 256)).is_ok());
    assert_eq!(code(launch(&setup, "reverse", shape(1, 257, 256))), CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn shared_memory_beyond_48_kib_without_the_opt_in() {
    let setup = Setup::on(2);
    assert!(launch(&setup, "reverse", shape(1, 256, 48 << 10)).is_ok());
    let beyond = launch(&setup, "reverse", shape(1, 256, (48 << 10) + 1));
    assert_eq!(code(beyond), CUresult::CUDA_ERROR_INVALID_VALUE);
}

#[test]
fn a_function_of_another_context() {
    let (one, other) = (Setup::on(0), Setup::on(1));
    let kernel = one.function("count");
    // SAFETY: the kernel has no parameters.
    let launched = unsafe { other.stream.launch_builder(&kernel).launch(shape(1, 1, 0)) };
    assert_eq!(code(launched), CUresult::CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn no_context_is_current() {
    driver();
    let _context = CudaContext::new(0).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: nothing is allocated.
            assert_eq!(code(unsafe { result::malloc_sync(1) }), CUresult::CUDA_ERROR_INVALID_CONTEXT);
            assert_eq!(code(result::ctx::synchronize()), CUresult::CUDA_ERROR_INVALID_CONTEXT);
        });
    });
}

#[test]
fn a_stack_of_contexts() {
    let (one, other) = (Setup::on(0), Setup::on(1));
    one.context.bind_to_thread().unwrap();
    let mut popped = std::ptr::null_mut();
    // SAFETY: the contexts are alive; the pointer is to a local variable.
    unsafe {
        assert_eq!(sys::cuCtxPushCurrent_v2(other.context.cu_ctx()), CUresult::CUDA_SUCCESS);
        assert_eq!(result::ctx::get_current().unwrap(), Some(other.context.cu_ctx()));
        assert_eq!(sys::cuCtxPopCurrent_v2(&mut popped), CUresult::CUDA_SUCCESS);
    }
    assert_eq!(popped, other.context.cu_ctx());
    assert_eq!(result::ctx::get_current().unwrap(), Some(one.context.cu_ctx()));
}

#[test]
fn devices_and_handles_that_do_not_exist() {
    driver();
    result::init().unwrap();
    assert_eq!(code(CudaContext::new(3)), CUresult::CUDA_ERROR_INVALID_DEVICE);
    let context = CudaContext::new(0).unwrap();
    context.bind_to_thread().unwrap();
    // SAFETY: the driver finds out that the handles are nobody's.
    unsafe {
        let no_module = result::module::get_function(8 as sys::CUmodule, c"add_one".to_owned());
        assert_eq!(code(no_module), CUresult::CUDA_ERROR_INVALID_HANDLE);
        let no_function =
            result::launch_kernel(8 as sys::CUfunction, (1, 1, 1), (1, 1, 1), 0, 0 as _, &mut []);
        assert_eq!(code(no_function), CUresult::CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(
            code(result::stream::synchronize(8 as sys::CUstream)),
            CUresult::CUDA_ERROR_INVALID_HANDLE
        );
        assert_eq!(code(result::free_sync(4096)), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(code(result::ctx::set_current(8 as sys::CUcontext)), CUresult::CUDA_ERROR_INVALID_CONTEXT);
    }
}

#[test]
fn parameters_can_be_packed_or_listed_but_must_be_there() {
    let setup = Setup::on(0);
    setup.context.bind_to_thread().unwrap();
    let x = setup.stream.clone_htod(&[1.0f32; 32]).unwrap();
    let kernel = setup.function("add_one");
    let (at, _guard) = cudarc::driver::DevicePtr::device_ptr(&x, &setup.stream);
    let mut packed = [0u8; 12];
    packed[..8].copy_from_slice(&at.to_le_bytes());
    packed[8..].copy_from_slice(&32u32.to_le_bytes());
    let launch = |each: *mut *mut c_void, extra: *mut *mut c_void| {
        // SAFETY: whatever arrays are passed below are as the manual wants them.
        unsafe { sys::cuLaunchKernel(kernel.cu_function(), 1, 1, 1, 32, 1, 1, 0, 0 as _, each, extra) }
    };
    let mut bytes = packed.len();
    let mut extra = [
        std::ptr::without_provenance_mut(1),
        packed.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(2),
        (&raw mut bytes).cast(),
        std::ptr::null_mut(),
    ];
    let null = std::ptr::null_mut();
    assert_eq!(launch(null, extra.as_mut_ptr()), CUresult::CUDA_SUCCESS);
    assert_eq!(launch(null, null), CUresult::CUDA_ERROR_INVALID_VALUE);
    let mut each = [(&raw const at).cast_mut().cast(), null.cast::<c_void>()];
    assert_eq!(launch(each.as_mut_ptr(), null), CUresult::CUDA_ERROR_INVALID_VALUE, "a missing one");
    assert_eq!(launch(each.as_mut_ptr(), extra.as_mut_ptr()), CUresult::CUDA_ERROR_INVALID_VALUE, "both");
    bytes = 8;
    assert_eq!(
        launch(null, extra.as_mut_ptr()),
        CUresult::CUDA_ERROR_INVALID_VALUE,
        "too few bytes: {bytes}"
    );
    assert_eq!(setup.stream.clone_dtoh(&x).unwrap(), [2.0; 32]);
}

#[test]
fn launches_with_attributes_and_cooperative_ones_are_refused() {
    let setup = Setup::on(2);
    setup.context.bind_to_thread().unwrap();
    let kernel = setup.function("count");
    // SAFETY: all zeros is a value of the structure; then it is filled in.
    let mut config: sys::CUlaunchConfig = unsafe { std::mem::zeroed() };
    (config.gridDimX, config.gridDimY, config.gridDimZ) = (1, 1, 1);
    (config.blockDimX, config.blockDimY, config.blockDimZ) = (32, 1, 1);
    config.hStream = setup.stream.cu_stream();
    // SAFETY: all zeros is a value of the structure; then it is filled in.
    let mut attribute: sys::CUlaunchAttribute = unsafe { std::mem::zeroed() };
    attribute.id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    let null = std::ptr::null_mut();
    // SAFETY: the kernel has no parameters; the structures are alive.
    unsafe {
        let launched = sys::cuLaunchKernelEx(&config, kernel.cu_function(), null, null);
        assert_eq!(launched, CUresult::CUDA_SUCCESS);
        (config.attrs, config.numAttrs) = (&mut attribute, 1);
        let launched = sys::cuLaunchKernelEx(&config, kernel.cu_function(), null, null);
        assert_eq!(launched, CUresult::CUDA_ERROR_NOT_SUPPORTED);
        let cooperative = setup.stream.launch_builder(&kernel).launch_cooperative(shape(1, 1, 0));
        assert_eq!(code(cooperative), CUresult::CUDA_ERROR_NOT_SUPPORTED);
    }
}

#[test]
fn errors_have_names_and_sentences() {
    driver();
    let error = DriverError(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    assert_eq!(error.error_name().unwrap(), c"CUDA_ERROR_ILLEGAL_ADDRESS");
    assert_eq!(error.error_string().unwrap(), c"an illegal memory access was encountered");
    let newer = DriverError(CUresult::CUDA_ERROR_KEY_ROTATION);
    assert!(newer.error_name().is_err(), "a code that CUDA 11.8 does not have");
}

#[test]
fn functions_are_found_by_name_as_the_runtime_does() {
    type GetProcAddress = unsafe extern "C" fn(*const i8, *mut *mut c_void, i32, u64) -> CUresult;
    driver();
    // SAFETY: the type is that of the function in CUDA 11.8; the pointers are to local variables.
    unsafe {
        let find = |name: &std::ffi::CStr| {
            let mut address = std::ptr::null_mut();
            let result = symbol::<GetProcAddress>("cuGetProcAddress")(name.as_ptr(), &mut address, 11_080, 0);
            (result, address)
        };
        let (result, address) = find(c"cuDriverGetVersion");
        assert_eq!(result, CUresult::CUDA_SUCCESS);
        let version: unsafe extern "C" fn(*mut i32) -> CUresult = std::mem::transmute(address);
        let mut number = 0;
        assert_eq!((version(&mut number), number), (CUresult::CUDA_SUCCESS, 11_080));
        assert_eq!(find(c"cuTensorMapEncodeTiled"), (CUresult::CUDA_ERROR_NOT_FOUND, std::ptr::null_mut()));
    }
}
