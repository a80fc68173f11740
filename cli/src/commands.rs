//! One file per verb. A verb asks, prints and says its exit code; what several
//! of them show is written here once.

pub mod analyze;
pub mod answer;
pub mod approve;
pub mod artifacts;
pub mod bill;
pub mod checkpoints;
pub mod completions;
pub mod config;
pub mod controller;
pub mod cost;
pub mod destroy;
pub mod doctor;
pub mod events;
pub mod foreign;
pub mod fork;
pub mod forward;
pub mod health;
pub mod hosts;
pub mod init;
pub mod keys;
pub mod login;
pub mod logs;
pub mod machines;
pub mod notify;
pub mod offers;
pub mod preflight;
pub mod pull;
pub mod recommend;
pub mod resume;
pub mod run;
pub mod simulate;
pub mod status;
pub mod stop;
pub mod sync;
pub mod tidy;
pub mod version;
pub(crate) mod views;
pub mod watch;
pub mod why;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use proto::v1;
use tonic::{Response, Status};

use crate::app::Context;
use crate::args::{ConfigArgs, MachinesVerb, Verb};
use crate::attach::{Attached, attach};
use crate::client::{Client, failure};
use crate::config::{Loaded, Sources};
use crate::exit_code::{ExitCode, Failure};
use crate::printer::{duration, safe};

/// Does what was asked.
///
/// # Errors
/// Whatever the verb could not do.
pub async fn perform(ctx: &Context, verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Run(args) => Box::pin(run::perform(ctx, args)).await,
        Verb::Status(args) => status::perform(ctx, &args).await,
        Verb::Logs(args) => logs::perform(ctx, &args).await,
        Verb::Stop(args) => stop::perform(ctx, &args).await,
        Verb::Destroy(args) if args.foreign => Box::pin(foreign::destroy(ctx, &args)).await,
        Verb::Destroy(args) => destroy::perform(ctx, &args).await,
        Verb::Resume(args) => Box::pin(resume::perform(ctx, &args)).await,
        Verb::Answer(args) => Box::pin(answer::perform(ctx, &args)).await,
        Verb::Machines { verb: Some(MachinesVerb::Upgrade(args)), .. } => {
            Box::pin(machines::upgrade(ctx, args)).await
        }
        Verb::Machines { verb: None, foreign: true, json, .. } => Box::pin(foreign::list(ctx, json)).await,
        Verb::Machines { verb: None, all, json, .. } => machines::perform(ctx, all, json).await,
        Verb::Offers(args) => Box::pin(offers::perform(ctx, args)).await,
        Verb::Init(args) => init::perform(ctx, &args),
        Verb::Recommend(args) => Box::pin(recommend::perform(ctx, args)).await,
        Verb::Hosts(args) => hosts::perform(ctx, &args).await,
        Verb::Health(args) => Box::pin(health::perform(ctx, &args)).await,
        Verb::Checkpoints { run, explain: false, tree: true, json } => {
            checkpoints::tree::perform(ctx, &run, json).await
        }
        Verb::Checkpoints { run, explain, json, .. } => {
            Box::pin(checkpoints::perform(ctx, &run, explain, json)).await
        }
        Verb::Fork(args) => Box::pin(fork::perform(ctx, args)).await,
        Verb::Artifacts { verb } => Box::pin(artifacts::perform(ctx, verb)).await,
        Verb::Pin { checkpoint, json } => tidy::pin(ctx, checkpoint, false, json).await,
        Verb::Unpin { checkpoint, json } => tidy::pin(ctx, checkpoint, true, json).await,
        Verb::Tidy(args) => Box::pin(tidy::perform(ctx, &args)).await,
        Verb::Sync(args) => Box::pin(sync::perform(ctx, args)).await,
        Verb::Pull(args) => Box::pin(pull::perform(ctx, args)).await,
        Verb::Why(args) => why::perform(ctx, &args).await,
        Verb::Events(args) => events::perform(ctx, &args).await,
        Verb::Cost { bill: true, days, json, .. } => Box::pin(bill::perform(ctx, days, json)).await,
        Verb::Cost { run, project, json, .. } => {
            cost::perform(ctx, (run.as_deref(), project.as_deref()), json).await
        }
        Verb::Analyze(args) => Box::pin(analyze::perform(ctx, &args)).await,
        Verb::Forward(args) => Box::pin(forward::perform(ctx, &args)).await,
        Verb::Watch(args) => Box::pin(watch::perform(ctx, &args)).await,
        Verb::Mcp(args) => Box::pin(crate::mcp::serve(ctx, &args)).await,
        Verb::Approve(args) => Box::pin(approve::perform(ctx, &args)).await,
        Verb::View(verb) => Box::pin(views::perform(ctx, verb)).await,
        Verb::Simulate(args) => simulate::perform(ctx, &args),
        Verb::Controller { verb } => Box::pin(controller::perform(ctx, verb)).await,
        Verb::Login(args) => Box::pin(login::login(ctx, &args)).await,
        Verb::Logout => login::logout(ctx),
        Verb::Config { verb } => config::perform(ctx, verb),
        Verb::Notify { verb } => Box::pin(notify::perform(ctx, &verb)).await,
        Verb::Keys { verb } => keys::perform(ctx, &verb),
        Verb::Doctor { json } => Box::pin(doctor::perform(ctx, json)).await,
        Verb::Completions { shell } => Ok(completions::perform(ctx, shell)),
        Verb::Version { json } => Ok(version::perform(ctx, json)),
    }
}

