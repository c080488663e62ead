//! Gives the registers of a function rows of the register file, few enough to stay in the first-level cache.
//!
//! PTX has a register for every value, thousands in a large kernel. Two registers that are never alive at once share
//! a row: liveness by the usual backward data flow over basic blocks, then a linear scan over the stretches of text in
//! which each is alive. Lanes never disturb each other, as every write is masked: what is alive in one lane concerns
//! no other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Ty;
use crate::parse::{Function, Operand, Reg, Statement};

/// For each register its first row, counted from 0 (predicates get nothing), and the number of rows.
pub(super) struct Rows {
    pub first: Vec<u32>,
    pub count: u32,
}

/// A set of registers.
#[derive(Clone, PartialEq)]
struct Set(Vec<u64>);

impl Set {
    fn new(registers: usize) -> Set {
        Set(vec![0; registers.div_ceil(64)])
    }

    fn insert(&mut self, reg: Reg) {
        self.0[reg as usize / 64] |= 1 << (reg % 64);
    }

    fn contains(&self, reg: Reg) -> bool {
        self.0[reg as usize / 64] >> (reg % 64) & 1 != 0
    }

    fn members(&self) -> impl Iterator<Item = Reg> {
        self.0.iter().enumerate().flat_map(|(k, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                if left == 0 {
                    return None;
                }
                let bit = left.trailing_zeros();
                left &= left - 1;
                Some(k as Reg * 64 + bit)
            })
        })
    }
}

/// Statements `begin..end` that are always executed together.
struct Segment {
    begin: usize,
    end: usize,
    next: Vec<usize>,
    /// Read before written here; written here whatever the guards.
    uses: Set,
    kills: Set,
    live_in: Set,
    live_out: Set,
}

/// Whether the first operand is written.
fn writes_first(statement: &Statement) -> bool {
    let base = statement.opcode.split('.').next().unwrap_or("");
    match base {
        "bar" | "barrier" => statement.opcode.contains(".red"),
        "st" | "red" | "bra" | "brx" | "membar" | "fence" | "ret" | "exit" | "trap" | "brkpt" | "cp"
        | "prefetch" | "prefetchu" | "nanosleep" | "call" | "discard" | "applypriority" | "stmatrix" => false,
        _ => true,
    }
}

/// Every register in an operand.
fn registers(operand: &Operand, out: &mut Vec<Reg>) {
    match operand {
        Operand::Reg(reg) | Operand::Not(reg) => out.push(*reg),
        Operand::Vector(items) | Operand::MemoryList(items) | Operand::List(items) => {
            items.iter().for_each(|item| registers(item, out));
        }
        Operand::Memory(base, _) => registers(base, out),
        Operand::Pair(a, b) => {
            registers(a, out);
            registers(b, out);
        }
        _ => {}
    }
}

/// What a statement reads and writes.
fn effects(statement: &Statement) -> (Vec<Reg>, Vec<Reg>) {
    let (mut reads, mut written) = (Vec::new(), Vec::new());
    for (k, operand) in statement.args.iter().enumerate() {
        let target = k == 0 && writes_first(statement) && !matches!(operand, Operand::Memory(..));
        registers(operand, if target { &mut written } else { &mut reads });
    }
    reads.extend(statement.guard.map(|(reg, _)| reg));
    (reads, written)
}

