//! What each loss of a run cost: steps that were done again, and the time that
//! the replacement was paid for before its first step. An estimate from rates and
//! prices, told as what it is: the ledger knows machines, not reasons. Pure.

use proto::v1;
use serde::Serialize;

use crate::commands::brief;
use crate::printer::{duration, money};

/// One loss: an attempt that ended, and the next one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Loss {
    /// The attempt that ended.
    pub attempt: u32,
    /// How.
    pub ending: String,
    /// The attempt that went on.
    pub next: u32,
    /// Steps that it did once more, and what they cost, US dollars.
    pub repeated_steps: u64,
    /// What they cost.
    pub repeated_usd: f64,
    /// From the creation of its machine, or from its own beginning on a machine
    /// that was there, until its first step.
    pub boot_seconds: f64,
    /// What that cost.
    pub boot_usd: f64,
    /// Both.
    pub usd: f64,
}

/// The losses of a run, oldest first. `repeated` says of the attempts, by their
/// numbers, how many steps each did once more.
#[must_use]
pub fn losses(detail: &v1::RunDetail, repeated: impl Fn(u32) -> u64, now_ms: u64) -> Vec<Loss> {
    let mut attempts: Vec<&v1::AttemptView> = detail.attempts.iter().collect();
    attempts.sort_by_key(|attempt| attempt.number);
    let pairs = attempts.iter().zip(attempts.iter().skip(1));
    pairs.map(|(before, next)| loss(detail, before, next, repeated(next.number), now_ms)).collect()
}

