//! The ops as layers with parameters, in the manner of `candle_nn`: from a map `[b, channels, y, x]` to another.
//!
//! A layer is built from a `VarBuilder`, which makes its parameters or reads them from safetensors. Projections are 1×1
//! convolutions, computed as one matrix product over pixels; the channels of a projection are those of head 0, then head 1,
//! and so on. Names and initial values are in the documentation of each layer; where a paper does not print a choice, public
//! code decides, and the documentation says whose.

mod axial;
mod content;
mod gaussian;
mod gsa;
mod local;
mod norm;
mod projection;

pub use axial::{AxialAttention, AxialAttentionConfig};
pub use content::{ContentAttention, ContentAttentionConfig};
pub use gaussian::{GaussianAttention, GaussianAttentionConfig};
pub use gsa::{GsaModule, GsaModuleConfig};
pub use local::{LocalAttention, LocalAttentionConfig};
