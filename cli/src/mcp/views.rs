//! Tools that are views over training curves in files below the roots: each is
//! the answer of one verb, for a client. Nothing is written, whatever is asked.

use std::path::PathBuf;
use std::sync::Arc;

use super::arguments::Arguments;
use super::desk::Desk;
use super::reply::{Reply, for_text};
use super::server::Progress;
use super::{compact, cures};
use crate::args::{
    CompareArgs, GroupArgs, HistoryArgs, MetricsArgs, NoteArgs, PlotArgs, RunsArgs, SettingsArgs, Shown,
    StatsArgs, ViewVerb,
};
use crate::commands::views;
use crate::exit_code::{ExitCode, Failure};

/// The names of the tools.
pub(super) const NAMES: [&str; 10] =
    ["history", "stats", "metrics", "settings", "compare", "config_diff", "find", "group", "plot", "notes"];

/// One of them.
pub(super) async fn view(
    desk: &Arc<Desk>,
    name: &str,
    given: Arguments,
    progress: Progress,
) -> anyhow::Result<Reply> {
    // A drawing has no other form.
    let (most, share) = match name {
        "plot" => (given.granted(), 3),
        _ => (for_text(given.granted()), 2),
    };
    let tokens = u32::try_from(most).unwrap_or(u32::MAX);
    let shown = Shown { tokens, ..Shown::default() };
    let asked = match name {
        "history" => history(desk, given, shown)?,
        "stats" => stats(desk, given, shown)?,
        "settings" => settings(desk, given, shown)?,
        "compare" => compare(desk, given, shown, false)?,
        "config_diff" => compare(desk, given, shown, true)?,
        "find" => find(desk, given, shown)?,
        "group" => group(desk, given, shown)?,
        "plot" => plot(desk, given, shown)?,
        "notes" => notes(desk, given, shown)?,
        _ => metrics(desk, given, shown)?,
    };
    let asked = views::resolved(&desk.ctx, asked).await?;
    let work = move || {
        let _seat = progress.seat;
        views::answer(&asked)
    };
    let (answer, _) = tokio::task::spawn_blocking(work).await??;
    let text = cures::text(&answer.text, share);
    let reply = Reply::view(&text, compact::rows(name, &answer.json));
    Ok(if name == "plot" { reply.plain() } else { reply })
}

fn history(desk: &Desk, mut given: Arguments, shown: Shown) -> Result<ViewVerb, Failure> {
    let path = desk.path_or_run(&given.needed("path")?)?;
    let (run, metrics) = (given.text("run")?, given.texts("metrics")?);
    let (from, to) = (given.whole("from", 0, u64::MAX)?, given.whole("to", 0, u64::MAX)?);
    given.end()?;
    let args = HistoryArgs { path, run, metrics, from, to, shown, ..HistoryArgs::default() };
    Ok(ViewVerb::History(args))
}

fn stats(desk: &Desk, mut given: Arguments, shown: Shown) -> Result<ViewVerb, Failure> {
    let path = desk.path_or_run(&given.needed("path")?)?;
    let (run, metrics) = (given.text("run")?, given.texts("metrics")?);
    let (from, to) = (given.whole("from", 0, u64::MAX)?, given.whole("to", 0, u64::MAX)?);
    given.end()?;
    let args = StatsArgs { path, run, metrics, from, to, shown };
    Ok(ViewVerb::Stats(args))
}

fn metrics(desk: &Desk, mut given: Arguments, shown: Shown) -> Result<ViewVerb, Failure> {
    let path = desk.path_or_run(&given.needed("path")?)?;
    let run = given.text("run")?;
    given.end()?;
    let args = MetricsArgs { path, run, shown };
    Ok(ViewVerb::Metrics(args))
}

fn settings(desk: &Desk, mut given: Arguments, shown: Shown) -> Result<ViewVerb, Failure> {
    let path = desk.path_or_run(&given.needed("path")?)?;
    let (run, only) = (given.text("run")?, given.text("only")?);
    given.end()?;
    let args = SettingsArgs { path, run, only, shown };
    Ok(ViewVerb::Settings(args))
}

