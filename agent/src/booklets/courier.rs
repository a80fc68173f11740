//! One attempt's way to the store, with or without its controller. It holds at
//! most one booklet, asks for the next in time, and remembers what was stored
//! until somebody says that it is durable.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use artifacts::index::MemoryIndex;
use artifacts::key::ObjectClass;
use artifacts::store::booklet::BookletStore;
use artifacts::store::booklet::plan::Next;
use artifacts::{KeySpace, Manifest, ObjectKey, StoreError};
use proto::v1;
use tokio::time::{Instant, timeout};

use super::Connect;
use super::numbers::Numbers;
use super::pending::{After, Entry, Pending};
use super::rate::Rate;
use super::renewal::{self, Held, Last};
use super::shelf::Shelf;
use super::way::{Hasty, Way};
use crate::world::{BookletAsk, Commit, Handed, SharedGateway};

/// The files.
const NUMBERS: &str = "keys.json";
const STORED: &str = "stored.json";
const BOOKLET: &str = "booklet.json";

/// A controller checks what it commits: minutes, for a checkpoint of thousands
/// of packs in a slow store.
const COMMIT: Duration = Duration::from_secs(180);
/// The same where a publish waits for it that need not.
const COMMIT_SOON: Duration = Duration::from_secs(30);
/// A commit that is not answered within that goes on beside the others for so
/// long, and is asked for anew then.
const COMMIT_BESIDE: Duration = Duration::from_mins(30);
/// For a booklet: thousands of signatures. Shorter where one is held still:
/// a publish waits for it.
const BOOKLETS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(8));

/// What a courier is made of.
pub struct Parts {
    /// The assignment.
    pub work: v1::Work,
    /// The controller.
    pub gateway: SharedGateway,
    /// Where its files are.
    pub shelf: Arc<dyn Shelf>,
    /// Reaches the store.
    pub connect: Connect,
    /// This machine's clock, milliseconds since 1970.
    pub wall_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// What is in the files, as far as it is known.
#[derive(Default)]
struct Memory {
    keys: Option<KeySpace>,
    held: Option<Held>,
    signed: Option<Arc<BookletStore>>,
    last: Option<Last>,
    rate: Rate,
    known: Arc<MemoryIndex>,
    pending: Pending,
    /// The list is on disk as something else than empty.
    is_kept: bool,
    /// Was told once why there is no booklet.
    explained: bool,
}

/// One attempt's courier.
pub struct Courier {
    parts: Parts,
    memory: Mutex<Memory>,
    /// What is written of numbers. Locked while it is being written: nobody
    /// puts an object under a number that is not.
    numbers: tokio::sync::Mutex<Option<Numbers>>,
    /// Commits are asked for one after the other, but for one that takes long:
    /// the controller looks at thousands of packs, and the others need not wait.
    turn: tokio::sync::Mutex<Option<Slow>>,
    /// And so are publishes: two would use the same numbers.
    publishing: tokio::sync::Mutex<()>,
}

/// A commit that nobody has answered yet, and from when on it is given up.
struct Slow {
    key: String,
    answer: Pin<Box<dyn Future<Output = Commit> + Send>>,
    until: Instant,
}

impl Slow {
    /// The answer, if it is there.
    async fn look(&mut self) -> Option<Commit> {
        match timeout(Duration::ZERO, &mut self.answer).await {
            Ok(answer) => Some(answer),
            Err(_) if Instant::now() >= self.until => {
                Some(Commit::Unknown("no answer in half an hour".into()))
            }
            Err(_) => None,
        }
    }
}

/// What became of something that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What.
    pub entry: Entry,
    /// The answer; never `Unknown`.
    pub answer: Commit,
}

