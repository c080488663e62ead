//! A panel: a title, a grid of captioned pictures, and a colour bar where the pictures show heat.

use super::canvas::{Canvas, FAINT, INK, LINE, Text};
use super::heat;
use image::{RgbImage, imageops};

const MARGIN: i32 = 36;
const GAP: i32 = 20;

/// A captioned picture.
pub struct Cell {
    pub picture: RgbImage,
    pub caption: String,
    pub note: String,
}

impl Cell {
    pub fn new(picture: RgbImage, caption: impl Into<String>) -> Self {
        Self { picture, caption: caption.into(), note: String::new() }
    }

    /// A second, fainter line below the caption.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// A panel before it is drawn.
pub struct Sheet {
    pub title: String,
    pub subtitle: String,
    pub columns: usize,
    pub cells: Vec<Cell>,
    /// Whether to explain the colours of heat.
    pub has_colour_bar: bool,
}

impl Sheet {
    pub fn draw(&self) -> Canvas {
        let columns = self.columns.clamp(1, self.cells.len().max(1));
        let largest = |of: fn(&Cell) -> i32| self.cells.iter().map(of).max().unwrap_or(0);
        let cell_width = largest(|cell| {
            let lettering = Text::Label.width(&cell.caption).max(Text::Small.width(&cell.note));
            lettering.max(cell.picture.width() as i32)
        });
        let picture_height = largest(|cell| cell.picture.height() as i32);
        let has_notes = self.cells.iter().any(|cell| !cell.note.is_empty());
        let lettering = 6 + Text::Label.height() + if has_notes { Text::Small.height() + 2 } else { 0 };
        let cell_height = picture_height + lettering;

        let head = Text::Title.height() + 8 + Text::Label.height();
        let rows = self.cells.len().div_ceil(columns) as i32;
        let grid_width = columns as i32 * (cell_width + GAP) - GAP;
        let lines = Text::Title.width(&self.title).max(Text::Label.width(&self.subtitle));
        let bar_width = if self.has_colour_bar { BAR_WIDTH + 2 * GAP } else { 0 };
        let inner = grid_width.max(lines).max(bar_width);
        let foot = if self.has_colour_bar { GAP + BAR_HEIGHT + 4 + Text::Small.height() } else { 0 };
        let height = 2 * MARGIN + head + GAP + rows * (cell_height + GAP) - GAP + foot;

        let mut canvas = Canvas::new(inner + 2 * MARGIN, height);
        canvas.text(MARGIN, MARGIN, &self.title, Text::Title, INK);
        canvas.text(MARGIN, MARGIN + Text::Title.height() + 8, &self.subtitle, Text::Label, FAINT);
        let left = MARGIN + (inner - grid_width) / 2;
        for (i, cell) in self.cells.iter().enumerate() {
            let (column, row) = ((i % columns) as i32, (i / columns) as i32);
            let x = left + column * (cell_width + GAP);
            let y = MARGIN + head + GAP + row * (cell_height + GAP);
            let (width, height) = (cell.picture.width() as i32, cell.picture.height() as i32);
            let (px, py) = (x + (cell_width - width) / 2, y + (picture_height - height) / 2);
            canvas.rectangle([px - 1, py - 1, width + 2, height + 2], LINE);
            canvas.paste(&cell.picture, px, py);
            let y = y + picture_height + 6;
            canvas.text(px, y, &cell.caption, Text::Label, INK);
            canvas.text(px, y + Text::Label.height() + 2, &cell.note, Text::Small, FAINT);
        }
        if self.has_colour_bar {
            let y = height - MARGIN - BAR_HEIGHT - 4 - Text::Small.height();
            colour_bar(&mut canvas, MARGIN + inner - BAR_WIDTH, y);
        }
        canvas
    }
}

const BAR_WIDTH: i32 = 360;
const BAR_HEIGHT: i32 = 14;

fn colour_bar(canvas: &mut Canvas, x: i32, y: i32) {
    let name = "weight / largest weight";
    let at = x - GAP - Text::Small.width(name);
    canvas.text(at, y + (BAR_HEIGHT - Text::Small.height()) / 2, name, Text::Small, FAINT);
    for i in 0..BAR_WIDTH {
        let part = i as f32 / (BAR_WIDTH - 1) as f32;
        canvas.rectangle([x + i, y, 1, BAR_HEIGHT], heat::colour(part));
    }
    for (part, tick) in [(0.0, "0"), (0.5, "0.5"), (1.0, "1")] {
        let at = x + (part * (BAR_WIDTH - 1) as f32) as i32;
        let left = (at - Text::Small.width(tick) / 2).min(x + BAR_WIDTH - Text::Small.width(tick));
        canvas.rectangle([at, y + BAR_HEIGHT, 1, 4], FAINT);
        canvas.text(left.max(x), y + BAR_HEIGHT + 4, tick, Text::Small, FAINT);
    }
}

/// Small pictures grow by a whole factor, so that single pixels stay visible and captions have room.
pub fn enlarge(picture: &RgbImage, factor: u32) -> RgbImage {
    let (width, height) = picture.dimensions();
    imageops::resize(picture, width * factor, height * factor, imageops::FilterType::Nearest)
}
