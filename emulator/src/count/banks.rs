//! Shared memory: 32 banks of one word each.

use crate::exec::mem::lanes;
use crate::regs::LANES;

/// Bytes that the banks hand out in one wavefront.
const WAVEFRONT_BYTES: u32 = 128;
const WORD_BYTES: u32 = 4;

/// Wavefronts of a warp's request, and what it would take if no bank were asked for two words at once.
///
/// Lanes are served in phases of 128 bytes: all 32 lanes for up to 4 bytes each, half a warp for 8, a quarter for 16. A
/// phase takes as many wavefronts as the bank that is asked for most different words; with `one_by_one` lanes of the
/// same word count apart. Phases without a lane take none. (Hardware can serve two phases that read the same words at
/// once; this is not modelled, so that wavefronts are an upper bound.)
pub(crate) fn wavefronts(addresses: &[u64; LANES], mask: u32, bytes: u32, one_by_one: bool) -> (u32, u32) {
    let per_phase = (WAVEFRONT_BYTES / bytes.max(WORD_BYTES)).max(1);
    let (mut taken, mut ideal) = (0, 0);
    for first in (0..LANES as u32).step_by(per_phase as usize) {
        let part = mask & (!0u32 >> (LANES as u32 - per_phase)) << first;
        if part != 0 {
            ideal += 1;
            taken += phase(addresses, part, bytes.div_ceil(WORD_BYTES), one_by_one);
        }
    }
    (taken, ideal)
}

fn phase(addresses: &[u64; LANES], mask: u32, words: u32, one_by_one: bool) -> u32 {
    // Word plus one that a bank is asked for; usually there is only one.
    let mut asked = [0u32; LANES];
    let mut crowded = false;
    for l in lanes(mask) {
        let first = (addresses[l] / u64::from(WORD_BYTES)) as u32;
        for word in first..first + words {
            let bank = &mut asked[word as usize % LANES];
            crowded |= *bank != 0 && (*bank != word + 1 || one_by_one);
            *bank = word + 1;
        }
    }
    if crowded { crowded_phase(addresses, mask, words, one_by_one) } else { 1 }
}

#[inline(never)]
fn crowded_phase(addresses: &[u64; LANES], mask: u32, words: u32, one_by_one: bool) -> u32 {
    let mut all = [0u32; LANES];
    let mut count = 0;
    for l in lanes(mask) {
        let first = (addresses[l] / u64::from(WORD_BYTES)) as u32;
        for word in first..first + words {
            if one_by_one || !all[..count].contains(&word) {
                all[count] = word;
                count += 1;
            }
        }
    }
    let mut load = [0u32; LANES];
    for word in &all[..count] {
        load[*word as usize % LANES] += 1;
    }
    load.into_iter().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: u32, address: impl Fn(u64) -> u64) -> (u32, u32) {
        wavefronts(&std::array::from_fn(|l| address(l as u64)), !0, bytes, false)
    }

    #[test]
    fn words() {
        assert_eq!(of(4, |l| 1024 + 4 * l), (1, 1), "stride 1");
        assert_eq!(of(4, |l| 8 * l), (2, 1), "stride 2: 32 words on 16 banks");
        assert_eq!(of(4, |l| 12 * l), (1, 1), "stride 3: odd strides meet every bank once");
        assert_eq!(of(4, |l| 128 * l), (32, 1), "stride 32: one bank");
        assert_eq!(of(4, |l| 132 * l), (1, 1), "stride 33");
        assert_eq!(of(4, |_| 64), (1, 1), "broadcast");
        assert_eq!(of(4, |l| 128 * (l % 2)), (2, 1), "two words of one bank, each for many");
        assert_eq!(of(4, |l| 4 * (31 - l)), (1, 1), "backwards");
    }

    #[test]
    fn narrow_elements_share_words() {
        assert_eq!(of(2, |l| 2 * l), (1, 1));
        assert_eq!(of(1, |l| l), (1, 1));
        // Words 0, 2, 4 … 62.
        assert_eq!(of(2, |l| 8 * l), (2, 1));
    }

    #[test]
    fn vectors_go_in_phases() {
        assert_eq!(of(8, |l| 8 * l), (2, 2));
        assert_eq!(of(16, |l| 16 * l), (4, 4));
        // Rows of 128 bytes: within a phase of 8 lanes all are on banks 0 to 3.
        assert_eq!(of(16, |l| 128 * l), (32, 4));
        // Rows of 144 bytes: every row begins four banks further on.
        assert_eq!(of(16, |l| 144 * l), (4, 4));
        // Rows of 128 bytes, the 16-byte column exchanged by the row: the swizzle of GEMMs.
        assert_eq!(of(16, |l| 128 * l + 16 * (l % 8)), (4, 4));
        assert_eq!(of(8, |l| 16 * l), (4, 2), "16 lanes on 32 words of the even pairs of banks");
        assert_eq!(of(16, |_| 0), (4, 4));
    }

    #[test]
    fn only_phases_with_lanes_count() {
        let addresses = std::array::from_fn(|l| 16 * l as u64);
        assert_eq!(wavefronts(&addresses, 0x0000_00ff, 16, false), (1, 1));
        assert_eq!(wavefronts(&addresses, 0x0100_0001, 16, false), (2, 2));
        assert_eq!(wavefronts(&addresses, 1, 4, false), (1, 1));
    }

    #[test]
    fn atomics_on_one_word_take_turns() {
        let address = |f: fn(u64) -> u64| std::array::from_fn(|l| f(l as u64));
        assert_eq!(wavefronts(&address(|_| 0), !0, 4, true), (32, 1));
        assert_eq!(wavefronts(&address(|l| 4 * (l / 4)), !0, 4, true), (4, 1));
        assert_eq!(wavefronts(&address(|l| 4 * l), !0, 4, true), (1, 1));
    }
}
