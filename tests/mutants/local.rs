//! The op `local`.

use macula::local::{BackwardProblem, Blocks, ForwardProblem, Local, LocalConfig, Relative, Sliding, Window};
use macula::plan::Plan;
use macula::{DType, Gpu};

/// Every class of channels, for patches of one height and of two, each with so little shared memory (KiB) that keys come in
/// bands, and the next band while this one is read.
const CASES: [([usize; 2], usize, u32); 5] =
    [([5, 11], 32, 48), ([5, 11], 64, 64), ([11, 9], 128, 163), ([9, 9], 32, 99), ([9, 9], 64, 163)];

/// As above, for dq and for dk and dv.
const BACKWARD_CASES: [([usize; 2], usize, u32); 5] =
    [([5, 11], 32, 40), ([5, 11], 64, 64), ([11, 9], 128, 120), ([9, 9], 32, 64), ([9, 9], 64, 99)];

/// Windows with their own ways to places and keys, and KiB for forward and backward.
const WINDOWS: [(Window, [u32; 2]); 2] = [
    (Window::Sliding(Sliding::new([5, 7]).dilated([2, 2])), [32, 32]),
    (Window::Blocks(Blocks::new([6, 8]).offset_by([2, 3]).with_halo([3, 2])), [48, 48]),
];

fn plans_of_windows(dtype: DType, plans: &mut Vec<Plan>) {
    for (window, kib) in WINDOWS {
        let config = LocalConfig { window, relative: Relative::Sum, ..LocalConfig::default() };
        let (op, shape, channels) = (Local::new(config).unwrap(), [1, 1, 22, 19, 32], 32);
        let [forward, backward] = kib.map(|kib| Gpu { shared_optin_bytes: kib << 10, ..Gpu::SM80 });
        let problem = ForwardProblem::contiguous(&config, shape, channels, true, dtype);
        plans.push(op.plan_fwd(&problem, &forward).unwrap());
        let problem = BackwardProblem::contiguous(&config, shape, channels, true, dtype);
        plans.push(op.plan_bwd(&problem, &backward).unwrap());
    }
}

pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for dtype in DType::ALL {
        plans_of_windows(dtype, &mut plans);
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
