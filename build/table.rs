//! Writes what the crate includes: the table of kernels, and the folders beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::store::{IMAGE, Index, Line};

/// The kernels of this build, or the reason why there are none.
pub struct Table {
    /// By name; with the folder that holds the image.
    kernels: BTreeMap<String, (Line, PathBuf)>,
    /// Such as `nvcc 13.0.88`.
    toolchain: Option<String>,
    /// Why there is no kernel, and what to do.
    pub missing: Option<String>,
}

impl Table {
    /// A table without kernels.
    pub fn without(reason: impl Into<String>) -> Self {
        Self { kernels: BTreeMap::new(), toolchain: None, missing: Some(reason.into()) }
    }

    /// The table of all images in `stores`.
    pub fn of(stores: &[PathBuf], toolchain: String) -> Result<Self, String> {
        let mut kernels: BTreeMap<String, (Line, PathBuf)> = BTreeMap::new();
        for store in stores {
            let index = Index::load(store).ok_or_else(|| format!("{}: no index", store.display()))?;
            for line in index.lines {
                if !line.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
                    let why = "a kernel is `extern \"C\"`, in lower case";
                    return Err(format!("{}: entry `{}`: {why}", line.source, line.name));
                }
                if let Some((other, _)) = kernels.get(&line.name) {
                    return Err(format!(
                        "entry `{}` is in {} and in {}",
                        line.name, other.source, line.source
                    ));
                }
                kernels.insert(line.name.clone(), (line, store.clone()));
            }
        }
        Ok(Self { kernels, toolchain: Some(toolchain), missing: None })
    }

    /// The number of kernels.
    pub fn len(&self) -> usize {
        self.kernels.len()
    }

    /// Writes `kernels.rs` and `images/` (the form of `ptx/` in a published package) into `out`; and, where there is a
    /// compiler, `ptx/` and `lineinfo/` for tests.
    pub fn emit(&self, out: &Path, hash: &str) -> Result<(), String> {
        let io = |error: std::io::Error| format!("{}: {error}", out.display());
        for folder in ["images", "ptx", "lineinfo"] {
            let folder = out.join(folder);
            if folder.exists() {
                fs::remove_dir_all(&folder).map_err(io)?;
            }
            fs::create_dir_all(&folder).map_err(io)?;
        }
        for (name, (_, store)) in &self.kernels {
            let image = format!("{name}.{IMAGE}");
            fs::copy(store.join(&image), out.join("images").join(&image)).map_err(io)?;
            for (from, to) in [(format!("{name}.ptx"), "ptx"), (format!("{name}.lineinfo.ptx"), "lineinfo")] {
                let from = store.join(from);
                // A package carries the images alone.
                if from.is_file() {
                    fs::copy(from, out.join(to).join(format!("{name}.ptx"))).map_err(io)?;
                }
            }
        }
        if let Some(toolchain) = &self.toolchain {
            let lines = self.kernels.values().map(|(line, _)| line.clone()).collect();
            let index = Index { hash: hash.to_owned(), toolchain: toolchain.clone(), lines };
            fs::write(out.join("images").join("index"), index.print()).map_err(io)?;
        }
        fs::write(out.join("kernels.rs"), self.rust()?).map_err(io)
    }

    fn rust(&self) -> Result<String, String> {
        let mut text = format!("const TOOLCHAIN: Option<&str> = {:?};\n", self.toolchain);
        text.push_str(&format!("const MISSING: Option<&str> = {:?};\n", self.missing));
        text.push_str("static KERNELS: &[Kernel] = &[\n");
        for (name, (line, _)) in &self.kernels {
            let (capability, family_only) = capability(&line.target)?;
            text.push_str(&format!(
                "    Kernel {{ name: {name:?}, source: {:?}, capability: {capability:?}, exact: {family_only}, \
                 param_bytes: {}, threads: {}, min_blocks: {}, shared_bytes: {}, static_shared_bytes: {}, \
                 ptx_bytes: {}, image: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/images/{name}.{IMAGE}\")) }},\n",
                line.source,
                line.param_bytes,
                line.threads,
                line.min_blocks,
                line.shared_bytes,
                line.static_shared_bytes,
                line.ptx_bytes,
            ));
        }
        text.push_str("];\n");
        Ok(text)
    }
}

/// `sm_80` → 8.0 and anything newer; `sm_90a` → 9.0 and nothing else.
fn capability(target: &str) -> Result<((u32, u32), bool), String> {
    let unreadable = || format!("unknown target `{target}`");
    let digits = target.strip_prefix("sm_").ok_or_else(unreadable)?;
    let number: u32 = digits.trim_end_matches('a').parse().map_err(|_| unreadable())?;
    Ok(((number / 10, number % 10), digits.ends_with('a')))
}
