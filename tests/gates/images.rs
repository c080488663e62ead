//! The embedded images are the text that they should be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use macula::kernel::{self, Kernel};

use crate::sources::{Hash, Sources};
use crate::tools::{self, Toolchain};
use crate::{nvcc, ptx};

fn out(folder: &str, kernel: &Kernel) -> String {
    let path: PathBuf = [env!("OUT_DIR"), folder, &format!("{}.ptx", kernel.name)].iter().collect();
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_image_inflates_to_its_text() {
    for kernel in kernel::all() {
        let text = kernel.ptx().unwrap();
        assert!(kernel.image_bytes() < text.len(), "{kernel:?}");
        assert_eq!(kernel::find(kernel.name).map(|found| found.name), Some(kernel.name));
        // The constant with the size of shared memory is not shipped, and wanted by the reader.
        let size =
            format!(".const .align 4 .u32 {}_smem_bytes = {};\n.visible", kernel.name, kernel.shared_bytes);
        let read = ptx::split(&text.replacen(".visible", &size, 1))
            .unwrap_or_else(|why| panic!("{kernel:?}: {why}"));
        assert_eq!(read.len(), 1, "{kernel:?} holds one entry");
        assert_eq!(read[0].name, kernel.name);
        assert_eq!(read[0].param_bytes, kernel.param_bytes, "{kernel:?}");
        assert_eq!(read[0].threads, kernel.threads, "{kernel:?}");
    }
    assert!(kernel::find("no_such_entry").is_none());
}

#[test]
fn the_text_with_source_lines_is_the_shipped_text_when_stripped() {
    if kernel::toolchain().is_none() {
        return;
    }
    for kernel in kernel::all() {
        let (plain, lines) = (out("ptx", kernel), out("lineinfo", kernel));
        assert_eq!(kernel.ptx().unwrap(), plain, "{kernel:?}");
        assert_eq!(ptx::strip(&lines), plain, "{kernel:?}");
        assert!(lines.contains(&format!("\"{}\"", kernel.source)), "{kernel:?} names its source");
        assert!(!lines.contains("\"/"), "{kernel:?} names a path of this machine");
    }
}

/// The shipped text must not depend on the folder or the run that made it.
#[test]
fn shipped_text_is_clean() {
    let mut findings = Vec::new();
    for kernel in kernel::all() {
        let text = kernel.ptx().unwrap();
        let version = if kernel.exact { ".version 8.0\n" } else { ".version 7.8\n" };
        if !text.starts_with(version) {
            findings.push(format!("{}: not {version:?}", kernel.name));
        }
        // nvcc puts a hash of the file's path into the names of file-local symbols.
        for word in
            [".loc\t", ".file\t", ".section\t", "//", "_INTERNAL_", "_GLOBAL__N_", "vprintf", "__assertfail"]
        {
            if text.contains(word) {
                findings.push(format!("{}: holds `{word}`", kernel.name));
            }
        }
    }
    tools::none_of(findings);
}

#[test]
fn entries_keep_the_rules_of_the_house() {
    let mut findings = Vec::new();
    for kernel in kernel::all() {
        // `kernels/local_bwd_dkv.cu` may hold any part of `local_bwd`.
        let stem = Path::new(kernel.source).file_stem().unwrap().to_string_lossy().into_owned();
        let op_and_pass: String = stem.split('_').take(2).flat_map(|word| [word, "_"]).collect();
        if !kernel.name.starts_with(&op_and_pass) {
            findings.push(format!("{}: not named after {}", kernel.name, kernel.source));
        }
        if !kernel.name.split('_').any(|word| matches!(word, "f32" | "f16" | "bf16")) {
            findings.push(format!("{}: names no dtype", kernel.name));
        }
        if kernel.threads % 32 != 0 || kernel.threads > 1024 {
            findings.push(format!("{}: {} threads", kernel.name, kernel.threads));
        }
        if kernel.shared_bytes + kernel.static_shared_bytes > 227 * 1024 {
            findings.push(format!("{}: more shared memory than any GPU has", kernel.name));
        }
    }
    tools::none_of(findings);
}

#[test]
fn images_stay_small_enough_to_publish() {
    let bytes: usize = kernel::all().iter().map(Kernel::image_bytes).sum();
    assert!(bytes < 4 << 20, "{} kernels take {bytes} bytes", kernel::all().len());
}

/// `-lineinfo` is for reports; it must not change a single instruction.
#[test]
fn a_build_without_source_lines_gives_the_shipped_text() {
    let tools = Toolchain::read();
    let Some(nvcc) = tools::needed("a build without -lineinfo", tools.nvcc()) else { return };
    let sources = Sources::read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    let flags: Vec<&str> = nvcc::FLAGS.into_iter().filter(|flag| *flag != "-lineinfo").collect();
    let folder = tools.cache().join("gates");
    fs::create_dir_all(&folder).unwrap();
    let units = sources.units();
    let entries = tools::parallel(&units, |unit| {
        let hash = sources.hash(&[&flags.concat(), &nvcc.version, unit]);
        let path = folder.join(format!("{hash}.ptx"));
        if !path.is_file() {
            let made = folder.join(format!("{hash}.{}.ptx", std::process::id()));
            let mut command = nvcc.compile(&sources.root, unit, &flags);
            let done = command.args(["-Werror", "all-warnings", "-o"]).arg(&made).output().unwrap();
            assert!(done.status.success(), "{unit}: {}", String::from_utf8_lossy(&done.stderr));
            fs::rename(made, &path).unwrap();
        }
        ptx::split(&fs::read_to_string(path).unwrap()).unwrap()
    });
    for entry in entries.iter().flatten() {
        let kernel = kernel::find(&entry.name).expect("the same entries");
        assert_eq!(entry.shipped, kernel.ptx().unwrap(), "{}", entry.name);
    }
    assert_eq!(entries.iter().map(Vec::len).sum::<usize>(), kernel::all().len());
}

#[test]
fn names_of_texts_differ_where_texts_do() {
    let name = |parts: &[&str]| {
        let mut hash = Hash::new();
        parts.iter().for_each(|part| hash.add(part.as_bytes()));
        hash.hex()
    };
    let texts: [&[&str]; 5] = [&[], &["a"], &["a", ""], &["", "a"], &["b"]];
    let names: BTreeSet<String> = texts.iter().map(|text| name(text)).collect();
    assert_eq!(names.len(), texts.len());
    // The published value of 128-bit FNV-1a for an empty text.
    assert_eq!(name(&[]), "6c62272e07bb014262b821756295c58d");
    let mut unix = Hash::new();
    unix.add_text(b"a\nb\n");
    let mut windows = Hash::new();
    windows.add_text(b"a\r\nb\r\n");
    assert_eq!(unix.hex(), windows.hex());
}
