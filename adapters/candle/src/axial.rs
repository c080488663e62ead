//! `axial` on candle's tensors.

use crate::by_dtype;
use crate::graph::{attach, wants};
use crate::memory::{Buffer, Elem, On, Read, dims, grad_like, maybe_mut, ours, wanted};
use crate::tensors::{matrix, same_device, same_dtype, table};
use candle_core::{Result, Tensor};
use macula::axial::{Affine, Axes, Backward, BatchNorm, Forward, Statistics};
use macula::{Axial, AxialConfig};

/// What [`axial`] reads besides queries and values.
#[derive(Clone, Copy, Default)]
pub struct AxialInputs<'a> {
    /// Column offsets, `[2L − 1, d]` or `[1 or h, 2L − 1, d]`; absent for [`Axes::Rows`].
    pub columns: Option<&'a Tensor>,
    /// Row offsets, as `columns`; absent for [`Axes::Columns`].
    pub rows: Option<&'a Tensor>,
    /// Batch norm's parameters, `[e]` or `[1 or h, e]`; absent without batch norm.
    pub affine: Option<Affine<&'a Tensor>>,
    /// Mean and variance for [`BatchNorm::Eval`], as `affine`. They get no gradient.
    pub given: Option<Statistics<&'a Tensor>>,
}

/// What [`axial`] returns.
pub struct AxialOutput {
    /// Output, `[b, h, y, x, e]`.
    pub o: Tensor,
    /// Mean and biased variance of this batch for [`BatchNorm::Train`], `[1 or h, e]`, f32, without gradient.
    pub batch: Option<Statistics<Tensor>>,
}

/// Attention by position along columns, then rows, without softmax.
///
/// `q`: `[b, h, y, x, d]`; `v`: `[b, h, y, x, e]`. Gradients of both, of the tables and of batch norm's parameters.
///
/// # Errors
/// Candle's for ranks, element types and devices that do not fit together; macula's, wrapped, for everything else.
pub fn axial(q: &Tensor, v: &Tensor, inputs: AxialInputs<'_>, config: &AxialConfig) -> Result<AxialOutput> {
    let op = Axial::new(*config).map_err(ours)?;
    same_device(Axial::NAME, &[q, v])?;
    same_dtype(Axial::NAME, &[q, v])?;
    let parameters = Tracked::of(Axial::NAME, q, inputs)?;
    by_dtype!(Axial::NAME, q.dtype(), run(op, q, v, parameters))
}

/// Parameters with their gradients' paths, in the shapes that the ops take.
pub(crate) struct Tracked {
    pub columns: Option<Tensor>,
    pub rows: Option<Tensor>,
    pub weight: Option<Tensor>,
    pub bias: Option<Tensor>,
    pub given: Option<Statistics<Tensor>>,
}

impl Tracked {
    pub fn of(op: &'static str, q: &Tensor, inputs: AxialInputs<'_>) -> Result<Self> {
        let AxialInputs { columns, rows, affine, given } = inputs;
        let (weight, bias) = (affine.map(|a| a.weight), affine.map(|a| a.bias));
        let (mean, var) = (given.map(|s| s.mean), given.map(|s| s.var));
        for tensor in [columns, rows, weight, bias, mean, var].into_iter().flatten() {
            same_device(op, &[q, tensor])?;
        }
        let given = match given {
            Some(s) => Some(Statistics { mean: matrix(&s.mean.detach())?, var: matrix(&s.var.detach())? }),
            None => None,
        };
        Ok(Self {
            columns: columns.map(table).transpose()?,
            rows: rows.map(table).transpose()?,
            weight: weight.map(matrix).transpose()?,
            bias: bias.map(matrix).transpose()?,
            given,
        })
    }

