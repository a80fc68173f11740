//! Ends this very process, as SIGKILL does, at a chosen boundary: before,
//! during or after one call to a provider or one commit to the database. It is
//! compiled in for tests only, and does nothing unless the environment names a
//! boundary. It must never change what a call does or says.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lifecycle::choice::Appraisal;
use lifecycle::meter::Rates;
use lifecycle::spec::MachineSpec;

use crate::provider::{
    Capabilities, Charges, CreateOutcome, CreateRequest, DestroyOutcome, Idempotency, Listing, NoOffers,
    Offer, Owner, Presence, Provider, Reach, RouteError, SshRoute, Stopped, Terms,
};
use crate::store::{
    Changed, Changeset, ChunkPut, Commit, JournalCheck, JournalRow, Kind, Row, Store, StoreError,
};

/// Names the boundary: `CALL/PHASE/N`, such as `create/after/1` or
/// `commit/during:3/20`: the N-th such call, and for `during` so many
/// milliseconds into it.
const VARIABLE: &str = "OUTLAST_FAILPOINT";
/// A file that gets a line at the moment of the end, so that a test knows which
/// boundaries it really met.
const RECORD: &str = "OUTLAST_FAILPOINT_LOG";

/// Where in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Before,
    During(Duration),
    After,
}

/// The boundary that was asked for.
#[derive(Debug)]
struct Fuse {
    call: String,
    phase: Phase,
    left: AtomicU32,
}

impl Fuse {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (call, phase, count) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        let phase = match phase.split_once(':') {
            None if phase == "before" => Phase::Before,
            None if phase == "after" => Phase::After,
            Some(("during", ms)) => Phase::During(Duration::from_millis(ms.parse().ok()?)),
            _ => return None,
        };
        Some(Self { call: call.to_owned(), phase, left: AtomicU32::new(count) })
    }

    /// Whether this call is the one.
    fn burns(&self, call: &str) -> bool {
        self.call == call && self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Makes a call, and ends the process where it was asked to.
    async fn around<T>(&self, call: &str, made: impl Future<Output = T>) -> T {
        if !self.burns(call) {
            return made.await;
        }
        match self.phase {
            Phase::Before => self.end(),
            Phase::During(after) => {
                tokio::select! {
                    biased;
                    // What ends sooner was cut at its end.
                    _ = made => self.end(),
                    () = tokio::time::sleep(after) => self.end(),
                }
            }
            Phase::After => {
                let _ = made.await;
                self.end()
            }
        }
    }

    fn end(&self) -> ! {
        if let Some(path) = std::env::var_os(RECORD)
            && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
        {
            let phase = match self.phase {
                Phase::Before => "before",
                Phase::During(_) => "during",
                Phase::After => "after",
            };
            let _ = std::io::Write::write_all(&mut file, format!("{} {phase}\n", self.call).as_bytes());
        }
        kill_self()
    }
}

fn kill_self() -> ! {
    // Nothing is flushed and nobody is told: the kernel takes the process away.
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    std::process::abort()
}

fn asked() -> Option<Arc<Fuse>> {
    std::env::var(VARIABLE).ok().as_deref().and_then(Fuse::parse).map(Arc::new)
}

/// Every provider with its boundaries, and the database with its own.
pub(crate) fn arm(
    providers: BTreeMap<String, Arc<dyn Provider>>,
    store: Arc<dyn Store>,
) -> (BTreeMap<String, Arc<dyn Provider>>, Arc<dyn Store>) {
    let Some(fuse) = asked() else { return (providers, store) };
    let wrap = |inner| Arc::new(Cut { inner, fuse: fuse.clone() }) as Arc<dyn Provider>;
    let providers = providers.into_iter().map(|(name, inner)| (name, wrap(inner))).collect();
    (providers, Arc::new(CutStore { inner: store, fuse }))
}

struct Cut {
    inner: Arc<dyn Provider>,
    fuse: Arc<Fuse>,
}

#[async_trait]
impl Provider for Cut {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn reach(&self) -> Reach {
        self.inner.reach()
    }

    async fn route(&self, instance: &str) -> Result<SshRoute, RouteError> {
        self.fuse.around("route", self.inner.route(instance)).await
    }

