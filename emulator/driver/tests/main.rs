//! The look-alike driver, driven by cudarc and by its raw functions.

#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

mod common;
mod errors;
mod graphs;
mod memory;
mod modules;
mod process;
mod programs;
mod reports;
mod streams;
mod vectors;
