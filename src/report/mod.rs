//! The output formats: one file each. They know findings and estimates, and nothing of how
//! those came about. Every text from the repository goes through [`crate::sanitize`].

mod ascii;
pub mod bar;
mod concise;
pub mod diff;
pub mod explain;
pub mod fit;
mod github;
mod gitlab;
mod html;
pub mod json;
mod junit;
mod markdown;
mod narrated;
mod pretty;
mod sarif;
mod style;
mod window;
pub mod words;

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use crate::check::{FileReport, Report, Verdict};
use crate::finding::{Finding, Safety, Severity};
use crate::source::{Location, Position, Source};
use crate::units::Bytes;

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Format {
    /// For people: source snippets, bars, what to change, a table of the configs.
    Pretty,
    /// One line a finding: `path:line:column: severity[rule] message`.
    Concise,
    /// Everything, as one object.
    Json,
    /// One object a line: findings, then a summary.
    Jsonl,
    /// GitHub workflow commands (annotations).
    Github,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// GitLab's Code Quality report.
    Gitlab,
    /// JUnit XML: errors are failed cases.
    Junit,
    /// A table of configs and a list of findings, for a step summary or a comment.
    Markdown,
    /// One page with a sortable table and bars.
    Html,
    /// Sentences without graphics, for screen readers.
    Narrated,
}

impl Format {
    /// Does the format show each config's change from a base revision?
    pub fn shows_base(&self) -> bool {
        matches!(self, Format::Markdown | Format::Html)
    }
}

/// How to write.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Columns of the terminal.
    pub width: usize,
    /// ANSI styles.
    pub color: bool,
    /// No characters beyond ASCII of our own.
    pub ascii: bool,
    /// Terminal hyperlinks.
    pub links: bool,
    /// Findings only: no table and no footer.
    pub quiet: bool,
    /// The same check of another revision, for the change of each config.
    pub base: Option<&'a Report>,
    /// The tool's version.
    pub version: &'a str,
    /// The repository root. Formats that a forge reads give paths relative to it.
    pub root: Option<PathBuf>,
    /// What relative paths are relative to.
    pub working_directory: Option<PathBuf>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            width: 100,
            color: false,
            ascii: false,
            links: false,
            quiet: false,
            base: None,
            version: env!("CARGO_PKG_VERSION"),
            root: None,
            working_directory: None,
        }
    }
}

/// Writes a report.
///
/// # Errors
/// Those of `out`.
pub fn write(format: Format, report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut human = ascii::human(options, out);
    match format {
        Format::Pretty => pretty::write(report, options, &mut human),
        Format::Concise => concise::write(report, &mut human),
        Format::Json => json::write(report, options, out),
        Format::Jsonl => json::write_lines(report, options, out),
        Format::Github => github::write(report, options, out),
        Format::Sarif => sarif::write(report, options, out),
        Format::Gitlab => gitlab::write(report, options, out),
        Format::Junit => junit::write(report, options, out),
        Format::Markdown => markdown::write(report, options, out),
        Format::Html => html::write(report, options, out),
        Format::Narrated => narrated::write(report, options, &mut human),
    }
}

/// Figures about a whole report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Configs that describe a run.
    pub runs: usize,
    /// Of these: [`Verdict::Fits`].
    pub fits: usize,
    /// [`Verdict::Tight`].
    pub tight: usize,
    /// [`Verdict::Exceeds`].
    pub exceeds: usize,
    /// [`Verdict::Unknown`]: no estimate, or no budget.
    pub unknown: usize,
    /// Of `unknown`: those with an estimate, but nothing to compare it with.
    pub no_budget: usize,
    /// Files that are recognised and describe no run of their own.
    pub other_files: usize,
    /// Findings by severity.
    pub errors: usize,
    /// See `errors`.
    pub warnings: usize,
    /// See `errors`.
    pub notes: usize,
    /// Findings that a comment or a baseline silenced.
    pub suppressed: usize,
    /// Findings with an edit that keeps the run's meaning.
    pub fixable: usize,
    /// Findings whose edits all change training.
    pub unsafe_fixable: usize,
    /// Files looked at.
    pub files: usize,
    /// The verdict that matters most: exceeds, tight, unknown, fits; `None` without a run.
    pub verdict: Option<Verdict>,
    /// The largest estimate of device memory among the runs.
    pub worst_peak_bytes: Option<Bytes>,
}

