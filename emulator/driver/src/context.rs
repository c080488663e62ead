//! Contexts: the primary one of each device, created ones, and which is current in a thread.

use crate::state::{Handle, Registry, State};
use crate::status::Error;
use crate::stream::StreamKey;
use std::cell::RefCell;
use std::collections::HashMap;

/// A live context.
#[derive(Debug, Default)]
pub struct Context {
    pub device: usize,
    pub flags: u32,
    pub cache_config: u32,
    pub limits: HashMap<u32, usize>,
    /// The error that every call in this context returns since a launch was stopped in it under `sticky`.
    pub broken: Option<Error>,
}

/// A device's primary context: its handle stays the same over its lives.
#[derive(Debug)]
pub struct Primary {
    pub handle: Handle,
    pub retains: u32,
    pub flags: u32,
    pub default_pool: Handle,
    pub current_pool: Handle,
}

impl Primary {
    pub fn new(pool: Handle) -> Primary {
        let handle = crate::state::new_handle();
        Primary { handle, retains: 0, flags: 0, default_pool: pool, current_pool: pool }
    }
}

thread_local! {
    /// The thread's stack of contexts, current last.
    static STACK: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// The handle of this thread's current context, alive or not.
pub fn current_handle() -> Option<Handle> {
    STACK.with_borrow(|stack| stack.last().copied())
}

/// Makes a context current in place of the top of the stack; `None` pops, as `cuCtxSetCurrent(NULL)` does.
pub fn set_current(context: Option<Handle>) {
    STACK.with_borrow_mut(|stack| {
        stack.pop();
        stack.extend(context);
    });
}

/// Pushes a context.
pub fn push(context: Handle) {
    STACK.with_borrow_mut(|stack| stack.push(context));
}

/// Pops the current context.
pub fn pop() -> Option<Handle> {
    STACK.with_borrow_mut(Vec::pop)
}

impl Registry {
    /// This thread's current context.
    pub fn current(&self) -> Result<(Handle, &Context), Error> {
        let handle = current_handle().ok_or(Error::InvalidContext)?;
        let context = self.contexts.get(&handle).ok_or(Error::ContextIsDestroyed)?;
        context.broken.map_or(Ok((handle, context)), Err)
    }

    /// A context that a program names.
    pub fn context(&self, handle: Handle) -> Result<&Context, Error> {
        match self.contexts.get(&handle) {
            Some(context) => context.broken.map_or(Ok(context), Err),
            None if self.primaries.iter().any(|p| p.handle == handle) => Err(Error::ContextIsDestroyed),
            None => Err(Error::InvalidContext),
        }
    }

    /// Retains a device's primary context, bringing it to life if need be.
    pub fn retain_primary(&mut self, device: usize) -> Result<Handle, Error> {
        let primary = self.primaries.get_mut(device).ok_or(Error::InvalidDevice)?;
        primary.retains += 1;
        let (handle, flags) = (primary.handle, primary.flags);
        self.contexts.entry(handle).or_insert_with(|| Context { device, flags, ..Context::default() });
        Ok(handle)
    }
}

impl State {
    /// Ends a context with everything in it.
    pub fn destroy_context(&self, registry: &mut Registry, context: Handle) {
        registry.contexts.remove(&context);
        registry.functions.retain(|_, f| f.context != context);
        registry.modules.retain(|_, m| m.context != context);
        registry.events.retain(|_, e| e.context != context);
        registry.streams.retain(|_, s| s.context != context);
        registry.execs.retain(|_, e| e.context != context);
        let streams = &registry.streams;
        let gone = |key: &StreamKey| match *key {
            StreamKey::Legacy(owner) | StreamKey::PerThread(owner, _) => owner == context,
            StreamKey::Created(handle) => !streams.contains_key(&handle),
        };
        registry.capturing.retain(|key, _| !gone(key));
        registry.captures.retain(|_, capture| !gone(&capture.origin));
        registry.host_blocks.retain(|_, block| block.context != context);
        let freed: Vec<u64> = registry
            .allocations
            .iter()
            .filter(|(_, a)| a.context == context)
            .map(|(&address, _)| address)
            .collect();
        for address in freed {
            if let Some(allocation) = registry.allocations.remove(&address) {
                // The address came from this machine and was not freed since: nothing can fail.
                let _ = self.devices[allocation.device].machine.free(address);
            }
        }
    }
}
