//! Controllers come and go, or come at the same time: work on machines goes on,
//! and there is never more than one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::processes::signal;
use super::programs::Noise;
use super::stage::{Stage, machine_of, wait};

/// A moment between two kills: no synchronisation, the very thing that is
/// tried.
fn pass(random: &mut fastrand::Rng, most_ms: u64) {
    let until = Instant::now() + Duration::from_millis(random.u64(0..most_ms));
    wait("a moment", || (Instant::now() >= until).then_some(()));
}

fn seed() -> u64 {
    let seed = std::env::var("SCENARIO_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    eprintln!("SCENARIO_SEED={seed}");
    seed
}

#[test]
fn a_controller_that_is_killed_five_times_loses_no_machine_and_no_byte() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let mut random = fastrand::Rng::with_seed(seed());
    let run = stage.submit(&noise.root, &noise.settings());
    for _ in 0..5 {
        pass(&mut random, 900);
        stage.kill_controller();
        // Any question starts the next one.
        stage.ok(&["status"]);
    }
    wait("the program", || noise.starts().first().cloned());
    noise.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["run"]["generation"], 1, "{detail:#}");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    // One whose gate was not opened yet ends with the controller that made it, and
    // has run nothing: a boot is never begun twice.
    let used = machine_of(&detail);
    let others = detail["machines"].as_array().unwrap().iter().filter(|one| one["id"] != used.as_str());
    assert!(others.clone().all(|one| one["reason"] == "machine terminated"), "{detail:#}");
    let starts = noise.starts();
    assert!(starts.len() == 1 && starts[0].starts_with("1 "), "{starts:?}");
    noise.is_whole(&stage, &run);
    stage.is_gone(&used);
    stage.verify();
}

#[test]
fn an_attached_run_survives_two_controllers_and_prints_each_byte_once() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let mut random = fastrand::Rng::with_seed(seed());
    let root = noise.root.to_str().unwrap().to_owned();
    let mut args = vec!["run", root.as_str()];
    args.extend(noise.settings().into_iter().flat_map(|setting| ["--set", setting]));
    let attached = stage.begin(&args);
    wait("the program", || noise.starts().first().cloned());
    for _ in 0..2 {
        pass(&mut random, 1_200);
        let dead = wait("a controller", || stage.controllers().first().copied());
        stage.kill_controller();
        // The attached call itself starts the next one.
        let next = || stage.controllers().into_iter().find(|pid| *pid != dead);
        let begun = wait("another controller", next);
        // This one dies before it has answered anybody.
        signal(begun, Signal::SIGKILL);
        wait("a third one", || stage.controllers().into_iter().find(|pid| ![dead, begun].contains(pid)));
    }
    noise.may_end();
    let said = attached.end().ends_with(0);
    assert!(said.stdout == noise.stdout(), "{} bytes were printed", said.stdout.len());
    let printed: Vec<&str> = said.stderr.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(printed, noise.stderr().lines().collect::<Vec<_>>());
    assert_eq!(noise.starts().len(), 1);
    stage.verify();
}

#[test]
fn two_calls_at_once_on_an_empty_home_share_one_controller() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let root = noise.root.to_str().unwrap().to_owned();
    let mut args = vec!["run", root.as_str()];
    args.extend(noise.settings().into_iter().flat_map(|setting| ["--set", setting]));
    let calls = [stage.begin(&args), stage.begin(&args)];
    wait("both programs", || (noise.starts().len() == 2).then_some(()));
    let announced = stage.controller().expect("one is announced");
    // One that found the place taken may not have ended yet.
    let alone = || (stage.controllers() == [announced]).then_some(());
    wait("one controller", alone);
    noise.may_end();
    let printed: BTreeSet<Vec<u8>> = calls.into_iter().map(|call| call.end().ends_with(0).stdout).collect();
    let written: BTreeSet<Vec<u8>> = noise.rounds().into_iter().map(|r| noise.stdout_of(r)).collect();
    let lengths = |all: &BTreeSet<Vec<u8>>| all.iter().map(Vec::len).collect::<Vec<_>>();
    assert!(printed == written, "{:?} bytes were printed of {:?}", lengths(&printed), lengths(&written));
    wait("one controller", alone);
    assert_eq!(stage.controller(), Some(announced), "it was exchanged meanwhile");
    let runs = stage.ok(&["status", "--all", "--json"]).json();
    let states: Vec<&str> = runs.as_array().unwrap().iter().filter_map(|run| run["state"].as_str()).collect();
    assert_eq!(states, ["SUCCEEDED", "SUCCEEDED"]);
    stage.verify();
}
