//! What happened: every launch with its report, every stop, every entry that was ever executed.

use crate::launch::LaunchWork;
use crate::settings::Settings;
use ptx_emulator::{Dims, Report, Stop};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::thread::ThreadId;

/// A kernel launch that ran to its end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Launch {
    /// Name of the entry.
    pub entry: String,
    /// Ordinal of the device.
    pub device: usize,
    /// Grid, block and dynamic shared memory.
    pub dims: Dims,
    /// What it ran under.
    pub settings: Settings,
    /// What it did.
    pub report: Arc<Report>,
    thread: ThreadId,
    /// Launches that were entered before it.
    number: u64,
}

/// A kernel launch that the emulator stopped.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stopped {
    /// Name of the entry.
    pub entry: String,
    /// Ordinal of the device.
    pub device: usize,
    /// Grid, block and dynamic shared memory.
    pub dims: Dims,
    /// What it ran under.
    pub settings: Settings,
    /// Why, with kernel, block, threads and source line.
    pub stop: Arc<Stop>,
    thread: ThreadId,
}

/// Launches and stops that are kept; the oldest go first. Entry names are kept for ever.
const KEPT: usize = 1 << 12;

/// The journal of a process.
#[derive(Debug, Default)]
pub struct Journal {
    launches: VecDeque<Launch>,
    /// Launches ever entered.
    entered: u64,
    stops: VecDeque<Stopped>,
    executed: BTreeSet<String>,
}

/// Whose launches a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    ThisThread,
    Everyone,
}

impl Whose {
    fn includes(self, thread: ThreadId) -> bool {
        self == Whose::Everyone || thread == std::thread::current().id()
    }
}

impl Journal {
    /// Enters the outcome of a launch made by this thread.
    pub fn enter(
        &mut self,
        launch: &LaunchWork,
        settings: Settings,
        outcome: Result<Arc<Report>, Arc<Stop>>,
    ) {
        let thread = std::thread::current().id();
        let (entry, device, dims) = (launch.entry.name().to_owned(), launch.device, launch.dims);
        match outcome {
            Ok(report) => {
                self.executed.insert(entry.clone());
                let number = self.entered;
                self.entered += 1;
                keep(&mut self.launches, Launch { entry, device, dims, settings, report, thread, number });
            }
            Err(stop) => keep(&mut self.stops, Stopped { entry, device, dims, settings, stop, thread }),
        }
    }

    pub fn launches(&self, whose: Whose) -> Vec<Launch> {
        self.launches.iter().filter(|l| whose.includes(l.thread)).cloned().collect()
    }

    pub fn entered(&self) -> u64 {
        self.entered
    }

    /// The launches of this thread from number `first` on.
    pub fn launches_since(&self, first: u64) -> Vec<Launch> {
        let mut launches = self.launches(Whose::ThisThread);
        launches.retain(|launch| launch.number >= first);
        launches
    }

    pub fn take_launches(&mut self, whose: Whose) -> Vec<Launch> {
        take(&mut self.launches, |l| whose.includes(l.thread))
    }

    pub fn last_stop(&self, whose: Whose) -> Option<Stopped> {
        self.stops.iter().rev().find(|s| whose.includes(s.thread)).cloned()
    }

    pub fn take_stops(&mut self, whose: Whose) -> Vec<Stopped> {
        take(&mut self.stops, |s| whose.includes(s.thread))
    }

    pub fn executed(&self) -> BTreeSet<String> {
        self.executed.clone()
    }
}

fn keep<T>(into: &mut VecDeque<T>, item: T) {
    if into.len() == KEPT {
        into.pop_front();
    }
    into.push_back(item);
}

fn take<T>(from: &mut VecDeque<T>, wanted: impl Fn(&T) -> bool) -> Vec<T> {
    let (taken, left) = std::mem::take(from).into_iter().partition(wanted);
    *from = left;
    Vec::from_iter::<VecDeque<T>>(taken)
}
