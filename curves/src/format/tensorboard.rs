//! TensorBoard's event files, whoever wrote them.
//!
//! Scalars come in two encodings, as a plain float and as a tensor; both are
//! read, and checksums are always verified. Which plugin a tag belongs to stands
//! only at its first value. Values of most writers have 32 bits.

mod frames;
mod tensor;

use super::fields;
use super::protobuf::{Fields, Wire, text};
use crate::log::{Counts, Fact, Names, Reader, Record, Sink, Value, shown};
use crate::number::as_step;
use frames::Frames;

pub(super) use frames::has_header;

/// Reads one event file. The files of one directory are one run: read them in
/// the order of their names into one sink.
#[derive(Debug, Default)]
pub struct TensorBoard {
    frames: Frames,
    events: Events,
    counts: Counts,
}

#[derive(Debug)]
struct Events {
    fields: fields::Fields,
    /// The tag of the value before.
    before: Option<u32>,
    /// Tags that hold no scalars, as far as they are known.
    others: Names,
}

impl Default for Events {
    fn default() -> Self {
        Self { fields: fields::Fields::of_metrics(), before: None, others: Names::default() }
    }
}

impl TensorBoard {
    /// A reader at the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Reader for TensorBoard {
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink) {
        let events = &mut self.events;
        self.frames.feed(bytes, &mut self.counts, |at, event, counts| events.take(at, event, counts, sink));
    }

    fn finish(&mut self, _sink: &mut dyn Sink) {
        self.frames.count_torn(&mut self.counts);
    }

    fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// Status of a session log which says that an earlier session was left.
const SESSION_START: u64 = 1;

impl Events {
    fn take(&mut self, at: u64, event: &[u8], counts: &mut Counts, sink: &mut dyn Sink) {
        counts.records += 1;
        let (mut time, mut step, mut summary, mut started) = (None, 0, &[][..], false);
        let mut fields = Fields::new(event);
        for (field, wire) in &mut fields {
            match field {
                1 => time = wire.double().filter(|time| time.is_finite()),
                2 => step = wire.number(),
                5 => summary = wire.bytes(),
                7 => {
                    let status = Fields::new(wire.bytes()).find(|(field, _)| *field == 1);
                    started = status.is_some_and(|(_, wire)| wire.number() == SESSION_START);
                }
                // Version of the file, graphs, run metadata, origin.
                3 | 4 | 6 | 8 | 9 | 10 => {}
                _ => counts.unknown.hit(at),
            }
        }
        if fields.is_broken() {
            counts.corrupt.hit(at);
            return;
        }
        let step = Some(step).filter(|step| *step <= 1 << 53);
        if started {
            sink.record(Record::Segment { from: step });
        }
        self.fields.begin();
        let mut values = Fields::new(summary);
        for (_, wire) in values.by_ref().filter(|(field, _)| *field == 1) {
            self.value(at, wire.bytes(), counts, sink);
        }
        if values.is_broken() {
            counts.corrupt.hit(at);
        } else {
            counts.dropped.add(self.fields.end_at(step, time, sink), at);
        }
    }

