//! `llmlint [check] PATHS…`.

use std::io::{Read as _, Write as _};

use super::common::{self, FailOn, Failure, Prepared};
use super::{CheckArgs, FINDINGS, OK};
use crate::check::{Report, check_bytes, check_files};
use crate::document::{Syntax, limits};
use crate::sanitize;
use crate::settings::Level;

/// Runs it.
///
/// # Errors
/// What the tool could not do.
pub(crate) fn run(args: &CheckArgs) -> Result<u8, Failure> {
    if args.paths.is_empty() {
        return Err(Failure::Message(
            "no paths given; try `llmlint configs`, or `llmlint --help` for the commands".into(),
        ));
    }
    let options = &args.options;
    let Prepared { files, context } = common::prepare(&args.paths, &options.budget, Some(options))?;
    let mut report = check_files(&files, &context).map_err(|unreadable| {
        let lines: Vec<String> =
            unreadable.iter().map(|u| format!("cannot read `{}`: {}", u.path, u.why)).collect();
        Failure::Message(lines.join("\n"))
    })?;
    if args.paths.iter().any(|path| path == "-") {
        check_stdin(&options.stdin_filename, &context, &mut report)?;
    }
    for path in &report.not_recognised {
        let path = sanitize::path(path);
        let _ = writeln!(anstream::stderr(), "llmlint: {path}: not a training config that is known; skipped");
    }
    common::write_report(&report, options)?;
    let fail_on = options.fail_on.unwrap_or_else(|| {
        match context.settings.of(&context.working_directory).content.fail_on {
            None | Some(Level::Error) => FailOn::Error,
            Some(Level::Warning) => FailOn::Warning,
            Some(Level::Note) => FailOn::Note,
            Some(Level::Off) => FailOn::Never,
        }
    });
    Ok(if fail_on.fails(report.worst()) { FINDINGS } else { OK })
}

fn check_stdin(name: &str, context: &crate::check::Context, report: &mut Report) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().take(limits::FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let syntax = Syntax::of_path(name).ok_or_else(|| {
        Failure::Message(format!("--stdin-filename `{name}` must end in .yaml, .toml or .json"))
    })?;
    match check_bytes(name, bytes, syntax, true, context) {
        Some(file) => report.files.push(file),
        None => report.not_recognised.push(name.to_owned()),
    }
    Ok(())
}
