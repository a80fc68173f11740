//! What the rule for old checkpoints keeps.

use proptest::prelude::*;

use super::*;

const HOUR_MS: u64 = 3_600_000;
/// A Wednesday at noon: 2026-01-07T12:00:00Z.
const NOW: u64 = 1_767_787_200_000;

fn save(key: &str, step: u64, age_hours: u64) -> Save<'_> {
    let committed_ms = NOW - age_hours * HOUR_MS;
    Save { key, step: Some(step), committed_ms, pinned: false, score: None, needed: None }
}

fn kept<'a>(plan: &Plan<'a>) -> Vec<&'a str> {
    plan.keep.keys().copied().collect()
}

#[test]
fn the_usual_rule_thins_with_age() {
    let keys: Vec<String> = (0..400_u64).map(|n| format!("k{n:04}")).collect();
    // One save every twelve hours for two hundred days; the newest is `k0000`.
    let saves: Vec<Save<'_>> = (0..400_u64).map(|n| save(&keys[n as usize], 400 - n, n * 12)).collect();
    let plan = plan(&Retention::default(), &saves, NOW);
    let of = |test: fn(&Reason) -> bool| plan.keep.values().flatten().filter(|r| test(r)).count();
    assert_eq!(of(|r| matches!(r, Reason::Recent)), 14, "all of seven days");
    assert_eq!(of(|r| matches!(r, Reason::Daily(_))), 30, "one of each of thirty days");
    assert_eq!(of(|r| matches!(r, Reason::Weekly(_))), 27, "26 weeks touch 27 calendar weeks");
    assert_eq!(of(|r| matches!(r, Reason::Latest(_))), 3);
    assert_eq!(plan.keep.len() + plan.unlink.len(), 400);
    assert_eq!(plan.unlink.first(), Some(&"k0399"), "the oldest is named first");
    assert!(plan.keep.contains_key("k0000"));
}

#[test]
fn of_a_day_and_of_a_week_the_last_is_kept() {
    let rule = Retention { latest: 1, best: 0, all_days: 0, daily_days: 30, weekly_days: 182 };
    // Noon minus 25 h and minus 30 h lie on one day, minus 40 h on the one before.
    let saves = [save("a", 1, 36 + 9), save("b", 2, 30), save("c", 3, 25), save("d", 4, 1)];
    let plan = plan(&rule, &saves, NOW);
    assert_eq!(kept(&plan), ["a", "c", "d"]);
    assert_eq!(plan.unlink, ["b"]);
    // Sunday 23:00 and Monday 01:00 belong to different weeks.
    let rule = Retention { daily_days: 0, ..rule };
    let saves = [save("sunday", 1, 61), save("monday", 2, 59), save("now", 3, 0)];
    let plan = super::plan(&rule, &saves, NOW);
    assert_eq!(kept(&plan), ["now", "sunday"]);
}

#[test]
fn best_latest_pinned_and_needed_stay_however_old() {
    let rule = Retention { latest: 1, best: 2, all_days: 0, daily_days: 0, weekly_days: 0 };
    let old = 24 * 400;
    let saves = [
        Save { score: Some(0.5), ..save("third", 1, old) },
        Save { score: Some(0.1), ..save("best", 2, old) },
        Save { score: Some(f64::NAN), ..save("nan", 3, old) },
        Save { score: Some(0.2), ..save("tied", 4, old) },
        Save { score: Some(0.2), ..save("second", 5, old) },
        Save { pinned: true, ..save("pinned", 6, old) },
        Save { needed: Some(Need::Fork), ..save("fork", 7, old) },
        save("plain", 8, old),
        save("newest", 9, old),
    ];
    let plan = plan(&rule, &saves, NOW);
    assert_eq!(kept(&plan), ["best", "fork", "newest", "pinned", "second"]);
    assert_eq!(plan.unlink, ["third", "nan", "tied", "plain"]);
    assert_eq!(plan.keep["second"].first().unwrap().to_string(), "among the best (2)");
}

#[test]
fn the_newest_stays_under_a_rule_that_keeps_nothing() {
    let rule = Retention { latest: 0, best: 0, all_days: 0, daily_days: 0, weekly_days: 0 };
    let saves = [save("a", 1, 2), save("b", 2, 1)];
    assert_eq!(kept(&plan(&rule, &saves, NOW)), ["b"]);
    // By step, not by the order of arrival; one without a step is older.
    let late = Save { step: None, ..save("late", 0, 0) };
    assert_eq!(kept(&plan(&rule, &[late, saves[0].clone()], NOW)), ["a"]);
    assert_eq!(plan(&rule, &[], NOW), Plan::default());
}

fn any_save() -> impl Strategy<Value = (Option<u64>, u64, bool, Option<f64>, bool)> {
    let time = prop_oneof![0..=NOW, (NOW - 200 * DAY_MS)..=(NOW + DAY_MS)];
    (proptest::option::of(0..50_u64), time, any::<bool>(), proptest::option::of(-2.0..2.0_f64), any::<bool>())
}

proptest! {
    #[test]
    fn nothing_that_must_stay_goes_and_nothing_is_forgotten(
        made in proptest::collection::vec(any_save(), 0..60),
        latest in 0..5_u32, best in 0..4_u32, all_days in 0..10_u32, daily_days in 0..40_u32,
        weekly_days in 0..200_u32, later in 0..400_u64,
    ) {
        let keys: Vec<String> = (0..made.len()).map(|n| format!("k{n}")).collect();
        let saves: Vec<Save<'_>> = made.iter().zip(&keys).map(|(&(step, committed_ms, pinned, score, live), key)| {
            let needed = live.then_some(Need::Live);
            Save { key, step, committed_ms, pinned: pinned && committed_ms % 3 == 0, score, needed }
        }).collect();
        let rule = Retention { latest, best, all_days, daily_days, weekly_days };
        let first = plan(&rule, &saves, NOW);
        prop_assert_eq!(first.keep.len() + first.unlink.len(), saves.len());
        for save in &saves {
            let must = save.pinned || save.needed.is_some()
                || NOW.saturating_sub(save.committed_ms) < u64::from(all_days) * DAY_MS;
            prop_assert!(!must || first.keep.contains_key(save.key), "{:?}", save);
        }
        prop_assert_eq!(first.keep.is_empty(), saves.is_empty());
        // What was let go stays let go: the rest judged again gives the same.
        let rest: Vec<Save<'_>> =
            saves.iter().filter(|s| first.keep.contains_key(s.key)).cloned().collect();
        let again = plan(&rule, &rest, NOW);
        prop_assert!(again.unlink.is_empty(), "{:?}", again.unlink);
        // And time alone never brings a reason back.
        let aged = plan(&rule, &saves, NOW + later * DAY_MS);
        for key in aged.keep.keys() {
            let by_day = aged.keep[key].iter().all(|r| matches!(r, Reason::Daily(_) | Reason::Weekly(_)));
            prop_assert!(first.keep.contains_key(key) || by_day, "{}: {:?}", key, aged.keep[key]);
        }
    }
}
