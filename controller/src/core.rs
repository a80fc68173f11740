//! What every part of the controller shares: the store, the objects, the
//! providers, the clock, and what is known of machines besides their rows.
//! It decides nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lifecycle::{HubId, MachineId, Refusal, RunId};
use proto::pki::{Authority, PkiError};
use serde_json::Value;
use tokio::sync::{Notify, watch};

use crate::clock::{Clock, Entropy};
use crate::kept::{Kept, Shared};
use crate::liveness::{Clocks, ProviderWord};
use crate::model::{Record, RowError, Versioned};
use crate::provider::Provider;
use crate::runfiles::{FileError, RunFiles};
use crate::store::{Changeset, Commit, JournalEntry, Store, StoreError};

mod gone;
mod silence;

/// What can go wrong in the controller's own work.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The database.
    #[error("the database refused")]
    Store(#[from] StoreError),
    /// A row of another program.
    #[error(transparent)]
    Row(#[from] RowError),
    /// A move that no diagram has.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Certificates or randomness.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Files of runs.
    #[error(transparent)]
    Files(#[from] FileError),
    /// The artifact store.
    #[error("the artifact store refused")]
    Objects(#[from] artifacts::StoreError),
    /// Somebody else kept changing the same rows.
    #[error("the rows kept changing; try again")]
    Contended,
    /// What was asked does not exist or is not possible.
    #[error("{0}")]
    Impossible(String),
}

/// What machines are told at their first boot.
#[derive(Debug, Clone)]
pub struct BootSettings {
    /// `host:port` of the agents' listener.
    pub endpoints: Vec<String>,
    /// `host:port` of the join listener.
    pub join_endpoints: Vec<String>,
    /// The program that is guard, keeper and agent.
    pub agent_exe: PathBuf,
    /// Where environments are cached on this computer.
    pub cache_dir: PathBuf,
}

/// What is known of a machine besides its row. Lost with the process, on
/// purpose: after a restart the world is asked again.
#[derive(Debug, Default)]
struct Presence {
    /// Which session counts; a newer one ends the older.
    session: u64,
    attached: bool,
    broke: bool,
    heard_ms: Option<u64>,
    provider: Option<ProviderWord>,
    asked_ms: Option<u64>,
    /// The machine said that it ends.
    farewell: bool,
    /// Its last stream ended in order and did not break.
    orderly: bool,
    /// How often it was to be destroyed, and in vain.
    ending: gone::Ending,
    poke: Option<watch::Sender<u64>>,
}

/// The shared parts. Built once; everything else holds it in an `Arc`.
pub struct Core {
    /// This installation.
    pub hub: HubId,
    /// Signs labels and certificates.
    pub authority: Authority,
    /// Key of the labels' MAC.
    pub label_key: [u8; 32],
    /// Rows and journal.
    pub store: Arc<dyn Store>,
    /// Checkpoints, results, sources.
    pub objects: Arc<dyn artifacts::Store>,
    /// By name.
    pub providers: BTreeMap<String, Arc<dyn Provider>>,
    /// Time.
    pub clock: Clock,
    /// Ids and secrets.
    pub entropy: Entropy,
    /// What seals and opens checkpoints.
    pub keys: Arc<crate::keys::Keys>,
    /// Waiting times.
    pub clocks: Clocks,
    /// Logs and points.
    pub files: RunFiles,
    /// What new machines are told.
    pub boot: BootSettings,
    /// How often this installation was restored from a backup.
    pub restore_count: u32,
    /// Says that something changed, to whoever watches.
    pub changed: watch::Sender<u64>,
    /// Wakes the reconciler.
    pub wake: Notify,
    /// What machines last said of their health.
    pub health: crate::health::Reports,
    /// Ended attempts whose failure capsule is not written yet.
    pub capsules: crate::capsule::gather::Waiting,
    /// What was found in the store of objects.
    pub known: crate::known::Known,
    /// Verifications that were asked for.
    pub verify: crate::verify::Desk,
    /// Who is told of events, and how that goes.
    pub notify: crate::notify::Desk,
    /// What providers charged, as it was last compared.
    pub bills: crate::bill::Desk,
    /// Why machines that this controller dials are not reached.
    pub carried: crate::carrier::Troubles,
    /// Objects lie on this computer alone.
    pub local_store: AtomicBool,
    kept: Kept,
    presence: Mutex<BTreeMap<MachineId, Presence>>,
    /// The reconciler's last tick.
    ticked_ms: AtomicU64,
    /// When this controller last began to watch: at its start, or after it
    /// stood still.
    watching_ms: AtomicU64,
    /// When a mass loss was last seen; 0: never.
    alarmed_ms: AtomicU64,
    alerts: Mutex<BTreeMap<String, String>>,
    /// How long each machine may go on without a controller, and since when
    /// that is known.
    allowed: Mutex<(u64, BTreeMap<MachineId, Option<u64>>)>,
    lists: gone::Lists,
    /// How often machines of the kind of each live one are lost, in milliseconds.
    between_losses: Mutex<BTreeMap<MachineId, u64>>,
    /// Held from the question whether a cap bears one more machine until the
    /// wish for it is recorded: two who ask at once would both be told yes.
    pub purse: tokio::sync::Mutex<()>,
}

/// What a [`Core`] is made of.
pub struct Parts {
    /// See [`Core::hub`].
    pub hub: HubId,
    /// See [`Core::authority`].
    pub authority: Authority,
    /// See [`Core::label_key`].
    pub label_key: [u8; 32],
    /// See [`Core::store`].
    pub store: Arc<dyn Store>,
    /// See [`Core::objects`].
    pub objects: Arc<dyn artifacts::Store>,
    /// See [`Core::providers`].
    pub providers: BTreeMap<String, Arc<dyn Provider>>,
    /// See [`Core::clock`].
    pub clock: Clock,
    /// See [`Core::entropy`].
    pub entropy: Entropy,
    /// See [`Core::keys`].
    pub keys: Arc<crate::keys::Keys>,
    /// See [`Core::clocks`].
    pub clocks: Clocks,
    /// See [`Core::files`].
    pub files: RunFiles,
    /// See [`Core::boot`].
    pub boot: BootSettings,
    /// See [`Core::restore_count`].
    pub restore_count: u32,
}

impl Core {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            hub: parts.hub,
            authority: parts.authority,
            label_key: parts.label_key,
            store: parts.store,
            objects: parts.objects,
            providers: parts.providers,
            clock: parts.clock,
            entropy: parts.entropy,
            keys: parts.keys,
            clocks: parts.clocks,
            files: parts.files,
            boot: parts.boot,
            restore_count: parts.restore_count,
            changed: watch::channel(0).0,
            wake: Notify::new(),
            health: crate::health::Reports::default(),
            capsules: crate::capsule::gather::Waiting::default(),
            known: crate::known::Known::default(),
            verify: crate::verify::Desk::default(),
            notify: crate::notify::Desk::default(),
            bills: crate::bill::Desk::default(),
            carried: crate::carrier::Troubles::default(),
            local_store: AtomicBool::default(),
            kept: Kept::default(),
            presence: Mutex::default(),
            ticked_ms: AtomicU64::new(0),
            watching_ms: AtomicU64::new(0),
            alarmed_ms: AtomicU64::new(0),
            alerts: Mutex::default(),
            allowed: Mutex::default(),
            lists: gone::Lists::default(),
            between_losses: Mutex::default(),
            purse: tokio::sync::Mutex::default(),
        })
    }

    /// One row.
    ///
    /// # Errors
    /// Where the store fails or the row does not parse.
    pub async fn load<T: Record>(&self, key: &str) -> Result<Option<Versioned<T>>, CoreError> {
        Ok(self.look(key).await?.map(|row| row.own()))
    }

    /// One row, to be read alone.
    ///
    /// # Errors
    /// As [`Core::load`].
    pub async fn look<T: Record>(&self, key: &str) -> Result<Option<Shared<T>>, CoreError> {
        self.kept.one(&*self.store, key).await
    }

    /// One row that must exist.
    ///
    /// # Errors
    /// As [`Core::load`], and where it does not exist.
    pub async fn need<T: Record>(&self, key: &str) -> Result<Versioned<T>, CoreError> {
        self.load(key)
            .await?
            .ok_or_else(|| CoreError::Impossible(format!("there is no {} {key}", T::KIND.as_str())))
    }

    /// All rows of a kind.
    ///
    /// # Errors
    /// As [`Core::load`].
    pub async fn all<T: Record>(&self) -> Result<Vec<Versioned<T>>, CoreError> {
        Ok(self.every().await?.iter().map(Shared::own).collect())
    }

    /// All rows of a kind, to be read alone.
    ///
    /// # Errors
    /// As [`Core::load`].
    pub async fn every<T: Record>(&self) -> Result<Vec<Shared<T>>, CoreError> {
        self.kept.every(&*self.store).await
    }

    /// All rows of a kind that belong to a run.
    ///
    /// # Errors
    /// As [`Core::load`].
    pub async fn of_run<T: Record>(&self, run: RunId) -> Result<Vec<Versioned<T>>, CoreError> {
        let rows = self.store.list_run(T::KIND, &run.to_string()).await?;
        Ok(rows.iter().map(Versioned::read).collect::<Result<_, _>>()?)
    }

    /// Commits; `false` where somebody else was faster and nothing changed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn commit(&self, changes: Changes) -> Result<bool, CoreError> {
        let committed = self.commit_quietly(changes).await?;
        if committed {
            self.wake.notify_one();
        }
        Ok(committed)
    }

    /// As [`Core::commit`], for changes that no plan depends on: output and
    /// metrics do not wake the reconciler.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn commit_quietly(&self, changes: Changes) -> Result<bool, CoreError> {
        match self.store.commit(changes.0).await? {
            Commit::Committed { .. } => {
                self.changed.send_modify(|n| *n += 1);
                Ok(true)
            }
            Commit::Conflict { .. } => Ok(false),
        }
    }

    fn presence(&self) -> MutexGuard<'_, BTreeMap<MachineId, Presence>> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of this machine opened; returns its number and what tells it
    /// that its assignment may have changed.
    pub fn attach(&self, machine: MachineId) -> (u64, watch::Receiver<u64>) {
        let now = self.clock.mono_ms();
        let mut all = self.presence();
        let entry = all.entry(machine).or_default();
        entry.session += 1;
        entry.attached = true;
        entry.broke = false;
        entry.farewell = false;
        entry.heard_ms = Some(now);
        entry.provider = None;
        let sender = watch::channel(0).0;
        let receiver = sender.subscribe();
        // Dropping the older sender ends the older session.
        entry.poke = Some(sender);
        self.wake.notify_one();
        (entry.session, receiver)
    }

    /// A stream ended; counts only if no newer one opened.
    pub fn detach(&self, machine: MachineId, session: u64, orderly: bool) {
        if let Some(entry) = self.presence().get_mut(&machine)
            && entry.session == session
        {
            entry.orderly = orderly;
            entry.attached = false;
            entry.broke = true;
            entry.provider = None;
            entry.asked_ms = None;
            entry.poke = None;
        }
        self.wake.notify_one();
    }

    /// The machine was heard.
    pub fn heard(&self, machine: MachineId) {
        let now = self.clock.mono_ms();
        let mut all = self.presence();
        let entry = all.entry(machine).or_default();
        entry.heard_ms = Some(now);
        entry.provider = None;
    }

    /// The provider was asked about the machine; `None`: it gave no answer.
    pub fn provider_said(&self, machine: MachineId, word: Option<ProviderWord>) {
        let now = self.clock.mono_ms();
        let mut all = self.presence();
        let entry = all.entry(machine).or_default();
        entry.provider = word;
        entry.asked_ms = Some(now);
    }

    /// The machine said that it ends; it counts once its stream has ended.
    pub fn farewell(&self, machine: MachineId) {
        self.presence().entry(machine).or_default().farewell = true;
    }

    /// The machine's assignment may have changed.
    pub fn poke(&self, machine: MachineId) {
        if let Some(sender) = self.presence().get(&machine).and_then(|p| p.poke.as_ref()) {
            sender.send_modify(|n| *n += 1);
        }
    }

    /// The machine is gone for good.
    pub fn forget(&self, machine: MachineId) {
        self.presence().remove(&machine);
        self.health.forget(machine);
    }

    /// Raises (`Some`) or clears (`None`) a standing alert.
    pub fn alert(&self, key: &str, text: Option<String>) {
        let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        match text {
            Some(text) => {
                if alerts.insert(key.to_owned(), text.clone()).as_ref() != Some(&text) {
                    tracing::warn!("{text}");
                }
            }
            None => {
                alerts.remove(key);
            }
        }
    }

    /// Sets how long machines may go on without a controller, as of now.
    pub fn allow(&self, allowances: Vec<(MachineId, Option<u64>)>) {
        let now = self.clock.mono_ms();
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) =
            (now, allowances.into_iter().collect());
    }

    /// How long a machine may go on from now without a controller, if it is
    /// limited at all; `None`: nothing was planned with this machine yet.
    #[must_use]
    pub fn allowance(&self, machine: MachineId) -> Option<Option<u64>> {
        let allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let since = self.clock.mono_ms().saturating_sub(allowed.0);
        allowed.1.get(&machine).map(|limit| limit.map(|ms| ms.saturating_sub(since)))
    }

    /// Sets how often machines like each live one are lost.
    pub fn believe(&self, between_losses_ms: BTreeMap<MachineId, u64>) {
        *self.between_losses.lock().unwrap_or_else(PoisonError::into_inner) = between_losses_ms;
    }

    /// How often a machine like this one is lost, in milliseconds; `None`:
    /// nothing was planned with it yet.
    #[must_use]
    pub fn between_losses_ms(&self, machine: MachineId) -> Option<u64> {
        self.between_losses.lock().unwrap_or_else(PoisonError::into_inner).get(&machine).copied()
    }

    /// The standing alerts.
    #[must_use]
    pub fn alerts(&self) -> Vec<String> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The provider of a machine or a spec.
    ///
    /// # Errors
    /// Where none of that name is configured.
    pub fn provider(&self, name: &str) -> Result<Arc<dyn Provider>, CoreError> {
        self.providers.get(name).cloned().ok_or_else(|| {
            let known: Vec<_> = self.providers.keys().map(String::as_str).collect();
            let how = match name {
                "ssh" => {
                    "; name hosts in providers.toml of the data directory, then `outlast controller stop`: it starts anew"
                }
                _ => "",
            };
            CoreError::Impossible(format!("there is no provider `{name}`; known: {}{how}", known.join(", ")))
        })
    }
}

/// Collects what one transaction changes.
#[derive(Debug, Default)]
pub struct Changes(pub Changeset);

impl Changes {
    /// Writes a row back, expecting the version it was read at.
    #[must_use]
    pub fn put<T: Record>(mut self, row: &Versioned<T>) -> Self {
        let (expect, put) = row.write();
        self.0.expect.push(expect);
        self.0.put.push(put);
        self
    }

    /// Requires a row to be as it was read, without writing it.
    #[must_use]
    pub fn expect<T: Record>(mut self, row: &Versioned<T>) -> Self {
        self.0.expect.push(row.write().0);
        self
    }

    /// Adds a journal entry.
    #[must_use]
    pub fn note(
        mut self,
        core: &Core,
        actor: &str,
        verb: &str,
        object: impl std::fmt::Display,
        run: Option<RunId>,
        detail: Value,
    ) -> Self {
        self.0.journal.push(JournalEntry {
            at_ms: core.clock.wall_ms(),
            actor: actor.to_owned(),
            verb: verb.to_owned(),
            object: format!("{object}"),
            run: run.map(|r| r.to_string()),
            detail,
        });
        self
    }
}
