//! The model catalogue, and the order in which a model's name is looked up.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value};

use super::hub::{self, Hub};
use super::names::Named;
use super::{Architecture, gpus, names};
use crate::document::{is_placeholder_text, limits};
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
    /// The family whose layers are taken for the model's own, where it runs code of its own.
    pub stand_in: Option<&'static str>,
    /// The public model that it is taken for because of its name: an assumption, not a fact.
    pub taken_for: Option<&'static str>,
}

/// Where to look, beside the catalogue.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// `llmlint.toml`'s `[models."id"]` tables, as config.json objects. A table with `config`
    /// names a `config.json` instead, relative to one of the directories or the root.
    pub declared: Vec<(String, Map<String, Value>)>,
    /// Directories that a relative model path may be relative to, inside the repository root.
    pub directories: Vec<PathBuf>,
    /// The repository root: nothing outside it is read.
    pub root: Option<PathBuf>,
    /// The Hugging Face cache's `hub` directory.
    pub cache: Option<PathBuf>,
    /// The hub, where the network may be asked.
    pub hub: Option<Arc<Hub>>,
}

/// A name that was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// Why, in one sentence.
    pub why: String,
    /// Names that are near.
    pub near: Vec<String>,
    /// The number of its parameters, where that is declared.
    pub parameters: Option<u64>,
}

impl NotFound {
    fn because(why: String) -> NotFound {
        NotFound { why, near: Vec::new(), parameters: None }
    }
}

/// One architecture of the catalogue, with the ids that have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The canonical id.
    pub id: &'static str,
    /// True when dimensions were read in a source, false when they are from memory.
    pub read: bool,
    /// The published or counted total, where one is known.
    pub parameters: Option<u64>,
    /// Other ids and framework spellings of the same architecture.
    pub ids: Vec<&'static str>,
    /// The family whose layers are taken for its own, where it runs code of its own.
    pub stand_in: Option<&'static str>,
    config: &'static str,
}

const DATA: &str = include_str!("data/models.tsv");

struct Table {
    models: Vec<Model>,
    /// Lower-case id to the model's index.
    ids: HashMap<String, usize>,
    /// What follows the owner in an id, to the model's index; `None` where it means several.
    bare: HashMap<String, Option<usize>>,
}

// Parsed once, and only in runs that name a model; JSON is parsed for the one that is asked for.
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let models: Vec<Model> = gpus::rows(DATA).filter_map(|fields| model(&fields)).collect();
    let (mut ids, mut bare) = (HashMap::new(), HashMap::new());
    for (index, model) in models.iter().enumerate() {
        for id in std::iter::once(&model.id).chain(&model.ids) {
            let id = id.to_ascii_lowercase();
            if let Some((_, name)) = id.rsplit_once('/') {
                let known = bare.entry(name.to_owned()).or_insert(Some(index));
                if *known != Some(index) {
                    *known = None;
                }
            }
            ids.entry(id).or_insert(index);
        }
    }
    Table { models, ids, bare }
});

fn model(fields: &[&'static str]) -> Option<Model> {
    let text = |index: usize| fields.get(index).copied().unwrap_or_default();
    Some(Model {
        id: fields.first()?,
        read: text(1) == "read",
        parameters: text(2).parse().ok(),
        config: fields.get(3)?,
        ids: text(4).split(' ').filter(|id| !id.is_empty()).collect(),
        stand_in: Some(text(5)).filter(|family| !family.is_empty()),
    })
}

impl Model {
    /// Its `config.json` object: the fields that matter.
    ///
    /// # Errors
    /// A sentence, when the catalogue's line is broken.
    pub fn config(&self) -> Result<Map<String, Value>, String> {
        let parse = |text: &str| serde_json::from_str(text).map_err(|error| format!("{}: {error}", self.id));
        // `@id {…}`: the config of another line, with some fields replaced.
        let Some(reference) = self.config.strip_prefix('@') else { return parse(self.config) };
        let (base, replaced) = reference.split_once(' ').unwrap_or((reference, "{}"));
        let base = by_id(base).ok_or_else(|| format!("{}: no line `{base}`", self.id))?;
        let mut config: Map<String, Value> =
            serde_json::from_str(base.config).map_err(|error| format!("{}: {error}", base.id))?;
        config.extend(parse(replaced)?);
        Ok(config)
    }
}

/// Every architecture, in the table's order.
pub fn all() -> &'static [Model] {
    &TABLE.models
}

