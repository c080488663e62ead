//! Executes PTX on a CPU, checks it and counts it.

// 32-lane loops index several arrays by the same lane; iterators would hide that.
#![allow(clippy::needless_range_loop)]
#![allow(dead_code)]

mod block;
mod config;
mod decode;
mod error;
mod exec;
mod interpret;
mod ir;
mod machine;
mod memory;
pub mod num;
mod parse;
mod program;
mod regs;
mod report;
mod schedule;
mod warp;

pub use config::{Arch, Config, Dims, TensorMode};
pub use error::{LoadError, MemoryError, Stop, StopKind};
pub use machine::{Entry, Machine, Module, Param};
pub use report::{Line, Report};
