//! Numbers for names, so that a million values do not carry a million strings.
//!
//! Bounded in every direction: a file may invent names without end.

use std::collections::HashMap;

/// The most metrics of a run; values of further ones are dropped.
pub const MAX_METRICS: usize = 20_000;

/// Names beyond those that are taken all the same, if trainings are judged by them.
const RESERVED: usize = 256;

/// Bytes of them.
const RESERVED_BYTES: usize = 64 * 1024;

/// Last words of such names.
const TELLING: [&[u8]; 10] = [
    b"loss",
    b"acc",
    b"accuracy",
    b"lr",
    b"learning_rate",
    b"grad_norm",
    b"step",
    b"global_step",
    b"epoch",
    b"reward",
];

/// A longer name is refused.
pub const MAX_METRIC_NAME_BYTES: usize = 512;

/// The most bytes that all names of a table may have.
pub const MAX_NAMES_BYTES: usize = 4 << 20;

/// The number of a metric within a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metric(u32);

impl Metric {
    /// Counted from zero in order of appearance.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A table of names.
#[derive(Debug, Clone, Default)]
pub struct Names {
    ids: HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>,
    names: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Names {
    /// The number of a name, a new one if need be. `None` when the name is
    /// empty or too long, or the table is full.
    pub fn intern(&mut self, name: &str) -> Option<Metric> {
        self.intern_bytes(name.as_bytes()).map(Metric)
    }

    /// The name of a number that this table gave out.
    #[must_use]
    pub fn name(&self, metric: Metric) -> &str {
        self.names.get(metric.index()).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or("")
    }

    /// All names in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| std::str::from_utf8(name).unwrap_or(""))
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Looks a name up.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Metric> {
        self.ids.get(name.as_bytes()).copied().map(Metric)
    }

    pub(crate) fn find_bytes(&self, name: &[u8]) -> Option<usize> {
        self.ids.get(name).map(|&id| id as usize)
    }

    pub(crate) fn bytes_of(&self, id: usize) -> &[u8] {
        self.names.get(id).map_or(&[], |name| name)
    }

    pub(crate) fn intern_bytes(&mut self, name: &[u8]) -> Option<u32> {
        if let Some(&id) = self.ids.get(name) {
            return Some(id);
        }
        let room = |names, bytes| self.names.len() < names && self.bytes + name.len() <= bytes;
        let last = || name.rsplit(|byte| matches!(byte, b'/' | b'.')).next().unwrap_or_default();
        let fits = room(MAX_METRICS, MAX_NAMES_BYTES)
            || room(MAX_METRICS + RESERVED, MAX_NAMES_BYTES + RESERVED_BYTES) && TELLING.contains(&last());
        if name.is_empty() || name.len() > MAX_METRIC_NAME_BYTES || !fits {
            return None;
        }
        let id = u32::try_from(self.names.len()).ok()?;
        self.bytes += name.len();
        self.names.push(name.into());
        self.ids.insert(name.into(), id);
        Some(id)
    }
}

/// A name as it may be shown: control characters, which could move a cursor
/// or end a line, become U+FFFD.
pub(crate) fn shown(name: &str) -> std::borrow::Cow<'_, str> {
    if name.chars().any(char::is_control) {
        name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
    } else {
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_has_a_place_behind_any_number_of_names() {
        let mut names = Names::default();
        (0..MAX_METRICS + 9)
            .for_each(|n| assert_eq!(names.intern(&format!("k{n}")).is_some(), n < MAX_METRICS));
        assert!(names.intern("train/loss").is_some() && names.intern("step").is_some());
        assert!(names.intern("junk").is_none() && names.intern("train/loss/junk").is_none());
        let more = (0..MAX_METRICS).filter(|n| names.intern(&format!("{n}/loss")).is_some()).count();
        assert_eq!(more, RESERVED - 2);
        assert_eq!(names.len(), MAX_METRICS + RESERVED);
    }
}
