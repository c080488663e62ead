//! What a GPU is asked: its ceilings, the time of every op over the layers of vision models, small problems with our
//! results for other programs to compare themselves with, and the report.
//!
//! `scripts/gpu-bundle` packs this program with the tests for a machine without Rust. On such a machine, or here:
//!
//! ```text
//! gpu facts OUT.json [--sizes S]                 the device, and how fast it copies
//! gpu time OUT.json [--sizes S] [--op NAME] [--seconds N]
//! gpu problems FOLDER                            small problems with our results, one .safetensors each
//! gpu report FOLDER                              report.md and its pictures, from the JSON files in FOLDER
//! gpu readme RECORDS                             README's section on speed, from the newest folder in RECORDS
//! ```
//!
//! Sizes: `full` (the default), `quick` (one layer per op), `tiny` (for a rehearsal on the look-alike driver).

mod ceilings;
mod memory;
mod ops;
mod problems;
mod report;
mod timing;

#[path = "../../examples/shared/canvas.rs"]
#[allow(dead_code)] // the examples use more of it
mod canvas;
mod speed;

use macula::Cuda;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What any step can fail with; its text is one sentence for the terminal.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// Every layer.
    Full,
    /// One layer per op.
    Quick,
    /// For a rehearsal.
    Tiny,
}

impl std::str::FromStr for Sizes {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "full" => Ok(Self::Full),
            "quick" => Ok(Self::Quick),
            "tiny" => Ok(Self::Tiny),
            _ => Err(format!("no sizes are called `{name}`: there are full, quick and tiny")),
        }
    }
}

enum Command {
    Facts,
    Time,
    Problems,
    Report,
    Readme,
}

struct Options {
    command: Command,
    path: PathBuf,
    sizes: Sizes,
    op: Option<String>,
    seconds: u64,
}

const USAGE: &str = "\
usage: gpu facts OUT.json [--sizes full|quick|tiny]
       gpu time OUT.json [--sizes full|quick|tiny] [--op NAME] [--seconds N]
       gpu problems FOLDER
       gpu report FOLDER
       gpu readme RECORDS";

/// `None` when there is nothing to do: `cargo bench` runs every bench, and this one needs a GPU and a place to write to.
fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let (mut words, mut sizes, mut op, mut seconds) = (Vec::new(), Sizes::Full, None, 480);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            Value(word) => words.push(word),
            Long("sizes") => sizes = parser.value()?.parse()?,
            Long("op") => op = Some(parser.value()?.string()?),
            Long("seconds") => seconds = parser.value()?.parse()?,
            Long("bench") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    let [command, path] = words.try_into().map_err(|_| "a command and a path are needed")?;
    let command = match command.to_str() {
        Some("facts") => Command::Facts,
        Some("time") => Command::Time,
        Some("problems") => Command::Problems,
        Some("report") => Command::Report,
        Some("readme") => Command::Readme,
        _ => return Err(format!("no command is called {command:?}").into()),
    };
    Ok(Some(Options { command, path: path.into(), sizes, op, seconds }))
}

/// The device, on a stream of its own: the default one cannot be captured.
fn open() -> Result<Cuda, Failure> {
    let gpu = Cuda::new(0)?;
    let context = gpu.stream().context().clone();
    // SAFETY: everything here runs on the one stream made below.
    unsafe { context.disable_event_tracking() };
    Ok(gpu.with_stream(&context.new_stream()?)?)
}

fn write_json(path: &std::path::Path, value: &serde_json::Value) -> Result<(), Failure> {
    std::fs::write(path, format!("{value:#}\n"))
        .map_err(|e| format!("cannot write {}: {e}", path.display()).into())
}

fn run(options: &Options) -> Result<(), Failure> {
    let path = &options.path;
    match options.command {
        Command::Facts => write_json(path, &ceilings::facts(&open()?, options.sizes)?),
        Command::Time => {
            let limit = Duration::from_secs(options.seconds);
            write_json(path, &ops::time_all(&open()?, options.sizes, options.op.as_deref(), limit)?)
        }
        Command::Problems => problems::write_all(&open()?, path),
        Command::Report => report::write(path),
        Command::Readme => {
            print!("{}", speed::section(path));
            Ok(())
        }
    }
}

fn main() -> ExitCode {
    let options = match parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("GPU timings: see scripts/gpu-bundle");
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            eprintln!("error: {e}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}
