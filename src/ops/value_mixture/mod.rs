//! The mixture of value maps that the attention stem of SASA looks at: weights by position, shared by all images and heads.
//!
//! Ramachandran et al., *Stand-Alone Self-Attention in Vision Models*, 2019 (the stem). m projections of the image give m maps
//! of values; what a pixel's neighbours see of it is a sum of the m, weighed by where the pixel lies:
//!
//! ```text
//! p_m(y, x) = softmax over m of (row[y mod Y] + col[x mod X]) · ν_m        o = Σ_m p_m v_m
//! ```
//!
//! The tables may be smaller than the map, which then repeats them: with tables of 4 rows and 4 columns the weights follow from
//! the place in each 4×4 block, as in the paper's stem; with tables of the map's size from the pixel itself. The output goes to
//! [`Local`](crate::Local) as its values.
//!
//! Shapes: vs `[m, b, h, y, x, e]`; o `[b, h, y, x, e]`; the tables, f32, emb_row `[Y, r]`, emb_col `[X, r]` and nu `[m, r]`; the
//! weights p `[m, Y, X]`, f32 and contiguous. A projection to m·h·e channels of `[b, y, x]` pixels is vs by a view, without a copy.

mod params;
mod plan;

pub use plan::{BackwardProblem, ForwardProblem};

use super::{check_channels, check_shape};
#[cfg(feature = "cuda")]
use crate::device::Operand;
use crate::device::{Target, target, with_workspace};
use crate::{
    Cost, DType, Device, Element, Error, Gpu, Layout, Plan, Result, Tensor, View, ViewMut, Workspace, cpu,
};

/// The op. It has no settings so far.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ValueMixture;

/// What the weights follow from: the three tables, or something for each of them, such as their gradients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tables<V> {
    /// By row, `[Y, r]`.
    pub emb_row: V,
    /// By column, `[X, r]`.
    pub emb_col: V,
    /// By mixture, `[m, r]`.
    pub nu: V,
}

impl<V> Tables<V> {
    /// Another value for each table.
    pub fn map<W>(self, mut to: impl FnMut(V) -> W) -> Tables<W> {
        Tables { emb_row: to(self.emb_row), emb_col: to(self.emb_col), nu: to(self.nu) }
    }

    /// Rows, columns, mixtures.
    pub(crate) fn as_array(&self) -> [&V; 3] {
        [&self.emb_row, &self.emb_col, &self.nu]
    }
}

/// Arguments of [`ValueMixture::forward_into`].
pub struct Forward<'a, T> {
    /// Values, `[m, b, h, y, x, e]`.
    pub vs: View<'a, T, 6>,
    /// The tables.
    pub tables: Tables<View<'a, f32, 2>>,
    /// Output, `[b, h, y, x, e]`. Written whole.
    pub o: ViewMut<'a, T, 5>,
    /// Where the weights go, `[m, Y, X]`, contiguous.
    pub p: Option<ViewMut<'a, f32, 3>>,
}

/// Arguments of [`ValueMixture::backward_into`]. Gradients are written whole; one that is `None` is not computed.
pub struct Backward<'a, T> {
    /// Values, `[m, b, h, y, x, e]`.
    pub vs: View<'a, T, 6>,
    /// The tables.
    pub tables: Tables<View<'a, f32, 2>>,
    /// Gradient of the output.
    pub d_o: View<'a, T, 5>,
    /// Gradient of vs.
    pub dvs: Option<ViewMut<'a, T, 6>>,
    /// Gradients of the tables.
    pub dtables: Tables<Option<ViewMut<'a, f32, 2>>>,
}

/// What [`ValueMixture::forward`] returns.
pub struct Output<T> {
    /// Output, `[b, h, y, x, e]`.
    pub o: Tensor<T, 5>,
    /// The weights, `[m, Y, X]`.
    pub p: Tensor<f32, 3>,
}

/// What [`ValueMixture::backward`] returns.
pub struct Grads<T> {
    /// Gradient of vs.
    pub dvs: Tensor<T, 6>,
    /// Gradients of the tables.
    pub dtables: Tables<Tensor<f32, 2>>,
}

impl ValueMixture {
    /// The op's name in errors, entries and benches.
    pub const NAME: &'static str = "value_mixture";

    /// The op.
    pub const fn new() -> Self {
        Self
    }

