//! From silence and the provider's word to a verdict about one machine. Pure.
//!
//! Detection is cheap and replacement is dear, so they are apart: SUSPECT
//! after three heartbeats of silence ends nothing and starts probes; giving up
//! needs the provider's word, or the lease over and `lost_after` of silence.
//! Silence counts from the controller's own start at the earliest, so that a
//! controller that was away evicts nobody (the amnesty).

use lifecycle::{LossCause, MachineState};

/// Waiting times, in milliseconds. Defaults are the product's.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// Between two lease renewals.
    pub heartbeat_ms: u64,
    /// Silence that makes a machine suspect.
    pub suspect_ms: u64,
    /// How long a lease lasts, plus the drift margin on this side.
    pub lease_ttl_ms: u64,
    /// Silence after which a machine is given up without evidence.
    pub lost_after_ms: u64,
    /// How long a machine may take from creation to its first word.
    pub boot_deadline_ms: u64,
    /// Between two looks at the provider's whole list.
    pub sweep_ms: u64,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            heartbeat_ms: 1_000,
            suspect_ms: 3_000,
            lease_ttl_ms: 20_000,
            lost_after_ms: 30_000,
            boot_deadline_ms: 600_000,
            sweep_ms: 60_000,
        }
    }
}

/// What is known of a machine besides its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observation {
    /// Milliseconds since its agent was last heard, or since this controller
    /// started, whichever is less.
    pub silent_ms: u64,
    /// Its stream is open.
    pub attached: bool,
    /// Its stream was open and broke: a hint, no evidence.
    pub broke: bool,
    /// It said that it ends, and its stream has ended: evidence.
    pub farewell: bool,
    /// The provider's last word, if it was asked since the silence began.
    pub provider: Option<ProviderWord>,
    /// Milliseconds since the provider was last asked; `None`: never.
    pub asked_ms_ago: Option<u64>,
}

/// What a provider said of one instance. An error or a partial list is no
/// word at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderWord {
    /// It exists and has not ended.
    Alive,
    /// It exists and has ended.
    Terminal,
    /// It does not exist.
    Absent,
}

/// What to do about one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// Ask the provider.
    Probe,
    /// Mark it suspect.
    Suspect,
    /// Positive evidence: it is lost now.
    Lost(LossCause),
    /// No evidence, but silence beyond all patience: replace it; whoever is
    /// ready first is bound.
    GiveUp,
}

/// Between two probes of the same machine.
const PROBE_EVERY_MS: u64 = 1_000;

/// Whether the provider may be asked about a machine again.
#[must_use]
pub fn due(seen: &Observation) -> bool {
    seen.asked_ms_ago.is_none_or(|ms| ms >= PROBE_EVERY_MS)
}

/// Judges one machine. `age_ms` is the time since its creation (or since this
/// controller started, whichever is less).
#[must_use]
pub fn judge(
    state: &MachineState,
    seen: &Observation,
    age_ms: u64,
    given_up: bool,
    clocks: &Clocks,
) -> Verdict {
    match (state, seen.provider) {
        (MachineState::Booting | MachineState::Ready | MachineState::Suspect, Some(word))
            if !seen.attached =>
        {
            match word {
                ProviderWord::Absent => return Verdict::Lost(LossCause::Gone),
                ProviderWord::Terminal => return Verdict::Lost(LossCause::Terminated),
                ProviderWord::Alive => {}
            }
        }
        _ => {}
    }
    if seen.farewell
        && !seen.attached
        && matches!(state, MachineState::Booting | MachineState::Ready | MachineState::Suspect)
    {
        return Verdict::Lost(LossCause::Farewell);
    }
    let due = due(seen);
    match state {
        MachineState::Booting if age_ms >= clocks.boot_deadline_ms => Verdict::Lost(LossCause::NeverJoined),
        MachineState::Booting if age_ms >= PROBE_EVERY_MS && due => Verdict::Probe,
        MachineState::Ready if seen.silent_ms >= clocks.suspect_ms => Verdict::Suspect,
        MachineState::Ready if seen.broke && !seen.attached && due => Verdict::Probe,
        MachineState::Suspect
            if !given_up
                && seen.silent_ms
                    >= clocks.lost_after_ms.max(clocks.lease_ttl_ms + clocks.lease_ttl_ms / 10) =>
        {
            Verdict::GiveUp
        }
        MachineState::Suspect if due => Verdict::Probe,
        _ => Verdict::Fine,
    }
}

