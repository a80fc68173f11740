//! Whether an ended attempt is followed by another. Losses of machines and
//! failures of the program are counted apart: a preemption never uses up the
//! budget for failures, and a program that fails the same way at the same
//! place is not tried for ever.

use serde::{Deserialize, Serialize};

use crate::cause::{Cause, Confidence};
use crate::exit::Exit;
use crate::spec::RetrySpec;

mod remedy;

pub use remedy::{ENLARGED_MOST, Remedy, enlarged, remedy};

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
    /// Why it ended, as far as its row tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<(Cause, Confidence)>,
    /// What the attempt cost, in millionths of a dollar.
    #[serde(default)]
    pub micro_usd: u64,
}

impl Ending {
    fn is(&self, cause: Cause, at_least: Confidence) -> bool {
        self.cause.is_some_and(|(is, sure)| is == cause && sure >= at_least)
    }

    /// The machine failed, not the program: as good as a loss.
    fn of_the_host(&self) -> bool {
        self.exit.is_none() || self.is(Cause::GpuFault, Confidence::Certain)
    }
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Another attempt; on the same machine unless it was lost.
    Again,
    /// The run is over.
    GiveUp(String),
    /// Nothing forbids another try, and nothing speaks for it: a person says.
    Ask(String),
}

/// What the run has besides its history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Means {
    /// Its provider finds a machine of the size that is asked for.
    pub chooses: bool,
    /// How often a larger one was asked for already.
    pub enlarged: u32,
    /// What is left under its cap, in millionths of a dollar; `None`: no cap.
    pub left_micro_usd: Option<u64>,
}

/// Losses in a row without any progress after which a run is given up even
/// without a limit: a program that kills its machine would go on for ever.
const FRUITLESS_LOSSES: usize = 6;

/// Decides what follows the last of `history` (oldest first). `exit` 0 is not
/// asked here.
#[must_use]
pub fn after(history: &[Ending], spec: &RetrySpec, means: &Means) -> Decision {
    let Some(last) = history.last() else { return Decision::Again };
    if let Some(why) = costs_more_than_it_wins(history, means) {
        return Decision::Ask(why);
    }
    match &last.exit {
        _ if last.of_the_host() => after_loss(history, spec),
        None => Decision::Again,
        // Another machine is another try, however alike the failures are.
        Some(_) if means.chooses && means.enlarged < ENLARGED_MOST && remedy(last).is_larger() => {
            Decision::Again
        }
        Some(Exit::NotStarted { reason }) if !last.transient => {
            Decision::GiveUp(format!("the program could not be started: {reason}"))
        }
        Some(exit) => after_failure(history, last, exit, spec),
    }
}

fn after_loss(history: &[Ending], spec: &RetrySpec) -> Decision {
    let losses = history.iter().filter(|e| e.of_the_host()).count();
    if let Some(limit) = spec.losses
        && losses > limit as usize
    {
        let were = if losses == 1 { "machine was" } else { "machines were" };
        return Decision::GiveUp(format!("{losses} {were} lost; [retry] losses allows {limit}"));
    }
    let best = history.last().and_then(|e| e.durable_step);
    let fruitless = history.iter().rev().take_while(|e| e.of_the_host() && e.durable_step == best).count();
    if fruitless > FRUITLESS_LOSSES {
        return Decision::Ask(format!(
            "{fruitless} machines in a row were lost without one durable step of progress"
        ));
    }
    Decision::Again
}

/// Why another try is not worth its price, if so. After `n` tries in a row
/// without progress the next succeeds in one of `n + 2` cases (the rule of
/// succession): getting over that place is to be expected to cost `n + 2` times
/// a try. Where that is more than the money left, no progress is bought.
fn costs_more_than_it_wins(history: &[Ending], means: &Means) -> Option<String> {
    let left = means.left_micro_usd?;
    let best = history.last()?.durable_step;
    let tries: Vec<u64> =
        history.iter().rev().take_while(|e| e.durable_step == best).map(|e| e.micro_usd).collect();
    // The first of them may be what made that step; a history of two is chance.
    let n = u64::try_from(tries.len().checked_sub(1)?).unwrap_or(u64::MAX);
    if n < 2 {
        return None;
    }
    let fruitless = &tries[..tries.len() - 1];
    let each = fruitless.iter().fold(0_u64, |sum, one| sum.saturating_add(*one)) / n;
    let expected = each.saturating_mul(n + 2);
    (each > 0 && expected > left).then(|| {
        format!(
            "{n} tries in a row made nothing durable, at {} each; to get over it may take {} of the {} left",
            dollars(each),
            dollars(expected),
            dollars(left)
        )
    })
}

