//! What commands share: options, settings, the context of a check, output.

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::catalog::hub::Hub;
use crate::catalog::models::Lookup;
use crate::check::{Context, Report, Unreadable};
use crate::discover::{self, Found};
use crate::finding::Severity;
use crate::report::{self, Format};
use crate::settings::{BudgetTable, Loaded, SettingsTree, rule_exists};

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What to tell the user; exit code 2.
    Message(String),
    /// Nobody reads our output any more; not our failure.
    ClosedPipe,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::Message(format!("cannot write: {error}")),
        }
    }
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Options that `check`, `explain`, `fit` and `diff` share.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BudgetOptions {
    /// GPU or cloud instance the runs must fit, such as H100-80GB (see `llmlint gpus`)
    #[arg(long, value_name = "NAME", env = "LLMLINT_GPU", help_heading = "Budget")]
    pub gpu: Option<String>,
    /// GPUs in all
    #[arg(long, value_name = "N", env = "LLMLINT_GPUS", help_heading = "Budget")]
    pub gpus: Option<u64>,
    /// Usable memory of one GPU, such as 79GiB, instead of a name
    #[arg(long, value_name = "SIZE", env = "LLMLINT_BUDGET", help_heading = "Budget")]
    pub budget: Option<String>,
    /// Memory of one host, for offloaded states
    #[arg(long, value_name = "SIZE", help_heading = "Budget")]
    pub host_memory: Option<String>,
    /// Settings file for every path, instead of the nearest llmlint.toml
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub config: Option<PathBuf>,
    /// Use no settings file at all
    #[arg(long, conflicts_with = "config", help_heading = "Settings")]
    pub isolated: bool,
    /// Ask the Hugging Face hub for the config.json of models that are found nowhere else
    #[arg(long, help_heading = "Settings")]
    pub online: bool,
}

/// Options for output.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OutputOptions {
    /// When to use colour
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Output")]
    pub color: Color,
    /// Draw with ASCII characters only
    #[arg(long, env = "LLMLINT_ASCII", help_heading = "Output")]
    pub ascii: bool,
    /// Columns to use; default: the terminal's
    #[arg(long, value_name = "N", help_heading = "Output")]
    pub width: Option<usize>,
    /// Print findings only, no summary
    #[arg(long, short, help_heading = "Output")]
    pub quiet: bool,
}

/// Options of `check`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CheckOptions {
    #[command(flatten)]
    pub budget: BudgetOptions,
    /// Report only these rules
    #[arg(long, value_name = "RULE", value_delimiter = ',', help_heading = "Rules")]
    pub select: Vec<String>,
    /// Do not report these rules
    #[arg(long, value_name = "RULE", value_delimiter = ',', help_heading = "Rules")]
    pub ignore: Vec<String>,
    /// Exit with 1 when there are findings of this severity or above
    #[arg(long, value_name = "SEVERITY", help_heading = "Rules")]
    pub fail_on: Option<FailOn>,
    /// Report only configs that changed since a git revision, and those that a changed file or
    /// llmlint.toml concerns
    #[arg(long, value_name = "REV", help_heading = "Files")]
    pub since: Option<String>,
    /// Apply safe fixes
    #[arg(long, help_heading = "Fixes")]
    pub fix: bool,
    /// Apply fixes that change training too
    #[arg(long, help_heading = "Fixes")]
    pub unsafe_fixes: bool,
    /// Findings that are known and accepted
    #[arg(long, value_name = "FILE", help_heading = "Rules")]
    pub baseline: Option<PathBuf>,
    /// Write the findings of this run to the baseline file, and report none of them
    #[arg(long, requires = "baseline", help_heading = "Rules")]
    pub write_baseline: bool,
    /// Leave out files and folders that match, as `exclude` in llmlint.toml
    #[arg(long, value_name = "GLOB", help_heading = "Files")]
    pub exclude: Vec<String>,
    /// Apply excludes also to files given by name (for pre-commit)
    #[arg(long, help_heading = "Files")]
    pub force_exclude: bool,
    /// The name to use for stdin (`-`), which decides its syntax
    #[arg(long, value_name = "NAME", default_value = "stdin.yaml", help_heading = "Files")]
    pub stdin_filename: String,
    /// How to print; may be given several times, each with its own --output-file
    #[arg(long, value_name = "FORMAT", help_heading = "Output")]
    pub format: Vec<Format>,
    /// Where the format before it goes; formats without a file go to stdout
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub output_file: Vec<PathBuf>,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ListFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// `--fail-on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FailOn {
    /// Errors only.
    Error,
    /// Warnings and errors.
    Warning,
    /// Any finding.
    Note,
    /// Never.
    Never,
}

