//! A run: work to be carried to its end, over as many attempts as it takes.
//!
//! ```text
//! DRAFT -> QUEUED -> PROVISIONING -> RUNNING <-> RECOVERING
//!            |            |             |             |
//!            +------------+------+------+-------------+
//!            |                   |
//!         PAUSED (from QUEUED and RUNNING; back to QUEUED)
//!         WAITING (from every state that is not final; back to where it was)
//!                                |
//!        SUCCEEDED | FAILED | CANCELLED | BUDGET_STOPPED   (final)
//! ```
//!
//! PROVISIONING wants a first machine, RECOVERING wants another one after a
//! loss or a failure; RUNNING has a bound attempt. WAITING means that the
//! system cannot decide alone: a person or the deadline answers.

use serde::{Deserialize, Serialize};

use crate::question::Question;
use crate::refusal::Refusal;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum RunState {
    /// Being written; nothing is done with it.
    Draft,
    /// Accepted; no machine is wanted yet.
    Queued,
    /// The first machine is wanted.
    Provisioning,
    /// An attempt is bound.
    Running,
    /// Another machine or another attempt is wanted.
    Recovering,
    /// Held by a person.
    Paused,
    /// A person or the deadline must answer.
    Waiting {
        /// What is asked.
        question: Question,
        /// Where the run goes on after an answer.
        resume: Active,
    },
    /// The program ended with 0 and all that is required is durable.
    Succeeded,
    /// It will not be tried again.
    Failed {
        /// Why, in words for a person.
        reason: String,
    },
    /// A person ended it.
    Cancelled,
    /// Its cap was reached.
    BudgetStopped,
}

/// The non-final states in which work is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Active {
    /// As [`RunState::Queued`].
    Queued,
    /// As [`RunState::Provisioning`].
    Provisioning,
    /// As [`RunState::Running`].
    Running,
    /// As [`RunState::Recovering`].
    Recovering,
}

/// What can happen to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEvent {
    /// The owner hands it in.
    Submit,
    /// The first machine is wanted now.
    Place,
    /// An attempt was bound.
    Bind,
    /// The bound attempt was lost, superseded or failed and another follows.
    Unbind,
    /// A person holds it.
    Pause,
    /// A person lets it go on.
    Resume,
    /// The system cannot decide alone.
    Ask(Question),
    /// The question was answered.
    Answer,
    /// The program ended with 0 and everything required is committed.
    Succeed,
    /// It will not be tried again.
    Fail(String),
    /// A person ends it.
    Cancel,
    /// The cap was reached.
    ExhaustBudget,
}

impl RunEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Place => "place",
            Self::Bind => "bind",
            Self::Unbind => "unbind",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Ask(_) => "ask",
            Self::Answer => "answer",
            Self::Succeed => "succeed",
            Self::Fail(_) => "fail",
            Self::Cancel => "cancel",
            Self::ExhaustBudget => "exhaust-budget",
        }
    }
}

