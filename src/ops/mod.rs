//! The ops: settings checked once, shapes checked per call, cost, and plans. No device code.

pub mod axial;
pub mod content;
pub mod gaussian;
pub mod gsa;
pub mod local;
mod planning;
pub mod value_mixture;

use crate::tensor::HostView;
use crate::{Error, Result, View};

/// `shape` is `want`, or an error that names the argument.
pub(crate) fn check_shape<const R: usize>(
    op: &'static str,
    arg: &'static str,
    got: [usize; R],
    want: [usize; R],
) -> Result<()> {
    if got == want {
        Ok(())
    } else {
        Err(Error::input(op, arg, format!("of shape {want:?}"), format!("{got:?}")))
    }
}

/// The largest number of channels per head, of keys or of values.
pub const CHANNELS_MAX: usize = 128;

pub(crate) fn check_channels(op: &'static str, arg: &'static str, channels: usize) -> Result<()> {
    if (1..=CHANNELS_MAX).contains(&channels) {
        Ok(())
    } else {
        Err(Error::input(op, arg, format!("of 1 to {CHANNELS_MAX} channels per head"), channels))
    }
}

/// Both vectors of batch norm's weight and bias, or of its statistics, in host memory.
pub(crate) fn host_pair<'a>(
    op: &'static str,
    pair: Option<[View<'a, f32, 2>; 2]>,
    arg: &'static str,
) -> Result<Option<[HostView<'a, f32, 2>; 2]>> {
    match pair {
        Some([a, b]) => Ok(Some([a.host(op, arg)?, b.host(op, arg)?])),
        None => Ok(None),
    }
}
