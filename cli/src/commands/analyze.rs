//! `outlast analyze`: what training curves say, whatever tool wrote them: of
//! files, and of runs by their names. It reads and prints, asks the controller
//! only for a name that is no file and nobody else on the network but a tracking
//! server that was named, and changes nothing.

mod aim;
mod database;
pub(crate) mod ending;
mod explain;
mod find;
pub(crate) mod follow;
pub(crate) mod gather;
mod history;
mod holes;
mod hparams;
mod json;
pub(crate) mod live;
mod losses;
pub(crate) mod order;
mod packed;
pub mod plugin;
mod read;
mod schema;
pub(crate) mod server;
mod source;
mod summary;
mod text;
pub(crate) mod tokens;
pub(crate) mod wandb;
mod why;
pub(crate) mod words;

use std::io;
use std::path::Path;
use std::sync::PoisonError;

use curves::format::Format;

use crate::app::Context;
use crate::args::{AnalyzeArgs, ReadAs};
use crate::config::{self, Metrics};
use crate::exit_code::{ExitCode, Failure};
use crate::printer::Verbosity;
use find::Found;
use read::Run;
pub(crate) use source::Skipped;

/// What was found in files: shown by this verb, and given to assistants.
pub(crate) struct Seen {
    runs: Vec<Run>,
    found: Found,
    /// Paths that could not be read or hold no data.
    pub(crate) failures: Vec<Failure>,
}

impl Seen {
    /// The answer in at most so many tokens; empty where no run was found. `asked`
    /// are metrics that it shows.
    ///
    /// # Errors
    /// Where no run has such a metric.
    pub(crate) fn text(&self, asked: &[String], tokens: usize) -> Result<String, Failure> {
        let logged = || self.runs.iter().flat_map(|run| &run.logged);
        let missing = |text: &&String| !logged().any(|name| text::is_asked(&[(*text).clone()], name));
        if self.runs.is_empty() {
            return Ok(String::new());
        }
        if let Some(text) = asked.iter().find(missing) {
            let names: Vec<String> = logged().take(10).map(|name| words::metric(name)).collect();
            let why = format!("no metric {}; there are {}", words::quoted(text), names.join(", "));
            return Err(
                Failure::new(ExitCode::BadInput, why).help("`outlast metrics PATH` lists all of them")
            );
        }
        Ok(text::answer(&self.runs, &self.found, asked, tokens))
    }

    /// Only what is wrong, in at most so many tokens.
    pub(crate) fn problems(&self, tokens: usize) -> String {
        text::problems(&self.runs, tokens)
    }

    /// Nothing but the runs that somebody should look at.
    fn only_sick(&mut self) {
        self.runs.retain(text::is_sick);
        self.found.skipped_count = 0;
    }

    /// Everything, as a list, the worst run first.
    pub(crate) fn json(&self) -> serde_json::Value {
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by_key(|run| text::badness(run));
        let runs: Vec<_> = runs.into_iter().map(json::object).collect();
        serde_json::to_value(runs).unwrap_or_default()
    }
}

/// Reads and judges. `go_on` is told each file before it is read, and ends the
/// reading with `false`.
///
/// # Errors
/// Where a run is named that there is not, and all that is wrong in a file that
/// says what metrics mean. What cannot be read is told in what was seen.
pub(crate) async fn look(
    ctx: &Context,
    args: &AnalyzeArgs,
    go_on: &mut dyn FnMut(&Path) -> bool,
) -> anyhow::Result<Seen> {
    let only = match &args.format {
        Some(ReadAs::Format(format)) => Some(*format),
        _ => None,
    };
    let mut found = Found::new(only);
    let mut runs = Vec::new();
    let mut failures = Vec::new();
    let places = live::resolve(ctx, &args.paths).await?;
    for (path, place) in args.paths.iter().zip(&places) {
        let (before, skipped) = (runs.len(), found.skipped.len());
        let home = ctx.env.get("HOME").map(Path::new);
        let metrics = metrics(path, args.schema.as_deref(), home)?;
        let added = add(ctx, args, &mut found, place).await;
        for source in std::mem::take(&mut found.sources) {
            if args.explain {
                continue;
            }
            if runs.len() >= find::MAX_RUNS {
                let most = format!("more than {} runs: name fewer paths at once", find::MAX_RUNS);
                found.skip(&source.path, most);
                continue;
            }
            if !go_on(&source.path) {
                return Ok(Seen { runs, found, failures });
            }
            let mut followers = ctx.followers.lock().unwrap_or_else(PoisonError::into_inner);
            let run = followers.analyse(&source, metrics.as_ref());
            drop(followers);
            match passed_over(&run) {
                Some(why) => found.skip(&source.path, why),
                None => runs.push(run),
            }
        }
        match added {
            Err(error) => failures.push(unreadable(path, &error)),
            Ok(()) if runs.len() == before && !args.explain => {
                failures.push(no_data(path, &found.skipped[skipped..]));
            }
            Ok(()) => {}
        }
    }
    Ok(Seen { runs, found, failures })
}