impl Courier {
    /// Takes up what an agent before this one left.
    pub async fn open(parts: Parts) -> Arc<Self> {
        let generation = parts.work.generation;
        let numbers = parts.shelf.read(NUMBERS).await;
        let numbers = numbers.and_then(|bytes| serde_json::from_slice::<Numbers>(&bytes).ok());
        let numbers = numbers.filter(|numbers| numbers.generation == generation);
        let mut memory = Memory::default();
        if let Some(bytes) = parts.shelf.read(STORED).await {
            match Pending::read(&bytes) {
                Some(pending) => (memory.is_kept, memory.pending) = (!pending.is_empty(), pending),
                None => tracing::warn!(
                    "the list of what is stored cannot be read: the controller finds it in the store"
                ),
            }
        }
        if let Some(bytes) = parts.shelf.read(BOOKLET).await {
            let held = serde_json::from_slice::<Held>(&bytes).ok();
            match held.filter(|held| held.holds((parts.wall_ms)())).and_then(|held| {
                let signed = signed(&parts, &held)?;
                Some((held, signed))
            }) {
                Some((held, signed)) => (memory.held, memory.signed) = (Some(held), Some(signed)),
                None => parts.shelf.remove(BOOKLET).await,
            }
        }
        Arc::new(Self {
            parts,
            memory: Mutex::new(memory),
            numbers: tokio::sync::Mutex::new(numbers),
            turn: tokio::sync::Mutex::default(),
            publishing: tokio::sync::Mutex::default(),
        })
    }

