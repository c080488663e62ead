//! Attention by position along columns, then rows, without softmax.
//!
//! Shen et al., *Global Self-Attention Networks for Image Recognition*, 2020, figure 1 (the positional branch). The weight of
//! a key depends on the query and on where the key is, not on what it is:
//!
//! ```text
//! columns:  y_(i,x) = Σ_j (q_(i,x) · Rc[j − i]) v_(j,x)       |j − i| < L
//! z = batch norm (y), or y
//! rows:     o_(y,i) = Σ_j (q_(y,i) · Rr[j − i]) z_(y,j)       |j − i| < L
//! ```
//!
//! Either direction can also be had alone. The weights are never stored.
//!
//! Shapes: q `[b, h, y, x, d]`; v, o `[b, h, y, x, e]`; tables `[1 or h, 2L − 1, d]` (L of each table is its own; row L − 1
//! is the pixel itself); batch norm's weight, bias, mean and variance f32 `[1, e]` (statistics over images, heads and
//! pixels) or `[h, e]` (over images and pixels). Gradients of tables and of batch norm are f32.
//!
//! On `Cuda` channels lie next to each other. A 16-bit map that fits in shared memory (up to 64 channels and 64 pixels along
//! each axis) takes one launch for both layers, unless batch norm needs this batch's statistics. The backward pass works
//! through a scratch of 16 MiB; only [`BatchNorm::Train`] over columns of more than 64 pixels (f32: 32) needs one as large as v,
//! because the gradient between the layers depends on sums over all of it.

mod backward;
mod forward;
mod lines;
mod map;
mod params;
mod plan;

pub use crate::config::axial::{Axes, AxialConfig, BatchNorm};
pub(in crate::ops) use backward::plan as plan_backward;
pub(in crate::ops) use forward::{Content, SUMMARY, plan as plan_forward};
pub use plan::{BackwardProblem, ForwardProblem};

use super::{check_channels, check_shape, host_pair};
#[cfg(feature = "cuda")]
use crate::device::Operand;
use crate::device::{Target, target, with_workspace};
use crate::{Cost, Device, Element, Error, Gpu, Layout, Plan, Result, Tensor, View, ViewMut, Workspace, cpu};

/// The op, its settings checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Axial {
    config: AxialConfig,
}

/// Weight γ and bias β of batch norm, `[1 or h, e]`, f32.
#[derive(Clone, Copy)]
pub struct Affine<V> {
    /// γ.
    pub weight: V,
    /// β.
    pub bias: V,
}

/// Mean and biased variance of batch norm, `[1 or h, e]`, f32.
///
/// PyTorch's running variance is the unbiased one: multiply by n / (n − 1) before it is averaged in, with n = b·h·y·x
/// (`[1, e]`) or b·y·x (`[h, e]`).
#[derive(Clone, Copy)]
pub struct Statistics<V> {
    /// Mean.
    pub mean: V,
    /// Biased variance.
    pub var: V,
}

impl<V> Affine<V> {
    fn map<W>(self, f: impl Fn(V) -> W) -> Affine<W> {
        Affine { weight: f(self.weight), bias: f(self.bias) }
    }
}

impl<V> Statistics<V> {
    fn map<W>(self, f: impl Fn(V) -> W) -> Statistics<W> {
        Statistics { mean: f(self.mean), var: f(self.var) }
    }

    fn as_ref(&self) -> Statistics<&V> {
        Statistics { mean: &self.mean, var: &self.var }
    }
}

/// Arguments of [`Axial::forward_into`].
pub struct Forward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: View<'a, T, 5>,
    /// Column offsets; absent for [`Axes::Rows`].
    pub columns: Option<View<'a, T, 3>>,
    /// Row offsets; absent for [`Axes::Columns`].
    pub rows: Option<View<'a, T, 3>>,
    /// Batch norm's parameters; absent without batch norm.
    pub affine: Option<Affine<View<'a, f32, 2>>>,
    /// Mean and variance for [`BatchNorm::Eval`].
    pub given: Option<Statistics<View<'a, f32, 2>>>,
    /// Output, the shape of v. Written whole.
    pub o: ViewMut<'a, T, 5>,
    /// The result between the layers, the shape of v; the backward pass of [`Axes::ColumnsThenRows`] needs it.
    pub y: Option<ViewMut<'a, T, 5>>,
    /// Where mean and variance of [`BatchNorm::Train`] go; the backward pass needs them.
    pub batch: Option<Statistics<ViewMut<'a, f32, 2>>>,
}

