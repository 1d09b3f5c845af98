//! `llmlint models`: the model catalogue.

use std::io::Write;

use clap::Args;
use comfy_table::Table;

use super::common::Failure;
use crate::catalog::models;

/// Arguments of `models`.
#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Part of a model's name; absent: lists all
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<String>,
    /// Print as JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the models whose names contain the pattern.
///
/// # Errors
/// Nothing can be written.
pub(crate) fn run(args: &ModelsArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let wanted = args.pattern.as_deref().unwrap_or_default().to_ascii_lowercase();
    let matches = |name: &str| name.to_ascii_lowercase().contains(&wanted);
    let exact = models::in_catalogue(&wanted).map(|(model, _)| model);
    let chosen: Vec<_> = models::all()
        .iter()
        .filter(|m| exact == Some(*m) || matches(m.id) || m.ids.iter().any(|id| matches(id)))
        .collect();
    let evidence = |read: bool| if read { "read" } else { "memory" };
    if args.json {
        let list: Vec<_> = chosen
            .iter()
            .map(|m| {
                serde_json::json!({
                    "id": m.id, "ids": m.ids, "published_parameters": m.parameters,
                    "evidence": evidence(m.read), "config": m.config().ok(),
                })
            })
            .collect();
        writeln!(out, "{:#}", serde_json::Value::from(list))?;
        return Ok(super::OK);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["model", "published parameters", "evidence", "other names"]);
    for m in &chosen {
        let total = m.parameters.map_or_else(|| "unverified".into(), |total| total.to_string());
        let mut others: Vec<&str> = m.ids.iter().take(3).copied().collect();
        if m.ids.len() > 3 {
            others.push("…");
        }
        table.add_row([m.id, &total, evidence(m.read), &others.join(", ")]);
    }
    if !chosen.is_empty() {
        writeln!(out, "{table}")?;
    }
    Ok(super::OK)
}
