//! PTX without one of its barriers or waits.

use std::fmt;
use std::path::Path;

/// What orders threads or makes copies visible.
const ORDERING: [&str; 5] =
    ["bar.sync", "barrier.sync", "bar.warp.sync", "cp.async.wait_group", "cp.async.wait_all"];

/// One barrier or wait of a kernel: inlining and unrolling may make several of one in the source.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    pub kernel: String,
    /// Source file and line.
    pub file: String,
    pub line: usize,
    /// Line of the PTX.
    ptx_line: usize,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} without {}:{} (ptx line {})", self.kernel, self.file, self.line, self.ptx_line)
    }
}

/// A kernel's PTX with line tables.
pub fn text(kernel: &str) -> String {
    let file = Path::new(env!("OUT_DIR")).join("lineinfo").join(format!("{kernel}.ptx"));
    std::fs::read_to_string(file).unwrap()
}

/// Every site, with the text that lacks it.
pub fn sites(kernel: &str, text: &str) -> Vec<(Site, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let orders =
        |line: &str| line.split_whitespace().any(|word| ORDERING.iter().any(|o| word.starts_with(o)));
    let without = |k: usize| -> String {
        lines
            .iter()
            .enumerate()
            .map(|(j, line)| if j == k { "\n".to_owned() } else { format!("{line}\n") })
            .collect()
    };
    let site = |k: usize| {
        let (file, line) = source(text, k + 1);
        Site { kernel: kernel.to_owned(), file, line, ptx_line: k + 1 }
    };
    (0..lines.len()).filter(|&k| orders(lines[k])).map(|k| (site(k), without(k))).collect()
}

/// The source file and line of a line of PTX: where an instruction of a header of CUDA was inlined, that place.
fn source(text: &str, line: usize) -> (String, usize) {
    let loc = text.lines().take(line).filter_map(|line| line.trim().strip_prefix(".loc")).last().unwrap();
    let (own, inlined_at) = loc.split_once("inlined_at").unwrap_or((loc, ""));
    let place = |numbers: &str| {
        let mut numbers = numbers.split_whitespace();
        let file = numbers.next()?;
        let line = numbers.next()?.parse().ok()?;
        let name = text.lines().find_map(|line| {
            let rest = line.trim().strip_prefix(".file")?.trim().strip_prefix(file)?.strip_prefix(' ')?;
            rest.split('"').nth(1)
        });
        Some((name?.to_owned(), line))
    };
    let is_ours = |(file, _): &(String, usize)| file.starts_with("kernels/");
    place(own).filter(is_ours).or(place(inlined_at)).or(place(own)).unwrap()
}