    /// Output and weights, into new tensors.
    ///
    /// ```
    /// use macula::value_mixture::Tables;
    /// use macula::{Cpu, Tensor, ValueMixture};
    ///
    /// // Four maps of 8×8 pixels and 3 channels; weights that repeat every 4×4 pixels, from embeddings of 2 numbers.
    /// let vs = Tensor::from_vec(vec![1.0f32; 4 * 8 * 8 * 3], [4, 1, 1, 8, 8, 3])?;
    /// let table = Tensor::from_vec((0..8).map(|i| i as f32 / 8.0).collect(), [4, 2])?;
    /// let tables = Tables { emb_row: &table, emb_col: &table, nu: &table };
    /// let out = ValueMixture::new().forward(&Cpu::new(), &vs, tables)?;
    /// assert_eq!(out.p.shape(), [4, 4, 4]);
    /// // The weights of a pixel sum to 1.
    /// assert!(out.o.to_vec()?.iter().all(|x| (x - 1.0).abs() < 1e-5));
    /// # Ok::<(), macula::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ValueMixture::forward_into`].
    pub fn forward<T: Element>(
        &self,
        on: &dyn Device,
        vs: &Tensor<T, 6>,
        tables: Tables<&Tensor<f32, 2>>,
    ) -> Result<Output<T>> {
        let [m, shape @ ..] = vs.shape();
        let mut o = Tensor::zeros(on, shape)?;
        let mut p = Tensor::zeros(on, [m, tables.emb_row.shape()[0], tables.emb_col.shape()[0]])?;
        let args = Forward {
            vs: vs.view(),
            tables: tables.map(Tensor::view),
            o: o.view_mut(),
            p: Some(p.view_mut()),
        };
        let bytes = self.forward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.forward_into(on, args, workspace))?;
        Ok(Output { o, p })
    }

    /// All gradients, given the gradient of the output, into new tensors.
    ///
    /// # Errors
    /// As [`ValueMixture::backward_into`].
    pub fn backward<T: Element>(
        &self,
        on: &dyn Device,
        vs: &Tensor<T, 6>,
        tables: Tables<&Tensor<f32, 2>>,
        d_o: &Tensor<T, 5>,
    ) -> Result<Grads<T>> {
        let mut dvs = Tensor::zeros(on, vs.shape())?;
        let zeros = |like: &Tensor<f32, 2>| Tensor::zeros(on, like.shape());
        let (mut emb_row, mut emb_col) = (zeros(tables.emb_row)?, zeros(tables.emb_col)?);
        let mut nu = zeros(tables.nu)?;
        let args = Backward {
            vs: vs.view(),
            tables: tables.map(Tensor::view),
            d_o: d_o.view(),
            dvs: Some(dvs.view_mut()),
            dtables: Tables {
                emb_row: Some(emb_row.view_mut()),
                emb_col: Some(emb_col.view_mut()),
                nu: Some(nu.view_mut()),
            },
        };
        let bytes = self.backward_workspace_bytes(on, &args.problem())?;
        with_workspace(on, bytes, |workspace| self.backward_into(on, args, workspace))?;
        Ok(Grads { dvs, dtables: Tables { emb_row, emb_col, nu } })
    }

    /// Output (and weights) in the caller's memory. On `Cuda` nothing is allocated on the device, and nothing waits.
    ///
    /// # Errors
    /// [`Error::Input`] for shapes that do not fit together, memory of another device or a workspace that is too small;
    /// [`Error::Unsupported`] for what the device does not do; [`Error::Kernel`] when a launch fails.
    pub fn forward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Forward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        args.check()?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let args = args.host()?;
                cpu.install(|| cpu::value_mixture::forward(args));
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_fwd(&args.problem(), cuda.gpu())?;
                let Forward { mut vs, mut tables, mut o, mut p } = args;
                let mut operands = [
                    Operand::new("vs", &mut vs),
                    Operand::new("emb_row", &mut tables.emb_row),
                    Operand::new("emb_col", &mut tables.emb_col),
                    Operand::new("nu", &mut tables.nu),
                    Operand::new("o", &mut o),
                    Operand::maybe("p", p.as_mut()),
                ];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// Gradients in the caller's memory. On `Cuda` nothing is allocated on the device, and nothing waits.
    ///
    /// # Errors
    /// As [`ValueMixture::forward_into`].
    pub fn backward_into<T: Element>(
        &self,
        on: &dyn Device,
        args: Backward<'_, T>,
        workspace: Workspace<'_>,
    ) -> Result<()> {
        let problem = args.problem();
        check_bwd(&problem)?;
        match target(on) {
            Target::Cpu(cpu) => {
                let _ = workspace;
                let args = args.host()?;
                cpu.install(|| cpu::value_mixture::backward(args));
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => {
                let plan = self.plan_bwd(&problem, cuda.gpu())?;
                let Backward { mut vs, mut tables, mut d_o, mut dvs, mut dtables } = args;
                let mut operands = [
                    Operand::new("vs", &mut vs),
                    Operand::new("emb_row", &mut tables.emb_row),
                    Operand::new("emb_col", &mut tables.emb_col),
                    Operand::new("nu", &mut tables.nu),
                    Operand::new("d_o", &mut d_o),
                    Operand::maybe("dvs", dvs.as_mut()),
                    Operand::maybe("demb_row", dtables.emb_row.as_mut()),
                    Operand::maybe("demb_col", dtables.emb_col.as_mut()),
                    Operand::maybe("dnu", dtables.nu.as_mut()),
                ];
                cuda.run(Self::NAME, &plan, &mut operands, workspace)
            }
        }
    }

    /// Scratch bytes that [`ValueMixture::forward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`ValueMixture::plan_fwd`].
    pub fn forward_workspace_bytes(&self, on: &dyn Device, problem: &ForwardProblem) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => check_fwd(problem).map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Ok(self.plan_fwd(problem, cuda.gpu())?.workspace_bytes),
        }
    }

    /// Scratch bytes that [`ValueMixture::backward_into`] needs on this device for such a call.
    ///
    /// # Errors
    /// As [`ValueMixture::plan_bwd`].
    pub fn backward_workspace_bytes(&self, on: &dyn Device, problem: &BackwardProblem) -> Result<usize> {
        match target(on) {
            Target::Cpu(_) => check_bwd(problem).map(|()| 0),
            #[cfg(feature = "cuda")]
            Target::Cuda(cuda) => Ok(self.plan_bwd(problem, cuda.gpu())?.workspace_bytes),
        }
    }

    /// What a forward call launches on a GPU, the same on all of them; touches no device.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Unsupported`], as [`ValueMixture::forward_into`].
    pub fn plan_fwd(&self, problem: &ForwardProblem, _gpu: &Gpu) -> Result<Plan> {
        check_fwd(problem)?;
        plan::forward(problem)
    }

    /// What a backward call launches on a GPU, the same on all of them; touches no device.
    ///
    /// # Errors
    /// As [`ValueMixture::plan_fwd`].
    pub fn plan_bwd(&self, problem: &BackwardProblem, _gpu: &Gpu) -> Result<Plan> {
        check_bwd(problem)?;
        plan::backward(problem)
    }

    /// The work of a forward call.
    pub fn forward_cost(&self, problem: &ForwardProblem) -> Cost {
        plan::forward_cost(problem)
    }

    /// The work of a backward call.
    pub fn backward_cost(&self, problem: &BackwardProblem) -> Cost {
        plan::backward_cost(problem)
    }
}