/// Does it.
///
/// # Errors
/// As [`look`]; what cannot be read is told after what can.
pub async fn perform(ctx: &Context, args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let mut tell = |path: &Path| {
        ctx.printer.progress(&format!("reading {}", path.display()));
        true
    };
    let mut seen = Box::pin(look(ctx, args, &mut tell)).await?;
    ctx.printer.clear_progress();
    if ctx.printer.settings().verbosity == Verbosity::Quiet && !args.json && !args.write_schema {
        seen.only_sick();
    }
    let runs = &seen.runs;
    if args.write_schema {
        for run in runs {
            let primary = run.logged.iter().find(|name| run.report.primary.as_deref() == Some(name));
            ctx.printer.raw(schema::written(&run.logged, primary.map(String::as_str)).as_bytes());
        }
        if runs.len() > 1 {
            ctx.printer
                .warn("several runs were found: each has a [metrics] of its own above, and a file takes one");
        }
    } else if args.explain {
        explain::print(ctx, &seen.found, args.json, args.tokens as usize);
    } else if args.json {
        ctx.printer.json(&runs.iter().map(json::object).collect::<Vec<_>>());
        for Skipped { path, why } in &seen.found.skipped {
            ctx.printer.note(&format!("{}: passed over: {why}", words::path(path)));
        }
    } else {
        ctx.printer.raw(seen.text(&args.metrics, args.tokens as usize)?.as_bytes());
    }
    for failure in &seen.failures {
        ctx.printer.error(&failure.message);
        failure.help.iter().for_each(|help| ctx.printer.help(help));
    }
    let codes = seen.failures.iter().map(|failure| failure.code);
    Ok(codes.max_by_key(|code| code.code()).unwrap_or(ExitCode::Ok))
}

/// What somebody said of the metrics below a path: in the file that is named, else
/// in the nearest `outlast.toml` upwards from there; for a run of the controller's,
/// from the current directory.
fn metrics(
    path: &Path,
    named: Option<&Path>,
    home: Option<&Path>,
) -> Result<Option<Metrics>, config::ConfigErrors> {
    let dir = if path.is_dir() { Some(path) } else { path.parent() };
    let here = |dir: &&Path| !dir.as_os_str().is_empty() && !live::is_copy(dir);
    let said = config::metrics(dir.filter(here).unwrap_or(Path::new(".")), named, home)?;
    // A file without the section costs no second reading.
    Ok(said.map(|(metrics, _)| metrics).filter(|metrics| *metrics != Metrics::default()))
}

/// Takes in what a path names: a server, what a plug-in reads, or files.
async fn add(ctx: &Context, args: &AnalyzeArgs, found: &mut Found, path: &Path) -> io::Result<()> {
    if let Some(ReadAs::Plugin(program)) = &args.format {
        ctx.printer.progress(&format!("{} reads {}", program.display(), path.display()));
        return plugin::add(found, program, path, &ctx.env);
    }
    match server::Address::of(path) {
        Some(address) => {
            ctx.printer.progress(&format!("asking {}", path.display()));
            server::add(found, &address?, &ctx.env).await
        }
        None => found.add(path),
    }
}

/// Why a run is not shown, if it is not.
fn passed_over(run: &Run) -> Option<String> {
    // What a run says of itself is worth showing without a curve, too.
    if run.values == 0 && run.summary.is_empty() {
        if let Some(why) = why::nothing(&run.source) {
            return Some(why);
        }
        let noted = run.notes.first().cloned().or_else(|| run.losses.instead());
        let noted = noted.map(|noted| format!(" ({noted})"));
        return Some(format!("no values of metrics in it{}", noted.unwrap_or_default()));
    }
    // Tables of data and logs of other programs lie in the same directories.
    let loose = matches!(run.source.format, Format::Delimited | Format::Console | Format::JsonLines);
    (loose && !run.source.named && run.report.primary.is_none())
        .then(|| "no metric in it that a training could be judged by".to_owned())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ExitCode::NotFound,
        io::ErrorKind::PermissionDenied => ExitCode::Denied,
        io::ErrorKind::NotConnected => ExitCode::Unreachable,
        _ => ExitCode::BadInput,
    };
    let failure = Failure::new(code, format!("{}: {error}", words::path(path)));
    if server::Address::of(path).is_some() {
        return match code {
            ExitCode::Denied => failure
                .help("set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
            ExitCode::NotFound => {
                failure.help("write mlflow://HOST:PORT/EXPERIMENT by its name or number, with %23 for # and %3F for ?; or the run's id behind the host")
            }
            _ => failure,
        };
    }
    if code == ExitCode::NotFound {
        return failure.help("name a file, a directory, or a run that `outlast status --all` lists");
    }
    failure
}

pub(crate) fn no_data(path: &Path, skipped: &[Skipped]) -> Failure {
    let said = why::told(path, skipped);
    let why = if said.is_empty() { "nothing below it is a file of a known tool".to_owned() } else { said };
    Failure::new(ExitCode::BadInput, format!("{}: no data: {why}", words::path(path)))
        .help("name the log of a training: a W&B or TensorBoard directory, JSON lines, a CSV table, trainer_state.json, an MLflow run, database or server, an Aim repository, console output")
        .help("`--format NAME` reads a file as that, whatever it looks like")
}
