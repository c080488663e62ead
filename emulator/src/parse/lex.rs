//! PTX text to tokens.

use crate::error::LoadError;

/// A word, number, string or mark, with its line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token<'a> {
    pub line: u32,
    pub kind: TokenKind<'a>,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TokenKind<'a> {
    /// Names, directives, opcodes with all their dots, `%registers`.
    Word(&'a str),
    /// As spelled: `42`, `0x1F`, `0f3F800000`, `1.5`, `7U`.
    Number(&'a str),
    /// Without its quotes.
    Text(&'a str),
    /// One of `{ } [ ] ( ) < > , ; : = + - ! @ | * / & ^ ~ ?`.
    Mark(char),
}

fn starts_word(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn in_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// Splits a text into tokens; comments and white space go.
pub(crate) fn lex(text: &str) -> Result<Vec<Token<'_>>, LoadError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(text.len() / 4);
    let (mut i, mut line) = (0usize, 1u32);
    while i < bytes.len() {
        let c = bytes[i];
        let begin = i;
        match c {
            b'\n' => {
                line += 1;
                i += 1;
                continue;
            }
            // A driver's copy of the text may end in zeros.
            b' ' | b'\t' | b'\r' | 0 => {
                i += 1;
                continue;
            }
            b'/' if bytes.get(i + 1) == Some(&b'/') => {
                while i < bytes.len() && bytes[i] != b'\n' {
                    i += 1;
                }
                continue;
            }
            b'/' if bytes.get(i + 1) == Some(&b'*') => {
                let opened = line;
                i += 2;
                while i + 1 < bytes.len() && !(bytes[i] == b'*' && bytes[i + 1] == b'/') {
                    line += (bytes[i] == b'\n') as u32;
                    i += 1;
                }
                if i + 1 >= bytes.len() {
                    return Err(LoadError::new(opened, "/*", "a comment without an end"));
                }
                i += 2;
                continue;
            }
            b'"' => {
                i += 1;
                while i < bytes.len() && bytes[i] != b'"' {
                    i += if bytes[i] == b'\\' { 2 } else { 1 };
                }
                if i >= bytes.len() {
                    return Err(LoadError::new(line, "\"", "a string without an end"));
                }
                tokens.push(Token { line, kind: TokenKind::Text(&text[begin + 1..i]) });
                i += 1;
                continue;
            }
            _ if c.is_ascii_digit() => {
                while i < bytes.len() {
                    let exponent_sign = matches!(bytes[i], b'+' | b'-')
                        && matches!(bytes[i - 1], b'e' | b'E')
                        && !matches!(bytes[begin..].get(1), Some(b'x' | b'X' | b'f' | b'F' | b'd' | b'D'));
                    if !(bytes[i].is_ascii_alphanumeric() || bytes[i] == b'.' || exponent_sign) {
                        break;
                    }
                    i += 1;
                }
                tokens.push(Token { line, kind: TokenKind::Number(&text[begin..i]) });
            }
            _ if starts_word(c) => {
                while i < bytes.len() {
                    if in_word(bytes[i]) {
                        i += 1;
                    } else if bytes[i] == b':' && bytes.get(i + 1) == Some(&b':') {
                        i += 2;
                    } else {
                        break;
                    }
                }
                tokens.push(Token { line, kind: TokenKind::Word(&text[begin..i]) });
            }
            b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'<' | b'>' | b',' | b';' | b':' | b'=' | b'+'
            | b'-' | b'!' | b'@' | b'|' | b'*' | b'/' | b'&' | b'^' | b'~' | b'?' => {
                i += 1;
                tokens.push(Token { line, kind: TokenKind::Mark(c as char) });
            }
            _ => {
                let end = text[begin..].char_indices().nth(1).map_or(text.len(), |(k, _)| begin + k);
                return Err(LoadError::new(line, &text[begin..end], "not a character of PTX"));
            }
        }
    }
    Ok(tokens)
}

/// An integer or float as spelled, negated if a minus stood before it.
pub(crate) enum Literal {
    Int(u64),
    F32(u32),
    F64(u64),
}

/// The value of a number token.
pub(crate) fn literal(spelling: &str, negative: bool) -> Option<Literal> {
    let lower = spelling.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0f") {
        let bits = u32::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 8)?;
        return Some(Literal::F32(if negative { bits ^ 1 << 31 } else { bits }));
    }
    if let Some(hex) = lower.strip_prefix("0d") {
        let bits = u64::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 16)?;
        return Some(Literal::F64(if negative { bits ^ 1 << 63 } else { bits }));
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    let value = if let Some(hex) = digits.strip_prefix("0x") {
        u64::from_str_radix(hex, 16).ok()?
    } else if let Some(binary) = digits.strip_prefix("0b") {
        u64::from_str_radix(binary, 2).ok()?
    } else if digits.contains('.') || digits.contains('e') {
        let value: f64 = digits.parse().ok()?;
        return Some(Literal::F64(if negative { -value } else { value }.to_bits()));
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(&digits[1..], 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(Literal::Int(if negative { value.wrapping_neg() } else { value }))
}
