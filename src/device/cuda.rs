//! NVIDIA GPUs as devices, through the driver alone.

use super::operand::{Locate, Operand, Place};
use crate::plan::{ParamBlock, WORKSPACE};
use crate::{Element, Error, Gpu, Launch, Plan, Result, Workspace, kernel};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DeviceRepr, DriverError, LaunchConfig, PushKernelArg,
    sys,
};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

/// A CUDA device and the stream that work is put on. Cheap to clone; modules are loaded once per context, on first use.
///
/// Nothing here waits for the GPU, except [`Tensor::to_vec`](crate::Tensor::to_vec) and [`Tensor::to`](crate::Tensor::to).
#[derive(Clone)]
pub struct Cuda {
    modules: Arc<Modules>,
    stream: Arc<CudaStream>,
}

/// What is loaded into one context.
struct Modules {
    context: Arc<CudaContext>,
    gpu: Gpu,
    functions: RwLock<HashMap<&'static str, CudaFunction>>,
}

/// The names under which cudarc looks for the driver.
#[cfg(windows)]
const DRIVER_LIBRARIES: &[&str] = &["nvcuda.dll"];
#[cfg(not(windows))]
const DRIVER_LIBRARIES: &[&str] = &["libcuda.so", "libcuda.so.1"];

/// cudarc panics when there is no driver, so this looks first.
fn probe_driver() -> Result<()> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        DRIVER_LIBRARIES.iter().any(|name| {
            // SAFETY: loading the driver runs its initialisers, which every CUDA program does; no symbol is used here.
            // The library is never unloaded: cudarc will hold it for the life of the process.
            unsafe { libloading::Library::new(*name) }.map(std::mem::forget).is_ok()
        })
    });
    if found { Ok(()) } else { Err(Error::NoDriver { searched: DRIVER_LIBRARIES.join(", ") }) }
}

fn device_error(doing: &str) -> impl FnOnce(DriverError) -> Error + '_ {
    move |e| Error::Device { what: format!("{doing}: {}", words(&e)), source: Some(Box::new(e)) }
}

fn kernel_error(kernel: &str, doing: &str) -> impl FnOnce(DriverError) -> Error {
    let (kernel, doing) = (kernel.to_owned(), doing.to_owned());
    move |e| Error::Kernel { kernel, what: format!("{doing}: {}", words(&e)), source: Some(Box::new(e)) }
}

/// The driver's name and sentence for an error.
fn words(e: &DriverError) -> String {
    let part = |text: std::result::Result<&std::ffi::CStr, DriverError>| {
        text.map_or_else(|_| format!("{:?}", e.0), |t| t.to_string_lossy().into_owned())
    };
    format!("{} ({})", part(e.error_name()), part(e.error_string()))
}

impl Cuda {
    /// The GPU with that ordinal, and the context's default stream.
    ///
    /// # Errors
    /// [`Error::NoDriver`] without a driver, [`Error::NoKernels`] when this build holds none, [`Error::Device`] without
    /// such a device. Never panics.
    pub fn new(ordinal: usize) -> Result<Self> {
        probe_driver()?;
        check_kernels()?;
        let context =
            CudaContext::new(ordinal).map_err(device_error(&format!("opening device {ordinal}")))?;
        Self::from_context(&context)
    }

    /// The context of a framework that uses cudarc, and its default stream.
    ///
    /// # Errors
    /// [`Error::NoKernels`], or [`Error::Device`] when the device does not answer or is older than sm_80.
    pub fn from_context(context: &Arc<CudaContext>) -> Result<Self> {
        check_kernels()?;
        Ok(Self { modules: Modules::of(context)?, stream: context.default_stream() })
    }

    /// The same device, working on another of its streams.
    ///
    /// # Errors
    /// [`Error::Device`] for a stream of another context.
    pub fn with_stream(&self, stream: &Arc<CudaStream>) -> Result<Self> {
        if stream.context() != &self.modules.context {
            let what = "the stream belongs to another context than the device".into();
            return Err(Error::Device { what, source: None });
        }
        Ok(Self { modules: self.modules.clone(), stream: stream.clone() })
    }

