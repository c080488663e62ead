//! The op `content`.

use macula::content::{BackwardProblem, Content, ContentConfig, Form, ForwardProblem};
use macula::plan::Plan;
use macula::{DType, Gpu, Layout};

/// Queries, value channels, and shared memory in KiB: summaries by few warps and by many, steps that follow each other within
/// a tile, one, two and three tiles on their way.
const FORWARD: [([usize; 5], usize, u32); 5] = [
    ([1, 1, 16, 20, 16], 16, 163),
    ([1, 1, 20, 20, 64], 64, 99),
    ([1, 1, 12, 17, 80], 64, 163),
    ([1, 1, 12, 17, 80], 72, 163),
    ([1, 1, 12, 17, 128], 128, 99),
];
const BACKWARD: [([usize; 5], usize, u32); 5] = [
    ([1, 1, 16, 20, 16], 16, 163),
    ([1, 1, 16, 17, 32], 128, 163),
    ([1, 1, 16, 17, 48], 48, 163),
    ([1, 1, 12, 17, 128], 128, 99),
    ([1, 1, 12, 17, 128], 128, 163),
];
/// So many planes that a warp takes several tiles of one.
const PLANES: usize = 529;

/// The same memory for every head: operands stay small.
fn shared_by_heads(layout: Layout<5>) -> Layout<5> {
    let [b, _, y, x, channel] = layout.strides;
    Layout { strides: [b, 0, y, x, channel], ..layout }
}

pub fn plans() -> Vec<Plan> {
    if !macula::kernel::all().iter().any(|kernel| kernel.name.starts_with("content_")) {
        return Vec::new();
    }
    let op = Content::new(ContentConfig { form: Form::Softmax { norm_queries: true } });
    let gpu = |kib: u32| Gpu { shared_optin_bytes: kib << 10, ..Gpu::SM80 };
    let mut plans = Vec::new();
    for dtype in DType::ALL {
        for (q, e, kib) in FORWARD {
            let forward = ForwardProblem::contiguous(q, [q[2], q[3]], e, dtype);
            plans.push(op.plan_fwd(&forward, &gpu(kib)).unwrap());
        }
        for (q, e, kib) in BACKWARD {
            let backward = BackwardProblem::contiguous(q, [q[2], q[3]], e, dtype);
            plans.push(op.plan_bwd(&backward, &gpu(kib)).unwrap());
        }
        let many = ForwardProblem::contiguous([1, PLANES, 9, 16, 128], [1, 1], 8, dtype);
        let (q, k) = (shared_by_heads(many.q), shared_by_heads(many.k));
        plans.push(op.plan_fwd(&ForwardProblem { q, k, ..many }, &gpu(60)).unwrap());
        if dtype == DType::F32 {
            // Room for just two stages, which is less than any GPU has; less than queries need.
            let forward = ForwardProblem::contiguous([1, 1, 0, 17, 128], [12, 17], 128, dtype);
            plans.push(op.plan_fwd(&forward, &gpu(69)).unwrap());
        } else {
            // Sums so long that they leave the tensor core on the way, which takes the room of a stage.
            let long = ForwardProblem::contiguous([1, 128, 1, 1, 80], [20, 52], 72, dtype);
            let (k, v) = (shared_by_heads(long.k), shared_by_heads(long.v));
            plans.push(op.plan_fwd(&ForwardProblem { k, v, saves: false, ..long }, &gpu(99)).unwrap());
        }
        let many = BackwardProblem::contiguous([1, PLANES, 9, 16, 8], [9, 16], 8, dtype);
        plans.push(op.plan_bwd(&many, &gpu(163)).unwrap());
    }
    plans
}
