//! The one place where text and paths from a repository are made safe to print.
//!
//! The tool runs on untrusted pull requests: a key, a value or a file name may hold terminal
//! escapes, bidirectional controls, or a live workflow command. Nothing is dropped without a
//! trace: every dangerous character becomes one visible character, so that columns still count.

use std::borrow::Cow;

/// What stands for a character that has no picture of its own.
const REPLACEMENT: char = '\u{fffd}';

/// Text for one line of any output: messages, labels, notes, lines of a file.
///
/// Control characters, invisible and bidirectional ones become visible, one for one; a tab
/// becomes a space. Workflow commands (`::error::`, `##[…`, `##vso[…`) lose one
/// character to another that looks like it. Ordinary text is borrowed.
pub fn text(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| !is_hostile(c)) && !has_command(text) {
        return Cow::Borrowed(text);
    }
    let shown: String = text.chars().map(visible).collect();
    Cow::Owned(disarm(&shown))
}

/// A path for one line of any output. As [`text`], but a newline is written `\n` and other
/// controls as an escape, because a path is compared and copied rather than read.
pub fn path(path: &str) -> Cow<'_, str> {
    if path.chars().all(|c| !is_hostile(c)) && !has_command(path) {
        return Cow::Borrowed(path);
    }
    let mut shown = String::with_capacity(path.len() + 8);
    for c in path.chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c if is_hostile(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    Cow::Owned(disarm(&shown))
}

/// Text that may have several lines (a rule's page, a diff of ours): line by line as [`text`].
pub fn lines(text_of_ours: &str) -> String {
    text_of_ours.split('\n').map(text).collect::<Vec<_>>().join("\n")
}

/// The data part of a GitHub workflow command (`::error …::data`), after [`text`].
/// The runner's own escapes: `%` first, then CR and LF.
pub fn github_data(data: &str) -> String {
    data.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a GitHub workflow command (`file=…`), after [`path`] or [`text`].
pub fn github_property(property: &str) -> String {
    github_data(property).replace(':', "%3A").replace(',', "%2C")
}

/// Text inside an HTML or XML element or attribute, after [`text`] or [`path`].
pub fn markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Text inside a Markdown paragraph or table cell, after [`text`] or [`path`]: no markup, no
/// links, no mentions.
pub fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '@' => escaped.push_str("&#64;"),
            '|' => escaped.push_str("\\|"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' | '!' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// True for a character that is invisible, moves the cursor or changes the reading order.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // soft hyphen, combining grapheme joiner, Arabic letter mark, Hangul fillers
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
            // Khmer and Mongolian invisibles
            | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            // zero-width characters, direction marks, line and paragraph separators, embeddings
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            // invisible operators, isolates, deprecated format characters
            | '\u{2060}'..='\u{206f}'
            // byte order mark, interlinear annotation
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // musical and shorthand format controls, tags
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// One visible character for any.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        '\0'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or(REPLACEMENT),
        '\u{7f}' => '\u{2421}',
        c if is_hostile(c) => REPLACEMENT,
        c => c,
    }
}

/// The character that looks like a colon, and the one that looks like a bracket.
const COLON: char = '\u{2236}';
const BRACKET: char = '\u{ff3b}';

/// Where a workflow command starts: the byte offset of the character to replace, and its
/// stand-in.
///
/// The runner trims white space and then looks for `::name` at the start of the line, and for
/// `##[` anywhere in it. Text is wrapped after it was sanitised, and a long word may be broken
/// anywhere, so `::name::` and `::name ` are disarmed wherever they stand.
fn command(text: &str, from: usize) -> Option<(usize, char)> {
    let bytes = text.as_bytes();
    let name_length =
        |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_alphabetic() || **b == b'-').count();
    let mut at = from;
    while let Some(found) = bytes.get(at..)?.iter().position(|b| matches!(b, b':' | b'#')) {
        let here = at + found;
        let rest = bytes.get(here..)?;
        if let Some(after) = rest.strip_prefix(b"::") {
            let end = after.get(name_length(after)..).unwrap_or_default();
            if end.len() < after.len() && (end.starts_with(b"::") || end.starts_with(b" ")) {
                return Some((here, COLON));
            }
        } else if let Some(after) = rest.strip_prefix(b"##") {
            let letters = name_length(after);
            if after.get(letters) == Some(&b'[') {
                return Some((here + 2 + letters, BRACKET));
            }
        }
        at = here + 1;
    }
    None
}

