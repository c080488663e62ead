//! Device memory: allocations with exact lengths at widely separated addresses, usable from several threads.
//!
//! An allocation's number is in the upper bits of its addresses ([`STRIDE_BITS`]), so that looking one up is an
//! index and a stray address almost never lands in a neighbour. Bytes are atomics accessed with relaxed
//! ordering: blocks on several host threads may race as they do on a GPU, without undefined behaviour here.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::check::global::{LAUNCHES, Shadow};
use crate::error::MemoryError;

/// Addresses of different allocations differ at or above this bit.
pub(crate) const STRIDE_BITS: u32 = 36;
/// Every allocation begins in the middle of its range, so that addresses before it belong to it too.
const BASE_OFFSET: u64 = 1 << (STRIDE_BITS - 1);
/// Addresses of different devices differ at or above this bit; what is between is an allocation's number.
const DEVICE_BITS: u32 = 56;
/// Freed numbers are used again only when this many newer ones have been freed: late uses are then caught.
const QUARANTINE: usize = 4096;

/// Generic addresses of a block's shared memory begin here.
pub(crate) const SHARED_WINDOW: u64 = 0xff00_0000_0000_0000;
/// Generic addresses of a thread's local memory begin here.
pub(crate) const LOCAL_WINDOW: u64 = 0xfe00_0000_0000_0000;
/// Generic addresses of the kernel's parameters begin here.
pub(crate) const PARAM_WINDOW: u64 = 0xfd00_0000_0000_0000;

/// One allocation.
pub(crate) struct Allocation {
    /// Address of the first byte.
    pub base: u64,
    /// Exact length in bytes.
    pub len: u64,
    /// `.const` variables cannot be stored to by kernels.
    pub read_only: bool,
    words: Box<[AtomicU64]>,
    /// What the checks know of its bytes.
    pub shadow: Shadow,
}

impl Allocation {
    /// The first byte. Valid for relaxed atomic accesses of `len` bytes as long as the allocation lives.
    #[inline(always)]
    pub fn bytes(&self) -> *mut u8 {
        self.words.as_ptr().cast::<u8>().cast_mut()
    }

    pub fn byte(&self, offset: u64) -> &AtomicU8 {
        debug_assert!(offset < self.len);
        // SAFETY: in bounds; every byte of an atomic word may be accessed atomically, and no reference to a
        // plain byte exists anywhere.
        unsafe { AtomicU8::from_ptr(self.bytes().add(offset as usize)) }
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        let mut at = 0usize;
        while at < out.len() {
            let from = offset + at as u64;
            if from.is_multiple_of(8) && out.len() - at >= 8 {
                let word = self.words[(from / 8) as usize].load(Ordering::Relaxed);
                out[at..at + 8].copy_from_slice(&word.to_ne_bytes());
                at += 8;
            } else {
                out[at] = self.byte(from).load(Ordering::Relaxed);
                at += 1;
            }
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.shadow.write(offset, data.len() as u64);
        let mut at = 0usize;
        while at < data.len() {
            let to = offset + at as u64;
            if to.is_multiple_of(8) && data.len() - at >= 8 {
                let mut word = [0u8; 8];
                word.copy_from_slice(&data[at..at + 8]);
                self.words[(to / 8) as usize].store(u64::from_ne_bytes(word), Ordering::Relaxed);
                at += 8;
            } else {
                self.byte(to).store(data[at], Ordering::Relaxed);
                at += 1;
            }
        }
    }
}

/// Every live allocation, by number.
#[derive(Clone, Default)]
pub(crate) struct Table {
    /// Number of the first slot: the device's, in the bits above all allocation numbers.
    first: u64,
    slots: Vec<Option<Arc<Allocation>>>,
}

impl Table {
    /// Where the slot of an address is, if there is one.
    #[inline(always)]
    pub fn index(&self, address: u64) -> usize {
        (address >> STRIDE_BITS).wrapping_sub(self.first) as usize
    }

    /// The allocation that owns the address range around `address`, whether or not it is in bounds.
    #[inline(always)]
    pub fn owner(&self, address: u64) -> Option<&Allocation> {
        self.at(self.index(address))
    }

    /// The allocation in a slot.
    #[inline(always)]
    pub fn at(&self, number: usize) -> Option<&Allocation> {
        match self.slots.get(number) {
            Some(Some(allocation)) => Some(allocation),
            _ => None,
        }
    }

    /// Slots, empty ones too.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

#[derive(Default)]
struct State {
    table: Arc<Table>,
    freed: VecDeque<usize>,
}

/// The memory of a machine.
#[derive(Default)]
pub(crate) struct Memory {
    state: RwLock<State>,
    /// Launches with checks so far.
    launches: AtomicU64,
}

impl Memory {
    /// The memory of a device whose addresses are no other device's.
    pub fn of_device(device: u8) -> Memory {
        let first = u64::from(device) << (DEVICE_BITS - STRIDE_BITS);
        let table = Arc::new(Table { first, slots: Vec::new() });
        Memory { state: RwLock::new(State { table, freed: VecDeque::new() }), launches: AtomicU64::new(0) }
    }

    fn reading(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|poison| poison.into_inner())
    }

    fn writing(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|poison| poison.into_inner())
    }

