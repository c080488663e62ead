//! Machine code as the disassembler lists it, and how often it would run.

use std::collections::{BTreeMap, HashMap};

/// Reads a listing of `nvdisasm -c -gp`.
pub fn instructions(listing: &str) -> Vec<(u32, String)> {
    let (mut line, mut all) = (0, Vec::new());
    for text in listing.lines().map(str::trim_start) {
        if let Some((_, number)) = text.split_once(".nv_debug_ptx_txt\", line ") {
            line =
                number.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0);
            continue;
        }
        // `/*0120*/               @!P0 LDG.E.128 R4, [R2.64] ;`
        let Some((address, code)) = text.strip_prefix("/*").and_then(|rest| rest.split_once("*/")) else {
            continue;
        };
        if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            continue;
        }
        let mut words = code.split_whitespace().peekable();
        let guard = words.next_if(|word| word.starts_with('@'));
        let opcode = words.next().and_then(|word| word.trim_end_matches(';').split('.').next());
        // ptxas pads with instructions that never run.
        if let (Some(opcode), true) = (opcode, guard != Some("@!PT") && opcode != Some("NOP")) {
            all.push((line, opcode.to_owned()));
        }
    }
    all
}

/// Executions of every line of PTX, from those of its statements: they run equally often, but for those behind a branch.
pub fn most_of_each(statements: impl Iterator<Item = (u32, u64)>) -> HashMap<u32, u64> {
    let mut most = HashMap::<u32, u64>::new();
    for (line, times) in statements {
        let so_far = most.entry(line).or_default();
        *so_far = (*so_far).max(times);
    }
    most
}

/// How often each opcode would run: as often as the line of PTX that it was made for. Where the assembler copied a line, as when
/// it unrolls a loop, this is too many.
pub fn mix(instructions: &[(u32, String)], executions: &HashMap<u32, u64>) -> BTreeMap<String, u64> {
    let mut mix = BTreeMap::new();
    for (line, opcode) in instructions {
        *mix.entry(opcode.clone()).or_default() += executions.get(line).copied().unwrap_or(0);
    }
    mix
}
