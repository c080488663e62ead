//! The CPU as a device.

use std::sync::Arc;

/// The CPU: every op, parallel, on rayon threads.
///
/// By default work runs on the pool that the calling thread is in: rayon's global one, or the caller's own inside
/// `pool.install(…)`. [`Cpu::with_pool`] ties a device to a pool instead.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Cpu {
    /// Runs on the pool that the calling thread is in.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs on `pool`, whatever thread calls.
    pub fn with_pool(pool: Arc<rayon::ThreadPool>) -> Self {
        Self { pool: Some(pool) }
    }

    /// Runs `work` where this device computes.
    pub(crate) fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}
