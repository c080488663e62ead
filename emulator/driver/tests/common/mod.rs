//! What the tests share.

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, LaunchConfig};
use cudarc::nvrtc::Ptx;
use ptx_emulator_driver::Driver;
use std::sync::Arc;

/// The test kernels, without and with line tables; `kernels/make.sh` made both from `kernels/kernels.cu`.
pub const KERNELS: &str = include_str!("../kernels/kernels.ptx");
pub const KERNELS_WITH_LINES: &str = include_str!("../kernels/kernels_lines.ptx");

/// The look-alike, installed.
pub fn driver() -> &'static Driver {
    ptx_emulator_driver::install().expect("the look-alike installs")
}

/// A device with a stream of its own and the test kernels loaded.
pub struct Setup {
    pub context: Arc<CudaContext>,
    pub stream: Arc<CudaStream>,
    pub module: Arc<CudaModule>,
}

impl Setup {
    pub fn on(ordinal: usize) -> Setup {
        driver();
        let context = CudaContext::new(ordinal).expect("a context");
        let stream = context.new_stream().expect("a stream");
        let module = context.load_module(Ptx::from_src(KERNELS)).expect("the kernels load");
        Setup { context, stream, module }
    }

    pub fn function(&self, name: &str) -> CudaFunction {
        self.module.load_function(name).expect("the kernel is there")
    }
}

/// A launch of `blocks` × `threads` with dynamic shared memory.
pub fn shape(blocks: u32, threads: u32, shared_mem_bytes: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes }
}

/// The error code of a result that must be an error.
pub fn code<T>(result: Result<T, cudarc::driver::DriverError>) -> CUresult {
    match result {
        Ok(_) => panic!("this must fail"),
        Err(error) => error.0,
    }
}

/// A driver function that newer cudarc bindings do not have any more, found as programs of its time found it.
///
/// # Safety
///
/// `F` must be the function's type.
pub unsafe fn symbol<F: Copy>(name: &str) -> F {
    // SAFETY: the look-alike is loaded under this name; the caller vouches for the type.
    unsafe {
        let library = libloading::Library::new("libcuda.so.1").expect("the look-alike is found by name");
        *library.get::<F>(name.as_bytes()).expect("the function is exported")
    }
}

/// Milliseconds between two events.
pub fn elapsed(start: sys::CUevent, end: sys::CUevent) -> Result<f32, CUresult> {
    type ElapsedTime = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult;
    let mut milliseconds = 0.0;
    // SAFETY: the type is that of the function; the pointer is to a local variable.
    match unsafe { symbol::<ElapsedTime>("cuEventElapsedTime")(&mut milliseconds, start, end) } {
        CUresult::CUDA_SUCCESS => Ok(milliseconds),
        error => Err(error),
    }
}
