//! What is told when an attached run is over: how it ended, what each attempt
//! came to, what was done twice, what it cost, where the results are and
//! whether all its machines are confirmed gone.

use std::path::PathBuf;

use lifecycle::attempt::repeated_steps;
use proto::v1;
use serde::Serialize;

use crate::chaos::Outcome;
use crate::commands::{brief, now_ms, short, step};
use crate::exit_code::ExitCode;
use crate::printer::{Printer, bytes, duration, money};

mod ahead;
pub mod losses;

pub use ahead::Ahead;
use losses::Loss;

/// The report; also what `--json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The run's name.
    pub run: String,
    /// Its id.
    pub id: String,
    /// Its final state.
    pub state: String,
    /// Why, where there is more to say.
    pub reason: String,
    /// What its program ended with, as a shell would say it.
    pub program_exit_code: Option<i32>,
    /// What `outlast` ends with.
    pub exit_code: u8,
    /// From the submission to the end.
    pub duration_seconds: f64,
    /// Every attempt.
    pub attempts: Vec<AttemptLine>,
    /// Steps that were done more than once, over all losses.
    pub repeated_steps: u64,
    /// What each loss cost.
    pub losses: Vec<Loss>,
    /// The step it reached.
    pub step: Option<u64>,
    /// The newest step that nothing can take away.
    pub durable_step: Option<u64>,
    /// What its machines cost.
    pub cost_usd: f64,
    /// Where its results are.
    pub results: Option<Results>,
    /// Why they could not be fetched.
    pub results_error: Option<String>,
    /// Its machines.
    pub machines: Vec<MachineLine>,
    /// Whether the providers confirmed that all of them are gone.
    pub machines_released: bool,
    /// What was done to it on purpose.
    pub chaos: Option<Outcome>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttemptLine {
    /// Its number, from 1.
    pub number: u32,
    /// Its machine.
    pub machine: String,
    /// Its state.
    pub state: String,
    /// Why it ended.
    pub ending: String,
    /// The step it went on from.
    pub resumed_step: Option<u64>,
    /// The last step that was heard of.
    pub last_step: Option<u64>,
    /// Steps before that it did once more.
    pub repeated_steps: Option<u64>,
    /// From the binding to the start of the program.
    pub prepare_ms: u64,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MachineLine {
    /// Its id.
    pub id: String,
    /// Its state.
    pub state: String,
}

/// Result files that were fetched.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// Where they are.
    pub path: PathBuf,
    /// How many.
    pub files: u64,
    /// How large.
    pub bytes: u64,
}

/// What an attached run ends with.
#[must_use]
pub fn exit_code(run: &v1::RunView) -> ExitCode {
    match (run.state.as_str(), run.exit_code) {
        ("SUCCEEDED", _) => ExitCode::Ok,
        ("BUDGET_STOPPED", _) => ExitCode::Budget,
        ("CANCELLED", _) => ExitCode::Cancelled,
        // A program that said 0 did not fail: what it left is lost.
        (_, None | Some(0)) => ExitCode::Lost,
        (_, Some(code)) => u8::try_from(code).map_or(ExitCode::Internal, ExitCode::Run),
    }
}

/// Whether nothing of a machine is left that could cost money.
#[must_use]
pub fn is_released(machine: &v1::MachineView) -> bool {
    is_over(&machine.state)
}

fn is_over(state: &str) -> bool {
    matches!(state, "DESTROYED" | "REJECTED" | "ABANDONED")
}

impl Report {
    /// From the last news of a run.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "seconds for display")]
    pub fn new(detail: &v1::RunDetail, chaos: Option<Outcome>) -> Self {
        let run = detail.run.clone().unwrap_or_default();
        let attempts = attempt_lines(&detail.attempts);
        Self {
            program_exit_code: run.exit_code,
            exit_code: exit_code(&run).code(),
            duration_seconds: run.ended_ms.saturating_sub(run.created_ms) as f64 / 1_000.0,
            repeated_steps: attempts.iter().filter_map(|line| line.repeated_steps).sum(),
            losses: losses_of(detail),
            attempts,
            step: detail.attempts.iter().filter_map(|attempt| attempt.last_step).max(),
            durable_step: run.durable_step,
            cost_usd: run.cost_usd,
            results: None,
            results_error: None,
            machines: detail
                .machines
                .iter()
                .map(|machine| MachineLine { id: machine.id.clone(), state: machine.state.clone() })
                .collect(),
            machines_released: detail.machines.iter().all(is_released),
            chaos,
            run: run.name,
            id: run.id,
            state: run.state,
            reason: run.reason,
        }
    }

