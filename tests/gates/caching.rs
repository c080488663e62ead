//! What is compiled again and what is not, with a program in nvcc's place that counts how often it is called.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};

use crate::compile;
use crate::nvcc::Nvcc;
use crate::sources::Sources;
use crate::store::Index;

/// A crate's root with two kernels' worth of sources, and a cache.
struct Place {
    root: PathBuf,
    version: &'static str,
}

impl Place {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("kernels/prim")).unwrap();
        fs::create_dir_all(root.join("cache")).unwrap();
        let place = Self { root, version: "13.0.88" };
        place.write("kernels/sample_fwd.cu", "a kernel");
        place.write("kernels/used.cuh", "a header");
        place.write("kernels/unused.cuh", "another header");
        place
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).unwrap();
    }

    fn compile(&self) -> Result<Vec<compile::Unit>, String> {
        let sources = Sources::read(&self.root).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gates/fake_nvcc");
        let nvcc = Nvcc { path: program, version: self.version.to_owned() };
        compile::all(&sources, &nvcc, &self.root.join("cache"), 2)
    }

    /// How often a unit was compiled so far.
    fn calls(&self) -> usize {
        fs::read_to_string(self.root.join("calls")).unwrap_or_default().lines().count()
    }

    /// Compiles, and says whether nvcc was called.
    fn is_compiled(&self) -> bool {
        let before = self.calls();
        let units = self.compile().unwrap();
        assert_eq!(units.len(), 1);
        let index = Index::load(&units[0].store).expect("a store has an index");
        assert_eq!(index.lines.len(), 2);
        assert_eq!(index.lines[0].source, "kernels/sample_fwd.cu");
        self.calls() > before
    }
}

#[test]
fn only_what_changed_is_compiled_again() {
    let mut place = Place::new("caching");
    assert!(place.is_compiled());
    assert!(!place.is_compiled());

    place.write("kernels/unused.cuh", "changed");
    assert!(!place.is_compiled(), "a header that the kernel does not read");
    place.write("kernels/used.cuh", "changed");
    assert!(place.is_compiled(), "a header that it reads");
    place.write("kernels/used.cuh", "a header");
    assert!(!place.is_compiled(), "the old text again");
    place.write("kernels/sample_fwd.cu", "another kernel");
    assert!(place.is_compiled(), "the kernel itself");
    place.version = "13.1.0";
    assert!(place.is_compiled(), "another nvcc");
    assert!(!place.is_compiled());

    let left = fs::read_dir(place.root.join("cache")).unwrap().flatten();
    let left: Vec<String> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.contains("partial")), "{left:?}");
}

#[test]
fn stores_hold_images_without_paths_of_this_machine() {
    let place = Place::new("stores");
    let units = place.compile().unwrap();
    for name in ["sample_fwd_f32", "sample_fwd_f16"] {
        let read = |file: String| fs::read(units[0].store.join(file)).unwrap();
        let shipped = read(format!("{name}.ptx"));
        let image = inflate(&read(format!("{name}.deflate")));
        assert_eq!(image, shipped);
        let lines = String::from_utf8(read(format!("{name}.lineinfo.ptx"))).unwrap();
        assert!(lines.contains("\"sample_fwd.cu\""), "a foreign path is cut to its name");
    }
}

fn inflate(image: &[u8]) -> Vec<u8> {
    miniz_oxide::inflate::decompress_to_vec(image).unwrap()
}

#[test]
fn every_unit_that_fails_is_named_with_the_words_of_nvcc() {
    let place = Place::new("failing");
    place.write("kernels/bad_fwd.cu", "wrong");
    place.write("kernels/worse_fwd.cu", "wrong");
    let why = place.compile().unwrap_err();
    for words in
        ["kernels/bad_fwd.cu(1): error: it is wrong", "cannot compile kernels/worse_fwd.cu", "nvcc 13.0.88"]
    {
        assert!(why.contains(words), "{why}");
    }
    // What was good is not done twice.
    fs::remove_file(place.root.join("kernels/bad_fwd.cu")).unwrap();
    fs::remove_file(place.root.join("kernels/worse_fwd.cu")).unwrap();
    assert!(!place.is_compiled());
}

#[test]
fn the_cache_keeps_a_few_stores_of_each_unit() {
    let place = Place::new("forgetting");
    for edit in 0..12 {
        place.write("kernels/sample_fwd.cu", &format!("edit {edit}"));
        assert!(place.is_compiled());
    }
    let stores = fs::read_dir(place.root.join("cache")).unwrap().flatten();
    assert_eq!(stores.filter(|entry| entry.path().join("index").is_file()).count(), 8);
}
