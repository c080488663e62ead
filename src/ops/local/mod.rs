//! Attention of every pixel to the k×k window around it, with trained relative positions.
//!
//! Ramachandran et al., *Stand-Alone Self-Attention in Vision Models*, 2019, equations 2 and 3. For query pixel i and
//! window slot (a, b), with key pixel i + (a, b):
//!
//! ```text
//! ℓ = α (q_i · k + q_i · r_ab)      p = softmax over the window of ℓ      o_i = Σ p v      lse_i = ln Σ exp ℓ
//! ```
//!
//! r comes from a row table and a column table ([`Relative`]), which are shared by the heads or one per head. What happens
//! at the border of the map is [`Border`].
//!
//! Shapes: q, k `[b, h, y, x, d]`; v, o `[b, h, y, x, e]`; tables `[1 or h, K or 2K − 1, d/2 or d]` of the same element
//! type; lse `[b, h, y, x]`, f32, contiguous. Gradients of tables are f32.

mod plan;

pub use crate::config::local::{Border, LocalConfig, Relative};
pub use plan::{BackwardProblem, ForwardProblem};

use super::{check_channels, check_shape};
#[cfg(feature = "cuda")]
use crate::device::Operand;
use crate::device::{Target, target, with_workspace};
use crate::{
    Cost, DType, Device, Element, Error, Gpu, Layout, Plan, Result, Tensor, View, ViewMut, Workspace, cpu,
};

/// The op, its settings checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local {
    config: LocalConfig,
}

/// Relative positions: one table for rows, one for columns.
#[derive(Clone, Copy)]
pub struct Tables<V> {
    /// For row offsets, `[1 or h, K_y or 2K_y − 1, channels]`.
    pub rel_h: V,
    /// For column offsets, `[1 or h, K_x or 2K_x − 1, channels]`.
    pub rel_w: V,
}

impl<V> Tables<V> {
    fn map<W>(self, f: impl Fn(V) -> W) -> Tables<W> {
        Tables { rel_h: f(self.rel_h), rel_w: f(self.rel_w) }
    }
}

/// Arguments of [`Local::forward_into`].
pub struct Forward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Keys, the shape of q.
    pub k: View<'a, T, 5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: View<'a, T, 5>,
    /// Relative positions, if any.
    pub tables: Option<Tables<View<'a, T, 3>>>,
    /// Output, the shape of v. Written whole.
    pub o: ViewMut<'a, T, 5>,
    /// Natural log-sum-exp of the logits, `[b, h, y, x]`; the backward pass needs it.
    pub lse: Option<ViewMut<'a, f32, 4>>,
}

/// Arguments of [`Local::backward_into`]. Gradients are written whole; one that is `None` is not computed.
pub struct Backward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Keys, the shape of q.
    pub k: View<'a, T, 5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: View<'a, T, 5>,
    /// Relative positions, if any.
    pub tables: Option<Tables<View<'a, T, 3>>>,
    /// What the forward pass returned.
    pub o: View<'a, T, 5>,
    /// What the forward pass returned, `[b, h, y, x]`.
    pub lse: View<'a, f32, 4>,
    /// Gradient of the output.
    pub d_o: View<'a, T, 5>,
    /// Gradient of q.
    pub dq: Option<ViewMut<'a, T, 5>>,
    /// Gradient of k.
    pub dk: Option<ViewMut<'a, T, 5>>,
    /// Gradient of v.
    pub dv: Option<ViewMut<'a, T, 5>>,
    /// Gradient of the row table, its shape.
    pub drel_h: Option<ViewMut<'a, f32, 3>>,
    /// Gradient of the column table, its shape.
    pub drel_w: Option<ViewMut<'a, f32, 3>>,
}

/// What [`Local::forward`] returns.
pub struct Output<T> {
    /// Output, `[b, h, y, x, e]`.
    pub o: Tensor<T, 5>,
    /// Natural log-sum-exp of the logits, `[b, h, y, x]`.
    pub lse: Tensor<f32, 4>,
}

/// What [`Local::backward`] returns.
pub struct Grads<T> {
    /// Gradient of q.
    pub dq: Tensor<T, 5>,
    /// Gradient of k.
    pub dk: Tensor<T, 5>,
    /// Gradient of v.
    pub dv: Tensor<T, 5>,
    /// Gradients of the tables, if there are tables.
    pub dtables: Option<Tables<Tensor<f32, 3>>>,
}

