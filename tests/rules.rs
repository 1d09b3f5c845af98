//! Every rule against its own small files: `fixtures/rules/NAME/bad*.EXT` is reported as
//! `bad*.expected` says, `ok*.EXT` is not. `LLMLINT_UPDATE=1` writes what is expected.

mod common;

use std::path::PathBuf;

use common::{assert_kept, llmlint, root};

fn fixtures(rule: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("fixtures/rules").join(rule))
        .map(|entries| entries.flatten().map(|e| e.path()).collect())
        .unwrap_or_default();
    files.retain(|path| path.extension().is_some_and(|e| e != "expected") && path.is_file());
    files.sort();
    files
}

#[test]
fn each_rule_finds_its_bad_files_and_leaves_its_good_ones() {
    let mut without = Vec::new();
    for rule in llmlint::rules::ALL {
        let name = rule.info().name;
        let files = fixtures(name);
        let is = |path: &PathBuf, kind: &str| {
            path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(kind))
        };
        if !files.iter().any(|f| is(f, "bad")) {
            without.push(name);
        }
        for file in &files {
            let relative = file.strip_prefix(root()).expect("inside").to_string_lossy().replace('\\', "/");
            let ran =
                llmlint(root(), &["check", &relative, "--select", name, "--format", "concise", "--quiet"]);
            if is(file, "bad") {
                assert!(
                    ran.stdout.contains(name),
                    "{name}: nothing found in {relative}\n{}{}",
                    ran.stdout,
                    ran.stderr
                );
                assert_kept(&file.with_extension("expected"), &ran.stdout);
            } else if is(file, "ok") {
                assert!(!ran.stdout.contains(name), "{name}: false alarm in {relative}\n{}", ran.stdout);
            }
        }
    }
    assert!(without.is_empty(), "rules without fixtures/rules/NAME/bad.EXT: {}", without.join(", "));
}
