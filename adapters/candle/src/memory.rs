//! Where an op runs, and the memory that it reads and writes: candle's, on either device.

use candle_core::op::BackpropOp;
#[cfg(feature = "cuda")]
use candle_core::{
    CudaDevice, CudaStorage,
    cuda_backend::{CudaDType, DeviceId},
};
use candle_core::{Device, Error, Layout, Result, Shape, Storage, StorageRef, Tensor, WithDType};
#[cfg(feature = "cuda")]
use macula::cudarc::driver::CudaSlice;
use macula::{Element, View, ViewMut, Workspace};

/// An element type that both candle and macula know.
#[cfg(not(feature = "cuda"))]
pub(crate) trait Elem: Element + WithDType {}
#[cfg(not(feature = "cuda"))]
impl<T: Element + WithDType> Elem for T {}
/// An element type that both candle and macula know.
#[cfg(feature = "cuda")]
pub(crate) trait Elem: Element + WithDType + CudaDType {}
#[cfg(feature = "cuda")]
impl<T: Element + WithDType + CudaDType> Elem for T {}

/// macula's errors as candle's.
pub(crate) fn ours(e: macula::Error) -> Error {
    Error::wrap(e).bt()
}

/// The device of a call.
pub(crate) enum On {
    Cpu(macula::Cpu),
    #[cfg(feature = "cuda")]
    Cuda(macula::Cuda, CudaDevice),
}

impl On {
    /// Where tensors of a candle device are worked on: the CPU, or the GPU on the stream that candle uses.
    pub fn of(device: &Device, op: &'static str) -> Result<Self> {
        match device {
            Device::Cpu => Ok(On::Cpu(macula::Cpu::new())),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(On::Cuda(cuda(device)?, device.clone())),
            #[cfg(not(feature = "cuda"))]
            Device::Cuda(_) => Err(Error::NotCompiledWithCudaSupport.bt()),
            Device::Metal(_) => Err(Error::Msg(format!("no metal implementation for {op}")).bt()),
        }
    }

    pub fn device(&self) -> &dyn macula::Device {
        match self {
            On::Cpu(cpu) => cpu,
            #[cfg(feature = "cuda")]
            On::Cuda(cuda, _) => cuda,
        }
    }

    /// The tensor without its history, in a layout that this device reads: itself wherever that is possible.
    pub fn readable(&self, tensor: &Tensor) -> Result<Tensor> {
        match self {
            On::Cpu(_) => Ok(tensor.detach()),
            #[cfg(feature = "cuda")]
            On::Cuda(..) => match (tensor.dims().last(), tensor.stride().last()) {
                (Some(&size), Some(&stride)) if size > 1 && stride != 1 => tensor.detach().contiguous(),
                _ => Ok(tensor.detach()),
            },
        }
    }

    /// Lends scratch to a call.
    pub fn with_workspace(
        &self,
        bytes: macula::Result<usize>,
        call: impl FnOnce(Workspace<'_>) -> macula::Result<()>,
    ) -> Result<()> {
        match (bytes.map_err(ours)?, self) {
            (0, _) => call(Workspace::none()).map_err(ours),
            (bytes, On::Cpu(_)) => call(Workspace::new(&mut vec![0u8; bytes])).map_err(ours),
            #[cfg(feature = "cuda")]
            (bytes, On::Cuda(_, device)) => {
                // SAFETY: scratch; what a kernel reads of it was written by a kernel of the same call.
                let mut scratch = unsafe { device.alloc::<u8>(bytes) }?;
                call(Workspace::new(&mut scratch)).map_err(ours)
            }
        }
    }
}

/// One `Cuda` per candle device, so that kernels are loaded once.
#[cfg(feature = "cuda")]
fn cuda(device: &CudaDevice) -> Result<macula::Cuda> {
    use std::collections::HashMap;
    use std::sync::{Mutex, OnceLock, PoisonError};
    static KNOWN: OnceLock<Mutex<HashMap<DeviceId, macula::Cuda>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cuda) = known.get(&device.id()) {
        return Ok(cuda.clone());
    }
    let stream = device.cuda_stream();
    let cuda = macula::Cuda::from_context(stream.context())
        .and_then(|cuda| cuda.with_stream(&stream))
        .map_err(ours)?;
    known.insert(device.id(), cuda.clone());
    Ok(cuda)
}

/// A tensor that is being read.
pub(crate) struct Read<'t> {
    storage: StorageRef<'t>,
    layout: &'t Layout,
}

