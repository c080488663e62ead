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
    /// large as the window. Tables have 2K − 1 rows, for offsets −(K−1) to K−1.
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

    /// Rows of a table for windows of `window` pixels.
    pub const fn table_rows(self, window: usize) -> usize {
        match self {
            Border::Mask | Border::Zero => window,
            Border::Shift => 2 * window - 1,
        }
    }
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
    /// Window height and width in pixels, 1 to 33 each. An even one has one more pixel after the query than before it.
    pub window: [usize; 2],
    /// Factor on the logits. The paper prints none (1); d^−½ is what transformers use.
    pub scale: f32,
    /// The border rule.
    pub border: Border,
    /// How the tables combine, when there are tables.
    pub relative: Relative,
}

impl Default for LocalConfig {
    /// A 7×7 window, scale 1, masked borders, concatenated tables: the form of the paper.
    fn default() -> Self {
        Self { window: [7, 7], scale: 1.0, border: Border::Mask, relative: Relative::Concat }
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

impl LocalConfig {
    /// The slots that pixel `i` attends to along an axis of `size` pixels; those that [`Border::Mask`] hides are left out.
    pub(crate) fn slots(&self, axis: usize, size: usize, i: usize) -> impl Iterator<Item = Slot> + Clone {
        let (window, border) = (self.window[axis], self.border);
        let before = (window - 1) / 2;
        (0..window).filter_map(move |a| match border {
            Border::Shift => {
                let key = i.saturating_sub(before).min(size.saturating_sub(window)) + a;
                Some(Slot { row: key + window - 1 - i, key: Some(key) })
            }
            Border::Mask | Border::Zero => {
                let key = (i + a).checked_sub(before).filter(|&key| key < size);
                (key.is_some() || border == Border::Zero).then_some(Slot { row: a, key })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(window: usize, border: Border, size: usize, i: usize) -> Vec<(usize, Option<usize>)> {
        let config = LocalConfig { window: [window, 1], border, ..LocalConfig::default() };
        config.slots(0, size, i).map(|s| (s.row, s.key)).collect()
    }

    #[test]
    fn windows_at_borders() {
        assert_eq!(slots(3, Border::Mask, 5, 0), [(1, Some(0)), (2, Some(1))]);
        assert_eq!(slots(3, Border::Zero, 5, 0), [(0, None), (1, Some(0)), (2, Some(1))]);
        assert_eq!(slots(3, Border::Shift, 5, 0), [(2, Some(0)), (3, Some(1)), (4, Some(2))]);
        assert_eq!(slots(3, Border::Shift, 5, 4), [(0, Some(2)), (1, Some(3)), (2, Some(4))]);
        // An even window has one more key after the query than before it.
        assert_eq!(slots(4, Border::Mask, 9, 4), [(0, Some(3)), (1, Some(4)), (2, Some(5)), (3, Some(6))]);
        // A window larger than the map.
        assert_eq!(slots(7, Border::Mask, 2, 1), [(2, Some(0)), (3, Some(1))]);
    }
}