fn has_command(text: &str) -> bool {
    command(text, 0).is_some()
}

fn disarm(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 4);
    let mut done = 0;
    while let Some((at, stand_in)) = command(text, done) {
        safe.push_str(text.get(done..at).unwrap_or_default());
        safe.push(stand_in);
        done = at + 1;
    }
    safe.push_str(text.get(done..).unwrap_or_default());
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_untouched() {
        for ordinary in
            ["learning_rate: 1e-5", "für 模型 ×2 — ok", "std::fmt", "a ## b [c]", "lr: 3 # why", "16:9"]
        {
            assert!(matches!(text(ordinary), Cow::Borrowed(_)), "{ordinary}");
            assert!(matches!(path(ordinary), Cow::Borrowed(_)), "{ordinary}");
        }
    }

    #[test]
    fn every_hostile_class_becomes_visible() {
        for (raw, shown) in [
            ("\u{1b}[2J", "␛[2J"),
            ("\u{1b}]8;;http://x\u{1b}\\y\u{7}", "␛]8;;http://x␛\\y␇"),
            ("a\nb\rc\0d\te\u{7f}", "a␊b␍c␀d e␡"),
            ("\u{9b}31m\u{85}", "\u{fffd}31m\u{fffd}"),
            ("\u{202e}evil\u{2066}", "\u{fffd}evil\u{fffd}"),
            ("\u{feff}a\u{200b}b\u{2028}c\u{e0041}", "\u{fffd}a\u{fffd}b\u{fffd}c\u{fffd}"),
            ("::error::x", "∶:error::x"),
            ("  ::set-output name=a::b", "  ∶:set-output name=a::b"),
            ("x\n::error::y", "x␊∶:error::y"),
            ("lr: 1 ##[add-mask]a", "lr: 1 ##［add-mask]a"),
            ("##vso[task.setvariable]", "##vso［task.setvariable]"),
            ("###[error]x", "###［error]x"),
        ] {
            assert_eq!(text(raw), shown);
            assert_eq!(raw.chars().count(), text(raw).chars().count(), "columns must still count");
        }
    }

    #[test]
    fn a_path_keeps_to_one_line_and_cannot_be_a_command() {
        assert_eq!(path("a\n::error file=x::y.yaml"), "a\\n∶:error file=x::y.yaml");
        assert_eq!(path("::error::/a.yaml"), "∶:error::/a.yaml");
        assert_eq!(path("\u{202e}lmay.x"), "\\u{202e}lmay.x");
    }

    #[test]
    fn wrapping_cannot_bring_a_command_to_the_start_of_a_line() {
        let safe = text("one ::warning::two (::notice file=x::three aaaaaa::Error::b ::stop-commands::t");
        assert_eq!(safe, "one ∶:warning∶:two (∶:notice file=x∶:three aaaaaa∶:Error∶:b ∶:stop-commands::t");
    }

    #[test]
    fn workflow_escapes_start_with_the_percent_sign() {
        assert_eq!(github_data("100%\nx"), "100%25%0Ax");
        assert_eq!(github_property("a,b:c%"), "a%2Cb%3Ac%25");
    }

    #[test]
    fn markdown_and_markup_lose_their_meaning() {
        assert_eq!(markdown("a|b `c` <d> @e [f](g)"), "a\\|b \\`c\\` &lt;d&gt; &#64;e \\[f\\](g)");
        assert_eq!(markup("<script>\"'&"), "&lt;script&gt;&quot;&#39;&amp;");
    }
}
