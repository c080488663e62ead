//! Devices.

use crate::ffi::{InStr, Out, driver_functions, fill_text};
use crate::profile;
use crate::state::{Device, Handle, State, state};
use crate::status::Error;

/// A device by its ordinal, which is also its `CUdevice`.
pub(crate) fn device(state: &State, device: i32) -> Result<(usize, &Device), Error> {
    let ordinal = usize::try_from(device).map_err(|_| Error::InvalidDevice)?;
    Ok((ordinal, state.devices.get(ordinal).ok_or(Error::InvalidDevice)?))
}

/// Digits of a PCI bus id.
fn bus_id(ordinal: usize) -> String {
    format!("0000:{:02X}:00.0", ordinal + 1)
}

driver_functions! {
    /// As documented.
    fn cuDeviceGet(into: Out<i32>, ordinal: i32) {
        device(state()?, ordinal)?;
        into.set(ordinal)
    }

    /// As many as `PTX_EMULATOR_DEVICES` lists.
    fn cuDeviceGetCount(count: Out<i32>) {
        count.set(state()?.devices.len() as i32)
    }

    /// A name that no real device has.
    fn cuDeviceGetName(name: Out<u8>, capacity: i32, of: i32) {
        let (_, device) = device(state()?, of)?;
        let capacity = usize::try_from(capacity).map_err(|_| Error::InvalidValue)?;
        fill_text(name, capacity, device.profile.name().as_bytes())
    }

    /// Tells architecture and ordinal.
    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, of: i32) {
        let (ordinal, device) = device(state()?, of)?;
        uuid.set(profile::uuid(device.profile.arch, ordinal as u32))
    }

    /// As `cuDeviceGetUuid`: there are no partitions.
    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, of: i32) {
        let (ordinal, device) = device(state()?, of)?;
        uuid.set(profile::uuid(device.profile.arch, ordinal as u32))
    }

    /// `PTX_EMULATOR_MEMORY_MIB`.
    fn cuDeviceTotalMem_v2(bytes: Out<usize>, of: i32) {
        let (_, device) = device(state()?, of)?;
        bytes.set(device.memory_bytes as usize)
    }

    /// The attributes of a typical device of the architecture.
    fn cuDeviceGetAttribute(value: Out<i32>, attribute: u32, of: i32) {
        let (ordinal, device) = device(state()?, of)?;
        value.set(device.profile.attribute(attribute, ordinal as u32).ok_or(Error::InvalidValue)?)
    }

    /// As documented.
    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, of: i32) {
        let (_, device) = device(state()?, of)?;
        let capability = device.profile.arch.capability();
        major.set(capability.0 as i32)?;
        minor.set(capability.1 as i32)
    }

    /// Bus numbers count from 1.
    fn cuDeviceGetPCIBusId(text: Out<u8>, capacity: i32, of: i32) {
        let (ordinal, _) = device(state()?, of)?;
        let capacity = usize::try_from(capacity).map_err(|_| Error::InvalidValue)?;
        fill_text(text, capacity, bus_id(ordinal).as_bytes())
    }

    /// Takes the form that `cuDeviceGetPCIBusId` gives.
    fn cuDeviceGetByPCIBusId(into: Out<i32>, id: InStr) {
        let id = id.text()?;
        let ordinal = (0..state()?.devices.len()).find(|&i| bus_id(i).eq_ignore_ascii_case(&id));
        into.set(ordinal.ok_or(Error::InvalidDevice)? as i32)
    }

    /// No device can reach another's memory from a kernel; copies between them work.
    fn cuDeviceCanAccessPeer(can: Out<i32>, from: i32, to: i32) {
        device(state()?, from)?;
        device(state()?, to)?;
        can.set(0)
    }

    /// As documented.
    fn cuDeviceGetDefaultMemPool(pool: Out<Handle>, of: i32) {
        let state = state()?;
        let (ordinal, _) = device(state, of)?;
        pool.set(state.registry().primaries[ordinal].default_pool)
    }

    /// As documented.
    fn cuDeviceGetMemPool(pool: Out<Handle>, of: i32) {
        let state = state()?;
        let (ordinal, _) = device(state, of)?;
        pool.set(state.registry().primaries[ordinal].current_pool)
    }

    /// As documented.
    fn cuDeviceSetMemPool(of: i32, pool: Handle) {
        let state = state()?;
        let (ordinal, _) = device(state, of)?;
        let mut registry = state.registry();
        match registry.pools.get(&pool) {
            Some(known) if known.device == ordinal => registry.primaries[ordinal].current_pool = pool,
            _ => return Err(Error::InvalidValue),
        }
        Ok(())
    }
}
