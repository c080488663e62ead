//! What NVIDIA's assembler makes of an entry, and how often its instructions would run.

use crate::listing::{Statement, instructions, mix};
use crate::tools::{NVDISASM, Tool, Toolchain, Writes};
use crate::usage::Usage;
use macula::kernel::Kernel;
use ptx_emulator_driver::Launch;
use std::collections::BTreeMap;
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

impl Code {
    /// How often each opcode would run, over the warps of some launches of the entry.
    pub fn mix(&self, launches: &[&Launch]) -> Option<BTreeMap<String, u64>> {
        let lines = &launches.first()?.report.lines;
        // All launches ran one text, so that their statements agree.
        let executions = |at: usize| launches.iter().map(|l| l.report.lines[at].counts.executions).sum();
        let statements: Vec<Statement<'_>> = lines
            .iter()
            .enumerate()
            .map(|(at, line)| Statement {
                line: line.line,
                instruction: &line.instruction,
                executions: executions(at),
            })
            .collect();
        Some(mix(self.instructions.as_ref()?, &statements))
    }
}
