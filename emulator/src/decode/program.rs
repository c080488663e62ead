//! A whole kernel: its variables laid out, calls inlined, every statement decoded, branches patched.

use std::collections::HashMap;
use std::sync::Arc;

use super::operand::{Decoder, Home};
use super::{Mode, Opcode, Ty, family};
use crate::error::LoadError;
use crate::exec;
use crate::ir::{ALWAYS, Flow, Insn, Place, Slot};
use crate::parse::{Function, Operand, Statement, Unit, VarSpace};
use crate::program::Program;

/// What names of the module mean.
pub(crate) struct Symbols<'a> {
    pub unit: &'a Unit,
    /// Address and size of `.global` and `.const` variables.
    pub globals: &'a HashMap<String, (u64, u64)>,
    pub files: &'a Arc<Vec<(u32, String)>>,
}

/// Calls nested deeper than this are taken for recursion.
const DEEPEST: usize = 24;

/// Predicates 0 to 2 are: always true, results for `_`, the carry.
const TRASH_PRED: Slot = 1;
const CARRY_PRED: Slot = 2;
const FIRST_PRED: Slot = 3;

/// Decodes function `number` of the unit as a kernel.
pub(crate) fn decode_entry(
    symbols: &Symbols<'_>,
    number: usize,
    mode: Mode,
    shared_base: u32,
) -> Result<Program, LoadError> {
    let entry = &symbols.unit.functions[number];
    let layout = SharedLayout::of(symbols.unit, entry, shared_base)?;
    let lookup = |name: &str| -> Option<u64> {
        layout.addresses.get(name).copied().or_else(|| symbols.globals.get(name).map(|(address, _)| *address))
    };
    let mut builder = Builder {
        unit: symbols.unit,
        layout: &layout,
        cx: Decoder {
            mode,
            line: entry.line,
            reg_names: &[],
            variable_names: Vec::new(),
            homes: Vec::new(),
            symbols: &lookup,
            variables: Vec::new(),
            variable_spaces: Vec::new(),
            tables: Vec::new(),
            rows: 2,
            constants: HashMap::new(),
            constant_rows: Vec::new(),
            specials: Vec::new(),
            trash: 0,
            trash_pred: TRASH_PRED,
            carry_pred: CARRY_PRED,
            ordered: false,
        },
        preds: FIRST_PRED,
        local: 0,
        code: Vec::new(),
        places: Vec::new(),
        spellings: Vec::new(),
        calls: Vec::new(),
    };
    let mut offset = 0u64;
    let mut params = Vec::new();
    for number in &entry.params {
        let variable = &entry.variables[*number as usize];
        offset = offset.next_multiple_of(variable.align.max(1) as u64);
        params.push((offset, VarSpace::Param));
        offset += variable.bytes;
    }
    builder.function(entry, &params, &[])?;
    let end = exec::moves::nothing(&mut builder.cx);
    builder.push(Insn { flow: Flow::Exit, ..end }, Place::default(), "end of the kernel".into());

    let Builder { cx, preds, local, code, places, spellings, .. } = builder;
    let mut fixed: Vec<Slot> = cx.constant_rows.iter().map(|(slot, _)| *slot).collect();
    fixed.extend(cx.specials.iter().map(|(_, slot)| *slot));
    Ok(Program {
        name: entry.name.clone(),
        code,
        places,
        spellings,
        files: symbols.files.clone(),
        resets: ranges_without(cx.rows, fixed),
        constants: cx.constant_rows,
        rows: cx.rows as usize,
        preds: preds as usize,
        specials: cx.specials,
        local_bytes: local,
        shared_bytes: layout.bytes,
        dynamic_align: layout.dynamic_align,
        ordered: cx.ordered,
    })
}

/// The ranges of `0..end` that contain none of `holes`.
fn ranges_without(end: u32, mut holes: Vec<Slot>) -> Vec<std::ops::Range<usize>> {
    holes.sort_unstable();
    let mut out = Vec::new();
    let mut begin = 0usize;
    for hole in holes.into_iter().map(|hole| hole as usize).chain([end as usize]) {
        if begin < hole {
            out.push(begin..hole);
        }
        begin = hole + 1;
    }
    out
}

