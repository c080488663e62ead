//! The forms of instructions that get vectors, from `forms.txt`.

use super::values::Kind;
use std::fmt::Write;

/// Some registers of one kind: one, or several in braces.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub kind: Kind,
    /// How many, in braces; `None`: one, without.
    pub braced: Option<usize>,
}

impl Group {
    pub fn count(self) -> usize {
        self.braced.unwrap_or(1)
    }

    fn parse(word: &str) -> Result<Group, String> {
        let (kind, count) = match word.split_once('*') {
            Some((kind, count)) => {
                (kind, Some(count.parse().map_err(|_| format!("`{word}`: not a number"))?))
            }
            None => (word, None),
        };
        let kind = Kind::parse(kind).ok_or_else(|| format!("`{kind}`: not a kind of values"))?;
        Ok(Group { kind, braced: count })
    }
}

/// How far an approximate result may be from another one: relatively, or absolutely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    pub relative: f64,
    pub absolute: f64,
}

/// One spelling.
#[derive(Clone, Debug)]
pub struct Form {
    /// With all modifiers. Several forms may share it and differ in kinds.
    pub opcode: String,
    /// Distinguishes it from all others.
    pub name: String,
    pub results: Vec<Group>,
    pub operands: Vec<Group>,
    /// The instruction, with `$` where registers go.
    pub text: String,
    /// Compute capability ×10 that it needs.
    pub target: u32,
    /// Version of PTX that it needs.
    pub version: String,
    /// `None`: the same bits everywhere.
    pub bound: Option<Bound>,
}

/// All of them.
pub fn forms() -> Vec<Form> {
    parse(include_str!("forms.txt")).unwrap_or_else(|why| panic!("forms.txt: {why}"))
}

fn parse(text: &str) -> Result<Vec<Form>, String> {
    let mut forms: Vec<Form> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let family = family(line).map_err(|why| format!("{line}: {why}"))?;
        for form in family {
            if forms.iter().any(|other| other.name == form.name) {
                return Err(format!("{} is there twice", form.name));
            }
            forms.push(form);
        }
    }
    Ok(forms)
}

fn family(line: &str) -> Result<Vec<Form>, String> {
    let (pattern, rest) = line.split_once(char::is_whitespace).ok_or("kinds are missing")?;
    let (rest, bound) = match rest.rsplit_once(" ~ ") {
        Some((rest, tail)) => (rest, Some(tail)),
        None => (rest, None),
    };
    // A target may stand behind the bound or before it.
    let (bound, late) = match bound.and_then(|tail| tail.split_once('@')) {
        Some((bound, target)) => (Some(bound), Some(target)),
        None => (bound, None),
    };
    let (rest, target) = match late {
        Some(target) => (rest, Some(target)),
        None => match rest.rsplit_once(" @ ") {
            Some((rest, target)) => (rest, Some(target)),
            None => (rest, None),
        },
    };
    let (kinds, text) = rest.split_once(" ; ").unwrap_or((rest, "$op $D, $A;"));
    let (results, operands) = kinds.split_once(" = ").ok_or("`=` is missing")?;
    let groups = |words: &str| words.split_whitespace().map(Group::parse).collect::<Result<Vec<_>, _>>();
    let (results, operands) = (groups(results)?, groups(operands)?);
    let mut words = target.unwrap_or("sm_80").split_whitespace();
    let target: u32 =
        words.next().and_then(|word| word.strip_prefix("sm_")?.parse().ok()).ok_or("no target")?;
    let version = words.next().unwrap_or(if target >= 90 { "8.0" } else { "7.8" });
    let bound = bound.map(|powers| -> Result<Bound, String> {
        let powers: Result<Vec<i32>, _> = powers.split_whitespace().map(str::parse).collect();
        match powers.as_deref() {
            Ok([relative, absolute]) => {
                Ok(Bound { relative: 2f64.powi(*relative), absolute: 2f64.powi(*absolute) })
            }
            _ => Err("a bound is two powers".into()),
        }
    });
    let bound = bound.transpose()?;
    let kinds = kinds.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(spellings(pattern)
        .into_iter()
        .map(|opcode| Form {
            name: format!("{opcode}: {kinds}"),
            opcode,
            results: results.clone(),
            operands: operands.clone(),
            text: text.trim().to_owned(),
            target,
            version: version.to_owned(),
            bound,
        })
        .collect())
}

/// All ways to choose from every `{…}`.
fn spellings(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (choices, after) = rest.split_once('}').expect("braces close");
    let tails = spellings(after);
    choices
        .split(',')
        .flat_map(|choice| tails.iter().map(move |tail| format!("{before}{choice}{tail}")))
        .collect()
}

/// Registers, declarations and offsets of a kernel around a form.
pub struct Layout {
    /// Where each operand's element is in a row, and its register.
    pub operands: Vec<(Kind, usize, String)>,
    pub results: Vec<(Kind, usize, String)>,
    /// Bytes from one row to the next.
    pub row_in: usize,
    pub row_out: usize,
}

