//! What the tool knows, printed: schemas, rules, completions, the man page.

use std::io::{self, Write as _};

use clap::Args;

use super::OK;
use super::common::{self, Failure, OutputOptions};
use crate::framework::{self, Kind};
use crate::settings::{SettingsFile, did_you_mean};
use crate::{framework::native, report, rules};

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// A framework, `llmlint` for the native format, or `llmlint.toml`; absent: lists them
    #[arg(value_name = "FRAMEWORK")]
    pub framework: Option<String>,
}

/// Arguments of `rules`.
#[derive(Debug, Args)]
pub(crate) struct RulesArgs {
    /// A rule's name; absent: lists them
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Prints a schema.
///
/// # Errors
/// There is no such framework.
pub(crate) fn schema(args: &SchemaArgs) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    let schema_of = |f: &dyn framework::Framework| {
        [Kind::Run, Kind::Fragment, Kind::Other].into_iter().find_map(|kind| f.schema(kind))
    };
    let mut named: Vec<&str> = framework::ALL
        .iter()
        .filter(|f| f.name() == "llmlint" || schema_of(**f).is_some())
        .map(|f| f.name())
        .collect();
    // TRL's command and scripts over its trainers are told apart, under one name.
    named.dedup();
    let Some(name) = &args.framework else {
        for name in named.iter().chain(&["llmlint.toml"]) {
            writeln!(out, "{name}")?;
        }
        return Ok(OK);
    };
    if name == "llmlint.toml" {
        let schema = schemars::schema_for!(SettingsFile);
        writeln!(out, "{}", serde_json::to_string_pretty(&schema).map_err(io::Error::from)?)?;
        return Ok(OK);
    }
    if name == "llmlint" {
        let schema = native::derived_schema();
        writeln!(out, "{}", serde_json::to_string_pretty(&schema).map_err(io::Error::from)?)?;
        return Ok(OK);
    }
    match framework::by_name(name).and_then(schema_of) {
        Some(text) => {
            out.write_all(text.as_bytes())?;
            Ok(OK)
        }
        None => Err(Failure::Message(format!(
            "there is no schema for `{name}`{}",
            did_you_mean(name, named.into_iter().chain(["llmlint.toml"]))
        ))),
    }
}

/// Lists rules, or prints one rule's page.
///
/// # Errors
/// There is no such rule.
pub(crate) fn rules(args: &RulesArgs) -> Result<u8, Failure> {
    let mut out = io::stdout().lock();
    if let Some(name) = &args.name {
        crate::settings::rule_exists(name).map_err(Failure::Message)?;
    }
    let chosen = rules::ALL
        .iter()
        .map(|r| r.info())
        .filter(|r| args.name.as_deref().is_none_or(|name| name == r.name));
    if args.json {
        let list: Vec<_> = chosen
            .map(|r| serde_json::json!({ "name": r.name, "severity": r.severity, "summary": r.summary, "page": r.markdown() }))
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&list).map_err(io::Error::from)?)?;
        return Ok(OK);
    }
    if args.name.is_some() {
        for info in chosen {
            writeln!(out, "# {} ({})\n\n{}\n", info.name, info.severity.as_str(), info.summary)?;
            out.write_all(info.markdown().as_bytes())?;
            if let Some(url) = report::rule_url(info.name) {
                writeln!(out, "\nWhat the example prints: {url}")?;
            }
        }
        return Ok(OK);
    }
    let mut table = common::new_table(&args.output, &["rule", "severity", "what it finds"]);
    for info in chosen {
        table.add_row([info.name, info.severity.as_str(), info.summary]);
    }
    common::write_table(table, false, &mut out)?;
    Ok(OK)
}

/// Prints shell completions.
///
/// # Errors
/// Stdout cannot be written.
pub(crate) fn completions(args: &CompletionsArgs, command: &mut clap::Command) -> Result<u8, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, command, "llmlint", &mut text);
    io::stdout().lock().write_all(&text)?;
    Ok(OK)
}

/// Prints the man page.
///
/// # Errors
/// Stdout cannot be written.
pub(crate) fn man(command: clap::Command) -> Result<u8, Failure> {
    clap_mangen::Man::new(command).render(&mut io::stdout().lock())?;
    Ok(OK)
}
