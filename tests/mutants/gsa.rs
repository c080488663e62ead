//! The op `gsa`: what the kernels of `axial` do besides when they add the other branch.

use macula::gsa::{BatchNorm, ForwardProblem, GsaConfig};
use macula::plan::Plan;
use macula::{DType, Gpu, Gsa, Layout};

/// Queries are normalised. Lines of two images in one group, several groups of one image in a block; both classes of channels;
/// batch norm of the batch, so that every layer is a launch, and none, so that both are one where that can be.
pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for dtype in DType::ALL {
        for (channels, norm) in [(16, BatchNorm::Train), (72, BatchNorm::Train), (24, BatchNorm::None)] {
            let op = Gsa::new(GsaConfig { norm_queries: true, norm, ..GsaConfig::default() }).unwrap();
            let (y, x) = (5, 9);
            let map = Layout::contiguous([2, 1, y, x, channels]);
            let vectors = (norm != BatchNorm::None).then_some([Layout::contiguous([1, channels]); 2]);
            let problem = ForwardProblem {
                dtype,
                q: map,
                k: map,
                v: map,
                columns: Layout::contiguous([1, 2 * y - 1, channels]),
                rows: Layout::contiguous([1, 2 * x - 1, channels]),
                affine: vectors,
                given: None,
                o: map,
                saves_content: true,
                y: Some(map),
                batch: vectors,
            };
            plans.push(op.plan_fwd(&problem, &Gpu::SM80).unwrap());
        }
    }
    plans
}
