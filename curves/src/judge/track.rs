//! All that is kept of one metric while its points pass by.

use std::collections::VecDeque;

use super::detect::{dead, loss_scale, nonfinite, oscillation, resume, schedule, spike};
use super::schema::{MetricSpec, Role, Split, Traits};
use super::sketch::Sketch;
use super::window::{Follower, WIDEST};

/// How eagerly a metric's detectors alarm.
#[derive(Debug, Clone, Copy)]
pub(super) struct Knobs {
    /// Thresholds are divided by it; 0 turns them off.
    pub(super) sensitivity: f64,
    pub(super) plateau_window: f64,
    pub(super) plateau_threshold: f64,
}

impl Knobs {
    pub(super) fn of(spec: Option<&MetricSpec>) -> Self {
        let or = |value: Option<f64>, default: f64| value.filter(|v| v.is_finite()).unwrap_or(default);
        Self {
            sensitivity: or(spec.and_then(|s| s.sensitivity), 1.0).clamp(0.0, 100.0),
            plateau_window: or(spec.and_then(|s| s.plateau_window), 0.15).clamp(0.01, 1.0),
            plateau_threshold: or(spec.and_then(|s| s.plateau_threshold), 0.01).clamp(1e-6, 1.0),
        }
    }
}

/// What is kept of losses and gradient norms, whose every point is judged when
/// it arrives.
#[derive(Debug, Clone, Default)]
pub(super) struct Following {
    follower: Follower,
    /// The newest points: step and value on the scale of the follower.
    pub(super) recent: VecDeque<(Option<u64>, f64)>,
    pub(super) spike: spike::Watch,
    pub(super) oscillation: oscillation::Watch,
    pub(super) resume: resume::Watch,
    /// The scale is the value's own, since some were not positive.
    linear: bool,
}

/// What is odd about the steps of one metric.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Steps {
    /// Values under the step of the value before them.
    pub(super) repeated: u64,
    /// How often a step is lower than the one before within one life, and where
    /// that first was.
    pub(super) back: u64,
    pub(super) first_back: Option<(u64, u64)>,
}

/// One metric.
#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) name: String,
    pub(super) traits: Traits,
    pub(super) knobs: Knobs,
    /// Points, those that are not finite included.
    pub(super) count: u64,
    pub(super) first_step: Option<u64>,
    pub(super) last_step: Option<u64>,
    pub(super) last: f64,
    /// The first finite values.
    pub(super) start: Vec<f64>,
    pub(super) lowest: Option<(f64, Option<u64>)>,
    pub(super) highest: Option<(f64, Option<u64>)>,
    pub(super) sketch: Sketch,
    pub(super) nonfinite: nonfinite::Watch,
    pub(super) dead: dead::Watch,
    pub(super) following: Option<Box<Following>>,
    pub(super) scale: Option<loss_scale::Watch>,
    pub(super) schedule: Option<schedule::Watch>,
    pub(super) steps: Steps,
    segment: u64,
}

/// How many of the first values stand for the start.
pub(super) const FEW: usize = 5;
/// How many of them are kept.
const START: usize = 16;

impl Track {
    pub(super) fn new(name: String, traits: Traits, knobs: Knobs, segment: u64) -> Self {
        let follow = matches!(traits.role, Role::Loss | Role::GradientNorm) && knobs.sensitivity > 0.0;
        let scale = (traits.role == Role::LossScale).then(loss_scale::Watch::default);
        let schedule = (traits.role == Role::LearningRate).then(schedule::Watch::default);
        Self {
            name,
            knobs,
            count: 0,
            first_step: None,
            last_step: None,
            last: f64::NAN,
            start: Vec::new(),
            lowest: None,
            highest: None,
            sketch: Sketch::default(),
            nonfinite: nonfinite::Watch::default(),
            dead: dead::Watch::default(),
            following: follow.then(Box::default),
            scale,
            schedule,
            steps: Steps::default(),
            segment,
            traits,
        }
    }

