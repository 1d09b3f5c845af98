//! What git is asked: which files changed, and what a revision's configs looked like. Called as
//! a program, without a shell, with paths after `--` and separated by NUL.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::common::Failure;
use crate::document::Syntax;

/// A revision as a user writes it, refused when git could take it for an option.
fn revision(text: &str) -> Result<&str, Failure> {
    if text.starts_with('-') || text.is_empty() || text.contains(['\0', '\n']) {
        return Err(Failure::Message(format!("`{text}` is not a revision")));
    }
    Ok(text)
}

fn git(directory: &Path, arguments: &[&OsStr], stdin: &[u8]) -> Result<Vec<u8>, Failure> {
    git_with_index(directory, None, arguments, stdin)
}

fn git_with_index(
    directory: &Path,
    index: Option<&Path>,
    arguments: &[&OsStr],
    stdin: &[u8],
) -> Result<Vec<u8>, Failure> {
    let failed = |why: String| Failure::Message(format!("git: {}", why.trim()));
    let mut command = Command::new("git");
    if let Some(index) = index {
        command.env("GIT_INDEX_FILE", index);
    }
    let mut child = command
        .args(arguments)
        .current_dir(directory)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    // Written from a thread: git may fill its own pipe before it has read ours.
    let pipe = child.stdin.take();
    let input = stdin.to_owned();
    let writer = std::thread::spawn(move || {
        if let Some(mut pipe) = pipe {
            // Git that ends early has said why on stderr.
            let _ = pipe.write_all(&input);
        }
    });
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    let _ = writer.join();
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(output.stdout)
}

fn names(bytes: &[u8]) -> impl Iterator<Item = String> + '_ {
    // Names that are not UTF-8 cannot be shown in a report; such files are left out.
    bytes
        .split(|b| *b == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|n| !n.is_empty())
        .map(str::to_owned)
}

/// The repository's root.
///
/// # Errors
/// Not in a repository.
pub(super) fn top(directory: &Path) -> Result<PathBuf, Failure> {
    let out = git(directory, &["rev-parse".as_ref(), "--show-toplevel".as_ref()], b"")?;
    Ok(PathBuf::from(String::from_utf8_lossy(&out).trim_end_matches('\n')))
}

/// Files that differ between the merge base with `since` and the working tree, absolute,
/// untracked ones included.
///
/// # Errors
/// Git's own words.
pub(super) fn changed_since(directory: &Path, since: &str) -> Result<BTreeSet<PathBuf>, Failure> {
    let since = revision(since)?;
    let top = top(directory)?;
    let base = git(&top, &["merge-base".as_ref(), since.as_ref(), "HEAD".as_ref()], b"")
        .map_or_else(|_| since.to_owned(), |out| String::from_utf8_lossy(&out).trim().to_owned());
    let diff: [&OsStr; 6] = [
        "diff".as_ref(),
        "--name-only".as_ref(),
        "-z".as_ref(),
        "--diff-filter=d".as_ref(),
        base.as_ref(),
        "--".as_ref(),
    ];
    let mut changed: BTreeSet<PathBuf> = names(&git(&top, &diff, b"")?).map(|name| top.join(name)).collect();
    let new: [&OsStr; 4] =
        ["ls-files".as_ref(), "--others".as_ref(), "--exclude-standard".as_ref(), "-z".as_ref()];
    changed.extend(names(&git(&top, &new, b"")?).map(|name| top.join(name)));
    Ok(changed)
}

/// The merge base of a revision and HEAD; the revision itself when there is none.
pub(super) fn merge_base(directory: &Path, with: &str) -> Result<String, Failure> {
    let with = revision(with)?;
    Ok(git(directory, &["merge-base".as_ref(), with.as_ref(), "HEAD".as_ref()], b"")
        .map_or_else(|_| with.to_owned(), |out| String::from_utf8_lossy(&out).trim().to_owned()))
}

/// Is this a revision that git knows?
pub(super) fn is_revision(directory: &Path, text: &str) -> bool {
    revision(text).is_ok_and(|text| {
        let commit = format!("{text}^{{commit}}");
        let arguments: [&OsStr; 4] =
            ["rev-parse".as_ref(), "--verify".as_ref(), "--quiet".as_ref(), commit.as_ref()];
        git(directory, &arguments, b"").is_ok()
    })
}

/// Writes the files of a revision that could be configs below `folder`. Nothing in the
/// repository changes: the index is a temporary one.
///
/// # Errors
/// Git's own words.
pub(super) fn extract(directory: &Path, at: &str, folder: &Path) -> Result<(), Failure> {
    let at = revision(at)?;
    let top = top(directory)?;
    let list: [&OsStr; 5] =
        ["ls-tree".as_ref(), "-r".as_ref(), "-z".as_ref(), "--name-only".as_ref(), at.as_ref()];
    let mut wanted = Vec::new();
    for name in names(&git(&top, &list, b"")?).filter(|name| Syntax::of_path(name).is_some()) {
        wanted.extend_from_slice(name.as_bytes());
        wanted.push(0);
    }
    let index = folder.join(".llmlint-index");
    let mut prefix = folder.as_os_str().to_owned();
    prefix.push("/");
    let mut option = std::ffi::OsString::from("--prefix=");
    option.push(&prefix);
    let with_index = |arguments: &[&OsStr], stdin: &[u8]| {
        let mut all: Vec<&OsStr> = vec!["-c".as_ref(), "core.autocrlf=false".as_ref()];
        all.extend(arguments);
        git_with_index(&top, Some(&index), &all, stdin)
    };
    with_index(&["read-tree".as_ref(), at.as_ref()], b"")?;
    with_index(
        &["checkout-index".as_ref(), "-q".as_ref(), "-z".as_ref(), option.as_ref(), "--stdin".as_ref()],
        &wanted,
    )?;
    let _ = std::fs::remove_file(&index);
    Ok(())
}