fn dollars(micro: u64) -> String {
    format!("${}.{:02}", micro / 1_000_000, micro % 1_000_000 / 10_000)
}

fn after_failure(history: &[Ending], last: &Ending, exit: &Exit, spec: &RetrySpec) -> Decision {
    if matches!(exit, Exit::Code { code: 126 | 127 }) && last.step.is_none() {
        return Decision::GiveUp(format!("the command cannot be run ({exit})"));
    }
    // What is wrong with the program itself is wrong on every machine.
    let own = [Cause::UserError, Cause::EnvironmentFailed]
        .into_iter()
        .find(|cause| last.is(*cause, Confidence::Certain));
    if let Some(cause) = own
        && last.step.is_none()
        && !last.transient
        && !last.hang
    {
        return Decision::GiveUp(format!(
            "{cause} before its first step ({}): another try would meet it again",
            short(exit)
        ));
    }
    let failures: Vec<&Ending> = history.iter().filter(|e| !e.of_the_host()).collect();
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

    fn decide(history: &[Ending], spec: &RetrySpec) -> Decision {
        after(history, spec, &Means::default())
    }

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
            cause: None,
            micro_usd: 0,
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
            cause: None,
            micro_usd: 0,
        }
    }

    #[test]
    fn the_same_error_at_the_same_step_is_tried_once_more_only() {
        let one = failure(1, 70, Some(60), "ValueError: nan at 0x7f11");
        let two = failure(1, 70, Some(60), "ValueError: nan at 0x7f22");
        assert_eq!(decide(std::slice::from_ref(&one), &RetrySpec::default()), Decision::Again);
        assert!(matches!(decide(&[one, two], &RetrySpec::default()), Decision::GiveUp(_)));
    }

    #[test]
    fn failures_with_progress_go_on() {
        let spec = RetrySpec { failures: 1, losses: None };
        let history: Vec<Ending> = (1..20).map(|n| failure(1, n * 10 + 5, Some(n * 10), "oops")).collect();
        assert_eq!(decide(&history, &spec), Decision::Again);
    }

    #[test]
    fn different_failures_without_progress_use_the_budget_up() {
        let spec = RetrySpec { failures: 2, losses: None };
        let history = [failure(1, 1, None, "a"), failure(2, 2, None, "b"), failure(3, 3, None, "c")];
        assert_eq!(decide(&history[..2], &spec), Decision::Again);
        assert!(matches!(decide(&history, &spec), Decision::GiveUp(_)));
    }

    #[test]
    fn a_program_that_cannot_start_is_not_tried_again() {
        let mut end = failure(127, 0, None, "sh: trian: not found");
        end.step = None;
        assert!(matches!(decide(&[end], &RetrySpec::default()), Decision::GiveUp(_)));
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
        assert!(matches!(decide(&[end(false)], &spec), Decision::GiveUp(_)));
        assert_eq!(decide(&[end(true), end(true)], &spec), Decision::Again);
        assert!(matches!(decide(&[end(true), end(true), end(true)], &spec), Decision::GiveUp(_)));
    }

    #[test]
    fn a_hang_is_a_failure_that_may_pass_whatever_its_code() {
        let hang = |durable| Ending { hang: true, transient: true, ..failure(0, 7, durable, "") };
        let spec = RetrySpec { failures: 2, losses: None };
        assert_eq!(decide(&[hang(None), hang(None)], &spec), Decision::Again);
        let Decision::GiveUp(why) = decide(&[hang(None), hang(None), hang(None)], &spec) else {
            panic!("it hangs for ever")
        };
        assert!(why.starts_with("3 failures without progress, the last one a hang"), "{why}");
        let Decision::GiveUp(why) = decide(&[hang(None)], &RetrySpec { failures: 0, losses: None }) else {
            panic!("none is allowed")
        };
        assert_eq!(why, "a failure without progress, a hang; [retry] failures allows 0");
        let moving: Vec<Ending> = (1..9).map(|step| hang(Some(step))).collect();
        assert_eq!(decide(&moving, &spec), Decision::Again);
    }

    #[test]
    fn a_machine_killer_is_given_up() {
        let history: Vec<Ending> = (0..7).map(|_| loss(Some(20))).collect();
        assert_eq!(decide(&history[..6], &RetrySpec::default()), Decision::Again);
        assert!(matches!(decide(&history, &RetrySpec::default()), Decision::Ask(_)));
    }

    fn of(cause: Cause, sure: Confidence, ending: Ending) -> Ending {
        Ending { cause: Some((cause, sure)), ..ending }
    }

    #[test]
    fn an_error_of_the_program_before_its_first_step_ends_the_run_at_once() {
        let spec = RetrySpec::default();
        let end = |cause, sure, step| of(cause, sure, Ending { step, ..failure(1, 0, None, "x") });
        for (cause, sure, step, over) in [
            (Cause::UserError, Confidence::Certain, None, true),
            (Cause::EnvironmentFailed, Confidence::Certain, None, true),
            (Cause::UserError, Confidence::Likely, None, false),
            (Cause::UserError, Confidence::Certain, Some(4), false),
            (Cause::RemoteService, Confidence::Certain, None, false),
            (Cause::Hang, Confidence::Certain, None, false),
        ] {
            let decision = decide(&[end(cause, sure, step)], &spec);
            assert_eq!(
                matches!(decision, Decision::GiveUp(_)),
                over,
                "{cause:?} {sure:?} {step:?}: {decision:?}"
            );
        }
    }

    #[test]
    fn what_is_too_small_is_tried_on_a_larger_machine_twice_and_a_broken_host_is_a_loss() {
        let spec = RetrySpec { failures: 0, losses: None };
        let full =
            of(Cause::DiskFull, Confidence::Certain, failure(1, 7, Some(5), "No space left on device"));
        let history = [full.clone(), full.clone(), full];
        let at =
            |chooses, enlarged| after(&history, &spec, &Means { chooses, enlarged, left_micro_usd: None });
        assert_eq!((at(true, 0), at(true, 1)), (Decision::Again, Decision::Again));
        assert!(matches!(at(true, 2), Decision::GiveUp(_)), "there are larger ones for ever");
        assert!(matches!(at(false, 0), Decision::GiveUp(_)), "a host that is what it is");
        let broken = of(Cause::GpuFault, Confidence::Certain, failure(1, 7, Some(5), "Xid 79"));
        assert_eq!(decide(&vec![broken.clone(); 6], &spec), Decision::Again);
        assert!(matches!(decide(&vec![broken; 7], &spec), Decision::Ask(_)), "no loss goes on for ever");
    }

    #[test]
    fn a_try_that_costs_more_than_it_can_win_is_asked_about() {
        let try_ = |durable, usd: u64| Ending { micro_usd: usd * 1_000_000, ..loss(durable) };
        let history = [try_(Some(10), 5), try_(Some(20), 5), try_(Some(20), 3), try_(Some(20), 1)];
        let left = |usd: u64| Means { left_micro_usd: Some(usd * 1_000_000), ..Means::default() };
        let spec = RetrySpec::default();
        // Two fruitless ones at two dollars each: the next four may cost eight.
        assert_eq!(after(&history, &spec, &left(8)), Decision::Again);
        let Decision::Ask(why) = after(&history, &spec, &left(7)) else { panic!("it is worth nothing") };
        assert!(
            why.contains("2 tries in a row") && why.contains("$2.00 each") && why.contains("$7.00 left"),
            "{why}"
        );
        assert_eq!(after(&history[..3], &spec, &left(0)), Decision::Again, "one is chance");
        assert_eq!(
            after(&history, &spec, &Means::default()),
            Decision::Again,
            "without a cap nothing is scarce"
        );
    }

    proptest! {
        #[test]
        fn losses_never_use_up_the_budget_for_failures(losses in 0usize..5, failures in 0u32..5) {
            let spec = RetrySpec { failures, losses: None };
            let mut history: Vec<Ending> = (0..losses).map(|n| loss(Some(n as u64))).collect();
            for n in 0..failures {
                history.push(failure(1, u64::from(n), Some(100), &"x".repeat(n as usize + 1)));
            }
            prop_assert_eq!(decide(&history, &spec), Decision::Again);
        }
    }
}
