//! A provider that exists only in memory: for simulations, and to show that a
//! caller copes with every way in which a provider can fail it.
//!
//! It performs no IO, reads no clock but the one it was given, and draws every
//! fault from one seeded generator. [`SimulatedProvider::truth`] is the oracle:
//! what really exists, whatever was answered.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, Instance, InstanceState, Listing, Presence,
    Provider, Reach,
};

/// One way in which one call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Create is refused; nothing is made.
    CreateRejected,
    /// Create never arrives; the caller cannot know.
    CreateLost,
    /// Create is done; its answer never arrives.
    CreateReplyLost,
    /// Create is done and its answer never arrives; the machine is visible late.
    CreateVisibleLate,
    /// List gives no answer.
    ListError,
    /// List leaves out some, and says so.
    ListPartial,
    /// Get gives no answer.
    GetError,
    /// Destroy never arrives.
    DestroyLost,
    /// Destroy is done; its answer never arrives.
    DestroyReplyLost,
}

/// How likely each fault is, from 0 to 1, per call.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// [`Fault::CreateRejected`].
    pub create_rejected: f64,
    /// [`Fault::CreateLost`].
    pub create_lost: f64,
    /// [`Fault::CreateReplyLost`].
    pub create_reply_lost: f64,
    /// [`Fault::CreateVisibleLate`].
    pub create_visible_late: f64,
    /// [`Fault::ListError`].
    pub list_error: f64,
    /// [`Fault::ListPartial`].
    pub list_partial: f64,
    /// [`Fault::GetError`].
    pub get_error: f64,
    /// [`Fault::DestroyLost`].
    pub destroy_lost: f64,
    /// [`Fault::DestroyReplyLost`].
    pub destroy_reply_lost: f64,
}

/// What a simulation gives its provider.
pub struct SimulatedConfig {
    /// Decides every fault.
    pub seed: u64,
    /// How likely the faults are.
    pub faults: Faults,
    /// What repeated creates do; with [`Idempotency::LabelOnly`] each makes one
    /// more machine.
    pub idempotency: Idempotency,
    /// The price of one machine.
    pub usd_per_hour: f64,
    /// Whether somebody bills it: then caps are obligatory.
    pub paid: bool,
    /// How long a machine boots.
    pub boot_ms: u64,
    /// How long a machine that is visible late stays hidden.
    pub settle_window_ms: u64,
    /// The simulation's clock.
    pub now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Told of each machine that is really made.
    pub on_create: Box<dyn Fn(&CreateRequest) + Send + Sync>,
    /// Told of each machine that really ends, by its instance name.
    pub on_destroy: Box<dyn Fn(&str) + Send + Sync>,
}

impl SimulatedConfig {
    /// No faults, no price, no boot time, hooks that do nothing.
    #[must_use]
    pub fn new(seed: u64, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self {
            seed,
            faults: Faults::default(),
            idempotency: Idempotency::ClientChosenName,
            usd_per_hour: 0.0,
            paid: false,
            boot_ms: 0,
            settle_window_ms: 30_000,
            now_ms: Box::new(now_ms),
            on_create: Box::new(|_| {}),
            on_destroy: Box::new(|_| {}),
        }
    }
}

#[derive(Debug)]
struct Machine {
    label: String,
    machine_id: String,
    up_at: u64,
    visible_at: u64,
    made_at: u64,
    /// It was taken away, and is listed still.
    ended_at: Option<u64>,
}

#[derive(Debug)]
struct World {
    random: fastrand::Rng,
    faults: Faults,
    scripted: VecDeque<Fault>,
    machines: BTreeMap<String, Machine>,
    made: u64,
    /// Milliseconds for which machines that are removed were billed, by machine.
    billed: BTreeMap<String, u64>,
}

/// A [`Provider`] in memory.
pub struct SimulatedProvider {
    config: SimulatedConfig,
    world: Mutex<World>,
}

impl fmt::Debug for SimulatedProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedProvider").field("world", &self.world).finish_non_exhaustive()
    }
}

impl Machine {
    fn billed_ms(&self, now: u64) -> u64 {
        self.ended_at.unwrap_or(now).saturating_sub(self.made_at)
    }

    fn state(&self, now: u64) -> InstanceState {
        if self.ended_at.is_some() {
            InstanceState::Terminal
        } else if now < self.up_at {
            InstanceState::Booting
        } else {
            InstanceState::Up
        }
    }
}

