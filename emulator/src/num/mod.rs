//! The arithmetic of PTX, as pure functions over Rust's numbers: no registers, no warps, no memory.
//!
//! The hot functions are small, `#[inline]` and free of branches, so that a loop over 32 lanes around them becomes vector
//! code, also inside a function compiled for AVX2. Directed rounding and 64-bit corner cases go through exact integer
//! arithmetic ([`exact`]) and are slower.
//!
//! | module | holds |
//! | --- | --- |
//! | [`round`] | rounding modes, number formats, the one function that rounds |
//! | [`exact`] | sums, products, quotients and roots without error, before rounding |
//! | [`arith`] | `add`, `sub`, `mul`, `fma`, `div`, `rcp`, `sqrt`, `min`, `max` of `.f32` and `.f64`, `.ftz`, `.sat` |
//! | [`half`] | `.f16` and `.bf16`: conversions and arithmetic |
//! | [`convert`] | `cvt` between integers and floats, to integral floats, to `.tf32` |
//! | [`approx`] | the `.approx` functions and the two approximate divisions |
//! | [`tensor`] | dot products as tensor cores compute them |

pub mod approx;
pub mod arith;
pub mod convert;
pub mod exact;
pub mod half;
pub mod round;
pub mod tensor;
