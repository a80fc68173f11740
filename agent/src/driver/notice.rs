//! Notices as the driver acts on them: the program is asked to save, what it
//! saves then is looked for often, and the controller is told, again in each
//! session, what stands and whether it is saved. The run itself goes on here
//! until the controller binds it elsewhere or the machine ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::v1::{self, event::Kind as Fact, up};
use tokio::time::Instant;

use super::Driver;
use super::effects::Done;
use crate::notice::{Handle, Heard, Kind, Notice, Source, Word};
use crate::supervisor::Phase;
use crate::world::{Candidate, Warned, Warning};

/// The controller that understands notices: `Welcome.wire`.
const WIRE: u32 = 3;

/// Between two signals to a program that caught none yet: one that still loads
/// its libraries has no handler.
const AGAIN: Duration = Duration::from_secs(1);

/// What an attempt was asked to save.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The step that it had reported then.
    step: Option<u64>,
    /// The newest durable step then.
    durable: Option<u64>,
    /// Checkpoints that were found since.
    fresh: BTreeSet<String>,
    /// How many processes were signalled; `None`: it is being done.
    heard: Option<usize>,
    /// When one that heard nothing is asked again.
    again: Option<Instant>,
}

impl Asked {
    /// One was found that was not there before.
    pub(super) fn found(&mut self, token: &str) {
        self.fresh.insert(token.to_owned());
    }

    /// Whether a checkpoint is the answer. One that was on its way already
    /// counts where it holds the very step; where its bytes are not known any
    /// more (it was stored while nobody answered), a newer step does.
    fn is_answer(&self, step: Option<u64>, token: Option<&str>) -> bool {
        let reached = self.step.is_none() || step.is_none() || step >= self.step;
        let fresh = match token {
            Some(token) => self.fresh.contains(token),
            None => step > self.durable,
        };
        reached && fresh || step.is_some() && step == self.step
    }
}

struct Standing {
    notice: Notice,
    at_unix_ms: u64,
    /// When the machine is taken, by the clock that goes on in suspend.
    until_ms: Option<u64>,
    saved: bool,
    withdrawn: bool,
    told: bool,
}

/// What is known of notices.
#[derive(Default)]
pub(super) struct Notices {
    handle: Option<Handle>,
    standing: BTreeMap<Source, Standing>,
    /// The attempt whose wishes are asked for.
    of: Option<String>,
}

impl Notices {
    /// The next thing that is heard; never, where nobody asks.
    pub(super) async fn next(&mut self) -> Heard {
        match &mut self.handle {
            Some(handle) => handle.next().await,
            None => std::future::pending().await,
        }
    }

    /// A new session: all that stands is said again.
    pub(super) fn again(&mut self) {
        for standing in self.standing.values_mut() {
            standing.told = false;
        }
    }

    /// Whether something is to be saved that is not.
    pub(super) fn is_asking(&self) -> bool {
        self.standing.values().any(|s| !s.saved && !s.withdrawn)
    }

    /// The loudest that stands.
    fn loudest(&self) -> Option<(Source, &Standing)> {
        let standing = self.standing.iter().filter(|(_, s)| !s.withdrawn);
        standing.max_by_key(|(_, s)| s.notice.kind).map(|(source, s)| (*source, s))
    }
}

impl Driver {
    /// Hears of notices here.
    #[must_use]
    pub fn noticing(mut self, handle: Handle) -> Self {
        self.notices.handle = Some(handle);
        self
    }

    /// What every turn does for notices.
    pub(super) fn watch_notices(&mut self, now: Instant) {
        let live = |phase: &Phase| !matches!(phase, Phase::Ended | Phase::Finishing(_));
        let newest = self
            .attempts
            .values()
            .filter(|a| live(&a.supervisor.phase) && !a.supervisor.is_superseded())
            .max_by_key(|a| a.work.generation);
        let id = newest.map(|a| a.work.attempt_id.clone());
        if id != self.notices.of
            && let Some(handle) = &self.notices.handle
        {
            handle.want(newest.and_then(|a| self.world.wants_notices(&a.work)));
            self.notices.of = id;
        }
        if self.notices.is_asking() {
            // What is being saved now is looked for often.
            self.pace.found = now;
        }
        self.ask_the_deaf(now);
        self.tell_notices();
    }

