//! The exported functions by name and address, in the order of `functions.txt`.

use std::ffi::c_void;

include!(concat!(env!("OUT_DIR"), "/functions.rs"));

/// The address of an exported function.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Address(pub *const c_void);

// SAFETY: it is the address of code, which is the same for all threads and never changes.
unsafe impl Sync for Address {}

macro_rules! table {
    ($($name:ident)*) => {
        /// The names of all exported functions.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];
        /// Their addresses, laid out as the shims' jump table.
        pub static ADDRESSES: [Address; NAMES.len()] = [$(Address(crate::api::$name as *const c_void)),*];
    };
}

for_each_driver_function!(table);

/// Exported names with a version that came with some release of CUDA 11; all other versions are older.
const NEWER: &[(&str, u32)] =
    &[("cuStreamGetCaptureInfo_v2", 11_030), ("cuCtxCreate_v3", 11_040), ("cuDeviceGetUuid_v2", 11_040)];

/// The function that `cuGetProcAddress` has for a name without a version: the newest that is exported and was there in
/// a CUDA release.
pub fn find(name: &str, cuda_version: u32) -> Option<Address> {
    let known = |full: &str| NEWER.iter().all(|(n, since)| *n != full || *since <= cuda_version);
    ["_v3", "_v2", ""].iter().find_map(|version| {
        let position =
            NAMES.iter().position(|full| full.strip_suffix(version) == Some(name) && known(full))?;
        Some(ADDRESSES[position])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_means_the_newest_of_its_time() {
        let address = |name: &str, version| find(name, version).map(|a| a.0);
        let exported = |name: &str| NAMES.iter().position(|n| *n == name).map(|i| ADDRESSES[i].0);
        assert_eq!(address("cuMemAlloc", 11_080), exported("cuMemAlloc_v2"));
        assert_eq!(address("cuCtxCreate", 11_040), exported("cuCtxCreate_v3"));
        assert_eq!(address("cuCtxCreate", 11_030), exported("cuCtxCreate_v2"));
        assert_eq!(address("cuInit", 11_080), exported("cuInit"));
        assert_eq!(address("cuNoSuchThing", 11_080), None);
    }
}
