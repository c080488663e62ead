//! Programs that the checks must accept (`pass/`) and programs in which they must find the mistake (`fail/`, each with
//! its report beside it).
//!
//! A program's `//!` line says how to launch it: blocks, threads, bytes of its buffer and how many the host wrote. New
//! reports are accepted with `BLESS=1 cargo test -p ptx-emulator --test check`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ptx_emulator::{Config, Dims, Machine, Stop};

fn programs(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check").join(folder);
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "ptx"))
        .collect();
    found.sort();
    assert!(found.len() > 5, "{found:?}");
    found
}

fn run(path: &Path, config: &Config) -> Result<(), Stop> {
    let text = std::fs::read_to_string(path).expect("readable");
    let settings = text.lines().find_map(|line| line.strip_prefix("//! ")).expect("a line `//!`");
    let settings: HashMap<&str, u32> = settings
        .split_whitespace()
        .map(|pair| pair.split_once('=').expect("name=number"))
        .map(|(name, number)| (name, number.parse().expect("a number")))
        .collect();
    let machine = Machine::new(config.clone());
    let module = machine.load(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entry = module.entries().next().expect("a kernel");
    let data = machine.alloc(settings["bytes"] as u64).expect("memory");
    machine.write(data, &vec![0; settings["written"] as usize]).expect("in bounds");
    let dims = Dims::linear(settings["blocks"], settings["threads"]);
    for _ in 0..settings.get("launches").copied().unwrap_or(1) {
        machine.launch(&entry, dims, &data.to_le_bytes())?;
    }
    Ok(())
}

fn checked() -> Config {
    Config::default().threads(1).checks(true)
}

#[test]
fn correct_programs_pass_in_every_order() {
    for path in programs("pass") {
        for seed in 0..6 {
            if let Err(stop) = run(&path, &checked().seed(seed)) {
                panic!("{} with seed {seed}\n{stop}", path.display());
            }
        }
        run(&path, &checked().threads(2).counters(true)).expect("on two host threads, counted");
    }
}

#[test]
fn mistakes_are_reported_as_written_down() {
    let bless = std::env::var_os("BLESS").is_some();
    for path in programs("fail") {
        let Err(stop) = run(&path, &checked()) else { panic!("{}: nothing was found", path.display()) };
        let (golden, report) = (path.with_extension("txt"), format!("{stop}\n"));
        if bless {
            std::fs::write(&golden, &report).expect("writable");
        }
        let want = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(report, want, "{}", path.display());
    }
}

#[test]
fn mistakes_are_found_in_every_order() {
    for path in programs("fail") {
        for seed in 1..6 {
            assert!(run(&path, &checked().seed(seed)).is_err(), "{} with seed {seed}", path.display());
        }
    }
}

#[test]
fn a_launch_without_checks_finds_deadlocks_and_divergence_only() {
    for path in programs("fail") {
        let found = run(&path, &checked().checks(false)).is_err();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert_eq!(found, matches!(name, "barrier_divergent" | "barrier_missing"), "{name}");
    }
}