    /// The controller.
    #[must_use]
    pub fn gateway(&self) -> &SharedGateway {
        &self.parts.gateway
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One publish at a time: the others wait for what this gives.
    pub async fn begin(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.publishing.lock().await
    }

    /// What a publish is given.
    #[must_use]
    pub fn way(self: &Arc<Self>) -> Way {
        let memory = self.memory();
        let holds = memory.held.as_ref().is_some_and(|held| held.holds((self.parts.wall_ms)()));
        Way::new(self.clone(), memory.signed.clone().filter(|_| holds), memory.known.clone())
    }

    /// The next numbers, for one publish; it gives them back.
    ///
    /// # Errors
    /// Where nothing tells them but the store, and that cannot be asked.
    pub async fn keys(&self) -> Result<KeySpace, StoreError> {
        if let Some(keys) = self.memory().keys.take() {
            return Ok(keys);
        }
        let (scope, generation) = (self.parts.work.run_id.clone(), self.parts.work.generation);
        if let Some(numbers) = *self.numbers.lock().await {
            let (pack_seq, manifest_seq) = (numbers.pack, numbers.manifest);
            return Ok(KeySpace { scope, generation, pack_seq, manifest_seq });
        }
        // An agent that wrote nothing down may have used numbers of this
        // generation.
        let used = self.parts.gateway.list(&ObjectKey::prefix(&scope, generation)).await?;
        let next = |class| {
            used.iter().filter_map(ObjectKey::seq).filter(|(c, _)| *c == class).map(|(_, n)| n + 1).max()
        };
        let pack_seq = next(ObjectClass::Pack).unwrap_or(1);
        let manifest_seq = next(ObjectClass::Manifest).unwrap_or(1);
        *self.numbers.lock().await = Some(Numbers { generation, pack: pack_seq, manifest: manifest_seq });
        Ok(KeySpace { scope, generation, pack_seq, manifest_seq })
    }

    /// Takes the numbers back; never lower ones than it has.
    pub fn put_back(&self, mut keys: KeySpace) {
        let mut memory = self.memory();
        if let Some(held) = &memory.keys {
            keys.pack_seq = keys.pack_seq.max(held.pack_seq);
            keys.manifest_seq = keys.manifest_seq.max(held.manifest_seq);
        }
        memory.keys = Some(keys);
    }

    /// Writes a number down before it is used.
    pub(super) async fn reserve(&self, key: &ObjectKey) {
        let mut numbers = self.numbers.lock().await;
        let Some(next) = numbers.and_then(|numbers| numbers.before(key)) else { return };
        let bytes = serde_json::to_vec(&next).unwrap_or_default();
        if let Err(error) = self.parts.shelf.write(NUMBERS, bytes).await {
            // A full disk must not keep anybody from storing what is on it.
            // Without the file the next agent asks the store what was used.
            tracing::warn!(%error, "the numbers of objects could not be written down");
            self.parts.shelf.remove(NUMBERS).await;
        }
        *numbers = Some(next);
    }

    /// A manifest was stored, after so many packs.
    pub fn saved(&self, packs: u64) {
        let packs = u32::try_from(packs).unwrap_or(u32::MAX);
        let now_ms = (self.parts.wall_ms)();
        self.memory().rate.saved(now_ms, packs);
    }

    /// What is durable now: its chunks need not be sent again, whoever is away.
    pub fn knows(&self, manifest: &Manifest) {
        if self.memory().signed.is_some() {
            let known = MemoryIndex::default();
            known.add(manifest);
            self.memory().known = Arc::new(known);
        }
    }

    /// Asks for a booklet if it is time. `fresh`: the connection is new.
    pub async fn renew(&self, fresh: bool) {
        if !self.parts.gateway.reachable() {
            return;
        }
        let Ok(keys) = self.keys().await else { return };
        let next = Next { pack: keys.pack_seq, manifest: keys.manifest_seq };
        self.put_back(keys);
        let now_ms = (self.parts.wall_ms)();
        let (measured, limit) = {
            let memory = self.memory();
            let last = memory.last.unwrap_or(Last::Nothing);
            if !renewal::asks(memory.held.as_ref(), next, now_ms, last, fresh) {
                return;
            }
            let holds = memory.held.as_ref().is_some_and(|held| held.holds(now_ms));
            (memory.rate.measured(), if holds { BOOKLETS.1 } else { BOOKLETS.0 })
        };
        let ask = BookletAsk { next, measured };
        let handed = timeout(limit, self.parts.gateway.booklet(&self.parts.work, &ask));
        match handed.await.unwrap_or_else(|_| Handed::Unknown("no answer in time".into())) {
            Handed::Booklet { booklet, valid_ms, covers_ms } => {
                self.hold(Held { booklet: *booklet, got_ms: now_ms, valid_ms, covers_ms }).await;
            }
            Handed::Never(why) => {
                let mut memory = self.memory();
                memory.last = Some(Last::Never(now_ms));
                if !std::mem::replace(&mut memory.explained, true) {
                    tracing::info!(why, "no signed URLs: everything goes through the controller");
                }
            }
            Handed::Unknown(why) => {
                tracing::info!(why, "signed URLs are asked for again");
                self.memory().last = Some(Last::Unknown(now_ms));
            }
        }
    }

    async fn hold(&self, held: Held) {
        let Some(signed) = signed(&self.parts, &held) else {
            self.memory().last = Some(Last::Never(held.got_ms));
            return;
        };
        let bytes = serde_json::to_vec(&held).unwrap_or_default();
        if let Err(error) = self.parts.shelf.write(BOOKLET, bytes).await {
            tracing::warn!(%error, "signed URLs could not be kept: an agent that is started again has none");
        }
        let (left, hours) = (signed.left(), held.covers_ms / 3_600_000);
        tracing::info!(left, hours, "signed URLs for the next objects");
        let mut memory = self.memory();
        (memory.held, memory.signed, memory.last) = (Some(held), Some(signed), Some(Last::Nothing));
    }

    /// Something was stored: commits what is older, then this. The answers to
    /// all that were answered, oldest first.
    pub async fn commit(&self, entry: Entry) -> Vec<Settled> {
        let dropped = self.memory().pending.push(entry);
        if let Some(old) = dropped {
            tracing::warn!(
                key = old.key,
                "too many checkpoints wait for the controller: this one is left to it"
            );
        }
        let limit = if self.memory().signed.is_some() { COMMIT_SOON } else { COMMIT };
        self.settle_within(limit).await
    }

    /// Commits what is stored, oldest first, until nobody answers.
    pub async fn settle(&self) -> Vec<Settled> {
        self.settle_within(COMMIT).await
    }

    async fn settle_within(&self, limit: Duration) -> Vec<Settled> {
        let mut slow = self.turn.lock().await;
        let mut settled = Vec::new();
        if let Some(one) = slow.as_mut()
            && let Some(answer) = one.look().await
        {
            let key = std::mem::take(&mut one.key);
            *slow = None;
            if !self.answered(&key, answer, &mut settled) {
                self.keep_pending().await;
                return settled;
            }
        }
        loop {
            let beside = slow.as_ref().map(|slow| slow.key.clone());
            let Some(entry) = self.memory().pending.next(beside.as_deref()).cloned() else { break };
            if !self.parts.gateway.reachable() {
                break;
            }
            let (gateway, work) = (self.parts.gateway.clone(), self.parts.work.clone());
            let (key, digest) = (entry.key.clone(), entry.digest);
            let mut answer: Pin<Box<dyn Future<Output = Commit> + Send>> =
                Box::pin(async move { gateway.commit(&work, &key, &digest).await });
            // Who is silent to two is silent to all.
            let limit = if slow.is_some() { limit.min(COMMIT_SOON) } else { limit };
            let answer = match timeout(limit, &mut answer).await {
                Ok(answer) => answer,
                Err(_) if slow.is_none() => {
                    tracing::warn!(key = entry.key, "a commit takes long: the others go on");
                    *slow = Some(Slow { key: entry.key, answer, until: Instant::now() + COMMIT_BESIDE });
                    continue;
                }
                Err(_) => Commit::Unknown("no answer in time".into()),
            };
            if !self.answered(&entry.key, answer, &mut settled) {
                break;
            }
        }
        self.keep_pending().await;
        settled
    }

    /// Takes note of an answer; whether the next may be asked for.
    fn answered(&self, key: &str, answer: Commit, settled: &mut Vec<Settled>) -> bool {
        let after = self.memory().pending.answered(key, answer);
        match after {
            Some(After::Settled(entry, answer)) => {
                // What is wrong may be wrong for all: the others wait.
                let again = matches!(answer, Commit::Again(_));
                if !matches!(answer, Commit::Durable) {
                    // What these rest on may be what is wrong.
                    self.memory().known = Arc::default();
                }
                settled.push(Settled { entry: *entry, answer });
                !again
            }
            Some(After::Waits(why)) => {
                tracing::info!(why, key, "stored, and not yet durable");
                false
            }
            None => false,
        }
    }

    /// How many are stored and not durable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.memory().pending.len()
    }

