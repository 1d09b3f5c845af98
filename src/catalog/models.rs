//! The model catalogue, and the order in which a model's name is looked up.

use super::Architecture;
use crate::run::ModelRef;

/// Where an architecture was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// `llmlint.toml` declares it.
    Declared,
    /// A `config.json` in a local directory.
    LocalDirectory(String),
    /// The Hugging Face cache on this machine.
    Cache(String),
    /// Compiled in, under this canonical id.
    Catalogue(String),
    /// Spelled out in the checked file.
    Inline,
    /// Read from the hub (`--online`).
    Hub,
}

/// A model that was found.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Its shape.
    pub architecture: Architecture,
    /// Where it was found.
    pub provenance: Provenance,
}

/// Where to look, beside the catalogue.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// `llmlint.toml`'s `[models."id"]` tables, as config.json objects.
    pub declared: Vec<(String, serde_json::Map<String, serde_json::Value>)>,
    /// Directories that a relative model path may be relative to, inside the repository root.
    pub directories: Vec<std::path::PathBuf>,
    /// The repository root: nothing outside it is read.
    pub root: Option<std::path::PathBuf>,
    /// The Hugging Face cache's `hub` directory.
    pub cache: Option<std::path::PathBuf>,
    /// The network may be asked.
    pub online: bool,
}

/// A name that was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// Why, in one sentence.
    pub why: String,
    /// Names that are near.
    pub near: Vec<String>,
}

/// Finds a model.
///
/// # Errors
/// [`NotFound`] with the reason and near names.
pub fn resolve(model: &ModelRef, lookup: &Lookup) -> Result<Resolved, NotFound> {
    let _ = lookup;
    match model {
        ModelRef::Config(config) => Architecture::from_config(config)
            .map(|architecture| Resolved { architecture, provenance: Provenance::Inline })
            .map_err(|why| NotFound { why, near: Vec::new() }),
        ModelRef::Id(id) | ModelRef::Path(id) | ModelRef::IdWith(id, _) => {
            Err(NotFound { why: format!("`{id}` is not in the catalogue"), near: Vec::new() })
        }
    }
}
