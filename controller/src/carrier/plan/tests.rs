//! Cases of the plan: what happened when, and what must be done then.

use super::*;
use proptest::prelude::*;

const JOIN: Act = Act::Dial(Lane::Join, Address::First);
const CONTROL: Act = Act::Dial(Lane::Control, Address::First);
const BULK: Act = Act::Dial(Lane::Bulk, Address::First);
const UP: Act = Act::BringUp(Address::First);

fn seen(joined: bool, attached: bool) -> Input {
    Input::Seen { joined, attached }
}

fn unconnected() -> End {
    End::Unconnected("Connection refused".into())
}

fn remote(code: i32) -> End {
    End::Remote { code, text: "it said so".into() }
}

/// One case: what happens at which millisecond, and what is to be done then.
type Case = (&'static str, Vec<(u64, Input, Vec<Act>)>);

fn no_agent() -> End {
    remote(i32::from(EXIT_NO_AGENT))
}

/// What comes with every machine.
fn usual() -> Vec<Case> {
    let control = |end: End| Input::Ended(Lane::Control, end);
    vec![
        (
            "a new machine is brought up, joins, and has its join lane hung up once it is heard",
            vec![
                (0, Input::Tick, vec![]),
                (0, seen(false, false), vec![UP]),
                (5_000, Input::Brought(Ok(())), vec![JOIN]),
                (5_500, Input::Open(Lane::Join), vec![]),
                (6_000, seen(true, false), vec![CONTROL, BULK]),
                (6_500, Input::Open(Lane::Control), vec![]),
                (6_600, Input::Open(Lane::Bulk), vec![]),
                (7_000, seen(true, true), vec![Act::Hang(Lane::Join)]),
                (7_100, Input::Ended(Lane::Join, End::Closed), vec![]),
                (90_000, Input::Tick, vec![]),
            ],
        ),
        (
            "a controller that comes back dials at once what is there, and brings nothing up",
            vec![(0, seen(true, false), vec![JOIN, CONTROL, BULK])],
        ),
        (
            "a lane that is cut is dialled again after a second, however often, and so is the join lane",
            vec![
                (0, seen(true, true), vec![CONTROL, BULK]),
                (100, Input::Open(Lane::Control), vec![]),
                (100, Input::Open(Lane::Bulk), vec![]),
                (1_000, control(End::Closed), vec![]),
                (1_100, seen(true, false), vec![JOIN]),
                (1_999, Input::Tick, vec![]),
                (2_000, Input::Tick, vec![CONTROL]),
                (2_300, Input::Open(Lane::Control), vec![]),
                (3_000, control(End::Closed), vec![]),
                (4_000, Input::Tick, vec![CONTROL]),
            ],
        ),
    ]
}

/// SSH does not connect, or there is no way.
fn unconnected_cases() -> Vec<Case> {
    let bulk = |end: End| Input::Ended(Lane::Bulk, end);
    let control = |end: End| Input::Ended(Lane::Control, end);
    vec![
        (
            "where SSH does not connect, pauses double to 32 s, both addresses have their turn, and lanes \
             that failed together count once",
            vec![
                (0, seen(true, true), vec![CONTROL, BULK]),
                (100, control(unconnected()), vec![]),
                (101, bulk(unconnected()), vec![]),
                (2_099, Input::Tick, vec![]),
                (
                    2_100,
                    Input::Tick,
                    vec![Act::Dial(Lane::Control, Address::Second), Act::Dial(Lane::Bulk, Address::Second)],
                ),
                (2_100, control(unconnected()), vec![]),
                (2_200, bulk(unconnected()), vec![]),
                (6_100, Input::Tick, vec![CONTROL, BULK]),
                (6_100, control(unconnected()), vec![]),
                (6_100, bulk(unconnected()), vec![]),
                (
                    14_100,
                    Input::Tick,
                    vec![Act::Dial(Lane::Control, Address::Second), Act::Dial(Lane::Bulk, Address::Second)],
                ),
                (14_100, control(unconnected()), vec![]),
                (14_100, bulk(unconnected()), vec![]),
                (30_100, Input::Tick, vec![CONTROL, BULK]),
                (30_100, control(unconnected()), vec![]),
                (30_100, bulk(unconnected()), vec![]),
                (62_099, Input::Tick, vec![]),
                (
                    62_100,
                    Input::Tick,
                    vec![Act::Dial(Lane::Control, Address::Second), Act::Dial(Lane::Bulk, Address::Second)],
                ),
                (62_100, control(unconnected()), vec![]),
                (94_100, Input::Tick, vec![CONTROL]),
            ],
        ),
        (
            "an address that is not known yet is asked for every two seconds, one that never will be every minute",
            vec![
                (0, seen(false, false), vec![UP]),
                (0, Input::Brought(Err(End::NotYet("no address".into()))), vec![]),
                (1_999, Input::Tick, vec![]),
                (2_000, Input::Tick, vec![UP]),
                (2_000, Input::Brought(Err(End::Never("no SSH".into()))), vec![]),
                (61_999, Input::Tick, vec![]),
                (62_000, Input::Tick, vec![UP]),
                (62_000, Input::Brought(Err(End::Here("no agent for aarch64".into()))), vec![]),
                (72_000, Input::Tick, vec![UP]),
            ],
        ),
    ]
}

/// What runs over there fails.
fn failing_cases() -> Vec<Case> {
    let bulk = |end: End| Input::Ended(Lane::Bulk, end);
    let control = |end: End| Input::Ended(Lane::Control, end);
    vec![
        (
            "an agent that is exchanged listens again in a moment; one that does not is started again",
            vec![
                (0, seen(true, true), vec![CONTROL, BULK]),
                (0, Input::Open(Lane::Bulk), vec![]),
                (100, control(no_agent()), vec![]),
                (1_100, Input::Tick, vec![CONTROL]),
                (1_200, control(no_agent()), vec![]),
                (2_200, Input::Tick, vec![CONTROL]),
                (2_300, control(no_agent()), vec![]),
                (3_300, Input::Tick, vec![CONTROL]),
                (3_400, control(no_agent()), vec![]),
                (4_400, Input::Tick, vec![CONTROL]),
                (4_500, control(no_agent()), vec![]),
                (5_500, Input::Tick, vec![UP]),
                (6_000, Input::Brought(Ok(())), vec![CONTROL]),
            ],
        ),
        (
            "where the agent's program is gone the machine is brought up again, and what lives is left alone",
            vec![
                (0, seen(true, true), vec![CONTROL, BULK]),
                (0, Input::Open(Lane::Control), vec![]),
                (500, bulk(remote(127)), vec![]),
                (1_500, Input::Tick, vec![UP]),
                (3_000, Input::Brought(Err(remote(70))), vec![]),
                (5_000, Input::Tick, vec![UP]),
                (5_100, Input::Brought(Err(remote(70))), vec![]),
                (9_100, Input::Tick, vec![UP]),
                (9_200, Input::Brought(Ok(())), vec![BULK]),
            ],
        ),
        (
            "a machine that was brought up and does not join within a minute is brought up again",
            vec![
                (0, seen(false, false), vec![UP]),
                (1_000, Input::Brought(Ok(())), vec![JOIN]),
                (1_200, Input::Open(Lane::Join), vec![]),
                (60_999, Input::Tick, vec![]),
                (61_000, Input::Tick, vec![UP]),
            ],
        ),
    ]
}

#[test]
fn what_is_dialled_when() {
    for (name, story) in usual().into_iter().chain(unconnected_cases()).chain(failing_cases()) {
        let mut tie = Tie::default();
        for (at, input, wanted) in story {
            let told = format!("{name}: at {at} after {input:?}");
            // Nobody looks only because time passed: the plan says when.
            if input == Input::Tick && !wanted.is_empty() {
                assert_eq!(tie.wake_ms(), Some(at), "{told}");
            }
            assert_eq!(tie.step(at, input), wanted, "{told}");
        }
    }
}

#[test]
fn why_a_machine_is_not_reached_is_said_in_the_words_of_what_failed() {
    let mut tie = Tie::default();
    tie.step(0, seen(true, false));
    assert_eq!(tie.trouble(), "");
    tie.step(0, Input::Ended(Lane::Control, unconnected()));
    assert_eq!(tie.trouble(), "SSH does not connect: Connection refused");
    tie.step(0, Input::Ended(Lane::Bulk, remote(127)));
    assert_eq!(tie.trouble(), "a command on the machine failed (exit code 127): it said so");
    tie.step(0, Input::Open(Lane::Join));
    assert_eq!(tie.trouble(), "");
    tie.step(0, Input::Ended(Lane::Join, End::Never("no SSH".into())));
    assert_eq!(tie.trouble(), "no SSH");
    tie.step(0, seen(true, true));
    assert_eq!(tie.trouble(), "");
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(unconnected()),
        Just(End::Closed),
        Just(End::NotYet(String::new())),
        Just(End::Never(String::new())),
        Just(End::Here(String::new())),
        Just(remote(127)),
        Just(no_agent()),
    ]
}