impl Summary {
    /// Counts.
    pub fn of(report: &Report) -> Summary {
        let mut summary = Summary { files: report.files.len() + report.skipped, ..Summary::default() };
        for file in &report.files {
            summary.suppressed += file.suppressed;
            if file.run.is_some() || file.kind == crate::framework::Kind::Run {
                summary.runs += 1;
                let peak = file.estimate.as_ref().map(|estimate| estimate.device);
                summary.worst_peak_bytes = summary.worst_peak_bytes.max(peak);
                let graver = |worst: Verdict| file.verdict.gravity() > worst.gravity();
                if summary.verdict.is_none_or(graver) {
                    summary.verdict = Some(file.verdict);
                }
                match file.verdict {
                    Verdict::Fits => summary.fits += 1,
                    Verdict::Tight => summary.tight += 1,
                    Verdict::Exceeds => summary.exceeds += 1,
                    Verdict::Unknown => {
                        summary.unknown += 1;
                        summary.no_budget += usize::from(file.estimate.is_some());
                    }
                }
            } else {
                summary.other_files += 1;
            }
            for finding in &file.findings {
                match finding.severity {
                    Severity::Error => summary.errors += 1,
                    Severity::Warning => summary.warnings += 1,
                    Severity::Note => summary.notes += 1,
                }
                if finding.fixes.iter().any(|fix| fix.safety == Safety::Safe) {
                    summary.fixable += 1;
                } else if !finding.fixes.is_empty() {
                    summary.unsafe_fixable += 1;
                }
            }
        }
        summary
    }

    /// Findings in all.
    pub fn findings(&self) -> usize {
        self.errors + self.warnings + self.notes
    }
}

/// Every finding with its file, in order.
fn findings(report: &Report) -> impl Iterator<Item = (&FileReport, &Finding)> {
    report.files.iter().flat_map(|file| file.findings.iter().map(move |finding| (file, finding)))
}

/// The file a location is in.
fn source(file: &FileReport, location: Location) -> Option<&Source> {
    file.sources.get(usize::from(location.source.0)).map(|source| &**source)
}

/// A place as people and forges write it.
struct Place<'a> {
    /// Raw: goes through [`crate::sanitize::path`].
    path: &'a str,
    start: Position,
    end: Position,
}

/// Where a location is; line 1 of the file when its text is gone.
fn place(file: &FileReport, location: Location) -> Place<'_> {
    let first = Position { line: 1, column: 1 };
    match source(file, location) {
        Some(source) => {
            // A span that takes a line break along ends on its own line.
            let text = source.slice(location.span);
            let end = location.span.end - (text.len() - text.trim_end_matches(['\n', '\r']).len()) as u32;
            Place {
                path: &source.path,
                start: source.position(location.span.start),
                end: source.position(end),
            }
        }
        None => Place { path: &file.path, start: first, end: first },
    }
}

/// The address of a rule's page, when the package says where its repository is.
pub fn rule_url(rule: &str) -> Option<String> {
    let repository = env!("CARGO_PKG_REPOSITORY").trim_end_matches('/');
    (!repository.is_empty()).then(|| format!("{repository}/blob/main/docs/rules/{rule}.md"))
}

/// A path as a forge knows it: relative to the repository root, forward slashes, no `.` or `..`.
fn forge_path(path: &str, options: &Options<'_>) -> String {
    let given = Path::new(path);
    let absolute = match &options.working_directory {
        Some(directory) if given.is_relative() => normal(&directory.join(given)),
        _ => normal(given),
    };
    let relative =
        options.root.as_ref().and_then(|root| absolute.strip_prefix(normal(root)).ok()).map(Path::to_owned);
    relative.unwrap_or_else(|| normal(given)).to_string_lossy().replace('\\', "/")
}

fn normal(path: &Path) -> PathBuf {
    let mut parts = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if parts.file_name().is_some() => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

/// A number that stays the same while the line does, wherever it moves to: for baselines and
/// forges. FNV-1a, 64 bits.
pub fn fingerprint(file: &FileReport, finding: &Finding) -> u64 {
    let location = finding.primary.location;
    let (path, line) = match source(file, location) {
        Some(source) => {
            let line = source.line_span(source.line_index(location.span.start));
            (source.path.as_str(), source.slice(line).trim())
        }
        None => (file.path.as_str(), ""),
    };
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // Amounts in a message move with every line of the file; the problem stays the same.
    let words = finding.message.bytes().filter(|byte| !byte.is_ascii_digit() && *byte != b'.');
    for part in [finding.rule, path, line] {
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    for byte in words {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forge_paths_are_relative_to_the_repository_root() {
        let options = Options {
            root: Some("/repo".into()),
            working_directory: Some("/repo/sub".into()),
            ..Options::default()
        };
        assert_eq!(forge_path("./a.yaml", &options), "sub/a.yaml");
        assert_eq!(forge_path("../b/a.yaml", &options), "b/a.yaml");
        assert_eq!(forge_path("/repo/c/a.yaml", &options), "c/a.yaml");
        assert_eq!(forge_path("/elsewhere/a.yaml", &options), "/elsewhere/a.yaml");
        assert_eq!(forge_path("./x/a.yaml", &Options::default()), "x/a.yaml");
    }
}
