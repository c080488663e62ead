//! Rows of one head in f32, with the pixels of a row side by side: `[channel][row][column]`.

use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Layout};
use std::ops::Range;

/// Some rows of one head, padded with columns of zeros on both sides.
pub(crate) struct Plane {
    data: Vec<f32>,
    channels: usize,
    rows: Range<usize>,
    columns: usize,
    pad: usize,
    pitch: usize,
}

impl Plane {
    /// Zeros. There are `pad` more columns on either side, and room to read `lanes` past any column.
    pub(crate) fn zeros(
        channels: usize,
        rows: Range<usize>,
        columns: usize,
        pad: usize,
        lanes: usize,
    ) -> Self {
        let pitch = columns.next_multiple_of(lanes) + 2 * pad + lanes;
        Self { data: vec![0.0; channels * rows.len() * pitch], channels, rows, columns, pad, pitch }
    }

    /// Rows of the head at `[batch, head]`.
    pub(crate) fn load<T: Element>(
        view: &HostView<'_, T, 5>,
        [bi, hi]: [usize; 2],
        rows: Range<usize>,
        pad: usize,
        lanes: usize,
    ) -> Self {
        let [_, _, _, x, channels] = view.layout.shape;
        let mut plane = Self::zeros(channels, rows.clone(), x, pad, lanes);
        let channel_pitch = rows.len() * plane.pitch;
        for (row, yi) in rows.enumerate() {
            for xi in 0..x {
                let from = view.layout.at([bi, hi, yi, xi, 0]);
                let into = row * plane.pitch + pad + xi;
                for ci in 0..channels {
                    let at = from.wrapping_add_signed(ci as isize * view.layout.strides[4]);
                    plane.data[into + ci * channel_pitch] = view.data[at].to_f32();
                }
            }
        }
        plane
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Where column `xi` stands in a row.
    #[inline(always)]
    pub(crate) fn column(&self, xi: usize) -> usize {
        self.pad + xi
    }

    /// A row, padding included.
    #[inline(always)]
    pub(crate) fn row(&self, ci: usize, yi: usize) -> &[f32] {
        &self.data[(ci * self.rows.len() + yi - self.rows.start) * self.pitch..][..self.pitch]
    }

    /// A row, padding included.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, ci: usize, yi: usize) -> &mut [f32] {
        &mut self.data[(ci * self.rows.len() + yi - self.rows.start) * self.pitch..][..self.pitch]
    }

    /// Adds the rows that `other` has; both have the same columns.
    pub(crate) fn add_rows(&mut self, other: &Plane, rows: Range<usize>) {
        for ci in 0..self.channels {
            for yi in rows.clone() {
                self.row_mut(ci, yi).iter_mut().zip(other.row(ci, yi)).for_each(|(a, b)| *a += b);
            }
        }
    }
}

/// The lines of a `[y, x, channel]` plane along one axis.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    /// Lines.
    pub count: usize,
    /// Pixels of a line.
    pub size: usize,
    /// Pixels from one line to the next, and from one pixel of a line to the next.
    steps: [usize; 2],
}

impl Lines {
    pub(crate) fn columns(y: usize, x: usize) -> Self {
        Self { count: x, size: y, steps: [1, x] }
    }

    pub(crate) fn rows(y: usize, x: usize) -> Self {
        Self { count: y, size: x, steps: [x, 1] }
    }

    pub(crate) fn pixels(&self) -> usize {
        self.count * self.size
    }

    /// One line, `[pixel, channel]`.
    pub(crate) fn gather(&self, plane: &[f32], line: usize, channels: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.size * channels);
        for i in 0..self.size {
            let pixel = line * self.steps[0] + i * self.steps[1];
            out.extend_from_slice(&plane[pixel * channels..][..channels]);
        }
        out
    }

    /// A plane from all of its lines.
    pub(crate) fn scatter(&self, lines: &[Vec<f32>], channels: usize) -> Vec<f32> {
        let mut plane = vec![0.0; self.pixels() * channels];
        for (line, values) in lines.iter().enumerate() {
            for (i, values) in values.chunks_exact(channels).enumerate() {
                let pixel = line * self.steps[0] + i * self.steps[1];
                plane[pixel * channels..][..channels].copy_from_slice(values);
            }
        }
        plane
    }
}

/// Writes rows of a plane as contiguous `[row, column, channel]`.
pub(crate) fn store_plane<T: Element>(plane: &Plane, rows: Range<usize>, out: &mut [T]) {
    let (columns, channels) = (plane.columns, plane.channels);
    for (row, yi) in rows.enumerate() {
        for ci in 0..channels {
            let from = &plane.row(ci, yi)[plane.pad..][..columns];
            for (xi, &x) in from.iter().enumerate() {
                out[(row * columns + xi) * channels + ci] = T::from_f32(x);
            }
        }
    }
}

/// `count` parts of a slice that may be absent.
pub(crate) fn contiguous_parts<T>(
    whole: Option<&mut [T]>,
    part: usize,
    count: usize,
) -> impl Iterator<Item = Option<&mut [T]>> {
    let mut parts = whole.map(|whole| whole.chunks_mut(part.max(1)));
    (0..count).map(move |_| parts.as_mut().and_then(Iterator::next))
}

/// Lends an output as a contiguous slice, and copies it to its place afterwards if it is not contiguous.
pub(crate) fn with_contiguous<T: Element, const R: usize>(
    out: HostViewMut<'_, T, R>,
    write: impl FnOnce(&mut [T]),
) {
    let count = out.layout.len();
    if out.layout.is_contiguous() {
        return write(&mut out.data[out.layout.offset..][..count]);
    }
    let mut dense = vec![T::default(); count];
    write(&mut dense);
    let shape = out.layout.shape;
    let inner = shape[R - 1].max(1);
    let strides = Layout::contiguous(shape).strides;
    for (row, values) in dense.chunks(inner).enumerate() {
        let mut index = [0; R];
        let mut left = row * inner;
        for i in 0..R {
            let stride = strides[i].unsigned_abs().max(1);
            index[i] = left / stride;
            left %= stride;
        }
        let first = out.layout.at(index);
        for (i, &value) in values.iter().enumerate() {
            out.data[first.wrapping_add_signed(i as isize * out.layout.strides[R - 1])] = value;
        }
    }
}
