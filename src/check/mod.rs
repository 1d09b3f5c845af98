//! Puts the stages together: one file in, one [`FileReport`] out.

mod answer;
mod budget;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::catalog::Architecture;
use crate::catalog::models::{self, Lookup};
use crate::discover::Found;
use crate::document::{Document, Syntax, limits};
use crate::finding::{Finding, Severity};
use crate::framework::{self, Kind, Lowering, schema};
use crate::memory::Estimate;
use crate::memory::rule_of_thumb::{RuleOfThumb, rule_of_thumb};
use crate::rules::{self, Checked};
use crate::run::{Setting, TrainingRun, Unknown};
use crate::settings::{Budget, BudgetTable, Level, Settings, SettingsTree};
use crate::source::{Location, Source};
use crate::suppress;

/// Does the run fit?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The interval's upper end is under the budget.
    Fits,
    /// The interval straddles the budget.
    Tight,
    /// The interval's lower end is over the budget.
    Exceeds,
    /// There is no estimate, or no budget to compare it with.
    Unknown,
}

impl Verdict {
    /// The word of the JSON contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Fits => "fits",
            Verdict::Tight => "tight",
            Verdict::Exceeds => "exceeds",
            Verdict::Unknown => "unknown",
        }
    }

    /// How much it needs looking at: exceeds, tight, unknown, fits.
    pub fn gravity(self) -> u8 {
        match self {
            Verdict::Exceeds => 3,
            Verdict::Tight => 2,
            Verdict::Unknown => 1,
            Verdict::Fits => 0,
        }
    }

    /// Compares an estimate with a budget.
    pub fn of(estimate: Option<&Estimate>, budget: Option<&Budget>) -> Verdict {
        let (Some(estimate), Some(budget)) = (estimate, budget) else { return Verdict::Unknown };
        if estimate.device_interval.low > budget.memory {
            Verdict::Exceeds
        } else if estimate.device_interval.high <= budget.memory {
            Verdict::Fits
        } else {
            Verdict::Tight
        }
    }
}

/// What is known about one checked file.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// The path as given or found, forward slashes. Untrusted.
    pub path: String,
    /// The file and the files it refers to; `Location::source` indexes it.
    pub sources: Vec<Arc<Source>>,
    /// Whose file it is.
    pub framework: Option<&'static str>,
    /// What kind of file.
    pub kind: Kind,
    /// The run.
    pub run: Option<TrainingRun>,
    /// Its model's shape.
    pub architecture: Option<Architecture>,
    /// What it needs.
    pub estimate: Option<Estimate>,
    /// The seed guide's first approximation.
    pub rule_of_thumb: Option<RuleOfThumb>,
    /// Why there is no estimate.
    pub unknown: Vec<Unknown>,
    /// What it may use.
    pub budget: Option<Budget>,
    /// Whether it fits.
    pub verdict: Verdict,
    /// What the rules said, after levels and suppressions, by position.
    pub findings: Vec<Finding>,
    /// How many findings a comment or a baseline silenced.
    pub suppressed: usize,
}

/// The whole run of the tool.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Recognised files, and files given by name that are broken, sorted by path.
    pub files: Vec<FileReport>,
    /// Files looked at and passed over as not ours, with their paths when given by name.
    pub skipped: usize,
    /// Files given by name that nobody recognises.
    pub not_recognised: Vec<String>,
    /// Wall time.
    pub elapsed: Duration,
}

impl Report {
    /// The worst severity among all findings.
    pub fn worst(&self) -> Option<Severity> {
        self.files.iter().flat_map(|f| &f.findings).map(|f| f.severity).max()
    }
}

/// Everything a check needs beside the file.
#[derive(Debug, Default)]
pub struct Context {
    /// Where relative paths are relative to.
    pub working_directory: PathBuf,
    /// `llmlint.toml` files.
    pub settings: SettingsTree,
    /// `--gpu`, `--gpus`, `--budget`: they win over everything a file or `llmlint.toml` says.
    pub command_line: BudgetTable,
    /// Where models are looked up.
    pub lookup: Lookup,
    /// `--select`: only these rules; empty: all.
    pub select: Vec<String>,
    /// `--ignore`: not these.
    pub ignore: Vec<String>,
}

