//! Reads what nvcc prints: one PTX text per `.cu` becomes one image per entry, and the facts about each entry that the
//! host needs (parameter bytes, threads, shared memory), so that none of them is typed twice.
//!
//! This is a reader of module level only: it knows where declarations begin and end, and leaves instructions alone.

use std::collections::{BTreeMap, BTreeSet};

/// What one `.visible .entry` says about itself, with its two images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The symbol.
    pub name: String,
    /// Bytes of all parameters together.
    pub param_bytes: u32,
    /// Threads per block, from `__launch_bounds__`.
    pub threads: u32,
    /// Blocks per multiprocessor that `__launch_bounds__` asks for; 1 where it asks for none.
    pub min_blocks: u32,
    /// Dynamic shared memory, from the constant `<entry>_smem_bytes`; 0 where there is none.
    pub shared_bytes: u32,
    /// Static shared memory.
    pub static_shared_bytes: u32,
    /// `sm_80`, `sm_90a`.
    pub target: String,
    /// The image with source lines.
    pub lineinfo: String,
    /// The image that ships: the same without source lines and comments.
    pub shipped: String,
}

/// Splits the text of a module into its entries, in the order of the text.
pub fn split(text: &str) -> Result<Vec<Entry>, String> {
    let module = Module::read(text)?;
    let sizes = module.shared_sizes()?;
    let mut entries = Vec::new();
    for item in module.items.iter().filter(|item| item.kind == Kind::Entry) {
        entries.push(module.entry(item, &sizes).map_err(|why| format!("entry `{}`: {why}", item.name))?);
    }
    for name in sizes.keys() {
        if !entries.iter().any(|entry| entry.name == *name) {
            return Err(format!("`{name}{SIZE_SUFFIX}` stands beside no entry `{name}`"));
        }
    }
    Ok(entries)
}

/// The text without source lines (`.loc`, `.file`, debug sections), comments and empty lines.
pub fn strip(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut in_section = false;
    for line in without_comments(text).lines() {
        let line = line.trim_end();
        let word = line.trim_start();
        in_section |= word.starts_with(".section");
        let dropped =
            in_section || word.is_empty() || is_directive(word, ".loc") || is_directive(word, ".file");
        // nvcc closes a section with a brace on a line of its own.
        in_section &= word != "}";
        if !dropped {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Replaces the paths in `.file` lines by what `rename` makes of them.
pub fn rename_files(text: &str, rename: impl Fn(&str) -> String) -> String {
    let mut renamed = String::with_capacity(text.len());
    for line in text.lines() {
        let mut parts = line.splitn(3, '"');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(head), Some(path), Some(tail)) if is_directive(head.trim_start(), ".file") => {
                renamed.push_str(&format!("{head}\"{}\"{tail}", rename(path)));
            }
            _ => renamed.push_str(line),
        }
        renamed.push('\n');
    }
    renamed
}

/// The constant beside an entry that holds its dynamic shared memory is named after it.
const SIZE_SUFFIX: &str = "_smem_bytes";

/// The oldest `.version` that has every instruction in use, so that old drivers load the image: 7.8 is CUDA 11.8's,
/// 8.0 (CUDA 12.0's) the first with sm_90a.
fn oldest_version(target: &str) -> (u32, u32) {
    if target == "sm_80" { (7, 8) } else { (8, 0) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Header,
    Debug,
    Entry,
    Function,
    Variable,
}

#[derive(Debug)]
struct Item<'a> {
    kind: Kind,
    name: &'a str,
    text: &'a str,
}

#[derive(Debug)]
struct Module<'a> {
    items: Vec<Item<'a>>,
}

