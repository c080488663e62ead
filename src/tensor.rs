//! Tensors: views that borrow memory of any kind, and owned tensors on top of them.
//!
//! A [`View`] (input) or [`ViewMut`] (output) borrows a host slice, a cudarc slice or a raw device pointer, and says by a
//! [`Layout`] how the tensor lies in it. Bounds are checked when a view is made; nothing is checked again later.

use crate::{Element, Error, Layout, Result};
#[cfg(feature = "cuda")]
use cudarc::driver::{CudaSlice, CudaView, CudaViewMut, DevicePtr, DevicePtrMut};

/// Where the elements of an input are. Made with `into()`; only generic code names it.
pub enum Mem<'a, T> {
    /// Host memory.
    Host(&'a [T]),
    /// Memory that cudarc knows.
    #[cfg(feature = "cuda")]
    Device(&'a dyn DevicePtr<T>),
    /// Device memory that only the caller knows.
    #[cfg(feature = "cuda")]
    Raw {
        /// Device address.
        ptr: u64,
        /// Elements.
        len: usize,
    },
}

/// Where the elements of an output are. Made with `into()`; only generic code names it.
pub enum MemMut<'a, T> {
    /// Host memory.
    Host(&'a mut [T]),
    /// Memory that cudarc knows.
    #[cfg(feature = "cuda")]
    Device(&'a mut dyn DevicePtrMut<T>),
    /// Device memory that only the caller knows.
    #[cfg(feature = "cuda")]
    Raw {
        /// Device address.
        ptr: u64,
        /// Elements.
        len: usize,
    },
}

impl<T> Clone for Mem<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Mem<'_, T> {}

impl<T> Mem<'_, T> {
    fn len(&self) -> usize {
        match self {
            Mem::Host(s) => s.len(),
            #[cfg(feature = "cuda")]
            Mem::Device(s) => s.len(),
            #[cfg(feature = "cuda")]
            Mem::Raw { len, .. } => *len,
        }
    }
}

impl<T> MemMut<'_, T> {
    fn len(&self) -> usize {
        match self {
            MemMut::Host(s) => s.len(),
            #[cfg(feature = "cuda")]
            MemMut::Device(s) => s.len(),
            #[cfg(feature = "cuda")]
            MemMut::Raw { len, .. } => *len,
        }
    }
}

impl<'a, T> From<&'a [T]> for Mem<'a, T> {
    fn from(s: &'a [T]) -> Self {
        Mem::Host(s)
    }
}
impl<'a, T> From<&'a Vec<T>> for Mem<'a, T> {
    fn from(s: &'a Vec<T>) -> Self {
        Mem::Host(s)
    }
}
impl<'a, T, const N: usize> From<&'a [T; N]> for Mem<'a, T> {
    fn from(s: &'a [T; N]) -> Self {
        Mem::Host(s)
    }
}
impl<'a, T> From<&'a mut [T]> for MemMut<'a, T> {
    fn from(s: &'a mut [T]) -> Self {
        MemMut::Host(s)
    }
}
impl<'a, T> From<&'a mut Vec<T>> for MemMut<'a, T> {
    fn from(s: &'a mut Vec<T>) -> Self {
        MemMut::Host(s)
    }
}
impl<'a, T, const N: usize> From<&'a mut [T; N]> for MemMut<'a, T> {
    fn from(s: &'a mut [T; N]) -> Self {
        MemMut::Host(s)
    }
}
#[cfg(feature = "cuda")]
mod from_cudarc {
    use super::*;
    impl<'a, T> From<&'a CudaSlice<T>> for Mem<'a, T> {
        fn from(s: &'a CudaSlice<T>) -> Self {
            Mem::Device(s)
        }
    }
    impl<'a, T> From<&'a CudaView<'_, T>> for Mem<'a, T> {
        fn from(s: &'a CudaView<'_, T>) -> Self {
            Mem::Device(s)
        }
    }
    impl<'a, T> From<&'a mut CudaSlice<T>> for MemMut<'a, T> {
        fn from(s: &'a mut CudaSlice<T>) -> Self {
            MemMut::Device(s)
        }
    }
    impl<'a, T> From<&'a mut CudaViewMut<'_, T>> for MemMut<'a, T> {
        fn from(s: &'a mut CudaViewMut<'_, T>) -> Self {
            MemMut::Device(s)
        }
    }
}

/// A borrowed input of rank `R`. Any strides, 0 and negative ones too.
pub struct View<'a, T, const R: usize> {
    pub(crate) mem: Mem<'a, T>,
    pub(crate) layout: Layout<R>,
}

/// A borrowed output of rank `R`. Its layout maps no two indices to one element.
pub struct ViewMut<'a, T, const R: usize> {
    pub(crate) mem: MemMut<'a, T>,
    pub(crate) layout: Layout<R>,
}

