//! `--ascii`: the one place where our own signs become ASCII. Every output for people goes
//! through [`human`]; whatever draws needs to know nothing of it. Letters that are quoted from
//! a file stay as they are.

use std::io::{self, Write};

use super::Options;

/// `out`, in ASCII where that is asked for. Flush it when done.
pub(super) fn human<'w>(options: &Options<'_>, out: &'w mut dyn Write) -> Human<'w> {
    Human { out, ascii: options.ascii, pending: Vec::new(), line: Line::Start }
}

/// A writer for people.
pub(super) struct Human<'w> {
    out: &'w mut dyn Write,
    ascii: bool,
    /// Bytes of a character that is not complete yet.
    pending: Vec<u8>,
    line: Line,
}

/// What stands in the current line so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Blanks only.
    Start,
    /// Blanks, and a colour that has not ended yet.
    Colour,
    /// Something.
    Begun,
}

/// One column for one column, so that what is drawn stays in line.
fn plain(sign: char, at_start: bool) -> Option<char> {
    Some(match sign {
        // A line's gutter beside the labels, or a product.
        '·' if at_start => ':',
        '·' => '*',
        '×' => 'x',
        '−' | '─' => '-',
        '…' => '~',
        '█' => '#',
        '▓' => '=',
        '▒' => '+',
        '░' => ':',
        '╍' => '.',
        '┃' | '│' | '├' | '┤' | '┼' => '|',
        '┬' => 'v',
        '┴' => '^',
        '╭' => ',',
        '╮' => '.',
        '╰' => '`',
        '╯' => '\'',
        '▶' => '>',
        '▲' => '^',
        _ => return None,
    })
}

impl Human<'_> {
    fn convert(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            out.push(plain(c, self.line == Line::Start).unwrap_or(c));
            self.line = match (self.line, c) {
                (_, '\n') => Line::Start,
                (Line::Start, '\u{1b}') => Line::Colour,
                (Line::Colour, 'm') => Line::Start,
                (Line::Start, ' ') => Line::Start,
                (Line::Colour, _) => Line::Colour,
                _ => Line::Begun,
            };
        }
        out
    }
}

impl Write for Human<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.ascii {
            return self.out.write(bytes);
        }
        self.pending.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.pending) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.pending.split_off(whole);
        let text = String::from_utf8(std::mem::replace(&mut self.pending, rest)).map_err(io::Error::other)?;
        let text = self.convert(&text);
        self.out.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_become_ascii_whatever_the_pieces_they_come_in() {
        let options = Options { ascii: true, ..Options::default() };
        let text = "  \u{1b}[2m· │\u{1b}[0m ──┬── é\n34·d × 2 − 1 …\n";
        let mut out = Vec::new();
        let mut writer = human(&options, &mut out);
        for byte in text.as_bytes() {
            writer.write_all(&[*byte]).expect("written");
        }
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "  \u{1b}[2m: |\u{1b}[0m --v-- é\n34*d x 2 - 1 ~\n"
        );
    }
}
