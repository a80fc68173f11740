//! An agent's life beside a training that must not notice: its program is
//! exchanged, good and bad ones; it hangs; it and its guard are killed in the
//! middle of that; its machine says farewell.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::programs::{Noise, Training};
use super::stage::{Stage, doing, is_alive, machine_of, marked, signal, touch, wait};

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

/// Kills the machine's guard alone and starts it again, as it was and with
/// `more` in its environment.
fn revive(machine: &str, more: &[(&str, &str)]) -> Guard {
    let [guard] = doing(machine, "guard")[..] else { panic!("not one guard: {:?}", marked(machine)) };
    let (line, environ) = (words(guard, "cmdline"), words(guard, "environ"));
    signal(guard, Signal::SIGKILL);
    wait("the guard's end", || (!is_alive(guard)).then_some(()));
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).env_clear().current_dir(&line[3]).process_group(0);
    command.envs(environ.iter().filter_map(|entry| entry.split_once('='))).envs(more.iter().copied());
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let revived = Guard(child);
    one_agent(machine);
    revived
}

/// Waits until the machine has exactly one agent, and a guard that knows it.
fn one_agent(machine: &str) -> i32 {
    wait("one agent", || match doing(machine, "agent")[..] {
        [agent] if doing(machine, "guard").len() == 1 => {
            let parent = std::fs::read_to_string(format!("/proc/{agent}/stat")).ok()?;
            let parent = parent.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<i32>().ok()?;
            doing(machine, "guard").contains(&parent).then_some(agent)
        }
        _ => None,
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

/// A noisy training, its machine and its process.
fn begin(stage: &Stage, noise: &Noise) -> (String, String, i32) {
    let run = stage.submit(&noise.root, &noise.settings());
    let detail = stage.when(&run, "running", |detail| detail["run"]["phase"] == "running");
    let started = wait("the program", || noise.starts().first().cloned());
    (run, machine_of(&detail), started.strip_prefix("1 ").unwrap().parse().unwrap())
}

/// The training was one process on one machine, and every byte of it arrived.
fn unnoticed(stage: &Stage, noise: &Noise, run: &str, machine: &str) {
    let detail = stage.ends_as(run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(noise.starts().len(), 1);
    noise.is_whole(stage, run);
    stage.is_gone(machine);
    stage.verify();
}

#[test]
fn a_new_program_takes_over_while_the_training_goes_on() {
    let stage = Stage::new();
    let noise = Noise::new(&stage, 500, 50);
    let (run, machine, program) = begin(&stage, &noise);
    let old = one_agent(&machine);
    let said = stage.ok(&["machines", "upgrade", "--all", "--json"]);
    let said = answer(&said.stdout);
    assert!(said["upgraded"] == true && said["machine"] == machine.as_str(), "{said:#}");
    assert_ne!(said["version"], "");
    let new = one_agent(&machine);
    assert!(new != old && upgraded(&stage, &machine, new), "{new} runs {}", runs(new).display());
    assert!(is_alive(program));
    // It is what is started from now on, by this guard and by the next.
    signal(new, Signal::SIGKILL);
    let again = wait("another agent", || doing(&machine, "agent").into_iter().find(|pid| *pid != new));
    assert!(upgraded(&stage, &machine, again), "{}", runs(again).display());
    let guard = revive(&machine, &[]);
    let agent = one_agent(&machine);
    assert!(upgraded(&stage, &machine, agent), "{}", runs(agent).display());
    // Until it is damaged: then the guard's own is used.
    std::fs::write(runs(agent).with_file_name("outlast-agent.new"), "no program").unwrap();
    std::fs::rename(runs(agent).with_file_name("outlast-agent.new"), runs(agent)).unwrap();
    let _second = revive(&machine, &[]);
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
fn a_bad_program_is_never_kept() {
    let stage = Stage::new();
    let noise = Noise::new(&stage, 700, 50);
    let (run, machine, program) = begin(&stage, &noise);
    let _guard = revive(&machine, &[("OUTLAST_TRIAL_MS", "3000")]);
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
            "not welcomed by the controller within 3 s",
        ),
    ] {
        let offered = bad.to_str().unwrap();
        let said =
            stage.call(&["machines", "upgrade", &machine, "--program", offered, "--json"]).ends_with(65);
        let said = answer(&said.stdout);
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
fn kills_during_an_upgrade_leave_a_machine_with_its_agent() {
    let stage = Stage::new();
    let noise = Noise::new(&stage, 900, 50);
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
            guards.push(revive(&machine, &[]));
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
    let noise = Noise::new(&stage, 500, 50);
    let (run, machine, program) = begin(&stage, &noise);
    let guard = revive(&machine, &[("OUTLAST_WATCHDOG_MS", "2000")]);
    let agent = one_agent(&machine);
    let guard_pid = i32::try_from(guard.0.id()).unwrap();
    // Longer than the limit, for both: as in a suspended machine.
    for pid in [guard_pid, agent] {
        signal(pid, Signal::SIGSTOP);
    }
    std::thread::sleep(Duration::from_secs(3));
    for pid in [guard_pid, agent] {
        signal(pid, Signal::SIGCONT);
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(one_agent(&machine), agent, "it was ended for time in which its guard did not run");
    let stopped = Instant::now();
    signal(agent, Signal::SIGSTOP);
    wait("the hung agent's end", || (!is_alive(agent)).then_some(()));
    let took = stopped.elapsed();
    assert!((1.0..8.0).contains(&took.as_secs_f32()), "{took:?}");
    assert_ne!(one_agent(&machine), agent);
    assert!(is_alive(program));
    let log = std::fs::read_to_string(stage.home.join("machines").join(&machine).join("agent.log")).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    unnoticed(&stage, &noise, &run, &machine);
}

#[test]
fn a_machine_that_ends_says_farewell_and_its_last_step_is_not_done_again() {
    let stage = Stage::new();
    let training = Training::new(&stage, &[("STEPS", "60"), ("STEP_MS", "100"), ("EVERY", "1000")]);
    let run = training.submit(&stage);
    wait("step 8", || training.steps().iter().any(|(_, step)| *step == 8).then_some(()));
    let machine = machine_of(&stage.status(&run));
    let sign = stage.path("shutdown");
    let guard = revive(
        &machine,
        &[("OUTLAST_SHUTDOWN_SIGN", sign.to_str().unwrap()), ("OUTLAST_SHUTDOWN_GRACE_MS", "20000")],
    );
    connected(&stage, &machine);
    // Without the sign only the guard ends: the training goes on.
    let before = training.steps().len();
    signal(i32::try_from(guard.0.id()).unwrap(), Signal::SIGTERM);
    wait("the guard's end", || doing(&machine, "guard").is_empty().then_some(()));
    wait("a further step", || (training.steps().len() > before + 1).then_some(()));
    let guard = start_again(&stage, &machine, guard, &sign);
    connected(&stage, &machine);
    touch(&sign);
    signal(i32::try_from(guard.0.id()).unwrap(), Signal::SIGTERM);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    let asked: u64 = training.noted("asked").first().expect("the program was asked to end").parse().unwrap();
    let starts = training.starts();
    assert_eq!(starts[1]["resume_step"], asked, "it saved step {asked} at the end: {starts:?}");
    assert_eq!(starts[1]["resume_sha256"], training.saved(asked));
    let steps: Vec<u64> = training.steps().into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, (1..=60).collect::<Vec<_>>(), "no step was done twice");
    let attempts = detail["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), attempts[0]["state"].as_str()), (2, Some("LOST")), "{detail:#}");
    let journal = stage.events(&run);
    let at = |verb: &str| journal.iter().find(|e| e["verb"] == verb).and_then(|e| e["at_ms"].as_u64());
    let (farewell, lost) = (at("farewell").expect("a farewell"), at("lost").expect("a loss"));
    // The program took as long as a step, and what it left was saved; nobody
    // waited for silence.
    assert!(farewell <= lost && lost - farewell < 10_000, "{journal:#?}");
    stage.verify();
    drop(guard);
}

/// Waits until the machine's agent speaks with the controller.
fn connected(stage: &Stage, machine: &str) {
    one_agent(machine);
    let socket = stage.home.join("machines").join(machine).join("guard.sock");
    wait("an agent that was welcomed", || is_ready(&socket).then_some(()));
}

/// Whether the guard has heard that its agent was welcomed.
fn is_ready(socket: &Path) -> bool {
    use std::io::{Read as _, Write as _};
    let mut said = String::new();
    let asked = std::os::unix::net::UnixStream::connect(socket).and_then(|mut stream| {
        stream.write_all(b"{\"status\":{}}\n")?;
        stream.read_to_string(&mut said)
    });
    asked.is_ok() && serde_json::from_str::<Value>(&said).is_ok_and(|said| said["ready"] == true)
}

/// The same guard once more, after it ended by itself.
fn start_again(stage: &Stage, machine: &str, ended: Guard, sign: &Path) -> Guard {
    drop(ended);
    let state = stage.home.join("machines").join(machine);
    let keeper = doing(machine, "keeper")[0];
    let mut command = Command::new(runs(keeper));
    command.args(["guard", "--state"]).arg(&state).current_dir(&state).process_group(0);
    command.env("OUTLAST_MACHINE_ID", machine);
    command.env("OUTLAST_SHUTDOWN_SIGN", sign).env("OUTLAST_SHUTDOWN_GRACE_MS", "20000");
    Guard(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}
