//! A run's points on their way to its rules.

use std::collections::BTreeMap;

use super::{Course, Rule};
use crate::judge::{Judge, MetricId, Report, Settings};
use crate::log::{Metric, Names, Record, Row, Sink};

/// What is known of a run that has rules. Fed like any log.
#[derive(Debug)]
pub struct Watch {
    judge: Judge,
    names: Names,
    ids: Vec<MetricId>,
    rules: Vec<Rule>,
}

/// A rule that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Met {
    /// The rule as it was written.
    pub rule: String,
    /// Why it holds, with numbers.
    pub why: String,
    /// Seconds of training that are spared, where the pace and the planned
    /// steps say so.
    pub seconds_left: Option<f64>,
}

impl Watch {
    /// Nothing seen so far.
    #[must_use]
    pub fn new(rules: Vec<Rule>, settings: Settings) -> Self {
        Self { judge: Judge::new(settings), names: Names::default(), ids: Vec::new(), rules }
    }

    /// The first rule that holds now.
    #[must_use]
    pub fn met<'a>(&self, mut peers: impl FnMut(&str) -> Vec<&'a Course>) -> Option<Met> {
        let report: Report = self.judge.report();
        let (rule, why) =
            self.rules.iter().find_map(|rule| Some((rule, rule.holds(&report, &mut peers)?)))?;
        let seconds_left = report.finish.map(|finish| finish.seconds_left).filter(|left| *left > 0.0);
        Some(Met { rule: rule.to_string(), why, seconds_left })
    }
}

impl Sink for Watch {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        let metric = self.names.intern(name)?;
        if metric.index() >= self.ids.len() {
            self.ids.push(self.judge.metric(name));
        }
        Some(metric)
    }

    fn row(&mut self, row: &Row<'_>) {
        for &(metric, value) in row.values {
            if let Some(id) = self.ids.get(metric.index()) {
                self.judge.point(*id, row.step, row.time, value);
            }
        }
    }

    fn record(&mut self, record: Record<'_>) {
        if let Record::Segment { from } = record {
            self.judge.segment_from(from);
        }
    }
}

/// The courses of another run's metrics. Fed like any log.
#[derive(Debug, Default)]
pub struct Courses {
    wanted: BTreeMap<String, Course>,
    names: Names,
    shown: Vec<Option<String>>,
}

impl Courses {
    /// Of these metrics.
    #[must_use]
    pub fn new(wanted: impl IntoIterator<Item = String>) -> Self {
        let wanted = wanted.into_iter().map(|name| (name, Course::default())).collect();
        Self { wanted, ..Self::default() }
    }

    /// The course of one; empty where it was not logged.
    #[must_use]
    pub fn of(&self, metric: &str) -> Option<&Course> {
        self.wanted.get(metric)
    }
}

impl Sink for Courses {
    fn metric(&mut self, name: &str) -> Option<Metric> {
        let metric = self.names.intern(name)?;
        if metric.index() >= self.shown.len() {
            self.shown.push(self.wanted.contains_key(name).then(|| name.to_owned()));
        }
        Some(metric)
    }

    fn row(&mut self, row: &Row<'_>) {
        let Some(step) = row.step else { return };
        for &(metric, value) in row.values {
            if let Some(Some(name)) = self.shown.get(metric.index())
                && let Some(course) = self.wanted.get_mut(name)
            {
                course.push(step, value);
            }
        }
    }

    fn record(&mut self, _: Record<'_>) {}
}