impl<'a> Module<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let mut items = Vec::new();
        let mut at = 0;
        while let Some(start) = next_code(text, at) {
            let word = text[start..].split_whitespace().next().unwrap_or("");
            let line = [".version", ".target", ".address_size", ".file"].contains(&word);
            let end = if line {
                text[start..].find('\n').map_or(text.len(), |length| start + length)
            } else {
                item_end(text, start).ok_or_else(|| format!("no end to `{}`", first_line(&text[start..])))?
            };
            items.push(Item::read(&text[start..end])?);
            at = end;
        }
        Ok(Self { items })
    }

    fn target(&self) -> Result<&'a str, String> {
        let header = self.items.iter().find(|item| is_directive(item.text, ".target"));
        let target =
            header.and_then(|item| item.text.split([' ', '\t', ',']).find(|word| word.starts_with("sm_")));
        target.ok_or_else(|| "no `.target`".to_owned())
    }

    /// Entry name → bytes, from the `<entry>_smem_bytes` constants.
    fn shared_sizes(&self) -> Result<BTreeMap<&'a str, u32>, String> {
        let mut sizes = BTreeMap::new();
        for item in self.items.iter().filter(|item| item.kind == Kind::Variable) {
            let Some(entry) = item.name.strip_suffix(SIZE_SUFFIX) else { continue };
            // nvcc leaves the initialiser out where it is zero.
            let bytes = match item.text.trim_end_matches(';').split_once('=') {
                Some((_, value)) => {
                    value.trim().parse::<u32>().map_err(|_| format!("cannot read `{}`", item.text))?
                }
                None => 0,
            };
            sizes.insert(entry, bytes);
        }
        Ok(sizes)
    }

    fn entry(&self, item: &Item<'a>, sizes: &BTreeMap<&'a str, u32>) -> Result<Entry, String> {
        let target = self.target()?;
        let used = self.used_by(item);
        let head = Head::read(item)?;

        let mut shared = SharedBytes::default();
        shared.add_body(item.text)?;
        let mut has_dynamic = false;
        for used in self.items.iter().filter(|item| used.contains(item.name)) {
            let words: Vec<&str> = words(used.text).collect();
            match used.kind {
                Kind::Variable if words.contains(&".shared") && words.contains(&".extern") => {
                    has_dynamic = true
                }
                Kind::Variable if words.contains(&".shared") => shared.add(used.text)?,
                Kind::Function => shared.add_body(used.text)?,
                _ => {}
            }
        }
        let size = sizes.get(item.name).copied();
        match size {
            None if has_dynamic => {
                return Err(format!(
                    "uses dynamic shared memory, so `{}{SIZE_SUFFIX}` must say how much",
                    item.name
                ));
            }
            Some(bytes) if bytes > 0 && !has_dynamic => {
                return Err(format!(
                    "`{}{SIZE_SUFFIX}` is {bytes}, but no dynamic shared memory is used",
                    item.name
                ));
            }
            _ => {}
        }

        let mut lineinfo = String::new();
        for part in &self.items {
            let text = match part.kind {
                Kind::Header => lower_version(part.text, target)?,
                Kind::Debug => part.text.to_owned(),
                _ if std::ptr::eq(part, item) || used.contains(part.name) => without_new_hints(part.text),
                _ => continue,
            };
            lineinfo.push_str(text.trim_end());
            lineinfo.push_str(if part.kind == Kind::Entry { "\n\n" } else { "\n" });
        }
        Ok(Entry {
            name: item.name.to_owned(),
            param_bytes: head.param_bytes,
            threads: head.threads,
            min_blocks: head.min_blocks,
            shared_bytes: size.unwrap_or(0),
            static_shared_bytes: shared.0,
            target: target.to_owned(),
            shipped: strip(&lineinfo),
            lineinfo,
        })
    }

    /// The names of module-level declarations that `entry` needs, directly or through others.
    fn used_by(&self, entry: &Item<'a>) -> BTreeSet<&'a str> {
        let others = self.items.iter().filter(|item| matches!(item.kind, Kind::Function | Kind::Variable));
        let others: Vec<(&Item<'a>, BTreeSet<&str>)> =
            others.map(|item| (item, words(item.text).collect())).collect();
        let mut used = BTreeSet::new();
        let mut open: Vec<BTreeSet<&str>> = vec![words(entry.text).collect()];
        while let Some(mentions) = open.pop() {
            for (item, theirs) in &others {
                if mentions.contains(item.name) && used.insert(item.name) {
                    open.push(theirs.clone());
                }
            }
        }
        used
    }
}

impl<'a> Item<'a> {
    fn read(text: &'a str) -> Result<Self, String> {
        let head_end = text.find(['{', ';', '=']).unwrap_or(text.len());
        let head: Vec<&str> = words(&text[..head_end]).collect();
        let directive = head.iter().find(|word| {
            matches!(
                **word,
                ".version"
                    | ".target"
                    | ".address_size"
                    | ".file"
                    | ".section"
                    | ".entry"
                    | ".func"
                    | ".const"
                    | ".global"
                    | ".shared"
            )
        });
        let (kind, name) = match directive.copied() {
            Some(".version" | ".target" | ".address_size") => (Kind::Header, ""),
            Some(".file" | ".section") => (Kind::Debug, ""),
            Some(".entry") => (Kind::Entry, after(&head, ".entry")),
            // A function's results stand in parentheses before its name.
            Some(".func") => (Kind::Function, function_name(&text[..head_end])),
            Some(_) => (Kind::Variable, head.iter().rev().find(|word| is_name(word)).copied().unwrap_or("")),
            None => return Err(format!("unknown at module level: `{}`", first_line(text))),
        };
        if name.is_empty() && !matches!(kind, Kind::Header | Kind::Debug) {
            return Err(format!("no name in `{}`", first_line(text)));
        }
        Ok(Self { kind, name, text })
    }
}

/// What stands before an entry's body.
struct Head {
    param_bytes: u32,
    threads: u32,
    min_blocks: u32,
}

impl Head {
    fn read(item: &Item) -> Result<Self, String> {
        let code = without_comments(item.text);
        let head = code.split('{').next().unwrap_or("");
        let (params, bounds) = match (head.find('('), head.rfind(')')) {
            (Some(open), Some(close)) if open < close => (&head[open + 1..close], &head[close + 1..]),
            _ => ("", head),
        };
        let mut param_bytes: u32 = 0;
        for param in params.split(',').filter(|param| !param.trim().is_empty()) {
            let (align, bytes) = declared(param)?;
            param_bytes = param_bytes.next_multiple_of(align) + bytes;
        }
        let numbers = |directive: &str| -> Option<Vec<u32>> {
            let rest = &bounds[bounds.find(directive)? + directive.len()..];
            let list = rest.split(['.', '\n']).next()?;
            list.split(',').map(|number| number.trim().parse().ok()).collect()
        };
        let threads = numbers(".maxntid").or_else(|| numbers(".reqntid"));
        let threads = threads.ok_or("no `.maxntid`: every kernel states __launch_bounds__")?;
        let min_blocks = numbers(".minnctapersm").and_then(|list| list.first().copied());
        Ok(Self {
            param_bytes,
            threads: threads.iter().product(),
            min_blocks: min_blocks.unwrap_or(1).max(1),
        })
    }
}

/// A sum of shared declarations, each at its alignment.
#[derive(Default)]
struct SharedBytes(u32);

impl SharedBytes {
    fn add(&mut self, declaration: &str) -> Result<(), String> {
        let (align, bytes) = declared(declaration)?;
        self.0 = self.0.next_multiple_of(align) + bytes;
        Ok(())
    }

    fn add_body(&mut self, text: &str) -> Result<(), String> {
        let code = without_comments(text);
        let declarations = code.lines().filter(|line| is_directive(line.trim_start(), ".shared"));
        declarations.map(|line| line.trim().trim_end_matches(';')).try_for_each(|line| self.add(line))
    }
}

/// Alignment and bytes of a declaration such as `.param .align 8 .b8 name[72]`.
fn declared(text: &str) -> Result<(u32, u32), String> {
    let unreadable = || format!("cannot read `{}`", text.trim());
    let words: Vec<&str> = words(text).collect();
    let size = words.iter().find_map(|word| {
        let digits = word.strip_prefix('.')?.trim_start_matches(['b', 'u', 's', 'f']);
        // `.b8` and its kind only: `.v2` or a directive leaves something that is no width.
        matches!(digits, "8" | "16" | "32" | "64" | "128").then(|| digits.parse::<u32>().ok()).flatten()
    });
    let size = size.ok_or_else(unreadable)? / 8;
    let count = match text.split_once('[') {
        Some((_, rest)) => {
            rest.split(']').next().and_then(|n| n.trim().parse().ok()).ok_or_else(unreadable)?
        }
        None => 1,
    };
    // `.ptr .align 1` speaks of what a pointer points to, not of the parameter.
    let align = match words.iter().position(|word| *word == ".align") {
        Some(at) if !words[..at].contains(&".ptr") => {
            words.get(at + 1).and_then(|word| word.parse().ok()).ok_or_else(unreadable)?
        }
        _ => size,
    };
    Ok((align, size * count))
}

fn lower_version(text: &str, target: &str) -> Result<String, String> {
    let Some(version) = text.strip_prefix(".version") else { return Ok(text.to_owned()) };
    let (major, minor) = version.trim().split_once('.').ok_or_else(|| format!("cannot read `{text}`"))?;
    let number = |digits: &str| digits.trim().parse::<u32>().map_err(|_| format!("cannot read `{text}`"));
    let (major, minor) = (number(major)?, number(minor)?).min(oldest_version(target));
    Ok(format!(".version {major}.{minor}"))
}

/// Without `.pragma "used_bytes_mask …"`, which nvcc 13 puts before loads of which it needs a part. It is a hint for the
/// assembler, and asks for version 8.3.
fn without_new_hints(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        if !line.trim_start().starts_with(".pragma \"used_bytes_mask ") {
            kept.push_str(line);
        }
    }
    kept
}

