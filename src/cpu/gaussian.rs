//! `gaussian` on the CPU.

use crate::config::gaussian::GaussianConfig;
use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Error, Result};

/// `o = A(σ) v`. Shapes have been checked: v and o `[b,h,y,x,d]`, sigma `[h]` or `[1]`, nothing empty.
pub(crate) fn forward<T: Element>(
    _config: &GaussianConfig,
    _v: HostView<'_, T, 5>,
    _sigma: HostView<'_, f32, 1>,
    _o: HostViewMut<'_, T, 5>,
) -> Result<()> {
    Err(Error::unsupported("gaussian", "the CPU path is not in this build"))
}

/// Both gradients; one that is `None` is not computed. Shapes have been checked.
pub(crate) fn backward<T: Element>(
    _config: &GaussianConfig,
    _v: HostView<'_, T, 5>,
    _sigma: HostView<'_, f32, 1>,
    _d_o: HostView<'_, T, 5>,
    _dv: Option<HostViewMut<'_, T, 5>>,
    _dsigma: Option<HostViewMut<'_, f32, 1>>,
) -> Result<()> {
    Err(Error::unsupported("gaussian", "the CPU path is not in this build"))
}
