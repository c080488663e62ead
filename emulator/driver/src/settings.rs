//! What can be chosen: for the process, from the environment, and for one thread for a while.

use ptx_emulator::{Arch, Config, TensorMode};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

/// How launches are executed and how findings are told.
///
/// The process has one set ([`Driver::settings`](crate::Driver::settings)); a thread can lay its own over it for a
/// while ([`Driver::with`](crate::Driver::with)), so that tests that run side by side do not disturb each other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Seed of the order in which warps and blocks are run.
    pub seed: u64,
    /// Arithmetic of the tensor cores.
    pub tensor: TensorMode,
    /// Threads that execute the blocks of one launch; 0 is all.
    pub threads: usize,
    /// Whether races, uninitialised reads and the like are looked for.
    pub checks: bool,
    /// Whether a launch's [`Report`](ptx_emulator::Report) counts memory traffic and instructions.
    pub counters: bool,
    /// Whether a stopped launch also fails every later call in its context, as CUDA does, until the context is reset.
    pub sticky: bool,
    /// Whether the report of a stopped launch or the log of a refused module is printed to standard error as well.
    pub print: bool,
    /// The version that the driver says it has, as `cuDriverGetVersion` does; newer PTX than it knows is refused.
    pub cuda_version: u32,
}

impl Default for Settings {
    fn default() -> Self {
        let config = Config::default();
        Settings {
            seed: config.seed,
            tensor: config.tensor,
            threads: config.threads,
            checks: config.checks,
            counters: config.counters,
            sticky: false,
            print: true,
            cuda_version: 11_080,
        }
    }
}

impl Settings {
    /// The emulator's configuration for a launch on a device.
    pub(crate) fn config(&self, arch: Arch) -> Config {
        Config::default()
            .arch(arch)
            .tensor(self.tensor)
            .seed(self.seed)
            .threads(self.threads)
            .checks(self.checks)
            .counters(self.counters)
    }
}

/// The devices and settings that a process starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub settings: Settings,
    pub devices: Vec<Arch>,
    /// Memory of each device.
    pub memory_bytes: u64,
}

impl Default for Start {
    fn default() -> Self {
        Start {
            settings: Settings::default(),
            devices: vec![Arch::Sm80, Arch::Sm86, Arch::Sm90],
            memory_bytes: 4 << 30,
        }
    }
}

impl Start {
    /// From the `PTX_EMULATOR_*` variables of the process.
    pub fn from_environment() -> Result<Start, BadVariable> {
        Start::from_variables(|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
    }

    fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Start, BadVariable> {
        let mut start = Start::default();
        let settings = &mut start.settings;
        read(&get, "SEED", "a number", number, &mut settings.seed)?;
        read(&get, "TENSOR", "exact, sm80 or sm90", tensor, &mut settings.tensor)?;
        read(&get, "THREADS", "a number; 0 is all", number, &mut settings.threads)?;
        read(&get, "CHECKS", "0 or 1", switch, &mut settings.checks)?;
        read(&get, "COUNTERS", "0 or 1", switch, &mut settings.counters)?;
        read(&get, "STICKY", "0 or 1", switch, &mut settings.sticky)?;
        read(&get, "PRINT", "0 or 1", switch, &mut settings.print)?;
        read(&get, "CUDA_VERSION", "1000 * major + 10 * minor", number, &mut settings.cuda_version)?;
        let wanted = "a list of at most 16 of sm_80, sm_86, sm_90, separated by commas; empty is none";
        read(&get, "DEVICES", wanted, devices, &mut start.devices)?;
        let mut mebibytes = start.memory_bytes >> 20;
        read(&get, "MEMORY_MIB", "a number of MiB, at most 1048576", mebibyte_count, &mut mebibytes)?;
        start.memory_bytes = mebibytes << 20;
        Ok(start)
    }
}

/// A `PTX_EMULATOR_*` variable whose value is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadVariable {
    name: String,
    value: String,
    wanted: &'static str,
}

impl fmt::Display for BadVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}, got `{}`", self.name, self.wanted, self.value)
    }
}

impl std::error::Error for BadVariable {}

