//! A provider gives notice that it takes a machine: the program is asked to
//! save, another machine is there before the first one goes, and what was saved
//! is not done again. The metadata services are doubles on loopback, one for the
//! first machine and one for all that come after it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::double::Double;
use super::programs::Training;
use super::stage::{Stage, machine_of, wait};

/// The services of one machine.
struct Metadata(Double);

impl Metadata {
    fn start() -> Self {
        Self(Double::start("fake-metadata", [] as [&str; 0]))
    }

    fn control(&self, path: &str, body: &Value) -> Value {
        self.0.control(if path == "state" { "GET" } else { "POST" }, path, body)
    }

    fn terminates_in(&self, in_ms: u64) {
        self.control("notice", &json!({"service": "ec2", "action": "terminate", "in_ms": in_ms}));
    }
}

/// An installation whose machines ask doubles: the first machine one, the
/// others another.
fn stage() -> (Stage, Metadata, Metadata) {
    let (first, others) = (Metadata::start(), Metadata::start());
    let stage = Stage::new();
    let place = stage.path("place");
    let script = format!(
        "#!/bin/sh\nport={}\nmkdir {} 2>/dev/null && port={}\n\
         OUTLAST_METADATA_ADDRESS=127.0.0.1:$port exec \"$@\"\n",
        others.0.port,
        stage.path("first-machine").display(),
        first.0.port
    );
    fs::write(&place, script).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    let wrap = ("OUTLAST_LOCAL_WRAP".to_owned(), place.display().to_string());
    (stage.with([wrap]), first, others)
}

/// Where something is in the journal of a run.
#[track_caller]
fn at(events: &[Value], verb: &str, object: &str) -> usize {
    let found = events.iter().position(|event| event["verb"] == verb && event["object"] == object);
    found.unwrap_or_else(|| panic!("`{verb}` of {object} is not in {events:#?}"))
}

