//! Golden vectors of instructions, from kernel to recording to replay.

#[path = "../examples/vectors/main.rs"]
#[allow(dead_code)]
mod program;

use crate::common::driver;
use program::file::Recording;
use program::forms::{Form, forms};
use program::record::record;
use program::replay::replay;
use ptx_emulator_driver::ptx_emulator::opcodes;
use std::collections::BTreeSet;

/// Opcodes without a result that depends on operands alone.
const WITHOUT: &[(&str, &[&str])] = &[
    ("where to go on", &["bra", "brx", "ret", "exit", "trap", "brkpt", "nanosleep"]),
    (
        "order and hints",
        &["membar", "fence", "prefetch", "prefetchu", "discard", "applypriority", "createpolicy"],
    ),
    ("addresses differ from device to device", &["cvta", "isspacep"]),
    ("an older spelling of `ld.global.nc`", &["ldu"]),
    (
        "refused by name",
        &["wgmma", "mbarrier", "setmaxnreg", "tensormap", "griddepcontrol", "mapa", "getctarank"],
    ),
    ("refused by name", &["clusterlaunchcontrol"]),
];

/// The recording of one of the look-alike's devices.
fn recorded(ordinal: usize) -> Recording {
    let driver = driver();
    let (recording, refused) = driver.with(|s| s.cuda_version = 12_090, || record(ordinal)).unwrap();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    recording
}

#[test]
fn every_opcode_of_the_emulator_has_a_vector() {
    let forms = forms();
    let base = |form: &Form| form.opcode.split('.').next().unwrap().to_owned();
    let with: BTreeSet<String> = forms.iter().map(base).collect();
    let without: BTreeSet<String> =
        WITHOUT.iter().flat_map(|(_, opcodes)| opcodes.iter().map(|o| o.to_string())).collect();
    let known: BTreeSet<String> = opcodes().map(str::to_owned).collect();
    let missing: Vec<&String> =
        known.iter().filter(|o| !with.contains(*o) && !without.contains(*o)).collect();
    assert!(missing.is_empty(), "opcodes that the emulator decodes and forms.txt lacks: {missing:?}");
    let stale: Vec<&String> = with.union(&without).filter(|o| !known.contains(*o)).collect();
    assert!(stale.is_empty(), "opcodes that the emulator does not know: {stale:?}");
    assert!(with.is_disjoint(&without));
}

#[test]
fn a_recording_replays() {
    for (ordinal, least) in [(0, 1500), (2, 1600)] {
        let file = std::env::temp_dir().join(format!("vectors-{}-{ordinal}.bin", std::process::id()));
        let recording = recorded(ordinal);
        recording.write(&file).unwrap();
        let read = Recording::read(&file).unwrap();
        let bytes = std::fs::metadata(&file).unwrap().len();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(read, recording);
        assert!(bytes < 1 << 20, "{bytes} bytes");
        let verdict = replay(&read);
        assert!(verdict.differences.is_empty(), "{}", verdict.differences.join("\n"));
        assert!(verdict.missing.is_empty() && verdict.compared > least, "{verdict:?}");
    }
}

#[test]
fn a_wrong_bit_is_found_in_every_form() {
    let mut recording = recorded(2);
    for vector in &mut recording.vectors {
        // One of every byte: NaN may stay NaN in a row, not in all.
        vector.results.iter_mut().for_each(|byte| *byte ^= 0x40);
    }
    let verdict = replay(&recording);
    assert_eq!(verdict.differences.len(), verdict.compared);
}

#[test]
fn vectors_of_other_kernels_do_not_count() {
    let mut recording = recorded(0);
    let count = recording.vectors.len();
    recording.vectors[0].hash ^= 1;
    recording.vectors.truncate(count - 1);
    let verdict = replay(&recording);
    assert_eq!((verdict.compared, verdict.missing.len()), (count - 2, 2));
}
