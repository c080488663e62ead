//! The compiled kernels: a table that `build.rs` reads out of the PTX.

use crate::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// One compiled entry. All of it comes from the PTX, so nothing here can drift from the kernel.
pub struct Kernel {
    /// The entry's symbol.
    pub name: &'static str,
    /// The file that it is written in, from the crate's root.
    pub source: &'static str,
    /// The compute capability that it was compiled for, major and minor.
    pub capability: (u32, u32),
    /// Whether it runs on that capability alone, not on newer ones.
    pub exact: bool,
    /// Bytes of its parameter struct.
    pub param_bytes: u32,
    /// Threads per block.
    pub threads: u32,
    /// Blocks per multiprocessor that its registers were bounded for.
    pub min_blocks: u32,
    /// The most dynamic shared memory that it uses, in bytes.
    pub shared_bytes: u32,
    /// Its static shared memory, in bytes.
    pub static_shared_bytes: u32,
    ptx_bytes: usize,
    image: &'static [u8],
}

/// Every entry of this build, sorted by name.
pub fn all() -> &'static [Kernel] {
    KERNELS
}

/// Why this build has no kernels and what to do about it, if it has none.
pub fn missing() -> Option<&'static str> {
    MISSING
}

/// What compiled the kernels, such as `nvcc 13.0.88`.
pub fn toolchain() -> Option<&'static str> {
    TOOLCHAIN
}

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Kernel> {
    KERNELS.binary_search_by(|kernel| kernel.name.cmp(name)).ok().map(|at| &KERNELS[at])
}

impl Kernel {
    /// Its PTX text.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the embedded image does not inflate to what was compressed.
    pub fn ptx(&self) -> Result<String> {
        let text = miniz_oxide::inflate::decompress_to_vec_with_limit(self.image, self.ptx_bytes).ok();
        let text =
            text.filter(|text| text.len() == self.ptx_bytes).and_then(|text| String::from_utf8(text).ok());
        text.ok_or_else(|| Error::Kernel {
            kernel: self.name.to_owned(),
            what: "the embedded PTX is damaged".to_owned(),
            source: None,
        })
    }

    /// Bytes that it takes in the binary.
    pub fn image_bytes(&self) -> usize {
        self.image.len()
    }

    /// Whether a GPU of this compute capability can run it.
    pub fn runs_on(&self, capability: (u32, u32)) -> bool {
        if self.exact { capability == self.capability } else { capability >= self.capability }
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("name", &self.name)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}
