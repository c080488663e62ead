//! `gsa` on the CPU: `content` and `axial`, whose parts are added in f32.

use super::plane::with_contiguous;
use super::{axial, content};
use crate::config::gsa::GsaConfig;
use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Layout, Result};
use rayon::prelude::*;

/// What a forward call reads and writes. Shapes have been checked; nothing is empty.
pub(crate) struct Forward<'a, T> {
    pub q: HostView<'a, T, 5>,
    pub k: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    pub columns: HostView<'a, T, 3>,
    pub rows: HostView<'a, T, 3>,
    /// Weight and bias.
    pub affine: Option<[HostView<'a, f32, 2>; 2]>,
    /// Mean and variance of evaluation.
    pub given: Option<[HostView<'a, f32, 2>; 2]>,
    pub o: HostViewMut<'a, T, 5>,
    /// Summary, maximum and sum, contiguous.
    pub content: Option<(HostViewMut<'a, f32, 4>, HostViewMut<'a, f32, 3>, HostViewMut<'a, f32, 3>)>,
    /// The result between columns and rows.
    pub y: Option<HostViewMut<'a, T, 5>>,
    /// Where mean and variance of training go.
    pub statistics: Option<[HostViewMut<'a, f32, 2>; 2]>,
}

/// What a backward call reads and writes. A gradient that is `None` is not computed.
pub(crate) struct Backward<'a, T> {
    pub q: HostView<'a, T, 5>,
    pub k: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    pub columns: HostView<'a, T, 3>,
    pub rows: HostView<'a, T, 3>,
    pub affine: Option<[HostView<'a, f32, 2>; 2]>,
    /// Mean and variance: the caller's, or those of this batch.
    pub statistics: Option<[HostView<'a, f32, 2>; 2]>,
    /// Summary, maximum and sum, contiguous.
    pub content: (HostView<'a, f32, 4>, HostView<'a, f32, 3>, HostView<'a, f32, 3>),
    /// The result between columns and rows, as the forward pass wrote it.
    pub y: HostView<'a, T, 5>,
    pub d_o: HostView<'a, T, 5>,
    pub dq: Option<HostViewMut<'a, T, 5>>,
    pub dk: Option<HostViewMut<'a, T, 5>>,
    pub dv: Option<HostViewMut<'a, T, 5>>,
    pub dcolumns: Option<HostViewMut<'a, f32, 3>>,
    pub drows: Option<HostViewMut<'a, f32, 3>>,
    pub dweight: Option<HostViewMut<'a, f32, 2>>,
    pub dbias: Option<HostViewMut<'a, f32, 2>>,
}

/// What one branch contributes to an output, before it is rounded.
struct Part(Vec<f32>);

impl Part {
    /// Room for a part of `out`; none for an output that nobody wants.
    fn of<T>(out: Option<&HostViewMut<'_, T, 5>>) -> Self {
        Self(vec![0.0; out.map_or(0, |out| out.layout.len())])
    }

    fn lend<T>(&mut self, like: Option<&HostViewMut<'_, T, 5>>) -> Option<HostViewMut<'_, f32, 5>> {
        let layout = Layout::contiguous(like?.layout.shape);
        Some(HostViewMut { data: &mut self.0, layout })
    }
}

/// Elements that one thread writes at a time.
const CHUNK: usize = 1 << 14;

/// Rounds the sum of parts into an output.
fn store<T: Element>(parts: &[&Part], out: HostViewMut<'_, T, 5>) {
    with_contiguous(out, |out| {
        out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = T::from_f32(parts.iter().map(|part| part.0[chunk * CHUNK + i]).sum());
            }
        });
    });
}

/// The op.
pub(crate) fn forward<T: Element>(config: &GsaConfig, args: Forward<'_, T>) -> Result<()> {
    let Forward { q, k, v, columns, rows, affine, given, o, content: saved, y, statistics } = args;
    let layout = Layout::contiguous(o.layout.shape);
    let (mut by_content, mut by_position) = (Part::of(Some(&o)), Part::of(Some(&o)));
    let to = HostViewMut { data: &mut by_content.0, layout };
    content::forward(&config.content(), content::Forward { q, k, v, o: to, saved })?;
    let to = HostViewMut { data: &mut by_position.0, layout };
    let (columns, rows) = (Some(columns), Some(rows));
    let args = axial::Forward { q, v, columns, rows, affine, given, o: to, y, statistics };
    axial::forward(&config.axial(), args)?;
    store(&[&by_content, &by_position], o);
    Ok(())
}

/// All gradients that are asked for.
pub(crate) fn backward<T: Element>(config: &GsaConfig, args: Backward<'_, T>) -> Result<()> {
    let Backward { q, k, v, columns, rows, affine, statistics, content: saved, y, d_o, .. } = args;
    let Backward { dq, dk, dv, dcolumns, drows, dweight, dbias, .. } = args;
    let [mut content_dq, mut axial_dq] = [Part::of(dq.as_ref()), Part::of(dq.as_ref())];
    let [mut content_dv, mut axial_dv] = [Part::of(dv.as_ref()), Part::of(dv.as_ref())];
    let mut content_dk = Part::of(dk.as_ref());
    let to_content = content::Backward {
        q,
        k,
        v,
        saved,
        d_o,
        dq: content_dq.lend(dq.as_ref()),
        dk: content_dk.lend(dk.as_ref()),
        dv: content_dv.lend(dv.as_ref()),
    };
    content::backward(&config.content(), to_content)?;
    let to_axial = axial::Backward {
        q,
        v,
        columns: Some(columns),
        rows: Some(rows),
        affine,
        statistics,
        y: Some(y),
        d_o,
        dq: axial_dq.lend(dq.as_ref()),
        dv: axial_dv.lend(dv.as_ref()),
        dcolumns,
        drows,
        dweight,
        dbias,
    };
    axial::backward(&config.axial(), to_axial)?;
    if let Some(dq) = dq {
        store(&[&content_dq, &axial_dq], dq);
    }
    if let Some(dk) = dk {
        store(&[&content_dk], dk);
    }
    if let Some(dv) = dv {
        store(&[&content_dv, &axial_dv], dv);
    }
    Ok(())
}
