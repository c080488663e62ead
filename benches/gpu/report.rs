//! The report on one run: `report.md`, and a picture of bars per layer and element type.

use crate::Failure;
use crate::canvas::{Canvas, FAINT, INK, LINE, Text};
use crate::speed::{floor_us, read, rivals, time_us};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// One bar: who, and which part of the floor's speed it reaches.
struct Bar {
    name: String,
    part: f64,
    is_ours: bool,
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Stages of the run with what became of them, from `stages/*.json`.
fn stages(folder: &Path) -> Vec<Value> {
    let entries = std::fs::read_dir(folder.join("stages")).into_iter().flatten().flatten();
    let mut paths: Vec<_> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    paths.sort();
    paths.iter().filter_map(|path| serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()).collect()
}

fn bars(entry: &Value, facts: &Value, peers: Option<&Value>) -> Vec<Bar> {
    let floor = floor_us(entry, facts, peers);
    let label = format!("{} {} {}", word(entry, "op"), word(entry, "variant"), word(entry, "pass"));
    let ours =
        time_us(entry).map(|us| Bar { name: format!("{label}: macula"), part: floor / us, is_ours: true });
    let theirs = rivals(entry, peers).into_iter().filter_map(|peer| {
        let us = peer["us"][0].as_f64()?;
        Some(Bar { name: format!("    {}", word(peer, "peer")), part: floor / us, is_ours: false })
    });
    ours.into_iter().chain(theirs).collect()
}

const ROW: i32 = 24;
const LEFT: i32 = 470;
const WIDTH: i32 = 420;
const MARGIN: i32 = 16;
const OURS: [u8; 3] = [38, 110, 160];
const THEIRS: [u8; 3] = [190, 150, 110];

fn draw(title: &str, bars: &[Bar]) -> Canvas {
    let height = MARGIN * 2 + ROW * (bars.len() as i32 + 2);
    let mut canvas = Canvas::new(LEFT + WIDTH + 80, height);
    canvas.text(MARGIN, MARGIN, title, Text::Label, INK);
    for (i, bar) in bars.iter().enumerate() {
        let y = MARGIN + ROW * (i as i32 + 2);
        canvas.text(MARGIN, y, &bar.name, Text::Small, INK);
        canvas.rectangle([LEFT, y, WIDTH, ROW - 6], LINE);
        let width = (bar.part.clamp(0.0, 1.0) * f64::from(WIDTH)).round() as i32;
        canvas.rectangle([LEFT, y, width.max(1), ROW - 6], if bar.is_ours { OURS } else { THEIRS });
        let label = format!("{:.0} %", bar.part * 100.0);
        canvas.text(LEFT + WIDTH + 8, y, &label, Text::Small, FAINT);
    }
    canvas
}

fn row(text: &mut String, entry: &Value, facts: &Value, peers: Option<&Value>) {
    let what = format!(
        "| `{}` {} | {} | {} | {} |",
        word(entry, "op"),
        word(entry, "variant"),
        word(entry, "pass"),
        word(entry, "layer"),
        word(entry, "dtype")
    );
    let Some(us) = time_us(entry) else {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{what} {} | | | | |", word(entry, "missing"));
        return;
    };
    let (floor, time) = (floor_us(entry, facts, peers), &entry["time"]);
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let spread = 100.0 * (number(&time["graph_us"][2]) - number(&time["graph_us"][1])) / us;
    let _ = writeln!(
        text,
        "{what} {us:.1} ± {spread:.0} % | {:.1} | {:.1} | {floor:.1} | {:.0} % |",
        number(&time["stream_us"][0]),
        number(&time["host_us"]),
        100.0 * floor / us
    );
    for peer in rivals(entry, peers) {
        let rival = number(&peer["us"][0]);
        let _ = writeln!(
            text,
            "| | | | {} | {rival:.1} | | | | {:.0} % ({:.2} × ours) |",
            word(peer, "peer"),
            100.0 * floor / rival,
            rival / us
        );
    }
}

/// Writes `report.md` and `bars_<layer>_<dtype>.png` into the folder.
pub fn write(folder: &Path) -> Result<(), Failure> {
    let facts = read(folder, "facts.json").unwrap_or_default();
    let peers = read(folder, "peers.json");
    let times = read(folder, "time.json").unwrap_or_default();
    let mut text = String::from("# GPU report\n\n");
    let _ = writeln!(
        text,
        "```json\n{facts:#}\n```\n\n## Stages\n\n| stage | result | seconds | command |\n| --- | --- | --- | --- |"
    );
    for stage in stages(folder) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | `{}` |",
            word(&stage, "stage"),
            word(&stage, "result"),
            stage["seconds"],
            word(&stage, "command").replace('\n', "; ").replace('|', "\\|")
        );
    }
    text += "\n## Times\n\nMicroseconds per call: replayed from a CUDA graph (the figure that counts), put on the stream one by one, and the\n\
             host's share of a call; the floor, and the part of its speed that is reached.\n\n\
             | op | pass | layer | type | graph | stream | host | floor | reached |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    let entries = times["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut pictures: BTreeMap<(String, String), Vec<Bar>> = BTreeMap::new();
    for entry in entries {
        row(&mut text, entry, &facts, peers.as_ref());
        let key = (word(entry, "layer").to_owned(), word(entry, "dtype").to_owned());
        pictures.entry(key).or_default().extend(bars(entry, &facts, peers.as_ref()));
    }
    text += "\n## Peers that were not to be had\n\n";
    let missing = peers.as_ref().and_then(|peers| peers["missing"].as_object());
    match missing {
        Some(missing) => missing.iter().for_each(|(peer, why)| {
            let _ = writeln!(text, "- {peer}: {}", why.as_str().unwrap_or_default());
        }),
        None => text += "No peer ran.\n",
    }
    for ((layer, dtype), bars) in &pictures {
        let file = format!("bars_{layer}_{dtype}.png");
        draw(&format!("{layer} {dtype}: part of the floor's speed"), bars).image.save(folder.join(&file))?;
        let _ = writeln!(text, "\n![{layer} {dtype}]({file})");
    }
    std::fs::write(folder.join("report.md"), text)?;
    println!("wrote {} and {} pictures", folder.join("report.md").display(), pictures.len());
    Ok(())
}
