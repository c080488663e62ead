//! The ops as layers with parameters, in the manner of `candle_nn`: from a map `[b, channels, y, x]` to another.
//!
//! A layer is built from a `VarBuilder`, which makes its parameters or reads them from safetensors. Projections are 1×1
//! convolutions, computed as one matrix product over pixels; the channels of a projection are those of head 0, then head 1,
//! and so on. Names and initial values are in the documentation of each layer; where a paper does not print a choice, public
//! code decides, and the documentation says whose.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{AdamW, ModuleT, Optimizer, VarBuilder, VarMap};
//! use macula_candle::modules::{GsaModule, GsaModuleConfig};
//!
//! let vars = VarMap::new();
//! let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
//! let layer = GsaModule::new(16, 32, GsaModuleConfig::of_map(8, 8), vb)?;
//! let mut optimizer = AdamW::new_lr(vars.all_vars(), 1e-3)?;
//!
//! let images = Tensor::randn(0f32, 1.0, (4, 16, 8, 8), &Device::Cpu)?;
//! let target = Tensor::zeros((4, 32, 8, 8), DType::F32, &Device::Cpu)?;
//! let loss = || (layer.forward_t(&images, true)? - &target)?.sqr()?.mean_all();
//! let before = loss()?.to_scalar::<f32>()?;
//! for _ in 0..5 {
//!     optimizer.backward_step(&loss()?)?;
//! }
//! assert!(loss()?.to_scalar::<f32>()? < before);
//! # Ok::<(), candle_core::Error>(())
//! ```

mod axial;
mod content;
mod gaussian;
mod gsa;
mod halo;
mod local;
mod neighborhood;
mod norm;
mod packed;
mod projection;
mod window;

pub use axial::{AxialAttention, AxialAttentionConfig};
pub use content::{ContentAttention, ContentAttentionConfig};
pub use gaussian::{GaussianAttention, GaussianAttentionConfig};
pub use gsa::{GsaModule, GsaModuleConfig};
pub use halo::{HaloAttention, HaloAttentionConfig};
pub use local::{LocalAttention, LocalAttentionConfig};
pub use neighborhood::{NeighborhoodAttention, NeighborhoodAttentionConfig};
pub use window::{WindowAttention, WindowAttentionConfig};
