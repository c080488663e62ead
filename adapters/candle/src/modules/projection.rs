//! 1×1 convolutions around attention, and the channels of heads.

use candle_core::{Error, Result, Tensor};
use candle_nn::init::{FanInOut, Init, NonLinearity, NormalOrUniform};
use candle_nn::{Linear, Module, VarBuilder};

/// Kaiming, normal, by fan-out: what public implementations of stand-alone self-attention use.
pub(super) const KAIMING_FAN_OUT: Init =
    Init::Kaiming { dist: NormalOrUniform::Normal, fan: FanInOut::FanOut, non_linearity: NonLinearity::ReLU };

/// Channels per head of so many in all.
pub(super) fn per_head(channels: usize, heads: usize) -> Result<usize> {
    if heads == 0 || channels == 0 || !channels.is_multiple_of(heads) {
        return Err(Error::Msg(format!("{channels} channels cannot be dealt out to {heads} heads")).bt());
    }
    Ok(channels / heads)
}

/// A projection without bias: `weight`, `[out, in]`.
pub(super) fn plain(inputs: usize, outputs: usize, init: Init, vb: VarBuilder<'_>) -> Result<Linear> {
    Ok(Linear::new(vb.get_with_hints((outputs, inputs), "weight", init)?, None))
}

/// A projection with bias, as candle initialises it.
pub(super) fn biased(channels: usize, vb: VarBuilder<'_>) -> Result<Linear> {
    candle_nn::linear(channels, channels, vb)
}

/// A map with its channels innermost, `[b, y, x, c]`, contiguous: one copy for all projections.
pub(super) fn channels_last(xs: &Tensor) -> Result<Tensor> {
    xs.permute((0, 2, 3, 1))?.contiguous()
}

/// The projection of `[b, y, x, c]`, its channels dealt out to heads: `[b, h, y, x, c/h]`, without a copy.
pub(super) fn project(by: &Linear, xs: &Tensor, heads: usize) -> Result<Tensor> {
    deal(&by.forward(xs)?, heads)
}

/// The channels of `[b, y, x, c]` dealt out to heads.
pub(super) fn deal(xs: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, y, x, c) = xs.dims4()?;
    xs.reshape((b, y, x, heads, c / heads))?.permute((0, 3, 1, 2, 4))
}

/// The heads of `[b, h, y, x, e]` side by side, projected if wanted: `[b, c, y, x]`.
pub(super) fn gather(o: &Tensor, output: Option<&Linear>) -> Result<Tensor> {
    let (b, h, y, x, e) = o.dims5()?;
    match output {
        Some(output) => {
            let side_by_side = o.permute((0, 2, 3, 1, 4))?.contiguous()?.reshape((b, y, x, h * e))?;
            output.forward(&side_by_side)?.permute((0, 3, 1, 2))
        }
        None => o.permute((0, 1, 4, 2, 3))?.contiguous()?.reshape((b, h * e, y, x)),
    }
}
