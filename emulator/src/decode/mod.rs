//! From parsed instructions to [`Insn`]: opcode words to functions, operands to slots.

mod opcode;
mod operand;

pub(crate) use opcode::{Opcode, Ty};
pub(crate) use operand::Decoder;

use crate::error::LoadError;
use crate::exec;
use crate::ir::{Exec, Insn};
use crate::parse::Operand;

/// In `Insn::flags`: the address register is 64 bits wide.
pub(crate) const ADDRESS_64: u16 = 1 << 15;

/// What a program is decoded for. Checks and counters are compiled in or out, never asked for at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Mode {
    /// Checks of uninitialised reads and races.
    pub san: bool,
    /// Counters per instruction.
    pub count: bool,
    /// The host has AVX2, FMA and F16C.
    pub wide: bool,
}

impl Mode {
    /// The function of an operation for this mode.
    pub fn exec<O: exec::Op>(self) -> Exec {
        exec::lanes::dispatch::<O>(self)
    }

    /// The function of an arithmetic operation, which neither checks nor counters concern.
    pub fn alu<O: exec::lanes::Alu>(self) -> Exec {
        exec::lanes::dispatch_alu::<O>(self)
    }
}

/// How a family turns an opcode and its operands into an instruction.
pub(crate) type Family = fn(&mut Decoder<'_>, &mut Opcode, &[Operand]) -> Result<Insn, LoadError>;

/// The family of an opcode's first word.
pub(crate) fn family(base: &str) -> Option<Family> {
    Some(match base {
        "ldmatrix" | "stmatrix" | "movmatrix" | "mma" => exec::tensor::decode,
        _ => return None,
    })
}
