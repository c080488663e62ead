//! The op `content` on CUDA devices.

use crate::common::cuda::{assert_all_executed, devices, with_settings};
use crate::content::{CASES, Case, Passes, run};
use half::{bf16, f16};
use macula::content::Form;
use macula::{DType, Element};
use ptx_emulator::TensorMode;

/// Cases that are large for the emulator: long enough for every way to split positions.
const LARGE: &[Case] = &[
    Case { name: "many_splits", q: [1, 1, 3, 4, 16], keys: [37, 41], e: 24, size: 1.0 },
    Case { name: "splits_of_wide_sums", q: [1, 1, 2, 9, 128], keys: [16, 25], e: 120, size: 1.0 },
    Case { name: "long_sums", q: [1, 1, 2, 9, 72], keys: [40, 70], e: 72, size: 6.0 },
];

/// Every case in every form under two orders of warps, taking turns on the devices; the plain one on all, under every
/// rounding.
fn conformance<T: Element>() {
    let devices = devices();
    let cases = CASES.iter().chain(LARGE).flat_map(|case| Form::ALL.map(|form| (case, form)));
    for (turn, (case, form)) in cases.enumerate() {
        let is_plain = case.name == "plain";
        for (ordinal, on) in devices.iter().enumerate() {
            if !is_plain && turn % devices.len() != ordinal {
                continue;
            }
            let of = |seed, mode| {
                with_settings(seed, mode, || run::<T>(on, case, form, Passes::Forward))
                    .unwrap_or_else(|e| panic!("device {ordinal}: {e}"))
            };
            let first = of(0, TensorMode::Exact);
            assert!(first == of(17, TensorMode::Exact), "device {ordinal}, {}: other bits", case.name);
            if is_plain && T::DTYPE != DType::F32 {
                of(0, TensorMode::Sm80);
                of(0, TensorMode::Sm90);
            }
        }
    }
    assert_all_executed("content_", &format!("_{}", T::DTYPE));
}

#[test]
fn cuda_f32() {
    conformance::<f32>();
}

#[test]
fn cuda_f16() {
    conformance::<f16>();
}

#[test]
fn cuda_bf16() {
    conformance::<bf16>();
}