    /// The same device, working on a stream that another library owns.
    ///
    /// # Safety
    /// `stream` belongs to this device's context and outlives the returned value and its work.
    pub unsafe fn with_raw_stream(&self, stream: sys::CUstream) -> Self {
        // SAFETY: the caller promises that the stream is of this context and stays alive.
        let stream = unsafe { self.modules.context.wrap_borrowed_stream(stream) };
        Self { modules: self.modules.clone(), stream }
    }

    /// The stream that work is put on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// The limits that plans are made for.
    pub fn gpu(&self) -> &Gpu {
        &self.modules.gpu
    }

    /// Loads (and lets the driver compile) every kernel now, instead of each on its first use. Needed before a CUDA graph
    /// is captured.
    ///
    /// # Errors
    /// [`Error::Kernel`] with the driver's log when a kernel does not load.
    pub fn preload(&self) -> Result<()> {
        self.preload_matching(|_| true)
    }

    /// [`Cuda::preload`] for the entries that `wanted` picks by name.
    ///
    /// # Errors
    /// As [`Cuda::preload`].
    pub fn preload_matching(&self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        kernel::all()
            .iter()
            .filter(|k| wanted(k.name))
            .try_for_each(|k| self.modules.function(k.name).map(drop))
    }

    /// Uninitialised memory, for outputs and scratch. At least one element, since the driver knows no empty allocation.
    pub(crate) fn alloc<T: DeviceRepr>(&self, count: usize) -> Result<CudaSlice<T>> {
        // SAFETY: the memory is an output or scratch, which every kernel here writes before anything reads it.
        unsafe { self.stream.alloc::<T>(count.max(1)) }.map_err(device_error("allocating"))
    }

    pub(crate) fn alloc_zeros<T: Element>(&self, count: usize) -> Result<CudaSlice<T>> {
        self.stream.alloc_zeros::<T>(count.max(1)).map_err(device_error("allocating"))
    }

    pub(crate) fn upload<T: Element>(&self, data: &[T]) -> Result<CudaSlice<T>> {
        let mut slice = self.alloc::<T>(data.len())?;
        if !data.is_empty() {
            self.stream.memcpy_htod(data, &mut slice).map_err(device_error("copying to the device"))?;
        }
        Ok(slice)
    }

