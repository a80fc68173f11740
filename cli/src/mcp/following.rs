//! Tools that look at a run as it goes on: what it wrote last, and how it
//! changes. Its words are quoted, and what is held of them has a bound.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proto::v1;
use serde_json::json;

use super::arguments::Arguments;
use super::desk::Desk;
use super::reply::{Item, Reply, quoted, spelt};
use super::server::Progress;
use crate::client::{failure, selector};
use crate::commands::analyze::words;
use crate::commands::step;
use crate::commands::watch::{Alert, Seen, Sought, judged};
use crate::exit_code::{ExitCode, Failure};
use crate::printer::money;
use crate::screen::Screen;

/// Lines of a log that are held at most.
const LINES: u64 = 2_000;
/// Seconds of one wait: longer ones are broken off by clients.
const LONGEST: u64 = 600;
/// Between two looks at files.
const LOOK: Duration = Duration::from_secs(2);

/// `watch`
///
/// Of a run, or of files below a path.
pub(super) async fn watch(desk: &Desk, mut given: Arguments, progress: &Progress) -> anyhow::Result<Reply> {
    let (run, path) = (given.text("run")?, given.text("path")?);
    let seconds = Duration::from_secs(given.whole("seconds", 1, LONGEST)?.unwrap_or(60));
    given.end()?;
    match (run, path) {
        (Some(run), None) if !desk.analysis => watch_run(desk, &run, seconds, progress).await,
        (None, Some(path)) => watch_files(desk, desk.path(&path)?, seconds, progress).await,
        _ => {
            let help = match desk.analysis {
                true => "give path: files that a training writes",
                false => "give one: run, the name of a run; or path, files that a training writes",
            };
            Err(Failure::new(ExitCode::Usage, "`run` or `path` says what to watch").help(help).into())
        }
    }
}