impl Local {
    /// The op's name in errors, entries and benches.
    pub const NAME: &'static str = "local";
    /// The largest window along an axis.
    pub const WINDOW_MAX: usize = 33;

    /// The op with these settings.
    ///
    /// # Errors
    /// [`Error::Input`] for a window of 0 or more than 33 pixels along an axis, an even window with [`Border::Shift`], or a
    /// scale that is not finite.
    pub fn new(config: LocalConfig) -> Result<Self> {
        if config.window.iter().any(|k| !(1..=Self::WINDOW_MAX).contains(k)) {
            let want = format!("1 to {} pixels along each axis", Self::WINDOW_MAX);
            return Err(Error::input(Self::NAME, "window", want, format!("{:?}", config.window)));
        }
        if config.border == Border::Shift && config.window.iter().any(|k| k % 2 == 0) {
            return Err(Error::input(
                Self::NAME,
                "window",
                "odd for border shift",
                format!("{:?}", config.window),
            ));
        }
        if !config.scale.is_finite() {
            return Err(Error::input(Self::NAME, "scale", "finite", config.scale));
        }
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
        tables: Option<Tables<&Tensor<T, 3>>>,
    ) -> Result<Output<T>> {
        let [b, h, y, x, _] = q.shape();
        let (mut o, mut lse) = (Tensor::zeros(on, v.shape())?, Tensor::zeros(on, [b, h, y, x])?);
        let args = Forward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            tables: tables.map(|t| t.map(Tensor::view)),
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
    #[allow(clippy::too_many_arguments)] // q, k, v and tables as in `forward`, then what it returned
    pub fn backward<T: Element>(
        &self,
        on: &dyn Device,
        q: &Tensor<T, 5>,
        k: &Tensor<T, 5>,
        v: &Tensor<T, 5>,
        tables: Option<Tables<&Tensor<T, 3>>>,
        output: &Output<T>,
        d_o: &Tensor<T, 5>,
    ) -> Result<Grads<T>> {
        let (mut dq, mut dk) = (Tensor::zeros(on, q.shape())?, Tensor::zeros(on, k.shape())?);
        let mut dv = Tensor::zeros(on, v.shape())?;
        let mut dtables = match tables {
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
            tables: tables.map(|t| t.map(Tensor::view)),
            o: output.o.view(),
            lse: output.lse.view(),
            d_o: d_o.view(),
            dq: Some(dq.view_mut()),
            dk: Some(dk.view_mut()),
            dv: Some(dv.view_mut()),
            drel_h,
            drel_w,
        };
        let bytes = self.backward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.backward_into(on, args, workspace))?;
        Ok(Grads { dq, dk, dv, dtables })
    }