    /// Launches a plan: operand `i` of the plan is `operands[i]`.
    pub(crate) fn run(
        &self,
        op: &'static str,
        plan: &Plan,
        operands: &mut [Operand<'_>],
        mut workspace: Workspace<'_>,
    ) -> Result<()> {
        if plan.launches.is_empty() {
            return Ok(());
        }
        if workspace.len() < plan.workspace_bytes {
            let want = format!("at least {} bytes", plan.workspace_bytes);
            return Err(Error::input(op, "workspace", want, format!("{} bytes", workspace.len())));
        }
        // The guards order this stream after earlier users of the memory, and their drop orders later users after it.
        let mut guards = Vec::with_capacity(operands.len() + 1);
        let mut places = Vec::with_capacity(operands.len() + 1);
        let (context, stream) = (&self.modules.context, &*self.stream);
        for operand in operands.iter_mut() {
            let arg = operand.arg;
            let place = operand.tensor.as_mut().map(|tensor| tensor.locate(context, stream, &mut guards));
            places.push((arg, place.transpose().map_err(|e| name_operand(e, op, arg))?));
        }
        let arg = "workspace";
        let scratch = (plan.workspace_bytes > 0).then(|| workspace.locate(context, stream, &mut guards));
        places.push((arg, scratch.transpose().map_err(|e| name_operand(e, op, arg))?));
        check_aliasing(op, &places)?;
        check_workspace_alignment(op, &places)?;
        for launch in &plan.launches {
            self.launch(op, launch, &places)?;
        }
        drop(guards);
        Ok(())
    }

    fn launch(
        &self,
        op: &'static str,
        launch: &Launch,
        places: &[(&'static str, Option<Place>)],
    ) -> Result<()> {
        let entry = kernel::find(launch.kernel).ok_or_else(|| Error::Kernel {
            kernel: launch.kernel.into(),
            what: "is not in this build".into(),
            source: None,
        })?;
        if entry.param_bytes as usize != launch.param_bytes {
            let what =
                format!("takes {} parameter bytes, the plan has {}", entry.param_bytes, launch.param_bytes);
            return Err(Error::Kernel { kernel: launch.kernel.into(), what, source: None });
        }
        let params = launch.resolve(|operand, offset| {
            let index = if operand == WORKSPACE { places.len() - 1 } else { operand as usize };
            match places.get(index) {
                Some((_, Some(place))) => Ok(place.address.wrapping_add(offset)),
                _ => Err(Error::unsupported(op, format!("{} needs operand {operand}", launch.kernel))),
            }
        })?;
        let function = self.modules.function(entry.name)?;
        let config = LaunchConfig {
            grid_dim: (launch.grid, 1, 1),
            block_dim: (entry.threads, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };
        let mut call = self.stream.launch_builder(&function);
        call.arg(&params);
        // SAFETY: arguments: the struct's size equals the entry's `.param` bytes (above) and its fields mirror the .cuh
        // (checked by tests). Mutability: outputs came in as `ViewMut` or `Workspace`, inputs are only read. Bounds: every
        // view was checked against its memory, and the plan's grid and strides are those of the views.
        unsafe { call.launch(config) }.map_err(kernel_error(launch.kernel, "launching"))?;
        Ok(())
    }
}

// SAFETY: plain bytes at the alignment of a parameter; the driver copies as many as the entry declares.
unsafe impl DeviceRepr for ParamBlock {}

fn name_operand(e: Error, op: &'static str, arg: &'static str) -> Error {
    match e {
        Error::Input { want, got, .. } => Error::Input { op, arg, want, got },
        other => other,
    }
}

/// An output that surely shares bytes with another operand is refused. (Interleaved layouts, such as one packed gradient
/// of q, k and v, overlap in range and yet share nothing: only a dense operand overlaps for certain.)
fn check_aliasing(op: &'static str, places: &[(&'static str, Option<Place>)]) -> Result<()> {
    let present = || places.iter().filter_map(|(arg, p)| p.filter(|p| p.low < p.high).map(|p| (*arg, p)));
    for (i, (arg, a)) in present().enumerate() {
        for (other, b) in present().skip(i + 1) {
            let overlaps = a.low < b.high && b.low < a.high;
            let surely = a.is_dense && b.is_dense || a.low == b.low;
            if overlaps && surely && (a.is_output || b.is_output) {
                let (output, with) = if b.is_output { (other, arg) } else { (arg, other) };
                return Err(Error::input(
                    op,
                    output,
                    format!("apart from `{with}` in memory"),
                    "overlapping memory",
                ));
            }
        }
    }
    Ok(())
}

fn check_workspace_alignment(op: &'static str, places: &[(&'static str, Option<Place>)]) -> Result<()> {
    const ALIGN: u64 = 256;
    match places.last() {
        Some((arg, Some(place))) if !place.address.is_multiple_of(ALIGN) => {
            Err(Error::input(op, arg, format!("{ALIGN}-byte aligned"), format!("{:#x}", place.address)))
        }
        _ => Ok(()),
    }
}

/// Waits for the work on a slice, and copies it to the host.
pub(super) fn download<T: Element>(slice: &CudaSlice<T>, count: usize) -> Result<Vec<T>> {
    let mut data = vec![T::default(); count];
    if count > 0 {
        let stream = slice.stream();
        stream.memcpy_dtoh(&slice.slice(..count), &mut data).map_err(device_error("copying to the host"))?;
        stream.synchronize().map_err(device_error("waiting for the device"))?;
    }
    Ok(data)
}

