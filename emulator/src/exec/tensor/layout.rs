//! Which lane holds which element of a matrix.
//!
//! A fragment register holds for lane `l` (group `g = l / 4`, place `t = l % 4`) one 32-bit word: two 16-bit elements,
//! the first in the low half, or one of 32 bits. All layouts are built from two patterns:
//!
//! - *rows*: lane `l` has the words of row `g`, from the `t`-th on. The 32 lanes in order are then eight rows of four
//!   words (PTX ISA, *Matrix Fragments for `mma.m16n8k16`*, matrix A and C; *`ldmatrix`*).
//! - *columns*: the same with rows and columns exchanged (matrix B).

use crate::regs::LANES;

/// Words of one register over the lanes.
pub(super) type Words = [u32; LANES];

/// Rows or columns of a quadrant, and lanes that share one.
const GROUPS: usize = 8;
const PLACES: usize = LANES / GROUPS;

/// Where column `n` of B and C stands in a tile: even columns first, so that the first and the second element of an
/// accumulator's four lanes are neighbours. Columns do not meet in a product, so any order will do.
#[inline(always)]
pub(super) const fn position(n: usize) -> usize {
    n % 2 * PLACES + n / 2
}

/// Splits a word into its elements: two of 16 bits or one of 32.
#[inline(always)]
fn element<const PACKED: usize>(word: u32, k: usize) -> u32 {
    if PACKED == 2 { (word >> (16 * k)) & 0xffff } else { word }
}

/// Matrix A, 16 × K: register `q` holds the quadrant of rows `8 · (q % 2)` and columns from `q / 2` times a quadrant's
/// width, in the *rows* pattern.
#[inline(always)]
pub(super) fn gather_a<const PACKED: usize, const K: usize>(
    register: impl Fn(usize) -> Words,
) -> [[u32; K]; 16] {
    let mut tile = [[0; K]; 16];
    for q in 0..K / (2 * PACKED) {
        let words = register(q);
        let (top, left) = (q % 2 * GROUPS, q / 2 * PLACES * PACKED);
        for g in 0..GROUPS {
            for t in 0..PLACES {
                for k in 0..PACKED {
                    tile[top + g][left + PACKED * t + k] = element::<PACKED>(words[PLACES * g + t], k);
                }
            }
        }
    }
    tile
}

/// Matrix B, K × 8: register `q` holds the rows from `q` times a quadrant's height, in the *columns* pattern.
#[inline(always)]
pub(super) fn gather_b<const PACKED: usize, const K: usize>(
    register: impl Fn(usize) -> Words,
) -> [[u32; 8]; K] {
    let mut tile = [[0; 8]; K];
    for q in 0..K / (4 * PACKED) {
        let words = register(q);
        let top = q * PLACES * PACKED;
        for g in 0..GROUPS {
            for t in 0..PLACES {
                for k in 0..PACKED {
                    tile[top + PACKED * t + k][position(g)] = element::<PACKED>(words[PLACES * g + t], k);
                }
            }
        }
    }
    tile
}

/// Matrices C and D, 16 × 8: lane `l` has columns `2t` and `2t + 1` of rows `g` and `g + 8`; in 32-bit elements that are
/// four registers, in 16-bit ones two.
#[inline(always)]
pub(super) fn gather_c<const PACKED: usize>(register: impl Fn(usize) -> Words) -> [[u32; 8]; 16] {
    let mut tile = [[0; 8]; 16];
    for half in 0..2 {
        for parity in 0..2 {
            let words = register(if PACKED == 2 { half } else { 2 * half + parity });
            for g in 0..GROUPS {
                for t in 0..PLACES {
                    // Column 2t + parity.
                    tile[GROUPS * half + g][parity * PLACES + t] =
                        element::<PACKED>(words[PLACES * g + t], parity);
                }
            }
        }
    }
    tile
}

