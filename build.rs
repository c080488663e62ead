//! Compiles every `kernels/*.cu` to PTX and writes the table that `src/kernel.rs` includes. Nothing else knows nvcc.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `MACULA_NVCC` | the nvcc to use; `off`: none; `pip`: if this machine has none, fetch one as Python wheels |
//! | `NVCC`, `CUDA_HOME`, `CUDA_PATH` | where else nvcc may be, before `PATH` and `/usr/local/cuda` |
//! | `MACULA_REQUIRE_KERNELS` | `1`: a build without kernels is an error |
//! | `DOCS_RS` | set on docs.rs: build without kernels |

#[path = "build/compile.rs"]
mod compile;
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/ptx.rs"]
mod ptx;
#[path = "build/sources.rs"]
mod sources;
#[path = "build/store.rs"]
mod store;
#[path = "build/table.rs"]
mod table;
#[path = "build/wheels.rs"]
mod wheels;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use nvcc::{Nvcc, Wish, process_env};
use sources::Sources;
use table::Table;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let root = folder("CARGO_MANIFEST_DIR")?;
    let out = folder("OUT_DIR")?;
    let cache = cache_folder(&out);
    announce(&root);

    let sources = Sources::read(&root)?;
    let mut recipe: Vec<&str> = compile::CODE.to_vec();
    recipe.extend(nvcc::FLAGS);
    let hash = sources.hash(&recipe);

    let (table, nvcc) = kernels(&root, &sources, &hash, &cache)?;
    table.emit(&out, &hash)?;
    note_toolchain(&out, &cache, nvcc.as_ref())?;
    if let Some(why) = &table.missing {
        if process_env("MACULA_REQUIRE_KERNELS").is_some_and(|value| value == "1") {
            return Err(format!("MACULA_REQUIRE_KERNELS=1, but there are no kernels: {why}"));
        }
        if process_env("DOCS_RS").is_none() {
            warn(&format!("built without CUDA kernels, so only the `Cpu` device works: {why}"));
        }
    }
    Ok(())
}

fn kernels(
    root: &Path,
    sources: &Sources,
    hash: &str,
    cache: &Path,
) -> Result<(Table, Option<Nvcc>), String> {
    if process_env("DOCS_RS").is_some() {
        return Ok((Table::without("documentation needs none"), None));
    }
    let wish = Wish::read(&process_env);
    // Images made at release save a toolchain. Who names a compiler gets what it compiles.
    if matches!(wish, Wish::Search | Wish::Off)
        && let Some(table) = packaged(root, hash)?
    {
        return Ok((table, None));
    }
    match compiler(&wish, cache)? {
        Ok(nvcc) => {
            let jobs = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
            let store = cache.join("ptx");
            fs::create_dir_all(&store).map_err(|e| format!("{}: {e}", store.display()))?;
            let started = Instant::now();
            let units = compile::all(sources, &nvcc, &store, jobs)
                .map_err(|why| format!("{why}\nMACULA_NVCC=off builds without kernels."))?;
            units.iter().flat_map(|unit| unit.warnings.lines()).for_each(warn);
            let stores: Vec<PathBuf> = units.into_iter().map(|unit| unit.store).collect();
            let table = Table::of(&stores, nvcc.toolchain())?;
            println!("{} kernels by {} in {:.1?}", table.len(), nvcc.toolchain(), started.elapsed());
            Ok((table, Some(nvcc)))
        }
        Err(why) => Ok((Table::without(why), None)),
    }
}

/// The folder `ptx/` of a published package, if it was made from just these sources.
fn packaged(root: &Path, hash: &str) -> Result<Option<Table>, String> {
    let folder = root.join("ptx");
    match store::Index::load(&folder) {
        Some(index) if index.hash == hash => Table::of(&[folder], index.toolchain).map(Some),
        _ => Ok(None),
    }
}

/// An nvcc, or the reason why there is none; the outer error is a wish that cannot be met.
fn compiler(wish: &Wish, cache: &Path) -> Result<Result<Nvcc, String>, String> {
    match wish {
        Wish::Off => return Ok(Err("MACULA_NVCC=off, and the package holds no compiled ones".to_owned())),
        Wish::Path(path) => return Nvcc::probe(path).map(Ok).map_err(|why| format!("MACULA_NVCC: {why}")),
        Wish::Search | Wish::Pip => {}
    }
    if let Some(nvcc) = nvcc::search(&process_env) {
        return Ok(Ok(nvcc));
    }
    if *wish == Wish::Search {
        return Ok(Err(format!("no nvcc found; {}", nvcc::ADVICE)));
    }
    let is_first = wheels::NVCC.present(cache).is_none();
    let started = Instant::now();
    let fetched = wheels::NVCC.fetch(cache).and_then(|path| Nvcc::probe(&path));
    if is_first && let Ok(nvcc) = &fetched {
        // Cargo shows nothing else of a build script, and this only when the script has ended.
        let seconds = started.elapsed().as_secs();
        warn(&format!(
            "fetched {} as Python wheels into {} ({seconds} s, once)",
            nvcc.toolchain(),
            cache.display()
        ));
    }
    Ok(fetched.map_err(|why| format!("MACULA_NVCC=pip, but {why}; otherwise {}", nvcc::ADVICE)))
}

/// Tells tests which tools made the images.
fn note_toolchain(out: &Path, cache: &Path, nvcc: Option<&Nvcc>) -> Result<(), String> {
    let mut text = format!("cache {}\n", cache.display());
    if let Some(nvcc) = nvcc {
        text.push_str(&format!("nvcc {}\n", nvcc.path.display()));
        if let Some(bin) = nvcc.bin() {
            text.push_str(&format!("bin {}\n", bin.display()));
        }
    }
    let path = out.join("toolchain.txt");
    fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn announce(root: &Path) {
    // Cargo runs a script again whenever a named path does not exist, so only those that do are named.
    for path in ["build.rs", "build", "kernels", "ptx"] {
        if root.join(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    for variable in nvcc::VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rerun-if-env-changed=MACULA_REQUIRE_KERNELS");
}

/// A folder that all builds in this target directory share.
fn cache_folder(out: &Path) -> PathBuf {
    // Cargo marks the top of a target directory with this file.
    let top = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    top.unwrap_or(out).join("macula-cuda")
}

fn folder(variable: &str) -> Result<PathBuf, String> {
    process_env(variable).map(PathBuf::from).ok_or_else(|| format!("cargo sets {variable}"))
}

fn warn(text: &str) {
    for line in text.lines() {
        println!("cargo::warning={line}");
    }
}
