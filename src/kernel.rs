//! The compiled kernels: a table that `build.rs` reads out of the PTX.

use crate::{Error, Result};

/// One compiled entry.
pub struct Kernel {
    /// The entry's symbol.
    pub name: &'static str,
    /// Bytes of its parameter struct.
    pub param_bytes: u32,
    /// Threads per block.
    pub threads: u32,
    /// The most dynamic shared memory that it uses.
    pub shared_bytes: u32,
}

/// Every entry of this build, sorted by name.
pub fn all() -> &'static [Kernel] {
    &[]
}

/// Why this build has no kernels, if it has none.
pub fn missing() -> Option<&'static str> {
    Some("build.rs does not compile them yet")
}

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Kernel> {
    let table = all();
    table.binary_search_by_key(&name, |k| k.name).ok().map(|i| &table[i])
}

impl Kernel {
    /// Its PTX text.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the embedded image does not inflate.
    pub fn ptx(&self) -> Result<String> {
        Err(Error::Kernel { kernel: self.name.into(), what: "has no image".into(), source: None })
    }
}
