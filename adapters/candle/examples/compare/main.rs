//! macula's ops against the same attention composed of candle's operations, on the CPU: time and peak memory of a forward
//! and a backward pass, side by side.
//!
//! ```text
//! cargo run --release -p macula-candle --example compare [-- OP]
//! ```
//!
//! The compositions are what one would write with care: separable maps as two products, windows as shifted slices, axial
//! scores by one product and a gather. Both sides see the same inputs and have to agree before they are timed.

mod compose;
mod peak;

use candle_core::{Device, Result, Tensor, Var};
use macula_candle::{
    AxialConfig, AxialInputs, ContentConfig, GaussianConfig, GsaConfig, GsaInputs, LocalConfig, Tables,
    Window,
};
use std::time::Instant;

/// Sides of the maps; two images, four heads, 32 channels.
const SIDES: [usize; 4] = [14, 28, 56, 112];
const B: usize = 2;
const H: usize = 4;
const D: usize = 32;
const WINDOW: usize = 7;
const ROUNDS: usize = 5;

/// One forward pass of one side.
type Forward = fn(&[Var]) -> Result<Tensor>;

/// An op: its inputs for a map of that side, and both ways to compute it.
struct Op {
    name: &'static str,
    inputs: fn(usize) -> Result<Vec<Var>>,
    ours: Forward,
    composed: Forward,
}

fn random(shape: &[usize], size: f32) -> Result<Var> {
    Var::rand_f64(-f64::from(size), f64::from(size), shape, candle_core::DType::F32, &Device::Cpu)
}

fn map(side: usize) -> Result<Var> {
    random(&[B, H, side, side, D], 1.0)
}

/// Small: two sums over whole lines follow each other.
fn table(side: usize) -> Result<Var> {
    random(&[2 * side - 1, D], 0.05)
}

fn local_config() -> LocalConfig {
    LocalConfig {
        window: Window::sliding([WINDOW; 2]),
        scale: (D as f32).powf(-0.5),
        ..LocalConfig::default()
    }
}

const OPS: [Op; 5] = [
    Op {
        name: "gaussian",
        inputs: |side| Ok(vec![map(side)?, Var::new(&[1f32, 2.0, 3.0, 5.0], &Device::Cpu)?]),
        ours: |i| macula_candle::gaussian(&i[0], &i[1], &GaussianConfig::default()),
        composed: |i| compose::gaussian(&i[0], &i[1]),
    },
    Op {
        name: "local",
        inputs: |side| {
            let table = || random(&[WINDOW, D / 2], 1.0);
            Ok(vec![map(side)?, map(side)?, map(side)?, table()?, table()?])
        },
        ours: |i| {
            let tables = Tables { rel_h: i[3].as_tensor(), rel_w: i[4].as_tensor() };
            macula_candle::local(&i[0], &i[1], &i[2], tables.into(), &local_config())
        },
        composed: |i| compose::local([&i[0], &i[1], &i[2]], [&i[3], &i[4]], &local_config()),
    },
    Op {
        name: "axial",
        inputs: |side| Ok(vec![map(side)?, map(side)?, table(side)?, table(side)?]),
        ours: |i| {
            let inputs = AxialInputs { columns: Some(&i[2]), rows: Some(&i[3]), ..AxialInputs::default() };
            Ok(macula_candle::axial(&i[0], &i[1], inputs, &AxialConfig::default())?.o)
        },
        composed: |i| compose::axial(&i[0], &i[1], &i[2], &i[3]),
    },
    Op {
        name: "content",
        inputs: |side| Ok(vec![map(side)?, map(side)?, map(side)?]),
        ours: |i| macula_candle::content(&i[0], &i[1], &i[2], &ContentConfig::default()),
        composed: |i| compose::content(&i[0], &i[1], &i[2]),
    },
    Op {
        name: "gsa",
        inputs: |side| Ok(vec![map(side)?, map(side)?, map(side)?, table(side)?, table(side)?]),
        ours: |i| {
            let inputs = GsaInputs { columns: &i[3], rows: &i[4], affine: None, given: None };
            Ok(macula_candle::gsa(&i[0], &i[1], &i[2], inputs, &GsaConfig::default())?.o)
        },
        composed: |i| compose::content(&i[0], &i[1], &i[2])? + compose::axial(&i[0], &i[2], &i[3], &i[4])?,
    },
];

/// The output and every input's gradient.
fn results(forward: Forward, inputs: &[Var]) -> Result<Vec<Tensor>> {
    let o = forward(inputs)?;
    let grads = o.sqr()?.sum_all()?.backward()?;
    let grad =
        |input: &Var| grads.get(input).cloned().ok_or_else(|| candle_core::Error::Msg("no gradient".into()));
    std::iter::once(Ok(o)).chain(inputs.iter().map(grad)).collect()
}

/// The largest difference, as a part of the largest element.
fn off_by(a: &Tensor, b: &Tensor) -> Result<f32> {
    let worst = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    Ok(worst / b.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?.max(f32::MIN_POSITIVE))
}

/// Seconds of forward and backward together, the median of some rounds, and the bytes at the peak beyond the inputs.
fn measure(forward: Forward, inputs: &[Var]) -> Result<(f64, usize)> {
    let before = peak::reset();
    drop(results(forward, inputs)?);
    let bytes = peak::highest() - before;
    let mut seconds = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        drop(results(forward, inputs)?);
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((seconds[ROUNDS / 2], bytes))
}

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("[{B}, {H}, side, side, {D}], f32, window {WINDOW}, forward and backward, {threads} threads\n");
    println!("| op | side | macula | composed | time | macula | composed | memory |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for op in OPS.iter().filter(|op| wanted.as_deref().is_none_or(|name| name == op.name)) {
        for side in SIDES {
            let inputs = (op.inputs)(side)?;
            for (ours, theirs) in results(op.ours, &inputs)?.iter().zip(&results(op.composed, &inputs)?) {
                let off = off_by(ours, theirs)?;
                if off > 1e-3 {
                    candle_core::bail!("{} {side}: the two differ by {off:e}", op.name);
                }
            }
            let (ours, our_bytes) = measure(op.ours, &inputs)?;
            let (theirs, their_bytes) = measure(op.composed, &inputs)?;
            let (ms, mib) = (1e3, 1.0 / (1 << 20) as f64);
            println!(
                "| `{}` | {side} | {:.1} ms | {:.1} ms | {:.1} × | {:.1} MiB | {:.1} MiB | {:.1} × |",
                op.name,
                ours * ms,
                theirs * ms,
                theirs / ours,
                our_bytes as f64 * mib,
                their_bytes as f64 * mib,
                their_bytes as f64 / our_bytes as f64
            );
        }
    }
    Ok(())
}
