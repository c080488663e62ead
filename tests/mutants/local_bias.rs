//! The op `local` with a bias.

use macula::local::{BackwardProblem, ForwardProblem, Local, LocalConfig, Relative, Window};
use macula::plan::Plan;
use macula::{DType, Gpu, Layout};

/// As of [`super::local`]: every class of channels, with so little shared memory (KiB) that keys come in bands.
const CASES: [([usize; 2], usize, u32); 5] =
    [([5, 11], 32, 50), ([5, 11], 64, 66), ([11, 9], 128, 163), ([9, 9], 32, 99), ([9, 9], 64, 163)];

/// As above, for dq and for dk and dv.
const BACKWARD_CASES: [([usize; 2], usize, u32); 3] =
    [([5, 11], 32, 60), ([5, 11], 64, 80), ([11, 9], 128, 140)];

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
        for (window, channels, kib) in BACKWARD_CASES {
            let (config, bias) = (config(window), Some(Layout::contiguous([1, window[0], window[1]])));
            let op = Local::new(config).unwrap();
            let gpu = Gpu { shared_optin_bytes: kib << 10, ..Gpu::SM80 };
            let plain = BackwardProblem::contiguous(&config, [1, 1, 22, 19, channels], channels, true, dtype);
            let all = BackwardProblem { bias, dbias: bias, ..plain };
            let without_tables = BackwardProblem { drel_h: None, drel_w: None, dbias: None, ..all };
            plans.push(op.plan_bwd(&all, &gpu).unwrap());
            plans.push(op.plan_bwd(&without_tables, &gpu).unwrap());
        }
        // Two whole tiles for each block: one tile's sums make room for the next one's.
        for channels in [8, 64, 128] {
            let (config, bias) = (config([1, 3]), Some(Layout::contiguous([260, 1, 3])));
            let plain =
                BackwardProblem::contiguous(&config, [16, 260, 1, 2, channels], channels, false, dtype);
            let problem = BackwardProblem { bias, dbias: bias, dk: None, dv: None, ..plain };
            plans.push(Local::new(config).unwrap().plan_bwd(&problem, &Gpu::SM80).unwrap());
        }
    }
    plans
}
