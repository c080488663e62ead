//! Visual attention, fused: Gaussian-radius maps, windowed local attention with relative positions, axial positional
//! attention and global content attention, forward **and backward**, as CUDA kernels with a CPU device beside them.
//!
//! ```
//! use macula::{Cpu, Gaussian, Tensor};
//!
//! let device = Cpu::new();
//! // One image, one head, a 16×16 map of 8 channels, and a radius of two pixels.
//! let v = Tensor::from_vec(vec![1.0f32; 16 * 16 * 8], [1, 1, 16, 16, 8])?;
//! let sigma = Tensor::from_vec(vec![2.0f32], [1])?;
//! let o = Gaussian::default().forward(&device, &v, &sigma)?;
//! assert_eq!(o.shape(), [1, 1, 16, 16, 8]);
//! # Ok::<(), macula::Error>(())
//! ```

pub mod config;
mod cpu;
mod device;
mod dtype;
mod error;
pub mod guide;
pub mod kernel;
pub mod ops;
pub mod plan;
pub mod reference;
mod shape;
mod tensor;

pub use config::axial::AxialConfig;
pub use config::content::ContentConfig;
pub use config::gaussian::GaussianConfig;
pub use config::gsa::GsaConfig;
pub use config::local::LocalConfig;
#[cfg(feature = "cuda")]
pub use device::Cuda;
pub use device::{Cpu, Device};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
pub use ops::axial::{self, Axial};
pub use ops::content::{self, Content};
pub use ops::gaussian::{self, Gaussian};
pub use ops::gsa::{self, Gsa};
pub use ops::local::{self, Local};
pub use ops::value_mixture::{self, ValueMixture};
pub use plan::{Cost, Gpu, Launch, Plan};
pub use shape::Layout;
pub use tensor::{Mem, MemMut, Tensor, View, ViewMut, Workspace};

/// The cudarc whose types this crate takes: a new cudarc minor version is a new minor version of macula.
#[cfg(feature = "cuda")]
pub use cudarc;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
