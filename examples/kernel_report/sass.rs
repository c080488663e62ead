//! What NVIDIA's assembler makes of an entry, and how often its instructions would run.

use crate::tools::{NVDISASM, Tool, Toolchain, Writes};
use crate::usage::Usage;
use macula::kernel::Kernel;
use ptx_emulator_driver::Launch;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// The assembler and the disassembler, where this machine has them.
pub struct Tools {
    toolchain: Toolchain,
    ptxas: Result<Tool, String>,
    nvdisasm: Result<Tool, String>,
}

/// The machine code of an entry.
pub struct Code {
    pub usage: Usage,
    /// For each instruction, the line of PTX that it was made for and its opcode; where there is a disassembler.
    instructions: Option<Vec<(u32, String)>>,
}

/// Where build.rs leaves the entry's PTX with line tables, which is what the emulator runs here.
pub fn with_lines(kernel: &Kernel) -> PathBuf {
    PathBuf::from(env!("OUT_DIR")).join("lineinfo").join(format!("{}.ptx", kernel.name))
}

impl Tools {
    pub fn find() -> Self {
        let toolchain = Toolchain::read();
        let (ptxas, nvdisasm) = (toolchain.ptxas(), toolchain.wheel(&NVDISASM));
        Self { toolchain, ptxas, nvdisasm }
    }

    /// What is missing, in words.
    pub fn missing(&self) -> Vec<&str> {
        [&self.ptxas, &self.nvdisasm]
            .into_iter()
            .filter_map(|tool| Some(tool.as_ref().err()?.as_str()))
            .collect()
    }

    /// The code of an entry for a GPU such as `sm_90`.
    pub fn code(&self, kernel: &Kernel, gpu: &str) -> Option<Code> {
        let (cache, ptxas) = (self.toolchain.cache(), self.ptxas.as_ref().ok()?);
        let ptx = std::fs::read(with_lines(kernel)).ok()?;
        let run = ptxas.run(&cache, &["-v", "-lineinfo", &format!("-arch={gpu}")], &ptx, Writes::Kept);
        let (usage, cubin) = (Usage::read(&run.text)?, std::fs::read(run.output?).ok()?);
        let listing = |tool: &Tool| tool.run(&cache, &["-c", "-gp"], &cubin, Writes::Nothing);
        let listing = self.nvdisasm.as_ref().ok().map(listing).filter(|run| run.ok);
        Some(Code { usage, instructions: listing.map(|run| instructions(&run.text)) })
    }
}

/// Reads a listing of `nvdisasm -c -gp`.
fn instructions(listing: &str) -> Vec<(u32, String)> {
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

impl Code {
    /// How often each opcode would run, over the warps of some launches of the entry: as often as the emulator ran the line
    /// of PTX that it was made for. Where the assembler copied a line, as when it unrolls a loop, this is too many.
    pub fn mix(&self, launches: &[&Launch]) -> Option<BTreeMap<String, u64>> {
        let instructions = self.instructions.as_ref()?;
        let mut executions = HashMap::<u32, u64>::new();
        for launch in launches {
            // Statements of one line run equally often, but for those behind a branch among them.
            let mut own = HashMap::<u32, u64>::new();
            for line in &launch.report.lines {
                let most = own.entry(line.line).or_default();
                *most = (*most).max(line.counts.executions);
            }
            own.into_iter().for_each(|(line, times)| *executions.entry(line).or_default() += times);
        }
        let mut mix = BTreeMap::new();
        for (line, opcode) in instructions {
            *mix.entry(opcode.clone()).or_default() += executions.get(line).copied().unwrap_or(0);
        }
        Some(mix)
    }
}
