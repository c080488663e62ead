//! Every arithmetic spelling through the whole emulator: PTX text in, results out, against oracles that share no code with
//! the crate: tables of all 16-bit numbers, `f64` arithmetic where it is exact, and neighbours found by comparison.

// Rows index several columns; negated comparisons are what unordered operands make of them.
#![allow(clippy::needless_range_loop, clippy::neg_cmp_op_on_partial_ord, clippy::double_comparisons)]

mod approx;
mod cvt;
mod float;
mod half;
mod harness;
mod matrix;
mod mma;
mod oracle;
