//! Colours, or none.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

use crate::finding::Severity;

/// Paints words when colour is on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub(super) color: bool,
}

impl Paint {
    fn with(self, style: Style, text: impl Display) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    pub(super) fn severity(self, severity: Severity, text: impl Display) -> String {
        let color = match severity {
            Severity::Error => AnsiColor::BrightRed,
            Severity::Warning => AnsiColor::BrightYellow,
            Severity::Note => AnsiColor::BrightBlue,
        };
        self.with(Style::new().fg_color(Some(color.into())).bold(), text)
    }

    pub(super) fn bold(self, text: impl Display) -> String {
        self.with(Style::new().bold(), text)
    }

    pub(super) fn color(self, color: AnsiColor, text: impl Display) -> String {
        self.with(Style::new().fg_color(Some(color.into())), text)
    }
}
