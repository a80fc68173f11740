//! Which rows changed lately, so that whoever keeps rows as they were read
//! knows which to read again. In memory only, and bounded: who asks too late is
//! told that anything may have changed. It never holds what a row says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Changeset, Kind};

/// Changes remembered.
const REMEMBERED: usize = 16_384;

/// What changed since a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// What to ask with the next time.
    pub mark: u64,
    /// The rows, one as often as it changed; `None`: nobody remembers, it may be
    /// any.
    pub rows: Option<Vec<(Kind, String)>>,
}

/// The changes of one store, in the order of their commits.
#[derive(Debug, Default)]
pub struct Feed {
    /// How many changes there were. Read without the lock: nothing new is the
    /// usual answer.
    count: AtomicU64,
    latest: Mutex<VecDeque<(Kind, String)>>,
}

impl Feed {
    fn latest(&self) -> MutexGuard<'_, VecDeque<(Kind, String)>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A changeset was applied. Said before its commit is acknowledged: what an
    /// acknowledged commit wrote is then seen by every read that starts later.
    pub fn applied(&self, changes: &Changeset) {
        let put = changes.put.iter().map(|row| (row.kind, &row.id));
        let rows = put.chain(changes.delete.iter().map(|(kind, id)| (*kind, id)));
        let mut rows = rows.filter(|(kind, _)| kind.is_kept()).peekable();
        if rows.peek().is_none() {
            return;
        }
        let mut latest = self.latest();
        let mut more = 0;
        for (kind, id) in rows {
            latest.push_back((kind, id.clone()));
            more += 1;
        }
        while latest.len() > REMEMBERED {
            latest.pop_front();
        }
        self.count.fetch_add(more, Ordering::Release);
    }

    /// What changed after `mark`, which an earlier answer gave; 0 is the
    /// beginning of this process.
    #[must_use]
    pub fn since(&self, mark: u64) -> Changed {
        if self.count.load(Ordering::Acquire) == mark {
            return Changed { mark, rows: Some(Vec::new()) };
        }
        let latest = self.latest();
        let mark_now = self.count.load(Ordering::Acquire);
        let behind = mark_now.checked_sub(mark).and_then(|behind| usize::try_from(behind).ok());
        let first = behind.and_then(|behind| latest.len().checked_sub(behind));
        Changed { mark: mark_now, rows: first.map(|first| latest.iter().skip(first).cloned().collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::put;

    fn changes(ids: std::ops::Range<usize>) -> Changeset {
        let rows = ids.map(|n| put(Kind::Run, &n.to_string(), None)).collect();
        Changeset { put: rows, delete: vec![(Kind::Machine, "m".into())], ..Changeset::default() }
    }

    #[test]
    fn what_changed_since_is_told_and_who_asks_too_late_hears_that() {
        let feed = Feed::default();
        assert_eq!(feed.since(0), Changed { mark: 0, rows: Some(Vec::new()) });
        feed.applied(&changes(0..2));
        let told = feed.since(0);
        assert_eq!(told.mark, 3);
        let of = |kind, id: &str| (kind, id.to_owned());
        assert_eq!(told.rows, Some(vec![of(Kind::Run, "0"), of(Kind::Run, "1"), of(Kind::Machine, "m")]));
        assert_eq!(feed.since(2).rows, Some(vec![of(Kind::Machine, "m")]));
        assert_eq!(feed.since(3).rows, Some(Vec::new()));
        feed.applied(&changes(0..REMEMBERED));
        assert_eq!(feed.since(3).rows, None, "forgotten");
        assert_eq!(feed.since(4).rows.map(|rows| rows.len()), Some(REMEMBERED));
        assert_eq!(feed.since(u64::MAX).rows, None, "a mark of another process");
        // What nobody keeps is not told of.
        let before = feed.since(0).mark;
        feed.applied(&Changeset { put: vec![put(Kind::Stream, "s", None)], ..Changeset::default() });
        assert_eq!(feed.since(0).mark, before);
    }
}
