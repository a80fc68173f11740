//! Curves as pictures: characters for a terminal, SVG, and pixels. All of them
//! show the same [`Chart`]: few points of each line, no extreme lost, a gap
//! where a value is not finite, and marks where something was found.

mod font;
mod raster;
mod scale;
mod svg;
mod terminal;

pub use raster::{PALETTE, Picture, raster};
pub use scale::{Frame, Tick};
pub use svg::svg;
pub use terminal::{Signs, terminal};

use crate::downsample::{Place, min_max};

/// Points of a line that are drawn.
const MOST: usize = 2000;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it is called.
    pub name: String,
    /// In order of places.
    pub points: Vec<Place>,
}

/// A place where something was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Where.
    pub place: u64,
    /// What, in a few words.
    pub text: String,
}

/// What is drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// What the places are: `step` or `row`.
    pub places: String,
    /// Whether equal ratios are equal lengths; values that are not above zero
    /// have no place then and count as gaps.
    pub log: bool,
    /// At most as many as there are colours are told apart.
    pub lines: Vec<Line>,
    /// Marks.
    pub marks: Vec<Mark>,
}

impl Chart {
    /// A chart of lines with few points each.
    #[must_use]
    pub fn new(title: impl Into<String>, places: impl Into<String>, lines: Vec<Line>) -> Self {
        let lines =
            lines.into_iter().map(|line| Line { points: min_max(&line.points, MOST), ..line }).collect();
        Self { title: title.into(), places: places.into(), lines, ..Self::default() }
    }
}

/// The stretches of a line without a gap, as shares of the frame: from the left
/// and from the bottom.
fn stretches(line: &Line, frame: &Frame) -> Vec<Vec<(f64, f64)>> {
    let mut all = vec![Vec::new()];
    for point in &line.points {
        match frame.place(*point) {
            Some(at) => {
                if let Some(last) = all.last_mut() {
                    last.push(at);
                }
            }
            None if all.last().is_some_and(|last| !last.is_empty()) => all.push(Vec::new()),
            None => {}
        }
    }
    all.retain(|stretch| !stretch.is_empty());
    all
}

/// Where the values of a line have no place, as shares from the left.
fn gaps(line: &Line, frame: &Frame) -> Vec<f64> {
    line.points
        .iter()
        .filter(|point| frame.place(**point).is_none())
        .map(|point| frame.across(point.0))
        .collect()
}

#[cfg(test)]
mod tests;
