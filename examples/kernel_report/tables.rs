//! The tables, as Markdown.

use crate::budgets::{ARCH, Case, Measured};
use crate::model::{Floors, Load, memory_seconds};
use crate::sass::{Code, Tools};
use macula::kernel;
use ptx_emulator::{Class, Counts};
use ptx_emulator_driver::Launch;
use std::collections::BTreeMap;

/// Opcodes of a mix that are shown.
const SHOWN: usize = 8;
/// Entries that take a smaller part of a call have no row in the table of mixes.
const NEGLIGIBLE: f64 = 0.01;

/// The launches of one entry in a call.
pub struct Entry {
    name: String,
    launches: usize,
    blocks: u64,
    threads: u64,
    shared_bytes: u32,
    warp_instructions: u64,
    code: Option<Code>,
    mix: Option<BTreeMap<String, u64>>,
    floors: Floors,
    tensor_bytes: u64,
    scratch_bytes: u64,
}

/// A call with its launches.
pub struct Row {
    case: Case,
    measured: Measured,
    entries: Vec<Entry>,
}

impl Row {
    pub fn new(case: Case, measured: Measured, tools: &Tools) -> Self {
        let mut names: Vec<&str> = Vec::new();
        for launch in &measured.launches {
            if !names.contains(&launch.entry.as_str()) {
                names.push(&launch.entry);
            }
        }
        let entries = names.into_iter().map(|name| Entry::new(name, &measured, tools)).collect();
        Self { case, measured, entries }
    }

    /// Seconds by the model: launches follow each other.
    fn seconds(&self) -> f64 {
        self.entries.iter().map(|entry| entry.floors.binding().1).sum()
    }
}

impl Entry {
    fn new(name: &str, measured: &Measured, tools: &Tools) -> Self {
        let launches: Vec<&Launch> = measured.launches.iter().filter(|launch| launch.entry == name).collect();
        let code = kernel::find(name).and_then(|kernel| tools.code(kernel, ARCH.name()));
        let mix = code.as_ref().and_then(|code| code.mix(&launches));
        let counts: Counts = launches.iter().map(|launch| launch.report.totals()).sum();
        let warp_instructions = launches.iter().map(|launch| launch.report.warp_instructions).sum();
        let functions = launches.iter().flat_map(|launch| launch.report.mix());
        let functions: u64 =
            functions.filter(|(class, _)| *class == Class::Function).map(|(_, c)| c.executions).sum();
        let tensor_bytes = launches.iter().map(|launch| measured.launch_tensor_bytes(launch)).sum();
        let floors = Floors::of(&Load {
            device_bytes: tensor_bytes,
            tensor_flops: counts.tensor_flops,
            functions: mix.as_ref().map_or(functions, |mix| mix.get("MUFU").copied().unwrap_or(0)),
            wavefronts: counts.wavefronts,
            instructions: mix.as_ref().map_or(warp_instructions, |mix| mix.values().sum()),
        });
        Self {
            name: name.to_owned(),
            launches: launches.len(),
            blocks: launches.iter().map(|launch| launch.report.blocks).sum(),
            threads: launches.first().map_or(0, |launch| launch.dims.threads()),
            shared_bytes: launches.iter().map(|launch| launch.dims.shared_bytes).max().unwrap_or(0)
                + kernel::find(name).map_or(0, |kernel| kernel.static_shared_bytes),
            warp_instructions,
            code,
            mix,
            floors,
            tensor_bytes,
            scratch_bytes: launches.iter().map(|launch| measured.launch_scratch_bytes(launch)).sum(),
        }
    }

    /// Blocks that a multiprocessor holds at once.
    fn resident_blocks(&self) -> Option<u32> {
        /// Registers are handed out by warps in multiples of this, and every block has some shared memory of the system's.
        const REGISTER_UNIT: u32 = 256;
        const SYSTEM_SHARED: u32 = 1024;
        let warps = u32::try_from(self.threads.div_ceil(32)).ok().filter(|warps| *warps > 0)?;
        let registers = (self.code.as_ref()?.usage.registers * 32).next_multiple_of(REGISTER_UNIT);
        let limits = [
            ARCH.registers_per_sm() / (registers * warps),
            ARCH.shared_per_sm() / (self.shared_bytes + SYSTEM_SHARED),
            ARCH.threads_per_sm() / (warps * 32),
            ARCH.blocks_per_sm(),
        ];
        limits.into_iter().min()
    }
}

fn kib(bytes: u64) -> String {
    format!("{:.0}", bytes as f64 / 1024.0)
}

fn ratio(part: u64, whole: u64) -> String {
    if whole == 0 { "–".into() } else { format!("{:.2}", part as f64 / whole as f64) }
}

fn microseconds(seconds: f64) -> String {
    format!("{:.2}", seconds * 1e6)
}

fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

