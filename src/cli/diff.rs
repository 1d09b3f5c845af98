//! `llmlint diff BASE [HEAD]`: what a change means for memory and findings, config by config.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::common::{self, BudgetOptions, Failure, OutputOptions, Prepared};
use super::{FINDINGS, OK, git};
use crate::check::{Context, FileReport, Report, Verdict, check_files};
use crate::discover::{self, Found};
use crate::finding::Severity;
use crate::report;
use crate::sanitize;

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
    let (base, _kept) = side(&args.base, &context, args)?;
    let (head, _kept_too) = match &args.head {
        Some(head) => side(head, &context, args)?,
        None if here.join(&args.base).exists() => {
            return Err(Failure::Message("two paths are needed, or a git revision".into()));
        }
        None => (check_directory(&git::top(&here)?, args)?, None),
    };
    let changes = compare(&base, &head);
    let mut out = io::BufWriter::new(io::stdout().lock());
    match args.format {
        DiffFormat::Json => report::json::write_value(&to_json(&changes), &mut out)?,
        DiffFormat::Text => write_text(&changes, &mut out)?,
    }
    out.flush()?;
    Ok(if changes.iter().any(Change::is_worse) { FINDINGS } else { OK })
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
        // Two files are one config in two states, whatever their names.
        let Prepared { files, context } = common::prepare(&[name.to_owned()], &args.budget, None)?;
        let mut report = check_files(&files, &context).map_err(|files| common::unreadable(&files))?;
        for file in &mut report.files {
            file.path = "config".into();
        }
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

/// One config on both sides.
struct Change<'r> {
    path: &'r str,
    base: Option<&'r FileReport>,
    head: Option<&'r FileReport>,
}

impl Change<'_> {
    fn peak(file: Option<&FileReport>) -> Option<crate::units::Bytes> {
        file?.estimate.as_ref().map(|e| e.device)
    }

    fn verdict(file: Option<&FileReport>) -> Verdict {
        file.map_or(Verdict::Unknown, |f| f.verdict)
    }

    /// What `here` says and `there` does not, by rule and message.
    fn only<'f>(
        here: Option<&'f FileReport>,
        there: Option<&FileReport>,
    ) -> Vec<&'f crate::finding::Finding> {
        let mut known: Vec<(&str, &str)> =
            there.into_iter().flat_map(|f| &f.findings).map(|f| (f.rule, f.message.as_str())).collect();
        here.into_iter()
            .flat_map(|f| &f.findings)
            .filter(|f| match known.iter().position(|k| *k == (f.rule, f.message.as_str())) {
                Some(at) => {
                    known.swap_remove(at);
                    false
                }
                None => true,
            })
            .collect()
    }

    /// Settings whose value differs: name, before, after.
    fn settings(&self) -> Vec<(&'static str, String, String)> {
        let of = |file: Option<&FileReport>| {
            file.and_then(|f| f.run.as_ref())
                .map(|r| r.settings().into_iter().map(|(n, v, _)| (n, v)).collect::<Vec<_>>())
        };
        let (Some(base), Some(head)) = (of(self.base), of(self.head)) else { return Vec::new() };
        head.into_iter()
            .filter_map(|(name, now)| {
                let before = base.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())?;
                (before != now).then_some((name, before, now))
            })
            .collect()
    }

    fn is_worse(&self) -> bool {
        let rank = |v: Verdict| match v {
            Verdict::Fits | Verdict::Unknown => 0,
            Verdict::Tight => 1,
            Verdict::Exceeds => 2,
        };
        rank(Change::verdict(self.head)) > rank(Change::verdict(self.base))
            || Change::only(self.head, self.base).iter().any(|f| f.severity == Severity::Error)
    }

    fn is_nothing(&self) -> bool {
        Change::peak(self.base) == Change::peak(self.head)
            && self.base.is_some() == self.head.is_some()
            && Change::only(self.head, self.base).is_empty()
            && Change::only(self.base, self.head).is_empty()
    }
}

fn compare<'r>(base: &'r Report, head: &'r Report) -> Vec<Change<'r>> {
    let paths: BTreeSet<&str> = base.files.iter().chain(&head.files).map(|f| f.path.as_str()).collect();
    let find = |report: &'r Report, path: &str| report.files.iter().find(|f| f.path == path);
    paths
        .into_iter()
        .map(|path| Change { path, base: find(base, path), head: find(head, path) })
        .filter(|change| !change.is_nothing())
        .collect()
}

fn write_text(changes: &[Change<'_>], out: &mut dyn io::Write) -> io::Result<()> {
    let peak = |file| Change::peak(file).map_or_else(|| "unknown".to_owned(), |b| b.to_string());
    for change in changes {
        let path = sanitize::path(change.path);
        match (change.base, change.head) {
            (None, _) => writeln!(
                out,
                "{path}: new, peak {}, {}",
                peak(change.head),
                Change::verdict(change.head).as_str()
            )?,
            (_, None) => writeln!(out, "{path}: removed")?,
            _ => {
                let difference = match (Change::peak(change.base), Change::peak(change.head)) {
                    (Some(a), Some(b)) if b > a => format!(" (+{})", b - a),
                    (Some(a), Some(b)) if b < a => format!(" (-{})", a - b),
                    _ => String::new(),
                };
                writeln!(
                    out,
                    "{path}: peak {} -> {}{difference}, {} -> {}",
                    peak(change.base),
                    peak(change.head),
                    Change::verdict(change.base).as_str(),
                    Change::verdict(change.head).as_str(),
                )?;
            }
        }
        for (name, before, now) in change.settings() {
            writeln!(out, "    {name}: {} -> {}", sanitize::text(&before), sanitize::text(&now))?;
        }
        for finding in Change::only(change.head, change.base) {
            writeln!(
                out,
                "  + {}[{}] {}",
                finding.severity.as_str(),
                finding.rule,
                sanitize::text(&finding.message)
            )?;
        }
        for finding in Change::only(change.base, change.head) {
            writeln!(
                out,
                "  - {}[{}] {}",
                finding.severity.as_str(),
                finding.rule,
                sanitize::text(&finding.message)
            )?;
        }
    }
    if changes.is_empty() {
        writeln!(out, "no config changed in memory or findings")?;
    }
    Ok(())
}

fn to_json(changes: &[Change<'_>]) -> serde_json::Value {
    let side = |file: Option<&FileReport>| {
        file.map(|f| {
            serde_json::json!({
                "device_bytes": f.estimate.as_ref().map(|e| e.device),
                "verdict": f.verdict,
            })
        })
    };
    let list = |findings: Vec<&crate::finding::Finding>| {
        findings
            .iter()
            .map(|f| serde_json::json!({ "rule": f.rule, "severity": f.severity, "message": f.message }))
            .collect::<Vec<_>>()
    };
    let files: Vec<_> = changes
        .iter()
        .map(|change| {
            serde_json::json!({
                "path": change.path,
                "base": side(change.base),
                "head": side(change.head),
                "settings": change.settings().into_iter()
                    .map(|(name, before, now)| serde_json::json!({ "setting": name, "base": before, "head": now }))
                    .collect::<Vec<_>>(),
                "new_findings": list(Change::only(change.head, change.base)),
                "fixed_findings": list(Change::only(change.base, change.head)),
            })
        })
        .collect();
    serde_json::json!({ "schema_version": 1, "files": files })
}
