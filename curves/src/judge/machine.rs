//! Measurements of the machine that a tracking tool made beside the metrics: at
//! times, not at steps. Kept like curves; the report asks whether they grow.

use super::sketch::Sketch;
use crate::MAX_NAME_BYTES;

/// Names of measurements that are kept.
const MOST: usize = 64;

/// All measurements of one run. Their steps are milliseconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    kept: Vec<(String, Sketch)>,
}

impl Machine {
    /// Takes in one measurement, if its name says that it can run out.
    pub(super) fn push(&mut self, name: &str, seconds: f64, value: f64) {
        let ms = (seconds * 1000.0).clamp(0.0, 9e15) as u64;
        if let Some((_, sketch)) = self.kept.iter_mut().find(|(known, _)| known == name) {
            sketch.push(Some(ms), value);
        } else if self.kept.len() < MOST && name.len() <= MAX_NAME_BYTES && super::schema::is_filled(name) {
            let mut sketch = Sketch::default();
            sketch.push(Some(ms), value);
            self.kept.push((name.to_owned(), sketch));
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &Sketch)> {
        self.kept.iter().map(|(name, sketch)| (name.as_str(), sketch))
    }
}
