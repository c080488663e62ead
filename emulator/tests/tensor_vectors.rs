//! The tensor-core models against dot products recorded on real devices, and against a second statement of the model.
//!
//! The recordings are those of <https://github.com/north-numerical-computing/MATLAB-tensor-core>: files
//! `<gpu>_<format>_{a,b,c,d}.txt` of hexadecimal (or binary) f32 words, one row per dot product `a · b + c = d`. They are not
//! part of this crate: set `PTX_EMULATOR_TENSOR_VECTORS` to a folder that has them, or have them beside the checkout.

use std::path::Path;

use ptx_emulator::TensorMode;
use ptx_emulator::num::half::{f32_to_bf16_rn, f32_to_f16_rn};
use ptx_emulator::num::tensor::{AccF32, Bf16, COLUMNS, Element, F16, ROWS, Tf32, multiply};

/// `a · b + c` through one tile.
fn dot<E: Element, const K: usize>(mode: TensorMode, a: &[u32], b: &[u32], c: u32) -> u32 {
    let mut a_tile = [[0; K]; ROWS];
    let mut b_tile = [[0; COLUMNS]; K];
    let mut c_tile = [[0; COLUMNS]; ROWS];
    // Not the first row and column, so that a mix-up shows.
    for k in 0..a.len() {
        (a_tile[9][k], b_tile[k][5]) = (a[k], b[k]);
    }
    c_tile[9][5] = c;
    #[cfg(target_arch = "x86_64")]
    let before = c_tile;
    multiply::<E, AccF32, K>(mode, &a_tile, &b_tile, &mut c_tile);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
    {
        let mut wide = before;
        // SAFETY: the host has the features.
        unsafe {
            ptx_emulator::num::tensor::multiply_avx2::<E, AccF32, K>(mode, &a_tile, &b_tile, &mut wide)
        };
        assert_eq!(wide, c_tile, "AVX2 and plain loops differ in {mode:?}");
    }
    c_tile[9][5]
}

#[derive(Clone, Copy, Debug)]
enum Format {
    F16,
    Bf16,
    Tf32,
}

impl Format {
    /// An f32 that the format can hold, as the format's bits.
    fn bits(self, x: u32) -> u32 {
        match self {
            Format::F16 => f32_to_f16_rn(f32::from_bits(x)).into(),
            Format::Bf16 => f32_to_bf16_rn(f32::from_bits(x)).into(),
            Format::Tf32 => x,
        }
    }

    /// A dot product of any length, through as many tiles as it takes.
    fn dot(self, mode: TensorMode, a: &[u32], b: &[u32], c: u32) -> u32 {
        let length = match self {
            Format::Tf32 => 8,
            _ => 16,
        };
        let mut sum = c;
        for (a, b) in a.chunks(length).zip(b.chunks(length)) {
            let a: Vec<u32> = a.iter().map(|&x| self.bits(x)).collect();
            let b: Vec<u32> = b.iter().map(|&x| self.bits(x)).collect();
            sum = match (self, a.len()) {
                (Format::F16, ..=8) => dot::<F16, 8>(mode, &a, &b, sum),
                (Format::F16, _) => dot::<F16, 16>(mode, &a, &b, sum),
                (Format::Bf16, ..=8) => dot::<Bf16, 8>(mode, &a, &b, sum),
                (Format::Bf16, _) => dot::<Bf16, 16>(mode, &a, &b, sum),
                (Format::Tf32, ..=4) => dot::<Tf32, 4>(mode, &a, &b, sum),
                (Format::Tf32, _) => dot::<Tf32, 8>(mode, &a, &b, sum),
            };
        }
        sum
    }
}

fn rows(path: &Path) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let word = |word: &str| {
        let radix = if word.len() == 32 { 2 } else { 16 };
        u32::from_str_radix(word, radix).unwrap_or_else(|e| panic!("{}: {word}: {e}", path.display()))
    };
    let rows: Vec<Vec<u32>> = text.lines().map(|line| line.split_whitespace().map(word).collect()).collect();
    rows.into_iter().filter(|row: &Vec<u32>| !row.is_empty()).collect()
}

