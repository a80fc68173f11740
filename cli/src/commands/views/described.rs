//! What a list or a search needs of a run: its facts and a few numbers of each
//! metric. The values themselves are let go.

use std::collections::BTreeMap;

use curves::downsample::Place;
use curves::judge::schema::Direction;
use curves::log::Fact;
use curves::view::filter::{Field, Subject, normal};
use curves::view::{Course, spark};
use serde_json::{Value, json};

use super::link::Links;
use super::load::Run;
use super::notes::Notes;
use super::{numbers, settings};
use crate::commands::analyze::words;

/// One metric in a few numbers.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) last: f64,
    pub(super) min: Option<Place>,
    pub(super) max: Option<Place>,
}

/// One run in a list.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) path: String,
    pub(super) shown: String,
    pub(super) format: &'static str,
    pub(super) facts: Vec<(Fact, String)>,
    pub(super) state: &'static str,
    pub(super) began: Option<f64>,
    pub(super) steps: Option<u64>,
    pub(super) primary: Option<String>,
    pub(super) direction: Direction,
    pub(super) spark: String,
    pub(super) labels: Vec<String>,
    pub(super) health: Option<u8>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) metrics: BTreeMap<String, Figures>,
    /// Tags that people gave later, and their words.
    pub(super) tags: Vec<String>,
    pub(super) notes: Vec<String>,
    /// The group that people put it into.
    group: Option<String>,
    /// It is a run of the controller's.
    own: bool,
    pub(super) links: Links,
}

impl Described {
    pub(super) fn of(run: &Run) -> Self {
        let report = run.gathered.judge();
        let primary = report.primary.clone().filter(|name| run.course(name).is_some());
        let course = primary.as_deref().and_then(|name| run.course(name));
        let judged = report.metrics.iter().find(|metric| Some(&metric.name) == primary.as_ref());
        let done = report.finish.as_ref().is_some_and(|finish| finish.done >= 1.0);
        let written = run.gathered.written();
        let mut metrics = BTreeMap::new();
        let mut steps = None;
        for (name, column) in run.columns() {
            let figures = Figures::of(
                column
                    .values
                    .iter()
                    .copied()
                    .enumerate()
                    .map(|(i, v)| (column.step(i).unwrap_or(i as u64), v)),
            );
            metrics.extend(figures.map(|figures| (name.to_owned(), figures)));
            steps = steps.max((0..column.values.len()).filter_map(|i| column.step(i)).max());
        }
        // Notes that cannot be read are told by `outlast note`; a list goes on without.
        let kept = Notes::of(run.gathered.place()).ok();
        let labels = report.health.labels.iter().map(words::in_json).collect();
        let text = |value: &curves::log::Value| match value {
            curves::log::Value::Text(text) => text.clone(),
            other => settings::of(other).to_string(),
        };
        Self {
            path: run.gathered.path().to_string_lossy().into_owned(),
            shown: run.shown(),
            format: run.gathered.format(),
            facts: run.data.meta.clone(),
            state: state(run.data.exit, run.data.fact(Fact::Status).unwrap_or_default(), done),
            began: run.data.started.or_else(|| first_time(run)).or(written),
            steps,
            spark: course.as_ref().map(|course: &Course| spark(&course.points)).unwrap_or_default(),
            primary,
            direction: judged.map_or(Direction::Unknown, |metric| metric.direction),
            labels,
            health: report.health.score,
            settings: settings::flat(run).iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            metrics,
            tags: kept.as_ref().map(|kept| kept.tags().into_iter().collect()).unwrap_or_default(),
            notes: kept.as_ref().map(Notes::texts).unwrap_or_default(),
            group: kept.as_ref().and_then(|kept| kept.group().map(str::to_owned)),
            own: run.gathered.is_own(),
            links: Links::known(kept.as_ref(), run.data.fact(Fact::Commit), run.data.fact(Fact::Remote)),
        }
    }

    fn fact(&self, kind: Fact) -> impl Iterator<Item = &String> {
        self.facts.iter().filter(move |(fact, text)| *fact == kind && !text.is_empty()).map(|(_, text)| text)
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.fact(Fact::Name).next().map(String::as_str)
    }