    /// As a device reads them: tables in the element type of q.
    pub fn readable(&self, on: &On, q: &Tensor) -> Result<Readable> {
        let table = |t: &Option<Tensor>| -> Result<Option<Tensor>> {
            t.as_ref().map(|t| on.readable(&t.detach().to_dtype(q.dtype())?)).transpose()
        };
        let vector = |t: &Option<Tensor>| t.as_ref().map(|t| on.readable(t)).transpose();
        let given = match &self.given {
            Some(s) => Some([on.readable(&s.mean)?, on.readable(&s.var)?]),
            None => None,
        };
        Ok(Readable {
            tables: [table(&self.columns)?, table(&self.rows)?],
            affine: vector(&self.weight)?.zip(vector(&self.bias)?).map(|(weight, bias)| [weight, bias]),
            given,
            like: [self.columns.as_ref().map(Tensor::detach), self.rows.as_ref().map(Tensor::detach)],
        })
    }
}

/// Parameters as a device reads them.
pub(crate) struct Readable {
    pub tables: [Option<Tensor>; 2],
    pub affine: Option<[Tensor; 2]>,
    pub given: Option<[Tensor; 2]>,
    /// The tables as they were given, for the element type of their gradients.
    pub like: [Option<Tensor>; 2],
}

impl Readable {
    pub fn table_shapes(&self) -> Result<[[usize; 3]; 2]> {
        let shape = |t: &Option<Tensor>| t.as_ref().map_or(Ok([0; 3]), |t| dims(t.layout()));
        Ok([shape(&self.tables[0])?, shape(&self.tables[1])?])
    }

    pub fn norm_shape(&self) -> Result<[usize; 2]> {
        self.affine.as_ref().map_or(Ok([0; 2]), |[weight, _]| dims(weight.layout()))
    }

    /// Room for the statistics of this batch, when the settings ask for them.
    pub fn batch(&self, on: &On, norm: BatchNorm) -> Result<Option<[Buffer<f32, 2>; 2]>> {
        match (norm, &self.affine) {
            (BatchNorm::Train, Some(_)) => {
                let shape = self.norm_shape()?;
                Ok(Some([Buffer::new(on, shape)?, Buffer::new(on, shape)?]))
            }
            _ => Ok(None),
        }
    }

    pub fn read(&self) -> ReadParameters<'_> {
        ReadParameters {
            tables: self.tables.each_ref().map(|t| t.as_ref().map(Read::of)),
            affine: self.affine.as_ref().map(|pair| pair.each_ref().map(Read::of)),
            given: self.given.as_ref().map(|pair| pair.each_ref().map(Read::of)),
        }
    }
}

/// [`Readable`] while it is being read.
pub(crate) struct ReadParameters<'t> {
    pub tables: [Option<Read<'t>>; 2],
    affine: Option<[Read<'t>; 2]>,
    given: Option<[Read<'t>; 2]>,
}

impl ReadParameters<'_> {
    pub fn affine(&self) -> Result<Option<Affine<macula::View<'_, f32, 2>>>> {
        match self.affine.as_ref() {
            Some([weight, bias]) => Ok(Some(Affine { weight: weight.view()?, bias: bias.view()? })),
            None => Ok(None),
        }
    }

    pub fn given(&self) -> Result<Option<Statistics<macula::View<'_, f32, 2>>>> {
        match self.given.as_ref() {
            Some([mean, var]) => Ok(Some(Statistics { mean: mean.view()?, var: var.view()? })),
            None => Ok(None),
        }
    }
}

/// Statistics of a batch as the backward pass reads them.
pub(crate) fn statistics(batch: &Option<[Tensor; 2]>) -> Option<[Read<'_>; 2]> {
    batch.as_ref().map(|pair| pair.each_ref().map(Read::of))
}

