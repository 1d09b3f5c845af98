//! Every output format over one shared set of findings, which includes what a hostile pull
//! request would hold.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

use std::time::Duration;

use clap::ValueEnum as _;
use llmlint::check::{Context, FileReport, Report, Verdict, check_bytes};
use llmlint::document::Syntax;
use llmlint::finding::{Edit, Finding, Fix, Safety, Severity};
use llmlint::memory::{
    Cause, Component, Driver, Entry, Estimate, Interval, Ledger, ParameterCount, Phase, PhaseSet, RankTotal,
};
use llmlint::report::{self, Format, Options};
use llmlint::settings::Budget;
use llmlint::source::{Location, Source, Span};
use llmlint::units::Bytes;

const RUN: &str = "\
llmlint: 1
model:
  architecture: llama
  hidden_size: 4096
  intermediate_size: 14336
  num_hidden_layers: 32
  num_attention_heads: 32
  num_key_value_heads: 8
  vocab_size: 128256
training:
  weights: bf16
  optimizer: adamw
  micro_batch_size: 4
  gradient_accumulation_steps: 2
  sequence_length: 8192
  activation_checkpointing: none
";

fn entry(
    component: Component,
    name: &str,
    formula: &str,
    numbers: &str,
    gib: f64,
    live: PhaseSet,
    drivers: &[Driver],
) -> Entry {
    Entry {
        component,
        name: name.into(),
        formula: formula.into(),
        numbers: numbers.into(),
        bytes: Bytes::from_gib(gib),
        live,
        drivers: drivers.to_vec(),
        source: "shapes of the tensors",
    }
}

fn estimate(scale: f64) -> Estimate {
    let forward = PhaseSet::of(&[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward, Phase::BackwardTop]);
    let head = PhaseSet::of(&[Phase::Loss, Phase::HeadBackward]);
    let ledger = Ledger {
        entries: vec![
            entry(
                Component::Weights,
                "weights in bf16",
                "2·P",
                "2·8030261248",
                14.96,
                PhaseSet::ALL,
                &[Driver::Model, Driver::Weights],
            ),
            entry(
                Component::Optimizer,
                "two moments in bf16",
                "2·2·P",
                "2·2·8030261248",
                29.92,
                PhaseSet::ALL,
                &[Driver::Optimizer],
            ),
            entry(
                Component::Activations,
                "saved for backward, 32 layers",
                "n·N·(34·d + 6·f)",
                "32·32768·(34·4096 + 6·14336)",
                38.1 * scale,
                forward,
                &[Driver::Checkpointing, Driver::MicroBatchSize, Driver::SequenceLength],
            ),
            entry(
                Component::Logits,
                "logits in fp32 and their gradient",
                "2·4·N·V",
                "2·4·32768·128256",
                11.2 * scale,
                head,
                &[Driver::Loss, Driver::MicroBatchSize],
            ),
        ],
    };
    let (phase, allocated) = ledger.peak();
    let reserved = allocated + Bytes::from_gib(2.4);
    let device = reserved + Bytes::from_gib(0.7);
    Estimate {
        allocated,
        reserved,
        device,
        allocated_interval: Interval { low: allocated, high: allocated },
        reserved_interval: Interval { low: reserved, high: reserved },
        outside: Bytes::from_gib(0.7),
        device_interval: Interval { low: device - Bytes::from_gib(3.0), high: device + Bytes::from_gib(5.5) },
        causes: vec![
            Cause {
                what: "reserved by the allocator beyond what is allocated".into(),
                below: Bytes::from_gib(2.4),
                above: Bytes::from_gib(4.0),
            },
            Cause {
                what: "CUDA context and libraries".into(),
                below: Bytes::from_gib(0.3),
                above: Bytes::from_gib(0.5),
            },
        ],
        phase,
        rank: "every rank".into(),
        ranks: vec![RankTotal { rank: "every rank".into(), allocated, phase }],
        ledger,
        host: Bytes::ZERO,
        host_loading: Bytes::ZERO,
        parameters: ParameterCount { total: 8_030_261_248, trainable: 8_030_261_248, embedding: 525_336_576 },
    }
}

