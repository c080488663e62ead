//! Allocation, pinned host memory, pools, and what an address tells.

use crate::ffi::{HostPtr, In, Out, driver_functions};
use crate::memory::{HostBlock, Owned, Pool};
use crate::state::{Handle, State, new_handle, state};
use crate::status::Error;
use crate::stream::StreamHandle;

/// `CU_MEMHOSTALLOC_PORTABLE`, `_DEVICEMAP` and `_WRITECOMBINED`.
const HOST_FLAGS: u32 = 1 | 2 | 4;
/// `CU_MEMHOSTREGISTER_PORTABLE`, `_DEVICEMAP`, `_IOMEMORY` and `_READ_ONLY`.
const REGISTER_FLAGS: u32 = 1 | 2 | 4 | 8;

/// Allocates in a stream's turn, from a pool or the device's current one.
fn allocate_in(
    into: Out<u64>,
    bytes: usize,
    pool: Option<Handle>,
    stream: StreamHandle,
) -> Result<(), Error> {
    into.check()?;
    let state = state()?;
    let mut registry = state.registry();
    let target = registry.stream(stream)?;
    if let Some(capture) = registry.capture_of(target.key) {
        capture.broken = true;
        return Err(Error::StreamCaptureUnsupported);
    }
    let pool = pool.unwrap_or(registry.primaries[target.device].current_pool);
    let device = registry.pools.get(&pool).ok_or(Error::InvalidValue)?.device;
    into.set(state.allocate(&mut registry, (target.context, device), bytes as u64, Some(pool))?)
}

fn allocate_host(into: Out<usize>, bytes: usize, flags: u32) -> Result<(), Error> {
    into.check()?;
    if flags & !HOST_FLAGS != 0 {
        return Err(Error::InvalidValue);
    }
    let mut registry = state()?.registry();
    registry.refuse_during_capture()?;
    let (context, _) = registry.current()?;
    let owned = Owned::new(bytes)?;
    let address = owned.address();
    registry.host_blocks.insert(address, HostBlock { context, bytes, flags, owned: Some(owned) });
    into.set(address)
}

/// Writes `CUpointer_attribute` number `attribute` of an address.
fn pointer_attribute(state: &State, attribute: u32, address: u64, into: Out<u8>) -> Result<(), Error> {
    const HOST: u32 = 1;
    const DEVICE: u32 = 2;
    const READ_WRITE: u32 = 3;
    let registry = state.registry();
    if let Some((device, (start, bytes))) = state.device_at(address) {
        let allocation = registry.allocation_at(address).map(|(_, a)| *a);
        let ordinal = state.devices.iter().position(|d| std::ptr::eq(d, device)).unwrap_or(0);
        return match attribute {
            1 => into.cast().set(allocation.map_or(registry.primaries[ordinal].handle, |a| a.context)),
            2 => into.cast().set(DEVICE),
            3 => into.cast().set(address),
            7 => into.cast().set(start),
            6 | 8 | 10 | 15 => into.cast().set(0u32),
            9 => into.cast().set(ordinal as i32),
            11 => into.cast().set(start),
            12 => into.cast().set(bytes as usize),
            13 => into.cast().set(1u32),
            14 => into.cast().set(0u64),
            16 => into.cast().set(READ_WRITE),
            17 => into.cast().set(allocation.and_then(|a| a.pool).unwrap_or(0)),
            _ => Err(Error::InvalidValue),
        };
    }
    let (start, block) = registry.host_block_at(address as usize).ok_or(Error::InvalidValue)?;
    match attribute {
        1 => into.cast().set(block.context),
        2 => into.cast().set(HOST),
        4 => into.cast().set(address),
        7 => into.cast().set(start as u64),
        6 | 8 | 10 | 15 => into.cast().set(0u32),
        9 => into.cast().set(registry.context(block.context)?.device as i32),
        11 => into.cast().set(start as u64),
        12 => into.cast().set(block.bytes),
        13 => into.cast().set(1u32),
        14 => into.cast().set(0u64),
        17 => into.cast().set(0usize),
        _ => Err(Error::InvalidValue),
    }
}

/// What `cuPointerGetAttributes` writes of an address that nobody knows.
fn unknown_attribute(attribute: u32, into: Out<u8>) -> Result<(), Error> {
    match attribute {
        9 => into.cast().set(-2i32),
        2 | 6 | 8 | 10 | 13 | 15 | 16 => into.cast().set(0u32),
        1 | 3 | 4 | 7 | 11 | 12 | 14 | 17 => into.cast().set(0u64),
        _ => Err(Error::InvalidValue),
    }
}

