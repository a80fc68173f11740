//! A sink that keeps everything, for logs that fit in memory: 24 bytes for a
//! value, and bounded lists of the rest.

use std::collections::{BTreeMap, VecDeque};

use super::names::{Metric, Names};
use super::{Fact, Goal, Record, Row, Sink, Stream, Value};

/// The most settings, summary values, alerts, tags and output lines that are
/// kept, each; of output the newest, of the rest the first.
pub const MAX_FACTS: usize = 20_000;

/// The most facts about the run.
const MAX_META: usize = 1000;

/// The most measurements of the machine that are kept: further ones are counted.
const MAX_SYSTEM: usize = 1 << 20;

/// So many parts may void what earlier ones logged, as each looks at all values;
/// further ones are counted as left out.
const MAX_REWINDS: u64 = 1000;

/// All values of one metric, in the order of the log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Column {
    steps: Vec<u64>,
    times: Vec<f64>,
    /// The values.
    pub values: Vec<f64>,
}

impl Column {
    /// The step of the value at `index`.
    #[must_use]
    pub fn step(&self, index: usize) -> Option<u64> {
        self.steps.get(index).copied().filter(|&step| step != u64::MAX)
    }

    /// The time of the value at `index`.
    #[must_use]
    pub fn time(&self, index: usize) -> Option<f64> {
        self.times.get(index).copied().filter(|time| !time.is_nan())
    }

    /// Steps and values in order.
    pub fn pairs(&self) -> impl Iterator<Item = (Option<u64>, f64)> + '_ {
        self.values.iter().enumerate().map(|(i, &value)| (self.step(i), value))
    }

    fn push(&mut self, step: Option<u64>, time: Option<f64>, value: f64) {
        self.steps.push(step.unwrap_or(u64::MAX));
        self.times.push(time.unwrap_or(f64::NAN));
        self.values.push(value);
    }

    /// Takes out what a resumed part does again.
    fn rewind(&mut self, from: u64) {
        let keep: Vec<bool> = self.steps.iter().map(|&step| step == u64::MAX || step < from).collect();
        let mut kept = keep.iter();
        self.steps.retain(|_| kept.next().copied().unwrap_or(true));
        let mut kept = keep.iter();
        self.times.retain(|_| kept.next().copied().unwrap_or(true));
        let mut kept = keep.iter();
        self.values.retain(|_| kept.next().copied().unwrap_or(true));
    }
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where the program wrote it.
    pub stream: Stream,
    /// The text.
    pub text: String,
}

/// A whole log.
#[derive(Debug, Clone, Default)]
pub struct Collected {
    /// Names of the columns.
    pub names: Names,
    /// One for each name; empty where the log named a metric without a value.
    pub columns: Vec<Column>,
    /// Settings by path.
    pub config: BTreeMap<Vec<String>, Value>,
    /// Summary values by path.
    pub summary: BTreeMap<Vec<String>, Value>,
    /// Facts about the run.
    pub meta: Vec<(Fact, String)>,
    /// See [`Record::Started`].
    pub started: Option<f64>,
    /// See [`Record::Ended`].
    pub ended: Option<f64>,
    /// Output, the newest lines.
    pub output: VecDeque<Line>,
    /// Measurements of the machine: key, time, value.
    pub system: Vec<(String, Option<f64>, f64)>,
    /// Alerts: title, text, level.
    pub alerts: Vec<(String, String, String)>,
    /// Directions of metrics or patterns.
    pub directions: BTreeMap<String, Goal>,
    /// Keys whose values are no numbers, and what they hold.
    pub others: BTreeMap<String, String>,
    /// Exit code of the program.
    pub exit: Option<i32>,
    /// How many parts go on from an earlier one.
    pub segments: u64,
    /// What the bounds left out.
    pub left_out: u64,
}

impl Collected {
    /// The column of a metric.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.names.find(name).and_then(|metric| self.columns.get(metric.index()))
    }

    /// Names and columns in the order of their appearance.
    pub fn named(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.names.iter().zip(&self.columns)
    }

    /// The first fact of a kind.
    #[must_use]
    pub fn fact(&self, fact: Fact) -> Option<&str> {
        self.meta.iter().find(|(kind, _)| *kind == fact).map(|(_, text)| text.as_str())
    }

    fn set(map: &mut BTreeMap<Vec<String>, Value>, left_out: &mut u64, path: &[&str], value: Value) {
        let path: Vec<String> = path.iter().map(|&part| part.to_owned()).collect();
        if map.len() < MAX_FACTS || map.contains_key(&path) {
            map.insert(path, value);
        } else {
            *left_out += 1;
        }
    }

    fn fact_set(&mut self, fact: Fact, text: &str) {
        let same = |(kind, old): &(Fact, String)| *kind == fact && (fact != Fact::Tag || old == text);
        if let Some(index) = self.meta.iter().position(same) {
            text.clone_into(&mut self.meta[index].1);
        } else if self.meta.len() < MAX_META {
            self.meta.push((fact, text.to_owned()));
        } else {
            self.left_out += 1;
        }
    }
}

impl Sink for Collected {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        let metric = self.names.intern(name)?;
        if metric.index() >= self.columns.len() {
            self.columns.resize_with(metric.index() + 1, Column::default);
        }
        Some(metric)
    }

    fn row(&mut self, row: &Row<'_>) {
        for &(metric, value) in row.values {
            if let Some(column) = self.columns.get_mut(metric.index()) {
                column.push(row.step, row.time, value);
            }
        }
    }

    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Config { path, value } => Self::set(&mut self.config, &mut self.left_out, path, value),
            Record::Summary { path, value } => Self::set(&mut self.summary, &mut self.left_out, path, value),
            Record::Meta(fact, text) => self.fact_set(fact, text),
            Record::Started(time) => self.started = self.started.or(Some(time)),
            Record::Ended(time) => self.ended = Some(time),
            Record::Output { stream, text } => {
                if self.output.len() >= MAX_FACTS {
                    self.output.pop_front();
                    self.left_out += 1;
                }
                self.output.push_back(Line { stream, text: text.to_owned() });
            }
            Record::System { key, time, value } if self.system.len() < MAX_SYSTEM => {
                self.system.push((key.to_owned(), time, value));
            }
            Record::Alert { title, text, level } if self.alerts.len() < MAX_FACTS => {
                self.alerts.push((title.to_owned(), text.to_owned(), level.to_owned()));
            }
            Record::Direction { metric, goal }
                if self.directions.len() < MAX_FACTS || self.directions.contains_key(metric) =>
            {
                self.directions.insert(metric.to_owned(), goal);
            }
            Record::Other { key, kind } if self.others.len() < MAX_FACTS => {
                self.others.insert(key.to_owned(), kind.to_owned());
            }
            Record::System { .. }
            | Record::Alert { .. }
            | Record::Direction { .. }
            | Record::Other { .. } => self.left_out += 1,
            Record::Exit { code } => self.exit = Some(code),
            Record::Segment { from } => {
                self.segments += 1;
                match from {
                    Some(_) if self.segments > MAX_REWINDS => self.left_out += 1,
                    Some(from) => self.columns.iter_mut().for_each(|column| column.rewind(from)),
                    None => {}
                }
            }
        }
    }
}
