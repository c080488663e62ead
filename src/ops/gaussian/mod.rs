//! `o = A(σ) v`: every pixel averages the map around it with weights that depend on distance and one radius per head.
//!
//! Tan et al., *Explicitly Modeled Attention Maps for Image Classification*, AAAI 2021. With D the distance between
//! query pixel i and key pixel j and w = κ(D, σ) the weight of [`Kernel`]:
//!
//! ```text
//! A_ij = w_ij / Z_i        Z_i = Σ_j w_ij  (norm row)   or   1  (norm none)        o_i = Σ_j A_ij v_j
//! ```
//!
//! Shapes: v and o `[b, h, y, x, d]`; the radius σ, in pixels, f32 `[h]` (one per head) or `[1]` (one for all). The
//! gradient of σ has the shape of σ and is f32.

mod lines;
mod params;
mod plan;
mod planes;
mod tiles;

pub use crate::config::gaussian::{GaussianConfig, Kernel, Norm};
pub use plan::{BackwardProblem, ForwardProblem};

use super::{check_channels, check_shape};
#[cfg(feature = "cuda")]
use crate::device::Operand;
use crate::device::{Target, target, with_workspace};
use crate::tensor::element_count;
use crate::{
    Cost, DType, Device, Element, Error, Gpu, Layout, Plan, Result, Tensor, View, ViewMut, Workspace, cpu,
    reference,
};

/// The op, its settings checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaussian {
    config: GaussianConfig,
}

/// Arguments of [`Gaussian::forward_into`].
pub struct Forward<'a, T> {
    /// Values, `[b, h, y, x, d]`.
    pub v: View<'a, T, 5>,
    /// Radius in pixels, `[h]` or `[1]`.
    pub sigma: View<'a, f32, 1>,
    /// Output, the shape of `v`. Written whole.
    pub o: ViewMut<'a, T, 5>,
}

/// Arguments of [`Gaussian::backward_into`]. Gradients are written whole; one that is `None` is not computed.
pub struct Backward<'a, T> {
    /// Values, `[b, h, y, x, d]`.
    pub v: View<'a, T, 5>,
    /// Radius in pixels, `[h]` or `[1]`.
    pub sigma: View<'a, f32, 1>,
    /// Gradient of the output, the shape of `v`.
    pub d_o: View<'a, T, 5>,
    /// Gradient of `v`, its shape.
    pub dv: Option<ViewMut<'a, T, 5>>,
    /// Gradient of `sigma`, its shape.
    pub dsigma: Option<ViewMut<'a, f32, 1>>,
}

/// What [`Gaussian::backward`] returns.
pub struct Grads<T> {
    /// Gradient of `v`.
    pub dv: Tensor<T, 5>,
    /// Gradient of `sigma`.
    pub dsigma: Tensor<f32, 1>,
}

impl Gaussian {
    /// The op's name in errors, entries and fixtures.
    pub const NAME: &'static str = "gaussian";

    /// The op with these settings.
    ///
    /// # Errors
    /// [`Error::Input`] for a window that is even or zero.
    pub fn new(config: GaussianConfig) -> Result<Self> {
        match config.window {
            Some(window) if window % 2 == 0 => Err(Error::input(Self::NAME, "window", "odd", window)),
            _ => Ok(Self { config }),
        }
    }

    /// Its settings.
    pub fn config(&self) -> &GaussianConfig {
        &self.config
    }

    /// `o = A(σ) v`, into a new tensor.
    ///
    /// # Errors
    /// As [`Gaussian::forward_into`].
    pub fn forward<T: Element>(
        &self,
        on: &dyn Device,
        v: &Tensor<T, 5>,
        sigma: &Tensor<f32, 1>,
    ) -> Result<Tensor<T, 5>> {
        let mut o = Tensor::zeros(on, v.shape())?;
        let bytes = self.forward_workspace_bytes(on, v.shape(), T::DTYPE)?;
        let args = Forward { v: v.view(), sigma: sigma.view(), o: o.view_mut() };
        with_workspace(on, bytes, |workspace| self.forward_into(on, args, workspace))?;
        Ok(o)
    }