    /// The group: what people said, else what its log says.
    pub(super) fn group(&self) -> Option<&String> {
        self.group.as_ref().or_else(|| self.fact(Fact::Group).next())
    }

    /// The stem of the name without the number at its end, and that number. Of a
    /// run of the controller's the name without the suffix that makes it the only
    /// one of that name.
    pub(super) fn stem(&self) -> (String, Option<String>) {
        let name = self.name().map(str::to_owned).unwrap_or_else(|| {
            let path = std::path::Path::new(&self.path);
            let bare = if path.extension().is_some_and(|end| end == "gz") {
                path.with_extension("")
            } else {
                path.into()
            };
            bare.file_stem().unwrap_or_default().to_string_lossy().into_owned()
        });
        let name = match name.rsplit_once('-').filter(|_| self.own) {
            Some((stem, _)) => stem.to_owned(),
            None => name,
        };
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (head, number) = name.split_at(name.len() - digits);
        let head = head.trim_end_matches(['_', '-', '.', '=']);
        let head = head.strip_suffix("seed").unwrap_or(head).trim_end_matches(['_', '-', '.', '=']);
        (head.to_owned(), (digits > 0).then(|| number.to_owned()))
    }

    /// Tags of the log and those given later.
    pub(super) fn all_tags(&self) -> Vec<String> {
        self.fact(Fact::Tag).chain(&self.tags).cloned().collect()
    }

    /// The metric with that name, or the only one that is called so.
    pub(super) fn metric(&self, name: &str) -> Option<(&String, &Figures)> {
        let exact = self.metrics.get_key_value(name);
        exact.or_else(|| {
            let wanted = normal(name);
            let alike = |test: &dyn Fn(&str) -> bool| {
                let mut found = self.metrics.iter().filter(|(name, _)| test(&normal(name)));
                found.next().filter(|_| found.next().is_none())
            };
            let end = format!("_{wanted}");
            alike(&|name| name == wanted).or_else(|| alike(&|name| name.ends_with(&end)))
        })
    }

    pub(super) fn setting(&self, name: &str) -> Option<&String> {
        let bare = name.strip_prefix("config.").or_else(|| name.strip_prefix("settings.")).unwrap_or(name);
        self.settings.get(bare).or_else(|| {
            let wanted = normal(bare);
            self.settings.iter().find(|(name, _)| normal(name) == wanted).map(|(_, value)| value)
        })
    }

    /// The best value of a metric, one way or the other.
    pub(super) fn best(&self, name: &str, higher: bool) -> Option<Place> {
        let (_, figures) = self.metric(name)?;
        if higher { figures.max } else { figures.min }
    }

    pub(super) fn object(&self) -> Value {
        let primary = self.primary.as_deref().and_then(|name| Some((name, self.metrics.get(name)?)));
        let metrics: serde_json::Map<String, Value> =
            self.metrics.iter().map(|(name, figures)| (name.clone(), figures.object())).collect();
        json!({
            "path": self.path,
            "name": self.name(),
            "id": self.fact(Fact::RunId).next(),
            "format": self.format,
            "state": self.state,
            "began": self.began,
            "last_step": self.steps,
            "primary": primary.map(|(name, figures)| json!({ "name": name, "figures": figures.object() })),
            "spark": self.spark,
            "labels": self.labels,
            "health": self.health,
            "tags": self.all_tags(),
            "group": self.group(),
            "notes": self.fact(Fact::Notes).chain(&self.notes).collect::<Vec<_>>(),
            "commit": self.links.commit,
            "commit_url": self.links.commit_url,
            "pull_request": self.links.request,
            "settings": self.settings,
            "metrics": metrics,
        })
    }
}

impl Figures {
    fn of(points: impl Iterator<Item = Place>) -> Option<Self> {
        let mut figures: Option<Self> = None;
        for point in points {
            let found = figures.get_or_insert(Self { last: point.1, min: None, max: None });
            found.last = point.1;
            if point.1.is_finite() {
                found.min = Some(found.min.filter(|min| min.1 <= point.1).unwrap_or(point));
                found.max = Some(found.max.filter(|max| max.1 >= point.1).unwrap_or(point));
            }
        }
        figures
    }

