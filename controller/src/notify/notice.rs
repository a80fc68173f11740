//! Which entries of the journal are news for people, and how each is told.
//! Pure. What programs and providers said is masked and bounded before.

use lifecycle::RunState;
use lifecycle::mask::Masker;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::model::Run;
use crate::store::JournalRow;

/// Longest text of a notice, and of one field of it.
const TEXT_MAX: usize = 2_000;
/// The end of a run and the entry that tells it are written together.
const SAME_MS: u64 = 2_000;

/// What people are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Event {
    /// A run lost its machine.
    Lost,
    /// It goes on, on the same or another machine.
    Resumed,
    /// It waits for an answer.
    Waiting,
    /// It has ended.
    Done,
    /// 50, 80 or 100 % of a cap are spent.
    Budget,
    /// What everything costs, every so many hours.
    Cost,
    /// A provider charged what the ledger does not explain.
    Bill,
    /// Somebody tries whether it works.
    Test,
}

impl Event {
    /// Those that can be chosen.
    pub(super) const CHOSEN: [Self; 7] =
        [Self::Lost, Self::Resumed, Self::Waiting, Self::Done, Self::Budget, Self::Cost, Self::Bill];

    /// Its name in settings and messages.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Resumed => "resumed",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Budget => "budget",
            Self::Cost => "cost",
            Self::Bill => "bill",
            Self::Test => "test",
        }
    }
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Notice {
    /// The same at each try: who gets it twice can tell.
    pub(super) id: String,
    pub(super) event: Event,
    /// Unix milliseconds of what happened.
    pub(super) at_ms: u64,
    /// In a sentence.
    pub(super) text: String,
    /// `id`, `name`, `project`, `state`, `cost_usd`; null where it is of no run.
    pub(super) run: Value,
    pub(super) detail: Value,
}

impl Notice {
    /// The body of a message.
    pub(super) fn json(&self, hub: &str) -> Value {
        json!({
            "id": self.id, "event": self.event.name(), "at_ms": self.at_ms, "text": self.text, "run": self.run,
            "detail": self.detail, "controller": hub,
        })
    }

    /// The same as Slack's incoming webhooks, and those that copy them, take it.
    pub(super) fn slack(&self) -> Value {
        // What stands in angle brackets would be a link or a call to everybody.
        let safe = self.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        json!({ "text": format!("outlast: {safe}") })
    }
}

fn is_final(state: &str) -> bool {
    matches!(state, "SUCCEEDED" | "FAILED" | "CANCELLED" | "BUDGET_STOPPED")
}

/// What one entry tells people, in order. `run` is its run as it is now.
pub(super) fn of(row: &JournalRow, hub: &str, run: Option<&Run>, cost_usd: f64) -> Vec<Notice> {
    if row.verb == "bill-unexplained" {
        return vec![bill(row, hub)];
    }
    let Some(run) = run else { return Vec::new() };
    let mask = Masker::new(&run.spec.env);
    let said = |field: &str| row.detail.get(field).and_then(Value::as_str).unwrap_or_default();
    let number = |field: &str| row.detail.get(field).and_then(Value::as_u64);
    let name = &run.name;
    let mut told: Vec<(Event, String)> = Vec::new();
    let ended_now = run.status.is_final() && run.ended_ms.abs_diff(row.at_ms) <= SAME_MS;
    let ends = match row.verb.as_str() {
        "settled" | "attempt-lost" | "deadline-answered" => is_final(said("run")),
        "closed" | "destroy-run" => ended_now,
        _ => false,
    };
    match row.verb.as_str() {
        "attempt-lost" => told.push((Event::Lost, format!("{name} lost its machine ({})", said("cause")))),
        "bound" if number("number").is_some_and(|number| number > 1) => {
            let from = number("resume")
                .map_or_else(|| "from its beginning".to_owned(), |s| format!("from step {s}"));
            told.push((Event::Resumed, format!("{name} goes on {from}")));
        }
        // What stands is not told again each time that it is met.
        "asked" if row.detail.get("again") != Some(&Value::Bool(true)) => {
            told.push((Event::Waiting, waiting(name, &row.detail)));
        }
        "budget-crossed" => told.push((Event::Budget, crossed(name, &row.detail))),
        _ => {}
    }
    if ends {
        let why = match &run.status {
            RunState::Failed { reason } => format!(": {reason}"),
            _ => String::new(),
        };
        told.push((Event::Done, format!("{name} has ended: {}{why} (${cost_usd:.2})", run.status.name())));
    }
    let facts = json!({
        "id": run.id.to_string(), "name": name, "project": run.spec.project, "state": run.status.name(),
        "cost_usd": cost_usd,
    });
    told.into_iter()
        .map(|(event, text)| Notice {
            id: format!("{hub}.{}.{}", row.seq, event.name()),
            event,
            at_ms: row.at_ms,
            text: clip(&mask.text(&text)),
            run: facts.clone(),
            detail: bounded(&row.detail, &mask),
        })
        .collect()
}

