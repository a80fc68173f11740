//! What caps bear, refuse, keep back and share, in tables and for any wishes.

use std::sync::Arc;

use lifecycle::{MachineId, RunId};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::plan::Snapshot;

const HOUR: u64 = 3_600_000;

fn spec(run: Option<f64>, hour: Option<f64>) -> RunSpec {
    serde_json::from_value(json!({
        "project": "p", "name": "n", "command": ["x"], "provider": "vast", "max_usd": run, "max_usd_per_hour": hour
    }))
    .unwrap()
}

fn run(n: u8, spec: &RunSpec) -> Run {
    serde_json::from_value(json!({
        "id": RunId::from_bytes([n; 16]), "name": format!("r{n}"), "spec": spec, "status": {"state": "running"},
        "created_ms": 1, "generation": 0, "bound": null, "attempts": 0,
        "source": {"key": "", "digest": ""}, "head": null, "outputs": null, "produced_step": null, "endings": [],
        "wish": "run", "token": ""
    }))
    .unwrap()
}

/// A machine that runs since the hour 1 at a dollar and ten cents.
fn machine(n: u8, run: u8) -> Machine {
    let mut machine: Machine = serde_json::from_value(json!({
        "id": MachineId::from_bytes([n; 16]), "provider": "vast", "label": "", "run": RunId::from_bytes([run; 16]),
        "status": {"state": "ready"}, "instance": "1", "created_ms": HOUR, "called_ms": HOUR, "usd_per_hour": 1.1
    }))
    .unwrap();
    let rates = Rates { compute_usd_per_hour: 1.0, disk_usd_per_hour: 0.1, ..Rates::default() };
    machine.meter.begin(HOUR, rates);
    machine.meter.look(HOUR, lifecycle::meter::Billed::All, rates);
    machine
}

fn world(now_ms: u64, runs: Vec<Run>, machines: Vec<Machine>) -> Snapshot {
    let runs = runs.into_iter().map(Arc::new).collect();
    let machines = machines.into_iter().map(Arc::new).collect();
    Snapshot { now_ms, runs, machines, paid: ["vast".to_owned()].into(), ..Snapshot::default() }
}

#[test]
fn what_is_billed_needs_both_caps_and_says_which_are_missing() {
    assert_eq!(is_capped(&spec(None, None), false), Ok(()));
    assert_eq!(is_capped(&spec(Some(1.0), Some(0.5)), true), Ok(()));
    let none = is_capped(&spec(None, None), true).unwrap_err();
    assert!(none.contains("max_usd = ") && none.contains("max_usd_per_hour = "), "{none}");
    let one = is_capped(&spec(Some(1.0), None), true).unwrap_err();
    assert!(!one.contains("max_usd = ") && one.contains("max_usd_per_hour = "), "{one}");
}

#[test]
fn a_cap_below_what_is_kept_back_is_refused_with_the_least_that_would_do() {
    let told = is_enough(&spec(Some(0.10), Some(0.6)), true).unwrap_err();
    assert!(told.contains("budget.max_usd must be more than $0.68"), "{told}");
    assert_eq!(is_enough(&spec(Some(1.0), Some(0.6)), true), Ok(()));
    assert_eq!(is_enough(&spec(Some(0.1), Some(0.6)), false), Ok(()));
}

#[test]
fn what_is_kept_back_is_the_end_of_the_machine_and_two_days_of_its_disk() {
    let mut owner = run(1, &spec(Some(10.0), Some(2.0)));
    owner.spec.grace_seconds = 300;
    owner.head_bytes = 2_000_000_000;
    let rates = Rates {
        compute_usd_per_hour: 0.9,
        disk_usd_per_hour: 0.1,
        up_usd_per_gb: 0.05,
        down_usd_per_gb: 0.0,
    };
    // 20 minutes of the machine, 48 hours of its disk, the newest checkpoint once.
    let kept = reserve(&rates, true, &owner.spec, owner.head_bytes);
    assert!((kept - (1.0 / 3.0 + 4.8 + 0.1)).abs() < 1e-9, "{kept}");
}

#[test]
fn a_project_and_a_day_are_shared_and_who_has_no_cap_follows_the_strictest() {
    let mut first = run(1, &spec(None, Some(2.0)));
    let mut second = run(2, &spec(None, Some(2.0)));
    first.spec.max_usd_project = Some(50.0);
    second.spec.max_usd_project = Some(20.0);
    second.spec.max_usd_day = Some(13.0);
    let mut other = run(3, &spec(None, Some(2.0)));
    other.spec.project = "q".into();
    let mut world =
        world(3 * HOUR, vec![first, second, other], vec![machine(1, 1), machine(2, 2), machine(3, 3)]);
    world.past.by_project.insert("p".into(), 3.0);
    world.past.today = 1.0;
    let rooms = Books::of(&world).rooms(&world.runs[0]);
    let told: Vec<_> =
        rooms.iter().map(|r| (r.scope, r.cap_usd, r.machines, (r.spent_usd * 10.0).round())).collect();
    assert_eq!(told, [(Scope::Project, 50.0, 2, 74.0), (Scope::Day, 13.0, 3, 76.0)]);
    assert!(
        Books::of(&world).exhausted(&world.runs[0]).is_some_and(|room| room.scope == Scope::Day),
        "{rooms:?}"
    );
}

