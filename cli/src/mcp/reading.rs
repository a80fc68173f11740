//! Tools that ask the controller and change nothing. What runs, machines and
//! providers said is shown in quotes: it is data, whatever it says.

use std::collections::VecDeque;

use controller::capsule::Capsule;
use proto::v1;
use serde_json::{Value, json};

use super::arguments::Arguments;
use super::desk::Desk;
use super::paging::newest_first;
use super::reply::{Item, Reply, quoted, spelt};
use crate::args::ConfigArgs;
use crate::client::selector;
use crate::commands::analyze::words;
use crate::commands::why::in_short;
use crate::commands::{answer, brief, load, now_ms, short, span, step};
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{bytes, money};
use crate::report::Ahead;

/// Entries of a page before it is cut to the budget.
const PAGE: usize = 200;

/// The part of a list that begins at `first`.
fn page<T>(all: Vec<T>, first: u64, item: impl Fn(T) -> Item) -> (Vec<Item>, u64, bool) {
    let skip = usize::try_from(first).unwrap_or(usize::MAX);
    let more = all.len().saturating_sub(skip) > PAGE;
    (all.into_iter().skip(skip).take(PAGE).map(item).collect(), first, more)
}

impl Reply {
    /// A page of a list that grows at its front.
    fn newest<T, K: Ord>(
        self,
        all: Vec<T>,
        behind: Option<u64>,
        order: (impl Fn(&T) -> u64, impl Fn(&T) -> K),
        item: impl Fn(T) -> Item,
    ) -> Self {
        let (all, numbers) = newest_first(all, behind, order.0, order.1);
        let (items, first, more) = page(all, 0, item);
        self.page(items, behind.unwrap_or(first), more).numbered(numbers)
    }
}

/// When a run was handed in, and what tells it from others of that moment.
fn age() -> (impl Fn(&v1::RunView) -> u64, impl Fn(&v1::RunView) -> String) {
    (|run: &v1::RunView| run.created_ms, |run: &v1::RunView| run.id.clone())
}

/// `list`
pub(super) async fn list(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let (all, behind) = (given.flag("all")?, given.behind()?);
    given.end()?;
    let Some(client) = desk.existing().await? else {
        return Ok(Reply::default().line("no runs yet").fact("runs", 0));
    };
    let runs = answer(client.operator.clone().list_runs(v1::ListRunsRequest { all }).await)?.runs;
    let alerts = client.view().await?.alerts;
    let count = runs.len();
    let item = |run: v1::RunView| {
        let line = format!(
            "{} {} step {} durable {} {}",
            words::name(&run.name),
            words::name(&run.state),
            step(run.step),
            step(run.durable_step),
            money(run.cost_usd)
        );
        Item { line, row: brief_row(&run) }
    };
    let reply = Reply::default().line(counted(count, "run")).fact("runs", count);
    let reply = alerts.iter().fold(reply, |reply, alert| reply.line(format!("alert: {}", quoted(alert))));
    Ok(reply.newest(runs, behind, age(), item))
}