fn pool_device(pool: Handle) -> Result<usize, Error> {
    state()?.registry().pools.get(&pool).map(|p| p.device).ok_or(Error::InvalidValue)
}

driver_functions! {
    /// Of the current context's device.
    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let state = state()?;
        let registry = state.registry();
        let device = registry.current()?.1.device;
        let all = state.devices[device].memory_bytes;
        free.set(all.saturating_sub(registry.used_bytes(device)) as usize)?;
        total.set(all as usize)
    }

    /// Contents are undefined: the emulator's checks report reads of them.
    fn cuMemAlloc_v2(into: Out<u64>, bytes: usize) {
        into.check()?;
        let state = state()?;
        let mut registry = state.registry();
        registry.refuse_during_capture()?;
        let (context, of) = registry.current()?;
        let device = of.device;
        into.set(state.allocate(&mut registry, (context, device), bytes as u64, None)?)
    }

    /// Not while the stream is capturing.
    fn cuMemAllocAsync(into: Out<u64>, bytes: usize, stream: StreamHandle) {
        allocate_in(into, bytes, None, stream)
    }

    /// Not while the stream is capturing.
    fn cuMemAllocFromPoolAsync(into: Out<u64>, bytes: usize, pool: Handle, stream: StreamHandle) {
        allocate_in(into, bytes, Some(pool), stream)
    }

    /// There is no managed memory.
    fn cuMemAllocManaged(into: Out<u64>, bytes: usize, flags: u32) {
        let _ = (bytes, flags);
        into.check()?;
        state()?.registry().current()?;
        Err(Error::NotSupported)
    }

    /// Null is nothing to free.
    fn cuMemFree_v2(address: u64) {
        let state = state()?;
        let mut registry = state.registry();
        registry.refuse_during_capture()?;
        registry.current()?;
        if address == 0 { Ok(()) } else { state.release(&mut registry, address) }
    }

    /// The memory is gone when the call returns. Not while the stream is capturing.
    fn cuMemFreeAsync(address: u64, stream: StreamHandle) {
        let state = state()?;
        let mut registry = state.registry();
        let target = registry.stream(stream)?;
        if let Some(capture) = registry.capture_of(target.key) {
            capture.broken = true;
            return Err(Error::StreamCaptureUnsupported);
        }
        if address == 0 { Ok(()) } else { state.release(&mut registry, address) }
    }

    /// Also of a module's global.
    fn cuMemGetAddressRange_v2(start: Out<u64>, bytes: Out<usize>, address: u64) {
        let state = state()?;
        state.registry().current()?;
        let (_, (from, length)) = state.device_at(address).ok_or(Error::NotFound)?;
        start.set_if_wanted(from);
        bytes.set_if_wanted(length as usize);
        Ok(())
    }

    /// As documented.
    fn cuMemAllocHost_v2(into: Out<usize>, bytes: usize) {
        allocate_host(into, bytes, 0)
    }

    /// As documented, but kernels cannot reach the memory: `cuMemHostGetDevicePointer` says so.
    fn cuMemHostAlloc(into: Out<usize>, bytes: usize, flags: u32) {
        allocate_host(into, bytes, flags)
    }

    /// As documented.
    fn cuMemFreeHost(address: usize) {
        let mut registry = state()?.registry();
        registry.refuse_during_capture()?;
        match registry.host_blocks.get(&address) {
            Some(block) if block.owned.is_some() => {
                registry.host_blocks.remove(&address);
                Ok(())
            }
            _ => Err(Error::InvalidValue),
        }
    }

    /// As documented, but kernels cannot reach the memory.
    fn cuMemHostRegister_v2(address: HostPtr, bytes: usize, flags: u32) {
        let mut registry = state()?.registry();
        let (context, _) = registry.current()?;
        let start = address.address();
        if start == 0 || bytes == 0 || flags & !REGISTER_FLAGS != 0 {
            return Err(Error::InvalidValue);
        }
        let end = start.checked_add(bytes).ok_or(Error::InvalidValue)?;
        if registry.host_blocks.range(..end).next_back().is_some_and(|(s, b)| s + b.bytes > start) {
            return Err(Error::HostMemoryAlreadyRegistered);
        }
        registry.host_blocks.insert(start, HostBlock { context, bytes, flags, owned: None });
        Ok(())
    }

    /// As documented.
    fn cuMemHostUnregister(address: usize) {
        let mut registry = state()?.registry();
        match registry.host_blocks.get(&address) {
            Some(block) if block.owned.is_none() => {
                registry.host_blocks.remove(&address);
                Ok(())
            }
            Some(_) => Err(Error::InvalidValue),
            None => Err(Error::HostMemoryNotRegistered),
        }
    }

    /// Kernels cannot reach host memory.
    fn cuMemHostGetDevicePointer_v2(into: Out<u64>, address: usize, flags: u32) {
        into.check()?;
        if flags != 0 || state()?.registry().host_block_at(address).is_none() {
            return Err(Error::InvalidValue);
        }
        Err(Error::NotSupported)
    }

    /// As documented.
    fn cuMemHostGetFlags(flags: Out<u32>, address: usize) {
        let registry = state()?.registry();
        let (_, block) = registry.host_block_at(address).ok_or(Error::InvalidValue)?;
        flags.set(block.flags)
    }

    /// As documented, for device memory and for host memory that the driver knows.
    fn cuPointerGetAttribute(into: Out<u8>, attribute: u32, address: u64) {
        into.check()?;
        pointer_attribute(state()?, attribute, address, into)
    }

    /// An address that nobody knows has attributes of zero.
    fn cuPointerGetAttributes(count: u32, attributes: In<u32>, into: In<Out<u8>>, address: u64) {
        let state = state()?;
        state.registry().current()?;
        for i in 0..count as usize {
            let (attribute, into) = (attributes.at(i)?, into.at(i)?);
            into.check()?;
            if pointer_attribute(state, attribute, address, into).is_err() {
                unknown_attribute(attribute, into)?;
            }
        }
        Ok(())
    }

    /// A pool of the device that the properties name; see `CUmemPoolProps`.
    fn cuMemPoolCreate(into: Out<Handle>, properties: In<[u32; 4]>) {
        const PINNED: u32 = 1;
        const ON_DEVICE: u32 = 1;
        into.check()?;
        let [kind, handle_types, location, id] = properties.get()?;
        let state = state()?;
        if kind != PINNED || location != ON_DEVICE || id as usize >= state.devices.len() {
            return Err(Error::InvalidValue);
        }
        if handle_types != 0 {
            return Err(Error::NotSupported);
        }
        let handle = new_handle();
        state.registry().pools.insert(handle, Pool::new(id as usize));
        into.set(handle)
    }

    /// Not of a device's default pool. A device whose current pool it was goes back to the default one.
    fn cuMemPoolDestroy(pool: Handle) {
        let mut registry = state()?.registry();
        if registry.primaries.iter().any(|p| p.default_pool == pool) {
            return Err(Error::InvalidValue);
        }
        registry.pools.remove(&pool).ok_or(Error::InvalidValue)?;
        for primary in registry.primaries.iter_mut().filter(|p| p.current_pool == pool) {
            primary.current_pool = primary.default_pool;
        }
        Ok(())
    }

    /// A pool holds nothing back: succeeds.
    fn cuMemPoolTrimTo(pool: Handle, kept_bytes: usize) {
        let _ = kept_bytes;
        pool_device(pool).map(|_| ())
    }

    /// What is reserved is what is used, now and at most.
    fn cuMemPoolGetAttribute(pool: Handle, attribute: u32, value: Out<u8>) {
        let registry = state()?.registry();
        let attributes = &registry.pools.get(&pool).ok_or(Error::InvalidValue)?.attributes;
        let of_pool = registry.allocations.values().filter(|a| a.pool == Some(pool));
        match attribute {
            1..=3 => value.cast().set(attributes.get(&attribute).copied().unwrap_or(0) as i32),
            4 => value.cast().set(attributes.get(&attribute).copied().unwrap_or(0)),
            5..=8 => value.cast().set(of_pool.map(|a| a.bytes).sum::<u64>()),
            _ => Err(Error::InvalidValue),
        }
    }

    /// The values are kept and change nothing; high-water marks can only be set to 0, which does nothing.
    fn cuMemPoolSetAttribute(pool: Handle, attribute: u32, value: Out<u8>) {
        let mut registry = state()?.registry();
        let attributes = &mut registry.pools.get_mut(&pool).ok_or(Error::InvalidValue)?.attributes;
        let wanted = match attribute {
            1..=3 => value.cast::<i32>().get()? as u64,
            4 | 6 | 8 => value.cast::<u64>().get()?,
            _ => return Err(Error::InvalidValue),
        };
        match attribute {
            6 | 8 if wanted != 0 => return Err(Error::InvalidValue),
            6 | 8 => {}
            _ => drop(attributes.insert(attribute, wanted)),
        }
        Ok(())
    }
}
