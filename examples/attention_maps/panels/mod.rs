//! The panels, one list. A new op adds its file here and its lines to [`PANELS`].

mod axial;
mod content;
mod gaussian;
mod gsa;
mod local;

use super::shared::Failure;
use super::shared::canvas::Canvas;
use super::shared::photo::Photo;
use super::shared::sheet::enlarge;
use image::{RgbImage, imageops};
use macula::{Device, Tensor};

/// A picture that this example writes.
pub struct Panel {
    pub file: &'static str,
    /// What one sees, for the terminal.
    pub shows: &'static str,
    pub draw: fn(&Scene<'_>) -> Result<Canvas, Failure>,
}

/// Every panel, in the order in which they are drawn.
pub const PANELS: &[Panel] = &[
    Panel {
        file: "overview.png",
        shows: "one pixel's attention at growing radii, and the photo seen through it",
        draw: gaussian::overview,
    },
    Panel {
        file: "gaussian_maps.png",
        shows: "attention maps of three pixels at four radii",
        draw: gaussian::maps,
    },
    Panel { file: "gaussian_kernels.png", shows: "the five kernels compared", draw: gaussian::kernels },
    Panel {
        file: "gaussian_attended.png",
        shows: "the op applied to the photo's colours",
        draw: gaussian::attended,
    },
    Panel {
        file: "local_maps.png",
        shows: "attention maps of three pixels in windows, by likeness and by position",
        draw: local::maps,
    },
    Panel {
        file: "local_attended.png",
        shows: "noise taken away by averaging what is alike",
        draw: local::attended,
    },
    Panel {
        file: "axial_maps.png",
        shows: "attention maps of three pixels along columns and rows",
        draw: axial::maps,
    },
    Panel {
        file: "axial_attended.png",
        shows: "a blur that every pixel chooses the width of",
        draw: axial::attended,
    },
    Panel {
        file: "content_maps.png",
        shows: "attention maps of three pixels to all that is alike",
        draw: content::maps,
    },
    Panel {
        file: "content_attended.png",
        shows: "the photo through summaries of growing size",
        draw: content::attended,
    },
    Panel { file: "gsa_maps.png", shows: "both branches of gsa, and their sum", draw: gsa::maps },
];

/// What every panel is drawn from.
pub struct Scene<'a> {
    pub photo: &'a Photo,
    pub device: &'a dyn Device,
    pub queries: [Query; 3],
    /// How many times pictures of cells are enlarged.
    factor: u32,
}

/// A pixel whose attention is shown.
pub struct Query {
    pub name: &'static str,
    pub yi: usize,
    pub xi: usize,
}

/// Marks a pixel of a picture that is drawn `scale` times as large.
fn mark(canvas: &mut Canvas, query: &Query, scale: f32) {
    let place = |i: usize| (i as f32 + 0.5) * scale - 0.5;
    canvas.marker([place(query.xi), place(query.yi)]);
}

/// A gradient of the output that is 1 at one query and 0 elsewhere: what flows back to values of one channel is the query's
/// weights, `[1, 1, y, x, 1]`.
fn one_query(on: &dyn Device, [y, x]: [usize; 2], query: &Query) -> Result<Tensor<f32, 5>, Failure> {
    let mut one = vec![0.0; y * x];
    one[query.yi * x + query.xi] = 1.0;
    Ok(Tensor::from_vec(one, [1, 1, y, x, 1])?.to(on)?)
}

/// The part of a picture around a query, `side` pixels on each side if there are so many, and where the query is in it.
fn crop(picture: &RgbImage, query: &Query, side: usize) -> (RgbImage, Query) {
    let cut = |i: usize, size: u32| {
        let side = side.min(size as usize);
        (i.saturating_sub(side / 2).min(size as usize - side), side)
    };
    let ((y, height), (x, width)) = (cut(query.yi, picture.height()), cut(query.xi, picture.width()));
    let part = imageops::crop_imm(picture, x as u32, y as u32, width as u32, height as u32).to_image();
    (part, Query { name: query.name, yi: query.yi - y, xi: query.xi - x })
}

/// A weight with two digits.
fn percent(weight: f32) -> String {
    let percent = 100.0 * weight;
    let digits = (1.0 - percent.max(1e-9).log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{percent:.digits$} %")
}

/// Pictures smaller than this are enlarged.
const CELL_SIDE_MIN: u32 = 320;

impl<'a> Scene<'a> {
    pub fn new(photo: &'a Photo, device: &'a dyn Device) -> Self {
        let [y, x] = photo.size();
        // As parts of the height and the width; the last one shows what a border does.
        let places = [(0.38, 0.38), (0.82, 0.59), (0.03, 0.98)];
        let names = if photo.is_bundled {
            ["the eye", "the nose", "near a corner"]
        } else {
            ["upper left", "lower right", "near a corner"]
        };
        let at = |part: f64, size: usize| ((part * size as f64) as usize).min(size - 1);
        let queries =
            std::array::from_fn(|i| Query { name: names[i], yi: at(places[i].0, y), xi: at(places[i].1, x) });
        Self { photo, device, queries, factor: CELL_SIDE_MIN.div_ceil(x.max(y) as u32) }
    }

    /// The shape of a tensor of the photo's size.
    pub fn shape(&self, channels: usize) -> [usize; 5] {
        let [y, x] = self.photo.size();
        [1, 1, y, x, channels]
    }

    /// A picture of the photo's size as a cell shows it, with marks on it.
    pub fn cell(&self, picture: &RgbImage, marks: &[&Query]) -> RgbImage {
        let mut canvas = Canvas { image: enlarge(picture, self.factor) };
        marks.iter().for_each(|query| mark(&mut canvas, query, self.factor as f32));
        canvas.image
    }

    /// As [`Scene::cell`], scaled to the largest size that fits into a square of `side`.
    pub fn small_cell(&self, picture: &RgbImage, marks: &[&Query], side: u32) -> RgbImage {
        let (full_width, full_height) = picture.dimensions();
        let scale = f64::from(side) / f64::from(full_width.max(full_height));
        let scaled = |size: u32| ((f64::from(size) * scale).round() as u32).max(1);
        let filter = imageops::FilterType::CatmullRom;
        let (width, height) = (scaled(full_width), scaled(full_height));
        let mut canvas = Canvas { image: imageops::resize(picture, width, height, filter) };
        marks.iter().for_each(|query| mark(&mut canvas, query, scale as f32));
        canvas.image
    }
}
