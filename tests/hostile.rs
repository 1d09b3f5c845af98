//! Hostile files and names: each ends in an answer, none in a panic, and no byte of theirs
//! reaches an output alive.

#![allow(clippy::print_stdout, reason = "the table of times is read with --nocapture")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{llmlint, shared};

const FORMATS: [&str; 10] =
    ["pretty", "concise", "json", "jsonl", "sarif", "github", "gitlab", "junit", "markdown", "html"];

/// Characters that act on a terminal or hide what is there, line breaks and tabs aside.
fn is_live(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A workflow command that a runner would obey: `::name` at the start of a line, or `##[name`
/// anywhere. Annotations of our own are commands too; theirs must not be.
fn live_command(text: &str, format: &str) -> Option<String> {
    text.lines()
        .find(|line| {
            let start = line.trim_start();
            let ours = format == "github"
                && [
                    "::error file=",
                    "::warning file=",
                    "::notice file=",
                    "::error title=llmlint::and ",
                    "::warning title=llmlint::and ",
                    "::notice title=llmlint::and ",
                ]
                .iter()
                .any(|p| start.starts_with(p));
            (start.starts_with("::") && !ours) || line.contains("##[")
        })
        .map(str::to_owned)
}

fn ours(folder: &Path) -> Vec<PathBuf> {
    let run = "base_model: Qwen/Qwen3-0.6B\nmicro_batch_size: 2\nsequence_len: 2048\n";
    let deep = format!("{run}x: {}1{}\n", "[".repeat(20_000), "]".repeat(20_000));
    let wide: String = (0..60_000).map(|n| format!("k{n}: 1\n")).collect();
    let duplicates: String = std::iter::repeat_n("a: 1\n", 30_000).collect();
    let merges: String = std::iter::once("b: &b {".to_owned())
        .chain((0..900).map(|n| format!("k{n}: {n}, ")))
        .chain(std::iter::once("z: 1}\n".to_owned()))
        .chain((0..900).map(|n| format!("h{n}: {{<<: *b}}\n")))
        .collect();
    let tune = "model:\n  _component_: torchtune.models.llama3.llama3_8b\ntokenizer:\n  max_seq_len: 2048\ndataset:\n  _component_: torchtune.datasets.alpaca_dataset\noptimizer:\n  _component_: torch.optim.AdamW\nbatch_size: ${k0}\n";
    let doubling: String = (0..40).map(|n| format!("k{n}: ${{k{}}}${{k{}}}\n", n + 1, n + 1)).collect();
    let chain: String = (0..9000).map(|n| format!("k{n}: ${{.k{}}}\n", n + 1)).collect();
    let files: Vec<(&str, String)> = vec![
        ("doubling.yaml", format!("{tune}{doubling}k40: x\n")),
        ("chain.yaml", format!("{tune}{chain}k9000: 1\n")),
        ("deep.yaml", deep),
        ("wide.yaml", format!("{run}{wide}")),
        ("duplicates.yaml", format!("{run}{duplicates}")),
        ("merges.yaml", format!("{run}{merges}")),
        ("long-line.yaml", format!("{run}{}: 1\n", "k".repeat(900_000))),
        ("escape.yaml", format!("{run}\"\\e[2J\\u202e\\n::error::owned\": 1\n\"##[add-mask]x\": 1\n")),
        ("command.yaml", format!("{run}::error file=x::owned: 1\n##[group]x: 2\n")),
        ("reference.yaml", format!("{run}deepspeed: ../../../../../../etc/passwd\n")),
        ("huge.yaml", format!("{run}num_epochs: 1\nlora_r: 99999999999999999999\nadapter: lora\n")),
        ("huge-batch.yaml", "base_model: Qwen/Qwen3-0.6B\nmicro_batch_size: 9223372036854775807\nsequence_len: 9223372036854775807\nadapter: lora\n".into()),
        ("self.yaml", format!("{run}a: &a [*a]\n")),
        ("binary.yaml", String::from_utf8_lossy(&[0x62, 0x00, 0x1b, 0x5b]).into_owned()),
        ("deep.toml", format!("a{} = 1\n", ".a".repeat(10_000))),
        ("junk.json", "{\"zero_optimization\": {\"stage\": 3}, \"bf16\": {\"enabled\": true}, \"\\u001b[31m\": 1}".into()),
        ("name\u{1b}[31m.yaml", format!("{run}unknown_key_here: 1\n")),
        ("evil\n::error file=a.py::owned.yaml", format!("{run}unknown_key_here: 1\n")),
        ("bidi\u{202e}lmay.yaml", format!("{run}unknown_key_here: 1\n")),
        ("a%0A::error::x,line=9.yaml", format!("{run}unknown_key_here: 1\n")),
    ];
    files
        .into_iter()
        .filter_map(|(name, text)| {
            let path = folder.join(name);
            // Some file systems refuse such names; then there is nothing to test there.
            std::fs::write(&path, text).ok().map(|()| path)
        })
        .collect()
}

fn theirs(folder: &Path) -> Vec<PathBuf> {
    let Some(shared) = shared() else { return Vec::new() };
    let made = Command::new("python3").arg(shared.join("hostile/generate.py")).current_dir(folder).output();
    if !made.is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: the hostile inputs could not be generated (python3)");
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut stack = vec![folder.join("h")];
    while let Some(next) = stack.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                stack.push(path);
            } else if path.to_str().is_some() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn hostile_files_end_in_an_answer_and_reach_no_output_alive() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut files = ours(folder.path());
    files.extend(theirs(folder.path()));
    println!("{} hostile files", files.len());
    for file in &files {
        let relative = file.strip_prefix(folder.path()).expect("inside").to_str().expect("UTF-8").to_owned();
        let start = Instant::now();
        for format in FORMATS {
            let argument = format!("./{relative}");
            let ran = llmlint(folder.path(), &[&argument, "--format", format, "--budget", "80GiB"]);
            let shown = relative.escape_debug().to_string();
            assert!(
                (0..=2).contains(&ran.code),
                "{shown} as {format}: exit code {}\n{}",
                ran.code,
                ran.stderr
            );
            assert!(!ran.stdout.contains("internal-error"), "{shown} as {format}: {}", ran.stdout);
            for (place, text) in [("stdout", &ran.stdout), ("stderr", &ran.stderr)] {
                let live = text.chars().find(|c| is_live(*c));
                assert!(live.is_none(), "{shown} as {format}: {live:?} on {place}");
                let command = live_command(text, format);
                assert!(command.is_none(), "{shown} as {format}: {command:?} on {place}");
            }
        }
        println!(
            "{:>6} ms for {} formats  {}",
            start.elapsed().as_millis(),
            FORMATS.len(),
            relative.escape_debug()
        );
    }
}

