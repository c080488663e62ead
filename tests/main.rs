//! The crate's integration tests, in one binary: one process knows one CUDA driver.

// Whole examples are included to be tested, and some share files with each other and with the tests.
#![allow(clippy::duplicate_mod)]

mod common;

mod axial;
mod bar;
mod budgets;
mod conformance;
mod content;
mod examples;
mod fixtures;
mod gaussian;
mod gsa;
mod layering;
mod local;
mod readme;
mod value_mixture;