/// Most findings kept for one file; a minified or generated file can hold thousands.
const FINDINGS_A_FILE: usize = 50;

/// Most findings kept in all.
const FINDINGS_A_RUN: usize = 1000;

/// A file given by name that could not be read: the tool could not do its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The path as given.
    pub path: String,
    /// The system's reason.
    pub why: String,
}

/// Checks files in parallel. The result is the same whatever the number of threads.
///
/// # Errors
/// A file given by name cannot be read.
pub fn check_files(files: &[Found], context: &Context) -> Result<Report, Vec<Unreadable>> {
    let start = Instant::now();
    let outcomes: Vec<Outcome> = files.par_iter().map(|file| check_file(file, context)).collect();
    let mut report = Report::default();
    let mut unreadable = Vec::new();
    for (file, outcome) in files.iter().zip(outcomes) {
        match outcome {
            Outcome::Checked(checked) => report.files.push(*checked),
            Outcome::NotOurs => {
                report.skipped += 1;
                if file.explicit {
                    report.not_recognised.push(file.shown.clone());
                }
            }
            Outcome::Unreadable(why) if file.explicit => {
                unreadable.push(Unreadable { path: file.shown.clone(), why });
            }
            Outcome::Unreadable(_) => report.skipped += 1,
        }
    }
    if !unreadable.is_empty() {
        return Err(unreadable);
    }
    report.files.sort_by(|a, b| a.path.cmp(&b.path));
    keep_worst(&mut report.files, FINDINGS_A_RUN);
    report.elapsed = start.elapsed();
    Ok(report)
}

/// Keeps at most `most` findings: the worst, and of equal ones the first.
fn keep_worst(files: &mut [FileReport], most: usize) {
    let mut left = most;
    for severity in [Severity::Error, Severity::Warning, Severity::Note] {
        for file in files.iter_mut() {
            file.findings.retain(|finding| {
                let kept = finding.severity != severity || left > 0;
                left -= usize::from(kept && finding.severity == severity);
                kept
            });
        }
    }
}

enum Outcome {
    Checked(Box<FileReport>),
    NotOurs,
    Unreadable(String),
}

fn check_file(file: &Found, context: &Context) -> Outcome {
    let Some(syntax) = Syntax::of_path(&file.shown) else { return Outcome::NotOurs };
    let size = match std::fs::metadata(&file.path) {
        Ok(meta) if !meta.is_file() => return Outcome::Unreadable("not a regular file".into()),
        Ok(meta) => meta.len(),
        Err(error) => return Outcome::Unreadable(error.to_string()),
    };
    if size > limits::FILE_BYTES as u64 && !file.explicit {
        return Outcome::NotOurs;
    }
    let bytes = match read_at_most(&file.path, limits::FILE_BYTES + 1) {
        Ok(bytes) => bytes,
        Err(error) => return Outcome::Unreadable(error.to_string()),
    };
    let result =
        catch_unwind(AssertUnwindSafe(|| check_bytes(&file.shown, bytes, syntax, file.explicit, context)));
    match result {
        Ok(Some(report)) => Outcome::Checked(Box::new(report)),
        Ok(None) => Outcome::NotOurs,
        Err(_) => {
            let source = Source::new(file.shown.clone(), String::new());
            let finding = Finding::new(
                "internal-error",
                Severity::Error,
                Location::default(),
                "llmlint itself failed on this file; the other files were checked",
            )
            .help("please report it, with the file if you can");
            let mut report = FileReport::empty(&source);
            report.findings.push(finding);
            Outcome::Checked(Box::new(report))
        }
    }
}

