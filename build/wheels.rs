//! CUDA's tools from Python wheels, for machines without a toolkit.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiler: what nvcc needs to turn CUDA C++ into PTX, all of one release.
pub const NVCC: Wheels = Wheels {
    name: "nvcc-13.0",
    packages: &[
        "nvidia-cuda-nvcc==13.0.*",
        "nvidia-cuda-crt==13.0.*",
        "nvidia-nvvm==13.0.*",
        "nvidia-cuda-runtime==13.0.*",
        "nvidia-cuda-cccl==13.0.*",
    ],
    tool: "nvcc",
};

/// A set of wheels, and the tool that they are fetched for.
pub struct Wheels {
    /// The folder's name.
    pub name: &'static str,
    /// What pip is asked for.
    pub packages: &'static [&'static str],
    /// The program's name, without an ending.
    pub tool: &'static str,
}

impl Wheels {
    /// The tool, if it is there already.
    pub fn present(&self, root: &Path) -> Option<PathBuf> {
        // Wheels put programs into `nvidia/<component>/bin`.
        let program = format!("{}{}", self.tool, std::env::consts::EXE_SUFFIX);
        let components = std::fs::read_dir(root.join(self.name).join("nvidia")).ok()?;
        let mut programs = components.flatten().map(|component| component.path().join("bin").join(&program));
        programs.find(|path| path.is_file())
    }

    /// The tool, fetched into `root` if it is not there yet. Several processes may ask at once.
    pub fn fetch(&self, root: &Path) -> Result<PathBuf, String> {
        if let Some(tool) = self.present(root) {
            return Ok(tool);
        }
        let mut reasons = Vec::new();
        for python in ["python3", "python"] {
            let mut command = Command::new(python);
            command.arg("-c").arg(include_str!("wheels.py")).arg(root).arg(self.name).args(self.packages);
            match command.output() {
                Ok(done) if done.status.success() => {
                    let missing =
                        || format!("the wheels {} hold no `{}`", self.packages.join(" "), self.tool);
                    return self.present(root).ok_or_else(missing);
                }
                Ok(done) => {
                    let text = [done.stdout, done.stderr].concat();
                    return Err(String::from_utf8_lossy(&text).trim().to_owned());
                }
                Err(error) => reasons.push(format!("{python}: {error}")),
            }
        }
        Err(format!("no Python 3 to fetch wheels with ({})", reasons.join("; ")))
    }
}
