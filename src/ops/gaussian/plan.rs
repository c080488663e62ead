//! Launches and cost of `gaussian`.

use super::lines::{self, Along};
use super::params::{Radius, Strides};
use super::{planes, tiles};
use crate::config::gaussian::{GaussianConfig, Kernel};
use crate::ops::planning::check_contiguous;
use crate::plan::Ptr;
use crate::{Cost, DType, Error, Gaussian, Gpu, Layout, Plan, Result};

pub(super) const OP: &str = Gaussian::NAME;

/// A forward call: element type and layouts. Operands: 0 v, 1 sigma, 2 o.
#[derive(Clone, Copy, Debug)]
pub struct ForwardProblem {
    /// Element type of v and o.
    pub dtype: DType,
    /// Values.
    pub v: Layout<5>,
    /// Radius.
    pub sigma: Layout<1>,
    /// Output.
    pub o: Layout<5>,
}

/// A backward call: element type and layouts. Operands: 0 v, 1 sigma, 2 d_o, 3 dv, 4 dsigma.
#[derive(Clone, Copy, Debug)]
pub struct BackwardProblem {
    /// Element type of v, d_o and dv.
    pub dtype: DType,
    /// Values.
    pub v: Layout<5>,
    /// Radius.
    pub sigma: Layout<1>,
    /// Gradient of the output.
    pub d_o: Layout<5>,
    /// Gradient of v, when wanted.
    pub dv: Option<Layout<5>>,
    /// Gradient of the radius, when wanted.
    pub dsigma: Option<Layout<1>>,
}

pub(super) const SIGMA: Ptr = Ptr::operand(1);

/// The sizes of a call, as kernels count them. An axis of one position is always y: the two are interchangeable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    pub b: i32,
    pub h: i32,
    pub y: i32,
    pub x: i32,
    pub d: i32,
    is_swapped: bool,
}

impl Map {
    fn new(shape: [usize; 5]) -> Result<Self> {
        let is_swapped = shape[3] == 1;
        let [b, h, y, x, d] =
            if is_swapped { [shape[0], shape[1], shape[3], shape[2], shape[4]] } else { shape };
        let fits = |n, what| size("v", n, what);
        fits(b.saturating_mul(h), "planes [b, h]")?;
        Ok(Self {
            b: fits(b, "images")?,
            h: fits(h, "heads")?,
            y: fits(y, "rows")?,
            x: fits(x, "columns")?,
            d: fits(d, "channels")?,
            is_swapped,
        })
    }

    /// Planes [b, h].
    pub fn planes(&self) -> i32 {
        self.b * self.h // proof: `new` checked the product
    }

    /// The strides of a tensor for a pass along an axis, from channel `channel` on.
    pub fn strides(&self, layout: &Layout<5>, along: Along, channel: i32) -> Strides {
        // A dimension of size 1 is never stepped along, and its stride may be anything: 0 keeps accesses wide.
        let step = |i: usize| if layout.shape[i] == 1 { 0 } else { layout.strides[i] as i64 };
        let (y, x) = if self.is_swapped { (step(3), step(2)) } else { (step(2), step(3)) };
        let (line, axis) = match along {
            Along::Y => (x, y),
            Along::X => (y, x),
        };
        Strides { offset: channel.into(), b: step(0), h: step(1), line, axis }
    }
}

fn size(arg: &'static str, n: usize, what: &str) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::input(OP, arg, format!("of less than 2³¹ {what}"), n))
}

/// 32-bit offsets, with room for a tile that begins inside and ends beyond.
const PLANE_ELEMENTS_MAX: i128 = i32::MAX as i128 - 255;

/// Kernels want channels next to each other, and 32-bit offsets inside a plane of one image and head.
fn check_plane(arg: &'static str, layout: &Layout<5>) -> Result<()> {
    check_contiguous(OP, arg, layout)?;
    let reach = |i: usize| (layout.shape[i] as i128 - 1) * (layout.strides[i] as i128).abs();
    let span = reach(2) + reach(3) + layout.shape[4] as i128;
    let count = layout.shape[2..].iter().map(|&n| n as i128).product::<i128>();
    if span.max(count) > PLANE_ELEMENTS_MAX {
        let want = "of planes [y, x, d] that span less than 2³¹ − 255 elements";
        return Err(Error::input(OP, arg, want, format!("{}", span.max(count))));
    }
    Ok(())
}

