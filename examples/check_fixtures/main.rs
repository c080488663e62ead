//! Runs every fixture file of a folder, forward and backward, and says how close the results are.
//!
//! ```text
//! cargo run --release --example check_fixtures -- DIR [--device reference|cpu|emulated|cuda] [--op NAME]
//! ```

#[path = "../../tests/common/fixture/mod.rs"]
#[allow(dead_code)] // the tests use more of it
mod fixture;

use fixture::Fixture;
use fixture::ops::{OPS, Runner, Stop, find};
use macula::{Cpu, Device};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) const USAGE: &str = "\
usage: cargo run --release --example check_fixtures -- DIR [--device reference|cpu|emulated|cuda] [--op NAME]

  DIR           a folder of .safetensors files, such as tests/fixtures
  --device D    what computes the results: the definition in f64, the CPU (default), the CUDA kernels
                in the emulator, or the CUDA kernels on a GPU
  --op NAME     only the cases of this op, by its name in the files, such as radius_attn

exit code: 0 all cases that ran are right and at least one ran; 1 otherwise; 2 for wrong arguments";

/// Devices that `--device` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceName {
    Reference,
    Cpu,
    Emulated,
    Cuda,
}

impl std::str::FromStr for DeviceName {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "reference" => Ok(Self::Reference),
            "cpu" => Ok(Self::Cpu),
            "emulated" => Ok(Self::Emulated),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("no device is called `{name}`: there are reference, cpu, emulated and cuda")),
        }
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) folder: PathBuf,
    pub(crate) device: DeviceName,
    pub(crate) op: Option<String>,
    pub(crate) wants_help: bool,
}

impl Options {
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let (mut folder, mut device, mut op, mut wants_help) = (None, DeviceName::Cpu, None, false);
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Value(path) if folder.is_none() => folder = Some(PathBuf::from(path)),
                Long("device") => device = parser.value()?.parse()?,
                Long("op") => op = Some(parser.value()?.string()?),
                Long("help") | Short('h') => wants_help = true,
                _ => return Err(arg.unexpected()),
            }
        }
        match folder {
            Some(folder) => Ok(Self { folder, device, op, wants_help }),
            None if wants_help => Ok(Self { folder: PathBuf::new(), device, op, wants_help }),
            None => Err("which folder?".into()),
        }
    }
}

fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os().skip(1)))
}

/// The whole program; returns its exit code.
pub(crate) fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("error: {e}\n{USAGE}");
            return 2;
        }
    };
    if options.wants_help {
        println!("{USAGE}");
        return 0;
    }
    match check(&options) {
        Ok(tally) => {
            println!("\n{tally}");
            u8::from(tally.failed > 0 || tally.passed == 0)
        }
        Err(e) => {
            eprintln!("error: {e}");
            1
        }
    }
}

/// How many cases ended how.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// The device says that it does not do them.
    pub(crate) unsupported: usize,
    /// Files per op that is not implemented.
    pub(crate) not_implemented: BTreeMap<String, usize>,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (op, files) in &self.not_implemented {
            writeln!(f, "not implemented: {op} ({files} files)")?;
        }
        let Self { passed, failed, unsupported, .. } = self;
        write!(f, "{passed} right, {failed} wrong, {unsupported} unsupported")?;
        if passed + failed == 0 { write!(f, ": nothing ran") } else { Ok(()) }
    }
}

/// Opens a device. `None` is the reference.
fn open(device: DeviceName) -> Result<Option<Box<dyn Device>>, String> {
    match device {
        DeviceName::Reference => Ok(None),
        DeviceName::Cpu => Ok(Some(Box::new(Cpu::new()))),
        #[cfg(feature = "cuda")]
        DeviceName::Emulated => {
            ptx_emulator_driver::install().map_err(|e| e.to_string())?;
            open(DeviceName::Cuda)
        }
        #[cfg(feature = "cuda")]
        DeviceName::Cuda => Ok(Some(Box::new(macula::Cuda::new(0).map_err(|e| e.to_string())?))),
        #[cfg(not(feature = "cuda"))]
        _ => Err("this device is not in this build: the feature `cuda` is off".into()),
    }
}

/// Runs the cases and prints a line for each.
pub(crate) fn check(options: &Options) -> Result<Tally, String> {
    if let Some(op) = options.op.as_deref().filter(|op| find(op).is_none()) {
        let names: Vec<&str> = OPS.iter().map(|op| op.name).collect();
        return Err(format!("the op `{op}` is not implemented: there are {}", names.join(", ")));
    }
    let device = open(options.device)?;
    let runner = device.as_deref().map_or(Runner::Reference, Runner::Device);
    let mut tally = Tally::default();
    println!("{:<14} {:<28} {:>9}  tensor", "op", "case", "worst");
    for path in Fixture::paths(&options.folder, "")? {
        let line = |op: &str, case: &str, worst: &str, words: &str| {
            println!("{op:<14} {case:<28} {worst:>9}  {words}");
        };
        let fixture = match Fixture::load(&path) {
            Ok(fixture) => fixture,
            Err(e) => {
                tally.failed += 1;
                line("?", &path.display().to_string(), "FAILED", &e);
                continue;
            }
        };
        if options.op.as_ref().is_some_and(|op| *op != fixture.op) {
            continue;
        }
        let Some(op) = find(&fixture.op) else {
            *tally.not_implemented.entry(fixture.op).or_default() += 1;
            continue;
        };
        let case = fixture.case.strip_prefix(&format!("{}__", fixture.op)).unwrap_or(&fixture.case);
        let verdicts = (op.results)(&fixture, runner).and_then(|results| {
            let verdicts = results.iter().map(|(name, got)| fixture.judge(name, got));
            Ok(verdicts.collect::<Result<Vec<_>, String>>()?)
        });
        match verdicts {
            Err(Stop::Unsupported(words)) => {
                tally.unsupported += 1;
                line(&fixture.op, case, "-", &format!("unsupported: {words}"));
            }
            Err(Stop::Failed(words)) => {
                tally.failed += 1;
                line(&fixture.op, case, "FAILED", &words);
            }
            Ok(verdicts) => {
                let worst = verdicts.iter().max_by(|a, b| a.fraction.total_cmp(&b.fraction));
                let Some(worst) = worst else { continue };
                let percent = format!("{:.1} %", 100.0 * worst.fraction);
                if worst.is_right() {
                    tally.passed += 1;
                    line(&fixture.op, case, &percent, &worst.tensor);
                } else {
                    tally.failed += 1;
                    line(&fixture.op, case, &percent, &format!("FAILED: {}", worst.words));
                }
            }
        }
    }
    Ok(tally)
}
