//! Learns a radius: given a photo and a blurred copy, gradient descent through `backward` finds how strong the blur was.
//!
//! ```text
//! cargo run --release --example learn_radius -- [--sigma S] [--out DIR] [--device cpu|cuda]
//! ```

mod fit;
#[path = "../shared/mod.rs"]
mod shared;

use fit::{STEPS_MAX, Step, fit};
use image::RgbImage;
use macula::{Device, Gaussian, Tensor};
use shared::canvas::Canvas;
use shared::chart::{Axis, Chart, Scale, Series, palette};
use shared::photo::{Photo, to_image};
use shared::sheet::{Cell, Sheet};
use shared::{DeviceName, Failure};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

/// Below, the blur is too weak to leave a trace in 8 bits; above, this photo is too small.
const SIGMAS: RangeInclusive<f32> = 0.5..=20.0;

pub(crate) const USAGE: &str = "\
usage: cargo run --release --example learn_radius -- [--sigma S] [--out DIR] [--device cpu|cuda]

  --sigma S     the blur's radius in pixels, 0.5 to 20, that is to be found (default: 3.7)
  --out DIR     where the pictures go (default: out/learn_radius)
  --device D    what computes (default: cpu)";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) sigma: f32,
    pub(crate) out: PathBuf,
    pub(crate) device: DeviceName,
    pub(crate) wants_help: bool,
}

impl Options {
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let mut options = Self {
            sigma: 3.7,
            out: ["out", "learn_radius"].iter().collect(),
            device: DeviceName::default(),
            wants_help: false,
        };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("sigma") => {
                    options.sigma = parser.value()?.parse()?;
                    if !SIGMAS.contains(&options.sigma) {
                        let (low, high) = (SIGMAS.start(), SIGMAS.end());
                        return Err(format!("--sigma must be {low} to {high}, got {}", options.sigma).into());
                    }
                }
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
    match learn(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// A photo, and what a blur of unknown radius made of it: 8 bits per channel, as a file would hold it.
pub(crate) struct Puzzle {
    pub(crate) photo: Photo,
    pub(crate) blurred: Photo,
}

impl Puzzle {
    pub(crate) fn new(device: &dyn Device, sigma: f32) -> Result<Self, Failure> {
        let photo = Photo::bundled()?;
        let blurred = Photo { image: blur(device, &photo, sigma)?, is_bundled: false };
        Ok(Self { photo, blurred })
    }

    /// The radius, found from the two pictures alone.
    pub(crate) fn solve(&self, device: &dyn Device, watch: impl FnMut(usize, Step)) -> Result<f32, Failure> {
        Ok(fit(device, &self.photo.tensor()?, &self.blurred.tensor()?, watch)?.sigma)
    }
}

fn blur(device: &dyn Device, photo: &Photo, sigma: f32) -> Result<RgbImage, Failure> {
    let sigma = Tensor::from_vec(vec![sigma], [1])?.to(device)?;
    to_image(&Gaussian::default().forward(device, &photo.tensor()?.to(device)?, &sigma)?)
}

/// Sets the puzzle, solves it, and draws how.
pub(crate) fn learn(options: &Options) -> Result<(), Failure> {
    let device = options.device.open()?;
    shared::create_folder(&options.out)?;
    let puzzle = Puzzle::new(device.as_ref(), options.sigma)?;

    let has_bar = std::io::stderr().is_terminal();
    let mut steps = Vec::new();
    let found = puzzle.solve(device.as_ref(), |i, step| {
        steps.push(step);
        if has_bar {
            show_progress(i, step);
        }
    });
    if has_bar {
        eprintln!();
    }
    let found = found?;
    let off = 100.0 * (found - options.sigma) / options.sigma;
    let count = steps.len();
    println!("true radius {} px, found {found:.4} px ({off:+.2} %) after {count} steps", options.sigma);

    shared::write(&options.out, "loss.png", "loss and radius, step by step", &curves(&steps, options.sigma))?;
    let again = blur(device.as_ref(), &puzzle.photo, found)?;
    let shows = "the photo, the blurred copy, and the photo blurred with the radius that was found";
    shared::write(&options.out, "pictures.png", shows, &pictures(&puzzle, again, found))?;
    Ok(())
}

/// One line that overwrites itself.
fn show_progress(i: usize, step: Step) {
    const WIDTH: usize = 24;
    let done = ((i + 1) * WIDTH).div_ceil(STEPS_MAX);
    let bar = format!("{}{}", "#".repeat(done), ".".repeat(WIDTH - done));
    eprint!("\r[{bar}] step {:2}  loss {:.3e}  radius {:.4} px ", i + 1, step.loss, step.sigma);
    // A terminal that cannot be written to is no reason to stop.
    let _ = std::io::stderr().flush();
}

fn curves(steps: &[Step], truth: f32) -> Canvas {
    let last = (steps.len().max(2) - 1) as f32;
    let line = |name: &str, i: usize, of: fn(&Step) -> f32| Series {
        name: name.into(),
        colour: palette(i),
        points: steps.iter().enumerate().map(|(i, step)| [i as f32, of(step)]).collect(),
    };
    let range = |of: fn(&Step) -> f32| {
        steps.iter().map(of).fold((f32::INFINITY, 0.0f32), |(low, high), v| (low.min(v), high.max(v)))
    };
    let x = || Axis { name: "step".into(), low: 0.0, high: last, scale: Scale::Linear };
    let (low, high) = range(|s| s.loss as f32);
    let loss = Chart {
        x: x(),
        y: Axis {
            name: "loss".into(),
            low: 10f32.powf(low.max(1e-20).log10().floor()),
            high: 10f32.powf(high.max(1e-20).log10().ceil()),
            scale: Scale::Log,
        },
        series: vec![line("loss", 0, |s| s.loss as f32)],
        level: None,
    };
    let (_, high) = range(|s| s.sigma);
    let radius = Chart {
        x: x(),
        y: Axis { name: "radius, px".into(), low: 0.0, high: 1.15 * high.max(truth), scale: Scale::Linear },
        series: vec![line("radius", 1, |s| s.sigma)],
        level: Some((truth, format!("truth: {truth} px"))),
    };
    let cell = |chart: Chart, caption: &str| Cell::new(chart.draw(620, 400), caption);
    let sheet = Sheet {
        title: "Learning one radius by gradient descent".into(),
        subtitle: format!("from {} px, through the backward pass of `gaussian`", fit::START),
        columns: 2,
        cells: vec![cell(loss, "half the mean squared error"), cell(radius, "what is learned")],
        has_colour_bar: false,
    };
    sheet.draw()
}

fn pictures(puzzle: &Puzzle, again: RgbImage, found: f32) -> Canvas {
    let sheet = Sheet {
        title: "How strong was the blur?".into(),
        subtitle: "only the first two pictures were given".into(),
        columns: 3,
        cells: vec![
            Cell::new(puzzle.photo.image.clone(), "the photo"),
            Cell::new(puzzle.blurred.image.clone(), "blurred, radius unknown"),
            Cell::new(again, format!("blurred with {found:.3} px, as learned")),
        ],
        has_colour_bar: false,
    };
    sheet.draw()
}
