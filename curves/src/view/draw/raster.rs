//! A chart as pixels, without a display and without fonts of the system.

use super::font::{HEIGHT, WIDTH, glyph};
use super::{Chart, Frame, gaps, stretches};

/// Colours: paper, grid, then the lines (Okabe and Ito's, told apart by most
/// eyes), black, and red for marks.
pub const PALETTE: [[u8; 3]; 12] = [
    [255, 255, 255],
    [221, 221, 221],
    [0, 114, 178],
    [230, 159, 0],
    [0, 158, 115],
    [213, 94, 0],
    [204, 121, 167],
    [86, 180, 233],
    [148, 103, 189],
    [140, 86, 75],
    [0, 0, 0],
    [176, 0, 32],
];
const GRID: u8 = 1;
const BLACK: u8 = 10;
const RED: u8 = 11;
const LINES: usize = 8;

/// Pixels as numbers of [`PALETTE`], row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height` numbers.
    pub pixels: Vec<u8>,
}

impl Picture {
    fn set(&mut self, x: i64, y: i64, colour: u8) {
        let inside = |value: i64, most: usize| usize::try_from(value).ok().filter(|value| *value < most);
        if let (Some(x), Some(y)) = (inside(x, self.width), inside(y, self.height)) {
            self.pixels[y * self.width + x] = colour;
        }
    }

    fn line(&mut self, from: (i64, i64), to: (i64, i64), colour: u8, thick: bool) {
        let steps = (from.0 - to.0).abs().max((from.1 - to.1).abs()).max(1);
        for i in 0..=steps {
            let (x, y) = (from.0 + (to.0 - from.0) * i / steps, from.1 + (to.1 - from.1) * i / steps);
            self.set(x, y, colour);
            if thick {
                self.set(x + 1, y, colour);
                self.set(x, y + 1, colour);
            }
        }
    }

    /// Text with its upper left corner there; what the font does not have is `?`.
    fn text(&mut self, x: i64, y: i64, text: &str, colour: u8) {
        for (index, c) in text.chars().take(200).enumerate() {
            let left = x + index as i64 * (WIDTH as i64 + 1);
            for (column, bits) in glyph(c).into_iter().enumerate() {
                for row in (0..HEIGHT).filter(|row| bits >> row & 1 == 1) {
                    self.set(left + column as i64, y + row as i64, colour);
                }
            }
        }
    }
}

fn wide(text: &str) -> i64 {
    text.chars().take(200).count() as i64 * (WIDTH as i64 + 1)
}

/// The chart in a picture of about that size; the legend comes on top of it.
#[must_use]
pub fn raster(chart: &Chart, width: u32, height: u32) -> Picture {
    let (width, height) = (i64::from(width.clamp(200, 4000)), i64::from(height.clamp(120, 4000)));
    let total = height + 14 * chart.lines.len().min(100) as i64;
    let (w, h) = (width as usize, total as usize);
    let mut picture = Picture { width: w, height: h, pixels: vec![0; w * h] };
    let (left, top) = (60, 22);
    let (across, tall) = (width - left - 12, height - top - 36);
    picture.text(left, 6, &chart.title, BLACK);
    let Some(frame) = Frame::of(chart) else {
        picture.text(left, height / 2, "no values", BLACK);
        return picture;
    };
    let at = |(x, y): (f64, f64)| {
        (left + (x * across as f64).round() as i64, top + ((1.0 - y) * tall as f64).round() as i64)
    };
    for tick in frame.values(6) {
        let (x, y) = at((0.0, tick.at));
        picture.line((x, y), (x + across, y), GRID, false);
        picture.text(x - 4 - wide(&tick.text), y - 3, &tick.text, BLACK);
    }
    for tick in frame.places(8) {
        let (x, y) = at((tick.at, 0.0));
        picture.line((x, y), (x, y - tall), GRID, false);
        picture.text(x - wide(&tick.text) / 2, y + 5, &tick.text, BLACK);
    }
    picture.text(left + across / 2 - wide(&chart.places) / 2, height - 14, &chart.places, BLACK);
    for mark in &chart.marks {
        let (x, y) = at((frame.across(mark.place), 0.0));
        (0..tall).filter(|i| i % 6 < 3).for_each(|i| picture.set(x, y - i, RED));
    }
    for (index, line) in chart.lines.iter().enumerate() {
        let colour = 2 + (index % LINES) as u8;
        for stretch in stretches(line, &frame) {
            let placed: Vec<(i64, i64)> = stretch.into_iter().map(at).collect();
            if let [(x, y)] = placed.as_slice() {
                picture.line((x - 1, *y), (x + 1, *y), colour, true);
            }
            placed.windows(2).for_each(|pair| picture.line(pair[0], pair[1], colour, true));
        }
        for share in gaps(line, &frame) {
            let (x, y) = at((share, 0.0));
            picture.line((x, y), (x, y - 6), colour, true);
        }
        let y = height + 14 * index.min(99) as i64;
        picture.line((left, y + 3), (left + 12, y + 3), colour, true);
        picture.text(left + 18, y, &line.name, BLACK);
    }
    picture
}
