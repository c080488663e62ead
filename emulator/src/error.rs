//! Every way in which something is refused or stopped.

use std::fmt;

/// A PTX text that cannot be loaded: what is wrong, where, and how it was spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// The word that was not understood, as spelled in the text.
    pub spelling: String,
    /// What is wrong with it.
    pub problem: String,
}

impl LoadError {
    pub(crate) fn new(line: u32, spelling: impl Into<String>, problem: impl Into<String>) -> LoadError {
        LoadError { line, spelling: spelling.into(), problem: problem.into() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ptx line {}: `{}`: {}", self.line, self.spelling, self.problem)
    }
}

impl std::error::Error for LoadError {}

/// A host access to device memory that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemoryError {
    /// More bytes than one allocation or the host can hold.
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
    },
    /// The address is in no allocation.
    NotAllocated {
        /// The address.
        address: u64,
    },
    /// The range begins in an allocation and ends behind it.
    OutOfBounds {
        /// Start of the range.
        address: u64,
        /// Bytes of the range.
        bytes: u64,
        /// Start of the allocation.
        base: u64,
        /// Bytes of the allocation.
        length: u64,
    },
    /// `free` of an address that `alloc` did not return, or twice.
    NotABase {
        /// The address.
        address: u64,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryError::OutOfMemory { bytes } => write!(f, "cannot allocate {bytes} bytes of device memory"),
            MemoryError::NotAllocated { address } => write!(f, "address {address:#x} is in no allocation"),
            MemoryError::OutOfBounds { address, bytes, base, length } => {
                write!(f, "{bytes} bytes at {address:#x} leave the allocation of {length} bytes at {base:#x}")
            }
            MemoryError::NotABase { address } => {
                write!(f, "address {address:#x} is not the start of a live allocation")
            }
        }
    }
}

impl std::error::Error for MemoryError {}

/// Why a launch stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopKind {
    /// The launch itself is impossible: dimensions, shared memory or parameters.
    BadLaunch,
    /// An access outside every allocation, window or parameter.
    OutOfBounds,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A store to constant or parameter memory.
    ReadOnly,
    /// Warps wait at barriers that nothing can complete.
    Deadlock,
    /// Lanes of a warp wait for lanes that can never arrive, or an aligned instruction met a partial warp.
    Divergence,
    /// Warps spin without any progress.
    Hang,
    /// `trap`, or a failed device assertion.
    Trap,
    /// An operand value that the instruction does not allow.
    BadOperand,
    /// A read of bytes that nothing has written.
    Uninitialised,
    /// Two conflicting accesses that nothing orders.
    Race,
    /// Use of bytes that an asynchronous copy, not yet waited for, still writes.
    InFlight,
    /// A barrier for all threads of a block some of which have exited.
    EarlyExit,
}

/// The earlier of two accesses that must not meet; the [`Stop`] itself describes the later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    pub(crate) verb: &'static str,
    pub(crate) block: [u32; 3],
    pub(crate) thread: [u32; 3],
    pub(crate) several: bool,
    pub(crate) line: u32,
    pub(crate) source: Option<(String, u32)>,
    pub(crate) instruction: String,
}

impl Side {
    /// What it did: `read`, `write`, `atomic`, `copy`, `exit`.
    pub fn verb(&self) -> &str {
        self.verb
    }

    /// Its block.
    pub fn block(&self) -> [u32; 3] {
        self.block
    }

    /// Its thread within the block.
    pub fn thread(&self) -> [u32; 3] {
        self.thread
    }

    /// Line of the PTX text.
    pub fn ptx_line(&self) -> u32 {
        self.line
    }

    /// Source file and line, where the PTX has line information.
    pub fn source(&self) -> Option<(&str, u32)> {
        self.source.as_ref().map(|(file, line)| (file.as_str(), *line))
    }

    /// The instruction.
    pub fn instruction(&self) -> &str {
        &self.instruction
    }
}

/// A launch that was stopped, with everything needed to find out why.
///
/// `Display` prints the whole report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    pub(crate) details: Box<Details>,
}

/// What a [`Stop`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Details {
    pub kind: StopKind,
    pub kernel: String,
    pub block: Option<[u32; 3]>,
    pub thread: Option<[u32; 3]>,
    pub line: u32,
    pub source: Option<(String, u32)>,
    pub instruction: String,
    pub text: String,
    /// What the thread did, where there is another side.
    pub verb: &'static str,
    pub other: Option<Side>,
    pub notes: Vec<String>,
}

impl Stop {
    /// What kind of mistake it is.
    pub fn kind(&self) -> StopKind {
        self.details.kind
    }

    /// Name of the kernel.
    pub fn kernel(&self) -> &str {
        &self.details.kernel
    }

    /// The block, where one is to blame.
    pub fn block(&self) -> Option<[u32; 3]> {
        self.details.block
    }

    /// The thread within the block, where one is to blame.
    pub fn thread(&self) -> Option<[u32; 3]> {
        self.details.thread
    }

    /// Line of the PTX text, or 0.
    pub fn ptx_line(&self) -> u32 {
        self.details.line
    }

    /// Source file and line, where the PTX has line information.
    pub fn source(&self) -> Option<(&str, u32)> {
        self.details.source.as_ref().map(|(file, line)| (file.as_str(), *line))
    }

    /// The other thread, where two are to blame.
    pub fn other(&self) -> Option<&Side> {
        self.details.other.as_ref()
    }

    /// One sentence: what happened.
    pub fn text(&self) -> &str {
        &self.details.text
    }

    pub(crate) fn launch(kernel: &str, text: String) -> Stop {
        Stop {
            details: Box::new(Details {
                kind: StopKind::BadLaunch,
                kernel: kernel.into(),
                block: None,
                thread: None,
                line: 0,
                source: None,
                instruction: String::new(),
                text,
                verb: "",
                other: None,
                notes: Vec::new(),
            }),
        }
    }
}

/// `   file:line   ptx line 12   ld.shared…`
fn place(
    f: &mut fmt::Formatter<'_>,
    line: u32,
    source: &Option<(String, u32)>,
    instruction: &str,
) -> fmt::Result {
    match source {
        Some((file, number)) => write!(f, "   {file}:{number}   ptx line {line}")?,
        None => write!(f, "   ptx line {line}")?,
    }
    write!(f, "   {instruction}")
}

fn triple(v: [u32; 3]) -> String {
    format!("({},{},{})", v[0], v[1], v[2])
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { kernel, block, thread, line, source, instruction, text, verb, other, .. } =
            &*self.details;
        write!(f, "error: {text} in {kernel}")?;
        if let Some(block) = block {
            // The verbs of both sides stand in one column.
            let verb = if verb.is_empty() { String::new() } else { format!("{verb:<7}") };
            write!(f, "\n  {verb}block {}", triple(*block))?;
            if let Some(thread) = thread {
                write!(f, " thread {}", triple(*thread))?;
            }
        }
        if *line != 0 {
            place(f, *line, source, instruction)?;
        }
        if let Some(other) = other {
            let who = (triple(other.block), triple(other.thread));
            write!(f, "\n  {:<7}block {} thread {}", other.verb, who.0, who.1)?;
            if other.several {
                write!(f, " and others")?;
            }
            place(f, other.line, &other.source, &other.instruction)?;
        }
        for note in &self.details.notes {
            write!(f, "\n  {note}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Stop {}
