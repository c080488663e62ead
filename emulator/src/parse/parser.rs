//! Tokens to a [`Unit`]: directives and declarations. Function bodies are in [`super::body`].

use super::ast::{Function, Init, Unit, VarSpace, Variable};
use super::lex::{Literal, Token, TokenKind, lex, literal};
use crate::decode::Ty;
use crate::error::LoadError;

/// A position in the tokens.
pub(super) struct Parser<'a> {
    pub tokens: Vec<Token<'a>>,
    pub at: usize,
    pub unit: Unit,
}

/// The most recent `.loc`.
#[derive(Clone, Copy, Default)]
pub(super) struct Loc {
    pub file: u32,
    pub line: u32,
}

pub(super) type Parsed<T> = Result<T, LoadError>;

/// Parses a whole text.
pub(crate) fn parse(text: &str) -> Parsed<Unit> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, unit: Unit::default() };
    while parser.at < parser.tokens.len() {
        parser.top_level()?;
    }
    Ok(parser.unit)
}

impl<'a> Parser<'a> {
    pub fn kind(&self) -> Option<TokenKind<'a>> {
        self.tokens.get(self.at).map(|token| token.kind)
    }

    pub fn line(&self) -> u32 {
        let last = self.tokens.len().saturating_sub(1);
        self.tokens.get(self.at.min(last)).map_or(0, |token| token.line)
    }

    fn spelling(&self) -> String {
        match self.kind() {
            None => "end of text".into(),
            Some(TokenKind::Word(s) | TokenKind::Number(s)) => s.into(),
            Some(TokenKind::Text(s)) => format!("\"{s}\""),
            Some(TokenKind::Mark(c)) => c.into(),
        }
    }

    /// An error at the token at hand.
    pub fn error(&self, problem: impl Into<String>) -> LoadError {
        LoadError::new(self.line(), self.spelling(), problem)
    }

    pub fn is_mark(&self, mark: char) -> bool {
        self.kind() == Some(TokenKind::Mark(mark))
    }

    /// Steps over a mark if it is there.
    pub fn eat(&mut self, mark: char) -> bool {
        let found = self.is_mark(mark);
        self.at += found as usize;
        found
    }

    pub fn expect(&mut self, mark: char) -> Parsed<()> {
        if self.eat(mark) { Ok(()) } else { Err(self.error(format!("`{mark}` is wanted here"))) }
    }

    pub fn word(&mut self) -> Parsed<&'a str> {
        match self.kind() {
            Some(TokenKind::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.error("a name is wanted here")),
        }
    }

    /// A non-negative integer.
    pub fn integer(&mut self) -> Parsed<u64> {
        if let Some(TokenKind::Number(spelling)) = self.kind()
            && let Some(Literal::Int(value)) = literal(spelling, false)
        {
            self.at += 1;
            return Ok(value);
        }
        Err(self.error("an integer is wanted here"))
    }

    /// An integer that must fit 32 bits.
    pub fn small(&mut self) -> Parsed<u32> {
        let at = self.at;
        let value = self.integer()?;
        u32::try_from(value).map_err(|_| {
            self.at = at;
            self.error("too large")
        })
    }

    /// Everything up to the end of the line.
    fn rest_of_line(&mut self, line: u32) -> &[Token<'a>] {
        let begin = self.at;
        while self.tokens.get(self.at).is_some_and(|token| token.line == line) {
            self.at += 1;
        }
        &self.tokens[begin..self.at]
    }

    fn top_level(&mut self) -> Parsed<()> {
        let line = self.line();
        if self.eat(';') {
            return Ok(());
        }
        let begin = self.at;
        match self.word()? {
            ".version" => {
                let Some(TokenKind::Number(spelling)) = self.kind() else {
                    return Err(self.error("a version is wanted here"));
                };
                let parts = spelling.split_once('.').map(|(a, b)| (a.parse().ok(), b.parse().ok()));
                let Some((Some(major), Some(minor))) = parts else {
                    return Err(self.error("a version is wanted here"));
                };
                self.unit.version = (major, minor);
                self.at += 1;
            }
            ".target" => {
                self.unit.target = self.word()?.to_string();
                while self.eat(',') {
                    match self.word()? {
                        "debug" | "texmode_independent" | "texmode_unified" => {}
                        _ => {
                            self.at -= 1;
                            return Err(self.error("unknown target option"));
                        }
                    }
                }
            }
            ".address_size" => {
                if self.integer()? != 64 {
                    self.at -= 1;
                    return Err(self.error("only 64-bit addresses are supported"));
                }
            }
            ".file" => self.file()?,
            ".loc" => {
                self.rest_of_line(line);
            }
            ".section" => self.section()?,
            ".pragma" => self.pragma()?,
            ".alias" => return Err(LoadError::new(line, ".alias", "aliases are not supported")),
            _ => {
                self.at = begin;
                self.linked(false)?;
            }
        }
        Ok(())
    }

    /// `.file 1 "name"[, time, size]`
    fn file(&mut self) -> Parsed<()> {
        let line = self.line();
        let number = self.small()?;
        let Some(TokenKind::Text(name)) = self.kind() else {
            return Err(self.error("a file name is wanted here"));
        };
        self.rest_of_line(line);
        self.unit.files.push((number, name.to_string()));
        Ok(())
    }

    /// `.section name { … }`: debugging information of the compiler, which no instruction refers to.
    fn section(&mut self) -> Parsed<()> {
        while !self.is_mark('{') {
            if self.kind().is_none() {
                return Err(self.error("`{` is wanted here"));
            }
            self.at += 1;
        }
        while !self.is_mark('}') {
            if self.kind().is_none() {
                return Err(self.error("`}` is wanted here"));
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    /// `.pragma "text";`: hints for the optimiser and nothing else, but not unseen.
    pub fn pragma(&mut self) -> Parsed<()> {
        loop {
            match self.kind() {
                Some(TokenKind::Text(text)) => {
                    let known = ["nounroll", "used_bytes_mask", "enable_smem_spilling", "frequency"];
                    if !known.iter().any(|k| text.starts_with(k)) {
                        return Err(self.error("unknown pragma"));
                    }
                    self.at += 1;
                }
                _ => return Err(self.error("a string is wanted here")),
            }
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')
    }

    /// `.loc file line column[, function_name label[+n], inlined_at file line column]`, to the end of the line.
    pub fn loc(&mut self) -> Parsed<Loc> {
        let line = self.line();
        let file = self.small()?;
        let source = self.small()?;
        self.rest_of_line(line);
        Ok(Loc { file, line: source })
    }

    /// A variable or function with its linking directives.
    fn linked(&mut self, _in_function: bool) -> Parsed<()> {
        let mut external = false;
        loop {
            match self.kind() {
                Some(TokenKind::Word(".visible" | ".weak" | ".common" | ".internal")) => self.at += 1,
                Some(TokenKind::Word(".extern")) => {
                    external = true;
                    self.at += 1;
                }
                _ => break,
            }
        }
        let line = self.line();
        match self.kind() {
            Some(TokenKind::Word(".entry")) => {
                self.at += 1;
                let function = self.function(true, external, line)?;
                self.unit.functions.push(function);
            }
            Some(TokenKind::Word(".func")) => {
                self.at += 1;
                let function = self.function(false, external, line)?;
                self.unit.functions.push(function);
            }
            Some(TokenKind::Word(word)) => match var_space(word) {
                Some(space) if space != VarSpace::Param && space != VarSpace::Local => {
                    self.at += 1;
                    let variables = self.variables(space, external)?;
                    self.unit.variables.extend(variables);
                }
                _ => return Err(self.error("unknown directive")),
            },
            _ => return Err(self.error("a directive is wanted here")),
        }
        Ok(())
    }

    /// A type word; `.v2`/`.v4` before it multiplies.
    fn ty(&mut self) -> Parsed<(Ty, u64)> {
        let mut lanes = 1;
        if let Some(TokenKind::Word(word)) = self.kind() {
            lanes = match word {
                ".v2" => 2,
                ".v4" => 4,
                _ => 1,
            };
            self.at += (lanes > 1) as usize;
        }
        let word = self.word()?;
        match word.strip_prefix('.').and_then(Ty::parse) {
            Some(ty) => Ok((ty, lanes)),
            None => {
                self.at -= 1;
                Err(self.error("a type is wanted here"))
            }
        }
    }

    /// `[.align n] .type name[dims] [= init], …;` after the space's word.
    pub fn variables(&mut self, space: VarSpace, external: bool) -> Parsed<Vec<Variable>> {
        let mut out = Vec::new();
        let mut align = None;
        loop {
            match self.kind() {
                Some(TokenKind::Word(".align")) => {
                    self.at += 1;
                    align = Some(self.small()?);
                }
                // Unified addressing and managed memory change nothing for a kernel.
                Some(TokenKind::Word(".attribute")) => {
                    self.at += 1;
                    self.expect('(')?;
                    match self.word()? {
                        ".managed" => {}
                        _ => {
                            self.at -= 1;
                            return Err(self.error("unknown attribute"));
                        }
                    }
                    self.expect(')')?;
                }
                _ => break,
            }
        }
        let (ty, lanes) = self.ty()?;
        loop {
            let line = self.line();
            let name = self.word()?.to_string();
            let element = ty.bytes() as u64 * lanes;
            let mut count = 1u64;
            let mut open = false;
            while self.eat('[') {
                if self.eat(']') {
                    open = true;
                } else {
                    count = count.saturating_mul(self.integer()?);
                    self.expect(']')?;
                }
            }
            let init = if self.eat('=') { self.initialiser(ty)? } else { Vec::new() };
            let given: u64 = init.iter().map(Init::len).sum();
            let bytes = match open {
                true => given,
                false => element.saturating_mul(count),
            };
            if given > bytes {
                return Err(LoadError::new(line, name, format!("{given} bytes of values for {bytes} bytes")));
            }
            let align = align.unwrap_or(element as u32).max(1);
            if !align.is_power_of_two() {
                return Err(LoadError::new(line, name, format!("alignment {align} is not a power of two")));
            }
            out.push(Variable { name, line, space, align, bytes, external, init });
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')?;
        Ok(out)
    }

    /// A value or `{…}`, nested as the dimensions are.
    fn initialiser(&mut self, ty: Ty) -> Parsed<Vec<Init>> {
        let mut out = Vec::new();
        if self.eat('{') {
            while !self.eat('}') {
                out.extend(self.initialiser(ty)?);
                if !self.eat(',') && !self.is_mark('}') {
                    return Err(self.error("`,` or `}` is wanted here"));
                }
            }
            return Ok(out);
        }
        let negative = self.eat('-');
        match self.kind() {
            Some(TokenKind::Number(spelling)) => {
                let bits = match (literal(spelling, negative), ty) {
                    (Some(Literal::Int(value)), _) => value,
                    (Some(Literal::F32(bits)), Ty::F32 | Ty::B32 | Ty::U32) => bits as u64,
                    (Some(Literal::F64(bits)), Ty::F64 | Ty::B64 | Ty::U64) => bits,
                    (Some(Literal::F64(bits)), Ty::F32) => (f64::from_bits(bits) as f32).to_bits() as u64,
                    (Some(Literal::F32(bits)), Ty::F64) => (f32::from_bits(bits) as f64).to_bits(),
                    _ => return Err(self.error("not a value of this type")),
                };
                self.at += 1;
                out.push(Init::Bytes(bits.to_le_bytes()[..ty.bytes() as usize].to_vec()));
            }
            Some(TokenKind::Word(word)) if !negative => {
                self.at += 1;
                let generic = word == "generic";
                let symbol = if generic {
                    self.expect('(')?;
                    let symbol = self.word()?;
                    self.expect(')')?;
                    symbol
                } else {
                    word
                };
                let mut offset = 0i64;
                if self.eat('+') {
                    offset = self.integer()? as i64;
                } else if self.eat('-') {
                    offset = -(self.integer()? as i64);
                }
                out.push(Init::Address { symbol: symbol.into(), offset, generic, bytes: ty.bytes() });
            }
            _ => return Err(self.error("a value is wanted here")),
        }
        Ok(out)
    }

    /// `(.param .align 8 .b8 p[64], …)`
    fn formals(&mut self, function: &mut Function) -> Parsed<Vec<u32>> {
        let mut numbers = Vec::new();
        self.expect('(')?;
        while !self.eat(')') {
            let line = self.line();
            match self.word()? {
                ".param" => {}
                ".reg" => {
                    self.at -= 1;
                    return Err(self.error("register parameters are not supported"));
                }
                _ => {
                    self.at -= 1;
                    return Err(self.error("`.param` is wanted here"));
                }
            }
            let mut align = None;
            let mut ty = None;
            let name = loop {
                let word = self.word()?;
                match word {
                    ".align" => align = Some(self.small()?),
                    // `.ptr .global .align 16`: what the pointer points to; no claim about the parameter itself.
                    ".ptr" => {
                        if let Some(TokenKind::Word(".global" | ".const" | ".local" | ".shared")) =
                            self.kind()
                        {
                            self.at += 1;
                        }
                        if let Some(TokenKind::Word(".align")) = self.kind() {
                            self.at += 1;
                            self.small()?;
                        }
                    }
                    _ if word.starts_with('.') => match Ty::parse(&word[1..]) {
                        Some(found) => ty = Some(found),
                        None => {
                            self.at -= 1;
                            return Err(self.error("unknown word in a parameter"));
                        }
                    },
                    _ => break word,
                }
            };
            let Some(ty) = ty else { return Err(self.error("a parameter without a type")) };
            let mut count = 1;
            if self.eat('[') {
                count = if self.is_mark(']') { 0 } else { self.integer()? };
                self.expect(']')?;
            }
            numbers.push(function.variables.len() as u32);
            function.variables.push(Variable {
                name: name.to_string(),
                line,
                space: VarSpace::Param,
                align: align.unwrap_or(ty.bytes()),
                bytes: ty.bytes() as u64 * count,
                external: false,
                init: Vec::new(),
            });
            if !self.eat(',') && !self.is_mark(')') {
                return Err(self.error("`,` or `)` is wanted here"));
            }
        }
        Ok(numbers)
    }

    fn function(&mut self, entry: bool, external: bool, line: u32) -> Parsed<Function> {
        let mut function = Function { entry, external, line, ..Function::default() };
        if self.is_mark('(') {
            function.returns = self.formals(&mut function)?;
        }
        function.name = self.word()?.to_string();
        if self.is_mark('(') {
            function.params = self.formals(&mut function)?;
        }
        loop {
            let directive = match self.kind() {
                Some(TokenKind::Mark('{')) => break,
                Some(TokenKind::Mark(';')) => {
                    self.at += 1;
                    function.external = true;
                    return Ok(function);
                }
                Some(TokenKind::Word(word)) => word,
                _ => return Err(self.error("`{` or `;` is wanted here")),
            };
            self.at += 1;
            match directive {
                ".maxntid" | ".reqntid" => {
                    let mut threads = self.integer()?;
                    while self.eat(',') {
                        threads = threads.saturating_mul(self.integer()?);
                    }
                    function.max_threads = Some(threads.min(u32::MAX as u64) as u32);
                }
                ".minnctapersm" => function.min_blocks = Some(self.small()?),
                // Limits for the register allocator, which an interpreter does not have.
                ".maxnreg" | ".maxnctapersm" => {
                    self.integer()?;
                }
                ".noreturn" => {}
                ".pragma" => self.pragma()?,
                ".loc" => {
                    self.loc()?;
                }
                _ => {
                    self.at -= 1;
                    return Err(self.error("unknown directive of a function"));
                }
            }
        }
        self.body(&mut function)?;
        Ok(function)
    }
}

impl Init {
    /// Bytes that it takes.
    pub fn len(&self) -> u64 {
        match self {
            Init::Bytes(bytes) => bytes.len() as u64,
            Init::Address { bytes, .. } => *bytes as u64,
        }
    }
}

/// The space of a variable directive.
pub(super) fn var_space(word: &str) -> Option<VarSpace> {
    Some(match word {
        ".global" => VarSpace::Global,
        ".const" => VarSpace::Const,
        ".shared" => VarSpace::Shared,
        ".local" => VarSpace::Local,
        ".param" => VarSpace::Param,
        _ => return None,
    })
}
