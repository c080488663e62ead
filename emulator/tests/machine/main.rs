//! Tests of the parser, the integer instructions, memory, warps, barriers and scheduling. Floating point is in
//! `tests/numeric`.

mod atomics;
mod barriers;
mod common;
mod compare;
mod copies;
mod counters;
mod divergence;
mod exchange;
mod fixtures;
mod hosts;
mod integer;
mod memory;
mod random;
mod refusals;
mod schedule;
mod syntax;