    /// Asks those again that caught no signal when the notice came.
    fn ask_the_deaf(&mut self, now: Instant) {
        if !self.notices.is_asking() {
            return;
        }
        for (id, attempt) in &mut self.attempts {
            if attempt.supervisor.phase != Phase::Running || attempt.supervisor.is_superseded() {
                continue;
            }
            let Some(asked) = attempt.asked.as_mut().filter(|asked| asked.heard == Some(0)) else { continue };
            if now < *asked.again.get_or_insert(now + AGAIN) {
                continue;
            }
            asked.again = Some(now + AGAIN);
            let (world, work, id) = (self.world.clone(), attempt.work.clone(), id.clone());
            self.jobs.spawn(async move { (id, Done::AskedAgain(world.ask_to_save(work).await)) });
        }
    }

    /// One that had caught no signal was asked again.
    pub(super) fn asked_again(&mut self, id: &str, processes: usize) {
        let Some(asked) = self.attempts.get_mut(id).and_then(|attempt| attempt.asked.as_mut()) else {
            return;
        };
        if processes == 0 || asked.heard != Some(0) {
            return;
        }
        asked.heard = Some(processes);
        let text = format!(
            "the program catches the signal now and was asked to save: signal to {processes} process(es)"
        );
        self.record(id, Fact::Note(v1::Note { level: "info".into(), text }));
    }

    /// Takes what a source said.
    pub(super) fn noticed(&mut self, heard: Heard) {
        let Heard { source, word } = heard;
        match word {
            Word::Notice(notice) => self.stands(source, notice),
            Word::Quiet => self.withdrawn(source),
            Word::Odd(why) => {
                tracing::warn!(%source, why, "a source of notices is not understood");
                self.note_all("warning", &format!("notices from {source}: {why}"));
            }
        }
    }

    pub(super) fn stands(&mut self, source: Source, notice: Notice) {
        let (wall, boot) = ((self.wall_ms)(), (self.boottime_ms)());
        let until_ms = notice.until_unix_ms.map(|until| boot.saturating_add(until.saturating_sub(wall)));
        let before = self.notices.standing.get(&source).filter(|before| !before.withdrawn);
        let louder = before.is_none_or(|before| notice.kind > before.notice.kind);
        let saved = !louder && before.is_some_and(|before| before.saved);
        let at_unix_ms = before.filter(|_| !louder).map_or(wall, |before| before.at_unix_ms);
        let told = match (notice.kind, until_ms) {
            (Kind::MayEnd, _) => "the machine may be taken".to_owned(),
            (Kind::Ends, None) => "the machine is taken".to_owned(),
            (Kind::Ends, Some(until)) => {
                format!("the machine is taken in {} s", until.saturating_sub(boot).div_ceil(1_000))
            }
        };
        if louder {
            self.note_all("warning", &format!("notice from {source}: {}: {told}", notice.text));
        }
        let standing = Standing { notice, at_unix_ms, until_ms, saved, withdrawn: false, told: false };
        self.notices.standing.insert(source, standing);
        if louder {
            if let Some(handle) = &self.notices.handle {
                handle.saved(false);
            }
            let ids: Vec<String> = self.attempts.keys().cloned().collect();
            for id in ids {
                self.warn(&id);
            }
        }
    }

    fn withdrawn(&mut self, source: Source) {
        let Some(standing) = self.notices.standing.get_mut(&source).filter(|s| !s.withdrawn) else { return };
        (standing.withdrawn, standing.told) = (true, false);
        self.note_all("info", &format!("notice from {source}: it was taken back"));
        if self.notices.loudest().is_some() {
            return;
        }
        let ids: Vec<String> = self.attempts.keys().cloned().collect();
        for id in ids {
            if let Some(attempt) = self.attempts.get_mut(&id)
                && attempt.supervisor.phase == Phase::Running
            {
                attempt.asked = None;
                let (world, work) = (self.world.clone(), attempt.work.clone());
                self.jobs.spawn(async move { (id, Done::Warned(world.warn(work, None).await)) });
            }
        }
    }

    /// Asks a running program to save, where a notice stands.
    pub(super) fn warn(&mut self, id: &str) {
        let Some((source, standing)) = self.notices.loudest() else { return };
        let warning = Warning {
            source: source.to_string(),
            kind: if standing.notice.kind == Kind::Ends { "ends" } else { "may-end" }.to_owned(),
            text: standing.notice.text.clone(),
            until_unix_ms: standing.notice.until_unix_ms,
            at_unix_ms: standing.at_unix_ms,
        };
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        if attempt.supervisor.phase != Phase::Running || attempt.supervisor.is_superseded() {
            return;
        }
        let step = attempt.step();
        attempt.asked = Some(Asked { step, durable: attempt.published_step, ..Asked::default() });
        let (world, work, id) = (self.world.clone(), attempt.work.clone(), id.to_owned());
        self.jobs.spawn(async move { (id, Done::Warned(world.warn(work, Some(warning)).await)) });
    }

