//! The examples on the rules' pages, run.
//!
//! A fence with a `title` is a file of the example, and the `console` fence after it the command.
//! `mark` says what the rule must point at: the text between `>` and `<`, which stand for nothing
//! else, or all of it. Below `## The fix`, a `diff` changes a file and any other fence adds one;
//! fences with nothing but blank lines between them are one fix, and each fix must end the matter.

use std::collections::BTreeMap;
use std::path::Path;

use llmlint::rules::RuleInfo;
use serde_json::Value;

use crate::common::llmlint;

/// Columns of the output on a page.
const WIDTH: &str = "90";

#[derive(Clone)]
struct File {
    text: String,
    utf_16: bool,
}

type Files = BTreeMap<String, File>;

/// A fenced block, and whether words stand between it and the one before.
struct Fence<'a> {
    info: &'a str,
    text: String,
    apart: bool,
}

fn fences(part: &str) -> Vec<Fence<'_>> {
    let mut found: Vec<Fence<'_>> = Vec::new();
    let (mut inside, mut apart) = (false, true);
    for line in part.lines() {
        // A doc comment keeps the space after its slashes.
        let line = line.strip_prefix(' ').unwrap_or(line);
        match (line.strip_prefix("```"), inside) {
            (Some(info), false) => {
                found.push(Fence { info, text: String::new(), apart });
                (inside, apart) = (true, false);
            }
            (Some(_), true) => inside = false,
            (None, true) => {
                let text = &mut found.last_mut().expect("inside a fence").text;
                *text += line;
                text.push('\n');
            }
            (None, false) => apart |= !line.is_empty(),
        }
    }
    found
}

/// The value of `key="…"` in a fence's first line; a quote inside stands behind a backslash.
fn attribute(info: &str, key: &str) -> Option<String> {
    let (_, rest) = info.split_once(&format!(" {key}=\""))?;
    let mut value = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Some(value),
            '\\' => value.extend(chars.next()),
            _ => value.push(c),
        }
    }
    None
}

/// Where a mark stands in its file.
fn place(mark: &str, text: &str) -> (usize, usize) {
    let (plain, start, end) = match (mark.find('>'), mark.rfind('<')) {
        (Some(start), Some(end)) if start < end => {
            (format!("{}{}{}", &mark[..start], &mark[start + 1..end], &mark[end + 1..]), start, end - 1)
        }
        _ => (mark.to_owned(), 0, mark.len()),
    };
    let found: Vec<usize> = text.match_indices(&plain).map(|(at, _)| at).collect();
    let [at] = found[..] else { panic!("`{plain}` stands {} times in\n{text}", found.len()) };
    (at + start, at + end)
}

/// `text` with the lines of a diff replaced.
fn patched(text: &str, diff: &str) -> String {
    let side = |other: char| -> String {
        diff.lines()
            .filter(|line| !line.starts_with(other))
            .map(|line| format!("{}\n", line.get(1..).unwrap_or_default()))
            .collect()
    };
    let (old, new) = (side('+'), side('-'));
    assert_eq!(text.matches(&old).count(), 1, "the diff's old lines stand once in\n{text}\n{old}");
    text.replacen(&old, &new, 1)
}

/// The command's words after `$ llmlint`.
fn words(console: &str) -> Vec<&str> {
    let command = console.trim().strip_prefix("$ llmlint ");
    command.unwrap_or_else(|| panic!("`$ llmlint …` and nothing else in\n{console}")).split(' ').collect()
}

/// What the command says of the files, as JSON and for people, without the summary.
fn run(files: &Files, command: &[&str]) -> (String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, file) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(""))).expect("folder");
        let bytes = if file.utf_16 {
            std::iter::once(0xfeff).chain(file.text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
        } else {
            file.text.clone().into_bytes()
        };
        std::fs::write(path, bytes).expect("a file");
    }
    let json = folder.path().join("report.json");
    let formats =
        ["--format", "json", "--output-file", "report.json", "--format", "pretty", "--color", "never"];
    let ran = llmlint(folder.path(), &[command, &formats, &["--quiet", "--width", WIDTH]].concat());
    assert!(ran.code < 2, "{command:?} failed:\n{}", ran.stderr);
    (std::fs::read_to_string(json).expect("the report"), ran.stdout)
}

