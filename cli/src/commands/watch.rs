//! `outlast watch`: looks at a run again and again and says what is new and
//! wrong: on the terminal, to a command, to a webhook. It changes nothing at the
//! run. What stands in an alert is out of a log: it goes to a command on its
//! standard input alone, never into a command line.

mod look;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use curves::early::Rule;
use serde_json::{Value, json};

use super::analyze::{live, wandb, words};
use crate::app::Context;
use crate::args::WatchArgs;
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{Style, Verbosity};
pub(crate) use look::{Alert, Seen, Sought, judged};

/// A command or a webhook has so long for an alert.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a webhook is tried, and the pause after the first time.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// Does it.
///
/// # Errors
/// Where there is no such run or path, or the webhook's address is not there.
pub async fn perform(ctx: &Context, args: &WatchArgs) -> anyhow::Result<ExitCode> {
    let webhook = args.webhook_env.as_deref().map(|name| address(ctx, name)).transpose()?;
    let shown = args.path.display().to_string();
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
        let is_copy = place != args.path;
        let known = if is_copy { live::Known::read(&place) } else { live::Known::default() };
        let sought = Sought { rules: &args.rules, stalled: args.stalled, shown: &shown, is_copy };
        let (path, format) = (place, args.format);
        let followers = ctx.followers.clone();
        let looked = tokio::task::spawn_blocking(move || judged(&path, format, &followers)).await?;
        let mut is_over = ended.is_some();
        let mut alerts = match looked {
            Ok(runs) => {
                tail(ctx, args, seen.values(&runs));
                // Of files nothing more comes where the one run in them has ended.
                is_over |= !is_copy && args.path.is_file() && runs.iter().all(|run| run.ending.is_some());
                seen.alerts(&sought, &runs)
            }
            // A run that has just begun has nothing to say yet, and one that failed at
            // its beginning never will.
            Err(_) if is_copy && (ended.is_some() || !args.once) => Vec::new(),
            Err(failure) => return Err(failure),
        };
        alerts.extend(ended.map(|state| Alert::over(&shown, &state, known.why.as_ref())));
        for alert in alerts {
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
    if let Some(found) = Box::pin(wandb::fetched(ctx, path)).await? {
        return Ok((found.dir, found.ended));
    }
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

/// Shows new values to a person who looks on.
fn tail(ctx: &Context, args: &WatchArgs, news: Vec<look::News>) {
    let settings = ctx.printer.settings();
    if !settings.stdout.terminal || settings.verbosity == Verbosity::Quiet || args.json {
        return;
    }
    let now = super::moment(super::now_ms());
    for one in news {
        let style = if one.is_best { Style::Green } else { Style::Dim };
        let name = ctx.printer.paint(Style::Cyan, &one.run);
        ctx.printer.line(&format!("{now} {name}: {}", ctx.printer.paint(style, &one.text)));
    }
}

async fn tell(ctx: &Context, args: &WatchArgs, webhook: Option<&str>, alert: &Alert) {
    // Whoever is told of it is told the same moment.
    let now = super::now_ms();
    let json = alert.json(now);
    if args.json {
        ctx.printer.line(&json.to_string());
    } else {
        let style = if alert.kind == "ended" { Style::Yellow } else { Style::Red };
        let text = ctx.printer.paint(style, &alert.text);
        ctx.printer.line(&format!("{} {}: {text}", super::moment(now), words::name(&alert.run)));
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
