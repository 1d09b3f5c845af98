//! Comments that speak to llmlint: `# llmlint: ignore[rule] reason`, `# llmlint: ignore-file[rule]`
//! and `# llmlint: gpu=H100-80GB gpus=8`.

use crate::document::{Comment, Document};
use crate::finding::{Finding, Severity};
use crate::settings::BudgetTable;
use crate::source::{Location, Source, Span};

/// The rule that reports comments which silence nothing.
pub const UNUSED: &str = "unused-suppression";

/// One `ignore` comment.
#[derive(Debug)]
struct Ignore {
    rules: Vec<(String, Span)>,
    /// Lines (from 0) it covers; `None`: the whole file.
    line: Option<usize>,
    used: Vec<bool>,
}

/// What is left after comments have had their say.
#[derive(Debug, Default)]
pub struct Settled {
    /// Findings that no comment silences, and one for each name that silences nothing.
    pub kept: Vec<Finding>,
    /// How many were silenced.
    pub suppressed: usize,
}

/// The text after `llmlint:`, and where it starts.
fn directive<'c>(comment: &'c Comment, source: &'c Source) -> Option<(&'c str, usize)> {
    let whole = source.slice(comment.span);
    let at = whole.find("llmlint:")?;
    // Only the marker may stand before it: a sentence that mentions llmlint is no directive.
    if !whole[..at].chars().all(|c| matches!(c, '#' | '/' | ' ' | '\t')) {
        return None;
    }
    let body = at + "llmlint:".len();
    Some((&whole[body..], comment.span.start as usize + body))
}

/// The line (from 0) that a comment speaks of: its own when something stands before it, else
/// the next line that is neither blank nor a comment.
fn subject(comment: &Comment, source: &Source) -> usize {
    let own = source.line_index(comment.span.start);
    let before = source.text.get(source.line_span(own).start as usize..comment.span.start as usize);
    if before.is_some_and(|text| !text.trim().is_empty()) {
        return own;
    }
    (own + 1..source.line_count())
        .find(|line| {
            let text = source.slice(source.line_span(*line)).trim();
            !text.is_empty() && !text.starts_with('#')
        })
        .unwrap_or(own)
}

fn ignores(document: &Document, source: &Source) -> Vec<Ignore> {
    let mut found = Vec::new();
    for comment in &document.comments {
        let Some((body, offset)) = directive(comment, source) else { continue };
        let trimmed = body.trim_start();
        let offset = offset + (body.len() - trimmed.len());
        let (rest, line) = if let Some(rest) = trimmed.strip_prefix("ignore-file[") {
            (rest, None)
        } else if let Some(rest) = trimmed.strip_prefix("ignore[") {
            (rest, Some(subject(comment, source)))
        } else {
            continue;
        };
        let Some((list, _reason)) = rest.split_once(']') else { continue };
        let start = offset + (trimmed.len() - rest.len());
        let mut at = start;
        let mut rules = Vec::new();
        for part in list.split(',') {
            let name = part.trim();
            let lead = part.len() - part.trim_start().len();
            if !name.is_empty() {
                rules.push((name.to_owned(), Span::new(at + lead, at + lead + name.len())));
            }
            at += part.len() + 1;
        }
        let used = vec![false; rules.len()];
        found.push(Ignore { rules, line, used });
    }
    found
}

/// Takes silenced findings out, and reports names that silence nothing or that are no rule.
pub fn settle(findings: Vec<Finding>, document: &Document, source: &Source) -> Settled {
    let mut ignores = ignores(document, source);
    let mut settled = Settled::default();
    for finding in findings {
        let location = finding.primary.location;
        let line = source.line_index(location.span.start);
        let mut silenced = false;
        // A finding in a referenced file is not this file's to silence by line.
        let own = location.source.0 == 0;
        for ignore in &mut ignores {
            if ignore.line.is_some_and(|covered| !own || covered != line) {
                continue;
            }
            for (index, (rule, _)) in ignore.rules.iter().enumerate() {
                if rule == finding.rule {
                    ignore.used[index] = true;
                    silenced = true;
                }
            }
        }
        if silenced {
            settled.suppressed += 1;
        } else {
            settled.kept.push(finding);
        }
    }
    for ignore in &ignores {
        for ((rule, span), used) in ignore.rules.iter().zip(&ignore.used) {
            if *used {
                continue;
            }
            let location = Location::primary(*span);
            let finding = match crate::settings::rule_exists(rule) {
                Ok(()) => Finding::new(
                    UNUSED,
                    Severity::Warning,
                    location,
                    format!("this comment silences no finding of `{rule}`"),
                )
                .help("delete it, so that a later finding is not silenced by accident"),
                Err(why) => Finding::new(UNUSED, Severity::Warning, location, why),
            };
            settled.kept.push(finding);
        }
    }
    settled
}

