//! Draws what the ops attend to, on a photograph.
//!
//! ```text
//! cargo run --release --example attention_maps -- [IMAGE] [--out DIR] [--device cpu|cuda]
//! ```

mod panels;
#[path = "../shared/mod.rs"]
mod shared;

use panels::{PANELS, Scene};
use shared::photo::Photo;
use shared::{DeviceName, Failure};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) const USAGE: &str = "\
usage: cargo run --release --example attention_maps -- [IMAGE] [--out DIR] [--device cpu|cuda]

  IMAGE         a PNG or JPEG file; without one, a photograph of a cat that is compiled in
  --out DIR     where the panels go (default: out/attention_maps)
  --device D    what computes the attended images (default: cpu)";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub image: Option<PathBuf>,
    pub out: PathBuf,
    pub device: DeviceName,
    pub wants_help: bool,
}

impl Options {
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let mut options = Self {
            image: None,
            out: ["out", "attention_maps"].iter().collect(),
            device: DeviceName::default(),
            wants_help: false,
        };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Value(path) if options.image.is_none() => options.image = Some(path.into()),
                Long("out") => options.out = parser.value()?.into(),
                Long("device") => options.device = parser.value()?.parse()?,
                Long("help") | Short('h') => options.wants_help = true,
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("error: {e}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.wants_help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match draw(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Draws every panel.
pub(crate) fn draw(options: &Options) -> Result<(), Failure> {
    let photo = match &options.image {
        Some(path) => Photo::open(path)?,
        None => Photo::bundled()?,
    };
    let device = options.device.open()?;
    let scene = Scene::new(&photo, device.as_ref());
    shared::create_folder(&options.out)?;
    for panel in PANELS {
        shared::write(&options.out, panel.file, panel.shows, &(panel.draw)(&scene)?)?;
    }
    Ok(())
}
