//! A chart in characters. ASCII by default: a block or a Braille pattern is two
//! or three tokens of a language model, and not every terminal has them.

use super::{Chart, Frame, gaps, stretches};
use crate::judge::short;

/// Signs of the lines in their order.
const SIGNS: [char; 10] = ['*', 'o', '+', 'x', '#', '@', '%', '&', '=', '~'];

/// What lines are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signs {
    /// One sign for each line.
    Ascii,
    /// Braille patterns: eight dots a character.
    Braille,
}

/// A chart of `width` by `height` characters and a few lines more; names must
/// have been made safe to print. Empty without values.
#[must_use]
pub fn terminal(chart: &Chart, width: usize, height: usize, signs: Signs) -> String {
    let Some(frame) = Frame::of(chart) else { return String::new() };
    let (width, height) = (width.clamp(8, 400), height.clamp(2, 200));
    let rows = match signs {
        Signs::Ascii => ascii(chart, &frame, width, height),
        Signs::Braille => braille(chart, &frame, width, height),
    };
    let mut text = String::new();
    if !chart.title.is_empty() {
        text.push_str(&format!("{}\n", chart.title));
    }
    for (index, line) in chart.lines.iter().enumerate() {
        let last = line.points.last().map_or_else(String::new, |point| format!(", last {}", short(point.1)));
        let sign = if signs == Signs::Ascii { SIGNS[index % SIGNS.len()] } else { '-' };
        text.push_str(&format!("{sign} {}{last}\n", line.name));
    }
    let ticks = frame.values(3);
    let label = ticks.iter().map(|tick| tick.text.len()).max().unwrap_or(0);
    for (index, row) in rows.iter().enumerate() {
        let at = |tick: &&super::Tick| ((1.0 - tick.at) * (height - 1) as f64).round() as usize == index;
        let shown = ticks.iter().find(at).map_or("", |tick| tick.text.as_str());
        text.push_str(format!("{shown:>label$}|{row}").trim_end());
        text.push('\n');
    }
    below(chart, &frame, width, label, &mut text);
    text
}

/// Gaps, marks and the places under it.
fn below(chart: &Chart, frame: &Frame, width: usize, label: usize, text: &mut String) {
    let column = |share: f64| ((share * (width - 1) as f64).round() as usize).min(width - 1);
    let gaps: Vec<usize> = chart.lines.iter().flat_map(|line| gaps(line, frame)).map(column).collect();
    let marks: Vec<usize> = chart.marks.iter().map(|mark| column(frame.across(mark.place))).collect();
    for (columns, sign, what) in [(gaps, '!', "no place"), (marks, '^', "marked")] {
        if !columns.is_empty() {
            let row: String = (0..width).map(|i| if columns.contains(&i) { sign } else { ' ' }).collect();
            let row = format!("{:>label$}|{row}", "");
            text.push_str(&format!("{} {what}\n", row.trim_end()));
        }
    }
    let (from, to) = frame.ends();
    let to = to.to_string();
    let from = format!("{} {from}", chart.places);
    let between = width.saturating_sub(from.len());
    text.push_str(&format!("{:>label$} {from}{to:>between$}\n", ""));
    for mark in chart.marks.iter().take(5) {
        text.push_str(&format!("^ {}: {}\n", mark.place, mark.text));
    }
}

fn ascii(chart: &Chart, frame: &Frame, width: usize, height: usize) -> Vec<String> {
    let mut grid = vec![vec![' '; width]; height];
    for (index, line) in chart.lines.iter().enumerate() {
        let sign = SIGNS[index % SIGNS.len()];
        for (x, y) in dots(line, frame, width, height) {
            grid[y][x] = sign;
        }
    }
    grid.into_iter().map(|row| row.into_iter().collect()).collect()
}

fn braille(chart: &Chart, frame: &Frame, width: usize, height: usize) -> Vec<String> {
    // Bits of the dots, by row and column of a character.
    const BITS: [[u32; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
    let mut grid = vec![vec![0_u32; width]; height];
    for line in &chart.lines {
        for (x, y) in dots(line, frame, width * 2, height * 4) {
            grid[y / 4][x / 2] |= BITS[y % 4][x % 2];
        }
    }
    let sign = |bits: &u32| if *bits == 0 { ' ' } else { char::from_u32(0x2800 + bits).unwrap_or(' ') };
    grid.iter().map(|row| row.iter().map(sign).collect()).collect()
}

/// All dots of a line on a grid, neighbours joined.
fn dots(line: &super::Line, frame: &Frame, width: usize, height: usize) -> Vec<(usize, usize)> {
    let on = |(x, y): (f64, f64)| {
        let column = (x * (width - 1) as f64).round() as usize;
        let row = ((1.0 - y) * (height - 1) as f64).round() as usize;
        (column.min(width - 1), row.min(height - 1))
    };
    let mut all = Vec::new();
    for stretch in stretches(line, frame) {
        let placed: Vec<(usize, usize)> = stretch.into_iter().map(on).collect();
        all.extend(placed.first());
        for pair in placed.windows(2) {
            let [(ax, ay), (bx, by)] = [pair[0], pair[1]];
            let steps = ax.abs_diff(bx).max(ay.abs_diff(by)).max(1);
            for i in 1..=steps {
                let along = |a: usize, b: usize| {
                    (a as f64 + (b as f64 - a as f64) * i as f64 / steps as f64).round() as usize
                };
                all.push((along(ax, bx), along(ay, by)));
            }
        }
    }
    all
}
