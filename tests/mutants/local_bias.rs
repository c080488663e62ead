//! The op `local` with a bias.

use macula::local::{BackwardProblem, ForwardProblem, Local, LocalConfig, Relative, Window};
use macula::plan::Plan;
use macula::{DType, Gpu, Layout};

/// As of [`super::local`]: every class of channels, with so little shared memory (KiB) that keys come in bands.
const CASES: [([usize; 2], usize, u32); 5] =
    [([5, 11], 32, 50), ([5, 11], 64, 66), ([11, 9], 128, 163), ([9, 9], 32, 99), ([9, 9], 64, 163)];

/// As above, backward: for dk and dv, and from so many on for dq, whose sums take memory too.
const BACKWARD_CASES: [([usize; 2], usize, u32, u32); 3] =
    [([5, 11], 32, 40, 48), ([5, 11], 64, 64, 72), ([11, 9], 128, 120, 136)];

pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    let config = |window| LocalConfig {
        window: Window::sliding(window),
        relative: Relative::Sum,
        ..LocalConfig::default()
    };
    for dtype in DType::ALL {
        for (window, channels, kib) in CASES {
            let (config, bias) = (config(window), Some(Layout::contiguous([1, window[0], window[1]])));
            let gpu = Gpu { shared_optin_bytes: kib << 10, ..Gpu::SM80 };
            let plain = ForwardProblem::contiguous(&config, [1, 1, 22, 19, channels], channels, true, dtype);
            let problem = ForwardProblem { bias, ..plain };
            plans.push(Local::new(config).unwrap().plan_fwd(&problem, &gpu).unwrap());
        }
        for (window, channels, for_keys, for_queries) in BACKWARD_CASES {
            let (config, bias) = (config(window), Some(Layout::contiguous([1, window[0], window[1]])));
            let op = Local::new(config).unwrap();
            let plain = BackwardProblem::contiguous(&config, [1, 1, 22, 19, channels], channels, true, dtype);
            let all = BackwardProblem { bias, dbias: bias, dk: None, dv: None, ..plain };
            let without_tables = BackwardProblem { drel_h: None, drel_w: None, dbias: None, ..all };
            let of_keys = BackwardProblem { dq: None, dk: plain.dk, dv: plain.dv, ..without_tables };
            // Without relative terms, whose sums wait between groups of keys as well.
            let alone =
                BackwardProblem::contiguous(&config, [1, 1, 22, 19, channels], channels, false, dtype);
            let alone = BackwardProblem { bias, dbias: bias, dk: None, dv: None, ..alone };
            // In one, two or more bands: one of these sizes has two in memory, another one.
            for more in [0, 2, 4, 8, 12] {
                let gpu = |kib: u32| Gpu { shared_optin_bytes: (kib + more) << 10, ..Gpu::SM80 };
                plans.extend(op.plan_bwd(&all, &gpu(for_queries)).ok());
                plans.extend(op.plan_bwd(&alone, &gpu(for_queries)).ok());
                plans.extend(op.plan_bwd(&without_tables, &gpu(for_queries)).ok());
                plans.extend(op.plan_bwd(&of_keys, &gpu(for_keys)).ok());
            }
        }
        // Two whole tiles for each block: one tile's sums make room for the next one's.
        for (channels, has_tables) in [8, 64, 128].into_iter().flat_map(|d| [(d, false), (d, true)]) {
            let (config, bias) = (config([5, 11]), Some(Layout::contiguous([260, 5, 11])));
            let shape = [16, 260, 1, 1, channels];
            let plain = BackwardProblem::contiguous(&config, shape, channels, has_tables, dtype);
            let problem = BackwardProblem { bias, dbias: bias, dk: None, dv: None, ..plain };
            plans.push(Local::new(config).unwrap().plan_bwd(&problem, &Gpu::SM80).unwrap());
        }
    }
    plans
}
