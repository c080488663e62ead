//! README's section on speed, from the newest record; a test holds README to it.

use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Layers and element type that README shows.
const SHOWN: [&str; 2] = ["S1_b64_56x56_h8_d64", "S2_b16_128x128_h8_d64"];
const DTYPE: &str = "bf16";

/// Folders `benches/record/<gpu>/<date>`, the newest date last.
fn records(folder: &Path) -> Vec<PathBuf> {
    let children = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let mut all: Vec<PathBuf> = children(folder).iter().flat_map(|gpu| children(gpu)).collect();
    all.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    all
}

/// A JSON file of a record; `None` when it is not there or cannot be read.
pub fn read(folder: &Path, file: &str) -> Option<Value> {
    serde_json::from_str(&std::fs::read_to_string(folder.join(file)).ok()?).ok()
}

/// The least time for an entry, in microseconds: its bytes at the measured copy rate, or its operations at the rate of
/// the unit that does them (measured for the tensor cores, where the peers ran; from the clock for f32).
pub fn floor_us(entry: &Value, facts: &Value, peers: Option<&Value>) -> f64 {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let bytes = number(&entry["min_bytes"]) / number(&facts["copy_bytes_per_second"]);
    let rate = if entry["dtype"] == "f32" {
        number(&facts["f32_flops_per_second"])
    } else {
        peers.map_or(0.0, |peers| number(&peers["matrix_flops_per_second"]))
    };
    let flops = if rate > 0.0 { number(&entry["flops"]) / rate } else { 0.0 };
    bytes.max(flops) * 1e6
}

/// Microseconds per call of one of our entries.
pub fn time_us(entry: &Value) -> Option<f64> {
    entry["time"]["graph_us"][0].as_f64()
}

/// The peers' entries that answer one of ours.
pub fn rivals<'a>(entry: &Value, peers: Option<&'a Value>) -> Vec<&'a Value> {
    let same = |peer: &&Value| {
        ["op", "pass", "variant", "layer", "dtype"].iter().all(|key| peer[*key] == entry[*key])
    };
    let all = peers.and_then(|peers| peers["entries"].as_array());
    all.into_iter().flatten().filter(same).filter(|peer| peer["us"][0].is_number()).collect()
}

/// The section's text, given the folder of all records.
pub fn section(folder: &Path) -> String {
    let newest = records(folder).pop();
    let loaded = newest.as_deref().and_then(|record| {
        Some((record, read(record, "facts.json")?, read(record, "time.json")?, read(record, "peers.json")))
    });
    let Some((record, facts, times, peers)) = loaded else {
        return "No GPU has run these kernels yet, so there is no GPU figure to report.\n".into();
    };
    let date = record.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let device = facts["device"].as_str().unwrap_or_default();
    let copy = facts["copy_bytes_per_second"].as_f64().unwrap_or(0.0) * 1e-12;
    let mut text = format!(
        "{device}, {date}, {DTYPE}, `scripts/gpu-bundle` and `./run.sh --full`. The floor is the time of the least bytes at the\n\
         measured copy rate of {copy:.2} TB/s, or of the operations at the measured matrix rate, whichever is longer.\n\n\
         | op | pass | layer | µs | of the floor | best peer | µs |\n| --- | --- | --- | --- | --- | --- | --- |\n"
    );
    let entries = times["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    for entry in entries {
        let is_shown = entry["dtype"] == DTYPE && SHOWN.iter().any(|layer| entry["layer"] == *layer);
        let Some(us) = time_us(entry).filter(|_| is_shown) else { continue };
        let floor = floor_us(entry, &facts, peers.as_ref());
        let best = rivals(entry, peers.as_ref()).into_iter().min_by(|a, b| {
            a["us"][0].as_f64().partial_cmp(&b["us"][0].as_f64()).unwrap_or(std::cmp::Ordering::Equal)
        });
        let (name, rival) = best.map_or(("", String::new()), |peer| {
            (
                peer["peer"].as_str().unwrap_or_default(),
                format!("{:.0}", peer["us"][0].as_f64().unwrap_or(0.0)),
            )
        });
        let word = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| `{}` {} | {} | {} | {us:.0} | {:.0} % | {name} | {rival} |",
            word("op"),
            word("variant"),
            word("pass"),
            word("layer"),
            100.0 * floor / us
        );
    }
    text
}
