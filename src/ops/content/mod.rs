//! Global attention by content, in time and memory linear in the number of pixels.
//!
//! Shen et al., *Global Self-Attention Networks for Image Recognition*, 2020 (the content branch), and *Efficient Attention*,
//! arXiv 1812.01243. All keys and values are first drawn together in one d×e summary, and every query reads that:
//!
//! ```text
//! K̂ = softmax over all positions of K, per channel      C = K̂ᵀ V      o_i = q̂_i C
//! ```
//!
//! [`Form`] chooses what K̂ and q̂ are: also the plain dot product of non-local networks, and the feature maps of linear
//! attention. No scale, no mask, no positions.
//!
//! Shapes: q `[b, h, y, x, d]`; k `[b, h, y', x', d]`; v `[b, h, y', x', e]` (the maps of queries and of keys may differ);
//! o `[b, h, y, x, e]`. The summary `[b, h, d, e]`, the largest key `[b, h, d]` and the sum of weights `[b, h, d]` of each
//! channel are f32 and contiguous; the backward pass needs them.

mod plan;

pub use crate::config::content::{ContentConfig, FeatureMap, Form};
pub use plan::{BackwardProblem, ForwardProblem};
pub(in crate::ops) use plan::{backward_parts as plan_backward_parts, summary as plan_summary};

use super::{check_channels, check_shape};
#[cfg(feature = "cuda")]
use crate::device::Operand;
use crate::device::{Target, target, with_workspace};
use crate::{
    Cost, DType, Device, Element, Error, Gpu, Layout, Plan, Result, Tensor, View, ViewMut, Workspace, cpu,
};

/// The op, its settings checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Content {
    config: ContentConfig,
}

/// What the forward pass saves for the backward pass; f32, contiguous.
#[derive(Clone, Copy)]
pub struct Saved<C, S> {
    /// The summary, `[b, h, d, e]`.
    pub summary: C,
    /// The largest key of each channel, `[b, h, d]`; 0 where no softmax is taken.
    pub max: S,
    /// The sum of the keys' weights of each channel, `[b, h, d]`; the number of keys for the dot product.
    pub sum: S,
}

/// [`Saved`] in tensors of its own.
pub type SavedTensors = Saved<Tensor<f32, 4>, Tensor<f32, 3>>;

/// Arguments of [`Content::forward_into`].
pub struct Forward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Keys, `[b, h, y', x', d]`.
    pub k: View<'a, T, 5>,
    /// Values, `[b, h, y', x', e]`.
    pub v: View<'a, T, 5>,
    /// Output, `[b, h, y, x, e]`. Written whole.
    pub o: ViewMut<'a, T, 5>,
    /// Where to save what the backward pass needs.
    pub saved: Option<Saved<ViewMut<'a, f32, 4>, ViewMut<'a, f32, 3>>>,
}

/// Arguments of [`Content::backward_into`]. Gradients are written whole; one that is `None` is not computed.
pub struct Backward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Keys, `[b, h, y', x', d]`.
    pub k: View<'a, T, 5>,
    /// Values, `[b, h, y', x', e]`.
    pub v: View<'a, T, 5>,
    /// What the forward pass saved.
    pub saved: Saved<View<'a, f32, 4>, View<'a, f32, 3>>,
    /// Gradient of the output.
    pub d_o: View<'a, T, 5>,
    /// Gradient of q.
    pub dq: Option<ViewMut<'a, T, 5>>,
    /// Gradient of k.
    pub dk: Option<ViewMut<'a, T, 5>>,
    /// Gradient of v.
    pub dv: Option<ViewMut<'a, T, 5>>,
}

/// What [`Content::forward`] returns.
pub struct Output<T> {
    /// Output, `[b, h, y, x, e]`.
    pub o: Tensor<T, 5>,
    /// What the backward pass needs.
    pub saved: SavedTensors,
}

/// What [`Content::backward`] returns.
pub struct Grads<T> {
    /// Gradient of q.
    pub dq: Tensor<T, 5>,
    /// Gradient of k.
    pub dk: Tensor<T, 5>,
    /// Gradient of v.
    pub dv: Tensor<T, 5>,
}

