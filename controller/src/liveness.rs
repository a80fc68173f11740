//! From silence and the provider's word to a verdict about one machine. Pure.
//!
//! Detection is cheap and replacement is dear, so they are apart: SUSPECT
//! after three heartbeats of silence ends nothing and starts probes; giving up
//! needs the provider's word, or the lease over and `lost_after` of silence.
//! Silence counts from the controller's own start at the earliest, and never
//! through a time in which the controller itself stood still, so that one that
//! was away evicts nobody (the amnesty). A suspect machine carries a hypothesis:
//! what would explain all that is known, and never more than a guess.

use std::fmt;

use lifecycle::spec::MachineSpec;
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

impl Clocks {
    /// These clocks for a machine of a run that asks for more or less patience.
    #[must_use]
    pub fn of(&self, spec: &MachineSpec) -> Self {
        let own_ms = spec.own_patience().map(|seconds| seconds.saturating_mul(1_000));
        Self { lost_after_ms: own_ms.unwrap_or(self.lost_after_ms), ..*self }
    }
}

/// What is known of a machine besides its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Observation {
    /// How much longer than others its provider lets it boot.
    pub boots_longer_ms: u64,
    /// Milliseconds since its agent was last heard, or since this controller
    /// started, whichever is less.
    pub silent_ms: u64,
    /// It had stopped, was asked to go on, and has time for that.
    pub returns: bool,
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

/// Whether a machine speaks: its stream is open, and something comes. A stream
/// whose other end has vanished stays open for a while.
#[must_use]
pub fn speaks(seen: &Observation, clocks: &Clocks) -> bool {
    seen.attached && seen.silent_ms < clocks.suspect_ms
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
            if !speaks(seen, clocks) =>
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
        MachineState::Booting if age_ms >= clocks.boot_deadline_ms.saturating_add(seen.boots_longer_ms) => {
            Verdict::Lost(LossCause::NeverJoined)
        }
        MachineState::Booting if age_ms >= PROBE_EVERY_MS && due => Verdict::Probe,
        MachineState::Ready if seen.silent_ms >= clocks.suspect_ms => Verdict::Suspect,
        MachineState::Ready if seen.broke && !seen.attached && due => Verdict::Probe,
        MachineState::Suspect
            if !given_up
                && !seen.returns
                && expired(seen, clocks)
                && seen.silent_ms >= clocks.lost_after_ms =>
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

/// What would explain a machine's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hypothesis {
    /// The stream was closed; the provider has said nothing yet.
    Closed,
    /// The stream is open and nothing comes; the provider has said nothing yet.
    Silent,
    /// It has not been heard since this controller started; no word yet.
    Unheard,
    /// The stream was closed, and the machine runs.
    Agent,
    /// The stream is open, nothing comes, and the machine runs.
    Network,
    /// Not heard since this controller started, and the machine runs.
    Away,
    /// The provider says that it has ended or is not there.
    Ended,
}

impl Hypothesis {
    /// A name for machines, such as `network`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Unheard => "unheard",
            Self::Agent => "agent",
            Self::Network => "network",
            Self::Away => "away",
            Self::Ended => "ended",
        }
    }

    /// Whether a text says what was guessed before the provider answered.
    #[must_use]
    pub fn is_before_the_word(text: &str) -> bool {
        [Self::Closed, Self::Silent, Self::Unheard].iter().any(|guess| guess.to_string() == text)
    }
}

impl fmt::Display for Hypothesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => {
                "its stream was closed and its provider has not answered: agent, host or network?"
            }
            Self::Silent => {
                "silent on an open stream and its provider has not answered: network, host or agent?"
            }
            Self::Unheard => "not heard since this controller started and its provider has not answered",
            Self::Agent => {
                "its stream was closed and its provider says it runs: the agent ended or is starting again, \
                 or the network refuses it"
            }
            Self::Network => {
                "silent on an open stream and its provider says it runs: the network drops packets, \
                 or host or agent hang"
            }
            Self::Away => {
                "not heard since this controller started and its provider says it runs: \
                 the network or the agent"
            }
            Self::Ended => "silent, and its provider says it is not running",
        })
    }
}

/// What explains the silence of a machine best.
#[must_use]
pub fn hypothesis(seen: &Observation) -> Hypothesis {
    match (seen.provider, seen.attached, seen.broke) {
        (Some(ProviderWord::Terminal | ProviderWord::Absent), ..) => Hypothesis::Ended,
        (Some(ProviderWord::Alive), true, _) => Hypothesis::Network,
        (Some(ProviderWord::Alive), false, true) => Hypothesis::Agent,
        (Some(ProviderWord::Alive), false, false) => Hypothesis::Away,
        (None, true, _) => Hypothesis::Silent,
        (None, false, true) => Hypothesis::Closed,
        (None, false, false) => Hypothesis::Unheard,
    }
}

