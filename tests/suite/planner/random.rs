//! Properties of the planner: over worlds that a random history leads to, and
//! over snapshots that no history leads to.

use controller::liveness::{Clocks, Observation, ProviderWord};
use controller::model::notice::Said;
use controller::model::{Attempt, Machine, Notice, Run, Wish};
use controller::plan::{Action, CREATES_PER_HOUR, HOUR_MS, Snapshot, is_leaving, may_be_left, plan};
use lifecycle::{AttemptState, Exit, LossCause, MachineId, MachineState, RunId, RunState};
use proptest::prelude::*;

use super::script::polls;
use super::world::{Reply, World};

/// Passes after which a world in which nothing happens wants nothing more.
const PASSES: usize = 40;

const WAITS: [u64; 7] = [100, 1_500, 4_000, 8_000, 15_000, 31_000, 700_000];

/// Failures are printed whole and written nowhere.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What one step of a history does; the numbers choose.
fn happen(world: &mut World, what: u8, which: u8) {
    let machine =
        (!world.machines.is_empty()).then(|| world.machines[usize::from(which) % world.machines.len()].id);
    let run = world.runs[usize::from(which) % world.runs.len()].id;
    match (what, machine) {
        (0..8, _) => {
            // A pass of which only the first actions are carried out.
            let mut actions = world.plan();
            actions.truncate(usize::from(which % 6) + usize::from(what));
            perform(world, &actions);
        }
        (8..11, _) => world.wait(WAITS[usize::from(which) % WAITS.len()]),
        (11, _) => {
            world.replies.push_back([Reply::Lost, Reply::Vanished, Reply::Rejected][usize::from(which) % 3]);
        }
        (12..16, Some(id)) if world.exists(id) => world.attach(id),
        (16..18, Some(id)) => world.detach(id),
        (18, Some(id)) => world.vanish(id),
        (19, Some(id)) => world.end_instance(id),
        (20, Some(id)) if which > 200 => world.machine(id).condemned = true,
        (21, _) if world.machines.len() < 20 && !world.run(run).status.is_final() => world.intend(run),
        (22, _) => world.exit(run, Exit::Code { code: i32::from(which % 3) }),
        (26, _) => world.hang(run, which > 128),
        (27..30, Some(id)) => world.notice(id, &said(which)),
        (23, _) if which > 220 => world.run(run).wish = Wish::Stop,
        (24, _) if which > 128 => world.restart(),
        (25, _) => world.save(run, u64::from(which)),
        _ => {}
    }
}

/// What an agent says of its provider.
fn said(which: u8) -> Said {
    Said {
        source: "ec2".into(),
        ends: !which.is_multiple_of(5),
        text: String::new(),
        in_ms: Some([0, 1_500, 30_000, 120_000][usize::from(which) % 4]),
        withdrawn: which.is_multiple_of(7),
        saved: which.is_multiple_of(3),
    }
}

fn perform(world: &mut World, actions: &[Action]) {
    for action in actions {
        if let Err(refusal) = world.perform(action) {
            panic!("the plan {actions:?} holds {action:?}, which no diagram has: {refusal}");
        }
    }
}

fn after(history: &[(u8, u8)], ids_fall: bool, max_usd: Option<f64>, usd_per_hour: f64) -> World {
    let mut world = World::new();
    world.ids_fall = ids_fall;
    world.usd_per_hour = usd_per_hour;
    let a = world.submit("a", max_usd, None);
    world.run(a).spec.machine.speculate = true;
    world.submit("b", None, Some(2));
    for (what, which) in history {
        happen(&mut world, *what, *which);
    }
    world
}

