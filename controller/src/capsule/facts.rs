//! From rows, journal and output to the evidence that a verdict rests on.

use lifecycle::cause::{Asked, Evidence, ProviderSays, WINDOW};
use lifecycle::{AttemptState, Exit, LossCause};

use super::evidence::Collected;
use super::{Inputs, Moment, Output};
use crate::model::StopReason;

pub(super) fn of(inputs: &Inputs, output: &Output, collected: &Collected) -> Evidence {
    let a = &inputs.attempt;
    let (exit, loss) = match &a.status {
        AttemptState::Ended { exit } => (Some(exit.clone()), None),
        AttemptState::Lost { cause } => (None, Some(*cause)),
        _ if inputs.run.status.is_final() && !matches!(a.status, AttemptState::Superseded) => {
            (Some(Exit::Unknown { reason: "the run was closed before the end was told".into() }), None)
        }
        _ => (None, None),
    };
    let machine = Heard::of(inputs);
    Evidence {
        run: inputs.run.name.clone(),
        attempt: a.number,
        exited: a.exited.as_ref().filter(|_| exit.is_none()).map(|exited| exited.exit.clone()),
        exit,
        loss,
        superseded: matches!(a.status, AttemptState::Superseded),
        started: a.program_started,
        asked: asked(inputs),
        rule: super::text::clean(inputs.run.stopped_by.as_bytes()),
        last_error_line: super::text::clean(a.last_error_line.as_bytes()),
        stderr: output.stderr.lines(WINDOW),
        stdout: output.stdout.lines(WINDOW),
        setup: output.setup.lines(WINDOW),
        kernel: collected.kernel.clone(),
        out_of_memory: a.out_of_memory.clone(),
        oom_process: a.oom_process.clone(),
        hang: a.hang.clone(),
        leave_machine: a.leave_machine.clone(),
        unpublished: a.unpublished.clone(),
        transient: a.transient,
        disk_free: collected.disk_free,
        farewell: machine.farewell,
        notice: machine.notice,
        broke: machine.broke,
        silent_ms: machine.silent_ms,
        provider: match loss {
            Some(LossCause::Gone) => Some(ProviderSays::Absent),
            Some(LossCause::Terminated) => Some(ProviderSays::Ended),
            _ => machine.provider,
        },
        others_silent: inputs.others_silent,
        spoke_again: machine.spoke_again,
        new_boot: machine.new_boot,
        replacement_works: inputs.replacement_works,
    }
}

/// Who asked for the end of this attempt, before it came.
fn asked(inputs: &Inputs) -> Option<Asked> {
    let newest = inputs.attempt.number == inputs.run.attempts;
    let reason = inputs.run.stop_reason.filter(|_| newest)?;
    let (asked, verb) = match reason {
        StopReason::Person => (Asked::Person, "stop-asked"),
        StopReason::Budget => (Asked::Budget, "budget-reached"),
        StopReason::Rule => (Asked::Rule, "early-stop"),
    };
    let ended = inputs.attempt.ended_ms;
    let told = inputs.journal.iter().find(|m| m.verb == verb);
    let came_late = told.is_some_and(|m| ended > 0 && m.at_ms > ended);
    (!came_late).then_some(asked)
}

/// What the journal says of the machine while the attempt was its.
#[derive(Default)]
struct Heard {
    farewell: Option<String>,
    notice: Option<String>,
    broke: bool,
    silent_ms: u64,
    provider: Option<ProviderSays>,
    spoke_again: bool,
    new_boot: bool,
}

impl Heard {
    fn of(inputs: &Inputs) -> Self {
        let (machine, attempt) = (inputs.attempt.machine.to_string(), inputs.attempt.id.to_string());
        let mut heard = Self::default();
        for moment in inputs.journal.iter().filter(|m| m.at_ms >= inputs.attempt.bound_ms) {
            if moment.object == attempt && moment.verb == "ended-late" {
                heard.spoke_again = true;
            }
            if moment.object == machine {
                heard.take(moment, inputs.attempt.ended_ms);
            }
        }
        heard
    }

    fn take(&mut self, moment: &Moment, ended_ms: u64) {
        let text =
            |name: &str| moment.detail.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        match moment.verb.as_str() {
            "notice" => {
                let ends = moment.detail.get("ends").and_then(serde_json::Value::as_bool) == Some(true);
                self.notice = ends.then(|| notice(moment, text("source"), text("text")));
            }
            "notice-withdrawn" => self.notice = None,
            "farewell" => self.farewell = Some(text("reason").to_owned()),
            "suspect" | "hypothesis" | "given-up" => {
                // The names are those of `liveness::Hypothesis`.
                match text("hypothesis") {
                    "closed" => self.broke = true,
                    "agent" => (self.broke, self.provider) = (true, Some(ProviderSays::Alive)),
                    "network" | "away" => self.provider = Some(ProviderSays::Alive),
                    "ended" => self.provider = Some(ProviderSays::Absent),
                    _ => {}
                }
                let silent = moment.detail.get("silent_ms").and_then(serde_json::Value::as_u64);
                self.silent_ms = silent.unwrap_or(self.silent_ms);
            }
            "spoke-again" => {
                self.spoke_again = true;
                self.new_boot |=
                    moment.detail.get("new_boot").and_then(serde_json::Value::as_bool) == Some(true);
            }
            // Once an attempt is over, its machine was given up for good; a
            // word before that means that it was silent, and is silent no more.
            "attached" if ended_ms > 0 && moment.at_ms > ended_ms => self.spoke_again = true,
            "attached" => {
                (self.broke, self.silent_ms, self.provider) = (false, 0, None);
            }
            _ => {}
        }
    }
}

/// A notice in words, with when it was heard.
fn notice(moment: &Moment, source: &str, text: &str) -> String {
    let seconds = moment.at_ms / 1_000 % 86_400;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("notice from {source} at {hour:02}:{minute:02}:{second:02} UTC: {text}")
}