    /// Where they lie on this machine.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        let memory = self.memory();
        memory.pending.entries().map(|entry| entry.relative.clone()).filter(|r| !r.is_empty()).collect()
    }

    async fn keep_pending(&self) {
        let pending = {
            let memory = self.memory();
            if memory.pending.is_empty() && !memory.is_kept {
                return;
            }
            memory.pending.clone()
        };
        if pending.is_empty() {
            self.parts.shelf.remove(STORED).await;
        } else {
            let bytes = serde_json::to_vec(&pending).unwrap_or_default();
            if let Err(error) = self.parts.shelf.write(STORED, bytes).await {
                tracing::warn!(%error, "what is stored could not be written down: the controller finds it in the store");
            }
        }
        self.memory().is_kept = !pending.is_empty();
    }

    /// The attempt is over: what it may write is put away.
    pub async fn close(&self) {
        {
            let mut memory = self.memory();
            (memory.held, memory.signed) = (None, None);
        }
        self.parts.shelf.remove(BOOKLET).await;
    }
}

/// The store of a booklet, once all of it has been checked.
fn signed(parts: &Parts, held: &Held) -> Option<Arc<BookletStore>> {
    let (scope, generation) = (&parts.work.run_id, parts.work.generation);
    let requests = (parts.connect)(&held.booklet.trust);
    let store = BookletStore::new(scope, generation, Arc::new(Hasty(parts.gateway.clone())), requests);
    match store.renew(&held.booklet) {
        Ok(()) => Some(Arc::new(store)),
        Err(error) => {
            tracing::warn!(%error, "signed URLs are not used");
            None
        }
    }
}