    /// Output and log-sum-exp in the caller's memory. On `Cuda` nothing is allocated on the device, and nothing waits.
    ///
    /// # Errors
    /// [`Error::Input`] for shapes that do not fit together, a map smaller than the window with [`Border::Shift`], memory of
    /// another device or a workspace that is too small; [`Error::Unsupported`] for what the device does not do;
    /// [`Error::Kernel`] when a launch fails.
    pub fn forward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Forward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        self.check_fwd(&problem)?;
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
                let Forward { mut q, mut k, mut v, tables, mut o, mut lse } = args;
                let (mut rel_h, mut rel_w) = tables.map_or((None, None), |t| (Some(t.rel_h), Some(t.rel_w)));
                let mut operands = [
                    Operand::new("q", &mut q),
                    Operand::new("k", &mut k),
                    Operand::new("v", &mut v),
                    Operand::maybe("rel_h", rel_h.as_mut()),
                    Operand::maybe("rel_w", rel_w.as_mut()),
                    Operand::new("o", &mut o),
                    Operand::maybe("lse", lse.as_mut()),
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
        self.check_bwd(&problem)?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let mut args = args.host()?;
                if problem.o.is_empty() {
                    for table in [&mut args.drel_h, &mut args.drel_w].into_iter().flatten() {
                        table.fill(0.0);
                    }
                    return Ok(());
                }
                cpu.install(|| cpu::local::backward(&self.config, args))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_bwd(&problem, cuda.gpu())?;
                let Backward { mut q, mut k, mut v, tables, mut o, mut lse, mut d_o, .. } = args;
                let Backward { mut dq, mut dk, mut dv, mut drel_h, mut drel_w, .. } = args;
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
            Target::Cpu(_) => self.check_fwd(problem).map(|()| 0),
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
            Target::Cpu(_) => self.check_bwd(problem).map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Ok(self.plan_bwd(problem, cuda.gpu())?.workspace_bytes),
        }
    }

    /// What a forward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Unsupported`], as [`Local::forward_into`].
    pub fn plan_fwd(&self, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
        self.check_fwd(problem)?;
        plan::forward(&self.config, problem, gpu)
    }

    /// What a backward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// As [`Local::plan_fwd`].
    pub fn plan_bwd(&self, problem: &BackwardProblem, gpu: &Gpu) -> Result<Plan> {
        self.check_bwd(problem)?;
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

    fn check_inputs(
        &self,
        q: &Layout<5>,
        k: &Layout<5>,
        v: &Layout<5>,
        tables: &Option<[Layout<3>; 2]>,
    ) -> Result<()> {
        let [b, h, y, x, d] = q.shape;
        check_channels(Self::NAME, "q", d)?;
        check_channels(Self::NAME, "v", v.shape[4])?;
        check_shape(Self::NAME, "k", k.shape, q.shape)?;
        check_shape(Self::NAME, "v", v.shape, [b, h, y, x, v.shape[4]])?;
        let [ky, kx] = self.config.window;
        if self.config.border == Border::Shift && !q.is_empty() && (y < ky || x < kx) {
            let want = format!("at most the map, [{y}, {x}], for border shift");
            return Err(Error::input(Self::NAME, "window", want, format!("[{ky}, {kx}]")));
        }
        let channels = self.config.relative.table_channels(d);
        for (i, (arg, table)) in ["rel_h", "rel_w"].iter().zip(tables.iter().flatten()).enumerate() {
            let rows = self.config.border.table_rows(self.config.window[i]);
            let heads = if table.shape[0] == 1 { 1 } else { h };
            check_shape(Self::NAME, arg, table.shape, [heads, rows, channels[i]])?;
        }
        Ok(())
    }

    fn check_fwd(&self, p: &ForwardProblem) -> Result<()> {
        self.check_inputs(&p.q, &p.k, &p.v, &p.tables)?;
        check_shape(Self::NAME, "o", p.o.shape, p.v.shape)?;
        p.lse.map_or(Ok(()), |lse| check_lse(&lse, &p.q))
    }

    fn check_bwd(&self, p: &BackwardProblem) -> Result<()> {
        self.check_inputs(&p.q, &p.k, &p.v, &p.tables)?;
        check_shape(Self::NAME, "o", p.o.shape, p.v.shape)?;
        check_shape(Self::NAME, "d_o", p.d_o.shape, p.v.shape)?;
        check_lse(&p.lse, &p.q)?;
        for (arg, grad, like) in [("dq", p.dq, p.q), ("dk", p.dk, p.k), ("dv", p.dv, p.v)] {
            grad.map_or(Ok(()), |g| check_shape(Self::NAME, arg, g.shape, like.shape))?;
        }
        for (i, (arg, grad)) in [("drel_h", p.drel_h), ("drel_w", p.drel_w)].into_iter().enumerate() {
            match (grad, p.tables) {
                (Some(grad), Some(tables)) => check_shape(Self::NAME, arg, grad.shape, tables[i].shape)?,
                (Some(_), None) => {
                    return Err(Error::input(Self::NAME, arg, "absent without tables", "a tensor"));
                }
                (None, _) => {}
            }
        }
        Ok(())
    }
}

