//! What the checks found, in words.

use super::cells::Problem;
use super::clock::Stamp;
use super::global::Trouble;
use super::shared::Finding;
use crate::block::Block;
use crate::error::{Side, StopKind};
use crate::exec::mem::{Access, Kind};
use crate::warp::Warp;

fn verb(kind: Kind) -> &'static str {
    match kind {
        Kind::Read => "read",
        Kind::Write => "write",
        Kind::Copy => "copy",
        Kind::Atomic => "atomic",
    }
}

/// The other side of a race: where and who.
fn side(b: &Block, verb: &'static str, block: [u32; 3], flat: u32, several: bool, pc: u32) -> Side {
    let stop = b.describe(flat / 32, Some(flat % 32), pc, StopKind::Race, String::new());
    Side {
        verb,
        block,
        thread: stop.details.thread.unwrap_or_default(),
        several,
        line: stop.details.line,
        source: stop.details.source,
        instruction: stop.details.instruction,
    }
}

/// The other side of a race within a block.
fn racer(b: &Block, earlier: Stamp, wrote: bool) -> Side {
    let verb = match (earlier.is_atomic(), wrote) {
        (true, true) => "atomic",
        (_, true) => "write",
        (_, false) => "read",
    };
    side(b, verb, b.ctaid, earlier.thread(), earlier.is_many(), earlier.pc())
}

const UNORDERED: &str = "no bar.sync or warp sync orders them";

#[cold]
#[inline(never)]
pub(crate) fn shared(w: &Warp, b: &mut Block, access: &Access<'_>, finding: Finding) {
    let (bytes, at, lane) = (access.bytes, finding.offset, Some(finding.lane));
    let did = verb(access.kind);
    let (kind, text, other, note) = match finding.problem {
        Problem::Unwritten => {
            let text =
                format!("uninitialised shared memory {did} of {bytes} bytes: nothing has written byte {at}");
            return b.fault(w, lane, StopKind::Uninitialised, text);
        }
        Problem::InFlight { earlier } => (
            StopKind::InFlight,
            format!("use of shared memory that is still being copied, at byte {at}"),
            side(b, "copy", b.ctaid, earlier.thread(), false, earlier.pc()),
            "its thread has not waited for the cp.async",
        ),
        Problem::Race { earlier, wrote } => {
            (StopKind::Race, format!("shared memory race at byte {at}"), racer(b, earlier, wrote), UNORDERED)
        }
    };
    b.fault(w, lane, kind, text);
    if let Some(stop) = &mut b.stop {
        stop.details.verb = did;
        stop.details.other = Some(other);
        stop.details.notes.push(note.into());
    }
}

#[cold]
#[inline(never)]
pub(crate) fn global(w: &Warp, b: &mut Block, access: &Access<'_>, base: u64, len: u64, trouble: Trouble) {
    let did = verb(access.kind);
    match trouble {
        Trouble::Unwritten { lane, offset } => {
            let text = format!(
                "uninitialised global memory {did} of {} bytes: nothing has written byte {offset} of {len}",
                access.bytes
            );
            b.fault(w, Some(lane), StopKind::Uninitialised, text);
        }
        Trouble::Race { lane, offset, earlier, wrote } => {
            let [gx, gy, _] = b.launch.dims.grid.map(u64::from);
            let number = earlier.block();
            let block = [(number % gx) as u32, (number / gx % gy) as u32, (number / (gx * gy)) as u32];
            let several = !wrote && block == b.ctaid;
            let verb = if wrote { "write" } else { "read" };
            let other = side(b, verb, block, earlier.thread(), several, earlier.pc());
            let text =
                format!("global memory race between blocks at byte {offset} of {len} bytes at {base:#x}");
            b.fault(w, Some(lane), StopKind::Race, text);
            if let Some(stop) = &mut b.stop {
                stop.details.verb = did;
                stop.details.other = Some(other);
                stop.details.notes.push("blocks of one launch are not ordered".into());
            }
        }
        Trouble::Within { lane, offset, earlier, wrote } => {
            let other = racer(b, earlier, wrote);
            let text = format!("global memory race at byte {offset} of {len} bytes at {base:#x}");
            b.fault(w, Some(lane), StopKind::Race, text);
            if let Some(stop) = &mut b.stop {
                stop.details.verb = did;
                stop.details.other = Some(other);
                stop.details.notes.push(UNORDERED.into());
            }
        }
    }
}

/// A barrier for all threads of a block some of which have exited.
#[cold]
pub(crate) fn early_exit(w: &Warp, gone: &Warp, b: &mut Block, waiting: u32) {
    let lane = waiting.trailing_zeros() & 31;
    let pc = w.lane_pc[lane as usize].saturating_sub(1);
    let left = (gone.existing & !gone.alive).trailing_zeros() & 31;
    let text = "barrier for all threads of a block from which threads have exited".into();
    let mut stop = b.describe(w.id, Some(lane), pc, StopKind::EarlyExit, text);
    stop.details.verb = "wait";
    stop.details.other = Some(side(b, "exit", b.ctaid, gone.id * 32 + left, false, gone.exit_pc));
    b.stop = Some(stop);
}
