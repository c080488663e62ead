//! Arrows point down only: which floor of `src` may name which, and where `unsafe` may stand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each floor, with the floors that it may name besides itself.
const FLOORS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("dtype", &[]),
    ("shape", &["error"]),
    ("tensor", &["error", "dtype", "shape"]),
    ("config", WORDS),
    ("reference", WORDS),
    ("cpu", WORDS),
    ("kernel", WORDS),
    ("plan", WORDS),
    ("device", &["config", "dtype", "error", "shape", "tensor", "plan", "kernel"]),
    ("ops", &["config", "dtype", "error", "shape", "tensor", "plan", "kernel", "device", "cpu", "reference"]),
    ("guide", &[]),
];

/// Words that every floor shares.
const WORDS: &[&str] = &["config", "dtype", "error", "shape", "tensor"];

/// Floors that may speak to the driver's library.
const CUDARC: &[&str] = &["dtype", "tensor", "device"];

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let (mut folders, mut files) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_owned(), code(&text)));
            }
        }
    }
    assert!(files.len() > 3, "{folder} has moved");
    files
}

/// Without comments: prose may name anything.
fn code(text: &str) -> String {
    let before_comment = |line: &str| line.split("//").next().unwrap_or("").to_owned() + "\n";
    text.lines().map(before_comment).collect()
}

fn floor_of(path: &Path) -> String {
    path.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The first names behind every `crate::`, those in braces too.
fn names_behind(prefix: &str, code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            names.extend(first_level(group));
        } else {
            names.extend(first_name(rest));
        }
    }
    names
}

fn first_name(text: &str) -> Option<String> {
    let name: String = text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// `a::{b, c}, d}` names a and d.
fn first_level(group: &str) -> Vec<String> {
    let (mut depth, mut part, mut names) = (0, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.extend(first_name(&std::mem::take(&mut part))),
            _ if depth == 0 => part.push(c),
            _ => {}
        }
    }
    names.extend(first_name(&part));
    names
}

/// What lib.rs re-exports: the name, and the floor that it comes from.
fn re_exports() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let mut from = BTreeMap::new();
    for statement in code(&text).split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else { continue };
        let Some(floor) = first_name(path) else { continue };
        let names = match path.split_once('{') {
            Some((before, group)) => {
                let mut names = first_level(group);
                if names.iter().any(|name| name == "self") {
                    names.extend(before.trim_end_matches("::").rsplit("::").next().map(str::to_owned));
                }
                names
            }
            None => path.rsplit("::").next().and_then(first_name).into_iter().collect(),
        };
        from.extend(names.into_iter().map(|name| (name, floor.clone())));
    }
    from
}

/// What is wrong with a file of a floor.
fn findings(path: &Path, code: &str, re_exports: &BTreeMap<String, String>) -> Vec<String> {
    let floor = floor_of(path);
    let Some((_, below)) = FLOORS.iter().find(|(name, _)| *name == floor) else {
        return vec![format!("{}: `{floor}` is no floor that this test knows", path.display())];
    };
    let mut findings = Vec::new();
    for name in names_behind("crate::", code) {
        let target = re_exports.get(&name).unwrap_or(&name);
        let is_allowed = *target == floor || below.contains(&target.as_str());
        if !is_allowed {
            findings.push(format!("{}: `{floor}` may not name `{target}` (as {name})", path.display()));
        }
    }
    if code.contains("ptx_emulator") {
        findings.push(format!("{}: the crate may not name the emulator", path.display()));
    }
    if code.contains("cudarc") && !CUDARC.contains(&floor.as_str()) {
        findings.push(format!("{}: `{floor}` may not name cudarc", path.display()));
    }
    for (i, line) in code.lines().enumerate() {
        let Some((_, rest)) = line.split_once("unsafe ") else { continue };
        // Views over raw pointers promise something; what relies on the promise is in `device`.
        let is_promise = floor == "tensor" && rest.starts_with("fn from_raw");
        if floor != "device" && !is_promise {
            findings.push(format!("{}:{}: `unsafe` outside src/device", path.display(), i + 1));
        }
    }
    findings
}

#[test]
fn arrows_point_down() {
    let re_exports = re_exports();
    assert_eq!(re_exports.get("Gpu").map(String::as_str), Some("plan"), "lib.rs is not understood");
    let found: Vec<String> = sources("src")
        .iter()
        .filter(|(path, _)| path != Path::new("lib.rs"))
        .flat_map(|(path, code)| findings(path, code, &re_exports))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_emulator_knows_no_attention() {
    for (path, code) in sources("emulator/src") {
        assert!(!code.contains("macula"), "emulator/src/{} names macula", path.display());
    }
}

/// The test of the test.
#[test]
fn wrong_arrows_are_seen() {
    let re_exports = BTreeMap::from([("Gpu".to_owned(), "plan".to_owned())]);
    let count = |path: &str, text: &str| findings(Path::new(path), &code(text), &re_exports).len();
    assert_eq!(count("cpu/local.rs", "use crate::{Element, device::Cuda};"), 2);
    assert_eq!(count("reference/local.rs", "fn f() { crate::ops::local::g() }"), 1);
    assert_eq!(count("cpu/local.rs", "use crate::{tensor::{HostView, device}, Gpu};"), 1);
    assert_eq!(count("ops/local.rs", "use ptx_emulator::Machine;"), 1);
    assert_eq!(count("ops/local.rs", "use cudarc::driver;"), 1);
    assert_eq!(count("cpu/local.rs", "unsafe { work() }"), 1);
    assert_eq!(count("tensor.rs", "pub unsafe fn from_raw() {}"), 0);
    assert_eq!(count("attic/local.rs", ""), 1);
    assert_eq!(count("cpu/local.rs", "// see crate::device\nuse crate::config::local;"), 0);
}
