//! The bases of the differences in one range: fetched with it, hashed like
//! every chunk, and let go with it. They have as many plain bytes as the
//! differences, so that memory stays bounded; a base that is damaged is an
//! error of the pack it lies in, not of the one that needs it.

use std::collections::{BTreeSet, HashMap};

use super::RestoreError;
use super::fetch::{Range, Ranges, fetch};
use crate::codec::{Base, Coder};
use crate::digest::Digest;
use crate::manifest::ChunkRef;
use crate::store::Store;

/// Bases as they are stored.
pub(super) type Stored = Vec<(Range, Vec<u8>)>;

/// Reads the bases that a range needs, in large ranges where they lie together.
pub(super) async fn of_range(
    store: &dyn Store,
    bases: &[ChunkRef],
    range: &Range,
) -> Result<Stored, RestoreError> {
    let numbers: BTreeSet<u32> = range.bases().collect();
    let mut needed: Vec<(usize, &ChunkRef)> = numbers
        .into_iter()
        .filter_map(|number| Some((number as usize, bases.get(number as usize)?)))
        .collect();
    needed.sort_by(|(_, a), (_, b)| (&a.pack, a.offset).cmp(&(&b.pack, b.offset)));
    let mut stored = Vec::new();
    for range in Ranges::of(needed.into_iter()) {
        stored.extend(fetch(store, Some(range)).await?);
    }
    Ok(stored)
}

/// Bases by their numbers, each of which had its hash.
#[derive(Default)]
pub(super) struct Bases {
    plain: Vec<u8>,
    places: HashMap<u32, (Digest, usize, usize)>,
}

impl Bases {
    /// Decodes and checks what [`of_range`] brought.
    pub(super) fn decode(coder: &mut Coder, stored: &Stored) -> Result<Self, RestoreError> {
        let mut bases = Self::default();
        let none = Self::default();
        for (range, bytes) in stored {
            let mut at = bases.plain.len();
            let shares = range.decode(coder, bytes, &none, &mut bases.plain)?;
            for ((number, len), digest) in shares.into_iter().zip(range.digests()) {
                bases.places.insert(number as u32, (digest, at, len));
                at += len;
            }
        }
        Ok(bases)
    }

    pub(super) fn get(&self, number: u32) -> Option<Base<'_>> {
        let (digest, at, len) = self.places.get(&number)?;
        Some(Base { digest, bytes: self.plain.get(*at..*at + *len)? })
    }
}
