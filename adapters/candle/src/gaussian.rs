//! `gaussian` on candle's tensors.

use crate::by_dtype;
use crate::graph::{attach, wants};
use crate::memory::{Buffer, Elem, On, Read, dims, grad_like, maybe_mut, ours, wanted};
use crate::tensors::same_device;
use candle_core::{DType, Result, Tensor};
use macula::gaussian::{Backward, Forward};
use macula::{Element, Gaussian, GaussianConfig};

/// Attention by distance with one radius per head: `o = A(σ) v`.
///
/// `v`: `[b, h, y, x, d]`; `sigma`: `[h]`, or `[1]` for all heads, in pixels. Gradients of both.
///
/// # Errors
/// Candle's for ranks, element types and devices that do not fit together; macula's, wrapped, for everything else.
pub fn gaussian(v: &Tensor, sigma: &Tensor, config: &GaussianConfig) -> Result<Tensor> {
    let op = Gaussian::new(*config).map_err(ours)?;
    same_device(Gaussian::NAME, &[v, sigma])?;
    let sigma = sigma.to_dtype(DType::F32)?;
    by_dtype!(Gaussian::NAME, v.dtype(), run(op, v, &sigma))
}

fn run<T: Elem>(op: Gaussian, v: &Tensor, sigma: &Tensor) -> Result<Tensor> {
    let on = On::of(v.device(), Gaussian::NAME)?;
    let edges = [Some(v), Some(sigma)];
    let wants = wants(edges);
    let (v, sigma) = (on.readable(v)?, on.readable(sigma)?);
    let (shape, heads) = (dims::<5>(v.layout())?, dims::<1>(sigma.layout())?);
    let mut o = Buffer::<T, 5>::new(&on, shape)?;
    {
        let (v, sigma) = (Read::of(&v), Read::of(&sigma));
        let args = Forward { v: v.view::<T, 5>()?, sigma: sigma.view()?, o: o.view_mut()? };
        let bytes = op.forward_workspace_bytes(on.device(), shape, <T as Element>::DTYPE);
        on.with_workspace(bytes, |workspace| op.forward_into(on.device(), args, workspace))?;
    }
    attach(Gaussian::NAME, o.into_storage(), &edges, move |_, d_o| {
        let on = On::of(v.device(), Gaussian::NAME)?;
        let d_o = on.readable(d_o)?;
        let mut dv = wanted::<T, 5>(&on, wants[0], shape)?;
        let mut dsigma = wanted::<f32, 1>(&on, wants[1], heads)?;
        {
            let (v, sigma, d_o) = (Read::of(&v), Read::of(&sigma), Read::of(&d_o));
            let args = Backward {
                v: v.view::<T, 5>()?,
                sigma: sigma.view()?,
                d_o: d_o.view()?,
                dv: maybe_mut(&mut dv)?,
                dsigma: maybe_mut(&mut dsigma)?,
            };
            let bytes = op.backward_workspace_bytes(on.device(), shape, <T as Element>::DTYPE);
            on.with_workspace(bytes, |workspace| op.backward_into(on.device(), args, workspace))?;
        }
        Ok(vec![grad_like(dv, &v)?, grad_like(dsigma, &sigma)?])
    })
}
