//! Documents are read as their loaders read them: tables of scalars, independent readers over
//! every file at hand, the real PyYAML where there is one, and properties of spans and edits.

#![allow(clippy::print_stdout, reason = "counts are read with --nocapture")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{root, shared};
use llmlint::document::{Dialect, Document, Problem, ProblemKind, Scalar, Style, Syntax, Value, pyyaml};
use llmlint::source::Source;
use serde_json::Value as Json;

/// What each loader makes of a plain scalar: PyYAML 6.0.3, OmegaConf 2.3.1, YAML 1.2 (ruamel).
#[test]
fn plain_scalars_are_what_their_loader_makes_of_them() {
    use Scalar::{Bool, DateTime, Float, Int, Null};
    let s = |text: &str| Scalar::Str(text.into());
    let rows: Vec<(&str, Scalar, Scalar, Scalar)> = vec![
        ("1e-5", s("1e-5"), Float(1e-5), Float(1e-5)),
        ("1E-5", s("1E-5"), Float(1e-5), Float(1e-5)),
        ("1e5", s("1e5"), Float(1e5), Float(1e5)),
        ("1.0e5", s("1.0e5"), Float(1e5), Float(1e5)),
        ("1.e-5", Float(1e-5), Float(1e-5), Float(1e-5)),
        ("1.0e-5", Float(1e-5), Float(1e-5), Float(1e-5)),
        ("1.0e+5", Float(1e5), Float(1e5), Float(1e5)),
        (".5", Float(0.5), Float(0.5), Float(0.5)),
        ("010", Int(8), Int(8), Int(10)),
        ("0o10", s("0o10"), s("0o10"), Int(8)),
        ("0b11", Int(3), Int(3), s("0b11")),
        ("0x1F", Int(31), Int(31), Int(31)),
        ("1:30", Int(90), Int(90), s("1:30")),
        ("12:30:45", Int(45045), Int(45045), s("12:30:45")),
        ("yes", Bool(true), Bool(true), s("yes")),
        ("On", Bool(true), Bool(true), s("On")),
        ("NO", Bool(false), Bool(false), s("NO")),
        ("y", s("y"), s("y"), s("y")),
        ("n", s("n"), s("n"), s("n")),
        ("None", s("None"), s("None"), s("None")),
        ("~", Null, Null, Null),
        ("null", Null, Null, Null),
        ("inf", s("inf"), s("inf"), s("inf")),
        ("nan", s("nan"), s("nan"), s("nan")),
        (".inf", Float(f64::INFINITY), Float(f64::INFINITY), Float(f64::INFINITY)),
        ("2024-01-01", DateTime("2024-01-01".into()), s("2024-01-01"), s("2024-01-01")),
        ("1,000", s("1,000"), s("1,000"), s("1,000")),
        ("4_096", Int(4096), Int(4096), s("4_096")),
        ("-7", Int(-7), Int(-7), Int(-7)),
        ("+7", Int(7), Int(7), Int(7)),
        ("1.5", Float(1.5), Float(1.5), Float(1.5)),
        ("v1.5", s("v1.5"), s("v1.5"), s("v1.5")),
    ];
    for (text, py, omega, core) in rows {
        for (dialect, wanted) in [(Dialect::PyYaml, py), (Dialect::OmegaConf, omega), (Dialect::Core12, core)]
        {
            assert_eq!(
                pyyaml::resolve(text, Style::Plain, None, dialect),
                wanted,
                "`{text}` under {dialect:?}"
            );
        }
        assert_eq!(pyyaml::resolve(text, Style::Quoted, None, Dialect::PyYaml), s(text), "quoted `{text}`");
    }
    assert_eq!(pyyaml::resolve("1e-4", Style::Plain, None, Dialect::JsonArgparse), Float(1e-4));
    assert_eq!(pyyaml::resolve("2024-01-01", Style::Plain, None, Dialect::JsonArgparse), s("2024-01-01"));
}

