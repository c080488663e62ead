//! PTX text to a tree: declarations, scopes and labels resolved, instructions not yet understood.

mod ast;
mod body;
mod lex;
mod parser;

pub(crate) use ast::{Function, Init, Operand, Reg, Statement, Unit, VarSpace};
pub(crate) use parser::parse;
