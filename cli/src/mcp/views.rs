//! Tools that are views over training curves in files below the roots: each is
//! the answer of one verb, for a client. Nothing is written, whatever is asked.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::arguments::Arguments;
use super::desk::Desk;
use super::reply::Reply;
use crate::args::{HistoryArgs, MetricsArgs, SettingsArgs, Shown, StatsArgs};
use crate::commands::views::{Answer, history, metrics, settings, stats};
use crate::exit_code::Failure;

/// A view that is ready to be asked, beside the session.
type Asked = Box<dyn FnOnce() -> anyhow::Result<Answer> + Send>;

/// The names of the tools.
pub(super) const NAMES: [&str; 4] = ["history", "stats", "metrics", "settings"];

/// One of them.
pub(super) async fn view(desk: &Arc<Desk>, name: &str, mut given: Arguments) -> anyhow::Result<Reply> {
    // The other half is for the structured form.
    let tokens = u32::try_from((given.granted() / 2).max(50)).unwrap_or(u32::MAX);
    let shown = Shown { tokens, ..Shown::default() };
    let path = desk.place(&given.needed("path")?).await?;
    let asked = match name {
        "history" => history(path, given, shown)?,
        "stats" => stats(path, given, shown)?,
        "settings" => settings(path, given, shown)?,
        _ => metrics(path, given, shown)?,
    };
    let answer = tokio::task::spawn_blocking(asked).await??;
    let text = for_tools(&answer.text);
    // Both forms are the same lines: everything as JSON has no bound.
    let rows = text.lines().map(Value::from).collect();
    Ok(text.lines().fold(Reply::default(), Reply::line).rows(rows))
}

fn history(path: PathBuf, mut given: Arguments, shown: Shown) -> Result<Asked, Failure> {
    let (run, metrics) = (given.text("run")?, given.texts("metrics")?);
    let (from, to) = (given.whole("from", 0, u64::MAX)?, given.whole("to", 0, u64::MAX)?);
    given.end()?;
    let args = HistoryArgs { path, run, metrics, from, to, shown, ..HistoryArgs::default() };
    Ok(Box::new(move || history::answer(&args)))
}

fn stats(path: PathBuf, mut given: Arguments, shown: Shown) -> Result<Asked, Failure> {
    let (run, metrics) = (given.text("run")?, given.texts("metrics")?);
    let (from, to) = (given.whole("from", 0, u64::MAX)?, given.whole("to", 0, u64::MAX)?);
    given.end()?;
    let args = StatsArgs { path, run, metrics, from, to, shown };
    Ok(Box::new(move || stats::answer(&args)))
}

fn metrics(path: PathBuf, mut given: Arguments, shown: Shown) -> Result<Asked, Failure> {
    let run = given.text("run")?;
    given.end()?;
    let args = MetricsArgs { path, run, shown };
    Ok(Box::new(move || metrics::answer(&args)))
}

fn settings(path: PathBuf, mut given: Arguments, shown: Shown) -> Result<Asked, Failure> {
    let (run, only) = (given.text("run")?, given.text("only")?);
    given.end()?;
    let args = SettingsArgs { path, run, only, shown };
    Ok(Box::new(move || settings::answer(&args)))
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
