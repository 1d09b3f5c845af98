//! Suppression comments that silence nothing. The findings are made in [`crate::suppress`],
//! which sees what every other rule said.

use super::Checked;
use crate::declare_rule;
use crate::finding::Finding;

declare_rule! {
    /// ## What it does
    ///
    /// Finds `# llmlint: ignore[...]` comments that name a rule which says nothing there, or a
    /// rule that does not exist.
    ///
    /// ## Why is this bad
    ///
    /// The comment outlives the mistake it was written for, and silences the next one.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// learning_rate: 1.0e-5 # llmlint: ignore[yaml-float-as-string]
    /// ```
    ///
    /// ## Fix
    ///
    /// Delete the name, or the comment.
    UnusedSuppression, "unused-suppression", Warning, "a suppression comment silences nothing"
}

impl UnusedSuppression {
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}
