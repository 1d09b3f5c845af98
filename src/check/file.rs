//! One file, from its bytes to its [`FileReport`]: the stages in their order.

use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::broken;
use super::{Context, FileReport, Verdict, answer, budget};
use crate::catalog::VisionClass;
use crate::catalog::models::{self, NotFound, Resolved};
use crate::discover::Found;
use crate::document::{Document, ProblemKind, Syntax, Value, limits};
use crate::finding::{Finding, Severity};
use crate::framework::{self, Framework, Kind, Lowering, schema};
use crate::memory::Estimate;
use crate::memory::rule_of_thumb::rule_of_thumb;
use crate::rules::{self, Checked, Rule};
use crate::run::{Batching, Origin, Setting, TrainingRun, Unknown};
use crate::settings::{FILE_NAME, Level, Settings};
use crate::source::{Location, Source, Span};
use crate::suppress;

/// Most findings kept for one file; a minified or generated file can hold thousands.
const FINDINGS_A_FILE: usize = 50;

/// What became of one file.
pub(super) enum Outcome {
    Checked(Box<FileReport>),
    NotOurs,
    Unreadable(String),
}

/// Reads and checks one file; a defect of the tool itself becomes a finding.
pub(super) fn check_file(file: &Found, context: &Context) -> Outcome {
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

/// A character that the limit cuts in two is left out: the file is too long, not badly encoded.
fn read_at_most(path: &Path, limit: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit as u64).read_to_end(&mut bytes)?;
    if bytes.len() == limit
        && let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
    {
        let whole = error.valid_up_to();
        bytes.truncate(whole);
        bytes.resize(limit, b' ');
    }
    Ok(bytes)
}

/// A file that is ours: what it is, and where it stands.
struct Subject<'a> {
    source: &'a Arc<Source>,
    document: &'a Document,
    /// `None` only for a file that does not parse.
    framework: Option<&'static dyn Framework>,
    kind: Kind,
    root: Option<Value<'a>>,
    /// Set where the file is a template: its first blank, and the blank's text.
    blank: Option<(Span, String)>,
    directory: PathBuf,
    settings: Settings,
}

/// Checks one file's bytes. `None`: nobody recognises it.
pub fn check_bytes(
    shown: &str,
    bytes: Vec<u8>,
    syntax: Syntax,
    explicit: bool,
    context: &Context,
) -> Option<FileReport> {
    let (source, document) = parse(shown, bytes, syntax, explicit)?;
    let subject = recognise(&source, &document, explicit, context)?;
    let mut findings = Vec::new();
    let (mut report, model) = measure(&subject, context, &mut findings);
    match &subject.blank {
        Some((span, text)) => {
            findings = vec![rules::yaml_parse_error::template(*span, text, syntax)];
        }
        None => judge(&subject, model.as_ref(), &report, context, rules::ALL.iter(), &mut findings),
    }
    let settled = suppress::settle(findings, &document, &source);
    report.suppressed = settled.suppressed;
    report.findings = settle_findings(settled.kept, &subject.settings, context);
    Some(report)
}

/// A file with other text in its place: what it would need, and whether it would be wrong.
pub struct Rewrite<'a> {
    shown: &'a str,
    text: &'a str,
    syntax: Syntax,
    context: &'a Context,
    /// The file's own mistakes.
    known: OnceCell<Vec<Finding>>,
}

