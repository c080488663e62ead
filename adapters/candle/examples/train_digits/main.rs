//! Trains a small classifier of handwritten digits whose pixels are mixed by one of macula's attentions, or by convolutions.
//!
//! ```text
//! cargo run --release -p macula-candle --example train_digits -- --attention gsa
//! ```

mod data;
mod draw;
mod net;
mod seeded;

use candle_core::{D, Device};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use data::{Digits, Random, Set};
use draw::chart::{Axis, Chart, Scale, Series, palette};
use draw::sheet::{Cell, Sheet};
use net::{Attention, Net};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// What can go wrong; its text is one sentence for the terminal.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "\
usage: cargo run --release -p macula-candle --example train_digits -- [--attention A] [--epochs N] [--seed S] [--out DIR]

  --attention A   what mixes pixels: gaussian, local, axial, content, gsa or conv (default: gsa)
  --epochs N      how often every image is seen (default: 10)
  --seed S        for first values and the order of images (default: 1)
  --out DIR       where the picture goes (default: out/train_digits)";

const BATCH: usize = 32;
/// The largest step, reached after the first tenth of the training; it ends at 0 along a cosine.
const LEARNING_RATE: f64 = 4e-3;

#[derive(Debug)]
struct Options {
    attention: Attention,
    epochs: usize,
    seed: u64,
    out: PathBuf,
    wants_help: bool,
}

