//! Tools that are views over training curves in files below the roots: each is
//! the answer of one verb, for a client. Nothing is written, whatever is asked.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::arguments::Arguments;
use super::desk::Desk;
use super::reply::Reply;
use crate::args::{
    CompareArgs, HistoryArgs, MetricsArgs, PlotArgs, RunsArgs, SettingsArgs, Shown, StatsArgs, ViewVerb,
};
use crate::commands::views;
use crate::exit_code::{ExitCode, Failure};

/// The names of the tools.
pub(super) const NAMES: [&str; 7] = ["history", "stats", "metrics", "settings", "compare", "find", "plot"];

/// One of them.
pub(super) async fn view(desk: &Arc<Desk>, name: &str, given: Arguments) -> anyhow::Result<Reply> {
    // The other half is for the structured form.
    let tokens = u32::try_from((given.granted() / 2).max(50)).unwrap_or(u32::MAX);
    let shown = Shown { tokens, ..Shown::default() };
    let asked = match name {
        "history" => history(desk, given, shown)?,
        "stats" => stats(desk, given, shown)?,
        "settings" => settings(desk, given, shown)?,
        "compare" => compare(desk, given, shown)?,
        "find" => find(desk, given, shown)?,
        "plot" => plot(desk, given, shown)?,
        _ => metrics(desk, given, shown)?,
    };
    let asked = views::resolved(&desk.ctx, asked).await?;
    let (answer, _) = tokio::task::spawn_blocking(move || views::answer(&asked)).await??;
    let text = for_tools(&answer.text);
    // Both forms are the same lines: everything as JSON has no bound.
    let rows = text.lines().map(Value::from).collect();
    Ok(text.lines().fold(Reply::default(), Reply::line).rows(rows))
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

fn compare(desk: &Desk, mut given: Arguments, shown: Shown) -> Result<ViewVerb, Failure> {
    let named = counted(given.texts("runs")?, "runs", 2, 10)?;
    let (metrics, at) = (given.texts("metrics")?, given.whole("at", 0, u64::MAX)?);
    given.end()?;
    let runs = named.iter().map(|run| at_step(desk, run)).collect::<Result<Vec<_>, _>>()?;
    let args = CompareArgs { runs, metrics, at, shown, ..CompareArgs::default() };
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
    let path = desk.path_or_run(&given.needed("path")?)?;
    let filter = given.texts("filter")?;
    let (best, sort) = (given.text("best")?, given.text("sort")?);
    let top = given.whole("top", 1, 10_000)?.and_then(|top| u32::try_from(top).ok());
    given.end()?;
    let args = RunsArgs { path, filter, best, sort, top, shown, ..RunsArgs::default() };
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

/// The text in the words of a tool: what was cut is had by its arguments, and
/// the other form needs as much again.
pub(super) fn for_tools(text: &str) -> String {
    let kept = text.lines().filter(|line| !line.starts_with("  more with --tokens"));
    kept.map(|line| format!("{}\n", worded(line))).collect()
}

fn worded(line: &str) -> String {
    let Some((before, after)) = line.rsplit_once("--tokens ") else { return line.to_owned() };
    let (number, rest) = after.split_at(after.bytes().take_while(u8::is_ascii_digit).count());
    let twice = number.parse::<u64>().map_or_else(|_| number.to_owned(), |need| (need * 2).to_string());
    let rest = rest.replace(", everything with --json", "").replace("--metric NAME", "metrics");
    format!("{before}max_tokens {twice}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_is_had_by_an_argument() {
        let told = for_tools("a\ncut: 9 lines; all with --tokens 400, everything with --json\n");
        assert_eq!(told, "a\ncut: 9 lines; all with max_tokens 800\n");
        assert_eq!(for_tools("a\n"), "a\n");
    }
}
