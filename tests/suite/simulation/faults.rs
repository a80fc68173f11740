//! Which faults a seed has, when they happen, and what each does.

use std::time::Duration;

use super::machine::SLOW_STEP;
use super::run::{Fleet, TICK};
use super::world::World;

/// Faults happen only in this time.
pub(super) const TROUBLE: Duration = Duration::from_secs(60);

/// Which faults a seed has.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Options {
    pub(super) machine_kills: u32,
    pub(super) agent_bounces: u32,
    pub(super) controller_bounces: u32,
    pub(super) partitions: u32,
    pub(super) one_way: u32,
    pub(super) holds: u32,
    pub(super) provider_faults: bool,
    pub(super) forget_resume: bool,
    /// The controller is away for long, while a slow program writes.
    pub(super) away: Option<Away>,
    /// The provider bills, and so many dollars may be spent beside what is kept
    /// back for the end of a machine.
    pub(super) room_usd: Option<f64>,
    /// Machines are made while a silent one is not lost yet.
    pub(super) speculate: bool,
    /// The store signs URLs, and machines are handed booklets.
    pub(super) signs: bool,
}

/// How long the controller is away, and what happens meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Away {
    /// An hour.
    Hour,
    /// Ten hours, in which the program saves eleven times.
    Night,
    /// The same, and half an hour before its end the machine dies.
    NightAndDeath,
}

/// When the controller goes away.
pub(super) const LEAVES: Duration = Duration::from_secs(20);
/// When the machine dies in the night.
const DIES: Duration = Duration::from_secs(20 + 9 * 3_600 + 1_800);

impl Away {
    /// When it comes back.
    pub(super) fn until(self) -> Duration {
        LEAVES + if self == Self::Hour { Duration::from_hours(1) } else { Duration::from_hours(10) }
    }

    /// How long a step of the program takes.
    pub(super) fn step(self) -> Duration {
        if self == Self::Hour { SLOW_STEP } else { Duration::from_secs(305) }
    }
}

impl Options {
    /// A program that saves through a night in which nobody is there.
    pub(super) fn night(machine_dies: bool) -> Self {
        let away = if machine_dies { Away::NightAndDeath } else { Away::Night };
        Self { away: Some(away), signs: true, ..Self::calm() }
    }

    pub(super) fn calm() -> Self {
        Self {
            machine_kills: 0,
            agent_bounces: 0,
            controller_bounces: 0,
            partitions: 0,
            one_way: 0,
            holds: 0,
            provider_faults: false,
            forget_resume: false,
            away: None,
            room_usd: None,
            speculate: false,
            signs: false,
        }
    }

    /// A random subset of the faults.
    pub(super) fn swarm(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let mut some = |most: u32| if rng.bool() { rng.u32(1..=most) } else { 0 };
        Self {
            machine_kills: some(3),
            agent_bounces: some(4),
            controller_bounces: some(3),
            partitions: some(2),
            one_way: some(2),
            holds: some(2),
            provider_faults: some(1) == 1,
            forget_resume: false,
            away: None,
            room_usd: None,
            speculate: seed % 2 == 1,
            signs: some(1) == 1,
        }
    }

    /// The same under a cap that some worlds reach.
    pub(super) fn capped(seed: u64) -> Self {
        let room = fastrand::Rng::with_seed(seed ^ 0xca9).f64() * 2.0;
        Self { room_usd: Some(room), ..Self::swarm(seed) }
    }

    /// Machines that are cut off again and again, under a cap that bears two.
    pub(super) fn beside(seed: u64) -> Self {
        Self { room_usd: Some(25.0), speculate: true, partitions: 3, machine_kills: 0, ..Self::swarm(seed) }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    KillMachine,
    BounceAgent,
    BounceController,
    Partition(Duration),
    OneWay(Duration, bool),
    Hold(Duration),
}

pub(super) fn schedule(options: &Options, rng: &mut fastrand::Rng) -> Vec<(Duration, Fault)> {
    let mut list = Vec::new();
    let at = |rng: &mut fastrand::Rng| Duration::from_millis(rng.u64(1_000..TROUBLE.as_millis() as u64));
    let long = |rng: &mut fastrand::Rng| Duration::from_millis(rng.u64(500..40_000));
    for _ in 0..options.machine_kills {
        list.push((at(rng), Fault::KillMachine));
    }
    for _ in 0..options.agent_bounces {
        list.push((at(rng), Fault::BounceAgent));
    }
    for _ in 0..options.controller_bounces {
        list.push((at(rng), Fault::BounceController));
    }
    for _ in 0..options.partitions {
        list.push((at(rng), Fault::Partition(long(rng))));
    }
    for _ in 0..options.one_way {
        list.push((at(rng), Fault::OneWay(long(rng), rng.bool())));
    }
    for _ in 0..options.holds {
        list.push((at(rng), Fault::Hold(Duration::from_millis(rng.u64(100..4_000)))));
    }
    if options.away == Some(Away::NightAndDeath) {
        list.push((DIES, Fault::KillMachine));
    }
    list.sort_by_key(|(at, _)| *at);
    list
}

pub(super) fn inject(
    sim: &mut turmoil::Sim<'_>,
    world: &World,
    fleet: &mut Fleet,
    fault: Fault,
    now: Duration,
    heal: &mut Vec<(Duration, String)>,
    rng: &mut fastrand::Rng,
) {
    let ids: Vec<String> = fleet.live.keys().cloned().collect();
    let victim = if ids.is_empty() { None } else { Some(ids[rng.usize(..ids.len())].clone()) };
    match (fault, victim) {
        // Crashes are power cuts: no farewell of any socket arrives. (In which
        // order a runtime drops its sockets is not the seed's to decide.)
        (Fault::BounceController, _) => {
            for id in &ids {
                sim.partition("controller", id.as_str());
                heal.push((now + TICK * 2, id.clone()));
            }
            sim.bounce("controller");
        }
        (Fault::KillMachine, Some(id)) => {
            for instance in world.provider.truth() {
                if world.provider.machine_of(&instance.id).as_deref() == Some(&id) {
                    world.provider.preempt(&instance.id);
                }
            }
            sim.partition("controller", id.as_str());
            if fleet.live.remove(&id).is_some() {
                sim.crash(id.as_str());
            }
        }
        (Fault::BounceAgent, Some(id)) => {
            sim.partition("controller", id.as_str());
            sim.bounce(id.as_str());
            heal.push((now + TICK * 2, id));
        }
        (Fault::Partition(long), Some(id)) => {
            sim.partition("controller", id.as_str());
            heal.push((now + long, id));
        }
        (Fault::OneWay(long, up), Some(id)) => {
            let (from, to) = if up { (id.as_str(), "controller") } else { ("controller", id.as_str()) };
            sim.partition_oneway(from, to);
            heal.push((now + long, id));
        }
        (Fault::Hold(long), Some(id)) => {
            sim.hold("controller", id.as_str());
            heal.push((now + long, id));
        }
        (_, None) => {}
    }
}
