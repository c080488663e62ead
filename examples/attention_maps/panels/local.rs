//! `local`: attention inside a window, by likeness of pixels and by relative position.
//!
//! A pixel's features f are the colours of the 3×3 pixels around it. With q = (f, 1), k = (f, −|f|²/2) and α = 1/τ² the
//! logits are −|f_i − f_j|²/2τ² but for a number that is the same for all keys. Tables that hold only the last channel add a
//! term of position to that.

use super::super::shared::Failure;
use super::super::shared::canvas::Canvas;
use super::super::shared::heat;
use super::super::shared::photo::to_image;
use super::super::shared::sheet::{Cell, Sheet, enlarge};
use super::{CELL_SIDE_MIN, Query, Scene, crop, mark, one_query, percent};
use image::{Rgb, RgbImage};
use macula::local::{Blocks, LocalConfig, Positions, Relative, Sliding, Tables, Window};
use macula::{Device, Local, Tensor};

/// Channels: three colours of nine pixels, and the constant.
const CHANNELS: usize = 28;
/// τ: how unlike pixels may be.
const LIKENESS: f32 = 0.45;
/// Standard deviation of the weights by position, in pixels.
const NEARNESS: f32 = 5.0;
/// Sides of the part of the photo that a map is shown on; it holds the largest window.
const CROP_SIDE: usize = 49;
/// Standard deviation of the noise that is taken away again, of full brightness.
const NOISE: f32 = 0.08;

/// What weights depend on.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Likeness,
    Position,
    Both,
}

fn op(window: Window) -> Result<Local, Failure> {
    let scale = LIKENESS.powi(-2);
    Ok(Local::new(LocalConfig { window, scale, relative: Relative::Sum })?)
}

/// A window of so many pixels on both sides.
const fn square(side: usize) -> Window {
    Window::sliding([side; 2])
}

/// Queries, keys and tables on a device.
struct Inputs {
    q: Tensor<f32, 5>,
    k: Tensor<f32, 5>,
    tables: Tables<Tensor<f32, 3>>,
}

impl Inputs {
    fn of(on: &dyn Device, picture: &RgbImage, window: Window, by: By) -> Result<Self, Failure> {
        let (width, height) = picture.dimensions();
        let shape = [1, 1, height as usize, width as usize, CHANNELS];
        let (mut q, mut k) = (Vec::new(), Vec::new());
        for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
            let features = if by == By::Position { [0.0; CHANNELS - 1] } else { features(picture, x, y) };
            q.extend(features);
            q.push(1.0);
            k.extend(features);
            k.push(-0.5 * features.iter().map(|f| f * f).sum::<f32>());
        }
        // Offset 0 is in the middle of either table.
        let [rows, columns] = window.table_rows();
        let height = if by == By::Likeness { 0.0 } else { (LIKENESS / NEARNESS).powi(2) };
        let is_last = |i: usize| i % CHANNELS == CHANNELS - 1;
        let table = |rows: usize| {
            let term = |row: usize| -0.5 * height * (row as f32 - (rows as f32 - 1.0) / 2.0).powi(2);
            let all = (0..rows * CHANNELS).map(|i| if is_last(i) { term(i / CHANNELS) } else { 0.0 });
            Tensor::from_vec(all.collect(), [1, rows, CHANNELS])?.to(on)
        };
        Ok(Self {
            q: Tensor::from_vec(q, shape)?.to(on)?,
            k: Tensor::from_vec(k, shape)?.to(on)?,
            tables: Tables { rel_h: table(rows)?, rel_w: table(columns)? },
        })
    }

    fn lent(&self) -> Positions<'_, f32> {
        Tables { rel_h: &self.tables.rel_h, rel_w: &self.tables.rel_w }.into()
    }
}

/// The colours of the 3×3 pixels around one; those outside are as the nearest inside.
fn features(picture: &RgbImage, x: u32, y: u32) -> [f32; CHANNELS - 1] {
    let near = |i: u32, by: usize, size: u32| (i + by as u32).saturating_sub(1).min(size - 1);
    std::array::from_fn(|i| {
        let (pixel, colour) = (i / 3, i % 3);
        let at = [near(x, pixel % 3, picture.width()), near(y, pixel / 3, picture.height())];
        f32::from(picture.get_pixel(at[0], at[1]).0[colour]) / 255.0
    })
}

