//! Turns of phrase that several formats share.

use crate::check::{FileReport, Report, Verdict};
use crate::run::{DataParallel, Method, Quantization, TrainingRun};
use crate::units::Bytes;

/// `1 config`, `3 configs`.
pub fn count(n: usize, word: &str) -> String {
    if n == 1 { format!("{n} {word}") } else { format!("{n} {word}s") }
}

/// Longest message or note that is shown to people, in characters: a value may be a megabyte.
pub const MESSAGE: usize = 1000;

/// Longest label.
pub const LABEL: usize = 160;

/// Longest name of a model in a table.
const MODEL: usize = 24;

/// Cuts text, visibly.
pub fn clip(text: &str, room: usize) -> String {
    match text.char_indices().nth(room) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The model in as few words as a table has room for: the last part of a hub id.
pub fn short_model(run: &TrainingRun) -> String {
    let name = run.model.value.to_string();
    let name = name.trim_end_matches('/');
    // torchtune's are Python paths, torchtitan's a family and a size.
    let name = match name.split_once(':') {
        Some(("torchtune", path)) => path.rsplit('.').next().unwrap_or(path),
        Some(("torchtitan", size)) => size,
        _ => name.rsplit('/').next().unwrap_or(name),
    };
    clip(name, MODEL)
}

/// `QLoRA r16`, `full`, with how states are spread: `full, zero3`.
pub fn method(run: &TrainingRun) -> String {
    let rank = run.lora.as_ref().map(|lora| format!(" r{}", lora.rank.value)).unwrap_or_default();
    let orthogonal = run.beside.orthogonal_block.as_ref();
    let method = match run.method.value {
        Method::Full if run.beside.trained_patterns.is_some() => "named parameters".to_owned(),
        Method::Full => "full".to_owned(),
        Method::Lora | Method::Qlora if orthogonal.is_some() => {
            format!("OFT b{}", orthogonal.map_or(0, |block| block.value))
        }
        Method::Lora => format!("LoRA{rank}"),
        Method::Qlora if run.quantization.value == Quantization::Int8 => format!("LoRA{rank}, 8-bit"),
        Method::Qlora => format!("QLoRA{rank}"),
        Method::Freeze => "freeze".to_owned(),
    };
    let spread = match run.parallelism.data_parallel.value {
        DataParallel::None | DataParallel::Ddp => return method,
        DataParallel::Zero1 => "ZeRO-1",
        DataParallel::Zero2 => "ZeRO-2",
        DataParallel::Zero3 => "ZeRO-3",
        DataParallel::Fsdp => "FSDP",
        DataParallel::Hsdp => "HSDP",
        DataParallel::MegatronDistributed => "distributed optimizer",
    };
    format!("{method}, {spread}")
}

/// The GPU count, and the GPU when a budget names it: `8 × H100-80GB`.
pub fn gpus(file: &FileReport) -> String {
    let count = file.run.as_ref().and_then(|run| run.parallelism.gpus.as_ref()).map(|gpus| gpus.value);
    let gpu = file.budget.as_ref().and_then(|budget| budget.gpu).map(|gpu| gpu.name);
    match (count, gpu) {
        (Some(count), Some(gpu)) => format!("{count} × {gpu}"),
        (Some(count), None) => self::count(count as usize, "GPU"),
        (None, Some(gpu)) => gpu.to_owned(),
        (None, None) => String::new(),
    }
}

/// The verdict, as a person says it.
pub fn verdict(file: &FileReport) -> &'static str {
    match file.verdict {
        Verdict::Fits => "fits",
        Verdict::Tight => "tight",
        Verdict::Exceeds => "exceeds",
        Verdict::Unknown if file.estimate.is_some() => "no budget",
        Verdict::Unknown => "unknown",
    }
}

/// A signed amount: `+1.2 GiB`, `-300 MiB`, `no change`.
pub fn change(from: Bytes, to: Bytes) -> String {
    let difference = to - from;
    match difference.0 {
        0 => "no change".to_owned(),
        n if n > 0 => format!("+{difference}"),
        _ => difference.to_string(),
    }
}

/// How a config's peak changed from the base revision: `+1.2 GiB`, `new`; empty without a base.
pub fn change_from(base: Option<&Report>, file: &FileReport) -> String {
    let (Some(base), Some(now)) = (base, &file.estimate) else { return String::new() };
    match base.files.iter().find(|before| before.path == file.path) {
        None => "new".to_owned(),
        Some(before) => {
            before.estimate.as_ref().map_or_else(String::new, |before| change(before.device, now.device))
        }
    }
}

/// A setting of the run that nobody wrote: `micro_batch_size 8 (default of llama-factory 0.9)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumption {
    /// The setting's name.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// Where it came from.
    pub origin: String,
}

impl std::fmt::Display for Assumption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.setting, self.value, self.origin)
    }
}

/// What was taken without being read in the user's files.
pub fn assumptions(run: &TrainingRun) -> Vec<Assumption> {
    run.settings()
        .into_iter()
        .filter(|(_, _, origin)| origin.is_assumption())
        .map(|(setting, value, origin)| Assumption { setting, value, origin: origin.describe() })
        .collect()
}

/// A whole number with commas between thousands.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Breaks text into lines of at most `width` characters, between words; a word that is longer
/// is broken where it must.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(20);
    let mut lines = vec![String::new()];
    let mut used = 0;
    let text = with_units(text);
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            lines.push(String::new());
            used = 0;
        }
        let Some(line) = lines.last_mut() else { break };
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        if length <= width {
            line.push_str(word);
            used += length;
            continue;
        }
        let mut rest = word.chars().peekable();
        while rest.peek().is_some() {
            let part: String = rest.by_ref().take(width - used).collect();
            used += part.chars().count();
            if let Some(line) = lines.last_mut() {
                line.push_str(&part);
            }
            if rest.peek().is_some() {
                lines.push(String::new());
                used = 0;
            }
        }
    }
    for line in &mut lines {
        *line = line.trim_end().replace('\u{a0}', " ");
    }
    lines
}

/// An amount and its unit stay together.
fn with_units(text: &str) -> String {
    ["GiB", "MiB", "KiB", "GB", "GPUs", "tokens", "ms", "s)"].iter().fold(text.to_owned(), |text, unit| {
        let mut out = String::with_capacity(text.len() + 8);
        let spaced = format!(" {unit}");
        let mut parts = text.split(&spaced);
        out.push_str(parts.next().unwrap_or_default());
        for part in parts {
            out.push(if out.ends_with(|c: char| c.is_ascii_digit()) { '\u{a0}' } else { ' ' });
            out.push_str(unit);
            out.push_str(part);
        }
        out
    })
}

/// Lines for a hanging indent: the first may be `width` wide, the others leave `indent` columns.
pub fn hang(text: &str, width: usize, indent: usize) -> Vec<String> {
    let lines = wrap(text, width);
    let Some((first, rest)) = lines.split_first() else { return lines };
    if rest.is_empty() {
        return lines;
    }
    let rest = rest.join(" ");
    [first.clone()].into_iter().chain(wrap(&rest, width.saturating_sub(indent))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_breaks_between_words_and_within_long_ones() {
        assert_eq!(wrap("one two three four five six", 20), ["one two three four", "five six"]);
        assert_eq!(wrap("the budget it has is 79.1 GiB", 26), ["the budget it has is", "79.1 GiB"]);
        assert_eq!(wrap(&"x".repeat(45), 20), ["x".repeat(20), "x".repeat(20), "x".repeat(5)]);
    }
}
