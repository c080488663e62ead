#![doc = include_str!("../README.md")]

mod api;
mod context;
mod driver;
mod ffi;
mod functions;
mod graph;
mod image;
mod install;
mod journal;
mod launch;
mod memory;
mod module;
mod occupancy;
mod profile;
mod settings;
mod state;
mod status;
mod stream;

pub use driver::Driver;
pub use install::{InstallError, install};
pub use journal::{Launch, Stopped};
pub use profile::DEVICE_NAME;
pub use ptx_emulator;
pub use settings::{BadVariable, Scope, Settings};

/// The exported driver functions themselves, for the shared library that is made of them.
#[doc(hidden)]
pub mod exports {
    pub use crate::api::*;
}
