//! The agent and the guard of a machine end on their own: the first costs
//! nothing, the second costs the machine.

use super::processes::{doing, is_alive, kill_one, only};
use super::programs::{Noise, Training};
use super::stage::{Stage, machine_of, wait};

#[test]
fn an_agent_that_is_killed_ten_times_costs_no_step_and_no_byte() {
    let stage = Stage::new();
    let noise = Noise::new(&stage);
    let run = stage.submit(&noise.root, &noise.settings());
    let detail = stage.when(&run, "running", |detail| detail["run"]["phase"] == "running");
    let machine = machine_of(&detail);
    let started = wait("the program", || noise.starts().first().cloned());
    let program: i32 = started.strip_prefix("1 ").unwrap().parse().unwrap();
    let mut killed = Vec::new();
    for kill in 0..10 {
        if kill % 3 == 0 {
            // A machine that nobody hears for too long is given up: on a slow one
            // ten starts in a row may take so long.
            stage.when_welcomed(&machine);
        }
        let agent = wait("an agent that was not killed yet", || {
            doing(&machine, "agent").into_iter().find(|pid| !killed.contains(pid))
        });
        kill_one(agent);
        killed.push(agent);
        assert!(is_alive(program), "the program ended with its agent, kill {}", killed.len());
    }
    assert!(noise.starts().len() == 1 && is_alive(program), "the program did not go on");
    noise.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(noise.starts(), [started]);
    noise.is_whole(&stage, &run);
    stage.is_gone(&machine);
    stage.verify();
}

#[test]
fn a_guard_that_is_killed_alone_costs_no_step_and_nothing_is_left_at_the_end() {
    let stage = Stage::new();
    let training = Training::hf_style(&stage, 50, 60, 10).gated(30);
    let run = training.submit(&stage);
    training.when_done(5);
    let machine = machine_of(&stage.status(&run));
    kill_one(only(&machine, "guard"));
    training.may_end();
    let detail = stage.ends_as(&run, "SUCCEEDED");
    assert_eq!(detail["machines"].as_array().unwrap().len(), 1, "{detail:#}");
    let steps: Vec<u64> = training.steps().into_iter().map(|(_, step)| step).collect();
    assert_eq!(steps, (1..=50).collect::<Vec<_>>());
    stage.is_gone(&machine);
    stage.verify();
}

#[test]
fn a_machine_without_guard_and_agent_is_lost_and_nothing_of_it_is_left() {
    let stage = Stage::new();
    let training = Training::hf_style(&stage, 60, 80, 5).gated(40);
    let run = training.submit(&stage);
    let durable = stage.when_durable(&run, 5);
    let machine = machine_of(&stage.status(&run));
    kill_one(only(&machine, "guard"));
    assert!(!doing(&machine, "keeper").is_empty(), "the keeper ended with its guard");
    // Nobody starts it again now, though the program itself goes on. The loss is
    // seen at once, and then the keeper is ended too.
    kill_one(only(&machine, "agent"));
    wait("the second start", || (training.starts().len() == 2).then_some(()));
    training.may_end();
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
