//! The ops on the CPU: parallel and cache-blocked, on the rayon pool that the caller is in.

pub(crate) mod gaussian;
pub(crate) mod local;
