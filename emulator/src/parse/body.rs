//! Function bodies: nested scopes, registers, labels, instructions.

use std::collections::HashMap;

use super::ast::{Function, Operand, Reg, Statement};
use super::lex::{Literal, TokenKind, literal};
use super::parser::{Loc, Parsed, Parser, var_space};
use crate::decode::Ty;
use crate::error::LoadError;
use crate::ir::Place;

/// What a name means inside `{ }`.
#[derive(Clone, Copy)]
enum Name {
    Reg(Reg),
    /// `%r<8>`: the first of so many.
    Regs(Reg, u32),
    Variable(u32),
    Label(u32),
    Table(u32),
}

/// The names of one `{ }`.
#[derive(Default)]
struct Scope<'a> {
    names: HashMap<&'a str, Name>,
    parent: usize,
}

/// A label used before it is known.
struct Fixup<'a> {
    statement: usize,
    scope: usize,
    name: &'a str,
    line: u32,
}

/// A `.branchtargets` list whose labels may come later.
struct TableFixup<'a> {
    table: usize,
    scope: usize,
    names: Vec<(&'a str, u32)>,
}

struct Body<'a, 'f> {
    function: &'f mut Function,
    scopes: Vec<Scope<'a>>,
    current: usize,
    fixups: Vec<Fixup<'a>>,
    tables: Vec<TableFixup<'a>>,
    loc: Loc,
}

const ROOT: usize = 0;

impl<'a> Body<'a, '_> {
    /// Looks a name up from the scope at hand outwards.
    fn find(&self, mut scope: usize, name: &str) -> Option<Name> {
        loop {
            let names = &self.scopes[scope].names;
            if let Some(found) = names.get(name)
                && !matches!(found, Name::Regs(..))
            {
                return Some(*found);
            }
            // `%r12` of `%r<64>`.
            let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
            let (stem, number) = name.split_at(name.len() - digits);
            if let (Some(Name::Regs(first, count)), Ok(number)) = (names.get(stem), number.parse::<u32>())
                && number < *count
            {
                return Some(Name::Reg(first + number));
            }
            if scope == ROOT {
                return None;
            }
            scope = self.scopes[scope].parent;
        }
    }
}

impl<'a> Parser<'a> {
    /// From `{` to the matching `}`.
    pub fn body(&mut self, function: &mut Function) -> Parsed<()> {
        let mut body = Body {
            function,
            scopes: vec![Scope::default()],
            current: ROOT,
            fixups: Vec::new(),
            tables: Vec::new(),
            loc: Loc::default(),
        };
        // The text of names outlives the parser, those of formals are the function's own: leak-free by number.
        let formals: Vec<(String, u32)> =
            body.function.variables.iter().enumerate().map(|(k, v)| (v.name.clone(), k as u32)).collect();
        self.expect('{')?;
        loop {
            let line = self.line();
            match self.kind() {
                None => return Err(self.error("`}` is wanted here")),
                Some(TokenKind::Mark('{')) => {
                    self.at += 1;
                    body.scopes.push(Scope { parent: body.current, ..Scope::default() });
                    body.current = body.scopes.len() - 1;
                }
                Some(TokenKind::Mark('}')) => {
                    self.at += 1;
                    if body.current == ROOT {
                        break;
                    }
                    body.current = body.scopes[body.current].parent;
                }
                Some(TokenKind::Mark(';')) => self.at += 1,
                Some(TokenKind::Mark('@')) => self.statement(&mut body, &formals)?,
                Some(TokenKind::Word(word)) if word.starts_with('.') => {
                    self.directive(&mut body, word, line)?
                }
                Some(TokenKind::Word(word)) => {
                    let next = self.tokens.get(self.at + 1).map(|token| token.kind);
                    if next == Some(TokenKind::Mark(':')) {
                        self.at += 2;
                        self.label(&mut body, word, line)?;
                    } else {
                        self.statement(&mut body, &formals)?;
                    }
                }
                _ => return Err(self.error("not the start of a statement")),
            }
        }
        self.resolve(body)
    }

