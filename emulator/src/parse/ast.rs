//! What the parser makes.

use std::fmt;

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
    /// `(a, b)` in a call.
    List(Vec<Operand>),
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Operand]| {
            for (k, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if k == 0 { "" } else { ", " })?;
            }
            Ok(())
        };
        let offset = |f: &mut fmt::Formatter<'_>, n: i64| if n == 0 { Ok(()) } else { write!(f, "{n:+}") };
        match self {
            Operand::Reg(reg) => write!(f, "register {reg}"),
            Operand::Not(reg) => write!(f, "!register {reg}"),
            Operand::Int(value) => write!(f, "{}", *value as i64),
            Operand::F32(bits) => write!(f, "0f{bits:08X}"),
            Operand::F64(bits) => write!(f, "0d{bits:016X}"),
            Operand::Special(name) => write!(f, "%{name}"),
            Operand::Symbol(name, n) => f.write_str(name).and_then(|()| offset(f, *n)),
            Operand::Variable(number, n) => write!(f, "variable {number}").and_then(|()| offset(f, *n)),
            Operand::Vector(items) => {
                f.write_str("{")?;
                list(f, items)?;
                f.write_str("}")
            }
            Operand::Memory(base, n) => {
                write!(f, "[{base}")?;
                offset(f, *n)?;
                f.write_str("]")
            }
            Operand::MemoryList(items) => {
                f.write_str("[")?;
                list(f, items)?;
                f.write_str("]")
            }
            Operand::Pair(a, b) => write!(f, "{a}|{b}"),
            Operand::Sink => f.write_str("_"),
            Operand::Label(target) => write!(f, "instruction {target}"),
            Operand::List(items) => {
                f.write_str("(")?;
                list(f, items)?;
                f.write_str(")")
            }
        }
    }
}