/// The model with exactly this id, in any case.
pub fn by_id(id: &str) -> Option<&'static Model> {
    TABLE.ids.get(&id.to_ascii_lowercase()).and_then(|index| TABLE.models.get(*index))
}

/// The model whose ids end in `/bare`, when all that do have one architecture.
pub(super) fn by_bare_name(bare: &str) -> Option<&'static Model> {
    let index = (*TABLE.bare.get(&bare.to_ascii_lowercase())?)?;
    TABLE.models.get(index)
}

/// Finds a model.
///
/// # Errors
/// [`NotFound`] with the reason and near names.
pub fn resolve(model: &ModelRef, lookup: &Lookup) -> Result<Resolved, NotFound> {
    let none = Map::new();
    let (name, replaced) = match model {
        ModelRef::Config(config) => return read(config, &none, Provenance::Inline),
        ModelRef::Id(name) | ModelRef::Path(name) => (name.as_str(), &none),
        ModelRef::IdWith(name, replaced) => (name.as_str(), replaced),
    };
    if let Some((_, declared)) = lookup.declared.iter().find(|(id, _)| id.eq_ignore_ascii_case(name)) {
        let Some(Value::String(path)) = declared.get("config") else {
            return read(declared, replaced, Provenance::Declared);
        };
        let config = local(path, lookup).ok_or_else(|| {
            NotFound::because(format!(
                "llmlint.toml names `{path}` for `{name}`, which is no readable config.json inside the repository"
            ))
        })?;
        return read(&config.1, replaced, Provenance::Declared);
    }
    if let Some((shown, config)) = local(name, lookup) {
        return read(&config, replaced, Provenance::LocalDirectory(shown));
    }
    if !matches!(model, ModelRef::Path(_))
        && let Some((revision, config)) = cached(name, lookup.cache.as_deref())
    {
        return read(&config, replaced, Provenance::Cache(revision));
    }
    let named = names::in_catalogue(name);
    // A fact of the hub's goes before an assumption of ours.
    let mut asked = None;
    if named.as_ref().is_none_or(|named| named.taken_for.is_some())
        && !matches!(model, ModelRef::Path(_))
        && let Some(hub) = &lookup.hub
    {
        match hub.config(name) {
            Ok(config) => return read(&config, replaced, Provenance::Hub),
            Err(why) => asked = Some(why),
        }
    }
    match named {
        Some(named) => from_catalogue(&named, name.starts_with("litgpt:"), replaced),
        None => {
            let not_found = not_found(name, matches!(model, ModelRef::Path(_)), asked);
            Err(NotFound { parameters: number_alone(replaced), ..not_found })
        }
    }
}

fn from_catalogue(named: &Named, litgpt: bool, replaced: &Map<String, Value>) -> Result<Resolved, NotFound> {
    let found = named.model;
    let mut config = found.config().map_err(NotFound::because)?;
    if let Some(stored) = &named.stored {
        config.insert("quantization_config".into(), stored.clone());
    }
    // LitGPT's models have a head of their own, also where the original shares the embedding.
    if litgpt {
        config.insert("tie_word_embeddings".into(), false.into());
    }
    let resolved = read(&config, replaced, Provenance::Catalogue(found.id.to_owned()))?;
    Ok(Resolved { stand_in: found.stand_in, taken_for: named.taken_for, ..resolved })
}

fn read(
    config: &Map<String, Value>,
    replaced: &Map<String, Value>,
    provenance: Provenance,
) -> Result<Resolved, NotFound> {
    let merged;
    let config = if replaced.is_empty() {
        config
    } else {
        merged = config.iter().chain(replaced).map(|(k, v)| (k.clone(), v.clone())).collect();
        &merged
    };
    Architecture::from_config(config)
        .map(|architecture| Resolved { architecture, provenance, stand_in: None, taken_for: None })
        .map_err(|why| match number_alone(config) {
            Some(parameters) => {
                NotFound { parameters: Some(parameters), ..NotFound::because(BY_NUMBER.into()) }
            }
            None => NotFound::because(why),
        })
}