/// Whether a machine's lease is over, with the drift margin of this side.
#[must_use]
pub fn expired(seen: &Observation, clocks: &Clocks) -> bool {
    seen.silent_ms >= clocks.lease_ttl_ms + clocks.lease_ttl_ms / 10
}

/// How long the controller itself stood still (stopped, starved, its VM
/// paused), if it did: `gap_ms` is the time since its last tick, one of which
/// is due every `period_ms`. What is shorter than this makes nobody suspect.
#[must_use]
pub fn stall(gap_ms: u64, period_ms: u64, clocks: &Clocks) -> Option<u64> {
    let late = gap_ms.saturating_sub(period_ms);
    (late >= clocks.suspect_ms.saturating_sub(clocks.heartbeat_ms)).then_some(late)
}

/// When a machine counts as heard after a stall of the controller: every
/// deadline moves by the stall and a lease, in which agents come back.
#[must_use]
pub fn heard_after(heard_ms: u64, stall_ms: u64, now_ms: u64, clocks: &Clocks) -> u64 {
    heard_ms.saturating_add(stall_ms).saturating_add(clocks.lease_ttl_ms).min(now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_guess_names_all_that_is_known_and_changes_with_the_providers_word() {
        let cases = [
            (true, false, None, "silent"),
            (true, false, Some(ProviderWord::Alive), "network"),
            (false, true, None, "closed"),
            (false, true, Some(ProviderWord::Alive), "agent"),
            (false, false, None, "unheard"),
            (false, false, Some(ProviderWord::Alive), "away"),
            (false, true, Some(ProviderWord::Terminal), "ended"),
            (true, false, Some(ProviderWord::Absent), "ended"),
        ];
        for (attached, broke, provider, name) in cases {
            let seen = Observation { attached, broke, provider, ..seen(3_000) };
            let guess = hypothesis(&seen);
            assert_eq!(guess.name(), name);
            assert_eq!(Hypothesis::is_before_the_word(&guess.to_string()), provider.is_none(), "{guess}");
        }
        assert!(!Hypothesis::is_before_the_word(""));
    }

    #[test]
    fn only_a_gap_that_could_make_somebody_suspect_is_a_stall() {
        let clocks = Clocks::default();
        assert_eq!(stall(500, 500, &clocks), None);
        assert_eq!(stall(2_499, 500, &clocks), None);
        assert_eq!(stall(2_500, 500, &clocks), Some(2_000));
        assert_eq!(stall(40_500, 500, &clocks), Some(40_000));
    }

    proptest! {
        /// D17: however long the controller stood still, nobody whose lease
        /// held before is given up for it, and nobody is heard in the future.
        #[test]
        fn a_stall_of_the_controller_evicts_nobody(
            silent in 0u64..22_000, gap in 2_000u64..10_000_000, up in 0u64..10_000_000,
        ) {
            let clocks = Clocks::default();
            let now = up + silent + gap;
            let heard = heard_after(up, gap, now, &clocks);
            prop_assert!(heard <= now);
            let after = now - heard;
            prop_assert!(after <= silent.saturating_sub(clocks.lease_ttl_ms));
            let verdict = judge(&MachineState::Suspect, &seen(after), after, false, &clocks);
            prop_assert!(!matches!(verdict, Verdict::GiveUp | Verdict::Lost(_)));
        }
    }

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
    fn the_providers_word_counts_against_a_stream_that_only_seems_open() {
        let clocks = Clocks::default();
        let word = Some(ProviderWord::Terminal);
        let open = |silent_ms| Observation { attached: true, provider: word, ..seen(silent_ms) };
        let judge = |silent| judge(&MachineState::Suspect, &open(silent), silent, false, &clocks);
        assert_eq!(judge(3_000), Verdict::Lost(LossCause::Terminated));
        assert!(!matches!(judge(2_999), Verdict::Lost(_)));
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
            let seen = Observation { silent_ms: silent, attached: false, broke, provider: None, asked_ms_ago: asked, farewell: false, boots_longer_ms: 0, returns: false };
            for state in [MachineState::Ready, MachineState::Suspect] {
                let verdict = judge(&state, &seen, silent, false, &clocks);
                prop_assert!(!matches!(verdict, Verdict::Lost(_) | Verdict::GiveUp));
            }
        }

        #[test]
        fn what_speaks_is_never_lost(provider in proptest::option::of(0u8..3)) {
            let word = provider.map(|w| [ProviderWord::Alive, ProviderWord::Terminal, ProviderWord::Absent][w as usize]);
            let seen = Observation { silent_ms: 10, attached: true, broke: false, provider: word, asked_ms_ago: Some(9), farewell: false, boots_longer_ms: 0, returns: false };
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