/// Where the shared variables of a kernel lie.
struct SharedLayout {
    /// Module variables by name, variables of functions as `function.name`.
    addresses: HashMap<String, u64>,
    bytes: u32,
    dynamic_align: u32,
}

impl SharedLayout {
    fn of(unit: &Unit, entry: &Function, base: u32) -> Result<SharedLayout, LoadError> {
        // What the entry and everything that it calls refer to.
        let mut functions = vec![entry];
        let mut at = 0;
        while at < functions.len() {
            let body = &functions[at].body;
            for name in body.iter().flat_map(|s| &s.args).flat_map(symbols_of) {
                if let Some(callee) = unit.functions.iter().find(|f| f.name == name)
                    && !functions.iter().any(|f| std::ptr::eq(*f, callee))
                {
                    functions.push(callee);
                }
            }
            at += 1;
        }
        let used: std::collections::HashSet<&str> =
            functions.iter().flat_map(|f| &f.body).flat_map(|s| &s.args).flat_map(symbols_of).collect();

        let mut layout = SharedLayout { addresses: HashMap::new(), bytes: 0, dynamic_align: 16 };
        let mut dynamic = Vec::new();
        let module =
            unit.variables.iter().filter(|v| used.contains(v.name.as_str())).map(|v| (v.name.clone(), v));
        let own =
            functions.iter().flat_map(|f| f.variables.iter().map(|v| (format!("{}.{}", f.name, v.name), v)));
        for (name, variable) in module.chain(own).filter(|(_, v)| v.space == VarSpace::Shared) {
            if variable.external || variable.bytes == 0 {
                layout.dynamic_align = layout.dynamic_align.max(variable.align);
                dynamic.push(name);
                continue;
            }
            if !variable.init.is_empty() {
                let problem = "shared memory cannot have initial values";
                return Err(LoadError::new(variable.line, variable.name.as_str(), problem));
            }
            let offset = (layout.bytes as u64).next_multiple_of(variable.align as u64);
            layout.addresses.insert(name, base as u64 + offset);
            layout.bytes = u32::try_from(offset + variable.bytes)
                .map_err(|_| LoadError::new(variable.line, variable.name.as_str(), "too large"))?;
        }
        let end = base as u64 + (layout.bytes as u64).next_multiple_of(layout.dynamic_align as u64);
        for name in dynamic {
            layout.addresses.insert(name, end);
        }
        Ok(layout)
    }
}

/// The names of module symbols in an operand.
fn symbols_of(operand: &Operand) -> Vec<&str> {
    match operand {
        Operand::Symbol(name, _) => vec![name],
        Operand::Memory(base, _) => symbols_of(base),
        Operand::Vector(items) | Operand::MemoryList(items) | Operand::List(items) => {
            items.iter().flat_map(symbols_of).collect()
        }
        _ => Vec::new(),
    }
}

/// A program being made.
struct Builder<'a> {
    unit: &'a Unit,
    layout: &'a SharedLayout,
    cx: Decoder<'a>,
    preds: Slot,
    local: u32,
    code: Vec<Insn>,
    places: Vec<Place>,
    spellings: Vec<Arc<str>>,
    /// Names of the functions being inlined.
    calls: Vec<String>,
}

/// An address and the space it is in.
type Location = (u64, VarSpace);

impl<'a> Builder<'a> {
    fn push(&mut self, insn: Insn, place: Place, text: Arc<str>) {
        self.code.push(insn);
        self.places.push(place);
        self.spellings.push(text);
    }

    fn local(&mut self, bytes: u64, align: u32, line: u32, name: &str) -> Result<u64, LoadError> {
        let offset = (self.local as u64).next_multiple_of(align.max(1) as u64);
        match u32::try_from(offset + bytes) {
            Ok(end) if end < 1 << 20 => {
                self.local = end;
                Ok(offset)
            }
            _ => Err(LoadError::new(line, name, "too much local memory")),
        }
    }

