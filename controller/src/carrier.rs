//! Keeps the machines reached that the controller must dial itself, over SSH:
//! brings their agents up and carries their connections to the servers. One
//! task for each machine; what to dial and when is decided in [`plan`] without
//! any of this. What is carried has no authority: TLS, messages and identities
//! are those of a connection that the machine dialled.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifecycle::{MachineId, MachineState};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::core::{Core, CoreError};
use crate::model::Machine;
use crate::provider::{Provider, Reach};
use crate::reconcile::chain;

mod agents;
mod bring;
mod child;
mod command;
pub mod errand;
mod lane;
mod machine;
pub mod plan;
mod right;
mod wire;

pub use agents::sha256;
pub use wire::{Carried, Doors, Let, Wire, doors, incoming};

/// Without any change the rows are looked at this often.
const PERIOD: Duration = Duration::from_millis(500);
/// After a change others mostly follow.
const GATHER: Duration = Duration::from_millis(50);
/// Clients that are connecting at once; a restart with very many machines must
/// not be a storm.
const DIALS: usize = 16;
/// Machines that are brought up at once: each may be sent an agent.
const BRINGS: usize = 8;

/// Why machines are not reached, in words, by machine. Lost with the process:
/// the next one dials anew.
#[derive(Debug, Default)]
pub struct Troubles {
    why: Mutex<BTreeMap<MachineId, String>>,
    /// Machines whose files go through their provider's proxy now.
    detours: Mutex<BTreeSet<MachineId>>,
}

/// What is said of such a machine: a vendor's proxy is for words, not for
/// gigabytes.
pub const DETOUR: &str = "its checkpoints and files go through the provider's SSH proxy, since its direct address does \
    not answer: that is slow, and unfit for more than about a gigabyte";

impl Troubles {
    /// Why this machine is not reached, if it is not.
    #[must_use]
    pub fn of(&self, id: MachineId) -> Option<String> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// That its files take a way that is not made for them; `None`: they do not.
    #[must_use]
    pub fn detour(&self, id: MachineId) -> Option<&'static str> {
        let detours = self.detours.lock().unwrap_or_else(PoisonError::into_inner);
        detours.contains(&id).then_some(DETOUR)
    }

    /// `true`: that is news.
    fn detours(&self, id: MachineId, so: bool) -> bool {
        let mut detours = self.detours.lock().unwrap_or_else(PoisonError::into_inner);
        if so { detours.insert(id) } else { detours.remove(&id) }
    }

    /// `true`: that is news.
    fn tell(&self, id: MachineId, why: &str) -> bool {
        let mut all = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if why.is_empty() {
            return all.remove(&id).is_some();
        }
        all.insert(id, why.to_owned()).as_deref() != Some(why)
    }
}

/// What a machine's task must know besides.
#[derive(Clone)]
struct Shared {
    core: Arc<Core>,
    doors: Doors,
    agents: agents::Agents,
    dials: Arc<Semaphore>,
    brings: Arc<Semaphore>,
}

/// What the rows say of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    instance: String,
    joined: bool,
    attached: bool,
}

/// Whether a machine in this state is to be reached.
fn is_reached(status: &MachineState) -> bool {
    matches!(status, MachineState::Booting | MachineState::Ready | MachineState::Suspect)
}

fn dialled(core: &Core, machine: &Machine) -> Option<Arc<dyn Provider>> {
    let provider = core.providers.get(&machine.provider)?;
    (provider.reach() == Reach::ControllerDials && is_reached(&machine.status)).then(|| provider.clone())
}

/// Runs until cancelled. `home` is the data directory, where the agents are.
pub async fn run(core: Arc<Core>, doors: Doors, home: &Path, stop: CancellationToken) {
    if !core.providers.values().any(|provider| provider.reach() == Reach::ControllerDials) {
        stop.cancelled().await;
        return;
    }
    let home: PathBuf = home.to_owned();
    let shared = Shared {
        core: core.clone(),
        doors,
        agents: agents::Agents::new(&home),
        dials: Arc::new(Semaphore::new(DIALS)),
        brings: Arc::new(Semaphore::new(BRINGS)),
    };
    let mut kept: BTreeMap<MachineId, watch::Sender<Seen>> = BTreeMap::new();
    // Dropping it ends every client.
    let mut tasks = JoinSet::new();
    let mut changed = core.changed.subscribe();
    loop {
        match look(&core, &kept).await {
            Ok(seen) => {
                // Dropping the sender ends the task.
                kept.retain(|id, _| seen.iter().any(|(of, _, _)| of == id));
                for (id, provider, seen) in seen {
                    if let Some(sender) = kept.get(&id).filter(|sender| !sender.is_closed()) {
                        sender.send_if_modified(|before| {
                            let news = *before != seen;
                            *before = seen;
                            news
                        });
                        continue;
                    }
                    let (sender, receiver) = watch::channel(seen);
                    kept.insert(id, sender);
                    tasks.spawn(machine::keep(shared.clone(), id, provider, receiver));
                }
                core.alert("carrier", None);
            }
            Err(error) => core.alert("carrier", Some(format!("machines are not reached: {}", chain(&error)))),
        }
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = changed.changed() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
    tasks.shutdown().await;
}

/// The machines to be reached, and what is known of each.
async fn look(
    core: &Core,
    kept: &BTreeMap<MachineId, watch::Sender<Seen>>,
) -> Result<Vec<(MachineId, Arc<dyn Provider>, Seen)>, CoreError> {
    let mut found = Vec::new();
    for machine in core.every::<Machine>().await?.into_iter().map(|row| row.body) {
        let Some(provider) = dialled(core, &machine) else { continue };
        let Some(instance) = machine.instance.clone() else { continue };
        // Once it has joined it has for ever.
        let known = kept.get(&machine.id).is_some_and(|seen| seen.borrow().joined);
        let joined = known || right::joined(core, machine.id).await?;
        let attached = core.observe(machine.id).attached;
        found.push((machine.id, provider, Seen { instance, joined, attached }));
    }
    Ok(found)
}
