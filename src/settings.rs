//! `llmlint.toml`, and what the command line adds to it.
//!
//! The nearest `llmlint.toml` above a checked file holds; there is no merging between files, so
//! that one file says everything that is in force.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::catalog::Gpu;
use crate::catalog::gpus::GpuError;
use crate::catalog::instances;
use crate::finding::Severity;
use crate::run::lengths::SequenceLengths;
use crate::units::Bytes;

/// The file's name.
pub const FILE_NAME: &str = "llmlint.toml";

/// What a run may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// The GPU, when named.
    pub gpu: Option<&'static Gpu>,
    /// Usable memory of one GPU.
    pub memory: Bytes,
    /// GPUs in all.
    pub gpus: Option<u64>,
    /// Memory of one host.
    pub host_memory: Option<Bytes>,
    /// Where it was declared: `llmlint.toml`, `--gpu`, `line 1`.
    pub declared_in: String,
}

impl Budget {
    /// `79.1 GiB of an H100-80GB`, or the amount and who allows it.
    pub fn describe(&self) -> String {
        match self.gpu {
            Some(gpu) => format!("{} of {} {}", self.memory, article(gpu.name), gpu.name),
            None => format!("{} that {} allows", self.memory, self.declared_in),
        }
    }
}

/// `an H100`, `a B200`: letters are spoken one by one.
fn article(name: &str) -> &'static str {
    let spoken_with_vowel = |c: char| "AEFHILMNORSX8".contains(c.to_ascii_uppercase());
    let mut chars = name.chars();
    let first = chars.next().unwrap_or(' ');
    // A word (Titan, Gaudi) is spoken as one.
    let word = chars.next().is_some_and(|c| c.is_ascii_lowercase());
    let vowel = if word { "AEIOU".contains(first.to_ascii_uppercase()) } else { spoken_with_vowel(first) };
    if vowel { "an" } else { "a" }
}

/// A budget as people write it, not yet looked up.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct BudgetTable {
    /// A GPU name such as H100-80GB (see `llmlint gpus`), or a cloud instance.
    pub gpu: Option<String>,
    /// GPUs in all.
    pub gpus: Option<u64>,
    /// Usable memory of one GPU, instead of a name: "79GiB".
    pub memory: Option<String>,
    /// Memory of one host, for offloaded states: "512GiB".
    pub host_memory: Option<String>,
}

/// Why a [`BudgetTable`] is no [`Budget`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetError {
    /// The GPU's name.
    Gpu(String, GpuError),
    /// An amount of memory.
    Amount(String),
}

impl std::fmt::Display for BudgetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BudgetError::Gpu(name, GpuError::Ambiguous(choices)) => {
                write!(f, "`{name}` stands for several GPUs: write one of {}", choices.join(", "))
            }
            BudgetError::Gpu(name, GpuError::Unknown(near)) if near.is_empty() => {
                write!(f, "`{name}` is not a GPU that is known; `llmlint gpus` lists them, or give `memory`")
            }
            BudgetError::Gpu(name, GpuError::Unknown(near)) => {
                write!(f, "`{name}` is not a GPU that is known; did you mean {}?", near.join(" or "))
            }
            BudgetError::Amount(why) => f.write_str(why),
        }
    }
}

impl BudgetTable {
    /// True when nothing is declared.
    pub fn is_empty(&self) -> bool {
        *self == BudgetTable::default()
    }

