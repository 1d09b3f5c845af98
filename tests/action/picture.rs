//! A pull request as a reviewer sees it: the changed line with its annotation, and the summary's
//! table. Every word comes from what the action wrote.

use std::fmt::Write as _;

use super::harness::LogCommand;

const WIDTH: f64 = 880.0;
/// Height of a line of code, and of words.
const CODE: f64 = 20.0;
const LINE: f64 = 18.0;
/// Mean width of a letter, in pixels, on the wide side.
const SANS: f64 = 6.3;
/// Lines of code shown on either side of the change.
const AROUND: usize = 2;

const GREY: &str = "#59636e";
const RED: &str = "#cf222e";

struct Picture {
    body: String,
    y: f64,
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Picture {
    fn rect(&mut self, x: f64, width: f64, height: f64, fill: &str) {
        let y = self.y;
        let _ = writeln!(
            self.body,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{fill}\"/>"
        );
    }

    /// Words on the line whose top is `y`; `attributes` are of the text element.
    fn text(&mut self, x: f64, attributes: &str, text: &str) {
        let y = self.y + 13.5;
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y}\" {attributes} xml:space=\"preserve\">{}</text>",
            escaped(text)
        );
    }

    /// A line of code with its number and its sign.
    fn code(&mut self, number: usize, sign: char, line: &str) {
        let (fill, gutter) = match sign {
            '-' => ("#ffebe9", "#ffcecb"),
            '+' => ("#dafbe1", "#aceebb"),
            _ => ("#ffffff", "#ffffff"),
        };
        self.rect(1.0, WIDTH - 2.0, CODE, fill);
        self.rect(1.0, 47.0, CODE, gutter);
        self.text(38.0, &format!("class=\"m\" text-anchor=\"end\" fill=\"{GREY}\""), &number.to_string());
        self.text(60.0, "class=\"m\"", &format!("{sign} {line}"));
        self.y += CODE;
    }

    /// A cross in a circle.
    fn cross(&mut self, x: f64, y: f64) {
        let _ = writeln!(
            self.body,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"7\" fill=\"{RED}\"/>\
             <path d=\"M{} {}l6 6m0 -6l-6 6\" stroke=\"white\" stroke-width=\"1.6\"/>",
            x - 3.0,
            y - 3.0
        );
    }
}

fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("never empty");
        if !last.is_empty() && last.chars().count() + word.chars().count() >= columns {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches(|c| c == '|' || c == ' ').split(" | ").map(str::trim).collect()
}

/// The picture of a change in one line of a file, what was said of it, and the summary.
pub(crate) fn svg(before: &str, after: &str, said: &LogCommand, summary: &str) -> String {
    let mut picture = Picture { body: String::new(), y: 0.0 };
    let (file, line) = (&said.properties["file"], &said.properties["line"]);
    let changed: usize = line.parse().expect("a line");

    picture.rect(1.0, WIDTH - 2.0, 36.0, "#f6f8fa");
    picture.y = 9.0;
    picture.text(16.0, "class=\"m\" font-weight=\"600\"", file);
    picture.y = 36.0;
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    for number in changed - AROUND..changed {
        picture.code(number, ' ', new[number - 1]);
    }
    picture.code(changed, '-', old[changed - 1]);
    picture.code(changed, '+', new[changed - 1]);

    // The annotation: the place is in its frame already.
    let place = format!("{file}:{line}:{}: ", said.properties["col"]);
    let columns = ((WIDTH - 110.0) / SANS) as usize;
    let words: Vec<(bool, String)> = said
        .data
        .lines()
        .flat_map(|paragraph| {
            wrapped(paragraph.strip_prefix(&*place).unwrap_or(paragraph), columns)
                .into_iter()
                .enumerate()
                .map(|(index, line)| (index == 0, line))
        })
        .collect();
    let starts = words.iter().filter(|(first, _)| *first).count() as f64;
    let height = 62.0 + LINE * words.len() as f64 + 4.0 * starts;
    picture.rect(1.0, WIDTH - 2.0, height + 16.0, "#f6f8fa");
    picture.y += 8.0;
    let _ = writeln!(
        picture.body,
        "<rect x=\"60\" y=\"{y}\" width=\"{}\" height=\"{height}\" rx=\"6\" fill=\"white\" stroke=\"#d1d9e0\"/>\
         <rect x=\"60\" y=\"{y}\" width=\"4\" height=\"{height}\" fill=\"{RED}\"/>",
        WIDTH - 76.0,
        y = picture.y
    );
    let end = picture.y + height + 8.0;
    picture.cross(82.0, picture.y + 18.0);
    picture.y += 9.0;
    picture.text(96.0, &format!("fill=\"{GREY}\""), &format!("Check failure on line {line} in {file}"));
    picture.y += 24.0;
    picture.text(76.0, "font-weight=\"600\"", &said.properties["title"]);
    picture.y += 20.0;
    for (first, line) in words {
        picture.y += if first { 4.0 } else { 0.0 };
        picture.text(76.0, "", &line);
        picture.y += LINE;
    }
    picture.y = end;
    for number in changed + 1..=changed + AROUND {
        picture.code(number, ' ', new[number - 1]);
    }

    // The summary: its counts, without the time, and its table.
    let mut lines = summary.lines().filter(|line| !line.is_empty());
    let counts = lines.find(|line| line.starts_with("1 config")).expect("counts");
    let rows: Vec<Vec<&str>> =
        lines.filter(|line| line.starts_with('|') && !line.starts_with("| ---")).map(cells).collect();
    picture.rect(1.0, WIDTH - 2.0, 1.0, "#d1d9e0");
    picture.y += 18.0;
    picture.text(16.0, "font-size=\"18\" font-weight=\"600\"", "llmlint");
    picture.y += 30.0;
    picture.text(16.0, "", counts.split(" (").next().unwrap_or(counts));
    picture.y += 28.0;
    let widths: Vec<f64> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) as f64 + 2.2)
        .collect();
    let unit = (WIDTH - 32.0) / widths.iter().sum::<f64>();
    for (index, row) in rows.iter().enumerate() {
        let mut x = 16.0;
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column] * unit;
            let _ = writeln!(
                picture.body,
                "<rect x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"28\" fill=\"none\" stroke=\"#d1d9e0\"/>",
                picture.y
            );
            picture.y += 5.0;
            let weight = if index == 0 { "font-weight=\"600\"" } else { "" };
            match cell.strip_prefix('❌') {
                Some(rest) => {
                    picture.cross(x + 14.0, picture.y + 9.0);
                    picture.text(x + 26.0, "font-size=\"12\"", rest.trim_start_matches(['\u{a0}', ' ']));
                }
                None => picture.text(x + 7.0, &format!("font-size=\"12\" {weight}"), cell),
            }
            picture.y -= 5.0;
            x += width;
        }
        picture.y += 28.0;
    }
    let height = picture.y + 16.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#1f2328\">\n\
         <title>{}</title>\n\
         <style>.m {{ font-family: ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: 12px }}</style>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"white\" stroke=\"#d1d9e0\"/>\n{}</svg>\n",
        escaped(&format!(
            "A pull request with llmlint's annotation and summary: {}",
            said.data.lines().next().unwrap_or_default()
        )),
        WIDTH - 1.0,
        height - 1.0,
        picture.body
    )
}
