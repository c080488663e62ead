//! The crate's integration tests, in one binary: one process knows one CUDA driver.

mod common;

mod axial;
mod bar;
mod conformance;
mod content;
mod examples;
mod fixtures;
mod gaussian;
mod layering;
mod local;
mod readme;
