//! The op `value_mixture`.

use macula::value_mixture::{BackwardProblem, ForwardProblem, ValueMixture};
use macula::{DType, Gpu, Plan};

/// Few sites, which many threads share, unit by unit and channel by channel; and as many as there are columns.
pub fn plans() -> Vec<Plan> {
    let (op, gpu) = (ValueMixture::new(), Gpu::SM80);
    let mut plans = Vec::new();
    for dtype in DType::ALL {
        for (vs, sites) in
            [([4, 1, 1, 8, 24, 16], [4, 4]), ([4, 1, 1, 8, 24, 15], [4, 4]), ([3, 1, 1, 2, 40, 24], [2, 40])]
        {
            let forward = ForwardProblem::contiguous(vs, sites, 8, dtype);
            plans.push(op.plan_fwd(&forward, &gpu).unwrap());
            let backward = BackwardProblem::contiguous(vs, sites, 8, dtype);
            plans.push(op.plan_bwd(&backward, &gpu).unwrap());
        }
    }
    plans
}
