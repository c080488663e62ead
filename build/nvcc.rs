//! Finds nvcc and runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Environment variables that decide which nvcc runs, or what it does.
pub const VARIABLES: [&str; 8] = [
    "MACULA_NVCC",
    "NVCC",
    "CUDA_HOME",
    "CUDA_PATH",
    "NVCC_CCBIN",
    "NVCC_PREPEND_FLAGS",
    "NVCC_APPEND_FLAGS",
    "DOCS_RS",
];

/// How every kernel is compiled, besides `-arch`. `-allow-unsupported-compiler`: only device code comes out, so the
/// host compiler's age does not matter.
pub const FLAGS: [&str; 7] =
    ["-ptx", "-O3", "-std=c++17", "-lineinfo", "-I", "kernels", "-allow-unsupported-compiler"];

/// What `MACULA_NVCC` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Unset: any nvcc of this machine.
    Search,
    /// `off`: none.
    Off,
    /// `pip`: any nvcc of this machine, else the wheels.
    Pip,
    /// A path: this one and no other.
    Path(PathBuf),
}

/// A working nvcc.
#[derive(Debug, Clone)]
pub struct Nvcc {
    /// The program.
    pub path: PathBuf,
    /// `13.0.88`.
    pub version: String,
}

/// Reads an environment variable; an empty one is unset.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The process's own environment.
pub fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl Wish {
    /// The user's wish.
    pub fn read(env: Env) -> Self {
        match env("MACULA_NVCC") {
            None => Self::Search,
            Some(value) if value == "off" => Self::Off,
            Some(value) if value == "pip" => Self::Pip,
            Some(path) => Self::Path(path.into()),
        }
    }
}

/// Where an nvcc may be on this machine, best first, with the variable that says so.
pub fn candidates(env: Env) -> Vec<(PathBuf, &'static str)> {
    let program = format!("nvcc{}", std::env::consts::EXE_SUFFIX);
    let mut found = Vec::new();
    if let Some(path) = env("NVCC") {
        found.push((PathBuf::from(path), "NVCC"));
    }
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(root) = env(variable) {
            found.push((Path::new(&root).join("bin").join(&program), variable));
        }
    }
    for folder in env("PATH").iter().flat_map(std::env::split_paths) {
        found.push((folder.join(&program), "PATH"));
    }
    found.push((Path::new("/usr/local/cuda/bin").join(&program), "/usr/local/cuda"));
    found
}

/// The first candidate that runs.
pub fn search(env: Env) -> Option<Nvcc> {
    // `NVCC=nvcc` is a name to look up, not a file here.
    let may_run = |path: &Path| path.is_file() || path.components().count() == 1;
    candidates(env)
        .into_iter()
        .filter(|(path, _)| may_run(path))
        .find_map(|(path, _)| Nvcc::probe(&path).ok())
}

/// What a user can do who has no nvcc.
pub const ADVICE: &str = "install the CUDA toolkit (12.0 or newer), or let MACULA_NVCC name an nvcc, \
     or set MACULA_NVCC=pip to have one fetched as Python wheels";

impl Nvcc {
    /// Asks the program for its version.
    pub fn probe(path: &Path) -> Result<Self, String> {
        let output =
            Command::new(path).arg("--version").output().map_err(|e| format!("{}: {e}", path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // "Cuda compilation tools, release 13.0, V13.0.88"
        let version = text.split_once(", V").and_then(|(_, rest)| rest.split_whitespace().next());
        match version {
            Some(version) if output.status.success() => {
                Ok(Self { path: path.to_owned(), version: version.to_owned() })
            }
            _ => Err(format!("{} does not answer `--version` as nvcc does", path.display())),
        }
    }

    /// Its name in the table.
    pub fn toolchain(&self) -> String {
        format!("nvcc {}", self.version)
    }

    /// The folder of its real program, where ptxas is too; `self.path` may be a script.
    pub fn bin(&self) -> Option<PathBuf> {
        let output = Command::new(&self.path).args(["-dryrun", "-E", "-x", "cu", "-"]).output().ok()?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().find_map(|line| line.strip_prefix("#$ _HERE_=")).map(|path| PathBuf::from(path.trim()))
    }

    /// A command that compiles `unit`, a path from the crate's root, to PTX.
    pub fn compile(&self, root: &Path, unit: &str, flags: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(root).args(flags).arg(arch(unit)).arg(unit);
        command
    }
}

/// Kernels for Hopper alone stand in files of their own.
pub fn arch(unit: &str) -> &'static str {
    if unit.ends_with("_sm90a.cu") { "-arch=compute_90a" } else { "-arch=compute_80" }
}
