//! Loads PTX files and prints their kernels, or says what is not understood.
//!
//! `cargo run --release -p ptx-emulator --example inspect -- kernel.ptx …`

use std::process::ExitCode;

use ptx_emulator::{Config, Machine};

fn main() -> ExitCode {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                eprintln!("{path}: {error}");
                failed = true;
                continue;
            }
        };
        let machine = Machine::new(Config::default());
        match machine.load(&text) {
            Ok(module) => {
                println!("{path} ({})", module.target());
                for entry in module.entries() {
                    println!(
                        "  {}: {} bytes of parameters, at most {} threads, {} bytes of shared and {} of local memory",
                        entry.name(),
                        entry.param_bytes(),
                        entry.max_threads(),
                        entry.static_shared_bytes(),
                        entry.local_bytes()
                    );
                }
            }
            Err(error) => {
                eprintln!("{path}: {error}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
