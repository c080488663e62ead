//! What only compute capability 9.0 has, and the asynchronous barriers it is built on: tensor maps, bulk copies,
//! `mbarrier`, `wgmma`, clusters. No kernel needs them yet; each is refused by name.

use crate::decode::{Decoder, Opcode};
use crate::error::LoadError;
use crate::ir::Insn;
use crate::parse::Operand;

/// Refuses.
pub(crate) fn decode(_: &mut Decoder<'_>, op: &mut Opcode, _: &[Operand]) -> Result<Insn, LoadError> {
    let what = match op.base() {
        "wgmma" => "warpgroup matrix instructions",
        "mbarrier" => "asynchronous barriers",
        "cp" => "bulk copies",
        "setmaxnreg" => "register reallocation",
        "tensormap" | "prefetch" => "tensor maps",
        "griddepcontrol" => "dependent launches",
        "mapa" | "getctarank" | "barrier" | "clusterlaunchcontrol" => "clusters",
        _ => "instructions of sm_90",
    };
    Err(op.refuse(&format!("{what} are not supported")))
}
