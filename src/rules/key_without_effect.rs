//! Keys that nobody reads in this combination.

use super::{Checked, axolotl_refuses};
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::refusal::RefusalKind;

declare_rule! {
    /// ## What it does
    ///
    /// Finds keys that the framework knows and does nothing with, because of another key.
    ///
    /// ## Why
    ///
    /// The run starts and needs more memory, or trains otherwise, than the file says.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// adapter: lora
    /// load_in_4bit: true      # axolotl quantises to 4 bits for `adapter: qlora` only
    /// ```
    ///
    /// ## The fix
    ///
    /// Make the change that the message names, or delete the key.
    KeyWithoutEffect, "key-without-effect", Warning, "a key that does nothing in this combination"
}

impl KeyWithoutEffect {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        axolotl_refuses::report(file, RefusalKind::NoEffect, Self::NAME, Severity::Warning, findings);
    }
}
