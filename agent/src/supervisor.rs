//! One attempt on this machine, decided without IO: inputs in, effects out.
//!
//! ```text
//! NEW -> PREPARING -> STARTING -> RUNNING -> FINISHING -> ENDED
//!            |            |          |            |
//!            +------------+----------+------------+--> (stop, kill, superseded
//!                                                      only change the wish)
//! ```
//!
//! An end is told twice: as news when it is seen, and as the end itself.
//! Three rules: a program is started at most once per attempt; what was
//! superseded is stopped and never published as if it counted; the end is
//! reported after everything it left is published.

use crate::world::{Ended, Failed, Prepared, Program};

/// Where the attempt stands here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was done.
    New,
    /// Files and environment are being made.
    Preparing,
    /// The guard was asked for a keeper.
    Starting,
    /// The program runs.
    Running,
    /// The program ended; its last checkpoint and results are being published.
    Finishing(Ended),
    /// The end is in the outbox.
    Ended,
}

/// What the controller wants of it, the strongest so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Carry on.
    Run,
    /// End it gracefully, within milliseconds.
    Stop(u64),
    /// End it now.
    Kill,
}

/// What happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The wish of the newest assignment.
    Wished(Wish),
    /// A newer generation is bound elsewhere.
    Superseded,
    /// Preparing is over.
    Prepared(Result<Prepared, Failed>),
    /// The guard answered.
    Started(Result<(), Failed>),
    /// What the keeper's files say.
    Observed(Program),
    /// Everything it left is published, or cannot be (in words).
    Finished(Option<String>),
    /// It makes no progress (in words) and is ended, within milliseconds of
    /// grace; the next attempt goes on from the newest checkpoint.
    Hung(String, u64),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make files and environment.
    Prepare,
    /// Stop making them.
    CancelPrepare,
    /// Have a keeper start the program.
    Start,
    /// Ask the program to end.
    Stop(u64),
    /// End it now.
    Kill,
    /// Publish what it left; `false`: its work does not count, only report.
    Finish(bool),
    /// Tell the controller.
    Tell(Tell),
}

/// What the controller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// Preparing began.
    Preparing,
    /// Files and environment are there.
    Ready(Prepared),
    /// The program runs under this process id.
    Started(i32),
    /// It was asked to end.
    Stopping(&'static str),
    /// It has ended; what it left is being published.
    Exited(Ended),
    /// It ended.
    Ended {
        /// How, with evidence.
        ended: Ended,
        /// Whether the program had been started at all.
        started: bool,
        /// What is not published, in words.
        unpublished: String,
        /// Another try may well not meet it.
        transient: bool,
        /// Why it was ended from here: no progress, in words; empty: it was not.
        hang: String,
    },
}

/// The attempt's state here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervisor {
    /// Where it stands.
    pub phase: Phase,
    wish: Wish,
    superseded: bool,
    /// Whether the program was seen running.
    started: bool,
    /// Whether the wish was acted on while running.
    acted: Option<Wish>,
    told_stopping: bool,
    /// Of its end it was told, and whether with evidence that memory ran out.
    told_exit: Option<bool>,
    transient: bool,
    /// Why it is ended for want of progress; empty: it is not.
    hang: String,
}

impl Supervisor {
    /// A new attempt, or one found on disk whose end was reported already.
    #[must_use]
    pub fn new(reported: bool) -> Self {
        Self {
            phase: if reported { Phase::Ended } else { Phase::New },
            wish: Wish::Run,
            superseded: false,
            started: false,
            acted: None,
            told_stopping: false,
            told_exit: None,
            transient: false,
            hang: String::new(),
        }
    }

    /// The agent before this one was ending it for want of progress: that goes
    /// on as soon as its program is seen.
    pub fn was_hung(&mut self, why: String, grace_ms: u64) {
        if self.phase == Phase::New && !why.is_empty() {
            self.wish = self.wish.max(Wish::Stop(grace_ms));
            self.hang = why;
        }
    }

