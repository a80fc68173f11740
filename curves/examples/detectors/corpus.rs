//! Generated trainings with known faults: the ground truth is in the program
//! that makes them, so every figure can be measured again.
//!
//! All noise is log-normal. `sigma` is that of single training steps; a
//! validation value is a mean over a whole set and has a fifth of it, pace and
//! times half. Some losses are smoothed before they are logged.

use curves::judge::{Judge, Kind};
use fastrand::Rng;

#[path = "shape.rs"]
mod shape;

pub(crate) use shape::{Base, SHAPES, Shape};
use shape::{base, clean, rate};

/// One run to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) fault: Option<Kind>,
    pub(crate) steps: u64,
    pub(crate) sigma: f64,
    /// The share of its noise that a loss keeps from one step to the next, as one
    /// does that is logged as a running mean; 0: white.
    pub(crate) memory: f64,
    pub(crate) seed: u64,
}

/// What is true of a run.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) fault: Option<Kind>,
    /// Metrics in which the fault may be found; all when empty.
    pub(crate) metrics: Vec<&'static str>,
    /// Where it begins.
    pub(crate) step: u64,
    /// Steps between values of the metric it is seen in.
    pub(crate) interval: u64,
    /// The training loss without noise, one value per step.
    pub(crate) clean: Vec<f32>,
}

impl Truth {
    /// Whether finding `kind` too is no mistake.
    pub(crate) fn allows(&self, kind: Kind) -> bool {
        use Kind::{
            DeadMetric, Divergence, GradientExplosion, GradientVanishing, LearningRateTooHigh,
            LearningRateTooLow, LearningRateVanished, NonFinite, NotLearning, Oscillation, Overfitting,
            Plateau, Regression, ResumeJump, Spike, WarmupMissing,
        };
        let also: &[Kind] = match self.fault {
            None => &[],
            Some(NonFinite) => &[LearningRateTooHigh],
            Some(Spike) => &[GradientExplosion],
            Some(Divergence) => &[Spike, GradientExplosion, Regression, LearningRateTooHigh],
            Some(LearningRateTooHigh) => &[Spike, GradientExplosion, Regression, Divergence, WarmupMissing],
            Some(GradientExplosion) => &[Spike],
            Some(GradientVanishing) | Some(DeadMetric) => &[Plateau, GradientVanishing],
            Some(NotLearning) | Some(LearningRateTooLow) => &[NotLearning, LearningRateTooLow],
            Some(Regression) => &[Divergence, Spike],
            Some(WarmupMissing) => &[Spike, GradientExplosion],
            Some(LearningRateVanished) => &[Plateau],
            Some(Oscillation) => &[Spike],
            Some(ResumeJump) => &[Spike, Regression, Divergence],
            Some(Overfitting) => &[Divergence],
            _ => &[],
        };
        self.fault == Some(kind) || also.contains(&kind)
    }
}

pub(crate) fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// The parameters of a fault, drawn once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    kind: Option<Kind>,
    pub(crate) at: u64,
    pub(crate) size: f64,
    pub(crate) length: f64,
    variant: u32,
    before: f64,
}

impl Fault {
    /// The same fault at another step.
    pub(crate) fn begun_at(mut self, at: u64, base: &Base, plan: &Plan) -> Self {
        self.at = at;
        self.before = clean(base, plan.shape, at as f64 / plan.steps as f64);
        self
    }

    /// Where it may begin, as shares of the run.
    pub(crate) fn range(kind: Option<Kind>) -> (f64, f64) {
        match kind {
            Some(Kind::LearningRateTooHigh) => (0.1, 0.25),
            Some(Kind::Plateau) => (0.3, 0.55),
            Some(Kind::WarmupMissing | Kind::NotLearning | Kind::LearningRateTooLow) => (0.0, 0.0),
            _ => (0.3, 0.7),
        }
    }
}