/// Arguments of [`Axial::backward_into`]. Gradients are written whole; one that is `None` is not computed.
pub struct Backward<'a, T> {
    /// Queries, `[b, h, y, x, d]`.
    pub q: View<'a, T, 5>,
    /// Values, `[b, h, y, x, e]`.
    pub v: View<'a, T, 5>,
    /// Column offsets; absent for [`Axes::Rows`].
    pub columns: Option<View<'a, T, 3>>,
    /// Row offsets; absent for [`Axes::Columns`].
    pub rows: Option<View<'a, T, 3>>,
    /// Batch norm's parameters; absent without batch norm.
    pub affine: Option<Affine<View<'a, f32, 2>>>,
    /// Mean and variance that the forward pass used: given to it, or returned by it.
    pub statistics: Option<Statistics<View<'a, f32, 2>>>,
    /// What the forward pass wrote between the layers.
    pub y: Option<View<'a, T, 5>>,
    /// Gradient of the output.
    pub d_o: View<'a, T, 5>,
    /// Gradient of q.
    pub dq: Option<ViewMut<'a, T, 5>>,
    /// Gradient of v.
    pub dv: Option<ViewMut<'a, T, 5>>,
    /// Gradient of the column table, its shape.
    pub dcolumns: Option<ViewMut<'a, f32, 3>>,
    /// Gradient of the row table, its shape.
    pub drows: Option<ViewMut<'a, f32, 3>>,
    /// Gradient of batch norm's weight, its shape.
    pub dweight: Option<ViewMut<'a, f32, 2>>,
    /// Gradient of batch norm's bias, its shape.
    pub dbias: Option<ViewMut<'a, f32, 2>>,
}

/// What [`Axial::forward`] reads besides q and v.
pub struct Parameters<'a, T> {
    /// Column offsets; absent for [`Axes::Rows`].
    pub columns: Option<&'a Tensor<T, 3>>,
    /// Row offsets; absent for [`Axes::Columns`].
    pub rows: Option<&'a Tensor<T, 3>>,
    /// Batch norm's parameters; absent without batch norm.
    pub affine: Option<Affine<&'a Tensor<f32, 2>>>,
    /// Mean and variance for [`BatchNorm::Eval`].
    pub given: Option<Statistics<&'a Tensor<f32, 2>>>,
}

/// What the forward pass saves for the backward pass.
pub struct Saved<T> {
    /// The result between the layers; `None` with one layer.
    pub y: Option<Tensor<T, 5>>,
    /// Mean and variance of this batch, for [`BatchNorm::Train`].
    pub batch: Option<Statistics<Tensor<f32, 2>>>,
}

/// What [`Axial::forward`] returns.
pub struct Output<T> {
    /// Output, `[b, h, y, x, e]`.
    pub o: Tensor<T, 5>,
    /// What the backward pass needs.
    pub saved: Saved<T>,
}

/// What [`Axial::backward`] returns; what there is no input for is `None`.
pub struct Grads<T> {
    /// Gradient of q.
    pub dq: Tensor<T, 5>,
    /// Gradient of v.
    pub dv: Tensor<T, 5>,
    /// Gradient of the column table.
    pub dcolumns: Option<Tensor<f32, 3>>,
    /// Gradient of the row table.
    pub drows: Option<Tensor<f32, 3>>,
    /// Gradients of batch norm's parameters.
    pub daffine: Option<Affine<Tensor<f32, 2>>>,
}

impl Axial {
    /// The op's name in errors, entries and benches.
    pub const NAME: &'static str = "axial";

