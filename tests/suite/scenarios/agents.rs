//! The agent and the guard of a machine end on their own: the first costs
//! nothing, the second costs the machine.

use nix::sys::signal::Signal;

use super::programs::{Noise, Training};
use super::stage::{Stage, doing, is_alive, machine_of, marked, signal, wait};

#[test]
fn an_agent_that_is_killed_ten_times_costs_no_step_and_no_byte() {
    let stage = Stage::new();
    let noise = Noise::new(&stage, 460, 50);
    let run = stage.submit(&noise.root, &noise.settings());
    let detail = stage.when(&run, "running", |detail| detail["run"]["phase"] == "running");
    let machine = machine_of(&detail);
    let started = wait("the program", || noise.starts().first().cloned());
    let program: i32 = started.strip_prefix("1 ").unwrap().parse().unwrap();
    let mut killed = Vec::new();
    for _ in 0..10 {
        let agent = wait("an agent that was not killed yet", || {
            doing(&machine, "agent").into_iter().find(|pid| !killed.contains(pid))
        });
        signal(agent, Signal::SIGKILL);
        killed.push(agent);
        wait("the agent's end", || (!is_alive(agent)).then_some(()));
        assert!(is_alive(program), "the program ended with its agent, kill {}", killed.len());
    }
    assert!(noise.starts().len() == 1 && is_alive(program), "the program did not go on");
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(noise.starts(), [started]);
    noise.is_whole(&stage, &run);
    stage.is_gone(&machine);
    stage.verify();
}

#[test]
fn a_guard_that_is_killed_costs_its_machine_and_nothing_of_it_is_left() {
    let stage = Stage::new();
    let training = Training::hf_style(&stage, 40, 80, 5);
    let run = training.submit(&stage);
    let durable = stage.when_durable(&run, 5);
    let machine = machine_of(&stage.status(&run));
    let [guard] = doing(&machine, "guard")[..] else { panic!("not one guard: {:?}", marked(&machine)) };
    signal(guard, Signal::SIGKILL);
    let detail = stage.ends_as(&run, "SUCCEEDED");
    let used: Vec<&str> =
        detail["machines"].as_array().unwrap().iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(used.len(), 2, "{detail:#}");
    for machine in used {
        stage.is_gone(machine);
    }
    let generations: Vec<u64> = training.starts().iter().map(|s| s["generation"].as_u64().unwrap()).collect();
    assert_eq!(generations, [1, 2]);
    // The old program was ended before the new one began.
    let steps = training.steps();
    let first = steps.iter().position(|(generation, _)| *generation == 2).unwrap();
    assert!(steps[first..].iter().all(|(generation, _)| *generation == 2), "{steps:?}");
    assert!(steps[first].1 > durable, "step {} was durable and done again", steps[first].1);
    stage.verify();
}
