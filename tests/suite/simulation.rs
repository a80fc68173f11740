//! The real controller core and real agents' cores in virtual time: seeded
//! faults first, then the faults stop and everything must converge. A failing
//! seed is printed and reproduces bit for bit.

mod faults;
mod hosts;
mod judge;
mod machine;
mod run;
mod world;

use faults::Options;
use run::{Outcome, simulate};

/// `SIM_LOG=1` shows what the parts say.
fn logged() {
    if std::env::var_os("SIM_LOG").is_some() {
        let _ = tracing_subscriber::fmt().with_env_filter("info,turmoil=warn").try_init();
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let first = number("SIM_FIRST_SEED").unwrap_or(1);
    first..first + number("SIM_SEEDS").unwrap_or(20)
}

#[test]
fn i24_faults_stop_and_everything_converges() {
    logged();
    let mut summary = (0, 0, 0);
    for seed in seeds() {
        let outcome = simulate(seed, &Options::swarm(seed));
        if let Err(problem) = &outcome.verdict {
            panic!("SEED={seed} OPTS={:?}: {problem}\n{}", Options::swarm(seed), outcome.trace.join("\n"));
        }
        summary.0 += 1;
        summary.1 += outcome.generations;
        summary.2 += outcome.machines;
    }
    println!("{} seeds converged, {} generations, {} machines", summary.0, summary.1, summary.2);
}

#[test]
fn a_seed_reproduces_bit_for_bit() {
    for seed in [2, 3, 15, 19] {
        let once: Outcome = simulate(seed, &Options::swarm(seed));
        let again = simulate(seed, &Options::swarm(seed));
        assert!(once.trace.len() > 20, "the trace says too little");
        let differs = once.trace.iter().zip(&again.trace).position(|(a, b)| a != b);
        if let Some(at) = differs {
            panic!("SEED={seed} differs at {at}:\n{}\n{}", once.trace[at], again.trace[at]);
        }
        assert_eq!(once.trace.len(), again.trace.len(), "SEED={seed}");
    }
}

#[test]
fn without_faults_one_machine_is_enough() {
    logged();
    let outcome = simulate(1, &Options::calm());
    assert_eq!(outcome.verdict, Ok(()), "{}", outcome.trace.join("\n"));
    assert_eq!((outcome.generations, outcome.machines), (1, 1));
}

#[test]
fn an_hour_without_a_controller_costs_no_byte_and_no_time() {
    logged();
    let seed = seeds().start;
    let outcome = simulate(seed, &Options { hour_away: true, ..Options::calm() });
    assert_eq!(outcome.verdict, Ok(()), "SEED={seed}\n{}", outcome.trace.join("\n"));
    assert_eq!((outcome.generations, outcome.machines), (1, 1), "SEED={seed}");
    let at = |i: usize| outcome.times[i]["at_ms"].as_u64().unwrap();
    assert_eq!(outcome.times.len() as u64, machine::STEPS, "one time per line");
    for i in 1..outcome.times.len() {
        assert_eq!(
            at(i) - at(i - 1),
            machine::SLOW_STEP.as_millis() as u64,
            "line {i} was given another time"
        );
    }
}

/// The checks can fail: a program that forgets its resume point is caught.
#[test]
fn a_broken_resume_is_noticed() {
    let caught = (1..40).any(|seed| {
        let options = Options { forget_resume: true, ..Options::swarm(seed) };
        simulate(seed, &options).verdict.is_err()
    });
    assert!(caught);
}
