//! `outlast status`: the runs as a table, or one run in full.

use proto::v1;

use super::{answer, brief, describe, moment, short, span, step};
use crate::app::Context;
use crate::args::StatusArgs;
use crate::daemon;
use crate::exit_code::ExitCode;
use crate::printer::{digits, duration, money, value};
use crate::report::{Ahead, losses, losses_of};

const METRICS: usize = 20;

/// Does it.
///
/// # Errors
/// Where there is no such run, or the controller cannot be asked.
pub async fn perform(ctx: &Context, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    if let Some(text) = &args.run {
        let detail = Box::pin(daemon::needed(ctx)).await?.run(text).await?;
        if args.json {
            let mut told = serde_json::to_value(&detail)?;
            told["losses"] = serde_json::to_value(losses_of(&detail))?;
            told["ahead"] = serde_json::to_value(Ahead::of(&detail))?;
            ctx.printer.json(&told);
        } else {
            show(ctx, &detail);
        }
        return Ok(ExitCode::Ok);
    }
    let mut runs = Vec::new();
    if let Some(client) = Box::pin(daemon::existing(ctx)).await? {
        let ask = v1::ListRunsRequest { all: args.all };
        runs = answer(client.operator.clone().list_runs(ask).await)?.runs;
        for alert in client.view().await?.alerts {
            ctx.printer.warn(&alert);
        }
    }
    if args.json {
        ctx.printer.json(&runs);
    } else if runs.is_empty() {
        ctx.printer.note("there are no runs yet; begin one: outlast run -- COMMAND");
    } else {
        let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
        let head = ["RUN", "STATE", "STEP", "LOSS", "DURABLE", "ATTEMPTS", "COST", "TOOK", "MACHINE"];
        ctx.printer.table(&head, &rows);
    }
    Ok(ExitCode::Ok)
}

fn row(run: &v1::RunView) -> Vec<String> {
    let machine = if run.machine.is_empty() || run.ended_ms > 0 { "-" } else { short(&run.machine) };
    vec![
        run.name.clone(),
        state(run),
        step(run.step),
        run.loss.map_or_else(|| "-".to_owned(), value),
        step(run.durable_step),
        run.attempts.to_string(),
        money(run.cost_usd),
        span(run.created_ms, run.ended_ms),
        machine.to_owned(),
    ]
}

fn state(run: &v1::RunView) -> String {
    match (run.state.as_str(), run.phase.as_str()) {
        ("RUNNING", phase) if !phase.is_empty() && phase != "running" => format!("RUNNING ({phase})"),
        // While it goes on, the last code is that of an earlier attempt.
        (state, _) => {
            let code = run.exit_code.filter(|_| run.ended_ms > 0);
            code.map_or_else(|| state.to_owned(), |code| format!("{state} ({code})"))
        }
    }
}

