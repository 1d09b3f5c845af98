//! Applying edits to a file: every byte outside them stays as it was, or nothing is written.

use std::path::Path;

use crate::change::Change;
use crate::document::set::set_key;
use crate::document::{Document, Syntax, Value};
use crate::finding::{Edit, Finding, Safety};
use crate::framework::Framework;
use crate::run::TrainingRun;
use crate::source::{Source, SourceId};

/// Applies edits from the end of the text to its start. `None`: two of them overlap, or one is
/// out of bounds.
pub fn apply(text: &str, edits: &[Edit]) -> Option<String> {
    let mut ordered: Vec<&Edit> = edits.iter().collect();
    ordered.sort_by_key(|edit| edit.location.span);
    if ordered.windows(2).any(|pair| pair[0].location.span.end > pair[1].location.span.start) {
        return None;
    }
    let mut out = text.to_owned();
    for edit in ordered.iter().rev() {
        let range = edit.location.span.range();
        text.get(range.clone())?;
        out.replace_range(range, &edit.replacement);
    }
    Some(out)
}

/// Applies edits and reads the result again. `None`: it no longer parses, or has problems it did
/// not have before.
pub fn apply_verified(path: &str, text: &str, edits: &[Edit]) -> Option<String> {
    let syntax = Syntax::of_path(path)?;
    let now = apply(text, edits)?;
    let problems = |text: &str| Document::parse(&Source::new(path, text), syntax).problems.len();
    (problems(&now) <= problems(text)).then_some(now)
}

/// The edits that findings of one file offer and that can be applied together. Of edits that
/// overlap, the first finding's are taken.
pub fn collect(findings: &[Finding], with_unsafe: bool) -> Vec<Edit> {
    let mut taken: Vec<Edit> = Vec::new();
    for fix in findings.iter().filter_map(|finding| finding.fixes.first()) {
        let wanted = fix.safety == Safety::Safe || with_unsafe;
        let own = fix.edits.iter().all(|edit| edit.location.source == SourceId(0));
        let free = fix.edits.iter().all(|edit| {
            let span = edit.location.span;
            taken.iter().all(|t| t.location.span.end <= span.start || span.end <= t.location.span.start)
                && !taken.iter().any(|t| t.location.span == span)
        });
        if wanted && own && free {
            taken.extend(fix.edits.iter().cloned());
        }
    }
    taken
}

/// The edits that carry out changes in the framework's own keys. `None`: one of them cannot be
/// said in this file, or its key cannot be set safely.
pub fn edits(
    framework: &dyn Framework,
    source: &Source,
    root: Value<'_>,
    run: &TrainingRun,
    changes: &[Change],
) -> Option<Vec<Edit>> {
    let mut edits: Vec<Edit> = Vec::new();
    for change in changes {
        for (key, value) in framework.assignments(*change, run)? {
            let edit = set_key(source, root, &key, &value)?;
            match edits.iter_mut().find(|e| e.location == edit.location) {
                // Two new keys at the end of one mapping: one insertion of both lines.
                Some(same) if edit.location.span.is_empty() => same.replacement.push_str(&edit.replacement),
                // A later change says the same key again (Liger sets the loss too).
                Some(same) => *same = edit,
                None => edits.push(edit),
            }
        }
    }
    Some(edits)
}

/// Writes a file in place. Never through a symbolic link: a pull request could point one at any
/// file that the user may write.
///
/// # Errors
/// The path is a link, or the system refuses.
pub fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if std::fs::symlink_metadata(path)?.file_type().is_symlink() {
        return Err(std::io::Error::other("it is a symbolic link"));
    }
    std::fs::write(path, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Location, Span};

    fn edit(start: usize, end: usize, text: &str) -> Edit {
        Edit { location: Location::primary(Span::new(start, end)), replacement: text.into() }
    }

    #[test]
    fn edits_apply_together_or_not_at_all() {
        assert_eq!(
            apply("a: 1\nb: 2\n", &[edit(3, 4, "10"), edit(8, 9, "x")]).as_deref(),
            Some("a: 10\nb: x\n")
        );
        assert_eq!(apply("a: 1\n", &[edit(0, 3, ""), edit(2, 4, "")]), None);
        assert_eq!(apply_verified("a.yaml", "a: 1\n", &[edit(3, 4, "[")]), None, "the result does not parse");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_never_written_through() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (target, link) = (dir.path().join("t"), dir.path().join("l"));
        std::fs::write(&target, "old").expect("written");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        assert!(write(&link, "new").is_err());
        assert_eq!(std::fs::read_to_string(&target).ok().as_deref(), Some("old"));
    }
}