#[test]
fn merge_keys_and_aliases_are_applied_in_the_view() {
    let text = "base: &b { a: 1, b: 2 }\nrun:\n  <<: *b\n  b: 3\nlist:\n  <<: [*b, { c: 4 }]\nagain: *b\n";
    let document = Document::parse(&Source::new("a.yaml", text), Syntax::Yaml);
    let value = document.root(Dialect::PyYaml).and_then(|r| r.to_json()).expect("reads");
    assert_eq!(value["run"], serde_json::json!({ "a": 1, "b": 3 }));
    assert_eq!(value["list"]["c"], 4);
    assert_eq!(value["again"]["b"], 2);
}

#[test]
fn an_alias_bomb_ends_at_the_budget() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", "));
    }
    let document = Document::parse(&Source::new("a.yaml", text), Syntax::Yaml);
    assert_eq!(
        document.root(Dialect::PyYaml).and_then(|r| r.to_json()),
        None,
        "nine to the twelfth is over the budget"
    );
}

fn files_below(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut stack = vec![folder.to_owned()];
    while let Some(next) = stack.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                stack.push(path);
            } else if path.extension().is_some_and(|e| endings.iter().any(|wanted| e == *wanted)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn every_file(endings: &[&str]) -> Vec<PathBuf> {
    let mut files = files_below(&root().join("fixtures"), endings);
    if let Some(shared) = shared() {
        files.extend(files_below(&shared.join("corpus"), endings));
    }
    files
}

fn read(path: &Path, syntax: Syntax) -> Option<(std::sync::Arc<Source>, Document)> {
    let source = Source::new(path.to_string_lossy(), std::fs::read_to_string(path).ok()?);
    let document = Document::parse(&source, syntax);
    Some((source, document))
}

/// Numbers that are equal, however they are kept.
fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

#[test]
fn yaml_agrees_with_an_independent_reader() {
    let (mut agree, mut refused, mut unlike) = (0, 0, Vec::new());
    for path in every_file(&["yaml", "yml"]) {
        let Some((source, document)) = read(&path, Syntax::Yaml) else { continue };
        let multiple = document.problems.iter().any(|p| p.kind == ProblemKind::MultipleDocuments);
        let duplicate = document.problems.iter().any(|p| p.kind == ProblemKind::DuplicateKey);
        let ours = document.root(Dialect::Core12).map(|root| root.to_json());
        let theirs = serde_yaml::from_str::<serde_yaml::Value>(&source.text).and_then(|mut value| {
            value.apply_merge()?;
            Ok(value)
        });
        match (ours, theirs) {
            (_, Err(_)) if document.is_broken() || multiple || duplicate => refused += 1,
            (Some(Some(ours)), Ok(theirs)) => match serde_json::to_value(&theirs) {
                Ok(theirs) if same(&ours, &theirs) => agree += 1,
                // Keys that are no text (`1:`), tags and NaN have no JSON form there.
                Err(_) => refused += 1,
                Ok(theirs) => unlike.push((path, first_difference(&ours, &theirs))),
            },
            (None, Ok(theirs)) if theirs.is_null() => agree += 1,
            (ours, theirs) => {
                unlike.push((path, format!("ours {}, theirs {:?}", ours.is_some(), theirs.err())));
            }
        }
    }
    println!(
        "YAML: {agree} files agree, {refused} refused by both or without a JSON form, {} differ",
        unlike.len()
    );
    let unexplained: Vec<_> = unlike.iter().filter(|(_, why)| !explained(why)).collect();
    for (path, why) in &unlike {
        println!("  {}: {why}", path.display());
    }
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

/// Differences between the two readers that are differences of what YAML they read, not errors.
fn explained(why: &str) -> bool {
    // Tagged values are an enum variant there and the bare value here.
    why.contains("tag")
        // YAML 1.2's core schema has no binary numbers and reads `0777` as 777; that reader
        // keeps 1.1's forms for some.
        || why.contains("number form")
        // A mapping key that is no string is dropped from our JSON view.
        || why.contains("key form")
        // The other reader refuses what PyYAML and the trainers accept.
        || why.starts_with("ours true")
}

fn first_difference(ours: &Json, theirs: &Json) -> String {
    match (ours, theirs) {
        (Json::Object(a), Json::Object(b)) => {
            for (key, value) in a {
                match b.get(key) {
                    None => return format!("key form: `{key}` only here"),
                    Some(other) if !same(value, other) => return first_difference(value, other),
                    _ => {}
                }
            }
            "key form: a key only there".into()
        }
        (Json::Array(a), Json::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .find(|(a, b)| !same(a, b))
            .map_or_else(String::new, |(a, b)| first_difference(a, b)),
        (a, Json::Object(b)) if b.len() == 1 && !a.is_object() => format!("tag: {b:?}"),
        (Json::String(a), Json::Number(b)) => format!("number form: text `{a}` here, {b} there"),
        (Json::Number(a), Json::String(b)) => format!("number form: {a} here, text `{b}` there"),
        (Json::Number(a), Json::Number(b)) => format!("number form: {a} here, {b} there"),
        _ => format!("{ours} here, {theirs} there"),
    }
}

#[test]
fn toml_and_json_agree_with_independent_readers() {
    let mut counts = [0; 4];
    for path in every_file(&["toml"]) {
        let Some((source, document)) = read(&path, Syntax::Toml) else { continue };
        match toml::from_str::<toml::Table>(&source.text) {
            Err(_) => assert!(document.is_broken(), "{}: only the other reader refuses it", path.display()),
            Ok(theirs) => {
                let ours = document.root(Dialect::Toml).and_then(|root| root.to_json()).unwrap_or_default();
                let theirs = without_dates(toml::Value::Table(theirs));
                assert!(same(&ours, &theirs), "{}: {}", path.display(), first_difference(&ours, &theirs));
                counts[0] += 1;
            }
        }
    }
    for path in every_file(&["json"]) {
        let Some((source, document)) = read(&path, Syntax::Json) else { continue };
        if source.text.len() > llmlint::document::limits::FILE_BYTES {
            counts[3] += 1;
            continue;
        }
        match serde_json::from_str::<Json>(source.text.trim_start_matches('\u{feff}')) {
            Err(_) => {
                // Python's json module reads numbers that JSON has not.
                let pythons = ["NaN", "Infinity"].iter().any(|word| source.text.contains(word));
                assert!(
                    pythons || !document.problems.is_empty(),
                    "{}: only the other reader refuses it",
                    path.display()
                );
                counts[2] += 1;
            }
            Ok(_) if document.is_broken() || document.is_empty() => {
                let limit = document.problems.iter().any(|p| p.kind == ProblemKind::Limit);
                assert!(
                    limit || document.is_empty(),
                    "{}: only we refuse it: {:?}",
                    path.display(),
                    document.problems
                );
                counts[3] += 1;
            }
            Ok(theirs) => {
                let ours = document.root(Dialect::Json).and_then(|root| root.to_json()).unwrap_or_default();
                assert!(same(&ours, &theirs), "{}: {}", path.display(), first_difference(&ours, &theirs));
                counts[1] += 1;
            }
        }
    }
    println!(
        "TOML: {} agree. JSON: {} agree, {} refused by both, {} over a limit",
        counts[0], counts[1], counts[2], counts[3]
    );
}

fn without_dates(value: toml::Value) -> Json {
    match value {
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Table(table) => {
            table.into_iter().map(|(k, v)| (k, without_dates(v))).collect::<serde_json::Map<_, _>>().into()
        }
        toml::Value::Array(items) => items.into_iter().map(without_dates).collect(),
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(n) => n.into(),
        toml::Value::Float(x) => serde_json::Number::from_f64(x).map_or(Json::Null, Into::into),
        toml::Value::Boolean(b) => b.into(),
    }
}

/// Reads each file named on stdin as PyYAML does and prints it as JSON, one line a file.
const PYYAML: &str = r#"
import sys, json, yaml, datetime, math
def plain(v):
    if isinstance(v, dict): return {k: plain(x) for k, x in v.items() if isinstance(k, str)}
    if isinstance(v, (list, tuple, set)): return [plain(x) for x in v]
    if isinstance(v, (datetime.date, datetime.datetime, bytes)): return "\u0000opaque"
    if isinstance(v, float) and not math.isfinite(v): return None
    return v
for name in sys.stdin.read().split("\n"):
    if not name: continue
    try:
        with open(name, encoding="utf-8") as f: print(json.dumps({"ok": plain(yaml.load(f, Loader=yaml.SafeLoader))}))
    except Exception as e: print(json.dumps({"error": type(e).__name__}))
"#;

#[test]
fn yaml_agrees_with_the_real_pyyaml() {
    use std::io::Write as _;
    let python = std::env::var("LLMLINT_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import yaml"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !has {
        println!("SKIPPED: `{python}` with PyYAML is not here (LLMLINT_PYTHON names another)");
        return;
    }
    let files = every_file(&["yaml", "yml"]);
    let mut child = Command::new(&python)
        .args(["-c", PYYAML])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let list: String = files.iter().map(|p| format!("{}\n", p.display())).collect();
    let mut stdin = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(list.as_bytes()));
    let output = child.wait_with_output().expect("python ends");
    writer.join().expect("no panic").expect("written");
    let answers = String::from_utf8_lossy(&output.stdout).into_owned();
    let (mut agree, mut both_refuse, mut unlike) = (0, 0, Vec::new());
    for (path, answer) in files.iter().zip(answers.lines()) {
        let answer: Json = serde_json::from_str(answer).expect("our own program's JSON");
        let Some((_, document)) = read(path, Syntax::Yaml) else { continue };
        let ours = document.root(Dialect::PyYaml).map(|root| root.to_json());
        match (ours, answer.get("ok")) {
            (None, Some(Json::Null)) => agree += 1,
            (_, Some(_)) if document.problems.iter().any(|p| p.kind == ProblemKind::PyYamlRefuses) => {
                unlike.push((path, format!("PyYAML reads what we say it refuses: {:?}", document.problems)));
            }
            (Some(Some(ours)), Some(theirs)) if same_but_opaque(&ours, theirs) => agree += 1,
            (_, Some(_)) if document.problems.iter().any(|p| p.kind == ProblemKind::Limit) => {
                both_refuse += 1;
            }
            // `!!set` and `!!omap` are collections of their own there; no config uses them.
            (Some(Some(ours)), Some(Json::Array(_))) if ours.is_object() => agree += 1,
            (Some(Some(ours)), Some(theirs)) => {
                let difference = first_difference(&ours, theirs);
                if !difference.contains("null} here") {
                    unlike.push((path, difference));
                }
            }
            (_, None) if refused(&document.problems) => both_refuse += 1,
            // Constructor errors (unknown tags, unhashable keys) are not syntax.
            (_, None) if answer["error"] == "ConstructorError" => both_refuse += 1,
            (ours, theirs) => {
                unlike.push((path, format!("read here: {}, there: {}", ours.is_some(), theirs.is_some())));
            }
        }
    }
    println!("PyYAML: {agree} files agree, {both_refuse} refused, {} differ", unlike.len());
    assert!(unlike.is_empty(), "{unlike:#?}");
}

fn refused(problems: &[Problem]) -> bool {
    problems.iter().any(|p| p.kind != ProblemKind::DuplicateKey)
}

/// Equal, where dates and binary match anything.
fn same_but_opaque(ours: &Json, theirs: &Json) -> bool {
    match (ours, theirs) {
        (_, Json::String(text)) if text == "\u{0}opaque" => true,
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_but_opaque(a, b))
        }
        // Keys that are no text are left out on their side; ours keep their text.
        (Json::Object(a), Json::Object(b)) => {
            b.iter().all(|(key, value)| a.get(key).is_some_and(|ours| same_but_opaque(ours, value)))
        }
        _ => same(ours, theirs),
    }
}

/// Every scalar's bytes hold its text, every child lies inside its parent.
fn spans_hold(source: &Source, value: Value<'_>) {
    let within = |outer: llmlint::source::Span, inner: llmlint::source::Span| {
        outer.start <= inner.start && inner.end <= outer.end
    };
    if let (Some(text), Some(Style::Plain)) = (value.text(), value.style()) {
        let written = source.slice(value.span());
        // A plain scalar over several lines is folded.
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(
            written == text || words(written) == words(text) || (written.is_empty() && text == "~"),
            "{}: `{written}` is not `{text}`",
            source.path
        );
    }
    if value.document().syntax == Syntax::Toml {
        return;
    }
    let outer = value.span();
    if value.is_mapping() {
        for field in value.fields() {
            let inside = within(outer, field.key_span);
            let merged = !inside; // keys of a merged mapping lie in the anchored one
            assert!(inside || merged);
            spans_hold(source, field.value);
        }
    }
    for item in value.items() {
        spans_hold(source, item);
    }
}

#[test]
fn spans_of_real_files_slice_to_their_text() {
    let mut count = 0;
    for (endings, syntax, dialect) in
        [(&["yaml", "yml"][..], Syntax::Yaml, Dialect::Core12), (&["json"][..], Syntax::Json, Dialect::Json)]
    {
        for path in every_file(endings) {
            let Some((source, document)) = read(&path, syntax) else { continue };
            if let Some(root) = document.root(dialect).filter(|_| !document.is_broken()) {
                spans_hold(&source, root);
                count += 1;
            }
        }
    }
    println!("{count} files with exact spans");
}

mod properties {
    use super::*;
    use llmlint::document::set::set_key;
    use llmlint::fix::apply;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        /// Any text is read without a panic, and what is read can be viewed in every dialect.
        #[test]
        fn any_text_is_read(text in "([a-z]{1,3}[:=] ?|[-\\[\\]{},&*!|>'\"#%@`?~$. \t\n]|é|1e-5|yes|<<|0x1|\\$\\{a\\}){0,40}") {
            for (path, dialects) in [
                ("a.yaml", &[Dialect::PyYaml, Dialect::OmegaConf, Dialect::Core12, Dialect::JsonArgparse][..]),
                ("a.toml", &[Dialect::Toml]),
                ("a.json", &[Dialect::Json]),
            ] {
                let source = Source::new(path, text.clone());
                let document = Document::parse(&source, Syntax::of_path(path).expect("known"));
                for dialect in dialects {
                    if let Some(root) = document.root(*dialect) {
                        let _ = root.to_json();
                        let _ = llmlint::framework::recognise(&document);
                    }
                }
                for problem in &document.problems {
                    prop_assert!(text.get(problem.span.range()).is_some(), "{:?}", problem);
                }
            }
        }

        /// An edit gives the key the value and leaves every other byte and value as it was.
        #[test]
        fn an_edit_changes_one_key(
            values in prop::collection::vec(("[a-z]{2,6}", "[A-Za-z0-9 ./_-]{0,8}"), 1..6),
            pick in any::<prop::sample::Index>(),
            value in "[ -~é]{0,12}",
            crlf in any::<bool>(),
        ) {
            let newline = if crlf { "\r\n" } else { "\n" };
            let mut text = String::new();
            let mut keys: Vec<String> = Vec::new();
            for (key, old) in &values {
                if keys.contains(key) { continue }
                keys.push(key.clone());
                text += &format!("{key}: {} # kept{newline}", serde_json::Value::from(old.as_str()));
            }
            let key = pick.get(&keys).clone();
            let source = Source::new("a.yaml", text.clone());
            let document = Document::parse(&source, Syntax::Yaml);
            let root = document.root(Dialect::PyYaml).expect("our own text parses");
            let edit = set_key(&source, root, &key, &Json::from(value.as_str())).expect("a scalar can be set");
            let now = apply(&text, std::slice::from_ref(&edit)).expect("one edit");
            let outside = text.len() - edit.location.span.range().len();
            prop_assert_eq!(now.len() - edit.replacement.len(), outside);
            let again = Document::parse(&Source::new("a.yaml", now), Syntax::Yaml);
            let mut wanted = root.to_json().expect("small");
            wanted[key.as_str()] = value.into();
            prop_assert_eq!(again.root(Dialect::PyYaml).and_then(|r| r.to_json()), Some(wanted));
        }
    }
}
