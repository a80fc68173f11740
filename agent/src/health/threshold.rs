//! When a figure is over its limit for good, and when it is back. Pure. Nothing
//! is raised by a single sample, and nothing is cleared by a figure that only
//! just slipped under its limit: an alert that flaps is one that nobody reads.

/// Samples over the limit before an alert is raised.
const TO_RAISE: u8 = 2;

/// One limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rule {
    /// Raised at this value and beyond.
    pub(super) limit: f64,
    /// Cleared on the other side of this value.
    clear: f64,
    /// Beyond this value it is critical.
    critical: f64,
    /// Samples on the other side of `clear` before it is cleared.
    to_clear: u8,
    /// Whether less is worse.
    less_is_worse: bool,
}

impl Rule {
    /// Of a share in percent. Raised at `limit`, cleared five points below it
    /// (half of it, where it is below ten), critical at most of the way to 100.
    pub(super) fn percent(limit: f64) -> Self {
        let critical = limit + (100.0 - limit).max(0.0) * 0.7;
        Self { limit, clear: limit - 5.0_f64.min(limit / 2.0), critical, to_clear: 1, less_is_worse: false }
    }

    /// Of degrees. Cleared 5 % below the limit, critical 5 % above it.
    pub(super) fn degrees(limit: f64) -> Self {
        let far = limit.abs() * 0.05;
        Self { limit, clear: limit - far, critical: limit + far, to_clear: 1, less_is_worse: false }
    }

    /// Of a count that should be zero.
    pub(super) fn count() -> Self {
        Self { limit: 1.0, clear: 1.0, critical: f64::INFINITY, to_clear: TO_RAISE, less_is_worse: false }
    }

    /// Of something that must not be so, critical at once.
    pub(super) fn never() -> Self {
        Self { critical: 1.0, ..Self::count() }
    }

    /// Of the seconds until something happens.
    pub(super) fn seconds_left(limit: f64) -> Self {
        let critical = (limit / 10.0).min(60.0);
        Self { limit, clear: limit * 1.25, critical, to_clear: 3, less_is_worse: true }
    }

    fn reaches(&self, value: f64, line: f64) -> bool {
        if self.less_is_worse { value <= line } else { value >= line }
    }
}

/// Where one figure stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct State {
    over: u8,
    under: u8,
    raised: bool,
    critical: bool,
}

/// What a sample changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// Over the limit now, or critical now.
    Raised,
    /// Back.
    Cleared,
}

impl State {
    pub(super) fn is_raised(self) -> bool {
        self.raised
    }

    pub(super) fn is_critical(self) -> bool {
        self.critical
    }

    /// Takes one sample. `None` is a figure far from its limit; a value that is
    /// no number changes nothing. A warning that becomes critical is raised
    /// again; a critical one stays critical until it is cleared.
    pub(super) fn step(&mut self, value: Option<f64>, rule: &Rule) -> Change {
        if value.is_some_and(f64::is_nan) {
            return Change::None;
        }
        let reached = |line| value.is_some_and(|v| rule.reaches(v, line));
        let is_over = reached(rule.limit);
        self.over = if is_over { self.over.saturating_add(1) } else { 0 };
        let is_under = !is_over && !reached(rule.clear);
        self.under = if is_under { self.under.saturating_add(1) } else { 0 };
        if !self.raised {
            if self.over < TO_RAISE {
                return Change::None;
            }
            *self = Self { raised: true, critical: reached(rule.critical), ..*self };
            return Change::Raised;
        }
        if self.under >= rule.to_clear {
            *self = Self::default();
            return Change::Cleared;
        }
        if is_over && !self.critical && reached(rule.critical) {
            self.critical = true;
            return Change::Raised;
        }
        Change::None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn changes(rule: Rule, values: &[f64]) -> Vec<Change> {
        let mut state = State::default();
        values.iter().map(|v| state.step(Some(*v), &rule)).collect()
    }

    #[test]
    fn two_samples_raise_and_five_points_below_clears() {
        use Change::{Cleared, None, Raised};
        let values = [95.0, 80.0, 91.0, 90.0, 89.0, 86.0, 85.1, 84.9, 91.0, 91.0];
        let expected = [None, None, None, Raised, None, None, None, Cleared, None, Raised];
        assert_eq!(changes(Rule::percent(90.0), &values), expected);
    }

    #[test]
    fn critical_is_raised_again_and_stays() {
        use Change::{Cleared, None, Raised};
        let rule = Rule::percent(90.0);
        assert_eq!(
            changes(rule, &[91.0, 91.0, 98.0, 92.0, 98.0, 50.0]),
            [None, Raised, Raised, None, None, Cleared]
        );
        let mut state = State::default();
        state.step(Some(99.0), &rule);
        state.step(Some(99.0), &rule);
        assert!(state.is_raised() && state.is_critical());
    }

    #[test]
    fn seconds_left_are_worse_the_fewer_they_are() {
        use Change::{Cleared, None, Raised};
        let rule = Rule::seconds_left(600.0);
        let values = [700.0, 500.0, 400.0, 300.0, 650.0, 800.0, 800.0, 800.0];
        assert_eq!(changes(rule, &values), [None, None, Raised, None, None, None, None, Cleared]);
        let mut state = State::default();
        for value in [Some(10.0), Some(5.0), Option::None, Option::None] {
            state.step(value, &rule);
        }
        assert!(state.is_raised(), "two samples without a forecast are not the end of it");
        assert_eq!(state.step(Option::None, &rule), Cleared);
    }

    #[test]
    fn what_is_no_number_changes_nothing() {
        let mut state = State::default();
        let rule = Rule::percent(90.0);
        state.step(Some(95.0), &rule);
        assert_eq!(state.step(Some(f64::NAN), &rule), Change::None);
        assert_eq!(state.step(Some(95.0), &rule), Change::Raised);
    }

    proptest! {
        #[test]
        fn raised_and_cleared_take_turns(values in proptest::collection::vec(any::<f64>(), 0..200), limit in 0.0..100.0_f64) {
            for rule in [Rule::percent(limit), Rule::degrees(limit), Rule::count(), Rule::seconds_left(limit)] {
                let mut state = State::default();
                let mut raised = false;
                for value in &values {
                    match state.step(Some(*value), &rule) {
                        Change::Raised => raised = true,
                        Change::Cleared => {
                            prop_assert!(raised);
                            raised = false;
                        }
                        Change::None => {}
                    }
                    prop_assert_eq!(state.is_raised(), raised);
                }
            }
        }

        #[test]
        fn within_the_hysteresis_nothing_moves(values in proptest::collection::vec(85.01..89.99_f64, 1..50)) {
            let mut state = State::default();
            let rule = Rule::percent(90.0);
            for value in &values {
                prop_assert_eq!(state.step(Some(*value), &rule), Change::None);
            }
            state.step(Some(95.0), &rule);
            state.step(Some(95.0), &rule);
            for value in &values {
                prop_assert_eq!(state.step(Some(*value), &rule), Change::None);
                prop_assert!(state.is_raised());
            }
        }
    }
}