#[test]
fn shares_of_what_may_be_spent_are_told_once_each_and_the_last_when_only_the_reserve_is_left() {
    let mut owner = run(1, &spec(Some(20.0), Some(2.0)));
    let at = |hours: u64, owner: &Run| {
        let world = world((1 + hours) * HOUR, vec![owner.clone()], vec![machine(1, 1)]);
        Books::of(&world).news().first().map(|(_, percent, _)| *percent)
    };
    // Of $20 some $5.08 are kept back: shares are of the $14.92 that may be spent.
    assert_eq!([6, 7, 11, 13, 14].map(|h| at(h, &owner)), [None, Some(50), Some(80), Some(80), Some(100)]);
    owner.told_percent = 50;
    assert_eq!(at(10, &owner), None);
    // The report that made this so: $0.59 of $6.00 is all that may be spent.
    let room =
        |spent_usd: f64| Room { scope: Scope::Run, cap_usd: 6.0, spent_usd, reserved_usd: 5.41, machines: 1 };
    assert_eq!([0.29, 0.30, 0.48, 0.60].map(|usd| room(usd).percent()), [0, 50, 80, 100]);
    assert_eq!(Room { reserved_usd: 6.5, ..room(0.0) }.percent(), 100);
}

#[test]
fn what_costs_nothing_goes_on_whatever_others_have_spent() {
    let mut free = run(1, &spec(None, None));
    free.spec.provider = "local".into();
    free.spec.max_usd_project = Some(10.0);
    let mut world = world(3 * HOUR, vec![free.clone()], Vec::new());
    world.past.by_project.insert("p".into(), 50.0);
    assert_eq!(Books::of(&world).exhausted(&free), None);
    assert!(Books::of(&world).news().is_empty());
    free.spec.usd_per_hour = Some(1.0);
    world.runs = vec![free.clone().into()];
    assert!(Books::of(&world).exhausted(&free).is_some());
}

#[test]
fn machines_of_one_cap_share_what_is_left_of_it() {
    let runs: Vec<Run> = (1..=5)
        .map(|n| {
            let mut one = run(n, &spec(None, Some(2.0)));
            one.spec.max_usd_project = Some(100.0);
            one
        })
        .collect();
    let world = world(2 * HOUR, runs, (1..=5).map(|n| machine(n, n)).collect());
    let room = &Books::of(&world).rooms(&world.runs[0])[0];
    let all = Books::of(&world).allowances();
    let spent_alone: f64 = all.iter().map(|(_, ms)| hours(ms.unwrap()) * 1.1).sum();
    assert_eq!(all.len(), 5);
    assert!((spent_alone - room.left_usd()).abs() < 0.001, "{spent_alone} {room:?}");
}

/// Fifty runs that all spend at once under one cap, each with a machine of the
/// dearest price, a vendor that bills every second of them, looks that come late,
/// and a controller that is away for hours: the vendor's books end below the cap.
#[test]
fn fifty_runs_that_spend_at_once_end_below_one_cap_in_the_vendors_books() {
    let mut bills = Vec::new();
    for (day_cap, project_cap) in [(Some(200.0), None), (None, Some(200.0))] {
        let mut world = world(HOUR, Vec::new(), Vec::new());
        for n in 1..=50 {
            let mut wished = run(n, &spec(Some(60.0), Some(1.1)));
            (wished.spec.max_usd_day, wished.spec.max_usd_project) = (day_cap, project_cap);
            world.runs.push(wished.into());
        }
        // What the vendor takes for machines that are there, dollars; it bills a
        // machine until the moment at which it is gone for the vendor.
        let (mut billed, mut most_at_once, mut stopped) = (0.0, 0, 0);
        let minute = 60_000;
        let (mut away, mut left_ms): (u64, BTreeMap<MachineId, u64>) = (0, BTreeMap::new());
        for tick in 0..20 * 60_u64 {
            // Away from the second hour to the fifth: agents end by their allowance.
            let present = !(120..300).contains(&tick);
            if present {
                away = 0;
                let books = Books::of(&world);
                left_ms = books.allowances().into_iter().map(|(id, ms)| (id, ms.unwrap_or(0))).collect();
                let over: Vec<RunId> = world
                    .runs
                    .iter()
                    .filter(|run| books.exhausted(run).is_some())
                    .map(|run| run.id)
                    .collect();
                let wants: Vec<Arc<Run>> = world.runs.iter().filter(|run| spends(run)).cloned().collect();
                drop(books);
                for id in over {
                    Arc::make_mut(world.runs.iter_mut().find(|run| run.id == id).unwrap()).wish = Wish::Stop;
                    stopped += usize::from(world.machines.iter().any(|machine| machine.run == id));
                    end(&mut world, |machine| machine.run == id);
                }
                for wished in wants {
                    let n = wished.name[1..].parse::<u8>().unwrap();
                    let has = world.machines.iter().any(|one| one.run == wished.id);
                    // One create after another, each over books of its own.
                    if !has && Books::of(&world).refuses(&wished).is_none() && tick < 18 * 60 {
                        let mut begun = machine(n, n);
                        begun.meter = lifecycle::meter::Meter::default();
                        begun.meter.begin(world.now_ms, expected(&wished.spec, &wished.spec.machine, true));
                        world.machines.push(begun.into());
                    }
                }
                most_at_once = most_at_once.max(world.machines.len());
            } else {
                away += minute;
                let spent: Vec<MachineId> =
                    left_ms.iter().filter(|(_, ms)| **ms <= away).map(|(id, _)| *id).collect();
                end(&mut world, |machine| spent.contains(&machine.id));
            }
            billed += world.machines.len() as f64 * 1.1 * hours(minute);
            world.now_ms += minute;
            if tick % 7 == 0 && present {
                for machine in &mut world.machines {
                    let machine = Arc::make_mut(machine);
                    let rates = machine.meter.rates;
                    machine.meter.look(world.now_ms, lifecycle::meter::Billed::All, rates);
                }
            }
        }
        assert!(most_at_once > 20, "{most_at_once} spent at once");
        assert!(stopped > 0, "the cap ended nobody");
        assert!(billed > 60.0, "hardly anything was spent: {billed}");
        bills.push(billed);
    }
    assert!(bills.iter().all(|billed| *billed <= 200.0), "the vendor billed {bills:?}");
}

