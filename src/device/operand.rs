//! Tensor arguments with their types forgotten: all that a launch needs.

use crate::tensor::{Mem, MemMut};
use crate::{Element, Error, Result, View, ViewMut, Workspace};
use cudarc::driver::{CudaContext, CudaStream, SyncOnDrop};
use std::sync::Arc;

/// An operand's place on the device: the address of the element at index 0, and the bytes that it may touch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub address: u64,
    pub low: u64,
    pub high: u64,
    pub is_output: bool,
    /// Whether it touches every byte between `low` and `high`.
    pub is_dense: bool,
}

/// Whoever can say where it is. Guards order the stream after earlier users of the memory, and later ones after it.
pub(crate) trait Locate {
    fn locate<'s>(
        &'s mut self,
        context: &Arc<CudaContext>,
        stream: &'s CudaStream,
        guards: &mut Vec<SyncOnDrop<'s>>,
    ) -> Result<Place>;
}

/// A named operand of a call; `None` when the caller left an optional tensor out.
pub(crate) struct Operand<'o> {
    pub arg: &'static str,
    pub tensor: Option<&'o mut dyn Locate>,
}

impl<'o> Operand<'o> {
    pub fn new(arg: &'static str, tensor: &'o mut dyn Locate) -> Self {
        Self { arg, tensor: Some(tensor) }
    }

    pub fn maybe<L: Locate>(arg: &'static str, tensor: Option<&'o mut L>) -> Self {
        Self { arg, tensor: tensor.map(|t| t as &mut dyn Locate) }
    }
}

pub(crate) const HOST_MEMORY: &str = "host memory";
pub(crate) const OTHER_CONTEXT: &str = "memory of another CUDA context";

/// `op` and `arg` are filled in by the caller, who knows them.
fn wrong_memory(got: &str) -> Error {
    Error::input("", "", "device memory of this CUDA context", got)
}

fn place<T, const R: usize>(base: u64, layout: &crate::Layout<R>, is_output: bool) -> Place {
    let size = size_of::<T>() as u64;
    let at = |element: i128| base.wrapping_add((element as i64 as u64).wrapping_mul(size));
    let (low, high) = layout.span().unwrap_or((0, -1));
    let is_dense = high - low + 1 == layout.len() as i128;
    Place { address: at(layout.offset as i128), low: at(low), high: at(high + 1), is_output, is_dense }
}

impl<T: Element, const R: usize> Locate for View<'_, T, R> {
    fn locate<'s>(
        &'s mut self,
        context: &Arc<CudaContext>,
        stream: &'s CudaStream,
        guards: &mut Vec<SyncOnDrop<'s>>,
    ) -> Result<Place> {
        let base = match self.mem {
            Mem::Host(_) => return Err(wrong_memory(HOST_MEMORY)),
            Mem::Raw { ptr, .. } => ptr,
            Mem::Device(slice) => {
                if slice.stream().context() != context {
                    return Err(wrong_memory(OTHER_CONTEXT));
                }
                let (ptr, guard) = slice.device_ptr(stream);
                guards.push(guard);
                ptr
            }
        };
        Ok(place::<T, R>(base, &self.layout, false))
    }
}

fn locate_mut<'s, T>(
    mem: &'s mut MemMut<'_, T>,
    context: &Arc<CudaContext>,
    stream: &'s CudaStream,
    guards: &mut Vec<SyncOnDrop<'s>>,
) -> Result<u64> {
    match mem {
        MemMut::Host(_) => Err(wrong_memory(HOST_MEMORY)),
        MemMut::Raw { ptr, .. } => Ok(*ptr),
        MemMut::Device(slice) => {
            if slice.stream().context() != context {
                return Err(wrong_memory(OTHER_CONTEXT));
            }
            let (ptr, guard) = slice.device_ptr_mut(stream);
            guards.push(guard);
            Ok(ptr)
        }
    }
}

impl<T: Element, const R: usize> Locate for ViewMut<'_, T, R> {
    fn locate<'s>(
        &'s mut self,
        context: &Arc<CudaContext>,
        stream: &'s CudaStream,
        guards: &mut Vec<SyncOnDrop<'s>>,
    ) -> Result<Place> {
        let layout = self.layout;
        Ok(place::<T, R>(locate_mut(&mut self.mem, context, stream, guards)?, &layout, true))
    }
}

impl Locate for Workspace<'_> {
    fn locate<'s>(
        &'s mut self,
        context: &Arc<CudaContext>,
        stream: &'s CudaStream,
        guards: &mut Vec<SyncOnDrop<'s>>,
    ) -> Result<Place> {
        let bytes = self.len() as u64;
        let base = locate_mut(&mut self.0, context, stream, guards)?;
        Ok(Place {
            address: base,
            low: base,
            high: base.wrapping_add(bytes),
            is_output: true,
            is_dense: true,
        })
    }
}
