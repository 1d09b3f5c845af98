//! The changes that `check` and `fit` offer, carried out on every fixture and, where they are,
//! on real files: each edited file still parses, has no mistake it did not have, and needs what
//! was promised.
#![allow(clippy::expect_used, missing_docs, reason = "a test")]

mod common;

use std::path::{Path, PathBuf};

use common::{root, shared};
use llmlint::check::{Context, FileReport, Rewrite, Verdict, check_bytes};
use llmlint::document::{Document, Syntax};
use llmlint::finding::Severity;
use llmlint::fit::{Search, Suggestion};
use llmlint::settings::BudgetTable;
use llmlint::{fix, framework};
use rayon::prelude::*;

fn context(folder: &Path, budget: Option<String>) -> Context {
    let command_line = BudgetTable { gpus: Some(8), memory: budget, ..BudgetTable::default() };
    Context { working_directory: folder.to_owned(), command_line, ..Context::default() }
}

/// The file under a budget of a share of its peak.
fn over(folder: &Path, path: &str, text: &str, share: f64) -> Option<(FileReport, Context)> {
    let syntax = Syntax::of_path(path)?;
    let peak =
        check_bytes(path, text.as_bytes().to_vec(), syntax, true, &context(folder, None))?.estimate?.device;
    let context = context(folder, Some(format!("{}", (peak * share).0)));
    let file = check_bytes(path, text.as_bytes().to_vec(), syntax, true, &context)?;
    (file.verdict == Verdict::Exceeds).then_some((file, context))
}

/// Both lists of one file: `check`'s and `fit`'s.
fn offers(file: &FileReport, context: &Context) -> (Vec<Suggestion>, Vec<Suggestion>) {
    let source = &file.sources[0];
    let syntax = Syntax::of_path(&file.path).expect("known");
    let document = Document::parse(source, syntax);
    let framework = file.framework.and_then(framework::by_name).expect("recognised");
    let rewrite = Rewrite::new(&file.path, &source.text, syntax, context);
    let again = |text: String| rewrite.estimate(text);
    let search = Search {
        run: file.run.as_ref().expect("a run"),
        architecture: file.architecture.as_ref().expect("a model"),
        budget: file.budget.as_ref().expect("a budget"),
        framework,
        source,
        root: document.root(framework.dialect(syntax)).expect("it parses"),
        again: &again,
    };
    (search.suggestions(), search.front())
}

fn mistakes(file: &FileReport) -> Vec<(&'static str, String)> {
    let about_memory = ["over-budget", "tight-fit", "host-over-budget"];
    file.findings
        .iter()
        .filter(|f| f.severity == Severity::Error && !about_memory.contains(&f.rule))
        .map(|f| (f.rule, f.message.clone()))
        .collect()
}

/// Everything that is offered for a file is carried out; gives the number of edits tried, and
/// adds what is wrong with them.
fn carried_out(folder: &Path, path: &str, text: &str, share: f64, wrong: &mut Vec<String>) -> usize {
    let Some((file, context)) = over(folder, path, text, share) else { return 0 };
    let (suggestions, front) = offers(&file, &context);
    if suggestions.iter().any(|s| s.verdict != Verdict::Fits) {
        wrong.push(format!("{path}: `check` suggests what does not fit"));
    }
    if !suggestions.is_empty() && front.iter().all(|s| s.verdict != Verdict::Fits) {
        wrong.push(format!("{path}: `fit` knows no way and `check` does"));
    }
    let known = mistakes(&file);
    let mut tried = 0;
    for offer in suggestions.iter().chain(&front).filter(|offer| offer.is_writable()) {
        let title = offer.title();
        let edits = offer.edits.as_deref().unwrap_or_default();
        let Some(now) = fix::apply_verified(path, text, edits) else {
            wrong.push(format!("{path}: {title}: the edits do not combine"));
            continue;
        };
        if let Some(gone) =
            text.lines().find(|line| line.trim_start().starts_with('#') && !now.contains(line))
        {
            wrong.push(format!("{path}: {title}: the comment `{gone}` is gone"));
        }
        let syntax = Syntax::of_path(path).expect("known");
        let after = check_bytes(path, now.into_bytes(), syntax, true, &context).expect("recognised");
        let new = mistakes(&after).into_iter().filter(|mistake| !known.contains(mistake));
        wrong.extend(new.map(|mistake| format!("{path}: {title}: {mistake:?}")));
        if after.estimate.map(|estimate| estimate.device) != Some(offer.estimate.device) {
            wrong.push(format!("{path}: {title}: the file needs something else than was promised"));
        }
        tried += 1;
    }
    tried
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("readable").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Every file below `folder`, with its path relative to `from`.
fn texts(from: &Path, folder: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    files_below(&from.join(folder), &mut files);
    let shown = |path: &Path| path.strip_prefix(from).unwrap_or(path).to_string_lossy().replace('\\', "/");
    files.iter().filter_map(|path| Some((shown(path), std::fs::read_to_string(path).ok()?))).collect()
}

#[test]
fn every_offer_is_carried_out_as_promised() {
    let fixtures = texts(root(), "fixtures");
    let tried: Vec<(&str, usize, Vec<String>)> = fixtures
        .par_iter()
        .filter(|(path, _)| !path.contains("/rules/"))
        .map(|(path, text)| {
            let mut wrong = Vec::new();
            let tried = [0.85, 0.5].map(|share| carried_out(root(), path, text, share, &mut wrong));
            (path.split('/').nth(1).unwrap_or_default(), tried.iter().sum(), wrong)
        })
        .collect();
    let mut frameworks: Vec<&str> = tried.iter().filter(|(_, n, _)| *n > 0).map(|(name, ..)| *name).collect();
    let wrong: Vec<String> = tried.iter().flat_map(|(.., wrong)| wrong.clone()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    frameworks.dedup();
    assert_eq!(
        frameworks,
        [
            "autotrain",
            "axolotl",
            "gpt-neox",
            "litgpt",
            "llama-factory",
            "llama-factory-v1",
            "llm-foundry",
            "native",
            "open-instruct",
            "torchtitan",
            "torchtune",
            "trl"
        ],
        "every supported framework has changes of its own"
    );
}

/// All real files take minutes: a sample of every framework.
const EVERY: usize = 40;

#[test]
fn offers_hold_on_real_files() {
    let Some(shared) = shared() else { return };
    let from = shared.join("corpus");
    let every = std::env::var("LLMLINT_EVERY").ok().and_then(|n| n.parse().ok()).unwrap_or(EVERY);
    let mut wrong = Vec::new();
    let tried: usize = texts(&from, "configs")
        .iter()
        .step_by(every)
        .map(|(path, text)| carried_out(&from, path, text, 0.6, &mut wrong))
        .sum();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(tried > 20, "{tried}");
}
