//! The installed driver as a test sees it: settings in, reports out.

use crate::journal::{Launch, Stopped, Whose};
use crate::settings::{self, Scope, Settings};
use crate::state::State;
use ptx_emulator::Arch;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// The installed look-alike of this process; [`install`](crate::install) gives it.
///
/// Tests run side by side in threads, so questions about launches are answered for the calling thread; the `all_` forms
/// answer for the process.
pub struct Driver {
    state: &'static State,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("devices", &self.devices()).finish_non_exhaustive()
    }
}

impl Driver {
    pub(crate) fn over(state: &'static State) -> &'static Driver {
        static DRIVER: OnceLock<Driver> = OnceLock::new();
        DRIVER.get_or_init(|| Driver { state })
    }

    /// The emulated devices by ordinal; sm_80, sm_86 and sm_90 unless `PTX_EMULATOR_DEVICES` says otherwise.
    pub fn devices(&self) -> Vec<Arch> {
        self.state.devices.iter().map(|d| d.profile.arch).collect()
    }

    /// The settings that hold for the calling thread.
    pub fn settings(&self) -> Settings {
        self.state.settings()
    }

    /// Changes the settings of the process, for all threads that have laid none of their own over them.
    pub fn configure(&self, change: impl FnOnce(&mut Settings)) {
        self.state.change_settings(change);
    }

    /// Runs `body` with settings of its own, changed from those that hold now, in this thread only.
    ///
    /// ```
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))] {
    /// let driver = ptx_emulator_driver::install()?;
    /// for seed in [1, 2] {
    ///     driver.with(|s| s.seed = seed, || assert_eq!(driver.settings().seed, seed));
    /// }
    /// # }
    /// # Ok::<(), ptx_emulator_driver::InstallError>(())
    /// ```
    pub fn with<R>(&self, change: impl FnOnce(&mut Settings), body: impl FnOnce() -> R) -> R {
        let _scope = self.scope(change);
        body()
    }

    /// As [`with`](Driver::with), until the returned value is dropped.
    pub fn scope(&self, change: impl FnOnce(&mut Settings)) -> Scope {
        let mut settings = self.settings();
        change(&mut settings);
        settings::Scope::enter(settings)
    }

    /// The launches of this thread that ran to their end, oldest first; at most the last 4096 of the process are kept.
    pub fn launches(&self) -> Vec<Launch> {
        self.state.journal().launches(Whose::ThisThread)
    }

    /// [`launches`](Driver::launches) of all threads.
    pub fn all_launches(&self) -> Vec<Launch> {
        self.state.journal().launches(Whose::Everyone)
    }

    /// The launches of this thread, which are forgotten.
    pub fn take_launches(&self) -> Vec<Launch> {
        self.state.journal().take_launches(Whose::ThisThread)
    }

    /// Runs `body` with counters on, in this thread, and returns with its result the launches that it made and that ran to
    /// their end. Their [`report`](Launch::report)s say what every instruction did and which memory was touched.
    ///
    /// ```
    /// # #[cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))] {
    /// let driver = ptx_emulator_driver::install()?;
    /// let (result, launches) = driver.counted(|| 7);
    /// assert_eq!((result, launches.len()), (7, 0));
    /// # }
    /// # Ok::<(), ptx_emulator_driver::InstallError>(())
    /// ```
    pub fn counted<R>(&self, body: impl FnOnce() -> R) -> (R, Vec<Launch>) {
        let first = self.state.journal().entered();
        let result = self.with(|s| s.counters = true, body);
        (result, self.state.journal().launches_since(first))
    }

    /// The last launch of this thread that the emulator stopped.
    pub fn last_stop(&self) -> Option<Stopped> {
        self.state.journal().last_stop(Whose::ThisThread)
    }

    /// The stopped launches of this thread, which are forgotten; contexts that they broke (`sticky`) work again.
    pub fn take_stops(&self) -> Vec<Stopped> {
        self.state.mend_contexts();
        self.state.journal().take_stops(Whose::ThisThread)
    }

    /// [`take_stops`](Driver::take_stops) of all threads.
    pub fn take_all_stops(&self) -> Vec<Stopped> {
        self.state.mend_contexts();
        self.state.journal().take_stops(Whose::Everyone)
    }

    /// The names of all entries that ever ran to their end in this process.
    pub fn executed_entries(&self) -> BTreeSet<String> {
        self.state.journal().executed()
    }

    /// Makes every later load of the image `stripped` load `with_lines` instead, so that reports name source lines.
    ///
    /// Both texts are to be of one compilation and differ in their line tables (`.file`, `.loc`, `.section`) only.
    pub fn register_line_info(&self, stripped: impl Into<String>, with_lines: impl Into<String>) {
        self.state.add_twin(stripped.into(), with_lines.into());
    }

    /// Device memory that programs have allocated and not freed, in bytes, of the device with this ordinal.
    pub fn used_bytes(&self, device: usize) -> u64 {
        self.state.registry().used_bytes(device)
    }

    /// Forgets launches, stops and executed entries of all threads, mends broken contexts, and gives the process the
    /// settings that it started with. Memory, modules and handles stay as they are.
    pub fn reset(&self) {
        self.state.mend_contexts();
        *self.state.journal() = Default::default();
        self.state.reset_settings();
    }
}
