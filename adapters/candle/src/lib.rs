//! The attention ops of [`macula`] for candle: functions on [`Tensor`](candle_core::Tensor)s, with gradients for every input.
//!
//! Maps are `[b, h, y, x, channels]`: batch, heads, rows, columns. Element types are f32, f16 and bf16; radii and batch norm
//! may have any float type and are computed with in f32. Tensors are read where they are, whatever their strides, as far as
//! the device allows: on CUDA the channels have to be innermost, and a tensor whose channels are not is copied.
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use macula_candle::{GaussianConfig, gaussian};
//!
//! let v = Tensor::randn(0f32, 1.0, (2, 4, 14, 14, 16), &Device::Cpu)?;
//! let sigma = Var::from_tensor(&Tensor::new(&[1f32, 2.0, 4.0, 8.0], &Device::Cpu)?)?;
//! let o = gaussian(&v, &sigma, &GaussianConfig::default())?;
//! let grads = o.sqr()?.sum_all()?.backward()?;
//! assert_eq!(grads.get(&sigma).unwrap().dims(), [4]);
//! # Ok::<(), candle_core::Error>(())
//! ```

mod axial;
mod content;
mod gaussian;
mod graph;
mod gsa;
mod local;
mod memory;
pub mod modules;
mod tensors;
mod value_mixture;

pub use axial::{AxialInputs, AxialOutput, axial};
pub use content::content;
pub use gaussian::gaussian;
pub use gsa::{GsaInputs, gsa};
pub use local::{Positions, local};
pub use value_mixture::value_mixture;

pub use macula::axial::{Affine, Axes, BatchNorm, Statistics};
pub use macula::content::{FeatureMap, Form};
pub use macula::gaussian::{Kernel, Norm};
pub use macula::local::{Blocks, Border, Relative, Sliding, Tables, Window};
pub use macula::value_mixture::Tables as MixtureTables;
pub use macula::{AxialConfig, ContentConfig, GaussianConfig, GsaConfig, LocalConfig};

/// Runs a function for the element type of a tensor.
macro_rules! by_dtype {
    ($name:expr, $dtype:expr, $run:ident($($arg:expr),* $(,)?)) => {
        match $dtype {
            candle_core::DType::F32 => $run::<f32>($($arg),*),
            candle_core::DType::F16 => $run::<half::f16>($($arg),*),
            candle_core::DType::BF16 => $run::<half::bf16>($($arg),*),
            other => Err(candle_core::Error::UnsupportedDTypeForOp(other, $name).bt()),
        }
    };
}
pub(crate) use by_dtype;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