/// Both machines of a run: the one that was noticed, and the one after it.
#[track_caller]
fn machines(detail: &Value, first: &str) -> String {
    let all = detail["machines"].as_array().unwrap();
    assert_eq!(all.len(), 2, "{detail:#}");
    let other = all.iter().find(|machine| machine["id"] != first).unwrap();
    other["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_machine_under_notice_is_replaced_before_it_ends_and_no_step_is_done_again() {
    let (stage, first, others) = stage();
    let settings = [("STEPS", "40"), ("STEP_MS", "40"), ("EVERY", "1000"), ("ON_USR1", "yes")];
    let training = Training::new(&stage, &settings).gated(8).set("notice.source=ec2");
    let run = training.submit(&stage);
    training.when_done(8);
    let machine = machine_of(&stage.status(&run));
    first.terminates_in(600_000);
    let saved = wait("the save that was asked for", || training.noted("noticed").first().cloned());
    assert_eq!(saved, "8");
    // Long before the time is over, since it is saved.
    stage.when(&run, "in its second generation", |detail| detail["run"]["generation"] == 2);
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    let starts = training.starts();
    assert_eq!(starts[1]["resume_step"], 8, "{starts:?}");
    let expected: Vec<(u64, u64)> = (1..=40).map(|step| (if step <= 8 { 1 } else { 2 }, step)).collect();
    assert_eq!(training.steps(), expected, "every step once");

    let other = machines(&detail, &machine);
    let events = stage.events(&run);
    let order = [
        at(&events, "notice", &machine),
        at(&events, "intent", &other),
        at(&events, "attached", &other),
        at(&events, "lost", &machine),
        at(&events, "destroyed", &machine),
    ];
    assert!(order.is_sorted(), "{order:?} in {events:#?}");
    assert!(at(&events, "notice-saved", &machine) < at(&events, "lost", &machine));
    let ending = detail["attempts"][0]["ending"].as_str().unwrap();
    assert!(ending.contains("preempted"), "{ending}");
    let why = stage.ok(&["why", &run, "--attempt", "1"]).text();
    assert!(why.contains("notice from ec2 at ") && why.contains("terminate"), "{why}");
    // The other machine's service was asked too, and had nothing to say.
    let asked = others.control("state", &json!({}));
    assert!(asked["calls"].as_array().unwrap().iter().all(|call| call["service"] == "ec2"), "{asked}");
    stage.verify();
}

#[test]
fn a_program_that_does_not_catch_the_signal_lives_on_and_is_moved_in_time() {
    let (stage, first, _others) = stage();
    let settings = [("STEPS", "30"), ("STEP_MS", "40"), ("EVERY", "5")];
    let training = Training::new(&stage, &settings).gated(8).set("notice.source=ec2");
    let run = training.submit(&stage);
    assert_eq!(stage.when_durable(&run, 5), 5);
    training.when_done(8);
    let machine = machine_of(&stage.status(&run));
    // A token that has run out is replaced.
    first.control("tokens", &json!({}));
    first.terminates_in(600_000);
    let file = stage.home.join("machines").join(&machine).join("attempts");
    wait("the file that tells it", || {
        let attempt = fs::read_dir(&file).ok()?.next()?.ok()?.path();
        fs::read(attempt.join("notice/notice.json")).ok()
    });
    // The other one is there, however long that takes; then the time comes nearer.
    let is_other = |event: &Value| event["verb"] == "attached" && event["object"] != machine.as_str();
    wait("another machine", || stage.events(&run).iter().any(is_other).then_some(()));
    first.terminates_in(20_000);
    // Nothing was saved: it is left two seconds before its time, and not ended
    // by a signal before that.
    let detail = stage.when(&run, "in its second generation", |detail| detail["run"]["generation"] == 2);
    assert_eq!(detail["attempts"][0]["exit_code"], Value::Null, "{detail:#}");
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(training.starts()[1]["resume_step"], 5, "{:?}", training.starts());
    let other = machines(&detail, &machine);
    let events = stage.events(&run);
    assert!(at(&events, "attached", &other) < at(&events, "lost", &machine), "{events:#?}");
    let note = events.iter().find(|e| e["verb"] == "note" && e.to_string().contains("was not signalled"));
    assert!(note.is_some(), "{events:#?}");
    assert!(first.control("state", &json!({}))["tokens"].as_u64() >= Some(2));
}

#[test]
fn a_program_that_catches_the_signal_only_later_is_asked_then() {
    let (stage, first, _others) = stage();
    let settings = [("STEPS", "12"), ("STEP_MS", "40"), ("EVERY", "1000"), ("ON_USR1", "late")];
    let training = Training::new(&stage, &settings).gated(8).set("notice.source=ec2");
    let run = training.submit(&stage);
    training.when_done(8);
    first.terminates_in(600_000);
    let told =
        |text: &str| stage.events(&run).iter().any(|event| event.to_string().contains(text)).then_some(());
    wait("that nobody caught it", || told("was not signalled"));
    assert_eq!(training.noted("noticed"), Vec::<String>::new());
    fs::write(training.record.join("late"), "").unwrap();
    let saved = wait("the save that was asked for", || training.noted("noticed").first().cloned());
    assert_eq!(saved, "8");
    wait("that it was asked again", || told("catches the signal now"));
    training.may_end();
    stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(training.starts()[1]["resume_step"], 8, "{:?}", training.starts());
    stage.verify();
}

/// One cloud's notice, heard while no controller lives: the save comes all the
/// same, and whoever serves next moves the run.
#[track_caller]
fn moved_through_a_killed_controller(source: &str, notice: &Value) {
    let (stage, first, _others) = stage();
    let settings = [("STEPS", "30"), ("STEP_MS", "40"), ("EVERY", "1000"), ("ON_USR1", "yes")];
    let setting = format!("notice.source={source}");
    let training = Training::new(&stage, &settings).gated(8).set(&setting);
    let run = training.submit(&stage);
    training.when_done(8);
    let machine = machine_of(&stage.status(&run));
    stage.kill_controller();
    first.control("notice", notice);
    assert_eq!(wait("the save that was asked for", || training.noted("noticed").first().cloned()), "8");
    stage.when(&run, "in its second generation", |detail| detail["run"]["generation"] == 2);
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(training.starts()[1]["resume_step"], 8, "{:?}", training.starts());
    let expected: Vec<(u64, u64)> = (1..=30).map(|step| (if step <= 8 { 1 } else { 2 }, step)).collect();
    assert_eq!(training.steps(), expected, "every step once");
    let other = machines(&detail, &machine);
    let events = stage.events(&run);
    assert!(at(&events, "attached", &other) < at(&events, "destroyed", &machine), "{events:#?}");
    let why = stage.ok(&["why", &run, "--attempt", "1"]).text();
    assert!(why.contains(&format!("notice from {source} at ")), "{why}");
    stage.verify();
}

#[test]
fn google_and_azure_are_heard_while_no_controller_lives() {
    moved_through_a_killed_controller("gce", &json!({"service": "gce", "preempted": true}));
    let azure = json!({"service": "azure", "type": "Preempt", "in_ms": 600_000, "id": "E-1"});
    moved_through_a_killed_controller("azure", &azure);
}

#[test]
fn azure_is_told_once_what_it_may_take_because_it_is_saved() {
    let (stage, first, _others) = stage();
    let settings = [("STEPS", "30"), ("STEP_MS", "40"), ("EVERY", "1000"), ("ON_USR1", "yes")];
    let training = Training::new(&stage, &settings).gated(8).set("notice.source=azure");
    let run = training.submit(&stage);
    training.when_done(8);
    // So early that no other machine is made before the answer.
    let notice = json!({"service": "azure", "type": "Terminate", "in_ms": 3_600_000, "id": "E-1"});
    first.control("notice", &notice);
    let told = || first.control("state", &json!({}))["acknowledged"].clone();
    wait("its answer", || (told() != json!([])).then_some(()));
    assert_eq!(stage.status(&run)["run"]["durable_step"], 8, "not before it is durable");
    training.may_end();
    stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(told(), json!(["E-1"]));
}
