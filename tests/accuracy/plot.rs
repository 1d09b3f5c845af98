//! Predicted against measured, both axes logarithmic, as an SVG.

use std::fmt::Write as _;

use super::score::Scored;

const SIZE: f64 = 520.0;
const MARGIN: f64 = 48.0;
/// Bytes at the ends of the axes.
const RANGE: (f64, f64) = (1e9, 1.2e12);

fn position(bytes: f64) -> f64 {
    let (low, high) = (RANGE.0.ln(), RANGE.1.ln());
    MARGIN + (bytes.clamp(RANGE.0, RANGE.1).ln() - low) / (high - low) * (SIZE - 2.0 * MARGIN)
}

/// Series of rows with their name and colour.
pub(crate) fn svg(series: &[(&str, &str, &[Scored])]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {SIZE} {SIZE}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{SIZE}\" height=\"{SIZE}\" fill=\"white\"/>\n"
    );
    for gigabytes in [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0] {
        let at = position(gigabytes * 1e9);
        let up = SIZE - at;
        let _ = writeln!(
            out,
            "<path d=\"M{at:.1} {MARGIN}V{:.1}M{MARGIN} {up:.1}H{:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{gigabytes}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{gigabytes}</text>",
            SIZE - MARGIN,
            SIZE - MARGIN,
            SIZE - MARGIN + 16.0,
            MARGIN - 6.0,
            up + 4.0
        );
    }
    let (low, high) = (position(RANGE.0), position(RANGE.1));
    let _ = writeln!(
        out,
        "<path d=\"M{low:.1} {:.1}L{high:.1} {:.1}\" stroke=\"#888\" stroke-dasharray=\"4 3\"/>",
        SIZE - low,
        SIZE - high
    );
    for (index, (name, colour, rows)) in series.iter().enumerate() {
        for row in *rows {
            let (x, y) = (position(row.truth), SIZE - position(row.estimate));
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.2\" fill=\"{colour}\" fill-opacity=\"0.6\"/>"
            );
        }
        let y = MARGIN + 14.0 + 16.0 * index as f64;
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{y:.1}\">{name}</text>",
            MARGIN + 12.0,
            y - 4.0,
            MARGIN + 22.0
        );
    }
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">measured or traced, GB</text>\n\
         <text transform=\"translate(12 {:.1}) rotate(-90)\" text-anchor=\"middle\">estimated, GB</text>\n</svg>\n",
        SIZE / 2.0,
        SIZE - 10.0,
        SIZE / 2.0
    );
    out
}
