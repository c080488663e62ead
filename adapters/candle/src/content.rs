//! `content` on candle's tensors.

use crate::by_dtype;
use crate::graph::{attach, wants};
use crate::memory::{Buffer, Elem, On, Read, dims, grad_like, maybe_mut, wanted};
use crate::tensors::{same_device, same_dtype};
use candle_core::{Result, Tensor};
use macula::content::{Backward, Forward, Saved};
use macula::{Content, ContentConfig};

/// Global attention through a summary of keys and values, linear in the number of pixels.
///
/// `q`: `[b, h, y, x, d]`; `k`: `[b, h, y', x', d]`; `v`: `[b, h, y', x', e]`. Gradients of all three.
///
/// # Errors
/// Candle's for ranks, element types and devices that do not fit together; macula's, wrapped, for everything else.
pub fn content(q: &Tensor, k: &Tensor, v: &Tensor, config: &ContentConfig) -> Result<Tensor> {
    same_device(Content::NAME, &[q, k, v])?;
    same_dtype(Content::NAME, &[q, k, v])?;
    by_dtype!(Content::NAME, q.dtype(), run(Content::new(*config), q, k, v))
}

/// What the forward pass saves, in candle's memory.
pub(crate) struct SavedBuffers {
    pub summary: Buffer<f32, 4>,
    pub max: Buffer<f32, 3>,
    pub sum: Buffer<f32, 3>,
}

impl SavedBuffers {
    pub fn new(on: &On, q: [usize; 5], e: usize) -> Result<Self> {
        let [b, h, _, _, d] = q;
        let vector = || Buffer::new(on, [b, h, d]);
        Ok(Self { summary: Buffer::new(on, [b, h, d, e])?, max: vector()?, sum: vector()? })
    }
}

fn run<T: Elem>(op: Content, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let on = On::of(q.device(), Content::NAME)?;
    let edges = [Some(q), Some(k), Some(v)];
    let wants = wants(edges);
    let (q, k, v) = (on.readable(q)?, on.readable(k)?, on.readable(v)?);
    let shapes = [dims::<5>(q.layout())?, dims(k.layout())?, dims(v.layout())?];
    let ([b, h, y, x, _], [.., e]) = (shapes[0], shapes[2]);
    let mut o = Buffer::<T, 5>::new(&on, [b, h, y, x, e])?;
    let mut saved = SavedBuffers::new(&on, shapes[0], e)?;
    {
        let (q, k, v) = (Read::of(&q), Read::of(&k), Read::of(&v));
        let args = Forward {
            q: q.view::<T, 5>()?,
            k: k.view()?,
            v: v.view()?,
            o: o.view_mut()?,
            saved: Some(Saved {
                summary: saved.summary.view_mut()?,
                max: saved.max.view_mut()?,
                sum: saved.sum.view_mut()?,
            }),
        };
        let bytes = op.forward_workspace_bytes(on.device(), &args.problem());
        on.with_workspace(bytes, |workspace| op.forward_into(on.device(), args, workspace))?;
    }
    attach(Content::NAME, o.into_storage(), &edges, move |_, d_o| {
        let on = On::of(q.device(), Content::NAME)?;
        let d_o = on.readable(d_o)?;
        let mut dq = wanted::<T, 5>(&on, wants[0], shapes[0])?;
        let mut dk = wanted::<T, 5>(&on, wants[1], shapes[1])?;
        let mut dv = wanted::<T, 5>(&on, wants[2], shapes[2])?;
        {
            let (q, k, v, d_o) = (Read::of(&q), Read::of(&k), Read::of(&v), Read::of(&d_o));
            let args = Backward {
                q: q.view::<T, 5>()?,
                k: k.view()?,
                v: v.view()?,
                saved: Saved {
                    summary: saved.summary.view()?,
                    max: saved.max.view()?,
                    sum: saved.sum.view()?,
                },
                d_o: d_o.view()?,
                dq: maybe_mut(&mut dq)?,
                dk: maybe_mut(&mut dk)?,
                dv: maybe_mut(&mut dv)?,
            };
            let bytes = op.backward_workspace_bytes(on.device(), &args.problem());
            on.with_workspace(bytes, |workspace| op.backward_into(on.device(), args, workspace))?;
        }
        Ok(vec![grad_like(dq, &q)?, grad_like(dk, &k)?, grad_like(dv, &v)?])
    })
}
