//! The plot: a band for each zone, up or not, and one for each policy, what it
//! did when. Of bounded size whatever was recorded: time is cut into columns,
//! and each shows what took most of it. Names are strangers' and are escaped.

use std::fmt::Write as _;

use controller::replay::{Doing, Tally, Zone};

use crate::printer::money;

const COLUMNS: u64 = 960;
const LEFT: u64 = 150;
const RIGHT: u64 = 230;
const BAND: u64 = 16;
const STEP: u64 = 24;
const TOP: u64 = 44;
/// Colours of zones, in their order; more zones begin again.
const ZONES: [&str; 8] =
    ["#1b6ca8", "#2a9d8f", "#8ab17d", "#7b5ea7", "#4f86c6", "#287271", "#b5838d", "#577590"];

/// Draws it.
pub(super) fn draw(zones: &[Zone], policies: &[(&str, Tally)]) -> String {
    let end_ms = zones.iter().map(Zone::end_ms).min().unwrap_or(1).max(1);
    let rows = (zones.len() + policies.len()) as u64;
    let (width, height) = (LEFT + COLUMNS + RIGHT, TOP + rows * STEP + 40);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>outlast simulate</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    legend(&mut out);
    let mut y = TOP;
    for (number, zone) in zones.iter().enumerate() {
        label(&mut out, y, zone.name(), &format!("up {:.1} %", zone.up_share() * 100.0));
        let spans = zone.up().iter().map(|(from, to)| (*from, *to, colour(Doing::Spot(number))));
        band(&mut out, y, end_ms, spans);
        y += STEP;
    }
    for (name, tally) in policies {
        let sum = format!("goodput {:.3}, {}", tally.goodput(), money(tally.usd));
        label(&mut out, y, name, &sum);
        band(&mut out, y, end_ms, tally.spans.iter().map(|it| (it.from_ms, it.to_ms, colour(it.doing))));
        y += STEP;
    }
    axis(&mut out, y, end_ms);
    out.push_str("</svg>");
    out
}

fn colour(doing: Doing) -> &'static str {
    match doing {
        Doing::Waiting => "#eeeeee",
        Doing::Starting => "#e9c46a",
        Doing::Spot(zone) => ZONES[zone % ZONES.len()],
        Doing::OnDemand => "#d1495b",
    }
}

fn legend(out: &mut String) {
    let marks = [
        ("waits", colour(Doing::Waiting)),
        ("starts, or its loss is not known", colour(Doing::Starting)),
        ("on-demand", colour(Doing::OnDemand)),
        ("spot, in the colour of its zone", colour(Doing::Spot(0))),
    ];
    for (at, (text, fill)) in marks.iter().enumerate() {
        let x = LEFT + at as u64 * 220;
        let _ = writeln!(out, "<rect x=\"{x}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{fill}\"/>");
        let _ = writeln!(out, "<text x=\"{}\" y=\"24\">{text}</text>", x + 18);
    }
}

fn label(out: &mut String, y: u64, name: &str, sum: &str) {
    let (name, base) = (escape(&name.chars().take(22).collect::<String>()), y + 12);
    let _ = writeln!(out, "<text x=\"{}\" y=\"{base}\" text-anchor=\"end\">{name}</text>", LEFT - 8);
    let _ = writeln!(out, "<text x=\"{}\" y=\"{base}\">{}</text>", LEFT + COLUMNS + 8, escape(sum));
    let _ = writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{COLUMNS}\" height=\"{BAND}\" fill=\"{}\"/>",
        colour(Doing::Waiting)
    );
}

/// Of each column, what took most of it; equal neighbours are one rectangle.
fn band(out: &mut String, y: u64, end_ms: u64, spans: impl Iterator<Item = (u64, u64, &'static str)>) {
    let mut most: Vec<(u64, &str)> = vec![(0, ""); COLUMNS as usize];
    let column = |ms: u64| (u128::from(ms.min(end_ms)) * u128::from(COLUMNS) / u128::from(end_ms)) as u64;
    let begins = |at: u64| (u128::from(at) * u128::from(end_ms) / u128::from(COLUMNS)) as u64;
    for (from, to, fill) in spans {
        for at in column(from)..=column(to).min(COLUMNS - 1) {
            let part = to.min(begins(at + 1)).saturating_sub(from.max(begins(at)));
            if let Some(shown) = most.get_mut(at as usize).filter(|shown| part > shown.0) {
                *shown = (part, fill);
            }
        }
    }
    let half = end_ms / COLUMNS / 2;
    let mut at = 0;
    while at < most.len() {
        let (part, fill) = most[at];
        let run = most[at..].iter().take_while(|next| next.1 == fill && next.0 > half).count().max(1);
        if part > half && fill != colour(Doing::Waiting) {
            let x = LEFT + at as u64;
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{run}\" height=\"{BAND}\" fill=\"{fill}\"/>"
            );
        }
        at += run;
    }
}

fn axis(out: &mut String, y: u64, end_ms: u64) {
    for tenth in 0..=10_u64 {
        let x = LEFT + COLUMNS * tenth / 10;
        let hours = end_ms as f64 / 3_600_000.0 * tenth as f64 / 10.0;
        let _ = writeln!(out, "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{y}\" stroke=\"#cccccc\"/>");
        let _ = writeln!(out, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{hours:.0} h</text>", y + 18);
    }
}

/// Text as XML may hold it.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_the_size_is_bounded() {
        let up: Vec<bool> = (0..200_000).map(|tick| tick % 2 == 0).collect();
        let zone = Zone::from_ticks("<script>\u{1}&'\"", 30_000, &up, &[]);
        let spans = (0..200_000)
            .map(|n| controller::replay::Span {
                from_ms: n * 30_000,
                to_ms: (n + 1) * 30_000,
                doing: Doing::OnDemand,
            })
            .collect();
        let tally = Tally { spans, ..Tally::default() };
        let text = draw(&[zone], &[("ours", tally)]);
        assert!(text.contains("&lt;script&gt;?&amp;&#39;&quot;") && !text.contains("<script"), "{text}");
        assert!(text.len() < 200_000, "{}", text.len());
    }

    #[test]
    fn a_column_shows_what_took_most_of_it() {
        let mut out = String::new();
        band(&mut out, 0, COLUMNS * 1_000, [(0, 1_600, "#a"), (1_600, 3_000, "#b")].into_iter());
        assert!(out.contains("x=\"150\" y=\"0\" width=\"2\" height=\"16\" fill=\"#a\""), "{out}");
        assert!(out.contains("x=\"152\" y=\"0\" width=\"1\" height=\"16\" fill=\"#b\""), "{out}");
    }
}
