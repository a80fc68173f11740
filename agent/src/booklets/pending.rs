//! What is stored and not yet durable, oldest first: it is committed in that
//! order, and given up by nobody's silence. The list is bounded; what falls out
//! of it is told, and is in the store all the same, where whoever binds the
//! next generation finds it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::world::Commit;

/// So many are remembered: a save every minute of half a day.
pub const MOST: usize = 1_024;

/// A manifest that is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Hash of its bytes.
    pub digest: String,
    /// Its step.
    pub step: Option<u64>,
    /// Where the checkpoint lies on this machine; empty: it is the results.
    pub relative: String,
    /// Those very bytes.
    pub token: String,
}

/// The list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    entries: VecDeque<Entry>,
}

/// What an answer to a commit leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// It is off the list, with this answer; the next is asked for.
    Settled(Box<Entry>, Commit),
    /// Nobody answered: all of them wait.
    Waits(String),
}

impl Pending {
    /// Adds the newest. What is over the bound is given back: the oldest
    /// checkpoint that a newer one stands for, or else the oldest.
    pub fn push(&mut self, entry: Entry) -> Option<Entry> {
        self.entries.push_back(entry);
        if self.entries.len() <= MOST {
            return None;
        }
        let newer = |at: usize| self.entries.iter().skip(at + 1).any(|other| !other.relative.is_empty());
        let old = (0..self.entries.len()).find(|at| !self.entries[*at].relative.is_empty() && newer(*at));
        self.entries.remove(old.unwrap_or(0))
    }

    /// The one to be committed next, beside one that is still being asked for.
    /// Where steps do not tell which of two saves is the newer, the order of
    /// their commits does: then it waits.
    #[must_use]
    pub fn next(&self, asked: Option<&str>) -> Option<&Entry> {
        let is_asked = |entry: &&Entry| Some(entry.key.as_str()) == asked;
        let next = self.entries.iter().find(|entry| !is_asked(entry))?;
        let Some(slow) = self.entries.iter().find(is_asked) else { return Some(next) };
        let results = slow.relative.is_empty() || next.relative.is_empty();
        (results || (slow.step.is_some() && next.step > slow.step)).then_some(next)
    }

    /// Takes note of the answer to the commit of `key`; nothing if it fell off
    /// the list meanwhile: what comes after it was not asked for.
    pub fn answered(&mut self, key: &str, answer: Commit) -> Option<After> {
        match answer {
            Commit::Unknown(why) => Some(After::Waits(why)),
            answer => {
                let at = self.entries.iter().position(|entry| entry.key == key)?;
                self.entries.remove(at).map(|entry| After::Settled(Box::new(entry), answer))
            }
        }
    }

    /// All of them, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is kept in a file, if it is one that this program writes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Self>(bytes).ok().filter(|read| read.entries.len() <= MOST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(number: u64, relative: &str) -> Entry {
        let key = format!("run/g0000000000000001/m{number:08}");
        Entry {
            key,
            digest: "d".into(),
            step: Some(number),
            relative: relative.into(),
            token: number.to_string(),
        }
    }

    #[test]
    fn the_oldest_that_is_superseded_goes_first_and_is_told() {
        let mut pending = Pending::default();
        pending.push(entry(0, ""));
        for number in 1..MOST as u64 {
            assert_eq!(pending.push(entry(number, "@/c")), None);
        }
        assert_eq!(pending.push(entry(9_999, "@/c")).unwrap().step, Some(1), "never the results before it");
        assert_eq!(pending.len(), MOST);
        // Its answer comes too late, and is nobody else's.
        assert_eq!(pending.answered(&entry(1, "@/c").key, Commit::Durable), None);
        assert_eq!(pending.len(), MOST);
        let bytes = serde_json::to_vec(&pending).unwrap();
        assert_eq!(Pending::read(&bytes), Some(pending));
        assert_eq!(Pending::read(b"[]"), None);
    }

    #[test]
    fn only_what_is_newer_by_its_step_goes_on_beside_one_that_is_asked_for() {
        let list = |entries: &[(Option<u64>, &str)]| {
            let mut pending = Pending::default();
            for (number, (step, relative)) in entries.iter().enumerate() {
                let (key, relative) = (number.to_string(), (*relative).to_owned());
                let (digest, token) = (String::new(), String::new());
                pending.push(Entry { key, digest, step: *step, relative, token });
            }
            pending.next(Some("0")).map(|entry| entry.key.clone())
        };
        let one = Some("1".to_owned());
        assert_eq!(list(&[(Some(1), "a")]), None);
        assert_eq!(list(&[(Some(1), "a"), (Some(2), "b")]), one);
        assert_eq!(list(&[(Some(1), "a"), (None, "")]), one, "results");
        assert_eq!(list(&[(None, ""), (Some(1), "a")]), one);
        assert_eq!(list(&[(Some(2), "a"), (Some(2), "b")]), None);
        assert_eq!(list(&[(None, "a"), (None, "b")]), None);
        assert_eq!(list(&[(None, "a"), (Some(3), "b")]), None);
        assert_eq!(list(&[(Some(1), "a"), (None, "b"), (Some(3), "c")]), None, "in order");
    }

    proptest! {
        /// Each is settled once, in order, however often nobody answers; and
        /// what was kept is what is left.
        #[test]
        fn they_are_settled_in_order_and_none_is_lost(
            stored in 1_u64..40, answers in proptest::collection::vec(0_u8..5, 0..200)
        ) {
            let mut pending = Pending::default();
            for number in 0..stored {
                pending.push(entry(number, "@/c"));
            }
            let mut settled = Vec::new();
            for answer in answers {
                // Started again between any two answers.
                pending = Pending::read(&serde_json::to_vec(&pending).unwrap()).unwrap();
                let answer = match answer {
                    0 => Commit::Durable,
                    1 => Commit::Superseded,
                    2 => Commit::Refused("x".into()),
                    3 => Commit::Again("x".into()),
                    _ => Commit::Unknown("x".into()),
                };
                let waits = matches!(answer, Commit::Unknown(_));
                let key = pending.next(None).map(|entry| entry.key.clone()).unwrap_or_default();
                match pending.answered(&key, answer) {
                    Some(After::Settled(entry, _)) => settled.push(entry.step.unwrap()),
                    Some(After::Waits(_)) => prop_assert!(waits),
                    None => prop_assert!(pending.is_empty()),
                }
            }
            prop_assert_eq!(settled.len() + pending.len(), stored as usize);
            prop_assert!(settled.iter().copied().eq(0..settled.len() as u64));
            prop_assert_eq!(pending.next(None).and_then(|e| e.step), (settled.len() < stored as usize).then_some(settled.len() as u64));
        }
    }
}