impl World {
    /// Decides whether one of these faults befalls this call: a scripted one
    /// first, then each by its likelihood. The number of draws is always the
    /// same, so that one more fault does not change all that follow.
    fn fault(&mut self, possible: &[(Fault, f64)]) -> Option<Fault> {
        let scripted = self.scripted.iter().position(|fault| possible.iter().any(|(p, _)| p == fault));
        if let Some(place) = scripted {
            return self.scripted.remove(place);
        }
        let mut struck = None;
        for (fault, likelihood) in possible {
            let draw = self.random.f64();
            if struck.is_none() && draw < *likelihood {
                struck = Some(*fault);
            }
        }
        struck
    }

    fn instances(&self, now: u64, shown: impl Fn(&Machine) -> bool) -> Vec<Instance> {
        let machines = self.machines.iter().filter(|(_, machine)| shown(machine));
        let instance = |(id, machine): (&String, &Machine)| Instance {
            id: id.clone(),
            label: machine.label.clone(),
            state: machine.state(now),
        };
        machines.map(instance).collect()
    }
}

impl SimulatedProvider {
    /// A provider without machines.
    #[must_use]
    pub fn new(config: SimulatedConfig) -> Self {
        let world = World {
            random: fastrand::Rng::with_seed(config.seed),
            faults: config.faults,
            scripted: VecDeque::new(),
            machines: BTreeMap::new(),
            made: 0,
            billed: BTreeMap::new(),
        };
        Self { config, world: Mutex::new(world) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        (self.config.now_ms)()
    }

    /// All machines that really exist, hidden and ended ones too.
    #[must_use]
    pub fn truth(&self) -> Vec<Instance> {
        let now = self.now();
        self.world().instances(now, |_| true)
    }

    /// Milliseconds for which each machine that was ever made is billed so far,
    /// by machine id: from its making until it was taken away or removed,
    /// whatever was answered. The oracle of money.
    #[must_use]
    pub fn billed_ms(&self) -> BTreeMap<String, u64> {
        let now = self.now();
        let world = self.world();
        let mut billed = world.billed.clone();
        for machine in world.machines.values() {
            *billed.entry(machine.machine_id.clone()).or_default() += machine.billed_ms(now);
        }
        billed
    }

    /// How many machines were ever made.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.world().made
    }

    /// Changes how likely faults are from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world().faults = faults;
    }

    /// Makes the next call that can fail this way fail this way.
    pub fn inject(&self, fault: Fault) {
        self.world().scripted.push_back(fault);
    }

    /// The provider takes a machine away, as a preemption does: it stays listed
    /// as ended. False: there is no such machine, or it had ended.
    pub fn preempt(&self, instance: &str) -> bool {
        let now = self.now();
        let took = match self.world().machines.get_mut(instance) {
            Some(machine) if machine.ended_at.is_none() => {
                machine.ended_at = Some(now);
                true
            }
            _ => false,
        };
        if took {
            (self.config.on_destroy)(instance);
        }
        took
    }

    /// Removes it; false: it was not there.
    fn remove(&self, instance: &str) -> bool {
        let now = self.now();
        let removed = {
            let mut world = self.world();
            let removed = world.machines.remove(instance);
            if let Some(machine) = &removed {
                *world.billed.entry(machine.machine_id.clone()).or_default() += machine.billed_ms(now);
            }
            removed
        };
        if removed.as_ref().is_some_and(|machine| machine.ended_at.is_none()) {
            (self.config.on_destroy)(instance);
        }
        removed.is_some()
    }

    /// The instance's name, and whether it is new.
    fn make(&self, request: &CreateRequest, hidden_ms: u64) -> Result<(String, bool), String> {
        let now = self.now();
        let mut world = self.world();
        let by_name = self.config.idempotency != Idempotency::LabelOnly;
        if by_name && let Some(machine) = world.machines.get(&request.machine_id) {
            return if machine.label == request.label {
                Ok((request.machine_id.clone(), false))
            } else {
                Err(format!("the name is taken by a machine labelled `{}`", machine.label))
            };
        }
        world.made += 1;
        let id = if by_name { request.machine_id.clone() } else { format!("i-{}", world.made) };
        let machine = Machine {
            label: request.label.clone(),
            machine_id: request.machine_id.clone(),
            up_at: now.saturating_add(self.config.boot_ms),
            visible_at: now.saturating_add(hidden_ms),
            made_at: now,
            ended_at: None,
        };
        world.machines.insert(id.clone(), machine);
        Ok((id, true))
    }

    /// The machine id that an instance was made for.
    #[must_use]
    pub fn machine_of(&self, instance: &str) -> Option<String> {
        self.world().machines.get(instance).map(|machine| machine.machine_id.clone())
    }
}