impl<T, const R: usize> Clone for View<'_, T, R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, const R: usize> Copy for View<'_, T, R> {}

impl<'a, T, const R: usize> View<'a, T, R> {
    /// A tensor in `mem` (a host slice or `Vec`, a `CudaSlice` or `CudaView`); `layout` is a [`Layout`], or just a shape
    /// when the tensor is contiguous.
    ///
    /// # Errors
    /// [`Error::Input`] when an index would lie outside the memory.
    pub fn new(mem: impl Into<Mem<'a, T>>, layout: impl Into<Layout<R>>) -> Result<Self> {
        let (mem, layout) = (mem.into(), layout.into());
        layout.check_within(mem.len())?;
        Ok(Self { mem, layout })
    }

    /// A tensor at a device address that another library owns.
    ///
    /// # Errors
    /// [`Error::Input`] when an index would lie outside the `len` elements, or `ptr` is not aligned to an element.
    ///
    /// # Safety
    /// `ptr` is device memory of the context that it will be used with, valid for reads of `len` elements until the work
    /// that reads it has finished.
    #[cfg(feature = "cuda")]
    pub unsafe fn from_raw(ptr: u64, len: usize, layout: impl Into<Layout<R>>) -> Result<Self> {
        let layout = layout.into();
        check_raw::<T>(ptr)?;
        layout.check_within(len)?;
        Ok(Self { mem: Mem::Raw { ptr, len }, layout })
    }

    /// Elements along each dimension.
    pub fn shape(&self) -> [usize; R] {
        self.layout.shape
    }

    /// How the tensor lies in its memory.
    pub fn layout(&self) -> Layout<R> {
        self.layout
    }

    pub(crate) fn host(&self, op: &'static str, arg: &'static str) -> Result<HostView<'a, T, R>> {
        let _ = (op, arg); // without `cuda` there is no other memory to refuse
        match self.mem {
            Mem::Host(data) => Ok(HostView { data, layout: self.layout }),
            #[cfg(feature = "cuda")]
            _ => Err(Error::input(op, arg, "in host memory for the `Cpu` device", "device memory")),
        }
    }
}

impl<'a, T, const R: usize> ViewMut<'a, T, R> {
    /// As [`View::new`], for an output.
    ///
    /// # Errors
    /// [`Error::Input`] when an index would lie outside the memory, or two indices would share an element.
    pub fn new(mem: impl Into<MemMut<'a, T>>, layout: impl Into<Layout<R>>) -> Result<Self> {
        let (mem, layout) = (mem.into(), layout.into());
        layout.check_within(mem.len())?;
        layout.check_injective()?;
        Ok(Self { mem, layout })
    }

    /// As [`View::from_raw`], for an output.
    ///
    /// # Errors
    /// As [`ViewMut::new`], or when `ptr` is not aligned to an element.
    ///
    /// # Safety
    /// As [`View::from_raw`], for writes; and nothing else accesses the elements of this view meanwhile.
    #[cfg(feature = "cuda")]
    pub unsafe fn from_raw(ptr: u64, len: usize, layout: impl Into<Layout<R>>) -> Result<Self> {
        let layout = layout.into();
        check_raw::<T>(ptr)?;
        layout.check_within(len)?;
        layout.check_injective()?;
        Ok(Self { mem: MemMut::Raw { ptr, len }, layout })
    }

    /// Elements along each dimension.
    pub fn shape(&self) -> [usize; R] {
        self.layout.shape
    }

    /// How the tensor lies in its memory.
    pub fn layout(&self) -> Layout<R> {
        self.layout
    }

    pub(crate) fn host(self, op: &'static str, arg: &'static str) -> Result<HostViewMut<'a, T, R>> {
        let _ = (op, arg); // as above
        match self.mem {
            MemMut::Host(data) => Ok(HostViewMut { data, layout: self.layout }),
            #[cfg(feature = "cuda")]
            _ => Err(Error::input(op, arg, "in host memory for the `Cpu` device", "device memory")),
        }
    }
}

#[cfg(feature = "cuda")]
fn check_raw<T>(ptr: u64) -> Result<()> {
    let align = align_of::<T>();
    if !ptr.is_multiple_of(align as u64) {
        return Err(Error::input(
            "view",
            "ptr",
            format!("a multiple of {align} (the element's size)"),
            format!("{ptr:#x}"),
        ));
    }
    Ok(())
}

/// An input on the host, as the CPU device and the references of tests read it.
#[derive(Clone, Copy)]
pub(crate) struct HostView<'a, T, const R: usize> {
    pub data: &'a [T],
    pub layout: Layout<R>,
}