/// What no plan may hold, whatever the snapshot.
fn check(world: &Snapshot, actions: &[Action]) {
    let machine = |id: MachineId| world.machines.iter().find(|m| m.id == id).expect("it plans what it sees");
    for run in &world.runs {
        let of_run = |a: &&Action| {
            matches!(a, Action::Intend(id) | Action::Bind(id, _) | Action::Storm(id) | Action::Ask(id) | Action::Close(id) | Action::Answer(id)
                | Action::Settle(id) | Action::LoseAttempt(id, _) | Action::Place(id) | Action::StopForBudget(id)
                if *id == run.id)
        };
        assert!(actions.iter().filter(of_run).count() <= 1, "two things at once for one run: {actions:?}");
    }
    for (at, action) in actions.iter().enumerate() {
        assert!(!actions[..at].contains(action), "wanted twice: {action:?}");
        match action {
            Action::Bind(run, id) => {
                let m = machine(*id);
                let seen = world.seen.iter().find(|s| s.0 == *id).is_some_and(|s| s.1.attached);
                assert!(m.status == MachineState::Ready && seen, "bound to what is not ready: {m:?}");
                assert!(m.run == *run && !m.given_up && !m.condemned, "bound to what is not its own: {m:?}");
                assert!(!is_leaving(m, world.now_ms), "bound to what is about to be taken: {m:?}");
                leaves_for_a_reason(world, *run);
                let released = |a: &Action| matches!(a, Action::Release(other, _) if other == id);
                assert!(!actions.iter().any(released), "bound and released at once: {actions:?}");
            }
            Action::Release(id, _) => {
                let m = machine(*id);
                let run = world.runs.iter().find(|r| r.id == m.run);
                let serves = run.filter(|r| !r.status.is_final()).and_then(|r| {
                    world
                        .bound
                        .iter()
                        .find(|a| Some(a.id) == r.bound && !a.status.is_final() && a.machine == *id)
                });
                assert!(
                    serves.is_none() || m.condemned || !m.status.is_up(),
                    "the machine of the bound attempt is released: {m:?}"
                );
            }
            Action::Intend(run) => {
                let run = world.runs.iter().find(|r| r.id == *run).expect("a run");
                assert!(!run.status.is_final() && run.wish == Wish::Run, "a machine for a run that ends");
                beside_for_a_reason(world, run);
            }
            _ => {}
        }
    }
}

/// A live attempt is replaced only where its machine is given up, or its time
/// is over by its provider's notice.
fn leaves_for_a_reason(world: &Snapshot, run: RunId) {
    let run = world.runs.iter().find(|r| r.id == run).expect("a run");
    let live = world.bound.iter().find(|a| Some(a.id) == run.bound && !a.status.is_final());
    let held = live.and_then(|a| world.machines.iter().find(|m| m.id == a.machine));
    if let Some(held) = held.filter(|m| m.status.is_up()) {
        assert!(held.given_up || may_be_left(held, world.now_ms), "a machine that works is left: {held:?}");
    }
}

/// Another machine beside the one of a live attempt is wanted where that is
/// given up, or about to be taken, or silent for long enough without evidence
/// while most others are heard; and never a second one.
fn beside_for_a_reason(world: &Snapshot, run: &Run) {
    let live = world.bound.iter().find(|a| Some(a.id) == run.bound && !a.status.is_final());
    let held = live.and_then(|a| world.machines.iter().find(|m| m.id == a.machine));
    let Some(held) = held.filter(|m| m.status.is_up() && !m.given_up && !is_leaving(m, world.now_ms)) else {
        return;
    };
    let (_, seen, age_ms) = *world.seen.iter().find(|s| s.0 == held.id).expect("it is seen");
    let asked = run.spec.machine.speculate && seen.silent_ms >= 15_000;
    let free = held.usd_per_hour <= 0.0 && seen.silent_ms >= 8_000;
    assert!(held.status == MachineState::Suspect && (asked || free), "made early: {held:?}, {seen:?}");
    assert!(seen.silent_ms < age_ms, "made for silence in which nobody listened: {seen:?}");
    let ended = matches!(seen.provider, Some(ProviderWord::Absent | ProviderWord::Terminal));
    assert!(!ended, "made beside what has ended: {seen:?}");
    let fine =
        |m: &Machine| m.status.is_hopeful() && !m.given_up && !m.condemned && !is_leaving(m, world.now_ms);
    let others = world.machines.iter().filter(|m| m.run == run.id && m.id != held.id && fine(m));
    assert_eq!(others.count(), 0, "one is on its way");
    let up = || world.machines.iter().filter(|m| m.status.is_up());
    let silent = |m: &&std::sync::Arc<Machine>| {
        let seen = world.seen.iter().find(|s| s.0 == m.id).expect("it is seen").1;
        seen.silent_ms >= 3_000
            && !matches!(seen.provider, Some(ProviderWord::Absent | ProviderWord::Terminal))
    };
    let silent = up().filter(silent).count();
    assert!(silent <= 3 || silent * 3 <= up().count(), "made while many are silent");
}