    /// The allocations as they are now; they stay alive as long as the snapshot.
    pub fn snapshot(&self) -> Arc<Table> {
        self.reading().table.clone()
    }

    /// A launch without checks begins: it may write anything.
    pub fn launch_unchecked(&self) {
        for allocation in self.snapshot().slots.iter().flatten() {
            allocation.shadow.trust();
        }
    }

    /// A launch with checks begins. Returns its number, which is not 0.
    pub fn launch_checked(&self) -> u64 {
        let number = 1 + self.launches.fetch_add(1, Ordering::Relaxed) % (LAUNCHES - 1);
        if number == 1 {
            // Numbers come round again: marks of old launches must not be taken for this one's.
            for allocation in self.snapshot().slots.iter().flatten() {
                allocation.shadow.forget();
            }
        }
        number
    }

    pub fn alloc(&self, bytes: u64, read_only: bool) -> Result<u64, MemoryError> {
        if bytes > BASE_OFFSET - (1 << 20) {
            return Err(MemoryError::OutOfMemory { bytes });
        }
        let count = bytes.div_ceil(8) as usize;
        let mut words = Vec::new();
        words.try_reserve_exact(count).map_err(|_| MemoryError::OutOfMemory { bytes })?;
        // All ones is NaN in every float format: bytes that a kernel forgot to write are not mistaken for zeros.
        words.resize_with(count, || AtomicU64::new(!0));
        let mut state = self.writing();
        let reuse = if state.freed.len() > QUARANTINE { state.freed.pop_front() } else { None };
        let table = Arc::make_mut(&mut state.table);
        let number = reuse.unwrap_or_else(|| {
            if table.slots.is_empty() {
                table.slots.push(None); // number 0 holds the null pointer
            }
            table.slots.push(None);
            table.slots.len() - 1
        });
        let base = ((table.first + number as u64) << STRIDE_BITS) + BASE_OFFSET;
        table.slots[number] = Some(Arc::new(Allocation {
            base,
            len: bytes,
            read_only,
            words: words.into_boxed_slice(),
            shadow: Shadow::new(bytes),
        }));
        Ok(base)
    }

    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut state = self.writing();
        match state.table.owner(address) {
            Some(allocation) if allocation.base == address => {}
            _ => return Err(MemoryError::NotABase { address }),
        }
        let number = state.table.index(address);
        Arc::make_mut(&mut state.table).slots[number] = None;
        state.freed.push_back(number);
        Ok(())
    }

    fn range(&self, address: u64, bytes: u64) -> Result<(Arc<Allocation>, u64), MemoryError> {
        let state = self.reading();
        let slot = state.table.slots.get(state.table.index(address));
        let Some(Some(allocation)) = slot else { return Err(MemoryError::NotAllocated { address }) };
        let offset = address.wrapping_sub(allocation.base);
        if offset > allocation.len || bytes > allocation.len - offset {
            if offset >= allocation.len && (bytes == 0 || offset > allocation.len) {
                return Err(MemoryError::NotAllocated { address });
            }
            let (base, length) = (allocation.base, allocation.len);
            return Err(MemoryError::OutOfBounds { address, bytes, base, length });
        }
        Ok((allocation.clone(), offset))
    }

    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        if out.is_empty() {
            return Ok(());
        }
        let (allocation, offset) = self.range(address, out.len() as u64)?;
        allocation.read(offset, out);
        Ok(())
    }

    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        if data.is_empty() {
            return Ok(());
        }
        let (allocation, offset) = self.range(address, data.len() as u64)?;
        allocation.write(offset, data);
        Ok(())
    }

    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), MemoryError> {
        if count == 0 || pattern.is_empty() {
            return Ok(());
        }
        let total =
            (pattern.len() as u64).checked_mul(count).ok_or(MemoryError::OutOfMemory { bytes: !0 })?;
        let (allocation, offset) = self.range(address, total)?;
        // Whole chunks of the pattern, so that most of the range is written a word at a time.
        let repeat = (4096 / pattern.len()).max(1).min(count as usize);
        let chunk = pattern.repeat(repeat);
        let mut done = 0u64;
        while done < total {
            let n = (total - done).min(chunk.len() as u64);
            allocation.write(offset + done, &chunk[..n as usize]);
            done += n;
        }
        Ok(())
    }

    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), MemoryError> {
        if bytes == 0 {
            return Ok(());
        }
        let (source, source_offset) = self.range(from, bytes)?;
        let (target, target_offset) = self.range(to, bytes)?;
        // Overlapping ranges behave as memmove: from the end when the target lies behind the source.
        const CHUNK: u64 = 1 << 16;
        let mut buffer = vec![0u8; CHUNK.min(bytes) as usize];
        let chunks = bytes.div_ceil(CHUNK);
        for k in 0..chunks {
            let k = if to > from { chunks - 1 - k } else { k };
            let (at, n) = (k * CHUNK, CHUNK.min(bytes - k * CHUNK));
            let part = &mut buffer[..n as usize];
            source.read(source_offset + at, part);
            target.write(target_offset + at, part);
            target.shadow.inherit(target_offset + at, &source.shadow, source_offset + at, n);
        }
        Ok(())
    }

    pub fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        let (allocation, _) = self.range(address, 0).ok()?;
        Some((allocation.base, allocation.len))
    }
}
