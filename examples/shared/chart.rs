//! Line charts.

use super::canvas::{Canvas, Colour, FAINT, INK, LINE, PAPER, Text};
use image::RgbImage;

/// A named line.
pub struct Series {
    pub name: String,
    pub colour: Colour,
    pub points: Vec<[f32; 2]>,
}

/// An axis: what it shows, from where to where.
pub struct Axis {
    pub name: String,
    pub low: f32,
    pub high: f32,
    pub scale: Scale,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// Powers of ten; values that are not positive do not exist.
    Log,
}

/// Colours that tell lines apart.
pub fn palette(i: usize) -> Colour {
    let colours = colorous::TABLEAU10;
    colours[i % colours.len()].into_array()
}

/// A chart before it is drawn.
pub struct Chart {
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// A named horizontal line.
    pub level: Option<(f32, String)>,
}

const LEFT: i32 = 76;
const RIGHT: i32 = 16;
const TOP: i32 = 34;
const BOTTOM: i32 = 52;

impl Axis {
    /// Where a value lies on the axis, 0 to 1.
    fn place(&self, value: f32) -> f32 {
        let at = |v: f32| match self.scale {
            Scale::Linear => v,
            Scale::Log => v.max(f32::MIN_POSITIVE).log10(),
        };
        let (low, high) = (at(self.low), at(self.high));
        if high > low { (at(value) - low) / (high - low) } else { 0.5 }
    }

    /// Round values, and how they are written.
    fn ticks(&self) -> Vec<(f32, String)> {
        match self.scale {
            Scale::Linear => {
                let step = round_step((self.high - self.low) / 5.0);
                let digits = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
                let (first, last) =
                    ((self.low / step).ceil() as i32, (self.high / step + 1e-3).floor() as i32);
                (first..=last).map(|i| (i as f32 * step, format!("{:.digits$}", i as f32 * step))).collect()
            }
            Scale::Log => {
                let (low, high) = (self.low.log10().ceil() as i32, self.high.log10().floor() as i32);
                let every = ((high - low) / 6).max(1) as usize;
                (low..=high).step_by(every).map(|e| (10f32.powi(e), format!("1e{e}"))).collect()
            }
        }
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f32) -> f32 {
    let power = 10f32.powf(least.max(f32::MIN_POSITIVE).log10().floor());
    [1.0, 2.0, 5.0].map(|m| m * power).into_iter().find(|step| *step >= least).unwrap_or(10.0 * power)
}

impl Chart {
    pub fn draw(&self, width: u32, height: u32) -> RgbImage {
        let (width, height) = (width as i32, height as i32);
        let mut canvas = Canvas::new(width, height);
        canvas.rectangle([0, 0, width, height], PAPER);
        let (plot_width, plot_height) = (width - LEFT - RIGHT, height - TOP - BOTTOM);
        let x_of = |v: f32| LEFT as f32 + self.x.place(v) * plot_width as f32;
        let y_of = |v: f32| TOP as f32 + (1.0 - self.y.place(v)) * plot_height as f32;

        let small = Text::Small.height();
        for (value, label) in self.x.ticks() {
            let at = x_of(value) as i32;
            canvas.rectangle([at, TOP, 1, plot_height], LINE);
            let left = (at - Text::Small.width(&label) / 2).min(width - Text::Small.width(&label));
            canvas.text(left, TOP + plot_height + 6, &label, Text::Small, FAINT);
        }
        for (value, label) in self.y.ticks() {
            let at = y_of(value) as i32;
            canvas.rectangle([LEFT, at, plot_width, 1], LINE);
            canvas.text(LEFT - 8 - Text::Small.width(&label), at - small / 2, &label, Text::Small, FAINT);
        }
        canvas.rectangle([LEFT, TOP, 1, plot_height], FAINT);
        canvas.rectangle([LEFT, TOP + plot_height, plot_width, 1], FAINT);
        let name = &self.x.name;
        let middle = LEFT + (plot_width - Text::Small.width(name)) / 2;
        canvas.text(middle, height - small - 6, name, Text::Small, INK);
        canvas.text(8, 8, &self.y.name, Text::Small, INK);

        if let Some((value, name)) = &self.level {
            let at = y_of(*value);
            for dash in (0..plot_width).step_by(12) {
                let from = (LEFT + dash) as f32;
                canvas.line([from, at], [from + 5.0, at], 1.4, INK);
            }
            let left = LEFT + plot_width - Text::Small.width(name) - 4;
            canvas.text(left, at as i32 - small - 3, name, Text::Small, INK);
        }
        for series in &self.series {
            let points: Vec<[f32; 2]> = series.points.iter().map(|p| [x_of(p[0]), y_of(p[1])]).collect();
            let inside = |p: &&[[f32; 2]]| p[0][0] <= (LEFT + plot_width) as f32;
            for pair in points.windows(2).filter(inside) {
                canvas.line(pair[0], pair[1], 2.2, series.colour);
            }
            if points.len() <= 40 {
                points.iter().for_each(|p| canvas.ring(*p, 0.0, 6.0, series.colour));
            }
        }
        if self.series.len() > 1 {
            self.legend(&mut canvas, LEFT + plot_width);
        }
        canvas.image
    }

    fn legend(&self, canvas: &mut Canvas, right: i32) {
        let widest = self.series.iter().map(|s| Text::Small.width(&s.name)).max().unwrap_or(0);
        let left = right - widest - 10;
        for (i, series) in self.series.iter().enumerate() {
            let y = TOP + 6 + i as i32 * (Text::Small.height() + 4);
            let middle = (y + Text::Small.height() / 2) as f32;
            canvas.line([left as f32 - 32.0, middle], [left as f32 - 10.0, middle], 3.0, series.colour);
            canvas.text(left, y, &series.name, Text::Small, INK);
        }
    }
}
