//! Global self-attention: what a pixel is, and where, in one call.
//!
//! Shen et al., *Global Self-Attention Networks for Image Recognition*, 2020, figure 1: the content branch and the positional
//! branch read the same queries and values, and their results are added.
//!
//! ```text
//! o = content (q, k, v) + axial (q, v)
//! ```
//!
//! [`content`] with a softmax over positions, and [`axial`](crate::axial) along columns, then rows, with
//! batch norm between them if wanted: both modules have the formulas. The sum is formed in f32 and rounded once; gradients of q and
//! v are rounded between the branches on `Cuda`.
//!
//! Shapes: q, k `[b, h, y, x, d]`; v, o `[b, h, y, x, e]`; tables `[1 or h, 2L − 1, d]`; batch norm f32 `[1 or h, e]`. What
//! is saved for the backward pass is what the two branches save.

mod args;
mod check;
mod plan;

pub use crate::config::axial::BatchNorm;
pub use crate::config::gsa::GsaConfig;
pub use crate::ops::axial::{Affine, Statistics};
pub use args::{Backward, Forward, Grads, Output, Parameters, Saved};
pub use plan::{BackwardProblem, ForwardProblem};

#[cfg(feature = "cuda")]
use crate::device::Operand;
use crate::device::{Target, target, with_workspace};
use crate::ops::content;
use crate::{Cost, Device, Element, Error, Gpu, Plan, Result, Tensor, Workspace, cpu};

/// The op, its settings checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gsa {
    config: GsaConfig,
}

impl Gsa {
    /// The op's name in errors, entries and benches.
    pub const NAME: &'static str = "gsa";

    /// The op with these settings.
    ///
    /// # Errors
    /// [`Error::Input`] for an ε that is negative or not finite.
    pub fn new(config: GsaConfig) -> Result<Self> {
        if !(config.epsilon >= 0.0 && config.epsilon.is_finite()) {
            return Err(Error::input(Self::NAME, "epsilon", "finite and not negative", config.epsilon));
        }
        Ok(Self { config })
    }

    /// Its settings.
    pub fn config(&self) -> &GsaConfig {
        &self.config
    }