proptest! {
    /// Whatever happens, in whatever order: at most one client for each lane
    /// and one bring-up run at once, nothing is begun faster than once a second
    /// where it ends at once, and a machine that should be reached is tried
    /// again some day.
    #[test]
    fn nothing_is_dialled_twice_in_a_storm_or_never_again(
        story in proptest::collection::vec((0_u64..40_000, 0_usize..3, end(), any::<bool>(), any::<bool>()), 1..80)
    ) {
        let mut tie = Tie::default();
        let mut running: Vec<Lane> = Vec::new();
        let mut bringing = false;
        let mut begun: [Option<u64>; 3] = [None; 3];
        let mut now = 1_000;
        let mut input = seen(false, false);
        for (pause, which, end, joined, attached) in story {
            for act in tie.step(now, input.clone()) {
                match act {
                    Act::BringUp(_) => {
                        prop_assert!(!bringing);
                        bringing = true;
                    }
                    Act::Dial(lane, _) => {
                        prop_assert!(!running.contains(&lane));
                        let at = index(lane);
                        prop_assert!(begun[at].is_none_or(|before| now >= before + GAP_MS));
                        begun[at] = Some(now);
                        running.push(lane);
                    }
                    Act::Hang(lane) => prop_assert!(running.contains(&lane)),
                }
            }
            let idle = running.is_empty() && !bringing;
            if idle {
                let wake = tie.wake_ms();
                prop_assert!(wake.is_some_and(|at| at <= now + 61_000), "{wake:?} at {now}");
            }
            now += pause;
            let lane = Lane::ALL[which];
            input = if bringing {
                bringing = false;
                Input::Brought(if joined { Ok(()) } else { Err(end) })
            } else if running.contains(&lane) {
                if attached && end == End::Closed {
                    Input::Open(lane)
                } else {
                    running.retain(|l| *l != lane);
                    Input::Ended(lane, end)
                }
            } else {
                seen(joined, attached && joined)
            };
        }
    }
}
