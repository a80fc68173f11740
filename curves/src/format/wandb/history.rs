//! Rows of metrics.

use super::super::fields;
use super::super::json::{self, Lexer, MAX_DEPTH};
use super::super::protobuf::Fields;
use super::{Item, MAX_PARTS};
use crate::log::{Record, Sink};
use crate::number::as_step;

/// Keys whose last word is one of these count steps. W&B's own `_step` counts calls.
const STEPS: [&[u8]; 5] = [b"step", b"global_step", b"iteration", b"iter", b"it"];

#[derive(Debug)]
pub(super) struct History {
    fields: fields::Fields,
    name: Vec<u8>,
    /// Names below which stand the parts of a histogram, an image or the like.
    media: Vec<Vec<u8>>,
    /// The first row is to begin a segment.
    resumed: bool,
    /// The run goes on at this step of W&B's, and no row has come since.
    goes_on: Option<Option<u64>>,
    /// The key that counts steps, if it is not W&B's.
    axis: Option<Vec<u8>>,
    /// What it said in this row, and last.
    here: Option<u64>,
    newest: Option<u64>,
}

impl History {
    pub(super) fn new(resumed: bool) -> Self {
        Self {
            fields: fields::Fields::of_metrics(),
            name: Vec::new(),
            media: Vec::new(),
            resumed,
            goes_on: None,
            axis: None,
            here: None,
            newest: None,
        }
    }

    /// Somebody said which key counts steps.
    pub(super) fn count_by(&mut self, key: Option<&str>) {
        self.axis = key.map(|key| key.as_bytes().to_vec());
    }

    /// Takes what `define_metric` said. Where all metrics go by one key that counts
    /// steps, as the Trainer and Lightning have it, that is their step; such a key of
    /// epochs would put many rows at one.
    pub(super) fn metric(&mut self, message: &[u8]) {
        let (mut pattern, mut key) = (&[][..], &[][..]);
        for (field, wire) in Fields::new(message) {
            match field {
                2 => pattern = wire.bytes(),
                4 => key = wire.bytes(),
                _ => {}
            }
        }
        let last = key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if self.axis.is_none() && pattern == b"*" && STEPS.contains(&last) {
            self.axis = Some(key.to_vec());
        }
    }

    /// The record of the run says that it goes on at a step of W&B's.
    pub(super) fn goes_on(&mut self, from: Option<u64>) {
        (self.resumed, self.goes_on) = (false, Some(from));
    }

    /// No row will come before what is known of the run is asked for.
    pub(super) fn settle(&mut self, sink: &mut dyn Sink) {
        if let Some(from) = self.goes_on.take() {
            sink.record(Record::Segment { from: from.filter(|_| self.axis.is_none()) });
        }
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
        let own = self.here.take().or(self.newest);
        self.newest = own;
        let step = own.unwrap_or(step);
        let from = self.goes_on.take().map(|from| from.filter(|_| own.is_none()).or(own));
        if let Some(from) = from.or(std::mem::take(&mut self.resumed).then_some(Some(step))) {
            sink.record(Record::Segment { from });
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
        if self.axis.as_ref().is_some_and(|axis| *axis == self.name)
            && let Some(step) = as_step(value)
        {
            self.here = Some(step);
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Collected;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).expect("short");
        [&[number << 3 | 2, length][..], bytes].concat()
    }

    fn row(call: u64, members: &[(&str, f64)]) -> Vec<u8> {
        let own = [("_step", call as f64)];
        let item = |(key, value): &(&str, f64)| {
            // Field 16 needs two bytes.
            let json = value.to_string();
            let json =
                [&[0x82, 0x01, u8::try_from(json.len()).expect("short")][..], json.as_bytes()].concat();
            field(1, &[field(1, key.as_bytes()), json].concat())
        };
        own.iter().chain(members).flat_map(item).collect()
    }

    fn defined(pattern: &str, key: &str) -> Vec<u8> {
        [field(2, pattern.as_bytes()), field(4, key.as_bytes())].concat()
    }

    fn steps(history: &mut History, rows: &[Vec<u8>]) -> Vec<Option<u64>> {
        let mut log = Collected::default();
        rows.iter().for_each(|row| assert_eq!(history.row(row, &mut log), Some(0)));
        assert!(log.column("train/global_step").is_none(), "it is no metric");
        log.column("loss").expect("a loss").pairs().map(|(step, _)| step).collect()
    }

    #[test]
    fn steps_are_those_of_the_training_where_the_program_says_so() {
        let rows: Vec<_> = (0..3_u32)
            .map(|n| row(n.into(), &[("loss", 0.5), ("train/global_step", f64::from(50 * (n + 1)))]))
            .chain([row(3, &[("loss", 0.25)])])
            .collect();
        let mut history = History::new(false);
        history.metric(&defined("*", "train/global_step"));
        assert_eq!(steps(&mut history, &rows), [50, 100, 150, 150].map(Some));
        // What a person says counts before what the program does.
        let mut history = History::new(false);
        history.count_by(Some("train/global_step"));
        history.metric(&defined("*", "step"));
        assert_eq!(steps(&mut history, &rows), [50, 100, 150, 150].map(Some));
        for (pattern, key) in [("*", "epoch"), ("train/*", "train/global_step"), ("*", "")] {
            let mut history = History::new(false);
            history.metric(&defined(pattern, key));
            let mut log = Collected::default();
            rows.iter().for_each(|row| assert_eq!(history.row(row, &mut log), Some(0)));
            let calls: Vec<_> = log.column("loss").expect("a loss").pairs().map(|(step, _)| step).collect();
            assert_eq!(calls, [0, 1, 2, 3].map(Some), "{pattern} {key}");
        }
    }

    #[test]
    fn a_resumed_part_voids_steps_in_the_unit_of_its_rows() {
        for (axis, from, expected) in [(true, 7, vec![50, 100]), (false, 1, vec![0, 1])] {
            let mut log = Collected::default();
            for (part, call, step) in [(0, 0, 50.0), (0, 1, 100.0), (1, 1, 100.0)] {
                let mut history = History::new(false);
                if axis {
                    history.metric(&defined("*", "train/global_step"));
                }
                if part > 0 {
                    history.goes_on(Some(from));
                }
                let row = row(call, &[("loss", 0.5), ("train/global_step", step)]);
                assert_eq!(history.row(&row, &mut log), Some(0));
                history.settle(&mut log);
            }
            let steps: Vec<u64> =
                log.column("loss").expect("a loss").pairs().filter_map(|(step, _)| step).collect();
            assert_eq!((steps, log.segments), (expected, 1));
        }
    }
}
