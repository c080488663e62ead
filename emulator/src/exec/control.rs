//! Control flow and fences: PTX ISA, *Control Flow Instructions* and *membar, fence*.

use super::Op;
use super::moves::nothing;
use crate::block::Block;
use crate::decode::{Decoder, Opcode, Ty};
use crate::error::{LoadError, StopKind};
use crate::ir::{Flow, Insn};
use crate::parse::Operand;
use crate::warp::Warp;

struct Trap;

impl Op for Trap {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        let what = if i.flags == 0 { "trap" } else { "breakpoint" };
        b.fault(w, Some(mask.trailing_zeros()), StopKind::Trap, what.into());
    }
}

struct Pause;

impl Op for Pause {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, _: &mut Block, _: &Insn, _: u32) {
        w.pause = true;
    }
}

/// `bra`, `brx.idx`, `ret`, `exit`, `trap`, `brkpt`, `nanosleep`, `membar`, `fence`, `pmevent`.
pub(crate) fn decode(cx: &mut Decoder<'_>, op: &mut Opcode, args: &[Operand]) -> Result<Insn, LoadError> {
    let mut insn = nothing(cx);
    match op.base() {
        "bra" => {
            insn.flow = if op.take("uni") { Flow::BranchUniform } else { Flow::Branch };
            match args {
                [Operand::Label(target)] => insn.target = *target,
                _ => return Err(op.refuse("a label is wanted")),
            }
        }
        "brx" => {
            op.need("idx")?;
            op.take("uni");
            insn.flow = Flow::BranchIndexed;
            match args {
                [index, Operand::Table(table)] => {
                    insn.a = cx.src(index, Ty::U32)?;
                    insn.ext = cx.table(*table).into();
                }
                _ => return Err(op.refuse("an index and a list of labels are wanted")),
            }
        }
        "ret" | "exit" => {
            op.take("uni");
            cx.count(op, args, 0)?;
            insn.flow = Flow::Exit;
        }
        "trap" | "brkpt" => {
            cx.count(op, args, 0)?;
            insn = cx.insn(cx.mode.exec::<Trap>());
            insn.flags = (op.base() == "brkpt") as u16;
            insn.flow = Flow::Effect;
        }
        "nanosleep" => {
            op.need("u32")?;
            cx.count(op, args, 1)?;
            cx.src(&args[0], Ty::U32)?;
            insn = cx.insn(cx.mode.exec::<Pause>());
            insn.flow = Flow::Effect;
        }
        // Every access here is performed in program order at once, so there is nothing to order.
        "membar" => {
            op.must_one_of(&[("cta", ()), ("gl", ()), ("sys", ())])?;
            cx.count(op, args, 0)?;
        }
        "fence" => {
            if op.has("proxy") || op.has("mbarrier_init") {
                return super::hopper::decode(cx, op, args);
            }
            op.one_of(&[("sc", ()), ("acq_rel", ()), ("acquire", ()), ("release", ())]);
            op.must_one_of(&[("cta", ()), ("cluster", ()), ("gpu", ()), ("sys", ())])?;
            cx.count(op, args, 0)?;
        }
        _ => return Err(op.refuse("unknown instruction")),
    }
    Ok(insn)
}

/// `__assertfail(message, file, line, function, size)`: the arguments' offsets in local memory are in `ext`.
struct AssertFail;

impl Op for AssertFail {
    unsafe fn run<const SAN: bool, const COUNT: bool>(w: &mut Warp, b: &mut Block, i: &Insn, mask: u32) {
        let lane = mask.trailing_zeros();
        let argument = |k: usize| -> u64 {
            let Some(offset) = i.ext.get(k) else { return 0 };
            let word = (lane * w.local_bytes + offset) as usize / 8;
            w.local.get(word).copied().unwrap_or(0) >> ((offset % 8) * 8)
        };
        let (message, file) = (text_at(b, argument(0)), text_at(b, argument(1)));
        let text = format!("assertion `{message}` failed at {file}:{}", argument(2) as u32);
        b.fault(w, Some(lane), StopKind::Trap, text);
    }
}

/// The zero-terminated text at a global address.
fn text_at(b: &Block, address: u64) -> String {
    let Some(owner) = b.launch.memory.owner(address) else { return "?".into() };
    let mut bytes = Vec::new();
    let mut offset = address.wrapping_sub(owner.base);
    while offset < owner.len && bytes.len() < 1024 {
        match owner.byte(offset).load(std::sync::atomic::Ordering::Relaxed) {
            0 => break,
            byte => bytes.push(byte),
        }
        offset += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// See [`AssertFail`].
pub(crate) fn assert_fail(cx: &mut Decoder<'_>, offsets: &[u64]) -> Insn {
    let mut insn = cx.insn(cx.mode.exec::<AssertFail>());
    insn.flow = Flow::Effect;
    insn.ext = offsets.iter().map(|offset| *offset as u32).collect();
    insn
}
