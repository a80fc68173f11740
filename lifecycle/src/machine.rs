//! A machine: anything that an agent runs in, from the intent to rent it to
//! the proof that it is gone.
//!
//! ```text
//! INTENT -> CALLING -> CREATED -> BOOTING -> READY <-> SUSPECT -> LOST
//!              |          ^          |         |          |         |
//!              +-> UNKNOWN           +----+----+----------+---------+
//!              |      |                   v
//!              |      +-> ABANDONED -> DESTROYING -> DESTROYED
//!              +-> REJECTED
//! ```
//!
//! UNKNOWN means that the provider's answer never came: the label is looked
//! for, and either adopted (CREATED) or burnt (ABANDONED). An instance that
//! turns up under a burnt label is destroyed. REJECTED and DESTROYED are
//! final; DESTROYED is said only when the provider confirmed the absence. One
//! thing is stronger than an end that was only said: a machine that the
//! provider shows again bills again, and goes back to DESTROYING.

use serde::{Deserialize, Serialize};

use crate::attempt::LossCause;
use crate::refusal::Refusal;

/// Where a machine stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum MachineState {
    /// Wanted; nothing was asked of the provider.
    Intent,
    /// The provider is being asked; from here on money may flow.
    Calling,
    /// The provider's answer never came.
    Unknown,
    /// The provider refused; nothing exists.
    Rejected {
        /// The provider's words.
        reason: String,
    },
    /// It exists.
    Created,
    /// It exists and is starting; no agent has joined.
    Booting,
    /// Its agent is attached.
    Ready,
    /// Its agent has been silent for three heartbeats.
    Suspect,
    /// Given up.
    Lost {
        /// Why.
        cause: LossCause,
    },
    /// Never found within the settle window; the label is burnt.
    Abandoned,
    /// It is being removed.
    Destroying,
    /// The provider confirmed that it is gone.
    Destroyed,
}

/// What can happen to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineEvent {
    /// The create call is about to be made.
    Call,
    /// The provider made it, or it was found under its label.
    Exist,
    /// The provider refused.
    Reject(String),
    /// The answer never came.
    LoseReply,
    /// The settle window passed without a trace.
    Abandon,
    /// It was seen starting.
    Boot,
    /// Its agent attached, or spoke again.
    Attach,
    /// Three heartbeats of silence.
    Suspect,
    /// It is given up.
    Lose(LossCause),
    /// It shall be removed.
    Destroy,
    /// The provider confirmed the absence.
    ConfirmAbsence,
    /// The provider shows it though it had ended.
    Reappear,
}

impl MachineEvent {
    fn name(&self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Exist => "exist",
            Self::Reject(_) => "reject",
            Self::LoseReply => "lose-reply",
            Self::Abandon => "abandon",
            Self::Boot => "boot",
            Self::Attach => "attach",
            Self::Suspect => "suspect",
            Self::Lose(_) => "lose",
            Self::Destroy => "destroy",
            Self::ConfirmAbsence => "confirm-absence",
            Self::Reappear => "reappear",
        }
    }
}

