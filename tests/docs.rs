//! Pages that are made from the code are the ones that are kept. `LLMLINT_UPDATE=1` writes them.

mod common;

use std::fmt::Write as _;

use common::{assert_kept, llmlint, root};

/// The page of a rule, as `docs/rules/NAME.md` holds it.
fn page(info: &llmlint::rules::RuleInfo) -> String {
    let mut text =
        format!("# {}\n\n{}. Default: {}.\n\n", info.name, capital(info.summary), info.severity.as_str());
    for line in info.page.lines() {
        // A doc comment keeps the space after its slashes.
        let _ = writeln!(text, "{}", line.strip_prefix(' ').unwrap_or(line));
    }
    text
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[test]
fn rule_pages_are_current() {
    let mut index = String::from("# Rules\n\n| rule | default | what it finds |\n|---|---|---|\n");
    for rule in llmlint::rules::ALL {
        let info = rule.info();
        let _ =
            writeln!(index, "| [{0}]({0}.md) | {1} | {2} |", info.name, info.severity.as_str(), info.summary);
        assert_kept(&root().join("docs/rules").join(format!("{}.md", info.name)), &page(info));
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
        for heading in ["## What it does", "## Why", "## Example"] {
            assert!(info.page.contains(heading), "{}: the page has no `{heading}`", info.name);
        }
    }
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