/// A finding: its rule, its file and bytes in it, and the address of its page.
#[derive(Debug)]
struct Found {
    rule: String,
    place: (String, usize, usize),
    url: String,
}

/// Every finding, and what the command prints of them.
fn findings(files: &Files, command: &[&str]) -> (Vec<Found>, String) {
    let (json, shown) = run(files, command);
    let report: Value = serde_json::from_str(&json).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let offset = |value: &Value| usize::try_from(value.as_u64().expect("an offset")).expect("small");
    let mut list = Vec::new();
    for file in report["files"].as_array().into_iter().flatten() {
        for finding in file["findings"].as_array().into_iter().flatten() {
            let span = &finding["span"];
            let path = span.get("path").unwrap_or(&file["path"]);
            list.push(Found {
                rule: text(&finding["rule"]),
                place: (text(path), offset(&span["start"]), offset(&span["end"])),
                url: text(&finding["url"]),
            });
        }
    }
    (list, shown)
}

fn add(files: &mut Files, name: String, fence: &Fence<'_>) {
    let utf_16 = attribute(fence.info, "encoding").is_some_and(|e| e == "utf-16");
    files.insert(name, File { text: fence.text.clone(), utf_16 });
}

/// Runs a page's examples and their fixes; what each command prints, in order.
fn outputs(info: &RuleInfo) -> Vec<String> {
    let (example, fix) = info.page.split_once(" ## The fix\n").unwrap_or((info.page, ""));
    let mut printed = Vec::new();
    let (mut files, mut marks, mut command) = (Files::new(), Vec::new(), Vec::new());
    let listed = fences(example);
    for fence in &listed {
        if let Some(name) = attribute(fence.info, "title") {
            if !command.is_empty() {
                // The next example begins.
                (files, marks, command) = (Files::new(), Vec::new(), Vec::new());
            }
            if let Some(mark) = attribute(fence.info, "mark") {
                let (start, end) = place(&mark, &fence.text);
                marks.push((name.clone(), start, end));
            }
            add(&mut files, name, fence);
        } else if fence.info == "console" {
            command = words(&fence.text);
            let (found, shown) = findings(&files, &command);
            let own: Vec<_> = found.iter().filter(|f| f.rule == info.name).collect();
            let places: Vec<_> = own.iter().map(|f| f.place.clone()).collect();
            assert_eq!(places, marks, "{}: the rule points at what is marked", info.name);
            for Found { url, .. } in own {
                assert!(url.ends_with(&format!("/docs/rules/{}.md", info.name)), "{url}");
            }
            printed.push(shown);
        }
    }
    assert!(!printed.is_empty() && !marks.is_empty(), "{}: the page has no example that is run", info.name);
    let listed = fences(fix);
    let named = listed.iter().filter(|fence| attribute(fence.info, "title").is_some());
    let mut fixes: Vec<Files> = Vec::new();
    for fence in named {
        if fence.apart || fixes.is_empty() {
            fixes.push(files.clone());
        }
        let fixed = fixes.last_mut().expect("one was added");
        let name = attribute(fence.info, "title").expect("filtered");
        if fence.info.starts_with("diff ") {
            let file = fixed.get_mut(&name).expect("the diff is of a file of the example");
            file.text = patched(&file.text, &fence.text);
        } else {
            add(fixed, name, fence);
        }
    }
    for fixed in &fixes {
        let (left, _) = findings(fixed, &command);
        assert!(left.is_empty(), "{}: the fixed example still has {left:?}", info.name);
    }
    printed
}

/// A rule's page as it is read, with what the commands on it print.
pub(crate) fn page_with_outputs(info: &RuleInfo) -> String {
    let mut outputs = outputs(info).into_iter();
    let mut page = String::new();
    for line in info.markdown().lines() {
        page += line;
        page.push('\n');
        if line.starts_with("$ llmlint ") {
            for line in outputs.next().expect("each command was run").trim_end().lines() {
                page += line.trim_end();
                page.push('\n');
            }
        }
    }
    page
}
