//! `llmlint.toml`, and what the command line adds to it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::catalog::Gpu;
use crate::units::Bytes;

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

/// A rule's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
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

/// Settings in force for one file.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The file they came from.
    pub file: Option<PathBuf>,
    /// The declared budget.
    pub budget: Option<Budget>,
    /// GPUs in all, when declared without a GPU.
    pub gpus: Option<(u64, String)>,
    /// `[models."org/name"]`: config.json objects.
    pub models: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
    /// `[frameworks]`: the version in use.
    pub frameworks: BTreeMap<String, String>,
    /// `[rules]`: levels.
    pub rules: BTreeMap<String, Level>,
}
