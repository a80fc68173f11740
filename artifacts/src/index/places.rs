//! Where the chunks of one tree lie, in as few bytes as that takes: a large
//! checkpoint has hundreds of thousands. Never a set of everything: what the
//! store holds beyond one publish is the index's to know.

use std::collections::HashMap;

use super::Location;
use crate::codec::Codec;
use crate::digest::Digest;
use crate::key::ObjectKey;
use crate::manifest::Manifest;
use crate::pack::Held;

/// The pack of a chunk that lies in none yet.
const NONE: u32 = u32::MAX;
/// In the place of a hash of stored bytes.
const UNSEALED: Digest = Digest::from_bytes([0; 32]);
/// An empty slot.
const FREE: u32 = u32::MAX;

/// Chunks and where they lie; each has a number.
#[derive(Debug, Default)]
pub struct Places {
    packs: Vec<ObjectKey>,
    numbers: HashMap<ObjectKey, u32>,
    places: Vec<Place>,
    /// Hashes of stored bytes by the numbers of places; empty while none is
    /// sealed, and zeros for one that is not.
    ciphers: Vec<Digest>,
    /// Numbers of places, found by the beginning of their digests: a table of
    /// digests would hold each of them twice.
    slots: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    digest: Digest,
    pack: u32,
    offset: u32,
    len: u32,
    stored: u32,
    codec: Codec,
}

impl Places {
    /// How many chunks there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The chunks of a tree that lie in packs of this kind.
    #[must_use]
    pub fn of(manifest: &Manifest, wanted: impl Fn(&ObjectKey) -> bool) -> Self {
        let mut places = Self::default();
        places.add(manifest, wanted);
        places
    }

    /// Those that lie in packs of this kind.
    #[must_use]
    pub fn within(self, wanted: impl Fn(&ObjectKey) -> bool) -> Self {
        let fit: Vec<bool> = self.packs.iter().map(wanted).collect();
        self.keep(|place, _| {
            fit.get(place.pack as usize).is_some_and(|fit| *fit) && place.codec != Codec::Delta
        })
    }

    /// Those that are sealed, or those that are not.
    #[must_use]
    pub(crate) fn sealed(self, wanted: bool) -> Self {
        if self.ciphers.is_empty() {
            return if wanted { Self::default() } else { self };
        }
        self.keep(|_, cipher| cipher.is_some() == wanted)
    }

    /// Those of these numbers that lie anywhere, with no more names of packs than
    /// they need.
    pub(crate) fn only(&self, numbers: impl Iterator<Item = u32>) -> Self {
        let mut only = Self::default();
        for (digest, place) in numbers.filter_map(|number| self.get(number)) {
            only.insert(digest, &place);
        }
        only
    }

    /// No more than so many, those that were taken last.
    pub(crate) fn newest(self, most: usize) -> Self {
        let all = self.places.len();
        if all <= most { self } else { self.only((all - most) as u32..all as u32) }
    }

    /// Takes the chunks of a tree that lie in packs of this kind.
    pub(crate) fn add(&mut self, manifest: &Manifest, wanted: impl Fn(&ObjectKey) -> bool) {
        // A difference is not told without its base.
        for chunk in manifest.chunks().filter(|chunk| wanted(&chunk.pack) && chunk.base.is_none()) {
            self.insert(chunk.digest, &chunk.place());
        }
    }

    fn keep(self, wanted: impl Fn(&Place, Option<Digest>) -> bool) -> Self {
        let mut kept = Self { packs: self.packs, numbers: self.numbers, ..Self::default() };
        for (number, place) in self.places.into_iter().enumerate() {
            let cipher = self.ciphers.get(number).copied().filter(|cipher| *cipher != UNSEALED);
            if wanted(&place, cipher) {
                let number = kept.push(place);
                kept.seal(number, cipher);
            }
        }
        kept
    }

    fn seal(&mut self, number: u32, cipher: Option<Digest>) {
        let number = number as usize;
        if let Some(place) = self.ciphers.get_mut(number) {
            *place = cipher.unwrap_or(UNSEALED);
        } else if let Some(cipher) = cipher {
            self.ciphers.resize(number, UNSEALED);
            self.ciphers.push(cipher);
        }
    }

    fn cipher(&self, number: u32) -> Option<Digest> {
        self.ciphers.get(number as usize).copied().filter(|cipher| *cipher != UNSEALED)
    }

