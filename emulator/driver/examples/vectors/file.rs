//! The file of a recording: a head in words, then what each form gave, compressed.

use std::io::{self, Write};
use std::path::Path;

/// What a device gave for one form: the results' bytes, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vector {
    pub name: String,
    /// Of the kernel and its inputs: other ones need another recording.
    pub hash: u64,
    pub results: Vec<u8>,
}

/// What a device gave for all forms that it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// The device's name, and the driver's version.
    pub device: String,
    pub driver: i32,
    /// Compute capability × 10.
    pub capability: u32,
    /// How its tensor cores add: `exact` for the look-alike, else `hardware`.
    pub tensor: String,
    pub vectors: Vec<Vector>,
}

const MAGIC: &str = "ptx vectors 1";
const LEVEL: u8 = 9;

impl Recording {
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut body = Vec::new();
        for vector in &self.vectors {
            body.extend((vector.name.len() as u32).to_le_bytes());
            body.extend(vector.name.as_bytes());
            body.extend(vector.hash.to_le_bytes());
            body.extend((vector.results.len() as u32).to_le_bytes());
            body.extend(&vector.results);
        }
        let mut file = std::fs::File::create(path)?;
        let Recording { device, driver, capability, tensor, .. } = self;
        write!(
            file,
            "{MAGIC}\ndevice {device}\ndriver {driver}\ncapability {capability}\ntensor {tensor}\n\n"
        )?;
        file.write_all(&miniz_oxide::deflate::compress_to_vec(&body, LEVEL))
    }

    pub fn read(path: &Path) -> Result<Recording, String> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Recording::parse(&bytes).ok_or_else(|| format!("{}: not a recording", path.display()))
    }

    fn parse(bytes: &[u8]) -> Option<Recording> {
        let end = bytes.windows(2).position(|two| two == b"\n\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.lines();
        if lines.next()? != MAGIC {
            return None;
        }
        let mut field = |name: &str| Some(lines.next()?.strip_prefix(name)?.trim().to_owned());
        let (device, driver) = (field("device ")?, field("driver ")?.parse().ok()?);
        let (capability, tensor) = (field("capability ")?.parse().ok()?, field("tensor ")?);
        let body = miniz_oxide::inflate::decompress_to_vec(&bytes[end + 2..]).ok()?;
        let mut rest = &body[..];
        let mut vectors = Vec::new();
        while !rest.is_empty() {
            let count = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
            let name = String::from_utf8(take(&mut rest, count as usize)?.to_vec()).ok()?;
            let hash = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
            let count = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
            vectors.push(Vector { name, hash, results: take(&mut rest, count as usize)?.to_vec() });
        }
        Some(Recording { device, driver, capability, tensor, vectors })
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}