fn read<T>(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    wanted: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    into: &mut T,
) -> Result<(), BadVariable> {
    let name = format!("PTX_EMULATOR_{name}");
    if let Some(value) = get(&name) {
        match parse(value.trim()) {
            Some(parsed) => *into = parsed,
            None => return Err(BadVariable { name, value, wanted }),
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn mebibyte_count(text: &str) -> Option<u64> {
    number(text).filter(|n| (1..=1 << 20).contains(n))
}

fn switch(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn tensor(text: &str) -> Option<TensorMode> {
    match text {
        "exact" => Some(TensorMode::Exact),
        "sm80" => Some(TensorMode::Sm80),
        "sm90" => Some(TensorMode::Sm90),
        _ => None,
    }
}

fn devices(text: &str) -> Option<Vec<Arch>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|name| match name.trim() {
            "sm_80" => Some(Arch::Sm80),
            "sm_86" => Some(Arch::Sm86),
            "sm_90" => Some(Arch::Sm90),
            _ => None,
        })
        .collect::<Option<Vec<Arch>>>()
        .filter(|list| list.len() <= MOST_DEVICES)
}

/// Devices that a process can have.
const MOST_DEVICES: usize = 16;

thread_local! {
    /// What this thread has laid over the process's settings, innermost last.
    static LAID_OVER: RefCell<Vec<Settings>> = const { RefCell::new(Vec::new()) };
}

/// The innermost settings that this thread has laid over the process's, if any.
pub(crate) fn of_this_thread() -> Option<Settings> {
    LAID_OVER.with_borrow(|stack| stack.last().cloned())
}

/// Takes a thread's settings away again when it is dropped; see [`Driver::scope`](crate::Driver::scope).
#[derive(Debug)]
#[must_use = "the settings hold until this is dropped"]
pub struct Scope {
    depth: usize,
    /// A scope belongs to its thread.
    not_send: PhantomData<*const ()>,
}

impl Scope {
    pub(crate) fn enter(settings: Settings) -> Scope {
        LAID_OVER.with_borrow_mut(|stack| {
            stack.push(settings);
            Scope { depth: stack.len(), not_send: PhantomData }
        })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        LAID_OVER.with_borrow_mut(|stack| stack.truncate(self.depth - 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(pairs: &[(&str, &str)]) -> Result<Start, BadVariable> {
        Start::from_variables(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn without_variables_the_defaults_hold() {
        assert_eq!(start(&[]), Ok(Start::default()));
    }

    #[test]
    fn every_variable_is_read() {
        let got = start(&[
            ("PTX_EMULATOR_SEED", "7"),
            ("PTX_EMULATOR_TENSOR", "sm90"),
            ("PTX_EMULATOR_THREADS", "2"),
            ("PTX_EMULATOR_CHECKS", "0"),
            ("PTX_EMULATOR_COUNTERS", "1"),
            ("PTX_EMULATOR_STICKY", "1"),
            ("PTX_EMULATOR_PRINT", "0"),
            ("PTX_EMULATOR_CUDA_VERSION", "12040"),
            ("PTX_EMULATOR_DEVICES", "sm_90, sm_80"),
            ("PTX_EMULATOR_MEMORY_MIB", "64"),
        ])
        .unwrap();
        let settings = Settings {
            seed: 7,
            tensor: TensorMode::Sm90,
            threads: 2,
            checks: false,
            counters: true,
            sticky: true,
            print: false,
            cuda_version: 12_040,
        };
        let devices = vec![Arch::Sm90, Arch::Sm80];
        assert_eq!(got, Start { settings, devices, memory_bytes: 64 << 20 });
    }

    #[test]
    fn a_value_that_is_not_understood_is_named() {
        let error = start(&[("PTX_EMULATOR_TENSOR", "sm_90")]).unwrap_err();
        assert_eq!(error.to_string(), "PTX_EMULATOR_TENSOR must be exact, sm80 or sm90, got `sm_90`");
    }

    #[test]
    fn scopes_nest() {
        assert_eq!(of_this_thread(), None);
        let outer = Scope::enter(Settings { seed: 1, ..Settings::default() });
        {
            let _inner = Scope::enter(Settings { seed: 2, ..Settings::default() });
            assert_eq!(of_this_thread().unwrap().seed, 2);
        }
        assert_eq!(of_this_thread().unwrap().seed, 1);
        drop(outer);
        assert_eq!(of_this_thread(), None);
    }
}