    fn slot(&self, digest: &Digest) -> usize {
        let mut first = [0; 8];
        first.copy_from_slice(&digest.as_bytes()[..8]);
        let mask = self.slots.len() - 1;
        let mut slot = u64::from_le_bytes(first) as usize & mask;
        loop {
            match self.slots[slot] {
                FREE => return slot,
                number if self.places[number as usize].digest == *digest => return slot,
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// The number of a chunk.
    pub(crate) fn find(&self, digest: &Digest) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        Some(self.slots[self.slot(digest)]).filter(|number| *number != FREE)
    }

    /// Takes a chunk that is not there yet.
    fn push(&mut self, place: Place) -> u32 {
        if self.slots.len() < (self.places.len() + 1) * 2 {
            self.slots = vec![FREE; ((self.places.len() + 1) * 4).next_power_of_two().max(64)];
            for number in 0..self.places.len() {
                let slot = self.slot(&self.places[number].digest);
                self.slots[slot] = number as u32;
            }
        }
        let (number, slot) = (self.places.len() as u32, self.slot(&place.digest));
        self.places.push(place);
        self.slots[slot] = number;
        number
    }

    fn pack(&mut self, key: &ObjectKey) -> u32 {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = self.packs.len() as u32;
        self.packs.push(key.clone());
        self.numbers.insert(key.clone(), number);
        number
    }

    /// Takes a chunk that is to be stored; `settle` says where it came to lie.
    pub(crate) fn expect(&mut self, digest: Digest, len: u32) -> u32 {
        match self.find(&digest) {
            Some(number) => number,
            None => self.push(Place { digest, pack: NONE, offset: 0, len, stored: len, codec: Codec::Raw }),
        }
    }

    /// Takes a chunk and where it lies, unless it is there.
    pub(crate) fn insert(&mut self, digest: Digest, at: &Location) -> u32 {
        if let Some(number) = self.find(&digest) {
            return number;
        }
        let Location { len, stored, codec, cipher, .. } = *at;
        let (pack, offset) = (self.pack(&at.pack), at.offset as u32);
        let number = self.push(Place { digest, pack, offset, len, stored, codec });
        self.seal(number, cipher);
        number
    }

    /// Says where the chunks of a pack lie.
    pub(crate) fn settle(&mut self, key: &ObjectKey, held: &[(Digest, Held)]) {
        let pack = self.pack(key);
        for (digest, Held { offset, stored, len, codec, cipher }) in held {
            let number = self.expect(*digest, *len);
            if let Some(place) = self.places.get_mut(number as usize) {
                *place = Place { pack, offset: *offset as u32, stored: *stored, codec: *codec, ..*place };
                self.seal(number, *cipher);
            }
        }
    }

    /// The chunk of this number and its place, if it lies anywhere.
    pub(crate) fn get(&self, number: u32) -> Option<(Digest, Location)> {
        let Place { digest, pack, offset, len, stored, codec } = *self.places.get(number as usize)?;
        let (pack, cipher) = (self.packs.get(pack as usize)?.clone(), self.cipher(number));
        Some((digest, Location { pack, offset: u64::from(offset), len, stored, codec, cipher }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u32) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    #[test]
    fn every_chunk_is_found_and_takes_few_bytes() {
        let packs: Vec<ObjectKey> = (0..3).map(|n| ObjectKey::pack("run", 1, n).unwrap()).collect();
        let mut places = Places::default();
        for n in 0..5000_u32 {
            let number = places.expect(digest(n), 10);
            assert_eq!((number, places.expect(digest(n), 10)), (n, n));
            let cipher = (n % 8 == 0).then(|| digest(n + 1));
            let held = Held { offset: u64::from(n) * 5, stored: 5, len: 10, codec: Codec::Zstd, cipher };
            if n % 4 < 3 {
                places.settle(&packs[n as usize % 4], &[(digest(n), held)]);
            }
        }
        let own = places.within(|pack| *pack != packs[1]);
        assert_eq!(own.len(), 2500, "neither what lies elsewhere nor what lies nowhere");
        for n in 0..5000_u32 {
            let found = own.find(&digest(n)).and_then(|number| own.get(number));
            assert_eq!(found.is_some(), n % 4 == 0 || n % 4 == 2, "{n}");
            if let Some((found, place)) = found {
                assert_eq!((found, place.offset, place.stored), (digest(n), u64::from(n) * 5, 5));
                assert_eq!(place.pack, packs[n as usize % 4]);
                assert_eq!(place.cipher, (n % 8 == 0).then(|| digest(n + 1)));
            }
        }
        let sealed = own.sealed(true);
        assert_eq!(sealed.len(), 625);
        assert!(sealed.find(&digest(8)).is_some() && sealed.find(&digest(4)).is_none());
        assert!(size_of::<Place>() <= 52);
    }
}
