//! A module image on its way in: what kind it is, and whether a driver of the chosen version would take its PTX.

use crate::profile::{Profile, SHARED_PER_BLOCK};
use crate::status::Error;
use ptx_emulator::Module;

/// Why an image is refused: the driver's error, and the text for its JIT log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub error: Error,
    pub log: String,
}

fn refuse<T>(error: Error, log: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { error, log: log.into() })
}

/// The PTX text in an image, which for PTX ends at its first zero byte.
///
/// A cubin or a fat binary holds code for the real machine; only PTX is executed here.
pub fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    let only = "the emulator executes PTX text only: load the PTX instead";
    if bytes.starts_with(b"\x7fELF") {
        return refuse(Error::NoBinaryForGpu, format!("error   : the image is a cubin; {only}"));
    }
    if bytes.starts_with(&FATBIN) || bytes.starts_with(&FATBIN_WRAPPER) {
        return refuse(Error::NoBinaryForGpu, format!("error   : the image is a fat binary; {only}"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains(".version") => Ok(text),
        _ => refuse(Error::InvalidImage, format!("error   : the image is not PTX text; {only}")),
    }
}

/// First bytes of a fat binary and of the structure that nvcc wraps around one.
const FATBIN: [u8; 4] = 0xba55_ed50_u32.to_le_bytes();
const FATBIN_WRAPPER: [u8; 4] = 0x466243b1_u32.to_le_bytes();

/// Bytes that tell what an image is; the rest may only be read when it is text.
pub const MAGIC_BYTES: usize = 4;

/// Whether the first bytes of an image say that it is not text.
pub fn is_binary(magic: [u8; MAGIC_BYTES]) -> bool {
    magic == *b"\x7fELF" || magic == FATBIN || magic == FATBIN_WRAPPER
}

/// What the head of a PTX text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// `.version`, major and minor.
    pub version: (u32, u32),
    /// Number of the `.target`, such as 80, and whether it is bound to that very architecture (`sm_90a`).
    pub target: (u32, bool),
}

/// Reads `.version` and `.target`.
pub fn head(ptx: &str) -> Result<Head, Refusal> {
    let mut words = words(ptx);
    let mut after = |directive: &str| words.find(|w| *w == directive).and_then(|_| words.next());
    let version = after(".version").and_then(|v| v.split_once('.'));
    let version = version.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let target = after(".target").and_then(|t| t.trim_end_matches(',').strip_prefix("sm_"));
    let target = target.and_then(|t| Some((t.trim_end_matches(['a', 'f']).parse().ok()?, t.ends_with('a'))));
    match (version, target) {
        (Some(version), Some(target)) => Ok(Head { version, target }),
        _ => refuse(Error::InvalidPtx, "ptxas fatal   : the PTX must begin with .version and .target"),
    }
}

