//! Keys that cannot be given together.

use super::{Checked, refused_combination};
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::refusal::RefusalKind;

declare_rule! {
    /// ## What it does
    ///
    /// Finds keys that the framework does not accept beside each other.
    ///
    /// ## Why
    ///
    /// They say the same thing twice, and the framework stops rather than choose.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// warmup_steps: 100
    /// warmup_ratio: 0.03
    /// ```
    ///
    /// ## The fix
    ///
    /// Keep one of them.
    MutuallyExclusiveKeys, "mutually-exclusive-keys", Error, "keys that cannot be given together"
}

impl MutuallyExclusiveKeys {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        refused_combination::report(file, RefusalKind::Exclusive, Self::NAME, Severity::Error, findings);
    }
}
