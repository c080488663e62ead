//! Work: done at once, or captured into a graph to be done as often as the graph is launched.

use crate::ffi::HostPtr;
use crate::launch::LaunchWork;
use crate::state::{Handle, Registry, State};
use crate::status::Error;
use crate::stream::{StreamKey, Target};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;
use std::thread::ThreadId;

/// Something that a stream does.
#[derive(Clone)]
pub enum Work {
    Launch(LaunchWork),
    Write { to: u64, from: HostPtr, bytes: usize },
    Read { to: HostPtr, from: u64, bytes: usize },
    Copy { to: u64, from: u64, bytes: u64 },
    HostCopy { to: HostPtr, from: HostPtr, bytes: usize },
    Fill { to: u64, pattern: [u8; 4], pattern_bytes: usize, count: u64 },
    Call(HostCall),
    Record { event: Handle },
}

/// A function of the program that a stream calls (`CUhostFn`).
#[derive(Clone, Copy, Debug)]
pub struct HostCall {
    pub function: unsafe extern "C" fn(*mut c_void),
    /// The program's pointer as a number, so that it can travel between threads.
    pub argument: usize,
}

impl Work {
    /// `CUgraphNodeType`.
    pub fn node_type(&self) -> u32 {
        match self {
            Work::Launch(_) => 0,
            Work::Write { .. } | Work::Read { .. } | Work::Copy { .. } | Work::HostCopy { .. } => 1,
            Work::Fill { .. } => 2,
            Work::Call(_) => 3,
            Work::Record { .. } => 7,
        }
    }

    /// Does it now.
    pub fn run(&self, state: &State) -> Result<(), Error> {
        match self {
            Work::Launch(launch) => launch.run(state),
            &Work::Write { to, from, bytes } => state.write(to, from, bytes),
            &Work::Read { to, from, bytes } => state.read(to, from, bytes),
            &Work::Copy { to, from, bytes } => state.copy(to, from, bytes),
            &Work::HostCopy { to, from, bytes } => {
                let through = from.read(bytes)?.to_vec();
                to.write(bytes)?.copy_from_slice(&through);
                Ok(())
            }
            Work::Fill { to, pattern, pattern_bytes, count } => {
                state.fill(*to, &pattern[..*pattern_bytes], *count)
            }
            Work::Call(call) => {
                // SAFETY: the program gave function and argument to be called when the stream gets here.
                unsafe { (call.function)(call.argument as *mut c_void) };
                Ok(())
            }
            Work::Record { event } => {
                if let Some(event) = state.registry().events.get_mut(event) {
                    event.recorded = Some(std::time::Instant::now());
                    event.captured = None;
                }
                Ok(())
            }
        }
    }
}

/// `CUstreamCaptureMode`: which calls of which threads a capture forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    Global,
    ThreadLocal,
    Relaxed,
}

impl CaptureMode {
    pub fn from_number(number: u32) -> Result<CaptureMode, Error> {
        match number {
            0 => Ok(CaptureMode::Global),
            1 => Ok(CaptureMode::ThreadLocal),
            2 => Ok(CaptureMode::Relaxed),
            _ => Err(Error::InvalidValue),
        }
    }
}

thread_local! {
    static THREAD_MODE: Cell<CaptureMode> = const { Cell::new(CaptureMode::Global) };
}

/// How this thread wants to be treated while others capture.
pub fn thread_mode() -> CaptureMode {
    THREAD_MODE.get()
}

/// Changes it and tells what it was (`cuThreadExchangeStreamCaptureMode`).
pub fn exchange_thread_mode(mode: CaptureMode) -> CaptureMode {
    THREAD_MODE.replace(mode)
}

/// How much of each stream's captured work comes before a point.
pub type Clock = HashMap<StreamKey, usize>;

