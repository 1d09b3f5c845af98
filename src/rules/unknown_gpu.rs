//! GPU names that fit no product.

use super::Checked;
use crate::declare_rule;
use crate::finding::Finding;

declare_rule! {
    /// ## What it does
    ///
    /// Reports a GPU name that nobody knows, in a budget that the file declares.
    ///
    /// ## Why
    ///
    /// Without the GPU there is no budget, and nothing says whether the run fits.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// budget: { gpu: H1000 }
    /// ```
    ///
    /// ## The fix
    ///
    /// Write one of the names that `llmlint gpus` lists, such as `A100-80GB`, or a cloud instance
    /// such as `p4d.24xlarge`. For a GPU that is not there, give `memory` instead.
    UnknownGpu, "unknown-gpu", Error, "a GPU name that nobody knows"
}

impl UnknownGpu {
    // Found where budgets are looked up (`rules::budget_error`): without a budget there is nothing to read here.
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}
