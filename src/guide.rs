//! Pages to read, for users and contributors; no code.

#[doc = include_str!("guide/naming.md")]
pub mod naming {}

#[doc = include_str!("guide/math.md")]
pub mod math {}

#[doc = include_str!("guide/adding_an_op.md")]
pub mod adding_an_op {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/performance.md")]
pub mod performance {}

#[doc = include_str!("guide/local.md")]
pub mod local {}

#[doc = include_str!("guide/global.md")]
pub mod global {}

#[doc = include_str!("guide/value_mixture.md")]
pub mod value_mixture {}

#[doc = include_str!("guide/lessons.md")]
pub mod lessons {}
