//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

pub const USAGE: &str = "\
usage: cargo run --release --example kernel_report [-- OP] [--json DIR]

  OP            only the calls of this op, such as gaussian
  --json DIR    also write what every launch did, line by line, as DIR/<number>-<kernel>.json

exit code: 0; 1 when something went wrong or no call is of that op; 2 for wrong arguments";

/// What the command line asks for.
#[derive(Debug, Default)]
pub struct Options {
    pub op: Option<String>,
    pub json: Option<PathBuf>,
    pub wants_help: bool,
}

impl Options {
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let mut options = Options::default();
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("json") => options.json = Some(parser.value()?.into()),
                Long("help") | Short('h') => options.wants_help = true,
                Value(op) if options.op.is_none() => options.op = Some(op.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(options)
    }
}