    /// The op with these settings.
    ///
    /// # Errors
    /// [`Error::Input`] for batch norm with one direction only, or an ε that is negative or not finite.
    pub fn new(config: AxialConfig) -> Result<Self> {
        if config.axes != Axes::ColumnsThenRows && config.norm != BatchNorm::None {
            return Err(Error::input(
                Self::NAME,
                "norm",
                "none with one direction",
                format!("{:?}", config.norm),
            ));
        }
        if !(config.epsilon >= 0.0 && config.epsilon.is_finite()) {
            return Err(Error::input(Self::NAME, "epsilon", "finite and not negative", config.epsilon));
        }
        Ok(Self { config })
    }

    /// Its settings.
    pub fn config(&self) -> &AxialConfig {
        &self.config
    }

    /// Output and what the backward pass needs, into new tensors.
    ///
    /// # Errors
    /// As [`Axial::forward_into`].
    pub fn forward<T: Element>(
        &self,
        on: &dyn Device,
        q: &Tensor<T, 5>,
        v: &Tensor<T, 5>,
        parameters: &Parameters<'_, T>,
    ) -> Result<Output<T>> {
        let mut o = Tensor::zeros(on, v.shape())?;
        let mut y = match self.config.axes {
            Axes::ColumnsThenRows => Some(Tensor::zeros(on, v.shape())?),
            _ => None,
        };
        let mut batch = match (self.config.norm, &parameters.affine) {
            (BatchNorm::Train, Some(affine)) => {
                let shape = affine.weight.shape();
                Some(Statistics { mean: Tensor::zeros(on, shape)?, var: Tensor::zeros(on, shape)? })
            }
            _ => None,
        };
        let args = Forward {
            q: q.view(),
            v: v.view(),
            columns: parameters.columns.map(Tensor::view),
            rows: parameters.rows.map(Tensor::view),
            affine: parameters.affine.map(|a| a.map(Tensor::view)),
            given: parameters.given.map(|s| s.map(Tensor::view)),
            o: o.view_mut(),
            y: y.as_mut().map(Tensor::view_mut),
            batch: batch.as_mut().map(|s| Statistics { mean: s.mean.view_mut(), var: s.var.view_mut() }),
        };
        let bytes = self.forward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.forward_into(on, args, workspace))?;
        Ok(Output { o, saved: Saved { y, batch } })
    }

    /// All gradients, given the gradient of the output, into new tensors.
    ///
    /// # Errors
    /// As [`Axial::backward_into`].
    pub fn backward<T: Element>(
        &self,
        on: &dyn Device,
        q: &Tensor<T, 5>,
        v: &Tensor<T, 5>,
        parameters: &Parameters<'_, T>,
        saved: &Saved<T>,
        d_o: &Tensor<T, 5>,
    ) -> Result<Grads<T>> {
        let (mut dq, mut dv) = (Tensor::zeros(on, q.shape())?, Tensor::zeros(on, v.shape())?);
        let zeros = |like: Option<&Tensor<T, 3>>| like.map(|t| Tensor::zeros(on, t.shape())).transpose();
        let (mut dcolumns, mut drows) = (zeros(parameters.columns)?, zeros(parameters.rows)?);
        let mut daffine = match &parameters.affine {
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
            Some(batch) => Some(batch.as_ref().map(Tensor::view)),
            None => parameters.given.map(|s| s.map(Tensor::view)),
        };
        let args = Backward {
            q: q.view(),
            v: v.view(),
            columns: parameters.columns.map(Tensor::view),
            rows: parameters.rows.map(Tensor::view),
            affine: parameters.affine.map(|a| a.map(Tensor::view)),
            statistics,
            y: saved.y.as_ref().map(Tensor::view),
            d_o: d_o.view(),
            dq: Some(dq.view_mut()),
            dv: Some(dv.view_mut()),
            dcolumns: dcolumns.as_mut().map(Tensor::view_mut),
            drows: drows.as_mut().map(Tensor::view_mut),
            dweight,
            dbias,
        };
        let bytes = self.backward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.backward_into(on, args, workspace))?;
        Ok(Grads { dq, dv, dcolumns, drows, daffine })
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
        self.check_fwd(&problem)?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let mut args = args.host()?;
                if problem.o.is_empty() {
                    args.statistics.iter_mut().flatten().for_each(|s| s.fill(0.0));
                    return Ok(());
                }
                cpu.install(|| cpu::axial::forward(&self.config, args))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_fwd(&problem, cuda.gpu())?;
                let Forward { mut q, mut v, mut columns, mut rows, affine, given, mut o, mut y, batch } =
                    args;
                let (mut weight, mut bias) = affine.map_or((None, None), |a| (Some(a.weight), Some(a.bias)));
                let (mut mean, mut var) = given.map_or((None, None), |s| (Some(s.mean), Some(s.var)));
                let (mut mean_out, mut var_out) = batch.map_or((None, None), |s| (Some(s.mean), Some(s.var)));
                let mut operands = [
                    Operand::new("q", &mut q),
                    Operand::new("v", &mut v),
                    Operand::maybe("columns", columns.as_mut()),
                    Operand::maybe("rows", rows.as_mut()),
                    Operand::maybe("weight", weight.as_mut()),
                    Operand::maybe("bias", bias.as_mut()),
                    Operand::maybe("given.mean", mean.as_mut()),
                    Operand::maybe("given.var", var.as_mut()),
                    Operand::new("o", &mut o),
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
    /// As [`Axial::forward_into`].
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
                if problem.d_o.is_empty() {
                    [&mut args.dcolumns, &mut args.drows].into_iter().flatten().for_each(|t| t.fill(0.0));
                    [&mut args.dweight, &mut args.dbias].into_iter().flatten().for_each(|t| t.fill(0.0));
                    return Ok(());
                }
                cpu.install(|| cpu::axial::backward(&self.config, args))
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_bwd(&problem, cuda.gpu())?;
                let Backward {
                    mut q, mut v, mut columns, mut rows, affine, statistics, mut y, mut d_o, ..
                } = args;
                let Backward { mut dq, mut dv, mut dcolumns, mut drows, mut dweight, mut dbias, .. } = args;
                let (mut weight, mut bias) = affine.map_or((None, None), |a| (Some(a.weight), Some(a.bias)));
                let (mut mean, mut var) = statistics.map_or((None, None), |s| (Some(s.mean), Some(s.var)));
                let mut operands = [
                    Operand::new("q", &mut q),
                    Operand::new("v", &mut v),
                    Operand::maybe("columns", columns.as_mut()),
                    Operand::maybe("rows", rows.as_mut()),
                    Operand::maybe("weight", weight.as_mut()),
                    Operand::maybe("bias", bias.as_mut()),
                    Operand::maybe("mean", mean.as_mut()),
                    Operand::maybe("var", var.as_mut()),
                    Operand::maybe("y", y.as_mut()),
                    Operand::new("d_o", &mut d_o),
                    Operand::maybe("dq", dq.as_mut()),
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

    /// Scratch bytes that [`Axial::forward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`Axial::plan_fwd`].
    pub fn forward_workspace_bytes(&self, on: &dyn Device, problem: &ForwardProblem) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => self.check_fwd(problem).map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Ok(self.plan_fwd(problem, cuda.gpu())?.workspace_bytes),
        }
    }

    /// Scratch bytes that [`Axial::backward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`Axial::plan_bwd`].
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
    /// [`Error::Input`] and [`Error::Unsupported`], as [`Axial::forward_into`].
    pub fn plan_fwd(&self, problem: &ForwardProblem, gpu: &Gpu) -> Result<Plan> {
        self.check_fwd(problem)?;
        forward::plan(&self.config, problem, None, gpu)
    }

    /// What a backward call launches on a GPU; touches no device.
    ///
    /// # Errors
    /// As [`Axial::plan_fwd`].
    pub fn plan_bwd(&self, problem: &BackwardProblem, gpu: &Gpu) -> Result<Plan> {
        self.check_bwd(problem)?;
        // Every class of GPU has what these launches need.
        let _ = gpu;
        backward::plan(&self.config, problem, false)
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
        [q, v]: [&Layout<5>; 2],
        [columns, rows]: [&Option<Layout<3>>; 2],
        affine: &Option<[Layout<2>; 2]>,
    ) -> Result<()> {
        let [b, h, y, x, d] = q.shape;
        check_channels(Self::NAME, "q", d)?;
        check_channels(Self::NAME, "v", v.shape[4])?;
        check_shape(Self::NAME, "v", v.shape, [b, h, y, x, v.shape[4]])?;
        let axes = self.config.axes;
        for (arg, table, is_wanted) in
            [("columns", columns, axes != Axes::Rows), ("rows", rows, axes != Axes::Columns)]
        {
            check_presence(arg, table.is_some(), is_wanted)?;
            if let Some(table) = table {
                let heads = if table.shape[0] == 1 { 1 } else { h };
                let rows = if table.shape[1] % 2 == 1 { table.shape[1] } else { table.shape[1] + 1 };
                check_shape(Self::NAME, arg, table.shape, [heads, rows, d])?;
            }
        }
        check_presence("affine", affine.is_some(), self.config.norm != BatchNorm::None)?;
        if let Some(affine) = affine {
            let heads = if affine[0].shape[0] == 1 { 1 } else { h };
            check_shape(Self::NAME, "weight", affine[0].shape, [heads, v.shape[4]])?;
            check_shape(Self::NAME, "bias", affine[1].shape, affine[0].shape)?;
        }
        Ok(())
    }

    fn check_fwd(&self, p: &ForwardProblem) -> Result<()> {
        self.check_inputs([&p.q, &p.v], [&p.columns, &p.rows], &p.affine)?;
        check_shape(Self::NAME, "o", p.o.shape, p.v.shape)?;
        check_presence("given", p.given.is_some(), self.config.norm == BatchNorm::Eval)?;
        check_statistics("given", &p.given, &p.affine)?;
        if let Some(y) = p.y {
            check_presence("y", true, self.config.axes == Axes::ColumnsThenRows)?;
            check_shape(Self::NAME, "y", y.shape, p.v.shape)?;
        }
        if p.batch.is_some() {
            check_presence("batch", true, self.config.norm == BatchNorm::Train)?;
        }
        check_statistics("batch", &p.batch, &p.affine)
    }

    fn check_bwd(&self, p: &BackwardProblem) -> Result<()> {
        self.check_inputs([&p.q, &p.v], [&p.columns, &p.rows], &p.affine)?;
        check_shape(Self::NAME, "d_o", p.d_o.shape, p.v.shape)?;
        check_presence("statistics", p.statistics.is_some(), self.config.norm != BatchNorm::None)?;
        check_statistics("statistics", &p.statistics, &p.affine)?;
        check_presence("y", p.y.is_some(), self.config.axes == Axes::ColumnsThenRows)?;
        for (arg, tensor, like) in [("y", p.y, p.v), ("dq", p.dq, p.q), ("dv", p.dv, p.v)] {
            tensor.map_or(Ok(()), |t| check_shape(Self::NAME, arg, t.shape, like.shape))?;
        }
        for (arg, grad, like) in [("dcolumns", p.dcolumns, p.columns), ("drows", p.drows, p.rows)] {
            check_gradient(arg, grad, like)?;
        }
        check_gradient("dweight", p.dweight, p.affine.map(|a| a[0]))?;
        check_gradient("dbias", p.dbias, p.affine.map(|a| a[1]))
    }
}

