//! What a framework has at hand while it lowers a file: the tree, the files it refers to, what
//! the user declared, and places to put what it finds.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::document::{Dialect, Document, Syntax, Value, limits};
use crate::finding::Finding;
use crate::run::{Setting, Unknown};
use crate::source::{Location, Source, SourceId, Span};

/// Why a referenced file was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceError {
    /// Nothing there, in any of the places looked at.
    NotFound,
    /// It is (or leads) outside the repository.
    OutsideRepository,
    /// It is there but is no readable regular file of at most 1 MiB.
    Unreadable,
}

/// A referenced file that was read.
#[derive(Clone, Debug)]
pub struct Referenced {
    /// Its number among the files of this check.
    pub id: SourceId,
    /// Its text.
    pub source: Arc<Source>,
    /// Its tree.
    pub document: Arc<Document>,
}

/// The context of one file's lowering.
pub struct Lowering<'a> {
    /// The file's tree, typed by the framework's dialect.
    pub root: Value<'a>,
    /// The file's text.
    pub source: &'a Arc<Source>,
    /// The directory the check runs in.
    pub working_directory: &'a Path,
    /// The repository root: nothing outside it is read.
    pub repository: &'a Path,
    /// GPUs the user declares (command line, `llmlint.toml`, inline comment).
    pub declared_gpus: Option<Setting<u64>>,
    /// Tokens of the longest sequence that the user declares, for files that set no limit:
    /// `[assume] sequence-length = 2048`.
    pub assumed_sequence_length: Option<Setting<u64>>,
    /// The framework's version the user declares: `[frameworks] trl = "0.19"`.
    pub declared_version: Option<String>,
    /// The file and the files it refers to, in the order they were opened.
    pub sources: Vec<Arc<Source>>,
    /// Findings that only lowering can make (references, conflicts between files).
    pub findings: Vec<Finding>,
    /// What is missing for an estimate.
    pub unknown: Vec<Unknown>,
    opened: Vec<(PathBuf, Referenced)>,
}

impl<'a> Lowering<'a> {
    /// The context of a file without references yet.
    pub fn new(
        root: Value<'a>,
        source: &'a Arc<Source>,
        working_directory: &'a Path,
        repository: &'a Path,
    ) -> Lowering<'a> {
        Lowering {
            root,
            source,
            working_directory,
            repository,
            declared_gpus: None,
            assumed_sequence_length: None,
            declared_version: None,
            sources: vec![Arc::clone(source)],
            findings: Vec::new(),
            unknown: Vec::new(),
            opened: Vec::new(),
        }
    }

    /// The setting a key writes, if it is there and `read` makes something of it.
    /// The key may be dotted.
    pub fn written<T>(&self, key: &str, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<Setting<T>> {
        let value = self.root.path(key)?;
        read(value).map(|v| Setting::written(v, here(value)))
    }

    /// The setting a key writes, or else a default of the framework.
    pub fn or_default<T>(
        &self,
        key: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
        default: T,
        by: &str,
    ) -> Setting<T> {
        self.written(key, read).unwrap_or_else(|| Setting::default_of(default, by))
    }

    /// Notes that something needed for an estimate is missing.
    pub fn missing(&mut self, what: &str, why: impl Into<String>, location: Option<Location>) {
        self.unknown.push(Unknown { what: what.into(), why: why.into(), location });
    }

    /// Opens a file that the checked file names. Looked for in the working directory, the
    /// repository root, the file's own folder and its ancestors; never outside the repository.
    ///
    /// # Errors
    /// [`ReferenceError`]; the caller makes the finding, because it knows what hangs on the file.
    pub fn open(&mut self, name: &str) -> Result<Referenced, ReferenceError> {
        let repository = self.repository.canonicalize().map_err(|_| ReferenceError::Unreadable)?;
        let mut outside = Path::new(name).is_absolute();
        for candidate in self.candidates(name) {
            let Ok(path) = candidate.canonicalize() else { continue };
            if !path.starts_with(&repository) {
                outside = true;
                continue;
            }
            return self.read(path);
        }
        // A path that climbs out of the repository is refused whether or not it exists, so
        // that the answer says nothing about the machine.
        let climbs = Path::new(name).components().filter(|c| *c == Component::ParentDir).count() > 8;
        Err(if outside || climbs { ReferenceError::OutsideRepository } else { ReferenceError::NotFound })
    }

    fn candidates(&self, name: &str) -> Vec<PathBuf> {
        let own = Path::new(&self.source.path);
        let own = if own.is_absolute() { own.to_owned() } else { self.working_directory.join(own) };
        let mut places = vec![self.working_directory.to_owned(), self.repository.to_owned()];
        places.extend(
            own.ancestors().skip(1).take_while(|dir| dir.starts_with(self.repository)).map(Path::to_owned),
        );
        places.into_iter().map(|dir| dir.join(name)).collect()
    }

    fn read(&mut self, path: PathBuf) -> Result<Referenced, ReferenceError> {
        if let Some((_, referenced)) = self.opened.iter().find(|(known, _)| *known == path) {
            return Ok(referenced.clone());
        }
        let meta = std::fs::metadata(&path).map_err(|_| ReferenceError::Unreadable)?;
        if !meta.is_file() || meta.len() > limits::FILE_BYTES as u64 || self.sources.len() >= 64 {
            return Err(ReferenceError::Unreadable);
        }
        let text = std::fs::read_to_string(&path).map_err(|_| ReferenceError::Unreadable)?;
        let shown =
            path.strip_prefix(self.working_directory).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        let syntax = Syntax::of_path(&shown).unwrap_or(Syntax::Json);
        let source = Source::new(shown, text);
        let document = Arc::new(Document::parse(&source, syntax));
        let referenced =
            Referenced { id: SourceId(self.sources.len() as u16), source: Arc::clone(&source), document };
        self.sources.push(source);
        self.opened.push((path, referenced.clone()));
        Ok(referenced)
    }
}

impl Referenced {
    /// The file's tree under a dialect.
    pub fn root(&self, dialect: Dialect) -> Option<Value<'_>> {
        self.document.root(dialect)
    }

    /// A span of this file as a location.
    pub fn at(&self, span: Span) -> Location {
        Location { source: self.id, span }
    }
}

/// Where a value of the checked file stands. Absent values point at their key.
pub fn here(value: Value<'_>) -> Location {
    Location::primary(if value.span().is_empty() { value.key_span() } else { value.span() })
}
