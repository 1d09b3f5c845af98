//! `llmlint [check] PATHS…`.

use std::io::{Read as _, Write as _};
use std::path::Path;

use super::common::{self, FailOn, Failure, Prepared};
use super::progress::Progress;
use super::{CheckArgs, FINDINGS, OK, diff, git};
use crate::baseline::Baseline;
use crate::check::{Report, check_bytes, check_files_watched};
use crate::document::{Syntax, limits};
use crate::rules::ABOUT_MEMORY;
use crate::settings::Level;
use crate::{fix, report, sanitize};

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
    let checked = || {
        let progress = Progress::new(files.len(), &options.output, Progress::watched(options));
        check_files_watched(&files, &context, &|| progress.done()).map_err(|files| common::unreadable(&files))
    };
    let mut report = checked()?;
    if args.paths.iter().any(|path| path == "-") {
        check_stdin(&options.stdin_filename, &context, &mut report)?;
    }
    // Hooks pass every YAML file by name; only somebody who named one file wants to know.
    if let ([_], [path]) = (args.paths.as_slice(), report.not_recognised.as_slice()) {
        let path = sanitize::path(path);
        let _ = writeln!(anstream::stderr(), "llmlint: {path}: not a training config that is known; skipped");
    }
    let changed = match &options.since {
        Some(since) => Some(git::changed_since(&context.working_directory, since)?),
        None => None,
    };
    let limit = |report: &mut Report| {
        let Some(changed) = &changed else { return };
        let touched = |path: &str| {
            context.working_directory.join(path).canonicalize().is_ok_and(|path| changed.contains(&path))
        };
        // A changed DeepSpeed file concerns every run that names it, and changed settings (a
        // budget, a rule's level) every file below them.
        let settings_touched = |path: &str| {
            let path = context.working_directory.join(path);
            let settings = context.settings.of(path.parent().unwrap_or(&path)).path.as_ref();
            settings.and_then(|path| path.canonicalize().ok()).is_some_and(|path| changed.contains(&path))
        };
        report.files.retain(|file| {
            file.sources.iter().any(|source| touched(&source.path)) || settings_touched(&file.path)
        });
    };
    limit(&mut report);
    if options.fix || options.unsafe_fixes {
        // A mistake that is mended may be all that was wrong with the memory.
        for about_memory in [false, true] {
            if apply_fixes(&report, options.unsafe_fixes, about_memory)? > 0 {
                report = checked()?;
                limit(&mut report);
            }
        }
    }
    let mut base = None;
    if let Some(since) = &options.since
        && options.format.iter().any(report::Format::shows_base)
    {
        base = Some(diff::at_revision(since, &context, &options.budget)?);
    }
    if let Some(path) = &options.baseline {
        use_baseline(path, options.write_baseline, &mut report)?;
    }
    common::write_report(&report, base.as_ref(), options)?;
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

/// Writes the fixes on offer, of the rules about memory or of the others; gives the number of
/// files written.
fn apply_fixes(report: &Report, with_unsafe: bool, about_memory: bool) -> Result<usize, Failure> {
    let mut written = 0;
    for file in &report.files {
        let chosen = file.findings.iter().filter(|f| ABOUT_MEMORY.contains(&f.rule) == about_memory);
        let edits = fix::collect(chosen, with_unsafe);
        let Some(source) = file.sources.first().filter(|_| !edits.is_empty()) else { continue };
        let Some(now) = fix::apply_verified(&file.path, &source.text, &edits) else { continue };
        fix::write(Path::new(&file.path), &now)
            .map_err(|e| Failure::Message(format!("cannot fix `{}`: {e}", file.path)))?;
        written += 1;
    }
    Ok(written)
}

fn use_baseline(path: &Path, write: bool, report: &mut Report) -> Result<(), Failure> {
    let failed = |why: String| Failure::Message(format!("baseline `{}`: {why}", path.display()));
    let baseline = if write {
        let baseline = Baseline::of(report);
        std::fs::write(path, baseline.to_text()).map_err(|e| failed(e.to_string()))?;
        baseline
    } else {
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        Baseline::parse(&text).map_err(failed)?
    };
    baseline.apply(report);
    Ok(())
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
