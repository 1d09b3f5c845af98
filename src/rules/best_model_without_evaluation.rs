//! `load_best_model_at_end` and the evaluation it compares by.

use super::Checked;
use crate::declare_rule;
use crate::document::Value;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds `load_best_model_at_end: true` where evaluating and saving do not happen at the
    /// same steps.
    ///
    /// ## Why
    ///
    /// The Trainer keeps the checkpoint with the best evaluation. It refuses to start when
    /// nothing is evaluated, when one is done by steps and the other by epochs, and when
    /// `save_steps` is not a multiple of `eval_steps`.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="load_best_model_at_end: true"
    /// model_name_or_path: Qwen/Qwen3-0.6B
    /// output_dir: out
    /// learning_rate: 2.0e-5
    /// max_length: 2048
    /// load_best_model_at_end: true
    /// eval_strategy: steps
    /// eval_steps: 200
    /// save_strategy: steps
    /// save_steps: 500
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Save at every evaluation, or at every second, third, … of them.
    ///
    /// ```diff title="sft.yaml"
    /// -save_steps: 500
    /// +save_steps: 400
    /// ```
    BestModelWithoutEvaluation, "best-model-without-evaluation", Error,
    "the best checkpoint is asked for, but evaluation and saving do not match"
}

impl BestModelWithoutEvaluation {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(framework), Some(root)) = (file.framework, file.root) else { return };
        if !matches!(framework.name(), "trl" | "llama-factory" | "axolotl") {
            return;
        }
        // Axolotl derives these steps from its own keys as well.
        if ["saves_per_epoch", "evals_per_epoch"].iter().any(|key| root.get(key).is_some()) {
            return;
        }
        let Some(best) = root.get("load_best_model_at_end").filter(|v| v.to_bool() == Some(true)) else {
            return;
        };
        let at = |value: Value<'_>| Location::primary(value.key_span().cover(value.span()));
        let evaluates = root.get("eval_strategy").or_else(|| root.get("evaluation_strategy"));
        let eval = evaluates.and_then(|v| v.text()).unwrap_or("no");
        // Axolotl evaluates by steps as soon as `eval_steps` is there.
        if framework.name() == "axolotl" && evaluates.is_none() {
            return;
        }
        let saves = root.get("save_strategy");
        let save = saves.and_then(|v| v.text()).unwrap_or("steps");
        let new = |message: String| Finding::new(Self::NAME, Severity::Error, at(best), message);
        if matches!(eval, "no" | "false" | "False") {
            findings.push(
                new("`load_best_model_at_end` without evaluation".into())
                    .help("set `eval_strategy` to the same value as `save_strategy`"),
            );
            return;
        }
        if save != eval && save != "best" {
            let mut finding = new(format!(
                "the best model is wanted, but it is evaluated by `{eval}` and saved by `{save}`"
            ));
            for value in [evaluates, saves].into_iter().flatten() {
                finding = finding.label(at(value), "");
            }
            findings.push(finding.help("use the same strategy for both"));
            return;
        }
        let steps = |key: &str| root.get(key).and_then(|v| v.to_float());
        let saved = steps("save_steps").unwrap_or(500.0);
        let Some(evaluated) = steps("eval_steps").or_else(|| steps("logging_steps")) else { return };
        if eval == "steps" && save == "steps" && saved >= 1.0 && evaluated >= 1.0 && saved % evaluated != 0.0
        {
            let mut finding = new(format!("`save_steps` {saved} is no multiple of `eval_steps` {evaluated}"));
            for value in ["save_steps", "eval_steps"].iter().filter_map(|key| root.get(key)) {
                finding = finding.label(at(value), "");
            }
            findings.push(finding.help("save at every evaluation, or at every n-th"));
        }
    }
}
