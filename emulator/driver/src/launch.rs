//! Kernel launches: the checks of a real driver, then the emulator.

use crate::module::Function;
use crate::profile::{MAX_BLOCK, MAX_BLOCK_THREADS, MAX_GRID};
use crate::state::{Handle, State};
use crate::status::Error;
use ptx_emulator::{Dims, Entry, StopKind};
use std::sync::Arc;

/// A launch with everything that it needs, its parameters copied.
#[derive(Clone)]
pub struct LaunchWork {
    pub context: Handle,
    pub device: usize,
    pub entry: Entry,
    pub dims: Dims,
    pub params: Vec<u8>,
}

/// Whether a device would accept a launch of these dimensions.
pub fn check(function: &Function, dims: &Dims) -> Result<(), Error> {
    let in_range =
        |sizes: &[u32; 3], most: &[u32; 3]| sizes.iter().zip(most).all(|(s, m)| (1..=*m).contains(s));
    if !in_range(&dims.grid, &MAX_GRID) || !in_range(&dims.block, &MAX_BLOCK) {
        return Err(Error::InvalidValue);
    }
    // Each is at most 1024, so the product fits.
    let threads = dims.block[0] * dims.block[1] * dims.block[2];
    if threads > MAX_BLOCK_THREADS || threads > function.entry.max_threads() {
        return Err(Error::InvalidValue);
    }
    if dims.shared_bytes > function.max_dynamic_shared {
        return Err(Error::InvalidValue);
    }
    Ok(())
}

impl LaunchWork {
    /// Executes the kernel with the settings of this thread. A stop is entered in the journal and printed, and is the
    /// error of this launch.
    pub fn run(&self, state: &State) -> Result<(), Error> {
        let settings = state.settings();
        let device = &state.devices[self.device];
        let config = settings.config(device.profile.arch);
        let outcome = device.machine.launch_with(&config, &self.entry, self.dims, &self.params);
        let outcome = outcome.map(Arc::new).map_err(Arc::new);
        state.journal().enter(self, settings.clone(), outcome.clone());
        let Err(stop) = outcome else { return Ok(()) };
        let error = error_of(stop.kind());
        if settings.print {
            eprintln!("{stop}");
        }
        if settings.sticky
            && let Some(context) = state.registry().contexts.get_mut(&self.context)
        {
            context.broken = Some(error);
        }
        Err(error)
    }
}

/// The error that a real device has for what stopped a kernel. What a real device does not notice, a race say, is
/// `CUDA_ERROR_LAUNCH_FAILED`.
fn error_of(kind: StopKind) -> Error {
    match kind {
        StopKind::BadLaunch => Error::InvalidValue,
        StopKind::OutOfBounds | StopKind::ReadOnly => Error::IllegalAddress,
        StopKind::Misaligned => Error::MisalignedAddress,
        StopKind::Deadlock | StopKind::Hang => Error::LaunchTimeout,
        StopKind::BadOperand => Error::IllegalInstruction,
        _ => Error::LaunchFailed,
    }
}
