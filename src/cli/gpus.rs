//! `llmlint gpus`: what is known about GPUs and cloud instances.

use std::io::Write;

use clap::Args;

use super::common::{Failure, ListFormat, OutputOptions, evidence, new_table, write_table};
use crate::catalog::{gpus, instances};

/// Arguments of `gpus`.
#[derive(Debug, Args)]
pub(crate) struct GpusArgs {
    /// Part of a name, in any spelling; absent: lists all
    #[arg(value_name = "PATTERN")]
    pub pattern: Option<String>,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table", help_heading = "Output")]
    pub format: ListFormat,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// Prints the GPUs whose names contain the pattern, and the instances.
///
/// # Errors
/// Nothing can be written.
pub(crate) fn run(args: &GpusArgs, out: &mut dyn Write) -> Result<u8, Failure> {
    let wanted = args.pattern.as_deref().unwrap_or_default().to_ascii_lowercase();
    let matches = |name: &str| name.to_ascii_lowercase().contains(&wanted);
    let found = gpus::find(&wanted).ok();
    let chosen: Vec<_> = gpus::all()
        .iter()
        .filter(|g| found == Some(*g) || matches(g.name) || g.aliases.iter().any(|a| matches(a)))
        .collect();
    let machines: Vec<_> =
        instances::all().iter().filter(|i| !wanted.is_empty() && matches(i.name)).collect();
    if args.format == ListFormat::Json {
        let gpus: Vec<_> = chosen
            .iter()
            .map(|g| {
                serde_json::json!({
                    "name": g.name, "usable_bytes": g.usable.0, "evidence": evidence(g.read), "source": g.source,
                    "marketed_gb": g.marketed_gb, "vendor": g.vendor, "sm": g.sm, "bf16": g.bf16, "fp8": g.fp8,
                    "fp4": g.fp4, "flash_attention_2": g.flash_attention_2, "flash_attention_3": g.flash_attention_3,
                    "aliases": g.aliases, "note": g.note,
                })
            })
            .collect();
        let instances: Vec<_> = machines
            .iter()
            .map(|i| {
                serde_json::json!({
                    "name": i.name, "provider": i.provider, "gpu": i.gpu.name, "gpus": i.gpus,
                    "host_bytes": i.host_memory.map(|m| m.0), "evidence": evidence(i.read),
                })
            })
            .collect();
        let all = serde_json::json!({ "gpus": gpus, "instances": instances });
        writeln!(out, "{all:#}")?;
        return Ok(super::OK);
    }
    let mut table = new_table(&args.output, &["GPU", "usable GiB", "evidence", "features", "also written"]);
    for g in &chosen {
        let flags = [
            (g.bf16, "bf16"),
            (g.fp8, "fp8"),
            (g.fp4, "fp4"),
            (g.flash_attention_2, "fa2"),
            (g.flash_attention_3, "fa3"),
        ];
        let features: Vec<&str> = flags.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        let also: Vec<&str> = g.aliases.iter().take(3).copied().collect();
        let gib = format!("{:.2}", g.usable.gib());
        table.add_row([g.name, &gib, evidence(g.read), &features.join(" "), &also.join(", ")]);
    }
    if chosen.is_empty() && machines.is_empty() {
        writeln!(out, "no GPU or instance of that name")?;
    }
    if !chosen.is_empty() {
        write_table(table, true, out)?;
    }
    if !machines.is_empty() {
        let mut table = new_table(&args.output, &["instance", "GPU", "GPUs", "evidence", "host GiB"]);
        for i in &machines {
            let host = i.host_memory.map_or_else(String::new, |m| format!("{:.0}", m.gib()));
            table.add_row([i.name, i.gpu.name, &i.gpus.to_string(), evidence(i.read), &host]);
        }
        write_table(table, false, out)?;
    }
    Ok(super::OK)
}
