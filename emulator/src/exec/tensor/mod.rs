//! `ldmatrix`, `stmatrix`, `movmatrix`, `mma` (PTX ISA, *Warp Level Matrix Multiply-Accumulate Instructions*).
//!
//! [`layout`] says which lane holds which element; nothing else here knows. Sparse, integer, binary, f64 and 8-bit
//! forms, `wmma`, and Hopper's `wgmma` are refused by name.

mod layout;
mod matrix;
mod mma;

use crate::block::Block;
use crate::decode::{Decoder, Opcode};
use crate::error::{LoadError, StopKind};
use crate::ir::Insn;
use crate::parse::Operand;
use crate::warp::Warp;

/// Decodes the matrix instructions.
pub(crate) fn decode(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    match op.base() {
        "ldmatrix" => matrix::decode_load(cx, op, args),
        "stmatrix" => matrix::decode_store(cx, op, args),
        "movmatrix" => matrix::decode_move(cx, op, args),
        "mma" => mma::decode(cx, op, args),
        other => Err(op.refuse(&format!("`{other}` is not supported"))),
    }
}

/// Whether all 32 lanes take part, as `.sync.aligned` forms demand; if not, the launch stops.
#[inline(always)]
fn whole_warp(w: &Warp, b: &mut Block, mask: u32) -> bool {
    if mask == !0 {
        return true;
    }
    let text = format!("executed by lanes {mask:#010x} of a warp; it needs all 32");
    b.fault(w, Some(mask.trailing_zeros()), StopKind::Divergence, text);
    false
}
