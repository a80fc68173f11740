//! A chart as SVG, without scripts and without anything from elsewhere.

use super::raster::PALETTE;
use super::{Chart, Frame, gaps, stretches};

/// Room around the frame: left, right, above, below.
const MARGIN: (f64, f64, f64, f64) = (70.0, 15.0, 30.0, 40.0);

/// A whole SVG document of `width` by `height` pixels. Every text is escaped.
#[must_use]
pub fn svg(chart: &Chart, width: u32, height: u32) -> String {
    let (width, height) = (f64::from(width.clamp(200, 10_000)), f64::from(height.clamp(120, 10_000)));
    let legend = 16.0 * chart.lines.len() as f64;
    let (left, right, top, bottom) = MARGIN;
    let (wide, tall) = (width - left - right, height - top - bottom);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{total}\" viewBox=\"0 0 {width} {total}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        total = height + legend
    );
    out.push_str(&text(left, 20.0, "start", &chart.title));
    let Some(frame) = Frame::of(chart) else {
        out.push_str(&text(left, height / 2.0, "start", "no values"));
        return out + "</svg>\n";
    };
    let at = |(x, y): (f64, f64)| (left + x * wide, top + (1.0 - y) * tall);
    for tick in frame.values(6) {
        let (x, y) = at((0.0, tick.at));
        out.push_str(&rule((x, y), (x + wide, y)));
        out.push_str(&text(x - 6.0, y + 4.0, "end", &tick.text));
    }
    for tick in frame.places(8) {
        let (x, y) = at((tick.at, 0.0));
        out.push_str(&rule((x, y), (x, y - tall)));
        out.push_str(&text(x, y + 16.0, "middle", &tick.text));
    }
    out.push_str(&text(left + wide / 2.0, height - 6.0, "middle", &chart.places));
    for mark in &chart.marks {
        let (x, _) = at((frame.across(mark.place), 0.0));
        out.push_str(&format!(
            "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#b00020\" stroke-dasharray=\"4 3\"><title>{}</title></line>\n",
            top + tall,
            escaped(&format!("{}: {}", mark.place, mark.text))
        ));
    }
    for (index, line) in chart.lines.iter().enumerate() {
        let [r, g, b] = PALETTE[2 + index % (PALETTE.len() - 2)];
        let colour = format!("#{r:02x}{g:02x}{b:02x}");
        for stretch in stretches(line, &frame) {
            let points: Vec<String> =
                stretch.iter().map(|share| at(*share)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            // A single value between gaps is a dot.
            out.push_str(&if let [point] = points.as_slice() {
                let (x, y) = point.split_once(',').unwrap_or(("0", "0"));
                format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"2\" fill=\"{colour}\"/>\n")
            } else {
                let points = points.join(" ");
                format!(
                    "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n"
                )
            });
        }
        for share in gaps(line, &frame) {
            let (x, y) = at((share, 0.0));
            out.push_str(&format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"3\" height=\"6\" fill=\"{colour}\"><title>not finite</title></rect>\n", x - 1.5, y - 6.0));
        }
        let y = height + 16.0 * index as f64;
        out.push_str(&format!(
            "<rect x=\"{left}\" y=\"{:.1}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>\n",
            y + 2.0
        ));
        out.push_str(&text(left + 18.0, y + 8.0, "start", &line.name));
    }
    out + "</svg>\n"
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n", escaped(text))
}

fn rule(from: (f64, f64), to: (f64, f64)) -> String {
    format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>\n",
        from.0, from.1, to.0, to.1
    )
}

/// Text that is safe between tags and in quotes; what XML may not hold at all is
/// replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
