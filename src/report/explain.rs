//! The ledger as a person would work it out by hand: every line of the sum with its formula,
//! its numbers and where the formula comes from.

use std::io::{self, Write};

use super::ascii::human;
use super::style::Paint;
use super::{Options, bar, place, words};
use crate::catalog::Architecture;
use crate::check::{FileReport, Report};
use crate::finding::Severity;
use crate::memory::{Entry, Estimate, Phase};
use crate::run::{Origin, TrainingRun};
use crate::sanitize;
use crate::units::Bytes;

/// Writes each file's sum; `ranks` adds the total of each distinct rank.
///
/// # Errors
/// Those of `out`.
pub fn write(report: &Report, options: &Options<'_>, ranks: bool, out: &mut dyn Write) -> io::Result<()> {
    let out: &mut dyn Write = &mut human(options, out);
    let page = Page { options, paint: Paint { color: options.color } };
    for (index, file) in report.files.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        page.file(file, ranks, out)?;
    }
    Ok(())
}

struct Page<'a> {
    options: &'a Options<'a>,
    paint: Paint,
}

/// A framework's own name for a model, without the framework's name before it.
fn own_name(model: &str, framework: Option<&str>) -> String {
    let prefix = framework.map(|name| format!("{name}:")).unwrap_or_default();
    model.strip_prefix(prefix.as_str()).unwrap_or(model).to_owned()
}

