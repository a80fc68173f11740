//! A stored manifest as whoever looks after the store sees it, with or without
//! keys: what the tree is, and which stored chunks it needs. Never what a sealed
//! one holds; for that a key opens it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Kind, MAX_BYTES, Manifest, ManifestError};
use crate::key::ObjectKey;
use crate::seal::{self, Keyring, SealError, Sealed};

/// How long each pack must be at least.
pub(crate) fn ends<'a>(places: impl Iterator<Item = (&'a ObjectKey, u64)>) -> BTreeMap<ObjectKey, u64> {
    let mut ends = BTreeMap::new();
    for (pack, end) in places {
        match ends.get_mut(pack) {
            Some(most) => *most = end.max(*most),
            None => drop(ends.insert(pack.clone(), end)),
        }
    }
    ends
}

/// A manifest of any version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Description {
    /// Everybody can read it.
    Plain(Manifest),
    /// Whoever has its key can.
    Sealed(Sealed),
}

impl Description {
    /// Reads and checks a manifest, as far as it stands in the clear.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ManifestError::TooLarge(bytes.len() as u64));
        }
        match seal::is_sealed(bytes) {
            true => Sealed::parse(bytes).map(Self::Sealed),
            false => Manifest::parse(bytes).map(Self::Plain),
        }
    }

    /// What the tree is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Plain(tree) => tree.kind,
            Self::Sealed(sealed) => sealed.kind,
        }
    }

    /// The step of a checkpoint, where known.
    #[must_use]
    pub const fn step(&self) -> Option<u64> {
        match self {
            Self::Plain(tree) => tree.step,
            Self::Sealed(sealed) => sealed.step,
        }
    }

    /// The packs it needs, and how long each must be at least.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<ObjectKey, u64> {
        match self {
            Self::Plain(tree) => ends(tree.needed().map(|chunk| (&chunk.pack, chunk.end()))),
            Self::Sealed(sealed) => sealed.ends(),
        }
    }

    /// The packs the tree needs, sorted, each once.
    #[must_use]
    pub fn packs(&self) -> Vec<ObjectKey> {
        match self {
            Self::Plain(tree) => tree.packs(),
            Self::Sealed(sealed) => {
                let packs: BTreeSet<&ObjectKey> = sealed.chunks.iter().map(|c| &c.place.pack).collect();
                packs.into_iter().cloned().collect()
            }
        }
    }

    /// The tree, with whatever keys there are; it lies at `at`.
    ///
    /// # Errors
    /// Where it is sealed and none opens it, or it is damaged.
    pub fn open(self, at: &ObjectKey, keys: &Keyring) -> Result<Manifest, SealError> {
        match self {
            Self::Plain(tree) => Ok(tree),
            Self::Sealed(sealed) => keys.open(at, &sealed),
        }
    }
}
