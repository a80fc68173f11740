//! One simulated world from a seed: a controller that may be bounced, a
//! provider that loses replies, machines that die, links that break; and the
//! checks by somebody who sees everything.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use controller::provider::Faults;

use super::faults::{Away, LEAVES, Options, TROUBLE, inject, schedule};
use super::hosts::{agent, controller, first_boot};
use super::judge::judge;
use super::machine::Machine;
use super::world::{PRICE, World, answer, futures_block_on, is_over, load, submit, trace};

/// By then everything must have converged.
const DEADLINE: Duration = Duration::from_secs(900);
pub(super) const TICK: Duration = Duration::from_millis(10);

/// What came of it.
pub(super) struct Outcome {
    pub(super) verdict: Result<(), String>,
    pub(super) trace: Vec<String>,
    pub(super) generations: u64,
    pub(super) machines: u64,
    /// What the vendor bills, and the run's cap.
    pub(super) billed_usd: f64,
    pub(super) cap_usd: Option<f64>,
    /// From which step each program was started.
    pub(super) starts: Vec<u64>,
    /// What is in the store.
    pub(super) objects: Vec<artifacts::ObjectKey>,
    /// The times that the controller noted of the first attempt's output.
    pub(super) times: Vec<serde_json::Value>,
}

/// The machines that live, by id.
pub(super) struct Fleet {
    pub(super) live: BTreeMap<String, Arc<Machine>>,
    started: BTreeSet<String>,
}

/// Runs one world to its end.
pub(super) fn simulate(seed: u64, options: &Options) -> Outcome {
    let shm = Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap();
    let world = Arc::new(World::new(seed, dir.path(), options));
    let run = futures_block_on(submit(&world, options.room_usd, options.speculate));
    let deadline = options.away.map_or(Duration::ZERO, Away::until) + DEADLINE;
    let tick = options.away.map_or(1, |away| if away == Away::Hour { 5 } else { 50 });
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut faults = schedule(options, &mut rng);
    let mut sim = turmoil::Builder::new()
        .simulation_duration(deadline * 2)
        .tick_duration(TICK * tick)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(30))
        .tcp_capacity(4_096)
        .rng_seed(seed)
        .build();
    let shared = world.clone();
    sim.host("controller", move || controller(shared.clone()));
    let mut fleet = Fleet { live: BTreeMap::new(), started: BTreeSet::new() };
    let mut heal: Vec<(Duration, String)> = Vec::new();
    let mut verdict = Err(format!("not converged within {deadline:?}"));
    let mut healed = false;
    let mut away = options.away.map_or_else(Vec::new, |away| vec![away.until(), LEAVES]);
    while sim.elapsed() < deadline {
        if let Err(error) = sim.step() {
            verdict = Err(format!("a host ended: {error}"));
            break;
        }
        let now = sim.elapsed();
        world.outside.store(now.as_millis() as u64, Ordering::Relaxed);
        births_and_deaths(&mut sim, &world, &mut fleet, options);
        if away.pop_if(|at| *at <= now).is_some() {
            leave_or_return(&mut sim, &fleet, away.is_empty());
        }
        while faults.first().is_some_and(|(at, _)| *at <= now) {
            let (_, fault) = faults.remove(0);
            inject(&mut sim, &world, &mut fleet, fault, now, &mut heal, &mut rng);
        }
        heal.retain(|(until, name)| {
            let over = *until <= now;
            if over {
                sim.release("controller", name.as_str());
                sim.repair("controller", name.as_str());
            }
            !over
        });
        if faults.is_empty() && heal.is_empty() && now > TROUBLE && !healed {
            healed = true;
            world.provider.set_faults(Faults::default());
        }
        if healed && away.is_empty() {
            futures_block_on(answer(&world, run));
        }
        if healed && away.is_empty() && is_over(&world, run) {
            verdict = judge(&world, run);
            break;
        }
    }
    let trace = trace(&world);
    let noted = world.dir.join("runs/sim-run/1/stdout.times.jsonl");
    let noted = std::fs::read_to_string(noted).unwrap_or_default();
    let times = noted.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let row = futures_block_on(load(&world, run));
    let (generations, cap_usd) = (row.generation.as_u64(), row.spec.max_usd);
    let billed_usd = world.provider.billed_ms().values().sum::<u64>() as f64 / 3_600_000.0 * PRICE;
    let starts = world.oracle.lock().unwrap().starts.iter().map(|start| start.from).collect();
    let objects = futures_block_on(world.objects.list("")).unwrap();
    let machines = world.provider.made();
    Outcome { verdict, trace, generations, machines, billed_usd, cap_usd, starts, objects, times }
}

/// The controller's host goes away without a farewell, or comes back.
fn leave_or_return(sim: &mut turmoil::Sim<'_>, fleet: &Fleet, returns: bool) {
    for id in fleet.live.keys() {
        if returns {
            sim.repair("controller", id.as_str());
        } else {
            sim.partition("controller", id.as_str());
        }
    }
    if returns {
        sim.bounce("controller");
    } else {
        sim.crash("controller");
    }
}

fn births_and_deaths(sim: &mut turmoil::Sim<'_>, world: &Arc<World>, fleet: &mut Fleet, options: &Options) {
    let births: Vec<_> = world.births.lock().unwrap().drain(..).collect();
    for (id, script) in births {
        if !fleet.started.insert(id.clone()) {
            continue;
        }
        let state = world.dir.join("machines").join(&id);
        first_boot(&state, &script);
        let outboxes = state.join("outboxes");
        std::fs::create_dir_all(&outboxes).unwrap();
        let machine = Arc::new(Machine::new(world.oracle.clone(), outboxes, options, world.connect()));
        fleet.live.insert(id.clone(), machine.clone());
        let seed = world.seed ^ fleet.started.len() as u64;
        sim.host(id.as_str(), move || agent(state.clone(), machine.clone(), seed));
    }
    // What the provider takes away goes without a farewell too.
    let deaths: Vec<_> = world.deaths.lock().unwrap().drain(..).collect();
    for instance in deaths {
        if let Some(id) = world.provider.machine_of(&instance)
            && fleet.live.remove(&id).is_some()
        {
            sim.partition("controller", id.as_str());
            sim.crash(id.as_str());
        }
    }
}