impl Content {
    /// The op's name in errors, entries and benches.
    pub const NAME: &'static str = "content";

    /// The op with these settings; every setting is fine.
    pub fn new(config: ContentConfig) -> Self {
        Self { config }
    }

    /// Its settings.
    pub fn config(&self) -> &ContentConfig {
        &self.config
    }

    /// Output and what the backward pass needs, into new tensors.
    ///
    /// # Errors
    /// As [`Content::forward_into`].
    pub fn forward<T: Element>(
        &self,
        on: &dyn Device,
        q: &Tensor<T, 5>,
        k: &Tensor<T, 5>,
        v: &Tensor<T, 5>,
    ) -> Result<Output<T>> {
        let ([b, h, y, x, d], e) = (q.shape(), v.shape()[4]);
        let mut o = Tensor::zeros(on, [b, h, y, x, e])?;
        let mut saved = Saved {
            summary: Tensor::zeros(on, [b, h, d, e])?,
            max: Tensor::zeros(on, [b, h, d])?,
            sum: Tensor::zeros(on, [b, h, d])?,
        };
        let lent =
            Saved { summary: saved.summary.view_mut(), max: saved.max.view_mut(), sum: saved.sum.view_mut() };
        let args = Forward { q: q.view(), k: k.view(), v: v.view(), o: o.view_mut(), saved: Some(lent) };
        let bytes = self.forward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.forward_into(on, args, workspace))?;
        Ok(Output { o, saved })
    }

    /// All gradients, given the gradient of the output, into new tensors.
    ///
    /// # Errors
    /// As [`Content::backward_into`].
    pub fn backward<T: Element>(
        &self,
        on: &dyn Device,
        q: &Tensor<T, 5>,
        k: &Tensor<T, 5>,
        v: &Tensor<T, 5>,
        saved: &SavedTensors,
        d_o: &Tensor<T, 5>,
    ) -> Result<Grads<T>> {
        let (mut dq, mut dk) = (Tensor::zeros(on, q.shape())?, Tensor::zeros(on, k.shape())?);
        let mut dv = Tensor::zeros(on, v.shape())?;
        let saved = Saved { summary: saved.summary.view(), max: saved.max.view(), sum: saved.sum.view() };
        let args = Backward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            saved,
            d_o: d_o.view(),
            dq: Some(dq.view_mut()),
            dk: Some(dk.view_mut()),
            dv: Some(dv.view_mut()),
        };
        let bytes = self.backward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.backward_into(on, args, workspace))?;
        Ok(Grads { dq, dk, dv })
    }

    /// Output (and what the backward pass needs) in the caller's memory. On `Cuda` nothing is allocated on the device, and
    /// nothing waits.
    ///
    /// # Errors
    /// [`Error::Input`] for shapes that do not fit together, queries without keys, memory of another device or a workspace
    /// that is too small; [`Error::Unsupported`] for what the device does not do; [`Error::Kernel`] when a launch fails.
    pub fn forward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Forward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        args.check()?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let mut args = args.host()?;
                if problem.k.is_empty() {
                    if let Some((summary, max, sum)) = &mut args.saved {
                        summary.fill(0.0);
                        max.fill(0.0);
                        sum.fill(0.0);
                    }
                    return Ok(());
                }
                cpu.install(|| cpu::content::forward(&self.config, args))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_fwd(&problem, cuda.gpu())?;
                let Forward { mut q, mut k, mut v, mut o, saved } = args;
                let (mut summary, mut max, mut sum) =
                    saved.map_or((None, None, None), |s| (Some(s.summary), Some(s.max), Some(s.sum)));
                let mut operands = [
                    Operand::new("q", &mut q),
                    Operand::new("k", &mut k),
                    Operand::new("v", &mut v),
                    Operand::new("o", &mut o),
                    Operand::maybe("summary", summary.as_mut()),
                    Operand::maybe("max", max.as_mut()),
                    Operand::maybe("sum", sum.as_mut()),
                ];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// Gradients in the caller's memory. On `Cuda` nothing is allocated on the device, and nothing waits.
    ///
    /// # Errors
    /// As [`Content::forward_into`].
    pub fn backward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Backward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        args.check()?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let mut args = args.host()?;
                if problem.q.is_empty() {
                    // Nothing looked at the keys and values.
                    args.dk.iter_mut().for_each(|dk| dk.fill(T::default()));
                    args.dv.iter_mut().for_each(|dv| dv.fill(T::default()));
                    return Ok(());
                }
                cpu.install(|| cpu::content::backward(&self.config, args))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_bwd(&problem, cuda.gpu())?;
                let Backward { mut q, mut k, mut v, mut saved, mut d_o, mut dq, mut dk, mut dv } = args;
                let mut operands = [
                    Operand::new("q", &mut q),
                    Operand::new("k", &mut k),
                    Operand::new("v", &mut v),
                    Operand::new("summary", &mut saved.summary),
                    Operand::new("max", &mut saved.max),
                    Operand::new("sum", &mut saved.sum),
                    Operand::new("d_o", &mut d_o),
                    Operand::maybe("dq", dq.as_mut()),
                    Operand::maybe("dk", dk.as_mut()),
                    Operand::maybe("dv", dv.as_mut()),
                ];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// Scratch bytes that [`Content::forward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`Content::plan_fwd`].
    pub fn forward_workspace_bytes(&self, on: &dyn Device, problem: &ForwardProblem) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => check_fwd(problem).map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Ok(self.plan_fwd(problem, cuda.gpu())?.workspace_bytes),
        }
    }

    /// Scratch bytes that [`Content::backward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`Content::plan_bwd`].
    pub fn backward_workspace_bytes(&self, on: &dyn Device, problem: &BackwardProblem) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => check_bwd(problem).map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Ok(self.plan_bwd(problem, cuda.gpu())?.workspace_bytes),
        }
    }

    /// What a forward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Unsupported`], as [`Content::forward_into`].
    pub fn plan_fwd(&self, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
        check_fwd(problem)?;
        plan::forward(&self.config, problem, gpu)
    }

    /// What a backward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// As [`Content::plan_fwd`].
    pub fn plan_bwd(&self, problem: &BackwardProblem, gpu: &Gpu) -> Result<Plan> {
        check_bwd(problem)?;
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

fn check_inputs(q: &Layout<5>, k: &Layout<5>, v: &Layout<5>) -> Result<()> {
    let [b, h, _, _, d] = q.shape;
    let [_, _, yk, xk, _] = k.shape;
    check_channels(Content::NAME, "q", d)?;
    check_channels(Content::NAME, "v", v.shape[4])?;
    check_shape(Content::NAME, "k", k.shape, [b, h, yk, xk, d])?;
    check_shape(Content::NAME, "v", v.shape, [b, h, yk, xk, v.shape[4]])?;
    if k.is_empty() && !q.is_empty() {
        return Err(Error::input(
            Content::NAME,
            "k",
            "not empty when there are queries",
            format!("{:?}", k.shape),
        ));
    }
    Ok(())
}

fn check_fwd(p: &ForwardProblem) -> Result<()> {
    check_inputs(&p.q, &p.k, &p.v)?;
    check_shape(Content::NAME, "o", p.o.shape, output_shape(&p.q, &p.v))
}

fn check_bwd(p: &BackwardProblem) -> Result<()> {
    check_inputs(&p.q, &p.k, &p.v)?;
    check_shape(Content::NAME, "d_o", p.d_o.shape, output_shape(&p.q, &p.v))?;
    for (arg, grad, like) in [("dq", p.dq, p.q), ("dk", p.dk, p.k), ("dv", p.dv, p.v)] {
        grad.map_or(Ok(()), |g| check_shape(Content::NAME, arg, g.shape, like.shape))?;
    }
    Ok(())
}

fn output_shape(q: &Layout<5>, v: &Layout<5>) -> [usize; 5] {
    let [b, h, y, x, _] = q.shape;
    [b, h, y, x, v.shape[4]]
}

fn check_saved(
    q: &Layout<5>,
    v: &Layout<5>,
    summary: &Layout<4>,
    max: &Layout<3>,
    sum: &Layout<3>,
) -> Result<()> {
    let [b, h, _, _, d] = q.shape;
    check_shape(Content::NAME, "summary", summary.shape, [b, h, d, v.shape[4]])?;
    check_shape(Content::NAME, "max", max.shape, [b, h, d])?;
    check_shape(Content::NAME, "sum", sum.shape, [b, h, d])?;
    let dense =
        [("summary", summary.is_contiguous()), ("max", max.is_contiguous()), ("sum", sum.is_contiguous())];
    match dense.iter().find(|(_, is_dense)| !is_dense) {
        Some((arg, _)) => Err(Error::input(Content::NAME, arg, "contiguous", "other strides")),
        None => Ok(()),
    }
}

impl<'a, T: Element> Forward<'a, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> ForwardProblem {
        ForwardProblem {
            dtype: T::DTYPE,
            q: self.q.layout(),
            k: self.k.layout(),
            v: self.v.layout(),
            o: self.o.layout(),
            saves: self.saved.is_some(),
        }
    }

    fn check(&self) -> Result<()> {
        let p = self.problem();
        check_fwd(&p)?;
        match &self.saved {
            Some(s) => check_saved(&p.q, &p.v, &s.summary.layout(), &s.max.layout(), &s.sum.layout()),
            None => Ok(()),
        }
    }

    fn host(self) -> Result<cpu::content::Forward<'a, T, T>> {
        const OP: &str = Content::NAME;
        let saved = match self.saved {
            Some(s) => Some((s.summary.host(OP, "summary")?, s.max.host(OP, "max")?, s.sum.host(OP, "sum")?)),
            None => None,
        };
        Ok(cpu::content::Forward {
            q: self.q.host(OP, "q")?,
            k: self.k.host(OP, "k")?,
            v: self.v.host(OP, "v")?,
            o: self.o.host(OP, "o")?,
            saved,
        })
    }
}

