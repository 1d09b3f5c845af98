//! Which files to check: files given by name, directories walked with `.gitignore` respected,
//! and patterns that the shell did not expand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::document::Syntax;

/// One file to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The path to open.
    pub path: PathBuf,
    /// The path to show: as given or as walked, forward slashes.
    pub shown: String,
    /// Given by name (not found by walking): unreadable is an error, not recognised is said.
    pub explicit: bool,
}

/// What is wrong with the paths themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoverError {
    /// Given by name and not there.
    Missing(String),
    /// Given by name, and neither a regular file nor a directory.
    NotAFile(String),
    /// A pattern that is no glob.
    BadPattern(String, String),
}

impl std::fmt::Display for DiscoverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DiscoverError::Missing(path) => write!(f, "`{path}` does not exist"),
            DiscoverError::NotAFile(path) => write!(f, "`{path}` is neither a regular file nor a directory"),
            DiscoverError::BadPattern(pattern, why) => write!(f, "`{pattern}` is not a pattern: {why}"),
        }
    }
}

/// Builds the set that `exclude` patterns make. A pattern matches the shown path or any folder
/// above it.
///
/// # Errors
/// The first pattern that is no glob.
pub fn excludes(patterns: &[String]) -> Result<GlobSet, DiscoverError> {
    let bad = |pattern: &str, error: &globset::Error| {
        DiscoverError::BadPattern(pattern.to_owned(), error.to_string())
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(|e| bad(pattern, &e))?);
        set.add(Glob::new(&format!("**/{pattern}")).map_err(|e| bad(pattern, &e))?);
    }
    set.build().map_err(|e| bad("exclude", &e))
}

fn is_excluded(set: &GlobSet, path: &str) -> bool {
    let path = path.strip_prefix("./").unwrap_or(path);
    Path::new(path).ancestors().any(|part| !part.as_os_str().is_empty() && set.is_match(part))
}

fn shown(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "/");
    text.strip_prefix("./").map(str::to_owned).unwrap_or(text)
}

/// Finds the files that `arguments` name, sorted by path, each once.
///
/// Files given by name are checked even when excluded, unless `force_exclude` (pre-commit passes
/// every staged file by name).
///
/// # Errors
/// A name that is not there, or a pattern that is none.
pub fn discover(
    arguments: &[String],
    exclude: &GlobSet,
    force_exclude: bool,
) -> Result<Vec<Found>, DiscoverError> {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let mut add = |path: PathBuf, explicit: bool| {
        let shown = shown(&path);
        if (!explicit || force_exclude) && is_excluded(exclude, &shown) {
            return;
        }
        let entry = found.entry(shown.clone()).or_insert(Found { path, shown, explicit });
        entry.explicit |= explicit;
    };
    for argument in arguments {
        let path = Path::new(argument);
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                for file in walk(path) {
                    add(file, false);
                }
            }
            Ok(meta) if meta.is_file() => add(path.to_owned(), true),
            Ok(_) => return Err(DiscoverError::NotAFile(argument.clone())),
            Err(_) if argument.contains(['*', '?', '[']) => {
                let paths = glob::glob(argument)
                    .map_err(|e| DiscoverError::BadPattern(argument.clone(), e.msg.to_owned()))?;
                for file in paths.flatten().filter(|p| p.is_file()) {
                    add(file, false);
                }
            }
            Err(_) => return Err(DiscoverError::Missing(argument.clone())),
        }
    }
    Ok(found.into_values().collect())
}

/// Files of a directory tree that could be configs. Symbolic links are not followed: what they
/// point at is either found by itself or outside what we were asked to look at.
fn walk(root: &Path) -> Vec<PathBuf> {
    ignore::WalkBuilder::new(root)
        .hidden(false)
        .follow_links(false)
        .require_git(false)
        .add_custom_ignore_filename(".llmlintignore")
        .filter_entry(|entry| entry.file_name() != ".git")
        .build()
        .flatten()
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(ignore::DirEntry::into_path)
        .filter(|path| Syntax::of_path(&path.to_string_lossy()).is_some())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_pattern_a_directory_and_a_name_find_each_file_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b")).expect("created");
        for name in ["a/b/x.yaml", "a/y.toml", "a/z.txt", "a/skip.json"] {
            std::fs::write(at(name), "").expect("written");
        }
        std::fs::write(at(".gitignore"), "skip.json\n").expect("written");
        let text = |name: &str| at(name).to_string_lossy().into_owned();
        let arguments = [text("**/*.yaml"), text(""), text("a/y.toml")];
        let none = excludes(&[]).expect("no patterns");
        let found = discover(&arguments, &none, false).expect("all there");
        let names: Vec<_> =
            found.iter().map(|f| (f.path.file_name().and_then(|n| n.to_str()), f.explicit)).collect();
        assert_eq!(names, [(Some("x.yaml"), false), (Some("y.toml"), true)]);
    }

    #[test]
    fn a_name_that_is_not_there_is_an_error() {
        let none = excludes(&[]).expect("no patterns");
        assert!(matches!(discover(&["no/such.yaml".into()], &none, false), Err(DiscoverError::Missing(_))));
    }
}
