//! Checks beyond bounds and alignment: uninitialised reads, copies in flight, races.
//!
//! [`clock`] says what is ordered before what, [`cells`] remembers who accessed which byte of a block's memory
//! ([`shared`] its own, [`pages`] global memory) and [`global`] which blocks accessed it; [`report`] says what was found.
//! The choke points of [`crate::exec::mem`] call in here when a launch has checks; instructions that synchronise tell
//! the warp's clock.
//!
//! What is not found: conflicts between blocks that both use atomics that return a value, or volatile, relaxed or
//! stronger accesses (they may order each other so); races that a third unordered reader would have shown; everything
//! on paths that this launch did not take.

mod cells;
pub(crate) mod clock;
pub(crate) mod global;
mod pages;
pub(crate) mod report;
pub(crate) mod shared;

use std::sync::atomic::Ordering::Relaxed;

use crate::block::Block;
use crate::exec::mem::Access;
use crate::memory::Allocation;
use crate::warp::Warp;

/// An access to shared memory whose bounds are good. False if the launch must stop.
pub(crate) fn shared_access(w: &mut Warp, b: &mut Block, access: &Access<'_>) -> bool {
    let Some(shadow) = &mut b.shadow else { return true };
    match shadow.access(&w.clock, w.id, w.pc, access) {
        Ok(()) => true,
        Err(finding) => {
            report::shared(w, b, access, finding);
            false
        }
    }
}

/// An access inside one allocation. False if the launch must stop.
pub(crate) fn global_access(w: &Warp, b: &mut Block, access: &Access<'_>, owner: &Allocation) -> bool {
    let Some(shadow) = &mut b.shadow else { return true };
    let launch = &b.launch;
    let within = match owner.read_only {
        true => Ok(()),
        false => shadow.pages.access(&w.clock, w.id, w.pc, access),
    };
    if access.strong {
        // Atomics that return something, and ordered loads and stores.
        if let Some(block) = launch.communicates.get(shadow.block as usize) {
            block.store(true, Relaxed);
        }
    }
    let by = global::Accessor {
        launch: launch.number,
        block: shadow.block,
        warp: w.id,
        pc: w.pc,
        communicates: &launch.communicates,
    };
    let within = within.map_err(|(lane, at, earlier, wrote)| global::Trouble::Within {
        lane,
        offset: at - owner.base,
        earlier,
        wrote,
    });
    match owner.shadow.access(owner.base, owner.read_only, by, access).and(within) {
        Ok(()) => true,
        Err(trouble) => {
            report::global(w, b, access, owner.base, owner.len, trouble);
            false
        }
    }
}

/// A lane's copy has become visible to it.
pub(crate) fn landed(w: &Warp, b: &mut Block, lane: u32, offset: u32, bytes: u32) {
    if let Some(shadow) = &mut b.shadow {
        shadow.land(offset, bytes, w.id * 32 + lane, w.clock.time);
    }
}

/// Some lanes arrive at a barrier.
pub(crate) fn arrive(w: &mut Warp, b: &mut Block, barrier: usize) {
    if let Some(shadow) = &mut b.shadow {
        w.clock.release(&mut shadow.joins[barrier]);
    }
}