fn run<T: Elem>(op: Axial, q: &Tensor, v: &Tensor, parameters: Tracked) -> Result<AxialOutput> {
    let on = On::of(q.device(), Axial::NAME)?;
    let Tracked { columns, rows, weight, bias, .. } = &parameters;
    let edges = [Some(q), Some(v), columns.as_ref(), rows.as_ref(), weight.as_ref(), bias.as_ref()];
    let wants = wants(edges);
    let read = parameters.readable(&on, q)?;
    let (q, v) = (on.readable(q)?, on.readable(v)?);
    let shapes = [dims::<5>(q.layout())?, dims(v.layout())?];
    let (table_shapes, norm_shape) = (read.table_shapes()?, read.norm_shape()?);
    let mut o = Buffer::<T, 5>::new(&on, shapes[1])?;
    let mut y = wanted::<T, 5>(&on, op.config().axes == Axes::ColumnsThenRows, shapes[1])?;
    let mut batch = read.batch(&on, op.config().norm)?;
    {
        let (q, v, parameters) = (Read::of(&q), Read::of(&v), read.read());
        let [columns, rows] = &parameters.tables;
        let args = Forward {
            q: q.view::<T, 5>()?,
            v: v.view()?,
            columns: columns.as_ref().map(Read::view).transpose()?,
            rows: rows.as_ref().map(Read::view).transpose()?,
            affine: parameters.affine()?,
            given: parameters.given()?,
            o: o.view_mut()?,
            y: maybe_mut(&mut y)?,
            batch: match &mut batch {
                Some([mean, var]) => Some(Statistics { mean: mean.view_mut()?, var: var.view_mut()? }),
                None => None,
            },
        };
        let bytes = op.forward_workspace_bytes(on.device(), &args.problem());
        on.with_workspace(bytes, |workspace| op.forward_into(on.device(), args, workspace))?;
    }
    let batch = batch.map(|pair| pair.map(Buffer::into_tensor));
    let returned = batch.as_ref().map(|[mean, var]| Statistics { mean: mean.clone(), var: var.clone() });
    let o = attach(Axial::NAME, o.into_storage(), &edges, move |_, d_o| {
        let on = On::of(q.device(), Axial::NAME)?;
        let d_o = on.readable(d_o)?;
        let mut dq = wanted::<T, 5>(&on, wants[0], shapes[0])?;
        let mut dv = wanted::<T, 5>(&on, wants[1], shapes[1])?;
        let mut dcolumns = wanted::<f32, 3>(&on, wants[2], table_shapes[0])?;
        let mut drows = wanted::<f32, 3>(&on, wants[3], table_shapes[1])?;
        let mut dweight = wanted::<f32, 2>(&on, wants[4], norm_shape)?;
        let mut dbias = wanted::<f32, 2>(&on, wants[5], norm_shape)?;
        {
            let (q, v, d_o, parameters) = (Read::of(&q), Read::of(&v), Read::of(&d_o), read.read());
            let [columns, rows] = &parameters.tables;
            let batch = statistics(&batch);
            let args = Backward {
                q: q.view::<T, 5>()?,
                v: v.view()?,
                columns: columns.as_ref().map(Read::view).transpose()?,
                rows: rows.as_ref().map(Read::view).transpose()?,
                affine: parameters.affine()?,
                statistics: match &batch {
                    Some([mean, var]) => Some(Statistics { mean: mean.view()?, var: var.view()? }),
                    None => parameters.given()?,
                },
                y: y.as_ref().map(Buffer::view).transpose()?,
                d_o: d_o.view()?,
                dq: maybe_mut(&mut dq)?,
                dv: maybe_mut(&mut dv)?,
                dcolumns: maybe_mut(&mut dcolumns)?,
                drows: maybe_mut(&mut drows)?,
                dweight: maybe_mut(&mut dweight)?,
                dbias: maybe_mut(&mut dbias)?,
            };
            let bytes = op.backward_workspace_bytes(on.device(), &args.problem());
            on.with_workspace(bytes, |workspace| op.backward_into(on.device(), args, workspace))?;
        }
        let table = |grad, like: &Option<Tensor>| match like {
            Some(like) => grad_like(grad, like),
            None => Ok(None),
        };
        Ok(vec![
            grad_like(dq, &q)?,
            grad_like(dv, &v)?,
            table(dcolumns, &read.like[0])?,
            table(drows, &read.like[1])?,
            dweight.map(Buffer::into_tensor),
            dbias.map(Buffer::into_tensor),
        ])
    })?;
    Ok(AxialOutput { o, batch: returned })
}