fn span(text: &str, part: &str) -> Span {
    let start = text.find(part).unwrap_or_else(|| panic!("`{part}` is in the text"));
    Span::new(start, start + part.len())
}

fn at(text: &str, part: &str) -> Location {
    Location::primary(span(text, part))
}

fn run_file(path: &str, scale: f64, budget: Option<f64>) -> FileReport {
    let mut file =
        check_bytes(path, RUN.as_bytes().to_vec(), Syntax::Yaml, true, &Context::default()).expect("ours");
    let estimate = estimate(scale);
    file.findings.clear();
    file.unknown.clear();
    file.rule_of_thumb = None;
    file.budget = budget.map(|gib| Budget {
        gpu: None,
        memory: Bytes::from_gib(gib),
        gpus: None,
        host_memory: None,
        declared_in: "llmlint.toml".into(),
    });
    file.verdict = Verdict::of(Some(&estimate), file.budget.as_ref());
    file.estimate = Some(estimate);
    file
}

/// Over its budget, with everything a finding can have.
fn over_budget() -> FileReport {
    let mut file = run_file("configs/sft.yaml", 1.0, Some(79.1));
    file.findings = vec![
        Finding::new(
            "over-budget",
            Severity::Error,
            at(RUN, "none\n"),
            "peak of 97.3 GiB (94.3 to 103 GiB) is 18.2 GiB over the 79.1 GiB that llmlint.toml allows",
        )
        .at("activations: 38.1 GiB")
        .label(at(RUN, "adamw"), "optimizer: 29.9 GiB")
        .label(at(RUN, "architecture: llama"), "weights: 15.0 GiB")
        .note("the peak is at the start of the loss's backward, on every rank")
        .note("94.3 to 102.8 GiB: reserved by the allocator beyond what is allocated (-2.4, +4.0 GiB)")
        .help("activation checkpointing: 61.2 GiB")
        .help("micro batch 1 with 8 accumulation steps (same global batch): 63.4 GiB"),
        Finding::new(
            "unknown-key",
            Severity::Warning,
            at(RUN, "optimizer:"),
            "`optimiser` is not a key of the native format",
        )
        .note("unknown keys are refused")
        .fix(Safety::Safe, "rename it", span(RUN, "optimizer"), "optimizer_state"),
        Finding::new(
            "tight-fit",
            Severity::Note,
            at(RUN, "gradient_accumulation_steps: 2"),
            "a note on a value",
        ),
    ];
    file.findings[0].fixes.push(Fix {
        title: "activation checkpointing".into(),
        safety: Safety::Unsafe,
        edits: vec![Edit { location: at(RUN, "none\n"), replacement: "full\n".into() }],
    });
    file.suppressed = 2;
    file
}

const EVIL_NAME: &str = "evil\n::error file=a.py::INJECTED\u{202e}##[add-mask]\u{1b}[2J.yaml";

/// What a pull request could hold, in every place a finding can show it.
fn hostile() -> FileReport {
    let long = "x".repeat(70_000);
    let text = format!(
        "\u{feff}a: \"\u{1b}[2J\u{1b}]8;;http://evil\u{1b}\\link\u{7}\"\n\
         ::error::pwned\n\
         lr: 1 ##[add-mask]a ##vso[task.setvariable variable=x]y\n\
         b\u{202e}idi\u{2066}: \u{200b}zero\u{9b}31m\0nul\rcr\u{85}nel\u{2028}ls\n\
         {{\"k\": \"{long}\", \"bad\": <script>alert(1)</script> | `code` @everyone, \"z\": \"{long}\"}}\n\
         tab\tx: 1\n"
    );
    let source = Source::new(EVIL_NAME, text.clone());
    let evil = |what: &str| {
        format!(
            "{what} \u{1b}]8;;http://evil\u{1b}\\x\u{7} ::error::pwned\n::warning::x ##[add-mask]a \u{202e}\u{200b}\u{feff}\0 <b>&\"'</b> |`@x`| ]]> %0A"
        )
    };
    let mut file = FileReport::empty(&source);
    file.framework = Some("axolotl");
    file.findings = vec![
        Finding::new(
            "unknown-key",
            Severity::Error,
            at(&text, "\u{1b}]8;;http://evil\u{1b}\\link"),
            evil("message"),
        )
        .at(evil("primary"))
        .label(at(&text, "::error::pwned"), evil("label"))
        .label(at(&text, "##[add-mask]a"), evil("label two"))
        .note(evil("note"))
        .help(evil("help"))
        .fix(Safety::Safe, evil("fix"), span(&text, "##[add-mask]a"), "::error::x\n##[y]\u{1b}"),
        Finding::new("wrong-type", Severity::Warning, at(&text, "<script>"), "far beyond column 65,535")
            .at("here"),
        Finding::new("wrong-type", Severity::Warning, at(&text, "zero"), "among controls").at("here"),
        Finding::new(
            "wrong-type",
            Severity::Note,
            Location::primary(Span::new(text.len(), text.len())),
            "at the very end",
        ),
        Finding::new(
            "wrong-type",
            Severity::Note,
            Location::primary(Span::new(9_000_000, 9_000_009)),
            "out of bounds",
        ),
    ];
    file
}