    /// A program was told of a notice, or not.
    pub(super) fn warned(&mut self, id: &str, warned: &Warned) {
        let text = match warned {
            Warned::Withdrawn | Warned::Before => return,
            Warned::Told(0) => "the program was not signalled: none of its processes catches the signal; \
                 $OUTLAST_NOTICE_FILE is there"
                .to_owned(),
            Warned::Told(n) => {
                format!("the program was asked to save: signal to {n} process(es), and $OUTLAST_NOTICE_FILE")
            }
            Warned::Failed(n, why) => {
                format!("signal to {n} process(es); $OUTLAST_NOTICE_FILE could not be written: {why}")
            }
        };
        if let (Warned::Told(n) | Warned::Failed(n, _), Some(attempt)) = (warned, self.attempts.get_mut(id))
            && let Some(asked) = &mut attempt.asked
        {
            asked.heard = Some(*n);
        }
        self.record(id, Fact::Note(v1::Note { level: "info".into(), text }));
    }

    /// Whether a program that heard the signal has not saved yet.
    pub(super) fn is_saving(&self) -> bool {
        self.attempts.values().any(|a| a.asked.as_ref().is_some_and(|asked| asked.heard != Some(0)))
    }

    /// A checkpoint is durable: is it what was asked for?
    pub(super) fn answered(&mut self, id: &str, step: Option<u64>, candidate: Option<&Candidate>) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        let token = candidate.map(|candidate| candidate.token.as_str());
        if !attempt.asked.as_ref().is_some_and(|asked| asked.is_answer(step, token)) {
            return;
        }
        attempt.asked = None;
        let now = (self.wall_ms)();
        let mut took_ms = 0;
        for standing in self.notices.standing.values_mut().filter(|s| !s.withdrawn && !s.saved) {
            (standing.saved, standing.told) = (true, false);
            took_ms = now.saturating_sub(standing.at_unix_ms);
        }
        if let Some(handle) = &self.notices.handle {
            handle.saved(true);
        }
        let what = step.map_or_else(|| "a checkpoint".to_owned(), |step| format!("step {step}"));
        let text = format!(
            "{what} is durable, {:.1} s after the notice",
            Duration::from_millis(took_ms).as_secs_f64()
        );
        self.record(id, Fact::Note(v1::Note { level: "info".into(), text }));
        self.tell_notices();
    }

    fn note_all(&mut self, level: &str, text: &str) {
        let here: Vec<String> = self
            .attempts
            .iter()
            .filter(|(_, a)| a.supervisor.phase != Phase::Ended)
            .map(|(id, _)| id.clone())
            .collect();
        for id in here {
            self.record(&id, Fact::Note(v1::Note { level: level.into(), text: text.into() }));
        }
    }

    /// Tells the controller what it does not know.
    pub(super) fn tell_notices(&mut self) {
        if !self.welcomed || self.wire < WIRE {
            return;
        }
        let boot = (self.boottime_ms)();
        for (source, standing) in self.notices.standing.iter_mut().filter(|(_, s)| !s.told) {
            let kind = match standing.notice.kind {
                Kind::Ends => v1::NoticeKind::Ends,
                Kind::MayEnd => v1::NoticeKind::MayEnd,
            };
            let said = v1::Notice {
                source: source.to_string(),
                kind: kind.into(),
                text: standing.notice.text.clone(),
                in_ms: standing.until_ms.map(|until| until.saturating_sub(boot)),
                withdrawn: standing.withdrawn,
                saved: standing.saved,
                at_ms: standing.at_unix_ms,
            };
            standing.told = self.up.try_send(v1::Up { body: Some(up::Body::Notice(said)) }).is_ok();
        }
        self.notices.standing.retain(|_, standing| !(standing.withdrawn && standing.told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_saved_after_the_notice_is_the_answer() {
        let mut asked = Asked { step: Some(12), durable: Some(10), ..Asked::default() };
        assert!(!asked.is_answer(Some(11), Some("before")), "it was on its way");
        assert!(asked.is_answer(Some(12), Some("before")), "and holds the very step");
        asked.found("new");
        assert!(asked.is_answer(Some(13), Some("new")));
        assert!(!asked.is_answer(Some(11), Some("new")), "an older step, found late");
        assert!(asked.is_answer(None, Some("new")));
        assert!(asked.is_answer(Some(13), None) && !asked.is_answer(Some(10), None));
        let silent = Asked { fresh: BTreeSet::from(["new".to_owned()]), ..Asked::default() };
        assert!(silent.is_answer(Some(1), Some("new")) && !silent.is_answer(Some(1), Some("old")));
    }
}