    /// Takes in one point of the run's `segment`-th life.
    pub(super) fn push(&mut self, step: Option<u64>, value: f64, segment: u64) {
        let back = step.zip(self.last_step).is_some_and(|(new, old)| new < old);
        let restarted = std::mem::replace(&mut self.segment, segment) != segment;
        let resumed = restarted || back;
        if !restarted {
            self.steps.repeated += u64::from(step.is_some() && step == self.last_step);
            if back {
                self.steps.back += 1;
                self.steps.first_back = self.steps.first_back.or(self.last_step.zip(step));
            }
        }
        self.count += 1;
        self.first_step = self.first_step.or(step);
        self.last = value;
        self.nonfinite.push(step, value);
        if value.is_finite() {
            self.take(step, value, resumed);
        }
        self.last_step = step.or(self.last_step);
    }

    fn take(&mut self, step: Option<u64>, value: f64, resumed: bool) {
        if self.start.len() < START {
            self.start.push(value);
        }
        if self.lowest.is_none_or(|(low, _)| value < low) {
            self.lowest = Some((value, step));
        }
        if self.highest.is_none_or(|(high, _)| value > high) {
            self.highest = Some((value, step));
        }
        self.dead.push(step, value);
        if let Some(scale) = &mut self.scale {
            scale.push(step, value);
        }
        if let Some(schedule) = &mut self.schedule {
            if resumed {
                schedule.boundary(&self.sketch);
            }
            schedule.push(step, value);
        }
        let (seen, before, alarm) = (self.count, self.last_step, 1.0 / self.knobs.sensitivity.max(1e-9));
        if let Some(following) = &mut self.following {
            let swings = self.traits.role == Role::Loss;
            following.push(step, value, resumed.then_some(before), Moment { seen, alarm, swings });
        }
        self.sketch.push(step, value);
    }

    /// The next point belongs to the `segment`-th life and goes on from the last.
    pub(super) fn begin_segment(&mut self, segment: u64) {
        self.segment = segment;
    }

    /// First value of the metric: the median of the first few.
    pub(super) fn start(&self) -> f64 {
        super::fit::median_of(&self.start[..self.start.len().min(FEW)])
    }

    pub(super) fn is_training_loss(&self) -> bool {
        self.traits.role == Role::Loss && self.traits.split != Split::Validation
    }
}

/// What a metric's watches need to know beside its points.
#[derive(Debug, Clone, Copy)]
struct Moment {
    /// Points so far.
    seen: u64,
    /// Thresholds are multiplied by it.
    alarm: f64,
    /// Whether it is looked at for swings.
    swings: bool,
}

impl Following {
    fn push(&mut self, step: Option<u64>, value: f64, resumed: Option<Option<u64>>, now: Moment) {
        let Moment { seen, alarm, swings } = now;
        if !self.linear && value <= 0.0 {
            self.linear = true;
            self.follower.restart();
            self.recent.clear();
            self.spike.abandon();
        }
        let y = if self.linear { value } else { value.ln() };
        if let Some(before) = resumed {
            self.resume.boundary(step, before, &self.recent);
        }
        self.resume.push(step, y);
        let sight = self.follower.look(y);
        match self.spike.push(step, y, sight, seen, alarm) {
            spike::Follow::On => self.follower.push(y),
            spike::Follow::Hold => {}
            spike::Follow::Anew => self.follower.restart(),
        }
        if self.recent.len() == WIDEST {
            self.recent.pop_front();
        }
        self.recent.push_back((step, y));
        if swings {
            self.oscillation.push(&self.recent, seen);
        }
    }

    /// Level and noise from the newest points alone.
    pub(super) fn follow_anew(&mut self) {
        self.follower.restart();
        self.recent.iter().for_each(|point| self.follower.push(point.1));
    }

    /// The value at `y` of the follower's scale.
    pub(super) fn value(&self, y: f64) -> f64 {
        if self.linear { y } else { y.exp() }
    }

    /// How high `y` is above `base`: a ratio on a logarithmic scale, else the
    /// share of the base's size.
    pub(super) fn ratio(&self, y: f64, base: f64) -> f64 {
        if self.linear { 1.0 + (y - base) / base.abs().max(1e-9) } else { (y - base).exp() }
    }
}
