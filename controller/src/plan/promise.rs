//! What each action promises before it is begun: how it is seen to have
//! succeeded, when it is done again, and where what came of it lies. The
//! reconciler keeps the pauses that stand here; `docs/reliability.md` shows the
//! table as it is here. It decides nothing.

use super::Action;

/// When an action that did not succeed is done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// By the next plan over the same facts; after a failure of the store with
    /// a pause that doubles.
    NextPlan,
    /// By the next plan, but not sooner than this many milliseconds after the
    /// provider was last asked.
    After(u64),
    /// By the next plan, with a pause that grows the longer nothing comes of it
    /// ([`Again::backoff_ms`]), for ever.
    Backoff,
    /// Never: what became of it is looked for instead.
    Never,
    /// After a refusal with a pause that doubles from 2 s to 60 s; after five
    /// minutes of refusals a person is asked.
    Refused,
}

impl Again {
    /// In words, for the table.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::NextPlan => "the next plan".to_owned(),
            Self::After(ms) => format!("the next plan, {ms} ms after the last question at the earliest"),
            Self::Backoff => "for ever: 1 s after a question that was answered, 2 s after one that was not, doubling up to 60 s".to_owned(),
            Self::Never => "never: its machine is looked for by its label".to_owned(),
            Self::Refused => "2 s after a refusal, doubling up to 60 s; then a person is asked".to_owned(),
        }
    }

    /// The pause in milliseconds after `unheard` tries in a row without an answer,
    /// or `vain` with one, to which nothing came of the order.
    #[must_use]
    pub fn backoff_ms(unheard: u32, vain: u32) -> u64 {
        // What was taken needs a few seconds.
        let doublings = if unheard > 0 { unheard } else { vain.saturating_sub(3) };
        (1_000_u64 << doublings.min(6)).min(60_000)
    }
}

/// What an action promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// The action's name.
    pub name: &'static str,
    /// How it is seen to have succeeded.
    pub done_when: &'static str,
    /// When it is done again.
    pub again: Again,
    /// Where what came of it lies.
    pub output: &'static str,
}

/// A provider that was asked a moment ago is not asked again.
const PAUSE: Again = Again::After(1_000);

