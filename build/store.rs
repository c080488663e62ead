//! A folder of finished images with an index: the form in which images are cached, and in which a published package
//! carries them (`ptx/`).
//!
//! ```text
//! ptx/index            hash …, toolchain …, then one line per entry
//! ptx/<entry>.deflate  the shipped text, compressed
//! ```
//!
//! A cached folder also holds `<entry>.ptx` and `<entry>.lineinfo.ptx`, which only tests read.

use std::fs;
use std::path::Path;

use crate::ptx;

/// One line of the index: what the host must know of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The symbol.
    pub name: String,
    /// Bytes of all parameters together.
    pub param_bytes: u32,
    /// Threads per block.
    pub threads: u32,
    /// Blocks per multiprocessor that the kernel was compiled for.
    pub min_blocks: u32,
    /// Dynamic shared memory.
    pub shared_bytes: u32,
    /// Static shared memory.
    pub static_shared_bytes: u32,
    /// `sm_80`, `sm_90a`.
    pub target: String,
    /// Bytes of the text before compression.
    pub ptx_bytes: usize,
    /// The `.cu` that it came from.
    pub source: String,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// What the images were made from.
    pub hash: String,
    /// What made them, such as `nvcc 13.0.88`.
    pub toolchain: String,
    /// One line per image.
    pub lines: Vec<Line>,
}

/// Ends the name of a compressed image.
pub const IMAGE: &str = "deflate";

/// The highest level: images are compressed once and read often.
const LEVEL: u8 = 10;

/// Writes the images of one `.cu` with their index into `folder`.
pub fn write(
    folder: &Path,
    hash: &str,
    toolchain: &str,
    source: &str,
    entries: &[ptx::Entry],
) -> Result<(), String> {
    let save = |name: String, bytes: &[u8]| {
        fs::write(folder.join(&name), bytes).map_err(|e| format!("{}: {e}", folder.join(&name).display()))
    };
    let mut lines = Vec::new();
    for entry in entries {
        let image = miniz_oxide::deflate::compress_to_vec(entry.shipped.as_bytes(), LEVEL);
        save(format!("{}.{IMAGE}", entry.name), &image)?;
        save(format!("{}.ptx", entry.name), entry.shipped.as_bytes())?;
        save(format!("{}.lineinfo.ptx", entry.name), entry.lineinfo.as_bytes())?;
        lines.push(Line {
            name: entry.name.clone(),
            param_bytes: entry.param_bytes,
            threads: entry.threads,
            min_blocks: entry.min_blocks,
            shared_bytes: entry.shared_bytes,
            static_shared_bytes: entry.static_shared_bytes,
            target: entry.target.clone(),
            ptx_bytes: entry.shipped.len(),
            source: source.to_owned(),
        });
    }
    let index = Index { hash: hash.to_owned(), toolchain: toolchain.to_owned(), lines };
    save("index".to_owned(), index.print().as_bytes())
}

impl Index {
    /// Reads `folder/index`; an index that cannot be read is none.
    pub fn load(folder: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(folder.join("index")).ok()?)
    }

    /// The text of an index.
    pub fn print(&self) -> String {
        let mut text = format!("hash {}\ntoolchain {}\n", self.hash, self.toolchain);
        for line in &self.lines {
            text.push_str(&format!(
                "{} {} {} {} {} {} {} {} {}\n",
                line.name,
                line.param_bytes,
                line.threads,
                line.min_blocks,
                line.shared_bytes,
                line.static_shared_bytes,
                line.target,
                line.ptx_bytes,
                line.source,
            ));
        }
        text
    }

    /// The inverse of [`Index::print`].
    pub fn parse(text: &str) -> Option<Self> {
        let mut rows = text.lines();
        let hash = rows.next()?.strip_prefix("hash ")?.to_owned();
        let toolchain = rows.next()?.strip_prefix("toolchain ")?.to_owned();
        let lines: Option<Vec<Line>> = rows.map(Line::parse).collect();
        Some(Self { hash, toolchain, lines: lines? })
    }
}

impl Line {
    fn parse(row: &str) -> Option<Self> {
        let mut words = row.splitn(9, ' ');
        Some(Self {
            name: words.next()?.to_owned(),
            param_bytes: words.next()?.parse().ok()?,
            threads: words.next()?.parse().ok()?,
            min_blocks: words.next()?.parse().ok()?,
            shared_bytes: words.next()?.parse().ok()?,
            static_shared_bytes: words.next()?.parse().ok()?,
            target: words.next()?.to_owned(),
            ptx_bytes: words.next()?.parse().ok()?,
            source: words.next()?.to_owned(),
        })
    }
}
