//! When a person is asked, with what answers, and what is taken by itself.

use super::*;

const NOW: u64 = 1_700_000_000_000;

fn after(trouble: Trouble, times: u32, every_ms: u64, not_before_ms: u64) -> (Refusals, u64) {
    let mut row = None;
    let mut now = NOW;
    for n in 0..times {
        now = NOW + u64::from(n) * every_ms;
        row = Some(Refusals::and(row, trouble, "no", not_before_ms, now));
    }
    (row.unwrap(), now)
}

#[test]
fn what_heals_by_itself_gets_time_and_what_does_not_is_asked_soon() {
    use Trouble as T;
    for (trouble, times, every_ms, not_before_ms, due) in [
        (T::NoOffer, 2, 60_000, 0, false),
        (T::NoOffer, 3, 10_000, 0, false),
        (T::NoOffer, 4, 20_000, 0, true),
        (T::Key, 1, 0, 0, false),
        (T::Key, 2, 2_000, 0, true),
        (T::Credit, 2, 2_000, 0, true),
        (T::Invalid, 2, 2_000, 0, true),
        (T::Quota, 1, 0, 0, false),
        (T::Quota, 1, 0, NOW + 5 * MINUTE_MS, false),
        (T::Quota, 1, 0, NOW + 600 * MINUTE_MS, true),
        (T::Passing, 10, 60_000, 0, false),
        (T::Passing, 17, 60_000, 0, true),
    ] {
        let (row, now) = after(trouble, times, every_ms, not_before_ms);
        assert_eq!(row.is_due(now), due, "{trouble:?} {times} times every {every_ms} ms");
    }
}

#[test]
fn another_trouble_is_counted_anew_and_asked_again_without_a_pause() {
    let (row, now) = after(Trouble::NoOffer, 3, 60_000, 0);
    let mut asked = row;
    asked.was_told();
    assert!(!asked.is_due(now), "the provider is asked before the person is");
    let same = Refusals::and(Some(asked.clone()), Trouble::NoOffer, "no", 0, now + 1_000);
    assert!(same.is_due(now + 1_000) && same.count == 4);
    assert!(refused("vast", &same, now).again);
    let other = Refusals::and(Some(asked), Trouble::Key, "401", 0, now + 1_000);
    assert!(!other.is_due(now + 1_000) && (other.count, other.since_ms) == (1, NOW));
    assert_eq!(
        Refusals::and(Some(other), Trouble::Key, "401", 0, NOW - 5).since_ms,
        NOW - 5,
        "a clock set back"
    );
}

#[test]
fn every_question_has_numbered_answers_a_default_and_a_later_deadline() {
    let (row, _) = after(Trouble::NoOffer, 3, 60_000, 0);
    let far = Refusals { not_before_ms: NOW + 90 * MINUTE_MS, trouble: Trouble::Quota, ..row.clone() };
    let late = Refusals { asked: 1_000, ..row.clone() };
    for question in [
        storm(6, NOW, NOW - 5),
        storm(6, NOW, NOW + 5),
        storm_unstarted(6, 6, "machine terminated; what it said last: sh: mkdir: not found", NOW, NOW + 5),
        refused("vast", &row, NOW),
        refused("vast", &far, NOW),
        refused("vast", &late, NOW),
        fruitless("7 machines were lost", NOW),
        no_checkpoint(Some(5), NOW),
    ] {
        assert!(question.deadline_ms > NOW && question.deadline_ms <= NOW + DAY_MS, "{question:?}");
        assert!(question.number_of(Verb::Stop).is_some() && question.answer(question.default).is_ok());
        assert!(question.answer(0).is_err() && question.answer(4).is_err());
        // What nobody answered must not spend more than what goes on anyway.
        assert!(matches!(question.by_default(), Verb::Wait | Verb::Stop), "{question:?}");
    }
    assert_eq!(refused("vast", &far, NOW).deadline_ms, NOW + 90 * MINUTE_MS);
    assert_eq!(refused("vast", &late, NOW).deadline_ms, NOW + 30 * MINUTE_MS);
    let said = storm(6, NOW, NOW + 5).answer(9).unwrap_err().to_string();
    assert!(said.starts_with("there is no answer 9; the answers are: 1 wait"), "{said}");
}

#[test]
fn what_a_provider_says_is_bounded_and_has_no_control_characters() {
    let row = Refusals::and(None, Trouble::Passing, &format!("\u{1b}[31m{}", "x".repeat(9_000)), 0, NOW);
    let question = refused("vast", &row, NOW);
    let all = question.evidence.join("");
    assert!(all.len() < 2_000 && !all.chars().any(char::is_control), "{all}");
}

#[test]
fn questions_of_older_rows_are_understood() {
    let old = r#"{"text":"?","options":["go on","stop"],"deadline_ms":7}"#;
    let question: Question = serde_json::from_str(old).unwrap();
    assert_eq!((question.kind, question.by_default()), (Kind::Storm, Verb::GoOn));
    assert_eq!(question.number_of(Verb::Stop), Some(2));
    let whole = serde_json::to_string(&storm(6, NOW, NOW + 5)).unwrap();
    assert_eq!(serde_json::from_str::<Question>(&whole).unwrap(), storm(6, NOW, NOW + 5));
}
