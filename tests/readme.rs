//! What README.md says exists, exists.

use crate::examples::accepts;
use std::path::Path;

#[path = "../benches/gpu/speed.rs"]
#[allow(dead_code)] // the report uses more of it
mod speed;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// The lines of code blocks of a language.
fn code(text: &str, language: &str) -> Vec<String> {
    let (mut lines, mut is_inside) = (Vec::new(), false);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("```") {
            is_inside = rest == language;
        } else if is_inside {
            lines.push(line.split('#').next().unwrap_or("").trim().to_owned());
        }
    }
    lines
}

/// What stands in backquotes in prose and tables.
fn quoted(text: &str) -> Vec<&str> {
    text.lines()
        .filter(|line| !line.starts_with("```"))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect()
}

/// What is wrong with a command that the reader is told to run.
fn check_command(command: &str) -> Result<(), String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["cargo", "run", "--release", "--example", example, rest @ ..] => {
            let args = rest.strip_prefix(&["--"]).unwrap_or(rest);
            accepts(example, args).map_err(|e| format!("{command}: {e}"))
        }
        ["cargo", "test", "--workspace"] | ["cargo", "bench"] | ["cargo", "doc"] | [".ci/run"] => Ok(()),
        ["cargo", "test", "--test", binary, _filter]
            if root().join(format!("tests/{binary}.rs")).exists() =>
        {
            Ok(())
        }
        _ => Err(format!("{command}: not a command that this test knows")),
    }
}

#[test]
fn commands_exist() {
    let guide = std::fs::read_to_string(root().join("src/guide/testing.md")).unwrap();
    for (text, at_least) in [(readme(), 6), (guide, 4)] {
        let mut commands = code(&text, "sh");
        commands.retain(|command| !command.is_empty());
        let in_prose = |word: &&str| word.starts_with("cargo ") || *word == ".ci/run";
        commands.extend(quoted(&text).into_iter().filter(in_prose).map(str::to_owned));
        assert!(commands.len() >= at_least, "{commands:?}");
        let wrong: Vec<String> = commands.iter().filter_map(|c| check_command(c).err()).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    assert!(root().join(".ci/run").exists());
    // The test of the test.
    assert!(check_command("cargo run --release --example attention_maps -- --no-such-option").is_err());
    assert!(check_command("cargo run --release --example no_such_example").is_err());
}

/// Links and names of files, here and in the table of where things are.
#[test]
fn files_exist() {
    let text = readme();
    let links: Vec<&str> =
        text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or(rest)).collect();
    assert!(links.len() >= 2);
    let places = quoted(&text).into_iter().filter(|word| {
        ["src/", "tests/", "kernels/", "emulator/", "examples/"].iter().any(|folder| word.starts_with(folder))
    });
    for place in links.into_iter().chain(places) {
        let place = place.replace("<op>", "gaussian");
        assert!(root().join(&place).exists(), "README.md names {place}");
    }
}

#[test]
fn it_is_short_and_its_picture_small() {
    assert!(readme().lines().count() <= 200);
    let bytes = std::fs::metadata(root().join("assets/overview.jpg")).unwrap().len();
    assert!(bytes <= 300 * 1024, "{bytes}");
    let bytes = std::fs::metadata(root().join("examples/data/chelsea.jpg")).unwrap().len();
    assert!(bytes <= 400 * 1024, "{bytes}");
}

/// Ops without entries of their own, which launch those of others.
const MADE_OF: [(&str, [&str; 2]); 1] = [("gsa", ["axial", "content"])];

/// The table of what is supported claims kernels for the ops that have entries, and for no others.
#[test]
fn the_table_agrees_with_the_compiled_kernels() {
    if let Some(why) = macula::kernel::missing() {
        assert!(std::env::var_os("MACULA_REQUIRE_KERNELS").is_none(), "{why}");
        return;
    }
    let text = readme();
    let table = text.split("<!-- supported -->").nth(1).unwrap().split("<!-- /supported -->").next().unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let entries = macula::kernel::all();
    for row in &rows {
        let (op, cuda) = (row[0].trim_matches('`'), row[2]);
        let has_own = |op: &str| entries.iter().any(|entry| entry.name.starts_with(&format!("{op}_")));
        let parts = MADE_OF.iter().find(|(name, _)| *name == op);
        let has_entries = parts.map_or(has_own(op), |(_, parts)| parts.iter().all(|part| has_own(part)));
        assert_eq!(has_entries, cuda != "not yet", "README.md, supported: `{op}` on `Cuda` is \"{cuda}\"");
    }
    for entry in entries {
        let has_row =
            rows.iter().any(|row| entry.name.starts_with(&format!("{}_", row[0].trim_matches('`'))));
        assert!(has_row, "README.md, supported: no row for {}", entry.name);
    }
}

/// README's section on speed is what the newest record says, and without a record it says so.
#[test]
fn the_speed_section_is_that_of_the_newest_record() {
    let text = readme();
    let written = text.split("<!-- speed -->\n").nth(1).unwrap().split("<!-- /speed -->").next().unwrap();
    assert_eq!(written, speed::section(&root().join("benches/record")));
}
