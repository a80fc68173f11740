//! The escalation of a stop: TERM, grace, KILL. Pure: it is told the time and
//! says what is due. A stop once begun is never taken back, only hastened.

use std::time::{Duration, Instant};

use super::StopKind;

/// A longer grace than any notice a provider gives.
const LONGEST_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Stopping {
    #[default]
    No,
    Terminating {
        until: Instant,
    },
    Killing {
        kind: StopKind,
    },
}

impl Stopping {
    /// Begins or hastens a stop; true when SIGTERM is due now.
    pub(super) fn stop(&mut self, now: Instant, grace: Duration) -> bool {
        let wanted = now + grace.min(LONGEST_GRACE);
        match self {
            Self::No => {
                *self = Self::Terminating { until: wanted };
                true
            }
            Self::Terminating { until } => {
                *until = wanted.min(*until);
                false
            }
            Self::Killing { .. } => false,
        }
    }

    /// Ends the grace at once.
    pub(super) fn kill(&mut self) {
        *self = match *self {
            Self::No => Self::Killing { kind: StopKind::Kill },
            Self::Terminating { .. } => Self::Killing { kind: StopKind::TermThenKill },
            Self::Killing { kind } => Self::Killing { kind },
        };
    }

    /// Moves on with the time; true while everything is to be killed.
    pub(super) fn is_killing(&mut self, now: Instant) -> bool {
        if matches!(self, Self::Terminating { until } if now >= *until) {
            self.kill();
        }
        matches!(self, Self::Killing { .. })
    }

    /// When the next step is due.
    pub(super) fn until(&self) -> Option<Instant> {
        match self {
            Self::Terminating { until } => Some(*until),
            Self::No | Self::Killing { .. } => None,
        }
    }

    /// What was done so far.
    pub(super) fn kind(&self) -> Option<StopKind> {
        match self {
            Self::No => None,
            Self::Terminating { .. } => Some(StopKind::Term),
            Self::Killing { kind } => Some(*kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_stop_can_only_shorten_the_grace() {
        let now = Instant::now();
        let after = |s| now + Duration::from_secs(s);
        let mut stopping = Stopping::default();
        assert!(stopping.stop(now, Duration::from_secs(10)));
        assert!(!stopping.stop(after(1), Duration::from_secs(60)));
        assert_eq!(stopping.until(), Some(after(10)));
        assert!(!stopping.stop(after(2), Duration::from_secs(3)));
        assert_eq!(stopping.until(), Some(after(5)));
        assert!(!stopping.is_killing(after(4)));
        assert_eq!(stopping.kind(), Some(StopKind::Term));
        assert!(stopping.is_killing(after(5)));
        assert_eq!(stopping.kind(), Some(StopKind::TermThenKill));
    }

    #[test]
    fn a_kill_needs_no_grace_and_is_not_undone_by_a_stop() {
        let now = Instant::now();
        let mut stopping = Stopping::default();
        stopping.kill();
        assert!(!stopping.stop(now, Duration::MAX));
        assert!(stopping.is_killing(now));
        assert_eq!(stopping.kind(), Some(StopKind::Kill));
    }
}
