//! Whether a program makes progress, and whether it is as fast as it was.
//! Pure: it is told what is seen and when, and says what changed. A pause that
//! the program ended by itself once is never held for a hang again, and time
//! that nobody watched does not count. It must never call a program hung that
//! computes, until it has been silent for several times the limit.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A tree that uses less of one core than this, in percent, is idle.
const IDLE_CPU_PERCENT: f64 = 2.0;
/// A GPU that is used less than this, in percent, is idle.
const IDLE_GPU_PERCENT: f64 = 5.0;
/// Bytes read and written per second below which a tree is idle: loggers and
/// keepalives go on in a program that hangs.
const IDLE_IO_PER_S: f64 = 4096.0;
/// Before the first step (compiling, loading) a pause may be so much longer,
/// and a program that computes without a word may do so for so much longer.
const PATIENCE: u64 = 3;
/// Steps whose median is compared with what was usual.
const RECENT: usize = 10;
/// Steps before these that say what is usual; the fewest that do.
const USUAL: usize = 256;
const USUAL_LEAST: usize = 20;
/// So much slower is told; less than the second is over.
const SLOW: f64 = 3.0;
const SLOW_OVER: f64 = 2.0;

/// What is seen of a program at one moment. Counts only ever rise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signs {
    /// Milliseconds of the clock that goes on in suspend.
    pub at_ms: u64,
    /// The step it last reported.
    pub step: Option<u64>,
    /// Bytes it wrote to its outputs.
    pub output_bytes: u64,
    /// Checkpoints that were seen.
    pub checkpoints: u64,
    /// Processor time of its whole tree in milliseconds; `None`: unreadable,
    /// which is never taken for idleness.
    pub cpu_ms: Option<u64>,
    /// Bytes that its tree read and wrote; `None`: unreadable.
    pub io_bytes: Option<u64>,
    /// Use of the busiest GPU; `None`: there is none, or nobody says.
    pub gpu_percent: Option<f64>,
}

/// What was learned of one attempt; outlives the agent process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// The longest time between two signs of progress.
    pub longest_pause_ms: u64,
    /// Whether a step was ever reported.
    pub stepped: bool,
    /// Median milliseconds between steps; 0 is not known.
    pub step_ms: f64,
    /// It was called hung, and has not moved since.
    #[serde(default)]
    pub hung: bool,
}

/// How a program hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It does nothing at all.
    Idle,
    /// It computes, and nothing comes of it.
    Busy,
}

/// A program without progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Hang {
    /// How.
    pub kind: Kind,
    /// Since its last step, output or checkpoint.
    pub quiet_ms: u64,
    /// What was allowed.
    pub limit_ms: u64,
    /// Whether it is known to report steps: what never does may be idle by
    /// design, and is told of but never ended.
    pub may_act: bool,
    /// All of it in one line.
    pub text: String,
}

/// What changed with a look.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It hangs.
    Hung(Hang),
    /// It moves again.
    Moves,
}

/// Its pace against its own usual one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slow {
    /// `false`: it is over.
    pub raised: bool,
    /// Milliseconds per step now.
    pub now_ms: f64,
    /// And usually.
    pub usual_ms: f64,
}

