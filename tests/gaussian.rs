//! The op `gaussian`.

mod cpu;
mod map;
mod reference;