fn fault(rng: &mut Rng, plan: &Plan) -> Fault {
    let n = plan.steps as f64;
    let between = |rng: &mut Rng, low: f64, high: f64| low + (high - low) * rng.f64();
    let (low, high) = Fault::range(plan.fault);
    let at = if high > 0.0 { between(rng, low, high) } else { 0.0 };
    let log = |rng: &mut Rng, low: f64, high: f64| between(rng, low.ln(), high.ln()).exp();
    let (size, length) = match plan.fault {
        Some(Kind::Spike) => (log(rng, 3.0, 30.0), between(rng, 3.0, 15.0)),
        Some(Kind::Divergence | Kind::LearningRateTooHigh) => {
            (between(rng, 1.2, 3.0), between(rng, 0.02, 0.1) * n)
        }
        Some(Kind::GradientExplosion) => (log(rng, 20.0, 1000.0), between(rng, 10.0, 30.0)),
        Some(Kind::GradientVanishing) => (1e-5, 0.04 * n),
        Some(Kind::Regression) => (between(rng, 0.2, 0.6), n * 0.1),
        Some(Kind::Overfitting) => (between(rng, 0.2, 1.0), n),
        Some(Kind::ThroughputDrop) => (between(rng, 0.4, 0.8), 0.0),
        Some(Kind::Stall) => (log(rng, 100.0, 2000.0), 0.0),
        Some(Kind::WarmupMissing) => (between(rng, 1.5, 4.0), 0.04 * n),
        Some(Kind::Oscillation) => (between(rng, 2.5, 4.0), between(rng, 4.0, 25.0)),
        Some(Kind::ResumeJump) => (between(rng, 1.4, 3.0), between(rng, 0.04, 0.1) * n),
        Some(Kind::LearningRateTooLow) => (between(rng, 0.02, 0.05), n),
        _ => (1.0, 1.0),
    };
    Fault { kind: plan.fault, at: (at * n) as u64, size, length, variant: rng.u32(..), before: 0.0 }
}

/// The clean training loss with the fault in it.
pub(crate) fn loss(base: &Base, plan: &Plan, fault: &Fault, step: u64) -> f64 {
    let n = plan.steps as f64;
    let healthy = clean(base, plan.shape, step as f64 / n);
    let since = step as f64 - fault.at as f64;
    let on = step >= fault.at;
    match fault.kind {
        Some(Kind::NotLearning) => base.start,
        Some(Kind::LearningRateTooLow) => base.start * (1.0 - fault.size * step as f64 / n),
        Some(Kind::Plateau) => {
            let t = (step.min(fault.at)) as f64 / n;
            base.start * (base.floor / base.start).powf(t / (fault.at as f64 / n))
        }
        Some(Kind::Spike) if on => healthy * (1.0 + (fault.size - 1.0) * (-since / fault.length).exp()),
        Some(Kind::Divergence | Kind::LearningRateTooHigh) if on => {
            let top = base.start * fault.size;
            if fault.variant.is_multiple_of(3) {
                top
            } else {
                (fault.before * (top / fault.before).powf(since / fault.length)).min(top)
            }
        }
        Some(Kind::GradientVanishing) if on => fault.before,
        Some(Kind::Regression) if on => {
            let rise = (fault.size * fault.before).min(0.35 * (base.start - fault.before));
            fault.before + rise * (since / fault.length).min(1.0)
        }
        Some(Kind::WarmupMissing) if since < fault.length => {
            let t = since / fault.length;
            healthy.max(
                base.start * (1.0 + (fault.size - 1.0) * (std::f64::consts::PI * t.sqrt()).sin().max(0.0)),
            )
        }
        Some(Kind::LearningRateVanished) if on => fault.before,
        Some(Kind::Oscillation) if on => {
            let width = (fault.size * plan.sigma).max(0.15);
            healthy * (width * (std::f64::consts::TAU * since / fault.length).sin()).exp()
        }
        Some(Kind::ResumeJump) if on => healthy * (1.0 + (fault.size - 1.0) * (-since / fault.length).exp()),
        _ => healthy,
    }
}

/// What validation sees of `level`, `since` steps into the fault of `kind`.
pub(crate) fn validation(base: &Base, plan: &Plan, fault: &Fault, level: f64, since: Option<u64>) -> f64 {
    match fault.kind.zip(since) {
        // An early stop of progress, then a steady loss of it.
        Some((Kind::Overfitting, since)) => {
            let rest = (plan.steps - fault.at) as f64;
            fault.before * (1.0 + fault.size * since as f64 / rest)
        }
        // Swings and spikes of single batches are not seen by evaluations.
        Some((Kind::Oscillation | Kind::Spike, since)) => {
            clean(base, plan.shape, (fault.at + since) as f64 / plan.steps as f64)
        }
        _ => level,
    }
}

/// Steps between evaluations.
pub(crate) fn evaluated_each(plan: &Plan) -> u64 {
    (plan.steps / 100).max(5)
}

/// What `plan` draws: its shape settled, its curve and its fault.
pub(crate) fn drawn(plan: &Plan) -> (Plan, Base, Fault, Rng) {
    let mut rng = Rng::with_seed(plan.seed);
    // A small rise is one only where much was learned before.
    let small = plan.fault == Some(Kind::Regression);
    let shape = match plan.shape {
        Shape::FineTuning if small => Shape::Slow,
        Shape::LateDrop if small => Shape::Fast,
        shape => shape,
    };
    let plan = Plan { shape, ..*plan };
    let base = base(&mut rng, plan.shape);
    let mut fault = fault(&mut rng, &plan);
    if fault.kind.is_some() {
        fault = fault.begun_at(fault.at, &base, &plan);
    }
    (plan, base, fault, rng)
}

