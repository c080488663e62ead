//! Operands to slots.

use std::collections::HashMap;

use super::{ADDRESS_64, Mode, Opcode, Ty};
use crate::error::LoadError;
use crate::ir::{ALWAYS, Exec, Flow, Insn, NONE, PredSrc, Slot};
use crate::parse::{Operand, Reg, VarSpace};
use crate::program::Special;
use crate::regs::{LANES, Row};

/// Where a register of the function lives: a row, or a predicate index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home {
    pub ty: Ty,
    pub slot: Slot,
}

/// Turns one function's instructions into slots. Families call its methods; see [`crate::exec`] for a guide.
pub(crate) struct Decoder<'a> {
    /// What to decode for.
    pub mode: Mode,
    /// Line of the instruction at hand.
    pub line: u32,
    /// Names of the registers and variables, by number.
    pub(super) reg_names: &'a [String],
    pub(super) variable_names: Vec<String>,
    /// Register homes, by number.
    pub(super) homes: Vec<Home>,
    /// Addresses of symbols.
    pub(super) symbols: &'a dyn Fn(&str) -> Option<u64>,
    /// Addresses of the function's own variables, by number.
    pub(super) variables: Vec<u64>,
    /// Where they live; call arguments live in local memory.
    pub(super) variable_spaces: Vec<VarSpace>,
    /// Lists of labels, as instruction indices of the function.
    pub(super) tables: Vec<Vec<u32>>,
    /// The next free row.
    pub(super) rows: u32,
    pub(super) constants: HashMap<(u64, bool), Slot>,
    pub(super) constant_rows: Vec<(Slot, Row)>,
    pub(super) specials: Vec<(Special, Slot)>,
    /// Two rows that nobody reads: where results for `_` go.
    pub(super) trash: Slot,
    /// The predicate that nobody reads.
    pub(super) trash_pred: Slot,
    /// The predicate that holds the carry of `add.cc` and its like.
    pub(super) carry_pred: Slot,
    /// Set by instructions whose result may depend on the order of blocks.
    pub ordered: bool,
}

