//! `local` on the CPU: what both kinds of windows need.

mod blocks;
mod residue;
mod sliding;

use super::plane::with_contiguous;
use crate::config::local::{LocalConfig, Relative, Window};
use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Result};

/// What a forward call reads and writes. Shapes have been checked; nothing is empty.
pub(crate) struct Forward<'a, T> {
    pub q: HostView<'a, T, 5>,
    pub k: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    /// Row and column tables.
    pub tables: Option<[HostView<'a, T, 3>; 2]>,
    pub bias: Option<HostView<'a, f32, 3>>,
    pub o: HostViewMut<'a, T, 5>,
    pub lse: Option<HostViewMut<'a, f32, 4>>,
}

/// What a backward call reads and writes. A gradient that is `None` is not computed.
pub(crate) struct Backward<'a, T> {
    pub q: HostView<'a, T, 5>,
    pub k: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    pub tables: Option<[HostView<'a, T, 3>; 2]>,
    pub bias: Option<HostView<'a, f32, 3>>,
    pub o: HostView<'a, T, 5>,
    pub lse: HostView<'a, f32, 4>,
    pub d_o: HostView<'a, T, 5>,
    pub dq: Option<HostViewMut<'a, T, 5>>,
    pub dk: Option<HostViewMut<'a, T, 5>>,
    pub dv: Option<HostViewMut<'a, T, 5>>,
    pub drel_h: Option<HostViewMut<'a, f32, 3>>,
    pub drel_w: Option<HostViewMut<'a, f32, 3>>,
    pub dbias: Option<HostViewMut<'a, f32, 3>>,
}

/// Output and log-sum-exp.
pub(crate) fn forward<T: Element>(config: &LocalConfig, args: Forward<'_, T>) -> Result<()> {
    let Forward { q, k, v, tables, bias, o, lse } = args;
    let positions = Positions::load(config, q.layout.shape, tables.as_ref(), bias.as_ref());
    let maps = Maps { q, k, v };
    match config.window {
        Window::Sliding(window) => sliding::forward(config, window, maps, &positions, o, lse),
        Window::Blocks(window) => blocks::forward(config, window, maps, &positions, o, lse),
    }
    Ok(())
}

/// All gradients that are asked for.
pub(crate) fn backward<T: Element>(config: &LocalConfig, args: Backward<'_, T>) -> Result<()> {
    let Backward { q, k, v, tables, bias, o, lse, d_o, dq, dk, dv, drel_h, drel_w, dbias } = args;
    let h = q.layout.shape[1];
    let positions = Positions::load(config, q.layout.shape, tables.as_ref(), bias.as_ref());
    let saved = Saved { maps: Maps { q, k, v }, o, lse, d_o };
    let outs = Outs {
        wants: Wants {
            dq: dq.is_some(),
            dk: dk.is_some(),
            dv: dv.is_some(),
            tables: drel_h.is_some() || drel_w.is_some(),
            bias: dbias.is_some(),
        },
        dq,
        dk,
        dv,
    };
    let sums = match config.window {
        Window::Sliding(window) => sliding::backward(config, window, saved, &positions, outs),
        Window::Blocks(window) => blocks::backward(config, window, saved, &positions, outs),
    };
    for (i, out) in [drel_h, drel_w, dbias].into_iter().enumerate() {
        if let Some(out) = out {
            store_sums(out, &sums.iter().map(|head| &head.0[i][..]).collect::<Vec<_>>(), h);
        }
    }
    Ok(())
}

/// Queries, keys and values.
#[derive(Clone, Copy)]
struct Maps<'a, T> {
    q: HostView<'a, T, 5>,
    k: HostView<'a, T, 5>,
    v: HostView<'a, T, 5>,
}

/// What the backward pass reads.
#[derive(Clone, Copy)]
struct Saved<'a, T> {
    maps: Maps<'a, T>,
    o: HostView<'a, T, 5>,
    lse: HostView<'a, f32, 4>,
    d_o: HostView<'a, T, 5>,
}

/// The gradients of q, k and v, and which gradients are wanted at all.
struct Outs<'a, T> {
    wants: Wants,
    dq: Option<HostViewMut<'a, T, 5>>,
    dk: Option<HostViewMut<'a, T, 5>>,
    dv: Option<HostViewMut<'a, T, 5>>,
}

#[derive(Clone, Copy)]
struct Wants {
    dq: bool,
    dk: bool,
    dv: bool,
    tables: bool,
    bias: bool,
}

impl Wants {
    /// Whether any gradient comes through the logits.
    fn scores(&self) -> bool {
        self.dq || self.dk || self.tables || self.bias
    }
}

/// What each head knows of relative positions.
struct Positions {
    tables: Option<Vec<Tables>>,
    bias: Option<Vec<Bias>>,
}

