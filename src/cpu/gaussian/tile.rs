//! Tiles: some rows of one head's map with a slice of its channels; how they are shared out, read and written.
//!
//! A tile is held as vectors of sixteen lanes. A lane is a row and a channel, counted row by row, so that lanes are full
//! whatever the number of channels; the vectors of one group of lanes lie one after another along x, and groups at a pitch.

use crate::cpu::lanes::{LANES, Lanes};
use crate::cpu::memory::{Piece, read, split, write};
use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Layout};
use rayon::prelude::*;
use std::ops::Range;

/// Channels of a tile at most: its vectors stay in a core's cache.
const CHANNELS: usize = 32;
/// Elements that are worth a thread's attention.
const PIECE_ELEMENTS: usize = 1 << 13;

/// An output, or the part of it that a thread writes.
pub(super) type Output<'a, T> = Piece<'a, T, 5>;

/// A map is the same with y and x exchanged. An output whose rows are not outside its columns in memory is worked on so.
#[derive(Clone, Copy)]
pub(super) struct Turn(bool);

impl Turn {
    pub const NONE: Turn = Turn(false);

    pub fn of(output: &Layout<5>) -> Self {
        let [_, _, y, x, _] = output.strides.map(isize::unsigned_abs);
        Self(y < x && output.shape[2] > 1 && output.shape[3] > 1)
    }

    fn layout(self, mut layout: Layout<5>) -> Layout<5> {
        if self.0 {
            layout.shape.swap(2, 3);
            layout.strides.swap(2, 3);
        }
        layout
    }

    pub fn input<'a, T>(self, view: HostView<'a, T, 5>) -> HostView<'a, T, 5> {
        HostView { data: view.data, layout: self.layout(view.layout) }
    }

    pub fn output<'a, T>(self, view: HostViewMut<'a, T, 5>) -> HostViewMut<'a, T, 5> {
        HostViewMut { layout: self.layout(view.layout), data: view.data }
    }
}

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tile {
    pub b: usize,
    pub h: usize,
    first_row: usize,
    first_channel: usize,
    num_rows: usize,
    num_channels: usize,
}

/// Lanes of one vector that are neighbouring channels of one row.
struct Run {
    row: usize,
    channel: usize,
    lanes: Range<usize>,
}

/// A box of the tensor, its first index and shape, and its part of the output.
type Part<'a, T> = ([usize; 5], [usize; 5], Option<Output<'a, T>>);

/// Runs `work` on every tile of a shape, in parallel, each with the part of the output that it writes; results come in
/// the order of tiles.
pub(super) fn run<T: Element, S: Default, R: Send>(
    shape: [usize; 5],
    rows: usize,
    output: Option<HostViewMut<'_, T, 5>>,
    work: impl Fn(&mut S, &Tile, Option<&mut Output<'_, T>>) -> R + Sync,
) -> Vec<(Tile, R)> {
    let [_, h, y, x, d] = shape;
    // Small maps are handed out several at a time.
    let at_least = |elements: usize| (PIECE_ELEMENTS / elements).max(1);
    let grain = [at_least(h * y * x * d), at_least(y * x * d), rows, x, CHANNELS];
    let pieces: Vec<Part<'_, T>> = match output {
        Some(output) => split(output, grain)
            .into_iter()
            .map(|piece| (piece.first, piece.view.layout.shape, Some(piece)))
            .collect(),
        None => boxes(shape, grain).map(|(first, shape)| (first, shape, None)).collect(),
    };
    let mut results: Vec<(Tile, R)> = pieces
        .into_par_iter()
        .map_init(S::default, |scratch, (first, shape, mut piece)| {
            let tiles = boxes(shape, [1, 1, rows, x, CHANNELS]).map(|(inner, shape)| {
                let at = |k: usize| first[k] + inner[k];
                let (first_row, first_channel) = (at(2), at(4));
                Tile {
                    b: at(0),
                    h: at(1),
                    first_row,
                    first_channel,
                    num_rows: shape[2],
                    num_channels: shape[4],
                }
            });
            tiles.map(|tile| (tile.clone(), work(scratch, &tile, piece.as_mut()))).collect::<Vec<_>>()
        })
        .flatten_iter()
        .collect();
    results.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    results
}

/// A box cut into boxes of at most `grain`: their first indices and shapes.
fn boxes(shape: [usize; 5], grain: [usize; 5]) -> impl Iterator<Item = ([usize; 5], [usize; 5])> {
    let counts = [0, 1, 2, 3, 4].map(|k| shape[k].div_ceil(grain[k]));
    (0..counts.iter().product()).map(move |mut at: usize| {
        let (mut first, mut part) = ([0; 5], [0; 5]);
        for k in (0..5).rev() {
            first[k] = at % counts[k] * grain[k];
            part[k] = grain[k].min(shape[k] - first[k]);
            at /= counts[k];
        }
        (first, part)
    })
}