    /// Labels are known now.
    fn resolve(&mut self, body: Body<'a, '_>) -> Parsed<()> {
        let label = |scope: usize, name: &str, line: u32| match body.find(scope, name) {
            Some(Name::Label(target)) => Ok(Operand::Label(target)),
            Some(Name::Table(table)) => Ok(Operand::Table(table)),
            _ => Err(LoadError::new(line, name, "unknown label")),
        };
        let mut targets = Vec::new();
        for fixup in &body.fixups {
            targets.push((fixup.statement, label(fixup.scope, fixup.name, fixup.line)?));
        }
        let mut tables = Vec::new();
        for fixup in &body.tables {
            let mut list = Vec::new();
            for (name, line) in &fixup.names {
                match label(fixup.scope, name, *line)? {
                    Operand::Label(target) => list.push(target),
                    _ => return Err(LoadError::new(*line, *name, "not a label")),
                }
            }
            tables.push((fixup.table, list));
        }
        let function = body.function;
        for (statement, target) in targets {
            // The label is the last operand of every branch.
            function.body[statement].args.push(target);
        }
        for (table, list) in tables {
            function.labels.extend(&list);
            function.tables[table] = list;
        }
        for statement in &function.body {
            if let Some(Operand::Label(target)) = statement.args.last() {
                function.labels.push(*target);
            }
        }
        function.labels.sort_unstable();
        function.labels.dedup();
        Ok(())
    }

    fn label(&mut self, body: &mut Body<'a, '_>, name: &'a str, line: u32) -> Parsed<()> {
        // `name: .branchtargets L1, L2;` is a list of labels, not a place.
        if let Some(TokenKind::Word(word)) = self.kind() {
            match word {
                ".branchtargets" => {
                    self.at += 1;
                    let mut names = Vec::new();
                    loop {
                        let line = self.line();
                        names.push((self.word()?, line));
                        if !self.eat(',') {
                            break;
                        }
                    }
                    self.expect(';')?;
                    let table = body.function.tables.len();
                    body.function.tables.push(Vec::new());
                    body.tables.push(TableFixup { table, scope: body.current, names });
                    return define(body, name, Name::Table(table as u32), line);
                }
                ".callprototype" | ".calltargets" => {
                    return Err(self.error("indirect calls are not supported"));
                }
                _ => {}
            }
        }
        let target = body.function.body.len() as u32;
        define(body, name, Name::Label(target), line)
    }