fn show(ctx: &Context, detail: &v1::RunDetail) {
    let run = detail.run.clone().unwrap_or_default();
    let spec: Option<lifecycle::RunSpec> = serde_json::from_str(&detail.spec_json).ok();
    describe(ctx, "run", &format!("{} ({})", run.name, run.id));
    describe(ctx, "project", &run.project);
    describe(ctx, "state", &state(&run));
    if run.question.is_none() {
        describe(ctx, "reason", &run.reason);
    }
    describe(ctx, "command", &spec.map(|spec| spec.command.join(" ")).unwrap_or_default());
    describe(ctx, "forked", &run.forked_from);
    for change in &run.changes {
        describe(ctx, "changed", change);
    }
    describe(ctx, "began", &moment(run.created_ms));
    describe(ctx, "took", &span(run.created_ms, run.ended_ms));
    describe(ctx, "step", &step(run.step));
    describe(ctx, "loss", &run.loss.map(digits).unwrap_or_default());
    describe(ctx, "rate", &run.rate.map(|rate| format!("{rate:.2} steps/s")).unwrap_or_default());
    describe(ctx, "ahead", &Ahead::of(detail).map(|ahead| ahead.text()).unwrap_or_default());
    describe(ctx, "durable", &step(run.durable_step));
    describe(ctx, "produced", &step(run.produced_step));
    describe(ctx, "saves", &run.saves.as_ref().map(saves).unwrap_or_default());
    describe(ctx, "cost", &money(run.cost_usd));
    for room in &detail.rooms {
        describe(ctx, "budget", &super::cost::room_line(room));
    }
    if run.state == "BUDGET_STOPPED" {
        describe(ctx, "budget", super::cost::BUDGET_STOPPED);
    }
    super::answer::show(ctx, &run);
    if !detail.attempts.is_empty() {
        let rows: Vec<Vec<String>> = detail.attempts.iter().map(attempt_row).collect();
        ctx.printer.line("");
        ctx.printer.table(&["ATTEMPT", "STATE", "FROM", "TO", "TOOK", "MACHINE", "ENDING"], &rows);
        for told in losses::told(&losses_of(detail), run.cost_usd) {
            describe(ctx, "lost", &told);
        }
    }
    if !detail.machines.is_empty() {
        ctx.printer.line("");
        super::machines::table(ctx, &detail.machines);
    }
    if !detail.metrics.is_empty() {
        let rows: Vec<Vec<String>> = detail.metrics.iter().take(METRICS).map(metric_row).collect();
        ctx.printer.line("");
        ctx.printer.table(&["METRIC", "LAST", "STEP", "MIN", "MAX", "POINTS"], &rows);
        let more = detail.metrics.len().saturating_sub(METRICS);
        if more > 0 {
            ctx.printer.note(&format!("{more} more metrics: --json shows all"));
        }
    }
    for note in &detail.notes {
        describe(ctx, "note", note);
    }
}

/// How often it saves, what would be best, and what the difference costs.
fn saves(saves: &v1::SavesView) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded on both sides")]
    let span = |seconds: f64| duration(seconds.clamp(0.0, 1e9) as u64);
    let mut text = format!("every {}, best {}", span(saves.own_s), span(saves.best_s));
    // A tenth of a cent is nothing.
    if saves.wasted_usd_per_hour >= 0.001 {
        let (wasted, spare) = (money(saves.wasted_usd_per_hour), money(saves.spare_usd_per_hour));
        text.push_str(&format!("; of an hour {wasted} are wasted, the best would spare {spare} of it"));
    }
    match (saves.adaptive, saves.deaf) {
        (true, true) => text.push_str("; it does not save when it is asked"),
        (true, false) => text.push_str(&format!("; asked {} times", saves.asked)),
        (false, _) if saves.own_s > saves.best_s * 2.0 => {
            text.push_str("; checkpoints.cadence = \"adaptive\" asks it to save");
        }
        _ => {}
    }
    text
}

fn attempt_row(attempt: &v1::AttemptView) -> Vec<String> {
    vec![
        attempt.number.to_string(),
        attempt.state.clone(),
        step(attempt.resumed_step),
        step(attempt.last_step),
        span(attempt.started_ms, attempt.ended_ms),
        short(&attempt.machine_id).to_owned(),
        brief(&attempt.ending).to_owned(),
    ]
}

fn metric_row(metric: &v1::MetricView) -> Vec<String> {
    vec![
        metric.name.clone(),
        digits(metric.last),
        step(metric.step),
        digits(metric.min),
        digits(metric.max),
        metric.count.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_has_ended_shows_a_code() {
        let run = |state: &str, ended_ms| v1::RunView {
            state: state.into(),
            phase: "running".into(),
            exit_code: Some(143),
            ended_ms,
            ..Default::default()
        };
        assert_eq!(state(&run("RUNNING", 0)), "RUNNING");
        assert_eq!(state(&run("RECOVERING", 0)), "RECOVERING");
        assert_eq!(state(&run("FAILED", 7)), "FAILED (143)");
    }
}
