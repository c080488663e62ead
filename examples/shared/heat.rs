//! An attention map laid over a photograph.

use super::canvas::{Colour, mix};
use image::{Rgb, RgbImage};

/// The colour of a weight relative to the largest one.
pub fn colour(part: f32) -> Colour {
    colorous::INFERNO.eval_continuous(f64::from(part.clamp(0.0, 1.0))).into_array()
}

/// Weights relative to the largest one at which thin lines are drawn.
const CONTOURS: [f32; 2] = [0.5, 0.1];

/// The photo, dimmed, with the heat of `map` (`[y, x]`) on it. Heat grows with the weight relative to the largest one.
pub fn overlay(photo: &RgbImage, map: &[f32]) -> RgbImage {
    let (width, height) = photo.dimensions();
    let largest = map.iter().fold(f32::MIN_POSITIVE, |m, &w| m.max(w));
    let part = |x: u32, y: u32| {
        let (x, y) = (x.min(width - 1), y.min(height - 1));
        map.get((y * width + x) as usize).map_or(0.0, |w| w / largest)
    };
    RgbImage::from_fn(width, height, |x, y| {
        let here = part(x, y);
        let ground = mix(dimmed(photo.get_pixel(x, y).0), colour(here), opacity(here));
        let slope = (part(x + 1, y) - part(x.saturating_sub(1), y))
            .hypot(part(x, y + 1) - part(x, y.saturating_sub(1)))
            / 2.0;
        let line = CONTOURS.iter().map(|level| contour(here - level, slope)).fold(0.0, f32::max);
        Rgb(mix(ground, [255; 3], 0.55 * line))
    })
}

/// How much of a pixel the contour covers whose level is `distance` away, where the map changes by `slope` per pixel.
fn contour(distance: f32, slope: f32) -> f32 {
    // A map as flat as this has no line, just a level.
    if slope < 1e-4 { 0.0 } else { (1.0 - distance.abs() / slope).clamp(0.0, 1.0) }
}

/// Weights that nobody could see leave the photo alone.
fn opacity(part: f32) -> f32 {
    let t = (part / 0.35).clamp(0.0, 1.0);
    0.82 * t * (2.0 - t)
}

fn dimmed(pixel: Colour) -> Colour {
    let [r, g, b] = pixel.map(f32::from);
    let grey = (0.299 * r + 0.587 * g + 0.114 * b) as u8;
    mix([0; 3], mix(pixel, [grey; 3], 0.5), 0.72)
}
