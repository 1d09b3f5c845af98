//! `llmlint explain FILE…`: the ledger, every line of the sum with its formula.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;

use super::common::{self, BudgetOptions, Failure, OutputOptions, Prepared};
use super::{FAILURE, OK};
use crate::check::check_files;
use crate::report;

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Config files
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<String>,
    /// Text for people, or the JSON that docs/json.md describes
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ExplainFormat,
    /// Show each distinct rank's total
    #[arg(long)]
    pub ranks: bool,
    #[command(flatten)]
    pub budget: BudgetOptions,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExplainFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs it.
///
/// # Errors
/// What the tool could not do.
pub(crate) fn run(args: &ExplainArgs) -> Result<u8, Failure> {
    let Prepared { files, context } = common::prepare(&args.files, &args.budget, None)?;
    let report = check_files(&files, &context).map_err(|files| common::unreadable(&files))?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match args.format {
        ExplainFormat::Json => {
            report::json::write_value(&report::json::explain(&report), &mut out)?;
        }
        ExplainFormat::Text => {
            let style = common::style(&args.output, io::stdout().is_terminal());
            report::explain::write(&report, &style, args.ranks, &mut out)?;
        }
    }
    out.flush()?;
    for path in &report.not_recognised {
        let path = crate::sanitize::path(path);
        let _ = writeln!(anstream::stderr(), "llmlint: {path}: not a training config that is known");
    }
    Ok(if report.files.is_empty() && !report.not_recognised.is_empty() { FAILURE } else { OK })
}
