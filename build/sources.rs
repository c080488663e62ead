//! The kernel sources: what there is to compile, and a hash that names exactly this text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Everything under `kernels/`, by its path from the crate's root with forward slashes.
pub struct Sources {
    /// The crate's root.
    pub root: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
}

impl Sources {
    /// Reads `kernels/` under `root`; a missing folder is an empty one.
    pub fn read(root: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        let folder = root.join("kernels");
        if folder.is_dir() {
            read_folder(&folder, "kernels", &mut files).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        Ok(Self { root: root.to_owned(), files })
    }

    /// Every `.cu`, sorted.
    pub fn units(&self) -> Vec<&str> {
        self.files.keys().filter(|path| path.ends_with(".cu")).map(String::as_str).collect()
    }

    /// The bytes of one file.
    pub fn bytes(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// Names the text of all files together with what else decides the output.
    pub fn hash(&self, others: &[&str]) -> String {
        let mut hash = Hash::new();
        others.iter().for_each(|other| hash.add(other.as_bytes()));
        for (path, bytes) in &self.files {
            hash.add(path.as_bytes());
            hash.add_text(bytes);
        }
        hash.hex()
    }
}

fn read_folder(folder: &Path, name: &str, files: &mut BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_folder(&entry.path(), &path, files)?;
        } else if [".cu", ".cuh", ".h"].iter().any(|end| path.ends_with(end)) {
            files.insert(path, fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// FNV-1a of 128 bits: names texts that nobody forges, the same on every machine and with every compiler.
pub struct Hash(u128);

impl Hash {
    /// The hash of nothing.
    pub fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    /// Adds one field; its length goes in too, so that fields cannot run together.
    pub fn add(&mut self, bytes: &[u8]) {
        self.add_raw(bytes.iter().copied());
        self.add_raw((bytes.len() as u64).to_le_bytes().into_iter());
    }

    /// Adds a text file; a checkout that turned line ends into CR LF gives the same hash.
    pub fn add_text(&mut self, bytes: &[u8]) {
        let text: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
        self.add(&text);
    }

    fn add_raw(&mut self, bytes: impl Iterator<Item = u8>) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    /// The hash as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.0)
    }
}
