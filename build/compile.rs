//! Compiles every `.cu` to a store of images, or finds it in the cache.
//!
//! The cache outlives a build folder: it is keyed by the text of the `.cu` and of every header that nvcc named, the flags,
//! nvcc's version, and the code that reads PTX.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use crate::nvcc::{self, Nvcc};
use crate::sources::{Hash, Sources};
use crate::{ptx, store};

/// Whatever shapes an image is part of its name.
pub const CODE: [&str; 3] = [include_str!("ptx.rs"), include_str!("store.rs"), include_str!("compile.rs")];

/// How many stores of one `.cu` the cache keeps.
const KEPT: usize = 8;

/// What compiling one `.cu` gave.
#[derive(Debug)]
pub struct Unit {
    /// The folder with its images.
    pub store: PathBuf,
    /// What nvcc said besides.
    pub warnings: String,
}

/// Compiles all of `sources`, `jobs` at a time. All failures are reported, not only the first.
pub fn all(sources: &Sources, nvcc: &Nvcc, cache: &Path, jobs: usize) -> Result<Vec<Unit>, String> {
    let units = sources.units();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Unit, String>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, units.len().max(1)) {
            scope.spawn(|| {
                while let Some((index, unit)) =
                    { units.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) }
                {
                    let result = one(sources, nvcc, cache, unit);
                    done.lock().unwrap_or_else(|held| held.into_inner()).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|held| held.into_inner());
    done.sort_by_key(|(index, _)| *index);
    let (good, bad): (Vec<_>, Vec<_>) = done.into_iter().map(|(_, result)| result).partition(Result::is_ok);
    let bad: Vec<String> = bad.into_iter().filter_map(Result::err).collect();
    if bad.is_empty() { Ok(good.into_iter().flatten().collect()) } else { Err(bad.join("\n")) }
}

fn one(sources: &Sources, nvcc: &Nvcc, cache: &Path, unit: &str) -> Result<Unit, String> {
    let name = Key::new(sources, nvcc, unit);
    if let Some(key) = name.with_headers(sources, cache) {
        let folder = cache.join(key);
        if store::Index::load(&folder).is_some() {
            mark_used(&folder);
            return Ok(Unit { store: folder, warnings: String::new() });
        }
    }
    let scratch = cache.join(format!("{}-{}.partial", name.stem, std::process::id()));
    let result = compile(sources, nvcc, cache, unit, &name, &scratch);
    // The scratch folder is gone when all went well.
    let _ = fs::remove_dir_all(&scratch);
    result
}

fn compile(
    sources: &Sources,
    nvcc: &Nvcc,
    cache: &Path,
    unit: &str,
    name: &Key,
    scratch: &Path,
) -> Result<Unit, String> {
    let io = |error: std::io::Error| format!("{}: {error}", scratch.display());
    fs::create_dir_all(scratch).map_err(io)?;
    let (text, depfile) = (scratch.join("unit.ptx"), scratch.join("unit.d"));
    let mut command = nvcc.compile(&sources.root, unit, &nvcc::FLAGS);
    command.arg("-MD").arg("-MF").arg(&depfile).arg("-o").arg(&text);
    let output = command.output().map_err(|e| format!("{}: {e}", nvcc.path.display()))?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    if !output.status.success() {
        return Err(format!("{} cannot compile {unit} ({}):\n{said}", nvcc.toolchain(), nvcc.path.display()));
    }

    let text = fs::read_to_string(&text).map_err(io)?;
    let text = ptx::rename_files(&text, |path| short_path(path, &sources.root));
    let entries = ptx::split(&text).map_err(|why| format!("{unit}: {why}"))?;

    let headers = kernel_headers(&fs::read_to_string(&depfile).map_err(io)?, unit);
    let list = scratch.join("headers");
    fs::write(&list, headers.join("\n")).map_err(io)?;
    fs::rename(&list, cache.join(&name.headers)).map_err(io)?;

    let key =
        name.hash(sources, &headers).ok_or_else(|| format!("{unit}: a header is gone while nvcc ran"))?;
    for left in ["unit.ptx", "unit.d"] {
        fs::remove_file(scratch.join(left)).map_err(io)?;
    }
    store::write(scratch, &key, &nvcc.toolchain(), unit, &entries)?;
    let folder = cache.join(&key);
    match fs::rename(scratch, &folder) {
        // Another build was faster with the same.
        Err(error) if error.kind() != ErrorKind::NotFound && folder.join("index").is_file() => {}
        other => other.map_err(io)?,
    }
    forget_old(cache, &name.stem);
    Ok(Unit { store: folder, warnings: said })
}

/// Names a `.cu` in the cache, in two steps: which headers it needs is known only after it was compiled once.
struct Key {
    stem: String,
    headers: String,
    text: String,
}

impl Key {
    fn new(sources: &Sources, nvcc: &Nvcc, unit: &str) -> Self {
        let mut hash = Hash::new();
        for part in
            CODE.iter().chain(&nvcc::FLAGS).copied().chain([nvcc::arch(unit), unit, nvcc.version.as_str()])
        {
            hash.add(part.as_bytes());
        }
        for variable in ["NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"] {
            let value = nvcc::process_env(variable).unwrap_or_default();
            hash.add(value.to_string_lossy().as_bytes());
        }
        hash.add_text(sources.bytes(unit).unwrap_or_default());
        let stem = Path::new(unit).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = hash.hex();
        Self { headers: format!("{stem}-{text}.headers"), stem, text }
    }

    fn with_headers(&self, sources: &Sources, cache: &Path) -> Option<String> {
        let list = fs::read_to_string(cache.join(&self.headers)).ok()?;
        self.hash(sources, &list.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    fn hash(&self, sources: &Sources, headers: &[String]) -> Option<String> {
        let mut hash = Hash::new();
        hash.add(self.text.as_bytes());
        for header in headers {
            hash.add(header.as_bytes());
            hash.add_text(sources.bytes(header)?);
        }
        Some(format!("{}-{}", self.stem, hash.hex()))
    }
}

/// The files under `kernels/` in what `-MD` wrote, without the `.cu` itself.
fn kernel_headers(depfile: &str, unit: &str) -> Vec<String> {
    let joined = depfile.replace("\\\r\n", " ").replace("\\\n", " ").replace('\\', "/");
    let mut headers: Vec<String> = joined
        .split_whitespace()
        .filter(|path| path.starts_with("kernels/") && *path != unit)
        .map(without_parents)
        .collect();
    headers.sort();
    headers.dedup();
    headers
}

/// `kernels/prim/../a.cuh` is `kernels/a.cuh`.
fn without_parents(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// Source paths the same on every machine: `kernels/…` for ours, `cuda/…` for the toolkit's headers.
fn short_path(path: &str, root: &Path) -> String {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    if let Ok(ours) = Path::new(path).strip_prefix(&root) {
        return ours.to_string_lossy().replace('\\', "/");
    }
    match path.rsplit_once("/include/") {
        Some((_, header)) => format!("cuda/{header}"),
        None => path.rsplit('/').next().unwrap_or(path).to_owned(),
    }
}

fn mark_used(folder: &Path) {
    // Only its age in the cache hangs on this.
    if let Ok(index) = fs::File::options().append(true).open(folder.join("index")) {
        let _ = index.set_modified(SystemTime::now());
    }
}

/// Removes all but the newest stores of a `.cu`, so that the cache does not grow with every edit.
fn forget_old(cache: &Path, stem: &str) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    let mut stores: Vec<(SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.strip_prefix(stem)
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|hash| hash.len() == 32)
        })
        .filter_map(|entry| {
            Some((fs::metadata(entry.path().join("index")).ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    stores.sort();
    for (_, folder) in stores.iter().rev().skip(KEPT) {
        let _ = fs::remove_dir_all(folder);
    }
}
