//! The op `gaussian`.

use macula::gaussian::{BackwardProblem, ForwardProblem, GaussianConfig, Kernel, Norm};
use macula::plan::Plan;
use macula::{DType, Gaussian, Gpu};

/// Whole planes, lines and tiles; several tiles, several chunks, and more than one warp at work.
pub fn plans() -> Vec<Plan> {
    let row = GaussianConfig::default();
    let none = GaussianConfig { kernel: Kernel::Manhattan, norm: Norm::None, ..Default::default() };
    let cauchy = GaussianConfig { kernel: Kernel::Cauchy, ..Default::default() };
    let calls = [
        (row, [1, 1, 17, 19, 16]),
        (row, [1, 1, 70, 66, 8]),
        (row, [1, 1, 12, 150, 8]),
        (row, [1, 1, 131, 9, 8]),
        (row, [1, 2, 5, 300, 9]),
        (none, [1, 1, 17, 19, 16]),
        (cauchy, [1, 1, 17, 19, 128]),
    ];
    let mut plans = Vec::new();
    for dtype in DType::ALL {
        for (config, shape) in calls {
            let op = Gaussian::new(config).unwrap();
            plans.push(op.plan_fwd(&ForwardProblem::contiguous(shape, dtype), &Gpu::SM80).unwrap());
            let both = BackwardProblem::contiguous(shape, dtype);
            for dsigma in [both.dsigma, None] {
                plans.push(op.plan_bwd(&BackwardProblem { dsigma, ..both }, &Gpu::SM80).unwrap());
            }
        }
    }
    plans
}
