//! From a snapshot to ordered actions. Pure: no clock, no store, no provider.
//! First launch, loss, crash and a person's wish are the same path, and a
//! second pass over the same facts after the actions yields nothing new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lifecycle::comeback::PATIENCE_MS;
use lifecycle::run::Active;
use lifecycle::{AttemptId, LossCause, MachineId, MachineState, RunId, RunState};

use crate::liveness::{self, Clocks, Observation, ProviderWord, Verdict};
use crate::model::{Attempt, Machine, Run, StopReason, Wish};
use crate::money::{self, Books};

mod notice;
mod promise;
mod speculate;

pub use notice::{is_leaving, may_be_left};
pub use promise::{Again, Promise};

/// Machines made for one run within an hour at most; more is a storm.
pub const CREATES_PER_HOUR: usize = 6;
/// The storm limit's window.
pub const HOUR_MS: u64 = 3_600_000;
/// Longest pause after a provider refused.
const REFUSED_MOST_MS: u64 = 60_000;
/// How the reason of a machine begins on which its run is not tried again.
pub const UNFIT: &str = "unfit: ";
/// Why a machine is not used that is about to be taken.
const LEAVES: &str = "its provider takes it";
/// Why a machine is not used that was made for the place of a silent one.
const CAME_BACK: &str = "the machine it was to replace came back";
/// Why a machine is not used whose run is to end.
const STOPPED: &str = "its run is being stopped";

/// Everything that decisions rest on.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Unix milliseconds; for prices and the storm limit.
    pub now_ms: u64,
    /// Runs that are not final, and final ones that still have machines.
    pub runs: Vec<Arc<Run>>,
    /// The bound attempts of those runs.
    pub bound: Vec<Arc<Attempt>>,
    /// Machines that are not final.
    pub machines: Vec<Arc<Machine>>,
    /// Machines of those attempts that are gone already, and why they were lost.
    pub gone: Vec<(MachineId, String)>,
    /// What past machines of those runs have cost, in dollars.
    pub spent: Vec<(RunId, f64)>,
    /// What all past machines have cost, by what caps are about.
    pub past: money::Past,
    /// Providers whose machines somebody bills.
    pub paid: BTreeSet<String>,
    /// What is seen of each machine, beside its age in milliseconds.
    pub seen: Vec<(MachineId, Observation, u64)>,
    /// Milliseconds since a mass loss was last seen; `None`: never.
    pub alarmed_ms_ago: Option<u64>,
}

impl Snapshot {
    /// Whether somebody bills this provider's machines.
    #[must_use]
    pub fn is_paid(&self, provider: &str) -> bool {
        self.paid.contains(provider)
    }
}

/// A snapshot with what is looked up in it: a plan asks for each machine and
/// each run, and a thousand machines must not be a million comparisons.
struct World<'a> {
    snapshot: &'a Snapshot,
    runs: BTreeMap<RunId, &'a Run>,
    machines: BTreeMap<MachineId, &'a Machine>,
    of_run: BTreeMap<RunId, Vec<&'a Machine>>,
    bound: BTreeMap<AttemptId, &'a Attempt>,
    seen: BTreeMap<MachineId, (Observation, u64)>,
    now_ms: u64,
    /// So many are silent that the fault may be here.
    doubtful: bool,
}

impl<'a> World<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let mut of_run: BTreeMap<RunId, Vec<&Machine>> = BTreeMap::new();
        for machine in &snapshot.machines {
            of_run.entry(machine.run).or_default().push(machine);
        }
        Self {
            runs: snapshot.runs.iter().map(|run| (run.id, &**run)).collect(),
            machines: snapshot.machines.iter().map(|machine| (machine.id, &**machine)).collect(),
            of_run,
            bound: snapshot.bound.iter().map(|attempt| (attempt.id, &**attempt)).collect(),
            seen: snapshot.seen.iter().map(|(id, seen, age)| (*id, (*seen, *age))).collect(),
            now_ms: snapshot.now_ms,
            doubtful: false,
            snapshot,
        }
    }

    fn seen(&self, id: MachineId) -> (Observation, u64) {
        self.seen.get(&id).copied().unwrap_or_default()
    }

    fn machine(&self, id: MachineId) -> Option<&'a Machine> {
        self.machines.get(&id).copied()
    }

    /// The machines that were rented for a run.
    fn of_run(&self, run: &Run) -> impl Iterator<Item = &'a Machine> + use<'_, 'a> {
        self.of_run.get(&run.id).into_iter().flatten().copied()
    }

    /// The machine to bind among these: one that is ready and attached.
    fn ready<'m>(&self, among: impl Iterator<Item = &'m Machine>) -> Option<MachineId> {
        let ready = among.filter(|m| m.status == MachineState::Ready && self.seen(m.id).0.attached);
        ready.map(|m| m.id).min()
    }

    fn bound_of(&self, run: &Run) -> Option<&'a Attempt> {
        run.bound.and_then(|id| self.bound.get(&id).copied())
    }
}

