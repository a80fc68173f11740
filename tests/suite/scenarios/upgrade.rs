//! An agent's life beside a training that must not notice: its program is
//! exchanged, good and bad ones; it hangs; it and its guard are killed in the
//! middle of that; its machine says farewell.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::processes::{Standing, describe, doing, is_alive, kill_one, marked, only, signal};
use super::programs::{Noise, Training};
use super::stage::{PATIENCE, Stage, machine_of, touch, wait, wait_or};

/// A guard that was started by hand in place of a machine's own, with other
/// limits: as a service manager does after the first one died.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn words(pid: i32, of: &str) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/{of}")).unwrap();
    let words = bytes.split(|b| *b == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// What a guard that was started by hand says, in the machine's directory.
const GUARD_LOG: &str = "guard.log";

/// Kills the machine's guard alone and starts it again, as it was and with
/// `more` in its environment.
fn revive(stage: &Stage, machine: &str, more: &[(&str, &str)]) -> Guard {
    let guard = only(machine, "guard");
    let (line, environ) = (words(guard, "cmdline"), words(guard, "environ"));
    // A local machine without any guard has ended: nobody must look before the
    // next one is there, which may take long on a slow disk.
    let _blind = Standing::still(stage.one_controller());
    kill_one(guard);
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).env_clear().current_dir(&line[3]).process_group(0);
    command.envs(environ.iter().filter_map(|entry| entry.split_once('='))).envs(more.iter().copied());
    serve(command, Path::new(&line[3]))
}

/// Starts a guard and waits until it can be found.
fn serve(mut command: Command, state: &Path) -> Guard {
    let log = File::options().append(true).create(true).open(state.join(GUARD_LOG)).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let guard = Guard(command.spawn().unwrap());
    wait("the guard's own word", || {
        let said = serde_json::from_slice::<Value>(&std::fs::read(state.join("guard.json")).ok()?).ok()?;
        (said["pid"] == guard.0.id()).then_some(())
    });
    guard
}

/// Waits until the machine has exactly one agent, and a guard that knows it.
fn one_agent(machine: &str) -> i32 {
    let look = || match doing(machine, "agent")[..] {
        [agent] if doing(machine, "guard").len() == 1 => {
            let parent = std::fs::read_to_string(format!("/proc/{agent}/stat")).ok()?;
            let parent = parent.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok()?;
            doing(machine, "guard").contains(&parent).then_some(agent)
        }
        _ => None,
    };
    wait_or("one agent", look, || {
        let all = marked(machine);
        let places = all.iter().filter_map(|pid| words(*pid, "cmdline").get(3).cloned());
        let mut told: Vec<String> = all.iter().map(|pid| describe(*pid)).collect();
        for place in places.filter(|place| place.ends_with(machine)).take(1) {
            told.extend(
                [GUARD_LOG, "agent.log"]
                    .map(|name| std::fs::read_to_string(Path::new(&place).join(name)).unwrap_or_default()),
            );
        }
        told.join("\n")
    })
}

fn runs(pid: i32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default()
}

/// What the machine's own program is called once it was upgraded.
fn upgraded(stage: &Stage, machine: &str, agent: i32) -> bool {
    runs(agent).starts_with(stage.home.join("machines").join(machine).join("programs"))
}

fn answer(said: &[u8]) -> Value {
    serde_json::from_slice::<Value>(said).unwrap_or_default()[0].clone()
}

/// Whether an upgrade came to nothing for want of time: a slow machine needs
/// longer than a program is granted to say what it is, or to be welcomed. Then it
/// is asked again.
fn is_late(said: &Value) -> bool {
    let problem = said["problem"].as_str().unwrap_or_default();
    [" within ", "not connected"].iter().any(|late| problem.contains(late))
}

/// A noisy training, its machine and its process.
fn begin(stage: &Stage, noise: &Noise) -> (String, String, i32) {
    let run = stage.submit(&noise.root, &noise.settings());
    let detail = stage.when(&run, "running", |detail| detail["run"]["phase"] == "running");
    let started = wait("the program", || noise.starts().first().cloned());
    (run, machine_of(&detail), started.strip_prefix("1 ").unwrap().parse().unwrap())
}

