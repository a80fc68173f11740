//! `outlast watch`: looks at a run again and again and says what is new and
//! wrong: on the terminal, to a command, to a webhook. It changes nothing at the
//! run. What stands in an alert is out of a log: it goes to a command on its
//! standard input alone, never into a command line.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use curves::early::Rule;
use curves::judge::{Report, Severity};
use serde_json::{Value, json};

use super::analyze::gather::{Gathered, gather};
use super::analyze::{live, words};
use crate::app::Context;
use crate::args::WatchArgs;
use crate::exit_code::{ExitCode, Failure};

/// A command or a webhook has so long for an alert.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a webhook is tried, and the pause after the first time.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Alerts that are told of one run.
const MOST: usize = 1_000;

/// What is worth telling.
struct Alert {
    run: String,
    /// `rule`, `finding`, `stalled`, `ended`.
    kind: &'static str,
    text: String,
    step: Option<u64>,
}

impl Alert {
    fn json(&self, at_ms: u64) -> Value {
        json!({"run": self.run, "kind": self.kind, "text": self.text, "step": self.step, "at_ms": at_ms})
    }
}

/// What was told, and when something came last.
#[derive(Default)]
struct Seen {
    told: BTreeSet<String>,
    values: u64,
    moved: Option<Instant>,
    stalled: bool,
}

/// Does it.
///
/// # Errors
/// Where there is no such run or path, or the webhook's address is not there.
pub async fn perform(ctx: &Context, args: &WatchArgs) -> anyhow::Result<ExitCode> {
    let webhook = args.webhook_env.as_deref().map(|name| address(ctx, name)).transpose()?;
    let mut seen = Seen::default();
    let mut any = false;
    loop {
        let (place, ended) = match look_up(ctx, &args.path).await {
            // A controller that is replaced comes back.
            Err(error) if !args.once && ExitCode::of(&error) == ExitCode::Unreachable => {
                ctx.printer.warn(&format!("not looked at this time: {error}"));
                tokio::time::sleep(args.interval).await;
                continue;
            }
            found => found?,
        };
        let (path, format) = (place.clone(), args.format);
        let looked = tokio::task::spawn_blocking(move || judged(&path, format)).await?;
        let alerts = match looked {
            Ok(runs) => {
                let mut alerts: Vec<Alert> =
                    runs.iter().flat_map(|(name, report)| news(args, name, report, &mut seen)).collect();
                alerts.extend(stands_still(args, &runs, &mut seen));
                alerts
            }
            // A run that has just begun has nothing to say yet.
            Err(_) if ended.is_none() && !args.once && place != args.path => Vec::new(),
            Err(failure) => return Err(failure.into()),
        };
        let over = ended.map(|state| Alert {
            run: args.path.display().to_string(),
            kind: "ended",
            text: format!("the run has ended: {state}"),
            step: None,
        });
        let is_over = over.is_some();
        for alert in alerts.into_iter().chain(over) {
            any |= alert.kind != "ended";
            tell(ctx, args, webhook.as_deref(), &alert).await;
        }
        if args.once || is_over || (any && args.until_alert) {
            return Ok(if any { ExitCode::Unhealthy } else { ExitCode::Ok });
        }
        tokio::select! {
            () = tokio::time::sleep(args.interval) => {}
            _ = tokio::signal::ctrl_c() => return Ok(if any { ExitCode::Unhealthy } else { ExitCode::Ok }),
        }
    }
}

/// Where a run's files are, and its state where it has ended.
async fn look_up(ctx: &Context, path: &Path) -> anyhow::Result<(PathBuf, Option<String>)> {
    let Some(name) = path.to_str().filter(|name| !path.exists() && live::may_be_run(name)) else {
        return Ok((path.to_owned(), None));
    };
    Ok(match live::fetched(ctx, name).await? {
        Some((place, detail)) => {
            let run = detail.run.unwrap_or_default();
            (place, (run.ended_ms > 0).then_some(run.state))
        }
        None => (path.to_owned(), None),
    })
}

fn judged(path: &PathBuf, format: Option<curves::format::Format>) -> Result<Vec<(String, Report)>, Failure> {
    let runs = gather(std::slice::from_ref(path), format)?.runs;
    let name = |run: &Gathered| words::path(run.path());
    Ok(runs.iter().map(|run| (name(run), run.judge())).collect())
}

