//! Gates on the compiled kernels that need no GPU: what build.rs reads, what NVIDIA's assemblers make of every image, and
//! what plans ask of it. In a binary of their own, for they bring the build script's modules along.
//!
//! Assemblers and disassemblers that this machine lacks are fetched as Python wheels, where `MACULA_NVCC=pip` or
//! `MACULA_REQUIRE_KERNELS=1` allows it. What cannot be had fails under the latter, and is named otherwise.

#[path = "../../build/compile.rs"]
#[allow(dead_code)]
mod compile;
#[path = "../../build/nvcc.rs"]
#[allow(dead_code)]
mod nvcc;
#[path = "../../build/ptx.rs"]
mod ptx;
#[path = "../../build/sources.rs"]
#[allow(dead_code)]
mod sources;
#[path = "../../build/store.rs"]
#[allow(dead_code)]
mod store;
#[path = "../../build/wheels.rs"]
#[allow(dead_code)]
mod wheels;

mod assembly;
mod caching;
mod finding;
mod images;
mod plans;
mod reading;
mod sass;
mod tools;
mod usage;
mod vectors;