    fn value(&mut self, at: u64, message: &[u8], counts: &mut Counts, sink: &mut dyn Sink) {
        let (mut tag, mut simple, mut tensor) = (&[][..], None, None);
        let (mut metadata, mut kind) = (&[][..], "");
        for (field, wire) in Fields::new(message) {
            match (field, wire) {
                (1, _) => tag = wire.bytes(),
                (2, Wire::Fixed32(bits)) => simple = Some(f64::from(f32::from_bits(bits))),
                (4, _) => kind = "image",
                (5, _) => kind = "histogram",
                (6, _) => kind = "audio",
                (8, _) => tensor = Some(wire.bytes()),
                (9, _) => metadata = wire.bytes(),
                _ => {}
            }
        }
        let plugin = if metadata.is_empty() { Default::default() } else { plugin(metadata) };
        if plugin.0 == "hparams" {
            hparams(plugin.1, sink);
            return;
        }
        let scalar = match (simple, tensor) {
            (Some(_), _) => simple,
            (None, Some(tensor)) if matches!(plugin.0.as_ref(), "" | "scalars") => {
                let foreign = !self.others.is_empty() && self.others.find_bytes(tag).is_some();
                if foreign { None } else { tensor::scalar(tensor) }
            }
            _ => None,
        };
        if let Some(value) = scalar {
            self.scalar(tag, value);
            return;
        }
        counts.aside.hit(at);
        let known = self.others.len();
        if self.others.intern_bytes(tag).is_some() && self.others.len() > known {
            let kind = if plugin.0.is_empty() { kind } else { plugin.0.as_ref() };
            let tag = String::from_utf8_lossy(tag);
            sink.record(Record::Other { key: &shown(&tag), kind });
        }
    }

    /// Programs log their tags in the same order again and again.
    #[inline]
    fn scalar(&mut self, tag: &[u8], value: f64) {
        let guess = self.fields.guess(self.before).filter(|(_, name)| *name == tag).map(|(field, _)| field);
        let field = guess.or_else(|| {
            let field = self.fields.field(tag)?;
            self.fields.follows(self.before, field);
            Some(field)
        });
        match field {
            Some(field) => {
                self.fields.value(field, value);
                self.before = Some(field);
            }
            None => self.fields.drop_value(),
        }
    }
}

/// Name and content of the plugin in a value's metadata.
fn plugin(metadata: &[u8]) -> (std::borrow::Cow<'_, str>, &[u8]) {
    let data = Fields::new(metadata).find(|(field, _)| *field == 1).map_or(&[][..], |(_, w)| w.bytes());
    let content = Fields::new(data).find(|(field, _)| *field == 2).map_or(&[][..], |(_, w)| w.bytes());
    (text(data, 1), content)
}

/// Hyperparameters: `HParamsPluginData` of TensorBoard's plugin.
fn hparams(content: &[u8], sink: &mut dyn Sink) {
    for (field, wire) in Fields::new(content) {
        match field {
            3 => {
                for (field, wire) in Fields::new(wire.bytes()) {
                    match field {
                        1 => hparam(wire.bytes(), sink),
                        5 => {
                            if let Some(time) = wire.double().filter(|time| *time > 0.0) {
                                sink.record(Record::Started(time));
                            }
                        }
                        _ => {}
                    }
                }
            }
            4 => {
                let status = Fields::new(wire.bytes()).find(|(field, _)| *field == 1);
                let word = match status.map(|(_, wire)| wire.number()) {
                    Some(1) => "SUCCESS",
                    Some(2) => "FAILURE",
                    Some(3) => "RUNNING",
                    _ => continue,
                };
                sink.record(Record::Meta(Fact::Status, word));
            }
            _ => {}
        }
    }
}

/// One entry of the map from names to `google.protobuf.Value`.
fn hparam(entry: &[u8], sink: &mut dyn Sink) {
    let name = text(entry, 1);
    let value = Fields::new(entry).find(|(field, _)| *field == 2).map_or(&[][..], |(_, w)| w.bytes());
    let value = match Fields::new(value).next() {
        Some((2, wire)) => wire.double().map(whole),
        Some((3, wire)) => Some(Value::Text(String::from_utf8_lossy(wire.bytes()).into_owned())),
        Some((4, wire)) => Some(Value::Bool(wire.number() != 0)),
        Some((1, _)) => Some(Value::Null),
        _ => None,
    };
    if let Some(value) = value.filter(|_| !name.is_empty()) {
        sink.record(Record::Config { path: &[&name], value });
    }
}

/// The plugin knows doubles alone: whole ones were integers, most likely.
fn whole(value: f64) -> Value {
    as_step(value).and_then(|n| i64::try_from(n).ok()).map_or(Value::Float(value), Value::Integer)
}
