//! Says what is right and wrong with a training from its points alone.
//!
//! One pass, every point looked at, memory bounded by the number of metrics
//! and not by the length of the run: a metric takes at most about 60 KiB, so
//! [`MAX_METRICS`] of them and [`MORE_JUDGED`] stay below 64 MiB. Nothing here knows a file, a
//! clock or a network; the same points give the same report.
//!
//! A report may be asked for at any time. It must never call a difference
//! within one run significant, never guess a unit, and never advise without
//! the numbers that it rests on.

mod clock;
mod curve;
mod date;
mod detect;
mod disagreement;
mod finding;
mod fit;
mod machine;
mod report;
pub mod schema;
mod sketch;
mod track;
mod void;
mod window;

use std::collections::HashMap;

pub use finding::{Fact, Finding, Kind, Severity, short};
pub use report::{
    Arrival, Finish, Forecast, Going, Health, Label, Level, MetricReport, Moment, MomentKind, Part, Report,
    ResourceTrend, StageReport, Summary, Trend, Verdict, relative_speed,
};
use schema::{Role, Schema, Split};

use crate::MAX_NAME_BYTES;
use clock::Clock;
use machine::Machine;
use track::{Knobs, Track};

/// How many metrics a run may have; points of others are counted as dropped.
pub const MAX_METRICS: usize = 1000;

/// So many more are taken in if a run is judged by them, such as losses: a program
/// may log its layers first.
pub const MORE_JUDGED: usize = 64;

/// What the caller knows that points do not say.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// How many steps the run is to have.
    pub planned_steps: Option<u64>,
    /// What its metrics are; names tell the rest.
    pub schema: Schema,
    /// A value of the primary metric that is waited for.
    pub target: Option<f64>,
}

/// A metric of one [`Judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MetricId(Option<u32>);

/// Takes in the points of one run.
#[derive(Debug, Clone)]
pub struct Judge {
    settings: Settings,
    tracks: Vec<Track>,
    by_name: HashMap<String, u32>,
    clock: Clock,
    machine: Machine,
    segment: u64,
    segments: Vec<Option<u64>>,
    max_step: Option<u64>,
    dropped_points: u64,
    end: Option<End>,
    usd_per_hour: Option<f64>,
}

/// That a run is over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct End {
    /// Its program failed, whatever its metrics were.
    pub failed: bool,
    /// How, as a whole sentence; empty where there is nothing to say of it.
    pub text: String,
}

/// Boundaries of lives kept with their steps.
const SEGMENTS_KEPT: usize = 64;

impl Judge {
    /// A judge that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            tracks: Vec::new(),
            by_name: HashMap::new(),
            clock: Clock::default(),
            machine: Machine::default(),
            segment: 0,
            segments: Vec::new(),
            max_step: None,
            dropped_points: 0,
            end: None,
            usd_per_hour: None,
        }
    }

    /// How the run is over: nothing is ahead of it. `None`: it goes on.
    pub fn end(&mut self, end: Option<End>) {
        self.end = end;
    }

    /// What an hour of the run costs in US dollars, where that is known.
    pub fn costs(&mut self, usd_per_hour: Option<f64>) {
        self.usd_per_hour = usd_per_hour.filter(|usd| usd.is_finite() && *usd > 0.0);
    }

    /// The metric of that name. Beyond [`MAX_METRICS`] names (or [`MORE_JUDGED`]
    /// above that, for what a run is judged by and what the schema names), or for
    /// a name longer than [`MAX_NAME_BYTES`], its points are only counted.
    pub fn metric(&mut self, name: &str) -> MetricId {
        if let Some(id) = self.by_name.get(name) {
            return MetricId(Some(*id));
        }
        let full = self.tracks.len() >= MAX_METRICS;
        if name.len() > MAX_NAME_BYTES || full && self.tracks.len() >= MAX_METRICS + MORE_JUDGED {
            return MetricId(None);
        }
        let traits = self.settings.schema.traits(name);
        if full && !self.is_wanted(name, traits.role) {
            return MetricId(None);
        }
        let id = self.tracks.len() as u32;
        let knobs = Knobs::of(self.settings.schema.metrics.get(name));
        self.tracks.push(Track::new(name.to_owned(), traits, knobs, self.segment));
        self.by_name.insert(name.to_owned(), id);
        MetricId(Some(id))
    }

    /// Whether a metric is worth one of the places that are kept free.
    fn is_wanted(&self, name: &str, role: Role) -> bool {
        let schema = &self.settings.schema;
        let named = schema.primary.as_deref() == Some(name) || schema.metrics.contains_key(name);
        named || matches!(role, Role::Loss | Role::Score | Role::Error | Role::LearningRate)
    }

    /// Takes in one point: its step and its time in seconds where the program
    /// names them, in order of arrival. Steps may repeat and go back.
    pub fn point(&mut self, id: MetricId, step: Option<u64>, time: Option<f64>, value: f64) {
        self.max_step = self.max_step.max(step);
        let Some(track) = id.0.and_then(|id| self.tracks.get_mut(id as usize)) else {
            self.dropped_points += 1;
            return;
        };
        track.push(step, value, self.segment);
        if let Some(time) = time {
            let validation = track.traits.split == Split::Validation;
            if track.traits.role != Role::Resource {
                self.clock.push(step, time, validation);
            }
        }
    }

    /// Takes in a measurement of the machine at a time in seconds.
    pub fn machine(&mut self, name: &str, time: f64, value: f64) {
        if time.is_finite() && value.is_finite() {
            self.machine.push(name, time, value);
        }
    }

    /// The run was interrupted and goes on: what comes next is another life.
    pub fn segment(&mut self) {
        self.segment += 1;
        self.end = None;
        self.clock.segment();
        if self.segments.len() < SEGMENTS_KEPT {
            self.segments.push(self.max_step);
        }
    }

    /// The run was resumed from a checkpoint: rows of earlier lives at `from` or
    /// after are void, and what comes next goes on from there. `None` where the
    /// log names no step, as for [`Self::segment`].
    ///
    /// Points are taken back as far as they are still held: see `judge/void.rs`.
    pub fn segment_from(&mut self, from: Option<u64>) {
        self.segment();
        let Some(from) = from else { return };
        self.tracks.iter_mut().for_each(|track| track.void(from, self.segment));
        self.clock.void(from);
        if self.max_step >= Some(from) {
            self.max_step = self.tracks.iter().filter_map(|track| track.last_step).max();
        }
    }

    /// What is to be said now.
    #[must_use]
    pub fn report(&self) -> Report {
        report::make(self, None)
    }

    /// The same while the run goes on: `now` in seconds tells a stall that
    /// lasts.
    #[must_use]
    pub fn report_at(&self, now: f64) -> Report {
        report::make(self, Some(now))
    }
}

#[cfg(test)]
mod tests;
