//! The op `gaussian`.

mod reference;
