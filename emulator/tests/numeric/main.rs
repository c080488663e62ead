//! Every arithmetic spelling through the whole emulator: PTX text in, results out, against oracles that share no code with
//! the crate: tables of all 16-bit numbers, `f64` arithmetic where it is exact, and neighbours found by comparison.

mod approx;
mod cvt;
mod float;
mod half;
mod harness;
mod matrix;
mod mma;
mod oracle;