/// The training, which may end now, was one process on one machine, and every byte of it arrived.
/// What was made ready for its place while it was silent, if anything, was given back.
fn unnoticed(stage: &Stage, noise: &Noise, run: &str, machine: &str) {
    noise.may_end();
    let detail = stage.ends_as(run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    for other in detail["machines"].as_array().unwrap().iter().filter(|other| other["id"] != machine) {
        assert_eq!(other["reason"], "the machine it was to replace came back", "{detail:#}");
    }
    assert_eq!(noise.starts().len(), 1);
    noise.is_whole(stage, run);
    stage.is_gone(machine);
    stage.verify();
}

#[test]
fn a_new_program_takes_over_while_the_training_goes_on() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let (run, machine, program) = begin(&stage, &noise);
    let old = one_agent(&machine);
    let said = wait("an upgrade in time", || {
        let said = answer(&stage.call(&["machines", "upgrade", "--all", "--json"]).stdout);
        (!is_late(&said)).then_some(said)
    });
    assert!(said["upgraded"] == true && said["machine"] == machine.as_str(), "{said:#}");
    assert_ne!(said["version"], "");
    let new = one_agent(&machine);
    assert!(new != old && upgraded(&stage, &machine, new), "{new} runs {}", runs(new).display());
    assert!(is_alive(program));
    // It is what is started from now on, by this guard and by the next.
    signal(new, Signal::SIGKILL);
    let again = wait("another agent", || doing(&machine, "agent").into_iter().find(|pid| *pid != new));
    assert!(upgraded(&stage, &machine, again), "{}", runs(again).display());
    let guard = revive(&stage, &machine, &[]);
    let agent = one_agent(&machine);
    assert!(upgraded(&stage, &machine, agent), "{}", runs(agent).display());
    // Until it is damaged: then the guard's own is used.
    std::fs::write(runs(agent).with_file_name("outlast-agent.new"), "no program").unwrap();
    std::fs::rename(runs(agent).with_file_name("outlast-agent.new"), runs(agent)).unwrap();
    let _second = revive(&stage, &machine, &[]);
    drop(guard);
    let agent = one_agent(&machine);
    assert!(!upgraded(&stage, &machine, agent), "{}", runs(agent).display());
    assert!(is_alive(program));
    let journal = stage.events(&run);
    assert!(journal.iter().any(|entry| entry["verb"] == "upgraded"), "{journal:#?}");
    unnoticed(&stage, &noise, &run, &machine);
}

fn script(stage: &Stage, name: &str, text: &str) -> PathBuf {
    let path = stage.path(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_guard_killed_while_it_starts_its_agent_leaves_no_second_one() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let (run, machine, program) = begin(&stage, &noise);
    let mut guards = Vec::new();
    for round in 0..6 {
        if round % 2 == 0 {
            // A machine that nobody hears for too long is given up.
            connected(&stage, &machine);
        }
        let old = one_agent(&machine);
        signal(old, Signal::SIGKILL);
        // Without a pause: that agent must not have done anything yet.
        let until = Instant::now() + PATIENCE;
        while !doing(&machine, "agent").into_iter().any(|pid| pid != old) {
            assert!(Instant::now() < until, "no other agent came");
        }
        guards.push(revive(&stage, &machine, &[]));
        assert!(is_alive(program));
    }
    unnoticed(&stage, &noise, &run, &machine);
}

#[test]
fn a_bad_program_is_never_kept() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let (run, machine, program) = begin(&stage, &noise);
    // With the limits that everybody has: a program that stays silent must not cost the machine.
    let _guard = revive(&stage, &machine, &[]);
    let own = runs(one_agent(&machine));
    // The version line of a good program, then something else.
    let version = Command::new(&own).args(["agent", "--version"]).output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let says = format!("#!/bin/sh\n[ \"$2\" = --version ] && echo '{}' && exit\n", version.trim());
    let whole = std::fs::read(&own).unwrap();
    let cut = stage.path("cut");
    // The symbols at the end of the file would not be missed.
    std::fs::write(&cut, &whole[..1 << 20]).unwrap();
    for (bad, why) in [
        (script(&stage, "fails", "#!/bin/sh\nexit 1\n"), "cannot say its version: exit status: 1"),
        (script(&stage, "text", "just text\n"), "cannot be run here"),
        (cut, ""),
        (script(&stage, "hangs", "#!/bin/sh\nexec sleep 600\n"), "did not say its version within 10 s"),
        (script(&stage, "later", "#!/bin/sh\necho outlast-agent 9.0.0 protocol 9\n"), "protocol 9"),
        (script(&stage, "ends", &format!("{says}exit 7\n")), "ended before the controller welcomed it"),
        (
            script(&stage, "mute", &format!("{says}exec sleep 600\n")),
            "not welcomed by the controller within 10 s",
        ),
    ] {
        let offered = bad.to_str().unwrap();
        let said = wait("an answer in time", || {
            let call = ["machines", "upgrade", &machine, "--program", offered, "--json"];
            let said = answer(&stage.call(&call).ends_with(65).stdout);
            let is_told = said["problem"].as_str().unwrap().contains(why);
            (is_told || !is_late(&said)).then_some(said)
        });
        let problem = said["problem"].as_str().unwrap();
        assert!(said["upgraded"] == false && problem.contains(why), "{offered}: {said:#}");
        let agent = one_agent(&machine);
        assert_eq!(runs(agent), own, "{offered}");
        assert!(is_alive(program), "{offered}");
    }
    let programs = stage.home.join("machines").join(&machine).join("programs");
    assert_eq!(std::fs::read_dir(programs).map_or(0, Iterator::count), 0, "a bad program was left");
    unnoticed(&stage, &noise, &run, &machine);
}

