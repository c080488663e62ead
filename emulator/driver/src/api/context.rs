//! Contexts.

use super::device::device;
use crate::context::{self, Context};
use crate::ffi::{In, Out, driver_functions};
use crate::state::{Handle, new_handle, state};
use crate::status::Error;
use crate::stream::GREATEST_PRIORITY;

/// `CU_CTX_FLAGS_MASK`.
const FLAGS: u32 = 0x1f;
/// `CUlimit` values of CUDA 11.8, and what they are when nobody sets them.
const LIMITS: [usize; 7] = [1024, 1 << 20, 8 << 20, 2, 2048, 128, 0];
/// What `cuCtxGetApiVersion` says of contexts that were created by the current functions.
const API_VERSION: u32 = 3020;

fn create(into: Out<Handle>, flags: u32, of: i32) -> Result<(), Error> {
    into.check()?;
    let state = state()?;
    let (ordinal, _) = device(state, of)?;
    if flags & !FLAGS != 0 {
        return Err(Error::InvalidValue);
    }
    let handle = new_handle();
    let made = Context { device: ordinal, flags, ..Context::default() };
    state.registry().contexts.insert(handle, made);
    context::push(handle);
    into.set(handle)
}

driver_functions! {
    /// As documented; the handle is the same in every life of the context.
    fn cuDevicePrimaryCtxRetain(into: Out<Handle>, of: i32) {
        into.check()?;
        let state = state()?;
        let (ordinal, _) = device(state, of)?;
        into.set(state.registry().retain_primary(ordinal)?)
    }

    /// The last release ends the context with all memory, modules, streams and events in it.
    fn cuDevicePrimaryCtxRelease_v2(of: i32) {
        let state = state()?;
        let (ordinal, _) = device(state, of)?;
        let mut registry = state.registry();
        let primary = &mut registry.primaries[ordinal];
        primary.retains = primary.retains.checked_sub(1).ok_or(Error::InvalidContext)?;
        if primary.retains == 0 {
            let handle = primary.handle;
            state.destroy_context(&mut registry, handle);
        }
        Ok(())
    }

    /// Ends the context and, when it is retained, begins a new life of it at once.
    fn cuDevicePrimaryCtxReset_v2(of: i32) {
        let state = state()?;
        let (ordinal, _) = device(state, of)?;
        let mut registry = state.registry();
        let primary = &registry.primaries[ordinal];
        let (handle, retains, flags) = (primary.handle, primary.retains, primary.flags);
        state.destroy_context(&mut registry, handle);
        if retains > 0 {
            registry.contexts.insert(handle, Context { device: ordinal, flags, ..Context::default() });
        }
        Ok(())
    }

    /// As documented.
    fn cuDevicePrimaryCtxGetState(of: i32, flags: Out<u32>, active: Out<i32>) {
        let state = state()?;
        let (ordinal, _) = device(state, of)?;
        let registry = state.registry();
        flags.set(registry.primaries[ordinal].flags)?;
        active.set(i32::from(registry.primaries[ordinal].retains > 0))
    }

    /// The flags are kept and change nothing.
    fn cuDevicePrimaryCtxSetFlags_v2(of: i32, flags: u32) {
        let state = state()?;
        let (ordinal, _) = device(state, of)?;
        if flags & !FLAGS != 0 {
            return Err(Error::InvalidValue);
        }
        state.registry().primaries[ordinal].flags = flags;
        Ok(())
    }

    /// As documented.
    fn cuCtxCreate_v2(into: Out<Handle>, flags: u32, of: i32) {
        create(into, flags, of)
    }

    /// Without execution affinity.
    fn cuCtxCreate_v3(into: Out<Handle>, affinity: In<[u32; 2]>, affinity_count: i32, flags: u32, of: i32) {
        if !affinity.is_null() || affinity_count != 0 {
            return Err(Error::UnsupportedExecAffinity);
        }
        create(into, flags, of)
    }

    /// As documented; a primary context is released, not destroyed.
    fn cuCtxDestroy_v2(context: Handle) {
        let state = state()?;
        let mut registry = state.registry();
        if registry.primaries.iter().any(|p| p.handle == context) || !registry.contexts.contains_key(&context) {
            return Err(Error::InvalidContext);
        }
        state.destroy_context(&mut registry, context);
        if context::current_handle() == Some(context) {
            context::pop();
        }
        Ok(())
    }

    /// As documented.
    fn cuCtxGetCurrent(into: Out<Handle>) {
        state()?;
        into.set(context::current_handle().unwrap_or(0))
    }

    /// As documented.
    fn cuCtxSetCurrent(context: Handle) {
        if context == 0 {
            context::set_current(None);
            return Ok(());
        }
        let state = state()?;
        state.registry().contexts.get(&context).ok_or(Error::InvalidContext)?;
        context::set_current(Some(context));
        Ok(())
    }

    /// As documented.
    fn cuCtxPushCurrent_v2(context: Handle) {
        let state = state()?;
        state.registry().contexts.get(&context).ok_or(Error::InvalidContext)?;
        context::push(context);
        Ok(())
    }

    /// As documented.
    fn cuCtxPopCurrent_v2(into: Out<Handle>) {
        state()?;
        let popped = context::pop().ok_or(Error::InvalidContext)?;
        into.set_if_wanted(popped);
        Ok(())
    }

    /// As documented.
    fn cuCtxGetDevice(into: Out<i32>) {
        let device = state()?.registry().current()?.1.device;
        into.set(device as i32)
    }

    /// As documented.
    fn cuCtxGetFlags(flags: Out<u32>) {
        let of = state()?.registry().current()?.1.flags;
        flags.set(of)
    }

    /// Null is the current context.
    fn cuCtxGetApiVersion(context: Handle, version: Out<u32>) {
        let registry = state()?.registry();
        if context == 0 { registry.current()?.1 } else { registry.context(context)? };
        version.set(API_VERSION)
    }

    /// Everything has happened already. Not during a capture.
    fn cuCtxSynchronize() {
        let mut registry = state()?.registry();
        registry.current()?;
        registry.refuse_during_capture()
    }

    /// As documented.
    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        state()?.registry().current()?;
        least.set_if_wanted(0);
        greatest.set_if_wanted(GREATEST_PRIORITY);
        Ok(())
    }

    /// What was set, or the usual default.
    fn cuCtxGetLimit(value: Out<usize>, limit: u32) {
        let default = *LIMITS.get(limit as usize).ok_or(Error::UnsupportedLimit)?;
        let registry = state()?.registry();
        let (_, context) = registry.current()?;
        value.set(context.limits.get(&limit).copied().unwrap_or(default))
    }

    /// The value is kept and limits nothing.
    fn cuCtxSetLimit(limit: u32, value: usize) {
        LIMITS.get(limit as usize).ok_or(Error::UnsupportedLimit)?;
        let mut registry = state()?.registry();
        let (handle, _) = registry.current()?;
        if let Some(context) = registry.contexts.get_mut(&handle) {
            context.limits.insert(limit, value);
        }
        Ok(())
    }

    /// What was set.
    fn cuCtxGetCacheConfig(config: Out<u32>) {
        let of = state()?.registry().current()?.1.cache_config;
        config.set(of)
    }

    /// The value is kept and changes nothing.
    fn cuCtxSetCacheConfig(config: u32) {
        if config > 3 {
            return Err(Error::InvalidValue);
        }
        let mut registry = state()?.registry();
        let (handle, _) = registry.current()?;
        if let Some(context) = registry.contexts.get_mut(&handle) {
            context.cache_config = config;
        }
        Ok(())
    }
}
