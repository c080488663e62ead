//! What a finished launch reports.

/// Executions of each instruction, indexed as the program's code; empty when counters are off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub executions: Vec<u64>,
    pub lanes: Vec<u64>,
}

impl Counters {
    pub fn new(instructions: usize) -> Counters {
        Counters { executions: vec![0; instructions], lanes: vec![0; instructions] }
    }

    pub fn merge(&mut self, other: &Counters) {
        if self.executions.is_empty() {
            *self = other.clone();
            return;
        }
        for (sum, part) in self.executions.iter_mut().zip(&other.executions) {
            *sum += part;
        }
        for (sum, part) in self.lanes.iter_mut().zip(&other.lanes) {
            *sum += part;
        }
    }
}

/// What one line of PTX did in a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// Source file and line, where the PTX has line information.
    pub source: Option<(String, u32)>,
    /// The instruction.
    pub instruction: String,
    /// Times a warp executed it.
    pub executions: u64,
    /// Lanes that executed it, summed over the executions.
    pub lanes: u64,
}

/// What a launch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Name of the kernel.
    pub kernel: String,
    /// Blocks that ran.
    pub blocks: u64,
    /// Instructions executed, counted once per warp.
    pub warp_instructions: u64,
    /// One entry per instruction, in the order of the text; empty unless
    /// [`Config::counters`](crate::Config::counters) is on.
    pub lines: Vec<Line>,
}