    /// Looks names up. `None` when neither a GPU nor an amount of memory is declared.
    ///
    /// # Errors
    /// A GPU that is ambiguous or unknown, or text that is no amount of memory.
    pub fn resolve(&self, declared_in: &str) -> Result<Option<Budget>, BudgetError> {
        let amount = |text: &Option<String>| {
            text.as_deref().map(Bytes::parse).transpose().map_err(BudgetError::Amount)
        };
        let memory = amount(&self.memory)?;
        let host_memory = amount(&self.host_memory)?;
        let machine = match &self.gpu {
            Some(name) => {
                Some(instances::machine(name).map_err(|error| BudgetError::Gpu(name.clone(), error))?)
            }
            None => None,
        };
        let gpu = machine.map(|m| m.gpu);
        let Some(memory) = memory.or(gpu.map(|g| g.usable)) else { return Ok(None) };
        Ok(Some(Budget {
            gpu,
            memory,
            gpus: self.gpus.or(machine.and_then(|m| m.gpus)),
            host_memory: host_memory.or(machine.and_then(|m| m.host_memory)),
            declared_in: declared_in.to_owned(),
        }))
    }

    /// Takes from `other` what this one leaves open.
    #[must_use]
    pub fn or(mut self, other: &BudgetTable) -> BudgetTable {
        // A memory figure replaces a GPU's, so the two travel together.
        if self.gpu.is_none() && self.memory.is_none() {
            self.gpu.clone_from(&other.gpu);
            self.memory.clone_from(&other.memory);
        }
        self.gpus = self.gpus.or(other.gpus);
        self.host_memory = self.host_memory.or_else(|| other.host_memory.clone());
        self
    }
}

/// A rule's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Not reported.
    Off,
    /// Reported as a note.
    Note,
    /// Reported as a warning.
    Warning,
    /// Reported as an error.
    Error,
}

impl Level {
    /// The severity it stands for; `None`: off.
    pub fn severity(self) -> Option<Severity> {
        match self {
            Level::Off => None,
            Level::Note => Some(Severity::Note),
            Level::Warning => Some(Severity::Warning),
            Level::Error => Some(Severity::Error),
        }
    }
}

/// The content of `llmlint.toml`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "llmlint.toml")]
pub struct SettingsFile {
    /// What runs may use.
    pub budget: BudgetTable,
    /// Files and folders to leave out, as glob patterns.
    pub exclude: Vec<String>,
    /// What to take where a file leaves it to the data or the machine.
    pub assume: Assume,
    /// Findings of this severity and above make the exit code 1: "error", "warning", "note".
    pub fail_on: Option<Level>,
    /// Framework versions in use: trl = "0.19". Newest known otherwise.
    pub frameworks: BTreeMap<String, String>,
    /// Models the catalogue does not know, by the name configs use: dimensions as in a
    /// config.json, or `config = "path/to/config.json"`; `parameters = 5.37e9` alone gives a floor.
    pub models: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// Levels by rule: unknown-key = "off".
    pub rules: BTreeMap<String, Level>,
    /// Other settings for some paths; later ones win.
    pub overrides: Vec<Override>,
}

/// Values for what configs leave open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Assume {
    /// Tokens of the longest sequence, where a file sets no limit and the longest sample of the
    /// data decides.
    pub sequence_length: Option<std::num::NonZeroU64>,
    /// How long the rows of the data are, where batches are padded to their longest row: reserved
    /// memory depends on it.
    #[serde(alias = "sequence_lengths")]
    pub sequence_lengths: Option<SequenceLengths>,
    /// What a process occupies on a GPU before it allocates anything, as nvidia-smi shows it: "600MiB".
    #[serde(alias = "cuda_context")]
    #[schemars(with = "Option<String>")]
    #[serde(deserialize_with = "amount")]
    pub cuda_context: Option<Bytes>,
}

/// An amount of memory as people write it.
fn amount<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
    let text = String::deserialize(from)?;
    Bytes::parse(&text).map(Some).map_err(serde::de::Error::custom)
}

impl Assume {
    /// These, and `other`'s where these are silent.
    #[must_use]
    pub fn or(self, other: Assume) -> Assume {
        Assume {
            sequence_length: self.sequence_length.or(other.sequence_length),
            sequence_lengths: self.sequence_lengths.or(other.sequence_lengths),
            cuda_context: self.cuda_context.or(other.cuda_context),
        }
    }
}

