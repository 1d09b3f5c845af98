//! A spelled-out model whose width its heads do not divide.

use super::{Checked, place};
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::run::ModelRef;

declare_rule! {
    /// ## What it does
    ///
    /// Finds a model that is spelled out with a hidden size that its number of heads does not
    /// divide, and without a head width of its own.
    ///
    /// ## Why
    ///
    /// The width of a head is the hidden size over the heads. Modelling code refuses a remainder,
    /// or drops it and trains another model than the one meant.
    ///
    /// ## Example
    ///
    /// ```yaml title="run.yaml" mark=">model<:"
    /// llmlint: 1
    /// model:
    ///   architecture: llama
    ///   num_hidden_layers: 32
    ///   hidden_size: 4000
    ///   intermediate_size: 11008
    ///   num_attention_heads: 48
    ///   vocab_size: 32000
    /// training: { sequence_length: 4096, micro_batch_size: 1 }
    /// ```
    ///
    /// ```console
    /// $ llmlint run.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Change one of the two, or set `head_dim`.
    ///
    /// ```diff title="run.yaml"
    /// -  hidden_size: 4000
    /// +  hidden_size: 4032
    /// ```
    HiddenNotDivisibleByHeads, "hidden-not-divisible-by-heads", Error, "the hidden size is no multiple of the heads"
}

impl HiddenNotDivisibleByHeads {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(architecture)) = (file.run, file.architecture) else { return };
        // What the catalogue knows is right already; only a file can spell a shape wrongly.
        let written = matches!(run.model.value, ModelRef::Config(_) | ModelRef::IdWith(..));
        let own_width =
            ["head_dim", "d_kv", "qk_nope_head_dim"].iter().any(|key| architecture.config.contains_key(*key));
        let (hidden, heads) = (architecture.hidden_size, architecture.heads);
        if !written || own_width || heads == 0 || hidden % heads == 0 {
            return;
        }
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Error,
                place(&[&run.model.origin]),
                format!("a hidden size of {hidden} is no multiple of {heads} heads"),
            )
            .help(format!(
                "{} is the nearest multiple below; or set the width of a head",
                hidden - hidden % heads
            )),
        );
    }
}
