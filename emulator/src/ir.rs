//! What the decoder makes and the interpreter runs: a flat array of [`Insn`].

use crate::block::Block;
use crate::warp::Warp;

/// A row of the register file. A 32-bit (or narrower) register has one row, a 64-bit register two consecutive
/// rows. Immediates and special registers are rows too, filled before the first instruction, so that no
/// instruction asks what kind of operand it has.
pub(crate) type Slot = u32;

/// "No operand": a sink `_`, or an absent optional operand.
pub(crate) const NONE: Slot = u32::MAX;

/// A predicate as a source: the index of its mask times two, plus one when it is negated (`!p`).
pub(crate) type PredSrc = u32;

/// The predicate source that is always true; what an instruction without a guard is guarded by.
pub(crate) const ALWAYS: PredSrc = 0;

/// Executes one instruction for the lanes of `mask` (never empty; a subset of the active lanes).
///
/// # Safety
/// The instruction must come from the decoder, and the warp's register file must have been made for the
/// program that contains it: rows are accessed without bounds checks.
pub(crate) type Exec = unsafe fn(warp: &mut Warp, block: &mut Block, insn: &Insn, mask: u32);

/// One decoded instruction: a function pointer and the slots it works on.
pub(crate) struct Insn {
    pub run: Exec,
    /// What the interpreter has to do beside calling `run`.
    pub flow: Flow,
    /// Width, vector length or another small number that the family chooses.
    pub width: u8,
    /// Bits that the family chooses.
    pub flags: u16,
    pub guard: PredSrc,
    /// Destination row, or predicate index.
    pub d: Slot,
    pub a: Slot,
    pub b: Slot,
    pub c: Slot,
    /// Branch target: an index into the program.
    pub target: u32,
    /// Address offset, immediate, or another number that the family chooses.
    pub imm: i64,
    /// Further slots: vector elements, matrix fragments.
    pub ext: Box<[Slot]>,
}

/// How the interpreter treats an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    /// Cannot fail, cannot wait: run and go on.
    Plain,
    /// May stop the launch (`block.stop`) or ask for a pause (`warp.pause`).
    Effect,
    /// `bra`: to `target` for the lanes whose guard holds.
    Branch,
    /// `bra.uni`: all active lanes or none.
    BranchUniform,
    /// `brx.idx`: lane's index in row `a` into the list `ext` of targets.
    BranchIndexed,
    /// `exit`, `ret` of an entry.
    Exit,
    /// Waits until every living lane of the member mask (row `c`) has arrived at this instruction.
    Member,
    /// `.aligned` without a member mask: waits until every living lane of the warp has arrived.
    Aligned,
    /// `bar.warp.sync`: as `Member`, but lanes may arrive at different instructions.
    WarpBarrier,
    /// `bar`/`barrier`: block-wide, see [`crate::exec::barrier`].
    Barrier,
}

/// Where an instruction stands: for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// File number (of `.file`) and line of the nearest `.loc` before it; file 0 means none.
    pub file: u32,
    pub source_line: u32,
}
