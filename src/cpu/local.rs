//! `local` on the CPU.

use crate::config::local::LocalConfig;
use crate::tensor::{HostView, HostViewMut};
use crate::{Element, Error, Result};

/// What a forward call reads and writes. Shapes have been checked; nothing is empty.
pub(crate) struct Forward<'a, T> {
    pub q: HostView<'a, T, 5>,
    pub k: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    /// Row and column tables.
    pub tables: Option<[HostView<'a, T, 3>; 2]>,
    pub o: HostViewMut<'a, T, 5>,
    pub lse: Option<HostViewMut<'a, f32, 4>>,
}

/// What a backward call reads and writes. A gradient that is `None` is not computed.
pub(crate) struct Backward<'a, T> {
    pub q: HostView<'a, T, 5>,
    pub k: HostView<'a, T, 5>,
    pub v: HostView<'a, T, 5>,
    pub tables: Option<[HostView<'a, T, 3>; 2]>,
    pub o: HostView<'a, T, 5>,
    pub lse: HostView<'a, f32, 4>,
    pub d_o: HostView<'a, T, 5>,
    pub dq: Option<HostViewMut<'a, T, 5>>,
    pub dk: Option<HostViewMut<'a, T, 5>>,
    pub dv: Option<HostViewMut<'a, T, 5>>,
    pub drel_h: Option<HostViewMut<'a, f32, 3>>,
    pub drel_w: Option<HostViewMut<'a, f32, 3>>,
}

/// `o = softmax(α(q·k + q·r)) v` over the window.
pub(crate) fn forward<T: Element>(_config: &LocalConfig, _args: Forward<'_, T>) -> Result<()> {
    Err(Error::unsupported("local", "the CPU path is not in this build"))
}

/// All gradients that are asked for.
pub(crate) fn backward<T: Element>(_config: &LocalConfig, _args: Backward<'_, T>) -> Result<()> {
    Err(Error::unsupported("local", "the CPU path is not in this build"))
}
