//! Where every access to memory passes: bounds, alignment, and the place for checks and counters.
//!
//! An [`Access`] describes what all lanes of an instruction do. The function of the space resolves it to host
//! pointers, or stops the launch and returns `None`. The pointers are valid for relaxed atomic accesses of
//! `bytes` bytes until the next instruction.

use crate::block::{Block, SHARED_BASE};
use crate::check;
use crate::count;
use crate::error::StopKind;
use crate::memory::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::regs::LANES;
use crate::warp::Warp;

/// What an access does to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Read,
    Write,
    /// Writes later, when it is waited for.
    Copy,
    /// Reads and writes as one step.
    Atomic,
}

/// One instruction's access: the same for all lanes but for the address.
#[derive(Clone, Copy)]
pub(crate) struct Access<'a> {
    pub kind: Kind,
    /// Lanes that take part.
    pub mask: u32,
    /// Address of each lane in the space's own numbering (shared: as `cvta.to.shared` gives it).
    pub addresses: &'a [u64; LANES],
    /// Bytes per lane, contiguous; also the alignment they need.
    pub bytes: u32,
    /// Synchronises with other strong accesses: atomics that return a value, and what is volatile, relaxed or stronger.
    pub strong: bool,
    /// The lanes of the warp do it together.
    pub collective: bool,
}

impl<'a> Access<'a> {
    /// A plain access.
    #[inline(always)]
    pub fn new(kind: Kind, mask: u32, addresses: &'a [u64; LANES], bytes: u32) -> Access<'a> {
        Access { kind, mask, addresses, bytes, strong: false, collective: false }
    }
}

/// A host pointer per lane; null for lanes outside the mask.
pub(crate) type Pointers = [*mut u8; LANES];

/// Lanes of a mask, lowest first.
pub(crate) fn lanes(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let l = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(l)
    })
}

/// The first lane of the mask whose access is misaligned or ends above `len`, addresses counted from `base`.
#[inline(always)]
fn outside(access: &Access<'_>, base: u64, len: u64) -> u32 {
    let (bytes, low) = (access.bytes as u64, access.bytes as u64 - 1);
    let mut bad = 0u32;
    // `len < bytes` leaves no valid offset; otherwise offsets 0..=last are valid.
    let last = if len < bytes { 0 } else { len - bytes + 1 };
    for l in 0..LANES {
        let offset = access.addresses[l].wrapping_sub(base);
        bad |= ((offset >= last || access.addresses[l] & low != 0) as u32) << l;
    }
    bad & access.mask
}

#[cold]
#[inline(never)]
fn refuse(w: &Warp, b: &mut Block, access: &Access<'_>, lane: u32, space: &str, owner: Option<(u64, u64)>) {
    let address = access.addresses[lane as usize];
    let (bytes, verb) = (
        access.bytes,
        match access.kind {
            Kind::Read => "read",
            Kind::Write | Kind::Copy => "write",
            Kind::Atomic => "atomic access",
        },
    );
    let inside = |(base, len): (u64, u64)| address >= base && address - base + bytes as u64 <= len;
    if owner.is_some_and(inside) || (owner.is_none() && !address.is_multiple_of(bytes as u64)) {
        let text = format!("misaligned {space} {verb} of {bytes} bytes at {address:#x}");
        b.fault(w, Some(lane), StopKind::Misaligned, text);
        return;
    }
    let place = match owner {
        None => "in no allocation".to_string(),
        Some((base, len)) if address >= base && address - base >= len => {
            format!("{} bytes behind the end of {len} bytes at {base:#x}", address - base - len)
        }
        Some((base, len)) if address >= base => {
            format!(
                "the last {} bytes lie behind the end of {len} bytes at {base:#x}",
                address - base + bytes as u64 - len
            )
        }
        Some((base, len)) => format!("{} bytes before {len} bytes at {base:#x}", base - address),
    };
    let text = format!("out-of-bounds {space} {verb} of {bytes} bytes at {address:#x}: {place}");
    b.fault(w, Some(lane), StopKind::OutOfBounds, text);
}

/// Offsets from one host pointer; lanes outside the mask get null.
#[inline(always)]
fn pointers(host: *mut u8, base: u64, access: &Access<'_>) -> Pointers {
    let mut out = [std::ptr::null_mut(); LANES];
    for l in 0..LANES {
        if access.mask >> l & 1 != 0 {
            out[l] = host.wrapping_add(access.addresses[l].wrapping_sub(base) as usize);
        }
    }
    out
}

/// Shared memory of the block.
#[inline(always)]
pub(crate) fn shared<const SAN: bool, const COUNT: bool>(
    w: &mut Warp,
    b: &mut Block,
    access: Access<'_>,
) -> Option<Pointers> {
    let (base, len) = (SHARED_BASE as u64, b.shared.len() as u64);
    let bad = outside(&access, base, len);
    if bad != 0 {
        refuse(w, b, &access, bad.trailing_zeros(), "shared", Some((base, len)));
        return None;
    }
    if SAN && !check::shared_access(w, b, &access) {
        return None;
    }
    if COUNT {
        count::shared(&mut b.tally, w.pc, &access);
    }
    Some(pointers(b.shared.as_mut_ptr(), base, &access))
}

