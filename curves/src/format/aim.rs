//! Aim's repositories: each run is two small RocksDB databases, one of
//! attributes and one of sequences.
//!
//! The caller hands over whole tables (`*.sst`) and logs (`*.log`), the older
//! before the newer by their numbers; a live run is wholly in its logs. Of a key
//! the entry of the highest sequence number counts. A manifest is not read: a
//! table that a compaction has replaced holds only what the newer one overrides.

mod entries;
mod keys;
mod table;

use std::collections::BTreeMap;

use super::leveldb_log::{BlockLog, Check};
use crate::log::{Counts, Fact, Record, Row, Sink, Value, shown};
use entries::Entries;
use keys::{Part, parts};

/// Keeps the databases of one run until they are pushed.
#[derive(Debug, Default)]
pub struct Aim {
    entries: Entries,
    counts: Counts,
}

/// What is logged at one place of a sequence.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    step: Option<f64>,
    time: Option<f64>,
    value: Option<f64>,
}

impl Aim {
    /// No database so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a whole table.
    pub fn table(&mut self, bytes: &[u8]) {
        self.counts.bytes += bytes.len() as u64;
        table::read(bytes, &mut self.entries, &mut self.counts);
    }

    /// Takes a whole write-ahead log, which may end anywhere.
    pub fn log(&mut self, bytes: &[u8]) {
        let total = self.counts.bytes + bytes.len() as u64;
        let mut log = BlockLog::new(Check::MaskedCrc32c, 0);
        let entries = &mut self.entries;
        let mut batch = |at, batch: &[u8], counts: &mut Counts| {
            counts.records += 1;
            if entries.batch(batch, at, counts).is_none() {
                counts.corrupt.hit(at);
            }
        };
        log.feed(bytes, &mut self.counts, &mut batch);
        log.finish(&mut self.counts, &mut batch);
        self.counts.bytes = total;
    }