impl<'a> Rewrite<'a> {
    /// A file as it is.
    pub fn new(shown: &'a str, text: &'a str, syntax: Syntax, context: &'a Context) -> Rewrite<'a> {
        Rewrite { shown, text, syntax, context, known: OnceCell::new() }
    }

    /// What it would need with this text; `None` where that has errors which the file has not.
    pub fn estimate(&self, text: String) -> Option<Estimate> {
        let (report, errors) = self.read(text)?;
        let known = self.known.get_or_init(|| self.read(self.text.to_owned()).map_or_else(Vec::new, |r| r.1));
        let same = |a: &Finding, b: &Finding| a.rule == b.rule && a.message == b.message;
        let new = errors.iter().any(|error| !known.iter().any(|other| same(error, other)));
        report.estimate.filter(|_| !new)
    }

    /// The rules of memory stay out: they look for changes themselves.
    fn read(&self, text: String) -> Option<(FileReport, Vec<Finding>)> {
        let (source, document) = parse(self.shown, text.into_bytes(), self.syntax, false)?;
        let subject = recognise(&source, &document, false, self.context)?;
        let mut findings = Vec::new();
        let (report, model) = measure(&subject, self.context, &mut findings);
        let others = rules::ALL.iter().filter(|rule| !rules::ABOUT_MEMORY.contains(&rule.info().name));
        judge(&subject, model.as_ref(), &report, self.context, others, &mut findings);
        findings.retain(|finding| finding.severity == Severity::Error);
        Some((report, findings))
    }
}

/// The budget, the run and its estimate.
fn measure(
    subject: &Subject<'_>,
    context: &Context,
    findings: &mut Vec<Finding>,
) -> (FileReport, Option<Result<Resolved, NotFound>>) {
    let mut report = FileReport::empty(subject.source);
    report.framework = subject.framework.map(|framework| framework.name());
    report.kind = subject.kind;
    let budget = budget::declared_budget(
        subject.framework,
        subject.root,
        suppress::inline_budget(subject.document, subject.source).0,
        &subject.settings,
        context,
        findings,
    );
    report.budget = budget.resolved;

    let mut model = None;
    match subject.readable() {
        Some((framework, root)) if subject.kind == Kind::Run => {
            model = lower(framework, root, subject, budget.gpus, context, &mut report, findings);
        }
        None if subject.framework.is_some_and(|framework| !framework.supported()) => {
            report.unknown.push(Unknown {
                what: "framework".into(),
                why: format!(
                    "recognised as {}, which is not supported yet",
                    report.framework.unwrap_or_default()
                ),
                location: None,
            });
        }
        _ => {}
    }
    let budget = report.budget.as_ref();
    report.verdict = match &report.estimate {
        Some(estimate) => Verdict::of(Some(estimate), budget),
        None => Verdict::of_floor(report.floor.as_ref(), budget),
    };
    (report, model)
}

/// Text and tree. What is not UTF-8 is a finding only where somebody named the file.
fn parse(shown: &str, bytes: Vec<u8>, syntax: Syntax, explicit: bool) -> Option<(Arc<Source>, Document)> {
    match String::from_utf8(bytes) {
        Ok(text) => {
            let source = Source::new(shown, text);
            let document = Document::parse(&source, syntax);
            Some((source, document))
        }
        Err(error) if explicit => {
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let document = Document::not_utf8(syntax, error.as_bytes(), error.utf8_error().valid_up_to());
            Some((Source::new(shown, text), document))
        }
        Err(_) => None,
    }
}

/// Whose file it is; `None` where it is nobody's.
fn recognise<'a>(
    source: &'a Arc<Source>,
    document: &'a Document,
    explicit: bool,
    context: &Context,
) -> Option<Subject<'a>> {
    let blank = broken::template(source, document);
    let recognised = framework::recognise(document).filter(|(framework, _)| {
        // Of frameworks that are only recognised the loader may know more.
        blank.is_none() || framework.supported()
    });
    let unread = document.problems.iter().any(|p| p.kind == ProblemKind::Syntax);
    let ours = if unread || blank.is_some() {
        // Who names a file means one; hooks name every YAML and JSON file there is.
        broken::training_keys(&source.text) >= if explicit { 1 } else { 3 }
    } else if document.is_broken() {
        explicit
    } else {
        recognised.is_some()
    };
    if !ours {
        return None;
    }
    let framework = recognised.map(|(framework, _)| framework);
    let path = context.working_directory.join(&source.path);
    let directory = path.parent().unwrap_or(&path).to_owned();
    Some(Subject {
        source,
        document,
        framework,
        kind: recognised.map_or(Kind::Other, |(_, kind)| kind),
        root: framework.and_then(|f| document.root(f.dialect(document.syntax))),
        blank,
        settings: context.settings.of(&directory).for_file(&path),
        directory,
    })
}

impl<'a> Subject<'a> {
    /// Framework and tree, where the file parses and the framework is supported.
    fn readable(&self) -> Option<(&'static dyn Framework, Value<'a>)> {
        let framework =
            self.framework.filter(|f| f.supported() && !self.document.is_broken() && self.blank.is_none())?;
        Some((framework, self.root?))
    }
}