/// The inverse of [`gather_c`].
#[inline(always)]
pub(super) fn scatter_c<const PACKED: usize>(tile: &[[u32; 8]; 16], registers: &mut [Words]) {
    for half in 0..2 {
        for g in 0..GROUPS {
            let row = &tile[GROUPS * half + g];
            for t in 0..PLACES {
                let (even, odd) = (row[t], row[PLACES + t]);
                let lane = PLACES * g + t;
                if PACKED == 2 {
                    registers[half][lane] = even | odd << 16;
                } else {
                    (registers[2 * half][lane], registers[2 * half + 1][lane]) = (even, odd);
                }
            }
        }
    }
}

/// An 8 × 8 matrix of 16-bit elements as 32 words in the *rows* pattern, transposed.
#[inline(always)]
pub(super) fn transposed(words: &Words) -> Words {
    let mut out = [0; LANES];
    for g in 0..GROUPS {
        for t in 0..PLACES {
            // Lane (g, t) gets elements (2t, g) and (2t + 1, g) of the matrix, each in its word's half g % 2.
            let at = |row: usize| element::<2>(words[PLACES * row + g / 2], g % 2);
            out[PLACES * g + t] = at(2 * t) | at(2 * t + 1) << 16;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables of PTX ISA, *Matrix Fragments for mma*, typed in for four lanes (0, 1, 6 and 31) from the manual's
    /// formulas: (row, column) of each element a lane holds, in order.
    const LANES_SHOWN: [usize; 4] = [0, 1, 6, 31];
    /// m16n8k16, A: a0 … a7.
    const A_K16: [[(usize, usize); 8]; 4] = [
        [(0, 0), (0, 1), (8, 0), (8, 1), (0, 8), (0, 9), (8, 8), (8, 9)],
        [(0, 2), (0, 3), (8, 2), (8, 3), (0, 10), (0, 11), (8, 10), (8, 11)],
        [(1, 4), (1, 5), (9, 4), (9, 5), (1, 12), (1, 13), (9, 12), (9, 13)],
        [(7, 6), (7, 7), (15, 6), (15, 7), (7, 14), (7, 15), (15, 14), (15, 15)],
    ];
    /// m16n8k16, B: b0 … b3.
    const B_K16: [[(usize, usize); 4]; 4] = [
        [(0, 0), (1, 0), (8, 0), (9, 0)],
        [(2, 0), (3, 0), (10, 0), (11, 0)],
        [(4, 1), (5, 1), (12, 1), (13, 1)],
        [(6, 7), (7, 7), (14, 7), (15, 7)],
    ];
    /// C and D of every shape: c0 … c3.
    const C: [[(usize, usize); 4]; 4] = [
        [(0, 0), (0, 1), (8, 0), (8, 1)],
        [(0, 2), (0, 3), (8, 2), (8, 3)],
        [(1, 4), (1, 5), (9, 4), (9, 5)],
        [(7, 6), (7, 7), (15, 6), (15, 7)],
    ];
    /// m16n8k8 with .tf32, A: a0 … a3; m16n8k4 has the first two.
    const A_TF32: [[(usize, usize); 4]; 4] = [
        [(0, 0), (8, 0), (0, 4), (8, 4)],
        [(0, 1), (8, 1), (0, 5), (8, 5)],
        [(1, 2), (9, 2), (1, 6), (9, 6)],
        [(7, 3), (15, 3), (7, 7), (15, 7)],
    ];
    /// m16n8k8 with .tf32, B: b0, b1; m16n8k4 has the first.
    const B_TF32: [[(usize, usize); 2]; 4] =
        [[(0, 0), (4, 0)], [(1, 0), (5, 0)], [(2, 1), (6, 1)], [(3, 7), (7, 7)]];

    /// Registers in which element `e` of lane `l` is `100 l + e`.
    fn numbered<const PACKED: usize>(registers: usize) -> Vec<Words> {
        let word = |l: usize, q: usize| match PACKED {
            2 => (100 * l + 2 * q) as u32 | ((100 * l + 2 * q + 1) as u32) << 16,
            _ => (100 * l + q) as u32,
        };
        (0..registers).map(|q| std::array::from_fn(|l| word(l, q))).collect()
    }

    fn of(registers: &[Words]) -> impl Fn(usize) -> Words + '_ {
        |q| registers[q]
    }

    #[test]
    fn a_and_b_of_16_bits() {
        let a = gather_a::<2, 16>(of(&numbered::<2>(4)));
        let a_short = gather_a::<2, 8>(of(&numbered::<2>(2)));
        let b = gather_b::<2, 16>(of(&numbered::<2>(2)));
        let b_short = gather_b::<2, 8>(of(&numbered::<2>(1)));
        for (lane, l) in LANES_SHOWN.into_iter().enumerate() {
            for (e, (row, column)) in A_K16[lane].into_iter().enumerate() {
                assert_eq!(a[row][column], (100 * l + e) as u32, "A {row} {column}");
                // m16n8k8 has the first four elements.
                if e < 4 {
                    assert_eq!(a_short[row][column], (100 * l + e) as u32, "A k8 {row} {column}");
                }
            }
            for (e, (row, column)) in B_K16[lane].into_iter().enumerate() {
                assert_eq!(b[row][position(column)], (100 * l + e) as u32, "B {row} {column}");
                if e < 2 {
                    assert_eq!(b_short[row][position(column)], (100 * l + e) as u32, "B k8 {row} {column}");
                }
            }
        }
    }

    #[test]
    fn a_and_b_of_tf32() {
        let a = gather_a::<1, 8>(of(&numbered::<1>(4)));
        let a_short = gather_a::<1, 4>(of(&numbered::<1>(2)));
        let b = gather_b::<1, 8>(of(&numbered::<1>(2)));
        let b_short = gather_b::<1, 4>(of(&numbered::<1>(1)));
        for (lane, l) in LANES_SHOWN.into_iter().enumerate() {
            for (e, (row, column)) in A_TF32[lane].into_iter().enumerate() {
                assert_eq!(a[row][column], (100 * l + e) as u32, "A {row} {column}");
                if e < 2 {
                    assert_eq!(a_short[row][column], (100 * l + e) as u32, "A k4 {row} {column}");
                }
            }
            for (e, (row, column)) in B_TF32[lane].into_iter().enumerate() {
                assert_eq!(b[row][position(column)], (100 * l + e) as u32, "B {row} {column}");
                if e < 1 {
                    assert_eq!(b_short[row][position(column)], (100 * l + e) as u32, "B k4 {row} {column}");
                }
            }
        }
    }

    #[test]
    fn accumulators_both_ways() {
        let wide = numbered::<1>(4);
        let narrow = numbered::<2>(2);
        let (of_wide, of_narrow) = (gather_c::<1>(of(&wide)), gather_c::<2>(of(&narrow)));
        for (lane, l) in LANES_SHOWN.into_iter().enumerate() {
            for (e, (row, column)) in C[lane].into_iter().enumerate() {
                assert_eq!(of_wide[row][position(column)], (100 * l + e) as u32, "{row} {column}");
                assert_eq!(of_narrow[row][position(column)], (100 * l + e) as u32, "{row} {column}");
            }
        }
        let (mut wide_back, mut narrow_back) = ([[0; LANES]; 4], [[0; LANES]; 2]);
        scatter_c::<1>(&of_wide, &mut wide_back);
        scatter_c::<2>(&of_narrow, &mut narrow_back);
        assert_eq!(wide_back.as_slice(), wide);
        assert_eq!(narrow_back.as_slice(), narrow);
    }

    #[test]
    fn columns_have_distinct_positions() {
        let mut seen = [false; 8];
        for n in 0..8 {
            assert!(!std::mem::replace(&mut seen[position(n)], true));
        }
    }

    #[test]
    fn transposition() {
        // Element (row, column) is 10 · row + column, two a word.
        let pair = |first: usize, second: usize| first as u32 | (second as u32) << 16;
        let words: Words =
            std::array::from_fn(|l| pair(10 * (l / 4) + l % 4 * 2, 10 * (l / 4) + l % 4 * 2 + 1));
        let out = transposed(&words);
        // Lane 0: (0,0), (1,0). Lane 1: (2,0), (3,0). Lane 6: (4,1), (5,1). Lane 31: (6,7), (7,7).
        for (lane, first, second) in [(0, 0, 10), (1, 20, 30), (6, 41, 51), (31, 67, 77)] {
            assert_eq!(out[lane], pair(first, second), "lane {lane}");
        }
        assert_eq!(transposed(&out), words);
    }
}
