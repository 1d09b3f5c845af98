//! Every file of the corpus: a confusion table over all frameworks and how often each may be
//! missed; the share of runs that get an estimate, with why not for the rest; the findings of
//! severity error, by rule. Reads `../shared/corpus` (or `$LLMLINT_SHARED/corpus`) and skips aloud
//! where there is none.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the table is the point")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llmlint::check::{Context, FileReport, check_bytes};
use llmlint::document::{Document, Syntax};
use llmlint::finding::Severity;
use llmlint::framework::{self, Kind};
use llmlint::settings::BudgetTable;
use llmlint::source::Source;

/// The manifest's name of a framework, ours, and the share of its files that must be recognised.
///
/// Below 0.995: overlays that say nothing of memory (paths, logging), and kinds that are no
/// language-model training (speech, encoders).
const LEVELS: &[(&str, &str, f64)] = &[
    ("axolotl", "axolotl", 0.995),
    // One template of six is no JSON even to a forgiving reader (`"stage": ${zero_stage}`).
    ("deepspeed", "deepspeed", 0.990),
    ("torchtitan", "torchtitan", 0.995),
    ("torchtune", "torchtune", 0.995),
    ("litgpt", "litgpt", 0.995),
    ("gpt-neox", "gpt-neox", 0.995),
    ("llm-foundry", "llm-foundry", 0.995),
    ("verl", "verl", 0.950),
    ("easyr1", "easyr1", 0.995),
    ("h2o-llmstudio", "h2o-llmstudio", 0.995),
    ("megatron-lm", "megatron-lm", 0.995),
    ("megatron-bridge", "megatron-bridge", 0.995),
    ("nemo", "nemo", 0.760),
    ("nemo-launcher", "nemo", 0.990),
    ("nemo-rl", "nemo-rl", 0.990),
    ("nemo-automodel", "nemo-automodel", 0.995),
    ("nanotron", "nanotron", 0.995),
    ("picotron", "picotron", 0.995),
    ("lingua", "lingua", 0.995),
    ("olmo", "olmo", 0.950),
    ("levanter", "levanter", 0.910),
    ("maxtext", "maxtext", 0.960),
    ("open_lm", "open_lm", 0.860),
    ("prime-rl", "prime-rl", 0.970),
    ("ms-swift", "ms-swift", 0.750),
    ("llamafactory", "llama-factory", 0.995),
    ("llamafactory-v1", "llama-factory-v1", 0.995),
    ("trl", "trl", 0.995),
    ("open-instruct", "open-instruct", 0.995),
    ("accelerate", "accelerate", 0.995),
    ("hf-fsdp-json", "hf-fsdp-json", 0.995),
    ("autotrain", "autotrain", 0.995),
];

struct Row {
    kind: String,
    framework: String,
    path: String,
    note: String,
}

fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("LLMLINT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let corpus = shared.join("corpus");
    corpus.join("manifest.tsv").is_file().then_some(corpus)
}

fn rows(corpus: &Path) -> Vec<Row> {
    let manifest = std::fs::read_to_string(corpus.join("manifest.tsv")).unwrap_or_default();
    manifest
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            let (kind, framework, path) = (cells.next()?, cells.next()?, cells.next()?);
            Some(Row { kind, framework, path, note: cells.nth(3).unwrap_or_default() })
        })
        .collect()
}

fn answer(file: &Path) -> (String, Option<Kind>) {
    let shown = file.to_string_lossy();
    let Some(syntax) = Syntax::of_path(&shown) else { return ("not read".into(), None) };
    let Ok(text) = std::fs::read_to_string(file) else { return ("not read".into(), None) };
    let document = Document::parse(&Source::new(shown.as_ref(), text), syntax);
    match framework::recognise(&document) {
        Some((framework, kind)) => (framework.name().to_owned(), Some(kind)),
        None if document.is_broken() => ("broken".into(), None),
        None => ("none".into(), None),
    }
}

