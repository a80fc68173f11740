//! What is new and wrong in runs since they were looked at last. Told once each;
//! nothing here waits, prints or asks anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use curves::early::Rule;
use curves::format::Format;
use curves::judge::{MetricReport, Severity, short};
use serde_json::{Value, json};

use crate::args::ReadAs;
use crate::commands::analyze::ending::{LastError, Outcome, is_failure};
use crate::commands::analyze::follow::Followers;
use crate::commands::analyze::gather::{Watched, gather};
use crate::commands::analyze::words;

/// Alerts that are told of one run.
const MOST: usize = 1_000;

/// What is worth telling.
#[derive(Debug, Clone)]
pub(crate) struct Alert {
    pub(crate) run: String,
    /// `rule`, `finding`, `stalled`, `crashed`, `ended`.
    pub(crate) kind: &'static str,
    pub(crate) text: String,
    pub(crate) step: Option<u64>,
}

impl Alert {
    pub(super) fn json(&self, at_ms: u64) -> Value {
        json!({"run": self.run, "kind": self.kind, "text": self.text, "step": self.step, "at_ms": at_ms})
    }

    /// That a run is over, by the word that its tracker has for its end; of one that
    /// failed, why.
    pub(super) fn over(run: &str, state: &str, why: Option<&LastError>) -> Self {
        let mut text = format!("the run has ended: {}", words::ascii(state));
        let crashed = is_failure(state);
        if let Some(why) = why.filter(|_| crashed) {
            let next = why.next.as_ref().map(|next| format!("; try {}", words::ascii(next)));
            text.push_str(&format!(", {}{}", why.text(), next.unwrap_or_default()));
        }
        Self { run: run.to_owned(), kind: if crashed { "crashed" } else { "ended" }, text, step: None }
    }
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sought<'a> {
    /// Without any, all that is a warning or worse.
    pub(crate) rules: &'a [Rule],
    /// No value for so long.
    pub(crate) stalled: Option<Duration>,
    /// The path, as it is told.
    pub(crate) shown: &'a str,
    /// The files are copies of a run of the controller's, which tells its end itself.
    pub(crate) is_copy: bool,
}

/// New values of the metric that a run is judged by.
#[derive(Debug, PartialEq)]
pub(super) struct News {
    pub(super) run: String,
    pub(super) text: String,
    /// The newest value is the best so far.
    pub(super) is_best: bool,
}

/// What was told, and when something came last.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    told: BTreeSet<String>,
    /// Values of each run's first metric at the last look.
    counts: BTreeMap<String, u64>,
    values: u64,
    moved: Option<Instant>,
    stalled: bool,
}

/// Reads and judges the runs below a path.
///
/// # Errors
/// As [`gather`].
pub(crate) fn judged(
    path: &Path,
    format: Option<Format>,
    followers: &Mutex<Followers>,
) -> anyhow::Result<Vec<Watched>> {
    let runs = gather(&[path.to_owned()], format.map(ReadAs::Format).as_ref())?.runs;
    Ok(runs.iter().map(|run| run.watched(followers)).collect())
}

impl Seen {
    /// All that is new and wrong, and what is over.
    pub(crate) fn alerts(&mut self, sought: &Sought<'_>, runs: &[Watched]) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for run in runs {
            alerts.extend(of_run(sought, run));
        }
        alerts.retain(|(key, _)| self.told.len() < MOST && self.told.insert(key.clone()));
        let mut alerts: Vec<Alert> = alerts.into_iter().map(|(_, alert)| alert).collect();
        alerts.extend(self.stands_still(sought, runs));
        alerts
    }

    /// No value came for as long as was asked; told once for each time.
    fn stands_still(&mut self, sought: &Sought<'_>, runs: &[Watched]) -> Option<Alert> {
        let values = runs.iter().flat_map(|run| &run.report.metrics).map(|metric| metric.count).sum();
        if values != self.values || self.moved.is_none() {
            (self.values, self.moved, self.stalled) = (values, Some(Instant::now()), false);
        }
        let here = self.moved?.elapsed();
        let rested = age(sought, runs).map_or(here, |age| age.max(here));
        let over = runs.iter().all(|run| run.ending.is_some()) && !runs.is_empty();
        if self.stalled || over || sought.stalled.is_none_or(|most| rested <= most) {
            return None;
        }
        self.stalled = true;
        let text = format!("no value came for {} s", rested.as_secs());
        Some(Alert { run: sought.shown.to_owned(), kind: "stalled", text, step: None })
    }

    /// What came since the last look.
    pub(super) fn values(&mut self, runs: &[Watched]) -> Vec<News> {
        let mut all = Vec::new();
        for run in runs {
            let name = run.report.primary.as_deref();
            let Some(metric) = run.report.metrics.iter().find(|metric| Some(metric.name.as_str()) == name)
            else {
                continue;
            };
            let before = self.counts.insert(run.name.clone(), metric.count).unwrap_or(0);
            if metric.count > before {
                let is_best = metric.best == Some(metric.last);
                all.push(News {
                    run: run.name.clone(),
                    text: newest(metric, metric.count - before),
                    is_best,
                });
            }
        }
        all
    }
}