impl FailOn {
    /// Does a finding of this severity fail the run?
    pub(crate) fn fails(self, worst: Option<Severity>) -> bool {
        let threshold = match self {
            FailOn::Error => Severity::Error,
            FailOn::Warning => Severity::Warning,
            FailOn::Note => Severity::Note,
            FailOn::Never => return false,
        };
        worst.is_some_and(|severity| severity >= threshold)
    }
}

/// What the files themselves need: found files and everything to check them with.
pub(crate) struct Prepared {
    /// The files.
    pub files: Vec<Found>,
    /// The rest.
    pub context: Context,
}

/// Reads settings and finds files.
///
/// # Errors
/// Settings, names or paths that cannot be used.
pub(crate) fn prepare(
    paths: &[String],
    budget: &BudgetOptions,
    options: Option<&CheckOptions>,
) -> Result<Prepared, Failure> {
    let working_directory =
        std::env::current_dir().map_err(|e| Failure::Message(format!("no working directory: {e}")))?;
    let mut settings = SettingsTree::default();
    if budget.isolated {
        settings.explicit = Some(Loaded::default());
    } else if let Some(path) = &budget.config {
        let path = working_directory.join(path);
        settings.explicit = Some(Loaded::read(&path).map_err(|e| Failure::Message(e.to_string()))?);
    }
    let command_line = BudgetTable {
        gpu: budget.gpu.clone(),
        gpus: budget.gpus,
        memory: budget.budget.clone(),
        host_memory: budget.host_memory.clone(),
    };
    command_line.resolve("the command line").map_err(|e| Failure::Message(e.to_string()))?;
    if command_line.gpus == Some(0) {
        return Err(Failure::Message("--gpus must be at least 1".into()));
    }
    let (select, ignore) = options.map(|o| (o.select.clone(), o.ignore.clone())).unwrap_or_default();
    for name in select.iter().chain(&ignore) {
        rule_exists(name).map_err(Failure::Message)?;
    }
    let failed = |e: crate::settings::SettingsError| Failure::Message(e.to_string());
    settings.prepare(&working_directory).map_err(failed)?;
    let mut exclude = settings.of(&working_directory).content.exclude.clone();
    exclude.extend(options.map(|o| o.exclude.clone()).unwrap_or_default());
    let excluded = discover::excludes(&exclude).map_err(|e| Failure::Message(e.to_string()))?;
    let named: Vec<String> = paths.iter().filter(|p| *p != "-").cloned().collect();
    let files = discover::discover(&named, &excluded, options.is_some_and(|o| o.force_exclude))
        .map_err(|e| Failure::Message(e.to_string()))?;
    for file in &files {
        let path = working_directory.join(&file.path);
        settings.prepare(path.parent().unwrap_or(&path)).map_err(failed)?;
    }
    let hub = if budget.online { Some(std::sync::Arc::new(hub().map_err(Failure::Message)?)) } else { None };
    let lookup = Lookup { cache: hub_cache(), hub, ..Lookup::default() };
    Ok(Prepared {
        files,
        context: Context { working_directory, settings, command_line, lookup, select, ignore },
    })
}

/// Paths given by name that cannot be read end the run.
pub(crate) fn unreadable(files: &[Unreadable]) -> Failure {
    let lines: Vec<String> = files.iter().map(|u| format!("cannot read `{}`: {}", u.path, u.why)).collect();
    Failure::Message(lines.join("\n"))
}

/// The hub, by the variables that its own library reads.
fn hub() -> Result<Hub, String> {
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Hub::new(var("HF_ENDPOINT").as_deref(), var("HF_TOKEN"))
}

