//! The launch that makes both layers of a small map at once.

use super::forward::{COLUMNS, Content, MATRIX_ROWS, O, Q, ROWS, V, Y, matrix_pitch};
use super::lines::{Along, Part, Source};
use super::params::{AxialFwdMapParams, Lines, Map, Norm, Summary, Table};
use super::plan::{ForwardProblem, OP};
use crate::ops::planning::grid;
use crate::{DType, Gpu, Launch, Result};

/// Pixels of a line and channels of q, at most; channels of a slice too.
const MOST: usize = 64;
/// Shared memory besides the map: `MapSmem` in `kernels/axial_fwd_map.cu`.
const FIXED_BYTES: usize = 34560;
/// Channels of a unit, and its bytes.
const UNIT: usize = 8;
const UNIT_BYTES: usize = 16;
/// Eight neighbours along a column lie in different banks if rows are so many pixels apart, and one more.
const PHASES: usize = 8;
/// Slices of channels, each of which makes the weights anew, up to which one launch is faster than two: it saves a write and a
/// read of what lies between the layers, or only the read if the caller wants it.
const SLICES_MOST: [usize; 2] = [4, 2];

/// A launch for both layers, if the map fits and that is the faster way.
pub(super) fn plan(
    p: &ForwardProblem,
    norm: Norm,
    content: Option<Content>,
    gpu: &Gpu,
) -> Result<Option<Launch>> {
    let [b, h, y, x, d] = p.q.shape;
    let e = p.v.shape[4];
    let kernel = match (p.dtype, content) {
        (DType::F32, _) => return Ok(None),
        (DType::F16, None) => "axial_fwd_map_f16",
        (DType::Bf16, None) => "axial_fwd_map_bf16",
        (DType::F16, Some(_)) => "axial_fwd_map_gsa_f16",
        (DType::Bf16, Some(_)) => "axial_fwd_map_gsa_bf16",
    };
    let (Some(columns), Some(rows)) = (&p.columns, &p.rows) else { return Ok(None) };
    if y.max(x).max(d) > MOST {
        return Ok(None);
    }
    let pitch = (x - 1).next_multiple_of(PHASES) + 1;
    let most = SLICES_MOST[usize::from(p.y.is_some())];
    let summary_rows = if content.is_some() { d.next_multiple_of(MATRIX_ROWS) } else { 0 };
    // The fewest slices that fit; a slice wider than all channels is of no use.
    let fitting = [MOST, MOST / 2, MOST / 4].into_iter().find_map(|channels| {
        let of_map = y * pitch * (channels / UNIT * UNIT_BYTES);
        let bytes = FIXED_BYTES + of_map + summary_rows * matrix_pitch(channels, p.dtype);
        let fits = bytes <= gpu.shared_optin_bytes as usize && e.div_ceil(channels) <= most;
        (fits && (channels < 2 * e || channels == MOST / 4)).then_some((channels, bytes))
    });
    let Some((channels, bytes)) = fitting else { return Ok(None) };
    let part = Part { images: 1, ..Part::whole(p.q.shape) };
    let map = |operand, layout| Source::Operand(operand, layout).map(Along::Columns);
    let slices = e.div_ceil(channels);
    let params = AxialFwdMapParams {
        q: map(Q, &p.q),
        v: map(V, &p.v),
        y: p.y.as_ref().map_or(Map::NONE, |y| map(Y, y)),
        o: map(O, &p.o),
        columns: Table::of(COLUMNS, columns),
        rows: Table::of(ROWS, rows),
        norm,
        summary: content.map_or(Summary::NONE, |content| content.summary(p, summary_rows)),
        along_columns: Lines::new(p.q.shape, e, Along::Columns, part, p.dtype),
        along_rows: Lines::new(p.q.shape, e, Along::Rows, part, p.dtype),
        heads: h as i32,
        slices: slices as i32,
        log2_units: (channels / UNIT).ilog2() as i32,
        pitch: pitch as i32,
    };
    Ok(Some(Launch::new(kernel, grid(OP, b * h * slices)?, bytes as u32, &params)))
}