/// The budget that a comment declares: `# llmlint: gpu=H100-80GB gpus=8 budget=79GiB`, and what
/// is wrong with its words.
pub fn inline_budget(document: &Document, source: &Source) -> (Option<(BudgetTable, Span)>, Vec<Finding>) {
    let mut table = BudgetTable::default();
    let mut place = None;
    let mut findings = Vec::new();
    for comment in &document.comments {
        let Some((body, offset)) = directive(comment, source) else { continue };
        if !body.contains('=') || body.trim_start().starts_with("ignore") {
            continue;
        }
        let mut at = 0;
        for word in body.split_whitespace() {
            let start = at + body[at..].find(word).unwrap_or(0);
            at = start + word.len();
            let span = Span::new(offset + start, offset + start + word.len());
            let wrong =
                |why: String| Finding::new("inline-budget", Severity::Warning, Location::primary(span), why);
            let Some((key, value)) = word.split_once('=') else {
                findings.push(wrong(format!("`{word}` is not key=value")));
                continue;
            };
            match key {
                "gpu" => table.gpu = Some(value.to_owned()),
                "gpus" => match value.parse().ok().filter(|n| *n > 0) {
                    Some(gpus) => table.gpus = Some(gpus),
                    None => findings.push(wrong(format!("`{value}` is not a number of GPUs"))),
                },
                "budget" | "memory" => table.memory = Some(value.to_owned()),
                "host-memory" | "host_memory" => table.host_memory = Some(value.to_owned()),
                _ => {
                    let known = ["gpu", "gpus", "budget", "host-memory"];
                    let near = crate::settings::did_you_mean(key, known.into_iter());
                    findings.push(wrong(format!("`{key}` is not known in an llmlint comment{near}")));
                    continue;
                }
            }
            place.get_or_insert(span);
        }
    }
    (place.map(|span| (table, span)), findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Syntax;

    fn settled(text: &str, at: &str) -> Settled {
        let source = Source::new("a.yaml", text);
        let document = Document::parse(&source, Syntax::Yaml);
        let start = text.find(at).unwrap_or_default();
        let finding = Finding::new(
            "unknown-key",
            Severity::Warning,
            Location::primary(Span::new(start, start + at.len())),
            "unknown key",
        );
        settle(vec![finding], &document, &source)
    }

    #[test]
    fn a_comment_silences_its_line_or_the_next() {
        for text in [
            "a: 1\nb: 2 # llmlint: ignore[unknown-key] ours\n",
            "a: 1\n# llmlint: ignore[unknown-key]\n\n# x\nb: 2\n",
        ] {
            let settled = settled(text, "b");
            assert_eq!((settled.kept.len(), settled.suppressed), (0, 1), "{text}");
        }
        let elsewhere = settled("a: 1 # llmlint: ignore[unknown-key]\nb: 2\n", "b");
        assert_eq!((elsewhere.kept.len(), elsewhere.suppressed), (2, 0), "the comment is then unused");
    }

    #[test]
    fn a_file_comment_silences_everywhere_and_a_wrong_name_is_reported() {
        assert_eq!(settled("# llmlint: ignore-file[unknown-key]\na: 1\nb: 2\n", "b").suppressed, 1);
        let wrong = settled("b: 2 # llmlint: ignore[unknown-kye]\n", "b");
        assert!(
            wrong.kept.iter().any(|f| f.rule == UNUSED && f.message.contains("did you mean `unknown-key`"))
        );
        assert_eq!(settled("# we use llmlint: ignore[unknown-key]\nb: 2\n", "b").suppressed, 0);
    }

    #[test]
    fn an_inline_budget_is_read_and_its_slips_are_reported() {
        let source = Source::new("a.yaml", "# llmlint: gpu=H100-80GB gpsu=8 gpus=4\na: 1\n");
        let document = Document::parse(&source, Syntax::Yaml);
        let (budget, findings) = inline_budget(&document, &source);
        let (table, span) = budget.expect("declared");
        assert_eq!((table.gpu.as_deref(), table.gpus), (Some("H100-80GB"), Some(4)));
        assert_eq!(source.slice(span), "gpu=H100-80GB");
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains("did you mean `gpus`"));
    }
}
