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

/// Every family, with the first words of its opcodes.
const FAMILIES: &[(Family, &[&str])] = &[
    (
        arithmetic,
        &[
            "add", "sub", "mul", "mad", "fma", "div", "rem", "min", "max", "abs", "neg", "rcp", "sqrt",
            "rsqrt",
        ],
    ),
    (exec::int::decode_carry, &["addc", "subc", "madc"]),
    (exec::int::decode_special, &["sad", "dp4a", "mul24", "mad24"]),
    (exec::float::decode_function, &["ex2", "lg2", "sin", "cos", "tanh"]),
    (exec::float::decode_copysign, &["copysign"]),
    (exec::float::decode_testp, &["testp"]),
    (exec::bits::decode_logic, &["and", "or", "xor", "not", "cnot"]),
    (exec::bits::decode_shift, &["shl", "shr"]),
    (
        exec::bits::decode,
        &["shf", "bfe", "bfi", "bfind", "brev", "clz", "popc", "fns", "prmt", "lop3", "bmsk", "szext"],
    ),
    (exec::compare::decode_setp, &["setp"]),
    (exec::compare::decode_set, &["set"]),
    (exec::compare::decode_selp, &["selp"]),
    (exec::compare::decode_slct, &["slct"]),
    (exec::convert::decode, &["cvt"]),
    (exec::moves::decode_mov, &["mov"]),
    (exec::moves::decode_cvta, &["cvta"]),
    (exec::moves::decode_isspacep, &["isspacep"]),
    (exec::moves::decode_policy, &["createpolicy"]),
    (exec::ldst::decode_load, &["ld", "ldu"]),
    (exec::ldst::decode_store, &["st"]),
    (exec::ldst::decode_prefetch, &["prefetch", "prefetchu", "discard", "applypriority"]),
    (exec::atom::decode, &["atom", "red"]),
    (exec::copy::decode, &["cp"]),
    (exec::lane_exchange::decode_shfl, &["shfl"]),
    (exec::lane_exchange::decode_vote, &["vote"]),
    (exec::lane_exchange::decode_match, &["match"]),
    (exec::lane_exchange::decode_redux, &["redux"]),
    (exec::lane_exchange::decode_activemask, &["activemask"]),
    (exec::lane_exchange::decode_elect, &["elect"]),
    (exec::barrier::decode, &["bar", "barrier"]),
    (exec::control::decode, &["bra", "brx", "ret", "exit", "trap", "brkpt", "nanosleep", "membar", "fence"]),
    (exec::tensor::decode, &["ldmatrix", "stmatrix", "movmatrix", "mma"]),
    (
        exec::hopper::decode,
        &[
            "wgmma",
            "mbarrier",
            "setmaxnreg",
            "tensormap",
            "griddepcontrol",
            "mapa",
            "getctarank",
            "clusterlaunchcontrol",
        ],
    ),
];

/// The family of an opcode's first word.
pub(crate) fn family(base: &str) -> Option<Family> {
    FAMILIES.iter().find(|(_, opcodes)| opcodes.contains(&base)).map(|(family, _)| *family)
}

/// The first words of all opcodes that the emulator knows, be it to refuse them by name: `add`, `mma` and so on.
pub fn opcodes() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().flat_map(|(_, opcodes)| opcodes.iter().copied())
}

/// The opcodes that exist for integers and floats alike.
fn arithmetic(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    match op.ty()? {
        ty @ (Ty::F32 | Ty::F64) => exec::float::decode(cx, op, args, ty),
        ty @ (Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2) => exec::half::decode(cx, op, args, ty),
        ty => exec::int::decode(cx, op, args, ty),
    }
}