impl Decoder<'_> {
    /// An instruction with this function and nothing else.
    pub fn insn(&self, run: Exec) -> Insn {
        Insn {
            run,
            flow: Flow::Plain,
            width: 0,
            flags: 0,
            guard: ALWAYS,
            d: NONE,
            a: NONE,
            b: NONE,
            c: NONE,
            target: 0,
            imm: 0,
            ext: Box::new([]),
        }
    }

    /// An error at the instruction at hand.
    pub fn error(&self, spelling: impl Into<String>, problem: impl Into<String>) -> LoadError {
        LoadError::new(self.line, spelling, problem)
    }

    /// An operand as the text spells it.
    pub fn show(&self, operand: &Operand) -> String {
        let list =
            |items: &[Operand]| items.iter().map(|item| self.show(item)).collect::<Vec<_>>().join(", ");
        let offset = |n: i64| if n == 0 { String::new() } else { format!("{n:+}") };
        let reg = |reg: Reg| self.reg_names.get(reg as usize).cloned().unwrap_or_default();
        match operand {
            Operand::Reg(r) => reg(*r),
            Operand::Not(r) => format!("!{}", reg(*r)),
            Operand::Variable(number, n) => {
                let name = self.variable_names.get(*number as usize).cloned().unwrap_or_default();
                format!("{name}{}", offset(*n))
            }
            Operand::Vector(items) => format!("{{{}}}", list(items)),
            Operand::MemoryList(items) => format!("[{}]", list(items)),
            Operand::List(items) => format!("({})", list(items)),
            Operand::Memory(base, n) => format!("[{}{}]", self.show(base), offset(*n)),
            Operand::Pair(a, b) => format!("{}|{}", self.show(a), self.show(b)),
            Operand::Sink => "_".into(),
            Operand::Int(value) => format!("{}", *value as i64),
            Operand::F32(bits) => format!("0f{bits:08X}"),
            Operand::F64(bits) => format!("0d{bits:016X}"),
            Operand::Special(name) => format!("%{name}"),
            Operand::Symbol(name, n) => format!("{name}{}", offset(*n)),
            Operand::Label(_) => "a label".into(),
            Operand::Table(_) => "a list of labels".into(),
        }
    }

    /// Insists on a number of operands.
    pub fn count(&self, op: &Opcode, args: &[Operand], wanted: usize) -> Result<(), LoadError> {
        if args.len() == wanted {
            return Ok(());
        }
        Err(op.refuse(&format!("takes {wanted} operands, got {}", args.len())))
    }

    /// Where the variable that an address names lives, if it names one of the function's own.
    pub fn variable_space(&self, operand: &Operand) -> Option<VarSpace> {
        match operand {
            Operand::Memory(base, _) => match &**base {
                Operand::Variable(number, _) => Some(self.variable_spaces[*number as usize]),
                _ => None,
            },
            _ => None,
        }
    }

    /// The instructions that a list of labels names.
    pub fn table(&self, number: u32) -> Vec<u32> {
        self.tables[number as usize].clone()
    }

    /// The predicate index of the carry.
    pub fn carry(&self) -> Slot {
        self.carry_pred
    }

    fn home(&self, reg: Reg) -> Home {
        self.homes[reg as usize]
    }

    /// The type with which a register operand was declared.
    pub fn declared(&self, operand: &Operand) -> Option<Ty> {
        match operand {
            Operand::Reg(reg) => Some(self.home(*reg).ty),
            _ => None,
        }
    }

    /// The row of a constant that is the same in all lanes.
    pub fn constant(&mut self, value: u64, wide: bool) -> Slot {
        let value = if wide { value } else { value as u32 as u64 };
        if let Some(slot) = self.constants.get(&(value, wide)) {
            return *slot;
        }
        let slot = self.rows;
        self.constants.insert((value, wide), slot);
        if wide {
            let mut words = [0; LANES];
            for (k, word) in words.iter_mut().enumerate() {
                *word = if k % 2 == 0 { value as u32 } else { (value >> 32) as u32 };
            }
            self.constant_rows.extend([(slot, Row(words)), (slot + 1, Row(words))]);
            self.rows += 2;
        } else {
            self.constant_rows.push((slot, Row([value as u32; LANES])));
            self.rows += 1;
        }
        slot
    }

    fn special(&mut self, special: Special) -> Slot {
        if let Some((_, slot)) = self.specials.iter().find(|(s, _)| *s == special) {
            return *slot;
        }
        let slot = self.rows;
        self.rows += 1;
        self.specials.push((special, slot));
        slot
    }

    /// A source of exactly this width.
    pub fn src(&mut self, operand: &Operand, ty: Ty) -> Result<Slot, LoadError> {
        let (slot, bits) = self.src_at_least(operand, ty)?;
        if bits != ty.bits() && !(bits < 32 && ty.bits() < 32) {
            let problem = format!("a register of {bits} bits where {} are wanted", ty.bits());
            return Err(self.error(self.show(operand), problem));
        }
        Ok(slot)
    }

    /// A source of this width or, for instructions that may cut it off (`st`, `cvt`), wider: its row and its
    /// register's width.
    pub fn src_at_least(&mut self, operand: &Operand, ty: Ty) -> Result<(Slot, u32), LoadError> {
        let wide = ty.bits() == 64;
        match operand {
            Operand::Reg(reg) => {
                let home = self.home(*reg);
                if home.ty == Ty::Pred {
                    return Err(self.error(self.show(operand), "a predicate where a number is wanted"));
                }
                if home.ty.bits() < ty.bits() {
                    let problem =
                        format!("a register of {} bits where {} are wanted", home.ty.bits(), ty.bits());
                    return Err(self.error(self.show(operand), problem));
                }
                Ok((home.slot, home.ty.bits()))
            }
            Operand::Int(_)
            | Operand::F32(_)
            | Operand::F64(_)
            | Operand::Symbol(..)
            | Operand::Variable(..) => {
                let value = self.immediate(operand, ty)?;
                Ok((self.constant(value, wide), ty.bits()))
            }
            Operand::Special(name) => {
                if let Some(value) = match name.as_str() {
                    "WARP_SZ" => Some(LANES as u64),
                    _ => None,
                } {
                    return Ok((self.constant(value, wide), ty.bits()));
                }
                match special_register(name) {
                    Some(special) if ty.bits() <= 32 => Ok((self.special(special), ty.bits())),
                    Some(_) => Err(self.error(format!("%{name}"), "a special register of 32 bits")),
                    None => Err(self.error(format!("%{name}"), "unknown register")),
                }
            }
            _ => Err(self.error(self.show(operand), "not a source operand")),
        }
    }

    /// The bits of an immediate or of a symbol's address, for an operand of this type.
    pub fn immediate(&self, operand: &Operand, ty: Ty) -> Result<u64, LoadError> {
        match operand {
            Operand::Int(value) => Ok(*value),
            Operand::F32(bits) if ty.bits() == 32 => Ok(*bits as u64),
            Operand::F32(bits) if ty == Ty::F64 => Ok((f32::from_bits(*bits) as f64).to_bits()),
            Operand::F64(bits) if ty.bits() == 64 => Ok(*bits),
            Operand::F64(bits) if ty == Ty::F32 => Ok((f64::from_bits(*bits) as f32).to_bits() as u64),
            Operand::Symbol(name, offset) => match (self.symbols)(name) {
                Some(address) => Ok(address.wrapping_add(*offset as u64)),
                None => Err(self.error(name.as_str(), "unknown symbol")),
            },
            Operand::Variable(number, offset) => {
                Ok(self.variables[*number as usize].wrapping_add(*offset as u64))
            }
            _ => Err(self.error(self.show(operand), "not an immediate of this type")),
        }
    }

    /// A destination of this width; for `_`, rows that nobody reads.
    pub fn dst(&mut self, operand: &Operand, ty: Ty) -> Result<Slot, LoadError> {
        let (slot, bits) = self.dst_at_least(operand, ty)?;
        if bits != ty.bits() && !(bits <= 32 && ty.bits() < 32) {
            let problem = format!("a register of {bits} bits where {} are written", ty.bits());
            return Err(self.error(self.show(operand), problem));
        }
        Ok(slot)
    }

    /// A destination of this width or wider: its row and its register's width.
    pub fn dst_at_least(&mut self, operand: &Operand, ty: Ty) -> Result<(Slot, u32), LoadError> {
        match operand {
            Operand::Sink => Ok((self.trash, ty.bits())),
            Operand::Reg(reg) => {
                let home = self.home(*reg);
                if home.ty == Ty::Pred || home.ty.bits() < ty.bits() {
                    let problem =
                        format!("a register of {} bits where {} are written", home.ty.bits(), ty.bits());
                    return Err(self.error(self.show(operand), problem));
                }
                Ok((home.slot, home.ty.bits()))
            }
            _ => Err(self.error(self.show(operand), "not a destination")),
        }
    }

    /// A predicate as a source, negated or not.
    pub fn pred_src(&mut self, operand: &Operand) -> Result<PredSrc, LoadError> {
        let (reg, negated) = match operand {
            Operand::Reg(reg) => (*reg, 0),
            Operand::Not(reg) => (*reg, 1),
            // Mask 0 is always true.
            Operand::Int(value) => return Ok((*value == 0) as PredSrc),
            _ => return Err(self.error(self.show(operand), "not a predicate")),
        };
        let home = self.home(reg);
        if home.ty != Ty::Pred {
            return Err(self.error(self.show(operand), "not a predicate"));
        }
        Ok(home.slot * 2 + negated)
    }

    /// A predicate as a destination; for `_`, one that nobody reads.
    pub fn pred_dst(&mut self, operand: &Operand) -> Result<Slot, LoadError> {
        match operand {
            Operand::Sink => Ok(self.trash_pred),
            Operand::Reg(reg) if self.home(*reg).ty == Ty::Pred => Ok(self.home(*reg).slot),
            _ => Err(self.error(self.show(operand), "not a predicate register")),
        }
    }

    /// The elements of `{a,b,…}`, which must be `wanted` many; a single operand counts as one element.
    pub fn elements<'o>(&self, operand: &'o Operand, wanted: usize) -> Result<&'o [Operand], LoadError> {
        let elements = match operand {
            Operand::Vector(elements) => elements.as_slice(),
            single => std::slice::from_ref(single),
        };
        if elements.len() != wanted {
            let problem = format!("{wanted} elements are wanted, got {}", elements.len());
            return Err(self.error(self.show(operand), problem));
        }
        Ok(elements)
    }

    /// Fills `a`, `imm` and `flags` from `[base+offset]`, for [`Warp::addresses`](crate::warp::Warp::addresses).
    pub fn address(&mut self, insn: &mut Insn, operand: &Operand) -> Result<(), LoadError> {
        let Operand::Memory(base, offset) = operand else {
            return Err(self.error(self.show(operand), "not an address"));
        };
        match &**base {
            Operand::Reg(reg) => {
                let home = self.home(*reg);
                insn.a = home.slot;
                insn.imm = *offset;
                match home.ty.bits() {
                    64 if home.ty != Ty::F64 => insn.flags |= ADDRESS_64,
                    32 if home.ty != Ty::F32 => {}
                    _ => return Err(self.error(self.show(operand), "not an address register")),
                }
            }
            other => {
                insn.a = NONE;
                insn.imm = (self.immediate(other, Ty::U64)? as i64).wrapping_add(*offset);
            }
        }
        Ok(())
    }
}

