//! `llmlint fit FILE`: the smallest changes that bring a run under its budget.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use clap::Args;

use super::common::{self, BudgetOptions, Failure, OutputOptions, Prepared};
use super::{FINDINGS, OK};
use crate::check::{Context, FileReport, Rewrite, Verdict, check_files};
use crate::document::{Document, Syntax};
use crate::finding::Safety;
use crate::fit::{Search, Suggestion};
use crate::settings::Budget;
use crate::source::Source;
use crate::{fix, framework, report, sanitize};

/// Arguments of `fit`.
#[derive(Debug, Args)]
pub(crate) struct FitArgs {
    /// A config file that describes a run
    #[arg(value_name = "FILE")]
    pub file: String,
    /// Write the edits of this row of the table into the file
    #[arg(long, value_name = "ROW", conflicts_with = "fix")]
    pub apply: Option<usize>,
    /// Write the edits of the cheapest row that fits and keeps training the same
    #[arg(long)]
    pub fix: bool,
    /// With --fix: also rows that change training (8-bit states, adapters, shorter sequences)
    #[arg(long, requires = "fix")]
    pub unsafe_fixes: bool,
    #[command(flatten)]
    pub budget: BudgetOptions,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// Runs it.
///
/// # Errors
/// What the tool could not do.
pub(crate) fn run(args: &FitArgs) -> Result<u8, Failure> {
    let Prepared { files, context } = common::prepare(std::slice::from_ref(&args.file), &args.budget, None)?;
    let report = check_files(&files, &context).map_err(|files| common::unreadable(&files))?;
    let [file] = report.files.as_slice() else {
        return Err(Failure::Message(format!("`{}` is not one training config that is known", args.file)));
    };
    if file.estimate.is_none() {
        let reasons: Vec<String> = file.unknown.iter().map(|u| format!("{}: {}", u.what, u.why)).collect();
        return Err(Failure::Message(format!("no estimate for `{}`: {}", args.file, reasons.join("; "))));
    }
    let Some(budget) = &file.budget else {
        return Err(Failure::Message("no budget: give --gpu and --gpus, or --budget".into()));
    };
    let style = common::style(&args.output, io::stdout().is_terminal());
    let rows = if file.verdict == Verdict::Fits { Vec::new() } else { front(file, budget, &context) };
    let chosen = choose(&rows, args)?;
    if let Some(row) = chosen {
        write_row(row, file, Path::new(&args.file))?;
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    report::fit::write(file, &rows, chosen, &style, &mut out)?;
    out.flush()?;
    Ok(if file.verdict == Verdict::Fits || chosen.is_some() { OK } else { FINDINGS })
}

fn front(file: &FileReport, budget: &Budget, context: &Context) -> Vec<Suggestion> {
    let search = || {
        let framework = framework::by_name(file.framework?)?;
        let source: &Source = file.sources.first()?;
        let syntax = Syntax::of_path(&file.path)?;
        let document = Document::parse(source, syntax);
        let rewrite = Rewrite::new(&file.path, &source.text, syntax, context);
        let again = |text: String| rewrite.estimate(text);
        let root = document.root(framework.dialect(syntax))?;
        let (run, architecture) = (file.run.as_ref()?, file.architecture.as_ref()?);
        Some(Search { run, architecture, budget, framework, source, root, again: &again }.front())
    };
    search().unwrap_or_default()
}

/// The row to write, if one is asked for.
fn choose<'r>(rows: &'r [Suggestion], args: &FitArgs) -> Result<Option<&'r Suggestion>, Failure> {
    if let Some(number) = args.apply {
        let row = number.checked_sub(1).and_then(|index| rows.get(index));
        return row.map(Some).ok_or_else(|| {
            let many = report::words::count(rows.len(), "row");
            Failure::Message(format!("there is no row {number}; the table has {many}"))
        });
    }
    if !args.fix || rows.is_empty() {
        return Ok(None);
    }
    let fits = |row: &&Suggestion| row.verdict == Verdict::Fits && row.is_writable();
    let may = |row: &&Suggestion| args.unsafe_fixes || row.safety() == Safety::Safe;
    if let Some(row) = rows.iter().filter(may).find(fits) {
        return Ok(Some(row));
    }
    let any = rows.iter().any(|row| fits(&row));
    let more = if any { "; --unsafe-fixes also takes rows that change training" } else { "" };
    Err(Failure::Message(format!("nothing was written: no row that may be written fits{more}")))
}

/// Writes a row's edits. The search has estimated the edited text, so the file then needs what
/// the row says.
fn write_row(row: &Suggestion, file: &FileReport, path: &Path) -> Result<(), Failure> {
    let refuse = |why: &str| {
        let shown = sanitize::path(&file.path);
        Failure::Message(format!("`{shown}` was left as it is: {why}"))
    };
    if !row.is_writable() {
        let by_hand = row.by_hand.join("; ");
        return Err(refuse(if by_hand.is_empty() {
            "a key of this row cannot be set safely"
        } else {
            &by_hand
        }));
    }
    let source = file.sources.first().ok_or_else(|| refuse("its text is gone"))?;
    let now = fix::apply_verified(&file.path, &source.text, row.edits.as_deref().unwrap_or_default())
        .ok_or_else(|| refuse("the edits do not combine"))?;
    fix::write(path, &now).map_err(|e| refuse(&e.to_string()))
}