// ---- Words ------------------------------------------------------------------------------------

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.')
}

/// The words of a text: names, numbers, directives and opcodes, without comments and strings.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at = next_code(text, at)?;
            let rest = &text[at..];
            let length = rest.find(|c| !is_word_char(c)).unwrap_or(rest.len());
            if length > 0 {
                at += length;
                return Some(&rest[..length]);
            }
            at = skip_one(text, at);
        }
    })
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$'))
}

fn is_directive(line: &str, directive: &str) -> bool {
    line.strip_prefix(directive).is_some_and(|rest| !rest.starts_with(is_word_char))
}

fn after<'a>(words: &[&'a str], directive: &str) -> &'a str {
    let at = words.iter().position(|word| *word == directive);
    at.and_then(|at| words.get(at + 1)).copied().unwrap_or("")
}

fn function_name(head: &str) -> &str {
    let rest = head.split_once(".func").map_or("", |(_, rest)| rest).trim_start();
    let rest = match rest.strip_prefix('(') {
        Some(results) => results.split_once(')').map_or("", |(_, rest)| rest),
        None => rest,
    };
    words(rest).find(|word| is_name(word)).unwrap_or("")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("").trim()
}

/// Where a module-level declaration that begins at `start` ends: after its `;`, or after its body.
fn item_end(text: &str, start: usize) -> Option<usize> {
    let head = &text[start..start + text[start..].find(['{', ';', '='])?];
    let has_body = words(head).any(|word| matches!(word, ".entry" | ".func" | ".section"));
    let mut depth = 0_usize;
    let mut at = start;
    loop {
        // Comments and strings may hold braces, so they are stepped over as such.
        at += text[at..].find(['{', '}', ';', '"', '/'])?;
        at = next_code(text, at)?;
        match text.as_bytes()[at] {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 && has_body {
                    return Some(at + 1);
                }
            }
            b';' if depth == 0 => return Some(at + 1),
            _ => {}
        }
        at = skip_one(text, at);
    }
}

/// The first byte at or after `at` that is neither white space nor in a comment.
fn next_code(text: &str, mut at: usize) -> Option<usize> {
    loop {
        let rest = &text[at..];
        let code = rest.trim_start();
        at += rest.len() - code.len();
        if code.starts_with("//") {
            at += code.find('\n')?;
        } else if code.starts_with("/*") {
            at += code.find("*/")? + 2;
        } else {
            return (!code.is_empty()).then_some(at);
        }
    }
}

/// Past one character, or past a whole string.
fn skip_one(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let length = match rest.strip_prefix('"') {
        Some(string) => string.find('"').map_or(rest.len(), |end| end + 2),
        None => rest.chars().next().map_or(1, char::len_utf8),
    };
    at + length
}

fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |end| end + 2);
        } else {
            let next = skip_one(text, at);
            let next = next + text[next..].find(['/', '"']).unwrap_or(text.len() - next);
            code.push_str(&text[at..next]);
            at = next;
        }
    }
    code
}
