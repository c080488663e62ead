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

/// A statement of PTX, and how often warps executed it.
#[derive(Clone, Copy)]
pub struct Statement<'a> {
    pub line: u32,
    pub instruction: &'a str,
    pub executions: u64,
}

/// Statements that become one machine instruction each: how they begin, and its opcode.
const ONE_TO_ONE: [(&str, &str); 9] = [
    ("mma.", "HMMA"),
    ("ldmatrix.", "LDSM"),
    ("cp.async.c", "LDGSTS"),
    ("ld.shared.", "LDS"),
    ("st.shared.", "STS"),
    ("ld.global.", "LDG"),
    ("st.global.", "STG"),
    ("shfl.", "SHFL"),
    ("fma.rn.f32", "FFMA"),
];

impl Statement<'_> {
    fn opcode(&self) -> Option<&'static str> {
        let mut words = self.instruction.split_whitespace();
        let opcode = words.find(|word| !word.starts_with('@'))?;
        ONE_TO_ONE.iter().find(|(begins, _)| opcode.starts_with(begins)).map(|(_, opcode)| *opcode)
    }
}

/// How often each opcode would run: as often as the line of PTX that it was made for. Where the assembler copied a stretch of
/// lines, as when it unrolls a loop, the copies share the runs; the stretch's loads, stores and products tell how many there are.
pub fn mix(instructions: &[(u32, String)], statements: &[Statement<'_>]) -> BTreeMap<String, u64> {
    let mut copies = HashMap::<(u32, &str), u64>::new();
    for (line, opcode) in instructions {
        *copies.entry((*line, opcode)).or_default() += 1;
    }
    // Of each line, runs of every copy. Of several statements in a line, one may be behind a branch.
    let mut runs = HashMap::<u32, f64>::new();
    for stretch in statements.chunk_by(|a, b| a.executions == b.executions) {
        let of = |s: &Statement<'_>| copies.get(&(s.line, s.opcode()?)).copied();
        let mut found: Vec<u64> = stretch.iter().filter_map(of).collect();
        found.sort_unstable();
        let factor = found.get(found.len() / 2).copied().unwrap_or(1);
        for statement in stretch {
            let most = runs.entry(statement.line).or_default();
            *most = most.max(statement.executions as f64 / factor as f64);
        }
    }
    let mut mix = BTreeMap::<&str, f64>::new();
    for (line, opcode) in instructions {
        *mix.entry(opcode).or_default() += runs.get(line).copied().unwrap_or(0.0);
    }
    mix.into_iter().map(|(opcode, times)| (opcode.to_owned(), times.round() as u64)).collect()
}
