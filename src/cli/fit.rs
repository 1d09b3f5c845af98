//! `llmlint fit FILE`: the smallest changes that bring a run under its budget.

use std::io::{self, Write as _};
use std::path::Path;

use clap::Args;

use super::common::{self, BudgetOptions, Failure, OutputOptions, Prepared};
use super::{FINDINGS, OK};
use crate::check::{Context, FileReport, Verdict, check_bytes, check_files};
use crate::document::{Document, Syntax};
use crate::finding::{Edit, Safety};
use crate::fit::{Suggestion, front};
use crate::source::Source;
use crate::{fix, framework, sanitize};

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
    #[arg(long)]
    pub unsafe_fixes: bool,
    #[command(flatten)]
    pub budget: BudgetOptions,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// A suggestion and the edits that say it in the file's own keys.
struct Row {
    suggestion: Suggestion,
    edits: Option<Vec<Edit>>,
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
    let (Some(run), Some(architecture), Some(estimate)) = (&file.run, &file.architecture, &file.estimate)
    else {
        let reasons: Vec<String> = file.unknown.iter().map(|u| format!("{}: {}", u.what, u.why)).collect();
        return Err(Failure::Message(format!("no estimate for `{}`: {}", args.file, reasons.join("; "))));
    };
    let Some(budget) = &file.budget else {
        return Err(Failure::Message("no budget: give --gpu and --gpus, or --budget".into()));
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let shown = sanitize::path(&file.path).into_owned();
    writeln!(
        out,
        "{shown}: {} on the device ({} to {}), budget {}: {}",
        estimate.device,
        estimate.device_interval.low,
        estimate.device_interval.high,
        budget.memory,
        file.verdict.as_str(),
    )?;
    if file.verdict == Verdict::Fits {
        writeln!(out, "nothing to change")?;
        return Ok(OK);
    }
    let source = &file.sources[0];
    let says = |change| {
        file.framework.and_then(framework::by_name).and_then(|f| f.assignments(change, run)).is_some()
    };
    let rows: Vec<Row> = front(run, architecture, budget, &says)
        .into_iter()
        .map(|suggestion| Row { edits: edits(file, source, &suggestion), suggestion })
        .collect();
    if rows.is_empty() {
        writeln!(out, "no change that can be said in this file lowers the peak")?;
        return Ok(FINDINGS);
    }
    table(&rows, args, &mut out)?;
    let chosen = match (args.apply, args.fix) {
        (Some(row), _) => Some(
            rows.get(row.wrapping_sub(1))
                .ok_or_else(|| Failure::Message(format!("there is no row {row}")))?,
        ),
        (None, true) => {
            let may = |row: &&Row| args.unsafe_fixes || row.suggestion.safety() == Safety::Safe;
            let fits = |row: &&Row| row.suggestion.verdict == Verdict::Fits && row.edits.is_some();
            Some(rows.iter().filter(may).find(fits).ok_or_else(|| {
                Failure::Message("no row fits; --unsafe-fixes also takes rows that change training".into())
            })?)
        }
        (None, false) => None,
    };
    if let Some(row) = chosen {
        write_row(row, file, source, Path::new(&args.file), &context)?;
        writeln!(out, "wrote {shown}: {}", row.suggestion.title())?;
        return Ok(OK);
    }
    for (number, row) in rows.iter().enumerate() {
        show_edits(number + 1, row, source, &mut out)?;
    }
    out.flush()?;
    Ok(FINDINGS)
}

fn table(rows: &[Row], args: &FitArgs, out: &mut dyn io::Write) -> io::Result<()> {
    let mut table =
        common::new_table(&args.output, &["row", "device", "interval", "verdict", "training", "change"]);
    for (number, row) in rows.iter().enumerate() {
        let needs = &row.suggestion.estimate;
        table.add_row([
            (number + 1).to_string(),
            needs.device.to_string(),
            format!("{} to {}", needs.device_interval.low, needs.device_interval.high),
            row.suggestion.verdict.as_str().to_owned(),
            match row.suggestion.safety() {
                Safety::Safe => "the same".to_owned(),
                Safety::Unsafe => "changes".to_owned(),
            },
            row.suggestion.title(),
        ]);
    }
    writeln!(out)?;
    common::write_table(table, false, out)?;
    writeln!(out)
}

/// The edits of a suggestion; `None` where one of its keys cannot be set safely.
fn edits(file: &FileReport, source: &Source, suggestion: &Suggestion) -> Option<Vec<Edit>> {
    let framework = framework::by_name(file.framework?)?;
    let syntax = Syntax::of_path(&file.path)?;
    let document = Document::parse(source, syntax);
    let root = document.root(framework.dialect(syntax))?;
    fix::edits(framework, source, root, file.run.as_ref()?, &suggestion.changes)
}

fn show_edits(number: usize, row: &Row, source: &Source, out: &mut dyn io::Write) -> io::Result<()> {
    let Some(edits) = &row.edits else {
        return writeln!(out, "row {number}: cannot be written into this file automatically");
    };
    writeln!(out, "row {number}:")?;
    for edit in edits {
        let span = edit.location.span;
        let line = source.line_index(span.start);
        let text = source.slice(source.line_span(line));
        if span.is_empty() {
            for added in edit.replacement.lines().filter(|l| !l.trim().is_empty()) {
                writeln!(out, "  {:>4} + {}", line + 2, sanitize::text(added))?;
            }
        } else {
            let start = (span.start - source.line_span(line).start) as usize;
            let mut now = text.to_owned();
            if now.get(start..start + span.range().len()).is_some() {
                now.replace_range(start..start + span.range().len(), &edit.replacement);
            }
            writeln!(out, "  {:>4} - {}", line + 1, sanitize::text(text))?;
            writeln!(out, "  {:>4} + {}", line + 1, sanitize::text(&now))?;
        }
    }
    Ok(())
}

/// Writes a row's edits, if the file then says what the row promises.
fn write_row(
    row: &Row,
    file: &FileReport,
    source: &Source,
    path: &Path,
    context: &Context,
) -> Result<(), Failure> {
    let refuse = |why: &str| Failure::Message(format!("`{}` was left as it is: {why}", file.path));
    let edits = row.edits.as_ref().ok_or_else(|| refuse("this row cannot be written automatically"))?;
    let now = fix::apply_verified(&file.path, &source.text, edits)
        .ok_or_else(|| refuse("the edits do not combine"))?;
    let syntax = Syntax::of_path(&file.path).ok_or_else(|| refuse("its syntax is not known"))?;
    let again = check_bytes(&file.path, now.clone().into_bytes(), syntax, true, context);
    let peak = again.and_then(|report| report.estimate).map(|estimate| estimate.device);
    let promised = row.suggestion.estimate.device;
    // Keys that the neutral description keeps apart can interact in the framework (a fused loss
    // that also fuses norms): a lower peak than promised is fine, a higher one is not.
    if peak.is_none_or(|peak| peak > promised + promised * 0.02) {
        return Err(refuse("the edited file would not need what the table says"));
    }
    fix::write(path, &now).map_err(|e| refuse(&e.to_string()))
}
