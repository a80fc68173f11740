//! Replays whose outcome can be worked out by hand, and what holds for all.

use super::*;
use proptest::prelude::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Zones that are up in these spans of minutes.
fn zones(minutes: &[&[(u64, u64)]], end: u64) -> Vec<Zone> {
    let zone = |number: usize, spans: &[(u64, u64)]| {
        let changes = spans.iter().flat_map(|(from, to)| [(from * MINUTE, true), (to * MINUTE, false)]);
        Zone::from_changes(&format!("z{number}"), changes, end * MINUTE)
    };
    minutes.iter().enumerate().map(|(number, spans)| zone(number, spans)).collect()
}

fn policy(name: &str) -> &'static Policy {
    POLICIES.iter().find(|policy| policy.name == name).unwrap()
}

fn run(zones: &[Zone], settings: &Settings, name: &str) -> Tally {
    replay(zones, 0, settings, policy(name)).unwrap()
}

#[test]
fn an_hourly_cadence_loses_what_was_not_saved() {
    // Up for 150 minutes, then taken back for good.
    let zones = zones(&[&[(0, 150)]], 200);
    let tally = run(&zones, &Settings::default(), "hourly");
    // It starts after 90 s and saves after an hour, twice. The rest is lost.
    let lost = 150 * MINUTE - (90_000 + 2 * (HOUR + 5_000));
    assert_eq!((tally.useful_ms, tally.repeated_ms, tally.saves), (2 * HOUR, lost, 2));
    assert_eq!((tally.losses, tally.machines, tally.saving_ms), (1, 1, 10_000));
    assert_eq!((tally.spot_ms, tally.possible_ms), (150 * MINUTE, 150 * MINUTE));
    assert!((tally.usd - 0.918 * 2.5).abs() < 1e-9, "paid until it was taken back, not until that was known");
    assert!((tally.goodput() - 120.0 / 150.0).abs() < 1e-9);
}

#[test]
fn a_notice_saves_the_work_and_another_zone_takes_over_before_the_end() {
    let zones = zones(&[&[(0, 150)], &[(100, 400)]], 400);
    let told = run(&zones, &Settings::default(), "ours");
    assert_eq!((told.losses, told.left_in_time, told.repeated_ms), (1, 1, 0));
    let deaf = run(&zones, &Settings { notice_ms: 0, ..Settings::default() }, "ours");
    assert_eq!((deaf.losses, deaf.left_in_time), (1, 0));
    assert!(deaf.repeated_ms > 0 && deaf.useful_ms + 100_000 < told.useful_ms, "{deaf:?}\n{told:?}");
    // With a notice the program never waits for a machine: what it does not
    // compute, it saves, except for the first start.
    assert_eq!(told.useful_ms + told.saving_ms + 90_000, 400 * MINUTE);
}

#[test]
fn slow_detection_costs_its_time_and_is_the_planners() {
    let zones = zones(&[&[(0, 100)], &[(90, 300)]], 300);
    let at = |detect_ms| {
        let settings = Settings { notice_ms: 0, detect_ms, ..Settings::default() };
        run(&zones, &settings, "half-hourly")
    };
    let (quick, slow) = (at(2_000), at(380_000));
    let later = quick.useful_ms - slow.useful_ms;
    assert!((377_000..=380_000).contains(&later), "{later}");
    assert_eq!(quick.losses, slow.losses);
}

#[test]
fn the_limit_of_machines_per_hour_is_in_force() {
    // Five minutes up, one down, for three hours.
    let spans: Vec<(u64, u64)> = (0..30).map(|n| (n * 6, n * 6 + 5)).collect();
    let tally = run(&zones(&[&spans], 180), &Settings { notice_ms: 0, ..Settings::default() }, "ours");
    assert!(tally.storms >= 1, "{tally:?}");
    assert!(tally.machines <= 3 * crate::plan::CREATES_PER_HOUR as u32, "{tally:?}");
}

#[test]
fn losses_without_one_durable_step_are_given_up_as_in_production() {
    // Twenty minutes up, ten down: an hourly cadence never saves anything.
    let spans: Vec<(u64, u64)> = (0..20).map(|n| (n * 30, n * 30 + 20)).collect();
    let zones = zones(&[&spans], 600);
    let hourly = run(&zones, &Settings::default(), "hourly");
    assert_eq!((hourly.useful_ms, hourly.given_up), (0, 2), "{hourly:?}");
    let ours = run(&zones, &Settings { notice_ms: 0, ..Settings::default() }, "ours");
    assert!(ours.given_up == 0 && ours.goodput() > 0.7, "{ours:?}");
}

#[test]
fn work_ends_with_its_last_save_and_the_machine_is_given_back() {
    let settings = Settings { work_ms: Some(HOUR), ..Settings::default() };
    let tally = run(&zones(&[&[(10, 500)]], 500), &settings, "half-hourly");
    // Refusals are asked again after 2, 4, 8 ... 60 s: at 602 s in the end.
    let began =
        tally.spans.iter().find(|span| matches!(span.doing, Doing::Spot(_))).unwrap().from_ms - 90_000;
    assert!((10 * MINUTE..=11 * MINUTE).contains(&began), "{began}");
    assert!(tally.finished && !tally.missed);
    assert_eq!(tally.took_ms, began + 90_000 + HOUR + 2 * 5_000);
    assert_eq!(tally.spot_ms, tally.took_ms - began);
}

