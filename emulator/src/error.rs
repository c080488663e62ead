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
                notes: Vec::new(),
            }),
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let triple = |v: [u32; 3]| format!("({},{},{})", v[0], v[1], v[2]);
        write!(f, "error: {} in {}", self.details.text, self.details.kernel)?;
        if let Some(block) = self.details.block {
            write!(f, "\n  block {}", triple(block))?;
            if let Some(thread) = self.details.thread {
                write!(f, " thread {}", triple(thread))?;
            }
        }
        if self.details.line != 0 {
            match &self.details.source {
                Some((file, line)) => write!(f, "   {file}:{line}   ptx line {}", self.details.line)?,
                None => write!(f, "   ptx line {}", self.details.line)?,
            }
            write!(f, "   {}", self.details.instruction)?;
        }
        for note in &self.details.notes {
            write!(f, "\n  {note}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Stop {}
