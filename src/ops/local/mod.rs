//! Attention of every pixel to a window around it, or of a block of pixels to each other, with trained relative positions.
//!
//! Ramachandran et al., *Stand-Alone Self-Attention in Vision Models*, 2019, equations 2 and 3. For query pixel i and
//! each key pixel j of its window:
//!
//! ```text
//! ℓ = α (q_i · k_j + q_i · r_(j−i)) + B_(j−i)      p = softmax over the window of ℓ      o_i = Σ p v_j      lse_i = ln Σ exp ℓ
//! ```
//!
//! Which keys a query sees is [`Window`]: [`Sliding`] windows, dilated or not, and [`Border`], what happens at the border of
//! the map; or [`Blocks`], as Swin and HaloNet have them. r comes from a row table and a column table ([`Relative`]), B from
//! a bias table; each is shared by the heads or one per head, and each may be absent.
//!
//! The row of a table that an offset j − i reads (the row and the column of a bias, along y and x):
//!
//! | window | rows | row |
//! | --- | --- | --- |
//! | [`Sliding`] of K, dilation δ; [`Border::Mask`], [`Border::Zero`] | K | (j − i)/δ + ⌊(K−1)/2⌋ |
//! | [`Border::Shift`] | 2K − 1 | (j − i)/δ + K − 1 |
//! | [`Blocks`] of w, with halo | 2(w + halo) − 1 | j − i + w + halo − 1 |
//!
//! Shapes: q, k `[b, h, y, x, d]`; v, o `[b, h, y, x, e]`; tables `[1 or h, rows, d/2 or d]` of the same element
//! type; bias `[1 or h, rows along y, rows along x]`, f32; lse `[b, h, y, x]`, f32, contiguous. Gradients of tables and
//! bias are f32.

mod args;
mod check;
mod plan;

pub use crate::config::local::{Blocks, Border, LocalConfig, Relative, Sliding, Window};
pub use args::{Backward, Forward, Grads, Output, Positions, Tables};
pub use plan::{BackwardProblem, ForwardProblem};

#[cfg(feature = "cuda")]
use crate::device::Operand;
use crate::device::{Target, target, with_workspace};
use crate::{Cost, Device, Element, Gpu, Plan, Result, Tensor, Workspace, cpu};

/// The op, its settings checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local {
    config: LocalConfig,
}

impl Local {
    /// The op's name in errors, entries and benches.
    pub const NAME: &'static str = "local";
    /// The most keys that a query sees along an axis.
    pub const WINDOW_MAX: usize = 33;

    /// The op with these settings.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) for a window without keys or of more than 33 along an axis (a block with its
    /// halo), an even one with [`Border::Shift`], a dilation of 0, an offset of a block or more, or a scale that is not finite.
    pub fn new(config: LocalConfig) -> Result<Self> {
        check::config(&config)?;
        Ok(Self { config })
    }

    /// Its settings.
    pub fn config(&self) -> &LocalConfig {
        &self.config
    }