fn loss(
    detail: &v1::RunDetail,
    before: &v1::AttemptView,
    next: &v1::AttemptView,
    repeated_steps: u64,
    now_ms: u64,
) -> Loss {
    let machine = detail.machines.iter().find(|machine| machine.id == next.machine_id);
    let usd_per_s = machine.map_or(0.0, |machine| per_hour(machine, now_ms) / 3_600.0);
    let ended_ms = if next.ended_ms > 0 { next.ended_ms } else { now_ms };
    let came = machine.filter(|_| next.machine_id != before.machine_id).map(|machine| machine.created_ms);
    let begun_ms = came.filter(|at| *at > 0).unwrap_or(next.started_ms);
    let first_ms = if next.first_step_ms > 0 { next.first_step_ms } else { ended_ms };
    let boot_seconds = if begun_ms > 0 { seconds(begun_ms, first_ms) } else { 0.0 };
    // What its steps took, on the average.
    let done = next.last_step.unwrap_or(0).saturating_sub(next.first_step.unwrap_or(0));
    let at_work = if next.first_step_ms > 0 { seconds(next.first_step_ms, ended_ms) } else { 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "steps of a run fit")]
    let part = if done > 0 { (repeated_steps as f64 / done as f64).min(1.0) } else { 0.0 };
    let (repeated_usd, boot_usd) = (part * at_work * usd_per_s, boot_seconds * usd_per_s);
    Loss {
        attempt: before.number,
        ending: before.ending.clone(),
        next: next.number,
        repeated_steps,
        repeated_usd,
        boot_seconds,
        boot_usd,
        usd: repeated_usd + boot_usd,
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a run fit")]
fn seconds(from_ms: u64, to_ms: u64) -> f64 {
    to_ms.saturating_sub(from_ms) as f64 / 1_000.0
}

/// What an hour of a machine cost; where no price is known, on the average.
fn per_hour(machine: &v1::MachineView, now_ms: u64) -> f64 {
    let until = if machine.ended_ms > 0 { machine.ended_ms } else { now_ms };
    let hours = seconds(machine.created_ms, until) / 3_600.0;
    let mean = if hours > 0.0 { machine.cost_usd / hours } else { 0.0 };
    let price = if machine.usd_per_hour > 0.0 { machine.usd_per_hour } else { mean };
    if price.is_finite() { price.max(0.0) } else { 0.0 }
}

/// All of them together, for people; empty where there was none.
#[must_use]
pub fn told(losses: &[Loss], cost_usd: f64) -> Vec<String> {
    let words = |repeated: u64, again: f64, boot: f64, boot_usd: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds for display")]
        let boot = duration(boot.clamp(0.0, 1e12).round() as u64);
        format!("{repeated} steps again {}, {boot} until the first step {}", money(again), money(boot_usd))
    };
    let mut lines: Vec<String> = losses
        .iter()
        .map(|loss| {
            let what = words(loss.repeated_steps, loss.repeated_usd, loss.boot_seconds, loss.boot_usd);
            format!("after attempt {} ({}): {}: {what}", loss.attempt, brief(&loss.ending), money(loss.usd))
        })
        .collect();
    if lines.len() > 1 {
        let sum = |of: fn(&Loss) -> f64| losses.iter().map(of).sum::<f64>();
        let steps = losses.iter().map(|loss| loss.repeated_steps).sum();
        let what = words(steps, sum(|l| l.repeated_usd), sum(|l| l.boot_seconds), sum(|l| l.boot_usd));
        lines.push(format!(
            "{} losses: {} of {}: {what}",
            losses.len(),
            money(sum(|l| l.usd)),
            money(cost_usd)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two machines at $36 an hour, a cent a second: the second is created at 100 s,
    /// does its first step at 110 s, and 40 steps in 40 s, six of them again.
    fn detail() -> v1::RunDetail {
        let machine = |id: &str, created_s: u64, usd_per_hour: f64| v1::MachineView {
            id: id.into(),
            created_ms: created_s * 1_000,
            ended_ms: 150_000,
            usd_per_hour,
            cost_usd: (150 - created_s) as f64 / 100.0,
            ..Default::default()
        };
        let attempt = |number: u32, machine: &str, first_s: u64, steps: (u64, u64)| v1::AttemptView {
            number,
            machine_id: machine.into(),
            started_ms: first_s * 1_000 - 1_000,
            first_step_ms: first_s * 1_000,
            first_step: Some(steps.0),
            last_step: Some(steps.1),
            ended_ms: first_s * 1_000 + (steps.1 - steps.0) * 1_000,
            ending: "machine terminated\nmore".into(),
            ..Default::default()
        };
        v1::RunDetail {
            attempts: vec![attempt(2, "b", 110, (20, 60)), attempt(1, "a", 10, (0, 26))],
            machines: vec![machine("a", 5, 36.0), machine("b", 100, 0.0)],
            ..Default::default()
        }
    }

    #[test]
    fn a_loss_costs_the_steps_that_are_done_again_and_the_boot_of_the_replacement() {
        let found = losses(&detail(), |number| if number == 2 { 6 } else { 0 }, 1_000_000);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let [loss] = &found[..] else { panic!("{found:?}") };
        assert_eq!((loss.attempt, loss.next, loss.repeated_steps), (1, 2, 6));
        assert!(
            near(loss.repeated_usd, 0.06) && near(loss.boot_usd, 0.10) && near(loss.usd, 0.16),
            "{loss:?}"
        );
        let lines = told(&found, 0.95);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains("after attempt 1 (machine terminated): $0.16"), "{lines:?}");
        assert!(lines[0].contains("6 steps again $0.06, 10s until the first step $0.10"), "{lines:?}");
        let twice = told(&[loss.clone(), loss.clone()], 0.95);
        assert!(twice[2].starts_with("2 losses: $0.32 of $0.95: 12 steps again $0.12"), "{twice:?}");
        assert!(losses(&v1::RunDetail::default(), |_| 0, 1).is_empty());
    }

    #[test]
    fn another_attempt_on_the_same_machine_waits_from_its_own_beginning() {
        let mut detail = detail();
        detail.attempts[0].machine_id = "a".into();
        let found = losses(&detail, |_| 0, 1_000_000);
        assert_eq!((found[0].boot_seconds, found[0].repeated_usd), (1.0, 0.0));
        // One that never did a step was paid for until its end.
        detail.attempts[0].first_step_ms = 0;
        detail.attempts[0].first_step = None;
        assert_eq!(losses(&detail, |_| 0, 1_000_000)[0].boot_seconds, 41.0);
    }
}
