//! Follows a run while it is attached: news and output as two streams, shown
//! as they come. The controller may go away and come back at any moment; what
//! was printed is remembered by its offsets, so that no byte of the output is
//! repeated or lost. Never changes the run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub mod output;

use proto::v1;
use tokio::sync::watch;
use tonic::{Status, Streaming};

use crate::app::Context;
use crate::chaos::is_over;
use crate::client::{Client, failure, passing, selector};
use crate::commands::{brief, now_ms, short};
use crate::link::Link;
use crate::printer::{Printer, duration, money, value};
pub use output::{Output, everything};

const TICK: Duration = Duration::from_secs(1);
/// Ticks that output may be late after the end of the run.
const LATE: u32 = 10;

/// Why following ended.
#[derive(Debug)]
pub enum Ending {
    /// The run is over.
    Over(Box<v1::RunDetail>),
    /// Nobody reads the output any more.
    ReaderGone,
}

/// Follows one run.
pub struct Follower<'a> {
    ctx: &'a Context,
    run: String,
    output: Option<Output>,
    news: watch::Sender<Option<v1::RunDetail>>,
    told: Told,
}

impl<'a> Follower<'a> {
    /// Follows the run with this id; without `output`, only its state.
    #[must_use]
    pub fn new(ctx: &'a Context, run: &str, output: bool) -> Self {
        let output = output.then(|| Output::new(&ctx.printer, true));
        Self { ctx, run: run.to_owned(), output, news: watch::channel(None).0, told: Told::default() }
    }

    /// Hears what the follower hears.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<Option<v1::RunDetail>> {
        self.news.subscribe()
    }

    /// Follows until the run is over. Returns what was printed of its output
    /// too, so that what comes later can be added.
    ///
    /// # Errors
    /// Where the controller cannot be reached for long, or refuses.
    pub async fn follow(mut self, link: &mut Link<'_>) -> anyhow::Result<(Ending, Option<Output>)> {
        loop {
            let client = link.client().await?;
            match self.session(&client, link).await {
                Ok(ending) => {
                    self.ctx.printer.clear_progress();
                    return Ok((ending, self.output));
                }
                Err(status) if passing(&status) => link.broke(&status).await?,
                Err(status) => return Err(failure(&status).into()),
            }
        }
    }

    async fn session(&mut self, client: &Client, link: &mut Link<'_>) -> Result<Ending, Status> {
        let mut operator = client.operator.clone();
        let mut news = operator.watch(selector(&self.run)).await?.into_inner();
        let mut logs = match &self.output {
            Some(_) => Some(operator.logs(everything(&self.run, true)).await?.into_inner()),
            None => None,
        };
        let mut last: Option<v1::RunDetail> = None;
        let mut ticks = tokio::time::interval(TICK);
        let mut late = 0;
        loop {
            tokio::select! {
                chunk = next(&mut logs) => match chunk? {
                    Some(chunk) => {
                        link.works();
                        late = 0;
                        if let Some(output) = &mut self.output {
                            output.print(&chunk);
                        }
                        if self.ctx.printer.is_closed() {
                            return Ok(Ending::ReaderGone);
                        }
                    }
                    None => logs = None,
                },
                detail = news.message(), if last.as_ref().is_none_or(|last| !is_over(last)) => {
                    let detail = detail?.ok_or_else(|| Status::unavailable("the controller ended the stream"))?;
                    link.works();
                    self.told.tell(&self.ctx.printer, &detail);
                    self.news.send_replace(Some(detail.clone()));
                    last = Some(detail);
                    self.progress(last.as_ref());
                }
                _ = ticks.tick() => {
                    if let Some(last) = &last {
                        self.told.tell(&self.ctx.printer, last);
                    }
                    self.progress(last.as_ref());
                    let over = last.as_ref().is_some_and(is_over);
                    let closed = logs.is_none() && self.output.is_some();
                    late = if over != closed { late + 1 } else { 0 };
                    if late > LATE {
                        // Output that ended before the run did was cut off.
                        return match last {
                            Some(last) if over => Ok(Ending::Over(Box::new(last))),
                            _ => Err(Status::unavailable("the output was cut off")),
                        };
                    }
                }
            }
            if logs.is_none()
                && let Some(last) = last.take_if(|last| is_over(last))
            {
                return Ok(Ending::Over(Box::new(last)));
            }
        }
    }

    fn progress(&self, detail: Option<&v1::RunDetail>) {
        let clean = self.output.as_ref().is_none_or(Output::line_is_whole);
        if let Some(detail) = detail.filter(|_| clean) {
            let line = progress_line(detail, now_ms());
            // A bar or a question of the program's own that has no end yet.
            let unfinished = self.output.as_ref().and_then(Output::unfinished);
            let half = self.ctx.printer.settings().width / 2;
            let line = match unfinished.map(|text| text.chars().take(half).collect::<String>()) {
                Some(text) if !text.trim().is_empty() => format!("{text} | {line}"),
                _ => line,
            };
            self.ctx.printer.progress(&line);
        }
    }
}