impl Options {
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let out = ["out", "train_digits"].iter().collect();
        let mut options = Self { attention: Attention::Gsa, epochs: 10, seed: 1, out, wants_help: false };
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(arg) = parser.next()? {
            match arg {
                Long("attention") => options.attention = parser.value()?.parse()?,
                Long("epochs") => options.epochs = parser.value()?.parse()?,
                Long("seed") => options.seed = parser.value()?.parse()?,
                Long("out") => options.out = parser.value()?.into(),
                Long("help") | Short('h') => options.wants_help = true,
                _ => return Err(arg.unexpected()),
            }
        }
        if options.epochs == 0 {
            return Err("--epochs must be at least 1".into());
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
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What an epoch came to: mean loss, and the shares of images named rightly.
struct Epoch {
    loss: f32,
    train: f32,
    test: f32,
}

fn run(options: &Options) -> Result<(), Failure> {
    let device = Device::Cpu;
    let digits = Digits::load(&device)?;
    let net = Net::new(options.attention, options.seed, &device)?;
    println!(
        "{}: {} parameters, {:.2} MFLOP per image; {} images to learn from, {} to be tested by",
        options.attention.name(),
        net.parameters(),
        net.flops() as f64 / 1e6,
        digits.train.len,
        digits.test.len
    );
    let start = Instant::now();
    let epochs = train(&net, &digits, options)?;
    let seconds = start.elapsed().as_secs_f64();
    let (last, count) = (&epochs[epochs.len() - 1], digits.test.len as f32);
    println!(
        "test accuracy {:.1} % ({:.0} of {count} wrong), training accuracy {:.1} %, {seconds:.0} s",
        100.0 * last.test,
        (1.0 - last.test) * count,
        100.0 * last.train
    );
    for (i, radii) in net.radii()?.iter().enumerate() {
        println!("radii of block {}, in pixels: {radii:.2?}", i + 1);
    }
    std::fs::create_dir_all(&options.out)?;
    let path = options.out.join(format!("{}.png", options.attention.name()));
    let influence = net.influence(&digits.test.images.narrow(0, 0, 1)?)?;
    picture(options.attention, &epochs, &influence).image.save(&path)?;
    println!("wrote {}: loss and accuracy, epoch by epoch, and what the middle pixel sees", path.display());
    Ok(())
}

fn train(net: &Net, digits: &Digits, options: &Options) -> Result<Vec<Epoch>, Failure> {
    let mut optimizer =
        AdamW::new(net.variables(), ParamsAdamW { lr: 0.0, weight_decay: 0.02, ..Default::default() })?;
    let mut random = Random::new(options.seed ^ 0x5eed);
    let batches = digits.train.len / BATCH;
    let total = (options.epochs * batches) as f64;
    let has_bar = std::io::stderr().is_terminal();
    let mut epochs = Vec::new();
    for epoch in 0..options.epochs {
        let order = random.shuffled(digits.train.len);
        let mut sum = 0.0;
        for (i, chosen) in order.chunks_exact(BATCH).enumerate() {
            let done = (epoch * batches + i) as f64 / total;
            let rate = (done / 0.1).min(1.0) * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0;
            optimizer.set_learning_rate(LEARNING_RATE * rate);
            let (images, labels) = digits.train.batch(chosen)?;
            let loss = candle_nn::loss::cross_entropy(&net.forward(&images, true)?, &labels)?;
            optimizer.backward_step(&loss)?;
            sum += loss.to_scalar::<f32>()?;
            if has_bar {
                show_progress(
                    epoch * batches + i + 1,
                    options.epochs * batches,
                    sum / (i + 1) as f32,
                    &epochs,
                );
            }
        }
        let (train, test) = (accuracy(net, &digits.train)?, accuracy(net, &digits.test)?);
        epochs.push(Epoch { loss: sum / batches as f32, train, test });
    }
    if has_bar {
        eprintln!();
    }
    Ok(epochs)
}

/// The share of images that are named rightly.
fn accuracy(net: &Net, set: &Set) -> Result<f32, Failure> {
    let guesses = net.forward(&set.images, false)?.argmax(D::Minus1)?;
    let right = guesses.eq(&set.labels)?.to_dtype(candle_core::DType::F32)?.mean_all()?;
    Ok(right.to_scalar()?)
}

/// One line that overwrites itself.
fn show_progress(step: usize, steps: usize, loss: f32, epochs: &[Epoch]) {
    const WIDTH: usize = 32;
    let done = step * WIDTH / steps;
    let bar = format!("{}{}", "#".repeat(done), ".".repeat(WIDTH - done));
    let test = epochs.last().map_or(String::new(), |epoch| format!("  test {:.1} %", 100.0 * epoch.test));
    eprint!("\r[{bar}] step {step} of {steps}  loss {loss:.3}{test} ");
    // A terminal that cannot be written to is no reason to stop.
    let _ = std::io::stderr().flush();
}

/// A square map in the colours of heat.
fn heat_map(map: &[f32]) -> image::RgbImage {
    const EDGE: u32 = 240;
    let size = map.len().isqrt().max(1) as u32;
    let largest = map.iter().fold(f32::MIN_POSITIVE, |m, &x| m.max(x));
    let part = |x: u32, y: u32| map.get((y * size + x) as usize).map_or(0.0, |m| m / largest);
    let small = image::RgbImage::from_fn(size, size, |x, y| image::Rgb(draw::heat::colour(part(x, y))));
    draw::sheet::enlarge(&small, EDGE / size)
}

fn picture(attention: Attention, epochs: &[Epoch], influence: &[Vec<f32>]) -> draw::canvas::Canvas {
    let line = |name: &str, i: usize, of: fn(&Epoch) -> f32| Series {
        name: name.into(),
        colour: palette(i),
        points: epochs.iter().enumerate().map(|(i, epoch)| [(i + 1) as f32, of(epoch)]).collect(),
    };
    let x =
        || Axis { name: "epoch".into(), low: 1.0, high: epochs.len().max(2) as f32, scale: Scale::Linear };
    let range =
        epochs.iter().map(|e| e.loss).fold([f32::INFINITY, 0.0f32], |r, l| [r[0].min(l), r[1].max(l)]);
    let power = |value: f32, round: fn(f32) -> f32| 10f32.powf(round(value.max(1e-9).log10()));
    let loss = Chart {
        x: x(),
        y: Axis {
            name: "loss".into(),
            low: power(range[0], f32::floor),
            high: power(range[1], f32::ceil),
            scale: Scale::Log,
        },
        series: vec![line("loss", 0, |e| e.loss)],
        level: None,
    };
    let lowest = epochs.iter().map(|e| e.test.min(e.train)).fold(1.0, f32::min);
    let accuracy = Chart {
        x: x(),
        y: Axis {
            name: "accuracy".into(),
            low: (lowest * 10.0).floor() / 10.0,
            high: 1.0,
            scale: Scale::Linear,
        },
        series: vec![line("training", 1, |e| e.train), line("test", 2, |e| e.test)],
        level: None,
    };
    let last = epochs.last().map_or(0.0, |epoch| epoch.test);
    let mut cells = vec![
        Cell::new(loss.draw(560, 360), "cross entropy of the training images"),
        Cell::new(accuracy.draw(560, 360), "images named rightly"),
    ];
    for (i, map) in influence.iter().enumerate() {
        let caption = format!("what the middle pixel sees, block {}", i + 1);
        cells.push(Cell::new(heat_map(map), caption).note("gradient, relative to the largest"));
    }
    let sheet = Sheet {
        title: format!("Handwritten digits, pixels mixed by {}", attention.name()),
        subtitle: format!("test accuracy {:.1} % after {} epochs", 100.0 * last, epochs.len()),
        columns: 2,
        cells,
        has_colour_bar: false,
    };
    sheet.draw()
}