    /// Output and what the backward pass needs, into new tensors.
    ///
    /// # Errors
    /// As [`Gsa::forward_into`].
    pub fn forward<T: Element>(
        &self,
        on: &dyn Device,
        q: &Tensor<T, 5>,
        k: &Tensor<T, 5>,
        v: &Tensor<T, 5>,
        parameters: Parameters<'_, T>,
    ) -> Result<Output<T>> {
        let ([b, h, _, _, d], e) = (q.shape(), v.shape()[4]);
        let (mut o, mut y) = (Tensor::zeros(on, v.shape())?, Tensor::zeros(on, v.shape())?);
        let mut saved = content::Saved {
            summary: Tensor::zeros(on, [b, h, d, e])?,
            max: Tensor::zeros(on, [b, h, d])?,
            sum: Tensor::zeros(on, [b, h, d])?,
        };
        let mut batch = match (self.config.norm, &parameters.affine) {
            (BatchNorm::Train, Some(affine)) => {
                let shape = affine.weight.shape();
                Some(Statistics { mean: Tensor::zeros(on, shape)?, var: Tensor::zeros(on, shape)? })
            }
            _ => None,
        };
        let Parameters { columns, rows, affine, given } = parameters;
        let args = Forward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            columns: columns.view(),
            rows: rows.view(),
            affine: affine.map(|a| Affine { weight: a.weight.view(), bias: a.bias.view() }),
            given: given.map(|s| Statistics { mean: s.mean.view(), var: s.var.view() }),
            o: o.view_mut(),
            content: Some(content::Saved {
                summary: saved.summary.view_mut(),
                max: saved.max.view_mut(),
                sum: saved.sum.view_mut(),
            }),
            y: Some(y.view_mut()),
            batch: batch.as_mut().map(|s| Statistics { mean: s.mean.view_mut(), var: s.var.view_mut() }),
        };
        let bytes = self.forward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.forward_into(on, args, workspace))?;
        Ok(Output { o, saved: Saved { content: saved, y, batch } })
    }

    /// All gradients, given the gradient of the output, into new tensors.
    ///
    /// # Errors
    /// As [`Gsa::backward_into`].
    #[allow(clippy::too_many_arguments)] // inputs, parameters, what was saved, and the gradient: as of the other ops
    pub fn backward<T: Element>(
        &self,
        on: &dyn Device,
        q: &Tensor<T, 5>,
        k: &Tensor<T, 5>,
        v: &Tensor<T, 5>,
        parameters: Parameters<'_, T>,
        saved: &Saved<T>,
        d_o: &Tensor<T, 5>,
    ) -> Result<Grads<T>> {
        let Parameters { columns, rows, affine, given } = parameters;
        let (mut dq, mut dk) = (Tensor::zeros(on, q.shape())?, Tensor::zeros(on, k.shape())?);
        let mut dv = Tensor::zeros(on, v.shape())?;
        let mut dcolumns = Tensor::zeros(on, columns.shape())?;
        let mut drows = Tensor::zeros(on, rows.shape())?;
        let mut daffine = match &affine {
            Some(a) => {
                let shape = a.weight.shape();
                Some(Affine { weight: Tensor::zeros(on, shape)?, bias: Tensor::zeros(on, shape)? })
            }
            None => None,
        };
        let (dweight, dbias) = match &mut daffine {
            Some(a) => (Some(a.weight.view_mut()), Some(a.bias.view_mut())),
            None => (None, None),
        };
        let statistics = match &saved.batch {
            Some(s) => Some(Statistics { mean: s.mean.view(), var: s.var.view() }),
            None => given.map(|s| Statistics { mean: s.mean.view(), var: s.var.view() }),
        };
        let content = &saved.content;
        let args = Backward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            columns: columns.view(),
            rows: rows.view(),
            affine: affine.map(|a| Affine { weight: a.weight.view(), bias: a.bias.view() }),
            statistics,
            content: content::Saved {
                summary: content.summary.view(),
                max: content.max.view(),
                sum: content.sum.view(),
            },
            y: saved.y.view(),
            d_o: d_o.view(),
            dq: Some(dq.view_mut()),
            dk: Some(dk.view_mut()),
            dv: Some(dv.view_mut()),
            dcolumns: Some(dcolumns.view_mut()),
            drows: Some(drows.view_mut()),
            dweight,
            dbias,
        };
        let bytes = self.backward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.backward_into(on, args, workspace))?;
        Ok(Grads { dq, dk, dv, dcolumns, drows, daffine })
    }

    /// Output (and what the backward pass needs) in the caller's memory. On `Cuda` nothing is allocated on the device, and
    /// nothing waits.
    ///
    /// # Errors
    /// [`Error::Input`] for shapes that do not fit together, arguments that the settings need and that are absent (or the
    /// other way round), memory of another device or a workspace that is too small; [`Error::Unsupported`] for what the
    /// device does not do; [`Error::Kernel`] when a launch fails.
    pub fn forward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Forward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        check::forward(&self.config, &problem)?;
        args.check_content()?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let mut args = args.host()?;
                if problem.o.is_empty() {
                    if let Some((summary, max, sum)) = &mut args.content {
                        summary.fill(0.0);
                        max.fill(0.0);
                        sum.fill(0.0);
                    }
                    args.statistics.iter_mut().flatten().for_each(|s| s.fill(0.0));
                    return Ok(());
                }
                cpu.install(|| cpu::gsa::forward(&self.config, args))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_fwd(&problem, cuda.gpu())?;
                let Forward { mut q, mut k, mut v, mut columns, mut rows, affine, given, .. } = args;
                let Forward { mut o, content, mut y, batch, .. } = args;
                let (mut weight, mut bias) = affine.map_or((None, None), |a| (Some(a.weight), Some(a.bias)));
                let (mut mean, mut var) = given.map_or((None, None), |s| (Some(s.mean), Some(s.var)));
                let (mut summary, mut max, mut sum) =
                    content.map_or((None, None, None), |s| (Some(s.summary), Some(s.max), Some(s.sum)));
                let (mut mean_out, mut var_out) = batch.map_or((None, None), |s| (Some(s.mean), Some(s.var)));
                let mut operands = [
                    Operand::new("q", &mut q),
                    Operand::new("k", &mut k),
                    Operand::new("v", &mut v),
                    Operand::new("columns", &mut columns),
                    Operand::new("rows", &mut rows),
                    Operand::maybe("weight", weight.as_mut()),
                    Operand::maybe("bias", bias.as_mut()),
                    Operand::maybe("given.mean", mean.as_mut()),
                    Operand::maybe("given.var", var.as_mut()),
                    Operand::new("o", &mut o),
                    Operand::maybe("content.summary", summary.as_mut()),
                    Operand::maybe("content.max", max.as_mut()),
                    Operand::maybe("content.sum", sum.as_mut()),
                    Operand::maybe("y", y.as_mut()),
                    Operand::maybe("batch.mean", mean_out.as_mut()),
                    Operand::maybe("batch.var", var_out.as_mut()),
                ];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// Gradients in the caller's memory. On `Cuda` nothing is allocated on the device, and nothing waits.
    ///
    /// # Errors
    /// As [`Gsa::forward_into`].
    pub fn backward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Backward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        check::backward(&self.config, &problem)?;
        args.check_content()?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let mut args = args.host()?;
                if problem.d_o.is_empty() {
                    [&mut args.dcolumns, &mut args.drows].into_iter().flatten().for_each(|t| t.fill(0.0));
                    [&mut args.dweight, &mut args.dbias].into_iter().flatten().for_each(|t| t.fill(0.0));
                    return Ok(());
                }
                cpu.install(|| cpu::gsa::backward(&self.config, args))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_bwd(&problem, cuda.gpu())?;
                let Backward { mut q, mut k, mut v, mut columns, mut rows, affine, statistics, .. } = args;
                let Backward { mut content, mut y, mut d_o, mut dq, mut dk, mut dv, .. } = args;
                let Backward { mut dcolumns, mut drows, mut dweight, mut dbias, .. } = args;
                let (mut weight, mut bias) = affine.map_or((None, None), |a| (Some(a.weight), Some(a.bias)));
                let (mut mean, mut var) = statistics.map_or((None, None), |s| (Some(s.mean), Some(s.var)));
                let mut operands = [
                    Operand::new("q", &mut q),
                    Operand::new("k", &mut k),
                    Operand::new("v", &mut v),
                    Operand::new("columns", &mut columns),
                    Operand::new("rows", &mut rows),
                    Operand::maybe("weight", weight.as_mut()),
                    Operand::maybe("bias", bias.as_mut()),
                    Operand::maybe("mean", mean.as_mut()),
                    Operand::maybe("var", var.as_mut()),
                    Operand::new("content.summary", &mut content.summary),
                    Operand::new("content.max", &mut content.max),
                    Operand::new("content.sum", &mut content.sum),
                    Operand::new("y", &mut y),
                    Operand::new("d_o", &mut d_o),
                    Operand::maybe("dq", dq.as_mut()),
                    Operand::maybe("dk", dk.as_mut()),
                    Operand::maybe("dv", dv.as_mut()),
                    Operand::maybe("dcolumns", dcolumns.as_mut()),
                    Operand::maybe("drows", drows.as_mut()),
                    Operand::maybe("dweight", dweight.as_mut()),
                    Operand::maybe("dbias", dbias.as_mut()),
                ];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// Scratch bytes that [`Gsa::forward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`Gsa::plan_fwd`].
    pub fn forward_workspace_bytes(&self, on: &dyn Device, problem: &ForwardProblem) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => check::forward(&self.config, problem).map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Ok(self.plan_fwd(problem, cuda.gpu())?.workspace_bytes),
        }
    }

    /// Scratch bytes that [`Gsa::backward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`Gsa::plan_bwd`].
    pub fn backward_workspace_bytes(&self, on: &dyn Device, problem: &BackwardProblem) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => check::backward(&self.config, problem).map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Ok(self.plan_bwd(problem, cuda.gpu())?.workspace_bytes),
        }
    }

    /// What a forward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Unsupported`], as [`Gsa::forward_into`].
    pub fn plan_fwd(&self, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
        check::forward(&self.config, problem)?;
        plan::forward(&self.config, problem, gpu)
    }

    /// What a backward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// As [`Gsa::plan_fwd`].
    pub fn plan_bwd(&self, problem: &BackwardProblem, gpu: &Gpu) -> Result<Plan> {
        check::backward(&self.config, problem)?;
        plan::backward(&self.config, problem, gpu)
    }

    /// The work of a forward call.
    pub fn forward_cost(&self, problem: &ForwardProblem) -> Cost {
        plan::forward_cost(&self.config, problem)
    }

    /// The work of a backward call.
    pub fn backward_cost(&self, problem: &BackwardProblem) -> Cost {
        plan::backward_cost(&self.config, problem)
    }
}