#[test]
fn files_are_recognised_as_what_they_are() {
    let Some(corpus) = corpus() else {
        eprintln!("SKIPPED: no corpus at ../shared/corpus");
        return;
    };
    let verbose = std::env::var_os("CORPUS_VERBOSE").is_some();
    let mut table: BTreeMap<(String, String), BTreeMap<String, usize>> = BTreeMap::new();
    let mut runs_among_others = Vec::new();
    for row in rows(&corpus) {
        let (name, kind) = answer(&corpus.join(&row.path));
        let cell = match kind {
            None | Some(Kind::Run) => name.clone(),
            Some(Kind::Fragment) => format!("{name} (fragment)"),
            Some(Kind::Other) => format!("{name} (no training)"),
        };
        if row.kind == "other" && kind == Some(Kind::Run) {
            runs_among_others.push(format!("{} as {name}", row.path));
        }
        let wanted = LEVELS.iter().find(|(theirs, ..)| *theirs == row.framework).map(|(_, ours, _)| *ours);
        if verbose && row.kind == "config" && wanted != Some(name.as_str()) {
            println!("{} {} -> {cell} [{}]", row.framework, row.path, row.note);
        }
        *table.entry((row.kind, row.framework)).or_default().entry(cell).or_default() += 1;
    }
    for ((kind, framework), cells) in &table {
        let cells: Vec<String> = cells.iter().map(|(cell, n)| format!("{cell} {n}")).collect();
        println!("{kind:6} {framework:18} {}", cells.join(", "));
    }
    for path in &runs_among_others {
        println!("taken for a run: {path}");
    }
    let mut missed = Vec::new();
    for (theirs, ours, level) in LEVELS {
        let Some(cells) = table.get(&("config".to_owned(), (*theirs).to_owned())) else { continue };
        let all: usize = cells.values().sum();
        let right: usize =
            cells.iter().filter(|(cell, _)| cell.split(" (").next() == Some(*ours)).map(|(_, n)| n).sum();
        let share = right as f64 / all as f64;
        println!("{theirs:18} {right}/{all} {:.2} %", 100.0 * share);
        if share < *level {
            missed.push(format!("{theirs}: {right} of {all}"));
        }
    }
    assert!(missed.is_empty(), "below the recorded level: {missed:?}");
    assert!(runs_among_others.len() <= 10, "{} other files are taken for runs", runs_among_others.len());
}

/// Our name of a framework and the share of its runs in the corpus that must get an estimate once
/// 8 GPUs are declared. What is below 1 is models: ids that are not public or not in the catalogue,
/// families whose layers are not traced, diffusion.
const SHARES: &[(&str, f64)] = &[
    ("axolotl", 0.91),
    ("llama-factory", 0.84),
    ("llama-factory-v1", 1.0),
    ("trl", 1.0),
    ("open-instruct", 0.86),
    ("autotrain", 1.0),
    ("torchtune", 1.0),
    ("torchtitan", 0.76),
    ("litgpt", 1.0),
    ("gpt-neox", 0.88),
    ("llm-foundry", 0.95),
];

/// Errors over the corpus, by rule. More than these is a false alarm until it is proved. The proofs:
///
/// | rule, files | who refuses, and where |
/// |---|---|
/// | axolotl-refuses: early stopping (`falcon/config-7b-qlora.yml`, `xgen-7b-8k-qlora.yml`) | `early_stopping_patience` without `save_steps` and `eval_steps` raises since 3678a6c (2023-12), `utils/config.py:320`; 067b021, `utils/schemas/validation.py:1616` |
/// | axolotl-refuses: FSDP2 with `adamw_bnb_8bit` (`mistral4/fft-text.yml`, `fft-vision.yml`) | 067b021, `utils/schemas/validation.py:1140`, `check_fsdp2_w_8bit_optimizer` |
/// | axolotl-refuses: Falcon under FSDP (`falcon-e/falcon-e-3b-ft.yaml`) | 0.20.0 and 0.21.0, `utils/schemas/validation.py`, `check_falcon_fsdp`, looks at `fsdp_config`; until 0.19 only at `fsdp`, so the file ran when it was written |
/// | duplicate-key: `stage` (AceCoder `train_qwen_coder_ins_2.5_7b.yaml`) | LLaMA-Factory 0.9.5 reads with OmegaConf, whose loader raises "found duplicate key" (run) |
/// | unknown-key: accelerate `tests/test_configs/invalid_keys.yaml` | made to be refused: `commands/config/config_args.py` raises "not found in the default config" |
/// | unknown-key, wrong-type: trlx's two files | `fp16` is a pydantic model with `extra="forbid"`: DeepSpeed 0.19.8 `runtime/config_utils.py`, `precision_config.py` (`min_loss_scale: int`); before 2025-06 (e440506) a plain dict dropped them |
/// | unknown-key: `OpenThinker-7B.yaml` | dataset columns and a global batch that no class in LLaMA-Factory `hparams/` ever had; `HfArgumentParser.parse_dict` raises |
/// | unknown-key: `attention_type` (NeoX `llemma/34B.yml`) | no field of `neox_arguments/` at the file's commit; `NeoXArgs(**config)` raises TypeError |
/// | unknown-key: `classifer_free_guidance_scale` (torchtitan flux) | f7084fc (v0.1.0) `experiments/flux/job_config.py:42` has `classifier_free_guidance_scale`; tyro refuses the misspelt key |
/// | wrong-type: `tokens` (`redpajama/config-3b.yml`) | a mapping for `tokens: list[str]`, `utils/schemas/config.py:969` at 96ae8bd; pydantic takes no mapping for a list |
/// | wrong-type: `warmup_steps: 0.1` (`expert_parallel/qwen3_30ba3b_ep_*`) | `warmup_steps: int`, `utils/schemas/config.py:1000` at 96ae8bd; pydantic refuses a fraction |
const ERRORS: &[(&str, usize)] =
    &[("axolotl-refuses", 5), ("duplicate-key", 1), ("unknown-key", 16), ("wrong-type", 4)];