/// One thing to do. Each is performed by compare-and-set, so that performing
/// it late or twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// QUEUED -> PROVISIONING.
    Place(RunId),
    /// Record the wish for a machine.
    Intend(RunId),
    /// Ask the provider for a machine whose intent is recorded.
    Create(MachineId),
    /// Look for a machine whose creation has an unknown outcome.
    Resolve(MachineId),
    /// CREATED -> BOOTING.
    Boot(MachineId),
    /// Ask the provider whether a machine is there.
    Probe(MachineId),
    /// READY -> SUSPECT.
    Suspect(MachineId),
    /// Positive evidence of loss.
    LoseMachine(MachineId, LossCause),
    /// Patience is over: replace it, whoever is ready first wins.
    GiveUp(MachineId),
    /// Issue a generation and bind an attempt on this machine.
    Bind(RunId, MachineId),
    /// The bound attempt's machine is lost: unbind.
    LoseAttempt(RunId, LossCause),
    /// The bound attempt has ended: succeed, fail or go on.
    Settle(RunId),
    /// The cap is near: have the program save and end.
    StopForBudget(RunId),
    /// Another share of a cap is reached, in percent: people are told.
    Tell(RunId, u8),
    /// End a run that has no attempt any more.
    Close(RunId),
    /// The storm limit is reached: a person or the hour's end decides.
    Storm(RunId),
    /// Its provider keeps refusing: a person or the deadline decides.
    Ask(RunId),
    /// The question's deadline passed and its default is taken, or it is over.
    Answer(RunId),
    /// Its last attempt ended and the next belongs elsewhere.
    Condemn(RunId, MachineId),
    /// A machine is needed no more.
    Release(MachineId, &'static str),
    /// Ask the provider again to remove a machine, and confirm.
    Destroy(MachineId),
    /// More machines fell silent at once than machines fail: no loss by
    /// silence is declared until it passes.
    Alarm(usize),
}

/// Plans. Releases come before creations, so that money is freed first.
#[must_use]
pub fn plan(snapshot: &Snapshot, clocks: &Clocks) -> Vec<Action> {
    let mut world = World::of(snapshot);
    let live: Vec<Observation> =
        world.machines.values().filter(|m| m.status.is_up()).map(|m| world.seen(m.id).0).collect();
    // "It exists" explains no silence: only evidence of an end does.
    let unexplained = |seen: &&Observation| {
        !seen.returns && !matches!(seen.provider, Some(ProviderWord::Absent | ProviderWord::Terminal))
    };
    // Counted once the lease is over: the first whose patience ends must see
    // that the others are silent too.
    let silent = live.iter().filter(unexplained).filter(|seen| liveness::expired(seen, clocks)).count();
    let alarmed = liveness::mass_loss(silent, live.len());
    let mut actions = Vec::new();
    if alarmed {
        actions.push(Action::Alarm(silent));
    }
    // When the first are heard again, the others are on their way: they have
    // a lease's time for it.
    let frozen = alarmed || snapshot.alarmed_ms_ago.is_some_and(|ms| ms < clocks.lease_ttl_ms);
    // What is made early is made on a guess, and guessed sooner.
    let quiet = live.iter().filter(unexplained).filter(|seen| seen.silent_ms >= clocks.suspect_ms).count();
    world.doubtful = frozen || liveness::mass_loss(quiet, live.len());
    let world = &world;
    for machine in &snapshot.machines {
        plan_machine(world, machine, clocks, frozen, &mut actions);
    }
    let books = Books::of(snapshot);
    for run in &snapshot.runs {
        plan_run(world, &books, clocks, run, &mut actions);
    }
    for (run, percent, _) in books.news() {
        actions.push(Action::Tell(run, percent));
    }
    actions
}

