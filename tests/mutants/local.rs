//! The op `local`.

use macula::local::{BackwardProblem, ForwardProblem, Local, LocalConfig, Relative, Window};
use macula::plan::Plan;
use macula::{DType, Gpu};

pub const HARMLESS: &[super::Harmless] = &[];

/// Every class of channels, for patches of one height and of two, each with so little shared memory (KiB) that keys come in
/// bands, and the next band while this one is read.
const CASES: [([usize; 2], usize, u32); 5] =
    [([5, 11], 32, 48), ([5, 11], 64, 64), ([11, 9], 128, 163), ([9, 9], 32, 99), ([9, 9], 64, 163)];

/// As above, for dq and for dk and dv.
const BACKWARD_CASES: [([usize; 2], usize, u32); 5] =
    [([5, 11], 32, 40), ([5, 11], 64, 64), ([11, 9], 128, 120), ([9, 9], 32, 64), ([9, 9], 64, 99)];

pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for dtype in DType::ALL {
        for (window, channels, kib) in CASES {
            let config = LocalConfig {
                window: Window::sliding(window),
                relative: Relative::Sum,
                ..LocalConfig::default()
            };
            let op = Local::new(config).unwrap();
            let shape = [1, 1, 22, 19, channels];
            let gpu = Gpu { shared_optin_bytes: kib << 10, ..Gpu::SM80 };
            let forward = ForwardProblem::contiguous(&config, shape, channels, true, dtype);
            plans.push(op.plan_fwd(&forward, &gpu).unwrap());
        }
        for (window, channels, kib) in BACKWARD_CASES {
            let config = LocalConfig {
                window: Window::sliding(window),
                relative: Relative::Sum,
                ..LocalConfig::default()
            };
            let op = Local::new(config).unwrap();
            let gpu = Gpu { shared_optin_bytes: kib << 10, ..Gpu::SM80 };
            let all = BackwardProblem::contiguous(&config, [1, 1, 22, 19, channels], channels, true, dtype);
            let without_tables = BackwardProblem { drel_h: None, drel_w: None, ..all };
            plans.push(op.plan_bwd(&all, &gpu).unwrap());
            plans.push(op.plan_bwd(&without_tables, &gpu).unwrap());
        }
    }
    plans
}
