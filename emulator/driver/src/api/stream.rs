//! Streams.

use crate::ffi::{Out, driver_functions};
use crate::graph::{HostCall, Work};
use crate::state::{Handle, new_handle, state};
use crate::status::Error;
use crate::stream::{GREATEST_PRIORITY, NON_BLOCKING, Stream, StreamHandle, StreamKey};
use std::ffi::c_void;

fn create(into: Out<StreamHandle>, flags: u32, priority: i32) -> Result<(), Error> {
    into.check()?;
    if flags & !NON_BLOCKING != 0 {
        return Err(Error::InvalidValue);
    }
    let mut registry = state()?.registry();
    let (context, _) = registry.current()?;
    let handle = new_handle();
    registry
        .streams
        .insert(handle, Stream { context, flags, priority: priority.clamp(GREATEST_PRIORITY, 0) });
    into.set(handle)
}

/// Whether a stream may be waited for: one that is capturing may not, and its capture breaks.
fn wait_for(stream: StreamHandle) -> Result<(), Error> {
    let mut registry = state()?.registry();
    let target = registry.stream(stream)?;
    if let Some(capture) = registry.capture_of(target.key) {
        capture.broken = true;
        return Err(Error::StreamCaptureUnsupported);
    }
    if let StreamKey::Legacy(context) = target.key {
        registry.check_legacy(context)?;
    }
    Ok(())
}

driver_functions! {
    /// As documented.
    fn cuStreamCreate(into: Out<StreamHandle>, flags: u32) {
        create(into, flags, 0)
    }

    /// The priority is brought into range, kept, and changes nothing.
    fn cuStreamCreateWithPriority(into: Out<StreamHandle>, flags: u32, priority: i32) {
        create(into, flags, priority)
    }

    /// A stream that is capturing takes its capture with it.
    fn cuStreamDestroy_v2(stream: StreamHandle) {
        let mut registry = state()?.registry();
        let target = registry.stream(stream)?;
        let StreamKey::Created(handle) = target.key else { return Err(Error::InvalidHandle) };
        if let Some(id) = registry.capturing.remove(&target.key) {
            registry.remove_capture(id);
        }
        registry.streams.remove(&handle);
        Ok(())
    }

    /// Everything has happened already. Not while it is capturing.
    fn cuStreamSynchronize(stream: StreamHandle) {
        wait_for(stream)
    }

    /// Everything has happened already. Not while it is capturing.
    fn cuStreamQuery(stream: StreamHandle) {
        wait_for(stream)
    }

    /// What the event stands for has happened already; in a capture it is a dependency.
    fn cuStreamWaitEvent(stream: StreamHandle, event: Handle, flags: u32) {
        let mut registry = state()?.registry();
        let target = registry.stream(stream)?;
        let of = registry.event(event)?;
        let (recorded, captured) = (of.recorded.is_some(), of.captured.clone());
        if flags > 1 {
            return Err(Error::InvalidValue);
        }
        let here = registry.capturing.get(&target.key).copied();
        let mut refuse = |captures: &[Option<u64>], error| {
            for id in captures.iter().flatten() {
                registry.captures.entry(*id).and_modify(|c| c.broken = true);
            }
            Err(error)
        };
        let Some((id, point)) = captured else {
            let outside = here.is_some() && recorded;
            return if outside { refuse(&[here], Error::StreamCaptureIsolation) } else { Ok(()) };
        };
        if here.is_some_and(|own| own != id) {
            return refuse(&[here, Some(id)], Error::StreamCaptureMerge);
        }
        if matches!(target.key, StreamKey::Legacy(_)) {
            return refuse(&[Some(id)], Error::StreamCaptureImplicit);
        }
        // The capture that the event was recorded in is over when it is not known any more.
        let capture = registry.captures.get_mut(&id).ok_or(Error::CapturedEvent)?;
        capture.join(target.key, &point);
        registry.capturing.insert(target.key, id);
        Ok(())
    }

    /// As documented.
    fn cuStreamGetPriority(stream: StreamHandle, priority: Out<i32>) {
        let registry = state()?.registry();
        priority.set(match registry.stream(stream)?.key {
            StreamKey::Created(handle) => registry.streams[&handle].priority,
            _ => 0,
        })
    }

    /// As documented.
    fn cuStreamGetFlags(stream: StreamHandle, flags: Out<u32>) {
        let registry = state()?.registry();
        flags.set(match registry.stream(stream)?.key {
            StreamKey::Created(handle) => registry.streams[&handle].flags,
            _ => 0,
        })
    }

    /// As documented.
    fn cuStreamGetCtx(stream: StreamHandle, context: Out<Handle>) {
        let of = state()?.registry().stream(stream)?.context;
        context.set(of)
    }

    /// The function is called by this thread before the call returns.
    fn cuLaunchHostFunc(
        stream: StreamHandle,
        function: Option<unsafe extern "C" fn(*mut c_void)>,
        argument: *mut c_void,
    ) {
        let state = state()?;
        let function = function.ok_or(Error::InvalidValue)?;
        let target = state.registry().stream(stream)?;
        state.submit(target, Work::Call(HostCall { function, argument: argument as usize }))
    }

    /// The function is called by this thread before the call returns. Not while the stream is capturing.
    fn cuStreamAddCallback(
        stream: StreamHandle,
        function: Option<unsafe extern "C" fn(StreamHandle, u32, *mut c_void)>,
        argument: *mut c_void,
        flags: u32,
    ) {
        let function = function.ok_or(Error::InvalidValue)?;
        if flags != 0 {
            return Err(Error::InvalidValue);
        }
        wait_for(stream)?;
        // SAFETY: the program gave function and argument to be called when the stream gets here.
        unsafe { function(stream, 0, argument) };
        Ok(())
    }
}