fn check_gradient<const R: usize>(
    arg: &'static str,
    grad: Option<Layout<R>>,
    like: Option<Layout<R>>,
) -> Result<()> {
    match (grad, like) {
        (Some(grad), Some(like)) => check_shape(Axial::NAME, arg, grad.shape, like.shape),
        (Some(_), None) => check_presence(arg, true, false),
        (None, _) => Ok(()),
    }
}

fn check_presence(arg: &'static str, is_there: bool, is_wanted: bool) -> Result<()> {
    match (is_there, is_wanted) {
        (true, false) => Err(Error::input(Axial::NAME, arg, "absent with these settings", "a tensor")),
        (false, true) => Err(Error::input(Axial::NAME, arg, "given with these settings", "nothing")),
        _ => Ok(()),
    }
}

fn check_statistics(
    arg: &'static str,
    statistics: &Option<[Layout<2>; 2]>,
    affine: &Option<[Layout<2>; 2]>,
) -> Result<()> {
    match (statistics, affine) {
        (Some(s), Some(a)) => s.iter().try_for_each(|s| check_shape(Axial::NAME, arg, s.shape, a[0].shape)),
        _ => Ok(()),
    }
}

impl<'a, T: Element> Forward<'a, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> ForwardProblem {
        ForwardProblem {
            dtype: T::DTYPE,
            q: self.q.layout(),
            v: self.v.layout(),
            columns: self.columns.as_ref().map(View::layout),
            rows: self.rows.as_ref().map(View::layout),
            affine: self.affine.as_ref().map(|a| [a.weight.layout(), a.bias.layout()]),
            given: self.given.as_ref().map(|s| [s.mean.layout(), s.var.layout()]),
            o: self.o.layout(),
            y: self.y.as_ref().map(ViewMut::layout),
            batch: self.batch.as_ref().map(|s| [s.mean.layout(), s.var.layout()]),
        }
    }

    fn host(self) -> Result<cpu::axial::Forward<'a, T, T>> {
        const OP: &str = Axial::NAME;
        let statistics = match self.batch {
            Some(s) => Some([s.mean.host(OP, "batch.mean")?, s.var.host(OP, "batch.var")?]),
            None => None,
        };
        Ok(cpu::axial::Forward {
            q: self.q.host(OP, "q")?,
            v: self.v.host(OP, "v")?,
            columns: self.columns.map(|t| t.host(OP, "columns")).transpose()?,
            rows: self.rows.map(|t| t.host(OP, "rows")).transpose()?,
            affine: host_pair(OP, self.affine.map(|a| [a.weight, a.bias]), "affine")?,
            given: host_pair(OP, self.given.map(|s| [s.mean, s.var]), "given")?,
            o: self.o.host(OP, "o")?,
            y: self.y.map(|t| t.host(OP, "y")).transpose()?,
            statistics,
        })
    }
}

