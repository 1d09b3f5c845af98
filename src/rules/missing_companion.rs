//! Settings that need another one beside them.

use super::Checked;
use crate::declare_rule;
use crate::document::Value;
use crate::finding::{Finding, Severity};
use crate::framework::Kind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds a setting that the framework accepts only together with another one, which is not
    /// there.
    ///
    /// ## Why
    ///
    /// The framework says so at start, when the GPUs are already taken.
    ///
    /// ## Example
    ///
    /// ```yaml title="ppo.yaml" mark="stage: ppo"
    /// model_name_or_path: Qwen/Qwen3-0.6B
    /// stage: ppo
    /// do_train: true
    /// finetuning_type: lora
    /// dataset: identity
    /// template: qwen3
    /// cutoff_len: 2048
    /// learning_rate: 1.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint ppo.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Add the setting that the message names.
    ///
    /// ```diff title="ppo.yaml"
    ///  stage: ppo
    /// +reward_model: saves/qwen3/reward
    /// ```
    MissingCompanion, "missing-companion", Error, "a setting needs another one that is not there"
}

/// Does the setting ask for its companion?
type Asks = fn(Value<'_>) -> bool;

fn on(value: Value<'_>) -> bool {
    value.to_bool() == Some(true)
}

fn positive(value: Value<'_>) -> bool {
    value.to_float().is_some_and(|x| x > 0.0)
}

struct Companion {
    key: &'static str,
    asks: Asks,
    /// One of these must be there.
    needs: &'static [&'static str],
    severity: Severity,
    why: &'static str,
}

/// `hparams/parser.py`, `hparams/finetuning_args.py`, `hparams/data_args.py` at commit ff6d4d1.
const LLAMA_FACTORY: &[Companion] = &[
    Companion {
        key: "stage",
        asks: |v| v.text() == Some("ppo"),
        needs: &["reward_model"],
        severity: Severity::Error,
        why: "PPO scores what it generates with a reward model.",
    },
    Companion {
        key: "do_train",
        asks: on,
        needs: &["dataset", "tokenized_path"],
        severity: Severity::Error,
        why: "There is nothing to train on.",
    },
    Companion {
        key: "do_eval",
        asks: on,
        needs: &["eval_dataset", "val_size"],
        severity: Severity::Error,
        why: "There is nothing to evaluate on.",
    },
    Companion {
        key: "streaming",
        asks: on,
        needs: &["max_steps"],
        severity: Severity::Error,
        why: "A stream has no length, so the number of steps must be given.",
    },
    Companion {
        key: "val_size",
        asks: positive,
        needs: &["dataset"],
        severity: Severity::Error,
        why: "The evaluation set is split off the dataset.",
    },
    Companion {
        key: "new_special_tokens_config",
        asks: |v| !v.is_null(),
        needs: &["resize_vocab"],
        severity: Severity::Warning,
        why: "New tokens need rows in the embedding.",
    },
];

/// TRL 1.16 `trainer/model_config.py`: the adapter keys are read only when `use_peft` is on.
const TRL: &[Companion] = &[Companion {
    key: "lora_r",
    asks: positive,
    needs: &["use_peft", "use_lora"],
    severity: Severity::Warning,
    why: "Without `use_peft: true` no adapter is made and all weights are trained.",
}];

impl MissingCompanion {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(framework), Some(root), Kind::Run) = (file.framework, file.root, file.kind) else { return };
        let table = match framework.name() {
            "llama-factory" => LLAMA_FACTORY,
            // Only TRL's own scripts read these keys this way.
            "trl" if root.get("torch_dtype").or_else(|| root.get("dtype")).is_some() => TRL,
            _ => return,
        };
        for companion in table {
            let Some(value) = root.get(companion.key).filter(|v| (companion.asks)(*v)) else { continue };
            let there = |key: &&str| root.get(key).is_some_and(|v| !v.is_null());
            if companion.needs.iter().any(there) {
                continue;
            }
            let location = Location::primary(value.key_span().cover(value.span()));
            let names: Vec<String> = companion.needs.iter().map(|name| format!("`{name}`")).collect();
            findings.push(
                Finding::new(
                    Self::NAME,
                    companion.severity,
                    location,
                    format!("`{}` needs {}", companion.key, names.join(" or ")),
                )
                .note(companion.why),
            );
        }
    }
}