impl RunState {
    /// The state's name as the diagram writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::Queued => "QUEUED",
            Self::Provisioning => "PROVISIONING",
            Self::Running => "RUNNING",
            Self::Recovering => "RECOVERING",
            Self::Paused => "PAUSED",
            Self::Waiting { .. } => "WAITING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed { .. } => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::BudgetStopped => "BUDGET_STOPPED",
        }
    }

    /// Whether nothing can happen to it any more.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed { .. } | Self::Cancelled | Self::BudgetStopped)
    }

    fn active(&self) -> Option<Active> {
        match self {
            Self::Queued => Some(Active::Queued),
            Self::Provisioning => Some(Active::Provisioning),
            Self::Running => Some(Active::Running),
            Self::Recovering => Some(Active::Recovering),
            _ => None,
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// A [`Refusal`] where the diagram has no such edge.
    pub fn apply(&self, event: RunEvent) -> Result<Self, Refusal> {
        use RunState as S;
        let refused = Refusal::new("run", self.name(), event.name(), self.is_final());
        let next = match (self, event) {
            (S::Draft, RunEvent::Submit) | (S::Paused, RunEvent::Resume) => S::Queued,
            (S::Queued, RunEvent::Place) => S::Provisioning,
            (S::Provisioning | S::Recovering, RunEvent::Bind) => S::Running,
            (S::Running, RunEvent::Unbind) => S::Recovering,
            (S::Queued | S::Running, RunEvent::Pause) => S::Paused,
            (S::Waiting { resume, .. }, RunEvent::Answer) => match resume {
                Active::Queued => S::Queued,
                Active::Provisioning => S::Provisioning,
                Active::Running => S::Running,
                Active::Recovering => S::Recovering,
            },
            (state, RunEvent::Ask(question)) => match state.active() {
                Some(resume) => S::Waiting { question, resume },
                None => return Err(refused),
            },
            (S::Running, RunEvent::Succeed) => S::Succeeded,
            (state, RunEvent::Fail(reason)) if !state.is_final() => S::Failed { reason },
            (state, RunEvent::Cancel) if !state.is_final() => S::Cancelled,
            (state, RunEvent::ExhaustBudget) if !state.is_final() && *state != S::Draft => S::BudgetStopped,
            _ => return Err(refused),
        };
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::{Reason, names_in_diagram};
    use proptest::prelude::*;

    fn question() -> Question {
        crate::question::storm(6, 0, 1)
    }

    fn all_states() -> Vec<RunState> {
        vec![
            RunState::Draft,
            RunState::Queued,
            RunState::Provisioning,
            RunState::Running,
            RunState::Recovering,
            RunState::Paused,
            RunState::Waiting { question: question(), resume: Active::Running },
            RunState::Succeeded,
            RunState::Failed { reason: "x".into() },
            RunState::Cancelled,
            RunState::BudgetStopped,
        ]
    }

    fn events() -> Vec<RunEvent> {
        vec![
            RunEvent::Submit,
            RunEvent::Place,
            RunEvent::Bind,
            RunEvent::Unbind,
            RunEvent::Pause,
            RunEvent::Resume,
            RunEvent::Ask(question()),
            RunEvent::Answer,
            RunEvent::Succeed,
            RunEvent::Fail("x".into()),
            RunEvent::Cancel,
            RunEvent::ExhaustBudget,
        ]
    }

    #[test]
    fn diagram_and_enum_name_the_same_states() {
        let states = all_states().iter().map(|s| s.name().to_owned()).collect();
        assert_eq!(names_in_diagram(include_str!("run.rs")), states);
    }

    #[test]
    fn i25_final_states_absorb_every_event() {
        for state in all_states().iter().filter(|s| s.is_final()) {
            for event in events() {
                assert_eq!(state.apply(event).unwrap_err().reason, Reason::Terminal);
            }
        }
    }

    proptest! {
        #[test]
        fn i25_only_the_drawn_edges_occur(picks in proptest::collection::vec(0usize..12, 0..60)) {
            let mut state = RunState::Draft;
            for pick in picks {
                let event = events()[pick].clone();
                if let Ok(next) = state.apply(event) {
                    let (from, to) = (state.name(), next.name());
                    let drawn = match to {
                        "QUEUED" => matches!(from, "DRAFT" | "PAUSED" | "WAITING"),
                        "PROVISIONING" => matches!(from, "QUEUED" | "WAITING"),
                        "RUNNING" => matches!(from, "PROVISIONING" | "RECOVERING" | "WAITING"),
                        "RECOVERING" => matches!(from, "RUNNING" | "WAITING"),
                        "PAUSED" => matches!(from, "QUEUED" | "RUNNING"),
                        "SUCCEEDED" => from == "RUNNING",
                        "DRAFT" => false,
                        _ => true,
                    };
                    prop_assert!(drawn, "{} -> {}", from, to);
                    prop_assert!(!state.is_final());
                    state = next;
                }
            }
        }
    }
}