    /// The counts so far; offsets are those of the file they happened in.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Pushes the run, named by the folder of its databases.
    pub fn push(&mut self, run: &str, sink: &mut dyn Sink) {
        sink.record(Record::Meta(Fact::RunId, run));
        let mut attributes = Attributes::default();
        let mut contexts: BTreeMap<[u8; 8], Vec<(String, String)>> = BTreeMap::new();
        let mut sequence: Option<Sequence> = None;
        for (key, value) in self.entries.iter() {
            let Some(parts) = parts(key) else {
                self.counts.unknown.hit(0);
                continue;
            };
            use Part::{Number, Text};
            match &parts[..] {
                [Text("meta"), Text("chunks"), Text(id), Text("attrs"), path @ ..] if *id == run => {
                    attributes.take(path, value, sink);
                }
                [Text("meta"), Text("chunks"), Text(id), Text("end_time")] if *id == run => {
                    if let Some(time) = keys::number(value) {
                        sink.record(Record::Ended(time));
                    }
                }
                [Text("meta"), Text("chunks"), Text(id), Text("contexts"), Number(context), path @ ..]
                    if *id == run && !path.is_empty() =>
                {
                    if let Some(text) = keys::value(value).and_then(word) {
                        contexts.entry(*context).or_default().push((words(path).join("."), text));
                    }
                }
                [
                    Text("seqs"),
                    Text("v2"),
                    Text("chunks"),
                    Text(id),
                    Number(context),
                    Text(name),
                    Text(column),
                    Number(place),
                ] if *id == run => {
                    let same = |old: &Sequence| (old.context, old.metric.as_str()) == (*context, name);
                    if !sequence.as_ref().is_some_and(same) {
                        end(sequence.take(), &mut self.counts, sink);
                    }
                    let sequence =
                        sequence.get_or_insert_with(|| Sequence::new(*context, name, contexts.get(context)));
                    let place = sequence.places.entry(*place).or_default();
                    let number = keys::number(value);
                    match *column {
                        "step" => place.step = number,
                        "time" => place.time = number,
                        "val" => place.value = number,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        attributes.end_list(sink);
        end(sequence, &mut self.counts, sink);
    }
}

/// All that was logged of a metric in one context.
#[derive(Debug)]
struct Sequence {
    context: [u8; 8],
    metric: String,
    /// With the context before it.
    name: String,
    places: BTreeMap<[u8; 8], Place>,
}

impl Sequence {
    fn new(context: [u8; 8], metric: &str, keys: Option<&Vec<(String, String)>>) -> Self {
        let shown = metric.strip_prefix(SYSTEM).unwrap_or(metric);
        Self { context, metric: metric.to_owned(), name: named(keys, shown), places: BTreeMap::new() }
    }
}

/// How the names begin of what Aim itself measures of the machine.
const SYSTEM: &str = "__system__";

/// A value of a context as it stands in a name.
fn word(value: Value) -> Option<String> {
    Some(match value {
        Value::Text(text) => text,
        Value::Bool(truth) => truth.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Null => "none".to_owned(),
        Value::List(_) | Value::Map(_) => return None,
    })
}

/// `train/loss` for the metric `loss` in the context of the subset `train`, and
/// `fold=1/train/loss` where the context says more: each context is a curve of its own.
fn named(context: Option<&Vec<(String, String)>>, name: &str) -> String {
    let mut out = String::new();
    for (key, value) in context.into_iter().flatten() {
        if key != "subset" {
            out.push_str(key);
            out.push('=');
        }
        out.push_str(value);
        out.push('/');
    }
    out.push_str(name);
    out
}

/// Pushes a sequence in the order of its steps.
fn end(sequence: Option<Sequence>, counts: &mut Counts, sink: &mut dyn Sink) {
    let Some(Sequence { metric, name, places, .. }) = sequence else { return };
    // A place without a value is an image, a text, or torn.
    let mut places: Vec<Place> = places.into_values().filter(|place| place.value.is_some()).collect();
    if places.is_empty() {
        return;
    }
    if metric.starts_with(SYSTEM) {
        for Place { time, value, .. } in places {
            if let Some(value) = value {
                sink.record(Record::System { key: &shown(&name), time, value });
            }
        }
        return;
    }
    let Some(metric) = sink.metric(&shown(&name)) else {
        counts.dropped.add(places.len() as u64, 0);
        return;
    };
    let order = |place: &Place| place.step.unwrap_or(f64::INFINITY);
    places.sort_by(|a, b| order(a).total_cmp(&order(b)));
    for Place { step, time, value } in places {
        if let Some(value) = value {
            let step = step.and_then(crate::number::as_step);
            sink.row(&Row { step, time, values: &[(metric, value)] });
        }
    }
}

/// The parts of a path as text.
fn words(path: &[Part<'_>]) -> Vec<String> {
    let word = |part: &Part<'_>| match part {
        Part::Text(text) => (*text).to_owned(),
        Part::Number(number) => u64::from_be_bytes(*number).to_string(),
    };
    path.iter().map(word).collect()
}

/// Attributes become settings; a list is a mark followed by its elements.
#[derive(Default)]
struct Attributes {
    list: Option<(Vec<String>, Vec<Value>)>,
}

impl Attributes {
    fn take(&mut self, path: &[Part<'_>], value: &[u8], sink: &mut dyn Sink) {
        let words = words(path);
        let scalar = keys::value(value);
        if let (Some((list, elements)), [outer @ .., _], Some(value), Some(Part::Number(_))) =
            (&mut self.list, &words[..], &scalar, path.last())
            && outer == &list[..]
        {
            elements.push(value.clone());
            return;
        }
        self.end_list(sink);
        match (value.first(), scalar) {
            (Some(&keys::ARRAY), _) => self.list = Some((words, Vec::new())),
            (_, Some(value)) => setting(&words, value, sink),
            _ => {}
        }
    }

    fn end_list(&mut self, sink: &mut dyn Sink) {
        if let Some((path, elements)) = self.list.take() {
            setting(&path, Value::List(elements), sink);
        }
    }
}

/// `hparams` is where settings go by custom.
fn setting(path: &[String], value: Value, sink: &mut dyn Sink) {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let path = match &path[..] {
        ["hparams", inner @ ..] if !inner.is_empty() => inner,
        whole => whole,
    };
    if !path.is_empty() {
        sink.record(Record::Config { path, value });
    }
}
