//! `llmlint diff BASE [HEAD]`: what a change means for memory and findings, config by config.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::common::{self, BudgetOptions, Failure, OutputOptions, Prepared};
use super::{FINDINGS, OK, git};
use crate::check::{Context, Report, check_files};
use crate::discover::{self, Found};
use crate::report;

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A git revision, a file or a directory
    #[arg(value_name = "BASE")]
    pub base: String,
    /// The same; absent: the working tree
    #[arg(value_name = "HEAD")]
    pub head: Option<String>,
    /// Text for people, or JSON
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: DiffFormat,
    #[command(flatten)]
    pub budget: BudgetOptions,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DiffFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs it. Exit code 1: a config got a worse verdict or new errors.
///
/// # Errors
/// What the tool could not do.
pub(crate) fn run(args: &DiffArgs) -> Result<u8, Failure> {
    let Prepared { context, .. } = common::prepare(&[], &args.budget, None)?;
    let here = context.working_directory.clone();
    let (mut base, _kept) = side(&args.base, &context, args)?;
    let (mut head, _kept_too) = match &args.head {
        Some(head) => side(head, &context, args)?,
        None if here.join(&args.base).exists() => {
            return Err(Failure::Message("two paths are needed, or a git revision".into()));
        }
        None => (check_directory(&git::top(&here)?, args)?, None),
    };
    if let (Some(name), true) = (&args.head, here.join(&args.base).is_file()) {
        // Two files are one config in two states, whatever their names.
        for file in base.files.iter_mut().chain(&mut head.files) {
            file.path = format!("{} -> {name}", args.base);
        }
    }
    let changes = report::diff::compare(&base, &head);
    let mut out = io::BufWriter::new(io::stdout().lock());
    match args.format {
        DiffFormat::Json => report::json::write_value(&report::diff::to_json(&changes), &mut out)?,
        DiffFormat::Text => {
            let style = common::style(&args.output, io::stdout().is_terminal());
            report::diff::write(&changes, &style, &mut out)?;
        }
    }
    out.flush()?;
    Ok(if changes.iter().any(report::diff::Change::is_worse) { FINDINGS } else { OK })
}

/// One side's report: a path as it is, else a revision extracted to a temporary folder.
fn side(
    name: &str,
    context: &Context,
    args: &DiffArgs,
) -> Result<(Report, Option<tempfile::TempDir>), Failure> {
    let path = context.working_directory.join(name);
    if path.is_dir() {
        return Ok((check_directory(&path, args)?, None));
    }
    if path.is_file() {
        let Prepared { files, context } = common::prepare(&[name.to_owned()], &args.budget, None)?;
        let report = check_files(&files, &context).map_err(|files| common::unreadable(&files))?;
        return Ok((report, None));
    }
    if !git::is_revision(&context.working_directory, name) {
        return Err(Failure::Message(format!("`{name}` is neither a path nor a revision that git knows")));
    }
    let folder = tempfile::tempdir().map_err(|e| Failure::Message(format!("no temporary folder: {e}")))?;
    git::extract(&context.working_directory, name, folder.path())?;
    Ok((check_directory(folder.path(), args)?, Some(folder)))
}

/// The report of a revision, for formats that show the change from a base.
pub(crate) fn at_revision(
    revision: &str,
    context: &Context,
    budget: &BudgetOptions,
) -> Result<Report, Failure> {
    let folder = tempfile::tempdir().map_err(|e| Failure::Message(format!("no temporary folder: {e}")))?;
    let base = git::merge_base(&context.working_directory, revision)?;
    git::extract(&context.working_directory, &base, folder.path())?;
    check_tree(folder.path(), budget)
}

fn check_directory(directory: &Path, args: &DiffArgs) -> Result<Report, Failure> {
    check_tree(directory, &args.budget)
}

/// Checks everything below a folder, with paths relative to it.
fn check_tree(directory: &Path, budget: &BudgetOptions) -> Result<Report, Failure> {
    let Prepared { context: mut inner, .. } = common::prepare(&[], budget, None)?;
    inner.working_directory = directory.to_owned();
    let none = discover::excludes(&[]).map_err(|e| Failure::Message(e.to_string()))?;
    let folder = directory.to_string_lossy().into_owned();
    let files: Vec<Found> = discover::discover(&[folder], &none, false)
        .map_err(|e| Failure::Message(e.to_string()))?
        .into_iter()
        .map(|found| {
            let shown = found
                .path
                .strip_prefix(directory)
                .unwrap_or(&found.path)
                .to_string_lossy()
                .replace('\\', "/");
            Found { shown, ..found }
        })
        .collect();
    let folders: BTreeSet<PathBuf> =
        files.iter().filter_map(|f| f.path.parent().map(Path::to_owned)).collect();
    for folder in folders {
        inner.settings.prepare(&folder).map_err(|e| Failure::Message(e.to_string()))?;
    }
    check_files(&files, &inner).map_err(|files| common::unreadable(&files))
}
