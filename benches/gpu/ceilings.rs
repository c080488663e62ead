//! The device: what it is, and how fast it copies.

use crate::timing::elapsed_us;
use crate::{Failure, Sizes};
use macula::Cuda;
use macula::cudarc::driver::sys;
use serde_json::{Value, json};
use sys::CUdevice_attribute as Attribute;

/// Copies are timed this often.
const COPIES: usize = 10;

/// f32 multiply-adds per clock and multiprocessor, from sm_80 on (sm_80 itself has half of them).
fn fma_per_clock(capability: (u32, u32)) -> f64 {
    if capability == (8, 0) { 64.0 } else { 128.0 }
}

/// Bytes read and written per second by the best of several device-to-device copies.
fn copy_bytes_per_second(gpu: &Cuda, sizes: Sizes) -> Result<f64, Failure> {
    let bytes = if sizes == Sizes::Tiny { 1 << 16 } else { 1 << 30 };
    let stream = gpu.stream();
    let from = stream.clone_htod(&vec![0x5au8; bytes])?;
    let mut to = stream.alloc_zeros::<u8>(bytes)?;
    let mut best = f64::INFINITY;
    for _ in 0..COPIES {
        let mut copy = || Ok(stream.memcpy_dtod(&from, &mut to)?);
        best = best.min(elapsed_us(gpu, &mut copy)?);
    }
    Ok(2.0 * bytes as f64 / (best * 1e-6))
}

pub fn facts(gpu: &Cuda, sizes: Sizes) -> Result<Value, Failure> {
    let context = gpu.stream().context();
    let attribute = |a| context.attribute(a);
    let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let clock_khz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?;
    let capability = gpu.gpu().capability;
    let fma = fma_per_clock(capability) * f64::from(multiprocessors) * f64::from(clock_khz) * 1e3;
    let name = context.name()?;
    let mut driver = 0;
    // SAFETY: the driver writes one int to a place that outlives the call.
    unsafe { sys::cuDriverGetVersion(&mut driver) }.result()?;
    let copy = copy_bytes_per_second(gpu, sizes)?;
    println!("{name}, sm_{}{}, copies {:.2} TB/s", capability.0, capability.1, copy * 1e-12);
    Ok(json!({
        "device": name,
        "capability": [capability.0, capability.1],
        "driver": format!("{}.{}", driver / 1000, driver % 1000 / 10),
        "multiprocessors": multiprocessors,
        "clock_mhz": clock_khz / 1000,
        "l2_bytes": attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        "shared_optin_bytes": gpu.gpu().shared_optin_bytes,
        "copy_bytes_per_second": copy,
        // From clock and multiprocessors, not measured.
        "f32_flops_per_second": 2.0 * fma,
        "macula": env!("CARGO_PKG_VERSION"),
    }))
}