/// A capture under way. The order of capture is kept as the order of execution, which every dependency agrees with.
pub struct Capture {
    pub origin: StreamKey,
    pub context: Handle,
    pub mode: CaptureMode,
    pub thread: ThreadId,
    pub work: Vec<Arc<Work>>,
    /// For each stream in it, what comes before that stream's next work.
    clocks: HashMap<StreamKey, Clock>,
    /// Something forbidden was tried: ending the capture yields no graph.
    pub broken: bool,
}

/// A graph: work in order. The handles of its nodes are made when they are asked for.
#[derive(Clone, Default)]
pub struct Graph {
    pub work: Vec<Arc<Work>>,
    pub nodes: Vec<Handle>,
}

/// A graph made ready to launch.
#[derive(Clone)]
pub struct GraphExec {
    pub context: Handle,
    pub work: Arc<[Arc<Work>]>,
}

impl Capture {
    pub fn new(origin: Target, mode: CaptureMode) -> Capture {
        Capture {
            origin: origin.key,
            context: origin.context,
            mode,
            thread: std::thread::current().id(),
            work: Vec::new(),
            clocks: HashMap::from([(origin.key, Clock::new())]),
            broken: false,
        }
    }

    /// Adds work of a stream that takes part.
    pub fn add(&mut self, stream: StreamKey, work: Work) {
        self.work.push(Arc::new(work));
        *self.clocks.entry(stream).or_default().entry(stream).or_insert(0) += 1;
    }

    /// What an event recorded in a stream now would come after.
    pub fn point(&self, stream: StreamKey) -> Clock {
        self.clocks.get(&stream).cloned().unwrap_or_default()
    }

    /// Makes a stream wait for a point, taking it into the capture if it is not in it yet.
    pub fn join(&mut self, stream: StreamKey, point: &Clock) {
        let clock = self.clocks.entry(stream).or_default();
        for (&of, &done) in point {
            let known = clock.entry(of).or_insert(0);
            *known = done.max(*known);
        }
    }

    /// Whether all captured work comes before the origin's next.
    pub fn is_joined(&self) -> bool {
        let seen = self.point(self.origin);
        let done = |stream: &StreamKey| self.clocks[stream].get(stream).copied().unwrap_or(0);
        self.clocks.keys().all(|s| seen.get(s).copied().unwrap_or(0) >= done(s))
    }
}

impl Registry {
    /// Takes note of work that uses the legacy stream: a blocking stream that is capturing cannot be waited for, so
    /// such a capture breaks.
    pub fn check_legacy(&mut self, context: Handle) -> Result<(), Error> {
        let caught: Vec<u64> = self
            .capturing
            .iter()
            .filter(|(key, _)| self.is_blocking(**key))
            .map(|(_, id)| *id)
            .filter(|id| self.captures.get(id).is_some_and(|c| c.context == context))
            .collect();
        for id in &caught {
            if let Some(capture) = self.captures.get_mut(id) {
                capture.broken = true;
            }
        }
        if caught.is_empty() { Ok(()) } else { Err(Error::StreamCaptureImplicit) }
    }

    /// Ends a capture, whatever became of it.
    pub fn remove_capture(&mut self, id: u64) -> Option<Capture> {
        self.capturing.retain(|_, of| *of != id);
        self.captures.remove(&id)
    }
}

impl State {
    /// Does a stream's work, or adds it to the capture that the stream is in.
    pub fn submit(&self, target: Target, work: Work) -> Result<(), Error> {
        {
            let mut registry = self.registry();
            if let Some(capture) = registry.capture_of(target.key) {
                if capture.broken {
                    return Err(Error::StreamCaptureInvalidated);
                }
                capture.add(target.key, work);
                return Ok(());
            }
            if let StreamKey::Legacy(context) = target.key {
                registry.check_legacy(context)?;
            }
        }
        work.run(self)
    }

    /// Does the work of a call that returns only when it is done: on the legacy stream, and not during a capture.
    pub fn submit_synchronous(&self, work: Work) -> Result<(), Error> {
        {
            let mut registry = self.registry();
            let (context, _) = registry.current()?;
            registry.refuse_during_capture()?;
            registry.check_legacy(context)?;
        }
        work.run(self)
    }
}