async fn next(logs: &mut Option<Streaming<v1::LogChunk>>) -> Result<Option<v1::LogChunk>, Status> {
    match logs {
        Some(logs) => logs.message().await,
        None => std::future::pending().await,
    }
}

/// What was said of a run's attempts already.
#[derive(Default)]
struct Told {
    attempts: BTreeMap<u32, String>,
    /// Attempts whose program's end was told before their own.
    exited: BTreeSet<u32>,
    /// Why the last one could not be started.
    unstarted: String,
    reason: String,
    /// Notes of the newest attempt; those that were there first are not news.
    notes: Option<BTreeSet<String>>,
}

impl Told {
    fn tell(&mut self, printer: &Printer, detail: &v1::RunDetail) {
        for attempt in &detail.attempts {
            let before = self.attempts.insert(attempt.number, attempt.state.clone());
            if before.as_ref() != Some(&attempt.state)
                && let Some(text) = self.unstarted(attempt, detail).or_else(|| change(attempt))
            {
                printer.note(&text);
            }
            if is_exit_news(attempt, now_ms()) && self.exited.insert(attempt.number) {
                printer.note(&format!("outlast: attempt {}: {}", attempt.number, attempt.ending));
            }
        }
        for note in self.fresh(detail) {
            printer.note(&format!("outlast: {note}"));
        }
        let Some(run) = &detail.run else { return };
        if run.reason != self.reason {
            self.reason.clone_from(&run.reason);
            if !run.reason.is_empty() && !is_over(detail) {
                printer.note(&format!("outlast: {}: {}", run.state.to_lowercase(), run.reason));
            }
            if run.question.is_some() {
                printer.note(&format!("outlast: see the answers and give one: outlast answer {}", run.name));
            }
        }
    }
}

impl Told {
    /// Notes that came since the last look: what is not stored, what is not
    /// taken, what must be looked after.
    fn fresh(&mut self, detail: &v1::RunDetail) -> Vec<String> {
        let now: BTreeSet<String> = detail.notes.iter().cloned().collect();
        let before = self.notes.replace(now);
        let is_new = |note: &&String| before.as_ref().is_some_and(|before| !before.contains(*note));
        detail.notes.iter().filter(is_new).cloned().collect()
    }

    /// What is said of an attempt that could not be started: the first line, as
    /// its output was shown already, and once where it is the same again.
    fn unstarted(&mut self, attempt: &v1::AttemptView, detail: &v1::RunDetail) -> Option<String> {
        let why = brief(&attempt.ending);
        if attempt.state != "ENDED" || !why.starts_with("not started: ") {
            return None;
        }
        let number = attempt.number;
        if self.unstarted == why {
            return Some(format!("outlast: attempt {number} could not be started either"));
        }
        why.clone_into(&mut self.unstarted);
        let run = detail.run.as_ref().map_or("", |run| run.name.as_str());
        let why = why.trim_start_matches("not started: ");
        let more = format!("outlast logs {run} --setup --attempt {number}");
        Some(format!("outlast: attempt {number} could not be started: {why}\n  all of it: {more}"))
    }
}

/// Whether it is worth a line that a program has ended while its attempt goes
/// on: a failure at once, a success where publishing takes its time.
fn is_exit_news(attempt: &v1::AttemptView, now: u64) -> bool {
    const LONG_MS: u64 = 2_000;
    let goes_on = matches!(attempt.state.as_str(), "PREPARING" | "RUNNING" | "STOPPING");
    let success = attempt.ending.contains("(exit code 0)");
    goes_on && attempt.exited_ms > 0 && (!success || now.saturating_sub(attempt.exited_ms) >= LONG_MS)
}

#[expect(clippy::cast_precision_loss, reason = "seconds for display")]
fn change(attempt: &v1::AttemptView) -> Option<String> {
    let number = attempt.number;
    let machine = short(&attempt.machine_id);
    let at = attempt.last_step.map_or_else(String::new, |step| format!(" at step {step}"));
    Some(match attempt.state.as_str() {
        "RUNNING" => {
            let from = attempt.resumed_step.map_or_else(String::new, |step| format!(", from step {step}"));
            let prepared = attempt.prepare_ms as f64 / 1_000.0;
            format!("outlast: attempt {number} runs on machine {machine}{from} (prepared in {prepared:.1} s)")
        }
        "PREPARING" => format!("outlast: attempt {number} is being prepared on machine {machine}"),
        "STOPPING" => format!("outlast: attempt {number} was asked to end{at}"),
        "LOST" => format!("outlast: attempt {number} was lost{at}: {}", attempt.ending),
        "ENDED" if attempt.exit_code != Some(0) => {
            let last = &attempt.last_error_line;
            let said = if last.is_empty() { String::new() } else { format!(": {last}") };
            format!("outlast: attempt {number} ended{at} with {}{said}", attempt.ending)
        }
        _ => return None,
    })
}