fn compare(desk: &Desk, mut given: Arguments, shown: Shown, settings: bool) -> Result<ViewVerb, Failure> {
    let named = counted(given.texts("runs")?, "runs", 2, 10)?;
    let (metrics, at) = match settings {
        true => (Vec::new(), None),
        false => (given.texts("metrics")?, given.whole("at", 0, u64::MAX)?),
    };
    given.end()?;
    let runs = named.iter().map(|run| at_step(desk, run)).collect::<Result<Vec<_>, _>>()?;
    let args = CompareArgs { runs, metrics, at, settings, shown, ..CompareArgs::default() };
    Ok(ViewVerb::Compare(args))
}

fn counted(list: Vec<String>, name: &str, least: usize, most: usize) -> Result<Vec<String>, Failure> {
    if (least..=most).contains(&list.len()) {
        return Ok(list);
    }
    Err(Failure::new(ExitCode::Usage, format!("`{name}` is a list of {least} to {most} paths")))
}

/// `PATH` or `PATH@STEP`, where it may be read.
fn at_step(desk: &Desk, text: &str) -> Result<String, Failure> {
    let number = |step: &str| !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
    let told = |path: PathBuf| path.to_string_lossy().into_owned();
    match (desk.path(text), text.rsplit_once('@').filter(|(_, step)| number(step))) {
        (Err(_), Some((path, step))) => Ok(format!("{}@{step}", told(desk.path_or_run(path)?))),
        (Err(_), None) => desk.path_or_run(text).map(told),
        (path, _) => path.map(told),
    }
}

fn find(desk: &Desk, mut given: Arguments, shown: Shown) -> Result<ViewVerb, Failure> {
    let path = given.text("path")?.map(|path| desk.path_or_run(&path)).transpose()?;
    if path.is_none() && desk.analysis {
        let failure = Failure::new(ExitCode::Usage, "`path` is missing: only files are read here");
        return Err(failure.help("name a directory with runs"));
    }
    let filter = given.texts("filter")?;
    let (best, sort) = (given.text("best")?, given.text("sort")?);
    // Which way is better, where the name does not say it.
    let way = |prefix: &str| best.as_deref().is_some_and(|best| best.starts_with(prefix));
    let (max, min) = (way("max:"), way("min:"));
    let best = best.map(|best| if max || min { best[4..].to_owned() } else { best });
    let top = given.whole("top", 1, 10_000)?.and_then(|top| u32::try_from(top).ok());
    given.end()?;
    let args = RunsArgs { path, filter, best, max, min, sort, top, shown, ..RunsArgs::default() };
    Ok(ViewVerb::Runs(args))
}

fn plot(desk: &Desk, mut given: Arguments, shown: Shown) -> Result<ViewVerb, Failure> {
    let named = counted(given.texts("paths")?, "paths", 1, 20)?;
    let (metrics, log) = (given.texts("metrics")?, given.flag("log")?);
    let (from, to) = (given.whole("from", 0, u64::MAX)?, given.whole("to", 0, u64::MAX)?);
    given.end()?;
    let paths = named.iter().map(|path| desk.path_or_run(path)).collect::<Result<Vec<_>, _>>()?;
    let args = PlotArgs { paths, metrics, log, from, to, shown, ..PlotArgs::default() };
    Ok(ViewVerb::Plot(args))
}

fn group(desk: &Desk, mut given: Arguments, shown: Shown) -> Result<ViewVerb, Failure> {
    let named = counted(given.texts("paths")?, "paths", 1, 64)?;
    let (metric, by) = (given.text("metric")?, given.text("by")?);
    let (base, pair) = (given.text("base")?, given.text("pair")?);
    given.end()?;
    let paths = named.iter().map(|path| desk.path_or_run(path)).collect::<Result<Vec<_>, _>>()?;
    let args = GroupArgs { paths, metric, by, base, pair, shown, ..GroupArgs::default() };
    Ok(ViewVerb::Group(args))
}

fn notes(desk: &Desk, mut given: Arguments, shown: Shown) -> Result<ViewVerb, Failure> {
    let path = desk.path_or_run(&given.needed("path")?)?;
    given.end()?;
    Ok(ViewVerb::Note(NoteArgs { path, text: Vec::new(), shown }))
}