/// The Hugging Face cache, by the variables its own library reads.
fn hub_cache() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("HF_HUB_CACHE")
        .or_else(|| var("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| var("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| var("HOME").map(|home| home.join(".cache/huggingface/hub")))
        .filter(|path| path.is_dir())
}

/// How to print to a stream, from flags and the environment.
/// Precedence: flag, NO_COLOR, FORCE_COLOR and CLICOLOR_FORCE, terminal.
pub(crate) fn style(output: &OutputOptions, to_terminal: bool) -> report::Options<'static> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty() && v != "0");
    let color = match output.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto if set("NO_COLOR") => false,
        Color::Auto if set("FORCE_COLOR") || set("CLICOLOR_FORCE") => true,
        Color::Auto => to_terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
    };
    report::Options {
        color,
        links: to_terminal && color,
        ascii: output.ascii,
        width: output.width.or_else(terminal_width).unwrap_or(100).clamp(40, 200),
        quiet: output.quiet,
        root: std::env::current_dir().ok().map(|here| root_of(&here)),
        working_directory: std::env::current_dir().ok(),
        ..report::Options::default()
    }
}

/// The nearest folder with a `.git`, else the folder itself.
fn root_of(folder: &Path) -> PathBuf {
    folder.ancestors().find(|a| a.join(".git").exists()).unwrap_or(folder).to_owned()
}

/// `COLUMNS`, else what the terminal says.
fn terminal_width() -> Option<usize> {
    let declared = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    declared.or_else(|| terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)))
}

/// How a row of the catalogue is known: read from its source, or from memory.
pub(crate) fn evidence(read: bool) -> &'static str {
    if read { "read" } else { "memory" }
}

/// A table, as wide as `--width`, `COLUMNS` or 100 columns allow.
pub(crate) fn new_table(output: &OutputOptions, header: &[&str]) -> comfy_table::Table {
    let width = style(output, io::stdout().is_terminal()).width;
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(comfy_table::ContentArrangement::Dynamic)
        .set_width(u16::try_from(width).unwrap_or(u16::MAX))
        .set_header(header);
    table
}

/// Writes a table without blanks at its lines' ends. Names in the first column stay whole where
/// there is room, so that they can be copied; a last column that is spare is for wide terminals only.
///
/// # Errors
/// Nothing can be written.
pub(crate) fn write_table(
    mut table: comfy_table::Table,
    last_is_spare: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    use comfy_table::ColumnConstraint::{ContentWidth, Hidden};
    let width = table.width().unwrap_or(100);
    if width >= 80
        && let Some(column) = table.column_mut(0)
    {
        column.set_constraint(ContentWidth);
    }
    let columns = table.column_count();
    if width < 100
        && last_is_spare
        && let Some(column) = table.column_mut(columns.saturating_sub(1))
    {
        column.set_constraint(Hidden);
    }
    table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}

/// Writes a report in each of the formats asked for.
///
/// # Errors
/// A file or stdout cannot be written.
pub(crate) fn write_report(
    report: &Report,
    base: Option<&Report>,
    options: &CheckOptions,
) -> Result<(), Failure> {
    let formats = if options.format.is_empty() { vec![Format::Pretty] } else { options.format.clone() };
    if options.output_file.len() > formats.len() {
        return Err(Failure::Message("each --output-file needs a --format of its own".into()));
    }
    for (index, format) in formats.into_iter().enumerate() {
        match options.output_file.get(index) {
            Some(path) => {
                let mut text = Vec::new();
                let style = report::Options { base, ..style(&options.output, false) };
                report::write(format, report, &style, &mut text)?;
                write_file(path, &text)?;
            }
            None => {
                let to_terminal = io::stdout().is_terminal();
                let mut out = io::BufWriter::new(io::stdout().lock());
                let style = report::Options { base, ..style(&options.output, to_terminal) };
                report::write(format, report, &style, &mut out)?;
                out.flush()?;
            }
        }
    }
    Ok(())
}

fn write_file(path: &Path, text: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|e| Failure::Message(format!("cannot write `{}`: {e}", path.display())))
}
