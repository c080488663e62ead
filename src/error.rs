//! One error type, its variants grouped by who can act on them.

/// `Result` with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong. The text is a whole sentence with what was wanted and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller passed something that the op cannot mean.
    #[error("{op}: `{arg}` must be {want}, got {got}")]
    Input {
        /// The op, such as `gaussian`.
        op: &'static str,
        /// The argument or setting.
        arg: &'static str,
        /// What is allowed.
        want: String,
        /// What came.
        got: String,
    },
    /// The request makes sense, but this crate does not do it (on that device).
    #[error("{op}: {what}")]
    Unsupported {
        /// The op, such as `gaussian`.
        op: &'static str,
        /// What is missing, and what to do instead.
        what: String,
    },
    /// There is no NVIDIA driver on this machine.
    #[error(
        "no NVIDIA driver: none of {searched} could be loaded; install the driver, or use the `Cpu` device"
    )]
    NoDriver {
        /// The library names that were tried.
        searched: String,
    },
    /// This build of the crate holds no kernels.
    #[error("this build of macula has no CUDA kernels: {why}")]
    NoKernels {
        /// Why, and how to get them.
        why: String,
    },
    /// The driver refused a call that is not a kernel launch.
    #[error("CUDA device: {what}")]
    Device {
        /// What was being done, and the driver's words.
        what: String,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A kernel could not be loaded or launched.
    #[error("kernel {kernel}: {what}")]
    Kernel {
        /// The entry, such as `gaussian_fwd_f16`.
        kernel: String,
        /// What was being done, and the driver's words (with the compiler's log, where there is one).
        what: String,
        /// The driver's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Error {
    pub(crate) fn input(
        op: &'static str,
        arg: &'static str,
        want: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self::Input { op, arg, want: want.into(), got: got.to_string() }
    }

    pub(crate) fn unsupported(op: &'static str, what: impl Into<String>) -> Self {
        Self::Unsupported { op, what: what.into() }
    }
}
