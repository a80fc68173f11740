//! Rows of named numbers: which names count steps, which tell the time, and
//! which are metrics.
//!
//! A row's step is the best step key in it. A counter such as `timesteps`, or a whole
//! epoch, stands in for a step only in logs that never name one: mixing both units would put validation
//! at step 3 of 3,000. A row without any goes with the newest step before it.

use super::time;
use crate::counters;
use crate::log::{Metric, Names, Row, Sink};
use crate::number::as_step;

/// Keys that count steps, the most telling first, in any case. The counters of
/// [`crate::counters`] are weaker, and `epoch` is the weakest. Beside a
/// `global_step` a `step` may count within an epoch.
const STEP_KEYS: [&str; 7] = ["global_step", "step", "_step", "iteration", "iter", "it", "iter_num"];

/// Keys that tell when a row was logged, in any case.
const TIME_KEYS: [&str; 6] = ["_timestamp", "timestamp", "ts", "time", "wall time", "wall_time"];

/// What the user says about a log's names, where that is not what this module
/// would think.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    /// The key that counts steps, and no other does.
    pub step: Option<String>,
    /// The key that tells the time.
    pub time: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Role {
    /// The lowest rank in a row wins.
    Step(u8),
    /// A time since 1970 of any unit.
    Time,
    /// Seconds or milliseconds, if it is that large; else how long a step took.
    PerhapsTime,
    /// Seconds since the run began.
    Elapsed,
    Value,
}

/// From this rank on a key stands in for steps only where no more telling one was
/// seen in the log.
const WEAK: u8 = STEP_KEYS.len() as u8;
const WEAKEST: u8 = WEAK + counters::RANKS as u8;

fn step_rank(name: &str) -> Option<u8> {
    let known = STEP_KEYS.iter().position(|key| *key == name);
    let counter = || Some(counters::rank(name)? + STEP_KEYS.len());
    let rank = known.or_else(counter).map(|rank| rank as u8);
    rank.or_else(|| (name == "epoch").then_some(WEAKEST))
}

#[derive(Debug, Clone, Copy)]
enum Number {
    Unasked,
    Refused,
    Known(Metric),
}

#[derive(Debug, Clone)]
struct Field {
    role: Role,
    number: Number,
    /// The field that followed it last time.
    next: u32,
    plain: bool,
}

/// The names of one log and the row that is being read.
#[derive(Debug, Default)]
pub(super) struct Fields {
    schema: Schema,
    metrics_only: bool,
    names: Names,
    fields: Vec<Field>,
    first: u32,
    values: Vec<(u32, f64)>,
    /// Rank of the best step and its place in `values`.
    step: Option<(u8, usize)>,
    time: Option<f64>,
    elapsed: Option<f64>,
    out: Vec<(Metric, f64)>,
    /// Rank of the most telling step key so far.
    strongest: Option<u8>,
    newest: Option<u64>,
    /// Values left out of the present row.
    dropped: u64,
}

const NONE: u32 = u32::MAX;

impl Fields {
    pub(super) fn new(schema: Schema) -> Self {
        Self { schema, first: NONE, ..Self::default() }
    }

    /// Names that are metrics all, for formats that say themselves what counts
    /// steps. Rows are ended with [`Self::end_at`].
    pub(super) fn of_metrics() -> Self {
        Self { metrics_only: true, ..Self::new(Schema::default()) }
    }

    /// The field of a name; `None` when there are too many.
    pub(super) fn field(&mut self, name: &[u8]) -> Option<u32> {
        let id = self.names.intern_bytes(name)?;
        if id as usize >= self.fields.len() {
            let text = String::from_utf8_lossy(name);
            let plain = !name.iter().any(|b| matches!(b, b'"' | b'\\'));
            self.fields.push(Field { role: self.role(&text), number: Number::Unasked, next: NONE, plain });
        }
        Some(id)
    }

    pub(super) fn is_known(&self, name: &[u8]) -> bool {
        self.names.find_bytes(name).is_some()
    }

    pub(super) fn name(&self, field: u32) -> &[u8] {
        self.names.bytes_of(field as usize)
    }

    pub(super) fn is_time(&self, field: u32) -> bool {
        self.fields.get(field as usize).is_some_and(|f| matches!(f.role, Role::Time | Role::PerhapsTime))
    }

    /// Whether a field counts steps.
    pub(super) fn is_step(&self, field: u32) -> bool {
        self.fields.get(field as usize).is_some_and(|field| matches!(field.role, Role::Step(_)))
    }

    /// Whether the present row names no step where others did.
    pub(super) fn lacks_step(&self) -> bool {
        self.step.is_none() && self.newest.is_some()
    }

    /// The field that is likely to follow, and its name, if that has no escapes.
    #[inline]
    pub(super) fn guess(&self, before: Option<u32>) -> Option<(u32, &[u8])> {
        let next = match before {
            Some(before) => self.fields.get(before as usize)?.next,
            None => self.first,
        };
        self.fields.get(next as usize).filter(|field| field.plain)?;
        Some((next, self.names.bytes_of(next as usize)))
    }

    /// Remembers which field followed which.
    pub(super) fn follows(&mut self, before: Option<u32>, field: u32) {
        match before.and_then(|before| self.fields.get_mut(before as usize)) {
            Some(before) => before.next = field,
            None => self.first = field,
        }
    }

