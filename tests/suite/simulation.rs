//! The real controller core and real agents' cores in virtual time: seeded
//! faults first, then the faults stop and everything must converge. A failing
//! seed is printed and reproduces bit for bit.

mod faults;
mod hosts;
mod judge;
mod machine;
mod run;
mod world;

use faults::{Away, Options};
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
    first..first + number("SIM_SEEDS").unwrap_or(5)
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

/// Machines that cost, a provider that loses answers, controllers that die, and
/// a cap: some worlds end well below it, others are ended by it, and in the
/// vendor's books none goes above it.
#[test]
fn i16_the_cap_holds_in_the_vendors_books_whatever_fails() {
    logged();
    let (mut ended, mut stopped, mut most) = (0, 0, 0.0_f64);
    for seed in seeds() {
        let options = Options::capped(seed);
        let outcome = simulate(seed, &options);
        if let Err(problem) = &outcome.verdict {
            panic!("SEED={seed} OPTS={options:?}: {problem}\n{}", outcome.trace.join("\n"));
        }
        let by_cap = outcome.trace.iter().any(|line| line.contains("budget"));
        if by_cap {
            stopped += 1;
        } else {
            ended += 1;
        }
        most = most.max(outcome.billed_usd / outcome.cap_usd.unwrap());
    }
    assert!(stopped > 0 && ended > 0, "{stopped} were ended by their cap and {ended} were not");
    println!(
        "{stopped} worlds were ended by their cap, {ended} were not; at most {:.1} % of a cap were billed",
        most * 100.0
    );
}

/// Paid machines that are made while a silent one is not lost yet: all of the
/// above holds, some are bound and others released.
#[test]
fn machines_made_beside_a_silent_one_stay_below_the_cap_and_are_given_back() {
    logged();
    let (mut beside, mut used) = (0, 0);
    for seed in seeds() {
        let options = Options::beside(seed);
        let outcome = simulate(seed, &options);
        if let Err(problem) = &outcome.verdict {
            panic!("SEED={seed} OPTS={options:?}: {problem}\n{}", outcome.trace.join("\n"));
        }
        assert!(outcome.billed_usd <= outcome.cap_usd.unwrap(), "SEED={seed}");
        let early = |line: &&String| {
            let (_, said) = line.split_once("\"silent_ms\":").unwrap_or_default();
            let silent_ms =
                said.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<u64>().ok());
            line.contains("in_place_of") && silent_ms.is_some_and(|ms| (15_000..30_000).contains(&ms))
        };
        beside += outcome.trace.iter().filter(early).count();
        used += u64::from(outcome.generations > 1);
    }
    assert!(beside > 0, "no world made a machine beside a silent one");
    println!("{beside} were made beside a silent one; {used} worlds needed another");
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
    let outcome = simulate(seed, &Options { away: Some(Away::Hour), ..Options::calm() });
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

/// The steps of the checkpoints that became durable, in the order in which
/// they did, and how many objects of a kind there are.
fn durable(outcome: &Outcome) -> Vec<u64> {
    let step = |line: &String| {
        let (_, detail) = line.split_once(" durable ")?;
        let detail: serde_json::Value = serde_json::from_str(detail.split_once(' ')?.1).ok()?;
        detail["step"].as_u64()
    };
    outcome.trace.iter().filter_map(step).collect()
}

fn objects(outcome: &Outcome, class: artifacts::key::ObjectClass) -> usize {
    outcome.objects.iter().filter(|key| key.seq().is_some_and(|(of, _)| of == class)).count()
}

#[test]
fn ten_hours_without_a_controller_store_every_checkpoint_once_and_lose_none() {
    logged();
    let seed = seeds().start;
    let outcome = simulate(seed, &Options::night(false));
    assert_eq!(outcome.verdict, Ok(()), "SEED={seed}\n{}", outcome.trace.join("\n"));
    assert_eq!((outcome.generations, outcome.machines), (1, 1), "SEED={seed}");
    let every: Vec<u64> = (1..=machine::STEPS / machine::EVERY).map(|n| n * machine::EVERY).collect();
    assert_eq!(durable(&outcome), every, "each of them, in order\n{}", outcome.trace.join("\n"));
    use artifacts::key::ObjectClass::{Manifest, Pack};
    let stored = (objects(&outcome, Manifest), objects(&outcome, Pack));
    assert_eq!(stored, (every.len(), every.len()), "nothing was sent twice: {:?}", outcome.objects);
}

#[test]
fn a_machine_that_dies_in_such_a_night_loses_nothing_that_was_stored() {
    logged();
    let seed = seeds().start;
    let outcome = simulate(seed, &Options::night(true));
    assert_eq!(outcome.verdict, Ok(()), "SEED={seed}\n{}", outcome.trace.join("\n"));
    assert_eq!((outcome.generations, outcome.machines), (2, 2), "SEED={seed}");
    // It died in the middle of step 113, nine and a half hours after anybody
    // had heard of it.
    assert_eq!(outcome.starts, [0, 110], "{}", outcome.trace.join("\n"));
}

/// Without booklets the night is lost: they are what keeps it.
#[test]
fn the_same_night_without_booklets_is_lost() {
    let outcome = simulate(seeds().start, &Options { signs: false, ..Options::night(true) });
    assert_eq!(outcome.verdict, Ok(()), "{}", outcome.trace.join("\n"));
    assert_eq!(outcome.starts, [0, 0], "{}", outcome.trace.join("\n"));
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
