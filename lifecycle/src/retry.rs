//! Whether an ended attempt is followed by another. Losses of machines and
//! failures of the program are counted apart: a preemption never uses up the
//! budget for failures, and a program that fails the same way at the same
//! place is not tried for ever.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::spec::RetrySpec;

/// What is kept of an attempt's end for the decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// How the program ended; `None` where the machine was lost.
    pub exit: Option<Exit>,
    /// Last line of the error stream with numbers blanked; equal for the same
    /// error.
    pub fingerprint: String,
    /// The last step the program reported, if any.
    pub step: Option<u64>,
    /// The newest durable step at the end.
    pub durable_step: Option<u64>,
    /// Whether the program itself was started.
    pub started: bool,
    /// The machine holds the failure for passing (network, full disk).
    #[serde(default)]
    pub transient: bool,
    /// The machine ended it because it made no progress.
    #[serde(default)]
    pub hang: bool,
    /// Unix milliseconds of the end.
    pub at_ms: u64,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Another attempt; on the same machine unless it was lost.
    Again,
    /// The run is over.
    GiveUp(String),
}

/// Losses in a row without any progress after which a run is given up even
/// without a limit: a program that kills its machine would go on for ever.
const FRUITLESS_LOSSES: usize = 6;

/// Decides what follows the last of `history` (oldest first). `exit` 0 is not
/// asked here.
#[must_use]
pub fn after(history: &[Ending], spec: &RetrySpec) -> Decision {
    let Some(last) = history.last() else { return Decision::Again };
    match &last.exit {
        None => after_loss(history, spec),
        Some(Exit::NotStarted { reason }) if !last.transient => {
            Decision::GiveUp(format!("the program could not be started: {reason}"))
        }
        Some(exit) => after_failure(history, last, exit, spec),
    }
}

fn after_loss(history: &[Ending], spec: &RetrySpec) -> Decision {
    let losses = history.iter().filter(|e| e.exit.is_none()).count();
    if let Some(limit) = spec.losses
        && losses > limit as usize
    {
        let were = if losses == 1 { "machine was" } else { "machines were" };
        return Decision::GiveUp(format!("{losses} {were} lost; [retry] losses allows {limit}"));
    }
    let best = history.last().and_then(|e| e.durable_step);
    let fruitless = history.iter().rev().take_while(|e| e.exit.is_none() && e.durable_step == best).count();
    if fruitless > FRUITLESS_LOSSES {
        return Decision::GiveUp(format!(
            "{fruitless} machines in a row were lost without one durable step of progress"
        ));
    }
    Decision::Again
}

fn after_failure(history: &[Ending], last: &Ending, exit: &Exit, spec: &RetrySpec) -> Decision {
    if matches!(exit, Exit::Code { code: 126 | 127 }) && last.step.is_none() {
        return Decision::GiveUp(format!("the command cannot be run ({exit})"));
    }
    let failures: Vec<&Ending> = history.iter().filter(|e| e.exit.is_some()).collect();
    // The same error at the same step, with nothing made durable in between,
    // will come a third time; a passing one may not.
    if let [.., before, _] = failures.as_slice()
        && !last.transient
        && before.exit == last.exit
        && before.fingerprint == last.fingerprint
        && before.step == last.step
        && before.durable_step == last.durable_step
    {
        let place = last.step.map_or_else(|| "before its first step".to_owned(), |s| format!("at step {s}"));
        return Decision::GiveUp(format!(
            "the same failure twice {place}, without progress: {}",
            short(exit)
        ));
    }
    // Progress is the first failure that came with a newer durable step than
    // all before it; only failures since then count.
    let since_progress = failures.iter().rev().take_while(|e| e.durable_step >= last.durable_step).count();
    if since_progress > spec.failures as usize {
        let how = if last.hang { "a hang".to_owned() } else { short(exit) };
        let told = match since_progress {
            1 => format!("a failure without progress, {how}"),
            count => format!("{count} failures without progress, the last one {how}"),
        };
        return Decision::GiveUp(format!("{told}; [retry] failures allows {}", spec.failures));
    }
    Decision::Again
}

/// An exit without the story of what was never started: the attempt tells it.
fn short(exit: &Exit) -> String {
    match exit {
        Exit::NotStarted { .. } => "not started".to_owned(),
        exit => exit.to_string(),
    }
}