    /// Whether it may do anything that counts.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.superseded
    }

    /// The last stop or kill reached nobody: it is asked for again.
    pub fn not_reached(&mut self) {
        self.acted = None;
    }

    /// Whether its program is still wanted: asked again just before the start.
    #[must_use]
    pub fn may_start(&self) -> bool {
        self.wish == Wish::Run && !self.superseded
    }

    /// Takes one input; returns what is to be done, in order.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Wished(wish) => {
                // A second request only shortens what the first allowed.
                self.wish = match (self.wish, wish) {
                    (Wish::Stop(old), Wish::Stop(new)) => Wish::Stop(old.min(new)),
                    (old, new) => old.max(new),
                };
            }
            Input::Superseded => {
                self.superseded = true;
                self.wish = self.wish.max(Wish::Stop(SUPERSEDED_GRACE_MS));
            }
            Input::Prepared(result) => return self.prepared(result),
            Input::Started(Ok(())) => {
                if self.phase == Phase::Starting {
                    self.phase = Phase::Running;
                }
            }
            Input::Started(Err(failed)) if self.phase == Phase::Starting => {
                self.transient = failed.transient;
                return self.finish(not_started(failed.reason));
            }
            Input::Started(Err(_)) => {}
            Input::Observed(program) => return self.observed(program),
            Input::Finished(unpublished) => {
                if let Phase::Finishing(ended) = self.phase.clone() {
                    self.phase = Phase::Ended;
                    return vec![Effect::Tell(Tell::Ended {
                        ended,
                        started: self.started,
                        unpublished: unpublished.unwrap_or_default(),
                        transient: self.transient || !self.hang.is_empty(),
                        hang: std::mem::take(&mut self.hang),
                    })];
                }
            }
            Input::Hung(why, grace_ms) => {
                // What a person or the controller wants counts for more.
                if self.phase == Phase::Running && self.may_start() {
                    self.wish = Wish::Stop(grace_ms);
                    self.hang = why;
                }
            }
        }
        self.act()
    }

    /// What the wish asks for in the present phase.
    fn act(&mut self) -> Vec<Effect> {
        match (&self.phase, self.wish) {
            (Phase::New, Wish::Run) => {
                self.phase = Phase::Preparing;
                vec![Effect::Tell(Tell::Preparing), Effect::Prepare]
            }
            (Phase::New, _) => self.finish(never_started()),
            (Phase::Preparing, Wish::Stop(_) | Wish::Kill) if self.acted != Some(self.wish) => {
                self.acted = Some(self.wish);
                vec![Effect::CancelPrepare]
            }
            (Phase::Running, wish) if wish != Wish::Run && self.acted != Some(wish) => {
                let first = !self.told_stopping;
                self.told_stopping = true;
                self.acted = Some(wish);
                let why = match (self.superseded, self.hang.is_empty()) {
                    (true, _) => "superseded",
                    (false, true) => "asked to",
                    (false, false) => "it makes no progress",
                };
                let mut effects = Vec::new();
                if first {
                    effects.push(Effect::Tell(Tell::Stopping(why)));
                }
                effects.push(match wish {
                    Wish::Stop(grace) => Effect::Stop(grace),
                    _ => Effect::Kill,
                });
                effects
            }
            _ => Vec::new(),
        }
    }

    fn prepared(&mut self, result: Result<Prepared, Failed>) -> Vec<Effect> {
        if self.phase != Phase::Preparing {
            return Vec::new();
        }
        match result {
            Ok(ready) if self.wish == Wish::Run => {
                self.phase = Phase::Starting;
                self.acted = None;
                vec![Effect::Tell(Tell::Ready(ready)), Effect::Start]
            }
            Ok(_) => self.finish(never_started()),
            Err(_) if self.wish != Wish::Run => self.finish(never_started()),
            Err(failed) => {
                self.transient = failed.transient;
                self.finish(not_started(failed.reason))
            }
        }
    }

    fn observed(&mut self, program: Program) -> Vec<Effect> {
        match (&self.phase, program) {
            (Phase::New | Phase::Starting | Phase::Running, Program::Running(pid)) => {
                self.phase = Phase::Running;
                let mut effects = Vec::new();
                if pid > 0 && !self.started {
                    self.started = true;
                    effects.push(Effect::Tell(Tell::Started(pid)));
                }
                effects.extend(self.act());
                effects
            }
            (Phase::New | Phase::Starting | Phase::Running, Program::Exited(ended)) => {
                self.phase = Phase::Running;
                let mut effects = self.exited(&ended);
                effects.extend(self.act());
                effects
            }
            (Phase::New | Phase::Starting | Phase::Running, Program::Ended(ended)) => {
                let mut effects = self.exited(&ended);
                effects.extend(self.finish(ended));
                effects
            }
            (Phase::New, Program::NotStarted) => self.act(),
            (Phase::Running, Program::NotStarted) => {
                // Nobody sees its end any more: what is left of it ends too.
                let ended = Ended {
                    exit: lifecycle::Exit::Unknown {
                        reason: "the directory of its attempt was removed on the machine".to_owned(),
                    },
                    ..never_started()
                };
                let mut effects = self.exited(&ended);
                effects.push(Effect::Kill);
                effects.extend(self.finish(ended));
                effects
            }
            _ => Vec::new(),
        }
    }

    /// What is told as soon as an end is seen; again where memory turns out to
    /// be the reason.
    fn exited(&mut self, ended: &Ended) -> Vec<Effect> {
        let mut effects = Vec::new();
        if matches!(ended.exit, lifecycle::Exit::NotStarted { .. }) {
            return effects;
        }
        if !self.started {
            self.started = true;
            effects.push(Effect::Tell(Tell::Started(0)));
        }
        let explained = !ended.out_of_memory.is_empty();
        if self.told_exit.is_none_or(|before| explained && !before) {
            self.told_exit = Some(explained);
            effects.push(Effect::Tell(Tell::Exited(ended.clone())));
        }
        effects
    }

    fn finish(&mut self, ended: Ended) -> Vec<Effect> {
        self.phase = Phase::Finishing(ended);
        vec![Effect::Finish(!self.superseded)]
    }
}

/// A program whose work counts no more gets this long to end by itself.
const SUPERSEDED_GRACE_MS: u64 = 5_000;

fn not_started(reason: String) -> Ended {
    Ended {
        exit: lifecycle::Exit::NotStarted { reason },
        at_ms: 0,
        out_of_memory: String::new(),
        max_rss_bytes: 0,
        oom_process: None,
        unapplied_limits: Vec::new(),
    }
}

fn never_started() -> Ended {
    not_started("it was stopped before its program was started".into())
}

#[cfg(test)]
mod tests;