impl<T: Element> HostView<'_, T, 5> {
    /// One head of a `[b, h, y, x, c]` tensor in f32, `[y, x, c]`; `bh` counts heads through all images.
    pub fn head(&self, bh: usize) -> Vec<f32> {
        let [_, h, y, x, channels] = self.layout.shape;
        let mut out = Vec::with_capacity(y * x * channels);
        for ni in 0..y * x {
            let first = self.layout.at([bh / h, bh % h, ni / x, ni % x, 0]);
            match self.layout.strides[4] {
                1 => out.extend(self.data[first..first + channels].iter().map(|x| x.to_f32())),
                step => out.extend(
                    (0..channels).map(|c| self.data[first.wrapping_add_signed(c as isize * step)].to_f32()),
                ),
            }
        }
        out
    }
}

/// An output on the host.
pub(crate) struct HostViewMut<'a, T, const R: usize> {
    pub data: &'a mut [T],
    pub layout: Layout<R>,
}

impl<T: Copy, const R: usize> HostViewMut<'_, T, R> {
    /// Writes `value` to every element of the tensor, and to nothing between them.
    pub fn fill(&mut self, value: T) {
        let Layout { shape, .. } = self.layout;
        if self.layout.is_empty() {
            return;
        }
        let mut index = [0; R];
        loop {
            self.data[self.layout.at(index)] = value;
            // Counts the index up, last dimension fastest.
            let Some(i) = (0..R).rev().find(|&i| index[i] + 1 < shape[i]) else { return };
            index[i] += 1;
            index[i + 1..].fill(0);
        }
    }
}

/// Scratch bytes lent for one call. They need no initialisation and hold nothing of use afterwards.
///
/// On `Cuda` the memory must be 256-byte aligned, as every CUDA allocation is. `Cpu` needs none.
pub struct Workspace<'a>(pub(crate) MemMut<'a, u8>);

impl<'a> Workspace<'a> {
    /// Lends `mem`.
    pub fn new(mem: impl Into<MemMut<'a, u8>>) -> Self {
        Self(mem.into())
    }

    /// For calls whose `…_workspace_bytes` is 0.
    pub fn none() -> Self {
        Self(MemMut::Host(&mut []))
    }

    /// Lends device memory that another library owns.
    ///
    /// # Safety
    /// As [`ViewMut::from_raw`].
    #[cfg(feature = "cuda")]
    pub unsafe fn from_raw(ptr: u64, bytes: usize) -> Self {
        Self(MemMut::Raw { ptr, len: bytes })
    }

    /// Bytes lent.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is lent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

pub(crate) enum Buffer<T> {
    Host(Vec<T>),
    #[cfg(feature = "cuda")]
    Device(CudaSlice<T>),
}

/// An owned, contiguous tensor on one device. The convenient way in; views are the general one.
pub struct Tensor<T, const R: usize> {
    pub(crate) buffer: Buffer<T>,
    pub(crate) shape: [usize; R],
}

impl<T: Element, const R: usize> Tensor<T, R> {
    /// A tensor on the host.
    ///
    /// # Errors
    /// [`Error::Input`] when `data` does not have just as many elements as `shape`.
    pub fn from_vec(data: Vec<T>, shape: [usize; R]) -> Result<Self> {
        if element_count(shape)? != data.len() {
            let want = format!("{} elements for shape {shape:?}", element_count(shape)?);
            return Err(Error::input("tensor", "data", want, data.len()));
        }
        Ok(Self { buffer: Buffer::Host(data), shape })
    }

    /// Elements along each dimension.
    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    /// Borrows it as an input.
    pub fn view(&self) -> View<'_, T, R> {
        let mem = match &self.buffer {
            Buffer::Host(data) => Mem::Host(data),
            #[cfg(feature = "cuda")]
            Buffer::Device(slice) => Mem::Device(slice),
        };
        View { mem, layout: Layout::contiguous(self.shape) }
    }

    /// Borrows it as an output.
    pub fn view_mut(&mut self) -> ViewMut<'_, T, R> {
        let mem = match &mut self.buffer {
            Buffer::Host(data) => MemMut::Host(data),
            #[cfg(feature = "cuda")]
            Buffer::Device(slice) => MemMut::Device(slice),
        };
        ViewMut { mem, layout: Layout::contiguous(self.shape) }
    }
}

impl<'a, T: Element, const R: usize> From<&'a Tensor<T, R>> for View<'a, T, R> {
    fn from(t: &'a Tensor<T, R>) -> Self {
        t.view()
    }
}

pub(crate) fn element_count<const R: usize>(shape: [usize; R]) -> Result<usize> {
    if shape.contains(&0) {
        return Ok(0);
    }
    let count =
        shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s)).filter(|&n| n <= isize::MAX as usize / 8);
    count.ok_or_else(|| Error::input("tensor", "shape", "addressable", format!("{shape:?}")))
}
