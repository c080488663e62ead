//! What a device gave, against what the emulator gives.

use super::file::Recording;
use super::forms::{BLOCK, Form, Layout, ROWS, forms, module_of};
use super::record::{hash_of, packed};
use super::values::inputs;
use ptx_emulator_driver::ptx_emulator::{Arch, Config, Dims, Machine, TensorMode};
use std::collections::BTreeMap;

/// What came of a replay.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Forms that were compared.
    pub compared: usize,
    /// Forms without a vector, or with one of an older kernel.
    pub missing: Vec<String>,
    /// Rows that differ, by form.
    pub differences: Vec<String>,
}

/// Compares every form that the recorded device can have.
pub fn replay(recording: &Recording) -> Verdict {
    let vectors: BTreeMap<&str, _> = recording.vectors.iter().map(|v| (v.name.as_str(), v)).collect();
    let mut verdict = Verdict::default();
    for form in forms().iter().filter(|form| form.target <= recording.capability) {
        match vectors.get(form.name.as_str()).filter(|vector| vector.hash == hash_of(form)) {
            None => verdict.missing.push(form.name.clone()),
            Some(vector) => {
                verdict.compared += 1;
                verdict.differences.extend(compare(form, &vector.results, recording));
            }
        }
    }
    verdict
}

/// The first row that differs.
fn compare(form: &Form, want: &[u8], recording: &Recording) -> Option<String> {
    let got = match run(form, recording) {
        Ok(got) => got,
        Err(why) => return Some(format!("{}: {why}", form.name)),
    };
    if got.len() != want.len() {
        return Some(format!("{}: {} bytes were recorded, not {}", form.name, want.len(), got.len()));
    }
    let layout = Layout::of(form);
    let mut at = 0;
    let value = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    for row in 0..ROWS {
        for (kind, ..) in &layout.results {
            let bytes = at..at + kind.bytes();
            let (want, got) = (value(&want[bytes.clone()]), value(&got[bytes]));
            if !kind.agree(want, got, form.bound) {
                let operands = operands(form, &layout, row);
                return Some(format!(
                    "{} row {row}: {operands} gave {want:#x}, the emulator gives {got:#x}",
                    form.name
                ));
            }
            at += kind.bytes();
        }
    }
    None
}

/// The operands of a row, in words.
fn operands(form: &Form, layout: &Layout, row: usize) -> String {
    let inputs = inputs(form);
    let words: Vec<String> = layout
        .operands
        .iter()
        .map(|(kind, offset, _)| {
            let bytes = &inputs[row * layout.row_in + offset..][..kind.bytes()];
            format!("{:#x}", bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
        })
        .collect();
    words.join(" ")
}

fn run(form: &Form, recording: &Recording) -> Result<Vec<u8>, String> {
    let (arch, tensor) = match recording.capability {
        90.. => (Arch::Sm90, TensorMode::Sm90),
        86.. => (Arch::Sm86, TensorMode::Sm80),
        _ => (Arch::Sm80, TensorMode::Sm80),
    };
    let tensor = if recording.tensor == "exact" { TensorMode::Exact } else { tensor };
    let layout = Layout::of(form);
    let machine = Machine::new(Config::default().threads(1).arch(arch).tensor(tensor));
    let module = machine.load(&module_of(form)).map_err(|e| e.to_string())?;
    let entry = module.entry("v0").ok_or("no kernel")?;
    let inputs = inputs(form);
    let mut rows = vec![0; ROWS * layout.row_out];
    let memory = |bytes: &[u8]| -> Result<u64, String> {
        let address = machine.alloc(bytes.len() as u64).map_err(|e| e.to_string())?;
        machine.write(address, bytes).map_err(|e| e.to_string())?;
        Ok(address)
    };
    let (input, output) = (memory(&inputs)?, memory(&rows)?);
    let params = [input.to_le_bytes(), output.to_le_bytes()].concat();
    let dims = Dims::linear((ROWS / BLOCK) as u32, BLOCK as u32);
    machine.launch(&entry, dims, &params).map_err(|stop| stop.to_string())?;
    machine.read(output, &mut rows).map_err(|e| e.to_string())?;
    Ok(packed(&layout, &rows))
}