/// Global memory, which `.const` variables are part of.
#[inline(always)]
pub(crate) fn global<const SAN: bool, const COUNT: bool>(
    w: &mut Warp,
    b: &mut Block,
    access: Access<'_>,
) -> Option<Pointers> {
    let first = access.addresses[(access.mask.trailing_zeros() & 31) as usize];
    // All lanes in the first lane's allocation is the rule; anything else takes the slow way.
    if let Some(owner) = b.launch.memory.owner(first)
        && outside(&access, owner.base, owner.len) == 0
        && !(owner.read_only && access.kind != Kind::Read)
    {
        let found = pointers(owner.bytes(), owner.base, &access);
        if COUNT && !owner.read_only {
            count::global(&mut b.tally, &b.launch, w.pc, &access);
        }
        return if SAN && !checked(w, b, &access) { None } else { Some(found) };
    }
    global_scattered::<SAN, COUNT>(w, b, &access)
}

/// The checks of an access inside the first lane's allocation.
#[inline(never)]
fn checked(w: &Warp, b: &mut Block, access: &Access<'_>) -> bool {
    let memory = b.launch.memory.clone();
    let first = access.addresses[(access.mask.trailing_zeros() & 31) as usize];
    memory.owner(first).is_none_or(|owner| check::global_access(w, b, access, owner))
}

#[cold]
#[inline(never)]
fn global_scattered<const SAN: bool, const COUNT: bool>(
    w: &mut Warp,
    b: &mut Block,
    access: &Access<'_>,
) -> Option<Pointers> {
    let mut out = [std::ptr::null_mut(); LANES];
    let memory = b.launch.memory.clone();
    for l in lanes(access.mask) {
        let one = Access { mask: 1 << l, ..*access };
        let owner = memory.owner(access.addresses[l]);
        let range = owner.map(|owner| (owner.base, owner.len));
        match owner {
            Some(owner) if outside(&one, owner.base, owner.len) == 0 => {
                if owner.read_only && access.kind != Kind::Read {
                    let text = format!("store to constant memory at {:#x}", access.addresses[l]);
                    b.fault(w, Some(l as u32), StopKind::ReadOnly, text);
                    return None;
                }
                if SAN && !check::global_access(w, b, &one, owner) {
                    return None;
                }
                out[l] = pointers(owner.bytes(), owner.base, &one)[l];
            }
            _ => {
                refuse(w, b, &one, l as u32, "global", range);
                return None;
            }
        }
    }
    if COUNT {
        count::global(&mut b.tally, &b.launch, w.pc, access);
    }
    Some(out)
}

/// Local memory: every lane has its own.
#[inline(always)]
pub(crate) fn local<const SAN: bool, const COUNT: bool>(
    w: &mut Warp,
    b: &mut Block,
    access: Access<'_>,
) -> Option<Pointers> {
    let len = w.local_bytes as u64;
    let bad = outside(&access, 0, len);
    if bad != 0 {
        refuse(w, b, &access, bad.trailing_zeros(), "local", Some((0, len)));
        return None;
    }
    let host: *mut u8 = w.local.as_mut_ptr().cast();
    let mut out = [std::ptr::null_mut(); LANES];
    for l in lanes(access.mask) {
        out[l] = host.wrapping_add(l * len as usize + access.addresses[l] as usize);
    }
    Some(out)
}

/// The kernel's parameters.
#[inline(always)]
pub(crate) fn param<const SAN: bool, const COUNT: bool>(
    w: &mut Warp,
    b: &mut Block,
    access: Access<'_>,
) -> Option<Pointers> {
    let len = b.params.len() as u64;
    let bad = outside(&access, 0, len);
    if bad != 0 {
        refuse(w, b, &access, bad.trailing_zeros(), "parameter", Some((0, len)));
        return None;
    }
    if access.kind != Kind::Read {
        let lane = access.mask.trailing_zeros();
        b.fault(w, Some(lane), StopKind::ReadOnly, "store to parameter memory".into());
        return None;
    }
    Some(pointers(b.params.as_mut_ptr(), 0, &access))
}

/// A generic address: each lane's window says which space it is.
#[inline(always)]
pub(crate) fn generic<const SAN: bool, const COUNT: bool>(
    w: &mut Warp,
    b: &mut Block,
    access: Access<'_>,
) -> Option<Pointers> {
    let mut windowed = 0u32;
    for l in 0..LANES {
        windowed |= ((access.addresses[l] >= PARAM_WINDOW) as u32) << l;
    }
    if windowed & access.mask == 0 {
        return global::<SAN, COUNT>(w, b, access);
    }
    generic_windows::<SAN, COUNT>(w, b, access)
}

#[inline(never)]
fn generic_windows<const SAN: bool, const COUNT: bool>(
    w: &mut Warp,
    b: &mut Block,
    access: Access<'_>,
) -> Option<Pointers> {
    let mut out = [std::ptr::null_mut(); LANES];
    for window in [0, PARAM_WINDOW, LOCAL_WINDOW, SHARED_WINDOW] {
        let mut mask = 0;
        let mut addresses = *access.addresses;
        for l in lanes(access.mask) {
            let own = match addresses[l] {
                a if a >= SHARED_WINDOW => SHARED_WINDOW,
                a if a >= LOCAL_WINDOW => LOCAL_WINDOW,
                a if a >= PARAM_WINDOW => PARAM_WINDOW,
                _ => 0,
            };
            if own == window {
                mask |= 1 << l;
                addresses[l] -= window;
            }
        }
        if mask == 0 {
            continue;
        }
        let part = Access { mask, addresses: &addresses, ..access };
        let found = match window {
            SHARED_WINDOW => shared::<SAN, COUNT>(w, b, part),
            LOCAL_WINDOW => local::<SAN, COUNT>(w, b, part),
            PARAM_WINDOW => param::<SAN, COUNT>(w, b, part),
            _ => global::<SAN, COUNT>(w, b, part),
        }?;
        for l in lanes(mask) {
            out[l] = found[l];
        }
    }
    Some(out)
}