/// Lowers the file to a run, finds its model and estimates what it needs.
fn lower(
    framework: &'static dyn Framework,
    root: Value<'_>,
    subject: &Subject<'_>,
    gpus: Option<Setting<u64>>,
    context: &Context,
    report: &mut FileReport,
    findings: &mut Vec<Finding>,
) -> Option<Result<Resolved, NotFound>> {
    let settings = &subject.settings;
    let repository = repository_of(&subject.directory, &context.working_directory);
    let mut cx = Lowering::new(root, subject.source, &context.working_directory, &repository);
    cx.declared_gpus = gpus;
    cx.assumed_sequence_length = settings
        .assume
        .sequence_length
        .map(|length| Setting { value: length.get(), origin: Origin::Declared(FILE_NAME.into()) });
    cx.declared_version = settings.frameworks.get(framework.name()).cloned();
    report.run = framework.lower(&mut cx);
    report.sources = std::mem::take(&mut cx.sources);
    report.unknown = std::mem::take(&mut cx.unknown);
    findings.append(&mut cx.findings);
    let run = report.run.as_mut()?;
    if let Some(mut law) = settings.assume.sequence_lengths
        && run.batching.value == Batching::Padded
    {
        // The file may say in which order rows come, or that all are padded to the limit.
        let written = run.sequence_lengths.value.unwrap_or_default();
        law.order = law.order.or(written.order);
        if written.full.is_none() {
            run.sequence_lengths = Setting { value: Some(law), origin: Origin::Declared(FILE_NAME.into()) };
        }
    }

    if let Some(bytes) = settings.assume.cuda_context
        && run.cuda_context.is_none()
    {
        run.cuda_context = Some(Setting { value: bytes, origin: Origin::Declared(FILE_NAME.into()) });
    }

    let mut lookup = context.lookup.clone();
    lookup.declared = settings.models.clone().into_iter().collect();
    lookup.directories =
        vec![subject.directory.clone(), context.working_directory.clone(), repository.clone()];
    lookup.root = Some(repository);
    let found = models::resolve(&run.model.value, &lookup);
    answer::settle_gpus(run, &mut report.unknown);
    report.unknown.append(&mut run.unknown.clone());
    match &found {
        Ok(resolved) => {
            stand_in(run, resolved);
            let budget = report.budget.as_ref();
            answer::settle_checkpoint(run, &resolved.architecture);
            answer::settle_beside(run, &resolved.architecture, &lookup, budget, &mut report.unknown);
            answer::answer(run, &resolved.architecture, &mut report.unknown, &mut report.estimate);
            if let (Some(estimate), Some(budget)) = (&mut report.estimate, &report.budget) {
                estimate.on_card(budget.memory);
            }
            report.architecture = Some(resolved.architecture.clone());
            report.rule_of_thumb = rule_of_thumb(run, &resolved.architecture);
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
    if report.estimate.is_none() {
        report.floor = answer::at_least(run, &found, &report.unknown);
    }
    Some(found)
}

fn stand_in(run: &mut TrainingRun, resolved: &Resolved) {
    run.stand_in = resolved.stand_in.map(|family| {
        let why = "the model runs code of its own, and its layers are taken for this family's";
        Setting::assumed(family.to_owned(), why)
    });
    let uncounted = resolved.architecture.vision.as_ref().is_some_and(|v| v.class == VisionClass::Uncounted)
        && resolved.architecture.extra_parameters == 0;
    run.taken_for = match resolved.taken_for {
        Some(id) => {
            let why = "the model is taken for this public one because of its name";
            Some(Setting::assumed(id.to_owned(), why))
        }
        None if uncounted => {
            let why =
                "the towers of this class are not counted; `extra_parameters` in llmlint.toml declares them";
            Some(Setting::assumed("its language model alone".to_owned(), why))
        }
        None => None,
    };
}

/// The schema's and the rules' findings.
fn judge(
    subject: &Subject<'_>,
    model: Option<&Result<Resolved, NotFound>>,
    report: &FileReport,
    context: &Context,
    rules: impl Iterator<Item = &'static &'static dyn Rule>,
    findings: &mut Vec<Finding>,
) {
    let mistakes = subject.readable().map_or_else(Vec::new, |(framework, root)| {
        let version = subject.settings.frameworks.get(framework.name()).map(String::as_str);
        schema::validate(framework, subject.kind, root, version)
    });
    let source = subject.source;
    let rewrite = Rewrite::new(&source.path, &source.text, subject.document.syntax, context);
    let again = |text: String| rewrite.estimate(text);
    let checked = Checked {
        sources: &report.sources,
        document: subject.document,
        root: subject.root,
        framework: subject.framework,
        kind: subject.kind,
        mistakes: &mistakes,
        run: report.run.as_ref(),
        architecture: report.architecture.as_ref(),
        model,
        estimate: report.estimate.as_ref(),
        floor: report.floor.as_ref(),
        unknown: &report.unknown,
        budget: report.budget.as_ref(),
        verdict: report.verdict,
        settings: &subject.settings,
        again: &again,
    };
    for rule in rules {
        rule.check(&checked, findings);
    }
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
