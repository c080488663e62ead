//! Golden vectors of instructions: what a device makes of every form, recorded once, and the emulator held to it.
//!
//! ```text
//! vectors list                     every form
//! vectors ptx SM                   the kernels that a GPU of that compute capability (80, 90) can run
//! vectors record FILE [ORDINAL]    runs them on a device of the machine's CUDA driver
//! vectors replay FILE              compares a recording with the emulator; fails where they differ
//! ```
//!
//! With `look-alike` as the first word, `record` runs on the look-alike instead.

pub(crate) mod file;
pub(crate) mod forms;
pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod values;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "look-alike") {
        words.remove(0);
        if let Err(why) = ptx_emulator_driver::install() {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["list"] => {
            forms::forms().iter().for_each(|form| println!("{}", form.name));
            Ok(())
        }
        ["ptx", target] => ptx(target),
        ["record", file] => record(file, 0),
        ["record", file, ordinal] => {
            ordinal.parse().map_err(|_| "not a device".into()).and_then(|k| record(file, k))
        }
        ["replay", file] => replay(file),
        _ => Err("list | ptx SM | [look-alike] record FILE [ORDINAL] | replay FILE".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn ptx(target: &str) -> Result<(), String> {
    let most: u32 = target.parse().map_err(|_| format!("{target}: not a compute capability like 80"))?;
    let forms = forms::forms();
    for version in ["7.8", "8.0", "8.2"] {
        let some: Vec<&forms::Form> =
            forms.iter().filter(|form| form.target <= most && form.version == version).collect();
        println!("{}", forms::module(&some, version, &format!("sm_{most}")));
    }
    Ok(())
}

fn record(file: &str, ordinal: usize) -> Result<(), String> {
    let (recording, refused) = record::record(ordinal).map_err(|error| error.to_string())?;
    refused.iter().for_each(|form| println!("refused: {form}"));
    recording.write(Path::new(file)).map_err(|error| format!("{file}: {error}"))?;
    println!("{file}: {} forms on {}, {} refused", recording.vectors.len(), recording.device, refused.len());
    Ok(())
}

fn replay(file: &str) -> Result<(), String> {
    let verdict = replay::replay(&file::Recording::read(Path::new(file))?);
    verdict.missing.iter().for_each(|form| println!("missing: {form}"));
    verdict.differences.iter().for_each(|row| println!("{row}"));
    let (compared, different) = (verdict.compared, verdict.differences.len());
    println!("{compared} forms compared, {} missing, {different} differ", verdict.missing.len());
    if different == 0 { Ok(()) } else { Err("the emulator differs from the device".into()) }
}
