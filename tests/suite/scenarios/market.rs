//! A market that is played on this computer: everything that befalls rented
//! machines, tried without an account.

use std::fs;

use super::programs::Training;
use super::stage::{Stage, machine_of, wait};

/// Its clock cannot be held: long enough for a first machine on a busy computer,
/// and then for a save that becomes durable.
const MARKET: &str = "boot = \"300ms\"\nusd_per_hour = 0.40\nnotice = \"20s\"\n\
                      [[change]]\nat = \"24s\"\ncapacity = false\nends = false\n\
                      [[change]]\nat = \"45s\"\nends = true\n\
                      [[change]]\nat = \"46s\"\ncapacity = true\nusd_per_hour = 0.90\n";

#[test]
fn a_played_market_takes_a_machine_after_its_notice_and_gives_a_dearer_one_later() {
    let stage = Stage::new();
    let settings = [("STEPS", "30"), ("STEP_MS", "40"), ("EVERY", "1000"), ("ON_USR1", "yes")];
    let training = Training::new(&stage, &settings).gated(8);
    let market = stage.path("market.toml");
    fs::write(&market, MARKET).unwrap();
    // The market begins with the order, and waits for no controller to start.
    stage.ok(&["controller", "start"]);
    let mut args = vec!["run", training.root.to_str().unwrap(), "-d", "--yes"];
    args.extend(["--simulate-market", market.to_str().unwrap()]);
    args.extend(training.settings().into_iter().flat_map(|setting| ["--set", setting]));
    let run = stage.ok(&args).text().trim().to_owned();
    training.when_done(1);
    let machine = machine_of(&stage.status(&run));
    // Told before its end: the program saves, and what it saved is not repeated.
    let saved = wait("the save that was asked for", || training.noted("noticed").first().cloned());
    stage.when(&run, "in its second generation", |detail| detail["run"]["generation"] == 2);
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(training.starts()[1]["resume_step"].to_string(), saved, "{:?}", training.starts());

    let machines = detail["machines"].as_array().unwrap();
    let of = |id: &str| machines.iter().find(|m| m["id"] == id).unwrap();
    let first = of(&machine);
    assert_eq!(first["usd_per_hour"], 0.40, "{first:#}");
    // Nothing was to be had before its end: it was not left, its power was cut.
    assert_ne!(first["reason"], "machine left before its provider took it", "{first:#}");
    assert_eq!(machines.iter().filter(|m| m["instance"] != "").count(), 2, "{machines:#?}");
    let last = machines.iter().find(|m| m["usd_per_hour"] == 0.90);
    assert!(last.is_some_and(|m| m["cost_usd"].as_f64() > Some(0.0)), "{machines:#?}");
    assert!(first["cost_usd"].as_f64() > Some(0.0), "{first:#}");
    let events = stage.events(&run);
    let said = |verb: &str, part: &str| {
        events.iter().any(|event| event["verb"] == verb && event.to_string().contains(part))
    };
    assert!(said("notice", "the played market takes it"), "{events:#?}");
    assert!(said("rejected", "no capacity (the played market)"), "{events:#?}");
    let why = stage.ok(&["why", &run, "--attempt", "1"]).text();
    assert!(why.contains("notice from host at "), "{why}");

    // Only this computer's machines are played with, and a bad file loses nothing.
    let root = training.root.to_str().unwrap();
    let place = market.to_str().unwrap();
    let refused =
        stage.call(&["run", root, "--set", "run.provider=vast", "--simulate-market", place]).ends_with(65);
    assert!(refused.stderr.contains("provider `local`"));
    fs::write(&market, "boots = 1\nspeed = 0\n").unwrap();
    let refused = stage.call(&["run", root, "--simulate-market", place]).ends_with(65);
    let told = refused.stderr;
    assert!(told.contains("no key \"boots\"") && told.contains("`speed` must be more"), "{told}");
}