/// Plays one run into `judge`.
pub(crate) fn play(plan: &Plan, judge: &mut Judge) -> Truth {
    let (plan, base, fault, rng) = drawn(plan);
    Player {
        plan: &plan,
        base,
        fault,
        rng,
        time: 1.7e9,
        scale: 65_536.0,
        kept: 0.0,
        first_fall: None,
        evals: evaluated_each(&plan),
    }
    .run(judge)
}

struct Player<'a> {
    plan: &'a Plan,
    base: Base,
    fault: Fault,
    rng: Rng,
    time: f64,
    scale: f64,
    /// The logarithm of the smoothed noise.
    kept: f64,
    first_fall: Option<u64>,
    evals: u64,
}

impl Player<'_> {
    fn noise(&mut self, share: f64) -> f64 {
        (normal(&mut self.rng) * self.plan.sigma * share).exp()
    }

    fn step_noise(&mut self) -> f64 {
        let wide = self.plan.shape == Shape::SmallBatch && self.rng.u32(0..10) == 0;
        self.noise(if wide { 2.0 } else { 1.0 })
    }

    fn loss_noise(&mut self) -> f64 {
        let new = self.step_noise().ln();
        self.kept = self.plan.memory * self.kept + (1.0 - self.plan.memory) * new;
        self.kept.exp()
    }

    fn run(mut self, judge: &mut Judge) -> Truth {
        let n = self.plan.steps;
        let ids = ["train/loss", "grad_norm", "lr", "val/loss", "tokens_per_second", "loss_scale"]
            .map(|m| judge.metric(m));
        let logs_pace =
            self.fault.variant.is_multiple_of(2) || self.fault.kind == Some(Kind::LossScaleCollapse);
        let mut stuck: Option<f64> = None;
        // One healthy run in four is resumed too, and goes on where it was.
        let resumed = match self.fault.kind {
            Some(kind) => kind == Kind::ResumeJump,
            None => self.fault.variant.is_multiple_of(4),
        };
        let again = if resumed { u64::from(self.fault.variant % 3) * n / 100 } else { 0 };
        let mut clean = Vec::with_capacity(n as usize);
        // After a resume the steps since the last checkpoint are done again.
        let steps = (0..self.fault.at + again).chain(self.fault.at..n);
        for (i, step) in steps.enumerate() {
            let first_life = (i as u64) < self.fault.at + again;
            if i as u64 == self.fault.at + again && resumed {
                judge.segment();
                self.time += 900.0;
            }
            let level = if first_life && step >= self.fault.at {
                self.base_loss(step)
            } else {
                loss(&self.base, self.plan, &self.fault, step)
            };
            if step as usize >= clean.len() {
                let passing = matches!(self.fault.kind, Some(Kind::Oscillation | Kind::Spike));
                clean.push(if passing { self.base_loss(step) } else { level } as f32);
            }
            let on = !first_life || again == 0 && step >= self.fault.at;
            self.one(judge, &ids, step, level, on, logs_pace, &mut stuck);
        }
        let interval = if self.metrics() == ["val/loss"] { self.evals } else { 1 };
        Truth { fault: self.fault.kind, metrics: self.metrics(), step: self.truth(), interval, clean }
    }

    fn base_loss(&self, step: u64) -> f64 {
        clean(&self.base, self.plan.shape, step as f64 / self.plan.steps as f64)
    }

    #[expect(clippy::too_many_arguments, reason = "one step of one run")]
    fn one(
        &mut self,
        judge: &mut Judge,
        ids: &[curves::judge::MetricId; 6],
        step: u64,
        level: f64,
        on: bool,
        logs_pace: bool,
        stuck: &mut Option<f64>,
    ) {
        let kind = self.fault.kind.filter(|_| on);
        let since = step.saturating_sub(self.fault.at);
        let pace = if kind == Some(Kind::ThroughputDrop) { self.fault.size } else { 1.0 };
        let half = self.noise(0.5);
        self.time += half / pace;
        if kind == Some(Kind::Stall) && since == 0 {
            self.time += self.fault.size;
        }
        let mut value = level * self.loss_noise();
        let mut gradient =
            (level / self.base.start).powf(0.3) * self.step_noise() * self.gradient(kind, since);
        if kind == Some(Kind::NonFinite) && (since == 0 || self.fault.variant % 4 > 1) {
            (value, gradient) = if self.fault.variant.is_multiple_of(2) {
                (f64::NAN, f64::NAN)
            } else {
                (f64::INFINITY, f64::NAN)
            };
        }
        let dead = (kind == Some(Kind::DeadMetric)).then_some(self.fault.variant % 3);
        if dead == Some(0) {
            value = *stuck.get_or_insert(value);
        } else if dead == Some(1) {
            gradient = *stuck.get_or_insert(gradient);
        }
        let time = Some(self.time);
        judge.point(ids[0], Some(step), time, value);
        judge.point(ids[1], Some(step), time, gradient);
        judge.point(ids[2], Some(step), time, self.learning_rate(step));
        if logs_pace {
            judge.point(ids[4], Some(step), time, 5e4 * pace * self.noise(0.5));
            self.scale_step(kind, step);
            judge.point(ids[5], Some(step), time, self.scale);
        }
        if step % self.evals == self.evals - 1 && kind != Some(Kind::SilentMetric) {
            self.time += 5.0;
            let seen = kind.map(|_| since);
            let seen = validation(&self.base, self.plan, &self.fault, level, seen);
            let mut eval = 1.05 * seen * self.noise(0.2);
            if dead == Some(2) {
                eval = *stuck.get_or_insert(eval);
            }
            judge.point(ids[3], Some(step), Some(self.time), eval);
        }
    }

    fn gradient(&self, kind: Option<Kind>, since: u64) -> f64 {
        let since = since as f64;
        let f = &self.fault;
        match kind {
            Some(Kind::Spike) => 1.0 + (f.size - 1.0) * (-since / f.length).exp(),
            Some(Kind::Divergence | Kind::LearningRateTooHigh) => 3.0,
            Some(Kind::GradientExplosion) if f.variant.is_multiple_of(2) => {
                f.size.min(3_f64.powf(since + 1.0))
            }
            Some(Kind::GradientExplosion) if since < f.length => f.size.min(3_f64.powf(since + 1.0)),
            Some(Kind::GradientVanishing) => f.size.max((f.size.ln() * since / f.length).exp()),
            _ => 1.0,
        }
    }

    fn learning_rate(&self, step: u64) -> f64 {
        let t = step as f64 / self.plan.steps as f64;
        match self.fault.kind {
            Some(Kind::LearningRateVanished) => {
                let end = self.fault.at as f64 / self.plan.steps as f64;
                3e-4 * (0.5 * (1.0 + (std::f64::consts::PI * (t / end).min(1.0)).cos())).max(1e-6)
            }
            Some(Kind::WarmupMissing | Kind::LearningRateTooHigh | Kind::LearningRateTooLow) => 3e-3,
            _ => rate(self.plan.shape, self.base.drops, t),
        }
    }

    fn scale_step(&mut self, kind: Option<Kind>, step: u64) {
        if kind == Some(Kind::LossScaleCollapse) {
            if self.rng.u32(0..2) == 0 {
                self.scale = (self.scale / 2.0).max(2_f64.powi(-14));
                self.first_fall = self.first_fall.or(Some(step));
            }
            return;
        }
        let draw = self.rng.u32(0..2000);
        if draw == 0 && self.scale < 65_536.0 * 16.0 {
            self.scale *= 2.0;
        } else if draw == 1 && self.scale > 256.0 {
            self.scale /= 2.0;
        }
    }

    /// Where the fault begins, to be held against the finding's first step.
    fn truth(&self) -> u64 {
        let n = self.plan.steps as f64;
        match self.fault.kind {
            Some(Kind::LearningRateVanished) => {
                let end = self.fault.at as f64 / n;
                (0..self.plan.steps)
                    .find(|s| self.learning_rate(*s) < 1e-3 * 3e-4)
                    .unwrap_or((end * n) as u64)
            }
            Some(Kind::LossScaleCollapse) => self.first_fall.unwrap_or(self.fault.at),
            // What was logged last, and the step before the pause.
            Some(Kind::SilentMetric) => (self.fault.at / self.evals * self.evals).saturating_sub(1),
            Some(Kind::Stall) => self.fault.at.saturating_sub(1),
            Some(Kind::DeadMetric) if self.fault.variant % 3 == 2 => {
                self.fault.at + (self.evals - 1 - self.fault.at % self.evals)
            }
            _ => self.fault.at,
        }
    }

    fn metrics(&self) -> Vec<&'static str> {
        match self.fault.kind {
            Some(Kind::Overfitting | Kind::SilentMetric) => vec!["val/loss"],
            Some(Kind::DeadMetric) => {
                vec![["train/loss", "grad_norm", "val/loss"][(self.fault.variant % 3) as usize]]
            }
            Some(Kind::GradientExplosion | Kind::GradientVanishing) => vec!["grad_norm"],
            Some(
                Kind::Spike
                | Kind::Divergence
                | Kind::Plateau
                | Kind::Oscillation
                | Kind::ResumeJump
                | Kind::Regression,
            ) => {
                vec!["train/loss"]
            }
            _ => Vec::new(),
        }
    }
}