impl Page<'_> {
    fn file(&self, file: &FileReport, ranks: bool, out: &mut dyn Write) -> io::Result<()> {
        let title = sanitize::path(&file.path);
        let whose = file.framework.unwrap_or("not recognised");
        let run = file.run.as_ref();
        let what = run.map_or_else(String::new, |run| {
            format!(
                ": {}, {}",
                sanitize::text(&own_name(&run.model.value.to_string(), file.framework)),
                words::method(run)
            )
        });
        for (index, line) in
            words::hang(&format!("{title} ({whose}{what})"), self.options.width, 2).iter().enumerate()
        {
            match line.strip_prefix(&*title).filter(|_| index == 0) {
                Some(rest) => writeln!(out, "{}{rest}", self.paint.bold(&title))?,
                None => writeln!(out, "{}{line}", if index == 0 { "" } else { "  " })?,
            }
        }
        let Some(estimate) = &file.estimate else {
            return self.without_estimate(file, out);
        };
        self.parameters(file, estimate, out)?;
        self.symbols(file, estimate, out)?;
        self.ledger(estimate, out)?;
        self.phases(estimate, out)?;
        self.figures(file, estimate, out)?;
        if ranks {
            self.ranks(estimate, out)?;
        }
        self.rule_of_thumb(file, estimate, out)?;
        match run {
            Some(run) => self.settings(file, run, out),
            None => Ok(()),
        }
    }

    fn heading(&self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out)?;
        for line in words::wrap(text, self.options.width) {
            writeln!(out, "{}", self.paint.bold(line))?;
        }
        Ok(())
    }

    /// A line with a hanging indent.
    fn line(&self, indent: usize, text: &str, out: &mut dyn Write) -> io::Result<()> {
        let text = sanitize::text(text);
        for line in words::wrap(&text, self.options.width.saturating_sub(indent)) {
            writeln!(out, "{}{line}", " ".repeat(indent))?;
        }
        Ok(())
    }

    fn without_estimate(&self, file: &FileReport, out: &mut dyn Write) -> io::Result<()> {
        self.heading("No estimate", out)?;
        let unread = file.findings.iter().find(|f| matches!(f.rule, "yaml-parse-error" | "not-utf8"));
        if let Some(finding) = unread {
            self.line(2, &finding.message, out)?;
        } else if file.unknown.is_empty() {
            self.line(2, "the file describes no training run by itself", out)?;
        }
        for unknown in &file.unknown {
            self.line(2, &format!("{}: {}", unknown.what, unknown.why), out)?;
        }
        if let Some(floor) = &file.floor {
            self.heading(&format!("At least {} on each GPU", floor.total()), out)?;
            let text = format!(
                "{} parameters: weights {}, gradients {}, optimizer states {}; activations, buffers and the CUDA \
                 context are not counted",
                words::grouped(floor.parameters),
                floor.weights,
                floor.gradients,
                floor.optimizer,
            );
            self.line(2, &text, out)?;
        }
        match &file.run {
            Some(run) => self.settings(file, run, out),
            None => Ok(()),
        }
    }

    fn parameters(&self, file: &FileReport, estimate: &Estimate, out: &mut dyn Write) -> io::Result<()> {
        let p = estimate.parameters;
        self.heading("Parameters", out)?;
        let tied = file.architecture.as_ref().is_some_and(|a| a.tied_embeddings);
        let text = format!(
            "{} in all, {} trained; the input embedding has {}{}",
            words::grouped(p.total),
            words::grouped(p.trainable),
            words::grouped(p.embedding),
            if tied { " and is the head too" } else { "" },
        );
        self.line(2, &text, out)
    }

    fn symbols(&self, file: &FileReport, estimate: &Estimate, out: &mut dyn Write) -> io::Result<()> {
        let (Some(run), Some(architecture)) = (&file.run, &file.architecture) else { return Ok(()) };
        let entries = &estimate.ledger.entries;
        let used: Vec<_> = symbols(run, architecture, estimate)
            .into_iter()
            .filter(|(name, _, _)| entries.iter().any(|entry| names(&entry.formula).any(|n| n == *name)))
            .collect();
        if used.is_empty() {
            return Ok(());
        }
        let parallel = &run.parallelism;
        let whole = parallel.tensor.value * parallel.context.value * parallel.pipeline.value <= 1;
        self.heading(
            if whole { "Symbols" } else { "Symbols (of the whole model; a rank holds its part)" },
            out,
        )?;
        let name_width = used.iter().map(|(name, _, _)| name.len()).max().unwrap_or(0);
        let value_width = used.iter().map(|(_, value, _)| words::grouped(*value).len()).max().unwrap_or(0);
        for (name, value, meaning) in used {
            let lead = format!("  {name:<name_width$}  {:>value_width$}  ", words::grouped(value));
            self.hanging(&lead, meaning, out)?;
        }
        Ok(())
    }

    fn ledger(&self, estimate: &Estimate, out: &mut dyn Write) -> io::Result<()> {
        self.heading(&format!("Ledger of {} (* at the peak)", estimate.rank), out)?;
        let mut component = None;
        for entry in &estimate.ledger.entries {
            if component != Some(entry.component) {
                component = Some(entry.component);
                let total = estimate.component(entry.component);
                writeln!(out, "  {} {total} at the peak", self.paint.bold(entry.component.as_str()))?;
            }
            self.entry(entry, estimate.phase, out)?;
        }
        Ok(())
    }

    fn entry(&self, entry: &Entry, peak: Phase, out: &mut dyn Write) -> io::Result<()> {
        let mark = if entry.live.contains(peak) { '*' } else { ' ' };
        let amount = entry.bytes.to_string();
        let name = sanitize::text(&entry.name);
        let room = self.options.width.saturating_sub(6 + 12 + 2).max(20);
        for (index, line) in words::wrap(&name, room).iter().enumerate() {
            if index == 0 {
                writeln!(out, "  {mark} {amount:>10}  {line}")?;
            } else {
                self.line(16, line, out)?;
            }
        }
        self.line(16, &format!("{} bytes = {}", grouped_signed(entry.bytes.0), entry.formula), out)?;
        if entry.numbers != grouped_signed(entry.bytes.0) {
            self.line(16, &format!("= {}", entry.numbers), out)?;
        }
        self.line(16, &format!("alive: {}; source: {}", alive(entry), entry.source), out)
    }

    fn phases(&self, estimate: &Estimate, out: &mut dyn Write) -> io::Result<()> {
        self.heading("Sum by moment of a step", out)?;
        let width = Phase::ALL.iter().map(|phase| phase.describe().len()).max().unwrap_or(0);
        let most = estimate.ledger.total(estimate.phase);
        // Without room for bars the amounts stand in front, and the moments wrap.
        let cells = self.options.width.saturating_sub(width + 26).min(30);
        for phase in Phase::ALL {
            let total = estimate.ledger.total(phase);
            if cells < 4 {
                let mark = if phase == estimate.phase { " (peak)" } else { "" };
                let lead = format!("  {:>10}  ", total.to_string());
                self.hanging(&lead, &format!("{}{mark}", phase.describe()), out)?;
                continue;
            }
            let meter = bar::meter(total, most, cells);
            let line = format!("  {:<width$}  {:>10}  {meter}", phase.describe(), total.to_string());
            if phase == estimate.phase {
                writeln!(out, "{}  peak", self.paint.bold(line))?;
            } else {
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }

    fn figures(&self, file: &FileReport, estimate: &Estimate, out: &mut dyn Write) -> io::Result<()> {
        self.heading("Three figures", out)?;
        let range = estimate.device_interval;
        // Blocks that are only cached are given back before the card is full.
        let (room, shown) = if estimate.reserved > estimate.device {
            (" on a card with room for it", "what the card must hold, unused blocks given back")
        } else {
            ("", "nvidia-smi would show it")
        };
        for (name, bytes, meaning) in [
            ("allocated", estimate.allocated, "torch.cuda.max_memory_allocated() would print it".to_owned()),
            ("reserved", estimate.reserved, format!("torch.cuda.max_memory_reserved() would print it{room}")),
            ("device", estimate.device, format!("{shown}; about nine runs in ten: {range}")),
        ] {
            self.hanging(&format!("  {name:<10} {:>10}  ", bytes.to_string()), &meaning, out)?;
        }
        let mut causes: Vec<_> = estimate.causes.iter().collect();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.below + cause.above));
        for cause in causes {
            let indent = if self.options.width < 25 + ROOM { 6 } else { 25 };
            self.line(indent, &format!("-{} +{}: {}", cause.below, cause.above, cause.what), out)?;
        }
        if estimate.host > Bytes::ZERO {
            let lead = format!("  {:<10} {:>10}  ", "host", estimate.host.to_string());
            self.hanging(&lead, "memory of each host for offloaded weights, gradients and states", out)?;
        }
        if estimate.host_loading > Bytes::ZERO {
            let lead = format!("  {:<10} {:>10}  ", "loading", estimate.host_loading.to_string());
            let text = "of each host, at most, while every process of it reads the checkpoint";
            self.hanging(&lead, text, out)?;
        }
        if let Some(budget) = &file.budget {
            let gpu = budget.gpu.map_or_else(String::new, |gpu| format!("usable on the {}; ", gpu.name));
            let severity = match file.verdict {
                crate::check::Verdict::Exceeds => Severity::Error,
                crate::check::Verdict::Tight => Severity::Warning,
                _ => Severity::Note,
            };
            let lead = format!("  {:<10} {:>10}  ", "budget", budget.memory.to_string());
            let text = format!("{gpu}declared in {}", budget.declared_in);
            self.hanging(&lead, &text, out)?;
            let verdict = self.paint.severity(severity, words::verdict(file));
            writeln!(out, "  {:<10} {:>10}  {verdict}", "verdict", "")?;
        }
        let budget = file.budget.as_ref().map(|budget| budget.memory);
        writeln!(out)?;
        for line in bar::stacked(estimate, budget, self.options.width.saturating_sub(4), self.options.color) {
            writeln!(out, "  {line}")?;
        }
        Ok(())
    }

    fn ranks(&self, estimate: &Estimate, out: &mut dyn Write) -> io::Result<()> {
        self.heading("Ranks", out)?;
        let width = estimate.ranks.iter().map(|rank| rank.rank.chars().count()).max().unwrap_or(0);
        for rank in &estimate.ranks {
            let lead =
                format!("  {:<width$}  {:>10} ", sanitize::text(&rank.rank), rank.allocated.to_string());
            let worst =
                if estimate.ranks.len() > 1 && rank.rank == estimate.rank { "; the worst" } else { "" };
            self.hanging(&lead, &format!("allocated, at {}{worst}", rank.phase.describe()), out)?;
        }
        Ok(())
    }

    fn rule_of_thumb(&self, file: &FileReport, estimate: &Estimate, out: &mut dyn Write) -> io::Result<()> {
        let Some(thumb) = file.rule_of_thumb else { return Ok(()) };
        self.heading("Rule of thumb", out)?;
        let text = format!(
            "weights {} + gradients {} + optimizer {} + activations {} + overhead {} = {}; the ledger comes to {}",
            thumb.weights,
            thumb.gradients,
            thumb.optimizer,
            thumb.activations,
            thumb.overhead,
            thumb.total(),
            estimate.device,
        );
        self.line(2, &text, out)
    }

    fn settings(&self, file: &FileReport, run: &TrainingRun, out: &mut dyn Write) -> io::Result<()> {
        let settings = run.settings();
        let width = settings.iter().map(|(name, _, _)| name.len()).max().unwrap_or(0);
        for (heading, assumed) in [("Read", false), ("Assumed, because nobody says so", true)] {
            let mut first = true;
            for (name, value, origin) in settings.iter().filter(|(_, _, o)| o.is_assumption() == assumed) {
                if first {
                    self.heading(heading, out)?;
                    first = false;
                }
                let place = match origin {
                    Origin::Written(location) | Origin::Referenced(location) => {
                        let place = place(file, *location);
                        let path = sanitize::path(place.path);
                        format!("{path}:{}:{}", place.start.line, place.start.column)
                    }
                    other => other.describe(),
                };
                let value = words::clip(value, 60);
                self.hanging(&format!("  {name:<width$}  "), &format!("{value}  ({place})"), out)?;
            }
        }
        Ok(())
    }

    /// Text behind a lead; under it where the terminal leaves no room beside it.
    fn hanging(&self, lead: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
        let beside = lead.chars().count();
        let text = sanitize::text(text);
        let under = self.options.width.saturating_sub(beside) < ROOM;
        if under {
            writeln!(out, "{}", lead.trim_end())?;
        }
        let indent = if under { 6 } else { beside };
        for (index, line) in words::wrap(&text, self.options.width.saturating_sub(indent)).iter().enumerate()
        {
            if index == 0 && !under {
                writeln!(out, "{lead}{line}")?;
            } else {
                writeln!(out, "{}{line}", " ".repeat(indent))?;
            }
        }
        Ok(())
    }
}

