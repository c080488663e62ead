//! Choices of the op `axial`.

/// The directions that attention runs along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Axes {
    /// Every pixel attends to its column.
    Columns,
    /// Every pixel attends to its row.
    Rows,
    /// Columns first, then rows over the result: every pixel reaches the whole map.
    #[default]
    ColumnsThenRows,
}

impl Axes {
    /// All choices, for tables of tests.
    pub const ALL: [Axes; 3] = [Axes::Columns, Axes::Rows, Axes::ColumnsThenRows];
}

/// Batch norm between columns and rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BatchNorm {
    /// None.
    #[default]
    None,
    /// With the caller's mean and variance.
    Eval,
    /// With mean and (biased) variance of this batch.
    Train,
}

/// Settings of the op `axial`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxialConfig {
    /// The directions.
    pub axes: Axes,
    /// Batch norm between columns and rows; only [`Axes::ColumnsThenRows`] has a place for it.
    pub norm: BatchNorm,
    /// What is added to the variance.
    pub epsilon: f32,
}

impl Default for AxialConfig {
    /// Columns, then rows, without batch norm; ε = 1e-5.
    fn default() -> Self {
        Self { axes: Axes::ColumnsThenRows, norm: BatchNorm::None, epsilon: 1e-5 }
    }
}