fn plan_machine(world: &World<'_>, machine: &Machine, clocks: &Clocks, frozen: bool, out: &mut Vec<Action>) {
    let id = machine.id;
    let run = world.runs.get(&machine.run).copied();
    match &machine.status {
        MachineState::Intent if run.is_none_or(wants_none) || machine.condemned => {
            out.push(Action::Release(id, "its run needs it no more"));
        }
        MachineState::Intent if run.is_some_and(|run| is_superfluous(world, machine, run)) => {
            out.push(Action::Release(id, CAME_BACK));
        }
        MachineState::Intent => out.push(Action::Create(id)),
        MachineState::Calling | MachineState::Unknown => out.push(Action::Resolve(id)),
        MachineState::Created => out.push(Action::Boot(id)),
        MachineState::Lost { .. } => out.push(Action::Release(id, "it is lost")),
        MachineState::Destroying => out.push(Action::Destroy(id)),
        MachineState::Booting | MachineState::Ready | MachineState::Suspect => {
            if let Some(why) = needless(world, machine, run) {
                out.push(Action::Release(id, why));
                return;
            }
            let (seen, age) = world.seen(id);
            let clocks = run.map_or(*clocks, |run| clocks.of(&run.spec.machine));
            match liveness::judge(&machine.status, &seen, age, machine.given_up, &clocks) {
                Verdict::Fine => {}
                Verdict::Probe => out.push(Action::Probe(id)),
                Verdict::Suspect => out.push(Action::Suspect(id)),
                Verdict::Lost(cause) => out.push(Action::LoseMachine(id, cause)),
                Verdict::GiveUp if frozen && liveness::due(&seen) => out.push(Action::Probe(id)),
                Verdict::GiveUp if frozen => {}
                Verdict::GiveUp => out.push(Action::GiveUp(id)),
            }
        }
        MachineState::Rejected { .. } | MachineState::Abandoned | MachineState::Destroyed => {}
    }
}

/// Whether nothing may be made for a run now.
fn wants_none(run: &Run) -> bool {
    let held = matches!(run.status, RunState::Waiting { .. } | RunState::Paused);
    run.status.is_final() || held || run.wish != Wish::Run
}

/// Whether a machine was made for the place of one that works on: it came back
/// before its replacement was bound.
fn is_superfluous(world: &World<'_>, machine: &Machine, run: &Run) -> bool {
    let bound = world.bound_of(run).filter(|a| !a.status.is_final() && a.machine != machine.id);
    let held = bound.and_then(|attempt| world.machine(attempt.machine));
    held.is_some_and(|held| {
        let leaves = held.given_up || !held.status.is_up() || is_leaving(held, world.now_ms);
        !leaves && !speculate::is_open(world, run, held)
    })
}

