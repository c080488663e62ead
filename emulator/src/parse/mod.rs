//! PTX text to a tree: declarations, scopes and labels resolved, instructions not yet understood.

mod ast;

pub(crate) use ast::{Operand, Reg};