/// A finding in a file that the checked file refers to.
fn referenced() -> FileReport {
    let mut file = run_file("configs/dpo.yaml", 0.3, Some(79.1));
    let other = "{\n  \"zero_optimization\": { \"stage\": 3 }\n}\n";
    file.sources.push(Source::new("deepspeed/zero3.json", other));
    let mut there = at(other, "\"stage\"");
    there.source.0 = 1;
    file.findings = vec![
        Finding::new(
            "conflicting-keys",
            Severity::Warning,
            at(RUN, "micro_batch_size: 4"),
            "two files disagree",
        )
        .at("4 here")
        .label(there, "3 there"),
    ];
    file
}

fn shared_report() -> Report {
    let clean = run_file("configs/a-rather-long-folder-name/and-another/clean.yaml", 0.2, Some(79.1));
    Report {
        files: vec![clean, referenced(), over_budget(), hostile(), run_file("no-budget.yaml", 0.5, None)],
        skipped: 35,
        not_recognised: Vec::new(),
        elapsed: Duration::from_millis(18),
    }
}

fn base_report() -> Report {
    Report {
        files: vec![run_file("configs/sft.yaml", 0.8, Some(79.1)), run_file("no-budget.yaml", 0.5, None)],
        ..Report::default()
    }
}

fn render(format: Format, options: &Options<'_>) -> String {
    let mut out = Vec::new();
    report::write(format, &shared_report(), options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn name(format: Format) -> String {
    format.to_possible_value().unwrap().get_name().to_owned()
}

#[test]
fn every_format_keeps_its_shape() {
    let base = base_report();
    for format in Format::value_variants() {
        let options = Options { base: Some(&base), version: "0.0.0", ..Options::default() };
        let mut text = render(*format, &options);
        if *format == Format::Sarif {
            // Rules' own pages and levels are not what this test is about.
            let mut log: serde_json::Value = serde_json::from_str(&text).unwrap();
            for rule in log["runs"][0]["tool"]["driver"]["rules"].as_array_mut().unwrap() {
                for part in
                    ["/shortDescription/text", "/fullDescription/text", "/help/text", "/help/markdown"]
                {
                    assert!(
                        rule.pointer(part).and_then(|t| t.as_str()).is_some_and(|t| !t.is_empty()),
                        "{rule}"
                    );
                }
                let level = rule["defaultConfiguration"]["level"].as_str().unwrap();
                assert!(["note", "warning", "error"].contains(&level), "{rule}");
                *rule =
                    serde_json::json!({ "id": rule["id"], "name": rule["name"], "helpUri": rule["helpUri"] });
            }
            text = serde_json::to_string_pretty(&log).unwrap();
        }
        insta::assert_snapshot!(name(*format), text);
    }
}

#[test]
fn pretty_in_narrow_terminals_ascii_and_colour() {
    let narrow = Options { width: 60, ..Options::default() };
    insta::assert_snapshot!("pretty-60", render(Format::Pretty, &narrow));
    let ascii = Options { ascii: true, ..Options::default() };
    let text = render(Format::Pretty, &ascii);
    insta::assert_snapshot!("pretty-ascii", text);
    let color = Options { color: true, links: true, ..Options::default() };
    let text = render(Format::Pretty, &color);
    let (mut plain, mut rest) = (String::new(), text.as_str());
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        // Colours and, for the rule's page, hyperlinks: nothing else may come from us.
        rest = match after.strip_prefix("]8;;") {
            Some(link) => link.split_once("\u{1b}\\").unwrap().1,
            None => {
                let (codes, rest) = after.strip_prefix('[').unwrap().split_once('m').unwrap();
                assert!(codes.chars().all(|c| c.is_ascii_digit() || c == ';'), "{codes}");
                rest
            }
        };
    }
    plain.push_str(rest);
    let plain = plain.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let expected = render(Format::Pretty, &Options::default());
    let expected = expected.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(plain, expected, "colour changes nothing but colour");
}

/// Nothing from a repository moves a cursor, reorders text or is taken for a workflow command.
#[test]
fn no_format_passes_hostile_text_on() {
    let base = base_report();
    for format in Format::value_variants() {
        for (width, ascii) in [(100, false), (40, true), (23, false), (0, false)] {
            let options = Options { width, ascii, base: Some(&base), ..Options::default() };
            let text = render(*format, &options);
            for (number, line) in text.lines().enumerate() {
                let bad = line.chars().find(|c| llmlint::sanitize::is_hostile(*c));
                assert!(bad.is_none(), "{format:?} width {width} line {number}: {bad:?} in {line}");
                let start = line.trim_start();
                assert!(
                    !start.starts_with("::") || *format == Format::Github,
                    "{format:?} width {width}: a live command: {line}"
                );
                for command in ["##[", "##vso["] {
                    assert!(!line.contains(command), "{format:?} width {width}: a live command: {line}");
                }
            }
            if *format == Format::Github {
                for line in text.lines() {
                    let known = ["::error ", "::warning ", "::notice "];
                    assert!(known.iter().any(|k| line.starts_with(k)), "{line}");
                    // The runner splits at the first `::` after the name.
                    let (_, data) = line[2..].split_once("::").unwrap();
                    assert!(!data.contains("::error") && !data.contains("::warning"), "{line}");
                }
            }
            if !ascii && matches!(format, Format::Pretty | Format::Concise) {
                let longest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
                assert!(longest < 1_000, "{format:?}: a line of {longest} characters");
            }
        }
    }
}

#[test]
fn annotations_are_capped_and_say_how_many_are_left() {
    let mut file = over_budget();
    let one = file.findings[1].clone();
    file.findings = std::iter::repeat_n(one, 30).collect();
    let report = Report { files: vec![file], ..Report::default() };
    let mut out = Vec::new();
    report::write(Format::Github, &report, &Options::default(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 10);
    assert!(text.lines().last().unwrap().contains("and 21 more warnings"), "{text}");
}

#[test]
fn paths_for_forges_are_relative_to_the_repository() {
    let options = Options {
        root: Some("/repo".into()),
        working_directory: Some("/repo/training".into()),
        ..Options::default()
    };
    assert!(render(Format::Github, &options).contains("file=training/configs/sft.yaml,"));
    assert!(render(Format::Concise, &options).contains("\nconfigs/sft.yaml:"));
}

#[test]
fn a_report_without_files_is_fine_in_every_format() {
    for format in Format::value_variants() {
        let mut out = Vec::new();
        report::write(*format, &Report::default(), &Options::default(), &mut out).unwrap();
    }
}

#[test]
fn sources_that_are_gone_are_no_panic() {
    let mut file = over_budget();
    file.sources.clear();
    let report = Report { files: vec![file], ..Report::default() };
    for format in Format::value_variants() {
        let mut out = Vec::new();
        report::write(*format, &report, &Options::default(), &mut out).unwrap();
    }
}
/// What a memory rule says about a file whose estimate is known.
fn memory_rule(name: &str, file: &FileReport) -> Vec<Finding> {
    let document = llmlint::document::Document::parse(&file.sources[0], Syntax::Yaml);
    let framework = llmlint::framework::by_name("llmlint").unwrap();
    let settings = llmlint::settings::Settings::default();
    let checked = llmlint::rules::Checked {
        sources: &file.sources,
        document: &document,
        root: document.root(framework.dialect(Syntax::Yaml)),
        framework: Some(framework),
        kind: file.kind,
        run: file.run.as_ref(),
        architecture: None,
        model: None,
        mistakes: &[],
        estimate: file.estimate.as_ref(),
        floor: file.floor.as_ref(),
        unknown: &file.unknown,
        budget: file.budget.as_ref(),
        verdict: file.verdict,
        settings: &settings,
        again: &|_| None,
    };
    let mut findings = Vec::new();
    llmlint::rules::by_name(name).unwrap().check(&checked, &mut findings);
    findings
}

#[test]
fn over_budget_points_at_the_lines_that_drive_the_peak() {
    let file = run_file("configs/sft.yaml", 1.0, Some(79.1));
    let [finding] = &memory_rule("over-budget", &file)[..] else { panic!("one finding") };
    assert_eq!(
        finding.message,
        "peak of 97.3 GiB (94.3 to 103 GiB) is 18.2 GiB over the 79.1 GiB that llmlint.toml allows"
    );
    assert_eq!(file.sources[0].slice(finding.primary.location.span), "none");
    assert_eq!(finding.primary.text, "saved for backward, 32 layers: 38.1 GiB");
    let labels: Vec<(&str, &str)> =
        finding.labels.iter().map(|l| (file.sources[0].slice(l.location.span), l.text.as_str())).collect();
    assert_eq!(
        labels,
        [
            ("adamw", "two moments in bf16: 29.9 GiB"),
            ("4", "logits in fp32 and their gradient: 11.2 GiB"),
            ("model", "weights in bf16: 15.0 GiB"),
        ],
        "the loss is not written, so its next driver is labelled; the model, which nobody changes, is last"
    );
    assert_eq!(
        finding.notes,
        [
            "the peak is at the start of the loss's backward, on every rank: 94.2 GiB allocated, 96.6 GiB reserved by \
             the allocator, 97.3 GiB on the device, which is what the budget limits",
            "about nine runs in ten need 94.3 to 103 GiB: reserved by the allocator beyond what is \
             allocated (-2.4 GiB, +4.0 GiB), CUDA context and libraries (-307 MiB, +512 MiB)",
            "not in the file, and it matters here: loss full (default of llmlint 1)",
        ]
    );
    assert!(memory_rule("tight-fit", &file).is_empty());
}

#[test]
fn a_budget_within_the_interval_is_tight() {
    let file = run_file("configs/sft.yaml", 1.0, Some(98.0));
    let [finding] = &memory_rule("tight-fit", &file)[..] else { panic!("one finding") };
    assert_eq!(
        finding.message,
        "peak of 97.3 GiB (94.3 to 103 GiB) may end 4.8 GiB over the 98.0 GiB that llmlint.toml allows"
    );
    assert!(memory_rule("over-budget", &file).is_empty());
    assert!(memory_rule("over-budget", &run_file("a.yaml", 1.0, None)).is_empty(), "no budget, no finding");
    assert!(memory_rule("tight-fit", &run_file("a.yaml", 0.1, Some(79.1))).is_empty(), "it fits");
}

#[test]
fn offloaded_states_are_held_against_the_host() {
    let mut file = run_file("configs/sft.yaml", 0.1, Some(79.1));
    if let Some(estimate) = &mut file.estimate {
        estimate.host = Bytes::from_gib(300.0);
    }
    assert!(memory_rule("host-over-budget", &file).is_empty(), "no host memory is declared");
    if let Some(budget) = &mut file.budget {
        budget.host_memory = Some(Bytes::from_gib(256.0));
    }
    let [finding] = &memory_rule("host-over-budget", &file)[..] else { panic!("one finding") };
    assert_eq!(
        finding.message,
        "offloaded states need 300 GiB of host memory, 44.0 GiB more than the 256 GiB of llmlint.toml"
    );
}

#[test]
fn a_budget_without_an_estimate_says_what_is_missing() {
    let mut file = run_file("configs/sft.yaml", 1.0, Some(79.1));
    file.estimate = None;
    file.verdict = Verdict::Unknown;
    file.unknown = vec![
        llmlint::run::Unknown {
            what: "gpus".into(),
            why: "nothing says how many; give `--gpus`".into(),
            location: None,
        },
        llmlint::run::Unknown {
            what: "model".into(),
            why: "not in the catalogue".into(),
            location: Some(at(RUN, "llama")),
        },
    ];
    let [finding] = &memory_rule("estimate-unknown", &file)[..] else { panic!("one finding") };
    assert_eq!(finding.message, "whether this run fits is not known: gpus, model");
    assert_eq!(finding.severity, Severity::Note);
    assert_eq!(file.sources[0].slice(finding.primary.location.span), "llama");
    assert_eq!(finding.notes[0], "gpus: nothing says how many; give `--gpus`");
    file.budget = None;
    assert!(memory_rule("estimate-unknown", &file).is_empty(), "without a budget nobody asked");
}

#[test]
fn explain_shows_every_line_of_the_sum() {
    let report = shared_report();
    let mut out = Vec::new();
    report::explain::write(&report, &Options::default(), true, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    for part in [
        "configs/sft.yaml (llmlint: llama, spelled out, full)",
        "  8,030,261,248 in all, 8,030,261,248 trained; the input embedding has 525,336,576",
        "  N         32,768  tokens of a micro-batch, B·S\n",
        "  *   38.1 GiB  saved for backward, 32 layers\n",
        " bytes = n·N·(34·d + 6·f)\n                = 32·32768·(34·4096 + 6·14336)\n",
        "                alive: forward-end to backward-top; source: shapes of the tensors\n",
        "  the start of the loss's backward    94.2 GiB  ██████████████████████████████  peak\n",
        "  device       97.3 GiB  nvidia-smi would show it; about nine runs in ten: 94.3 to 103 GiB\n",
        "  budget       79.1 GiB  declared in llmlint.toml\n  verdict                exceeds\n",
        "  every rank    94.2 GiB allocated, at the start of the loss's backward\n",
        "  micro_batch_size             4  (configs/sft.yaml:13:21)\n",
        "  loss                         full  (default of llmlint 1)\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let hostile = text.lines().flat_map(str::chars).find(|c| llmlint::sanitize::is_hostile(*c));
    assert_eq!(hostile, None);
    for width in [0, 40, 60] {
        let mut out = Vec::new();
        let options = Options { width, ascii: true, ..Options::default() };
        report::explain::write(&report, &options, true, &mut out).unwrap();
    }
}

#[test]
fn the_same_note_on_many_files_is_said_once() {
    let mut file = over_budget();
    let note = file.findings[2].clone();
    file.findings.extend(std::iter::repeat_n(note, 40));
    let report = Report { files: vec![file], ..Report::default() };
    let mut out = Vec::new();
    report::write(Format::Pretty, &report, &Options::default(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches("a note on a value").count(), 3);
    assert!(text.contains("note[tight-fit]: 38 more like these; `--format concise` lists them"), "{text}");
    assert!(text.contains("error[over-budget]"));
}

/// What GitHub code scanning requires of a log, checked without its large schema. The whole
/// schema was run against this output by hand.
#[test]
fn sarif_has_what_code_scanning_requires() {
    let log: serde_json::Value =
        serde_json::from_str(&render(Format::Sarif, &Options::default())).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    assert_eq!(run["columnKind"], "unicodeCodePoints");
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 9);
    for result in results {
        assert_eq!(rules[result["ruleIndex"].as_u64().unwrap() as usize]["id"], result["ruleId"]);
        assert!(["note", "warning", "error"].contains(&result["level"].as_str().unwrap()));
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
        let related = result["relatedLocations"].as_array().cloned().unwrap_or_default();
        for location in result["locations"].as_array().unwrap().iter().chain(&related) {
            let place = &location["physicalLocation"];
            let uri = place["artifactLocation"]["uri"].as_str().unwrap();
            assert!(uri.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b)), "{uri}");
            let number = |name: &str| place["region"][name].as_u64().unwrap();
            let (start, end) =
                ((number("startLine"), number("startColumn")), (number("endLine"), number("endColumn")));
            assert!(start.0 >= 1 && start.1 >= 1 && start <= end, "{place}");
        }
    }
}
