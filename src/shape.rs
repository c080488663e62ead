//! How a tensor lies in memory: shape, strides in elements, offset.

use crate::{Error, Result};

/// Shape and strides, in elements. Strides may be 0 (a broadcast input) or negative (a flipped one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout<const R: usize> {
    /// Elements along each dimension.
    pub shape: [usize; R],
    /// Elements from one index to the next along each dimension.
    pub strides: [isize; R],
    /// Where index 0 of every dimension lies in the memory.
    pub offset: usize,
}

impl<const R: usize> Layout<R> {
    /// Row-major, without gaps, from the first element on.
    pub fn contiguous(shape: [usize; R]) -> Self {
        let mut strides = [1isize; R];
        for i in (0..R.saturating_sub(1)).rev() {
            strides[i] =
                strides[i + 1].saturating_mul(isize::try_from(shape[i + 1].max(1)).unwrap_or(isize::MAX));
        }
        Self { shape, strides, offset: 0 }
    }

    /// Any strides.
    pub fn strided(shape: [usize; R], strides: [isize; R], offset: usize) -> Self {
        Self { shape, strides, offset }
    }

    /// The same memory with its dimensions reordered: memory that holds `[b, y, x, h, d]` is seen as
    /// `[b, h, y, x, d]` through `.permute([0, 3, 1, 2, 4])`.
    ///
    /// An axis that is not below `R` is refused; so is one named twice.
    pub fn permute(&self, axes: [usize; R]) -> Result<Self> {
        let mut seen = [false; R];
        for a in axes {
            if a >= R || std::mem::replace(&mut seen[a], true) {
                return Err(Error::input(
                    "layout",
                    "axes",
                    format!("each of 0..{R} once"),
                    format!("{axes:?}"),
                ));
            }
        }
        Ok(Self {
            shape: axes.map(|a| self.shape[a]),
            strides: axes.map(|a| self.strides[a]),
            offset: self.offset,
        })
    }

    /// The number of elements; saturates.
    pub fn len(&self) -> usize {
        if self.is_empty() { 0 } else { self.shape.iter().fold(1, |n, &s| n.saturating_mul(s)) }
    }

    /// Whether a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Whether the strides are those of [`Layout::contiguous`]; strides of dimensions of size 1 do not matter.
    pub fn is_contiguous(&self) -> bool {
        let dense = Self::contiguous(self.shape);
        self.is_empty() || (0..R).all(|i| self.shape[i] == 1 || self.strides[i] == dense.strides[i])
    }

    /// The lowest and the highest element that any index reaches; `None` when there is no index.
    pub fn span(&self) -> Option<(i128, i128)> {
        if self.is_empty() {
            return None;
        }
        let (mut low, mut high) = (self.offset as i128, self.offset as i128);
        for i in 0..R {
            let reach = (self.shape[i] as i128 - 1) * self.strides[i] as i128;
            if reach < 0 { low += reach } else { high += reach }
        }
        Some((low, high))
    }

    /// The element of an index. The caller knows that the index is inside the shape and the layout inside memory.
    pub(crate) fn at(&self, index: [usize; R]) -> usize {
        let along = (0..R).map(|i| index[i] as isize * self.strides[i]).sum::<isize>();
        (self.offset as isize + along) as usize
    }

    /// Every index lies in `0..memory_len`, computed without overflow.
    pub(crate) fn check_within(&self, memory_len: usize) -> Result<()> {
        match self.span() {
            Some((low, high)) if low < 0 || high >= memory_len as i128 => Err(Error::input(
                "view",
                "layout",
                format!("inside the {memory_len} elements of its memory"),
                format!("elements {low}..={high}"),
            )),
            _ => Ok(()),
        }
    }

    /// No two indices share an element. Sorted by stride, each step must leap over everything below it: true of every
    /// permuted, sliced or padded tensor; stranger layouts that happen to be injective are refused too.
    pub(crate) fn check_injective(&self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut dims: Vec<_> = (0..R)
            .filter(|&i| self.shape[i] > 1)
            .map(|i| (self.strides[i].unsigned_abs(), self.shape[i]))
            .collect();
        dims.sort_unstable();
        let mut below = 0u128;
        for (stride, size) in dims {
            if (stride as u128) <= below {
                return Err(Error::input(
                    "view",
                    "layout",
                    "injective (an output may not map two indices to one element)",
                    format!("shape {:?}, strides {:?}", self.shape, self.strides),
                ));
            }
            below += stride as u128 * (size as u128 - 1);
        }
        Ok(())
    }
}

impl<const R: usize> From<[usize; R]> for Layout<R> {
    fn from(shape: [usize; R]) -> Self {
        Self::contiguous(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_counts_negative_strides() {
        let flipped = Layout::strided([3, 4], [4, -1], 3);
        assert_eq!(flipped.span(), Some((0, 11)));
        assert!(flipped.check_within(12).is_ok());
        assert!(flipped.check_within(11).is_err());
        assert!(Layout::strided([2], [isize::MAX], 0).check_within(10).is_err());
    }

    #[test]
    fn injective_means_no_shared_element() {
        assert!(Layout::contiguous([2, 3, 4]).check_injective().is_ok());
        assert!(Layout::contiguous([2, 3, 4]).permute([2, 0, 1]).unwrap().check_injective().is_ok());
        assert!(Layout::strided([2, 3], [3, -1], 2).check_injective().is_ok());
        assert!(Layout::strided([2, 3], [0, 1], 0).check_injective().is_err());
        assert!(Layout::strided([2, 3], [2, 1], 0).check_injective().is_err());
        assert!(Layout::strided([1, 3], [0, 1], 0).check_injective().is_ok());
    }

    #[test]
    fn permute_refuses_a_repeated_axis() {
        let text = Layout::contiguous([2, 3]).permute([0, 0]).unwrap_err().to_string();
        assert_eq!(text, "layout: `axes` must be each of 0..2 once, got [0, 0]");
    }
}
