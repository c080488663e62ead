//! Choices of the op `local`.

/// What a query near the border of the map does with the part of its window that lies outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Border {
    /// Keys outside do not exist: the average is over fewer pixels.
    #[default]
    Mask,
    /// Keys and values outside are zero vectors that take part in the softmax; relative positions still count there.
    Zero,
    /// The window is shifted inwards until it fits, as in neighbourhood attention. Odd windows only, and maps at least as
    /// large as the window times its dilation. Tables have 2K − 1 rows, for offsets −(K−1) to K−1.
    Shift,
}

impl Border {
    /// Every border rule, for tables of tests.
    pub const ALL: [Border; 3] = [Border::Mask, Border::Zero, Border::Shift];

    /// The name in fixtures and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Border::Mask => "mask",
            Border::Zero => "zero",
            Border::Shift => "shift",
        }
    }
}

/// A window around every query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sliding {
    /// Keys along y and x, 1 to 33 each. An even window has one more key after the query than before it.
    pub size: [usize; 2],
    /// Pixels from one key to the next along y and x, 1 or more.
    pub dilation: [usize; 2],
    /// The border rule.
    pub border: Border,
}

impl Sliding {
    /// A window of neighbouring pixels, masked at borders.
    pub const fn new(size: [usize; 2]) -> Self {
        Self { size, dilation: [1, 1], border: Border::Mask }
    }

    /// The same with other steps from key to key.
    pub const fn dilated(self, dilation: [usize; 2]) -> Self {
        Self { dilation, ..self }
    }

    /// The same with another border rule.
    pub const fn at_border(self, border: Border) -> Self {
        Self { border, ..self }
    }
}

impl Default for Sliding {
    /// 7×7 pixels, masked at borders.
    fn default() -> Self {
        Self::new([7, 7])
    }
}

/// A grid of blocks, whose queries share one window: all pixels of the block, and of a halo around it, inside the map. Blocks
/// that the border of the map cuts have fewer pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// Pixels of a block along y and x; with the halo on both sides at most 33.
    pub size: [usize; 2],
    /// Where the grid's lines are: a block begins at this pixel of the map. Less than the size; 0 cuts from the corner. Swin's
    /// cyclic shift by s, with its mask, is an offset of s.
    pub offset: [usize; 2],
    /// How many pixels further than the block its queries see, on every side.
    pub halo: [usize; 2],
}

impl Blocks {
    /// Blocks from the corner of the map on, without halo.
    pub const fn new(size: [usize; 2]) -> Self {
        Self { size, offset: [0, 0], halo: [0, 0] }
    }

    /// The same, the grid elsewhere.
    pub const fn offset_by(self, offset: [usize; 2]) -> Self {
        Self { offset, ..self }
    }

    /// The same with a halo.
    pub const fn with_halo(self, halo: [usize; 2]) -> Self {
        Self { halo, ..self }
    }
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// A window around every query.
    Sliding(Sliding),
    /// One window for all queries of a block.
    Blocks(Blocks),
}

impl Default for Window {
    /// 7×7 pixels around every query, masked at borders.
    fn default() -> Self {
        Self::Sliding(Sliding::default())
    }
}

impl From<Sliding> for Window {
    fn from(window: Sliding) -> Self {
        Self::Sliding(window)
    }
}

impl From<Blocks> for Window {
    fn from(window: Blocks) -> Self {
        Self::Blocks(window)
    }
}

impl Window {
    /// A window of neighbouring pixels around every query, masked at borders.
    pub const fn sliding(size: [usize; 2]) -> Self {
        Self::Sliding(Sliding::new(size))
    }

    /// Blocks from the corner of the map on, without halo.
    pub const fn blocks(size: [usize; 2]) -> Self {
        Self::Blocks(Blocks::new(size))
    }

    /// Keys that a query sees along y and x, if all exist.
    pub const fn keys(&self) -> [usize; 2] {
        match self {
            Self::Sliding(w) => w.size,
            Self::Blocks(w) => [widened(w, 0), widened(w, 1)],
        }
    }

    /// Rows of the tables of relative positions, and rows and columns of a bias: offsets of a key from a query that there
    /// can be, along y and x.
    pub const fn table_rows(&self) -> [usize; 2] {
        match self {
            Self::Sliding(Sliding { border: Border::Mask | Border::Zero, size, .. }) => *size,
            Self::Sliding(Sliding { border: Border::Shift, size, .. }) => {
                [(2 * size[0]).saturating_sub(1), (2 * size[1]).saturating_sub(1)]
            }
            Self::Blocks(w) => [block_rows(w, 0), block_rows(w, 1)],
        }
    }
}

