//! What can be chosen about each op: plain data that every floor shares. The ops check it, once, in their `new`.

pub mod axial;
pub mod content;
pub mod gaussian;
pub mod gsa;
pub mod local;