fn waiting(name: &str, detail: &Value) -> String {
    let text = detail.get("text").and_then(Value::as_str).unwrap_or_default();
    let options = detail.get("options").and_then(Value::as_array).into_iter().flatten();
    let options: Vec<String> =
        options.zip(1..).map(|(option, n)| format!("{n} {}", option.as_str().unwrap_or_default())).collect();
    let default = detail.get("default").and_then(Value::as_u64).unwrap_or(1);
    format!(
        "{name} waits for an answer: {text} {} (by itself: {default}). Answer: outlast answer {name} NUMBER",
        options.join("; ")
    )
}

fn crossed(name: &str, detail: &Value) -> String {
    let percent = detail.get("percent").and_then(Value::as_u64).unwrap_or(100);
    let usd = |field: &str| detail.get(field).and_then(Value::as_f64).unwrap_or_default();
    let scope = detail.get("scope").and_then(Value::as_str).unwrap_or("run");
    format!(
        "{name}: {percent} % of what may be spent of the cap of its {scope} are spent: ${:.2} of ${:.2}; of the \
         ${:.2} of the cap ${:.2} are kept back for the end of its machines",
        usd("spent_usd"),
        usd("may_spend_usd"),
        usd("cap_usd"),
        usd("kept_back_usd")
    )
}

fn bill(row: &JournalRow, hub: &str) -> Notice {
    let said = |field: &str| row.detail.get(field).and_then(Value::as_str).unwrap_or_default();
    Notice {
        id: format!("{hub}.{}.bill", row.seq),
        event: Event::Bill,
        at_ms: row.at_ms,
        text: clip(&format!("unexplained money at {}: {}", said("provider"), said("text"))),
        run: Value::Null,
        detail: bounded(&row.detail, &Masker::default()),
    }
}

fn clip(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(TEXT_MAX).collect()
}

/// An entry's detail, masked, with a bound on its size.
fn bounded(detail: &Value, mask: &Masker) -> Value {
    fn walk(value: &Value, mask: &Masker, depth: u32) -> Value {
        match value {
            Value::String(text) => json!(clip(&mask.text(text))),
            Value::Array(items) if depth > 0 => {
                items.iter().take(20).map(|item| walk(item, mask, depth - 1)).collect()
            }
            Value::Object(map) if depth > 0 => {
                map.iter().take(40).map(|(key, item)| (key.clone(), walk(item, mask, depth - 1))).collect()
            }
            Value::Array(_) | Value::Object(_) => Value::Null,
            other => other.clone(),
        }
    }
    walk(detail, mask, 4)
}

/// What everything costs now.
pub(super) fn cost(hub: &str, now_ms: u64, hours: u64, runs: &[(String, String, f64)]) -> Notice {
    let total: f64 = runs.iter().map(|(.., usd)| usd).sum();
    let listed: Vec<Value> = runs
        .iter()
        .take(100)
        .map(|(name, state, usd)| json!({"name": name, "state": state, "cost_usd": usd}))
        .collect();
    let text = format!("{} runs of the last {hours} hours have cost ${total:.2} so far", runs.len());
    Notice {
        id: format!("{hub}.{now_ms}.cost"),
        event: Event::Cost,
        at_ms: now_ms,
        text,
        run: Value::Null,
        detail: json!({"total_usd": total, "runs": listed}),
    }
}

/// Somebody tries whether it works.
pub(super) fn test(hub: &str, now_ms: u64) -> Notice {
    Notice {
        id: format!("{hub}.{now_ms}.test"),
        event: Event::Test,
        at_ms: now_ms,
        text: "this is a test: events of runs arrive here".into(),
        run: Value::Null,
        detail: json!({}),
    }
}
