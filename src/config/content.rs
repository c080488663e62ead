//! Choices of the op `content`.

/// A map of keys and queries to weights that are not negative, for linear attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FeatureMap {
    /// elu(x) + 1 (Katharopoulos et al. 2020).
    EluPlusOne,
    /// max(0, x).
    Relu,
}

/// How keys and queries become weights, and what the output is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Keys: softmax over all positions, per channel. Queries as they are (GSA), or softmax over the channels of each
    /// position (efficient attention).
    Softmax {
        /// Whether queries are normalised.
        norm_queries: bool,
    },
    /// Keys and queries as they are; divided by the number of key positions (the dot-product form of non-local networks).
    DotProduct,
    /// Keys and queries through a feature map; divided by φ(q_i) · Σ_j φ(k_j) + ε.
    Linear(FeatureMap),
}

impl Form {
    /// Every form, for tables of tests.
    pub const ALL: [Form; 5] = [
        Form::Softmax { norm_queries: false },
        Form::Softmax { norm_queries: true },
        Form::DotProduct,
        Form::Linear(FeatureMap::EluPlusOne),
        Form::Linear(FeatureMap::Relu),
    ];

    /// ε of [`Form::Linear`].
    pub const EPSILON: f32 = 1e-6;

    /// What a summary of so many keys is multiplied with while queries read it, and what divides by it too, so that it cannot
    /// leave the range of 16 bits. The other forms divide by a sum before.
    pub(crate) fn shrink(self, keys: usize) -> f32 {
        match self {
            Form::Linear(_) => 0.5f32.powi(keys.max(1).ilog2() as i32),
            _ => 1.0,
        }
    }
}

impl Default for Form {
    /// That of GSA.
    fn default() -> Self {
        Form::Softmax { norm_queries: false }
    }
}

/// Settings of the op `content`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContentConfig {
    /// How keys and queries become weights.
    pub form: Form,
}
