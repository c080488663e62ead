//! The dotted words of an opcode, each of which somebody must take.

use crate::error::LoadError;

/// The type of an instruction or of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
}

impl Ty {
    /// From a word without its dot.
    pub fn parse(word: &str) -> Option<Ty> {
        Some(match word {
            "pred" => Ty::Pred,
            "b8" => Ty::B8,
            "b16" => Ty::B16,
            "b32" => Ty::B32,
            "b64" => Ty::B64,
            "b128" => Ty::B128,
            "u8" => Ty::U8,
            "u16" => Ty::U16,
            "u32" => Ty::U32,
            "u64" => Ty::U64,
            "s8" => Ty::S8,
            "s16" => Ty::S16,
            "s32" => Ty::S32,
            "s64" => Ty::S64,
            "f16" => Ty::F16,
            "f16x2" => Ty::F16x2,
            "bf16" => Ty::Bf16,
            "bf16x2" => Ty::Bf16x2,
            "tf32" => Ty::Tf32,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            _ => return None,
        })
    }

    /// Width in bits; 1 for a predicate.
    pub fn bits(self) -> u32 {
        match self {
            Ty::Pred => 1,
            Ty::B8 | Ty::U8 | Ty::S8 => 8,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16 => 16,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32 | Ty::F32 => 32,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 64,
            Ty::B128 => 128,
        }
    }

    /// Width in bytes in memory.
    pub fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    /// Rows of the register file that it takes.
    pub fn rows(self) -> u32 {
        self.bits().div_ceil(32)
    }

    /// Whether it is a signed integer.
    pub fn signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    /// Whether it is a float of any kind.
    pub fn float(self) -> bool {
        matches!(self, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2 | Ty::Tf32 | Ty::F32 | Ty::F64)
    }
}

/// An opcode being decoded. Families take the words they understand; what is left is refused.
pub(crate) struct Opcode {
    /// Line of the PTX text.
    pub line: u32,
    /// As spelled.
    pub text: String,
    words: Vec<(String, bool)>,
}

impl Opcode {
    pub fn new(line: u32, text: &str) -> Opcode {
        let words = text.split('.').skip(1).map(|word| (word.to_string(), false)).collect();
        Opcode { line, text: text.to_string(), words }
    }

    /// The word before the first dot.
    pub fn base(&self) -> &str {
        self.text.split('.').next().unwrap_or("")
    }

    /// Whether a word is there, taken or not.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|(w, _)| w == word)
    }

    /// Takes the next word if it is this one: true if it was there.
    pub fn take(&mut self, word: &str) -> bool {
        for (w, taken) in &mut self.words {
            if w == word && !*taken {
                *taken = true;
                return true;
            }
        }
        false
    }

    /// Takes a word that must be there.
    pub fn need(&mut self, word: &str) -> Result<(), LoadError> {
        if self.take(word) { Ok(()) } else { Err(self.refuse(&format!("`.{word}` is missing"))) }
    }

    /// Takes whichever of several words is there, if any.
    pub fn one_of<T: Copy>(&mut self, choices: &[(&str, T)]) -> Option<T> {
        choices.iter().find(|(word, _)| self.take(word)).map(|(_, value)| *value)
    }

    /// Takes one of several words, one of which must be there.
    pub fn must_one_of<T: Copy>(&mut self, choices: &[(&str, T)]) -> Result<T, LoadError> {
        match self.one_of(choices) {
            Some(value) => Ok(value),
            None => {
                let words: Vec<String> = choices.iter().map(|(word, _)| format!("`.{word}`")).collect();
                Err(self.refuse(&format!("one of {} is missing", words.join(", "))))
            }
        }
    }

    /// Takes the first word, from the left, that is a type.
    pub fn ty(&mut self) -> Result<Ty, LoadError> {
        for (word, taken) in &mut self.words {
            if !*taken && let Some(ty) = Ty::parse(word) {
                *taken = true;
                return Ok(ty);
            }
        }
        Err(self.refuse("a type is missing"))
    }

    /// Takes the first word that starts with `prefix` and returns the rest of it.
    pub fn take_prefix(&mut self, prefix: &str) -> Option<String> {
        for (word, taken) in &mut self.words {
            if !*taken && let Some(rest) = word.strip_prefix(prefix) {
                *taken = true;
                return Some(rest.to_string());
            }
        }
        None
    }

    /// The first word that nobody has taken.
    pub fn untaken(&self) -> Option<&str> {
        self.words.iter().find(|(_, taken)| !taken).map(|(word, _)| word.as_str())
    }

    /// An error that names this opcode.
    pub fn refuse(&self, problem: &str) -> LoadError {
        LoadError::new(self.line, &self.text, problem)
    }
}
