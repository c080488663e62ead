//! Attributes of functions, and occupancy.

use crate::ffi::{Out, driver_functions};
use crate::module::Function;
use crate::occupancy;
use crate::profile::{MAX_BLOCK_THREADS, Profile, SHARED_RESERVED};
use crate::state::{Handle, state};
use crate::status::Error;

/// `CUoccupancyB2DSize`: dynamic shared memory of a block of so many threads.
type SharedOfBlock = Option<unsafe extern "C" fn(i32) -> usize>;

/// A live function and the profile of its device.
fn function(handle: Handle) -> Result<(Function, Profile), Error> {
    let state = state()?;
    let registry = state.registry();
    registry.current()?;
    let function = registry.functions.get(&handle).ok_or(Error::InvalidHandle)?;
    Ok((function.clone(), state.devices[function.device].profile))
}

fn active_blocks(
    into: Out<i32>,
    handle: Handle,
    threads: i32,
    dynamic: usize,
    flags: u32,
) -> Result<(), Error> {
    let (function, profile) = function(handle)?;
    let threads = u32::try_from(threads).ok().filter(|t| *t > 0).ok_or(Error::InvalidValue)?;
    if flags > 1 {
        return Err(Error::InvalidValue);
    }
    if threads > function.entry.max_threads().min(MAX_BLOCK_THREADS) {
        return into.set(0);
    }
    let dynamic = u32::try_from(dynamic).map_err(|_| Error::InvalidValue)?;
    into.set(occupancy::blocks(&profile, function.needs(threads, dynamic)) as i32)
}

fn potential_block_size(
    (min_grid, block): (Out<i32>, Out<i32>),
    handle: Handle,
    shared_of_block: SharedOfBlock,
    dynamic: usize,
    limit: i32,
    flags: u32,
) -> Result<(), Error> {
    let (function, profile) = function(handle)?;
    if flags > 1 || limit < 0 {
        return Err(Error::InvalidValue);
    }
    let most = function.entry.max_threads();
    let limit = if limit == 0 { most } else { most.min(limit as u32) };
    let needs = |threads: u32| {
        let dynamic = match shared_of_block {
            // SAFETY: the program gave the function to be called with block sizes.
            Some(shared) => unsafe { shared(threads as i32) },
            None => dynamic,
        };
        function.needs(threads, u32::try_from(dynamic).unwrap_or(u32::MAX))
    };
    let (size, held) = occupancy::best_block(&profile, limit, needs).ok_or(Error::InvalidValue)?;
    min_grid.set((held * profile.arch.sm_count()) as i32)?;
    block.set(size as i32)
}

driver_functions! {
    /// Registers are an upper bound: what launch bounds leave to ptxas.
    fn cuFuncGetAttribute(value: Out<i32>, attribute: u32, of: Handle) {
        let (function, profile) = function(of)?;
        value.set(function.attribute(attribute, &profile)?)
    }

    /// Dynamic shared memory beyond 48 KiB must be asked for here, up to the device's limit.
    fn cuFuncSetAttribute(of: Handle, attribute: u32, value: i32) {
        let state = state()?;
        let mut registry = state.registry();
        registry.current()?;
        let function = registry.functions.get_mut(&of).ok_or(Error::InvalidHandle)?;
        let profile = &state.devices[function.device].profile;
        function.set_attribute(attribute, value, profile)
    }

    /// Changes nothing.
    fn cuFuncSetCacheConfig(of: Handle, config: u32) {
        function(of)?;
        if config > 3 { Err(Error::InvalidValue) } else { Ok(()) }
    }

    /// Changes nothing.
    fn cuFuncSetSharedMemConfig(of: Handle, config: u32) {
        function(of)?;
        if config > 2 { Err(Error::InvalidValue) } else { Ok(()) }
    }

    /// As documented.
    fn cuFuncGetModule(module: Out<Handle>, of: Handle) {
        module.set(function(of)?.0.module)
    }

    /// A lower bound, from the upper bound of registers.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: Out<i32>, of: Handle, threads: i32, dynamic: usize) {
        active_blocks(blocks, of, threads, dynamic, 0)
    }

    /// A lower bound, from the upper bound of registers.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>,
        of: Handle,
        threads: i32,
        dynamic: usize,
        flags: u32,
    ) {
        active_blocks(blocks, of, threads, dynamic, flags)
    }

    /// From the upper bound of registers.
    fn cuOccupancyMaxPotentialBlockSize(
        min_grid: Out<i32>,
        block: Out<i32>,
        of: Handle,
        shared_of_block: SharedOfBlock,
        dynamic: usize,
        limit: i32,
    ) {
        potential_block_size((min_grid, block), of, shared_of_block, dynamic, limit, 0)
    }

    /// From the upper bound of registers.
    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        min_grid: Out<i32>,
        block: Out<i32>,
        of: Handle,
        shared_of_block: SharedOfBlock,
        dynamic: usize,
        limit: i32,
        flags: u32,
    ) {
        potential_block_size((min_grid, block), of, shared_of_block, dynamic, limit, flags)
    }

    /// What is left to each of so many blocks on a multiprocessor.
    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: Out<usize>, of: Handle, blocks: i32, threads: i32) {
        let (function, profile) = function(of)?;
        let blocks = u32::try_from(blocks).ok().filter(|b| *b > 0).ok_or(Error::InvalidValue)?;
        if threads <= 0 || blocks > occupancy::blocks(&profile, function.needs(threads as u32, 0)) {
            return Err(Error::InvalidValue);
        }
        let each = (profile.arch.shared_per_sm() / blocks / 128 * 128).saturating_sub(SHARED_RESERVED);
        let each = each.min(profile.shared_optin());
        bytes.set(each.saturating_sub(function.entry.static_shared_bytes()) as usize)
    }
}
