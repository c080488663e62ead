//! Calls of `axial` as the planner sees them, and their cost. The launches are in `forward` and `backward`.

use crate::config::axial::AxialConfig;
use crate::{Axial, Cost, DType, Layout};

pub(super) const OP: &str = Axial::NAME;

/// A forward call: element type and layouts. Operands: 0 q, 1 v, 2 columns, 3 rows, 4 weight, 5 bias, 6 mean, 7 var (of the
/// caller), 8 o, 9 y, 10 mean, 11 var (of this batch).
#[derive(Clone, Copy, Debug)]
pub struct ForwardProblem {
    /// Element type of q, v, the tables, o and y.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: Layout<5>,
    /// Column offsets, `[1 or h, 2L − 1, d]`.
    pub columns: Option<Layout<3>>,
    /// Row offsets, `[1 or h, 2L − 1, d]`.
    pub rows: Option<Layout<3>>,
    /// Batch norm's weight and bias, `[1 or h, e]`.
    pub affine: Option<[Layout<2>; 2]>,
    /// The caller's mean and variance, `[1 or h, e]`.
    pub given: Option<[Layout<2>; 2]>,
    /// Output, the shape of v.
    pub o: Layout<5>,
    /// The result between the layers, the shape of v.
    pub y: Option<Layout<5>>,
    /// This batch's mean and variance, `[1 or h, e]`.
    pub batch: Option<[Layout<2>; 2]>,
}

/// A backward call: element type and layouts. Operands: 0 q, 1 v, 2 columns, 3 rows, 4 weight, 5 bias, 6 mean, 7 var, 8 y,
/// 9 d_o, 10 dq, 11 dv, 12 dcolumns, 13 drows, 14 dweight, 15 dbias.
#[derive(Clone, Copy, Debug)]
pub struct BackwardProblem {
    /// Element type of everything but batch norm's and the tables' gradients.
    pub dtype: DType,
    /// Queries, `[b, h, y, x, d]`.
    pub q: Layout<5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: Layout<5>,
    /// Column offsets, `[1 or h, 2L − 1, d]`.
    pub columns: Option<Layout<3>>,
    /// Row offsets, `[1 or h, 2L − 1, d]`.
    pub rows: Option<Layout<3>>,
    /// Batch norm's weight and bias, `[1 or h, e]`.
    pub affine: Option<[Layout<2>; 2]>,
    /// Mean and variance that the forward pass used, `[1 or h, e]`.
    pub statistics: Option<[Layout<2>; 2]>,
    /// The result between the layers.
    pub y: Option<Layout<5>>,
    /// Gradient of the output.
    pub d_o: Layout<5>,
    /// Gradient of q, when wanted.
    pub dq: Option<Layout<5>>,
    /// Gradient of v, when wanted.
    pub dv: Option<Layout<5>>,
    /// Gradient of the column table, when wanted.
    pub dcolumns: Option<Layout<3>>,
    /// Gradient of the row table, when wanted.
    pub drows: Option<Layout<3>>,
    /// Gradient of batch norm's weight, when wanted.
    pub dweight: Option<Layout<2>>,
    /// Gradient of batch norm's bias, when wanted.
    pub dbias: Option<Layout<2>>,
}

/// The work of both layers, of every pixel with all the keys that an axis and its table allow.
struct Work {
    pixels: u64,
    /// Pairs of a pixel and a key, per pixel.
    keys: u64,
    d: u64,
    e: u64,
    table_elements: u64,
}

impl Work {
    fn of(q: &Layout<5>, v: &Layout<5>, tables: [&Option<Layout<3>>; 2]) -> Self {
        let [_, _, y, x, d] = q.shape;
        let keys = |axis: usize, table: &Option<Layout<3>>| table.map_or(0, |t| axis.min(t.shape[1]) as u64);
        Self {
            pixels: q.shape[..4].iter().fold(1u64, |n, &s| n.saturating_mul(s as u64)),
            keys: keys(y, tables[0]) + keys(x, tables[1]),
            d: d as u64,
            e: v.shape[4] as u64,
            table_elements: tables.iter().filter_map(|t| t.as_ref()).map(|t| t.len() as u64).sum(),
        }
    }

    fn bytes(&self, dtype: DType, q_like: u64, v_like: u64, vectors: u64) -> u64 {
        let elements = self.pixels.saturating_mul(q_like * self.d + v_like * self.e);
        elements.saturating_mul(dtype.bytes() as u64).saturating_add(vectors)
    }
}

/// Bytes of f32 vectors `[1 or h, e]`.
fn vector_bytes(count: u64, like: &Option<[Layout<2>; 2]>) -> u64 {
    like.map_or(0, |[weight, _]| count * 4 * weight.len() as u64)
}

pub(super) fn forward_cost(_config: &AxialConfig, p: &ForwardProblem) -> Cost {
    let work = Work::of(&p.q, &p.v, [&p.columns, &p.rows]);
    let vectors = vector_bytes(2, &p.affine) + vector_bytes(2, &p.given) + vector_bytes(2, &p.batch);
    let tables = work.table_elements * p.dtype.bytes() as u64;
    Cost {
        flops: work.pixels.saturating_mul(2 * work.keys * (work.d + work.e)),
        min_bytes: work.bytes(p.dtype, 1, 2 + u64::from(p.y.is_some()), vectors + tables),
        exps: 0,
    }
}

pub(super) fn backward_cost(_config: &AxialConfig, p: &BackwardProblem) -> Cost {
    let work = Work::of(&p.q, &p.v, [&p.columns, &p.rows]);
    let vectors = vector_bytes(2, &p.affine) + vector_bytes(2, &p.statistics) + vector_bytes(2, &p.affine);
    let tables = work.table_elements * (p.dtype.bytes() as u64 + 4);
    let q_like = 1 + u64::from(p.dq.is_some());
    let v_like = 2 + u64::from(p.y.is_some()) + u64::from(p.dv.is_some());
    Cost {
        flops: work.pixels.saturating_mul(2 * work.keys * (3 * work.d + 2 * work.e)),
        min_bytes: work.bytes(p.dtype, q_like, v_like, vectors + tables),
        exps: 0,
    }
}
