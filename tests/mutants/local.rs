//! The op `local`.

use macula::local::{ForwardProblem, Local, LocalConfig, Relative};
use macula::plan::Plan;
use macula::{DType, Gpu};

pub const HARMLESS: &[super::Harmless] = &[];

/// Every class of channels, for patches of one height and of two, each with so little shared memory (KiB) that keys come in
/// bands, and the next band while this one is read.
const CASES: [([usize; 2], usize, u32); 5] =
    [([5, 11], 32, 48), ([5, 11], 64, 64), ([11, 9], 128, 163), ([9, 9], 32, 99), ([9, 9], 64, 163)];

pub fn plans() -> Vec<Plan> {
    let mut plans = Vec::new();
    for dtype in DType::ALL {
        for (window, channels, kib) in CASES {
            let config = LocalConfig { window, relative: Relative::Sum, ..LocalConfig::default() };
            let op = Local::new(config).unwrap();
            let shape = [1, 1, 22, 19, channels];
            let gpu = Gpu { shared_optin_bytes: kib << 10, ..Gpu::SM80 };
            let forward = ForwardProblem::contiguous(&config, shape, channels, true, dtype);
            plans.push(op.plan_fwd(&forward, &gpu).unwrap());
        }
    }
    plans
}