/// Settings for some paths.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Override {
    /// Glob patterns, relative to `llmlint.toml`.
    pub paths: Vec<String>,
    /// What these runs may use.
    pub budget: BudgetTable,
    /// What to take where these files leave it open.
    pub assume: Assume,
    /// Framework versions.
    pub frameworks: BTreeMap<String, String>,
    /// Levels by rule.
    pub rules: BTreeMap<String, Level>,
}

/// Settings in force for one file.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The file they came from.
    pub file: Option<PathBuf>,
    /// The declared budget.
    pub budget: BudgetTable,
    /// `[assume]`: what files leave open.
    pub assume: Assume,
    /// `[models."org/name"]`: config.json objects.
    pub models: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// `[frameworks]`: the version in use.
    pub frameworks: BTreeMap<String, String>,
    /// `[rules]`: levels.
    pub rules: BTreeMap<String, Level>,
}

/// Settings that cannot be used; the tool stops with exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The file.
    pub path: String,
    /// What is wrong, several lines.
    pub message: String,
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message.trim_end())
    }
}

/// One `llmlint.toml` that was read.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Where it is; `None`: built-in defaults.
    pub path: Option<PathBuf>,
    /// What it says.
    pub content: SettingsFile,
    matchers: Vec<globset::GlobSet>,
}

impl Loaded {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Text that is no TOML, unknown keys, rule and framework names that do not exist, GPUs that
    /// are ambiguous or unknown.
    pub fn read(path: &Path) -> Result<Loaded, SettingsError> {
        let fail = |message: String| SettingsError { path: path.to_string_lossy().into_owned(), message };
        let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
        let content: SettingsFile = toml::from_str(&text).map_err(|e| fail(e.to_string()))?;
        let levels = content.overrides.iter().flat_map(|o| o.rules.keys()).chain(content.rules.keys());
        for name in levels {
            rule_exists(name).map_err(&fail)?;
        }
        for name in
            content.overrides.iter().flat_map(|o| o.frameworks.keys()).chain(content.frameworks.keys())
        {
            if crate::framework::by_name(name).is_none() {
                let known = crate::framework::ALL.iter().map(|f| f.name());
                return Err(fail(format!("there is no framework `{name}`{}", did_you_mean(name, known))));
            }
        }
        for assume in content.overrides.iter().map(|o| &o.assume).chain([&content.assume]) {
            if let Some(Err(why)) = assume.sequence_lengths.map(|law| law.check()) {
                return Err(fail(format!("sequence-lengths: {why}")));
            }
        }
        for budget in content.overrides.iter().map(|o| &o.budget).chain([&content.budget]) {
            budget.resolve(FILE_NAME).map_err(|e| fail(e.to_string()))?;
        }
        let matchers = content
            .overrides
            .iter()
            .map(|o| crate::discover::excludes(&o.paths).map_err(|e| fail(e.to_string())))
            .collect::<Result<_, _>>()?;
        Ok(Loaded { path: Some(path.to_owned()), content, matchers })
    }

    /// What holds for one file.
    pub fn for_file(&self, file: &Path) -> Settings {
        let mut settings = Settings {
            file: self.path.clone(),
            budget: self.content.budget.clone(),
            assume: self.content.assume,
            models: self.content.models.clone(),
            frameworks: self.content.frameworks.clone(),
            rules: self.content.rules.clone(),
        };
        let base = self.path.as_deref().and_then(Path::parent);
        let relative = base.and_then(|base| file.strip_prefix(base).ok()).unwrap_or(file);
        for (other, matcher) in self.content.overrides.iter().zip(&self.matchers) {
            if relative.ancestors().any(|part| matcher.is_match(part)) {
                settings.budget = other.budget.clone().or(&settings.budget);
                settings.assume = other.assume.or(settings.assume);
                settings.frameworks.extend(other.frameworks.clone());
                settings.rules.extend(other.rules.iter().map(|(name, level)| (name.clone(), *level)));
            }
        }
        settings
    }
}