fn brief_row(run: &v1::RunView) -> Value {
    let mut row = json!({ "run": run.name, "state": run.state, "usd": cents(run.cost_usd) });
    for (name, value) in [("step", run.step), ("durable", run.durable_step)] {
        if let Some(value) = value {
            row[name] = json!(value);
        }
    }
    row
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Dollars, to a hundredth of a cent.
fn cents(usd: f64) -> f64 {
    (usd * 10_000.0).round() / 10_000.0
}

/// `status`
pub(super) async fn status(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let run = given.needed("run")?;
    given.end()?;
    let detail = desk.needed().await?.run(&run).await?;
    let run = detail.run.clone().unwrap_or_default();
    let code = run.exit_code.filter(|_| run.ended_ms > 0);
    let mut reply = Reply::default()
        .line(format!(
            "{}: {}{}, step {}, durable {}, {} attempts, {}, took {}",
            words::name(&run.name),
            words::name(&run.state),
            code.map(|code| format!(" (exit {code})")).unwrap_or_default(),
            step(run.step),
            step(run.durable_step),
            run.attempts,
            money(run.cost_usd),
            span(run.created_ms, run.ended_ms),
        ))
        .fact("run", run.name.as_str())
        .fact("state", run.state.as_str())
        .fact("step", run.step)
        .fact("durable", run.durable_step)
        .fact("exit", code)
        .fact("usd", cents(run.cost_usd));
    if let Some(question) = &run.question {
        reply = reply.line(format!("it waits for a person's answer: {}", quoted(&question.text)));
        for choice in &question.options {
            reply = reply.line(format!("  {} {}", choice.number, quoted(&choice.text)));
        }
    } else if !run.reason.is_empty() {
        reply = reply.line(format!("reason {}", quoted(&run.reason)));
    }
    if let Some(loss) = run.loss {
        reply = reply.line(format!("loss {loss}")).fact("loss", loss);
    }
    if let Some(rate) = run.rate {
        reply = reply.line(format!("{rate:.3} steps/s"));
    }
    if let Some(ahead) = Ahead::of(&detail) {
        reply = reply.line(format!("ahead: {}", ahead.text())).fact("usd_left", ahead.usd.map(cents));
    }
    if !run.forked_from.is_empty() {
        reply = reply.line(format!("forked from {}", words::name(&run.forked_from)));
    }
    for attempt in detail.attempts.iter().rev().take(5) {
        reply = reply.line(format!(
            "attempt {} {} on {}: steps {} to {}{}",
            attempt.number,
            words::name(&attempt.state),
            words::name(short(&attempt.machine_id)),
            step(attempt.resumed_step),
            step(attempt.last_step),
            Some(brief(&attempt.ending))
                .filter(|how| !how.is_empty())
                .map(|how| format!(" {}", quoted(how)))
                .unwrap_or_default()
        ));
    }
    for metric in detail.metrics.iter().take(20) {
        let at = metric.step.map(|step| format!(" at {step}")).unwrap_or_default();
        reply = reply.line(format!("{} {}{at}", words::metric(&metric.name), metric.last));
    }
    Ok(reply)
}

/// `why`
pub(super) async fn why(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let run = given.needed("run")?;
    let attempt = given.whole("attempt", 1, 1_000_000)?.unwrap_or(0);
    given.end()?;
    let ask = v1::WhyRequest { run, attempt: u32::try_from(attempt).unwrap_or(u32::MAX) };
    let json = answer(desk.needed().await?.operator.clone().why(ask).await)?.capsule_json;
    let capsule: Capsule = serde_json::from_str(&json).map_err(|error| {
        Failure::new(ExitCode::Internal, format!("the controller's answer cannot be read: {error}"))
            .help("the controller may be of another version: `outlast controller status`")
    })?;
    let cause = serde_json::to_value(capsule.verdict.cause).unwrap_or_default();
    let text = in_short(&capsule);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let mut reply = Reply::default()
        .line(format!("why, quoted where a program may speak: {}", quoted(lines.next().unwrap_or_default())))
        .fact("cause", cause)
        .fact("attempt", capsule.attempt.number)
        .fact("ended", capsule.is_final);
    let next: Vec<String> = capsule.verdict.next.iter().map(|text| spelt(text, 160)).collect();
    let because: Vec<String> = capsule.verdict.because.iter().map(|text| spelt(text, 160)).collect();
    for line in lines {
        reply = reply.line(quoted(line.trim()));
    }
    Ok(reply.fact("because", because).fact("try", next))
}

/// `events`
pub(super) async fn events(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let run = given.text("run")?.unwrap_or_default();
    let before = given.cursor()?;
    given.end()?;
    let all = run.is_empty();
    let client = desk.needed().await?;
    let mut kept = Newest { before, ..Newest::default() };
    while !kept.whole {
        let ask = v1::EventsRequest { run: run.clone(), after: kept.last, limit: EVENTS, verify: false };
        kept.take(answer(client.operator.clone().events(ask).await)?.events);
    }
    let (list, more) = (kept.events, kept.older);
    // Numbers have gaps where other runs speak: the cursor is the last number shown.
    let now = now_ms();
    // Of one run the object is mostly the run.
    let object = |event: &v1::EventView| all.then(|| short(&event.object).to_owned());
    let line = |event: &v1::EventView| {
        let (age, verb) = (span(event.at_ms, now), words::name(&event.verb));
        let object = object(event).map(|object| format!(" {}", words::name(&object)));
        format!("{} {age} ago {verb}{}{}", event.seq, object.unwrap_or_default(), detail(&event.detail_json))
    };
    let row = |event: &v1::EventView| match object(event) {
        Some(object) => json!([event.seq, event.verb, object]),
        None => json!([event.seq, event.verb]),
    };
    let numbers = list.iter().rev().map(|event| event.seq).collect();
    let items = list.iter().rev().map(|event| Item { line: line(event), row: row(event) }).collect();
    Ok(Reply::default().line("events, newest first").page(items, before, more).numbered(numbers))
}

/// Events of one answer of the controller's, which gives the oldest first.
const EVENTS: u32 = 1_000;

/// The newest events of a journal that is read from its beginning.
#[derive(Default)]
struct Newest {
    /// Only events with a lesser number; 0 is any.
    before: u64,
    /// The newest, in order of their numbers.
    events: VecDeque<v1::EventView>,
    /// There are older ones.
    older: bool,
    /// The greatest number that was seen.
    last: u64,
    /// Nothing more is to be read.
    whole: bool,
}

impl Newest {
    fn take(&mut self, page: Vec<v1::EventView>) {
        self.whole = page.len() < EVENTS as usize;
        for event in page {
            self.last = event.seq;
            if self.before > 0 && event.seq >= self.before {
                self.whole = true;
                return;
            }
            self.events.push_back(event);
            if self.events.len() > PAGE {
                self.events.pop_front();
                self.older = true;
            }
        }
    }
}

/// What is known besides, quoted; what is not there is left out.
fn detail(text: &str) -> String {
    let Ok(Value::Object(parts)) = serde_json::from_str(text) else { return String::new() };
    let parts = parts.iter().filter(|(_, value)| !value.is_null());
    let told: Vec<String> = parts
        .map(|(name, value)| {
            format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    let told: String = told.join(" ").chars().take(60).collect();
    if told.is_empty() { told } else { format!(" {}", quoted(&told)) }
}

/// `checkpoints`
pub(super) async fn checkpoints(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let (run, behind) = (given.needed("run")?, given.behind()?);
    given.end()?;
    let ask = desk.needed().await?.operator.clone().list_checkpoints(selector(&run)).await;
    let list = answer(ask)?.checkpoints;
    let count = list.len();
    let order = (
        |one: &v1::CheckpointView| one.step.unwrap_or(0),
        |one: &v1::CheckpointView| (one.committed_ms, one.key.clone()),
    );
    let item = |one: v1::CheckpointView| {
        let mut line = format!("step {} {} {}", step(one.step), words::name(&one.state), bytes(one.bytes));
        let mut row = json!({ "step": one.step, "state": one.state, "bytes": one.bytes });
        if one.head {
            line.push_str(" head");
            row["head"] = json!(true);
        }
        if let Some(score) = one.score {
            line.push_str(&format!(" score {score}"));
            row["score"] = json!(score);
        }
        if !one.trouble.is_empty() {
            line.push_str(&format!(" damaged {}", quoted(&one.trouble)));
            row["damaged"] = json!(true);
        }
        Item { line, row }
    };
    let reply =
        Reply::default().line(format!("{count} checkpoints, newest first")).fact("checkpoints", count);
    Ok(reply.newest(list, behind, order, item))
}

/// `cost`
pub(super) async fn cost(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let (run, behind) = (given.text("run")?, given.behind()?);
    given.end()?;
    let client = desk.needed().await?;
    let Some(run) = run else {
        let runs = answer(client.operator.clone().list_runs(v1::ListRunsRequest { all: true }).await)?.runs;
        let total: f64 = runs.iter().map(|run| run.cost_usd).sum();
        let item = |run: v1::RunView| Item {
            line: format!("{} {}", words::name(&run.name), money(run.cost_usd)),
            row: json!({ "run": run.name, "usd": cents(run.cost_usd) }),
        };
        let reply =
            Reply::default().line(format!("all runs cost {}", money(total))).fact("usd", cents(total));
        return Ok(reply.newest(runs, behind, age(), item));
    };
    let detail = client.run(&run).await?;
    let run = detail.run.unwrap_or_default();
    let spec = serde_json::from_str::<lifecycle::RunSpec>(&detail.spec_json).ok();
    let cap = spec.and_then(|spec| spec.max_usd);
    let of = cap.map_or_else(|| ", no cap".to_owned(), |cap| format!(" of at most {}", money(cap)));
    let (items, first, more) = page(detail.machines, behind.unwrap_or(0), |machine| Item {
        line: format!(
            "machine {} of {} at {}/h, {}: {}",
            words::name(short(&machine.id)),
            words::name(&machine.provider),
            money(machine.usd_per_hour),
            span(machine.created_ms, machine.ended_ms),
            money(machine.cost_usd)
        ),
        row: json!({ "machine": short(&machine.id), "usd_per_hour": machine.usd_per_hour, "usd": cents(machine.cost_usd) }),
    });
    Ok(Reply::default()
        .line(format!("{} cost {}{of}", words::name(&run.name), money(run.cost_usd)))
        .fact("usd", cents(run.cost_usd))
        .fact("max_usd", cap)
        .page(items, first, more))
}

/// `offers`
pub(super) async fn offers(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let (provider, first) = (given.text("provider")?, given.cursor()?);
    given.end()?;
    let none = ConfigArgs { config: None, set: Vec::new() };
    let loaded = load(&desk.ctx, &desk.project, &none, &[("run.provider", provider.as_deref())])?;
    let config = &loaded.config;
    let ask = v1::OffersRequest {
        provider: config.run.provider.to_owned(),
        machine_json: serde_json::to_string(&config.machine.spec)?,
        max_usd_per_hour: config.budget.max_usd_per_hour.unwrap_or(0.0),
        ..v1::OffersRequest::default()
    };
    let client = desk.ensured().await?;
    let offers = answer(client.operator.clone().offers(ask).await)?.offers;
    let count = offers.len();
    let (items, first, more) = page(offers, first, |offer| Item {
        line: format!(
            "{} x {} {} {}/h reliable {:.3} in {}",
            offer.gpus,
            words::name(&offer.gpu),
            bytes(offer.gpu_memory_bytes),
            money(offer.usd_per_hour),
            offer.reliability,
            words::name(&offer.place)
        ),
        row: json!({ "gpu": offer.gpu, "gpus": offer.gpus, "usd_per_hour": cents(offer.usd_per_hour), "place": offer.place }),
    });
    let reply = Reply::default()
        .line(format!("{count} offers of {}, the best first", words::name(config.run.provider)));
    Ok(reply.fact("offers", count).page(items, first, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_journal_the_end_is_shown_and_a_cursor_goes_back() {
        let page =
            |from: u64, to: u64| (from..=to).map(|seq| v1::EventView { seq, ..v1::EventView::default() });
        let read = |before| {
            let mut kept = Newest { before, ..Newest::default() };
            while !kept.whole {
                let from = kept.last + 1;
                kept.take(page(from, (from + u64::from(EVENTS) - 1).min(2_345)).collect());
            }
            let ends =
                (kept.events.front().map(|event| event.seq), kept.events.back().map(|event| event.seq));
            (ends.0.unwrap_or(0), ends.1.unwrap_or(0), kept.older)
        };
        assert_eq!(read(0), (2_146, 2_345, true));
        assert_eq!(read(2_146), (1_946, 2_145, true));
        assert_eq!(read(150), (1, 149, false));
        assert_eq!(read(1), (0, 0, false));
    }
}