/// The newest value in words.
fn newest(metric: &MetricReport, new: u64) -> String {
    let step = metric.last_step.map(|step| format!("step {step} ")).unwrap_or_default();
    let best = match (metric.best, metric.best_step) {
        (Some(best), _) if best == metric.last => ", the best so far".to_owned(),
        (Some(best), Some(at)) => format!(", best {} at step {at}", short(best)),
        (Some(best), None) => format!(", best {}", short(best)),
        (None, _) => String::new(),
    };
    let unit = metric.unit.as_ref().map(|unit| format!(" {}", words::name(unit))).unwrap_or_default();
    format!("{step}{} {}{unit}{best}, {new} new", words::metric(&metric.name), short(metric.last))
}

/// How long ago the newest value was logged or the newest file was written.
fn age(sought: &Sought<'_>, runs: &[Watched]) -> Option<Duration> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs_f64();
    // A copy is written when it is fetched.
    let written = runs.iter().filter_map(|run| run.written.filter(|_| !sought.is_copy));
    let newest = runs.iter().filter_map(|run| run.newest).chain(written).reduce(f64::max)?;
    Duration::try_from_secs_f64(now - newest).ok()
}

/// What is wrong with a run, and that it is over; each with a key of its own.
fn of_run(sought: &Sought<'_>, watched: &Watched) -> Vec<(String, Alert)> {
    let Watched { name: run, report, ending, .. } = watched;
    let step = report.metrics.iter().filter_map(|metric| metric.last_step).max();
    let alert = |kind, text| Alert { run: run.clone(), kind, text, step };
    let mut alerts = Vec::new();
    for rule in sought.rules {
        if let Some(why) = rule.holds(report, &mut |_| Vec::new()) {
            alerts.push((
                format!("{run} {rule}"),
                alert("rule", format!("{} (rule `{rule}`)", words::ascii(&why))),
            ));
        }
    }
    let grave = report.findings.iter().filter(|finding| finding.severity >= Severity::Warning);
    for finding in grave.filter(|_| sought.rules.is_empty()) {
        let since = finding.first_step.map(|step| format!(" since step {step}")).unwrap_or_default();
        let what = finding.kind.name().replace('_', " ");
        let text = format!(
            "{}: {what}{since}. {}",
            words::name(&finding.metric),
            words::ascii(&finding.recommendation)
        );
        alerts.push((format!("{run} {} {}", finding.kind.name(), finding.metric), alert("finding", text)));
    }
    if let Some(ending) = ending.as_ref().filter(|_| !sought.is_copy) {
        let (kind, text) = match ending.outcome {
            Outcome::Failed => ("crashed", ending.sentence()),
            Outcome::Stopped => ("ended", ending.sentence()),
            Outcome::Finished => ("ended", "The run has ended.".to_owned()),
        };
        alerts.push((format!("{run} {kind} {text}"), alert(kind, text)));
    }
    alerts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &Path, steps: u64) -> Vec<Watched> {
        let path = dir.join("a.jsonl");
        let line = |step: u64| format!("{{\"step\":{step},\"loss\":{}}}\n", 2.0 / (step + 1) as f64);
        std::fs::write(&path, (0..steps).map(line).collect::<String>()).unwrap();
        judged(&path, None, &Mutex::default()).unwrap()
    }

    #[test]
    fn values_are_told_once_with_the_best() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Seen::default();
        let first = seen.values(&log(dir.path(), 30));
        assert!(first[0].is_best && first[0].text.starts_with("step 29 loss 0.0666"), "{first:?}");
        assert!(first[0].text.ends_with(", the best so far, 30 new"), "{first:?}");
        assert_eq!(seen.values(&log(dir.path(), 30)), []);
        assert!(seen.values(&log(dir.path(), 34))[0].text.ends_with(", 4 new"));
    }

    #[test]
    fn a_run_that_failed_has_crashed_and_says_why() {
        let why = LastError { line: "CUDA out of memory".into(), cause: None, next: Some("less".into()) };
        for (state, kind, text) in [
            ("FAILED", "crashed", "the run has ended: FAILED, \"CUDA out of memory\"; try less"),
            ("CANCELLED", "ended", "the run has ended: CANCELLED"),
            ("SUCCEEDED", "ended", "the run has ended: SUCCEEDED"),
            ("BUDGET_STOPPED", "ended", "the run has ended: BUDGET_STOPPED"),
        ] {
            let alert = Alert::over("a-1", state, Some(&why));
            assert_eq!((alert.kind, alert.text.as_str()), (kind, text));
        }
        assert_eq!(Alert::over("a-1", "crashed", None).kind, "crashed", "a word of W&B's");
    }

    #[test]
    fn a_file_that_nobody_writes_to_stands_still_at_the_first_look() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), 30);
        let path = dir.path().join("a.jsonl");
        let hour = std::time::SystemTime::now() - Duration::from_secs(3_600);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(hour).unwrap();
        let runs = judged(&path, None, &Mutex::default()).unwrap();
        let sought = |stalled| Sought { rules: &[], stalled: Some(stalled), shown: "a", is_copy: false };
        let mut seen = Seen::default();
        let alerts = seen.alerts(&sought(Duration::from_secs(600)), &runs);
        assert!(
            alerts.len() == 1 && alerts[0].kind == "stalled" && alerts[0].text.contains(" 36"),
            "{alerts:?}"
        );
        assert!(seen.alerts(&sought(Duration::from_secs(600)), &runs).is_empty(), "told once");
        assert!(Seen::default().alerts(&sought(Duration::from_secs(7_200)), &runs).is_empty());
    }
}