/// The weights of one query, `[y, x]`. They are what flows back to the values when a single channel of ones flows back to
/// this query alone.
fn attention_map(
    on: &dyn Device,
    picture: &RgbImage,
    query: &Query,
    window: Window,
    by: By,
) -> Result<Vec<f32>, Failure> {
    let (op, inputs) = (op(window)?, Inputs::of(on, picture, window, by)?);
    let [_, _, y, x, _] = inputs.q.shape();
    let d_o = one_query(on, [y, x], query)?;
    let v = Tensor::zeros(on, [1, 1, y, x, 1])?;
    let output = op.forward(on, &inputs.q, &inputs.k, &v, inputs.lent())?;
    let grads = op.backward(on, &inputs.q, &inputs.k, &v, inputs.lent(), &output, &d_o)?;
    Ok(grads.dv.to_vec()?)
}

/// Three queries in windows of two sizes, by likeness and by position; in a dilated window and in a block.
pub fn maps(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let kinds = [
        (square(7), By::Likeness, "7×7, by likeness"),
        (square(33), By::Likeness, "33×33, by likeness"),
        (square(33), By::Position, "33×33, by position"),
        (square(33), By::Both, "33×33, by both"),
        (Sliding::new([11; 2]).dilated([3; 2]).into(), By::Likeness, "11×11 of every third"),
        (Blocks::new([16; 2]).offset_by([8; 2]).into(), By::Likeness, "its block of 16×16"),
    ];
    let mut cells = Vec::new();
    for query in &scene.queries {
        let (part, place) = crop(&scene.photo.image, query, CROP_SIDE);
        let factor = CELL_SIDE_MIN.div_ceil(part.width().max(part.height()));
        for (window, by, caption) in kinds {
            let map = attention_map(scene.device, &part, &place, window, by)?;
            let largest = map.iter().fold(0.0f32, |m, &w| m.max(w));
            let mut canvas = Canvas { image: enlarge(&heat::overlay(&part, &map), factor) };
            mark(&mut canvas, &place, factor as f32);
            let note = format!("{}; at most {}", query.name, percent(largest));
            cells.push(Cell::new(canvas.image, caption).note(note));
        }
    }
    let sheet = Sheet {
        title: "Local attention: one query's weights in its window".into(),
        subtitle: "queries and keys are the colours of 3×3 pixels, positions come from the relative tables; \
                   a map's weights sum to 1, at borders too"
            .into(),
        columns: kinds.len(),
        cells,
        has_colour_bar: true,
    };
    Ok(sheet.draw())
}

/// A photo with noise, the same every time.
fn noisy(photo: &RgbImage) -> RgbImage {
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    RgbImage::from_fn(photo.width(), photo.height(), |x, y| {
        // Twelve uniform numbers make a nearly normal one of variance 1.
        Rgb(photo.get_pixel(x, y).0.map(|byte| {
            let noise = (0..12).map(|_| uniform()).sum::<f32>();
            (f32::from(byte) + 255.0 * NOISE * noise).round() as u8
        }))
    })
}

/// The colours of a picture averaged by the op.
fn attend(on: &dyn Device, picture: &RgbImage, window: Window, by: By) -> Result<RgbImage, Failure> {
    let (op, inputs) = (op(window)?, Inputs::of(on, picture, window, by)?);
    let [_, _, y, x, _] = inputs.q.shape();
    let colours = picture.as_raw().iter().map(|&byte| f32::from(byte) / 255.0).collect();
    let v = Tensor::from_vec(colours, [1, 1, y, x, 3])?.to(on)?;
    to_image(&op.forward(on, &inputs.q, &inputs.k, &v, inputs.lent())?.o)
}

/// Noise taken from the photo.
pub fn attended(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let noisy = noisy(&scene.photo.image);
    let mut cells = vec![
        Cell::new(scene.cell(&scene.photo.image, &[]), "the photo"),
        Cell::new(scene.cell(&noisy, &[]), "with noise"),
    ];
    let kinds = [
        (square(9), By::Position, "9×9, by position"),
        (square(3), By::Likeness, "3×3, by likeness"),
        (square(9), By::Likeness, "9×9, by likeness"),
        (square(9), By::Both, "9×9, by both"),
    ];
    for (window, by, caption) in kinds {
        cells.push(Cell::new(scene.cell(&attend(scene.device, &noisy, window, by)?, &[]), caption));
    }
    let sheet = Sheet {
        title: "A noisy photo seen through local attention".into(),
        subtitle: "every pixel is the mean of the colours in its window; likeness keeps edges, position alone blurs them"
            .into(),
        columns: 3,
        cells,
        has_colour_bar: false,
    };
    Ok(sheet.draw())
}
