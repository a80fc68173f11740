//! The last value of every key, out of a summary after every step.
//!
//! A value is not looked at until somebody asks: of 200,000 summaries all but
//! the last few are overwritten.

use std::collections::BTreeSet;

use super::super::json;
use super::super::protobuf::Fields;
use super::Item;
use super::about::emit;
use crate::log::{Names, Record, Sink, Value};

/// A longer value, such as a histogram's, is left out.
const MAX_VALUE_BYTES: usize = 64 * 1024;

/// The most bytes that all values may have.
const MAX_BYTES: usize = 8 << 20;

#[derive(Debug, Default)]
pub(super) struct Summaries {
    /// Paths, their parts joined by NUL, which no key of JSON text needs.
    paths: Names,
    values: Vec<Slot>,
    bytes: usize,
    path: Vec<u8>,
}

#[derive(Debug, Default)]
struct Slot {
    json: Vec<u8>,
    fresh: bool,
}

impl Summaries {
    /// Takes a summary: how many values found no place.
    pub(super) fn update(&mut self, message: &[u8]) -> u64 {
        let mut dropped = 0;
        for (field, wire) in Fields::new(message) {
            match (field, Item::new(wire.bytes())) {
                (1, Some(item)) => {
                    // What W&B keeps for itself.
                    if matches!(item.path()[0], b"_step" | b"_timestamp" | b"_wandb" | b"_runtime") {
                        continue;
                    }
                    dropped += u64::from(self.set(&item).is_none());
                }
                (2, Some(item)) => {
                    self.join(item.path());
                    if let Some(slot) = self.paths.find_bytes(&self.path).and_then(|i| self.values.get_mut(i))
                    {
                        self.bytes -= slot.json.len();
                        slot.json.clear();
                    }
                }
                _ => {}
            }
        }
        dropped
    }

    #[inline]
    fn join(&mut self, parts: &[&[u8]]) {
        self.path.clear();
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.path.push(0);
            }
            self.path.extend_from_slice(part);
        }
    }

    #[inline]
    fn set(&mut self, item: &Item<'_>) -> Option<()> {
        let index = if let [only] = item.path() {
            self.paths.intern_bytes(only)? as usize
        } else {
            self.join(item.path());
            self.paths.intern_bytes(&self.path)? as usize
        };
        if index >= self.values.len() {
            self.values.resize_with(index + 1, Slot::default);
        }
        let number = item.number.map(|number| number.to_string());
        let json = number.as_ref().map_or(item.json, |number| number.as_bytes());
        let slot = self.values.get_mut(index)?;
        let bytes = self.bytes - slot.json.len() + json.len();
        if json.len() > MAX_VALUE_BYTES || bytes > MAX_BYTES {
            return None;
        }
        self.bytes = bytes;
        slot.json.clear();
        slot.json.extend_from_slice(json);
        slot.fresh = true;
        Some(())
    }

    /// Pushes what changed since the last time.
    pub(super) fn push(&mut self, sink: &mut dyn Sink) {
        if self.values.iter().all(|slot| !slot.fresh) {
            return;
        }
        // A histogram, an image or the like, of which each part has a path of its own.
        let typed = |index: usize| self.paths.bytes_of(index).strip_suffix(b"\0_type").map(<[u8]>::to_vec);
        let media: BTreeSet<Vec<u8>> = (0..self.values.len()).filter_map(typed).collect();
        for (index, slot) in self.values.iter_mut().enumerate() {
            if !std::mem::take(&mut slot.fresh) {
                continue;
            }
            let bytes = self.paths.bytes_of(index);
            let above = bytes.iter().rposition(|b| *b == 0).map(|end| &bytes[..end]);
            if above.is_some_and(|above| media.contains(above)) {
                continue;
            }
            let path: Vec<_> =
                self.paths.bytes_of(index).split(|&b| b == 0).map(String::from_utf8_lossy).collect();
            let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
            // A histogram, an image or the like.
            let whole = |value: &Value| value.member("_type").is_none();
            if let Some(value) = json::parse(&slot.json).filter(whole) {
                emit(&path, value, &mut |path, value| sink.record(Record::Summary { path, value }));
            }
        }
    }
}
