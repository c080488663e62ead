//! The op `gaussian`.

mod map;
mod reference;
