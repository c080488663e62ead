//! Compiled kernels: see `tests/ptx`.

use ptx_emulator::num::half::{bf16_to_f32, f16_to_f32, f32_to_bf16_rn, f32_to_f16_rn, fma_f16};
use ptx_emulator::{Config, Dims, Machine, TensorMode};

use crate::common::SEEDS;

fn upload<T: Copy, const N: usize>(machine: &Machine, values: &[T], bytes: impl Fn(T) -> [u8; N]) -> u64 {
    let data: Vec<u8> = values.iter().flat_map(|x| bytes(*x)).collect();
    let address = machine.alloc(data.len() as u64).expect("memory");
    machine.write(address, &data).expect("in bounds");
    address
}

fn download(machine: &Machine, address: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    machine.read(address, &mut out).expect("in bounds");
    out
}

#[test]
fn attention_on_tensor_cores() {
    const D: usize = 64;
    // 11 × 13: the last tile of queries and of keys is partial.
    let (width, n, reach) = (13usize, 143usize, 3usize);
    let machine = Machine::new(Config::default());
    let module = machine.load(include_str!("../ptx/flash_fwd.ptx")).expect("loads");
    let entry = module.entry("flash_fwd").expect("a kernel");
    let mut state = 1u64;
    let mut tensor = || -> Vec<u16> {
        (0..2 * n * D)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                f32_to_f16_rn(((state >> 57) as f32 - 64.0) / 64.0)
            })
            .collect()
    };
    let (q, k, v) = (tensor(), tensor(), tensor());
    let (o, lse) = (
        machine.alloc((2 * n * D * 2) as u64).expect("memory"),
        machine.alloc((2 * n * 4) as u64).expect("memory"),
    );
    let mut params = Vec::new();
    for values in [&q, &k, &v] {
        params.extend(upload(&machine, values, u16::to_le_bytes).to_le_bytes());
    }
    params.extend(o.to_le_bytes());
    params.extend(lse.to_le_bytes());
    let scale = std::f32::consts::LOG2_E / 8.0;
    for number in [n as u32, width as u32, reach as u32, scale.to_bits()] {
        params.extend(number.to_le_bytes());
    }
    let dims = Dims {
        grid: [n.div_ceil(64) as u32, 2, 1],
        block: [128, 1, 1],
        shared_bytes: (5 * 64 * D * 2) as u32,
    };

    let mut exact: Option<Vec<u8>> = None;
    for tensor in [TensorMode::Exact, TensorMode::Sm80, TensorMode::Sm90] {
        for seed in SEEDS {
            machine.fill(o, &[0xff], (2 * n * D * 2) as u64).expect("in bounds");
            let config = Config::default().tensor(tensor).seed(seed);
            machine.launch_with(&config, &entry, dims, &params).unwrap_or_else(|stop| panic!("{stop}"));
            let out = download(&machine, o, 2 * n * D * 2);
            if tensor == TensorMode::Exact {
                assert_eq!(exact.get_or_insert_with(|| out.clone()), &out, "seed {seed}");
            }
            let f = |x: u16| f16_to_f32(x) as f64;
            for head in 0..2 {
                for i in (0..n).step_by(7) {
                    let row = |j: usize| (head * n + j) * D;
                    let seen = |j: &usize| {
                        (i / width).abs_diff(j / width) <= reach && (i % width).abs_diff(j % width) <= reach
                    };
                    let keys: Vec<usize> = (0..n).filter(seen).collect();
                    let score =
                        |j: usize| (0..D).map(|c| f(q[row(i) + c]) * f(k[row(j) + c])).sum::<f64>() / 8.0;
                    let weights: Vec<f64> = keys.iter().map(|j| score(*j).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for c in 0..D {
                        let want: f64 =
                            keys.iter().zip(&weights).map(|(j, w)| w / total * f(v[row(*j) + c])).sum();
                        let at = 2 * (row(i) + c);
                        let got = f(u16::from_le_bytes([out[at], out[at + 1]]));
                        assert!(
                            (got - want).abs() < 1e-3,
                            "{tensor:?} head {head} row {i} channel {c}: {got}, {want}"
                        );
                    }
                    let at = 4 * (head * n + i);
                    let bytes = download(&machine, lse + at as u64, 4);
                    let got = f32::from_le_bytes(bytes.try_into().expect("four bytes")) as f64;
                    assert!(
                        (got - total.ln()).abs() < 1e-5,
                        "lse of head {head} row {i}: {got}, {}",
                        total.ln()
                    );
                }
            }
        }
    }
}

#[test]
fn library_functions() {
    let machine = Machine::new(Config::default());
    let module = machine.load(include_str!("../ptx/math.ptx")).expect("loads");
    let entry = module.entry("math").expect("a kernel");
    assert!(entry.local_bytes() > 0, "the slow path of sinf has a local array");
    let x: Vec<f32> = (0..300)
        .map(|k| (k as f32 - 150.0) * 0.37)
        .chain([0.0, -0.0, 1e5, -3e6, 2e9, 1e30, 105615.0])
        .collect();
    let n = x.len();
    let (source, target) =
        (upload(&machine, &x, f32::to_le_bytes), machine.alloc(8 * n as u64 * 4).expect("memory"));
    let mut params = [source.to_le_bytes(), target.to_le_bytes()].concat();
    params.extend((n as u32).to_le_bytes());
    let dims = Dims { grid: [n.div_ceil(64) as u32, 8, 1], block: [64, 1, 1], shared_bytes: 0 };
    machine.launch(&entry, dims, &params).unwrap_or_else(|stop| panic!("{stop}"));
    let y: Vec<f32> = download(&machine, target, 8 * n * 4)
        .chunks(4)
        .map(|c| f32::from_le_bytes(c.try_into().expect("four bytes")))
        .collect();
    for (i, a) in x.iter().enumerate() {
        let d = *a as f64;
        let half = |x: f32| f32_to_f16_rn(x);
        let h = half(a * 1e-3);
        let low = f16_to_f32(fma_f16(h, h, if f16_to_f32(h) > 0.25 { h } else { 0x3400 }));
        let b = bf16_to_f32(f32_to_bf16_rn(*a));
        let want = [
            d.sin(),
            (a * 0.01f32) as f64,
            (d.abs() + 1e-3).ln(),
            f64::NAN,
            d.abs().powf(0.3),
            (d * 0.05).tanh(),
            d / (1.0 + d * d) + d.abs().sqrt() + 1.0 / (1.0 + d.abs()).sqrt() + d % 7.0,
            low as f64 + 0.75 + 2.0 * b as f64 + (i / 7 * 3 % 5) as f64,
        ];
        for (f, want) in want.into_iter().enumerate() {
            let want = match f {
                1 => want.exp(),
                3 => continue, // no error function in the standard library
                _ => want,
            };
            let got = y[f * n + i] as f64;
            let bound = 4e-6 * want.abs().max(1.0);
            let same = got == want || (got.is_infinite() && want > f32::MAX as f64);
            assert!(same || (got - want).abs() <= bound, "function {f} of {a}: {got}, {want}");
        }
        let erf = y[3 * n + i];
        assert!(
            (-1.0..=1.0).contains(&erf) && erf.is_sign_negative() == a.is_sign_negative(),
            "erf of {a}: {erf}"
        );
    }
}