/// Columns that text beside a figure needs to be read.
const ROOM: usize = 24;

/// `always`, or the phases as ranges: `forward-end to head-backward, evaluation`.
fn alive(entry: &Entry) -> String {
    let mut ranges: Vec<(Phase, Phase)> = Vec::new();
    let mut open = false;
    for phase in Phase::ALL {
        if !entry.live.contains(phase) {
            open = false;
            continue;
        }
        match ranges.last_mut().filter(|_| open) {
            Some(range) => range.1 = phase,
            None => ranges.push((phase, phase)),
        }
        open = true;
    }
    if ranges.as_slice() == [(Phase::Load, Phase::Evaluation)] {
        return "always".to_owned();
    }
    let words: Vec<String> = ranges
        .iter()
        .map(|(from, to)| {
            if from == to {
                from.as_str().to_owned()
            } else {
                format!("{} to {}", from.as_str(), to.as_str())
            }
        })
        .collect();
    words.join(", ")
}

/// The names in a formula: letters, digits and underscores that start with a letter.
fn names(formula: &str) -> impl Iterator<Item = &str> {
    formula
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| word.chars().next().is_some_and(char::is_alphabetic))
}

/// The symbols of the formulas, for a whole model on one rank.
fn symbols(
    run: &TrainingRun,
    architecture: &Architecture,
    estimate: &Estimate,
) -> Vec<(&'static str, u64, &'static str)> {
    let (batch, sequence) = (run.micro_batch_size.value, run.sequence_length.value);
    let a = architecture;
    let moe = a.moe.as_ref();
    let (query, key) = (a.heads.saturating_mul(a.head_dim), a.kv_heads.saturating_mul(a.head_dim));
    let mut list = vec![
        ("P", estimate.parameters.total, "parameters"),
        ("P_trained", estimate.parameters.trainable, "trained parameters"),
        ("n", a.layers, "layers"),
        ("B", batch, "sequences of a micro-batch"),
        ("S", sequence, "tokens of a sequence"),
        ("N", batch.saturating_mul(sequence), "tokens of a micro-batch, B·S"),
        ("d", a.hidden_size, "hidden size"),
        ("f", a.intermediate_size, "width of the feed-forward network"),
        ("h", a.heads, "query heads"),
        ("kv", a.kv_heads, "key and value heads"),
        ("hd", a.head_dim, "width of one head"),
        ("q", query, "width of all query heads, h·hd"),
        ("k", key, "width of all key heads, kv·hd"),
        ("qkv", query.saturating_add(key.saturating_mul(2)), "q + 2k"),
        ("V", a.vocab_size, "vocabulary"),
    ];
    if let Some(moe) = moe {
        list.push(("E", moe.experts, "experts of a layer"));
        list.push(("T", moe.experts_per_token, "experts a token goes to"));
        list.push(("fe", moe.intermediate_size, "width of one expert"));
    }
    if let Some(lora) = &run.lora {
        list.push(("r", lora.rank.value, "rank of the adapters"));
    }
    list
}

fn grouped_signed(n: i64) -> String {
    let sign = if n < 0 { "-" } else { "" };
    format!("{sign}{}", words::grouped(n.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_numbers_and_operators() {
        let found: Vec<&str> = names("24·(10·N·f + 2·N·qkv − 8.125 MiB·P_head)").collect();
        assert_eq!(found, ["N", "f", "N", "qkv", "MiB", "P_head"]);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [words::grouped(0), words::grouped(999), words::grouped(1_000), words::grouped(8_030_261_248)],
            ["0", "999", "1,000", "8,030,261,248"]
        );
        assert_eq!(grouped_signed(-1_048_576), "-1,048,576");
    }
}
