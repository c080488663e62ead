//! The emulator's golden vectors: their kernels are PTX to NVIDIA's assembler too, and they cover what macula's kernels use.

#[path = "../../emulator/driver/examples/vectors/forms.rs"]
#[allow(dead_code)]
mod forms;
#[path = "../../emulator/driver/examples/vectors/values.rs"]
#[allow(dead_code)]
mod values;

use crate::tools::{Toolchain, Writes, needed, none_of, parallel};
use forms::{Form, forms, module};
use std::collections::BTreeSet;

/// What has no result of its own: where to go on, who waits, parameters and address windows.
const WITHOUT: [&str; 8] =
    ["bra", "ret", "bar.sync", "bar.warp.sync", "cp.async.commit_group", "cp.async.wait", "cvta", "ld.param"];

#[test]
fn every_form_of_the_golden_vectors_assembles() {
    let toolchain = Toolchain::read();
    let Some(ptxas) = needed("golden vectors", toolchain.ptxas()) else { return };
    let forms = forms();
    let kinds: BTreeSet<(&str, u32)> = forms.iter().map(|f| (f.version.as_str(), f.target)).collect();
    let kinds: Vec<(&str, u32)> = kinds.into_iter().collect();
    let findings = parallel(&kinds, |&(version, target)| {
        let some: Vec<&Form> = forms.iter().filter(|f| f.version == version && f.target == target).collect();
        let target = format!("sm_{target}");
        let ptx = module(&some, version, &target);
        let run = ptxas.run(&toolchain.cache(), &["-arch", &target], ptx.as_bytes(), Writes::Dropped);
        (!run.ok).then(|| format!("PTX {version}, {target}: {}", run.text))
    });
    none_of(findings.into_iter().flatten().collect());
}

/// The opcode of a line of PTX, if it is an instruction: without its guard, and without hints to caches.
fn opcode(line: &str) -> Option<String> {
    let line = line.trim().trim_start_matches('{').trim_start();
    let line = match line.strip_prefix('@') {
        Some(guarded) => guarded.split_once(char::is_whitespace)?.1.trim_start(),
        None => line,
    };
    let word = line.split(|c: char| c.is_whitespace() || c == ';').next()?;
    let is_opcode =
        word.starts_with(|c: char| c.is_ascii_lowercase()) && line.contains(';') && !word.ends_with(':');
    let hint = |part: &&str| !part.starts_with("L1::") && !part.starts_with("L2::") && *part != "uni";
    is_opcode.then(|| word.split('.').filter(hint).collect::<Vec<_>>().join("."))
}

#[test]
fn every_opcode_of_the_kernels_has_a_golden_vector() {
    let forms = forms();
    let with: BTreeSet<&str> = forms.iter().map(|form| form.opcode.as_str()).collect();
    let mut findings = BTreeSet::new();
    for kernel in macula::kernel::all() {
        for opcode in kernel.ptx().unwrap().lines().filter_map(opcode) {
            if !with.contains(opcode.as_str()) && !WITHOUT.iter().any(|start| opcode.starts_with(start)) {
                findings.insert(format!("`{opcode}`, used by {}, is not in forms.txt", kernel.name));
            }
        }
    }
    none_of(findings.into_iter().collect());
}