/// The words of a text without its comments.
fn words(ptx: &str) -> impl Iterator<Item = &str> {
    let mut rest = ptx;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            if let Some(comment) = rest.strip_prefix("//") {
                rest = comment.split_once('\n').map_or("", |(_, after)| after);
            } else if let Some(comment) = rest.strip_prefix("/*") {
                rest = comment.split_once("*/").map_or("", |(_, after)| after);
            } else {
                break;
            }
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// Refuses PTX that a driver of this CUDA version, or this device, would refuse.
pub fn check_head(head: &Head, profile: &Profile, cuda_version: u32) -> Result<(), Refusal> {
    let known = newest_ptx(cuda_version);
    if head.version > known {
        let ((major, minor), (known_major, known_minor)) = (head.version, known);
        return refuse(
            Error::UnsupportedPtxVersion,
            format!(
                "ptxas application ptx input, line 1; fatal   : Unsupported .version {major}.{minor}; current version \
                 is '{known_major}.{known_minor}' (the driver is emulated as one of CUDA {}.{}: set \
                 PTX_EMULATOR_CUDA_VERSION to be another)",
                cuda_version / 1000,
                cuda_version % 1000 / 10,
            ),
        );
    }
    let (major, minor) = profile.arch.capability();
    let capability = major * 10 + minor;
    let (target, exact) = head.target;
    if target > capability || exact && target != capability {
        let letter = if exact { "a" } else { "" };
        return refuse(
            Error::InvalidPtx,
            format!(
                "ptxas fatal   : .target sm_{target}{letter} does not run on a device of sm_{capability}"
            ),
        );
    }
    Ok(())
}

/// The newest `.version` that a CUDA release's driver takes (PTX manual, release notes).
fn newest_ptx(cuda_version: u32) -> (u32, u32) {
    const NEWEST: &[(u32, (u32, u32))] = &[
        (11_000, (7, 0)),
        (11_010, (7, 1)),
        (11_020, (7, 2)),
        (11_030, (7, 3)),
        (11_040, (7, 4)),
        (11_050, (7, 5)),
        (11_060, (7, 6)),
        (11_070, (7, 7)),
        (11_080, (7, 8)),
        (12_000, (8, 0)),
        (12_010, (8, 1)),
        (12_020, (8, 2)),
        (12_030, (8, 3)),
        (12_040, (8, 4)),
        (12_050, (8, 5)),
        (12_070, (8, 6)),
        (12_080, (8, 7)),
        (12_090, (8, 8)),
        (13_000, (9, 0)),
        (13_010, (9, 1)),
        (13_020, (9, 2)),
    ];
    NEWEST.iter().rev().find(|(since, _)| *since <= cuda_version).map_or((6, 5), |(_, ptx)| *ptx)
}

/// Refuses a module with an entry whose static shared memory no device takes.
pub fn check_entries(module: &Module) -> Result<(), Refusal> {
    for entry in module.entries() {
        let bytes = entry.static_shared_bytes();
        if bytes > SHARED_PER_BLOCK {
            let name = entry.name();
            return refuse(
                Error::InvalidPtx,
                format!(
                    "ptxas error   : Entry function '{name}' uses too much shared data ({bytes:#x} bytes, \
                     {SHARED_PER_BLOCK:#x} max)"
                ),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptx_emulator::Arch;

    const NVCC: &str =
        "//\n// Generated by NVIDIA NVVM Compiler\n//\n\n.version 7.8\n.target sm_80\n.address_size 64\n";

    #[test]
    fn the_head_is_read_past_comments() {
        assert_eq!(head(NVCC), Ok(Head { version: (7, 8), target: (80, false) }));
        let clang = "/* .version 1.0 */ .version 8.5\n.target sm_90a, debug\n";
        assert_eq!(head(clang), Ok(Head { version: (8, 5), target: (90, true) }));
        assert_eq!(head(".target sm_80").unwrap_err().error, Error::InvalidPtx);
    }

    #[test]
    fn ptx_newer_than_the_driver_is_refused() {
        let head = Head { version: (8, 0), target: (80, false) };
        let on_a100 = |version| check_head(&head, &Profile::of(Arch::Sm80), version);
        assert_eq!(on_a100(11_080).unwrap_err().error, Error::UnsupportedPtxVersion);
        assert!(
            on_a100(11_080).unwrap_err().log.contains("Unsupported .version 8.0; current version is '7.8'")
        );
        assert_eq!(on_a100(12_000), Ok(()));
    }

    #[test]
    fn a_target_must_suit_the_device() {
        let check =
            |target, arch| check_head(&Head { version: (7, 8), target }, &Profile::of(arch), 11_080).is_ok();
        assert!(
            check((80, false), Arch::Sm80)
                && check((80, false), Arch::Sm86)
                && check((80, false), Arch::Sm90)
        );
        assert!(!check((86, false), Arch::Sm80));
        assert!(check((90, true), Arch::Sm90));
        assert!(!check((80, true), Arch::Sm90));
    }

    #[test]
    fn machine_code_is_refused_by_name() {
        assert!(text(b"\x7fELF\x02").unwrap_err().log.contains("cubin"));
        assert!(text(&FATBIN).unwrap_err().log.contains("fat binary"));
        assert_eq!(text(b"hello").unwrap_err().error, Error::InvalidImage);
        assert_eq!(text(NVCC.as_bytes()), Ok(NVCC));
    }
}