/// Special registers with a value that a warp keeps while it runs.
fn special_register(name: &str) -> Option<Special> {
    let axis = |suffix: &str| match suffix {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    if let Some((stem, suffix)) = name.split_once('.') {
        return Some(match stem {
            "tid" => Special::Tid(axis(suffix)?),
            "ntid" => Special::Ntid(axis(suffix)?),
            "ctaid" => Special::Ctaid(axis(suffix)?),
            "nctaid" => Special::Nctaid(axis(suffix)?),
            // A launch without clusters behaves as clusters of one block.
            "clusterid" => Special::Ctaid(axis(suffix)?),
            "nclusterid" => Special::Nctaid(axis(suffix)?),
            "cluster_ctaid" => axis(suffix).map(|_| Special::Zero)?,
            "cluster_nctaid" => axis(suffix).map(|_| Special::One)?,
            _ => return None,
        });
    }
    Some(match name {
        "laneid" => Special::Laneid,
        "warpid" => Special::Warpid,
        "nwarpid" => Special::Nwarpid,
        "smid" => Special::Smid,
        "nsmid" => Special::Nsmid,
        "gridid" => Special::Gridid,
        "lanemask_eq" => Special::LanemaskEq,
        "lanemask_lt" => Special::LanemaskLt,
        "lanemask_le" => Special::LanemaskLe,
        "lanemask_gt" => Special::LanemaskGt,
        "lanemask_ge" => Special::LanemaskGe,
        "dynamic_smem_size" => Special::DynamicSharedBytes,
        "total_smem_size" => Special::TotalSharedBytes,
        "cluster_ctarank" => Special::Zero,
        "cluster_nctarank" => Special::One,
        "is_explicit_cluster" => Special::Zero,
        _ => return None,
    })
}
