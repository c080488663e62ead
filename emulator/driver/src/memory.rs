//! Memory: what was allocated where, pinned host memory, and copies between all of them.

use crate::ffi::HostPtr;
use crate::state::{Handle, Registry, State};
use crate::status::Error;
use std::alloc::Layout;
use std::collections::HashMap;
use std::ptr::NonNull;

/// A piece of device memory.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    pub device: usize,
    pub context: Handle,
    pub bytes: u64,
    /// The pool that it came from, if it was allocated in stream order.
    pub pool: Option<Handle>,
}

/// Host memory that the driver knows: its own, or a program's that was registered.
#[derive(Debug)]
pub struct HostBlock {
    pub context: Handle,
    pub bytes: usize,
    pub flags: u32,
    /// The memory, when the driver allocated it.
    pub owned: Option<Owned>,
}

/// Host memory that is freed when this is dropped.
#[derive(Debug)]
pub struct Owned {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory belongs to this value alone as far as freeing goes, and freeing works from any thread.
unsafe impl Send for Owned {}

impl Owned {
    /// Page-aligned host memory, zeroed.
    pub fn new(bytes: usize) -> Result<Owned, Error> {
        const PAGE: usize = 4096;
        let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| Error::OutOfMemory)?;
        if bytes == 0 {
            return Err(Error::InvalidValue);
        }
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).ok_or(Error::OutOfMemory)?;
        Ok(Owned { start, layout })
    }

    /// Where it begins.
    pub fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout and not freed since.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// A pool for allocations in stream order. All memory of a device is one heap here; a pool keeps its attributes only.
#[derive(Debug)]
pub struct Pool {
    pub device: usize,
    /// Settable attributes by number.
    pub attributes: HashMap<u32, u64>,
}

impl Pool {
    pub fn new(device: usize) -> Pool {
        // The three REUSE_ switches are on and the release threshold is 0, as in the real driver.
        Pool { device, attributes: HashMap::from([(1, 1), (2, 1), (3, 1), (4, 0)]) }
    }
}

impl Registry {
    /// Bytes of a device that are in use.
    pub fn used_bytes(&self, device: usize) -> u64 {
        self.allocations.values().filter(|a| a.device == device).map(|a| a.bytes).sum()
    }

    /// The allocation around an address, with its start.
    pub fn allocation_at(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (&start, allocation) = self.allocations.range(..=address).next_back()?;
        (address - start < allocation.bytes).then_some((start, allocation))
    }

    /// The known host block around an address, with its start.
    pub fn host_block_at(&self, address: usize) -> Option<(usize, &HostBlock)> {
        let (&start, block) = self.host_blocks.range(..=address).next_back()?;
        (address - start < block.bytes).then_some((start, block))
    }
}

/// One end of a copy whose kind is told by its address alone.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Device(u64),
    Host(HostPtr),
}

impl State {
    /// Allocates device memory.
    pub fn allocate(
        &self,
        registry: &mut Registry,
        (context, device): (Handle, usize),
        bytes: u64,
        pool: Option<Handle>,
    ) -> Result<u64, Error> {
        if bytes == 0 {
            return Err(Error::InvalidValue);
        }
        let of = &self.devices[device];
        if bytes > of.memory_bytes.saturating_sub(registry.used_bytes(device)) {
            return Err(Error::OutOfMemory);
        }
        let address = of.machine.alloc(bytes).map_err(|_| Error::OutOfMemory)?;
        registry.allocations.insert(address, Allocation { device, context, bytes, pool });
        Ok(address)
    }

    /// Frees device memory. An address that is not the start of an allocation is `CUDA_ERROR_INVALID_VALUE`.
    pub fn release(&self, registry: &mut Registry, address: u64) -> Result<(), Error> {
        let allocation = registry.allocations.remove(&address).ok_or(Error::InvalidValue)?;
        self.devices[allocation.device].machine.free(address).map_err(|_| Error::InvalidValue)
    }

    /// Whether an address is device memory or host memory.
    pub fn place(&self, address: HostPtr) -> Place {
        let device = address.address() as u64;
        if self.device_at(device).is_some() { Place::Device(device) } else { Place::Host(address) }
    }

    /// Host to device.
    pub fn write(&self, to: u64, from: HostPtr, bytes: usize) -> Result<(), Error> {
        let (device, _) = self.device_at(to).ok_or(Error::InvalidValue)?;
        device.machine.write(to, from.read(bytes)?).map_err(|_| Error::InvalidValue)
    }

    /// Device to host.
    pub fn read(&self, to: HostPtr, from: u64, bytes: usize) -> Result<(), Error> {
        let (device, _) = self.device_at(from).ok_or(Error::InvalidValue)?;
        device.machine.read(from, to.write(bytes)?).map_err(|_| Error::InvalidValue)
    }

    /// Device to device, also from one to another.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Error> {
        let (target, _) = self.device_at(to).ok_or(Error::InvalidValue)?;
        let (source, _) = self.device_at(from).ok_or(Error::InvalidValue)?;
        if std::ptr::eq(target, source) {
            return target.machine.copy(to, from, bytes).map_err(|_| Error::InvalidValue);
        }
        let bytes = usize::try_from(bytes).map_err(|_| Error::InvalidValue)?;
        let mut through = vec![0; bytes];
        source.machine.read(from, &mut through).map_err(|_| Error::InvalidValue)?;
        target.machine.write(to, &through).map_err(|_| Error::InvalidValue)
    }

    /// `count` times `pattern`.
    pub fn fill(&self, to: u64, pattern: &[u8], count: u64) -> Result<(), Error> {
        if !to.is_multiple_of(pattern.len() as u64) {
            return Err(Error::InvalidValue);
        }
        let (device, _) = self.device_at(to).ok_or(Error::InvalidValue)?;
        device.machine.fill(to, pattern, count).map_err(|_| Error::InvalidValue)
    }
}
