//! `llmlint models`: the model catalogue.

use std::io::Write;

use clap::Args;

use super::common::{Failure, ListFormat, OutputOptions, evidence, new_table, write_table};
use crate::catalog::{models, names};
use crate::report::words::grouped;
use crate::run::ModelRef;

/// Arguments of `models`.
#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Part of a model's name; absent: lists all
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<String>,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table", help_heading = "Output")]
    pub format: ListFormat,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// Prints the models whose names contain the pattern.
///
/// # Errors
/// Nothing can be written.
pub(crate) fn run(args: &ModelsArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let wanted = args.pattern.as_deref().unwrap_or_default().to_ascii_lowercase();
    let matches = |name: &str| name.to_ascii_lowercase().contains(&wanted);
    let exact = names::in_catalogue(&wanted).map(|named| named.model);
    let chosen: Vec<_> = models::all()
        .iter()
        .filter(|m| exact == Some(*m) || matches(m.id) || m.ids.iter().any(|id| matches(id)))
        .collect();
    if args.format == ListFormat::Json {
        let list: Vec<_> = chosen
            .iter()
            .map(|m| {
                serde_json::json!({
                    "id": m.id, "ids": m.ids, "published_parameters": m.parameters,
                    "evidence": evidence(m.read), "stand_in": m.stand_in, "config": m.config().ok(),
                })
            })
            .collect();
        writeln!(out, "{:#}", serde_json::Value::from(list))?;
        return Ok(super::OK);
    }
    let mut table = new_table(&args.output, &["model", "parameters", "evidence", "other names"]);
    for m in &chosen {
        let total = m.parameters.map_or_else(|| "unverified".into(), grouped);
        let mut others: Vec<&str> = m.ids.iter().take(3).copied().collect();
        if m.ids.len() > 3 {
            others.push("…");
        }
        let evidence = m.stand_in.map_or_else(
            || evidence(m.read).to_owned(),
            |family| format!("{}, layers of {family}", evidence(m.read)),
        );
        table.add_row([m.id, &total, &evidence, &others.join(", ")]);
    }
    if chosen.is_empty() {
        let why = models::resolve(&ModelRef::Id(wanted), &models::Lookup::default());
        let near = why.err().map(|e| e.near.join(", ")).filter(|near| !near.is_empty());
        writeln!(out, "no model of that name{}", near.map_or_else(String::new, |n| format!("; near: {n}")))?;
    } else {
        write_table(table, true, out)?;
    }
    Ok(super::OK)
}
