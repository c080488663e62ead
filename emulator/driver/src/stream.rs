//! Streams and events.
//!
//! Work is done when it is submitted, so whatever a program submitted has happened: a stream is always idle, an event
//! that was recorded has occurred. What a program forgets to wait for is therefore not found here.

use crate::context;
use crate::graph::Clock;
use crate::state::{Handle, Registry};
use crate::status::Error;
use std::thread::ThreadId;
use std::time::Instant;

/// A created stream.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub context: Handle,
    pub flags: u32,
    pub priority: i32,
}

/// `CU_STREAM_NON_BLOCKING`.
pub const NON_BLOCKING: u32 = 1;
/// Greatest priority; the least is 0. Numbers as on the real devices.
pub const GREATEST_PRIORITY: i32 = -5;

/// Which stream is meant, with the two default ones told apart by context and thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKey {
    Legacy(Handle),
    PerThread(Handle, ThreadId),
    Created(Handle),
}

/// A stream handle as it arrives: null and 1 are the legacy stream, 2 the thread's own.
pub type StreamHandle = Handle;

/// An event.
#[derive(Clone, Debug)]
pub struct Event {
    pub context: Handle,
    pub flags: u32,
    /// When it was last recorded.
    pub recorded: Option<Instant>,
    /// The point in a capture where it was last recorded, when that was in a capturing stream.
    pub captured: Option<(u64, Clock)>,
}

/// `CU_EVENT_DISABLE_TIMING`.
pub const DISABLE_TIMING: u32 = 2;

/// A stream that is in use by a call: which one, and its context.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub key: StreamKey,
    pub context: Handle,
    pub device: usize,
}

impl Registry {
    /// The stream behind a handle, with its context checked.
    pub fn stream(&self, handle: StreamHandle) -> Result<Target, Error> {
        let (current, _) = self.current()?;
        let (key, context) = match handle {
            0 | 1 => (StreamKey::Legacy(current), current),
            2 => (StreamKey::PerThread(current, std::thread::current().id()), current),
            _ => {
                let stream = self.streams.get(&handle).ok_or(Error::InvalidHandle)?;
                (StreamKey::Created(handle), stream.context)
            }
        };
        let device = self.context(context)?.device;
        Ok(Target { key, context, device })
    }

    /// Whether a stream waits for the legacy stream and is waited for by it.
    pub fn is_blocking(&self, key: StreamKey) -> bool {
        match key {
            StreamKey::Created(handle) => {
                self.streams.get(&handle).is_some_and(|s| s.flags & NON_BLOCKING == 0)
            }
            StreamKey::PerThread(..) => true,
            StreamKey::Legacy(_) => false,
        }
    }

    /// An event of a live context.
    pub fn event(&self, handle: Handle) -> Result<&Event, Error> {
        context::current_handle().ok_or(Error::InvalidContext)?;
        let event = self.events.get(&handle).ok_or(Error::InvalidHandle)?;
        self.context(event.context)?;
        Ok(event)
    }
}
