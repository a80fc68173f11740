//! What every tracking tool's files say, in one shape: rows of metric values,
//! and the few other facts that are worth keeping.
//!
//! Readers of formats push into a [`Sink`]; what the values mean is not decided
//! here. A reader never loses count: what it leaves out, and where that first
//! happened, is in its [`Counts`].

mod collected;
mod names;

pub use collected::{Collected, Column, Line, MAX_FACTS};
pub(crate) use names::shown;
pub use names::{MAX_METRIC_NAME_BYTES, MAX_METRICS, MAX_NAMES_BYTES, Metric, Names};

/// Values that were logged together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row<'a> {
    /// The step they belong to; `None` when the log names none.
    pub step: Option<u64>,
    /// Seconds since 1970, or since the run began where the log knows no more.
    pub time: Option<f64>,
    /// Metric and value, in the order of the log; NaN and infinities as they are.
    pub values: &'a [(Metric, f64)],
}

/// One value of one metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Which metric, as the sink numbered it.
    pub metric: Metric,
    /// See [`Row::step`].
    pub step: Option<u64>,
    /// See [`Row::time`].
    pub time: Option<f64>,
    /// The value.
    pub value: f64,
}

impl Row<'_> {
    /// The row value by value.
    pub fn points(&self) -> impl Iterator<Item = Point> + '_ {
        let &Self { step, time, .. } = self;
        self.values.iter().map(move |&(metric, value)| Point { metric, step, time, value })
    }
}

/// A value of a configuration or a summary. Unlike JSON's, its numbers may be
/// NaN or infinite.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `None`, or nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number that was written as an integer and fits.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// An object, in the order of the log.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The member of an object.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(members) => members.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is one, or one of the words that stand in quotes where
    /// JSON has no number.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Text(text) => crate::format::quoted_number(text.as_bytes()),
            _ => None,
        }
    }
}

/// One fact about a run that tools keep beside its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// The tool's identifier of the run; resumed parts share it.
    RunId,
    /// The name people see.
    Name,
    /// Project or experiment.
    Project,
    /// Who owns it.
    Entity,
    /// A group of runs.
    Group,
    /// What kind of job it is.
    JobType,
    /// One tag; there may be several.
    Tag,
    /// Notes in prose.
    Notes,
    /// Commit of the source.
    Commit,
    /// Where the source came from.
    Remote,
    /// Name of the machine.
    Host,
    /// The search that started it.
    Sweep,
    /// What kind of accelerator.
    Accelerator,
    /// The program's file or module.
    Program,
    /// Version of Python.
    Python,
    /// Version of the tool that wrote the log.
    Writer,
    /// The tool's own word for how the run stands.
    Status,
    /// The tool's identifier of the run that it is a part of.
    Parent,
}

/// Which way a metric gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Smaller is better.
    Minimise,
    /// Greater is better.
    Maximise,
}

/// A stream of the program's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// All that is no row of metrics.
#[derive(Debug, Clone, PartialEq)]
pub enum Record<'a> {
    /// A setting of the run. The path is nested as it was given; its parts may
    /// hold dots and slashes. A later one of the same path replaces it.
    Config {
        /// From the outside in, never empty.
        path: &'a [&'a str],
        /// Its value.
        value: Value,
    },
    /// A last or best value that the tool or the program set. A later one of
    /// the same path replaces it.
    Summary {
        /// From the outside in, never empty.
        path: &'a [&'a str],
        /// Its value.
        value: Value,
    },
    /// A fact about the run; a later one replaces it, but for tags.
    Meta(Fact, &'a str),
    /// When the run began, in seconds since 1970.
    Started(f64),
    /// When the run ended, in seconds since 1970.
    Ended(f64),
    /// A piece of output as the tool stored it, mostly a line without its end.
    Output {
        /// Where the program wrote it.
        stream: Stream,
        /// The text. Hostile: it may hold control characters.
        text: &'a str,
    },
    /// One measurement of the machine.
    System {
        /// The tool's name of it, such as `gpu.0.gpu`.
        key: &'a str,
        /// Seconds since 1970.
        time: Option<f64>,
        /// The value in the tool's unit.
        value: f64,
    },
    /// The program or the tool raised an alert.
    Alert {
        /// One line.
        title: &'a str,
        /// More of it.
        text: &'a str,
        /// The tool's word for how bad it is.
        level: &'a str,
    },
    /// The program said which way a metric gets better.
    Direction {
        /// The metric, or a pattern with `*`.
        metric: &'a str,
        /// The way.
        goal: Goal,
    },
    /// A key whose values are no numbers, told once: text, images, histograms.
    Other {
        /// The key.
        key: &'a str,
        /// The tool's word for what it holds; may be empty.
        kind: &'a str,
    },
    /// How the program ended.
    Exit {
        /// Its exit code.
        code: i32,
    },
    /// A part begins that goes on from an earlier one. Rows of earlier parts at
    /// or after `from` are void; `None` where the log names no step.
    Segment {
        /// The first step of the part.
        from: Option<u64>,
    },
}

/// Takes what a reader finds. One reader keeps to one sink; one sink may serve
/// several readers one after the other, which is how parts of a run are joined.
pub trait Sink {
    /// The number of a metric, the same for the same name; `None` when the
    /// sink takes no more names.
    fn metric(&mut self, name: &str) -> Option<Metric>;
    /// A row of values of metrics that were numbered before.
    fn row(&mut self, row: &Row<'_>);
    /// Anything else.
    fn record(&mut self, record: Record<'_>);
}

/// How often something happened, and the byte of the input where it first did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How often.
    pub count: u64,
    /// Offset of the first.
    pub first: Option<u64>,
}

impl Tally {
    /// Counts `more` of it at `offset`.
    pub(crate) fn add(&mut self, more: u64, offset: u64) {
        if more > 0 {
            self.count = self.count.saturating_add(more);
            self.first = self.first.or(Some(offset));
        }
    }

    /// Counts one at `offset`.
    pub(crate) fn hit(&mut self, offset: u64) {
        self.add(1, offset);
    }
}

/// What a reader has taken in and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Bytes fed.
    pub bytes: u64,
    /// Whole records read: lines, events or messages, whatever the format has.
    pub records: u64,
    /// Whole records left out as they are longer than the bound.
    pub skipped: Tally,
    /// Whole records of kinds that hold nothing this crate keeps: images, telemetry,
    /// comments. Nothing of a training's course is lost with them.
    pub aside: Tally,
    /// Records that contradict their checksum or their format.
    pub corrupt: Tally,
    /// Records of a kind that the reader does not know.
    pub unknown: Tally,
    /// Values left out: their name was too long, or one too many.
    pub dropped: Tally,
    /// Cells of tables that begin like numbers and are none: `3,5`, `12 ms`. Their
    /// values are lost.
    pub unread: Tally,
    /// Columns of tables without a name, which are called by their place.
    pub unnamed: Tally,
    /// Bytes at the end that belong to no whole record: what a live file is
    /// still writing, or a killed one lost.
    pub torn: Tally,
}

/// Reads one file of one format, piece by piece as it grows.
pub trait Reader {
    /// Takes the next bytes, cut anywhere, and pushes what they complete.
    fn feed(&mut self, bytes: &[u8], sink: &mut dyn Sink);
    /// Says that no more bytes are there for now: pushes what only the end of
    /// the input makes known, such as summaries. May be called again, and the
    /// reader may be fed again after it.
    fn finish(&mut self, sink: &mut dyn Sink);
    /// The counts so far; `torn` is right after [`Self::finish`].
    fn counts(&self) -> &Counts;
}
