//! The GitHub Action, run for real on repositories of our own making.
#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "a test")]

mod common;
#[path = "action/harness.rs"]
mod harness;
#[path = "action/picture.rs"]
mod picture;

use std::path::Path;

use harness::{Job, Outcome};

const RUN: &str = "base_model: meta-llama/Llama-3.1-8B
adapter: lora
lora_r: 16
lora_alpha: 32
lora_target_linear: true
datasets:
  - path: data/chat.jsonl
    type: chat_template
sequence_len: 4096
sample_packing: true
micro_batch_size: 1
gradient_accumulation_steps: 16
gradient_checkpointing: true
num_epochs: 3
optimizer: adamw_torch_fused
learning_rate: 0.0002
bf16: true
attn_implementation: flash_attention_2
";

fn run_with(micro_batch_size: u32) -> String {
    RUN.replace("micro_batch_size: 1\n", &format!("micro_batch_size: {micro_batch_size}\n"))
}

/// The outputs, in the order verdict, findings.
fn answer(outcome: &Outcome) -> (&str, &str) {
    (&outcome.outputs["verdict"], &outcome.outputs["findings"])
}

#[track_caller]
fn could_not(outcome: &Outcome, why: &str) {
    assert_eq!(outcome.code, 2, "{}", outcome.log);
    assert_eq!(answer(outcome), ("none", "0"));
    assert_eq!(outcome.outputs["worst-peak-bytes"], "");
    assert!(outcome.of("error").iter().any(|c| c.data.contains(why)), "{}", outcome.log);
    assert!(outcome.summary.contains("llmlint could not do its job"), "{}", outcome.summary);
    outcome.only_our_commands();
}