const fn widened(blocks: &Blocks, axis: usize) -> usize {
    blocks.size[axis].saturating_add(blocks.halo[axis].saturating_mul(2))
}

const fn block_rows(blocks: &Blocks, axis: usize) -> usize {
    blocks.size[axis].saturating_add(blocks.halo[axis]).saturating_mul(2).saturating_sub(1)
}

/// How a row table and a column table make one relative position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Relative {
    /// The row's ⌊d/2⌋ channels, then the column's d − ⌊d/2⌋ (Ramachandran et al. 2019).
    #[default]
    Concat,
    /// Both have d channels and are added (as in HaloNet).
    Sum,
}

impl Relative {
    /// Channels of the row table and of the column table.
    pub const fn table_channels(self, d: usize) -> [usize; 2] {
        match self {
            Relative::Concat => [d / 2, d - d / 2],
            Relative::Sum => [d, d],
        }
    }
}

/// Settings of the op `local`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalConfig {
    /// Which keys a query sees.
    pub window: Window,
    /// Factor on the logits. The paper prints none (1); d^−½ is what transformers use.
    pub scale: f32,
    /// How the tables combine, when there are tables.
    pub relative: Relative,
}

impl Default for LocalConfig {
    /// A 7×7 window, scale 1, masked borders, concatenated tables: the form of the paper.
    fn default() -> Self {
        Self { window: Window::default(), scale: 1.0, relative: Relative::Concat }
    }
}

/// One slot of a query's window along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The row of the table that says its relative position.
    pub row: usize,
    /// The key's pixel; `None` outside the map with [`Border::Zero`].
    pub key: Option<usize>,
}

impl Window {
    /// The slots that pixel `i` attends to along an axis of `size` pixels. Those outside the map are left out, but with
    /// [`Border::Zero`].
    pub(crate) fn slots(
        &self,
        axis: usize,
        size: usize,
        i: usize,
    ) -> impl Iterator<Item = Slot> + Clone + use<> {
        let count = self.keys()[axis];
        let mut has_outside = false;
        // The first slot's key, in steps from pixel `residue`, and its row.
        let (step, residue, first, row) = match self {
            Self::Sliding(Sliding { size: _, dilation, border }) => {
                // Steps beyond the map are all alike.
                let step = dilation[axis].min(size).max(1);
                let (residue, own) = (i % step, i / step);
                let before = own as isize - ((count - 1) / 2) as isize;
                match border {
                    Border::Shift => {
                        let last = (size - residue).div_ceil(step).saturating_sub(count);
                        let first = before.clamp(0, last as isize);
                        (step, residue, first, (first - own as isize + count as isize - 1) as usize)
                    }
                    Border::Mask => (step, residue, before, 0),
                    Border::Zero => {
                        has_outside = true;
                        (step, residue, before, 0)
                    }
                }
            }
            Self::Blocks(blocks) => {
                let (start, w, halo) = (blocks.start(axis, i), blocks.size[axis], blocks.halo[axis]);
                let first = start - halo as isize;
                (1, 0, first, (first - i as isize + (w + halo) as isize - 1) as usize)
            }
        };
        (0..count).filter_map(move |a| {
            let key = (first + a as isize) * step as isize + residue as isize;
            let key = usize::try_from(key).ok().filter(|&key| key < size);
            (key.is_some() || has_outside).then_some(Slot { row: row + a, key })
        })
    }
}