    fn role(&self, name: &str) -> Role {
        if self.metrics_only {
            return Role::Value;
        }
        let lower = name.to_ascii_lowercase();
        // `trainer/global_step` is Lightning's.
        let word = if lower.ends_with("/global_step") { "global_step" } else { &lower };
        if let Some(step) = &self.schema.step {
            if step == name {
                return Role::Step(0);
            }
        } else if let Some(rank) = step_rank(word) {
            return Role::Step(rank);
        }
        if let Some(time) = &self.schema.time {
            return if time == name { Role::Time } else { Role::Value };
        }
        match lower.as_str() {
            "_runtime" => Role::Elapsed,
            "time" => Role::PerhapsTime,
            _ if TIME_KEYS.contains(&lower.as_str()) => Role::Time,
            _ => Role::Value,
        }
    }

    /// Begins a row.
    pub(super) fn begin(&mut self) {
        self.values.clear();
        (self.step, self.time, self.elapsed, self.dropped) = (None, None, None, 0);
    }

    /// Notes a value that finds no place.
    pub(super) fn drop_value(&mut self) {
        self.dropped += 1;
    }

    /// Adds a value to the row.
    #[inline]
    pub(super) fn value(&mut self, field: u32, value: f64) {
        let Some(known) = self.fields.get(field as usize) else { return };
        match known.role {
            Role::Value => {}
            Role::Step(rank) if self.step.is_none_or(|(best, _)| rank < best) && as_step(value).is_some() => {
                self.step = Some((rank, self.values.len()));
            }
            Role::Time if value.is_finite() => {
                self.time = self.time.or(Some(time::seconds(value)));
                return;
            }
            Role::PerhapsTime if value >= 1e9 && value.is_finite() => {
                self.time = self.time.or(Some(time::seconds(value)));
                return;
            }
            Role::Elapsed if value.is_finite() => {
                self.elapsed = Some(value);
                return;
            }
            _ => {}
        }
        self.values.push((field, value));
    }

    /// Adds a text to the row: it matters only as a time.
    pub(super) fn text(&mut self, field: u32, text: &str) {
        if self.is_time(field) {
            self.time = self.time.or(time::iso(text));
        }
    }

    /// Ends a row and pushes it: the values that were left out.
    pub(super) fn end(&mut self, sink: &mut dyn Sink) -> u64 {
        let mut chosen = self.step;
        if let Some((rank, _)) = chosen {
            if rank >= WEAK && self.strongest.is_some_and(|strongest| strongest < rank) {
                chosen = None;
            } else {
                self.strongest = Some(self.strongest.map_or(rank, |strongest| strongest.min(rank)));
            }
        }
        let chosen = chosen.map(|(_, index)| index);
        if let Some((_, value)) = chosen.and_then(|index| self.values.get(index)) {
            self.newest = as_step(*value);
        }
        let (step, time) = (self.newest, self.time.or(self.elapsed));
        self.push(chosen, step, time, sink)
    }

    /// Ends a row whose step and time are known otherwise, and pushes it.
    pub(super) fn end_at(&mut self, step: Option<u64>, time: Option<f64>, sink: &mut dyn Sink) -> u64 {
        self.push(None, step, time, sink)
    }

    /// Takes back the values of the present row that lie below one of the
    /// names, which are sorted.
    pub(super) fn drop_below(&mut self, parents: &[Vec<u8>]) {
        let names = &self.names;
        self.values.retain(|&(field, _)| {
            let name = names.bytes_of(field as usize);
            let below = |end: usize| parents.binary_search_by(|parent| parent[..].cmp(&name[..end])).is_ok();
            !memchr::memchr_iter(b'/', name).any(below)
        });
    }

    fn push(&mut self, but: Option<usize>, step: Option<u64>, time: Option<f64>, sink: &mut dyn Sink) -> u64 {
        self.out.clear();
        for (index, &(field, value)) in self.values.iter().enumerate() {
            if Some(index) == but {
                continue;
            }
            let known = &mut self.fields[field as usize];
            if let Number::Unasked = known.number {
                let name = String::from_utf8_lossy(self.names.bytes_of(field as usize));
                known.number = sink.metric(&crate::log::shown(&name)).map_or(Number::Refused, Number::Known);
            }
            match known.number {
                Number::Known(metric) => self.out.push((metric, value)),
                _ => self.dropped += 1,
            }
        }
        if !self.out.is_empty() {
            sink.row(&Row { step, time, values: &self.out });
        }
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::super::Delimited;
    use super::*;
    use crate::log::{Collected, Reader};

    #[test]
    fn the_key_that_counts_steps_is_known_in_any_case_and_below_a_name() {
        for (header, row, expected) in [
            ("Wall time,Step,Value", "1700000000.5,7,0.5", Some(7)),
            ("trainer/global_step,loss", "7,0.5", Some(7)),
            ("step,global_step,loss", "1,7,0.5", Some(7)),
            ("Epoch,loss", "7,0.5", Some(7)),
            ("footstep,loss", "7,0.5", None),
        ] {
            let (mut reader, mut log) = (Delimited::new(Schema::default()), Collected::default());
            reader.feed(format!("{header}\n{row}\n").as_bytes(), &mut log);
            let last = header.rsplit(',').next().unwrap_or_default();
            let steps: Vec<_> = log.column(last).expect("a column").pairs().collect();
            assert_eq!(steps, [(expected, 0.5)], "{header}");
        }
    }
}
