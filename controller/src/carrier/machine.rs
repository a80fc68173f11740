//! The task that keeps one machine reached: tells the plan what happens, and
//! does what it says. It ends, and with it every client, when the machine is
//! not to be reached any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::MachineId;
use proto::link::Lane;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bring::BringUp;
use super::lane::Carry;
use super::plan::{Act, Address, End, Input, Tie};
use super::{Seen, Shared};
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
    loop {
        let now = core.clock.mono_ms();
        for act in tie.step(now, input) {
            let dial = Dial {
                shared: shared.clone(),
                id,
                provider: provider.clone(),
                instance: seen.borrow().instance.clone(),
                tell: tell.clone(),
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
        let Ok(dialling) = self.shared.dials.clone().acquire_owned().await else { return End::Closed };
        let door = match lane {
            Lane::Join => self.shared.doors.join.clone(),
            Lane::Control | Lane::Bulk => self.shared.doors.agents.clone(),
        };
        let tell = self.tell.clone();
        Carry { id: self.id, lane, route: &route, address, door, tell, hang }.run(dialling).await
    }
}