impl Tile {
    pub fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row + self.num_rows
    }

    /// One row of it, or of the same channels elsewhere.
    pub fn row(&self, row: usize) -> Tile {
        Tile { first_row: row, num_rows: 1, ..self.clone() }
    }

    /// Vectors that hold its lanes at one x.
    pub fn groups(&self) -> usize {
        (self.num_rows * self.num_channels).div_ceil(LANES)
    }

    /// What a group of lanes is, part by part.
    fn runs(&self, group: usize) -> impl Iterator<Item = Run> {
        let (all, channels) = (self.num_rows * self.num_channels, self.num_channels);
        let (begin, end) = (group * LANES, all.min((group + 1) * LANES));
        let mut next = begin;
        std::iter::from_fn(move || {
            let (row, channel) = (next / channels, next % channels);
            let len = (channels - channel).min(end - next);
            let lanes = next - begin..next - begin + len;
            next += len;
            (len > 0).then_some(Run { row, channel, lanes })
        })
    }

    fn at(&self, layout: &Layout<5>, first: [usize; 5], run: &Run, xi: usize) -> usize {
        let row = self.first_row + run.row - first[2];
        layout.at([
            self.b - first[0],
            self.h - first[1],
            row,
            xi,
            self.first_channel + run.channel - first[4],
        ])
    }

    /// Makes room for the tile, `[group][pitch]`. Lanes beyond the last are zero, the others hold anything.
    pub fn sized(&self, pitch: usize, to: &mut Vec<Lanes>) {
        let groups = self.groups();
        sized(to, groups * pitch);
        if !(self.num_rows * self.num_channels).is_multiple_of(LANES) {
            to[(groups - 1) * pitch..].fill([0.0; LANES]);
        }
    }

    /// Reads the tile: `[group][pitch]`. Lanes beyond the last are zero.
    pub fn load<T: Element>(&self, from: HostView<'_, T, 5>, pitch: usize, to: &mut Vec<Lanes>) {
        let HostView { data, layout } = from;
        self.sized(pitch, to);
        for (group, vectors) in to.chunks_exact_mut(pitch).enumerate() {
            let vectors = &mut vectors[..layout.shape[3]];
            for run in self.runs(group) {
                let begin = self.at(&layout, [0; 5], &run, 0);
                for (xi, vector) in vectors.iter_mut().enumerate() {
                    let at = begin.wrapping_add_signed(xi as isize * layout.strides[3]);
                    read(data, at, layout.strides[4], &mut vector[run.lanes.clone()]);
                }
            }
        }
    }

    /// Writes one group of the tile, `[x]`.
    pub fn store<T: Element>(&self, group: usize, from: &[Lanes], to: &mut Output<'_, T>) {
        let layout = to.view.layout;
        for run in self.runs(group) {
            let begin = self.at(&layout, to.first, &run, 0);
            for (xi, vector) in from.iter().enumerate() {
                let at = begin.wrapping_add_signed(xi as isize * layout.strides[3]);
                write(to.view.data, at, layout.strides[4], &vector[run.lanes.clone()]);
            }
        }
    }

    /// Reads the tile's channels of other rows, all x and channels of a row in one sequence: sixteen of them are a vector.
    /// `[vector][row]`, of the vectors asked for.
    pub fn load_sequences<T: Element>(
        &self,
        from: HostView<'_, T, 5>,
        rows: Range<usize>,
        vectors: Range<usize>,
        to: &mut Vec<Lanes>,
    ) {
        let HostView { data, layout } = from;
        let channels = self.num_channels;
        let (all, height) = (layout.shape[3] * channels, rows.len());
        let [_, _, _, stride_x, stride_d] = layout.strides;
        let is_even = stride_x == channels as isize * stride_d;
        sized(to, vectors.len() * height);
        for (k, row) in rows.enumerate() {
            let begin = layout.at([self.b, self.h, row, 0, self.first_channel]);
            for (i, vector) in vectors.clone().enumerate() {
                let to = &mut to[i * height + k];
                let (mut next, end) = (vector * LANES, all.min((vector + 1) * LANES));
                while next < end {
                    let (xi, channel) = (next / channels, next % channels);
                    let len = if is_even { end - next } else { (channels - channel).min(end - next) };
                    let along = xi as isize * stride_x + channel as isize * stride_d;
                    let lane = next % LANES;
                    read(data, begin.wrapping_add_signed(along), stride_d, &mut to[lane..lane + len]);
                    next += len;
                }
            }
        }
    }

    /// Vectors that hold the sequence of x and channels of a row.
    pub fn sequence_vectors(&self, x: usize) -> usize {
        (x * self.num_channels).div_ceil(LANES)
    }

    /// Puts one vector of every row's sequence, `[row]`, where the tile `[group][pitch]` has it, times the factor of its x.
    pub fn place_sequence(
        &self,
        vector: usize,
        from: &[Lanes],
        factors: Option<&[f32]>,
        to: &mut [Lanes],
        x: usize,
    ) {
        let pitch = pitch(x);
        let channels = self.num_channels;
        let first = vector * LANES;
        let factor = |xi: usize| factors.map_or(1.0, |factors| factors[xi]);
        if channels.is_multiple_of(LANES) {
            let (xi, channel) = (first / channels, first % channels);
            for (row, from) in from.iter().enumerate() {
                let group = (row * channels + channel) / LANES;
                to[group * pitch + xi] = from.map(|value| value * factor(xi));
            }
            return;
        }
        let count = LANES.min(x * channels - first);
        for (row, from) in from.iter().enumerate() {
            let (mut xi, mut channel) = (first / channels, first % channels);
            for value in &from[..count] {
                let lane = row * channels + channel;
                to[lane / LANES * pitch + xi][lane % LANES] = value * factor(xi);
                channel += 1;
                if channel == channels {
                    (xi, channel) = (xi + 1, 0);
                }
            }
        }
    }
}

/// The pitch of groups that are written together: odd, so that they do not compete for the same few places in a cache.
pub(super) fn pitch(x: usize) -> usize {
    x | 1
}

/// Makes `count` vectors that hold anything.
pub(super) fn sized(vectors: &mut Vec<Lanes>, count: usize) {
    vectors.resize(count, [0.0; LANES]);
}

/// Makes `count` zero vectors.
pub(super) fn zeros(vectors: &mut Vec<Lanes>, count: usize) {
    vectors.clear();
    sized(vectors, count);
}