fn read_at_most(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks one file's bytes. `None`: nobody recognises it.
pub fn check_bytes(
    shown: &str,
    bytes: Vec<u8>,
    syntax: Syntax,
    explicit: bool,
    context: &Context,
) -> Option<FileReport> {
    let (source, not_utf8) = match String::from_utf8(bytes) {
        Ok(text) => (Source::new(shown, text), None),
        Err(error) => {
            let offset = error.utf8_error().valid_up_to();
            if !explicit {
                return None;
            }
            (Source::new(shown, String::from_utf8_lossy(error.as_bytes()).into_owned()), Some(offset))
        }
    };
    let document = match not_utf8 {
        Some(offset) => Document::not_utf8(syntax, offset),
        None => Document::parse(&source, syntax),
    };
    let recognised = framework::recognise(&document);
    if document.is_broken() && !explicit && !looks_like_training(&source.text) {
        return None;
    }
    if recognised.is_none() && !document.is_broken() {
        return None;
    }
    let framework = recognised.map(|(framework, _)| framework);
    let kind = recognised.map_or(Kind::Other, |(_, kind)| kind);
    let path = context.working_directory.join(shown);
    let directory = path.parent().unwrap_or(&path);
    let settings = context.settings.of(directory).for_file(&path);

    let mut report = FileReport::empty(&source);
    report.framework = framework.map(|f| f.name());
    report.kind = kind;
    let mut findings = Vec::new();
    let root = framework.and_then(|f| document.root(f.dialect(document.syntax)));
    let budget = budget::declared_budget(
        framework,
        root,
        suppress::inline_budget(&document, &source).0,
        &settings,
        context,
        &mut findings,
    );
    report.budget = budget.resolved;

    let mut model = None;
    if let (Some(framework), Some(root), Kind::Run, true) =
        (framework, root, kind, framework.is_some_and(|f| f.supported()) && !document.is_broken())
    {
        let repository = repository_of(directory, &context.working_directory);
        let mut cx = Lowering::new(root, &source, &context.working_directory, &repository);
        cx.declared_gpus = budget.gpus;
        cx.assumed_sequence_length = settings.assume.sequence_length.map(|length| Setting {
            value: length.get(),
            origin: crate::run::Origin::Declared(crate::settings::FILE_NAME.into()),
        });
        cx.declared_version = settings.frameworks.get(framework.name()).cloned();
        report.run = framework.lower(&mut cx);
        report.sources = std::mem::take(&mut cx.sources);
        report.unknown = std::mem::take(&mut cx.unknown);
        findings.append(&mut cx.findings);
        if let Some(run) = &mut report.run {
            let mut lookup = context.lookup.clone();
            lookup.declared = settings.models.clone().into_iter().collect();
            lookup.directories =
                vec![directory.to_owned(), context.working_directory.clone(), repository.clone()];
            lookup.root = Some(repository.clone());
            let found = models::resolve(&run.model.value, &lookup);
            answer::settle_gpus(run, &mut report.unknown);
            report.unknown.append(&mut run.unknown.clone());
            match &found {
                Ok(resolved) => {
                    run.stand_in = resolved.stand_in.map(|family| {
                        let why =
                            "the model runs code of its own, and its layers are taken for this family's";
                        Setting::assumed(family.to_owned(), why)
                    });
                    answer::answer(run, &resolved.architecture, &mut report.unknown, &mut report.estimate);
                }
                Err(not_found) => report.unknown.insert(
                    0,
                    Unknown {
                        what: "model".into(),
                        why: not_found.why.clone(),
                        location: run.model.origin.location(),
                    },
                ),
            }
            if let Ok(resolved) = &found {
                report.architecture = Some(resolved.architecture.clone());
                report.rule_of_thumb = rule_of_thumb(run, &resolved.architecture);
            }
            model = Some(found);
        }
    } else if framework.is_some_and(|f| !f.supported()) {
        report.unknown.push(Unknown {
            what: "framework".into(),
            why: format!(
                "recognised as {}, which is not supported yet",
                report.framework.unwrap_or_default()
            ),
            location: None,
        });
    }
    report.verdict = Verdict::of(report.estimate.as_ref(), report.budget.as_ref());

    let mistakes = match (framework, root) {
        (Some(framework), Some(root)) if framework.supported() && !document.is_broken() => {
            let version = settings.frameworks.get(framework.name()).map(String::as_str);
            schema::validate(framework, kind, root, version)
        }
        _ => Vec::new(),
    };
    let checked = Checked {
        sources: &report.sources,
        document: &document,
        root,
        framework,
        kind,
        mistakes: &mistakes,
        run: report.run.as_ref(),
        architecture: report.architecture.as_ref(),
        model: model.as_ref(),
        estimate: report.estimate.as_ref(),
        unknown: &report.unknown,
        budget: report.budget.as_ref(),
        verdict: report.verdict,
        settings: &settings,
    };
    for rule in rules::ALL {
        rule.check(&checked, &mut findings);
    }
    let settled = suppress::settle(findings, &document, &source);
    report.suppressed = settled.suppressed;
    report.findings = settle_findings(settled.kept, &settings, context);
    Some(report)
}

impl FileReport {
    /// A report that says nothing yet.
    pub fn empty(source: &Arc<Source>) -> FileReport {
        FileReport {
            path: source.path.clone(),
            sources: vec![Arc::clone(source)],
            framework: None,
            kind: Kind::Other,
            run: None,
            architecture: None,
            estimate: None,
            rule_of_thumb: None,
            unknown: Vec::new(),
            budget: None,
            verdict: Verdict::Unknown,
            findings: Vec::new(),
            suppressed: 0,
        }
    }
}

/// Text that a program fills in before anybody loads it: `${zero_stage}`, `{{ model }}`, or a
/// bare word in capitals where JSON needs a value (`"train_batch_size": GB_SIZE`).
fn is_template(text: &str) -> bool {
    let bare = |line: &str| {
        line.split_once("\":").map(|(_, rest)| rest.trim().trim_end_matches(',')).is_some_and(|value| {
            value.len() > 1
                && value.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
                && value.starts_with(|c: char| c.is_ascii_uppercase())
        })
    };
    text.contains("${") || text.contains("{{") || text.lines().any(bare)
}

/// A file that does not parse cannot be recognised by its keys; a training config that lost a
/// quote should still be reported. Three well-known keys at line starts make it one.
fn looks_like_training(text: &str) -> bool {
    const KEYS: [&str; 31] = [
        "base_model",
        "model_name_or_path",
        "micro_batch_size",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "learning_rate",
        "sequence_len",
        "cutoff_len",
        "num_epochs",
        "num_train_epochs",
        "lora_r",
        "bf16",
        "optimizer",
        "deepspeed",
        "pipe_parallel_size",
        "pipe-parallel-size",
        "num_layers",
        "num-layers",
        "hidden_size",
        "hidden-size",
        "seq_length",
        "seq-length",
        "local_batch_size",
        "global_batch_size",
        "flavor",
        "enable_activation_checkpointing",
        "max_seq_len",
        "lora_rank",
        "global_train_batch_size",
        "device_train_microbatch_size",
        "max_duration",
    ];
    let starts = text
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '"', '\'']).split([':', '=', '"', ' ']).next());
    let mut seen: Vec<&str> = starts.filter(|word| KEYS.contains(word)).collect();
    seen.sort_unstable();
    seen.dedup();
    seen.len() >= 3 && !is_template(text)
}

