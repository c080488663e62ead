//! `axial`: attention along the column, then along the row, by position alone; a pixel's query says how far it looks.
//!
//! Two channels: the tables hold a wide bell in the first and a narrow one in the second. A query is (a, 1 − a), where a is
//! near 1 in smooth parts of the photo and near 0 at edges.

use super::super::shared::Failure;
use super::super::shared::canvas::Canvas;
use super::super::shared::heat;
use super::super::shared::photo::to_image;
use super::super::shared::sheet::{Cell, Sheet, enlarge};
use super::{CELL_SIDE_MIN, Scene, crop, mark, one_query, percent};
use image::RgbImage;
use macula::axial::{Axes, AxialConfig, Parameters};
use macula::{Axial, Tensor};

/// Standard deviations of the bells, in pixels.
pub const WIDE: f32 = 14.0;
const NARROW: f32 = 1.0;
/// Sides of the part of the photo that a map is shown on.
const CROP_SIDE: usize = 81;
/// L: offsets up to L − 1 pixels count.
const REACH: usize = 48;
/// The slope of brightness, per pixel, at which a pixel looks no further than e⁻¹ of the way.
const SLOPE: f32 = 0.05;

/// How smooth the photo is at each pixel, from 0 to 1.
fn smoothness(picture: &RgbImage) -> Vec<f32> {
    let (width, height) = picture.dimensions();
    let bright = |x: u32, y: u32| {
        let [r, g, b] = picture.get_pixel(x.min(width - 1), y.min(height - 1)).0.map(f32::from);
        (0.299 * r + 0.587 * g + 0.114 * b) / 255.0
    };
    let slope = |x: u32, y: u32| {
        let (left, up) = (x.saturating_sub(1), y.saturating_sub(1));
        (bright(x + 1, y) - bright(left, y)).hypot(bright(x, y + 1) - bright(x, up)) / 2.0
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    pixels.map(|(x, y)| (-(slope(x, y) / SLOPE).powi(2)).exp()).collect()
}

/// The weights of a bell over the offsets, which sum to 1.
fn bell(sigma: f32) -> Vec<f32> {
    let weight = |i: usize| (-0.5 * ((i as f32 + 1.0 - REACH as f32) / sigma).powi(2)).exp();
    let sum: f32 = (0..2 * REACH - 1).map(weight).sum();
    (0..2 * REACH - 1).map(|i| weight(i) / sum).collect()
}

/// A table of zeros, `[1, 2L − 1, channels]`, but for its last channels, which are `bells`.
pub fn table(scene: &Scene<'_>, channels: usize, bells: &[f32]) -> Result<Tensor<f32, 3>, Failure> {
    let bells: Vec<Vec<f32>> = bells.iter().map(|&sigma| bell(sigma)).collect();
    let mut data = vec![0.0; (2 * REACH - 1) * channels];
    for (i, row) in data.chunks_exact_mut(channels).enumerate() {
        row.iter_mut().rev().zip(bells.iter().rev()).for_each(|(x, bell)| *x = bell[i]);
    }
    Ok(Tensor::from_vec(data, [1, 2 * REACH - 1, channels])?.to(scene.device)?)
}

fn queries(scene: &Scene<'_>, is_by_slope: bool) -> Result<Tensor<f32, 5>, Failure> {
    let smooth = smoothness(&scene.photo.image).into_iter().map(|a| if is_by_slope { a } else { 1.0 });
    let data = smooth.flat_map(|a| [a, 1.0 - a]).collect();
    Ok(Tensor::from_vec(data, scene.shape(2))?.to(scene.device)?)
}

fn op(axes: Axes) -> Result<Axial, Failure> {
    Ok(Axial::new(AxialConfig { axes, ..Default::default() })?)
}

fn parameters(axes: Axes, table: &Tensor<f32, 3>) -> Parameters<'_, f32> {
    Parameters {
        columns: (axes != Axes::Rows).then_some(table),
        rows: (axes != Axes::Columns).then_some(table),
        affine: None,
        given: None,
    }
}

