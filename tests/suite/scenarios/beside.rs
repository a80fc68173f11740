//! A machine that falls silent without evidence: another is made ready beside it
//! while nobody knows, and is given back or used.

use serde_json::Value;

use super::processes::{Standing, only};
use super::programs::Training;
use super::stage::{Stage, machine_of, wait};

/// Lets the guard and the agent of a machine stand still.
fn silence(machine: &str) -> [Standing; 2] {
    // The guard first: it would start another agent.
    ["guard", "agent"].map(|verb| Standing::still(only(machine, verb)))
}

/// The detail of the first entry of the journal for which something holds.
fn told(events: &[Value], is: impl Fn(&Value, &Value) -> bool) -> Option<(usize, Value)> {
    events.iter().enumerate().find_map(|(at, event)| {
        let detail: Value = serde_json::from_str(event["detail_json"].as_str().unwrap_or("{}")).unwrap();
        is(event, &detail).then_some((at, detail))
    })
}

/// Waits until another machine of the run is ready, and says which.
fn another(stage: &Stage, run: &str, machine: &str) -> String {
    wait("another machine that is ready", || {
        let detail = stage.status(run);
        let all = detail["machines"].as_array().unwrap();
        let other = all.iter().find(|m| m["id"] != machine && m["state"] == "READY");
        other.map(|m| m["id"].as_str().unwrap().to_owned())
    })
}

#[test]
fn a_machine_that_is_heard_again_keeps_its_attempt_and_the_other_is_given_back() {
    let stage = Stage::new();
    // Much patience, so that on a slow computer it is heard again in time.
    let training = Training::hf_style(&stage, 40, 60, 10).gated(30).set("machine.lost_after=10m");
    let run = training.submit(&stage);
    stage.when_durable(&run, 10);
    let machine = machine_of(&stage.status(&run));
    let still = silence(&machine);
    let other = another(&stage, &run, &machine);
    assert_eq!(machine_of(&stage.status(&run)), machine, "nothing is bound to the other");
    drop(still);
    wait("the other given back", || {
        let detail = stage.status(&run);
        let all = detail["machines"].as_array().unwrap();
        all.iter().any(|m| m["id"] == other.as_str() && m["state"] == "DESTROYED").then_some(())
    });
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(detail["run"]["generation"], 1, "{detail:#}");
    assert_eq!(training.starts().len(), 1);
    let events = stage.events(&run);
    let wish =
        told(&events, |event, detail| event["verb"] == "intent" && detail["in_place_of"] == machine.as_str());
    assert!(wish.expect("why it was made").1["silent_ms"].as_u64() >= Some(8_000));
    let why = "the machine it was to replace came back";
    assert!(told(&events, |event, detail| event["verb"] == "release" && detail["why"] == why).is_some());
    for machine in [machine, other] {
        stage.is_gone(&machine);
    }
    stage.verify();
}

#[test]
fn a_machine_that_stays_silent_gives_way_to_the_one_that_was_made_beside_it() {
    let stage = Stage::new();
    let training = Training::hf_style(&stage, 40, 60, 10).gated(30);
    let run = training.submit(&stage);
    stage.when_durable(&run, 10);
    let machine = machine_of(&stage.status(&run));
    let _still = silence(&machine);
    wait("the second start", || (training.starts().len() == 2).then_some(()));
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 2, "{detail:#}");
    let last = machine_of(&detail);
    assert_ne!(last, machine);
    let events = stage.events(&run);
    let of = |verb: &'static str, key: &'static str, value: &str| {
        told(&events, |event, detail| event["verb"] == verb && detail[key] == value).map(|(at, _)| at)
    };
    let made = of("intent", "in_place_of", &machine).expect("why it was made");
    let bound = of("bound", "machine", &last).expect("bound");
    let given_up = told(&events, |event, _| event["verb"] == "given-up").expect("given up").0;
    assert!(made < given_up && given_up < bound, "{made}, {given_up}, {bound}: {events:#?}");
    stage.is_gone(&machine);
    stage.is_gone(&last);
    stage.verify();
}
