//! The command line: clap definitions, one file a command, and the only place beside `report/`
//! that prints, reads the environment, or decides an exit code.

mod check;
mod common;
mod diff;
mod explain;
mod fit;
mod git;
mod gpus;
mod init;
mod models;
mod progress;
mod reference;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use common::{CheckOptions, Failure};

/// Exit code: nothing at or above `--fail-on`.
pub const OK: u8 = 0;
/// Exit code: findings at or above `--fail-on`.
pub const FINDINGS: u8 = 1;
/// Exit code: the tool could not do its job (usage, settings, an unreadable path given by name).
pub const FAILURE: u8 = 2;

/// A linter for LLM training configs.
///
/// Reads the configs of Axolotl, LLaMA-Factory, TRL, torchtune, torchtitan, LitGPT and others,
/// finds mistakes, computes the GPU memory the run will need, and says when it will not fit.
#[derive(Debug, Parser)]
#[command(name = "llmlint", version, args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// What to do; without a command, `check`.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// `llmlint PATHS…` is `llmlint check PATHS…`.
    #[command(flatten)]
    pub check: CheckArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check configs: mistakes, and whether runs fit (the default)
    Check(CheckArgs),
    /// Show how a run's memory adds up, line by line
    Explain(explain::ExplainArgs),
    /// Find the smallest changes that bring a run under its budget, and write them
    Fit(fit::FitArgs),
    /// Show what a change means for memory and findings: two revisions or two paths
    Diff(diff::DiffArgs),
    /// Print the JSON Schema of a framework's files, of the native format, or of llmlint.toml
    Schema(reference::SchemaArgs),
    /// List the rules, or show one rule's page
    Rules(reference::RulesArgs),
    /// List the models of the catalogue
    Models(models::ModelsArgs),
    /// List the GPUs and cloud instances that are known, with their usable memory
    Gpus(gpus::GpusArgs),
    /// Write a commented llmlint.toml for the configs found here
    Init(init::InitArgs),
    /// Print shell completions
    Completions(reference::CompletionsArgs),
    /// Print the man page
    Man,
}

/// Arguments of `check`.
#[derive(Debug, Default, Args)]
pub(crate) struct CheckArgs {
    /// Files, directories, or quoted patterns such as 'configs/**/*.yaml'; `-` reads stdin
    #[arg(value_name = "PATH")]
    pub paths: Vec<String>,
    #[command(flatten)]
    pub options: CheckOptions,
}

/// Runs the tool with the process's own arguments.
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()))
}

/// Runs the tool; the result is the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with code 0; clap knows which is which.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(FAILURE);
        }
    };
    let outcome = match cli.command {
        None => check::run(&cli.check),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Fit(args)) => fit::run(&args),
        Some(Command::Diff(args)) => diff::run(&args),
        Some(Command::Schema(args)) => reference::schema(&args),
        Some(Command::Rules(args)) => reference::rules(&args),
        Some(Command::Models(args)) => models::run(&args, &mut std::io::stdout().lock()),
        Some(Command::Gpus(args)) => gpus::run(&args, &mut std::io::stdout().lock()),
        Some(Command::Init(args)) => init::run(&args),
        Some(Command::Completions(args)) => reference::completions(&args, &mut Cli::command()),
        Some(Command::Man) => reference::man(Cli::command()),
    };
    match outcome {
        Ok(code) => code,
        Err(Failure::ClosedPipe) => OK,
        Err(Failure::Message(message)) => {
            let text = crate::sanitize::lines(&message);
            let _ = writeln!(anstream::stderr(), "llmlint: {text}");
            FAILURE
        }
    }
}
