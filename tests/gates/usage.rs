//! What `ptxas -v` says of one kernel.

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub registers: u32,
    /// The deepest stack frame, of the entry or of a function that it calls.
    pub stack_bytes: u32,
    pub spill_bytes: u32,
}

impl Usage {
    pub fn read(text: &str) -> Option<Self> {
        let mut usage = Usage::default();
        let mut has_registers = false;
        for line in text.lines() {
            let numbers: Vec<u32> =
                line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
            if let (true, [.., stack, stores, loads]) =
                (line.contains("bytes stack frame"), numbers.as_slice())
            {
                usage.stack_bytes = usage.stack_bytes.max(*stack);
                usage.spill_bytes += stores + loads;
            }
            if let Some((_, rest)) = line.split_once("Used ") {
                usage.registers = rest.split(' ').next()?.parse().ok()?;
                has_registers = true;
            }
        }
        has_registers.then_some(usage)
    }
}

#[test]
fn usage_is_read_from_the_words_of_ptxas() {
    let text = "ptxas info    : 24 bytes gmem, 16 bytes cmem[3]
ptxas info    : Compiling entry function 'a' for 'sm_80'
ptxas info    : Function properties for a
    32 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 116 registers, used 1 barriers, 132 bytes smem, 384 bytes cmem[0]
ptxas info    : Compile time = 12.9 ms
";
    assert_eq!(Usage::read(text), Some(Usage { registers: 116, stack_bytes: 32, spill_bytes: 12 }));
    assert_eq!(Usage::read("ptxas info    : Compile time = 1 ms"), None);
}