proptest! {
    #![proptest_config(cases(400))]

    /// Over everything that a history leads to: the plan holds only legal
    /// moves; what was carried out is not wanted again; and once nothing
    /// happens any more, nothing more is wanted.
    #[test]
    fn a_second_pass_over_the_same_facts_wants_nothing_again(
        history in proptest::collection::vec((0u8..30, any::<u8>()), 0..120),
        ids_fall: bool,
        max_usd in proptest::option::of(0.01f64..5.0),
        usd_per_hour in prop::sample::select(vec![0.0, 1.0]),
    ) {
        let mut world = after(&history, ids_fall, max_usd, usd_per_hour);
        let mut before: Vec<Action> = Vec::new();
        for pass in 0..=PASSES {
            let snapshot = world.snapshot();
            let actions = plan(&snapshot, &world.clocks);
            check(&snapshot, &actions);
            for action in actions.iter().filter(|a| !polls(a)) {
                prop_assert!(!before.contains(action), "wanted again: {:?}", action);
            }
            perform(&mut world, &actions);
            if actions.iter().all(polls) && (actions.is_empty() || world.plan() == actions) {
                break;
            }
            prop_assert!(pass < PASSES, "no rest after {} passes: {:?}", PASSES, actions);
            before = actions;
        }
    }

    /// Whoever plans twice wants the same: nothing but the facts decides.
    #[test]
    fn a_plan_depends_on_the_facts_alone(history in proptest::collection::vec((0u8..30, any::<u8>()), 0..80)) {
        let world = after(&history, false, None, 0.0);
        prop_assert_eq!(world.plan(), world.plan());
    }
}

/// Machines made more than an hour ago end no storm before it began, and more
/// than the limit's worth of them end it only once few enough are left.
#[test]
fn a_storm_is_over_when_another_machine_may_be_made() {
    let mut world = World::new();
    let run = world.submit("a", None, None);
    let limit = CREATES_PER_HOUR as u64;
    let began = world.wall_ms;
    world.wait(HOUR_MS + 1_000);
    let creates = (0..limit + 3).map(|n| if n == 0 { began } else { world.wall_ms - 100_000 + n * 1_000 });
    world.run(run).creates_ms = creates.collect();
    world.run(run).status = RunState::Recovering;
    assert_eq!(world.plan(), [Action::Storm(run)]);
    perform(&mut world, &[Action::Storm(run)]);
    assert_eq!(world.plan(), [], "it was over as it began");

    // Two are one too many: the third of those that count lets one be made.
    let third = world.run(run).creates_ms[3];
    world.wait(third + HOUR_MS - world.wall_ms - 1);
    assert_eq!(world.plan(), [], "before the hour of the third ended");
    world.wait(1);
    assert_eq!(world.plan(), [Action::Answer(run)]);
    perform(&mut world, &[Action::Answer(run)]);
    assert_eq!(world.plan(), [Action::Intend(run)]);
}