/// Why a machine that exists serves nothing, if so.
fn needless(world: &World<'_>, machine: &Machine, run: Option<&Run>) -> Option<&'static str> {
    let Some(run) = run else { return Some("its run is unknown") };
    if machine.condemned {
        let unfit = machine.reason.starts_with(UNFIT);
        return Some(if unfit { "its run goes on elsewhere" } else { "a person destroyed it" });
    }
    if run.status.is_final() {
        return Some("its run has ended");
    }
    let bound = world.bound_of(run).filter(|a| !a.status.is_final());
    match bound {
        Some(attempt) if attempt.machine == machine.id => None,
        Some(_) if is_leaving(machine, world.now_ms) => Some(LEAVES),
        Some(_) if run.wish != Wish::Run => Some(STOPPED),
        Some(_) => is_superfluous(world, machine, run).then_some(CAME_BACK),
        None if machine.given_up => Some("it was given up"),
        // What ended on it is settled first.
        None if run.status != RunState::Running && is_leaving(machine, world.now_ms) => Some(LEAVES),
        None if run.wish != Wish::Run => Some(STOPPED),
        None if matches!(run.status, RunState::Waiting { .. }) => Some("its run waits for an answer"),
        None => {
            // Of several candidates the one that `want_machine` would bind
            // serves, then one that is up, then the first in id order.
            let ready = |m: &Machine| m.status == MachineState::Ready && world.seen(m.id).0.attached;
            let first = world
                .of_run(run)
                .filter(|m| m.status.is_hopeful() && !m.given_up && !m.condemned)
                .filter(|m| !is_leaving(m, world.now_ms))
                .map(|m| (!ready(m), !m.status.is_up(), m.id))
                .min();
            first.is_some_and(|(.., id)| id != machine.id).then_some("another machine serves its run")
        }
    }
}

fn plan_run(world: &World<'_>, books: &Books<'_>, clocks: &Clocks, run: &Run, out: &mut Vec<Action>) {
    if run.status.is_final() {
        return;
    }
    let bound = world.bound_of(run).filter(|a| !a.status.is_final());
    if run.wish == Wish::Run && books.exhausted(run).is_some() {
        out.push(Action::StopForBudget(run.id));
        return;
    }
    if run.stop_reason == Some(StopReason::Budget) && books.spent(run) {
        // It was asked to save and end, and the money for that is spent too.
        out.push(Action::Close(run.id));
        return;
    }
    if run.stop_reason == Some(StopReason::Budget) && bound.is_some_and(|a| is_overdue(world, a)) {
        // What is on its disk was to be fetched home, and the time for that is over.
        out.push(Action::Close(run.id));
        return;
    }
    match &run.status {
        RunState::Queued if run.wish != Wish::Run => out.push(Action::Close(run.id)),
        RunState::Queued => out.push(Action::Place(run.id)),
        RunState::Provisioning | RunState::Recovering if run.wish != Wish::Run => {
            out.push(Action::Close(run.id));
        }
        RunState::Provisioning | RunState::Recovering => want_machine(world, books, run, out),
        RunState::Running => match bound {
            // What is unfit is left before the next attempt could be bound.
            None => out.push(unfit(world, run).unwrap_or(Action::Settle(run.id))),
            Some(attempt) => {
                let machine = world.machine(attempt.machine);
                match machine.map(|m| (&m.status, m.given_up)) {
                    _ if machine.is_some_and(|m| m.condemned) => {
                        out.push(Action::LoseAttempt(run.id, LossCause::Operator));
                    }
                    Some((MachineState::Lost { cause }, _)) => {
                        out.push(Action::LoseAttempt(run.id, *cause));
                    }
                    Some((state, true)) if state.is_up() && run.wish != Wish::Run => {
                        out.push(Action::LoseAttempt(run.id, LossCause::Silent));
                    }
                    Some((state, true)) if state.is_up() => want_machine(world, books, run, out),
                    Some((state, _)) if state.is_up() => {
                        notice::replace_early(world, books, run, attempt, out);
                        speculate::prepare(world, books, clocks, run, attempt, out);
                    }
                    _ => out.push(Action::LoseAttempt(run.id, remembered(world, attempt.machine))),
                }
            }
        },
        RunState::Waiting { .. } if run.wish != Wish::Run && bound.is_some() => {
            out.push(Action::Answer(run.id));
        }
        RunState::Waiting { .. } if run.wish != Wish::Run => out.push(Action::Close(run.id)),
        RunState::Waiting { question, .. } if world.now_ms >= question.deadline_ms => {
            out.push(Action::Answer(run.id));
        }
        RunState::Waiting { resume: Active::Running, .. } => {
            // It waits for leave to make another machine; that question is
            // over once the silent one spoke, ended or is lost for certain.
            let silent = bound.is_some_and(|attempt| {
                let machine = world.machine(attempt.machine);
                machine.is_some_and(|m| m.given_up && m.status.is_up())
            });
            if !silent {
                out.push(Action::Answer(run.id));
            }
        }
        _ => {}
    }
}

/// Whether a machine that was asked to go on for what is on its disk alone has
/// had its time: to come back, and to hand it in.
fn is_overdue(world: &World<'_>, attempt: &Attempt) -> bool {
    let machine = world.machine(attempt.machine);
    let asked = machine.and_then(|m| m.return_asked);
    asked.is_some_and(|asked| world.now_ms >= asked.stopped_ms.saturating_add(2 * PATIENCE_MS))
}

/// The machine of a run's last attempt, where that ended and said that the
/// next try belongs on another one.
fn unfit(world: &World<'_>, run: &Run) -> Option<Action> {
    let ended = world.bound_of(run).filter(|a| run.wish == Wish::Run && !a.leave_machine.is_empty())?;
    let machine = world.machine(ended.machine)?;
    (machine.status.is_up() && !machine.condemned).then_some(Action::Condemn(run.id, machine.id))
}

/// Why a machine was lost that is being removed by now, or is gone: its row has
/// it in words.
fn remembered(world: &World<'_>, machine: MachineId) -> LossCause {
    use LossCause as C;
    let all = [C::Terminated, C::Silent, C::NeverJoined, C::Operator, C::Farewell, C::Noticed];
    let there = world.machine(machine).map(|m| &m.reason);
    let gone = || world.snapshot.gone.iter().find(|(id, _)| *id == machine).map(|(_, reason)| reason);
    let reason = there.or_else(gone);
    let said = |cause: &C| reason.is_some_and(|reason| *reason == cause.to_string());
    all.into_iter().find(said).unwrap_or(C::Gone)
}

/// Pause after the `n`th refusal in a row.
#[must_use]
pub fn pause_after_refusal(n: u32) -> u64 {
    (2_000_u64 << n.saturating_sub(1).min(5)).min(REFUSED_MOST_MS)
}

/// When another machine may be made, where so many were made within the hour
/// before `now_ms` that none may be now. Always later than `now_ms`: a question
/// that is over when it is asked would be asked again at once, for ever.
#[must_use]
pub fn storm_over_ms(creates_ms: &[u64], now_ms: u64) -> Option<u64> {
    storm_within(creates_ms, now_ms, HOUR_MS)
}

/// The same for a run; over a played market the hour is one of that.
#[must_use]
pub fn storm_of(run: &Run, now_ms: u64) -> Option<u64> {
    let played = run.spec.machine.played.as_ref().map_or(0, |market| market.hour_ms);
    storm_within(&run.creates_ms, now_ms, if played > 0 { played.min(HOUR_MS) } else { HOUR_MS })
}

fn storm_within(creates_ms: &[u64], now_ms: u64, hour_ms: u64) -> Option<u64> {
    // What lies in the future comes from a clock that was set back.
    let counts = |at: &u64| *at <= now_ms && at.saturating_add(hour_ms) > now_ms;
    let mut counted: Vec<u64> = creates_ms.iter().copied().filter(counts).collect();
    counted.sort_unstable();
    let last_to_pass = counted.len().checked_sub(CREATES_PER_HOUR)?;
    Some(counted[last_to_pass] + hour_ms)
}

fn want_machine(world: &World<'_>, books: &Books<'_>, run: &Run, out: &mut Vec<Action>) {
    let mine = || {
        let own = world.of_run(run).filter(|m| !m.given_up && !m.condemned);
        own.filter(|m| !is_leaving(m, world.now_ms))
    };
    if let Some(machine) = world.ready(mine()) {
        out.push(Action::Bind(run.id, machine));
    } else if mine().any(|m| m.status.is_hopeful()) {
        // One is on its way.
    } else if run.steer.refusals.as_ref().is_some_and(|row| row.is_due(world.now_ms)) {
        out.push(Action::Ask(run.id));
    } else if run.retry_at_ms > world.now_ms && run.retry_at_ms <= world.now_ms + REFUSED_MOST_MS {
        // A provider said no a moment ago. (A moment further off than any
        // pause comes from a clock that was set back.)
    } else if run.steer.refusals.as_ref().is_some_and(|row| row.is_early(world.now_ms)) {
        // It said until when there is no use in asking.
    } else if storm_of(run, world.now_ms).is_some() {
        out.push(Action::Storm(run.id));
    } else if books.refuses(run).is_some() {
        // Others keep back what this machine's end would need: it waits.
    } else {
        out.push(Action::Intend(run.id));
    }
}

/// How a run ends that was asked to stop.
#[must_use]
pub fn stopped_as(run: &Run) -> lifecycle::RunEvent {
    match run.stop_reason {
        Some(StopReason::Budget) => lifecycle::RunEvent::ExhaustBudget,
        _ => lifecycle::RunEvent::Cancel,
    }
}
