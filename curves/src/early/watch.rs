//! A run's points on their way to its rules.

use std::collections::BTreeMap;

use super::{Course, Rule};
use crate::judge::schema::{nearest, read_name};
use crate::judge::{Judge, MetricId, Report, Settings};
use crate::log::{Metric, Names, Record, Row, Sink};

/// What is known of a run that has rules. Fed like any log.
#[derive(Debug)]
pub struct Watch {
    judge: Judge,
    names: Names,
    ids: Vec<MetricId>,
    rules: Vec<Rule>,
    logged: Vec<Logged>,
    values: u64,
}

/// What came of one metric.
#[derive(Debug)]
struct Logged {
    name: String,
    stepped: bool,
}

/// Values after which a name that is near to one in a rule was surely meant, and
/// those after which one that was not logged will hardly come.
const SOON: u64 = 100;
const LATE: u64 = 10_000;
/// Signs by which a slip of the finger is longer or shorter.
const SLIP: usize = 2;

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
        Self {
            judge: Judge::new(settings),
            names: Names::default(),
            ids: Vec::new(),
            rules,
            logged: Vec::new(),
            values: 0,
        }
    }

    /// What is odd about the rules themselves, by what was logged so far: metrics that
    /// there are not, and steps that there are not. `over`: nothing more comes.
    #[must_use]
    pub fn odd(&self, over: bool) -> Vec<String> {
        self.rules.iter().flat_map(Rule::parts).filter_map(|rule| self.odd_of(rule, over)).collect()
    }

    fn odd_of(&self, rule: &Rule, over: bool) -> Option<String> {
        let wanted = rule.metric.as_deref()?;
        if let Some(found) = self.logged.iter().find(|logged| logged.name == wanted) {
            let counts = rule.after > 0 && !found.stepped && self.values >= SOON;
            return counts.then(|| {
                format!("rule `{rule}`: `{wanted}` is logged without steps, so its values are counted")
            });
        }
        let names: Vec<&str> = self.logged.iter().map(|logged| logged.name.as_str()).collect();
        // A validation loss comes late, and the training loss is not what was meant.
        let split = |name: &str| read_name(name).split;
        let near = nearest(wanted, &names)
            .filter(|near| split(near) == split(wanted) && near.len().abs_diff(wanted.len()) <= SLIP);
        let enough = if near.is_some() { SOON } else { LATE };
        (self.values >= enough || over && self.values > 0).then(|| {
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            format!("rule `{rule}`: the run logs no `{wanted}`{near}")
        })
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
            self.logged.push(Logged { name: name.to_owned(), stepped: false });
        }
        Some(metric)
    }

    fn row(&mut self, row: &Row<'_>) {
        for &(metric, value) in row.values {
            if let Some(id) = self.ids.get(metric.index()) {
                self.judge.point(*id, row.step, row.time, value);
                self.values += 1;
            }
            if let Some(logged) = self.logged.get_mut(metric.index()) {
                logged.stepped |= row.step.is_some();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(rules: &[&str], name: &str, values: u64, step: Option<u64>) -> Watch {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let mut watch = Watch::new(rules, Settings::default());
        let metric = watch.metric(name).unwrap();
        (0..values).for_each(|_| watch.row(&Row { step, time: None, values: &[(metric, 1.0)] }));
        watch
    }

    #[test]
    fn a_rule_on_what_is_not_logged_is_told() {
        let odd = |values, over| watch(&["val_los < 3", "nan"], "val_loss", values, Some(1)).odd(over);
        assert_eq!(
            odd(SOON, false),
            ["rule `val_los < 3`: the run logs no `val_los`; did you mean `val_loss`?"]
        );
        assert_eq!((odd(SOON - 1, false).len(), odd(1, true).len(), odd(0, true).len()), (0, 1, 0));
        // What is measured after each epoch may come late.
        let late = |values| watch(&["bleu > 3"], "loss", values, Some(1)).odd(false);
        assert_eq!((late(LATE - 1).len(), late(LATE).len()), (0, 1));
        assert!(watch(&["val_loss < 3"], "train_loss", LATE - 1, Some(1)).odd(false).is_empty());
        assert!(watch(&["loss < 3"], "loss", LATE, Some(1)).odd(true).is_empty());
    }

    #[test]
    fn steps_that_are_not_logged_are_told() {
        let odd = |step| watch(&["reward < 0.3 after 300"], "reward", SOON, step).odd(false);
        assert_eq!(
            odd(None),
            ["rule `reward < 0.3 after 300`: `reward` is logged without steps, so its values are counted"]
        );
        assert!(odd(Some(3)).is_empty());
        assert!(watch(&["reward < 0.3"], "reward", SOON, None).odd(false).is_empty());
    }
}
