//! What the parser makes.

/// Number of a register within its function; scopes are resolved.
pub(crate) type Reg = u32;

/// An operand with its names resolved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// `%r1`
    Reg(Reg),
    /// `!%p1`
    Not(Reg),
    /// `42`, `-1`, `0x1F`: two's complement.
    Int(u64),
    /// `0f3F800000`
    F32(u32),
    /// `0d3FF0000000000000`, `1.0`
    F64(u64),
    /// `%tid.x`, without the percent sign.
    Special(String),
    /// A module's variable or function, and an offset.
    Symbol(String, i64),
    /// A parameter or variable of the function, by number, and an offset.
    Variable(u32, i64),
    /// `{a, b}`
    Vector(Vec<Operand>),
    /// `[base+offset]`
    Memory(Box<Operand>, i64),
    /// `[map, {x, y}]`
    MemoryList(Vec<Operand>),
    /// `d|p`
    Pair(Box<Operand>, Box<Operand>),
    /// `_`
    Sink,
    /// A label of the function, as an instruction's index.
    Label(u32),
    /// A list of labels, by number (`brx.idx`).
    Table(u32),
    /// `(a, b)` in a call.
    List(Vec<Operand>),
}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarSpace {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// A piece of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Init {
    /// Bytes, little-endian.
    Bytes(Vec<u8>),
    /// The address of a symbol plus an offset, generic or not, in so many bytes.
    Address { symbol: String, offset: i64, generic: bool, bytes: u32 },
}

/// A variable of the module or of a function.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Variable {
    pub name: String,
    pub line: u32,
    pub space: VarSpace,
    pub align: u32,
    /// Zero for `name[]`.
    pub bytes: u64,
    /// `.extern`: sized elsewhere (shared memory: at launch).
    pub external: bool,
    pub init: Vec<Init>,
}

/// One instruction, operands resolved.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub place: crate::ir::Place,
    /// Predicate register, and whether it is negated.
    pub guard: Option<(Reg, bool)>,
    pub opcode: String,
    pub args: Vec<Operand>,
    /// As in the text, white space squeezed.
    pub text: std::sync::Arc<str>,
}

/// A kernel or device function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Function {
    pub name: String,
    pub line: u32,
    pub entry: bool,
    /// Declared only.
    pub external: bool,
    /// Numbers of the formal parameters in `variables`, then of the return values.
    pub params: Vec<u32>,
    pub returns: Vec<u32>,
    /// Types of the registers, by number.
    pub regs: Vec<crate::decode::Ty>,
    /// Names of the registers, by number.
    pub reg_names: Vec<String>,
    /// Parameters and variables, by number.
    pub variables: Vec<Variable>,
    pub body: Vec<Statement>,
    /// `.branchtargets` and the labels of `brx.idx`: lists of instruction indices.
    pub tables: Vec<Vec<u32>>,
    pub max_threads: Option<u32>,
    pub min_blocks: Option<u32>,
    /// Index in `body` of every label, sorted.
    pub labels: Vec<u32>,
}

/// A whole text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unit {
    pub version: (u32, u32),
    pub target: String,
    pub files: Vec<(u32, String)>,
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
}