    fn object(&self) -> Value {
        let place = |place: Option<Place>| place.map(|p| json!({ "step": p.0, "value": numbers::json(p.1) }));
        json!({ "last": numbers::json(self.last), "min": place(self.min), "max": place(self.max) })
    }
}

/// The word for how it stands: that somebody ended it is said by its tool's own word
/// alone, however its program took that; else its exit code says it, then that word.
fn state(exit: Option<i32>, status: &str, done: bool) -> &'static str {
    // MLflow counts its states; other tools have words.
    let said = match status.to_lowercase().as_str() {
        "finished" | "completed" | "success" | "succeeded" | "3" => "finished",
        "failed" | "crashed" | "error" | "4" => "failed",
        "killed" | "stopped" | "cancelled" | "canceled" | "preempted" | "budget_stopped" | "5" => "stopped",
        "running" | "in_progress" | "preempting" | "1" => "running",
        "queued" | "provisioning" | "recovering" | "waiting" | "paused" => "running",
        _ => "unknown",
    };
    match (said, exit) {
        ("stopped", _) | (_, None) if said != "unknown" => said,
        (_, Some(0)) => "finished",
        (_, Some(_)) => "failed",
        (_, None) if done => "finished",
        (_, None) => "unknown",
    }
}

/// Other words that a filter may have for a state.
fn also_called(state: &str) -> &'static [&'static str] {
    match state {
        "finished" => &["succeeded", "completed"],
        "stopped" => &["cancelled", "canceled", "killed"],
        "failed" => &["crashed"],
        _ => &[],
    }
}

fn first_time(run: &Run) -> Option<f64> {
    // Times below a year are counted from the beginning of the run.
    let times = run.columns().filter_map(|(_, column)| column.time(0)).filter(|time| *time > 3.2e7);
    times.reduce(f64::min)
}

impl Subject for Described {
    fn number(&self, field: &Field) -> Option<f64> {
        match field {
            Field::Min(name) => self.metric(name)?.1.min.map(|p| p.1),
            Field::Max(name) => self.metric(name)?.1.max.map(|p| p.1),
            Field::Plain(name) => {
                if let Some((_, figures)) = self.metric(name) {
                    return Some(figures.last);
                }
                match name.to_lowercase().as_str() {
                    "steps" | "step" => self.steps.map(|steps| steps as f64),
                    "health" => self.health.map(f64::from),
                    _ => self.setting(name)?.parse().ok(),
                }
            }
        }
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let of = |fact: Fact| self.fact(fact).cloned().collect::<Vec<_>>();
        match key.to_lowercase().as_str() {
            "name" => of(Fact::Name),
            "id" => of(Fact::RunId),
            "tag" => self.all_tags(),
            "group" => self.group().cloned().into_iter().collect(),
            "project" => of(Fact::Project),
            "notes" => self.fact(Fact::Notes).chain(&self.notes).cloned().collect(),
            "state" => {
                [self.state].iter().chain(also_called(self.state)).map(|word| (*word).to_owned()).collect()
            }
            "label" => self.labels.clone(),
            "format" => vec![self.format.to_owned()],
            "path" => vec![self.path.clone()],
            "commit" => self.links.commit.clone().into_iter().collect(),
            _ => self.setting(key).cloned().into_iter().collect(),
        }
    }

    fn began(&self) -> Option<f64> {
        self.began
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_somebody_ended_is_stopped_whatever_its_program_returned() {
        for (exit, status, done, expected) in [
            (Some(0), "cancelled", false, "stopped"),
            (Some(143), "cancelled", false, "stopped"),
            (Some(0), "budget_stopped", true, "stopped"),
            (Some(0), "succeeded", true, "finished"),
            (Some(1), "failed", false, "failed"),
            (None, "failed", false, "failed"),
            (None, "recovering", false, "running"),
            (None, "running", true, "running"),
            (Some(0), "running", false, "finished"),
            (Some(0), "", false, "finished"),
            (Some(3), "", false, "failed"),
            (None, "", true, "finished"),
            (None, "lost", false, "unknown"),
        ] {
            assert_eq!(state(exit, status, done), expected, "{exit:?} {status:?} {done}");
        }
        assert!(also_called("stopped").contains(&"cancelled"));
    }
}