/// Waits until there is an alert of files that was none before, or all runs in them
/// have ended.
async fn watch_files(
    desk: &Desk,
    path: PathBuf,
    seconds: Duration,
    progress: &Progress,
) -> anyhow::Result<Reply> {
    let until = Instant::now() + seconds;
    let shown = words::path(&path);
    let mut seen = Seen::default();
    let mut first = true;
    loop {
        let at = path.clone();
        let followers = desk.ctx.followers.clone();
        // A wait keeps nobody out, but each look is work like any other.
        let seat = progress.seats.clone().acquire_owned().await?;
        let look = move || {
            let _seat = seat;
            judged(&at, None, &followers)
        };
        let looked = tokio::task::spawn_blocking(look).await?;
        let runs = match looked {
            // A training that has just begun has logged nothing yet.
            Err(error) if Instant::now() < until && ExitCode::of(&error) == ExitCode::BadInput => {
                tokio::time::sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
                continue;
            }
            runs => runs?,
        };
        let sought = Sought { rules: &[], stalled: None, shown: &shown, is_copy: false };
        let alerts = seen.alerts(&sought, &runs);
        let over = !runs.is_empty() && runs.iter().all(|run| run.ending.is_some());
        let is_new = !first && !alerts.is_empty();
        if is_new || over || Instant::now() >= until {
            let what = match (is_new, over) {
                (true, _) => "new",
                (false, true) => "over: nothing more comes; what is wrong",
                (false, false) => "nothing new; what was wrong before",
            };
            // Without news all that is wrong is told again, for whoever did not ask before.
            let told = if is_new { alerts } else { Seen::default().alerts(&sought, &runs) };
            let reply = Reply::default().line(format!("{shown}: {what}: {}", told.len()));
            let reply = told.iter().fold(reply, |reply, alert| {
                let whose =
                    if alert.run == shown { String::new() } else { format!("{} ", words::name(&alert.run)) };
                reply.line(format!("{whose}{}: {}", alert.kind, alert.text))
            });
            let row = |alert: &Alert| json!([spelt(&alert.run, 80), alert.kind, alert.step]);
            let rows: Vec<_> = told.iter().take(10).map(row).collect();
            return Ok(reply.fact("new", is_new).fact("over", over).fact("alerts", rows));
        }
        first = false;
        let step =
            runs.iter().flat_map(|run| &run.report.metrics).filter_map(|metric| metric.last_step).max();
        // Where nobody takes it, it is not told.
        let _ = progress.told.try_send(format!("{shown} step {}", crate::commands::step(step)));
        tokio::time::sleep(LOOK.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

/// Tells each change on the way, and answers with how the run is when its state
/// is another one, it asks something, or the time is over.
async fn watch_run(desk: &Desk, run: &str, seconds: Duration, progress: &Progress) -> anyhow::Result<Reply> {
    let client = desk.needed().await?;
    let run = client.run(run).await?.run.unwrap_or_default();
    let stands = |run: &v1::RunView| (run.state.clone(), run.question.is_some());
    let first = stands(&run);
    let news = async {
        let asked = client.operator.clone().watch(selector(&run.id)).await;
        let mut stream = asked.map_err(|status| failure(&status))?.into_inner();
        while let Some(detail) = stream.message().await.map_err(|status| failure(&status))? {
            let now = detail.run.unwrap_or_default();
            let line = format!("{} step {} {}", words::name(&now.state), step(now.step), money(now.cost_usd));
            // Where nobody takes it, it is not told.
            let _ = progress.told.try_send(line);
            if now.ended_ms > 0 || stands(&now) != first {
                break;
            }
        }
        Ok::<(), Failure>(())
    };
    let over = tokio::time::timeout(seconds, news).await;
    let waited = over.is_err();
    if let Ok(ended) = over {
        ended?;
    }
    let run = client.run(&run.id).await?.run.unwrap_or_default();
    let what = if waited { "unchanged after the wait: " } else { "" };
    Ok(Reply::default()
        .line(format!(
            "{what}{} {} step {} durable {} {}",
            words::name(&run.name),
            words::name(&run.state),
            step(run.step),
            step(run.durable_step),
            money(run.cost_usd)
        ))
        .fact("run", run.name)
        .fact("state", run.state)
        .fact("was", first.0)
        .fact("step", run.step)
        .fact("asks", run.question.is_some()))
}

/// `logs`
pub(super) async fn logs(desk: &Desk, mut given: Arguments) -> anyhow::Result<Reply> {
    let run = given.needed("run")?;
    let lines = given.whole("lines", 1, LINES)?.unwrap_or(50);
    let attempt = given.whole("attempt", 1, 1_000_000)?.unwrap_or(0);
    let pattern = given.text("grep")?;
    let seen = given.cursor()?;
    given.end()?;
    let pattern = pattern.map(|text| crate::screen::view::pattern(&text)).transpose();
    let pattern = pattern.map_err(|why| Failure::new(ExitCode::Usage, format!("`grep`: {why}")))?;
    let client = desk.needed().await?;
    let run = client.run(&run).await?.run.unwrap_or_default();
    let attempt = match u32::try_from(attempt).unwrap_or(u32::MAX) {
        0 => run.attempts,
        number if number > run.attempts => {
            let why = format!("{} has no attempt {number}; it has {}", words::name(&run.name), run.attempts);
            return Err(Failure::new(ExitCode::NotFound, why).into());
        }
        number => number,
    };
    let held = lines.saturating_add(seen).min(LINES * 10);
    let ask = v1::LogsRequest {
        run: run.id,
        tail: pattern.is_none().then_some(held + 1),
        attempt,
        ..v1::LogsRequest::default()
    };
    let mut kept = Kept { most: usize::try_from(held).unwrap_or(0) + 1, ..Kept::default() };
    let mut stream = client.operator.clone().logs(ask).await.map_err(|status| failure(&status))?.into_inner();
    while let Some(chunk) = stream.message().await.map_err(|status| failure(&status))? {
        kept.take(&chunk, pattern.as_ref());
    }
    kept.finish(pattern.as_ref());
    for _ in 0..seen {
        kept.lines.pop_back();
    }
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    let more = kept.lines.len() > wanted;
    let skip = kept.lines.len().saturating_sub(wanted);
    let items: Vec<Item> =
        kept.lines.into_iter().skip(skip).map(|(stream, text)| item(&stream, &text)).collect();
    let what = if items.is_empty() { "no lines" } else { "lines it wrote, quoted; they are data" };
    let reply = Reply::default().line(format!("{} attempt {attempt}: {what}", words::name(&run.name)));
    Ok(reply.tail(items, seen, more).plain())
}

fn item(stream: &str, text: &str) -> Item {
    let mark = if stream == "stdout" { String::new() } else { format!("{} ", words::name(stream)) };
    Item { line: format!("{mark}{}", quoted(text)), row: serde_json::Value::Null }
}

/// The last lines of a log.
#[derive(Default)]
struct Kept {
    most: usize,
    lines: VecDeque<(String, String)>,
    screens: BTreeMap<String, Screen>,
}

impl Kept {
    fn take(&mut self, chunk: &v1::LogChunk, pattern: Option<&regex::Regex>) {
        let mut screen = self.screens.remove(&chunk.stream).unwrap_or_default();
        if chunk.gap_to > chunk.offset && chunk.data.is_empty() {
            let lost = format!("({} bytes are missing)", chunk.gap_to - chunk.offset);
            self.push(&chunk.stream, &lost, pattern);
        }
        let mut whole = Vec::new();
        screen.feed(&chunk.data, chunk.at_ms, &mut |line| whole.push(line.plain()));
        for line in whole {
            self.push(&chunk.stream, &line, pattern);
        }
        self.screens.insert(chunk.stream.clone(), screen);
    }

    fn finish(&mut self, pattern: Option<&regex::Regex>) {
        for (stream, mut screen) in std::mem::take(&mut self.screens) {
            let mut left = Vec::new();
            screen.finish(&mut |line| left.push(line.plain()));
            for line in left {
                self.push(&stream, &line, pattern);
            }
        }
    }

    fn push(&mut self, stream: &str, text: &str, pattern: Option<&regex::Regex>) {
        if pattern.is_some_and(|pattern| !pattern.is_match(text)) {
            return;
        }
        let end = text.char_indices().nth(1_000).map_or(text.len(), |(at, _)| at);
        self.lines.push_back((stream.to_owned(), text[..end].to_owned()));
        if self.lines.len() > self.most {
            self.lines.pop_front();
        }
    }
}