/// Why a model that is known by its number of parameters has no estimate.
const BY_NUMBER: &str = "only the number of its parameters is declared, which gives a floor of the memory and no \
                         estimate; declare its dimensions, or its `config.json` with `config`";

/// The declared number of parameters, where no dimension is beside it.
fn number_alone(config: &Map<String, Value>) -> Option<u64> {
    let number = config.get("parameters").filter(|_| config.len() == 1)?.as_f64()?;
    // Up to here it is exact.
    (number >= 1.0 && number <= (1u64 << 53) as f64).then_some(number as u64)
}

fn not_found(name: &str, path: bool, asked: Option<String>) -> NotFound {
    if is_placeholder_text(name) {
        let why = format!(
            "`{name}` is filled in elsewhere; say what it stands for in llmlint.toml under `[models.\"{name}\"]`, by \
             its dimensions or its `config.json` (`config = \"path\"`)"
        );
        return NotFound::because(why);
    }
    let looks_local = path || name.starts_with(['/', '.', '~', '$']) || name.matches('/').count() > 1;
    let declare = "declare its dimensions in llmlint.toml under `[models.\"…\"]`, or there name its `config.json` \
                   with `config = \"path\"`";
    let why = if looks_local {
        format!("no `config.json` is found at this path inside the repository; {declare}")
    } else {
        let asked = asked.map(|why| format!(", and {why}")).unwrap_or_default();
        format!(
            "it is not in the catalogue, nor in a local directory or the Hugging Face cache{asked}; {declare}"
        )
    };
    NotFound { near: if looks_local { Vec::new() } else { near(name) }, ..NotFound::because(why) }
}

/// Catalogue ids that are spelled nearly like `name`, nearest first.
fn near(name: &str) -> Vec<String> {
    let lower = name.to_ascii_lowercase();
    let bare = |id: &str| id.rsplit('/').next().unwrap_or(id).to_owned();
    let wanted = bare(&lower);
    let mut scored: Vec<(f64, &str)> = all()
        .iter()
        .flat_map(|model| std::iter::once(model.id).chain(model.ids.iter().copied()))
        .filter(|id| !id.contains(':'))
        .map(|id| (strsim::normalized_damerau_levenshtein(&wanted, &bare(&id.to_ascii_lowercase())), id))
        .filter(|(score, _)| *score >= 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, id)| id.to_owned()).collect()
}

/// A `config.json` at or in a path inside the repository root.
fn local(name: &str, lookup: &Lookup) -> Option<(String, Map<String, Value>)> {
    let root = lookup.root.as_deref()?.canonicalize().ok()?;
    let own = lookup.root.iter().chain(&lookup.directories);
    own.filter_map(|directory| {
        let mut path = directory.join(name).canonicalize().ok()?;
        if path.is_dir() {
            path = path.join("config.json").canonicalize().ok()?;
        }
        let shown = path.strip_prefix(&root).ok()?.to_string_lossy().replace('\\', "/");
        Some((shown, read_config(&path)?))
    })
    .next()
}

/// The config of the snapshot that `refs/main` names, else of the only snapshot there is.
fn cached(id: &str, folder: Option<&Path>) -> Option<(String, Map<String, Value>)> {
    let (owner, name) = id.split_once('/')?;
    if !hub::is_part(owner) || !hub::is_part(name) {
        return None;
    }
    let folder = folder?.join(format!("models--{owner}--{name}"));
    let main = std::fs::read_to_string(folder.join("refs/main")).ok().map(|text| text.trim().to_owned());
    let revision = match main.filter(|revision| hub::is_part(revision)) {
        Some(revision) => revision,
        None => {
            let mut found = std::fs::read_dir(folder.join("snapshots")).ok()?.flatten();
            let only = found.next()?;
            if found.next().is_some() {
                return None;
            }
            only.file_name().into_string().ok()?
        }
    };
    let config = read_config(&folder.join("snapshots").join(&revision).join("config.json"))?;
    Some((revision, config))
}

fn read_config(path: &Path) -> Option<Map<String, Value>> {
    let meta = std::fs::metadata(path).ok()?;
    if !meta.is_file() || meta.len() > limits::FILE_BYTES as u64 {
        return None;
    }
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}