/// Whether so many machines fell silent at once that the fault is more likely
/// here than there: more than three and more than a third.
#[must_use]
pub fn mass_loss(silent: usize, live: usize) -> bool {
    silent > 3 && silent * 3 > live
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(silent_ms: u64) -> Observation {
        Observation { silent_ms, ..Observation::default() }
    }

    #[test]
    fn silence_alone_goes_suspect_then_probes_then_gives_up() {
        let clocks = Clocks::default();
        let judge = |state: &MachineState, ms| judge(state, &seen(ms), ms, false, &clocks);
        assert_eq!(judge(&MachineState::Ready, 2_999), Verdict::Fine);
        assert_eq!(judge(&MachineState::Ready, 3_000), Verdict::Suspect);
        assert_eq!(judge(&MachineState::Suspect, 29_999), Verdict::Probe);
        assert_eq!(judge(&MachineState::Suspect, 30_000), Verdict::GiveUp);
    }

    #[test]
    fn a_farewell_counts_once_the_stream_has_ended() {
        let clocks = Clocks::default();
        let said = Observation { farewell: true, broke: true, ..Observation::default() };
        assert_eq!(judge(&MachineState::Ready, &said, 0, false, &clocks), Verdict::Lost(LossCause::Farewell));
        let back = Observation { attached: true, ..said };
        assert_eq!(judge(&MachineState::Ready, &back, 0, false, &clocks), Verdict::Fine);
    }

    #[test]
    fn a_broken_stream_is_a_hint_and_no_evidence() {
        let clocks = Clocks::default();
        let broke = Observation { broke: true, ..Observation::default() };
        assert_eq!(judge(&MachineState::Ready, &broke, 0, false, &clocks), Verdict::Probe);
        let alive = Observation { provider: Some(ProviderWord::Alive), asked_ms_ago: Some(0), ..broke };
        assert_eq!(judge(&MachineState::Ready, &alive, 0, false, &clocks), Verdict::Fine);
        let gone = Observation { provider: Some(ProviderWord::Absent), ..broke };
        assert_eq!(judge(&MachineState::Ready, &gone, 0, false, &clocks), Verdict::Lost(LossCause::Gone));
    }

    proptest! {
        #[test]
        fn i6_without_the_providers_word_no_machine_is_lost_before_its_time(
            silent in 0u64..30_000, broke: bool, asked in proptest::option::of(0u64..5_000),
        ) {
            let clocks = Clocks::default();
            let seen = Observation { silent_ms: silent, attached: false, broke, provider: None, asked_ms_ago: asked, farewell: false };
            for state in [MachineState::Ready, MachineState::Suspect] {
                let verdict = judge(&state, &seen, silent, false, &clocks);
                prop_assert!(!matches!(verdict, Verdict::Lost(_) | Verdict::GiveUp));
            }
        }

        #[test]
        fn what_speaks_is_never_lost(provider in proptest::option::of(0u8..3)) {
            let word = provider.map(|w| [ProviderWord::Alive, ProviderWord::Terminal, ProviderWord::Absent][w as usize]);
            let seen = Observation { silent_ms: 10, attached: true, broke: false, provider: word, asked_ms_ago: Some(9), farewell: false };
            prop_assert_eq!(judge(&MachineState::Ready, &seen, 10, false, &Clocks::default()), Verdict::Fine);
        }
    }

    #[test]
    fn the_breaker_needs_many_and_a_third() {
        assert!(!mass_loss(3, 3));
        assert!(mass_loss(4, 11));
        assert!(!mass_loss(4, 12));
    }
}