#[test]
fn an_upgrade_ends_with_its_machine_and_with_the_agent_that_took_it() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let (run, machine, program) = begin(&stage, &noise);
    let begin = |program: &Path| {
        stage.begin(&["machines", "upgrade", &machine, "--program", program.to_str().unwrap(), "--json"])
    };
    // The agent that asks it for its version is killed by it.
    let kills = script(&stage, "kills", "#!/bin/sh\nkill -9 $PPID\n");
    let (agent, call) = (one_agent(&machine), begin(&kills));
    wait("the agent's end", || (!is_alive(agent)).then_some(()));
    let said = answer(&call.end().ends_with(65).stdout);
    assert!(said["problem"].as_str().unwrap().contains("started again"), "{said:#}");
    assert!(is_alive(program));

    // It lets agent and guard stand still, so that nothing comes of it before
    // the machine is gone.
    let mark = stage.path("asked");
    let text = format!(
        "#!/bin/sh\nkill -STOP {} $PPID\necho > {}\nwhile [ -d {} ]; do sleep 0.1; done\n",
        only(&machine, "guard"),
        mark.display(),
        stage.home.join("machines").join(&machine).display()
    );
    // Who is not connected is not asked.
    connected(&stage, &machine);
    let call = begin(&script(&stage, "stands", &text));
    wait("the question for its version", || mark.exists().then_some(()));
    stage.kill_machine(&machine);
    let said = answer(&call.end().ends_with(65).stdout);
    assert!(said["problem"].as_str().unwrap().contains("the machine is gone"), "{said:#}");
    let journal = stage.events(&run);
    assert!(journal.iter().filter(|entry| entry["verb"] == "upgrade-failed").count() == 2, "{journal:#?}");
    stage.ok(&["destroy", &run, "--yes"]);
    stage.ended(&run);
    stage.verify();
}

#[test]
fn kills_during_an_upgrade_leave_a_machine_with_its_agent() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let (run, machine, program) = begin(&stage, &noise);
    let mut guards = Vec::new();
    for (round, after_ms) in [150, 700, 1_400, 2_200, 3_000, 4_000].into_iter().enumerate() {
        let call = stage.begin(&["machines", "upgrade", &machine, "--json"]);
        let until = Instant::now() + Duration::from_millis(after_ms);
        // Where it is by then differs from round to round, and is the point.
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        if round % 2 == 0 {
            for agent in doing(&machine, "agent") {
                signal(agent, Signal::SIGKILL);
            }
        } else {
            guards.push(revive(&stage, &machine, &[]));
        }
        let agent = one_agent(&machine);
        wait("the machine connected again", || {
            let all = stage.ok(&["machines", "--json"]).json();
            let own = all.as_array().unwrap().iter().find(|m| m["id"] == machine.as_str())?.clone();
            (own["state"] == "READY").then_some(())
        });
        assert!(is_alive(program), "the program ended in round {round} beside agent {agent}");
        drop(call);
    }
    unnoticed(&stage, &noise, &run, &machine);
    drop(guards);
}