fn segments(function: &Function, effects: &[(Vec<Reg>, Vec<Reg>)]) -> Vec<Segment> {
    let body = &function.body;
    let ends =
        |s: &Statement| matches!(s.opcode.split('.').next().unwrap_or(""), "bra" | "brx" | "ret" | "exit");
    let mut starts: Vec<usize> =
        function.labels.iter().map(|l| *l as usize).filter(|l| *l < body.len()).collect();
    starts.push(0);
    starts.extend((1..body.len()).filter(|k| ends(&body[k - 1])));
    starts.sort_unstable();
    starts.dedup();
    let at = |statement: usize| starts.binary_search(&statement).ok();
    let mut out = Vec::new();
    for (k, begin) in starts.iter().copied().enumerate() {
        let end = starts.get(k + 1).copied().unwrap_or(body.len());
        let last = &body[end - 1];
        let mut next = Vec::new();
        for operand in &last.args {
            match operand {
                Operand::Label(target) => next.extend(at(*target as usize)),
                Operand::Table(table) => {
                    next.extend(function.tables[*table as usize].iter().filter_map(|t| at(*t as usize)));
                }
                _ => {}
            }
        }
        if (!ends(last) || last.guard.is_some()) && end < body.len() {
            next.extend(at(end));
        }
        let mut uses = Set::new(function.regs.len());
        let mut kills = Set::new(function.regs.len());
        for s in begin..end {
            let (reads, written) = &effects[s];
            reads.iter().filter(|reg| !kills.contains(**reg)).for_each(|reg| uses.insert(*reg));
            // Under a guard some lanes keep the old value.
            if body[s].guard.is_none() {
                written.iter().for_each(|reg| kills.insert(*reg));
            }
        }
        let empty = Set::new(function.regs.len());
        out.push(Segment { begin, end, next, uses, kills, live_in: empty.clone(), live_out: empty });
    }
    out
}

fn liveness(segments: &mut [Segment]) {
    loop {
        let mut changed = false;
        for k in (0..segments.len()).rev() {
            let mut out = segments[k].live_out.clone();
            for next in segments[k].next.clone() {
                for (word, more) in out.0.iter_mut().zip(&segments[next].live_in.0) {
                    *word |= more;
                }
            }
            let segment = &mut segments[k];
            let mut live_in = segment.uses.clone();
            for (word, (out, kills)) in live_in.0.iter_mut().zip(out.0.iter().zip(&segment.kills.0)) {
                *word |= out & !kills;
            }
            changed |= live_in != segment.live_in || out != segment.live_out;
            (segment.live_in, segment.live_out) = (live_in, out);
        }
        if !changed {
            return;
        }
    }
}

/// Assigns rows.
pub(super) fn assign(function: &Function) -> Rows {
    let effects: Vec<_> = function.body.iter().map(effects).collect();
    let mut first = vec![0; function.regs.len()];
    if function.body.is_empty() {
        return Rows { first, count: 0 };
    }
    let mut segments = segments(function, &effects);
    liveness(&mut segments);

    // A statement reads at twice its index and writes right after: a result may take the row of a dying operand.
    let mut stretches = vec![(u32::MAX, 0u32); function.regs.len()];
    let mut extend = |reg: Reg, at: usize| {
        let (begin, end) = &mut stretches[reg as usize];
        (*begin, *end) = ((*begin).min(at as u32), (*end).max(at as u32));
    };
    for segment in &segments {
        segment.live_in.members().for_each(|reg| extend(reg, 2 * segment.begin));
        segment.live_out.members().for_each(|reg| extend(reg, 2 * segment.end - 1));
    }
    for (k, (reads, written)) in effects.iter().enumerate() {
        reads.iter().for_each(|reg| extend(*reg, 2 * k));
        written.iter().for_each(|reg| extend(*reg, 2 * k + 1));
    }

    let mut order: Vec<Reg> = (0..function.regs.len() as Reg)
        .filter(|reg| function.regs[*reg as usize] != Ty::Pred && stretches[*reg as usize].0 != u32::MAX)
        .collect();
    order.sort_unstable_by_key(|reg| stretches[*reg as usize]);
    let mut count = 0;
    // Registers of one width only share among themselves.
    for width in [1u32, 2, 4] {
        let mut busy: BinaryHeap<Reverse<(u32, u32)>> = BinaryHeap::new();
        let mut free: Vec<u32> = Vec::new();
        for reg in order.iter().copied().filter(|reg| function.regs[*reg as usize].rows() == width) {
            let (begin, end) = stretches[reg as usize];
            while busy.peek().is_some_and(|Reverse((last, _))| *last < begin) {
                free.extend(busy.pop().map(|Reverse((_, row))| row));
            }
            let row = free.pop().unwrap_or_else(|| {
                count += width;
                count - width
            });
            first[reg as usize] = row;
            busy.push(Reverse((end, row)));
        }
    }
    // Registers that are declared and never mentioned have row 0, which must exist.
    Rows { first, count: count.max(4) }
}
