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
    /// ```yaml title="sft.yaml" mark="gpu=a100"
    /// # llmlint: gpu=a100 gpus=8
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
    /// Write one of the names that the message lists, or a cloud instance such as `p4d.24xlarge`
    /// (`llmlint gpus` knows both). For a GPU that is not there, give `budget` with its memory instead.
    ///
    /// ```diff title="sft.yaml"
    /// -# llmlint: gpu=a100 gpus=8
    /// +# llmlint: gpu=A100-80GB-SXM4 gpus=8
    /// ```
    AmbiguousGpu, "ambiguous-gpu", Error, "a GPU name that stands for products with different memory"
}

impl AmbiguousGpu {
    // Found where budgets are looked up (`rules::budget_error`): without a budget there is nothing to read here.
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}
