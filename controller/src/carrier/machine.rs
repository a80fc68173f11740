//! The task that keeps one machine reached: tells the plan what happens, and
//! does what it says. It ends, and with it every client, when the machine is
//! not to be reached any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifecycle::MachineId;
use proto::link::Lane;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bring::BringUp;
use super::command::is_proxy;
use super::lane::Carry;
use super::plan::{Act, Address, End, Input, Tie};
use super::{DETOUR, Seen, Shared};
use crate::core::{Changes, Core};
use crate::execute;
use crate::model::Machine;
use crate::provider::{HostKeys, Provider, RouteError, SshRoute};

/// Without anything to wait for.
const IDLE: Duration = Duration::from_secs(3_600);

pub(super) async fn keep(
    shared: Shared,
    id: MachineId,
    provider: Arc<dyn Provider>,
    mut seen: watch::Receiver<Seen>,
) {
    let mut tie = Tie::default();
    let mut work = JoinSet::new();
    let mut hangs: BTreeMap<Lane, CancellationToken> = BTreeMap::new();
    let (tell, mut told) = mpsc::channel(8);
    let core = shared.core.clone();
    let mut input = seen_now(&mut seen);
    let (by_proxy, mut noted) = (Arc::new(AtomicBool::new(false)), false);
    loop {
        detour(&core, id, &input, &by_proxy, &mut noted).await;
        let now = core.clock.mono_ms();
        for act in tie.step(now, input) {
            let dial = Dial {
                shared: shared.clone(),
                id,
                provider: provider.clone(),
                instance: seen.borrow().instance.clone(),
                tell: tell.clone(),
                by_proxy: by_proxy.clone(),
            };
            match act {
                Act::BringUp(address) => {
                    work.spawn(async move { Input::Brought(dial.bring_up(address).await) });
                }
                Act::Dial(lane, address) => {
                    let hang = CancellationToken::new();
                    hangs.insert(lane, hang.clone());
                    work.spawn(async move { Input::Ended(lane, dial.carry(lane, address, hang).await) });
                }
                Act::Hang(lane) => {
                    if let Some(hang) = hangs.remove(&lane) {
                        hang.cancel();
                    }
                }
            }
        }
        if core.carried.tell(id, tie.trouble()) && !tie.trouble().is_empty() {
            tracing::info!(machine = %id.short(), "not reached: {}", tie.trouble());
        }
        let wait =
            tie.wake_ms().map_or(IDLE, |at| Duration::from_millis(at.saturating_sub(core.clock.mono_ms())));
        input = tokio::select! {
            biased;
            changed = seen.changed() => match changed {
                Ok(()) => seen_now(&mut seen),
                Err(_) => break,
            },
            Some(input) = told.recv() => input,
            Some(done) = work.join_next() => done.unwrap_or(Input::Tick),
            () = tokio::time::sleep(wait) => Input::Tick,
        };
    }
    core.carried.tell(id, "");
    core.carried.detours(id, false);
}

/// Says so when files begin to go through a proxy, and journals it once.
async fn detour(core: &Core, id: MachineId, input: &Input, by_proxy: &AtomicBool, noted: &mut bool) {
    match input {
        Input::Open(Lane::Bulk) if by_proxy.load(Ordering::Relaxed) => {
            if !core.carried.detours(id, true) || std::mem::replace(noted, true) {
                return;
            }
            tracing::warn!(machine = %id.short(), "{DETOUR}");
            let run = core.load::<Machine>(&id.to_string()).await.ok().flatten().map(|row| row.body.run);
            let detail = json!({ "why": DETOUR });
            let note = Changes::default().note(core, execute::SELF, "carried-by-proxy", id, run, detail);
            if let Err(error) = core.commit_quietly(note).await {
                tracing::warn!("that could not be journalled: {error}");
            }
        }
        Input::Open(Lane::Bulk) | Input::Ended(Lane::Bulk, _) => {
            core.carried.detours(id, false);
        }
        _ => {}
    }
}

fn seen_now(seen: &mut watch::Receiver<Seen>) -> Input {
    let seen = seen.borrow_and_update();
    Input::Seen { joined: seen.joined, attached: seen.attached }
}

/// What a single dial needs.
struct Dial {
    shared: Shared,
    id: MachineId,
    provider: Arc<dyn Provider>,
    instance: String,
    tell: mpsc::Sender<Input>,
    /// The bulk lane was last dialled at the provider's proxy.
    by_proxy: Arc<AtomicBool>,
}

impl Dial {
    async fn route(&self) -> Result<SshRoute, End> {
        let route = self.provider.route(&self.instance).await.map_err(|error| match error {
            RouteError::NotYet(_) => End::NotYet(error.to_string()),
            RouteError::Never(_) => End::Never(error.to_string()),
        })?;
        if let HostKeys::PinFirst { known_hosts, .. } = &route.host_keys
            && let Some(dir) = known_hosts.parent()
        {
            let made = tokio::fs::create_dir_all(dir).await;
            made.map_err(|error| End::Here(format!("{} cannot be made: {error}", dir.display())))?;
        }
        Ok(route)
    }

    async fn bring_up(&self, address: Address) -> Result<(), End> {
        let route = self.route().await?;
        let _bringing = self.shared.brings.clone().acquire_owned().await;
        let bring = BringUp {
            core: &self.shared.core,
            id: self.id,
            route: &route,
            address,
            agents: &self.shared.agents,
        };
        bring.run().await
    }

    async fn carry(&self, lane: Lane, address: Address, hang: CancellationToken) -> End {
        let route = match self.route().await {
            Ok(route) => route,
            Err(end) => return end,
        };
        if lane == Lane::Bulk {
            self.by_proxy.store(is_proxy(&route, address), Ordering::Relaxed);
        }
        let Ok(dialling) = self.shared.dials.clone().acquire_owned().await else { return End::Closed };
        let door = match lane {
            Lane::Join => self.shared.doors.join.clone(),
            Lane::Control | Lane::Bulk => self.shared.doors.agents.clone(),
        };
        let tell = self.tell.clone();
        Carry { id: self.id, lane, route: &route, address, door, tell, hang }.run(dialling).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench;

    #[tokio::test]
    async fn files_that_go_through_a_proxy_are_told_and_journalled_once() {
        let dir = tempfile::tempdir().unwrap();
        let objects = artifacts::store::MemoryStore::default();
        let core = Core::new(bench::parts(dir.path(), Arc::new(objects)));
        let (by_proxy, mut noted) = (AtomicBool::new(false), false);
        let open = || Input::Open(Lane::Bulk);
        detour(&core, bench::MACHINE, &open(), &by_proxy, &mut noted).await;
        assert_eq!(core.carried.detour(bench::MACHINE), None);
        by_proxy.store(true, Ordering::Relaxed);
        detour(&core, bench::MACHINE, &Input::Open(Lane::Control), &by_proxy, &mut noted).await;
        assert_eq!(core.carried.detour(bench::MACHINE), None, "words may go that way");
        for _ in 0..3 {
            detour(&core, bench::MACHINE, &open(), &by_proxy, &mut noted).await;
            assert_eq!(core.carried.detour(bench::MACHINE), Some(DETOUR));
            detour(&core, bench::MACHINE, &Input::Ended(Lane::Bulk, End::Closed), &by_proxy, &mut noted)
                .await;
            assert_eq!(core.carried.detour(bench::MACHINE), None);
        }
        let journal = core.store.journal(0, 100, None).await.unwrap();
        let told: Vec<&str> = journal.iter().map(|row| row.verb.as_str()).collect();
        assert_eq!(told, ["carried-by-proxy"]);
    }
}
