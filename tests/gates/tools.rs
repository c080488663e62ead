//! NVIDIA's command-line tools, run in parallel and remembered.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use std::{env, fs};

use crate::nvcc::{Nvcc, process_env};
use crate::sources::Hash;
use crate::wheels::Wheels;

/// The assembler of CUDA 11.8, which stands for drivers of its time (520).
pub const PTXAS_11_8: Wheels =
    Wheels { name: "ptxas-11.8", packages: &["nvidia-cuda-nvcc-cu11==11.8.89"], tool: "ptxas" };

/// The assembler of CUDA 12.0, which stands for drivers of its time (525).
pub const PTXAS_12_0: Wheels =
    Wheels { name: "ptxas-12.0", packages: &["nvidia-cuda-nvcc-cu12==12.0.140"], tool: "ptxas" };

/// A disassembler that knows every GPU the kernels are assembled for.
pub const NVDISASM: Wheels =
    Wheels { name: "nvdisasm-13.5", packages: &["nvidia-cuda-nvdisasm==13.5.37"], tool: "nvdisasm" };

/// What build.rs noted about the tools that made the images.
pub struct Toolchain {
    text: String,
}

impl Toolchain {
    pub fn read() -> Self {
        let path = Path::new(env!("OUT_DIR")).join("toolchain.txt");
        Self { text: fs::read_to_string(path).expect("build.rs writes toolchain.txt") }
    }

    fn value(&self, key: &str) -> Option<PathBuf> {
        self.text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(PathBuf::from)
    }

    /// The folder in the target directory that every build shares.
    pub fn cache(&self) -> PathBuf {
        self.value("cache").expect("build.rs notes its cache")
    }

    /// The nvcc that made the images.
    pub fn nvcc(&self) -> Result<Nvcc, String> {
        Nvcc::probe(&self.value("nvcc").ok_or("no nvcc made the images")?)
    }

    /// The assembler beside that nvcc.
    pub fn ptxas(&self) -> Result<Tool, String> {
        let bin = self.value("bin").ok_or("no nvcc made the images, so there is no ptxas beside it")?;
        Tool::new(bin.join("ptxas"))
    }

    /// A tool from wheels.
    pub fn wheel(&self, wheels: &Wheels) -> Result<Tool, String> {
        let cache = self.cache();
        let may_fetch = is_required() || process_env("MACULA_NVCC").is_some_and(|value| value == "pip");
        let path = match wheels.present(&cache) {
            None if may_fetch => wheels.fetch(&cache)?,
            None => {
                return Err(format!("{} is not here; MACULA_NVCC=pip would fetch it", wheels.name));
            }
            Some(path) => path,
        };
        Tool::new(path)
    }
}

/// Whether nothing may be left unchecked.
pub fn is_required() -> bool {
    process_env("MACULA_REQUIRE_KERNELS").is_some_and(|value| value == "1")
}

/// What a check needs. Where that is missing, the check fails if kernels are required, and else says that it did not run.
pub fn needed<T>(check: &str, tool: Result<T, String>) -> Option<T> {
    match tool {
        Ok(tool) => Some(tool),
        Err(why) if is_required() => panic!("{check} cannot run: {why}"),
        Err(why) => {
            // Not `eprintln!`, which the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "NOT CHECKED: {check}: {why}");
            None
        }
    }
}

/// A program, known by its version.
pub struct Tool {
    path: PathBuf,
    version: String,
}

/// What a run said.
#[derive(Debug)]
pub struct Run {
    pub ok: bool,
    /// Standard output and standard error.
    pub text: String,
    /// The file that it wrote, where one was asked for.
    pub output: Option<PathBuf>,
}

impl Tool {
    pub fn new(path: PathBuf) -> Result<Self, String> {
        let output = Command::new(&path).arg("--version").output();
        let output = output.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self { path, version: String::from_utf8_lossy(&output.stdout).into_owned() })
    }

    /// Runs `args input [-o output]`, or remembers an earlier run on the same bytes. `keep` asks for the output file.
    pub fn run(&self, cache: &Path, args: &[&str], input: &[u8], writes: Writes) -> Run {
        let mut hash = Hash::new();
        [self.version.as_str()].iter().chain(args).for_each(|part| hash.add(part.as_bytes()));
        hash.add(&[writes as u8]);
        hash.add(input);
        let folder = cache.join("gates");
        let turn = turn(&hash.hex());
        let _turn = turn.lock().unwrap_or_else(|held| held.into_inner());
        let said = folder.join(format!("{}.said", hash.hex()));
        let output = (writes == Writes::Kept).then(|| folder.join(format!("{}.out", hash.hex())));
        if let Some((verdict, text)) =
            fs::read_to_string(&said).ok().as_deref().and_then(|said| said.split_once('\n'))
            && output.as_ref().is_none_or(|output| output.is_file())
        {
            return Run { ok: verdict == "ok", text: text.to_owned(), output };
        }

        fs::create_dir_all(&folder).expect("the cache can be written");
        let scratch = folder.join(format!("{}.{}", hash.hex(), std::process::id()));
        let (given, made) = (scratch.with_extension("in"), scratch.with_extension("made"));
        fs::write(&given, input).expect("the cache can be written");
        let mut command = Command::new(&self.path);
        command.args(args).arg(&given);
        if writes != Writes::Nothing {
            command.arg("-o").arg(&made);
        }
        let done = command.output().unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
        let _ = fs::remove_file(&given);
        let text = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        let ok = done.status.success();
        match &output {
            Some(output) if ok => fs::rename(&made, output).expect("the tool wrote what it was asked for"),
            _ => drop(fs::remove_file(&made)),
        }
        fs::write(&said, format!("{}\n{text}", if ok { "ok" } else { "failed" }))
            .expect("the cache can be written");
        Run { ok, text, output: output.filter(|_| ok) }
    }
}

/// Held while a run of that name goes on: another test that wants the same waits for it, and remembers.
fn turn(name: &str) -> Arc<Mutex<()>> {
    static TURNS: Mutex<BTreeMap<String, Arc<Mutex<()>>>> = Mutex::new(BTreeMap::new());
    TURNS.lock().unwrap().entry(name.to_owned()).or_default().clone()
}

/// What a tool writes besides its words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    Nothing,
    Dropped,
    Kept,
}

/// `work` on every item, on all cores; results in order.
pub fn parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let Some((index, item)) =
                    { items.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) }
                {
                    let result = work(item);
                    done.lock().unwrap().push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Forgets what has not been asked for in weeks; called by one test.
pub fn forget_old(cache: &Path) {
    let weeks = Duration::from_secs(21 * 24 * 3600);
    for entry in fs::read_dir(cache.join("gates")).into_iter().flatten().flatten() {
        let age = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .map(|time| SystemTime::now().duration_since(time));
        if matches!(age, Ok(Ok(age)) if age > weeks) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Panics with the findings.
pub fn none_of(findings: Vec<String>) {
    let shown = &findings[..findings.len().min(40)];
    assert!(findings.is_empty(), "{} findings, of which:\n{}", findings.len(), shown.join("\n"));
}