/// The folder that nothing is read outside of: the nearest one with a `.git`, else the working
/// directory when the file is in it, else the file's own folder.
fn repository_of(directory: &Path, working_directory: &Path) -> PathBuf {
    directory
        .ancestors()
        .find(|ancestor| ancestor.join(".git").exists())
        .or_else(|| directory.starts_with(working_directory).then_some(working_directory))
        .unwrap_or(directory)
        .to_owned()
}

/// Levels, selection and order: the one place where findings are filtered.
fn settle_findings(findings: Vec<Finding>, settings: &Settings, context: &Context) -> Vec<Finding> {
    let mut kept: Vec<Finding> = findings
        .into_iter()
        .filter(|f| context.select.is_empty() || context.select.iter().any(|name| name == f.rule))
        .filter(|f| !context.ignore.iter().any(|name| name == f.rule))
        .filter_map(|mut finding| {
            if let Some(level) = settings.rules.get(finding.rule).copied() {
                finding.severity = Level::severity(level)?;
            }
            Some(finding)
        })
        .collect();
    kept.sort_by(|a, b| {
        (a.primary.location, std::cmp::Reverse(a.severity), a.rule, &a.message).cmp(&(
            b.primary.location,
            std::cmp::Reverse(b.severity),
            b.rule,
            &b.message,
        ))
    });
    kept.dedup();
    kept.truncate(FINDINGS_A_FILE);
    kept
}
