//! An attempt: one try of a run on one machine, under one generation.
//!
//! ```text
//! ASSIGNED -> PREPARING -> RUNNING -> STOPPING
//!     |           |           |          |
//!     +-----------+-----+-----+----------+
//!                       |
//!            ENDED | LOST | SUPERSEDED   (final)
//! ```
//!
//! It names its machine; a machine may serve several attempts in turn. LOST is
//! the controller's word for silence, ENDED is the machine's word for an end
//! that was seen, SUPERSEDED is said when a newer generation was bound.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::refusal::Refusal;

/// Where an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum AttemptState {
    /// Bound to a machine; the machine may not know yet.
    Assigned,
    /// The machine restores files and builds the environment.
    Preparing,
    /// The program runs.
    Running,
    /// The program was asked to end.
    Stopping,
    /// The program ended, and this was seen.
    Ended {
        /// How it ended.
        exit: Exit,
    },
    /// The machine fell silent or is gone.
    Lost {
        /// What is believed to have happened.
        cause: LossCause,
    },
    /// A newer generation was bound.
    Superseded,
}

/// Steps that an attempt did once more: what had been `reached` by any attempt
/// before it, as far as it came itself (`last`), from where it began (`resumed`;
/// `None`: from nothing).
#[must_use]
pub fn repeated_steps(reached: u64, resumed: Option<u64>, last: Option<u64>) -> u64 {
    let resumed = resumed.unwrap_or(0);
    reached.min(last.unwrap_or(resumed)).saturating_sub(resumed)
}

/// Why a machine is believed lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossCause {
    /// The provider says that the instance does not exist any more.
    Gone,
    /// The provider says that the instance has ended.
    Terminated,
    /// Lease over and silence for `lost_after`; nobody knows more.
    Silent,
    /// It never joined within its deadline.
    NeverJoined,
    /// A person destroyed it.
    Operator,
    /// It said itself that it ends (shutdown, preemption), and then did.
    Farewell,
    /// Its provider gave notice that it takes it, and another was ready.
    Noticed,
}

impl std::fmt::Display for LossCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gone => "machine gone",
            Self::Terminated => "machine terminated",
            Self::Silent => "machine silent",
            Self::NeverJoined => "machine never joined",
            Self::Operator => "destroyed by a person",
            Self::Farewell => "machine shut down",
            Self::Noticed => "machine left before its provider took it",
        })
    }
}

/// What can happen to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptEvent {
    /// The machine began to prepare.
    Prepare,
    /// The program was started.
    Start,
    /// The program was asked to end.
    Stop,
    /// The end was seen.
    End(Exit),
    /// The machine is given up.
    Lose(LossCause),
    /// A newer generation was bound.
    Supersede,
}

impl AttemptEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::End(_) => "end",
            Self::Lose(_) => "lose",
            Self::Supersede => "supersede",
        }
    }
}

impl AttemptState {
    /// The state's name as the diagram writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Assigned => "ASSIGNED",
            Self::Preparing => "PREPARING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Ended { .. } => "ENDED",
            Self::Lost { .. } => "LOST",
            Self::Superseded => "SUPERSEDED",
        }
    }

    /// Whether nothing can happen to it any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ended { .. } | Self::Lost { .. } | Self::Superseded)
    }

    /// The state after `event`. An event that says what is so already is no
    /// move: facts may be told twice.
    ///
    /// # Errors
    /// A [`Refusal`] where the diagram has no such edge.
    pub fn apply(&self, event: AttemptEvent) -> Result<Self, Refusal> {
        use AttemptState as S;
        if self.is_final() {
            return Err(Refusal::new("attempt", self.name(), event.name(), true));
        }
        match (self, event) {
            (S::Assigned | S::Preparing, AttemptEvent::Prepare) => Ok(S::Preparing),
            (S::Assigned | S::Preparing | S::Running, AttemptEvent::Start) => Ok(S::Running),
            (_, AttemptEvent::Stop) => Ok(S::Stopping),
            (_, AttemptEvent::End(exit)) => Ok(S::Ended { exit }),
            (_, AttemptEvent::Lose(cause)) => Ok(S::Lost { cause }),
            (_, AttemptEvent::Supersede) => Ok(S::Superseded),
            (state, event) => Err(Refusal::new("attempt", state.name(), event.name(), false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::names_in_diagram;
    use proptest::prelude::*;

    fn all() -> Vec<AttemptState> {
        vec![
            AttemptState::Assigned,
            AttemptState::Preparing,
            AttemptState::Running,
            AttemptState::Stopping,
            AttemptState::Ended { exit: Exit::Code { code: 0 } },
            AttemptState::Lost { cause: LossCause::Gone },
            AttemptState::Superseded,
        ]
    }

    fn event(pick: u8) -> AttemptEvent {
        match pick % 6 {
            0 => AttemptEvent::Prepare,
            1 => AttemptEvent::Start,
            2 => AttemptEvent::Stop,
            3 => AttemptEvent::End(Exit::Code { code: 1 }),
            4 => AttemptEvent::Lose(LossCause::Silent),
            _ => AttemptEvent::Supersede,
        }
    }

    #[test]
    fn diagram_and_enum_name_the_same_states() {
        let states = all().iter().map(|s| s.name().to_owned()).collect();
        assert_eq!(names_in_diagram(include_str!("attempt.rs")), states);
    }

    proptest! {
        #[test]
        fn i13_at_most_one_end_and_no_way_back(picks in proptest::collection::vec(0u8..6, 0..40)) {
            let order = |s: &AttemptState| all().iter().position(|a| a.name() == s.name()).unwrap().min(4);
            let mut state = AttemptState::Assigned;
            let mut ends = 0;
            for pick in picks {
                if let Ok(next) = state.apply(event(pick)) {
                    prop_assert!(order(&next) >= order(&state));
                    ends += u32::from(next.is_final());
                    state = next;
                }
            }
            prop_assert!(ends <= 1);
        }
    }
}