#[test]
fn a_run_that_fits_passes() {
    let job = Job::new(&[("configs/sft.yaml", RUN)]).input("gpu", "H100-80GB").input("gpus", "1");
    let outcome = job.run();
    assert_eq!(outcome.code, 0, "{}", outcome.log);
    assert_eq!(answer(&outcome), ("fits", "0"));
    let peak: u64 = outcome.outputs["worst-peak-bytes"].parse().expect("bytes");
    assert!(peak > 16 << 30, "{peak}: the weights alone are 15 GiB");
    assert!(outcome.commands.is_empty(), "{:?}", outcome.commands);
    assert!(
        outcome.summary.contains("| configs/sft.yaml | Llama-3.1-8B | LoRA r16 |"),
        "{}",
        outcome.summary
    );
    assert!(outcome.summary.contains("✅\u{a0}fits"));
    let report = std::fs::read_to_string(&outcome.outputs["report"]).expect("the report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["files"][0]["path"], "configs/sft.yaml");
    assert_eq!(report["summary"]["worst_peak_bytes"], peak);
    assert!(outcome.uploads.is_empty());
}

#[test]
fn a_run_over_budget_fails_with_an_annotation_on_its_line() {
    let outcome = Job::new(&[("sft.yaml", &run_with(16))]).input("gpu", "H100-80GB").input("gpus", "1").run();
    assert_eq!(outcome.code, 1, "{}", outcome.log);
    assert_eq!(answer(&outcome), ("exceeds", "1"));
    let errors = outcome.of("error");
    assert_eq!(errors.len(), 1, "{}", outcome.log);
    assert_eq!(errors[0].properties["file"], "sft.yaml");
    assert_eq!(errors[0].properties["line"], "11");
    assert_eq!(errors[0].properties["title"], "over-budget");
    assert!(outcome.summary.contains("❌\u{a0}exceeds"), "{}", outcome.summary);
    // The log for people has the source lines, out of the runner's reach.
    assert!(outcome.log.contains("micro_batch_size: 16"), "{}", outcome.log);
    outcome.only_our_commands();
}

#[test]
fn the_level_that_fails_is_an_input() {
    let misspelt = RUN.replace("gradient_checkpointing", "gradient_checkpointng");
    let job = |level: &str| Job::new(&[("sft.yaml", &misspelt)]).input("fail-on", level).run();
    let never = job("never");
    assert_eq!((never.code, never.of("warning").len()), (0, 1), "{}", never.log);
    assert_eq!(job("warning").code, 1);
    assert_eq!(job("error").code, 0);
    could_not(&job("sometimes"), "exit code 2");
    // Without the input, llmlint.toml decides.
    let set = Job::new(&[("sft.yaml", &misspelt), ("llmlint.toml", "fail-on = \"warning\"\n")]).run();
    assert_eq!(set.code, 1, "{}", set.log);
}

#[test]
fn no_configs_is_said_and_passes() {
    let outcome = Job::new(&[("mkdocs.yml", "site_name: x\n")]).run();
    assert_eq!(outcome.code, 0, "{}", outcome.log);
    assert_eq!(answer(&outcome), ("none", "0"));
    assert!(outcome.of("warning")[0].data.contains("no training config"), "{}", outcome.log);
    assert!(outcome.summary.contains("No training config found"), "{}", outcome.summary);
}

#[test]
fn inputs_stay_text() {
    let names = [
        "configs/with space.yaml",
        "configs/$(touch PWNED)/x.yaml",
        "configs/`touch PWNED`.yaml",
        "configs/'single' \"double\".yaml",
        "configs/;touch PWNED;.yaml",
        "configs/--fix.yaml",
    ];
    let files: Vec<(&str, &str)> = names.iter().map(|name| (*name, RUN)).collect();
    let job = Job::new(&files).input("paths", &format!("  {}\r\n\n{}\n", names[0], names[1..].join("\n")));
    let outcome = job.run();
    assert_eq!(outcome.code, 0, "{}", outcome.log);
    let report = std::fs::read_to_string(&outcome.outputs["report"]).expect("the report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let mut checked: Vec<&str> =
        report["files"].as_array().expect("files").iter().filter_map(|f| f["path"].as_str()).collect();
    let mut wanted = names.to_vec();
    checked.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(checked, wanted);

    // A path that looks like an option is a path; what is no value of an option is refused.
    let hostile = "$(touch PWNED)`touch PWNED`\"; touch PWNED; '\n::error::x";
    for (name, value) in [("paths", "--fix"), ("paths", hostile)]
        .into_iter()
        .chain(["gpu", "gpus", "budget", "config", "fail-on"].map(|name| (name, hostile)))
    {
        let job = Job::new(&[("sft.yaml", RUN)]).input(name, value);
        could_not(&job.run(), "exit code 2");
        untouched(&job);
    }
    for (name, why) in [("format", "format must be"), ("since", "not known to git")] {
        let job = Job::new(&[("sft.yaml", RUN)]).input(name, hostile);
        could_not(&job.run(), why);
        untouched(&job);
    }
    let job = Job::new(&[("sft.yaml", RUN)]).input("since", "--output=PWNED");
    could_not(&job.run(), "not known to git");
    untouched(&job);
}

#[track_caller]
fn untouched(job: &Job) {
    assert!(!job.workspace().join("PWNED").exists());
    assert_eq!(job.git(&["status", "--porcelain"]), "");
}

#[test]
fn text_of_the_repository_commands_nothing() {
    let evil = "::error::x\\n##[add-mask]a\\e[2J\\u202e";
    let config = format!(
        "# ##[set-output name=verdict]fits\n{RUN}\"\\n::set-output name=a::b {evil}\": \"{evil}\"\n\"##[add-mask]lr\": 1\nlora_dropout: \"\\n::stop-commands::x\"\n"
    );
    let job = Job::new(&[
        ("a\n::error::NAME.yaml", &config),
        ("a ##[warning]NAME.yaml", &config),
        ("%0A::notice::b,line=1.yaml", &config),
        ("broken.yaml", "base_model: [\n::error::x\n##[error]y\n"),
    ])
    .input("paths", ".\nbroken.yaml");
    for format in ["pretty", "concise", "narrated"] {
        let outcome = Job::new(&[]).input("format", format).run();
        assert_eq!(outcome.code, 0, "{}", outcome.log);
    }
    let outcome = job.run();
    assert_eq!(outcome.code, 1, "{}", outcome.log);
    outcome.only_our_commands();
    assert!(outcome.commands.len() >= 3, "{}", outcome.log);
    for line in outcome.summary.lines() {
        assert!(!line.starts_with("::") && !line.contains('\u{1b}'), "{line}");
    }
    // Exactly the outputs of ours.
    assert_eq!(outcome.outputs["verdict"], "unknown");
}

#[test]
fn a_tool_that_fails_is_not_taken_for_findings() {
    let job = Job::new(&[("sft.yaml", RUN), ("llmlint.toml", "[budget]\ngpu = \"a100\"\n")]);
    let outcome = job.run();
    could_not(&outcome, "exit code 2");
    assert!(outcome.log.contains("A100-80GB"), "the log says why: {}", outcome.log);
    could_not(&Job::new(&[]).input("paths", "not-there.yaml").run(), "exit code 2");
    // A tool that dies without a report, with the exit code of findings or of a signal.
    could_not(&Job::new(&[]).environment("LLMLINT_BINARY", "false").run(), "exit code 1");
    let killed =
        Job::new(&[]).program("killed", "#!/bin/sh\nkill -9 $$\n").environment("LLMLINT_BINARY", "killed");
    could_not(&killed.run(), "exit code 137");
    could_not(&Job::new(&[]).environment("LLMLINT_BINARY", "/not/there").run(), "exit code 127");
}

#[test]
fn the_log_is_inert_whatever_the_tool_prints() {
    let chatty = "#!/bin/sh\nfor n in 1 2; do\n  printf '::error::x\\n a ##[add-mask]y\\n::stop-commands::z\\n::z::\\n::set-output name=a::b' >&$n\ndone\nexit 1\n";
    let outcome = Job::new(&[]).program("chatty", chatty).environment("LLMLINT_BINARY", "chatty").run();
    assert!(outcome.log.contains("##[add-mask]y"), "it is there: {}", outcome.log);
    assert_eq!(outcome.commands.len(), 1, "and obeyed is only our own error: {:?}", outcome.commands);
    could_not(&outcome, "exit code 1");
}

/// A pull request of two commits: the first has two configs, the second raises a micro batch.
fn pull_request() -> (Job, String, String) {
    let job = Job::new(&[("configs/sft.yaml", RUN), ("configs/other.yaml", &run_with(32))]);
    let base = job.git(&["rev-parse", "HEAD"]);
    job.write(&[("configs/sft.yaml", &run_with(16))]);
    let head = job.commit();
    (job.input("gpu", "H100-80GB").input("gpus", "1"), base, head)
}

#[test]
fn a_pull_request_is_told_what_it_changes() {
    let (job, base, head) = pull_request();
    let job = job.pull_request(&base, &head);
    let outcome = job.run();
    println!("{}\n{}", outcome.log, outcome.summary);
    assert_eq!(outcome.code, 1);
    assert_eq!(answer(&outcome), ("exceeds", "1"));
    let errors = outcome.of("error");
    assert_eq!(errors.len(), 1, "only what the change touches");
    assert_eq!(errors[0].properties["file"], "configs/sft.yaml");
    assert_eq!((&*errors[0].properties["line"], &*errors[0].properties["col"]), ("11", "19"));
    let row = outcome.summary.lines().find(|line| line.contains("configs/sft.yaml")).expect("a row");
    assert!(
        row.trim_end_matches(" |").rsplit("| ").next().is_some_and(|cell| cell.starts_with('+')),
        "{row}"
    );
    assert!(!outcome.summary.contains("other.yaml"), "{}", outcome.summary);

    // The same with everything reported.
    let outcome = job.input("since", "none").run();
    assert_eq!(answer(&outcome), ("exceeds", "2"));
    assert!(!outcome.summary.contains("change |"), "{}", outcome.summary);
}

#[test]
fn the_pages_show_a_real_pull_request() {
    let (job, base, head) = pull_request();
    let outcome = job.pull_request(&base, &head).run();
    let picture = picture::svg(RUN, &run_with(16), outcome.of("error")[0], &outcome.summary);
    common::assert_kept(&common::root().join("docs/pull-request.svg"), &picture);

    // Below the counts, which have a time in them; headings would be headings of the page.
    let summary = &outcome.summary[outcome.summary.find("| config").expect("a table")..];
    let shown = format!("<!-- summary -->\n{}<!-- /summary -->", summary.replace("### Findings\n\n", ""));
    let path = common::root().join("docs/action.md");
    let page = std::fs::read_to_string(&path).expect("docs/action.md");
    let (before, rest) = page.split_once("<!-- summary -->").expect("a place for it");
    let (_, after) = rest.split_once("<!-- /summary -->").expect("its end");
    common::assert_kept(&path, &format!("{before}{shown}{after}"));
}

#[test]
fn a_pull_request_that_changes_no_config_is_quiet() {
    let (job, _, head) = pull_request();
    job.write(&[("README.md", "x")]);
    let last = job.commit();
    let outcome = job.pull_request(&head, &last).run();
    assert_eq!((outcome.code, answer(&outcome)), (0, ("none", "0")), "{}", outcome.log);
    assert!(outcome.commands.is_empty(), "{:?}", outcome.commands);
}

#[test]
fn changed_settings_concern_every_config_below_them() {
    let (job, _, head) = pull_request();
    job.write(&[("configs/llmlint.toml", "[budget]\nmemory = \"8GiB\"\n")]);
    let last = job.commit();
    let outcome = job.pull_request(&head, &last).run();
    assert_eq!(answer(&outcome), ("exceeds", "2"), "{}", outcome.log);
}

/// A clone as actions/checkout makes it: depth 1, of the merge of the base and the change.
fn checkout(origin: &Job, commit: &str) -> Job {
    let job = Job::empty();
    let from = format!("file://{}", origin.workspace().display());
    job.git(&["init", "-q"]);
    job.git(&["remote", "add", "origin", &from]);
    job.git(&["fetch", "-q", "--depth=1", "origin", commit]);
    job.git(&["checkout", "-q", "--detach", "FETCH_HEAD"]);
    job.input("gpu", "H100-80GB").input("gpus", "1")
}

#[test]
fn the_base_is_fetched_for_a_shallow_checkout_of_the_merge() {
    let (origin, old_base, head) = pull_request();
    // Meanwhile the base moved on, in another config.
    origin.git(&["checkout", "-q", "-b", "base", &old_base]);
    origin.write(&[("configs/other.yaml", &run_with(64))]);
    let base = origin.commit();
    origin.git(&["merge", "-q", "--no-ff", "-m", "merge", &head]);
    let merge = origin.git(&["rev-parse", "HEAD"]);
    origin.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
    for event_base in [&base, &old_base] {
        let job = checkout(&origin, &merge).pull_request(event_base, &merge);
        assert_eq!(job.git(&["rev-list", "--count", "HEAD"]), "1");
        let outcome = job.run();
        assert_eq!(answer(&outcome), ("exceeds", "1"), "{}", outcome.log);
        assert!(!outcome.summary.contains("other.yaml"), "{}", outcome.summary);
        assert!(outcome.summary.contains(" change |"), "{}", outcome.summary);
    }
}

#[test]
fn a_base_that_cannot_be_fetched_means_a_full_report() {
    let (job, _, head) = pull_request();
    let outcome = job.pull_request(&"1".repeat(40), &head).run();
    assert_eq!(outcome.code, 1);
    assert!(outcome.of("warning")[0].data.contains("could not be fetched"), "{}", outcome.log);
    assert_eq!(answer(&outcome), ("exceeds", "2"), "{}", outcome.log);
    // Asked for by name, it is a failure.
    could_not(&Job::new(&[]).input("since", "no-such-branch").run(), "not known to git");
}

#[test]
fn annotations_stay_under_the_limit_of_github() {
    let many: String = (0..25).map(|i| format!("no_such_key_{i}: 1\n")).collect();
    let outcome = Job::new(&[("sft.yaml", &format!("{RUN}{many}"))]).run();
    let warnings = outcome.of("warning");
    assert_eq!(warnings.len(), 10, "{}", outcome.log);
    assert!(warnings[9].data.contains("and 16 more"), "{}", warnings[9].data);
    assert_eq!(outcome.summary.matches("**[unknown-key](").count(), 25);
    assert_eq!(outcome.outputs["findings"], "25");
}

#[test]
fn sarif_is_written_and_uploaded_where_the_token_may() {
    let (job, base, head) = pull_request();
    let job =
        job.pull_request(&base, &head).input("sarif-file", "out dir.sarif").input("category", "llm configs");
    let outcome = job.run();
    assert_eq!(outcome.code, 1);
    let sarif = std::fs::read_to_string(job.workspace().join("out dir.sarif")).expect("SARIF");
    assert!(sarif.contains("over-budget"));
    assert_eq!(outcome.uploads.len(), 1, "also when the check failed");
    assert_eq!(outcome.uploads[0]["sarif_file"], "out dir.sarif");
    assert_eq!(outcome.uploads[0]["category"], "llm configs");

    let fork = job.github("event.pull_request.head.repo.full_name", "stranger/r").run();
    assert!(fork.uploads.is_empty(), "the token of a fork's pull request cannot upload");
    assert_eq!(fork.code, 1);
}

/// A stand-in for GitHub's own program: keeps its arguments and answers the list of comments.
const GH: &str = "#!/bin/sh
printf '%s\\n' \"$@\" >>\"$HOME/gh\"
[ -z \"$GH_FAILS\" ] || exit 1
[ -n \"$GH_TOKEN\" ] || exit 4
case \"$*\" in *--jq*) printf '%s' \"$GH_COMMENT\" ;; esac
";

#[test]
fn the_comment_is_opt_in_and_never_fails_the_run() {
    let with_gh = || {
        let (job, base, head) = pull_request();
        job.pull_request(&base, &head).program("gh", GH).input("token", "t")
    };
    let calls = |job: &Job| std::fs::read_to_string(job.folder().join("home/gh")).unwrap_or_default();

    let silent = with_gh();
    silent.run();
    assert_eq!(calls(&silent), "");

    let first = with_gh().input("comment-summary", "true");
    let outcome = first.run();
    assert!(outcome.of("notice").is_empty(), "{}", outcome.log);
    assert!(calls(&first).contains("--method\nPOST\nrepos/o/r/issues/7/comments\n"), "{}", calls(&first));

    let again = with_gh().input("comment-summary", "true").environment("GH_COMMENT", "41\n42\n");
    again.run();
    assert!(calls(&again).contains("--method\nPATCH\nrepos/o/r/issues/comments/41\n"), "{}", calls(&again));

    let refused = with_gh().input("comment-summary", "true").environment("GH_FAILS", "1").run();
    assert_eq!(refused.code, 1, "the code of the findings");
    assert!(refused.of("notice")[0].data.contains("no comment written"), "{}", refused.log);
    assert!(refused.summary.contains("❌\u{a0}exceeds"));
}

fn sha256(path: &Path) -> String {
    for (program, arguments) in [("sha256sum", &[][..]), ("shasum", &["-a", "256"][..])] {
        if let Ok(done) = std::process::Command::new(program).args(arguments).arg(path).output() {
            return String::from_utf8_lossy(&done.stdout).split(' ').next().unwrap_or_default().to_owned();
        }
    }
    panic!("neither sha256sum nor shasum");
}

/// A job on Linux x86-64 whose downloads give one archive, with a table that knows its checksum.
fn release(wrong: bool) -> Job {
    let job = Job::new(&[("sft.yaml", RUN)])
        .program("llmlint", &format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_llmlint")));
    let done = std::process::Command::new("tar")
        .args(["-czf", "archive.tar.gz", "-C", "bin", "llmlint"])
        .current_dir(job.folder())
        .status()
        .expect("tar runs");
    assert!(done.success());
    let sum = if wrong { "0".repeat(64) } else { sha256(&job.folder().join("archive.tar.gz")) };
    let table = format!(
        "# a comment\n{z}  0.1.0  x86_64-unknown-linux-musl\n{sum}  0.2.0  x86_64-unknown-linux-musl\n{z}  0.3.0  aarch64-apple-darwin\n",
        z = "0".repeat(64)
    );
    let archive = job.folder().join("archive.tar.gz");
    let curl = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >\"$HOME/curl\"\nwhile [ \"$1\" != --output ]; do shift; done\ncp '{}' \"$2\"\n",
        archive.display()
    );
    job.with_checksums(&table)
        .program("curl", &curl)
        .program("uname", "#!/bin/sh\n[ \"$1\" = -s ] && echo Linux || echo x86_64\n")
        .program("cargo", "#!/bin/sh\npwd >\"$HOME/cargo\"\nexit 1\n")
}

#[test]
fn a_release_is_run_only_when_its_checksum_is_known() {
    let job = release(false);
    let outcome = job.run();
    assert_eq!(outcome.code, 0, "{}", outcome.log);
    assert_eq!(answer(&outcome), ("unknown", "0"));
    let curl = std::fs::read_to_string(job.folder().join("home/curl")).expect("curl was called");
    assert!(
        curl.ends_with("/releases/download/v0.2.0/llmlint-0.2.0-x86_64-unknown-linux-musl.tar.gz\n"),
        "the newest for this system: {curl}"
    );
    assert_eq!(release(false).input("version", "v0.2.0").run().code, 0);
    could_not(&release(false).input("version", "0.1.0").run(), "checksum differs");
    could_not(&release(false).input("version", "9.9.9").run(), "no checksum for that version");
    could_not(&release(false).input("version", "$(touch PWNED)").run(), "no checksum for that version");
    could_not(&release(true).run(), "checksum differs");
    could_not(&release(false).program("curl", "#!/bin/sh\nexit 22\n").run(), "could not be downloaded");
}

#[test]
fn a_build_never_obeys_the_checked_repository() {
    let job = release(false).input("version", "source");
    could_not(&job.run(), "building from source failed");
    let place = std::fs::read_to_string(job.folder().join("home/cargo")).expect("cargo was called");
    assert_eq!(place.trim(), job.folder().join("action").canonicalize().expect("exists").to_string_lossy());
}
