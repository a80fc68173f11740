//! `outlast changes`: what is different below a path since it was asked last.
//!
//! What was seen is kept under the data directory, in `seen/`, one small file for
//! each path; nothing is written beside the runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use curves::judge::short;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::budget::Lines;
use super::described::Described;
use super::{Answer, load, numbers};
use crate::args::ChangesArgs;
use crate::commands::analyze::words;
use crate::exit_code::{ExitCode, Failure};

/// Bytes of a memory that are read.
const MAX_BYTES: usize = 8 << 20;

/// What was seen of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    state: String,
    steps: Option<u64>,
    labels: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
    metric: Option<String>,
    #[serde(with = "curves::number::option", default)]
    value: Option<f64>,
    #[serde(with = "curves::number::option", default)]
    best: Option<f64>,
}

/// What was seen of all, and when.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    time: f64,
    runs: BTreeMap<String, Seen>,
}

/// See the module.
///
/// # Errors
/// A path without runs, or what was seen cannot be kept.
pub(crate) fn answer(args: &ChangesArgs) -> anyhow::Result<Answer> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let mut runs = BTreeMap::new();
    let paths = args.path.as_ref().map_or(args.places.as_slice(), std::slice::from_ref);
    load::each(paths, args.shown.format.as_ref(), |run| {
        let described = Described::of(&run);
        runs.insert(described.path.clone(), seen(&described));
    })?;
    let file = file(args)?;
    let before = read(&file);
    let mut changed = before.as_ref().map(|memory| changed(memory, &runs)).unwrap_or_default();
    if args.left_out > 0 {
        // Older ones that were not looked at are still there.
        changed.retain(|(path, _)| runs.contains_key(path));
    }
    let all = numbers::count(runs.len(), "run", "runs");
    let mut lines = Lines::new("");
    lines.push(
        0,
        &match &before {
            None => format!("{all}: seen for the first time"),
            Some(memory) if changed.is_empty() => {
                format!("nothing changed since {} ago in {all}", ago(now - memory.time))
            }
            Some(memory) => {
                format!("{} of {all} changed since {} ago", changed.len(), ago(now - memory.time))
            }
        },
    );
    for (path, changes) in &changed {
        let grave = ["labels", "state", "gone"];
        let rank =
            if changes.iter().any(|text| grave.iter().any(|word| text.starts_with(word))) { 1 } else { 2 };
        lines.push(rank, &format!("  {}: {}", words::path(Path::new(path)), changes.join("; ")));
    }
    let objects: Vec<_> =
        changed.iter().map(|(path, changes)| json!({ "path": path, "changes": changes })).collect();
    let json = json!({ "first": before.is_none(), "since": before.as_ref().map(|memory| memory.time), "changed": objects });
    if !args.keep {
        write(&file, &Memory { time: now, runs })?;
    }
    Ok(Answer { text: lines.fit(args.shown.tokens as usize), json })
}

/// The runs that are not as they were, with what is different.
fn changed(memory: &Memory, runs: &BTreeMap<String, Seen>) -> Vec<(String, Vec<String>)> {
    let told = |(path, run): (&String, &Seen)| {
        let changes =
            memory.runs.get(path).map_or_else(|| vec!["new".to_owned()], |old| differences(old, run));
        (!changes.is_empty()).then(|| (path.clone(), changes))
    };
    let gone = memory.runs.keys().filter(|path| !runs.contains_key(*path));
    runs.iter().filter_map(told).chain(gone.map(|path| (path.clone(), vec!["gone".to_owned()]))).collect()
}

fn seen(run: &Described) -> Seen {
    let metric = run.primary.clone();
    let figures = metric.as_deref().and_then(|name| run.metric(name)).map(|(_, figures)| figures);
    let best = figures.and_then(|figures| match run.direction {
        curves::judge::schema::Direction::Higher => figures.max,
        _ => figures.min,
    });
    Seen {
        state: run.state.to_owned(),
        steps: run.steps,
        labels: run.labels.clone(),
        tags: run.all_tags(),
        value: figures.map(|figures| figures.last),
        best: best.map(|place| place.1),
        metric,
    }
}

fn differences(old: &Seen, new: &Seen) -> Vec<String> {
    let mut told = Vec::new();
    if old.state != new.state {
        told.push(format!("state {} after {}", words::name(&new.state), words::name(&old.state)));
    }
    if old.labels != new.labels {
        let said =
            |labels: &[String]| labels.iter().map(|label| words::name(label)).collect::<Vec<_>>().join(" ");
        told.push(format!("labels {} after {}", said(&new.labels), said(&old.labels)));
    }
    if old.steps != new.steps {
        let said = |steps: Option<u64>| steps.map_or("none".to_owned(), |steps| steps.to_string());
        told.push(format!("step {} after {}", said(new.steps), said(old.steps)));
    }
    let same = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()),
        (a, b) => a.is_none() && b.is_none(),
    };
    if let (Some(metric), false) = (&new.metric, same(old.value, new.value)) {
        let said = |value: Option<f64>| value.map_or("none".to_owned(), short);
        let mut text = format!("{} {} after {}", words::metric(metric), said(new.value), said(old.value));
        if !same(old.best, new.best) {
            text.push_str(&format!(", best {} after {}", said(new.best), said(old.best)));
        }
        told.push(text);
    }
    if old.tags != new.tags {
        let said: Vec<String> = new.tags.iter().map(|tag| words::name(tag)).collect();
        told.push(format!("tags are {}", if said.is_empty() { "none".into() } else { said.join(" ") }));
    }
    told
}

fn ago(seconds: f64) -> String {
    crate::printer::duration(if seconds > 0.0 { seconds as u64 } else { 0 })
}

/// The file of a path's memory.
fn file(args: &ChangesArgs) -> Result<PathBuf, Failure> {
    let Some(memory) = &args.memory else {
        return Err(Failure::new(ExitCode::BadInput, "nothing says where to remember what was seen")
            .help("set OUTLAST_HOME, or HOME, or give --memory DIR"));
    };
    let whole = args.path.as_ref().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    // No path is empty: that stands for the controller's runs.
    let whole = whole.unwrap_or_default();
    let name = blake3::hash(whole.as_os_str().as_encoded_bytes()).to_hex();
    Ok(memory.join(format!("{}.json", name.get(..24).unwrap_or_default())))
}

/// What was seen; a memory that cannot be read is none.
fn read(file: &Path) -> Option<Memory> {
    let bytes = std::fs::read(file).ok().filter(|bytes| bytes.len() <= MAX_BYTES)?;
    serde_json::from_slice(&bytes).ok()
}

fn write(file: &Path, memory: &Memory) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(ExitCode::CannotWrite, format!("{}: {error}", words::path(file)))
            .help("--keep shows what changed and remembers nothing")
    };
    let bytes = serde_json::to_vec(memory).map_err(|error| failed(error.into()))?;
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    // Two that ask at once each leave a whole file.
    let new = file.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, file)).map_err(failed)
}
