//! `ldmatrix`, `stmatrix`, `movmatrix`, `mma`: refused until written.

use crate::decode::{Decoder, Opcode};
use crate::error::LoadError;
use crate::ir::Insn;
use crate::parse::Operand;

/// Decodes the matrix instructions.
pub(crate) fn decode(_cx: &mut Decoder<'_>, op: &mut Opcode, _args: &[Operand]) -> Result<Insn, LoadError> {
    Err(op.refuse("not supported"))
}
