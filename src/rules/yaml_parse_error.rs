//! Text that does not parse.

use super::Checked;
use crate::declare_rule;
use crate::document::{ProblemKind, Syntax};
use crate::finding::{Finding, Severity};
use crate::source::{Location, Span};

declare_rule! {
    /// ## What it does
    ///
    /// Finds YAML, TOML and JSON that does not parse, and YAML that PyYAML refuses: a tab between
    /// a key and its value, a bare `=`, a tag it does not know.
    ///
    /// A template (`{{ model }}` unquoted, `"stage": ${stage}`, a bare `BATCH_SIZE` in JSON) is a
    /// note: it is filled in before a trainer loads it, and nothing else in it is checked.
    ///
    /// ## Why
    ///
    /// The trainer cannot read the file either.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="><\"Qwen"
    /// base_model: "Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Close the quote, bracket or brace, or align the indentation, where the message points.
    ///
    /// ```diff title="sft.yaml"
    /// -base_model: "Qwen/Qwen3-8B
    /// +base_model: Qwen/Qwen3-8B
    /// ```
    YamlParseError, "yaml-parse-error", Error, "the file does not parse"
}

impl YamlParseError {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let syntax = name(file.document.syntax);
        // Of frameworks that are only recognised the loader may know more (Levanter's `!include`).
        let supported = file.framework.is_some_and(|framework| framework.supported());
        let pyyaml = supported && file.root.is_some_and(|root| root.dialect().is_yaml_1_1());
        // Who loads the file refuses it, although YAML's own grammar does not.
        for problem in
            file.document.problems.iter().filter(|p| pyyaml && p.kind == ProblemKind::PyYamlRefuses)
        {
            let location = Location::primary(problem.span);
            findings.push(Finding::new(Self::NAME, Severity::Error, location, problem.message.clone()));
        }
        for problem in file.document.problems.iter().filter(|p| p.kind == ProblemKind::Syntax) {
            findings.push(Finding::new(
                Self::NAME,
                Severity::Error,
                Location::primary(problem.span),
                format!("not {syntax}: {}", problem.message),
            ));
        }
    }
}

/// The note that a file is a template: nothing else in it was checked.
pub fn template(span: Span, blank: &str, syntax: Syntax) -> Finding {
    let syntax = name(syntax);
    Finding::new(
        YamlParseError::NAME,
        Severity::Note,
        Location::primary(span),
        format!("a template, not {syntax} yet: `{blank}` is filled in before a trainer loads it"),
    )
    .help("check what it becomes; nothing else in it was checked")
}

fn name(syntax: Syntax) -> &'static str {
    match syntax {
        Syntax::Yaml => "YAML",
        Syntax::Toml => "TOML",
        Syntax::Json => "JSON",
    }
}