/// Three queries along each axis and along both.
pub fn maps(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let kinds = [
        (Axes::Columns, false, "columns alone"),
        (Axes::Rows, false, "rows alone"),
        (Axes::ColumnsThenRows, false, "columns, then rows"),
        (Axes::ColumnsThenRows, true, "edges look less far"),
    ];
    let (photo, on) = (&scene.photo.image, scene.device);
    let table = table(scene, 2, &[WIDE, NARROW])?;
    let mut cells = Vec::new();
    for query in &scene.queries {
        for (axes, is_by_slope, caption) in kinds {
            let (op, q) = (op(axes)?, queries(scene, is_by_slope)?);
            let parameters = parameters(axes, &table);
            let v = Tensor::zeros(on, scene.shape(1))?;
            let output = op.forward(on, &q, &v, &parameters)?;
            let d_o = one_query(scene.device, scene.photo.size(), query)?;
            let map = op.backward(on, &q, &v, &parameters, &output.saved, &d_o)?.dv.to_vec()?;
            let largest = map.iter().fold(0.0f32, |m, &w| m.max(w));
            let (part, place) = crop(&heat::overlay(photo, &map), query, CROP_SIDE);
            let factor = CELL_SIDE_MIN.div_ceil(part.width().max(part.height()));
            let mut canvas = Canvas { image: enlarge(&part, factor) };
            mark(&mut canvas, &place, factor as f32);
            let cell = Cell::new(canvas.image, caption);
            cells.push(cell.note(format!("{}; at most {}", query.name, percent(largest))));
        }
    }
    let sheet = Sheet {
        title: "Axial attention: one query's weights along columns and rows".into(),
        subtitle: "no softmax: a weight is the product of a query and an offset's row in the table; \
                   the second step uses the queries of the pixels in the row"
            .into(),
        columns: kinds.len(),
        cells,
        has_colour_bar: true,
    };
    Ok(sheet.draw())
}

/// The photo's colours drawn along the axes. Weights do not sum to 1 at borders, so a channel of ones goes along, and
/// colours are divided by what becomes of it.
fn attend(scene: &Scene<'_>, axes: Axes, is_by_slope: bool) -> Result<RgbImage, Failure> {
    let (on, table) = (scene.device, table(scene, 2, &[WIDE, NARROW])?);
    let colours = scene.photo.tensor()?.to_vec()?;
    let data = colours.chunks_exact(3).flat_map(|c| [c[0], c[1], c[2], 1.0]).collect();
    let v = Tensor::from_vec(data, scene.shape(4))?.to(on)?;
    let o = op(axes)?.forward(on, &queries(scene, is_by_slope)?, &v, &parameters(axes, &table))?.o;
    let divided = o.to_vec()?.chunks_exact(4).flat_map(|c| [c[0] / c[3], c[1] / c[3], c[2] / c[3]]).collect();
    to_image(&Tensor::from_vec(divided, scene.shape(3))?)
}

/// The photo, how far its pixels look, and what they see.
pub fn attended(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let photo = &scene.photo.image;
    let smooth = heat::overlay(photo, &smoothness(photo));
    let mut cells = vec![
        Cell::new(scene.cell(photo, &[]), "the photo"),
        Cell::new(scene.cell(&smooth, &[]), "how far a pixel looks"),
    ];
    let kinds = [
        (Axes::Columns, false, "columns alone"),
        (Axes::Rows, false, "rows alone"),
        (Axes::ColumnsThenRows, false, "columns, then rows"),
        (Axes::ColumnsThenRows, true, "edges look less far"),
    ];
    for (axes, is_by_slope, caption) in kinds {
        cells.push(Cell::new(scene.cell(&attend(scene, axes, is_by_slope)?, &[]), caption));
    }
    let sheet = Sheet {
        title: "The photo seen through axial attention".into(),
        subtitle: "smooth parts are blurred along columns and rows; a pixel on an edge keeps to itself"
            .into(),
        columns: 3,
        cells,
        has_colour_bar: false,
    };
    Ok(sheet.draw())
}