    /// Output and log-sum-exp, into new tensors.
    ///
    /// # Errors
    /// As [`Local::forward_into`].
    pub fn forward<T: Element>(
        &self,
        on: &dyn Device,
        q: &Tensor<T, 5>,
        k: &Tensor<T, 5>,
        v: &Tensor<T, 5>,
        positions: Positions<'_, T>,
    ) -> Result<Output<T>> {
        let [b, h, y, x, _] = q.shape();
        let (mut o, mut lse) = (Tensor::zeros(on, v.shape())?, Tensor::zeros(on, [b, h, y, x])?);
        let args = Forward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            tables: positions.tables.map(|t| t.map(Tensor::view)),
            bias: positions.bias.map(Tensor::view),
            o: o.view_mut(),
            lse: Some(lse.view_mut()),
        };
        let bytes = self.forward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.forward_into(on, args, workspace))?;
        Ok(Output { o, lse })
    }

    /// All gradients, given the gradient of the output, into new tensors.
    ///
    /// # Errors
    /// As [`Local::backward_into`].
    #[allow(clippy::too_many_arguments)] // q, k, v and positions as in `forward`, then what it returned
    pub fn backward<T: Element>(
        &self,
        on: &dyn Device,
        q: &Tensor<T, 5>,
        k: &Tensor<T, 5>,
        v: &Tensor<T, 5>,
        positions: Positions<'_, T>,
        output: &Output<T>,
        d_o: &Tensor<T, 5>,
    ) -> Result<Grads<T>> {
        let (mut dq, mut dk) = (Tensor::zeros(on, q.shape())?, Tensor::zeros(on, k.shape())?);
        let mut dv = Tensor::zeros(on, v.shape())?;
        let mut dbias = match positions.bias {
            Some(bias) => Some(Tensor::zeros(on, bias.shape())?),
            None => None,
        };
        let mut dtables = match positions.tables {
            Some(t) => Some(Tables {
                rel_h: Tensor::zeros(on, t.rel_h.shape())?,
                rel_w: Tensor::zeros(on, t.rel_w.shape())?,
            }),
            None => None,
        };
        let (drel_h, drel_w) = match &mut dtables {
            Some(t) => (Some(t.rel_h.view_mut()), Some(t.rel_w.view_mut())),
            None => (None, None),
        };
        let args = Backward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            tables: positions.tables.map(|t| t.map(Tensor::view)),
            bias: positions.bias.map(Tensor::view),
            o: output.o.view(),
            lse: output.lse.view(),
            d_o: d_o.view(),
            dq: Some(dq.view_mut()),
            dk: Some(dk.view_mut()),
            dv: Some(dv.view_mut()),
            drel_h,
            drel_w,
            dbias: dbias.as_mut().map(Tensor::view_mut),
        };
        let bytes = self.backward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.backward_into(on, args, workspace))?;
        Ok(Grads { dq, dk, dv, dtables, dbias })
    }

    /// Output and log-sum-exp in the caller's memory. On `Cuda` nothing is allocated on the device, and nothing waits.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) for shapes that do not fit together, a map smaller than the window with [`Border::Shift`], memory of
    /// another device or a workspace that is too small; [`Error::Unsupported`](crate::Error::Unsupported) for what the device does not do;
    /// [`Error::Kernel`](crate::Error::Kernel) when a launch fails.
    pub fn forward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Forward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        check::forward(&self.config, &problem)?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let args = args.host()?;
                if problem.o.is_empty() {
                    return Ok(());
                }
                cpu.install(|| cpu::local::forward(&self.config, args))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_fwd(&problem, cuda.gpu())?;
                let Forward { mut q, mut k, mut v, tables, mut bias, mut o, mut lse } = args;
                let (mut rel_h, mut rel_w) = tables.map_or((None, None), |t| (Some(t.rel_h), Some(t.rel_w)));
                let mut operands = [
                    Operand::new("q", &mut q),
                    Operand::new("k", &mut k),
                    Operand::new("v", &mut v),
                    Operand::maybe("rel_h", rel_h.as_mut()),
                    Operand::maybe("rel_w", rel_w.as_mut()),
                    Operand::new("o", &mut o),
                    Operand::maybe("lse", lse.as_mut()),
                    Operand::maybe("bias", bias.as_mut()),
                ];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// Gradients in the caller's memory. On `Cuda` nothing is allocated on the device, and nothing waits.
    ///
    /// # Errors
    /// As [`Local::forward_into`].
    pub fn backward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Backward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        check::backward(&self.config, &problem)?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let mut args = args.host()?;
                if problem.o.is_empty() {
                    for table in [&mut args.drel_h, &mut args.drel_w, &mut args.dbias].into_iter().flatten() {
                        table.fill(0.0);
                    }
                    return Ok(());
                }
                cpu.install(|| cpu::local::backward(&self.config, args))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_bwd(&problem, cuda.gpu())?;
                let Backward { mut q, mut k, mut v, tables, mut bias, mut o, mut lse, mut d_o, .. } = args;
                let Backward { mut dq, mut dk, mut dv, mut drel_h, mut drel_w, mut dbias, .. } = args;
                let (mut rel_h, mut rel_w) = tables.map_or((None, None), |t| (Some(t.rel_h), Some(t.rel_w)));
                let mut operands = [
                    Operand::new("q", &mut q),
                    Operand::new("k", &mut k),
                    Operand::new("v", &mut v),
                    Operand::maybe("rel_h", rel_h.as_mut()),
                    Operand::maybe("rel_w", rel_w.as_mut()),
                    Operand::new("o", &mut o),
                    Operand::new("lse", &mut lse),
                    Operand::new("d_o", &mut d_o),
                    Operand::maybe("dq", dq.as_mut()),
                    Operand::maybe("dk", dk.as_mut()),
                    Operand::maybe("dv", dv.as_mut()),
                    Operand::maybe("drel_h", drel_h.as_mut()),
                    Operand::maybe("drel_w", drel_w.as_mut()),
                    Operand::maybe("bias", bias.as_mut()),
                    Operand::maybe("dbias", dbias.as_mut()),
                ];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// Scratch bytes that [`Local::forward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`Local::plan_fwd`].
    pub fn forward_workspace_bytes(&self, on: &dyn Device, problem: &ForwardProblem) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => check::forward(&self.config, problem).map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Ok(self.plan_fwd(problem, cuda.gpu())?.workspace_bytes),
        }
    }

    /// Scratch bytes that [`Local::backward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`Local::plan_bwd`].
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
    /// [`Error::Input`](crate::Error::Input) and [`Error::Unsupported`](crate::Error::Unsupported), as [`Local::forward_into`].
    pub fn plan_fwd(&self, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
        check::forward(&self.config, problem)?;
        plan::forward(&self.config, problem, gpu)
    }

    /// What a backward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// As [`Local::plan_fwd`].
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