#[test]
fn recorded_dot_products_bit_for_bit() {
    // Where they lie beside a checkout, unless the variable says otherwise.
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/tensor-core");
    let beside = beside.is_dir().then(|| beside.into_os_string());
    let Some(folder) = std::env::var_os("PTX_EMULATOR_TENSOR_VECTORS").or(beside) else {
        println!("not run: PTX_EMULATOR_TENSOR_VECTORS is not set");
        return;
    };
    let folder = Path::new(&folder);
    let mut sets = 0;
    for (gpu, mode) in [
        ("A100", TensorMode::Sm80),
        ("Ada", TensorMode::Sm80),
        ("L40S", TensorMode::Sm80),
        ("H100", TensorMode::Sm90),
        ("H200", TensorMode::Sm90),
        ("B200", TensorMode::Sm90),
    ] {
        for (name, format) in [("fp16", Format::F16), ("bf16", Format::Bf16), ("tf32", Format::Tf32)] {
            let file = |operand: &str| folder.join(format!("{gpu}_{name}_{operand}.txt"));
            if !file("a").exists() {
                continue;
            }
            let [a, b, c, d] = ["a", "b", "c", "d"].map(|operand| rows(&file(operand)));
            assert!(!a.is_empty() && a.len() == b.len() && a.len() == c.len() && a.len() == d.len());
            let mut others = 0;
            for k in 0..a.len() {
                let got = format.dot(mode, &a[k], &b[k], c[k][0]);
                assert_eq!(f32::from_bits(got), f32::from_bits(d[k][0]), "{gpu} {name} row {k}: {got:#x}");
                let other = if mode == TensorMode::Sm80 { TensorMode::Sm90 } else { TensorMode::Sm80 };
                others += (format.dot(other, &a[k], &b[k], c[k][0]) == d[k][0]) as usize;
            }
            // The other device's rule must not pass for this one, or the data would show nothing.
            assert!(others < a.len(), "{gpu} {name}: every mode gives the same");
            println!(
                "{gpu} {name}: {} rows of {} products agree (other model: {others})",
                a.len(),
                a[0].len()
            );
            sets += 1;
        }
    }
    assert!(sets > 0, "no recorded sets in {}", folder.display());
}

/// The model said again, on f64 values instead of encodings: cut every term off at the last bit's weight, add, cut off.
fn restated(groups: usize, extra: i32, smallest: i32, a: &[f32], b: &[f32], c: f32) -> f32 {
    let exponent = |x: f32, smallest: i32| {
        let mut e = smallest;
        while e < 128 && f64::from(x).abs() >= 2f64.powi(e + 1) {
            e += 1;
        }
        e
    };
    let mut sum = c;
    for (a, b) in a.chunks(groups).zip(b.chunks(groups)) {
        let mut terms = vec![(f64::from(sum), exponent(sum, -126))];
        for (&x, &y) in a.iter().zip(b) {
            terms.push((f64::from(x) * f64::from(y), exponent(x, smallest) + exponent(y, smallest)));
        }
        let top =
            terms.iter().filter(|(value, _)| *value != 0.0).map(|(_, e)| *e).max().unwrap_or(0).max(-133);
        let last = 2f64.powi(top - 23 - extra);
        let total: f64 = terms.iter().map(|(value, _)| (value / last).trunc()).sum();
        sum = truncated(total * last);
    }
    sum
}

/// Towards zero, by searching for the place of the last bit.
fn truncated(x: f64) -> f32 {
    let mut place = 2f64.powi(-149);
    while x.abs() >= place * 2f64.powi(24) {
        place *= 2.0;
    }
    ((x / place).trunc() * place) as f32
}

#[test]
fn wide_exponents_and_subnormals_follow_the_restated_model() {
    let mut state = 2026u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32
    };
    for round in 0..4000 {
        // From terms of like size to terms that mostly vanish beside the largest.
        let spread = [1, 6, 24, 40][round % 4];
        for format in [Format::F16, Format::Bf16, Format::Tf32] {
            let (keep, smallest, lowest, length, sm80) = match format {
                Format::F16 => (13, -14, 127 - 14, 16, 8),
                Format::Bf16 => (16, -126, 127 - 60, 16, 8),
                Format::Tf32 => (13, -126, 127 - 60, 8, 4),
            };
            let spread = if matches!(format, Format::F16) { spread.min(28) } else { spread };
            let mut number = |drop: u32, low: u32| {
                let bits = (random() & 1) << 31 | (low + random() % spread) << 23 | (random() & 0x7f_ffff);
                let x = f32::from_bits(bits >> drop << drop);
                match (random() % 8, format) {
                    (0, _) => 0.0,
                    // An f16 subnormal: a multiple of 2^-24 below 2^-14.
                    (1, Format::F16) if drop > 0 => (random() % 1024) as f32 * 2f32.powi(-24),
                    _ => x,
                }
            };
            let a: Vec<f32> = (0..length).map(|_| number(keep, lowest)).collect();
            let b: Vec<f32> = (0..length).map(|_| number(keep, lowest)).collect();
            let c = number(0, 2 * lowest - 127 + 2);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
            for (mode, groups, extra) in [(TensorMode::Sm80, sm80, 1), (TensorMode::Sm90, length, 2)] {
                let got = f32::from_bits(format.dot(mode, &bits(&a), &bits(&b), c.to_bits()));
                let want = restated(groups, extra, smallest, &a, &b, c);
                assert_eq!(got, want, "{format:?} {mode:?} {a:?} {b:?} {c:e}");
            }
        }
    }
}
