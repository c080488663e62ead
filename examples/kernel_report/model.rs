//! What a launch would take at least on an H100 SXM that it fills: a model, not a measurement.

use std::fmt;

/// Bytes per second of device memory, by the data sheet.
const MEMORY: f64 = 3.35e12;
/// Floating-point operations per second of the tensor cores on 16-bit elements, by the data sheet.
const TENSOR: f64 = 989.4e12;
/// Multiprocessors, and their clock under load.
const SMS: f64 = 132.0;
const CLOCK: f64 = 1.755e9;
/// Per clock and multiprocessor: lanes of the unit for exponentials and other functions, wavefronts of shared memory, and
/// instructions issued.
const FUNCTION_LANES: f64 = 16.0;
const WAVEFRONTS: f64 = 1.0;
const ISSUED: f64 = 4.0;

/// Seconds that a launch's work takes each part of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Floors {
    pub memory: f64,
    pub tensor: f64,
    pub function: f64,
    pub shared: f64,
    pub issue: f64,
}

/// What a launch does, as the model sees it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    pub device_bytes: u64,
    pub tensor_flops: u64,
    /// Instructions of the function unit, counted once per warp.
    pub functions: u64,
    pub wavefronts: u64,
    pub instructions: u64,
}

/// A part of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Memory,
    Tensor,
    Function,
    Shared,
    Issue,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Memory => "memory",
            Part::Tensor => "tensor cores",
            Part::Function => "functions",
            Part::Shared => "shared memory",
            Part::Issue => "issue",
        })
    }
}

/// Seconds to move these bytes.
pub fn memory_seconds(bytes: u64) -> f64 {
    bytes as f64 / MEMORY
}

impl Floors {
    pub fn of(load: &Load) -> Self {
        let per_second = SMS * CLOCK;
        Self {
            memory: memory_seconds(load.device_bytes),
            tensor: load.tensor_flops as f64 / TENSOR,
            function: load.functions as f64 * 32.0 / (FUNCTION_LANES * per_second),
            shared: load.wavefronts as f64 / (WAVEFRONTS * per_second),
            issue: load.instructions as f64 / (ISSUED * per_second),
        }
    }

    /// The part that takes longest, and how long.
    pub fn binding(&self) -> (Part, f64) {
        let parts = [
            (Part::Memory, self.memory),
            (Part::Tensor, self.tensor),
            (Part::Function, self.function),
            (Part::Shared, self.shared),
            (Part::Issue, self.issue),
        ];
        parts.into_iter().fold((Part::Memory, 0.0), |most, part| if part.1 > most.1 { part } else { most })
    }
}