impl<'a, T: Element> Backward<'a, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> BackwardProblem {
        BackwardProblem {
            dtype: T::DTYPE,
            q: self.q.layout(),
            k: self.k.layout(),
            v: self.v.layout(),
            d_o: self.d_o.layout(),
            dq: self.dq.as_ref().map(ViewMut::layout),
            dk: self.dk.as_ref().map(ViewMut::layout),
            dv: self.dv.as_ref().map(ViewMut::layout),
        }
    }

    fn check(&self) -> Result<()> {
        let (p, s) = (self.problem(), &self.saved);
        check_bwd(&p)?;
        check_saved(&p.q, &p.v, &s.summary.layout(), &s.max.layout(), &s.sum.layout())
    }

    fn host(self) -> Result<cpu::content::Backward<'a, T, T>> {
        const OP: &str = Content::NAME;
        let s = self.saved;
        Ok(cpu::content::Backward {
            q: self.q.host(OP, "q")?,
            k: self.k.host(OP, "k")?,
            v: self.v.host(OP, "v")?,
            saved: (s.summary.host(OP, "summary")?, s.max.host(OP, "max")?, s.sum.host(OP, "sum")?),
            d_o: self.d_o.host(OP, "d_o")?,
            dq: self.dq.map(|t| t.host(OP, "dq")).transpose()?,
            dk: self.dk.map(|t| t.host(OP, "dk")).transpose()?,
            dv: self.dv.map(|t| t.host(OP, "dv")).transpose()?,
        })
    }
}

impl ForwardProblem {
    /// Contiguous tensors: q of shape `q`, keys on a map of `keys`, `e` value channels; saving.
    pub fn contiguous(q: [usize; 5], keys: [usize; 2], e: usize, dtype: DType) -> Self {
        let ([b, h, y, x, d], [yk, xk]) = (q, keys);
        let (k, v) = ([b, h, yk, xk, d].into(), [b, h, yk, xk, e].into());
        Self { dtype, q: q.into(), k, v, o: [b, h, y, x, e].into(), saves: true }
    }
}

impl BackwardProblem {
    /// Contiguous tensors, as [`ForwardProblem::contiguous`], and all gradients.
    pub fn contiguous(q: [usize; 5], keys: [usize; 2], e: usize, dtype: DType) -> Self {
        let ForwardProblem { q, k, v, o, .. } = ForwardProblem::contiguous(q, keys, e, dtype);
        Self { dtype, q, k, v, d_o: o, dq: Some(q), dk: Some(k), dv: Some(v) }
    }
}