    /// Appends a function's instructions. Its parameters and return values are where the caller says.
    fn function(
        &mut self,
        function: &'a Function,
        params: &[Location],
        returns: &[Location],
    ) -> Result<(), LoadError> {
        let begin = self.code.len();
        let frame = self.frame(function, params, returns)?;
        let outer = (
            std::mem::replace(&mut self.cx.homes, frame.homes),
            std::mem::replace(&mut self.cx.variables, frame.addresses),
            std::mem::replace(&mut self.cx.variable_spaces, frame.spaces),
            std::mem::replace(&mut self.cx.tables, function.tables.clone()),
            std::mem::replace(&mut self.cx.reg_names, &function.reg_names),
            std::mem::replace(
                &mut self.cx.variable_names,
                function.variables.iter().map(|variable| variable.name.clone()).collect(),
            ),
        );
        // Where each statement's code begins, and which instructions are this function's own.
        let mut starts = Vec::with_capacity(function.body.len() + 1);
        let mut own = Vec::new();
        for statement in &function.body {
            starts.push(self.code.len() as u32);
            self.cx.line = statement.place.line;
            if statement.opcode.split('.').next() == Some("call") {
                self.call(function, statement)?;
                continue;
            }
            let mut insn = self.statement(statement)?;
            if insn.flow == Flow::Exit && !function.entry && statement.opcode.starts_with("ret") {
                // The end of the inlined body.
                insn.flow = Flow::Branch;
                insn.target = function.body.len() as u32;
            }
            if matches!(insn.flow, Flow::Branch | Flow::BranchUniform | Flow::BranchIndexed) {
                own.push(self.code.len());
            }
            self.push(insn, statement.place, statement.text.clone());
        }
        starts.push(self.code.len() as u32);
        for at in own {
            let insn = &mut self.code[at];
            let patch = |target: &mut u32| match starts.get(*target as usize) {
                Some(start) => {
                    *target = *start;
                    Ok(())
                }
                None => {
                    Err(LoadError::new(function.line, function.name.as_str(), "a label outside the function"))
                }
            };
            if insn.flow == Flow::BranchIndexed {
                insn.ext.iter_mut().try_for_each(patch)?;
            } else {
                patch(&mut insn.target)?;
            }
        }
        let cx = &mut self.cx;
        (cx.homes, cx.variables, cx.variable_spaces, cx.tables, cx.reg_names, cx.variable_names) = outer;
        debug_assert!(begin <= self.code.len());
        Ok(())
    }

    /// Homes for the registers and places for the variables of one instance of a function.
    fn frame(
        &mut self,
        function: &Function,
        params: &[Location],
        returns: &[Location],
    ) -> Result<Frame, LoadError> {
        let mut homes = Vec::with_capacity(function.regs.len());
        let rows = super::registers::assign(function);
        for (ty, first) in function.regs.iter().zip(&rows.first) {
            if *ty == Ty::Pred {
                homes.push(Home { ty: *ty, slot: self.preds });
                self.preds += 1;
            } else {
                homes.push(Home { ty: *ty, slot: self.cx.rows + first });
            }
        }
        self.cx.rows += rows.count;
        let mut frame = Frame { homes, addresses: Vec::new(), spaces: Vec::new() };
        for (number, variable) in function.variables.iter().enumerate() {
            let number = number as u32;
            let position = |list: &[u32]| list.iter().position(|n| *n == number);
            let (address, space) = if let Some(k) = position(&function.params) {
                params[k]
            } else if let Some(k) = position(&function.returns) {
                returns[k]
            } else {
                match variable.space {
                    VarSpace::Shared => {
                        let name = format!("{}.{}", function.name, variable.name);
                        (self.layout.addresses.get(&name).copied().unwrap_or(0), VarSpace::Shared)
                    }
                    // Arguments of calls are kept in local memory.
                    VarSpace::Local | VarSpace::Param => {
                        let name = variable.name.as_str();
                        let offset = self.local(variable.bytes, variable.align, variable.line, name)?;
                        (offset, VarSpace::Local)
                    }
                    VarSpace::Global | VarSpace::Const => {
                        let problem = "global variables inside functions are not supported";
                        return Err(LoadError::new(variable.line, variable.name.as_str(), problem));
                    }
                }
            };
            frame.addresses.push(address);
            frame.spaces.push(space);
        }
        Ok(frame)
    }