impl Layout {
    pub fn of(form: &Form) -> Layout {
        let place = |groups: &[Group], letter: char| {
            let mut at = 0usize;
            let mut all = Vec::new();
            for (g, group) in groups.iter().enumerate() {
                for k in 0..group.count() {
                    let bytes = group.kind.bytes();
                    at = at.next_multiple_of(bytes);
                    all.push((group.kind, at, format!("%{letter}{g}_{k}")));
                    at += bytes;
                }
            }
            (all, at.next_multiple_of(16))
        };
        let ((operands, row_in), (results, row_out)) =
            (place(&form.operands, 'a'), place(&form.results, 'd'));
        // Behind the results: a slot for what is done to global memory.
        Layout { operands, results, row_in, row_out: row_out + 16 }
    }
}

/// Threads of a block, and rows of a vector.
pub const BLOCK: usize = 32;
pub const ROWS: usize = 128;

/// A module with one kernel for each form, `v0` and so on: for all of them one version and one target.
pub fn module(forms: &[&Form], version: &str, target: &str) -> String {
    let mut ptx = format!(".version {version}\n.target {target}\n.address_size 64\n");
    for (k, form) in forms.iter().enumerate() {
        kernel(&mut ptx, &format!("v{k}"), form);
    }
    ptx
}

/// The module of one form.
pub fn module_of(form: &Form) -> String {
    module(&[form], &form.version, &format!("sm_{}", form.target))
}

fn kernel(ptx: &mut String, name: &str, form: &Form) {
    let layout = Layout::of(form);
    let text = instruction(form);
    let mut write = |line: &str| writeln!(ptx, "{line}").expect("strings can be written to");
    write(&format!("// {}", form.name));
    write(&format!(".visible .entry {name}(.param .u64 {name}_in, .param .u64 {name}_out)\n{{"));
    write("    .reg .pred %p, %q;\n    .reg .b16 %h, %i;\n    .reg .b32 %r, %s, %row, %own, %tile;");
    write("    .reg .b64 %x, %y, %in, %out, %slot;\n    .shared .align 16 .b8 tile[1536];");
    if text.contains("[mine") {
        write("    .local .align 16 .b8 mine[16];");
    }
    for (kind, _, register) in layout.operands.iter().chain(&layout.results) {
        write(&format!("    .reg .{} {register};", kind.register()));
    }
    write(&format!("    ld.param.u64 %in, [{name}_in];\n    ld.param.u64 %out, [{name}_out];"));
    write("    cvta.to.global.u64 %in, %in;\n    cvta.to.global.u64 %out, %out;");
    write("    mov.u32 %r, %tid.x;\n    mov.u32 %s, %ctaid.x;\n    mov.u32 %tile, tile;");
    write(
        "    mad.lo.u32 %row, %r, 16, %tile;\n    mad.lo.u32 %own, %r, 32, %tile;\n    add.u32 %own, %own, 512;",
    );
    write(&format!("    mad.lo.u32 %r, %s, {BLOCK}, %r;"));
    write(&format!("    mad.wide.u32 %in, %r, {}, %in;", layout.row_in));
    write(&format!("    mad.wide.u32 %out, %r, {}, %out;", layout.row_out));
    write(&format!("    add.u64 %slot, %out, {};", layout.row_out - 16));
    for (kind, offset, register) in &layout.operands {
        if *kind == Kind::Pred {
            write(&format!("    ld.global.b32 %r, [%in+{offset}];\n    setp.ne.b32 {register}, %r, 0;"));
        } else {
            write(&format!("    ld.global.{} {register}, [%in+{offset}];", kind.register()));
        }
    }
    write(&format!("    {text}"));
    for (kind, offset, register) in &layout.results {
        if *kind == Kind::Pred {
            write(&format!("    selp.b32 %r, 1, 0, {register};\n    st.global.b32 [%out+{offset}], %r;"));
        } else {
            write(&format!("    st.global.{} [%out+{offset}], {register};", kind.register()));
        }
    }
    write("    ret;\n}");
}

/// The form's text with registers.
fn instruction(form: &Form) -> String {
    let group = |letter: char, k: usize, group: &Group| match group.braced {
        None => format!("%{letter}{k}_0"),
        Some(n) => {
            let all: Vec<String> = (0..n).map(|i| format!("%{letter}{k}_{i}")).collect();
            format!("{{{}}}", all.join(", "))
        }
    };
    let all = |letter: char, groups: &[Group]| -> Vec<String> {
        groups.iter().enumerate().map(|(k, g)| group(letter, k, g)).collect()
    };
    let (results, operands) = (all('d', &form.results), all('a', &form.operands));
    let (space, at) = match form.opcode.contains(".shared") {
        true => ("shared", "[%own]"),
        false => ("global", "[%slot]"),
    };
    let mut text = form.text.clone();
    for bits in [16, 32, 64] {
        text = text.replace(&format!("$store{bits}"), &format!("st.{space}.b{bits} {at}, $a0;"));
        text = text.replace(&format!("$load{bits}"), &format!("ld.{space}.b{bits}"));
    }
    text = text.replace("$at", at).replace("$op", &form.opcode);
    text = text.replace("$D", &results.join(", ")).replace("$A", &operands.join(", "));
    for (letter, names) in [('d', results), ('a', operands)] {
        for (k, name) in names.iter().enumerate() {
            text = text.replace(&format!("${letter}{k}"), name);
        }
    }
    text
}