impl Modules {
    /// The one set of modules of a context, shared by every [`Cuda`] on it.
    fn of(context: &Arc<CudaContext>) -> Result<Arc<Self>> {
        static ALL: Mutex<Vec<Weak<Modules>>> = Mutex::new(Vec::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|m| m.strong_count() > 0);
        if let Some(found) = all.iter().filter_map(Weak::upgrade).find(|m| &m.context == context) {
            return Ok(found);
        }
        let asking = "asking for the device's limits";
        let (major, minor) = context.compute_capability().map_err(device_error(asking))?;
        let shared = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared = context.attribute(shared).map_err(device_error(asking))?;
        let gpu = Gpu {
            capability: (major.unsigned_abs(), minor.unsigned_abs()),
            shared_optin_bytes: shared.unsigned_abs(),
        };
        if gpu.capability < (8, 0) {
            let what = format!("compute capability 8.0 or newer is needed, this device has {major}.{minor}");
            return Err(Error::Device { what, source: None });
        }
        let made = Arc::new(Self { context: context.clone(), gpu, functions: RwLock::default() });
        all.push(Arc::downgrade(&made));
        Ok(made)
    }

    /// A loaded function; the first use loads its module.
    fn function(&self, name: &'static str) -> Result<CudaFunction> {
        if let Some(found) = self.functions.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(found.clone());
        }
        // Loading under the lock: two threads must not compile the same kernel twice.
        let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = functions.get(name) {
            return Ok(found.clone());
        }
        let function = self.load(name)?;
        functions.insert(name, function.clone());
        Ok(function)
    }

    fn load(&self, name: &'static str) -> Result<CudaFunction> {
        let missing =
            || Error::Kernel { kernel: name.into(), what: "is not in this build".into(), source: None };
        let entry = kernel::find(name).ok_or_else(missing)?;
        let ptx = entry.ptx()?;
        let module = self.context.load_module(Ptx::from_src(&ptx)).map_err(|e| {
            let log = self.jit_log(&ptx).unwrap_or_default();
            kernel_error(name, &format!("loading its PTX{log}"))(e)
        })?;
        let function = module.load_function(name).map_err(kernel_error(name, "finding its entry"))?;
        self.context.bind_to_thread().map_err(device_error("binding the context"))?;
        let shared = entry.shared_bytes.min(self.gpu.shared_optin_bytes);
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function
            .set_attribute(attribute, shared.cast_signed())
            .map_err(kernel_error(name, &format!("opting in to {shared} bytes of shared memory")))?;
        Ok(function)
    }

    /// What the driver's compiler says about a text that did not load, on lines of its own.
    fn jit_log(&self, ptx: &str) -> Option<String> {
        const LOG_BYTES: usize = 8192;
        let text = std::ffi::CString::new(ptx).ok()?;
        let mut log = vec![0u8; LOG_BYTES];
        let mut options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        let mut values = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(LOG_BYTES)];
        let mut module = std::ptr::null_mut();
        self.context.bind_to_thread().ok()?;
        // SAFETY: the text ends in NUL, and the two options hold a buffer that outlives the call and its true size.
        let loaded = unsafe {
            sys::cuModuleLoadDataEx(
                &mut module,
                text.as_ptr().cast(),
                2,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        if loaded == sys::CUresult::CUDA_SUCCESS {
            // SAFETY: just loaded, and nothing refers to it. (It loads now and did not before: memory was short.)
            let _ = unsafe { sys::cuModuleUnload(module) };
            return None;
        }
        let end = log.iter().position(|&b| b == 0).unwrap_or(LOG_BYTES);
        let log = String::from_utf8_lossy(&log[..end]).trim().to_owned();
        (!log.is_empty()).then(|| format!("\n{log}\n"))
    }
}

fn check_kernels() -> Result<()> {
    match kernel::missing() {
        Some(why) => Err(Error::NoKernels { why: why.into() }),
        None => Ok(()),
    }
}
