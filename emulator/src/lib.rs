#![doc = include_str!("../README.md")]
//!
//! # Rooms
//!
//! Text goes down this list, each room knows only those above it:
//!
//! | room | job |
//! | --- | --- |
//! | `parse` | text to a tree: scopes, registers, labels and variables resolved |
//! | `decode` | the tree to a flat program: opcodes to functions, operands to rows of the register file |
//! | `exec` | the instructions, a file per family; `exec::mem` is where every access passes |
//! | `check`, `count` | what `exec::mem` asks when a launch has checks or counters |
//! | `interpret` | a warp's turn: control flow, divergence, rendezvous of lanes |
//! | `schedule` | a launch: turns of warps, barriers, blocks on host threads |
//! | `machine` | what users see; `memory` holds the allocations, `report` and `json` what was counted |
//! | [`num`] | the arithmetic, as pure functions |

// 32-lane loops index several arrays by the same lane; iterators would hide that.
#![allow(clippy::needless_range_loop)]

mod block;
mod check;
mod config;
mod count;
mod decode;
mod error;
mod exec;
mod interpret;
mod ir;
mod json;
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
pub use decode::opcodes;
pub use error::{LoadError, MemoryError, Side, Stop, StopKind};
pub use machine::{Entry, Machine, Module, Param};
pub use report::{Buffer, Class, Counts, Line, Report};