/// The text with one of its numbers replaced by `absurd`, for each number outside a word.
fn with_absurd_numbers(text: &str, absurd: &str) -> Vec<String> {
    let alone = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && !"._-/\"'".contains(c));
    let mut changed = Vec::new();
    let mut start = 0;
    while let Some(offset) = text[start..].find(|c: char| c.is_ascii_digit()) {
        let from = start + offset;
        let end = text[from..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |n| from + n);
        if alone(text[..from].chars().next_back()) && alone(text[end..].chars().next()) {
            changed.push(format!("{}{absurd}{}", &text[..from], &text[end..]));
        }
        start = end;
    }
    changed
}

#[test]
fn absurd_numbers_end_in_an_answer() {
    let absurd = ["0", "-1", "4294967296", "4611686018427387904", "1e308"];
    let mut count = 0;
    for framework in std::fs::read_dir(common::root().join("fixtures")).expect("fixtures").flatten() {
        if framework.file_name() == "rules" {
            continue;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        for file in std::fs::read_dir(framework.path()).expect("a folder").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            let Some((stem, extension @ ("yaml" | "yml" | "toml" | "json"))) = name.rsplit_once('.') else {
                continue;
            };
            let text = std::fs::read_to_string(file.path()).expect("UTF-8");
            let changed = absurd.iter().flat_map(|number| with_absurd_numbers(&text, number));
            for (n, text) in changed.enumerate() {
                std::fs::write(folder.path().join(format!("{stem}-{n}.{extension}")), text)
                    .expect("writable");
                count += 1;
            }
        }
        let ran = llmlint(folder.path(), &[".", "--format", "json"]);
        let shown = framework.path().display().to_string();
        assert!((0..=1).contains(&ran.code), "{shown}: exit code {}\n{}", ran.code, ran.stderr);
        let panics: Vec<&str> = ran.stderr.lines().filter(|line| line.contains("panicked")).collect();
        assert!(panics.is_empty(), "{shown}: {}", panics.join("\n"));
        assert!(!ran.stdout.contains("internal-error"), "{shown}: {}", ran.stdout);
    }
    println!("{count} files with an absurd number");
    assert!(count > 1000, "the fixtures have numbers");
}
