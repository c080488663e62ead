//! The exported driver functions, by the chapters of the CUDA driver API manual. Each says in a line what is particular
//! here; what it does otherwise is in that manual.

#![allow(non_snake_case)] // reason: the names are NVIDIA's

mod context;
mod copy;
mod device;
mod event;
mod function;
mod graph;
mod init;
mod launch;
mod memory;
mod module;
mod stream;

pub use context::*;
pub use copy::*;
pub use device::*;
pub use event::*;
pub use function::*;
pub use graph::*;
pub use init::*;
pub use launch::*;
pub use memory::*;
pub use module::*;
pub use stream::*;