impl MachineState {
    /// The state's name as the diagram writes it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Intent => "INTENT",
            Self::Calling => "CALLING",
            Self::Unknown => "UNKNOWN",
            Self::Rejected { .. } => "REJECTED",
            Self::Created => "CREATED",
            Self::Booting => "BOOTING",
            Self::Ready => "READY",
            Self::Suspect => "SUSPECT",
            Self::Lost { .. } => "LOST",
            Self::Abandoned => "ABANDONED",
            Self::Destroying => "DESTROYING",
            Self::Destroyed => "DESTROYED",
        }
    }

    /// Whether nothing can happen to it any more, unless it is seen alive
    /// again. ABANDONED is not: what turns up under its label is destroyed.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Rejected { .. } | Self::Destroyed)
    }

    /// Whether an agent can be working on it: it joined and was not given up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Ready | Self::Suspect)
    }

    /// Whether it may yet become or be ready: a run that has such a machine
    /// needs no other.
    #[must_use]
    pub fn is_hopeful(&self) -> bool {
        matches!(
            self,
            Self::Intent
                | Self::Calling
                | Self::Unknown
                | Self::Created
                | Self::Booting
                | Self::Ready
                | Self::Suspect
        )
    }

    /// Whether it may cost money now.
    #[must_use]
    pub fn may_bill(&self) -> bool {
        !matches!(self, Self::Intent | Self::Rejected { .. } | Self::Abandoned | Self::Destroyed)
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// A [`Refusal`] where the diagram has no such edge.
    pub fn apply(&self, event: MachineEvent) -> Result<Self, Refusal> {
        use MachineState as S;
        let refused = Refusal::new("machine", self.name(), event.name(), self.is_final());
        let next = match (self, event) {
            (S::Intent, MachineEvent::Call) => S::Calling,
            (S::Calling | S::Unknown, MachineEvent::Exist) => S::Created,
            (S::Calling, MachineEvent::Reject(reason)) => S::Rejected { reason },
            (S::Intent, MachineEvent::Reject(reason)) => S::Rejected { reason },
            (S::Calling, MachineEvent::LoseReply) => S::Unknown,
            (S::Unknown, MachineEvent::Abandon) => S::Abandoned,
            (S::Created, MachineEvent::Boot) => S::Booting,
            (S::Created | S::Booting | S::Suspect, MachineEvent::Attach) => S::Ready,
            (S::Ready, MachineEvent::Suspect) => S::Suspect,
            (S::Created | S::Booting | S::Ready | S::Suspect, MachineEvent::Lose(cause)) => S::Lost { cause },
            (
                S::Created | S::Booting | S::Ready | S::Suspect | S::Lost { .. } | S::Abandoned,
                MachineEvent::Destroy,
            ) => S::Destroying,
            (S::Destroying, MachineEvent::ConfirmAbsence) => S::Destroyed,
            (S::Destroyed | S::Rejected { .. } | S::Abandoned, MachineEvent::Reappear) => S::Destroying,
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

    fn all() -> Vec<MachineState> {
        use MachineState as S;
        vec![
            S::Intent,
            S::Calling,
            S::Unknown,
            S::Rejected { reason: String::new() },
            S::Created,
            S::Booting,
            S::Ready,
            S::Suspect,
            S::Lost { cause: LossCause::Gone },
            S::Abandoned,
            S::Destroying,
            S::Destroyed,
        ]
    }

    fn events() -> Vec<MachineEvent> {
        use MachineEvent as E;
        vec![
            E::Call,
            E::Exist,
            E::Reject("full".into()),
            E::LoseReply,
            E::Abandon,
            E::Boot,
            E::Attach,
            E::Suspect,
            E::Lose(LossCause::Silent),
            E::Destroy,
            E::ConfirmAbsence,
            E::Reappear,
        ]
    }

    #[test]
    fn diagram_and_enum_name_the_same_states() {
        let states = all().iter().map(|s| s.name().to_owned()).collect();
        assert_eq!(names_in_diagram(include_str!("machine.rs")), states);
    }

    #[test]
    fn i25_final_states_absorb_every_event() {
        for state in all().iter().filter(|s| s.is_final()) {
            for event in events().into_iter().filter(|e| *e != MachineEvent::Reappear) {
                assert_eq!(state.apply(event).unwrap_err().reason, Reason::Terminal);
            }
        }
    }

    #[test]
    fn what_is_seen_alive_after_its_end_is_destroyed_again_and_nothing_else() {
        for state in all() {
            let ended = state.is_final() || state == MachineState::Abandoned;
            let next = state.apply(MachineEvent::Reappear).ok();
            assert_eq!(next, ended.then_some(MachineState::Destroying), "{state:?}");
        }
    }

    proptest! {
        /// What may have been made is only ever left through DESTROYED, and
        /// what was given up never comes back to work.
        #[test]
        fn i3_i25_nothing_made_is_forgotten(picks in proptest::collection::vec(0usize..12, 0..60)) {
            let mut state = MachineState::Intent;
            let mut exists = false;
            let mut given_up = false;
            for pick in picks {
                if let Ok(next) = state.apply(events()[pick].clone()) {
                    exists |= matches!(next, MachineState::Created);
                    given_up |= matches!(next, MachineState::Lost { .. } | MachineState::Destroying);
                    if exists {
                        let rejected = matches!(next, MachineState::Rejected { .. } | MachineState::Abandoned);
                        prop_assert!(!rejected);
                    }
                    if given_up { prop_assert!(!next.is_up()); }
                    state = next;
                }
            }
        }
    }
}
