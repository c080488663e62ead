//! The ops on the CPU: parallel and cache-blocked, on the rayon pool that the caller is in.

pub(crate) mod axial;
pub(crate) mod content;
pub(crate) mod gaussian;
pub(crate) mod gsa;
mod lanes;
pub(crate) mod local;
mod math;
mod matrix;
mod memory;
mod plane;
pub(crate) mod value_mixture;

/// Runs loops with the widest vectors that this machine has.
#[inline(always)]
fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
