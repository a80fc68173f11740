//! Each input in each phase that matters, and what may never happen.

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
    assert!(matches!(s.step(Input::Finished(None))[..], [Effect::Tell(Tell::Ended { started: true, .. })]));
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
fn what_lost_its_directory_is_ended_and_told() {
    let mut s = Supervisor::new(false);
    s.step(Input::Observed(Program::Running(7)));
    let effects = s.step(Input::Observed(Program::NotStarted));
    assert!(
        matches!(&effects[..], [Effect::Tell(Tell::Exited(_)), Effect::Kill, Effect::Finish(true)]),
        "{effects:?}"
    );
    assert!(matches!(&s.phase, Phase::Finishing(ended) if !ended.exit.is_success()));
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
    let [Effect::Tell(Tell::Ended { transient: true, hang, .. })] = &s.step(Input::Finished(None))[..] else {
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