/// Blanks what differs between two occurrences of one error: digits and
/// hexadecimal addresses. At most 200 characters are kept.
#[must_use]
pub fn fingerprint(last_line: &str) -> String {
    let mut out = String::new();
    let mut in_number = false;
    for c in last_line.trim().chars().take(200) {
        let numeric = c.is_ascii_digit() || (in_number && (c.is_ascii_hexdigit() || c == 'x'));
        if !numeric {
            out.push(c);
        } else if !in_number {
            out.push('#');
        }
        in_number = numeric;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn failure(code: i32, step: u64, durable: Option<u64>, text: &str) -> Ending {
        Ending {
            exit: Some(Exit::Code { code }),
            fingerprint: fingerprint(text),
            step: Some(step),
            durable_step: durable,
            started: true,
            transient: false,
            hang: false,
            at_ms: 0,
        }
    }

    fn loss(durable: Option<u64>) -> Ending {
        Ending {
            exit: None,
            fingerprint: String::new(),
            step: None,
            durable_step: durable,
            started: true,
            transient: false,
            hang: false,
            at_ms: 0,
        }
    }

    #[test]
    fn the_same_error_at_the_same_step_is_tried_once_more_only() {
        let one = failure(1, 70, Some(60), "ValueError: nan at 0x7f11");
        let two = failure(1, 70, Some(60), "ValueError: nan at 0x7f22");
        assert_eq!(after(std::slice::from_ref(&one), &RetrySpec::default()), Decision::Again);
        assert!(matches!(after(&[one, two], &RetrySpec::default()), Decision::GiveUp(_)));
    }

    #[test]
    fn failures_with_progress_go_on() {
        let spec = RetrySpec { failures: 1, losses: None };
        let history: Vec<Ending> = (1..20).map(|n| failure(1, n * 10 + 5, Some(n * 10), "oops")).collect();
        assert_eq!(after(&history, &spec), Decision::Again);
    }

    #[test]
    fn different_failures_without_progress_use_the_budget_up() {
        let spec = RetrySpec { failures: 2, losses: None };
        let history = [failure(1, 1, None, "a"), failure(2, 2, None, "b"), failure(3, 3, None, "c")];
        assert_eq!(after(&history[..2], &spec), Decision::Again);
        assert!(matches!(after(&history, &spec), Decision::GiveUp(_)));
    }

    #[test]
    fn a_program_that_cannot_start_is_not_tried_again() {
        let mut end = failure(127, 0, None, "sh: trian: not found");
        end.step = None;
        assert!(matches!(after(&[end], &RetrySpec::default()), Decision::GiveUp(_)));
    }

    #[test]
    fn a_passing_failure_to_start_is_tried_within_the_budget() {
        let end = |transient| Ending {
            exit: Some(Exit::NotStarted { reason: "no network".into() }),
            started: false,
            transient,
            step: None,
            ..failure(1, 0, None, "")
        };
        let spec = RetrySpec { failures: 2, losses: None };
        assert!(matches!(after(&[end(false)], &spec), Decision::GiveUp(_)));
        assert_eq!(after(&[end(true), end(true)], &spec), Decision::Again);
        assert!(matches!(after(&[end(true), end(true), end(true)], &spec), Decision::GiveUp(_)));
    }

    #[test]
    fn a_hang_is_a_failure_that_may_pass_whatever_its_code() {
        let hang = |durable| Ending { hang: true, transient: true, ..failure(0, 7, durable, "") };
        let spec = RetrySpec { failures: 2, losses: None };
        assert_eq!(after(&[hang(None), hang(None)], &spec), Decision::Again);
        let Decision::GiveUp(why) = after(&[hang(None), hang(None), hang(None)], &spec) else {
            panic!("it hangs for ever")
        };
        assert!(why.starts_with("3 failures without progress, the last one a hang"), "{why}");
        let Decision::GiveUp(why) = after(&[hang(None)], &RetrySpec { failures: 0, losses: None }) else {
            panic!("none is allowed")
        };
        assert_eq!(why, "a failure without progress, a hang; [retry] failures allows 0");
        let moving: Vec<Ending> = (1..9).map(|step| hang(Some(step))).collect();
        assert_eq!(after(&moving, &spec), Decision::Again);
    }

    #[test]
    fn a_machine_killer_is_given_up() {
        let history: Vec<Ending> = (0..7).map(|_| loss(Some(20))).collect();
        assert_eq!(after(&history[..6], &RetrySpec::default()), Decision::Again);
        assert!(matches!(after(&history, &RetrySpec::default()), Decision::GiveUp(_)));
    }

    proptest! {
        #[test]
        fn losses_never_use_up_the_budget_for_failures(losses in 0usize..5, failures in 0u32..5) {
            let spec = RetrySpec { failures, losses: None };
            let mut history: Vec<Ending> = (0..losses).map(|n| loss(Some(n as u64))).collect();
            for n in 0..failures {
                history.push(failure(1, u64::from(n), Some(100), &"x".repeat(n as usize + 1)));
            }
            prop_assert_eq!(after(&history, &spec), Decision::Again);
        }
    }
}
