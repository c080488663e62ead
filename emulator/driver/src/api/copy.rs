//! Copies and fills.

use crate::ffi::{HostPtr, driver_functions};
use crate::graph::Work;
use crate::memory::Place;
use crate::state::{Handle, state};
use crate::status::Error;
use crate::stream::StreamHandle;

/// How a call does its work: at once, or in a stream's turn.
#[derive(Clone, Copy)]
enum When {
    Now,
    In(StreamHandle),
}

/// Does work over a number of bytes, of which 0 is nothing to do.
fn submit(when: When, bytes: u64, work: Work) -> Result<(), Error> {
    let state = state()?;
    match when {
        When::Now if bytes == 0 => state.registry().current().map(|_| ()),
        When::Now => state.submit_synchronous(work),
        When::In(stream) => {
            let target = state.registry().stream(stream)?;
            check(&work)?;
            if bytes == 0 { Ok(()) } else { state.submit(target, work) }
        }
    }
}

/// What is wrong with work that may be done later is told now.
fn check(work: &Work) -> Result<(), Error> {
    match work {
        Work::Fill { to, pattern_bytes, .. } if !to.is_multiple_of(*pattern_bytes as u64) => {
            Err(Error::InvalidValue)
        }
        _ => Ok(()),
    }
}

fn copy(when: When, to: HostPtr, from: HostPtr, bytes: usize) -> Result<(), Error> {
    let state = state()?;
    let work = match (state.place(to), state.place(from)) {
        (Place::Device(to), Place::Device(from)) => Work::Copy { to, from, bytes: bytes as u64 },
        (Place::Device(to), Place::Host(from)) => Work::Write { to, from, bytes },
        (Place::Host(to), Place::Device(from)) => Work::Read { to, from, bytes },
        (Place::Host(to), Place::Host(from)) => Work::HostCopy { to, from, bytes },
    };
    submit(when, bytes as u64, work)
}

/// A copy between contexts; each must be one.
fn copy_peer(when: When, to: (u64, Handle), from: (u64, Handle), bytes: usize) -> Result<(), Error> {
    {
        let registry = state()?.registry();
        registry.context(to.1)?;
        registry.context(from.1)?;
    }
    submit(when, bytes as u64, Work::Copy { to: to.0, from: from.0, bytes: bytes as u64 })
}

fn fill<const N: usize>(when: When, to: u64, value: [u8; N], count: usize) -> Result<(), Error> {
    let mut pattern = [0; 4];
    pattern[..N].copy_from_slice(&value);
    submit(when, count as u64, Work::Fill { to, pattern, pattern_bytes: N, count: count as u64 })
}

driver_functions! {
    /// Each address tells whether it is of a device or of the host.
    fn cuMemcpy(to: HostPtr, from: HostPtr, bytes: usize) {
        copy(When::Now, to, from, bytes)
    }

    /// Each address tells whether it is of a device or of the host.
    fn cuMemcpyAsync(to: HostPtr, from: HostPtr, bytes: usize, stream: StreamHandle) {
        copy(When::In(stream), to, from, bytes)
    }

    /// As documented.
    fn cuMemcpyPeer(to: u64, to_context: Handle, from: u64, from_context: Handle, bytes: usize) {
        copy_peer(When::Now, (to, to_context), (from, from_context), bytes)
    }

    /// As documented.
    fn cuMemcpyPeerAsync(
        to: u64,
        to_context: Handle,
        from: u64,
        from_context: Handle,
        bytes: usize,
        stream: StreamHandle,
    ) {
        copy_peer(When::In(stream), (to, to_context), (from, from_context), bytes)
    }

    /// As documented.
    fn cuMemcpyHtoD_v2(to: u64, from: HostPtr, bytes: usize) {
        submit(When::Now, bytes as u64, Work::Write { to, from, bytes })
    }

    /// The host memory is read before the call returns, in a graph when that is launched.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: HostPtr, bytes: usize, stream: StreamHandle) {
        submit(When::In(stream), bytes as u64, Work::Write { to, from, bytes })
    }

    /// As documented.
    fn cuMemcpyDtoH_v2(to: HostPtr, from: u64, bytes: usize) {
        submit(When::Now, bytes as u64, Work::Read { to, from, bytes })
    }

    /// The host memory is written before the call returns, in a graph when that is launched.
    fn cuMemcpyDtoHAsync_v2(to: HostPtr, from: u64, bytes: usize, stream: StreamHandle) {
        submit(When::In(stream), bytes as u64, Work::Read { to, from, bytes })
    }

    /// As documented.
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        submit(When::Now, bytes as u64, Work::Copy { to, from, bytes: bytes as u64 })
    }

    /// As documented.
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: StreamHandle) {
        submit(When::In(stream), bytes as u64, Work::Copy { to, from, bytes: bytes as u64 })
    }

    /// As documented.
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        fill(When::Now, to, [value], count)
    }

    /// As documented.
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: StreamHandle) {
        fill(When::In(stream), to, [value], count)
    }

    /// As documented.
    fn cuMemsetD16_v2(to: u64, value: u16, count: usize) {
        fill(When::Now, to, value.to_le_bytes(), count)
    }

    /// As documented.
    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: StreamHandle) {
        fill(When::In(stream), to, value.to_le_bytes(), count)
    }

    /// As documented.
    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        fill(When::Now, to, value.to_le_bytes(), count)
    }

    /// As documented.
    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: StreamHandle) {
        fill(When::In(stream), to, value.to_le_bytes(), count)
    }
}
