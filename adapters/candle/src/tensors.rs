//! What every op asks of its tensors.

use candle_core::{DType, Error, Result, Tensor};

/// All on the device of the first.
pub(crate) fn same_device(op: &'static str, tensors: &[&Tensor]) -> Result<()> {
    for pair in tensors.windows(2) {
        let (lhs, rhs) = (pair[0].device().location(), pair[1].device().location());
        if lhs != rhs {
            return Err(Error::DeviceMismatchBinaryOp { lhs, rhs, op }.bt());
        }
    }
    Ok(())
}

/// All of the element type of the first.
pub(crate) fn same_dtype(op: &'static str, tensors: &[&Tensor]) -> Result<()> {
    for pair in tensors.windows(2) {
        let (lhs, rhs) = (pair[0].dtype(), pair[1].dtype());
        if lhs != rhs {
            return Err(Error::DTypeMismatchBinaryOp { lhs, rhs, op }.bt());
        }
    }
    Ok(())
}

/// A parameter that is computed with in f32, as a `[heads, channels]` matrix; `[channels]` is shared by the heads. Gradients
/// flow through.
pub(crate) fn matrix(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.to_dtype(DType::F32)?;
    if tensor.rank() == 1 { tensor.unsqueeze(0) } else { Ok(tensor) }
}

/// A table as `[heads, rows, channels]`; `[rows, channels]` is shared by the heads. Gradients flow through.
pub(crate) fn table(tensor: &Tensor) -> Result<Tensor> {
    if tensor.rank() == 2 { tensor.unsqueeze(0) } else { Ok(tensor.clone()) }
}