impl<'t> Read<'t> {
    pub fn of(tensor: &'t Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    pub fn view<T: Elem, const R: usize>(&self) -> Result<View<'_, T, R>> {
        let shape = dims::<R>(self.layout)?;
        let stride = self.layout.stride();
        let strides = std::array::from_fn(|i| stride.get(i).map_or(0, |&s| s as isize));
        let layout = macula::Layout::strided(shape, strides, self.layout.start_offset());
        match &*self.storage {
            Storage::Cpu(storage) => View::new(storage.as_slice::<T>()?, layout).map_err(ours),
            #[cfg(feature = "cuda")]
            Storage::Cuda(storage) => View::new(storage.as_cuda_slice::<T>()?, layout).map_err(ours),
            _ => Err(Error::Msg("a tensor of a device that is not the op's".into()).bt()),
        }
    }
}

/// Sizes of a tensor of rank `R`, or candle's error.
pub(crate) fn dims<const R: usize>(layout: &Layout) -> Result<[usize; R]> {
    <[usize; R]>::try_from(layout.dims()).map_err(|_| {
        let (got, shape) = (layout.dims().len(), layout.shape().clone());
        Error::UnexpectedNumberOfDims { expected: R, got, shape }.bt()
    })
}

/// Memory for a result, made by candle; contiguous.
pub(crate) struct Buffer<T, const R: usize> {
    data: Data<T>,
    shape: [usize; R],
}

enum Data<T> {
    Cpu(Vec<T>),
    #[cfg(feature = "cuda")]
    Cuda(CudaSlice<T>, CudaDevice),
}

impl<T: Elem, const R: usize> Buffer<T, R> {
    pub fn new(on: &On, shape: [usize; R]) -> Result<Self> {
        let count = shape.iter().product::<usize>();
        let data = match on {
            On::Cpu(_) => Data::Cpu(vec![<T as Default>::default(); count]),
            #[cfg(feature = "cuda")]
            On::Cuda(_, device) => {
                // SAFETY: outputs are written whole before anything reads them. The driver knows no empty allocation.
                Data::Cuda(unsafe { device.alloc::<T>(count.max(1)) }?, device.clone())
            }
        };
        Ok(Self { data, shape })
    }

    pub fn view(&self) -> Result<View<'_, T, R>> {
        match &self.data {
            Data::Cpu(data) => View::new(data, self.shape).map_err(ours),
            #[cfg(feature = "cuda")]
            Data::Cuda(slice, _) => View::new(slice, self.shape).map_err(ours),
        }
    }

    pub fn view_mut(&mut self) -> Result<ViewMut<'_, T, R>> {
        match &mut self.data {
            Data::Cpu(data) => ViewMut::new(data, self.shape).map_err(ours),
            #[cfg(feature = "cuda")]
            Data::Cuda(slice, _) => ViewMut::new(slice, self.shape).map_err(ours),
        }
    }

    /// The memory as candle holds it.
    pub fn into_storage(self) -> (Storage, Shape) {
        let storage = match self.data {
            Data::Cpu(data) => Storage::Cpu(T::to_cpu_storage_owned(data)),
            #[cfg(feature = "cuda")]
            Data::Cuda(slice, device) => Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, device)),
        };
        (storage, Shape::from(&self.shape[..]))
    }

    /// The tensor in this memory, without a history.
    pub fn into_tensor(self) -> Tensor {
        let (storage, shape) = self.into_storage();
        Tensor::from_storage(storage, shape, BackpropOp::none(), false)
    }
}

/// Memory for a gradient of this shape, if it is wanted.
pub(crate) fn wanted<T: Elem, const R: usize>(
    on: &On,
    is_wanted: bool,
    shape: [usize; R],
) -> Result<Option<Buffer<T, R>>> {
    is_wanted.then(|| Buffer::new(on, shape)).transpose()
}

/// A gradient as candle wants it: of the input's element type.
pub(crate) fn grad_like<T: Elem, const R: usize>(
    grad: Option<Buffer<T, R>>,
    input: &Tensor,
) -> Result<Option<Tensor>> {
    grad.map(|grad| grad.into_tensor().to_dtype(input.dtype())).transpose()
}

/// As [`Buffer::view_mut`], of memory that may be absent.
pub(crate) fn maybe_mut<T: Elem, const R: usize>(
    buffer: &mut Option<Buffer<T, R>>,
) -> Result<Option<ViewMut<'_, T, R>>> {
    buffer.as_mut().map(Buffer::view_mut).transpose()
}