    /// Tells it to a person.
    pub fn tell(&self, printer: &Printer) {
        for line in self.lines() {
            printer.note(&line);
        }
        if !self.machines_released {
            let left = self.machines.iter().filter(|machine| !is_over(&machine.state));
            let named: Vec<String> = left.map(|m| format!("{} ({})", m.id, m.state)).collect();
            printer.warn(&format!("machines not confirmed gone: {}", named.join(", ")));
            printer.help("the controller goes on removing them: outlast machines");
        }
        if let Some(error) = &self.results_error {
            printer.warn(&format!("the results were not fetched: {error}"));
            printer.help(&format!("outlast pull {}", self.run));
        }
        if let Some(chaos) = self.chaos.as_ref().filter(|chaos| chaos.fell_short()) {
            let (done, wanted) = (chaos.kills.len(), chaos.wanted);
            printer.error(&format!("chaos: the run ended after {done} of {wanted} kills"));
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds for display")]
    fn lines(&self) -> Vec<String> {
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        let code = self.program_exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
        let mut lines = vec![format!("outlast: {} {}{reason}{code}", self.run, self.state.to_lowercase())];
        let count = self.attempts.len();
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        lines.push(format!(
            "  took      {}, {count} attempt{}",
            duration(self.duration_seconds as u64),
            plural(count)
        ));
        for attempt in &self.attempts {
            let from = attempt.resumed_step.map_or_else(String::new, |at| format!(" from step {at}"));
            let to = attempt.last_step.map_or_else(String::new, |at| format!(" to step {at}"));
            let again = attempt.repeated_steps.map_or_else(String::new, |n| format!(", repeated {n} steps"));
            let ending = told_already(attempt);
            let machine = short(&attempt.machine);
            lines.push(format!("  attempt {} on {machine}{from}{to}{again}: {ending}", attempt.number));
        }
        if count > 1 {
            lines.push(format!("  repeated  {} steps", self.repeated_steps));
        }
        for told in losses::told(&self.losses, self.cost_usd) {
            lines.push(format!("  lost      {told}"));
        }
        lines.push(format!("  durable   step {}", step(self.durable_step)));
        lines.push(format!("  cost      {}", money(self.cost_usd)));
        let results = match &self.results {
            Some(r) => format!("{} ({} files, {})", r.path.display(), r.files, bytes(r.bytes)),
            None => "none".to_owned(),
        };
        lines.push(format!("  results   {results}"));
        if self.machines_released {
            lines.push(format!("  machines  {} used, all confirmed gone", self.machines.len()));
        }
        lines
    }
}

/// What each loss of a run cost so far.
#[must_use]
pub fn losses_of(detail: &v1::RunDetail) -> Vec<Loss> {
    let lines = attempt_lines(&detail.attempts);
    let again = |number| lines.iter().find(|line| line.number == number).and_then(|line| line.repeated_steps);
    losses::losses(detail, |number| again(number).unwrap_or(0), now_ms())
}

/// How an attempt ended; what could not be started was told with its reason.
fn told_already(attempt: &AttemptLine) -> String {
    match brief(&attempt.ending) {
        "" => attempt.state.to_lowercase(),
        ending if ending.starts_with("not started: ") => "not started".to_owned(),
        ending => ending.to_owned(),
    }
}

/// The attempts, with what each did once more. An attempt of which no step
/// was heard repeats nothing; the one after it is compared with what was
/// reached before both.
fn attempt_lines(attempts: &[v1::AttemptView]) -> Vec<AttemptLine> {
    let mut sorted: Vec<&v1::AttemptView> = attempts.iter().collect();
    sorted.sort_by_key(|attempt| attempt.number);
    let mut reached: Option<u64> = None;
    sorted
        .into_iter()
        .map(|attempt| {
            let works = attempt.first_step.is_some();
            let again =
                reached.map(|reached| repeated_steps(reached, attempt.resumed_step, attempt.last_step));
            let line = AttemptLine {
                number: attempt.number,
                machine: attempt.machine_id.clone(),
                state: attempt.state.clone(),
                ending: attempt.ending.clone(),
                resumed_step: attempt.resumed_step,
                last_step: attempt.last_step,
                repeated_steps: again.filter(|_| works),
                prepare_ms: attempt.prepare_ms,
            };
            if works {
                reached = attempt.last_step.max(reached);
            }
            line
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u32, resumed: Option<u64>, last: Option<u64>, ending: &str) -> v1::AttemptView {
        v1::AttemptView {
            number,
            machine_id: format!("m{number}aaaaaaaa"),
            resumed_step: resumed,
            first_step: last.map(|_| resumed.unwrap_or(0)),
            last_step: last,
            ending: ending.into(),
            ..Default::default()
        }
    }

    #[test]
    fn steps_done_again_are_counted_per_loss() {
        let attempts = [
            attempt(1, None, Some(431), "machine gone"),
            attempt(2, Some(400), None, "machine never joined"),
            attempt(3, Some(400), Some(520), "machine gone"),
            attempt(4, None, Some(300), "machine gone"),
            attempt(5, None, Some(900), "exit code 0"),
        ];
        let lines = attempt_lines(&attempts);
        let again: Vec<Option<u64>> = lines.iter().map(|line| line.repeated_steps).collect();
        assert_eq!(again, [None, None, Some(31), Some(300), Some(520)]);
    }

    #[test]
    fn the_exit_code_is_the_runs_own_or_says_why_there_is_none() {
        let code = |state: &str, code| {
            exit_code(&v1::RunView { state: state.into(), exit_code: code, ..Default::default() }).code()
        };
        assert_eq!(code("SUCCEEDED", Some(0)), 0);
        assert_eq!(code("FAILED", Some(3)), 3);
        assert_eq!(code("FAILED", Some(137)), 137);
        assert_eq!(code("FAILED", Some(0)), 91);
        assert_eq!(code("FAILED", None), 91);
        assert_eq!(code("CANCELLED", Some(143)), 92);
        assert_eq!(code("BUDGET_STOPPED", Some(0)), 90);
        assert_eq!(code("FAILED", Some(4_096)), 70);
    }

    #[test]
    fn a_machine_that_lingers_is_not_called_released() {
        let machine = |state: &str| v1::MachineView { state: state.into(), ..Default::default() };
        let detail = |states: &[&str]| v1::RunDetail {
            run: Some(v1::RunView { state: "SUCCEEDED".into(), ..Default::default() }),
            machines: states.iter().map(|state| machine(state)).collect(),
            ..Default::default()
        };
        let gone = Report::new(&detail(&["DESTROYED", "REJECTED"]), None);
        assert!(
            gone.machines_released && gone.lines().iter().any(|line| line.contains("all confirmed gone"))
        );
        let left = Report::new(&detail(&["DESTROYED", "DESTROYING"]), None);
        assert!(!left.machines_released && !left.lines().iter().any(|line| line.contains("confirmed gone")));
    }
}
