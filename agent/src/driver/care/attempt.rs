//! One attempt as it is looked after: what was learned of it, what is kept for
//! the next process of the agent.

use std::collections::VecDeque;
use std::time::Duration;

use lifecycle::RunSpec;
use lifecycle::spec::{HangAction, HealthSpec};
use proto::v1;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::EVERY_SOON;
use crate::driver::attempt::Attempt;
use crate::health::hang::{Learned, Watch};
use crate::os;
use crate::supervisor::Phase;
use crate::world::World;
use crate::world::layout::AttemptDir;

/// What the next process of the agent must know of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    #[serde(default)]
    pub(super) learned: Learned,
    /// Why the program is being ended; empty: it is not.
    #[serde(default)]
    pub(super) hang: String,
    /// Why the next try belongs elsewhere.
    #[serde(default)]
    pub(super) leave: String,
}

/// One attempt as it is looked after.
pub(in crate::driver) struct AttemptCare {
    pub(in crate::driver) dir: Option<AttemptDir>,
    pub(in crate::driver) spec: HealthSpec,
    pub(in crate::driver) pid: i32,
    pub(in crate::driver) watch: Watch,
    pub(in crate::driver) usage: os::Usage,
    pub(super) kept: Kept,
    /// A hang that is ended as soon as its dump is there, at the latest then.
    pub(in crate::driver) ending: Option<(String, Instant)>,
    /// What it had shown when it was found hanging: steps, bytes of output,
    /// checkpoints.
    pub(in crate::driver) stood_at: Option<(Option<u64>, u64, usize)>,
    pub(in crate::driver) alerts: u32,
    pub(in crate::driver) began: Instant,
    pub(in crate::driver) minute_due: Instant,
    pub(in crate::driver) line_due: Instant,
    pub(in crate::driver) samples: VecDeque<Value>,
    /// Its disk is full and nothing is left to delete.
    pub(in crate::driver) stuck: bool,
}

impl AttemptCare {
    pub(in crate::driver) fn open(work: &v1::Work, world: &dyn World) -> Self {
        let spec: Option<RunSpec> = serde_json::from_str(&work.spec_json).ok();
        let spec = spec.map(|spec| spec.health).unwrap_or_default();
        let dir = world.directory(&work.attempt_id);
        let kept = dir.as_ref().and_then(|dir| os::read_bounded(&dir.care(), 64 << 10).ok());
        let kept: Kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let expects_steps = work.resume.iter().any(|offer| offer.step.is_some());
        let after_ms = spec.hang.after_seconds.saturating_mul(1_000);
        let now = Instant::now();
        Self {
            dir,
            watch: Watch::new(after_ms, expects_steps, kept.learned),
            spec,
            pid: 0,
            usage: os::Usage::default(),
            kept,
            ending: None,
            stood_at: None,
            alerts: 0,
            began: now,
            minute_due: now,
            line_due: now,
            samples: VecDeque::new(),
            stuck: false,
        }
    }

    /// Why the agent before this one was ending the program; empty: it was not.
    pub(in crate::driver) fn found_hang(&self) -> &str {
        &self.kept.hang
    }

    /// How often its program is looked at.
    pub(super) fn every(&self) -> Duration {
        let interval = Duration::from_secs(self.spec.interval_seconds.clamp(1, 3_600));
        if self.spec.hang.action == HangAction::Off {
            return interval;
        }
        interval.min(Duration::from_secs(self.spec.hang.after_seconds / 5)).max(EVERY_SOON)
    }

    /// Whether a figure belongs into the evidence now: each minute, later less
    /// often, so that days fit into the quota.
    pub(super) fn line_is_due(&mut self, now: Instant) -> bool {
        let spacing = match now.duration_since(self.began).as_secs() {
            0..3_600 => 60,
            3_600..86_400 => 300,
            _ => 1_800,
        };
        let due = now >= self.line_due;
        if due {
            self.line_due = now + Duration::from_secs(spacing);
        }
        due
    }
}

pub(super) fn attempt_health(attempt: &Attempt, clock_ms: u64) -> v1::AttemptHealth {
    let phase = match attempt.supervisor.phase {
        Phase::New | Phase::Preparing | Phase::Starting => "preparing",
        Phase::Running => "running",
        Phase::Finishing(_) => "finishing",
        Phase::Ended => "ended",
    };
    let of = &attempt.care;
    v1::AttemptHealth {
        attempt_id: attempt.work.attempt_id.clone(),
        run_name: attempt.work.run_name.clone(),
        phase: phase.to_owned(),
        pid: of.pid,
        step: attempt.step(),
        step_seconds: of.watch.step_ms().unwrap_or(0.0) / 1_000.0,
        since_progress_ms: of.watch.quiet_ms(clock_ms),
        rss_bytes: of.usage.rss_bytes,
        processes: u32::try_from(of.usage.pids.len()).unwrap_or(u32::MAX),
        cpu_seconds: Duration::from_millis(of.usage.cpu_ms).as_secs_f64(),
        checkpoints: Vec::new(),
        saves: None,
    }
}
