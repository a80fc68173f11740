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
mod tests {
    use super::*;
    use lifecycle::Exit;
    use proptest::prelude::*;

    fn ready() -> Prepared {
        Prepared { restored: None, environment_cached: true, condemned: Vec::new(), notes: Vec::new() }
    }

    fn ended() -> Ended {
        Ended { exit: Exit::Code { code: 0 }, ..not_started(String::new()) }
    }

    #[test]
    fn the_straight_way() {
        let mut s = Supervisor::new(false);
        assert_eq!(
            s.step(Input::Observed(Program::NotStarted)),
            [Effect::Tell(Tell::Preparing), Effect::Prepare]
        );
        assert_eq!(s.step(Input::Prepared(Ok(ready()))), [Effect::Tell(Tell::Ready(ready())), Effect::Start]);
        assert_eq!(s.step(Input::Started(Ok(()))), []);
        assert_eq!(s.step(Input::Observed(Program::Running(7))), [Effect::Tell(Tell::Started(7))]);
        let exited = Effect::Tell(Tell::Exited(ended()));
        assert_eq!(s.step(Input::Observed(Program::Ended(ended()))), [exited, Effect::Finish(true)]);
        assert!(matches!(
            s.step(Input::Finished(None))[..],
            [Effect::Tell(Tell::Ended { started: true, .. })]
        ));
        assert_eq!(s.step(Input::Observed(Program::Ended(ended()))), []);
    }

    #[test]
    fn an_end_is_told_when_it_is_seen_and_again_when_memory_explains_it() {
        let mut s = Supervisor::new(false);
        s.step(Input::Observed(Program::Running(7)));
        let killed = Ended { exit: Exit::Signal { signal: 9, core: false }, ..ended() };
        let explained = Ended { out_of_memory: "the kernel says so".into(), ..killed.clone() };
        let exited = |ended: &Ended| [Effect::Tell(Tell::Exited(ended.clone()))];
        assert_eq!(s.step(Input::Observed(Program::Exited(killed.clone()))), exited(&killed));
        assert_eq!(s.phase, Phase::Running, "news decide nothing");
        assert_eq!(s.step(Input::Observed(Program::Exited(killed.clone()))), []);
        assert_eq!(s.step(Input::Observed(Program::Exited(explained.clone()))), exited(&explained));
        // What it left can still be ended, as the wish of a person.
        assert_eq!(s.step(Input::Wished(Wish::Kill)).last(), Some(&Effect::Kill));
        assert_eq!(s.step(Input::Observed(Program::Ended(explained))), [Effect::Finish(true)]);
    }

    #[test]
    fn what_was_found_running_is_not_started_again() {
        let mut s = Supervisor::new(false);
        assert_eq!(s.step(Input::Observed(Program::Running(7))), [Effect::Tell(Tell::Started(7))]);
        assert_eq!(s.step(Input::Wished(Wish::Run)), []);
    }

    #[test]
    fn a_second_stop_only_shortens_the_grace() {
        let mut s = Supervisor::new(false);
        s.step(Input::Observed(Program::Running(7)));
        let first = s.step(Input::Wished(Wish::Stop(5_000)));
        assert_eq!(first, [Effect::Tell(Tell::Stopping("asked to")), Effect::Stop(5_000)]);
        assert_eq!(s.step(Input::Wished(Wish::Stop(9_000))), []);
        assert_eq!(s.step(Input::Wished(Wish::Stop(1_000))), [Effect::Stop(1_000)]);
        assert_eq!(s.step(Input::Wished(Wish::Kill)), [Effect::Kill]);
    }

    #[test]
    fn a_hang_is_ended_once_and_told_at_the_end() {
        let mut s = Supervisor::new(false);
        assert_eq!(s.step(Input::Hung("early".into(), 9)), [Effect::Tell(Tell::Preparing), Effect::Prepare]);
        let mut s = Supervisor::new(false);
        s.step(Input::Observed(Program::Running(7)));
        let stop = s.step(Input::Hung("no step for 9 s".into(), 5_000));
        assert_eq!(stop, [Effect::Tell(Tell::Stopping("it makes no progress")), Effect::Stop(5_000)]);
        assert_eq!(s.step(Input::Hung("again".into(), 1)), []);
        let end = s.step(Input::Observed(Program::Ended(ended())));
        assert_eq!(end.last(), Some(&Effect::Finish(true)));
        let [Effect::Tell(Tell::Ended { transient: true, hang, .. })] = &s.step(Input::Finished(None))[..]
        else {
            panic!("no end is told")
        };
        assert_eq!(hang, "no step for 9 s");
    }

    #[test]
    fn a_hang_found_on_disk_goes_on_being_ended_and_a_persons_stop_comes_first() {
        let mut s = Supervisor::new(false);
        s.was_hung("it hung".into(), 5_000);
        assert_eq!(s.step(Input::Observed(Program::Running(7))).last(), Some(&Effect::Stop(5_000)));
        let mut s = Supervisor::new(false);
        s.step(Input::Observed(Program::Running(7)));
        s.step(Input::Wished(Wish::Stop(9_000)));
        assert_eq!(s.step(Input::Hung("late".into(), 1)), []);
        s.step(Input::Observed(Program::Ended(ended())));
        let told = s.step(Input::Finished(None));
        assert!(matches!(&told[..], [Effect::Tell(Tell::Ended { hang, .. })] if hang.is_empty()));
    }

    fn input(pick: u8) -> Input {
        match pick % 14 {
            0 => Input::Wished(Wish::Run),
            1 => Input::Wished(Wish::Stop(1_000)),
            2 => Input::Wished(Wish::Kill),
            3 => Input::Superseded,
            4 => Input::Prepared(Ok(ready())),
            5 => Input::Prepared(Err(Failed { reason: "x".into(), transient: false })),
            6 => Input::Started(Ok(())),
            7 => Input::Started(Err(Failed { reason: "x".into(), transient: true })),
            8 => Input::Observed(Program::NotStarted),
            9 => Input::Observed(Program::Running(7)),
            10 => Input::Observed(Program::Ended(ended())),
            11 => Input::Hung("x".into(), 1_000),
            12 => Input::Observed(Program::Exited(ended())),
            _ => Input::Finished(None),
        }
    }

    proptest! {
        #[test]
        fn i13_i18_one_start_one_end_and_no_credit_once_superseded(picks in proptest::collection::vec(0u8..14, 0..80)) {
            let mut s = Supervisor::new(false);
            let (mut starts, mut ends, mut finishes, mut exits) = (0, 0, 0, 0);
            for pick in picks {
                for effect in s.step(input(pick)) {
                    match effect {
                        Effect::Start => {
                            starts += 1;
                            prop_assert!(!s.is_superseded(), "started though superseded");
                        }
                        Effect::Finish(counts) => {
                            finishes += 1;
                            prop_assert!(!(counts && s.is_superseded()));
                        }
                        Effect::Tell(Tell::Ended { .. }) => ends += 1,
                        Effect::Tell(Tell::Exited(_)) => {
                            exits += 1;
                            prop_assert!(ends == 0 && finishes == 0, "news after the end");
                        }
                        _ => {}
                    }
                }
            }
            prop_assert!(starts <= 1 && ends <= 1 && finishes <= 1 && exits <= 1);
        }
    }
}