#[async_trait]
impl Provider for SimulatedProvider {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn reach(&self) -> Reach {
        Reach::MachineDials
    }

    fn capabilities(&self) -> super::Capabilities {
        super::Capabilities { interruptible: true, ..super::Capabilities::default() }
    }

    fn idempotency(&self) -> Idempotency {
        self.config.idempotency
    }

    fn is_paid(&self) -> bool {
        self.config.paid
    }

    fn usd_per_hour(&self) -> f64 {
        self.config.usd_per_hour
    }

    fn settle_window_ms(&self) -> u64 {
        self.config.settle_window_ms
    }

    async fn create(&self, request: &CreateRequest) -> CreateOutcome {
        let fault = {
            let mut world = self.world();
            let f = world.faults;
            world.fault(&[
                (Fault::CreateRejected, f.create_rejected),
                (Fault::CreateLost, f.create_lost),
                (Fault::CreateReplyLost, f.create_reply_lost),
                (Fault::CreateVisibleLate, f.create_visible_late),
            ])
        };
        match fault {
            Some(Fault::CreateRejected) => {
                return CreateOutcome::rejected("no capacity (simulated)");
            }
            Some(Fault::CreateLost) => {
                return CreateOutcome::Unknown { reason: "the call was lost (simulated)".into() };
            }
            _ => {}
        }
        let late = fault == Some(Fault::CreateVisibleLate);
        let hidden_ms = if late { self.config.settle_window_ms } else { 0 };
        let (instance, new) = match self.make(request, hidden_ms) {
            Ok(made) => made,
            Err(reason) => return CreateOutcome::rejected(reason),
        };
        if new {
            (self.config.on_create)(request);
        }
        match fault {
            None => CreateOutcome::Created { instance },
            Some(_) => CreateOutcome::Unknown { reason: "the answer was lost (simulated)".into() },
        }
    }

    async fn list(&self, label_prefix: &str) -> Listing {
        let now = self.now();
        let mut world = self.world();
        let f = world.faults;
        let fault = world.fault(&[(Fault::ListError, f.list_error), (Fault::ListPartial, f.list_partial)]);
        if fault == Some(Fault::ListError) {
            return Listing::Error("no answer (simulated)".into());
        }
        let shown = |machine: &Machine| machine.visible_at <= now && machine.label.starts_with(label_prefix);
        let mut found = world.instances(now, shown);
        if fault == Some(Fault::ListPartial) {
            found.retain(|_| world.random.bool());
            return Listing::Partial(found);
        }
        Listing::Complete(found)
    }

    async fn get(&self, instance: &str) -> Presence {
        let now = self.now();
        let mut world = self.world();
        let likelihood = world.faults.get_error;
        if world.fault(&[(Fault::GetError, likelihood)]).is_some() {
            return Presence::Error("no answer (simulated)".into());
        }
        match world.machines.get(instance) {
            Some(machine) if machine.visible_at <= now => Presence::Present(machine.state(now)),
            _ => Presence::Absent,
        }
    }

    async fn destroy(&self, instance: &str) -> DestroyOutcome {
        let fault = {
            let mut world = self.world();
            let f = world.faults;
            world.fault(&[
                (Fault::DestroyLost, f.destroy_lost),
                (Fault::DestroyReplyLost, f.destroy_reply_lost),
            ])
        };
        if fault == Some(Fault::DestroyLost) {
            return DestroyOutcome::Unknown("the call was lost (simulated)".into());
        }
        let existed = self.remove(instance);
        match fault {
            Some(_) => DestroyOutcome::Unknown("the answer was lost (simulated)".into()),
            None if existed => DestroyOutcome::Accepted,
            None => DestroyOutcome::Absent,
        }
    }

    async fn sabotage(&self, instance: &str) -> Result<(), String> {
        if self.remove(instance) { Ok(()) } else { Err("there is no such machine".into()) }
    }
}

#[cfg(test)]
mod tests;