impl Action {
    /// What this action promises.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table with a row for each action")]
    pub const fn promise(&self) -> Promise {
        let (name, done_when, again, output) = match self {
            Self::Place(_) => {
                ("place", "the run's row says PROVISIONING", Again::NextPlan, "row run; journal `placed`")
            }
            Self::Intend(_) => (
                "intend",
                "a machine's row says INTENT, under the caps of that moment",
                Again::Refused,
                "row machine; journal `intent`",
            ),
            Self::Create(_) => (
                "create",
                "the provider named an instance, or the row says UNKNOWN",
                Again::Never,
                "row machine (instance, price); journal `calling`, `created`",
            ),
            Self::Resolve(_) => (
                "resolve",
                "an instance with its label was found, or two complete lists after the settle window lack it",
                PAUSE,
                "row machine; journal `created`, `abandoned`",
            ),
            Self::Boot(_) => {
                ("boot", "the machine's row says BOOTING", Again::NextPlan, "row machine; journal `booting`")
            }
            Self::Probe(_) => {
                ("probe", "the provider answered", PAUSE, "memory: what is known of a machine's presence")
            }
            Self::Suspect(_) => (
                "suspect",
                "the machine's row says SUSPECT",
                Again::NextPlan,
                "row machine; journal `suspect`, `hypothesis`",
            ),
            Self::LoseMachine(..) => (
                "lose machine",
                "the machine's row says LOST and why",
                Again::NextPlan,
                "row machine; journal `lost`",
            ),
            Self::GiveUp(_) => (
                "give up",
                "the machine's row says that it was given up",
                Again::NextPlan,
                "row machine; journal `given-up`",
            ),
            Self::Bind(..) => (
                "bind",
                "an attempt of a new generation is bound to the machine",
                Again::NextPlan,
                "rows run, attempt; journal `bound`; the machine's assignment",
            ),
            Self::LoseAttempt(..) => (
                "lose attempt",
                "the bound attempt's row says LOST and the run RECOVERING",
                Again::NextPlan,
                "rows run, attempt; journal `attempt-lost`; a failure capsule",
            ),
            Self::Settle(_) => (
                "settle",
                "the run's row says what follows from its attempt's end",
                Again::NextPlan,
                "rows run, attempt; journal `settled`; a failure capsule",
            ),
            Self::StopForBudget(_) => (
                "stop for budget",
                "the run's row wishes it stopped, for its cap",
                Again::NextPlan,
                "row run; journal `budget-reached`",
            ),
            Self::Tell(..) => (
                "tell",
                "the run's row has the share that was told",
                Again::NextPlan,
                "row run; journal `budget-crossed`",
            ),
            Self::Close(_) => {
                ("close", "the run's row is final", Again::NextPlan, "row run; journal `closed`")
            }
            Self::Storm(_) => (
                "storm",
                "the run waits for an answer",
                Again::NextPlan,
                "row run (question); journal `asked`",
            ),
            Self::Ask(_) => {
                ("ask", "the run waits for an answer", Again::NextPlan, "row run (question); journal `asked`")
            }
            Self::Answer(_) => (
                "answer",
                "the run waits no more",
                Again::NextPlan,
                "row run; journal `deadline-answered`, `question-over`",
            ),
            Self::Condemn(..) => (
                "condemn",
                "the machine's row says that its run goes on elsewhere",
                Again::NextPlan,
                "row machine; journal `condemned`",
            ),
            Self::Release(..) => (
                "release",
                "the machine's row says DESTROYING",
                Again::NextPlan,
                "row machine; journal `release`",
            ),
            Self::Destroy(_) => (
                "destroy",
                "a question for it finds nothing, and where only its label tells it apart two complete lists lack it",
                Again::Backoff,
                "row machine (ended, cost); journal `destroyed`",
            ),
            Self::Alarm(_) => ("alarm", "the alert stands", Again::NextPlan, "alert `mass-loss`"),
        };
        Promise { name, done_when, again, output }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lifecycle::{LossCause, MachineId, RunId};

    /// Each of them; the compiler sees to it that none is without a promise.
    fn all() -> Vec<Action> {
        use Action as A;
        let (run, machine, cause) =
            (RunId::from_bytes([1; 16]), MachineId::from_bytes([2; 16]), LossCause::Gone);
        vec![
            A::Place(run),
            A::Intend(run),
            A::Create(machine),
            A::Resolve(machine),
            A::Boot(machine),
            A::Probe(machine),
            A::Suspect(machine),
            A::LoseMachine(machine, cause),
            A::GiveUp(machine),
            A::Bind(run, machine),
            A::LoseAttempt(run, cause),
            A::Settle(run),
            A::StopForBudget(run),
            A::Tell(run, 50),
            A::Close(run),
            A::Storm(run),
            A::Ask(run),
            A::Answer(run),
            A::Condemn(run, machine),
            A::Release(machine, ""),
            A::Destroy(machine),
            A::Alarm(1),
        ]
    }

    fn table() -> String {
        let row =
            |p: Promise| format!("| {} | {} | {} | {} |", p.name, p.done_when, p.again.words(), p.output);
        let rows: Vec<String> = all().iter().map(|action| row(action.promise())).collect();
        format!(
            "| action | succeeded when | done again | what came of it |\n|---|---|---|---|\n{}\n",
            rows.join("\n")
        )
    }

    /// V35: the document shows what the code does.
    #[test]
    fn every_action_says_beforehand_what_it_promises() {
        let page = include_str!("../../../docs/reliability.md");
        assert!(page.contains(&table()), "docs/reliability.md must hold this table:\n{}", table());
        let mut names: Vec<&str> = all().iter().map(|action| action.promise().name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len(), "two actions have one name");
    }

    /// What is promised to be journalled is a word that something journals.
    #[test]
    fn what_came_of_an_action_lies_where_it_says() {
        fn sources(dir: &std::path::Path, out: &mut String) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    sources(&path, out);
                } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("plan/promise.rs") {
                    out.push_str(&std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        let mut code = String::new();
        sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
        for action in all() {
            let output = action.promise().output;
            let words: Vec<&str> = output.split('`').skip(1).step_by(2).collect();
            assert!(output.starts_with("memory") || !words.is_empty(), "{output}");
            for word in words {
                assert!(code.contains(&format!("\"{word}\"")), "{action:?}: nothing journals `{word}`");
            }
        }
    }

    /// What asks a provider again and again has a pause; what makes a machine is
    /// never simply repeated.
    #[test]
    fn who_asks_a_provider_waits_and_who_rents_never_repeats() {
        let (run, machine) = (RunId::from_bytes([1; 16]), MachineId::from_bytes([2; 16]));
        for action in [Action::Resolve(machine), Action::Probe(machine)] {
            assert!(matches!(action.promise().again, Again::After(ms) if ms >= 1_000), "{action:?}");
        }
        assert_eq!(Action::Destroy(machine).promise().again, Again::Backoff);
        let pauses = |unheard: fn(u32) -> u64| (0..8).map(unheard).collect::<Vec<u64>>();
        let unheard = pauses(|n| Again::backoff_ms(n, 0) / 1_000);
        assert_eq!(unheard, [1, 2, 4, 8, 16, 32, 60, 60]);
        let heard = pauses(|n| Again::backoff_ms(0, n) / 1_000);
        assert_eq!(heard, [1, 1, 1, 1, 2, 4, 8, 16]);
        assert_eq!(Again::backoff_ms(u32::MAX, u32::MAX), 60_000);
        assert_eq!(Action::Create(machine).promise().again, Again::Never);
        assert_eq!(Action::Intend(run).promise().again, Again::Refused);
    }
}
