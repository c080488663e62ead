//! Every op on every CUDA device: right by the error bar of the reference, the same bits under any order of warps and
//! blocks, nothing written where nothing belongs, nothing read that was not written, every compiled entry executed.

mod axial;
mod content;
mod driver;
mod gaussian;
mod gaussian_tile;
mod gsa;
mod local;
mod local_bias;
mod refusals;
mod value_mixture;
