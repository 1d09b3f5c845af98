//! Pages that are made from the code are the ones that are kept. `LLMLINT_UPDATE=1` writes them.

mod common;
#[path = "docs/examples.rs"]
mod examples;

use std::fmt::Write as _;

use common::{assert_kept, llmlint, root};
use rayon::prelude::*;

/// The page of a rule, as `docs/rules/NAME.md` holds it.
fn page(info: &llmlint::rules::RuleInfo) -> String {
    format!(
        "# {}\n\n{}. Default: {}.\n\n{}",
        info.name,
        capital(info.summary),
        info.severity.as_str(),
        examples::page_with_outputs(info)
    )
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[test]
fn rule_pages_are_current_and_their_examples_hold() {
    let mut index = String::from(
        "# Rules\n\nThe examples on these pages are run by the tests: what they show is what llmlint prints, and\n\
         after the fix it prints nothing.\n\n| rule | default | what it finds |\n|---|---|---|\n",
    );
    let pages: Vec<String> = llmlint::rules::ALL.par_iter().map(|rule| page(rule.info())).collect();
    for (rule, page) in llmlint::rules::ALL.iter().zip(&pages) {
        let info = rule.info();
        let _ =
            writeln!(index, "| [{0}]({0}.md) | {1} | {2} |", info.name, info.severity.as_str(), info.summary);
        assert_kept(&root().join("docs/rules").join(format!("{}.md", info.name)), page);
    }
    assert_kept(&root().join("docs/rules/README.md"), &index);
}

#[test]
fn rules_are_listed_by_name_once_and_say_what_why_and_how() {
    let names: Vec<_> = llmlint::rules::ALL.iter().map(|r| r.info().name).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted, "rules::ALL is sorted and without repetition");
    for rule in llmlint::rules::ALL {
        let info = rule.info();
        let headings: Vec<_> = info.page.lines().filter(|line| line.starts_with(" ## ")).collect();
        assert_eq!(
            headings,
            [" ## What it does", " ## Why", " ## Example", " ## The fix"],
            "{}: the page's parts",
            info.name
        );
    }
}

/// A schema's type in a few words: its words for an enumeration, else its JSON types.
fn type_of(schema: &serde_json::Value, property: &serde_json::Value) -> String {
    let target =
        property.get("$ref").and_then(|r| r.as_str()).and_then(|r| schema.pointer(r.trim_start_matches('#')));
    let property = target.unwrap_or(property);
    if let Some(list) = property.get("enum").and_then(|e| e.as_array()) {
        return list
            .iter()
            .map(|v| format!("`{}`", v.as_str().unwrap_or_default()))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(word) = property.get("const") {
        return format!("`{}`", word.as_str().unwrap_or_default());
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(list) = property.get(key).and_then(|l| l.as_array()) {
            let parts: Vec<String> = list
                .iter()
                .filter(|part| part.get("type").is_none_or(|t| t != "null"))
                .map(|part| type_of(schema, part))
                .collect();
            return parts.join(", ");
        }
    }
    if let Some(fields) = property.get("properties").and_then(|p| p.as_object()) {
        return format!(
            "table of {}",
            fields.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")
        );
    }
    match property.get("type") {
        Some(serde_json::Value::String(one)) => one.clone(),
        Some(serde_json::Value::Array(list)) => {
            let names: Vec<_> = list.iter().filter_map(|t| t.as_str()).filter(|t| *t != "null").collect();
            names.join(" or ")
        }
        _ => "any".into(),
    }
}

fn table(schema: &serde_json::Value, name: &str, definition: &serde_json::Value, out: &mut String) {
    let text = definition.get("description").and_then(|d| d.as_str()).unwrap_or_default();
    let _ = writeln!(
        out,
        "\n## {name}\n\n{}\n\n| key | value | meaning |\n|---|---|---|",
        text.replace('\n', " ")
    );
    let fields = definition.get("properties").and_then(|p| p.as_object());
    for (key, property) in fields.into_iter().flatten() {
        // Keys without a meaning of their own are aliases and a config.json's.
        if let Some(meaning) = property.get("description").and_then(|d| d.as_str()) {
            let value = type_of(schema, property);
            let _ = writeln!(out, "| `{key}` | {value} | {} |", meaning.replace('\n', " "));
        }
    }
}

#[test]
fn the_native_formats_page_is_current() {
    let schema = llmlint::framework::native::derived_schema();
    let mut text = String::from(
        "<!-- Written by `LLMLINT_UPDATE=1 cargo test --test docs` from the format's types. -->\n\n\
         # The native format\n\n\
         For runs without a framework, for tests, and as the meaning that every other format is\n\
         translated to. YAML, TOML or JSON; `llmlint: 1` at the top marks it. Unknown keys are errors.\n\
         `llmlint schema llmlint` prints the JSON Schema, `fixtures/native` has examples.\n",
    );
    let sections = [
        ("model", "Model"),
        ("training", "Training"),
        ("training.lora", "Lora"),
        ("parallelism", "Parallelism"),
        ("parallelism.offload", "OffloadTable"),
        ("parallelism.zero", "Zero"),
        ("parallelism.fsdp", "Fsdp"),
        ("budget", "Budget"),
    ];
    for (name, definition) in sections {
        let definition = schema.pointer(&format!("/$defs/{definition}")).expect("the schema has it");
        table(&schema, name, definition, &mut text);
    }
    text += "\n`model` also accepts every other key of the architecture's `config.json`, and the names\n\
             `d_model d_ff n_heads n_layers max_seq_len` (and `V h N L`) for the dimensions.\n";
    assert_kept(&root().join("docs/native-format.md"), &text);
}

/// README's output block is what its first command prints.
#[test]
fn readme_shows_real_output() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let command = "fixtures/axolotl/qlora-70b.yml";
    let ran = llmlint(root(), &[command, "--color", "never", "--width", "100"]);
    let output: String = ran.stdout.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let output = without_times(&output);
    let (before, rest) = readme.split_once("<!-- output -->\n```text\n").expect("README has an output block");
    let (_, after) = rest.split_once("```\n<!-- /output -->").expect("README's output block ends");
    assert_kept(
        &root().join("README.md"),
        &format!("{before}<!-- output -->\n```text\n{output}```\n<!-- /output -->{after}"),
    );
}

/// Replaces the footer's wall time, the one thing that differs between runs.
fn without_times(text: &str) -> String {
    text.lines()
        .map(|line| {
            let cut =
                line.rfind(" ms").and_then(|end| line[..end].rfind([' ', '(']).map(|start| (start, end)));
            match cut {
                Some((start, end))
                    if line[start + 1..end].chars().all(|c| c.is_ascii_digit() || c == '.') =>
                {
                    format!("{} 5{}\n", &line[..start], &line[end..])
                }
                _ => format!("{line}\n"),
            }
        })
        .collect()
}
