//! A decoded kernel: what warps are made for.

use std::sync::Arc;

use crate::ir::{Insn, Place, Slot};
use crate::regs::Row;

/// A kernel decoded for one [`Mode`](crate::decode::Mode).
pub(crate) struct Program {
    /// Name of the entry.
    pub name: String,
    /// The instructions; the last one is an exit that every path ends in.
    pub code: Vec<Insn>,
    /// For each instruction: where it stands.
    pub places: Vec<Place>,
    /// For each instruction: its text, for reports.
    pub spellings: Vec<Arc<str>>,
    /// File names of `.file`, by number.
    pub files: Arc<Vec<(u32, String)>>,
    /// Rows that are the kernel's own registers; the others hold constants and special registers.
    pub resets: Vec<std::ops::Range<usize>>,
    /// Constant rows: slot and contents, one row each.
    pub constants: Vec<(Slot, Row)>,
    /// All rows of a warp's register file.
    pub rows: usize,
    /// All predicate masks of a warp; mask 0 is always true.
    pub preds: usize,
    /// Special registers that the kernel reads, with their row.
    pub specials: Vec<(Special, Slot)>,
    /// Bytes of local memory per thread.
    pub local_bytes: u32,
    /// Bytes of static shared memory.
    pub shared_bytes: u32,
    /// Alignment of the dynamic shared memory that follows it.
    pub dynamic_align: u32,
    /// Whether the result may depend on the order in which blocks run (atomics that return a value or round,
    /// spinning on global memory): such a kernel's blocks run on one host thread, in the seed's order.
    pub ordered: bool,
}

/// Special registers whose value does not change while a warp runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    Gridid,
    LanemaskEq,
    LanemaskLt,
    LanemaskLe,
    LanemaskGt,
    LanemaskGe,
    DynamicSharedBytes,
    TotalSharedBytes,
    Zero,
    One,
}

impl Program {
    /// Source file and line of an instruction, where the PTX says so.
    pub fn source(&self, place: Place) -> Option<(String, u32)> {
        let file = self.files.iter().find(|(number, _)| *number == place.file)?;
        Some((file.1.clone(), place.source_line))
    }
}
