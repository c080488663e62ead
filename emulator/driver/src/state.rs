//! All that the driver holds: devices, and behind one lock the objects that programs have handles to.
//!
//! A handle is a number that never comes back, so that one that is used after its object's end is found out. The lock is
//! held to look things up, never while a kernel runs or memory is copied.

use crate::context::{Context, Primary};
use crate::graph::{Capture, CaptureMode, Graph, GraphExec};
use crate::journal::Journal;
use crate::memory::{Allocation, HostBlock, Pool};
use crate::module::{Function, LoadedModule};
use crate::profile::Profile;
use crate::settings::{self, BadVariable, Settings, Start};
use crate::status::Error;
use crate::stream::{Event, Stream, StreamKey};
use ptx_emulator::Machine;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// What a program holds of an object.
pub type Handle = usize;

/// One emulated device.
pub struct Device {
    pub profile: Profile,
    pub machine: Machine,
    pub memory_bytes: u64,
}

/// The driver of the process.
pub struct State {
    pub devices: Vec<Device>,
    initialized: AtomicBool,
    registry: Mutex<Registry>,
    journal: Mutex<Journal>,
    settings: RwLock<Settings>,
    start: Settings,
    /// PTX text to load in place of another that differs from it in line tables only.
    twins: RwLock<HashMap<String, String>>,
}

/// Everything that has a handle.
#[derive(Default)]
pub struct Registry {
    pub primaries: Vec<Primary>,
    pub contexts: HashMap<Handle, Context>,
    pub streams: HashMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    pub modules: HashMap<Handle, LoadedModule>,
    pub functions: HashMap<Handle, Function>,
    pub allocations: BTreeMap<u64, Allocation>,
    pub host_blocks: BTreeMap<usize, HostBlock>,
    pub pools: HashMap<Handle, Pool>,
    pub captures: HashMap<u64, Capture>,
    /// Which capture a stream takes part in.
    pub capturing: HashMap<StreamKey, u64>,
    pub graphs: HashMap<Handle, Graph>,
    pub execs: HashMap<Handle, GraphExec>,
}

/// A handle that no object had before. It looks like an address and is none.
pub fn new_handle() -> Handle {
    static NEXT: AtomicUsize = AtomicUsize::new(0x5eed_0000_0000);
    NEXT.fetch_add(0x100, Ordering::Relaxed)
}

impl State {
    fn new(start: Start) -> State {
        let devices: Vec<Device> = start
            .devices
            .iter()
            .zip(0..)
            .map(|(&arch, number)| Device {
                profile: Profile::of(arch),
                machine: Machine::numbered(start.settings.config(arch), number),
                memory_bytes: start.memory_bytes,
            })
            .collect();
        let mut registry = Registry::default();
        for device in 0..devices.len() {
            let pool = new_handle();
            registry.pools.insert(pool, Pool::new(device));
            registry.primaries.push(Primary::new(pool));
        }
        State {
            devices,
            initialized: AtomicBool::new(false),
            registry: Mutex::new(registry),
            journal: Mutex::default(),
            settings: RwLock::new(start.settings.clone()),
            start: start.settings,
            twins: RwLock::default(),
        }
    }

    /// The state of the process, made from its environment when first asked for.
    pub fn of_process() -> Result<&'static State, BadVariable> {
        static STATE: OnceLock<Result<State, BadVariable>> = OnceLock::new();
        STATE.get_or_init(|| Start::from_environment().map(State::new)).as_ref().map_err(Clone::clone)
    }

    /// What `cuInit` does.
    pub fn initialize(&self) {
        self.initialized.store(true, Ordering::Release);
    }

    /// The objects, locked.
    pub fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal, locked.
    pub fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings that hold for this thread.
    pub fn settings(&self) -> Settings {
        settings::of_this_thread()
            .unwrap_or_else(|| self.settings.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Changes the settings of the process.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Gives the process the settings that it started with.
    pub fn reset_settings(&self) {
        self.change_settings(|s| *s = self.start.clone());
    }

    /// Remembers which text to load in place of `stripped`.
    pub fn add_twin(&self, stripped: String, with_lines: String) {
        self.twins.write().unwrap_or_else(PoisonError::into_inner).insert(stripped, with_lines);
    }

    /// The text to load for a module image: its twin with line tables, if there is one.
    pub fn with_lines(&self, ptx: &str) -> Option<String> {
        self.twins.read().unwrap_or_else(PoisonError::into_inner).get(ptx).cloned()
    }

    /// The device that holds an address, with the allocation around it.
    pub fn device_at(&self, address: u64) -> Option<(&Device, (u64, u64))> {
        self.devices.iter().find_map(|d| Some((d, d.machine.allocation(address)?)))
    }

    /// Makes contexts work again that a stopped launch broke.
    pub fn mend_contexts(&self) {
        for context in self.registry().contexts.values_mut() {
            context.broken = None;
        }
    }
}

/// The driver for an exported function: an error before `cuInit`.
pub fn state() -> Result<&'static State, Error> {
    let state = State::of_process().map_err(|_| Error::NotInitialized)?;
    if state.initialized.load(Ordering::Acquire) { Ok(state) } else { Err(Error::NotInitialized) }
}

impl Registry {
    /// The capture that a stream takes part in.
    pub fn capture_of(&mut self, stream: StreamKey) -> Option<&mut Capture> {
        self.captures.get_mut(self.capturing.get(&stream)?)
    }

    /// Refuses a call that might synchronise or allocate while captures forbid it, and breaks those captures, as
    /// `cuThreadExchangeStreamCaptureMode` documents.
    pub fn refuse_during_capture(&mut self) -> Result<(), Error> {
        let here = std::thread::current().id();
        let mode_here = crate::graph::thread_mode();
        let forbids = |capture: &Capture| match mode_here {
            CaptureMode::Relaxed => false,
            CaptureMode::ThreadLocal => capture.thread == here && capture.mode != CaptureMode::Relaxed,
            CaptureMode::Global => {
                capture.mode == CaptureMode::Global
                    || capture.thread == here && capture.mode != CaptureMode::Relaxed
            }
        };
        let mut refused = Ok(());
        for capture in self.captures.values_mut().filter(|c| forbids(c)) {
            capture.broken = true;
            refused = Err(Error::StreamCaptureUnsupported);
        }
        refused
    }
}
