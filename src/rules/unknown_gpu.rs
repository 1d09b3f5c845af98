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
    /// ```yaml title="sft.yaml" mark="gpu=H1000"
    /// # llmlint: gpu=H1000 gpus=8
    /// base_model: Qwen/Qwen3-0.6B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 2048
    /// micro_batch_size: 1
    /// learning_rate: 2.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Write one of the names that `llmlint gpus` lists, such as `A100-80GB`, or a cloud instance
    /// such as `p4d.24xlarge`. For a GPU that is not there, give `budget` with its memory instead.
    ///
    /// ```diff title="sft.yaml"
    /// -# llmlint: gpu=H1000 gpus=8
    /// +# llmlint: gpu=H100-80GB gpus=8
    /// ```
    UnknownGpu, "unknown-gpu", Error, "a GPU name that nobody knows"
}

impl UnknownGpu {
    // Found where budgets are looked up (`rules::budget_error`): without a budget there is nothing to read here.
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}