    fn directive(&mut self, body: &mut Body<'a, '_>, word: &'a str, line: u32) -> Parsed<()> {
        self.at += 1;
        // Inline assembly may glue words: `.reg.b32 x;`
        let (first, glued) = match word[1..].find('.') {
            Some(dot) => word.split_at(dot + 1),
            None => (word, ""),
        };
        match first {
            ".loc" => body.loc = self.loc()?,
            ".pragma" => self.pragma()?,
            ".reg" => {
                let word = if glued.is_empty() { self.word()? } else { glued };
                if word == ".v2" || word == ".v4" {
                    return Err(LoadError::new(line, word, "vector registers are not supported"));
                }
                let Some(ty) = word.strip_prefix('.').and_then(Ty::parse) else {
                    return Err(LoadError::new(line, word, "unknown register type"));
                };
                self.registers(body, ty)?;
            }
            _ => {
                let Some(space) = var_space(first).filter(|_| glued.is_empty()) else {
                    return Err(LoadError::new(line, word, "unknown directive"));
                };
                let names_at = self.at;
                let variables = self.variables(space, false)?;
                // Names as slices of the text, which live long enough for the scope.
                let mut words = self.tokens[names_at..self.at].iter().filter_map(|token| match token.kind {
                    TokenKind::Word(word) if !word.starts_with('.') => Some(word),
                    _ => None,
                });
                for variable in variables {
                    let name = words.by_ref().find(|word| *word == variable.name);
                    let number = body.function.variables.len() as u32;
                    body.function.variables.push(variable);
                    if let Some(name) = name {
                        define(body, name, Name::Variable(number), line)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// `%r<8>, %x;` after the type.
    fn registers(&mut self, body: &mut Body<'a, '_>, ty: Ty) -> Parsed<()> {
        loop {
            let line = self.line();
            let name = self.word()?;
            let first = body.function.regs.len() as Reg;
            if self.eat('<') {
                let count = self.small()?;
                self.expect('>')?;
                if count > 1 << 20 {
                    return Err(LoadError::new(line, name, format!("{count} registers are too many")));
                }
                for k in 0..count {
                    body.function.regs.push(ty);
                    body.function.reg_names.push(format!("{name}{k}"));
                }
                define(body, name, Name::Regs(first, count), line)?;
            } else {
                body.function.regs.push(ty);
                body.function.reg_names.push(name.to_string());
                define(body, name, Name::Reg(first), line)?;
            }
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')
    }

    fn statement(&mut self, body: &mut Body<'a, '_>, formals: &[(String, u32)]) -> Parsed<()> {
        let line = self.line();
        let begin = self.at;
        let mut guard = None;
        if self.eat('@') {
            let negated = self.eat('!');
            let name = self.word()?;
            match body.find(body.current, name) {
                Some(Name::Reg(reg)) if body.function.regs[reg as usize] == Ty::Pred => {
                    guard = Some((reg, negated));
                }
                _ => return Err(LoadError::new(line, name, "not a predicate")),
            }
        }
        let opcode = self.word()?;
        let base = opcode.split('.').next().unwrap_or("");
        let mut args = Vec::new();
        let branch = matches!(base, "bra" | "brx");
        while !self.is_mark(';') {
            if branch
                && let Some(TokenKind::Word(name)) = self.kind()
                && !matches!(body.find(body.current, name), Some(Name::Reg(_)))
            {
                let statement = body.function.body.len();
                let line = self.line();
                self.at += 1;
                body.fixups.push(Fixup { statement, scope: body.current, name, line });
                break;
            }
            args.push(self.operand(body, formals)?);
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')?;
        let text = spell(&self.tokens[begin..self.at - 1]);
        let place = Place { line, file: body.loc.file, source_line: body.loc.line };
        body.function.body.push(Statement {
            place,
            guard,
            opcode: opcode.to_string(),
            args,
            text: text.into(),
        });
        Ok(())
    }

    fn operand(&mut self, body: &Body<'a, '_>, formals: &[(String, u32)]) -> Parsed<Operand> {
        let list = |parser: &mut Self, close: char| -> Parsed<Vec<Operand>> {
            let mut items = Vec::new();
            while !parser.eat(close) {
                items.push(parser.operand(body, formals)?);
                if !parser.eat(',') && !parser.is_mark(close) {
                    return Err(parser.error(format!("`,` or `{close}` is wanted here")));
                }
            }
            Ok(items)
        };
        match self.kind() {
            Some(TokenKind::Mark('{')) => {
                self.at += 1;
                Ok(Operand::Vector(list(self, '}')?))
            }
            Some(TokenKind::Mark('(')) => {
                self.at += 1;
                Ok(Operand::List(list(self, ')')?))
            }
            Some(TokenKind::Mark('[')) => {
                self.at += 1;
                let base = self.operand(body, formals)?;
                if self.eat(',') {
                    let mut items = vec![base];
                    items.extend(list(self, ']')?);
                    return Ok(Operand::MemoryList(items));
                }
                let offset = self.offset()?;
                self.expect(']')?;
                Ok(match base {
                    Operand::Symbol(name, k) => {
                        Operand::Memory(Box::new(Operand::Symbol(name, 0)), k + offset)
                    }
                    Operand::Variable(number, k) => {
                        Operand::Memory(Box::new(Operand::Variable(number, 0)), k + offset)
                    }
                    base => Operand::Memory(Box::new(base), offset),
                })
            }
            Some(TokenKind::Mark('!')) => {
                self.at += 1;
                match self.operand(body, formals)? {
                    Operand::Reg(reg) => Ok(Operand::Not(reg)),
                    _ => Err(self.error("a predicate is wanted before this")),
                }
            }
            Some(TokenKind::Mark('-')) => {
                self.at += 1;
                self.number(true)
            }
            Some(TokenKind::Number(_)) => self.number(false),
            Some(TokenKind::Word(word)) => {
                let line = self.line();
                self.at += 1;
                let first = self.named(body, formals, word, line)?;
                if self.eat('|') {
                    let second = self.operand(body, formals)?;
                    return Ok(Operand::Pair(Box::new(first), Box::new(second)));
                }
                // A symbol's offset belongs to it; a register's only stands inside brackets.
                match first {
                    Operand::Symbol(name, k) => Ok(Operand::Symbol(name, k + self.offset()?)),
                    Operand::Variable(number, k) => Ok(Operand::Variable(number, k + self.offset()?)),
                    other => Ok(other),
                }
            }
            _ => Err(self.error("an operand is wanted here")),
        }
    }

    fn named(
        &self,
        body: &Body<'a, '_>,
        formals: &[(String, u32)],
        word: &'a str,
        line: u32,
    ) -> Parsed<Operand> {
        if word == "_" {
            return Ok(Operand::Sink);
        }
        match body.find(body.current, word) {
            Some(Name::Reg(reg)) => return Ok(Operand::Reg(reg)),
            Some(Name::Variable(number)) => return Ok(Operand::Variable(number, 0)),
            Some(Name::Label(target)) => return Ok(Operand::Label(target)),
            Some(Name::Table(table)) => return Ok(Operand::Table(table)),
            Some(Name::Regs(..)) | None => {}
        }
        if let Some((_, number)) = formals.iter().find(|(name, _)| name == word) {
            return Ok(Operand::Variable(*number, 0));
        }
        if let Some(name) = word.strip_prefix('%') {
            return Ok(Operand::Special(name.to_string()));
        }
        if word == "WARP_SZ" {
            return Ok(Operand::Special(word.to_string()));
        }
        if word.starts_with('.') {
            return Err(LoadError::new(line, word, "an operand is wanted here"));
        }
        Ok(Operand::Symbol(word.to_string(), 0))
    }

    /// `+8`, `-8`, `+-8` or nothing.
    fn offset(&mut self) -> Parsed<i64> {
        let mut total = 0i64;
        loop {
            let mut negative = false;
            if self.eat('-') {
                negative = true;
            } else if !self.eat('+') {
                return Ok(total);
            }
            negative ^= self.eat('-');
            let value = self.integer()? as i64;
            total = total.wrapping_add(if negative { value.wrapping_neg() } else { value });
        }
    }

    fn number(&mut self, negative: bool) -> Parsed<Operand> {
        let Some(TokenKind::Number(spelling)) = self.kind() else {
            return Err(self.error("a number is wanted here"));
        };
        let value = match literal(spelling, negative) {
            Some(Literal::Int(value)) => Operand::Int(value),
            Some(Literal::F32(bits)) => Operand::F32(bits),
            Some(Literal::F64(bits)) => Operand::F64(bits),
            None => return Err(self.error("not a number")),
        };
        self.at += 1;
        Ok(value)
    }
}

fn define<'a>(body: &mut Body<'a, '_>, name: &'a str, meaning: Name, line: u32) -> Parsed<()> {
    match body.scopes[body.current].names.insert(name, meaning) {
        None => Ok(()),
        Some(_) => Err(LoadError::new(line, name, "defined twice in one scope")),
    }
}

/// An instruction's tokens as text again.
fn spell(tokens: &[super::lex::Token<'_>]) -> String {
    let mut out = String::new();
    let mut tight = true;
    for token in tokens {
        match token.kind {
            TokenKind::Word(s) | TokenKind::Number(s) => {
                if !tight {
                    out.push(' ');
                }
                out.push_str(s);
                tight = false;
            }
            TokenKind::Text(s) => out.push_str(&format!(" \"{s}\"")),
            TokenKind::Mark(mark) => {
                if matches!(mark, '{' | '[' | '(' | '!' | '-') && !tight {
                    out.push(' ');
                }
                out.push(mark);
                tight = !matches!(mark, ',' | '}' | ']' | ')');
            }
        }
    }
    out
}