#[test]
fn an_agent_that_hangs_is_started_again_and_one_that_stood_still_with_its_guard_is_not() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let (run, machine, program) = begin(&stage, &noise);
    // With the limit that everybody has: one that hangs must not cost the machine.
    let guard = revive(&stage, &machine, &[]);
    let agent = one_agent(&machine);
    connected(&stage, &machine);
    // Longer than the limit, for both: as in a suspended machine. The guard
    // stops first and goes on last: it never runs beside an agent that stands.
    let until = Instant::now() + Duration::from_secs(11);
    let stands = Standing::still(i32::try_from(guard.0.id()).unwrap());
    let stands = (Standing::still(agent), stands);
    wait("the time that nobody is to count", || (Instant::now() >= until).then_some(()));
    drop(stands);
    // Each answer is a turn of the guard.
    for _ in 0..3 {
        connected(&stage, &machine);
    }
    assert_eq!(one_agent(&machine), agent, "it was ended for time in which its guard did not run");
    signal(agent, Signal::SIGSTOP);
    wait("the hung agent's end", || (!is_alive(agent)).then_some(()));
    assert_ne!(one_agent(&machine), agent);
    assert!(is_alive(program));
    let log = std::fs::read_to_string(stage.home.join("machines").join(&machine).join("agent.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    unnoticed(&stage, &noise, &run, &machine);
}

#[test]
fn a_machine_that_ends_says_farewell_and_its_last_step_is_not_done_again() {
    let stage = Stage::new();
    let training = Training::new(&stage, &[("STEPS", "60"), ("STEP_MS", "100"), ("EVERY", "1000")]).gated(20);
    let run = training.submit(&stage);
    training.when_done(8);
    let machine = machine_of(&stage.status(&run));
    let sign = stage.path("shutdown");
    let more = [("OUTLAST_SHUTDOWN_SIGN", sign.to_str().unwrap()), ("OUTLAST_SHUTDOWN_GRACE_MS", GRACE_MS)];
    let guard = revive(&stage, &machine, &more);
    connected(&stage, &machine);
    // Without the sign only the guard ends: the training goes on.
    let before = training.steps().len();
    let blind = Standing::still(stage.one_controller());
    signal(i32::try_from(guard.0.id()).unwrap(), Signal::SIGTERM);
    wait("the guard's end", || doing(&machine, "guard").is_empty().then_some(()));
    training.may_go_to(30);
    wait("a further step", || (training.steps().len() > before + 1).then_some(()));
    let guard = start_again(&stage, &machine, guard, &more);
    drop(blind);
    connected(&stage, &machine);
    touch(&sign);
    signal(i32::try_from(guard.0.id()).unwrap(), Signal::SIGTERM);
    let asked = wait("its word that it was asked to end", || training.noted("asked").first().cloned());
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    let asked: u64 = asked.parse().unwrap();
    let starts = training.starts();
    assert_eq!(starts[1]["resume_step"], asked, "it saved step {asked} at the end: {starts:?}");
    assert_eq!(starts[1]["resume_sha256"], training.saved(asked));
    let steps: Vec<u64> = training.steps().into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, (1..=60).collect::<Vec<_>>(), "no step was done twice");
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), attempts[0]["state"].as_str()), (2, Some("LOST")), "{detail:#}");
    let journal = stage.events(&run);
    let at = |verb: &str| journal.iter().position(|e| e["verb"] == verb);
    let (farewell, lost) = (at("farewell").expect("a farewell"), at("lost").expect("a loss"));
    // What it left was saved first, and nobody waited for silence.
    let why = journal[lost]["detail_json"].to_string();
    assert!(farewell < lost && why.contains("farewell"), "{journal:#?}");
    stage.verify();
    drop(guard);
}

/// What a machine that ends grants its agent: more than a step and its save
/// take, on any disk.
const GRACE_MS: &str = "120000";

/// Waits until the machine's one agent speaks with the controller.
fn connected(stage: &Stage, machine: &str) {
    one_agent(machine);
    stage.when_welcomed(machine);
}

/// The same guard once more, after it ended by itself.
fn start_again(stage: &Stage, machine: &str, ended: Guard, more: &[(&str, &str)]) -> Guard {
    drop(ended);
    let state = stage.home.join("machines").join(machine);
    let mut command = Command::new(runs(only(machine, "keeper")));
    command.args(["guard", "--state"]).arg(&state).current_dir(&state).process_group(0);
    command.env("OUTLAST_MACHINE_ID", machine).envs(more.iter().copied());
    serve(command, &state)
}