/// The manifest's names of the frameworks whose files are checked.
const CHECKED: &[&str] = &[
    "accelerate",
    "autotrain",
    "axolotl",
    "deepspeed",
    "gpt-neox",
    "hf-fsdp-json",
    "litgpt",
    "llamafactory",
    "llamafactory-v1",
    "llm-foundry",
    "open-instruct",
    "torchtitan",
    "torchtune",
    "trl",
];

fn report(corpus: &Path, row: &Row, context: &Context) -> Option<FileReport> {
    let bytes = std::fs::read(corpus.join(&row.path)).ok()?;
    check_bytes(&row.path, bytes, Syntax::of_path(&row.path)?, true, context)
}

#[test]
fn runs_are_estimated_and_errors_are_proved_ones() {
    let Some(corpus) = corpus() else {
        eprintln!("SKIPPED: no corpus at ../shared/corpus");
        return;
    };
    let command_line = BudgetTable { gpus: Some(8), ..BudgetTable::default() };
    let context = Context { working_directory: corpus.clone(), command_line, ..Context::default() };
    let ours = |row: &Row| row.kind == "config" && CHECKED.contains(&row.framework.as_str());
    let mut shares: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut reasons: BTreeMap<(&str, String), usize> = BTreeMap::new();
    let mut errors: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let rows = rows(&corpus);
    for row in rows.iter().filter(|row| ours(row)) {
        let Some(report) = report(&corpus, row, &context) else { continue };
        for finding in report.findings.iter().filter(|f| f.severity == Severity::Error) {
            errors.entry(finding.rule).or_default().push(format!("{}: {}", row.path, finding.message));
        }
        let Some(name) = report.framework.filter(|_| report.kind == Kind::Run) else { continue };
        if !SHARES.iter().any(|(ours, _)| *ours == name) {
            continue;
        }
        let (estimated, all) = shares.entry(name).or_default();
        *all += 1;
        if report.estimate.is_some() {
            *estimated += 1;
        }
        for unknown in report.unknown.iter().filter(|_| report.estimate.is_none()) {
            let why: String = unknown.why.chars().take(100).collect();
            *reasons.entry((name, format!("{}: {why}", unknown.what))).or_default() += 1;
        }
    }
    let mut below = Vec::new();
    for (name, floor) in SHARES {
        let (estimated, all) = shares.get(name).copied().unwrap_or_default();
        println!("{name:18} {estimated}/{all} estimated");
        if (estimated as f64) < floor * all as f64 {
            below.push(format!("{name}: {estimated} of {all}"));
        }
    }
    for ((name, why), count) in &reasons {
        println!("  {name:16} {count:3} {why}");
    }
    let mut more = Vec::new();
    for (rule, files) in &errors {
        println!("error {rule:22} {}", files.len());
        files.iter().for_each(|line| println!("  {line}"));
        let known = ERRORS.iter().find(|(name, _)| name == rule).map_or(0, |(_, count)| *count);
        if files.len() > known {
            more.push(format!("{rule}: {} where {known} are proved", files.len()));
        }
    }
    assert!(below.is_empty(), "below the recorded share: {below:?}");
    assert!(more.is_empty(), "{more:?}");
}
