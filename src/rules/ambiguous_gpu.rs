//! GPU names that fit several products.

use super::Checked;
use crate::declare_rule;
use crate::finding::Finding;

declare_rule! {
    /// ## What it does
    ///
    /// Reports a GPU name that stands for products with different memory, in a budget that the file declares.
    ///
    /// ## Why
    ///
    /// `a100` is sold with 40 and with 80 GB; whether a run fits depends on which.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// budget: { gpu: a100 }
    /// ```
    ///
    /// ## The fix
    ///
    /// Write one of the names that `llmlint gpus` lists, such as `A100-80GB`, or a cloud instance
    /// such as `p4d.24xlarge`. For a GPU that is not there, give `memory` instead.
    AmbiguousGpu, "ambiguous-gpu", Error, "a GPU name that stands for products with different memory"
}

impl AmbiguousGpu {
    // Found where budgets are looked up (`rules::budget_error`): without a budget there is nothing to read here.
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}
