//! Whether the agent hangs. Its main loop writes a byte into a pipe now and
//! then; an agent that is silent for too long is no agent. Pure.

use std::time::{Duration, Instant};

/// An agent's silence as its guard counts it.
#[derive(Debug)]
pub(super) struct Watch {
    limit: Duration,
    /// What is left until the agent counts as hung; `None`: it was not heard
    /// yet, and need not speak.
    left: Option<Duration>,
    looked: Instant,
}

impl Watch {
    /// `speaks`: the agent is known to give signs, so that its first one is
    /// waited for as well (four times as long: it may have much to take up).
    /// Programs of earlier versions never give one and are not ended for it.
    pub(super) fn new(limit: Duration, speaks: bool, now: Instant) -> Self {
        Self { limit, left: speaks.then_some(limit * 4), looked: now }
    }

    /// The agent gave a sign.
    pub(super) fn heard(&mut self) {
        self.left = Some(self.limit);
    }

    /// Counts the time since the last look; `true`: the agent hangs. Time in
    /// which this guard itself did not turn (stopped, suspended, starved)
    /// counts for one interval at most: the agent stood still with it.
    pub(super) fn hangs(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.looked).min(self.interval() * 2);
        self.looked = now;
        self.left = self.left.map(|left| left.saturating_sub(passed));
        self.left == Some(Duration::ZERO)
    }

    /// How often to look.
    pub(super) fn interval(&self) -> Duration {
        self.limit / 6
    }

    /// How long until the next look is due.
    pub(super) fn next_look(&self, now: Instant) -> Duration {
        (self.looked + self.interval()).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn silent_for(watch: &mut Watch, from: Instant, seconds: u64) -> Option<u64> {
        (1..=seconds).find(|s| watch.hangs(from + Duration::from_secs(*s)))
    }

    #[test]
    fn silence_of_the_whole_limit_is_a_hang_and_a_sign_ends_it() {
        let start = Instant::now();
        let mut watch = Watch::new(LIMIT, true, start);
        watch.heard();
        assert_eq!(silent_for(&mut watch, start, 29), None);
        watch.heard();
        let later = start + Duration::from_secs(29);
        assert_eq!(silent_for(&mut watch, later, 60), Some(30));
    }

    #[test]
    fn an_agent_that_never_spoke_is_given_more_time_or_all() {
        let start = Instant::now();
        assert_eq!(silent_for(&mut Watch::new(LIMIT, true, start), start, 600), Some(120));
        assert_eq!(silent_for(&mut Watch::new(LIMIT, false, start), start, 600), None);
    }

    #[test]
    fn time_in_which_the_guard_stood_still_does_not_count() {
        let start = Instant::now();
        let mut watch = Watch::new(LIMIT, true, start);
        watch.heard();
        assert!(!watch.hangs(start + Duration::from_secs(3_600)), "it was suspended");
        let after = start + Duration::from_secs(3_600);
        assert_eq!(silent_for(&mut watch, after, 60), Some(20), "two intervals were counted");
    }
}
