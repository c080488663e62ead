//! The op `local` on CUDA devices.

use crate::common::cuda::{assert_all_executed, devices, with_settings};
use crate::local::{Passes, cases, run};
use half::{bf16, f16};
use macula::{DType, Element};
use ptx_emulator::TensorMode;

/// Every case under two orders of warps, taking turns on the devices; the plain one on all, under every rounding.
fn conformance<T: Element>() {
    let devices = devices();
    for (turn, case) in cases().enumerate() {
        let is_plain = case.name == "plain";
        for (ordinal, on) in devices.iter().enumerate() {
            if !is_plain && turn % devices.len() != ordinal {
                continue;
            }
            let of = |seed, mode| {
                with_settings(seed, mode, || run::<T>(on, &case, Passes::Forward))
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
    assert_all_executed("local_", &format!("_{}", T::DTYPE));
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
