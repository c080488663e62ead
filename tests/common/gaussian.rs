//! Cases of the op `gaussian`: data in any layout, the truth with its bars, and a call on a device.

use crate::common::memory::{Memory, layout};
use crate::common::{check, numbers, random};
use macula::gaussian::{Backward, Forward, GaussianConfig};
use macula::reference::{Bar, gaussian};
use macula::{Device, Element, Gaussian, Workspace};

/// The three results of a case.
pub struct Results<O, S> {
    pub o: Vec<O>,
    pub dv: Vec<O>,
    pub dsigma: Vec<S>,
}

/// The truth; of separable kernels by two passes, which is how devices do it.
pub fn truth<T: Element>(
    config: &GaussianConfig,
    shape: [usize; 5],
    v: &[T],
    sigma: &[f32],
    d_o: &[T],
) -> Results<Bar<T>, Bar<T>> {
    let (v, sigma, d_o) = (numbers(v), numbers(sigma), numbers(d_o));
    let (o, grads) = if config.kernel.is_separable() {
        let o = gaussian::forward_separable(config, shape, &v, &sigma);
        (o, gaussian::backward_separable(config, shape, &v, &sigma, &d_o))
    } else {
        let o = gaussian::forward(config, shape, &v, &sigma);
        (o, gaussian::backward(config, shape, &v, &sigma, &d_o))
    };
    Results { o, dv: grads.dv, dsigma: grads.dsigma }
}

impl<T: Element> Results<Bar<T>, Bar<T>> {
    /// The first complaint about any of the three.
    pub fn judge(&self, got: &Results<T, f32>) -> Result<(), String> {
        check("o", &self.o, &got.o)?;
        check("dv", &self.dv, &got.dv)?;
        check("dsigma", &self.dsigma, &got.dsigma)
    }
}

/// A case with random data; `layouts` seeds how the tensors lie in host memory (0: contiguous).
#[derive(Clone, Debug)]
pub struct Case {
    pub config: GaussianConfig,
    pub shape: [usize; 5],
    pub sigma: Vec<f32>,
    pub layouts: u64,
    /// Which dimensions of `v` and of `d_o` have stride 0.
    pub broadcast: [[bool; 5]; 2],
}

impl Case {
    /// Contiguous.
    pub fn new(config: GaussianConfig, shape: [usize; 5], sigma: &[f32]) -> Self {
        Self { config, shape, sigma: sigma.to_vec(), layouts: 0, broadcast: [[false; 5]; 2] }
    }

    fn input<T: Element>(&self, which: u64) -> Memory<T, 5> {
        let at = layout(self.shape, self.layouts.wrapping_mul(5 + which), self.broadcast[which as usize]);
        Memory::holding(at, &random(which, self.shape.iter().product(), 1.0))
    }

    /// Runs it on host memory, outputs poisoned between guards, and judges it.
    pub fn check_host<T: Element>(&self, on: &dyn Device) -> Result<(), String> {
        let explain = |e: String| format!("{} {self:?}: {e}", T::DTYPE);
        let (v, d_o) = (self.input::<T>(0), self.input::<T>(1));
        let got = self.run_host(on, &v, &d_o).map_err(explain)?;
        truth(&self.config, self.shape, &v.values(), &self.sigma, &d_o.values()).judge(&got).map_err(explain)
    }

    /// The results on host memory.
    pub fn results_host<T: Element>(&self, on: &dyn Device) -> Results<T, f32> {
        self.run_host(on, &self.input(0), &self.input(1)).unwrap()
    }

    fn run_host<T: Element>(
        &self,
        on: &dyn Device,
        v: &Memory<T, 5>,
        d_o: &Memory<T, 5>,
    ) -> Result<Results<T, f32>, String> {
        let op = Gaussian::new(self.config).map_err(|e| e.to_string())?;
        let heads = [self.sigma.len()];
        let seed = |which: u64| self.layouts.wrapping_mul(11 + which);
        let sigma = Memory::holding(layout(heads, seed(0), [false]), &self.sigma);
        let mut o = Memory::poisoned(layout(self.shape, seed(1), [false; 5]));
        let mut dv = Memory::poisoned(layout(self.shape, seed(2), [false; 5]));
        let mut dsigma = Memory::poisoned(layout(heads, seed(3), [false]));
        let args = Forward { v: v.view(), sigma: sigma.view(), o: o.view_mut() };
        op.forward_into(on, args, Workspace::none()).map_err(|e| e.to_string())?;
        let args = Backward {
            v: v.view(),
            sigma: sigma.view(),
            d_o: d_o.view(),
            dv: Some(dv.view_mut()),
            dsigma: Some(dsigma.view_mut()),
        };
        op.backward_into(on, args, Workspace::none()).map_err(|e| e.to_string())?;
        o.check_guards("o")?;
        dv.check_guards("dv")?;
        dsigma.check_guards("dsigma")?;
        Ok(Results { o: o.values(), dv: dv.values(), dsigma: dsigma.values() })
    }
}
