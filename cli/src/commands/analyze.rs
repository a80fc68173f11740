//! `outlast analyze`: what training curves in files say, whatever tool wrote
//! them. It reads files and prints; it asks no controller, nobody on the network
//! but a tracking server that was named, and changes nothing.

mod aim;
mod database;
mod explain;
mod find;
mod history;
mod holes;
mod json;
mod packed;
pub mod plugin;
mod read;
mod schema;
mod server;
mod source;
mod text;
mod tokens;
mod words;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use curves::format::Format;

use crate::app::Context;
use crate::args::{AnalyzeArgs, ReadAs};
use crate::config::{self, Metrics};
use crate::exit_code::{ExitCode, Failure};
use find::{Found, Skipped};
use read::Run;

/// Reasons that are told of a path without data.
const REASONS: usize = 3;

/// Does it.
///
/// # Errors
/// All that is wrong in a file that says what metrics mean. What cannot be read
/// is told after what can.
pub async fn perform(ctx: &Context, args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let only = match &args.format {
        Some(ReadAs::Format(format)) => Some(*format),
        _ => None,
    };
    let mut found = Found::new(only);
    let mut runs = Vec::new();
    let mut failures = Vec::new();
    for path in &args.paths {
        let (before, skipped) = (runs.len(), found.skipped.len());
        let metrics = metrics(ctx, args, path)?;
        let added = add(ctx, args, &mut found, path).await;
        for source in std::mem::take(&mut found.sources) {
            if args.explain {
                continue;
            }
            ctx.printer.progress(&format!("reading {}", source.path.display()));
            let run = read::analyse(&source, metrics.as_ref());
            match passed_over(&run) {
                Some(why) => found.skip(&source.path, why),
                None if runs.len() < find::MAX_RUNS => runs.push(run),
                None => found.skip(&source.path, format!("more than {} runs", find::MAX_RUNS)),
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
    ctx.printer.clear_progress();
    if args.write_schema {
        for run in &runs {
            let primary = run.logged.iter().find(|name| run.report.primary.as_deref() == Some(name));
            ctx.printer.raw(schema::written(&run.logged, primary.map(String::as_str)).as_bytes());
        }
        if runs.len() > 1 {
            ctx.printer
                .warn("several runs were found: each has a [metrics] of its own above, and a file takes one");
        }
    } else if args.explain {
        explain::print(ctx, &found, args.json);
    } else {
        print(ctx, args, &runs, &found);
    }
    for failure in &failures {
        ctx.printer.error(&failure.message);
        failure.help.iter().for_each(|help| ctx.printer.help(help));
    }
    Ok(failures.iter().map(|failure| failure.code).max_by_key(|code| code.code()).unwrap_or(ExitCode::Ok))
}

/// What somebody said of the metrics below a path.
fn metrics(ctx: &Context, args: &AnalyzeArgs, path: &Path) -> anyhow::Result<Option<Metrics>> {
    let dir = if path.is_dir() { Some(path) } else { path.parent() };
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let said = config::metrics(dir, args.schema.as_deref(), &ctx.env)?;
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

fn print(ctx: &Context, args: &AnalyzeArgs, runs: &[Run], found: &Found) {
    if args.json {
        ctx.printer.json(&runs.iter().map(json::object).collect::<Vec<_>>());
        for Skipped { path, why } in &found.skipped {
            ctx.printer.note(&format!("{}: passed over: {why}", words::path(path)));
        }
    } else if !runs.is_empty() {
        let answer = text::answer(runs, found, args.tokens as usize);
        ctx.printer.raw(answer.as_bytes());
    }
}

/// Why a run is not shown, if it is not.
fn passed_over(run: &Run) -> Option<String> {
    if run.values == 0 {
        let losses = run.losses.told();
        let lost = losses.first().map(|(what, loss)| format!(" ({} {what})", loss.count));
        let noted = run.notes.first().map(|note| format!(" ({note})"));
        return Some(format!("no values of metrics in it{}", noted.or(lost).unwrap_or_default()));
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
    Failure::new(code, format!("{}: {error}", words::path(path)))
}

fn no_data(path: &Path, skipped: &[Skipped]) -> Failure {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in skipped {
        *counts.entry(&entry.why).or_default() += 1;
    }
    let mut reasons: Vec<(&str, usize)> = counts.into_iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let said: Vec<String> = reasons
        .iter()
        .take(REASONS)
        .map(|(why, count)| if *count > 1 { format!("{why} ({count} times)") } else { (*why).to_owned() })
        .collect();
    let why = if said.is_empty() {
        "nothing below it is a file of a known tool".to_owned()
    } else {
        said.join("; ")
    };
    Failure::new(ExitCode::BadInput, format!("{}: no data: {why}", words::path(path)))
        .help("name the log of a training: a W&B or TensorBoard directory, JSON lines, a CSV table, trainer_state.json, an MLflow run, database or server, an Aim repository, console output")
        .help("`--format NAME` reads a file as that, whatever it looks like")
}
