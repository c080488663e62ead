//! A picture to draw on: rectangles, text, smooth lines, rings, other pictures.

use image::{Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

pub type Colour = [u8; 3];

pub const PAPER: Colour = [250, 250, 247];
pub const INK: Colour = [34, 36, 42];
pub const FAINT: Colour = [108, 112, 122];
pub const LINE: Colour = [222, 222, 216];

/// Sizes of lettering.
#[derive(Clone, Copy)]
pub enum Text {
    Title,
    Label,
    Small,
}

impl Text {
    fn font(self) -> (FontWeight, RasterHeight) {
        match self {
            Text::Title => (FontWeight::Bold, RasterHeight::Size24),
            Text::Label => (FontWeight::Regular, RasterHeight::Size20),
            Text::Small => (FontWeight::Regular, RasterHeight::Size16),
        }
    }

    /// Height of a line.
    pub fn height(self) -> i32 {
        self.font().1.val() as i32
    }

    /// Width of a line; every letter is equally wide.
    pub fn width(self, line: &str) -> i32 {
        let (weight, height) = self.font();
        (line.chars().count() * get_raster_width(weight, height)) as i32
    }
}

pub struct Canvas {
    pub image: RgbImage,
}

impl Canvas {
    pub fn new(width: i32, height: i32) -> Self {
        Self { image: RgbImage::from_pixel(width.max(1) as u32, height.max(1) as u32, Rgb(PAPER)) }
    }

    /// Covers a part, 0 to 1, of one pixel. Pixels outside do not exist.
    pub fn blend(&mut self, x: i32, y: i32, colour: Colour, part: f32) {
        let (width, height) = self.image.dimensions();
        if (0..width as i32).contains(&x) && (0..height as i32).contains(&y) {
            let pixel = &mut self.image.get_pixel_mut(x as u32, y as u32).0;
            *pixel = mix(*pixel, colour, part);
        }
    }

    pub fn rectangle(&mut self, [x, y, width, height]: [i32; 4], colour: Colour) {
        for yi in y..y + height {
            (x..x + width).for_each(|xi| self.blend(xi, yi, colour, 1.0));
        }
    }

    pub fn paste(&mut self, picture: &RgbImage, x: i32, y: i32) {
        for (xi, yi, pixel) in picture.enumerate_pixels() {
            self.blend(x + xi as i32, y + yi as i32, pixel.0, 1.0);
        }
    }

    /// One line of text; `x`, `y` is its upper left corner.
    pub fn text(&mut self, x: i32, y: i32, line: &str, text: Text, colour: Colour) {
        let (weight, height) = text.font();
        for (i, letter) in line.chars().enumerate() {
            let glyph = get_raster(letter, weight, height).or_else(|| get_raster('?', weight, height));
            let Some(glyph) = glyph else { continue };
            let left = x + (i * glyph.width()) as i32;
            for (yi, row) in glyph.rows().enumerate() {
                for (xi, &part) in row.iter().enumerate() {
                    self.blend(left + xi as i32, y + yi as i32, colour, f32::from(part) / 255.0);
                }
            }
        }
    }

    /// A smooth straight line.
    pub fn line(&mut self, [x0, y0]: [f32; 2], [x1, y1]: [f32; 2], width: f32, colour: Colour) {
        let (dx, dy) = (x1 - x0, y1 - y0);
        let length2 = (dx * dx + dy * dy).max(f32::MIN_POSITIVE);
        let along = |x: f32, y: f32| (((x - x0) * dx + (y - y0) * dy) / length2).clamp(0.0, 1.0);
        let low = [x0.min(x1) - width, y0.min(y1) - width];
        let high = [x0.max(x1) + width, y0.max(y1) + width];
        self.shade(low, high, colour, |x, y| {
            let t = along(x, y);
            width / 2.0 + 0.5 - (x - x0 - t * dx).hypot(y - y0 - t * dy)
        });
    }

    /// A smooth ring around a point.
    pub fn ring(&mut self, [x, y]: [f32; 2], radius: f32, width: f32, colour: Colour) {
        let reach = radius + width;
        self.shade([x - reach, y - reach], [x + reach, y + reach], colour, |xi, yi| {
            width / 2.0 + 0.5 - ((xi - x).hypot(yi - y) - radius).abs()
        });
    }

    /// Marks a pixel so that it is seen on any ground, by four strokes that leave the pixel itself open.
    pub fn marker(&mut self, [x, y]: [f32; 2]) {
        const STROKES: [[f32; 2]; 4] = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
        for (near, far, width, colour) in [(4.0, 12.0, 4.0, [0; 3]), (4.5, 11.5, 1.8, [255; 3])] {
            for [dx, dy] in STROKES {
                self.line([x + near * dx, y + near * dy], [x + far * dx, y + far * dy], width, colour);
            }
        }
    }

    /// Covers the pixels of a box by `part` of their centres, clamped to 0..1.
    fn shade(&mut self, low: [f32; 2], high: [f32; 2], colour: Colour, part: impl Fn(f32, f32) -> f32) {
        for y in low[1].floor() as i32..=high[1].ceil() as i32 {
            for x in low[0].floor() as i32..=high[0].ceil() as i32 {
                self.blend(x, y, colour, part(x as f32, y as f32).clamp(0.0, 1.0));
            }
        }
    }
}

/// From `a` at 0 to `b` at 1.
pub fn mix(a: Colour, b: Colour, part: f32) -> Colour {
    std::array::from_fn(|i| {
        (f32::from(a[i]) + (f32::from(b[i]) - f32::from(a[i])) * part).round().clamp(0.0, 255.0) as u8
    })
}