fn check_inputs(vs: &Layout<6>, tables: &Tables<Layout<2>>) -> Result<()> {
    const OP: &str = ValueMixture::NAME;
    check_channels(OP, "vs", vs.shape[5])?;
    let ([rows, r], [columns, _]) = (tables.emb_row.shape, tables.emb_col.shape);
    let sizes = [
        ("vs", "mixture", vs.shape[0]),
        ("emb_row", "row", rows),
        ("emb_col", "row", columns),
        ("emb_row", "channel", r),
    ];
    for (arg, what, size) in sizes {
        if size == 0 {
            return Err(Error::input(OP, arg, format!("of at least one {what}"), size));
        }
    }
    check_shape(OP, "emb_col", tables.emb_col.shape, [columns, r])?;
    check_shape(OP, "nu", tables.nu.shape, [vs.shape[0], r])
}

fn check_fwd(p: &ForwardProblem) -> Result<()> {
    check_inputs(&p.vs, &p.tables)?;
    let [_, shape @ ..] = p.vs.shape;
    check_shape(ValueMixture::NAME, "o", p.o.shape, shape)
}

fn check_bwd(p: &BackwardProblem) -> Result<()> {
    const OP: &str = ValueMixture::NAME;
    check_inputs(&p.vs, &p.tables)?;
    let [_, shape @ ..] = p.vs.shape;
    check_shape(OP, "d_o", p.d_o.shape, shape)?;
    p.dvs.map_or(Ok(()), |dvs| check_shape(OP, "dvs", dvs.shape, p.vs.shape))?;
    let names = ["demb_row", "demb_col", "dnu"];
    for ((arg, grad), like) in names.into_iter().zip(p.dtables.as_array()).zip(p.tables.as_array()) {
        grad.map_or(Ok(()), |grad| check_shape(OP, arg, grad.shape, like.shape))?;
    }
    Ok(())
}