/// What is new in a report.
fn news(args: &WatchArgs, run: &str, report: &Report, seen: &mut Seen) -> Vec<Alert> {
    let step = report.metrics.iter().filter_map(|metric| metric.last_step).max();
    let alert = |kind, text| Alert { run: run.to_owned(), kind, text, step };
    let mut alerts = Vec::new();
    for rule in &args.rules {
        if let Some(why) = rule.holds(report, &mut |_| Vec::new()) {
            alerts.push((
                format!("{run} {rule}"),
                alert("rule", format!("{} (rule `{rule}`)", words::ascii(&why))),
            ));
        }
    }
    let grave = report.findings.iter().filter(|finding| finding.severity >= Severity::Warning);
    for finding in grave.filter(|_| args.rules.is_empty()) {
        let since = finding.first_step.map(|step| format!(" since step {step}")).unwrap_or_default();
        let what = finding.kind.name().replace('_', " ");
        let text = format!(
            "{}: {what}{since}. {}",
            words::name(&finding.metric),
            words::ascii(&finding.recommendation)
        );
        alerts.push((format!("{run} {} {}", finding.kind.name(), finding.metric), alert("finding", text)));
    }
    let fresh =
        |(key, alert): (String, Alert)| (seen.told.len() < MOST && seen.told.insert(key)).then_some(alert);
    alerts.into_iter().filter_map(fresh).collect()
}

/// No value came for as long as was asked; told once for each time.
fn stands_still(args: &WatchArgs, runs: &[(String, Report)], seen: &mut Seen) -> Option<Alert> {
    let values = runs.iter().flat_map(|(_, report)| &report.metrics).map(|metric| metric.count).sum();
    if values != seen.values || seen.moved.is_none() {
        (seen.values, seen.moved, seen.stalled) = (values, Some(Instant::now()), false);
    }
    let rested = seen.moved?.elapsed();
    if seen.stalled || args.stalled.is_none_or(|most| rested <= most) {
        return None;
    }
    seen.stalled = true;
    let text = format!("no value came for {} s", rested.as_secs());
    Some(Alert { run: args.path.display().to_string(), kind: "stalled", text, step: None })
}

async fn tell(ctx: &Context, args: &WatchArgs, webhook: Option<&str>, alert: &Alert) {
    // Whoever is told of it is told the same moment.
    let now = super::now_ms();
    let json = alert.json(now);
    if args.json {
        ctx.printer.line(&json.to_string());
    } else {
        ctx.printer.line(&format!("{} {}: {}", super::moment(now), words::name(&alert.run), alert.text));
    }
    if let Some(line) = &args.exec {
        let (line, input) = (line.clone(), json.to_string());
        let ran = tokio::task::spawn_blocking(move || handed(&line, &input)).await;
        if let Ok(Err(why)) = ran {
            ctx.printer.warn(&format!("the command for alerts: {why}"));
        }
    }
    if let Some(url) = webhook
        && let Err(why) = posted(url, alert, &json).await
    {
        ctx.printer.warn(&format!("the webhook: {why}"));
    }
}

/// Runs a command with an alert on its standard input.
fn handed(line: &str, input: &str) -> Result<(), String> {
    let mut command = Command::new("sh");
    command.args(["-c", line]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // Who does not read it misses nothing else.
        let _ = stdin.write_all(input.as_bytes());
    }
    let until = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("it ended with {status}")),
            None if Instant::now() > until => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it took longer than {} s and was ended", PATIENCE.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The address of a webhook, which is a secret: it stands in a variable.
fn address(ctx: &Context, name: &str) -> Result<String, Failure> {
    let found = ctx.env.get(name).filter(|url| url.starts_with("https://") || url.starts_with("http://"));
    found.cloned().ok_or_else(|| {
        Failure::new(ExitCode::Usage, format!("the variable {name} holds no address of a webhook"))
            .help("export it first: the address itself is never an argument, since others could read it")
    })
}

/// Sends an alert as Slack and its like take it.
async fn posted(url: &str, alert: &Alert, json: &Value) -> Result<(), String> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(PATIENCE)
        .build()
        .map_err(|_| "it cannot be asked".to_owned())?;
    let body = json!({"text": format!("{}: {}", alert.run, alert.text), "alert": json}).to_string();
    let mut why = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(PAUSE * 4_u32.pow(attempt - 1)).await;
        }
        let request = client.post(url).header("Content-Type", "application/json").body(body.clone());
        // An error of the library would name the address.
        why = match request.send().await.map(|response| response.status().as_u16()) {
            Ok(200..=299) => return Ok(()),
            Ok(status @ (408 | 425 | 429 | 500..=599)) => format!("it answered {status}"),
            Ok(status) => return Err(format!("it answered {status}")),
            Err(error) if error.is_timeout() => "no answer in time".to_owned(),
            Err(_) => "it cannot be reached".to_owned(),
        };
    }
    Err(format!("{why}, {TRIES} times"))
}

/// Reads a rule of the command line.
///
/// # Errors
/// Why it is none.
pub fn rule(text: &str) -> Result<Rule, String> {
    text.parse::<Rule>().map_err(|error| error.to_string())
}
