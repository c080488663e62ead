//! What each op means, in loops over a number type: slow, obvious, and the truth that everything is tested against.
//!
//! A reference is written once, over [`Num`], and read in two ways. With `f64` it gives the truth. With [`Bar`] the very
//! same lines also give, for every output, how far from the truth an honest kernel may be: each operation adds the
//! rounding that it would suffer there. A kernel is right when every element of its output lies within its own bar
//! ([`Bar::allows`]).
//!
//! Tensors are contiguous slices in the order of their dimension letters.

mod bar;
mod num;

pub mod axial;
pub mod content;
pub mod gaussian;
pub mod gsa;
pub mod local;
pub mod value_mixture;

pub use bar::Bar;
pub use num::Num;
