//! Events.

use crate::ffi::{Out, driver_functions};
use crate::graph::Work;
use crate::state::{Handle, new_handle, state};
use crate::status::Error;
use crate::stream::{DISABLE_TIMING, Event, StreamHandle};
use std::time::Instant;

/// `CU_EVENT_BLOCKING_SYNC`, `_DISABLE_TIMING` and `_INTERPROCESS`.
const FLAGS: u32 = 1 | 2 | 4;
/// `CU_EVENT_RECORD_EXTERNAL`.
const EXTERNAL: u32 = 1;

fn record(event: Handle, stream: StreamHandle, flags: u32) -> Result<(), Error> {
    let state = state()?;
    let mut registry = state.registry();
    let target = registry.stream(stream)?;
    if registry.event(event)?.context != target.context {
        return Err(Error::InvalidHandle);
    }
    let here = registry.capturing.get(&target.key).copied();
    let Some(capture) = registry.capture_of(target.key) else {
        drop(registry);
        return state.submit(target, Work::Record { event });
    };
    if capture.broken {
        return Err(Error::StreamCaptureInvalidated);
    }
    if flags == EXTERNAL {
        capture.add(target.key, Work::Record { event });
        return Ok(());
    }
    let point = capture.point(target.key);
    registry.events.entry(event).and_modify(|e| e.captured = here.map(|id| (id, point)));
    Ok(())
}

/// An event that the host may ask about: one that stands for a point in a capture may not.
fn settled(event: Handle) -> Result<Event, Error> {
    let registry = state()?.registry();
    let event = registry.event(event)?;
    match &event.captured {
        Some(_) => Err(Error::CapturedEvent),
        None => Ok(event.clone()),
    }
}

driver_functions! {
    /// Events between processes are refused.
    fn cuEventCreate(into: Out<Handle>, flags: u32) {
        into.check()?;
        let interprocess = 4;
        if flags & !FLAGS != 0 {
            return Err(Error::InvalidValue);
        }
        if flags & interprocess != 0 {
            return Err(Error::NotSupported);
        }
        let mut registry = state()?.registry();
        let (context, _) = registry.current()?;
        let handle = new_handle();
        registry.events.insert(handle, Event { context, flags, recorded: None, captured: None });
        into.set(handle)
    }

    /// As documented.
    fn cuEventRecord(event: Handle, stream: StreamHandle) {
        record(event, stream, 0)
    }

    /// As documented.
    fn cuEventRecordWithFlags(event: Handle, stream: StreamHandle, flags: u32) {
        if flags > EXTERNAL {
            return Err(Error::InvalidValue);
        }
        record(event, stream, flags)
    }

    /// What was recorded has happened.
    fn cuEventQuery(event: Handle) {
        settled(event).map(|_| ())
    }

    /// What was recorded has happened.
    fn cuEventSynchronize(event: Handle) {
        settled(event).map(|_| ())
    }

    /// The time that the emulator took in between, which says nothing about a real device.
    fn cuEventElapsedTime(milliseconds: Out<f32>, start: Handle, end: Handle) {
        let (start, end) = (settled(start)?, settled(end)?);
        if (start.flags | end.flags) & DISABLE_TIMING != 0 || start.context != end.context {
            return Err(Error::InvalidHandle);
        }
        let (Some(from), Some(to)) = (start.recorded, end.recorded) else { return Err(Error::InvalidHandle) };
        let between = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        milliseconds.set(((between(from, to) - between(to, from)) * 1e3) as f32)
    }

    /// As documented.
    fn cuEventDestroy_v2(event: Handle) {
        state()?.registry().events.remove(&event).map(|_| ()).ok_or(Error::InvalidHandle)
    }
}
