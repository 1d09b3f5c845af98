//! `llmlint init`: writes a commented `llmlint.toml` for the configs found here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use clap::Args;

use super::OK;
use super::common::{self, BudgetOptions, Failure, Prepared};
use crate::catalog::gpus;
use crate::check::check_files;
use crate::settings::FILE_NAME;

/// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Print to stdout instead of writing llmlint.toml
    #[arg(long)]
    pub stdout: bool,
    /// GPU the runs must fit, such as H100-80GB
    #[arg(long, value_name = "NAME")]
    pub gpu: Option<String>,
    /// GPUs in all
    #[arg(long, value_name = "N")]
    pub gpus: Option<u64>,
}

/// Runs it.
///
/// # Errors
/// There is an `llmlint.toml` already, or it cannot be written.
pub(crate) fn run(args: &InitArgs) -> Result<u8, Failure> {
    let budget =
        BudgetOptions { gpu: args.gpu.clone(), gpus: args.gpus, isolated: true, ..BudgetOptions::default() };
    let Prepared { files, context } = common::prepare(&[".".into()], &budget, None)?;
    let report = check_files(&files, &context).unwrap_or_default();
    let here = if args.gpu.is_none() { gpus_here() } else { None };
    let mut by_framework: BTreeMap<&str, usize> = BTreeMap::new();
    for file in &report.files {
        *by_framework.entry(file.framework.unwrap_or("unreadable")).or_default() += 1;
    }
    let mut text = String::from("# Settings of llmlint. The nearest llmlint.toml above a config holds.\n");
    for (framework, count) in &by_framework {
        let _ = writeln!(text, "# found: {count} × {framework}");
    }
    text.push_str(
        "\n# What the runs may use. A name from `llmlint gpus`, or `memory = \"79GiB\"`.\n[budget]\n",
    );
    if let Some((gpu, count)) = here {
        let _ = writeln!(text, "# this machine's: {count} × {gpu}");
    }
    match args.gpu.as_deref().or(here.map(|(gpu, _)| gpu)) {
        Some(gpu) => {
            let _ = writeln!(text, "gpu = {}", toml::Value::from(gpu));
        }
        None => text.push_str("# gpu = \"H100-80GB\"\n"),
    }
    match args.gpus.or(here.map(|(_, count)| count)) {
        Some(gpus) => {
            let _ = writeln!(text, "gpus = {gpus}");
        }
        None => text.push_str("# gpus = 8\n"),
    }
    text.push_str(
        "\n# Versions in use, where they are not the newest: defaults differ between them.\n[frameworks]\n",
    );
    for framework in
        by_framework.keys().filter(|name| crate::framework::by_name(name).is_some_and(|f| f.supported()))
    {
        let _ = writeln!(text, "# {framework} = \"…\"");
    }
    text.push_str(
        "\n# Models the catalogue does not know: dimensions as in a config.json, or its path.\n\
         # [models.\"our/model\"]\n# config = \"models/ours/config.json\"\n\
         \n# Levels by rule (`llmlint rules`): off, note, warning, error.\n[rules]\n\
         # unknown-key = \"error\"\n\
         \n# Other levels for some paths.\n# [[overrides]]\n# paths = [\"configs/old/**\"]\n\
         # rules = { deprecated-key = \"off\" }\n",
    );
    if args.stdout {
        std::io::stdout().lock().write_all(text.as_bytes())?;
        return Ok(OK);
    }
    let path = context.working_directory.join(FILE_NAME);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    match file.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {
            let _ = writeln!(anstream::stderr(), "wrote {FILE_NAME}");
            Ok(OK)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Failure::Message(format!(
            "{FILE_NAME} is there already and was left as it is; `llmlint init --stdout` prints a new one"
        ))),
        Err(error) => Err(Failure::Message(format!("cannot write {FILE_NAME}: {error}"))),
    }
}

/// The GPUs of this machine, where its driver names them and all are the same known kind.
fn gpus_here() -> Option<(&'static str, u64)> {
    let asked = ["--query-gpu=name", "--format=csv,noheader"];
    let output = std::process::Command::new("nvidia-smi").args(asked).output().ok()?;
    let names = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    let mut names: Vec<&str> = names.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    let count = names.len() as u64;
    names.dedup();
    match names.as_slice() {
        [name] => Some((gpus::find(name).ok()?.name, count)),
        _ => None,
    }
}
