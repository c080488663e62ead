//! From parsed instructions to [`Insn`]: opcode words to functions, operands to slots.

mod opcode;
mod operand;
mod program;
mod registers;

pub(crate) use opcode::{Opcode, Ty};
pub(crate) use operand::Decoder;
pub(crate) use program::{Symbols, decode_entry};

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
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "rem" | "min" | "max" | "abs" | "neg" | "rcp"
        | "sqrt" | "rsqrt" => arithmetic,
        "addc" | "subc" | "madc" => exec::int::decode_carry,
        "sad" | "dp4a" | "mul24" | "mad24" => exec::int::decode_special,
        "ex2" | "lg2" | "sin" | "cos" | "tanh" => exec::float::decode_function,
        "copysign" => exec::float::decode_copysign,
        "testp" => exec::float::decode_testp,
        "and" | "or" | "xor" | "not" | "cnot" => exec::bits::decode_logic,
        "shl" | "shr" => exec::bits::decode_shift,
        "shf" | "bfe" | "bfi" | "bfind" | "brev" | "clz" | "popc" | "fns" | "prmt" | "lop3" | "bmsk"
        | "szext" => exec::bits::decode,
        "setp" => exec::compare::decode_setp,
        "set" => exec::compare::decode_set,
        "selp" => exec::compare::decode_selp,
        "slct" => exec::compare::decode_slct,
        "cvt" => exec::convert::decode,
        "mov" => exec::moves::decode_mov,
        "cvta" => exec::moves::decode_cvta,
        "isspacep" => exec::moves::decode_isspacep,
        "createpolicy" => exec::moves::decode_policy,
        "ld" | "ldu" => exec::ldst::decode_load,
        "st" => exec::ldst::decode_store,
        "prefetch" | "prefetchu" | "discard" | "applypriority" => exec::ldst::decode_prefetch,
        "atom" | "red" => exec::atom::decode,
        "cp" => exec::copy::decode,
        "shfl" => exec::lane_exchange::decode_shfl,
        "vote" => exec::lane_exchange::decode_vote,
        "match" => exec::lane_exchange::decode_match,
        "redux" => exec::lane_exchange::decode_redux,
        "activemask" => exec::lane_exchange::decode_activemask,
        "elect" => exec::lane_exchange::decode_elect,
        "bar" | "barrier" => exec::barrier::decode,
        "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" | "nanosleep" | "membar" | "fence" => {
            exec::control::decode
        }
        "ldmatrix" | "stmatrix" | "movmatrix" | "mma" => exec::tensor::decode,
        "wgmma"
        | "mbarrier"
        | "setmaxnreg"
        | "tensormap"
        | "griddepcontrol"
        | "mapa"
        | "getctarank"
        | "clusterlaunchcontrol" => exec::hopper::decode,
        _ => return None,
    })
}

/// The opcodes that exist for integers and floats alike.
fn arithmetic(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    match op.ty()? {
        ty @ (Ty::F32 | Ty::F64) => exec::float::decode(cx, op, args, ty),
        ty @ (Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2) => exec::half::decode(cx, op, args, ty),
        ty => exec::int::decode(cx, op, args, ty),
    }
}