/// Checks a rule's name.
///
/// # Errors
/// A sentence with the nearest name.
pub fn rule_exists(name: &str) -> Result<(), String> {
    if crate::rules::by_name(name).is_some() {
        return Ok(());
    }
    Err(format!(
        "there is no rule `{name}`{}",
        did_you_mean(name, crate::rules::ALL.iter().map(|r| r.info().name))
    ))
}

/// `; did you mean `x`?` for the nearest of `known`, or nothing.
pub fn did_you_mean<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    known
        .map(|candidate| {
            (strsim::osa_distance(name, candidate), name.len().abs_diff(candidate.len()), candidate)
        })
        .filter(|(distance, _, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, _, candidate)| format!("; did you mean `{candidate}`?"))
        .unwrap_or_default()
}

/// Finds the `llmlint.toml` that holds for files of each directory. Reads each file once.
#[derive(Debug, Default)]
pub struct SettingsTree {
    /// `--config`: holds for every file.
    pub explicit: Option<Loaded>,
    known: BTreeMap<PathBuf, Option<PathBuf>>,
    loaded: BTreeMap<PathBuf, Loaded>,
    fallback: Loaded,
}

impl SettingsTree {
    /// Reads the settings that hold for the files of `directory` (absolute).
    ///
    /// # Errors
    /// The settings file cannot be used.
    pub fn prepare(&mut self, directory: &Path) -> Result<(), SettingsError> {
        if self.explicit.is_some() || self.known.contains_key(directory) {
            return Ok(());
        }
        let mut nearest = None;
        for ancestor in directory.ancestors() {
            let candidate = ancestor.join(FILE_NAME);
            if candidate.is_file() {
                nearest = Some(candidate);
                break;
            }
            // A repository is a world of its own: settings above it belong to something else.
            if ancestor.join(".git").exists() {
                break;
            }
        }
        if let Some(path) = &nearest
            && !self.loaded.contains_key(path)
        {
            self.loaded.insert(path.clone(), Loaded::read(path)?);
        }
        self.known.insert(directory.to_owned(), nearest);
        Ok(())
    }

    /// The settings file that holds for the files of a prepared directory.
    pub fn of(&self, directory: &Path) -> &Loaded {
        self.explicit
            .as_ref()
            .or_else(|| self.loaded.get(self.known.get(directory)?.as_ref()?))
            .unwrap_or(&self.fallback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn articles_follow_the_spoken_name() {
        for (name, expected) in [
            ("H100-80GB", "an"),
            ("A100-40GB", "an"),
            ("B200", "a"),
            ("L40S", "an"),
            ("RTX-4090", "an"),
            ("Titan-RTX", "a"),
            ("MI300X", "an"),
            ("V100-32GB", "a"),
            ("T4", "a"),
            ("Gaudi2", "a"),
        ] {
            assert_eq!(article(name), expected, "{name}");
        }
    }

    #[test]
    fn overrides_replace_levels_for_their_paths_only() {
        let loaded = Loaded {
            path: Some("/r/llmlint.toml".into()),
            content: toml::from_str(
                "[budget]\nmemory = '80GiB'\n[[overrides]]\npaths = ['big/**']\nbudget = { gpus = 8 }\nrules = { x = 'off' }",
            )
            .expect("valid"),
            matchers: vec![crate::discover::excludes(&["big/**".into()]).expect("a glob")],
        };
        let big = loaded.for_file(Path::new("/r/big/a.yaml"));
        assert_eq!((big.budget.gpus, big.budget.memory.as_deref()), (Some(8), Some("80GiB")));
        assert_eq!(big.rules.get("x"), Some(&Level::Off));
        assert!(loaded.for_file(Path::new("/r/small/a.yaml")).rules.is_empty());
    }

    #[test]
    fn a_mistyped_key_is_an_error() {
        assert!(toml::from_str::<SettingsFile>("[bugdet]\ngpus = 8").is_err());
    }
}
