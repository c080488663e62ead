//! `content`: attention to everything of like content, wherever it is, through a summary of a few rows.
//!
//! Channel c stands for a colour p_c of a palette. Keys and queries are −|f − p_c|²/2τ²: their softmax over pixels says where
//! a colour is, their softmax over channels which colours a pixel has.

use super::super::shared::Failure;
use super::super::shared::canvas::Canvas;
use super::super::shared::heat;
use super::super::shared::photo::to_image;
use super::super::shared::sheet::{Cell, Sheet};
use super::{Query, Scene, one_query, percent};
use image::RgbImage;
use macula::content::{ContentConfig, Form};
use macula::{Content, Device, Tensor};

/// τ: how unlike colours may be, of full brightness.
const LIKENESS: f32 = 0.08;
/// Pixels that a palette is made from, at most.
const SAMPLES: usize = 4096;
/// How often a palette's colours are moved to the middle of what is nearest to them.
const ROUNDS: usize = 8;

type Colour = [f32; 3];

pub fn colours(picture: &RgbImage) -> Vec<Colour> {
    picture.pixels().map(|pixel| pixel.0.map(|byte| f32::from(byte) / 255.0)).collect()
}

fn distance(a: &Colour, b: &Colour) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

/// Colours that stand for those of a picture: k-means, begun with colours of pixels at equal steps.
pub fn palette(colours: &[Colour], count: usize) -> Vec<Colour> {
    let samples: Vec<&Colour> = colours.iter().step_by(colours.len().div_ceil(SAMPLES)).collect();
    let mut palette: Vec<Colour> = (0..count).map(|i| *samples[i * samples.len() / count]).collect();
    for _ in 0..ROUNDS {
        let mut sums = vec![([0.0f32; 3], 0.0f32); count];
        for sample in &samples {
            let nearest = (0..count)
                .min_by(|&a, &b| distance(sample, &palette[a]).total_cmp(&distance(sample, &palette[b])));
            let (sum, n) = &mut sums[nearest.unwrap_or(0)];
            sum.iter_mut().zip(*sample).for_each(|(sum, x)| *sum += x);
            *n += 1.0;
        }
        for (colour, (sum, n)) in palette.iter_mut().zip(sums) {
            if n > 0.0 {
                *colour = sum.map(|x| x / n);
            }
        }
    }
    palette
}

/// −|f − p|²/2τ² of a pixel, for each colour of a palette.
pub fn likeness<'a>(colour: &'a Colour, palette: &'a [Colour]) -> impl Iterator<Item = f32> + 'a {
    palette.iter().map(|p| -0.5 * distance(colour, p) / (LIKENESS * LIKENESS))
}

fn op() -> Content {
    Content::new(ContentConfig { form: Form::Softmax { norm_queries: true } })
}

/// Queries, which are the keys too, on a device.
fn queries(on: &dyn Device, picture: &RgbImage, count: usize) -> Result<Tensor<f32, 5>, Failure> {
    let colours = colours(picture);
    let palette = palette(&colours, count);
    let data = colours.iter().flat_map(|colour| likeness(colour, &palette)).collect();
    let shape = [1, 1, picture.height() as usize, picture.width() as usize, count];
    Ok(Tensor::from_vec(data, shape)?.to(on)?)
}

/// Three queries through palettes of three sizes.
pub fn maps(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    const COUNTS: [usize; 3] = [4, 16, 64];
    let photo = &scene.photo.image;
    let all = COUNTS.iter().map(|&count| queries(scene.device, photo, count));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let mut cells = Vec::new();
    for query in &scene.queries {
        for (count, q) in COUNTS.iter().zip(&all) {
            let v = Tensor::zeros(scene.device, scene.shape(1))?;
            let output = op().forward(scene.device, q, q, &v)?;
            let d_o = one_query(scene.device, scene.photo.size(), query)?;
            let map = op().backward(scene.device, q, q, &v, &output.saved, &d_o)?.dv.to_vec()?;
            let largest = map.iter().fold(0.0f32, |m, &w| m.max(w));
            let cell =
                Cell::new(scene.cell(&heat::overlay(photo, &map), &[query]), format!("{count} channels"));
            let Query { name, .. } = query;
            cells.push(cell.note(format!("{name}; at most {}", percent(largest))));
        }
    }
    let sheet = Sheet {
        title: "Global content attention: one query's weights".into(),
        subtitle: "a channel is a colour of the photo's palette; no map is ever made, only a summary with a row per channel; \
                   a map's weights sum to 1"
            .into(),
        columns: COUNTS.len(),
        cells,
        has_colour_bar: true,
    };
    Ok(sheet.draw())
}

/// The photo through summaries of growing size.
pub fn attended(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let mut cells = vec![Cell::new(scene.cell(&scene.photo.image, &[]), "the photo")];
    let v = scene.photo.tensor()?.to(scene.device)?;
    for count in [1, 2, 8, 32, 128] {
        let q = queries(scene.device, &scene.photo.image, count)?;
        let picture = to_image(&op().forward(scene.device, &q, &q, &v)?.o)?;
        let caption = format!("a summary of {count} × 3 numbers");
        cells.push(Cell::new(scene.cell(&picture, &[]), caption));
    }
    let sheet = Sheet {
        title: "The photo seen through global content attention".into(),
        subtitle: "every pixel is the mean of the colours of all pixels like it, drawn together in one small summary".into(),
        columns: 3,
        cells,
        has_colour_bar: false,
    };
    Ok(sheet.draw())
}
