//! `gaussian`: a radius of three pixels, and one of a whole stage; and kernels that are not separable.

use super::{Case, Layer, Make};
use crate::Failure;
use crate::timing::Call;
use macula::gaussian::{Backward, Forward, GaussianConfig, Kernel};
use macula::{Cuda, Element, Gaussian, Tensor};

const RADII: [(&str, Kernel, f32); 4] = [
    ("radius3", Kernel::Gaussian, 3.0),
    ("radius10", Kernel::Gaussian, 10.0),
    ("exponential3", Kernel::Exponential, 3.0),
    ("linear10", Kernel::Linear, 10.0),
];

fn forward<T: Element>(op: Gaussian, make: &Make<'_>, layer: Layer, radius: f32) -> Result<Call, Failure> {
    let on = make.gpu.clone();
    let v = make.tensor::<T, 5>(1, layer.shape)?;
    let sigma = Tensor::from_vec(vec![radius], [1])?.to(&on)?;
    let mut o = make.zeros::<T, 5>(layer.shape)?;
    let mut scratch = make.scratch(op.forward_workspace_bytes(&on, layer.shape, T::DTYPE)?)?;
    Ok(Box::new(move || {
        let args = Forward { v: v.view(), sigma: sigma.view(), o: o.view_mut() };
        op.forward_into(&on, args, scratch.lend())
    }))
}

fn backward<T: Element>(op: Gaussian, make: &Make<'_>, layer: Layer, radius: f32) -> Result<Call, Failure> {
    let on = make.gpu.clone();
    let (v, d_o) = (make.tensor::<T, 5>(1, layer.shape)?, make.tensor::<T, 5>(2, layer.shape)?);
    let sigma = Tensor::from_vec(vec![radius], [1])?.to(&on)?;
    let (mut dv, mut dsigma) = (make.zeros::<T, 5>(layer.shape)?, make.zeros::<f32, 1>([1])?);
    let mut scratch = make.scratch(op.backward_workspace_bytes(&on, layer.shape, T::DTYPE)?)?;
    Ok(Box::new(move || {
        let args = Backward {
            v: v.view(),
            sigma: sigma.view(),
            d_o: d_o.view(),
            dv: Some(dv.view_mut()),
            dsigma: Some(dsigma.view_mut()),
        };
        op.backward_into(&on, args, scratch.lend())
    }))
}

pub fn cases<T: Element>(gpu: &Cuda, layer: Layer) -> Vec<Case<'_>> {
    let case = |variant, pass, cost, make| Case {
        op: Gaussian::NAME,
        pass,
        variant,
        layer,
        dtype: T::DTYPE,
        cost,
        make,
    };
    let both = |(variant, kernel, radius): (&'static str, Kernel, f32)| {
        let op = Gaussian::new(GaussianConfig { kernel, ..Default::default() })
            .expect("only windows can be wrong"); // proof: there is none
        let fwd = op.forward_cost(layer.shape, T::DTYPE);
        let bwd = op.backward_cost(layer.shape, T::DTYPE);
        [
            case(
                variant,
                "forward",
                fwd,
                Box::new(move |seed| forward::<T>(op, &Make { gpu, seed }, layer, radius)) as _,
            ),
            case(
                variant,
                "backward",
                bwd,
                Box::new(move |seed| backward::<T>(op, &Make { gpu, seed }, layer, radius)),
            ),
        ]
    };
    RADII.into_iter().flat_map(both).collect()
}
