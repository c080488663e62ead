//! Seconds and warp instructions of an attention forward on tensor cores: 2 heads, a map of 24 × 24, 64 channels,
//! windows of 15 × 15, bare, with counters and with checks; once compared with f64.
//!
//! `cargo run --release -p ptx-emulator --example flash_attention [-- map_width]`

use std::time::Instant;

use ptx_emulator::{Config, Dims, Machine, TensorMode};

const HEADS: usize = 2;
const D: usize = 64;
const REACH: usize = 7;
/// Rounds of which the fastest counts, so that a busy machine leaves some of them alone.
const RUNS: usize = 15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let width: usize = std::env::args().nth(1).map_or(Ok(24), |arg| arg.parse())?;
    let n = width * width;
    let machine = Machine::new(Config::default());
    let start = Instant::now();
    let module = machine.load(include_str!("../tests/ptx/flash_fwd.ptx"))?;
    println!("load            {:9.4} s", start.elapsed().as_secs_f64());
    let entry = module.entry("flash_fwd").ok_or("no kernel of this name")?;

    let mut seed = 1u64;
    let mut tensor = || -> Vec<u16> {
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // Eighths in [-1, 1): exact in f16.
            let eighths = (seed >> 60) as i64 - 8;
            ptx_emulator::num::half::f32_to_f16_rn(eighths as f32 / 8.0)
        };
        (0..HEADS * n * D).map(|_| next()).collect()
    };
    let (q, k, v) = (tensor(), tensor(), tensor());
    let upload = |data: &[u16]| -> Result<u64, Box<dyn std::error::Error>> {
        let bytes: Vec<u8> = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        let address = machine.alloc(bytes.len() as u64)?;
        machine.write(address, &bytes)?;
        Ok(address)
    };
    let (o, lse) = (machine.alloc((HEADS * n * D * 2) as u64)?, machine.alloc((HEADS * n * 4) as u64)?);
    let mut params = Vec::new();
    for address in [upload(&q)?, upload(&k)?, upload(&v)?, o, lse] {
        params.extend(address.to_le_bytes());
    }
    let scale_log2 = std::f32::consts::LOG2_E / (D as f32).sqrt();
    for number in [n as u32, width as u32, REACH as u32, scale_log2.to_bits()] {
        params.extend(number.to_le_bytes());
    }
    params.resize(entry.param_bytes() as usize, 0);
    let dims = Dims {
        grid: [n.div_ceil(64) as u32, HEADS as u32, 1],
        block: [128, 1, 1],
        shared_bytes: (5 * 64 * D * 2) as u32,
    };

    let base = Config::default();
    let forms = [
        ("one thread", base.clone().threads(1)),
        ("all threads", base.clone()),
        ("counters", base.clone().threads(1).counters(true)),
        ("checks", base.clone().threads(1).checks(true)),
        ("both", base.clone().threads(1).counters(true).checks(true)),
        ("sm_90 tensor", base.clone().threads(1).tensor(TensorMode::Sm90)),
    ];
    // Taking turns, so that all forms see the same machine.
    let mut best = forms.each_ref().map(|_| f64::INFINITY);
    let mut instructions = 0;
    for _ in 0..RUNS {
        for ((_, config), best) in forms.iter().zip(&mut best) {
            let start = Instant::now();
            instructions = machine.launch_with(config, &entry, dims, &params)?.warp_instructions;
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    println!("{instructions} warp instructions");
    for ((name, _), seconds) in forms.iter().zip(best) {
        let rate = instructions as f64 / seconds / 1e6;
        let times = seconds / best[0];
        println!("{name:15} {seconds:9.4} s   {rate:6.1} M/s   {times:5.2} times one thread");
    }

    let mut out = vec![0u8; HEADS * n * D * 2];
    machine.read(o, &mut out)?;
    let number = |x: u16| ptx_emulator::num::half::f16_to_f32(x) as f64;
    let mut worst = 0f64;
    for head in 0..HEADS {
        for i in (0..n).step_by(5) {
            let row = |j: usize| (head * n + j) * D;
            let near = |j: usize| {
                (i / width).abs_diff(j / width) <= REACH && (i % width).abs_diff(j % width) <= REACH
            };
            let score = |j: usize| (0..D).map(|c| number(q[row(i) + c]) * number(k[row(j) + c])).sum::<f64>();
            let weights: Vec<(usize, f64)> =
                (0..n).filter(|j| near(*j)).map(|j| (j, (score(j) / (D as f64).sqrt()).exp())).collect();
            let total: f64 = weights.iter().map(|(_, w)| w).sum();
            for c in 0..D {
                let want = weights.iter().map(|(j, w)| w * number(v[row(*j) + c])).sum::<f64>() / total;
                let at = (row(i) + c) * 2;
                worst = worst.max((number(u16::from_le_bytes([out[at], out[at + 1]])) - want).abs());
            }
        }
    }
    println!("largest error   {worst:9.2e}");
    if worst < 1e-3 { Ok(()) } else { Err("the result is wrong".into()) }
}
