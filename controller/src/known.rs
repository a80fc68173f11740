//! What this controller has itself found in the store of objects, so that it
//! asks no question twice in a short time: objects are written once and never
//! change, but disks rot and buckets are cleaned up by their owners. Only a
//! memory: it is bounded, lost with the process, believed for a while, and
//! never the reason for taking anything for absent.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use artifacts::{Digest, ObjectKey};

/// Trees that were verified in full.
const TREES: usize = 1_024;
/// Packs that committed trees name: some 250 GB of them.
const PACKS: usize = 32_768;
/// Stored chunks that were read and right.
const CHUNKS: usize = 500_000;
/// Reading what others are to rest on may take so long at once, and a tenth of
/// the time on average, in milliseconds.
const READING: (u64, u64) = (30_000, 10);
/// So long a store that was silent is left alone.
const SILENT_MS: u64 = 60_000;

/// Answers of the store of objects that stay true.
#[derive(Default)]
pub struct Known(Mutex<State>);

#[derive(Default)]
struct State {
    trees: Bounded<(ObjectKey, Digest), ()>,
    packs: Bounded<ObjectKey, Seen>,
    /// When a chunk at its place was last read.
    chunks: Bounded<[u8; 16], u64>,
    /// Milliseconds of reading that are not made up for, and as of when.
    reading: (u64, u64),
    /// Until when the store is not asked on a publisher's behalf.
    silent_until: u64,
}

/// A pack, and when the store was asked for it; in monotonic milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its size.
    pub size: u64,
    /// When it was last asked for.
    pub asked_ms: u64,
    /// When a tree that this process committed first named it.
    pub named_ms: Option<u64>,
}

/// The newest entries, each with what is known of it.
struct Bounded<K, V> {
    held: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { held: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    fn insert(&mut self, key: K, value: V, most: usize) {
        if self.held.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > most {
            if let Some(oldest) = self.order.pop_front() {
                self.held.remove(&oldest);
            }
        }
    }

    fn remove(&mut self, key: &K) {
        if self.held.remove(key).is_some() {
            self.order.retain(|held| held != key);
        }
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every chunk of this tree was read and was right.
    pub fn verified(&self, manifest: &ObjectKey, digest: Digest) {
        self.state().trees.insert((manifest.clone(), digest), (), TREES);
    }

    /// Whether the tree was verified before.
    #[must_use]
    pub fn is_verified(&self, manifest: &ObjectKey, digest: Digest) -> bool {
        self.state().trees.held.contains_key(&(manifest.clone(), digest))
    }

    /// The store has this pack, which has so many bytes.
    pub fn pack(&self, pack: &ObjectKey, size: u64, now_ms: u64) {
        let mut state = self.state();
        let named_ms = state.packs.held.get(pack).and_then(|seen| seen.named_ms);
        state.packs.insert(pack.clone(), Seen { size, asked_ms: now_ms, named_ms }, PACKS);
    }

    /// A tree that was committed just now names this pack.
    pub fn named(&self, pack: &ObjectKey, now_ms: u64) {
        if let Some(seen) = self.state().packs.held.get_mut(pack) {
            seen.named_ms.get_or_insert(now_ms);
        }
    }

    /// What is known of a pack.
    #[must_use]
    pub fn seen(&self, pack: &ObjectKey) -> Option<Seen> {
        self.state().packs.held.get(pack).copied()
    }

    /// This chunk was read at its place and was right.
    pub fn right(&self, place: [u8; 16], now_ms: u64) {
        self.state().chunks.insert(place, now_ms, CHUNKS);
    }

    /// When the chunk at this place was last read and right.
    #[must_use]
    pub fn right_ms(&self, place: &[u8; 16]) -> Option<u64> {
        self.state().chunks.held.get(place).copied()
    }

    /// Whether there is time to read what somebody is to rest on: not all of a
    /// large store, time and again, across a slow link.
    #[must_use]
    pub fn may_read(&self, now_ms: u64) -> bool {
        let mut state = self.state();
        let (owed, since) = state.reading;
        let back = now_ms.saturating_sub(since) / READING.1;
        let owed = owed.saturating_sub(back);
        state.reading = (owed, since + back * READING.1);
        owed < READING.0
    }

    /// The store did not answer in time: publishers are not held up by it for a
    /// while.
    pub fn was_silent(&self, now_ms: u64) {
        self.state().silent_until = now_ms.saturating_add(SILENT_MS);
    }

    /// Whether it is asked on a publisher's behalf.
    #[must_use]
    pub fn may_ask(&self, now_ms: u64) -> bool {
        self.state().silent_until <= now_ms
    }

    /// Reading took so long.
    pub fn has_read(&self, took_ms: u64) {
        let mut state = self.state();
        state.reading.0 = state.reading.0.saturating_add(took_ms);
    }

    /// The object is being deleted, or is not what it was.
    pub fn forget(&self, key: &ObjectKey) {
        let mut state = self.state();
        state.packs.remove(key);
        let trees: Vec<_> = state.trees.held.keys().filter(|(held, _)| held == key).cloned().collect();
        trees.iter().for_each(|tree| state.trees.remove(tree));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(seq: u64) -> ObjectKey {
        ObjectKey::pack("run", 1, seq).unwrap()
    }

    #[test]
    fn the_newest_are_kept_and_the_deleted_forgotten() {
        let known = Known::default();
        for seq in 0..=PACKS as u64 {
            known.pack(&pack(seq), seq, 1);
            known.pack(&pack(seq), seq, 2);
        }
        let size = |seq| known.seen(&pack(seq)).map(|seen| seen.size);
        assert_eq!((size(0), size(1)), (None, Some(1)));
        known.named(&pack(1), 3);
        known.named(&pack(1), 4);
        known.pack(&pack(1), 9, 5);
        assert_eq!(known.seen(&pack(1)), Some(Seen { size: 9, asked_ms: 5, named_ms: Some(3) }));
        known.forget(&pack(1));
        assert_eq!((size(1), size(2)), (None, Some(2)));
        let (tree, digest) = (ObjectKey::manifest("run", 1, 1).unwrap(), Digest::of(b"x"));
        known.verified(&tree, digest);
        assert!(known.is_verified(&tree, digest) && !known.is_verified(&tree, Digest::of(b"y")));
        known.forget(&tree);
        assert!(!known.is_verified(&tree, digest));
    }

    #[test]
    fn reading_has_a_share_of_the_time() {
        let known = Known::default();
        assert!(known.may_read(0));
        known.has_read(29_999);
        assert!(known.may_read(0));
        known.has_read(10_001);
        assert!(!known.may_read(0) && !known.may_read(100_000 - 9));
        assert!(known.may_read(100_020));
    }
}