#[test]
fn the_safety_net_is_on_demand_and_without_it_the_deadline_passes() {
    // Never any spot: every rule waits, and is in time all the same.
    let none = zones(&[&[]], 20 * 60);
    let settings = Settings { work_ms: Some(4 * HOUR), deadline_ms: Some(6 * HOUR), ..Settings::default() };
    for name in ["ours", "greedy", "uniform-progress", "on-demand"] {
        let tally = run(&none, &settings, name);
        assert!(tally.finished && !tally.missed, "{name}: {tally:?}");
        assert!(tally.on_demand_ms >= 4 * HOUR && tally.spot_ms == 0, "{name}: {tally:?}");
    }
    let unbound = Settings { deadline_ms: None, ..settings };
    assert_eq!(run(&none, &unbound, "ours").useful_ms, 0, "no deadline: it waits for spot for ever");
}

#[test]
fn ours_leaves_on_demand_for_spot_that_comes_late_and_greedy_does_not() {
    // Spot only in the last hours; the deadline makes both start on-demand.
    let late = zones(&[&[(5 * 60, 24 * 60)]], 24 * 60);
    let settings = Settings { work_ms: Some(8 * HOUR), deadline_ms: Some(10 * HOUR), ..Settings::default() };
    let (ours, greedy) = (run(&late, &settings, "ours"), run(&late, &settings, "greedy"));
    assert!(!ours.missed && !greedy.missed);
    assert_eq!(greedy.spot_ms, 0, "{greedy:?}");
    assert!(ours.spot_ms > 4 * HOUR && ours.usd < 0.65 * greedy.usd, "{ours:?}\n{greedy:?}");
}

#[test]
fn a_zone_whose_machines_live_longer_is_taken_first_once_that_is_known() {
    // The first zone takes back every 40 minutes, the second never.
    let short: Vec<(u64, u64)> = (0..60).map(|n| (n * 40, n * 40 + 39)).collect();
    let zones = zones(&[&short, &[(0, 2_400)]], 2_400);
    let (ours, greedy) = (
        run(&zones, &Settings { notice_ms: 0, ..Settings::default() }, "ours"),
        run(&zones, &Settings { notice_ms: 0, ..Settings::default() }, "greedy"),
    );
    assert!(ours.losses <= 2 && ours.losses <= greedy.losses, "{} {}", ours.losses, greedy.losses);
}

#[test]
fn an_empty_recording_is_refused() {
    let settings = Settings::default();
    assert!(matches!(replay(&[], 0, &settings, policy("ours")), Err(ReplayError::Empty)));
    let zones = zones(&[&[(0, 10)]], 10);
    assert!(matches!(replay(&zones, 10 * MINUTE, &settings, policy("ours")), Err(ReplayError::Empty)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Over any market: time and money add up, the same input gives the same
    /// output, and no rule lets a deadline pass that on-demand could meet.
    #[test]
    fn every_replay_adds_up_and_no_deadline_passes(
        seed: u64, count in 1u32..4, work_h in 1u64..30, spare_pct in 8u64..120, detect_s in 0u64..60,
        notice_s in prop::sample::select(vec![0u64, 30, 120]), from_h in 0u64..24,
    ) {
        let zones = generate::generate(count, 6.0, seed);
        let settings = Settings {
            work_ms: Some(work_h * HOUR),
            deadline_ms: Some(work_h * HOUR * (100 + spare_pct) / 100 + 30 * MINUTE),
            notice_ms: notice_s * 1_000,
            detect_ms: detect_s * 1_000,
            ..Settings::default()
        };
        for policy in POLICIES.iter().filter(|policy| policy.cadence == Cadence::Adaptive) {
            let tally = replay(&zones, from_h * HOUR, &settings, policy).unwrap();
            prop_assert!(tally.finished && !tally.missed, "{}: {:?}", policy.name, Tally { spans: vec![], ..tally });
            prop_assert_eq!(tally.useful_ms, work_h * HOUR);
            let busy = tally.useful_ms + tally.repeated_ms + tally.saving_ms;
            prop_assert!(busy <= tally.took_ms, "{}: busy for longer than it took", policy.name);
            prop_assert!(tally.useful_ms <= tally.possible_ms);
            prop_assert!(tally.took_ms <= tally.spans.iter().map(|span| span.to_ms - span.from_ms).sum::<u64>());
            // The same again, bit for bit.
            let again = replay(&zones, from_h * HOUR, &settings, policy).unwrap();
            prop_assert_eq!(tally.usd.to_bits(), again.usd.to_bits());
            prop_assert_eq!(tally, again);
        }
    }

    /// Saves as the losses make them best beat what people write, over any market.
    #[test]
    fn the_adaptive_cadence_beats_fixed_ones(seed: u64) {
        let zones = generate::generate(2, 6.0, seed);
        let settings = Settings { notice_ms: 0, ..Settings::default() };
        let of = |name: &str| run(&zones, &settings, name).useful_ms;
        prop_assert!(of("ours") * 100 >= of("hourly") * 99, "{} {}", of("ours"), of("hourly"));
        let told = run(&zones, &Settings::default(), "ours");
        prop_assert!(told.useful_ms * 1_000 >= of("ours") * 995, "notices do harm: {} {}", told.useful_ms, of("ours"));
    }
}

#[test]
fn windows_are_drawn_from_the_seed_and_alike_for_all_policies() {
    let zones = generate::generate(2, 20.0, 3);
    let settings = Settings { work_ms: Some(10 * HOUR), deadline_ms: Some(15 * HOUR), ..Settings::default() };
    let of = |seed, name| windows(&zones, 12, seed, &settings, policy(name)).unwrap();
    assert_eq!(of(1, "ours"), of(1, "ours"));
    assert_ne!(of(1, "ours"), of(2, "ours"));
    let (ours, kept) = (of(1, "ours"), of(1, "on-demand"));
    assert_eq!((ours.windows, ours.missed, ours.finished), (12, 0, 12));
    assert!(ours.mean_usd < kept.mean_usd, "{ours:?} {kept:?}");
}
