//! What the CUDA kernels ask of a GPU, counted without one: bytes, sectors, wavefronts, products and machine instructions of
//! representative calls, and the time that these imply on an H100 by a model.
//!
//! ```text
//! cargo run --release --example kernel_report [-- OP] [--json DIR]
//! ```

#[path = "../../tests/budgets/mod.rs"]
mod budgets;
mod listing;
mod model;
#[path = "../../build/nvcc.rs"]
#[allow(dead_code)] // build.rs and the tests use more of these
mod nvcc;
mod options;
mod sass;
#[path = "../../build/sources.rs"]
#[allow(dead_code)]
mod sources;
mod tables;
#[path = "../../tests/gates/tools.rs"]
#[allow(dead_code)]
mod tools;
#[path = "../../tests/gates/usage.rs"]
mod usage;
#[path = "../../build/wheels.rs"]
#[allow(dead_code)]
mod wheels;

use options::{Options, USAGE};
use ptx_emulator_driver::Driver;
use std::error::Error;
use std::process::ExitCode;
use tables::Row;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("{e}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.wants_help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let driver = install()?;
    let tools = sass::Tools::find();
    let mut rows = Vec::new();
    for case in budgets::cases() {
        if options.op.as_deref().is_some_and(|op| op != case.op) {
            continue;
        }
        eprintln!("{}", case.name());
        let measured = case.measure(driver)?;
        rows.push(Row::new(case, measured, &tools));
    }
    if rows.is_empty() {
        return Err(format!("no call is of the op `{}`", options.op.as_deref().unwrap_or_default()).into());
    }
    if let Some(folder) = &options.json {
        std::fs::create_dir_all(folder)?;
        for (number, (entry, json)) in rows.iter().flat_map(Row::reports).enumerate() {
            std::fs::write(folder.join(format!("{number:03}-{entry}.json")), json)?;
        }
    }
    tables::calls(&rows);
    println!();
    tables::entries(&rows);
    println!();
    tables::mixes(&rows);
    for missing in tools.missing() {
        println!("\nNot counted: {missing}");
    }
    Ok(())
}

/// The look-alike driver; what it runs has line tables.
fn install() -> Result<&'static Driver, Box<dyn Error>> {
    let driver = ptx_emulator_driver::install()?;
    for kernel in macula::kernel::all() {
        driver.register_line_info(kernel.ptx()?, std::fs::read_to_string(sass::with_lines(kernel))?);
    }
    Ok(driver)
}
