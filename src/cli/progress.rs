//! A bar on stderr while many files are checked, for a person who watches.

use std::io::{self, IsTerminal as _};
use std::sync::Once;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::common::{CheckOptions, OutputOptions};
use crate::report::Format;

/// Shorter runs end before anybody wonders.
const PATIENCE: Duration = Duration::from_millis(500);

/// Counts files; draws only where [`Progress::watched`].
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
    shown: Once,
}

impl Progress {
    /// For `files` files; nothing is drawn before half a second.
    pub(crate) fn new(files: usize, output: &OutputOptions, watched: bool) -> Progress {
        let bar = watched.then(|| {
            let bar = ProgressBar::with_draw_target(Some(files as u64), ProgressDrawTarget::hidden());
            let style = ProgressStyle::with_template("checking {bar:30} {pos} of {len} files")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars(if output.ascii { "#:." } else { "█▒░" }));
            bar
        });
        Progress { bar, start: Instant::now(), shown: Once::new() }
    }

    /// Does a person watch stderr, with nothing else drawn there? Not in CI, not under a dumb
    /// terminal, and not where a format for programs goes to the same terminal.
    pub(crate) fn watched(options: &CheckOptions) -> bool {
        let set =
            |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty() && v != "0" && v != "false");
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let for_programs = |format: &Format| !matches!(format, Format::Pretty | Format::Concise);
        let to_stdout = options.format.iter().skip(options.output_file.len());
        let mixed = io::stdout().is_terminal() && to_stdout.into_iter().any(for_programs);
        io::stderr().is_terminal() && !options.output.quiet && !set("CI") && !dumb && !mixed
    }

    /// One more file is done.
    pub(crate) fn done(&self) {
        let Some(bar) = &self.bar else { return };
        bar.inc(1);
        if self.start.elapsed() > PATIENCE {
            self.shown.call_once(|| bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(8)));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