    /// Gradients of `v` and `sigma`, given the gradient of the output, into new tensors.
    ///
    /// # Errors
    /// As [`Gaussian::backward_into`].
    pub fn backward<T: Element>(
        &self,
        on: &dyn Device,
        v: &Tensor<T, 5>,
        sigma: &Tensor<f32, 1>,
        d_o: &Tensor<T, 5>,
    ) -> Result<Grads<T>> {
        let (mut dv, mut dsigma) = (Tensor::zeros(on, v.shape())?, Tensor::zeros(on, sigma.shape())?);
        let bytes = self.backward_workspace_bytes(on, v.shape(), T::DTYPE)?;
        let (dv_out, dsigma_out) = (Some(dv.view_mut()), Some(dsigma.view_mut()));
        let args =
            Backward { v: v.view(), sigma: sigma.view(), d_o: d_o.view(), dv: dv_out, dsigma: dsigma_out };
        with_workspace(on, bytes, |workspace| self.backward_into(on, args, workspace))?;
        Ok(Grads { dv, dsigma })
    }

    /// `o = A(σ) v`, in the caller's memory. On `Cuda` nothing is allocated on the device, and nothing waits.
    ///
    /// # Errors
    /// [`Error::Input`] for shapes that do not fit together, memory of another device, a workspace that is too small, and
    /// on `Cpu` a radius that is not positive (on `Cuda` such a head's output is NaN, for nothing may wait to look);
    /// [`Error::Unsupported`] for what the device does not do; [`Error::Kernel`] when a launch fails.
    pub fn forward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Forward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        problem.check()?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let v = args.v.host(Self::NAME, "v")?;
                let sigma = args.sigma.host(Self::NAME, "sigma")?;
                let o = args.o.host(Self::NAME, "o")?;
                check_radius(&sigma)?;
                if v.layout.is_empty() {
                    return Ok(());
                }
                cpu.install(|| cpu::gaussian::forward(&self.config, v, sigma, o))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_fwd(&problem, cuda.gpu())?;
                let Forward { mut v, mut sigma, mut o } = args;
                let mut operands =
                    [Operand::new("v", &mut v), Operand::new("sigma", &mut sigma), Operand::new("o", &mut o)];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// Gradients in the caller's memory. On `Cuda` nothing is allocated on the device, and nothing waits.
    ///
    /// # Errors
    /// As [`Gaussian::forward_into`].
    pub fn backward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Backward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        problem.check()?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let v = args.v.host(Self::NAME, "v")?;
                let sigma = args.sigma.host(Self::NAME, "sigma")?;
                let d_o = args.d_o.host(Self::NAME, "d_o")?;
                let dv = args.dv.map(|t| t.host(Self::NAME, "dv")).transpose()?;
                let mut dsigma = args.dsigma.map(|t| t.host(Self::NAME, "dsigma")).transpose()?;
                check_radius(&sigma)?;
                if v.layout.is_empty() {
                    if let Some(out) = &mut dsigma {
                        out.fill(0.0);
                    }
                    return Ok(());
                }
                cpu.install(|| cpu::gaussian::backward(&self.config, v, sigma, d_o, dv, dsigma))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_bwd(&problem, cuda.gpu())?;
                let Backward { mut v, mut sigma, mut d_o, mut dv, mut dsigma } = args;
                let mut operands = [
                    Operand::new("v", &mut v),
                    Operand::new("sigma", &mut sigma),
                    Operand::new("d_o", &mut d_o),
                    Operand::maybe("dv", dv.as_mut()),
                    Operand::maybe("dsigma", dsigma.as_mut()),
                ];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// The attention map of one query pixel: row i of A as `[y, x]`, row-major. `size` is `[y, x]`, `query` `[yi, xi]`.
    ///
    /// Computed in f64 on the calling thread, from the definition: to look at, not to compute with.
    ///
    /// # Errors
    /// [`Error::Input`] for a query outside the map, and for a radius that is not positive and finite.
    pub fn attention_map(&self, size: [usize; 2], query: [usize; 2], sigma: f32) -> Result<Vec<f32>> {
        if query[0] >= size[0] || query[1] >= size[1] {
            let want = format!("inside the map of {} rows and {} columns", size[0], size[1]);
            return Err(Error::input(Self::NAME, "query", want, format!("{query:?}")));
        }
        element_count(size)?;
        check_one_radius(sigma, || sigma.to_string())?;
        let map = reference::gaussian::attention_map(&self.config, size, query, f64::from(sigma));
        Ok(map.into_iter().map(|weight| weight as f32).collect())
    }

