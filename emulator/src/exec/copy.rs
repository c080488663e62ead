//! `cp.async`: copies from global to shared memory that become visible when waited for.

/// Copies of one warp that are not yet visible.
#[derive(Default)]
pub(crate) struct Pending;

impl Pending {
    pub fn clear(&mut self) {}
}
