//! Files that do not parse: templates, mistakes in training configs, and everything else.

use crate::document::{Document, ProblemKind, Syntax};
use crate::source::{Source, Span};

/// Text that a program fills in before anybody loads it: where the first blank stands, and what
/// it says. `None` where the file reads as it is, or does not read with every blank filled in.
pub(super) fn template(source: &Source, document: &Document) -> Option<(Span, String)> {
    let twice =
        |span: Span| source.text.get(..span.range().start).is_some_and(|before| before.ends_with('{'));
    let unread = document.problems.iter().find(|p| match p.kind {
        ProblemKind::Syntax => true,
        // `key: {{ value }}` is a mapping as a key to YAML, which no loader takes.
        ProblemKind::PyYamlRefuses => p.message.starts_with("a mapping") && twice(p.span),
        _ => false,
    });
    let error = unread?.span.range().start;
    let blanks = blanks(&source.text, document.syntax);
    let first = blanks.iter().min_by_key(|blank| blank.range.start.abs_diff(error))?.clone();
    let mut filled = source.text.clone().into_bytes();
    for blank in &blanks {
        let bytes = filled.get_mut(blank.range.clone())?;
        bytes.iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        if let Some(start) = bytes.first_mut().filter(|_| blank.value) {
            *start = b'0';
        }
    }
    let filled = Source::new(source.path.clone(), String::from_utf8(filled).ok()?);
    let again = Document::parse(&filled, document.syntax);
    let reads = !again.problems.iter().any(|p| p.kind == ProblemKind::Syntax);
    // Loops and conditions are not filled in but run: what they leave is not known. In a chat
    // template they stand inside a value, and not on lines of their own.
    let programmed =
        source.text.lines().map(str::trim_start).any(|l| l.starts_with("{%") || l.starts_with("{{-"));
    let text = source.text.get(first.range.clone())?.lines().next()?.chars().take(40).collect();
    (reads || programmed).then(|| (Span::new(first.range.start, first.range.end), text))
}

#[derive(Clone)]
struct Blank {
    range: std::ops::Range<usize>,
    /// It stands for a value; else it is a template's own command.
    value: bool,
}

/// `${stage}`, `{{ model }}`, `{% if %}`, and in JSON, where a value is bare, `<STAGE>` and a word
/// in capitals (`"train_batch_size": GB_SIZE`).
fn blanks(text: &str, syntax: Syntax) -> Vec<Blank> {
    let mut found: Vec<Blank> = Vec::new();
    for (open, close) in [("${", "}"), ("{{", "}}"), ("{%", "%}")] {
        let mut at = 0;
        while let Some(start) = text.get(at..).and_then(|rest| rest.find(open)).map(|n| at + n) {
            let Some(end) =
                text.get(start..).and_then(|rest| rest.find(close)).map(|n| start + n + close.len())
            else {
                break;
            };
            let line = text.get(..start).map_or("", |before| before.rsplit('\n').next().unwrap_or_default());
            let alone = line.trim().is_empty() && rest_of_line(text, end).trim().is_empty();
            found.push(Blank { range: start..end, value: open != "{%" && !alone });
            at = end;
        }
    }
    if syntax == Syntax::Json {
        let mut offset = 0;
        for line in text.split_inclusive('\n') {
            for (colon, _) in line.match_indices("\":").chain(line.match_indices("\" :")) {
                let after =
                    line.get(colon..).and_then(|rest| rest.find(':')).map_or(colon, |n| colon + n + 1);
                let rest = line.get(after..).unwrap_or_default();
                let start = after + (rest.len() - rest.trim_start().len());
                let word = line.get(start..).unwrap_or_default().split([',', '}', '\n', '\r']).next();
                if let Some(word) = word.map(str::trim_end).filter(|word| is_bare(word)) {
                    found.push(Blank { range: offset + start..offset + start + word.len(), value: true });
                }
            }
            offset += line.len();
        }
    }
    found.sort_by_key(|blank| blank.range.start);
    found
}

fn rest_of_line(text: &str, at: usize) -> &str {
    text.get(at..).and_then(|rest| rest.split('\n').next()).unwrap_or_default()
}

fn is_bare(word: &str) -> bool {
    let capitals = word.bytes().filter(u8::is_ascii_uppercase).count() > 1
        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && !matches!(word, "TRUE" | "FALSE" | "NULL" | "NONE" | "NAN" | "INF" | "NaN");
    capitals || (word.len() > 2 && word.starts_with('<') && word.ends_with('>'))
}

/// How many well-known keys of training configs stand at line starts. A file that does not parse
/// cannot be recognised by its keys; a training config that lost a quote should still be reported.
pub(super) fn training_keys(text: &str) -> usize {
    const KEYS: [&str; 43] = [
        "base_model",
        "model_name_or_path",
        "micro_batch_size",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "sequence_len",
        "cutoff_len",
        "num_epochs",
        "num_train_epochs",
        "lora_r",
        "bf16",
        "fp16",
        "optimizer",
        "deepspeed",
        "pipe_parallel_size",
        "pipe-parallel-size",
        "num_layers",
        "num-layers",
        "hidden_size",
        "hidden-size",
        "seq_length",
        "seq-length",
        "local_batch_size",
        "global_batch_size",
        "flavor",
        "enable_activation_checkpointing",
        "max_seq_len",
        "max_seq_length",
        "lora_rank",
        "global_train_batch_size",
        "device_train_microbatch_size",
        "max_duration",
        "zero_optimization",
        "train_batch_size",
        "train_micro_batch_size_per_gpu",
        "gradient_clipping",
        "distributed_type",
        "mixed_precision",
        "finetuning_type",
        "gradient_checkpointing",
        "checkpoint_dir",
        "llmlint",
    ];
    let starts = text
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '"', '\'', '{']).split([':', '=', '"', ' ']).next());
    let mut seen: Vec<&str> = starts.filter(|word| KEYS.contains(word)).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(path: &str, text: &str) -> Option<String> {
        let source = Source::new(path, text.to_owned());
        let document = Document::parse(&source, Syntax::of_path(path)?);
        template(&source, &document).map(|(_, text)| text)
    }

    #[test]
    fn templates_are_told_from_mistakes() {
        assert_eq!(blank("a.json", "{\"stage\": ${stage}}").as_deref(), Some("${stage}"));
        assert_eq!(blank("a.json", "{\"a\" : GB_SIZE,\n\"b\": MB_SIZE}").as_deref(), Some("GB_SIZE"));
        assert_eq!(blank("a.json", "{\"lr\": <LR>}").as_deref(), Some("<LR>"));
        assert_eq!(blank("a.yaml", "a: {{ model }}\nb: 1\n").as_deref(), Some("{{ model }}"));
        assert_eq!(blank("a.yaml", "{% if x %}\na: {{ m }}\n{% endif %}\n").as_deref(), Some("{% if x %}"));
        // Wrong with every blank filled in, and right as it is.
        assert_eq!(blank("a.json", "{\"a\": GB_SIZE \"b\": 1}"), None);
        assert_eq!(blank("a.yaml", "a: \"b\nc: ${d}\n"), None);
        assert_eq!(blank("a.yaml", "a: ${b}\n"), None);
        assert_eq!(blank("a.yaml", "a: *b\n# chat_template: \"{% for m in messages %}\"\n"), None);
        assert_eq!(blank("a.json", "{\"a\": NaN}"), None);
        assert_eq!(blank("a.json", "{\"a\": True, \"b\": TRUE}"), None);
        assert_eq!(blank("a.json", "{\"a\": CL_1st_MIN}").as_deref(), Some("CL_1st_MIN"));
    }
}
