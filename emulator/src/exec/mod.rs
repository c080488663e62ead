//! The instructions, one file per family.
//!
//! # How to add an instruction
//!
//! 1. **Find the family's file** (or begin one) and its `decode` function, which
//!    [`crate::decode::family`] chooses by the word before the first dot of the opcode (`mma`, `ldmatrix`, …).
//!    It gets a [`Decoder`](crate::decode::Decoder), the [`Opcode`](crate::decode::Opcode) and the operands, and
//!    returns an [`crate::ir::Insn`].
//! 2. **Take every modifier.** `op.take("ftz")` is true if the word was there, `op.need("sync")?` insists,
//!    `op.one_of(&[("lo", Lo), ("hi", Hi)])?` chooses, `op.ty()?` takes a type. What nobody took is refused by the
//!    decoder afterwards with its name and line, so nothing is ever skipped. A form that is known but not done is
//!    `Err(op.refuse("why"))`.
//! 3. **Turn operands into slots.** `cx.src(&operand, Ty::F32)?` gives a row for a register, an immediate, a special
//!    register or a symbol; `cx.dst(&operand, Ty::F32)?` a row to write (for `_`, one that nobody reads); `cx.elements`
//!    opens `{a,b}`; `cx.pred_src`, `cx.pred_dst` give predicates; `cx.address(&mut insn, &operand)?` fills `a`,
//!    `imm` and `flags` so that `warp.addresses(insn)` works. Put the slots into `d`, `a`, `b`, `c`, `ext`.
//! 4. **Write the function.** Arithmetic on lanes is one line with the `unary!`, `binary!`, `ternary!` macros of
//!    [`lanes`]. Anything else is a zero-sized type with [`Op`]:
//!
//!    ```ignore
//!    struct Reverse;
//!    impl Op for Reverse {
//!        unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
//!            let a: [u32; 32] = unsafe { w.get(i.a) };          // SAFETY: the decoder made `i`
//!            unsafe { w.set(i.d, mask, a.map(u32::reverse_bits)) };
//!        }
//!    }
//!    let mut insn = cx.insn(cx.mode.exec::<Reverse>());          // picks checks, counters and vector width
//!    ```
//! 5. **Choose the flow** ([`Flow`](crate::ir::Flow)): `Plain` if it cannot fail; `Effect` if it may call
//!    `block.fault(…)`; `Aligned` for `.sync.aligned` forms without a member mask (it then runs with all living
//!    lanes of the warp, and must itself refuse `mask != !0` if it needs 32); `Member` with the mask's row in `c`.
//! 6. **Touch memory only through [`mem`]**: `mem::shared::<SAN, COUNT>(w, b, access)` and its siblings check
//!    bounds and alignment for all lanes and return host pointers; they are where checks and counters are added.
//!
//! `SAN` and `COUNT` are constants, so a launch without checks or counters pays nothing for them.

pub(crate) mod atom;
pub(crate) mod barrier;
pub(crate) mod bits;
pub(crate) mod compare;
pub(crate) mod control;
pub(crate) mod convert;
pub(crate) mod copy;
pub(crate) mod float;
pub(crate) mod half;
pub(crate) mod hopper;
pub(crate) mod int;
pub(crate) mod lane_exchange;
pub(crate) mod lanes;
pub(crate) mod ldst;
pub(crate) mod mem;
pub(crate) mod moves;
pub(crate) mod tensor;

use crate::block::Block;
use crate::ir::Insn;
use crate::warp::Warp;

/// An instruction as a zero-sized type.
pub(crate) trait Op {
    /// Executes it for the lanes of `mask`.
    ///
    /// # Safety
    /// That of [`Exec`](crate::ir::Exec).
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32);
}
