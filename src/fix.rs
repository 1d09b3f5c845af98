//! Applying edits to a file: every byte outside them stays as it was, or nothing is written.

use std::path::Path;

use crate::change::Step;
use crate::document::set::set_key;
use crate::document::{Document, Syntax, Value};
use crate::finding::{Edit, Finding, Safety};
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
pub fn collect<'f>(findings: impl Iterator<Item = &'f Finding>, with_unsafe: bool) -> Vec<Edit> {
    let mut taken: Vec<Edit> = Vec::new();
    for fix in findings.filter_map(|finding| finding.fixes.first()) {
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

/// The edits that carry out steps in the file. `None`: a key cannot be set safely.
pub fn edits(source: &Source, root: Value<'_>, steps: &[Step]) -> Option<Vec<Edit>> {
    let mut edits: Vec<Edit> = Vec::new();
    for step in steps {
        let Step::Set(key, value) = step else { continue };
        let edit = set_key(source, root, key, value)?;
        match edits.iter_mut().find(|e| e.location == edit.location) {
            _ if edit.location.span.is_empty() && edit.replacement.is_empty() => {}
            // Two new keys at the end of one mapping: one insertion of both lines.
            Some(same) if edit.location.span.is_empty() => {
                same.replacement.push_str(without_parents(&edit.replacement, &same.replacement));
            }
            // A later change says the same key again (Liger sets the loss too).
            Some(same) => *same = edit,
            None => edits.push(edit),
        }
    }
    Some(edits)
}

/// `added` without the lines of a new mapping that `before` has opened already.
fn without_parents<'t>(added: &'t str, before: &str) -> &'t str {
    let last_line = added.trim_end().rfind('\n').unwrap_or(0);
    let (parents, key) = added.split_at(last_line);
    if !parents.trim().is_empty() && before.contains(parents) {
        // A block that ends its last line needs no break before the next.
        if before.ends_with('\n') { key.trim_start_matches(['\r', '\n']) } else { key }
    } else {
        added
    }
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
    use crate::framework::Framework as _;
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

    #[test]
    fn new_keys_of_one_new_mapping_open_it_once() {
        for (path, text, expected) in [
            ("a.yaml", "x: 1\n", "x: 1\nf:\n  a: 1\n  b: 2\n"),
            ("a.toml", "x = 1\n", "x = 1\n\n[f]\na = 1\nb = 2\n"),
        ] {
            let source = Source::new(path, text);
            let syntax = Syntax::of_path(path).expect("known");
            let document = Document::parse(&source, syntax);
            let dialect = crate::framework::native::Native.dialect(syntax);
            let root = document.root(dialect).expect("it parses");
            let steps = [("f.a", 1), ("f.b", 2)].map(|(key, n)| Step::Set(key.into(), n.into()));
            let edits = edits(&source, root, &steps).expect("both can be set");
            assert_eq!(apply(text, &edits).as_deref(), Some(expected));
        }
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