impl<'a, T: Element> Backward<'a, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> BackwardProblem {
        BackwardProblem {
            dtype: T::DTYPE,
            q: self.q.layout(),
            v: self.v.layout(),
            columns: self.columns.as_ref().map(View::layout),
            rows: self.rows.as_ref().map(View::layout),
            affine: self.affine.as_ref().map(|a| [a.weight.layout(), a.bias.layout()]),
            statistics: self.statistics.as_ref().map(|s| [s.mean.layout(), s.var.layout()]),
            y: self.y.as_ref().map(View::layout),
            d_o: self.d_o.layout(),
            dq: self.dq.as_ref().map(ViewMut::layout),
            dv: self.dv.as_ref().map(ViewMut::layout),
            dcolumns: self.dcolumns.as_ref().map(ViewMut::layout),
            drows: self.drows.as_ref().map(ViewMut::layout),
            dweight: self.dweight.as_ref().map(ViewMut::layout),
            dbias: self.dbias.as_ref().map(ViewMut::layout),
        }
    }

    fn host(self) -> Result<cpu::axial::Backward<'a, T, T>> {
        const OP: &str = Axial::NAME;
        Ok(cpu::axial::Backward {
            q: self.q.host(OP, "q")?,
            v: self.v.host(OP, "v")?,
            columns: self.columns.map(|t| t.host(OP, "columns")).transpose()?,
            rows: self.rows.map(|t| t.host(OP, "rows")).transpose()?,
            affine: host_pair(OP, self.affine.map(|a| [a.weight, a.bias]), "affine")?,
            statistics: host_pair(OP, self.statistics.map(|s| [s.mean, s.var]), "statistics")?,
            y: self.y.map(|t| t.host(OP, "y")).transpose()?,
            d_o: self.d_o.host(OP, "d_o")?,
            dq: self.dq.map(|t| t.host(OP, "dq")).transpose()?,
            dv: self.dv.map(|t| t.host(OP, "dv")).transpose()?,
            dcolumns: self.dcolumns.map(|t| t.host(OP, "dcolumns")).transpose()?,
            drows: self.drows.map(|t| t.host(OP, "drows")).transpose()?,
            dweight: self.dweight.map(|t| t.host(OP, "dweight")).transpose()?,
            dbias: self.dbias.map(|t| t.host(OP, "dbias")).transpose()?,
        })
    }
}
