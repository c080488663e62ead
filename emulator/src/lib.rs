//! Executes PTX on a CPU, checks it and counts it.

pub mod num;
