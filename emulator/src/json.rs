//! Reports as JSON.

use crate::report::{Counts, Report};

/// Appends a string literal.
fn text(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends an array, an element per line.
fn list<T>(
    out: &mut String,
    indent: &str,
    items: impl IntoIterator<Item = T>,
    write: impl Fn(&mut String, T),
) {
    out.push('[');
    let mut is_empty = true;
    for item in items {
        out.push_str(if is_empty { "\n" } else { ",\n" });
        out.push_str(indent);
        out.push_str("  ");
        write(out, item);
        is_empty = false;
    }
    if !is_empty {
        out.push('\n');
        out.push_str(indent);
    }
    out.push(']');
}

/// Appends counts as members of an object that has begun. Zeros are left out, but for the executions.
fn counts(out: &mut String, counts: &Counts) {
    for (name, value) in counts.fields().into_iter().filter(|(name, n)| *n != 0 || *name == "executions") {
        out.push_str(&format!(", \"{name}\": {value}"));
    }
}

/// A report as one object.
pub(crate) fn of(report: &Report) -> String {
    let mut out = String::from("{\n  \"kernel\": ");
    text(&mut out, &report.kernel);
    out += &format!(
        ",\n  \"blocks\": {},\n  \"warp_instructions\": {},\n  \"totals\": {{\"read_bytes\": {}, \"written_bytes\": {}",
        report.blocks,
        report.warp_instructions,
        report.read_bytes(),
        report.written_bytes(),
    );
    counts(&mut out, &report.totals());
    out.push_str("},\n  \"mix\": ");
    list(&mut out, "  ", report.mix(), |out, (class, sum)| {
        out.push_str("{\"class\": ");
        text(out, class.name());
        counts(out, &sum);
        out.push('}');
    });
    out.push_str(",\n  \"buffers\": ");
    list(&mut out, "  ", &report.buffers, |out, buffer| {
        *out += &format!(
            "{{\"address\": {}, \"bytes\": {}, \"read_sectors\": {}, \"written_sectors\": {}}}",
            buffer.address, buffer.bytes, buffer.read_sectors, buffer.written_sectors
        );
    });
    out.push_str(",\n  \"lines\": ");
    list(&mut out, "  ", &report.lines, |out, line| {
        *out += &format!("{{\"line\": {}", line.line);
        if let Some((file, number)) = &line.source {
            out.push_str(", \"file\": ");
            text(out, file);
            *out += &format!(", \"source_line\": {number}");
        }
        out.push_str(", \"instruction\": ");
        text(out, &line.instruction);
        out.push_str(", \"class\": ");
        text(out, line.class.name());
        counts(out, &line.counts);
        out.push('}');
    });
    out.push_str("\n}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Buffer, Class, Line};

    #[test]
    fn a_report_is_written() {
        let add = Counts { executions: 2, lanes: 40, ..Counts::default() };
        let load = Counts { sectors: 3, ..add };
        let line = |line, source, instruction: &str, class, counts| Line {
            line,
            source,
            instruction: instruction.into(),
            class,
            counts,
        };
        let report = Report {
            kernel: "k".into(),
            blocks: 1,
            warp_instructions: 4,
            lines: vec![
                line(3, None, "add.s32 %r0, %r0, \"1\"", Class::Integer, add),
                line(4, Some(("a\\b.cu".into(), 7)), "ld.global.u32 %r0, [%rd0]", Class::Global, load),
            ],
            buffers: vec![Buffer { address: 4096, bytes: 100, read_sectors: 3, written_sectors: 0 }],
        };
        let want = r#"{
  "kernel": "k",
  "blocks": 1,
  "warp_instructions": 4,
  "totals": {"read_bytes": 96, "written_bytes": 0, "executions": 4, "lanes": 80, "sectors": 3},
  "mix": [
    {"class": "integer", "executions": 2, "lanes": 40},
    {"class": "global", "executions": 2, "lanes": 40, "sectors": 3}
  ],
  "buffers": [
    {"address": 4096, "bytes": 100, "read_sectors": 3, "written_sectors": 0}
  ],
  "lines": [
    {"line": 3, "instruction": "add.s32 %r0, %r0, \"1\"", "class": "integer", "executions": 2, "lanes": 40},
    {"line": 4, "file": "a\\b.cu", "source_line": 7, "instruction": "ld.global.u32 %r0, [%rd0]", "class": "global", "executions": 2, "lanes": 40, "sectors": 3}
  ]
}
"#;
        assert_eq!(of(&report), want);
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut out = String::new();
        text(&mut out, "a\tb\nc\u{1}é");
        assert_eq!(out, "\"a\\tb\\nc\\u0001é\"");
    }

    #[test]
    fn nothing_counted_is_written_too() {
        let report = Report { kernel: "k".into(), ..Report::default() };
        assert!(of(&report).contains("\"mix\": [],\n  \"buffers\": [],\n  \"lines\": []\n}"));
    }
}