/// Milliseconds per step, as they were reported.
#[derive(Debug, Clone, Default)]
struct Pace {
    last: Option<(u64, u64)>,
    recent: VecDeque<f64>,
    usual: VecDeque<f64>,
    slow: bool,
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all: Vec<f64> = values.collect();
    let middle = all.len() / 2;
    (!all.is_empty()).then(|| *all.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[expect(clippy::cast_precision_loss, reason = "times and counts of one attempt are far below 2^52")]
fn float(value: u64) -> f64 {
    value as f64
}

impl Pace {
    fn step(&mut self, at_ms: u64, step: u64) {
        match self.last {
            Some((_, last)) if step == last => return,
            // Several in the same millisecond belong to the next look.
            Some((when, last)) if step > last && at_ms <= when => return,
            Some((when, last)) if step > last => self.push(float(at_ms - when) / float(step - last)),
            // The first one, or a count that began anew.
            _ => {}
        }
        self.last = Some((at_ms, step));
    }

    fn push(&mut self, step_ms: f64) {
        self.recent.push_back(step_ms);
        if self.recent.len() <= RECENT {
            return;
        }
        // What is slow must not become the usual.
        if let Some(old) = self.recent.pop_front().filter(|_| !self.slow) {
            self.usual.push_back(old);
            if self.usual.len() > USUAL {
                self.usual.pop_front();
            }
        }
    }

    fn median_ms(&self) -> Option<f64> {
        median(self.usual.iter().chain(&self.recent).copied())
    }

    fn look(&mut self) -> Option<Slow> {
        if self.recent.len() < RECENT || self.usual.len() < USUAL_LEAST {
            return None;
        }
        let now_ms = median(self.recent.iter().copied())?;
        let usual_ms = median(self.usual.iter().copied())?.max(1.0);
        let ratio = now_ms / usual_ms;
        let raised = if self.slow { ratio >= SLOW_OVER } else { ratio >= SLOW };
        (raised != self.slow).then(|| {
            self.slow = raised;
            Slow { raised, now_ms, usual_ms }
        })
    }
}

/// Watches one attempt's program.
#[derive(Debug, Clone)]
pub struct Watch {
    after_ms: u64,
    /// Attempts before this one reported steps.
    expects_steps: bool,
    learned: Learned,
    /// In this process of the agent or, as far as it was kept, before it.
    last: Option<Signs>,
    quiet_since_ms: u64,
    idle_since_ms: u64,
    cpu_percent: Option<f64>,
    hung: bool,
    pace: Pace,
}

impl Watch {
    /// A program whose pause may last `after_ms` at the least.
    #[must_use]
    pub fn new(after_ms: u64, expects_steps: bool, learned: Learned) -> Self {
        Self {
            after_ms: after_ms.max(1_000),
            expects_steps,
            learned,
            last: None,
            quiet_since_ms: 0,
            idle_since_ms: 0,
            cpu_percent: None,
            hung: learned.hung,
            pace: Pace::default(),
        }
    }

    /// A step as it was read from the output.
    pub fn step(&mut self, at_ms: u64, step: u64) {
        self.pace.step(at_ms, step);
    }

    /// What is worth keeping for the next process of the agent.
    #[must_use]
    pub fn learned(&self) -> Learned {
        Learned { step_ms: self.step_ms().unwrap_or(0.0), hung: self.hung, ..self.learned }
    }

    /// The program has ended: whether it was called hung until now.
    pub fn ended(&mut self) -> bool {
        std::mem::take(&mut self.hung)
    }

    /// Median milliseconds between steps.
    #[must_use]
    pub fn step_ms(&self) -> Option<f64> {
        self.pace.median_ms().or(Some(self.learned.step_ms).filter(|ms| *ms > 0.0))
    }

    /// Since its last step, output or checkpoint.
    #[must_use]
    pub fn quiet_ms(&self, now_ms: u64) -> u64 {
        if self.last.is_some() { now_ms.saturating_sub(self.quiet_since_ms) } else { 0 }
    }

    /// How long it may go without a sign of progress.
    #[must_use]
    pub fn limit_ms(&self) -> u64 {
        let pause = self.learned.longest_pause_ms;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
        let steps = (self.step_ms().unwrap_or(0.0) * 5.0).clamp(0.0, 1e15) as u64;
        let limit = self.after_ms.max(steps).max(pause.saturating_add(pause / 2));
        if self.learned.stepped { limit } else { limit.saturating_mul(PATIENCE) }
    }

    /// Whether the pace fell or came back.
    pub fn pace(&mut self) -> Option<Slow> {
        self.pace.look()
    }

    /// One look; the next comes within about `every_ms`.
    pub fn observe(&mut self, signs: Signs, every_ms: u64) -> Option<Change> {
        let now = signs.at_ms;
        let Some(last) = self.last.replace(signs) else {
            // What was before is not known: it counts from here.
            (self.quiet_since_ms, self.idle_since_ms) = (now, now);
            self.learned.stepped |= signs.step.is_some();
            return None;
        };
        let passed = now.saturating_sub(last.at_ms);
        if passed > every_ms.saturating_mul(4).saturating_add(30_000) {
            // The machine slept, or nobody could look: that was no pause.
            let missed = passed - every_ms.min(passed);
            self.quiet_since_ms = self.quiet_since_ms.saturating_add(missed);
            self.idle_since_ms = self.idle_since_ms.saturating_add(missed);
        }
        let moved = signs.step != last.step
            || signs.output_bytes > last.output_bytes
            || signs.checkpoints > last.checkpoints;
        if moved {
            if signs.step.is_some() && !self.learned.stepped {
                // How long it took to begin says nothing of how it goes on.
                self.learned = Learned { stepped: true, longest_pause_ms: 0, ..self.learned };
            } else {
                let pause = now.saturating_sub(self.quiet_since_ms);
                self.learned.longest_pause_ms = self.learned.longest_pause_ms.max(pause);
            }
            (self.quiet_since_ms, self.idle_since_ms) = (now, now);
            return std::mem::take(&mut self.hung).then_some(Change::Moves);
        }
        if self.is_active(&last, &signs, passed) {
            self.idle_since_ms = now;
        }
        self.judge(&signs)
    }

    fn is_active(&mut self, last: &Signs, signs: &Signs, passed_ms: u64) -> bool {
        let seconds = float(passed_ms.max(1)) / 1_000.0;
        // A tree whose workers come and go may have used less than before.
        let rate = |a: Option<u64>, b: Option<u64>| Some(float(a?.abs_diff(b?)) / seconds);
        self.cpu_percent = rate(last.cpu_ms, signs.cpu_ms).map(|ms| ms / 10.0);
        // What cannot be read is no evidence of idleness.
        self.cpu_percent.is_none_or(|cpu| cpu >= IDLE_CPU_PERCENT)
            || rate(last.io_bytes, signs.io_bytes).is_some_and(|io| io >= IDLE_IO_PER_S)
            || signs.gpu_percent.is_some_and(|gpu| gpu >= IDLE_GPU_PERCENT)
    }

    fn judge(&mut self, signs: &Signs) -> Option<Change> {
        let limit_ms = self.limit_ms();
        let quiet_ms = signs.at_ms.saturating_sub(self.quiet_since_ms);
        let idle_ms = signs.at_ms.saturating_sub(self.idle_since_ms);
        let may_act = self.learned.stepped || self.expects_steps;
        let kind = if idle_ms >= limit_ms {
            Kind::Idle
        } else if self.learned.stepped && quiet_ms >= limit_ms.saturating_mul(PATIENCE) {
            // Only what has reported steps itself has promised more of them:
            // the step of a checkpoint's name is no such promise.
            Kind::Busy
        } else {
            return None;
        };
        if std::mem::replace(&mut self.hung, true) {
            return None;
        }
        let text = self.text(kind, signs, quiet_ms, limit_ms);
        Some(Change::Hung(Hang { kind, quiet_ms, limit_ms, may_act, text }))
    }

    fn text(&self, kind: Kind, signs: &Signs, quiet_ms: u64, limit_ms: u64) -> String {
        let cpu = self.cpu_percent.map_or_else(|| "unknown".into(), |cpu| format!("{cpu:.1} % of a core"));
        let gpu = signs.gpu_percent.map_or_else(|| "unknown".into(), |gpu| format!("{gpu:.0} %"));
        let place = signs.step.map_or_else(|| "before its first step".into(), |s| format!("after step {s}"));
        let (how, limit_ms) = match kind {
            Kind::Idle => ("it is idle", limit_ms),
            Kind::Busy => {
                let how = if self.cpu_percent.is_some() {
                    "it is busy and nothing comes of it"
                } else {
                    "nothing comes of it, and whether it computes is not known"
                };
                (how, limit_ms.saturating_mul(PATIENCE))
            }
        };
        format!(
            "no step, output or checkpoint for {} (limit {}) {place}: {how}; CPU {cpu}, GPU {gpu}",
            seconds(quiet_ms),
            seconds(limit_ms)
        )
    }
}

/// A time for people.
fn seconds(ms: u64) -> String {
    match ms / 1_000 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min {} s", s / 60, s % 60),
        s => format!("{} h {} min", s / 3_600, s / 60 % 60),
    }
}

#[cfg(test)]
mod tests;