    /// Scratch bytes that [`Gaussian::forward_into`] needs on this device: enough for any layout and alignment.
    ///
    /// # Errors
    /// As [`Gaussian::plan_fwd`].
    pub fn forward_workspace_bytes(&self, on: &dyn Device, shape: [usize; 5], dtype: DType) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => ForwardProblem::contiguous(shape, dtype).check().map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                Ok(self.plan_fwd(&ForwardProblem::contiguous(shape, dtype), cuda.gpu())?.workspace_bytes)
            }
        }
    }

    /// Scratch bytes that [`Gaussian::backward_into`] needs on this device: enough for any layout and alignment.
    ///
    /// # Errors
    /// As [`Gaussian::plan_bwd`].
    pub fn backward_workspace_bytes(
        &self,
        on: &dyn Device,
        shape: [usize; 5],
        dtype: DType,
    ) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => BackwardProblem::contiguous(shape, dtype).check().map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                Ok(self.plan_bwd(&BackwardProblem::contiguous(shape, dtype), cuda.gpu())?.workspace_bytes)
            }
        }
    }

    /// What a forward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Unsupported`], as [`Gaussian::forward_into`].
    pub fn plan_fwd(&self, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
        problem.check()?;
        plan::forward(&self.config, problem, gpu)
    }

    /// What a backward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// As [`Gaussian::plan_fwd`].
    pub fn plan_bwd(&self, problem: &BackwardProblem, gpu: &Gpu) -> Result<Plan> {
        problem.check()?;
        plan::backward(&self.config, problem, gpu)
    }

    /// The work of a forward call on `[b, h, y, x, d]`.
    pub fn forward_cost(&self, shape: [usize; 5], dtype: DType) -> Cost {
        plan::forward_cost(&self.config, shape, dtype)
    }

    /// The work of a backward call on `[b, h, y, x, d]`, both gradients.
    pub fn backward_cost(&self, shape: [usize; 5], dtype: DType) -> Cost {
        plan::backward_cost(&self.config, shape, dtype)
    }
}

fn check_radius(sigma: &crate::tensor::HostView<'_, f32, 1>) -> Result<()> {
    for hi in 0..sigma.layout.shape[0] {
        let radius = sigma.data[sigma.layout.at([hi])];
        check_one_radius(radius, || format!("{radius} for head {hi}"))?;
    }
    Ok(())
}

fn check_one_radius(radius: f32, words: impl FnOnce() -> String) -> Result<()> {
    let is_positive = radius > 0.0 && radius.is_finite();
    if is_positive {
        Ok(())
    } else {
        Err(Error::input(Gaussian::NAME, "sigma", "positive and finite", words()))
    }
}

fn check_common(v: &Layout<5>, sigma: &Layout<1>) -> Result<()> {
    check_channels(Gaussian::NAME, "v", v.shape[4])?;
    match sigma.shape[0] {
        1 => Ok(()),
        heads if heads == v.shape[1] => Ok(()),
        got => Err(Error::input(
            Gaussian::NAME,
            "sigma",
            format!("of shape [{}] (one radius per head) or [1]", v.shape[1]),
            format!("[{got}]"),
        )),
    }
}

impl<T: Element> Forward<'_, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> ForwardProblem {
        ForwardProblem { dtype: T::DTYPE, v: self.v.layout(), sigma: self.sigma.layout(), o: self.o.layout() }
    }
}

impl<T: Element> Backward<'_, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> BackwardProblem {
        BackwardProblem {
            dtype: T::DTYPE,
            v: self.v.layout(),
            sigma: self.sigma.layout(),
            d_o: self.d_o.layout(),
            dv: self.dv.as_ref().map(ViewMut::layout),
            dsigma: self.dsigma.as_ref().map(ViewMut::layout),
        }
    }
}

impl ForwardProblem {
    /// Contiguous tensors of this shape, one radius per head.
    pub fn contiguous(shape: [usize; 5], dtype: DType) -> Self {
        Self { dtype, v: shape.into(), sigma: [shape[1]].into(), o: shape.into() }
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_common(&self.v, &self.sigma)?;
        check_shape(Gaussian::NAME, "o", self.o.shape, self.v.shape)
    }
}

impl BackwardProblem {
    /// Contiguous tensors of this shape, one radius per head, both gradients.
    pub fn contiguous(shape: [usize; 5], dtype: DType) -> Self {
        let (v, sigma) = (Layout::contiguous(shape), Layout::contiguous([shape[1]]));
        Self { dtype, v, sigma, d_o: v, dv: Some(v), dsigma: Some(sigma) }
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_common(&self.v, &self.sigma)?;
        check_shape(Gaussian::NAME, "d_o", self.d_o.shape, self.v.shape)?;
        self.dv.map_or(Ok(()), |dv| check_shape(Gaussian::NAME, "dv", dv.shape, self.v.shape))?;
        self.dsigma.map_or(Ok(()), |ds| check_shape(Gaussian::NAME, "dsigma", ds.shape, self.sigma.shape))
    }
}