    fn statement(&mut self, statement: &Statement) -> Result<Insn, LoadError> {
        let mut op = Opcode::new(statement.place.line, &statement.opcode);
        let Some(family) = family(op.base()) else {
            return Err(op.refuse("unknown instruction"));
        };
        let mut insn = family(&mut self.cx, &mut op, &statement.args)?;
        if let Some(word) = op.untaken() {
            let problem = format!("unknown or misplaced modifier `.{word}`");
            return Err(op.refuse(&problem));
        }
        insn.guard = match statement.guard {
            None => ALWAYS,
            Some((reg, negated)) => {
                self.cx.pred_src(&if negated { Operand::Not(reg) } else { Operand::Reg(reg) })?
            }
        };
        Ok(insn)
    }

    /// `call[.uni] [(result),] function[, (arguments)];`: the function's body, with its parameters where the
    /// arguments are.
    fn call(&mut self, caller: &Function, statement: &Statement) -> Result<(), LoadError> {
        let mut op = Opcode::new(statement.place.line, &statement.opcode);
        op.take("uni");
        if let Some(word) = op.untaken() {
            let problem = format!("unknown or misplaced modifier `.{word}`");
            return Err(op.refuse(&problem));
        }
        let (results, name, arguments): (&[Operand], &str, &[Operand]) = match statement.args.as_slice() {
            [Operand::List(r), Operand::Symbol(name, 0), Operand::List(a)] => (r, name, a),
            [Operand::List(r), Operand::Symbol(name, 0)] => (r, name, &[]),
            [Operand::Symbol(name, 0), Operand::List(a)] => (&[], name, a),
            [Operand::Symbol(name, 0)] => (&[], name, &[]),
            _ => return Err(op.refuse("only direct calls are supported")),
        };
        let locations = |cx: &Decoder<'_>, list: &[Operand]| -> Result<Vec<Location>, LoadError> {
            list.iter()
                .map(|operand| match operand {
                    Operand::Variable(number, 0) => {
                        Ok((cx.variables[*number as usize], cx.variable_spaces[*number as usize]))
                    }
                    other => Err(cx.error(cx.show(other), "only `.param` variables can be passed")),
                })
                .collect()
        };
        let (results, arguments) = (locations(&self.cx, results)?, locations(&self.cx, arguments)?);
        let place = statement.place;
        // Lanes whose guard fails step over the whole body.
        let skip = match statement.guard {
            None => None,
            Some((reg, negated)) => {
                let operand = if negated { Operand::Reg(reg) } else { Operand::Not(reg) };
                let mut insn = exec::moves::nothing(&mut self.cx);
                insn.flow = Flow::Branch;
                insn.guard = self.cx.pred_src(&operand)?;
                self.push(insn, place, statement.text.clone());
                Some(self.code.len() - 1)
            }
        };
        if name == "__assertfail" {
            let insn =
                exec::control::assert_fail(&mut self.cx, &arguments.iter().map(|a| a.0).collect::<Vec<_>>());
            self.push(insn, place, statement.text.clone());
        } else {
            let callee = self.unit.functions.iter().find(|f| f.name == name && !f.external && !f.entry);
            let Some(callee) = callee else {
                return Err(LoadError::new(place.line, name, "a function without a body cannot be called"));
            };
            if self.calls.len() >= DEEPEST || self.calls.iter().any(|n| n == name) || caller.name == name {
                return Err(LoadError::new(place.line, name, "recursive calls are not supported"));
            }
            if (callee.params.len(), callee.returns.len()) != (arguments.len(), results.len()) {
                return Err(LoadError::new(place.line, name, "called with another number of arguments"));
            }
            self.calls.push(name.to_string());
            self.function(callee, &arguments, &results)?;
            self.calls.pop();
        }
        self.cx.line = place.line;
        if let Some(at) = skip {
            self.code[at].target = self.code.len() as u32;
        }
        Ok(())
    }
}

struct Frame {
    homes: Vec<Home>,
    addresses: Vec<u64>,
    spaces: Vec<VarSpace>,
}