fn check_lse(lse: &Layout<4>, q: &Layout<5>) -> Result<()> {
    let [b, h, y, x, _] = q.shape;
    check_shape(Local::NAME, "lse", lse.shape, [b, h, y, x])?;
    if lse.is_contiguous() {
        Ok(())
    } else {
        Err(Error::input(Local::NAME, "lse", "contiguous", format!("{lse:?}")))
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
            tables: self.tables.as_ref().map(|t| [t.rel_h.layout(), t.rel_w.layout()]),
            o: self.o.layout(),
            lse: self.lse.as_ref().map(ViewMut::layout),
        }
    }

    fn host(self) -> Result<cpu::local::Forward<'a, T>> {
        const OP: &str = Local::NAME;
        Ok(cpu::local::Forward {
            q: self.q.host(OP, "q")?,
            k: self.k.host(OP, "k")?,
            v: self.v.host(OP, "v")?,
            tables: host_tables(self.tables)?,
            o: self.o.host(OP, "o")?,
            lse: self.lse.map(|t| t.host(OP, "lse")).transpose()?,
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
            tables: self.tables.as_ref().map(|t| [t.rel_h.layout(), t.rel_w.layout()]),
            o: self.o.layout(),
            lse: self.lse.layout(),
            d_o: self.d_o.layout(),
            dq: self.dq.as_ref().map(ViewMut::layout),
            dk: self.dk.as_ref().map(ViewMut::layout),
            dv: self.dv.as_ref().map(ViewMut::layout),
            drel_h: self.drel_h.as_ref().map(ViewMut::layout),
            drel_w: self.drel_w.as_ref().map(ViewMut::layout),
        }
    }

    fn host(self) -> Result<cpu::local::Backward<'a, T>> {
        const OP: &str = Local::NAME;
        Ok(cpu::local::Backward {
            q: self.q.host(OP, "q")?,
            k: self.k.host(OP, "k")?,
            v: self.v.host(OP, "v")?,
            tables: host_tables(self.tables)?,
            o: self.o.host(OP, "o")?,
            lse: self.lse.host(OP, "lse")?,
            d_o: self.d_o.host(OP, "d_o")?,
            dq: self.dq.map(|t| t.host(OP, "dq")).transpose()?,
            dk: self.dk.map(|t| t.host(OP, "dk")).transpose()?,
            dv: self.dv.map(|t| t.host(OP, "dv")).transpose()?,
            drel_h: self.drel_h.map(|t| t.host(OP, "drel_h")).transpose()?,
            drel_w: self.drel_w.map(|t| t.host(OP, "drel_w")).transpose()?,
        })
    }
}

fn host_tables<T: Element>(
    tables: Option<Tables<View<'_, T, 3>>>,
) -> Result<Option<[crate::tensor::HostView<'_, T, 3>; 2]>> {
    match tables {
        Some(t) => Ok(Some([t.rel_h.host(Local::NAME, "rel_h")?, t.rel_w.host(Local::NAME, "rel_w")?])),
        None => Ok(None),
    }
}

impl ForwardProblem {
    /// Contiguous tensors: q of `shape`, `e` value channels, tables when `relative` is given.
    pub fn contiguous(
        config: &LocalConfig,
        shape: [usize; 5],
        e: usize,
        has_tables: bool,
        dtype: DType,
    ) -> Self {
        let [b, h, y, x, _] = shape;
        let v = Layout::contiguous([b, h, y, x, e]);
        Self {
            dtype,
            q: shape.into(),
            k: shape.into(),
            v,
            tables: has_tables.then(|| contiguous_tables(config, shape[4])),
            o: v,
            lse: Some([b, h, y, x].into()),
        }
    }
}

impl BackwardProblem {
    /// Contiguous tensors, as [`ForwardProblem::contiguous`], and all gradients.
    pub fn contiguous(
        config: &LocalConfig,
        shape: [usize; 5],
        e: usize,
        has_tables: bool,
        dtype: DType,
    ) -> Self {
        let [b, h, y, x, _] = shape;
        let (q, v) = (Layout::contiguous(shape), Layout::contiguous([b, h, y, x, e]));
        let tables = has_tables.then(|| contiguous_tables(config, shape[4]));
        Self {
            dtype,
            q,
            k: q,
            v,
            tables,
            o: v,
            lse: [b, h, y, x].into(),
            d_o: v,
            dq: Some(q),
            dk: Some(q),
            dv: Some(v),
            drel_h: tables.map(|t| t[0]),
            drel_w: tables.map(|t| t[1]),
        }
    }
}

/// Tables shared by the heads.
fn contiguous_tables(config: &LocalConfig, d: usize) -> [Layout<3>; 2] {
    let channels = config.relative.table_channels(d);
    [0, 1].map(|i| Layout::contiguous([1, config.border.table_rows(config.window[i]), channels[i]]))
}