/// How the weights follow from sigma.
pub(super) fn radius(config: &GaussianConfig, sigma: &Layout<1>) -> Radius {
    let reach = config.window.map_or(i32::MAX, |w| i32::try_from(w / 2).unwrap_or(i32::MAX));
    // Mirrors `gaussian::Kernel`.
    let kernel = match config.kernel {
        Kernel::Gaussian => 0,
        Kernel::Manhattan => 1,
        Kernel::Exponential => 2,
        Kernel::Linear => 3,
        Kernel::Cauchy => 4,
    };
    let stride = if sigma.shape[0] == 1 { 0 } else { sigma.strides[0] as i64 };
    Radius { sigma: SIGMA, stride, reach, kernel }
}

/// How kernels round weights; mirrors `gaussian::Rounding`.
pub(super) fn rounding(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 2,
    }
}

pub(super) fn forward(config: &GaussianConfig, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
    check_plane("v", &problem.v)?;
    check_plane("o", &problem.o)?;
    if problem.v.is_empty() {
        return Ok(Plan::default());
    }
    let map = Map::new(problem.v.shape)?;
    if !config.kernel.is_separable() {
        return tiles::forward(config, problem, &map);
    }
    planes::forward(config, problem, &map, gpu).unwrap_or_else(|| lines::forward(config, problem, &map))
}

pub(super) fn backward(config: &GaussianConfig, problem: &BackwardProblem, gpu: &Gpu) -> Result<Plan> {
    check_plane("v", &problem.v)?;
    check_plane("d_o", &problem.d_o)?;
    problem.dv.as_ref().map_or(Ok(()), |dv| check_plane("dv", dv))?;
    if problem.v.is_empty() {
        return lines::backward_of_nothing(config, problem);
    }
    let map = Map::new(problem.v.shape)?;
    if !config.kernel.is_separable() {
        return tiles::backward(config, problem, &map);
    }
    planes::backward(config, problem, &map, gpu).unwrap_or_else(|| lines::backward(config, problem, &map))
}

/// `count · of y · x · d` multiply-adds along both axes, each axis limited by the window.
fn separable_flops(config: &GaussianConfig, shape: [usize; 5], along_y: u64, along_x: u64) -> u64 {
    let elements = shape.iter().fold(1u64, |n, &s| n.saturating_mul(s as u64));
    let taps = |axis: usize| config.window.unwrap_or(axis).min(axis) as u64;
    let per_element = along_y * taps(shape[2]) + along_x * taps(shape[3]);
    elements.saturating_mul(2 * per_element)
}

fn dense_flops(config: &GaussianConfig, shape: [usize; 5], products: u64) -> u64 {
    let elements = shape.iter().fold(1u64, |n, &s| n.saturating_mul(s as u64));
    let taps = |axis: usize| config.window.unwrap_or(axis).min(axis) as u64;
    elements.saturating_mul(2 * products * taps(shape[2]).saturating_mul(taps(shape[3])))
}

/// Bytes of `tensors` tensors like v, and of `radii` vectors like sigma.
fn bytes(shape: [usize; 5], dtype: DType, tensors: u64, radii: u64) -> u64 {
    let elements = shape.iter().fold(1u64, |n, &s| n.saturating_mul(s as u64));
    let radius_bytes = radii * 4 * shape[1] as u64;
    elements.saturating_mul(tensors * dtype.bytes() as u64).saturating_add(radius_bytes)
}

/// Weights of one map per head: distances along each axis when separable, pairs of offsets when not.
fn exps(config: &GaussianConfig, shape: [usize; 5]) -> u64 {
    let (h, y, x) = (shape[1] as u64, shape[2] as u64, shape[3] as u64);
    let distances = |axis: u64| config.window.map_or(axis, |w| (w as u64 / 2 + 1).min(axis));
    if config.kernel.is_separable() {
        h * (distances(y) + distances(x))
    } else {
        match config.kernel {
            Kernel::Linear | Kernel::Cauchy => 0,
            _ => h * distances(y) * distances(x),
        }
    }
}

pub(super) fn forward_cost(config: &GaussianConfig, shape: [usize; 5], dtype: DType) -> Cost {
    let flops = if config.kernel.is_separable() {
        separable_flops(config, shape, 1, 1)
    } else {
        dense_flops(config, shape, 1)
    };
    Cost { flops, min_bytes: bytes(shape, dtype, 2, 1), exps: exps(config, shape) }
}

pub(super) fn backward_cost(config: &GaussianConfig, shape: [usize; 5], dtype: DType) -> Cost {
    let flops = if config.kernel.is_separable() {
        separable_flops(config, shape, 3, 2) // SPEC: t, ĝ, dv and two products for the radius
    } else {
        dense_flops(config, shape, 2) // Aᵀ g, and g · v of all pairs for the radius
    };
    Cost { flops, min_bytes: bytes(shape, dtype, 3, 2), exps: exps(config, shape) }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