impl Blocks {
    /// The first pixel of the block that holds pixel `i`; it may lie outside the map.
    pub(crate) fn start(&self, axis: usize, i: usize) -> isize {
        let (size, offset) = (self.size[axis] as isize, self.offset[axis] as isize);
        (i as isize - offset).div_euclid(size) * size + offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(window: impl Into<Window>, size: usize, i: usize) -> Vec<(usize, Option<usize>)> {
        window.into().slots(0, size, i).map(|s| (s.row, s.key)).collect()
    }

    fn sliding(window: usize, border: Border) -> Sliding {
        Sliding::new([window, 1]).at_border(border)
    }

    #[test]
    fn windows_at_borders() {
        assert_eq!(slots(sliding(3, Border::Mask), 5, 0), [(1, Some(0)), (2, Some(1))]);
        assert_eq!(slots(sliding(3, Border::Zero), 5, 0), [(0, None), (1, Some(0)), (2, Some(1))]);
        assert_eq!(slots(sliding(3, Border::Shift), 5, 0), [(2, Some(0)), (3, Some(1)), (4, Some(2))]);
        assert_eq!(slots(sliding(3, Border::Shift), 5, 4), [(0, Some(2)), (1, Some(3)), (2, Some(4))]);
        // An even window has one more key after the query than before it.
        let even = [(0, Some(3)), (1, Some(4)), (2, Some(5)), (3, Some(6))];
        assert_eq!(slots(sliding(4, Border::Mask), 9, 4), even);
        // A window larger than the map.
        assert_eq!(slots(sliding(7, Border::Mask), 2, 1), [(2, Some(0)), (3, Some(1))]);
    }

    #[test]
    fn dilated_windows_see_every_other_pixel() {
        let dilated = |border| sliding(3, border).dilated([2, 1]);
        assert_eq!(slots(dilated(Border::Mask), 7, 3), [(0, Some(1)), (1, Some(3)), (2, Some(5))]);
        assert_eq!(slots(dilated(Border::Zero), 7, 1), [(0, None), (1, Some(1)), (2, Some(3))]);
        // The odd pixels are 1, 3 and 5, and the even ones 0, 2, 4 and 6: each residue class is a map of its own.
        assert_eq!(slots(dilated(Border::Shift), 7, 5), [(0, Some(1)), (1, Some(3)), (2, Some(5))]);
        assert_eq!(slots(dilated(Border::Shift), 7, 0), [(2, Some(0)), (3, Some(2)), (4, Some(4))]);
        // Steps larger than the map.
        let far = |border| sliding(3, border).dilated([usize::MAX, 1]);
        assert_eq!(slots(far(Border::Mask), 7, 5), [(1, Some(5))]);
        assert_eq!(slots(far(Border::Zero), 7, 5), [(0, None), (1, Some(5)), (2, None)]);
    }

    #[test]
    fn blocks_share_their_pixels() {
        let swin = Blocks::new([3, 1]);
        assert_eq!(slots(swin, 8, 4), [(1, Some(3)), (2, Some(4)), (3, Some(5))]);
        // The last block is cut by the border.
        assert_eq!(slots(swin, 8, 7), [(1, Some(6)), (2, Some(7))]);
        // Lines at 1, 4, 7: the first block holds pixel 0 alone.
        let shifted = swin.offset_by([1, 0]);
        assert_eq!(slots(shifted, 8, 0), [(2, Some(0))]);
        assert_eq!(slots(shifted, 8, 3), [(0, Some(1)), (1, Some(2)), (2, Some(3))]);
        // Rows are key − query + 3 + 2 − 1.
        let halo = swin.with_halo([2, 0]);
        let own: Vec<_> = (1..8).map(|key| (key, Some(key))).collect();
        assert_eq!(slots(halo, 9, 4), own);
        assert_eq!(slots(halo, 9, 0), [(4, Some(0)), (5, Some(1)), (6, Some(2)), (7, Some(3)), (8, Some(4))]);
    }

    #[test]
    fn tables_have_a_row_for_every_offset() {
        let rows = |window: Window| (window.keys(), window.table_rows());
        assert_eq!(rows(Window::sliding([7, 4])), ([7, 4], [7, 4]));
        assert_eq!(rows(Sliding::new([7, 5]).at_border(Border::Shift).into()), ([7, 5], [13, 9]));
        assert_eq!(rows(Window::blocks([7, 4])), ([7, 4], [13, 7]));
        assert_eq!(rows(Blocks::new([8, 4]).with_halo([3, 0]).into()), ([14, 4], [21, 7]));
        // No window asks for a row that is not there.
        for window in [
            Window::sliding([4, 1]),
            Sliding::new([5, 1]).dilated([2, 1]).at_border(Border::Shift).into(),
            Blocks::new([4, 1]).offset_by([3, 0]).with_halo([5, 0]).into(),
        ] {
            let seen = (0..13).flat_map(|i| slots(window, 13, i)).map(|(row, _)| row).max();
            assert!(seen < Some(window.table_rows()[0]), "{window:?}: {seen:?}");
        }
    }
}
