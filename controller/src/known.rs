//! What this controller has itself found in the store of objects, so that it
//! asks no question twice: objects are written once and never change. Only a
//! memory: it is bounded, lost with the process, and never the reason for
//! taking anything for absent.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use artifacts::{Digest, ObjectKey};

/// Trees that were verified in full.
const TREES: usize = 1_024;
/// Packs that committed trees name: some 250 GB of them.
const PACKS: usize = 32_768;

/// Answers of the store of objects that stay true.
#[derive(Default)]
pub struct Known(Mutex<State>);

#[derive(Default)]
struct State {
    trees: Bounded<(ObjectKey, Digest)>,
    packs: Bounded<ObjectKey>,
}

/// The newest entries, each with a number.
struct Bounded<K> {
    held: HashMap<K, u64>,
    order: VecDeque<K>,
}

impl<K> Default for Bounded<K> {
    fn default() -> Self {
        Self { held: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Clone> Bounded<K> {
    fn insert(&mut self, key: K, number: u64, most: usize) {
        if self.held.insert(key.clone(), number).is_none() {
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
        self.state().trees.insert((manifest.clone(), digest), 0, TREES);
    }

    /// Whether the tree was verified before.
    #[must_use]
    pub fn is_verified(&self, manifest: &ObjectKey, digest: Digest) -> bool {
        self.state().trees.held.contains_key(&(manifest.clone(), digest))
    }

    /// A committed tree names this pack, which has so many bytes.
    pub fn pack(&self, pack: &ObjectKey, size: u64) {
        self.state().packs.insert(pack.clone(), size, PACKS);
    }

    /// The size of a pack that a committed tree names.
    #[must_use]
    pub fn size_of(&self, pack: &ObjectKey) -> Option<u64> {
        self.state().packs.held.get(pack).copied()
    }

    /// The object is being deleted.
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
            known.pack(&pack(seq), seq);
            known.pack(&pack(seq), seq);
        }
        assert_eq!((known.size_of(&pack(0)), known.size_of(&pack(1))), (None, Some(1)));
        known.forget(&pack(1));
        assert_eq!((known.size_of(&pack(1)), known.size_of(&pack(2))), (None, Some(2)));
        let (tree, digest) = (ObjectKey::manifest("run", 1, 1).unwrap(), Digest::of(b"x"));
        known.verified(&tree, digest);
        assert!(known.is_verified(&tree, digest) && !known.is_verified(&tree, Digest::of(b"y")));
        known.forget(&tree);
        assert!(!known.is_verified(&tree, digest));
    }
}