impl Positions {
    fn load<T: Element>(
        config: &LocalConfig,
        [_, h, _, _, d]: [usize; 5],
        tables: Option<&[HostView<'_, T, 3>; 2]>,
        bias: Option<&HostView<'_, f32, 3>>,
    ) -> Self {
        Self {
            tables: tables.map(|t| (0..h).map(|hi| Tables::load(config, d, t, hi)).collect()),
            bias: bias.map(|b| (0..h).map(|hi| Bias::load(b, hi)).collect()),
        }
    }

    fn of_head(&self, hi: usize) -> HeadPositions<'_> {
        HeadPositions {
            tables: self.tables.as_ref().map(|t| &t[hi]),
            bias: self.bias.as_ref().map(|b| &b[hi]),
        }
    }
}

/// The part of one head.
#[derive(Clone, Copy)]
struct HeadPositions<'a> {
    tables: Option<&'a Tables>,
    bias: Option<&'a Bias>,
}

/// The tables of one head, in f32, row after row.
struct Tables {
    rows: [Vec<f32>; 2],
    /// Channels of q that each table meets.
    channels: [std::ops::Range<usize>; 2],
}

impl Tables {
    fn load<T: Element>(config: &LocalConfig, d: usize, views: &[HostView<'_, T, 3>; 2], hi: usize) -> Self {
        let channels = match config.relative {
            Relative::Concat => [0..d / 2, d / 2..d],
            Relative::Sum => [0..d, 0..d],
        };
        Self { rows: views.map(|view| of_head(&view, hi)), channels }
    }

    fn row(&self, axis: usize, row: usize) -> &[f32] {
        let count = self.channels[axis].len();
        &self.rows[axis][row * count..][..count]
    }
}

/// The bias of one head.
struct Bias {
    values: Vec<f32>,
    columns: usize,
}

impl Bias {
    fn load(view: &HostView<'_, f32, 3>, hi: usize) -> Self {
        Self { values: of_head(view, hi), columns: view.layout.shape[2] }
    }

    /// Where an offset's bias is, and its gradient.
    #[inline(always)]
    fn at(&self, row: usize, column: usize) -> usize {
        row * self.columns + column
    }
}

/// A head's part of `[1 or h, rows, columns]`, in f32.
fn of_head<T: Element>(view: &HostView<'_, T, 3>, hi: usize) -> Vec<f32> {
    let [heads, rows, columns] = view.layout.shape;
    let hi = if heads == 1 { 0 } else { hi };
    let at = |i: usize| view.data[view.layout.at([hi, i / columns, i % columns])].to_f32();
    (0..rows * columns).map(at).collect()
}

/// Sums over the queries of a part of a head, for the gradients of row table, column table and bias; empty where none is wanted.
#[derive(Clone, Default)]
struct PartSums([Vec<f32>; 3]);

impl PartSums {
    fn zeros(positions: HeadPositions<'_>, wants: &Wants) -> Self {
        let table = |i: usize| positions.tables.filter(|_| wants.tables).map_or(0, |t| t.rows[i].len());
        let bias = positions.bias.filter(|_| wants.bias).map_or(0, |b| b.values.len());
        Self([table(0), table(1), bias].map(|len| vec![0.0; len]))
    }

    /// The sums of the bias, if they are wanted.
    fn bias(&mut self) -> Option<&mut [f32]> {
        Some(&mut self.0[2][..]).filter(|sums| !sums.is_empty())
    }
}

/// The same over a whole head.
#[derive(Clone, Default)]
struct HeadSums([Vec<f64>; 3]);

impl HeadSums {
    /// Adds parts in their order.
    fn of<'a>(parts: impl Iterator<Item = &'a PartSums>) -> Self {
        parts.fold(Self::default(), |mut sums, part| {
            for (sum, part) in sums.0.iter_mut().zip(&part.0) {
                sum.resize(part.len(), 0.0);
                sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(*part));
            }
            sums
        })
    }

    fn add(&mut self, other: &Self) {
        for (sum, other) in self.0.iter_mut().zip(&other.0) {
            sum.resize(other.len(), 0.0);
            sum.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
        }
    }
}

/// Sums what the heads have over the batch, and over the heads where they share a table.
fn store_sums(out: HostViewMut<'_, f32, 3>, heads: &[&[f64]], h: usize) {
    let [tables, rows, columns] = out.layout.shape;
    for ti in 0..tables {
        for i in 0..rows * columns {
            let mine = heads.iter().enumerate().filter(|(bh, _)| tables == 1 || bh % h == ti);
            let sum: f64 = mine.map(|(_, head)| head.get(i).copied().unwrap_or(0.0)).sum();
            out.data[out.layout.at([ti, i / columns, i % columns])] = sum as f32;
        }
    }
}

fn with_contiguous_maybe<T: Element, const R: usize>(
    out: Option<HostViewMut<'_, T, R>>,
    write: impl FnOnce(Option<&mut [T]>),
) {
    match out {
        Some(out) => with_contiguous(out, |out| write(Some(out))),
        None => write(None),
    }
}

/// As [`with_contiguous_maybe`], of three.
fn with_contiguous_three<T: Element, const R: usize>(
    outs: [Option<HostViewMut<'_, T, R>>; 3],
    write: impl FnOnce([Option<&mut [T]>; 3]),
) {
    let [a, b, c] = outs;
    with_contiguous_maybe(a, |a| {
        with_contiguous_maybe(b, |b| with_contiguous_maybe(c, |c| write([a, b, c])));
    });
}