/// An answer, or the refusal as a failure.
///
/// # Errors
/// The refusal.
pub fn answer<T>(reply: Result<Response<T>, Status>) -> Result<T, Failure> {
    reply.map(Response::into_inner).map_err(|status| failure(&status))
}

/// The configuration for a directory, with settings from flags on top.
///
/// # Errors
/// All that is wrong with it.
pub fn load(
    ctx: &Context,
    dir: &Path,
    args: &ConfigArgs,
    more: &[(&str, Option<&str>)],
) -> anyhow::Result<Loaded> {
    let here = std::env::current_dir()?;
    if !dir.is_dir() {
        let why = format!("{} is no directory", dir.display());
        let help =
            "name the directory of the source tree; a command comes after two hyphens: outlast run -- CMD";
        return Err(Failure::new(ExitCode::BadInput, why).help(help).into());
    }
    let named = more.iter().filter_map(|(name, value)| Some(((*name).to_owned(), (*value)?.to_owned())));
    let flags: Vec<(String, String)> = args.set.iter().cloned().chain(named).collect();
    // Relative to where the person stands, not to the tree.
    let file = args.config.as_ref().map(|file| here.join(file));
    let sources =
        Sources { start_dir: dir, user_file: None, env: &ctx.env, flags: &flags, file: file.as_deref() };
    Ok(crate::config::load(&sources)?)
}

/// Follows a run that has just begun; detached it is named, and that is all.
async fn follow_or_name(
    ctx: &Context,
    client: Client,
    run: &v1::RunView,
    (detach, json): (bool, bool),
) -> anyhow::Result<ExitCode> {
    if detach {
        if json {
            ctx.printer.json(run);
        } else {
            ctx.printer.line(&run.name);
        }
        return Ok(ExitCode::Ok);
    }
    let how = Attached { root: project_root(ctx)?, json, chaos: None };
    Box::pin(attach(ctx, client, run, &how)).await
}

/// The root of the project that the person stands in.
///
/// # Errors
/// Where there is no current directory.
pub fn project_root(ctx: &Context) -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir()?;
    let sources = Sources { start_dir: &here, user_file: None, env: &ctx.env, flags: &[], file: None };
    // A broken configuration is no reason to withhold results.
    Ok(crate::config::load(&sources).map_or(here.clone(), |loaded| loaded.root))
}

/// Asks a person; without a terminal nobody can answer.
///
/// # Errors
/// Where nobody is there to be asked.
pub fn confirm(ctx: &Context, question: &str) -> anyhow::Result<bool> {
    if !can_ask(ctx) {
        let why = format!("{question} nobody is there to say so");
        return Err(Failure::new(ExitCode::Usage, why).help("say yes beforehand with --yes").into());
    }
    ctx.printer.report(&format!("{question} [y/N]"));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Whether a person can be asked.
#[must_use]
pub fn can_ask(ctx: &Context) -> bool {
    std::io::stdin().is_terminal() && ctx.printer.settings().stderr.terminal
}

/// Unix milliseconds.
#[must_use]
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The first line of what may be told at length.
#[must_use]
pub fn brief(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The beginning of an id, enough for people.
#[must_use]
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// A step, or that there is none.
#[must_use]
pub fn step(step: Option<u64>) -> String {
    step.map_or_else(|| "-".to_owned(), |step| step.to_string())
}

/// How long something took, or takes so far; `-` if it has not begun.
#[must_use]
pub fn span(from_ms: u64, to_ms: u64) -> String {
    let end = if to_ms == 0 { now_ms() } else { to_ms };
    if from_ms == 0 { "-".to_owned() } else { duration(end.saturating_sub(from_ms) / 1_000) }
}

/// A moment as `2026-01-31T23:59:59.123Z`.
#[must_use]
pub fn moment(unix_ms: u64) -> String {
    let (days, in_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Days are counted from 1 March of the year 0, so that leap days come last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (seconds, millis) = (in_day / 1_000, in_day % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The inverse of [`moment`], for any offset from UTC and any fraction.
#[must_use]
pub fn unix_ms_of(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let parts = |text: &str, by: char| -> Option<[u64; 3]> {
        let plain =
            |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        text.split(by).map(plain).collect::<Option<Vec<u64>>>()?.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (parts(date, '-')?, parts(time, ':')?);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let digits = rest.strip_prefix('.').map_or(0, |r| r.bytes().take_while(u8::is_ascii_digit).count());
    let (fraction, zone) = if digits == 0 { ("", rest) } else { rest[1..].split_at(digits) };
    let millis: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let from_utc: i64 = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.len() == 2);
            sign * (i64::from(number(hours)?) * 60 + i64::from(number(minutes)?))
        }
    };
    let (march_year, from_march) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let in_year = (153 * from_march + 2) / 5 + day - 1;
    let days = march_year * 365 + march_year / 4 - march_year / 100 + march_year / 400 + in_year - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let utc = i64::try_from(seconds).ok()?.checked_sub(from_utc * 60)?;
    let at = u64::try_from(utc).ok()? * 1_000 + millis;
    // A day that the month does not have is another month's.
    moment(days * 86_400_000).starts_with(date).then_some(at)
}

/// One line of a description: a label and a value.
pub fn describe(ctx: &Context, label: &str, value: &str) {
    if !value.is_empty() {
        ctx.printer.line(&format!("{label:<10} {}", safe(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_calendars_have_them() {
        assert_eq!(moment(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(moment(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(moment(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(moment(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn spans_need_a_beginning() {
        assert_eq!(span(0, 0), "-");
        assert_eq!(span(1_000, 66_000), "1m 05s");
    }
}