fn head(cells: &[&str]) {
    println!("| {} |\n|{}", cells.join(" | "), " --- |".repeat(cells.len()));
}

/// A table row per call.
pub fn calls(rows: &[Row]) {
    head(&[
        "call",
        "minimum KiB",
        "tensors / minimum",
        "scratch KiB",
        "requested / minimum",
        "sectors / ideal",
        "wavefronts / ideal",
        "tensor FLOP / useful",
        "model µs",
        "of memory floor",
    ]);
    for call in rows {
        let Row { case, measured, .. } = call;
        let (totals, seconds) = (measured.totals(), call.seconds());
        let of_floor = 100.0 * memory_seconds(case.cost.min_bytes) / seconds;
        let useful = if totals.tensor_flops == 0 { 0 } else { case.cost.flops };
        row(&[
            case.name(),
            kib(case.cost.min_bytes),
            ratio(measured.tensor_bytes(), case.cost.min_bytes),
            kib(measured.scratch_bytes()),
            ratio(measured.requested_bytes(), case.cost.min_bytes),
            ratio(totals.sectors, totals.ideal_sectors),
            ratio(totals.wavefronts, totals.ideal_wavefronts),
            ratio(totals.tensor_flops, useful),
            microseconds(seconds),
            format!("{of_floor:.0} %"),
        ]);
    }
}

/// A table row per entry of each call.
pub fn entries(rows: &[Row]) {
    head(&[
        "entry",
        "call",
        "blocks × threads",
        "registers",
        "spilled, stack",
        "shared KiB",
        "blocks / SM",
        "tensors, scratch KiB",
        "instructions PTX, SASS",
        "per tensor op",
        "binds",
        "model µs",
    ]);
    for Row { case, entries, .. } in rows {
        for entry in entries {
            let usage = entry.code.as_ref().map(|code| &code.usage);
            let sass: Option<u64> = entry.mix.as_ref().map(|mix| mix.values().sum());
            let products = entry.mix.as_ref().and_then(|mix| mix.get("HMMA")).copied().unwrap_or(0);
            let unknown = || "?".to_owned();
            let (part, seconds) = entry.floors.binding();
            let launches =
                if entry.launches > 1 { format!(" in {} launches", entry.launches) } else { String::new() };
            row(&[
                format!("`{}`", entry.name),
                call_of(case, &entry.name),
                format!("{} × {}{launches}", entry.blocks, entry.threads),
                usage.map_or_else(unknown, |usage| usage.registers.to_string()),
                usage.map_or_else(unknown, |usage| format!("{}, {}", usage.spill_bytes, usage.stack_bytes)),
                format!("{:.1}", f64::from(entry.shared_bytes) / 1024.0),
                entry.resident_blocks().map_or_else(unknown, |blocks| blocks.to_string()),
                format!("{}, {}", kib(entry.tensor_bytes), kib(entry.scratch_bytes)),
                format!(
                    "{}, {}",
                    entry.warp_instructions,
                    sass.map_or_else(unknown, |sass| sass.to_string())
                ),
                ratio(sass.unwrap_or(entry.warp_instructions), products),
                part.to_string(),
                microseconds(seconds),
            ]);
        }
    }
}

/// A call beside one of its entries: its op too, where the entry is another one's.
fn call_of(case: &Case, entry: &str) -> String {
    let Case { op, pass, shape, .. } = case;
    if entry.starts_with(op) { format!("{pass} {shape}") } else { format!("{op} {pass} {shape}") }
}

/// A table row per entry that matters to a call: the machine instructions that it would run most, and the time of each part.
pub fn mixes(rows: &[Row]) {
    head(&[
        "entry",
        "call",
        "most frequent machine instructions",
        "memory, tensor, function, shared, issue µs",
    ]);
    for call in rows {
        let Row { case, entries, .. } = call;
        for entry in entries.iter().filter(|entry| entry.floors.binding().1 >= NEGLIGIBLE * call.seconds()) {
            let Some(mix) = &entry.mix else { continue };
            let all: u64 = mix.values().sum();
            let mut most: Vec<_> = mix.iter().filter(|(_, times)| **times > 0).collect();
            most.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
            let share = |times: u64| 100.0 * times as f64 / all as f64;
            let most: Vec<String> = most
                .iter()
                .take(SHOWN)
                .map(|(opcode, times)| format!("{opcode} {:.0} %", share(**times)))
                .collect();
            let Floors { memory, tensor, function, shared, issue } = entry.floors;
            row(&[
                format!("`{}`", entry.name),
                call_of(case, &entry.name),
                most.join(", "),
                [memory, tensor, function, shared, issue].map(microseconds).join(", "),
            ]);
        }
    }
}

impl Row {
    /// The reports of its launches, by entry.
    pub fn reports(&self) -> impl Iterator<Item = (&str, String)> {
        self.measured.launches.iter().map(|launch| (launch.entry.as_str(), launch.report.to_json()))
    }
}