    fn owner(&self) -> Owner {
        self.inner.owner()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn idempotency(&self) -> Idempotency {
        self.inner.idempotency()
    }

    fn is_paid(&self) -> bool {
        self.inner.is_paid()
    }

    fn usd_per_hour(&self) -> f64 {
        self.inner.usd_per_hour()
    }

    fn ready(&self) -> Result<(), String> {
        self.inner.ready()
    }

    async fn offers(
        &self,
        machine: &MachineSpec,
        max_usd_per_hour: Option<f64>,
        appraisal: &Appraisal,
    ) -> Result<Vec<Offer>, NoOffers> {
        self.fuse.around("offers", self.inner.offers(machine, max_usd_per_hour, appraisal)).await
    }

    async fn terms(&self, instance: &str) -> Option<Terms> {
        self.fuse.around("terms", self.inner.terms(instance)).await
    }

    async fn last_words(&self, instance: &str) -> Option<String> {
        self.fuse.around("last-words", self.inner.last_words(instance)).await
    }

    async fn stopped(&self, instance: &str) -> Option<Stopped> {
        self.inner.stopped(instance).await
    }

    async fn go_on(&self, instance: &str, bid_usd: Option<f64>) -> Result<(), String> {
        self.fuse.around("go-on", self.inner.go_on(instance, bid_usd)).await
    }

    async fn charges(&self, since_ms: u64, now_ms: u64) -> Result<Option<Charges>, String> {
        self.fuse.around("charges", self.inner.charges(since_ms, now_ms)).await
    }

    fn boots_longer_ms(&self) -> u64 {
        self.inner.boots_longer_ms()
    }

    fn settle_window_ms(&self) -> u64 {
        self.inner.settle_window_ms()
    }

    async fn prepare(&self, request: &CreateRequest) -> Result<Option<Rates>, CreateOutcome> {
        self.fuse.around("prepare", self.inner.prepare(request)).await
    }

    async fn create(&self, request: &CreateRequest) -> CreateOutcome {
        self.fuse.around("create", self.inner.create(request)).await
    }

    async fn list(&self, label_prefix: &str) -> Listing {
        self.fuse.around("list", self.inner.list(label_prefix)).await
    }

    async fn get(&self, instance: &str) -> Presence {
        self.fuse.around("get", self.inner.get(instance)).await
    }

    async fn label(&self, instance: &str) -> Option<String> {
        self.inner.label(instance).await
    }

    async fn destroy(&self, instance: &str) -> DestroyOutcome {
        self.fuse.around("destroy", self.inner.destroy(instance)).await
    }

    fn chooses(&self) -> bool {
        self.inner.chooses()
    }

    async fn host(&self, instance: &str) -> Option<String> {
        self.inner.host(instance).await
    }

    async fn gpu(&self, instance: &str) -> Option<String> {
        self.inner.gpu(instance).await
    }

    async fn sabotage(&self, instance: &str) -> Result<(), String> {
        self.inner.sabotage(instance).await
    }
}

struct CutStore {
    inner: Arc<dyn Store>,
    fuse: Arc<Fuse>,
}

#[async_trait]
impl Store for CutStore {
    async fn get(&self, kind: Kind, id: &str) -> Result<Option<Row>, StoreError> {
        self.inner.get(kind, id).await
    }

    async fn list(&self, kind: Kind) -> Result<Vec<Row>, StoreError> {
        self.inner.list(kind).await
    }

    async fn list_run(&self, kind: Kind, run: &str) -> Result<Vec<Row>, StoreError> {
        self.inner.list_run(kind, run).await
    }

    async fn commit(&self, changes: Changeset) -> Result<Commit, StoreError> {
        self.fuse.around("commit", self.inner.commit(changes)).await
    }

    fn changed_since(&self, mark: u64) -> Changed {
        self.inner.changed_since(mark)
    }

    async fn locate(&self, digests: &[[u8; 32]]) -> Result<Vec<Option<ChunkPut>>, StoreError> {
        self.inner.locate(digests).await
    }

    async fn journal(
        &self,
        after: u64,
        limit: usize,
        run: Option<&str>,
    ) -> Result<Vec<JournalRow>, StoreError> {
        self.inner.journal(after, limit, run).await
    }

    async fn verify_journal(&self) -> Result<JournalCheck, StoreError> {
        self.inner.verify_journal().await
    }

    async fn backup(&self, path: &Path) -> Result<(), StoreError> {
        self.inner.backup(path).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_the_nth_call_of_its_name_and_nothing_else() {
        let fuse = Fuse::parse("create/during:20/2").unwrap();
        assert_eq!(fuse.phase, Phase::During(Duration::from_millis(20)));
        let burnt: Vec<bool> = ["create", "list", "create", "create"].iter().map(|c| fuse.burns(c)).collect();
        assert_eq!(burnt, [false, false, true, false]);
        for wrong in ["", "create", "create/before", "create/never/1", "create/during:x/1", "create/before/x"]
        {
            assert!(Fuse::parse(wrong).is_none(), "{wrong}");
        }
    }
}