fn progress_line(detail: &v1::RunDetail, now: u64) -> String {
    let Some(run) = &detail.run else { return String::new() };
    let phase = match run.state.as_str() {
        "RUNNING" if !run.phase.is_empty() => run.phase.clone(),
        state => state.to_lowercase(),
    };
    let mut parts = vec![run.name.clone(), phase];
    if run.attempts > 1 {
        parts.push(format!("attempt {}", run.attempts));
    }
    parts.extend(run.step.map(|step| format!("step {step}")));
    parts.extend(run.loss.map(|loss| format!("loss {}", value(loss))));
    parts.extend(run.rate.filter(|rate| *rate > 0.0).map(|rate| format!("{rate:.1} steps/s")));
    parts.extend(remaining(detail, run).map(|seconds| format!("ETA {}", duration(seconds))));
    parts.extend(run.durable_step.map(|step| format!("durable {step}")));
    parts.push(money(run.cost_usd));
    parts.push(duration(now.saturating_sub(run.created_ms) / 1_000));
    parts.join(" | ")
}

/// Seconds to the end, where the program says how many steps there are.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an estimate for display"
)]
fn remaining(detail: &v1::RunDetail, run: &v1::RunView) -> Option<u64> {
    let total = detail
        .metrics
        .iter()
        .find(|metric| matches!(metric.name.as_str(), "total_steps" | "max_steps"))?
        .last;
    let left = total - run.step? as f64;
    let rate = run.rate.filter(|rate| *rate > 0.0)?;
    (left.is_finite() && left >= 0.0).then(|| (left / rate) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_failed_is_told_at_once_and_one_that_did_well_only_if_publishing_takes_long() {
        let attempt = |code: i32, state: &str| v1::AttemptView {
            state: state.into(),
            ending: format!("program ended (exit code {code}), publishing what it left"),
            exited_ms: 10_000,
            ..Default::default()
        };
        assert!(is_exit_news(&attempt(1, "RUNNING"), 10_000));
        assert!(
            !is_exit_news(&attempt(0, "RUNNING"), 10_500) && is_exit_news(&attempt(0, "STOPPING"), 12_000)
        );
        assert!(!is_exit_news(&attempt(1, "ENDED"), 10_000), "its end is told by itself");
        assert!(!is_exit_news(&v1::AttemptView { exited_ms: 0, ..attempt(1, "RUNNING") }, 99_000));
    }

    #[test]
    fn notes_that_come_while_one_looks_are_told_once() {
        let mut told = Told::default();
        let mut fresh = |notes: &[&str]| {
            let notes = notes.iter().map(|note| (*note).to_owned()).collect();
            told.fresh(&v1::RunDetail { notes, ..Default::default() })
        };
        assert_eq!(fresh(&["old"]), [""; 0]);
        assert_eq!(fresh(&["old", "what is saved cannot be stored"]), ["what is saved cannot be stored"]);
        assert_eq!(fresh(&["old", "what is saved cannot be stored"]), [""; 0]);
    }

    #[test]
    fn what_could_not_be_started_is_told_once() {
        let attempt = |number: u32, ending: &str| v1::AttemptView {
            number,
            state: "ENDED".into(),
            ending: ending.into(),
            exit_code: Some(127),
            ..Default::default()
        };
        let run = Some(v1::RunView { name: "p-abc".into(), ..Default::default() });
        let detail = v1::RunDetail { run, ..Default::default() };
        let mut told = Told::default();
        let long =
            "not started: the environment: `pip` failed\nWARNING: Retrying\nERROR: none: environment failed";
        let mut say = |n, ending| told.unstarted(&attempt(n, ending), &detail);
        let expected = "outlast: attempt 1 could not be started: the environment: `pip` failed\n  \
                        all of it: outlast logs p-abc --setup --attempt 1";
        assert_eq!(say(1, long).as_deref(), Some(expected));
        assert_eq!(say(2, long).as_deref(), Some("outlast: attempt 2 could not be started either"));
        assert!(say(3, "not started: another reason").is_some_and(|text| text.contains("another reason")));
        assert_eq!(say(4, "exit code 1"), None);
    }

    #[test]
    fn the_progress_line_says_only_what_is_known() {
        let mut run = v1::RunView {
            name: "digits-abc".into(),
            state: "PROVISIONING".into(),
            created_ms: 1_000,
            ..Default::default()
        };
        let line = |run: &v1::RunView, metrics: &[v1::MetricView]| {
            let detail =
                v1::RunDetail { run: Some(run.clone()), metrics: metrics.to_vec(), ..Default::default() };
            progress_line(&detail, 66_000)
        };
        assert_eq!(line(&run, &[]), "digits-abc | provisioning | $0.00 | 1m 05s");
        run = v1::RunView {
            state: "RUNNING".into(),
            phase: "running".into(),
            attempts: 2,
            step: Some(40),
            loss: Some(0.5),
            rate: Some(2.0),
            durable_step: Some(30),
            cost_usd: 0.25,
            ..run
        };
        let total = v1::MetricView { name: "total_steps".into(), last: 100.0, ..Default::default() };
        assert_eq!(
            line(&run, &[total]),
            "digits-abc | running | attempt 2 | step 40 | loss 0.5000 | 2.0 steps/s | ETA 30s | durable 30 | $0.25 | 1m 05s"
        );
    }
}