/// Ends machines: what they have cost, and what they may cost until they are gone.
fn end(world: &mut Snapshot, which: impl Fn(&Machine) -> bool) {
    let (gone, left): (Vec<_>, Vec<_>) = world.machines.drain(..).partition(|machine| which(machine));
    world.machines = left;
    for machine in gone {
        let usd = machine.cost_usd(world.now_ms);
        world.past.today += usd;
        *world.past.by_project.entry("p".into()).or_default() += usd;
        world.spent.push((machine.run, usd));
    }
}

proptest! {
    /// Whatever is wished for, and whenever: what is spent and kept back stays
    /// below the cap at every beginning, and what machines may spend alone ends
    /// above no cap.
    #[test]
    fn i16_what_is_begun_fits_below_every_cap(
        caps in proptest::collection::vec((1.0f64..40.0, 0.05f64..3.0), 1..12),
        project in 1.0f64..60.0,
        pauses in proptest::collection::vec(0u64..(2 * HOUR), 12),
    ) {
        let mut world = world(HOUR, Vec::new(), Vec::new());
        for (n, (cap, hour)) in caps.iter().enumerate() {
            let id = u8::try_from(n + 1).unwrap();
            let mut wished = run(id, &spec(Some(*cap), Some(*hour)));
            wished.spec.max_usd_project = Some(project);
            world.runs.push(wished.clone().into());
            // Nobody goes on longer than the allowance, with a controller or without.
            let alone = Books::of(&world).allowances().iter().filter_map(|(_, ms)| *ms).min().unwrap_or(u64::MAX);
            world.now_ms += pauses[n].min(alone);
            if Books::of(&world).refuses(&wished).is_none() {
                let mut begun = machine(id, id);
                let rates = expected(&wished.spec, &wished.spec.machine, true);
                begun.meter = lifecycle::meter::Meter::default();
                begun.meter.begin(world.now_ms, rates);
                world.machines.push(begun.into());
                for room in Books::of(&world).rooms(&wished) {
                    prop_assert!(room.spent_usd + room.reserved_usd <= room.cap_usd, "{room:?}");
                }
            }
        }
        // Nobody is heard of any more: each machine uses its allowance, and its end.
        let alone = Books::of(&world).allowances();
        let before = world.clone();
        for (id, ms) in alone {
            let last = world.now_ms + ms.unwrap();
            let owner = world.machines.iter().find(|m| m.id == id).map(|m| m.run).unwrap();
            let owner = before.runs.iter().find(|r| r.id == owner).unwrap().clone();
            let begun = Arc::make_mut(world.machines.iter_mut().find(|m| m.id == id).unwrap());
            let rates = begun.meter.rates;
            begun.meter.look(last, lifecycle::meter::Billed::All, rates);
            begun.meter.end(last);
            begun.status = MachineState::Destroyed;
            // What was kept back for it is spent too.
            world.past.today += reserve(&rates, true, &owner.spec, owner.head_bytes);
            world.spent.push((owner.id, reserve(&rates, true, &owner.spec, owner.head_bytes) + begun.meter.at(last).total()));
        }
        let all: f64 = world.spent.iter().map(|(_, usd)| usd).sum();
        if world.machines.iter().any(|m| m.meter.is_on()) {
            prop_assert!(all <= project + 1e-6 || before.machines.is_empty(), "{all} > {project}");
        }
        for owner in &before.runs {
            let mine: f64 = world.spent.iter().filter(|(id, _)| *id == owner.id).map(|(_, usd)| usd).sum();
            prop_assert!(mine <= owner.spec.max_usd.unwrap() + 1e-6, "{mine}");
        }
    }
}
