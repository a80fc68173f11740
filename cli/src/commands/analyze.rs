//! `outlast analyze`: what training curves in files say, whatever tool wrote
//! them. It reads files and prints; it asks no controller and nobody on the
//! network, and changes nothing.

mod find;
pub(crate) mod gather;
mod history;
mod json;
mod read;
mod text;
pub(crate) mod tokens;
pub(crate) mod words;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use curves::format::Format;

use crate::app::Context;
use crate::args::AnalyzeArgs;
use crate::exit_code::{ExitCode, Failure};
use find::{Found, Skipped};
use read::Run;

/// Reasons that are told of a path without data.
const REASONS: usize = 3;

/// What was found in files: shown by this verb, and given to assistants.
pub(crate) struct Seen {
    runs: Vec<Run>,
    found: Found,
    /// Paths that could not be read or hold no data.
    pub(crate) failures: Vec<Failure>,
}

impl Seen {
    /// The answer in at most so many tokens; empty where no run was found.
    pub(crate) fn text(&self, tokens: usize) -> String {
        if self.runs.is_empty() { String::new() } else { text::answer(&self.runs, &self.found, tokens) }
    }

    /// Everything, as a list.
    pub(crate) fn json(&self) -> serde_json::Value {
        let runs: Vec<_> = self.runs.iter().map(json::object).collect();
        serde_json::to_value(runs).unwrap_or_default()
    }
}

/// Reads and judges. `go_on` is told each file before it is read, and ends the
/// reading with `false`.
pub(crate) fn look(args: &AnalyzeArgs, go_on: &mut dyn FnMut(&Path) -> bool) -> Seen {
    let mut found = Found::new(args.format);
    let mut runs = Vec::new();
    let mut failures = Vec::new();
    for path in &args.paths {
        let (before, skipped) = (runs.len(), found.skipped.len());
        let added = found.add(path);
        for source in std::mem::take(&mut found.sources) {
            if !go_on(&source.path) {
                return Seen { runs, found, failures };
            }
            let run = read::analyse(&source);
            match passed_over(&run) {
                Some(why) => found.skip(&source.path, why),
                None if runs.len() < find::MAX_RUNS => runs.push(run),
                None => found.skip(&source.path, format!("more than {} runs", find::MAX_RUNS)),
            }
        }
        match added {
            Err(error) => failures.push(unreadable(path, &error)),
            Ok(()) if runs.len() == before => failures.push(no_data(path, &found.skipped[skipped..])),
            Ok(()) => {}
        }
    }
    Seen { runs, found, failures }
}

/// Does it.
///
/// # Errors
/// None of its own: what cannot be read is told after what can.
pub fn perform(ctx: &Context, args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let seen = look(args, &mut |path| {
        ctx.printer.progress(&format!("reading {}", path.display()));
        true
    });
    ctx.printer.clear_progress();
    if args.json {
        ctx.printer.json(&seen.runs.iter().map(json::object).collect::<Vec<_>>());
        for Skipped { path, why } in &seen.found.skipped {
            ctx.printer.note(&format!("{}: passed over: {why}", words::path(path)));
        }
    } else {
        ctx.printer.raw(seen.text(args.tokens as usize).as_bytes());
    }
    for failure in &seen.failures {
        ctx.printer.error(&failure.message);
        failure.help.iter().for_each(|help| ctx.printer.help(help));
    }
    let codes = seen.failures.iter().map(|failure| failure.code);
    Ok(codes.max_by_key(|code| code.code()).unwrap_or(ExitCode::Ok))
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
        .help("name the log of a training: a W&B or TensorBoard directory, JSON lines, a CSV table, trainer_state.json, an MLflow run, console output")
        .help("`--format NAME` reads a file as that, whatever it looks like")
}
