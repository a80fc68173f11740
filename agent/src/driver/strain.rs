//! That what is saved cannot be stored is told while it lasts, not only by a
//! machine that publishes for ever: an alert once it has lasted for some time,
//! and its end. While nobody is connected nothing counts: the controller's
//! silence is no trouble of the store, and nobody would hear of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::v1::{self, event::Kind};
use tokio::time::Instant;

use super::Driver;
use crate::supervisor::Phase;

/// Tries that fail for so long are told of.
const LONG: Duration = Duration::from_secs(10);

/// What a publish of one attempt meets, shared with the job that publishes.
#[derive(Debug, Clone, Default)]
pub(super) struct Strain(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Since when nothing but failures.
    since: Option<Instant>,
    /// The last one, in words.
    why: String,
    /// The alert as it was raised.
    raised: Option<v1::Alert>,
}

impl Strain {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A publish must be tried again.
    pub(super) fn failed(&self, why: &str) {
        let mut inner = self.inner();
        inner.since.get_or_insert_with(Instant::now);
        why.clone_into(&mut inner.why);
    }

    /// One went well, or is not tried any more.
    pub(super) fn over(&self) {
        self.inner().since = None;
    }

    /// The alert that stands.
    pub(super) fn raised(&self) -> Option<v1::Alert> {
        self.inner().raised.clone()
    }

    /// The alert where it is news. `heard`: somebody would hear of it.
    fn news(&self, now: Instant, wall_ms: u64, heard: bool) -> Option<v1::Alert> {
        let mut inner = self.inner();
        let Some(since) = inner.since else {
            let raised = inner.raised.take()?;
            let text = format!("what is saved can be stored again, or is not tried any more ({})", inner.why);
            return Some(v1::Alert { raised: false, at_ms: wall_ms, text, ..raised });
        };
        if inner.raised.is_some() {
            return None;
        }
        if !heard {
            inner.since = Some(now);
            return None;
        }
        let lasted = now.saturating_duration_since(since);
        if lasted < LONG {
            return None;
        }
        let alert = v1::Alert {
            name: "store".into(),
            subject: "publish".into(),
            level: "critical".into(),
            raised: true,
            value: lasted.as_secs_f64(),
            limit: LONG.as_secs_f64(),
            trend_per_s: 0.0,
            text: format!(
                "what is saved cannot be stored for {} s and waits on the machine: {}; it is tried again each second, \
                 and `outlast doctor` names the cure",
                lasted.as_secs(),
                inner.why
            ),
            at_ms: wall_ms,
        };
        inner.raised = Some(alert.clone());
        Some(alert)
    }
}

impl Driver {
    /// Tells, durably, when a store begins and when it ends to take nothing.
    pub(super) fn watch_store(&mut self, now: Instant) {
        let (wall, heard) = ((self.wall_ms)(), self.connected && self.welcomed);
        let mut news = Vec::new();
        for (id, attempt) in &self.attempts {
            if attempt.supervisor.phase == Phase::Ended {
                attempt.strain.over();
            }
            news.extend(attempt.strain.news(now, wall, heard).map(|alert| (id.clone(), alert)));
        }
        for (id, alert) in news {
            tracing::warn!(attempt = id, "{}", alert.text);
            self.record(&id, Kind::Alert(alert));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_nothing_is_told_once_and_so_is_its_end() {
        let strain = Strain::default();
        let begin = Instant::now();
        let news = |after: u64, heard: bool| {
            strain.news(begin + Duration::from_secs(after), 7, heard).map(|alert| (alert.raised, alert.text))
        };
        strain.failed("no room");
        assert_eq!(news(9, true), None);
        strain.failed("the store is full (x): free space or raise its quota");
        let (raised, text) = news(10, true).unwrap();
        assert!(raised && text.contains("for 10 s") && text.contains("free space or raise"), "{text}");
        assert_eq!(strain.raised().map(|alert| alert.level), Some("critical".into()));
        strain.failed("another");
        assert_eq!(news(60, true), None, "told once");
        strain.over();
        assert_eq!(news(61, true).map(|(raised, _)| raised), Some(false));
        assert_eq!((news(62, true), strain.raised()), (None, None));
        // One failure that is made up for is nothing.
        strain.failed("one");
        strain.over();
        assert_eq!(news(90, true), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_without_a_controller_does_not_count() {
        let strain = Strain::default();
        let begin = Instant::now();
        let news = |after: u64, heard: bool| strain.news(begin + Duration::from_secs(after), 7, heard);
        strain.failed("nobody answers");
        assert_eq!(news(300, false), None);
        assert_eq!(news(305, true), None);
        assert!(news(310, true).is_some());
    }
}
