//! Places that run ops: [`Cpu`] and [`Cuda`].

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod operand;

pub use cpu::Cpu;
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
#[cfg(feature = "cuda")]
pub(crate) use operand::Operand;

use crate::tensor::{Buffer, element_count};
use crate::{Element, Result, Tensor, Workspace};

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Cpu {}
    #[cfg(feature = "cuda")]
    impl Sealed for super::Cuda {}
}

/// Which device a `&dyn Device` is.
pub(crate) enum Target<'a> {
    Cpu(&'a Cpu),
    #[cfg(feature = "cuda")]
    Cuda(&'a Cuda),
}

mod target {
    /// Seals the trait's one method.
    pub struct Of<'a>(pub(crate) super::Target<'a>);
}

/// A place that runs ops: [`Cpu`] or [`Cuda`]. Sealed; ops take `&dyn Device`.
pub trait Device: sealed::Sealed + Send + Sync {
    #[doc(hidden)]
    fn target(&self) -> target::Of<'_>;
}

impl Device for Cpu {
    fn target(&self) -> target::Of<'_> {
        target::Of(Target::Cpu(self))
    }
}

#[cfg(feature = "cuda")]
impl Device for Cuda {
    fn target(&self) -> target::Of<'_> {
        target::Of(Target::Cuda(self))
    }
}

pub(crate) fn target(on: &dyn Device) -> Target<'_> {
    on.target().0
}

/// Lends `bytes` of fresh scratch on the device to `call`.
pub(crate) fn with_workspace<R>(
    on: &dyn Device,
    bytes: usize,
    call: impl FnOnce(Workspace<'_>) -> Result<R>,
) -> Result<R> {
    match target(on) {
        _ if bytes == 0 => call(Workspace::none()),
        Target::Cpu(_) => call(Workspace::new(&mut vec![0u8; bytes])),
        #[cfg(feature = "cuda")]
        Target::Cuda(cuda) => call(Workspace::new(&mut cuda.alloc::<u8>(bytes)?)),
    }
}

impl<T: Element, const R: usize> Tensor<T, R> {
    /// Zeros on a device.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) for a shape past the address space, [`Error::Device`](crate::Error::Device)
    /// when the memory cannot be had.
    pub fn zeros(on: &dyn Device, shape: [usize; R]) -> Result<Self> {
        let count = element_count(shape)?;
        let buffer = match target(on) {
            Target::Cpu(_) => Buffer::Host(vec![T::default(); count]),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Buffer::Device(cuda.alloc_zeros::<T>(count)?),
        };
        Ok(Self { buffer, shape })
    }

    /// A copy on another device (or the same).
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when a copy or an allocation fails.
    pub fn to(&self, on: &dyn Device) -> Result<Self> {
        let data = self.to_vec()?;
        let buffer = match target(on) {
            Target::Cpu(_) => Buffer::Host(data),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Buffer::Device(cuda.upload(&data)?),
        };
        Ok(Self { buffer, shape: self.shape })
    }

    /// The elements, row-major, copied to the host once all work on them is done.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device) when the copy fails; so does work that failed before it.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        match &self.buffer {
            Buffer::Host(data) => Ok(data.clone()),
            #[cfg(feature = "cuda")]
            Buffer::Device(slice) => cuda::download(slice, element_count(self.shape)?),
        }
    }
}
