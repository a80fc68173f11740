//! Programs without progress: told, dumped, ended, moved, as far up the ladder
//! as the run allows.

use std::time::Duration;

use lifecycle::spec::HangAction;
use proto::v1;
use serde_json::json;
use tokio::time::Instant;

use super::chores::{self, Chore, Seen};
use crate::driver::Driver;
use crate::evidence::{self, Part};
use crate::health::hang::{Change, Hang, Signs};
use crate::os;
use crate::supervisor::{Input, Phase};
use crate::world::layout::AttemptDir;

/// A dump that takes longer is not waited for before the program is ended.
const DUMP: Duration = Duration::from_secs(20);

impl Driver {
    /// What its tree uses now: does it still make progress?
    pub(super) fn looked(&mut self, id: &str, seen: Seen) {
        let clock = (self.boottime_ms)();
        let wall = (self.wall_ms)();
        let Some(care) = &mut self.care else { return };
        let gpu_percent = care.gpu_percent();
        let Some(attempt) = self.attempts.get_mut(id).filter(|a| a.supervisor.phase == Phase::Running) else {
            return;
        };
        let signs = Signs {
            at_ms: clock,
            step: attempt.step(),
            output_bytes: attempt.output_bytes(),
            checkpoints: attempt.announced.len() as u64,
            // A part of it that is idle says nothing of the rest.
            cpu_ms: seen.is_whole.then_some(seen.usage.cpu_ms),
            io_bytes: seen.usage.io_bytes.filter(|_| seen.is_whole),
            gpu_percent,
        };
        let of = &mut attempt.care;
        of.usage = seen.usage;
        if of.spec.hang.action == HangAction::Off {
            return;
        }
        let every = u64::try_from(of.every().as_millis()).unwrap_or(u64::MAX);
        let change = of.watch.observe(signs, every);
        let slow = of.watch.pace();
        let learned = of.watch.learned();
        let pause_grew = learned.longest_pause_ms > of.kept.learned.longest_pause_ms.saturating_mul(5) / 4;
        let before = of.kept.learned;
        if learned.stepped != before.stepped || learned.hung != before.hung || pause_grew {
            of.kept.learned = learned;
            care.hands.ask(Chore::Keep(id.to_owned(), serde_json::to_vec(&of.kept).unwrap_or_default()));
        }
        if let Some(slow) = slow {
            let text = format!(
                "a step takes {:.0} ms, usually {:.0} ms ({:.1} times as long, limit 3 times)",
                slow.now_ms,
                slow.usual_ms,
                slow.now_ms / slow.usual_ms
            );
            let (value, limit) = (slow.now_ms, 3.0 * slow.usual_ms);
            let (name, level) = ("slow-steps".into(), "warning".into());
            let raised = slow.raised;
            self.alert(
                id,
                v1::Alert { name, level, raised, value, limit, text, at_ms: wall, ..v1::Alert::default() },
            );
        }
        match change {
            Some(Change::Hung(hang)) => self.hung(id, &hang, wall),
            Some(Change::Moves) => self.no_hang(id, "it makes progress again"),
            None => {}
        }
    }

    /// A hang that was told is over.
    fn no_hang(&mut self, id: &str, why: &str) {
        let (name, level, text) = ("hang".to_owned(), "info".to_owned(), why.to_owned());
        let at_ms = (self.wall_ms)();
        self.alert(id, v1::Alert { name, level, text, at_ms, ..v1::Alert::default() });
    }

    /// Its program has ended: an alert that it hangs stands no longer. The next
    /// attempt starts it again, and is watched for itself.
    pub(in crate::driver) fn hang_is_over(&mut self, id: &str) {
        if self.attempts.get_mut(id).is_some_and(|attempt| attempt.care.watch.ended()) {
            self.no_hang(id, "the program that made no progress has ended");
        }
    }

    /// It makes no progress: the ladder is climbed as far as it may be.
    fn hung(&mut self, id: &str, hang: &Hang, at_ms: u64) {
        let seconds = |ms: u64| Duration::from_millis(ms).as_secs_f64();
        self.alert(
            id,
            v1::Alert {
                name: "hang".into(),
                level: "critical".into(),
                raised: true,
                value: seconds(hang.quiet_ms),
                limit: seconds(hang.limit_ms),
                text: hang.text.clone(),
                at_ms,
                ..v1::Alert::default()
            },
        );
        let Some(care) = &mut self.care else { return };
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let action = attempt.care.spec.hang.action;
        let acts = action >= HangAction::Restart && hang.may_act;
        if acts {
            attempt.care.ending = Some((hang.text.clone(), Instant::now() + DUMP));
            attempt.care.stood_at = Some(attempt.signs());
            if !care.fault.is_empty() {
                attempt.care.kept.leave.clone_from(&care.fault);
            }
        }
        let durable = attempt.work.resume.iter().filter_map(|offer| offer.step).max();
        let durable = attempt.published_step.max(durable);
        let moves = (acts && action >= HangAction::Move).then(|| (Box::new(attempt.work.clone()), durable));
        let pids = attempt.care.usage.pids.clone();
        let asked = action >= HangAction::Dump
            && care.hands.ask(Chore::Dump { attempt: id.to_owned(), why: hang.text.clone(), pids, moves });
        if acts && !asked {
            self.end_hung(id);
        }
    }

    /// The dump is there, or is waited for no longer: the program is ended.
    pub(super) fn end_hung(&mut self, id: &str) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let Some((text, _)) = attempt.care.ending.take() else { return };
        // What moved again while it was looked at is no hang any more.
        let moved = attempt.care.stood_at.take().is_some_and(|stood| stood != attempt.signs());
        if attempt.supervisor.phase != Phase::Running || moved {
            return;
        }
        attempt.care.kept.hang.clone_from(&text);
        let kept = serde_json::to_vec(&attempt.care.kept).unwrap_or_default();
        let grace_ms = attempt.work.grace_seconds.saturating_mul(1_000);
        if let Some(care) = &mut self.care {
            care.hands.ask(Chore::Keep(id.to_owned(), kept));
        }
        self.input(id, Input::Hung(text, grace_ms));
    }

    /// Why the next try belongs on another machine; empty: it need not.
    pub(in crate::driver) fn leave_machine(&self, id: &str, is_success: bool) -> String {
        let Some(attempt) = self.attempts.get(id).filter(|_| !is_success) else { return String::new() };
        let fault = self.care.as_ref().map(|care| care.fault.clone()).unwrap_or_default();
        if attempt.care.kept.leave.is_empty() { fault } else { attempt.care.kept.leave.clone() }
    }
}

/// Evidence of a program that is dumped: where each of its processes waits.
pub(super) fn dump(dir: &AttemptDir, why: &str, pids: &[i32]) {
    let note = |fields| evidence::note(dir, Part::Course, "stacks", fields);
    note(json!({"why": why, "processes": pids.len()}));
    let stacks = os::stacks(pids);
    for stack in &stacks {
        note(json!({"process": stack}));
    }
    chores::interpreters(dir, &stacks, note);
}
