//! `gaussian`: attention that depends on distance and one radius.

use super::super::shared::Failure;
use super::super::shared::canvas::Canvas;
use super::super::shared::chart::{Axis, Chart, Scale, Series, palette};
use super::super::shared::heat;
use super::super::shared::photo::to_image;
use super::super::shared::sheet::{Cell, Sheet};
use super::{Query, Scene, percent};
use image::RgbImage;
use macula::gaussian::{GaussianConfig, Kernel};
use macula::{Gaussian, Tensor};
use std::f32::consts::SQRT_2;

/// Radii, in pixels.
const RADII: [f32; 4] = [4.0, 10.0, 20.0, 40.0];
/// The radius at which kernels are compared.
const KERNEL_RADIUS: f32 = 20.0;
const OVERVIEW_CELL_SIDE: u32 = 270;

/// The attention map of one query over the photo, and its largest weight.
fn map_over_photo(
    scene: &Scene<'_>,
    op: &Gaussian,
    query: &Query,
    radius: f32,
) -> Result<(RgbImage, f32), Failure> {
    let map = op.attention_map(scene.photo.size(), [query.yi, query.xi], radius)?;
    let largest = map.iter().fold(0.0f32, |m, &w| m.max(w));
    Ok((heat::overlay(&scene.photo.image, &map), largest))
}

/// The photo's colours averaged by the op.
fn attend(scene: &Scene<'_>, radius: f32) -> Result<RgbImage, Failure> {
    let v = scene.photo.tensor()?.to(scene.device)?;
    let sigma = Tensor::from_vec(vec![radius], [1])?.to(scene.device)?;
    to_image(&Gaussian::default().forward(scene.device, &v, &sigma)?)
}

fn radius_caption(radius: f32) -> String {
    format!("radius {radius} px")
}

/// One query at growing radii, and below it the photo seen through them.
pub fn overview(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let query = &scene.queries[0];
    let mut cells = Vec::new();
    for radius in RADII {
        let (picture, _) = map_over_photo(scene, &Gaussian::default(), query, radius)?;
        let picture = scene.small_cell(&picture, &[query], OVERVIEW_CELL_SIDE);
        cells.push(Cell::new(picture, radius_caption(radius)));
    }
    for radius in RADII {
        let picture = scene.small_cell(&attend(scene, radius)?, &[], OVERVIEW_CELL_SIDE);
        cells.push(Cell::new(picture, format!("seen through {radius} px")));
    }
    let sheet = Sheet {
        title: "Gaussian attention: one radius says where a pixel looks".into(),
        subtitle: "above: the weights of one query pixel; below: every pixel replaced by what it attends to"
            .into(),
        columns: RADII.len(),
        cells,
        has_colour_bar: true,
    };
    Ok(sheet.draw())
}

/// Three queries at four radii.
pub fn maps(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let mut cells = Vec::new();
    for query in &scene.queries {
        for radius in RADII {
            let (picture, largest) = map_over_photo(scene, &Gaussian::default(), query, radius)?;
            let cell = Cell::new(scene.cell(&picture, &[query]), radius_caption(radius));
            let Query { name, yi, xi } = query;
            cells.push(cell.note(format!("{name} (row {yi}, column {xi}); at most {}", percent(largest))));
        }
    }
    let sheet = Sheet {
        title: "Attention maps of three query pixels".into(),
        subtitle: "heat: weight relative to the map's largest; lines: a half and a tenth of it; \
                   a map's weights sum to 1, at borders too"
            .into(),
        columns: RADII.len(),
        cells,
        has_colour_bar: true,
    };
    Ok(sheet.draw())
}

/// A kernel's formula; D is the distance from the query, r the radius.
fn formula(kernel: Kernel) -> &'static str {
    match kernel {
        Kernel::Gaussian => "exp(-D² / 2r²)",
        Kernel::Manhattan => "exp(-(|dy| + |dx|) / r)",
        Kernel::Exponential => "exp(-D / r)",
        Kernel::Linear => "max(0, 1 - D / r)",
        Kernel::Cauchy => "1 / (1 + D² / r²)",
    }
}

/// The five kernels at one radius, and their profiles.
pub fn kernels(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let query = &scene.queries[1];
    let (mut cells, mut series) = (Vec::new(), Vec::new());
    for (i, kernel) in Kernel::ALL.into_iter().enumerate() {
        let op = Gaussian::new(GaussianConfig { kernel, ..Default::default() })?;
        let (picture, largest) = map_over_photo(scene, &op, query, KERNEL_RADIUS)?;
        let note = format!("{}; at most {}", formula(kernel), percent(largest));
        cells.push(Cell::new(scene.cell(&picture, &[query]), kernel.name()).note(note));
        series.push(Series {
            name: kernel.name().into(),
            colour: palette(i),
            points: profile(&op, KERNEL_RADIUS)?,
        });
    }
    let far = PROFILE_RADII * KERNEL_RADIUS;
    let chart = Chart {
        x: Axis { name: "distance along a diagonal, px".into(), low: 0.0, high: far, scale: Scale::Linear },
        y: Axis { name: "weight / largest weight".into(), low: 0.0, high: 1.0, scale: Scale::Linear },
        series,
        level: None,
    };
    let (width, height) = cells[0].picture.dimensions();
    let cell = Cell::new(chart.draw(width.max(400), height.max(260)), "profiles");
    cells.push(cell.note("before normalisation"));
    let sheet = Sheet {
        title: format!("Five kernels, all with a radius of {KERNEL_RADIUS} px"),
        subtitle: "heat: weight relative to the map's largest; lines: a half and a tenth of it".into(),
        columns: 3,
        cells,
        has_colour_bar: true,
    };
    Ok(sheet.draw())
}

/// How many radii far a profile goes.
const PROFILE_RADII: f32 = 4.0;

/// Distance and weight relative to the largest, from the query along the diagonal, where no two kernels agree.
fn profile(op: &Gaussian, radius: f32) -> Result<Vec<[f32; 2]>, Failure> {
    let side = (PROFILE_RADII * radius / SQRT_2) as usize + 2;
    let map = op.attention_map([side, side], [0, 0], radius)?;
    let diagonal = map.iter().step_by(side + 1);
    Ok(diagonal.enumerate().map(|(i, w)| [i as f32 * SQRT_2, w / map[0]]).collect())
}

/// The photo, and the photo attended at growing radii.
pub fn attended(scene: &Scene<'_>) -> Result<Canvas, Failure> {
    let photo = Cell::new(scene.cell(&scene.photo.image, &[]), "the photo");
    let mut cells = vec![photo];
    for radius in [1.0, 4.0, 10.0, 20.0, 40.0] {
        cells.push(Cell::new(scene.cell(&attend(scene, radius)?, &[]), radius_caption(radius)));
    }
    let sheet = Sheet {
        title: "The photo seen through Gaussian attention".into(),
        subtitle: "every pixel is the mean of the photo's colours, weighted by its attention map".into(),
        columns: 3,
        cells,
        has_colour_bar: false,
    };
    Ok(sheet.draw())
}
