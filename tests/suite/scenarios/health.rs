//! How a machine is, through the controller and asked of the machine itself;
//! also after its agent or the controller was replaced.

use serde_json::Value;

use super::processes::{doing, kill_one, only};
use super::stage::{Stage, machine_of, wait};

/// A run that only sleeps, and its machine.
fn sleeper(stage: &Stage) -> (String, String) {
    let root = stage.project("still", &[("outlast.toml", "[environment]\nkind = \"none\"\n")]);
    let said = stage.ok(&["run", root.to_str().unwrap(), "-d", "--", "sleep", "600"]);
    let run = said.text().trim().to_owned();
    let detail = stage.when(&run, "running", |detail| detail["run"]["phase"] == "running");
    (run, machine_of(&detail))
}

/// The address that the machine wrote.
fn written(stage: &Stage, machine: &str) -> Option<String> {
    let text = std::fs::read(stage.home.join("machines").join(machine).join("health.json")).ok()?;
    Some(serde_json::from_slice::<Value>(&text).ok()?["endpoint"].as_str()?.to_owned())
}

/// What is said of it once there is a sample that knows of the run.
fn sampled(stage: &Stage, args: &[&str]) -> Value {
    wait("a sample", || {
        let said = stage.call(args);
        let reply = (said.code == 0 || said.code == 93).then(|| said.json())?;
        let sampled = reply["report"]["sample"]["memory_total_bytes"].as_u64() > Some(0);
        let knows = reply["report"]["attempts"].as_array().is_some_and(|all| !all.is_empty());
        // One that was starved for a moment is suspect for a moment.
        let ready = reply["machine_state"].as_str().is_none_or(|state| state == "READY");
        (sampled && knows && ready).then_some(reply)
    })
}

#[test]
fn a_machine_is_asked_through_the_controller_and_itself() {
    let stage = Stage::new();
    assert_eq!(stage.ok(&["health", "--json"]).text(), "[]\n");
    let (run, machine) = sleeper(&stage);
    // By its id, the beginning of it, and the run that is on it.
    for name in [machine.as_str(), &machine[..10], run.as_str()] {
        let reply = sampled(&stage, &["health", name, "--json"]);
        assert_eq!(reply["report"]["machine_id"], machine.as_str(), "{reply:#}");
        assert_eq!(reply["machine_state"], "READY");
        assert_eq!(reply["endpoint"].as_str().unwrap(), written(&stage, &machine).unwrap());
        let attempts = reply["report"]["attempts"].as_array().unwrap();
        assert_eq!(attempts[0]["run_name"], run.as_str(), "{reply:#}");
    }
    let direct = sampled(&stage, &["health", &run, "--direct", "--json"]);
    assert_eq!((&direct["report"]["machine_id"], &direct["age_ms"]), (&machine.as_str().into(), &0.into()));
    let listed = stage.call(&["health", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "a list where no machine was named");

    let screen = wait("a screen of a machine that is heard", || {
        let said = stage.call(&["health"]);
        assert!(said.code == 0 || said.code == 93, "{}", said.stderr);
        (!said.text().contains("SUSPECT")).then_some(said)
    });
    let text = screen.text();
    assert!(!text.contains('\x1b') && !text.contains('…'), "{text}");
    for part in [machine.as_str(), "READY", "cpu ", "memory ", "disk ", run.as_str()] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    let history = stage.call(&["health", &machine, "--history", "3", "--json"]).json();
    assert!((1..=3).contains(&history["history"].as_array().unwrap().len()), "{history:#}");

    let nobody = stage.call(&["health", "nobody"]).ends_with(66);
    assert!(nobody.stderr.contains("no machine and no run `nobody`"), "{}", nobody.stderr);
    stage.ok(&["destroy", &run, "-y"]);
    stage.ended(&run);
    let gone = stage.call(&["health", &run]).ends_with(66);
    assert!(gone.stderr.contains("on no machine now"), "{}", gone.stderr);
    let gone = stage.call(&["health", &machine]).ends_with(65);
    assert!(gone.stderr.contains("is gone (DESTROYED)"), "{}", gone.stderr);
}

#[test]
fn a_machine_answers_after_its_agent_and_the_controller_were_replaced() {
    let stage = Stage::new();
    let (run, machine) = sleeper(&stage);
    sampled(&stage, &["health", &machine, "--direct", "--json"]);
    let before = written(&stage, &machine);
    let agent = only(&machine, "agent");
    kill_one(agent);
    wait("another agent", || doing(&machine, "agent").iter().any(|pid| *pid != agent).then_some(()));
    wait("its port", || written(&stage, &machine).filter(|at| Some(at) != before.as_ref()));
    let reply = wait("the controller told", || {
        let said = stage.call(&["health", &machine, "--direct", "--json"]);
        (said.code == 0 || said.code == 93).then(|| said.json())
    });
    assert_eq!(reply["report"]["machine_id"], machine.as_str());

    stage.kill_controller();
    // A new one is started by the question; the machine tells it everything.
    let reply = wait("a report to the next controller", || {
        let said = stage.call(&["health", &machine, "--json"]);
        (said.code == 0 || said.code == 93).then(|| said.json())
    });
    assert_eq!(reply["endpoint"].as_str().map(str::to_owned), written(&stage, &machine));
    stage.ok(&["destroy", &run, "-y"]);
    stage.ended(&run);
    stage.is_gone(&machine);
}
