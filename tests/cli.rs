//! The binary as a user calls it: exit codes, what goes where, fixes, baselines, revisions.

mod common;

use std::path::Path;
use std::process::Command;

use common::{llmlint, llmlint_with, root};

const RUN: &str = "llmlint: 1
model: { architecture: llama, num_hidden_layers: 8, hidden_size: 2048, intermediate_size: 5632, num_attention_heads: 16, vocab_size: 32000 }
training:
  sequence_length: 2048
  micro_batch_size: 8 # kept
  gradient_accumulation_steps: 2
";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("created");
        std::fs::write(path, text).expect("written");
    }
    folder
}

fn git(folder: &Path, arguments: &[&str]) {
    let done = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("git runs");
    assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn exit_codes_tell_clean_from_findings_from_failure() {
    let here =
        folder(&[("a.yaml", RUN), ("other.yaml", "name: x\n"), ("bad.toml", "[rules]\nno-such = 'off'\n")]);
    let at = here.path();
    assert_eq!(llmlint(at, &["a.yaml", "--budget", "80GiB"]).code, 0);
    assert_eq!(llmlint(at, &["a.yaml", "--budget", "4GiB"]).code, 1);
    assert_eq!(llmlint(at, &["a.yaml", "--budget", "4GiB", "--fail-on", "never"]).code, 0);
    let missing = llmlint(at, &["no/such.yaml"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (2, ""));
    assert!(missing.stderr.contains("`no/such.yaml` does not exist"), "{}", missing.stderr);
    assert_eq!(llmlint(at, &[]).code, 2, "no paths is a usage error");
    assert_eq!(llmlint(at, &["a.yaml", "--budget", "4G"]).code, 2, "an ambiguous unit is refused");
    assert_eq!(llmlint(at, &["a.yaml", "--gpu", "a100"]).code, 2, "an ambiguous GPU is refused");
    let settings = llmlint(at, &["a.yaml", "--config", "bad.toml"]);
    assert_eq!(settings.code, 2);
    assert!(settings.stderr.contains("there is no rule `no-such`"), "{}", settings.stderr);
    let quiet = llmlint(at, &["a.yaml", "other.yaml", "--format", "concise"]);
    assert_eq!(
        (quiet.code, quiet.stderr.as_str()),
        (0, ""),
        "a file that is no config is passed over quietly"
    );
    assert!(
        llmlint(at, &["other.yaml"]).stderr.contains("not a training config"),
        "unless it was asked for alone"
    );
}

#[test]
fn a_quoted_pattern_stdin_and_settings_are_understood() {
    let here = folder(&[
        ("c/deep/a.yaml", RUN),
        ("llmlint.toml", "exclude = ['c/old']\n[budget]\nmemory = '4GiB'\n"),
        ("c/old/b.yaml", RUN),
    ]);
    let at = here.path();
    let found = llmlint(at, &["c/**/*.yaml", "--format", "concise"]);
    assert_eq!(found.code, 1);
    assert!(found.stdout.contains("c/deep/a.yaml") && !found.stdout.contains("c/old"), "{}", found.stdout);
    let stdin = llmlint_with(at, &["-", "--format", "concise"], &[], RUN);
    assert_eq!(stdin.code, 1, "{}{}", stdin.stdout, stdin.stderr);
    assert!(stdin.stdout.starts_with("stdin.yaml:"), "{}", stdin.stdout);
}

#[test]
fn colour_is_asked_for_or_left_out() {
    let here = folder(&[("a.yaml", RUN)]);
    let arguments = ["a.yaml", "--budget", "4GiB"];
    let has = |variables: &[(&str, &str)], extra: &[&str]| {
        let all: Vec<&str> = arguments.iter().chain(extra).copied().collect();
        llmlint_with(here.path(), &all, variables, "").stdout.contains('\u{1b}')
    };
    assert!(!has(&[], &[]), "not into a pipe");
    assert!(has(&[("FORCE_COLOR", "1")], &[]));
    assert!(!has(&[("FORCE_COLOR", "1"), ("NO_COLOR", "1")], &[]), "NO_COLOR wins over FORCE_COLOR");
    assert!(has(&[("NO_COLOR", "1")], &["--color", "always"]), "the flag wins over both");
    let ascii = llmlint(here.path(), &["a.yaml", "--budget", "4GiB", "--ascii"]);
    assert!(ascii.stdout.is_ascii(), "{}", ascii.stdout);
}

#[test]
fn fit_finds_a_change_and_writes_only_it() {
    let here = folder(&[("a.yaml", RUN)]);
    let at = here.path();
    let shown = llmlint(at, &["fit", "a.yaml", "--budget", "16GiB"]);
    assert_eq!(shown.code, 1, "{}{}", shown.stdout, shown.stderr);
    let fixed = llmlint(at, &["fit", "a.yaml", "--budget", "16GiB", "--fix"]);
    assert_eq!(fixed.code, 0, "{}{}", fixed.stdout, fixed.stderr);
    let text = std::fs::read_to_string(at.join("a.yaml")).expect("still there");
    assert_ne!(text, RUN);
    assert!(text.contains("# kept"), "comments stay: {text}");
    for line in RUN.lines().filter(|l| !l.contains("micro_batch") && !l.contains("accumulation")) {
        assert!(text.contains(line), "`{line}` was touched: {text}");
    }
    assert_eq!(llmlint(at, &["a.yaml", "--budget", "16GiB"]).code, 0, "the edited file fits");
}

/// The misspelt key is what makes the run too large: mended, nothing else is to be changed.
#[test]
fn mistakes_are_mended_before_memory_is_saved() {
    let text = RUN.replace("  micro", "  activation_checkpointng: full\n  micro");
    let here = folder(&[("a.yaml", &text)]);
    let at = here.path();
    let budget = ["a.yaml", "--budget", "20GiB"];
    assert_eq!(llmlint(at, &budget).code, 1);
    let fixed = llmlint(at, &[&budget[..], &["--unsafe-fixes"]].concat());
    let now = std::fs::read_to_string(at.join("a.yaml")).expect("still there");
    assert_eq!(now, text.replace("checkpointng", "checkpointing"), "{}", fixed.stdout);
}

#[test]
fn fit_says_what_it_will_not_write() {
    let here = folder(&[("a.yaml", RUN)]);
    let at = here.path();
    let none = llmlint(at, &["fit", "a.yaml", "--budget", "16GiB", "--apply", "99"]);
    assert_eq!(none.code, 2);
    assert!(none.stderr.contains("there is no row 99"), "{}", none.stderr);
    let tiny = llmlint(at, &["fit", "a.yaml", "--budget", "1GiB", "--fix"]);
    assert_eq!(tiny.code, 2, "nothing fits: {}", tiny.stdout);
    assert_eq!(std::fs::read_to_string(at.join("a.yaml")).expect("still there"), RUN);
}

#[test]
fn a_baseline_silences_what_it_knows_and_nothing_else() {
    let here = folder(&[("a.yaml", RUN)]);
    let at = here.path();
    let arguments = ["a.yaml", "--budget", "4GiB", "--baseline", "base.json"];
    assert_eq!(llmlint(at, &[&arguments[..], &["--write-baseline"]].concat()).code, 0);
    assert_eq!(llmlint(at, &arguments).code, 0);
    std::fs::write(at.join("a.yaml"), RUN.replace("micro_batch_size: 8", "micro_batch_size: 16"))
        .expect("written");
    assert_eq!(llmlint(at, &arguments).code, 1, "a worse peak is a new finding");
}

#[test]
fn diff_and_since_see_what_a_change_does() {
    let here = folder(&[("a.yaml", RUN), ("b.yaml", RUN)]);
    let at = here.path();
    git(at, &["init", "-q"]);
    git(at, &["add", "."]);
    git(at, &["commit", "-qm", "base"]);
    std::fs::write(at.join("a.yaml"), RUN.replace("micro_batch_size: 8", "micro_batch_size: 16"))
        .expect("written");
    let diff = llmlint(at, &["diff", "HEAD", "--budget", "24GiB"]);
    assert!(
        diff.stdout.contains("a.yaml: peak") && diff.stdout.contains("micro_batch_size: 8 -> 16"),
        "{}",
        diff.stdout
    );
    assert!(!diff.stdout.contains("b.yaml"), "{}", diff.stdout);
    assert_eq!(diff.code, 1, "the verdict got worse");
    let since = llmlint(at, &[".", "--since", "HEAD", "--budget", "4GiB", "--format", "concise"]);
    assert!(since.stdout.contains("a.yaml") && !since.stdout.contains("b.yaml"), "{}", since.stdout);
    assert_eq!(llmlint(at, &["diff", "--output=x"]).code, 2, "an option is no revision");
}

#[test]
fn output_is_the_same_whatever_the_number_of_threads() {
    let run = |threads: &str| {
        let output =
            llmlint_with(root(), &["fixtures", "--format", "concise"], &[("RAYON_NUM_THREADS", threads)], "");
        output.stdout
    };
    assert_eq!(run("1"), run("4"));
}

#[test]
fn explain_in_ascii_has_no_other_sign() {
    let here = folder(&[("a.yaml", RUN)]);
    let done = llmlint(here.path(), &["explain", "--ascii", "a.yaml"]);
    let text = done.stdout;
    assert!(text.contains("N*"), "the formulas are there: {text}");
    let others: String = text.chars().filter(|c| !c.is_ascii()).collect();
    assert_eq!(others, "", "a terminal that knows only ASCII can show it");
}

#[test]
fn declared_lengths_decide_what_is_reserved() {
    let config = "llmlint: 1\nmodel: Qwen/Qwen2.5-1.5B-Instruct\ntraining:\n  method: lora\n  sequence_length: 2048\n  \
                  micro_batch_size: 2\n  batching: padded\n  attention: flash\n";
    let reserved = |settings: &str| {
        let folder = folder(&[("run.yaml", config), ("llmlint.toml", settings), (".git/HEAD", "")]);
        let ran = llmlint(folder.path(), &["explain", "--format", "json", "run.yaml"]);
        let answer: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
        let figure = |name: &str| {
            let bytes = answer.pointer(&format!("/files/0/estimate/{name}")).and_then(|v| v.as_f64());
            bytes.unwrap_or_else(|| panic!("{name}: {}", ran.stdout))
        };
        (figure("allocated_bytes"), figure("reserved_bytes"))
    };
    let law = |law: &str| reserved(&format!("[assume]\nsequence-lengths = {{ {law} }}\n"));
    let (unknown, full) = (reserved(""), law("full = 1"));
    assert!((unknown.0 / full.0 - 1.0).abs() < 1e-3, "the longest batch is the same: {full:?} {unknown:?}");
    assert!(full.1 < unknown.1, "{full:?} {unknown:?}");
    let short = law("mean = 300, deviation = 200, longest = 1024");
    assert!(short.0 < full.0, "no row reaches the limit: {short:?}");
    let grouped =
        folder(&[("llmlint.toml", "[assume]\nsequence-lengths = { mean = 300 }\n"), ("a.yaml", config)]);
    let ran = llmlint(grouped.path(), &["a.yaml"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("`mean` and `deviation` belong together"), "{}", ran.stderr);
}
