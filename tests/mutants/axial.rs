//! The op `axial`.

use macula::axial::{AxialConfig, BackwardProblem, BatchNorm, ForwardProblem};
use macula::plan::Plan;
use macula::{Axial, DType, Gpu, Layout};

/// Columns of several tiles; rows of one, of which a block takes several groups. Both classes of channels. And small maps.
pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for dtype in DType::ALL {
        for (y, channels) in [(70, 16), (70, 72), (20, 24)] {
            for norm in [BatchNorm::Eval, BatchNorm::Train] {
                let op = Axial::new(AxialConfig { norm, ..AxialConfig::default() }).unwrap();
                let map = Layout::contiguous([1, 1, y, 9, channels]);
                let columns = Some(Layout::contiguous([1, 2 * y - 1, channels]));
                let rows = Some(Layout::contiguous([1, 17, channels]));
                let vectors = Some([Layout::contiguous([1, channels]); 2]);
                let forward = ForwardProblem {
                    dtype,
                    q: map,
                    v: map,
                    columns,
                    rows,
                    affine: vectors,
                    given: if norm == BatchNorm::Eval { vectors } else { None },
                    o: map,
                    y: Some(map),
                    batch: if norm == BatchNorm::Train { vectors } else { None },
                };
                plans.push(op.plan_fwd(&forward, &Gpu::SM80).unwrap());
                let backward = BackwardProblem {
                    dtype,
                    q: map,
                    v: map,
                    columns,
                    rows,
                    affine: vectors,
                    statistics: vectors,
                    y: Some(map),
                    d_o: map,
                    dq: Some(map),
                    dv: Some(map),
                    dcolumns: columns,
                    drows: rows,
                    dweight: vectors.map(|v| v[0]),
                    dbias: vectors.map(|v| v[1]),
                };
                plans.push(op.plan_bwd(&backward, &Gpu::SM80).unwrap());
            }
        }
    }
    plans
}