impl<'a, T: Element> Forward<'a, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> ForwardProblem {
        ForwardProblem {
            dtype: T::DTYPE,
            vs: self.vs.layout(),
            tables: self.tables.map(|table| table.layout()),
            o: self.o.layout(),
            wants_p: self.p.is_some(),
        }
    }

    fn check(&self) -> Result<()> {
        const OP: &str = ValueMixture::NAME;
        let problem = self.problem();
        check_fwd(&problem)?;
        let Some(p) = &self.p else { return Ok(()) };
        let tables = &problem.tables;
        let shape = [problem.vs.shape[0], tables.emb_row.shape[0], tables.emb_col.shape[0]];
        check_shape(OP, "p", p.shape(), shape)?;
        match p.layout().is_contiguous() {
            true => Ok(()),
            false => Err(Error::input(OP, "p", "contiguous", "other strides")),
        }
    }

    fn host(self) -> Result<cpu::value_mixture::Forward<'a, T>> {
        const OP: &str = ValueMixture::NAME;
        Ok(cpu::value_mixture::Forward {
            vs: self.vs.host(OP, "vs")?,
            emb_row: self.tables.emb_row.host(OP, "emb_row")?,
            emb_col: self.tables.emb_col.host(OP, "emb_col")?,
            nu: self.tables.nu.host(OP, "nu")?,
            o: self.o.host(OP, "o")?,
            p: self.p.map(|p| p.host(OP, "p")).transpose()?,
        })
    }
}

impl<'a, T: Element> Backward<'a, T> {
    /// This call as the planner sees it.
    pub fn problem(&self) -> BackwardProblem {
        let of = |grad: &Option<ViewMut<'a, f32, 2>>| grad.as_ref().map(ViewMut::layout);
        let [emb_row, emb_col, nu] = self.dtables.as_array().map(of);
        BackwardProblem {
            dtype: T::DTYPE,
            vs: self.vs.layout(),
            tables: self.tables.map(|table| table.layout()),
            d_o: self.d_o.layout(),
            dvs: self.dvs.as_ref().map(ViewMut::layout),
            dtables: Tables { emb_row, emb_col, nu },
        }
    }

    fn host(self) -> Result<cpu::value_mixture::Backward<'a, T>> {
        const OP: &str = ValueMixture::NAME;
        Ok(cpu::value_mixture::Backward {
            vs: self.vs.host(OP, "vs")?,
            emb_row: self.tables.emb_row.host(OP, "emb_row")?,
            emb_col: self.tables.emb_col.host(OP, "emb_col")?,
            nu: self.tables.nu.host(OP, "nu")?,
            d_o: self.d_o.host(OP, "d_o")?,
            dvs: self.dvs.map(|t| t.host(OP, "dvs")).transpose()?,
            demb_row: self.dtables.emb_row.map(|t| t.host(OP, "demb_row")).transpose()?,
            demb_col: self.dtables.emb_col.map(|t| t.host(OP, "demb_col")).transpose()?,
            dnu: self.dtables.nu.map(|t| t.host(OP, "dnu")).transpose()?,
        })
    }
}

impl ForwardProblem {
    /// Contiguous tensors: vs of shape `vs`, tables of `sites` rows and columns and `r` channels; weights wanted.
    pub fn contiguous(vs: [usize; 6], sites: [usize; 2], r: usize, dtype: DType) -> Self {
        let [m, o @ ..] = vs;
        let [rows, columns] = sites;
        let tables = Tables { emb_row: [rows, r], emb_col: [columns, r], nu: [m, r] }.map(Layout::contiguous);
        Self { dtype, vs: vs.into(), tables, o: o.into(), wants_p: true }
    }
}

impl BackwardProblem {
    /// Contiguous tensors, as [`ForwardProblem::contiguous`], and all gradients.
    pub fn contiguous(vs: [usize; 6], sites: [usize; 2], r: usize, dtype: DType) -> Self {
        let ForwardProblem { vs, tables, o, .. } = ForwardProblem::contiguous(vs, sites, r, dtype);
        Self { dtype, vs, tables, d_o: o, dvs: Some(vs), dtables: tables.map(Some) }
    }
}