fn machine_state() -> impl Strategy<Value = MachineState> {
    prop::sample::select(vec![
        MachineState::Intent,
        MachineState::Calling,
        MachineState::Unknown,
        MachineState::Created,
        MachineState::Booting,
        MachineState::Ready,
        MachineState::Ready,
        MachineState::Suspect,
        MachineState::Suspect,
        MachineState::Lost { cause: LossCause::Gone },
        MachineState::Destroying,
    ])
}

fn observation() -> impl Strategy<Value = Observation> {
    let word = prop::sample::select(vec![ProviderWord::Alive, ProviderWord::Terminal, ProviderWord::Absent]);
    let silence = prop::sample::select(vec![0u64, 500, 3_000, 8_000, 15_000, 30_000, 900_000]);
    (silence, any::<bool>(), any::<bool>(), proptest::option::of(word), proptest::option::of(0u64..3_000))
        .prop_map(|(silent_ms, attached, broke, provider, asked_ms_ago)| Observation {
            boots_longer_ms: 0,
            returns: false,
            silent_ms,
            attached,
            broke,
            provider,
            farewell: false,
            asked_ms_ago,
        })
}

/// Rows as the world makes them, then changed at will.
fn rows() -> (Run, Attempt, Machine) {
    let mut world = after(&[(7, 5), (7, 5), (7, 5), (12, 0), (7, 5)], false, None, 0.0);
    for _ in 0..4 {
        let actions = world.plan();
        perform(&mut world, &actions);
        let ids: Vec<_> = world.machines.iter().map(|m| m.id).collect();
        for id in ids {
            world.attach(id);
        }
    }
    (world.runs[0].clone(), world.attempts[0].clone(), world.machines[0].clone())
}

fn mostly_not() -> impl Strategy<Value = bool> {
    proptest::bool::weighted(0.12)
}

proptest! {
    #![proptest_config(cases(4_000))]

    /// Also over snapshots that no history leads to.
    #[test]
    fn no_snapshot_makes_a_plan_that_harms(
        machines in proptest::collection::vec(
            (machine_state(), observation(), mostly_not(), mostly_not(), mostly_not(), proptest::option::of(any::<u8>())), 0..7),
        status in prop::sample::select(vec![
            RunState::Queued, RunState::Provisioning, RunState::Running, RunState::Running, RunState::Recovering,
            RunState::Cancelled, RunState::Paused,
        ]),
        wish in prop::sample::select(vec![Wish::Run, Wish::Run, Wish::Stop, Wish::Kill]),
        live: bool,
        creates in 0usize..8,
        usd_per_hour in prop::sample::select(vec![0.0, 1.0]),
    ) {
        let (mut run, mut attempt, mut template) = rows();
        template.usd_per_hour = usd_per_hour;
        // Only a run that is RUNNING, held or over can have a live attempt.
        let live = live && matches!(status, RunState::Running | RunState::Cancelled | RunState::Paused);
        run.status = status;
        run.wish = wish;
        run.creates_ms = vec![1_000_000; creates];
        if !live {
            attempt.status = AttemptState::Ended { exit: Exit::Code { code: 1 } };
        }
        let mut snapshot = Snapshot { now_ms: 1_000_100, ..Snapshot::default() };
        for (n, (status, seen, given_up, condemned, stranger, notice)) in machines.into_iter().enumerate() {
            let id = MachineId::from_bytes([u8::try_from(n).unwrap() + 1; 16]);
            let run = if stranger { RunId::from_bytes([99; 16]) } else { run.id };
            // The first one is the bound one.
            let notice = notice.and_then(|which| Notice::after(None, &said(which), 1_000_000)).map(|(notice, _)| notice);
            let machine = Machine { id, run, status, given_up, condemned, notice, ..template.clone() };
            snapshot.machines.push(machine.into());
            snapshot.seen.push((id, seen, 20_000));
        }
        attempt.machine = MachineId::from_bytes([1; 16]);
        snapshot.runs = vec![run.into()];
        snapshot.bound = vec![attempt.into()];
        check(&snapshot, &plan(&snapshot, &Clocks::default()));
    }
}
