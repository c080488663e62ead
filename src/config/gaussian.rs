//! Choices of the op `gaussian`.

/// The weight of a key at Euclidean pixel distance D, before normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// exp(−D² / 2σ²). Separable.
    #[default]
    Gaussian,
    /// exp(−(|Δy| + |Δx|) / σ). Separable.
    Manhattan,
    /// exp(−D / σ).
    Exponential,
    /// max(0, 1 − D / σ).
    Linear,
    /// 1 / (1 + D² / σ²).
    Cauchy,
}

impl Kernel {
    /// Every kernel, for tables of tests.
    pub const ALL: [Kernel; 5] =
        [Kernel::Gaussian, Kernel::Manhattan, Kernel::Exponential, Kernel::Linear, Kernel::Cauchy];

    /// Whether a map is the outer product of a map along y and one along x, so that two short passes do.
    pub const fn is_separable(self) -> bool {
        matches!(self, Kernel::Gaussian | Kernel::Manhattan)
    }

    /// The name in fixtures and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Gaussian => "gaussian",
            Kernel::Manhattan => "manhattan",
            Kernel::Exponential => "exponential",
            Kernel::Linear => "linear",
            Kernel::Cauchy => "cauchy",
        }
    }
}

/// What the weights of one query are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Norm {
    /// Their sum over the pixels that exist: every row of the map sums to 1, at borders too.
    #[default]
    Row,
    /// Nothing.
    None,
}

/// Settings of the op `gaussian`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GaussianConfig {
    /// The weight as a function of distance.
    pub kernel: Kernel,
    /// The normaliser.
    pub norm: Norm,
    /// Odd K: only keys with |Δy| and |Δx| ≤ (K − 1) / 2 exist. `None`: all of the map.
    pub window: Option<usize>,
}
