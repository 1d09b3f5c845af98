//! Megabytes a second of the readers, beside serde_yaml and the parser alone.
//!
//! `LLMLINT_SHARED` names real files; without it the fixtures are read.

use std::path::{Path, PathBuf};

use divan::Bencher;
use divan::counter::BytesCount;
use llmlint::document::{Dialect, Document, Syntax};
use llmlint::source::Source;

fn main() {
    divan::main();
}

fn files(endings: &[&str]) -> Vec<String> {
    let root = std::env::var_os("LLMLINT_SHARED")
        .map(|shared| PathBuf::from(shared).join("corpus/configs"))
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"));
    let mut texts = Vec::new();
    let mut stack = vec![root];
    while let Some(next) = stack.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                stack.push(path);
            } else if path.extension().is_some_and(|e| endings.iter().any(|wanted| e == *wanted)) {
                texts.extend(std::fs::read_to_string(&path));
            }
        }
    }
    texts
}

fn bytes(texts: &[String]) -> BytesCount {
    BytesCount::new(texts.iter().map(String::len).sum::<usize>())
}

fn sources(endings: &[&str], name: &str) -> (Vec<std::sync::Arc<Source>>, BytesCount) {
    let texts = files(endings);
    let count = bytes(&texts);
    (texts.into_iter().map(|text| Source::new(name, text)).collect(), count)
}

#[divan::bench]
fn yaml_tree(bencher: Bencher<'_, '_>) {
    let (sources, count) = sources(&["yaml", "yml"], "a.yaml");
    bencher
        .counter(count)
        .bench(|| sources.iter().map(|s| Document::parse(s, Syntax::Yaml).len()).sum::<usize>());
}

#[divan::bench]
fn yaml_tree_and_json_view(bencher: Bencher<'_, '_>) {
    let (sources, count) = sources(&["yaml", "yml"], "a.yaml");
    bencher.counter(count).bench(|| {
        let view = |s: &std::sync::Arc<Source>| {
            Document::parse(s, Syntax::Yaml).root(Dialect::PyYaml).and_then(|root| root.to_json()).is_some()
        };
        sources.iter().filter(|s| view(s)).count()
    });
}

#[divan::bench]
fn yaml_parser_alone(bencher: Bencher<'_, '_>) {
    let texts = files(&["yaml", "yml"]);
    bencher.counter(bytes(&texts)).bench(|| {
        let events = |text: &String| {
            let mut parser = granit_parser::Parser::new_from_str(text);
            std::iter::from_fn(|| parser.next_event()).take_while(Result::is_ok).count()
        };
        texts.iter().map(events).sum::<usize>()
    });
}

#[divan::bench]
fn yaml_serde(bencher: Bencher<'_, '_>) {
    let texts = files(&["yaml", "yml"]);
    bencher
        .counter(bytes(&texts))
        .bench(|| texts.iter().filter(|t| serde_yaml::from_str::<serde_yaml::Value>(t).is_ok()).count());
}

#[divan::bench]
fn toml_tree(bencher: Bencher<'_, '_>) {
    let (sources, count) = sources(&["toml"], "a.toml");
    bencher
        .counter(count)
        .bench(|| sources.iter().map(|s| Document::parse(s, Syntax::Toml).len()).sum::<usize>());
}

#[divan::bench]
fn json_tree(bencher: Bencher<'_, '_>) {
    let (sources, count) = sources(&["json"], "a.json");
    bencher
        .counter(count)
        .bench(|| sources.iter().map(|s| Document::parse(s, Syntax::Json).len()).sum::<usize>());
}
