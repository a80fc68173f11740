//! What waits to be told to whom: rows of the database, one for each message
//! and receiver. When one is tried, when it is tried again and when it is given
//! up is decided here, without IO.

use lifecycle::RunId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::notice::Notice;
use crate::model::Record;
use crate::store::Kind;

/// After so long a message is no news.
pub(super) const EXPIRES_MS: u64 = 24 * 3_600_000;
/// Messages that wait for one receiver at most; more are counted, not kept.
pub(super) const PENDING: usize = 500;
const FIRST_PAUSE_MS: u64 = 2_000;
const LONGEST_PAUSE_MS: u64 = 1_800_000;

/// A message to one receiver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Message {
    /// The entry of the journal that it tells of; for the order.
    pub(super) seq: u64,
    /// The receiver's name.
    pub(super) target: String,
    pub(super) notice: Notice,
    /// Unix milliseconds since when it waits.
    pub(super) since_ms: u64,
    #[serde(default)]
    pub(super) tries: u32,
    /// Unix milliseconds before which it is not tried again.
    #[serde(default)]
    pub(super) due_ms: u64,
}

impl Record for Message {
    const KIND: Kind = Kind::Notice;
    fn key(&self) -> String {
        format!("{}/{:016}/{}", self.target, self.seq, self.notice.event.name())
    }
    fn run(&self) -> Option<RunId> {
        None
    }
}

/// How far the journal was read, and what was given up; one row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Everything up to this entry was turned into messages.
    pub(super) seq: u64,
    /// Given up, by receiver.
    #[serde(default)]
    pub(super) dropped: BTreeMap<String, u64>,
    /// Unix milliseconds of the last message about costs.
    #[serde(default)]
    pub(super) cost_ms: u64,
}

impl Record for Cursor {
    const KIND: Kind = Kind::Meta;
    fn key(&self) -> String {
        "notify".to_owned()
    }
    fn run(&self) -> Option<RunId> {
        None
    }
}

impl Cursor {
    pub(super) fn drop_one(&mut self, target: &str) {
        *self.dropped.entry(target.to_owned()).or_default() += 1;
    }
}

/// What became of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken.
    Taken,
    /// The receiver is there and does not want this one.
    Refused(String),
    /// The receiver is not there, or can take none now.
    Away(String),
}

/// Pause after the `n`th failure in a row.
pub(super) fn pause_ms(n: u32) -> u64 {
    (FIRST_PAUSE_MS << n.saturating_sub(1).min(20)).min(LONGEST_PAUSE_MS)
}

impl Message {
    /// Whether it is no news any more.
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms) >= EXPIRES_MS
    }

    fn is_due(&self, now_ms: u64) -> bool {
        // A moment further off than any pause comes from a clock that was set back.
        self.due_ms <= now_ms || self.due_ms > now_ms + LONGEST_PAUSE_MS
    }

    /// It was not taken.
    pub(super) fn failed(&mut self, now_ms: u64) {
        self.tries = self.tries.saturating_add(1);
        self.due_ms = now_ms + pause_ms(self.tries);
    }
}

/// The message that a receiver gets next: the oldest that is due.
pub(super) fn next<'m>(all: &'m [Message], target: &str, now_ms: u64) -> Option<&'m Message> {
    all.iter().filter(|m| m.target == target && m.is_due(now_ms)).min_by_key(|m| m.seq)
}

#[cfg(test)]
mod tests {
    use super::super::notice;
    use super::*;

    fn message(seq: u64, due_ms: u64) -> Message {
        Message { seq, target: "a".into(), notice: notice::test("h", 1), since_ms: 1_000, tries: 0, due_ms }
    }

    #[test]
    fn messages_go_in_order_and_one_that_is_refused_holds_up_no_other() {
        let mut all = vec![message(3, 0), message(1, 0), message(2, 0)];
        assert_eq!(next(&all, "a", 2_000).unwrap().seq, 1);
        all[1].failed(2_000);
        assert_eq!(next(&all, "a", 2_000).unwrap().seq, 2);
        assert_eq!(next(&all, "a", 2_000 + FIRST_PAUSE_MS).unwrap().seq, 1);
        assert_eq!(next(&all, "b", 2_000), None);
        let ahead = message(9, 100_000_000);
        assert!(next(&[ahead], "a", 2_000).is_some(), "a clock that was set back");
    }

    #[test]
    fn pauses_grow_to_a_bound_and_a_day_is_the_end() {
        let pauses: Vec<u64> = [1, 2, 3, 11, 12, 1_000].into_iter().map(pause_ms).collect();
        assert_eq!(pauses, [2_000, 4_000, 8_000, 1_800_000, 1_800_000, 1_800_000]);
        assert!(!message(1, 0).is_over(1_000 + EXPIRES_MS - 1) && message(1, 0).is_over(1_000 + EXPIRES_MS));
    }

    #[test]
    fn the_row_of_a_message_is_its_own_and_keeps_its_order() {
        let keys: Vec<String> = [message(9, 0), message(10, 0)].iter().map(Record::key).collect();
        assert!(keys[0] < keys[1], "{keys:?}");
    }
}
