//! What the examples share: the photograph, the choice of a device, and drawing.

// Each example uses a part.
#![allow(dead_code)]

pub mod canvas;
pub mod chart;
pub mod heat;
pub mod photo;
pub mod sheet;

use macula::{Cpu, Device};
use std::path::{Path, PathBuf};

/// What an example can fail with; its text is one sentence for the terminal.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Devices that `--device` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceName {
    #[default]
    Cpu,
    Cuda,
}

impl std::str::FromStr for DeviceName {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("no device is called `{name}`: there are cpu and cuda")),
        }
    }
}

impl DeviceName {
    /// Opens the device.
    pub fn open(self) -> Result<Box<dyn Device>, Failure> {
        match self {
            Self::Cpu => Ok(Box::new(Cpu::new())),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Box::new(macula::Cuda::new(0)?)),
            #[cfg(not(feature = "cuda"))]
            Self::Cuda => Err("this build has no `Cuda` device: the feature `cuda` is off".into()),
        }
    }
}

/// Creates the folder that pictures are written to.
pub fn create_folder(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|e| format!("cannot create {}: {e}", folder.display()).into())
}

/// Writes a picture into a folder and says so.
pub fn write(folder: &Path, file: &str, what: &str, canvas: &canvas::Canvas) -> Result<PathBuf, Failure> {
    let path = folder.join(file);
    canvas.image.save(&path).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    let (width, height) = canvas.image.dimensions();
    println!("wrote {} ({width}×{height}): {what}", path.display());
    Ok(path)
}
