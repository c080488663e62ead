//! CUDA devices for tests: the look-alike driver over the emulator, or with `MACULA_TEST_GPU=1` the machine's own. With
//! `MACULA_TEST_GPU=rehearsal` it is the look-alike as well, but found by the system's loader, as the machine's own would be.

use crate::common::memory::Memory;
use macula::cudarc::driver::CudaSlice;
use macula::{Cuda, Element, Workspace};
use ptx_emulator_driver::Driver;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

fn is_set_to(value: &str) -> bool {
    std::env::var_os("MACULA_TEST_GPU").is_some_and(|v| v == value)
}

fn is_rehearsal() -> bool {
    is_set_to("rehearsal")
}

/// The installed look-alike; `None` when tests run on a real GPU.
pub fn look_alike() -> Option<&'static Driver> {
    static DRIVER: OnceLock<Option<&'static Driver>> = OnceLock::new();
    *DRIVER.get_or_init(|| {
        if is_set_to("1") || is_rehearsal() {
            eprintln!("tests run on the driver that the system's loader finds");
            return None;
        }
        let driver = ptx_emulator_driver::install().unwrap();
        // Reports name lines of the .cu files, though the shipped PTX has no line tables.
        for kernel in macula::kernel::all() {
            let file = Path::new(env!("OUT_DIR")).join("lineinfo").join(format!("{}.ptx", kernel.name));
            driver.register_line_info(kernel.ptx().unwrap(), std::fs::read_to_string(file).unwrap());
        }
        eprintln!("tests run on the look-alike driver over ptx-emulator");
        Some(driver)
    })
}

/// One device of each class of shared memory; on a real GPU the one that there is.
pub fn devices() -> Vec<Cuda> {
    let count = look_alike().map_or(1, |driver| driver.devices().len());
    let devices: Vec<Cuda> = (0..count).map(|ordinal| Cuda::new(ordinal).unwrap()).collect();
    for device in &devices {
        // A real driver is asked for, or the look-alike, and never the other by mistake.
        let name = device.stream().context().name().unwrap();
        let is_look_alike = name.starts_with(ptx_emulator_driver::DEVICE_NAME);
        assert_eq!(is_look_alike, look_alike().is_some() || is_rehearsal(), "tests run on {name}");
    }
    devices
}

/// Runs `body` with an order of warps and blocks, a rounding of tensor cores, and all checks on.
pub fn with_settings<R>(seed: u64, tensor: ptx_emulator::TensorMode, body: impl FnOnce() -> R) -> R {
    match look_alike() {
        Some(driver) => driver.with(
            |s| {
                s.seed = seed;
                s.tensor = tensor;
                s.checks = true;
            },
            body,
        ),
        None => body(),
    }
}

/// Every compiled entry of such a name has run in this process.
pub fn assert_all_executed(is_meant: impl Fn(&str) -> bool) {
    let Some(driver) = look_alike() else { return };
    let compiled: BTreeSet<&str> =
        macula::kernel::all().iter().map(|k| k.name).filter(|name| is_meant(name)).collect();
    assert!(!compiled.is_empty(), "no compiled entry is meant");
    let executed = driver.executed_entries();
    let missing: Vec<&&str> = compiled.iter().filter(|name| !executed.contains(**name)).collect();
    assert!(missing.is_empty(), "compiled and never executed: {missing:?}");
}

/// Lends just as much poisoned scratch as the plan asks for, and sees that what lies behind it stays as it is.
pub fn with_scratch(
    on: &Cuda,
    bytes: usize,
    call: impl FnOnce(Workspace<'_>) -> Result<(), String>,
) -> Result<(), String> {
    const GUARD: usize = 64;
    const POISON: u8 = 0xff;
    let mut memory = on.stream().clone_htod(&vec![POISON; bytes + GUARD]).unwrap();
    match bytes {
        0 => call(Workspace::none())?,
        _ => call(Workspace::new(&mut memory.slice_mut(..bytes)))?,
    }
    let behind = on.stream().clone_dtoh(&memory.slice(bytes..)).unwrap();
    if behind.iter().any(|&byte| byte != POISON) {
        return Err("memory behind the workspace was written".into());
    }
    Ok(())
}

impl<T: Element, const R: usize> Memory<T, R> {
    /// All of it, guards and gaps included, on a device.
    pub fn upload(&self, on: &Cuda) -> CudaSlice<T> {
        on.stream().clone_htod(self.all()).unwrap()
    }

    /// All of it back from a device.
    pub fn download(&mut self, on: &Cuda, from: &CudaSlice<T>) {
        on.stream().memcpy_dtoh(from, self.all_mut()).unwrap();
        on.stream().synchronize().unwrap();
    }
}
