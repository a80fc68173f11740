//! Rows of metrics.

use super::super::fields;
use super::super::json::{self, Lexer, MAX_DEPTH};
use super::super::protobuf::Fields;
use super::{Item, MAX_PARTS};
use crate::log::{Record, Sink};
use crate::number::as_step;

#[derive(Debug)]
pub(super) struct History {
    fields: fields::Fields,
    name: Vec<u8>,
    /// Names below which stand the parts of a histogram, an image or the like.
    media: Vec<Vec<u8>>,
    /// The first row is to begin a segment.
    resumed: bool,
}

impl History {
    pub(super) fn new(resumed: bool) -> Self {
        Self { fields: fields::Fields::of_metrics(), name: Vec::new(), media: Vec::new(), resumed }
    }

    /// The record of the run says that it goes on at a step: whether that is news.
    pub(super) fn began(&mut self) -> bool {
        std::mem::take(&mut self.resumed)
    }

    /// Pushes a row: values left out, `None` when the message is broken.
    pub(super) fn row(&mut self, message: &[u8], sink: &mut dyn Sink) -> Option<u64> {
        self.fields.begin();
        self.media.clear();
        let mut step = None;
        let mut given = None;
        let mut time = None;
        let mut fields = Fields::new(message);
        for (field, wire) in &mut fields {
            match field {
                1 => {
                    let Some(item) = Item::new(wire.bytes()) else {
                        self.fields.drop_value();
                        continue;
                    };
                    self.member(&item, &mut step, &mut time);
                }
                2 => {
                    let num = Fields::new(wire.bytes()).find(|(field, _)| *field == 1);
                    given = Some(num.map_or(0, |(_, wire)| wire.number())).filter(|step| *step <= 1 << 53);
                }
                _ => {}
            }
        }
        if fields.is_broken() {
            return None;
        }
        Some(self.end(step.or(given).unwrap_or(0), time, sink))
    }

    /// Pushes a row that is one JSON object, as W&B's server gives them: values
    /// left out, `None` when it is none or has no step.
    pub(super) fn json_row(&mut self, lexer: &mut Lexer<'_>, sink: &mut dyn Sink) -> Option<u64> {
        self.fields.begin();
        self.media.clear();
        let (mut step, mut time) = (None, None);
        lexer.object(|lexer, key| {
            lexer.peek()?;
            let from = lexer.at;
            lexer.skip()?;
            let key = key.text();
            let mut item = Item { parts: [&[]; MAX_PARTS], count: 1, json: &[], number: None };
            item.parts[0] = key.as_bytes();
            item.json = lexer.text.get(from..lexer.at)?;
            self.member(&item, &mut step, &mut time);
            Some(())
        })?;
        Some(self.end(step?, time, sink))
    }

    #[inline]
    fn member(&mut self, item: &Item<'_>, step: &mut Option<u64>, time: &mut Option<f64>) {
        match item.path() {
            [b"_step"] => *step = number(item).and_then(as_step),
            [b"_timestamp"] => *time = number(item).filter(|time| time.is_finite()),
            [b"_runtime"] | [b"_wandb", ..] => {}
            _ => self.item(item),
        }
    }

    fn end(&mut self, step: u64, time: Option<f64>, sink: &mut dyn Sink) -> u64 {
        if !self.media.is_empty() {
            self.media.sort_unstable();
            self.fields.drop_below(&self.media);
        }
        if self.began() {
            sink.record(Record::Segment { from: Some(step) });
        }
        self.fields.end_at(Some(step), time, sink)
    }

    #[inline]
    fn item(&mut self, item: &Item<'_>) {
        self.name.clear();
        for (index, part) in item.path().iter().enumerate() {
            if index > 0 {
                self.name.push(b'/');
            }
            self.name.extend_from_slice(part);
        }
        if let Some(value) = number(item) {
            self.value(value);
            return;
        }
        if let [parent @ .., b"_type"] = item.path() {
            self.media.push(parent.join(&b'/'));
        }
        if item.json.first() == Some(&b'{') {
            // Up to 0.16 a nested object stands in one value.
            let mut lexer = Lexer::new(item.json);
            let _ = self.object(&mut lexer, 1);
        }
    }

    fn value(&mut self, value: f64) {
        match self.fields.field(&self.name) {
            Some(field) => self.fields.value(field, value),
            None => self.fields.drop_value(),
        }
    }

    fn object(&mut self, lexer: &mut Lexer<'_>, depth: usize) -> Option<()> {
        let start = self.name.len();
        lexer.clone().object(|lexer, key| {
            if key.bytes == b"_type" {
                self.media.push(self.name.clone());
            }
            lexer.skip()
        })?;
        lexer.object(|lexer, key| {
            self.name.truncate(start);
            self.name.push(b'/');
            self.name.extend_from_slice(key.text().as_bytes());
            if let Some(value) = lexer.number() {
                self.value(value);
                return Some(());
            }
            match lexer.peek()? {
                b'{' if depth < MAX_DEPTH => self.object(lexer, depth + 1),
                b'"' => {
                    if let Some(value) = json::quoted_number(lexer.string()?.bytes) {
                        self.value(value);
                    }
                    Some(())
                }
                _ => lexer.skip(),
            }
        })
    }
}

/// The value of an item when it is a number and nothing else.
#[inline]
fn number(item: &Item<'_>) -> Option<f64> {
    if item.number.is_some() {
        return item.number;
    }
    if let Some(text) = item.json.strip_prefix(b"\"") {
        return json::quoted_number(text.strip_suffix(b"\"")?);
    }
    let mut lexer = Lexer::new(item.json);
    let value = lexer.number()?;
    lexer.at_end().then_some(value)
}
