//! The digits: real images of 8×8 pixels, bundled with this example.

use crate::Failure;
use candle_core::{Device, Tensor};

const SHEET: &[u8] = include_bytes!("../data/digits.png");
const LABELS: &str = include_str!("../data/digits.txt");
/// Pixels along an edge of an image.
pub const SIZE: usize = 8;
/// The grey of the largest pixel value, 16.
const WHITE: f32 = 240.0;
/// Every fifth image is held out for the test.
const TEST_EVERY: usize = 5;

/// Pixels of the neighbourhood that a net sees of each pixel, 3×3.
pub const NEIGHBOURS: usize = 9;

/// Images `[n, 9, 8, 8]`, each pixel with its neighbours, 0 to 1 and 0 outside; labels `[n]`.
pub struct Set {
    pub images: Tensor,
    pub labels: Tensor,
    pub len: usize,
}

pub struct Digits {
    pub train: Set,
    pub test: Set,
}

impl Digits {
    /// Reads the bundled images.
    pub fn load(device: &Device) -> Result<Self, Failure> {
        let sheet = image::load_from_memory(SHEET)?.into_luma8();
        let labels: Vec<u32> = LABELS.chars().filter_map(|c| c.to_digit(10)).collect();
        let in_row = sheet.width() as usize / SIZE;
        if labels.len() > in_row * (sheet.height() as usize / SIZE) {
            return Err("data/digits.txt has more labels than data/digits.png has images".into());
        }
        let pixel = |n: usize, i: usize| {
            let (x, y) = (n % in_row * SIZE + i % SIZE, n / in_row * SIZE + i / SIZE);
            f32::from(sheet.get_pixel(x as u32, y as u32).0[0]) / WHITE
        };
        let set = |is_test: bool| -> Result<Set, Failure> {
            let chosen: Vec<usize> =
                (0..labels.len()).filter(|n| n.is_multiple_of(TEST_EVERY) == is_test).collect();
            let at = |n: usize, y: isize, x: isize| {
                let is_inside = |i: isize| (0..SIZE as isize).contains(&i);
                if is_inside(y) && is_inside(x) { pixel(n, y as usize * SIZE + x as usize) } else { 0.0 }
            };
            let mut pixels = Vec::with_capacity(chosen.len() * NEIGHBOURS * SIZE * SIZE);
            for &n in &chosen {
                for neighbour in 0..NEIGHBOURS as isize {
                    let (dy, dx) = (neighbour / 3 - 1, neighbour % 3 - 1);
                    let all = (0..(SIZE * SIZE) as isize).map(|i| (i / SIZE as isize, i % SIZE as isize));
                    pixels.extend(all.map(|(y, x)| at(n, y + dy, x + dx)));
                }
            }
            let names: Vec<u32> = chosen.iter().map(|&n| labels[n]).collect();
            Ok(Set {
                len: chosen.len(),
                images: Tensor::from_vec(pixels, (chosen.len(), NEIGHBOURS, SIZE, SIZE), device)?,
                labels: Tensor::from_vec(names, chosen.len(), device)?,
            })
        };
        Ok(Self { train: set(false)?, test: set(true)? })
    }
}

impl Set {
    /// The images of these numbers.
    pub fn batch(&self, chosen: &[u32]) -> candle_core::Result<(Tensor, Tensor)> {
        let chosen = Tensor::new(chosen, self.images.device())?;
        Ok((self.images.index_select(&chosen, 0)?, self.labels.index_select(&chosen, 0)?))
    }
}

/// Random numbers from a seed, the same everywhere (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Normal, with deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// The numbers below `count` in a random order.
    pub fn shuffled(&mut self, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count as u32).collect();
        for i in (1..count).rev() {
            order.swap(i, (self.uniform() * (i + 1) as f64) as usize);
        }
        order
    }
}
