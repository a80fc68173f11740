//! What a user has to say of what is finished: a marker file, or a command that
//! is asked. Both only where the configuration names them; then nothing counts
//! as finished without.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use artifacts::complete::Reason;
use artifacts::glob::{Glob, escape};
use lifecycle::spec::CheckpointSpec;

use super::local;
use super::look::Look;
use crate::os;
use crate::world::layout::AttemptDir;
use crate::world::materialise::Launch;

/// A command that has not answered by then is ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// A "no" is asked again after this at the soonest, and costs at most one part
/// in so many of the time.
const AGAIN: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;
/// What is kept of what a command says.
const SAID: usize = 200;
/// Names beside a checkpoint that are looked at.
const NAMES: usize = 10_000;
/// Answers remembered.
const MOST: usize = 10_000;

/// The place of `{name}`, the checkpoint's own.
const NAME: &str = "{name}";

/// What the command said, by the very bytes.
#[derive(Default)]
pub(super) struct Answers(HashMap<String, (Result<(), Reason>, Instant)>);

/// Whether its user says that a checkpoint is finished; `None`: nothing that
/// would is configured.
pub(super) fn ask(
    dir: &AttemptDir,
    spec: &CheckpointSpec,
    path: &Path,
    look: &Look,
    answers: &mut Answers,
) -> Option<Result<(), Reason>> {
    let marked = (!spec.marker.is_empty()).then(|| marked(&spec.marker, path, look));
    if spec.check.is_empty() || matches!(marked, Some(Err(_))) {
        return marked;
    }
    if let Some((answer, until)) = answers.0.get(&look.token)
        && (answer.is_ok() || Instant::now() < *until)
    {
        return Some(answer.clone());
    }
    let began = Instant::now();
    let answer = checked(dir, &spec.check, path);
    if answers.0.len() >= MOST {
        answers.0.clear();
    }
    let until = Instant::now() + AGAIN.max(began.elapsed().saturating_mul(SHARE));
    answers.0.insert(look.token.clone(), (answer.clone(), until));
    Some(answer)
}

/// Whether a file is a marker of what lies beside it.
pub(super) fn is_marker(spec: &CheckpointSpec, path: &Path) -> bool {
    spec.marker.contains(NAME)
        && Glob::new(&spec.marker.replace(NAME, "*")).is_ok_and(|glob| glob.is_match(local::name_of(path)))
}

/// The marker must be there, and come after all that it marks.
fn marked(marker: &str, path: &Path, look: &Look) -> Result<(), Reason> {
    let waits = || Reason::WaitsFor { what: format!("the marker `{marker}`").chars().take(SAID).collect() };
    let is_beside = marker.contains(NAME) || look.is_file;
    let place = if is_beside { path.parent().unwrap_or(path) } else { path };
    let glob = Glob::new(&marker.replace(NAME, &escape(local::name_of(path))));
    let glob = glob.map_err(|_| waits())?;
    let entries = std::fs::read_dir(place).map_err(|_| waits())?.take(NAMES).filter_map(Result::ok);
    let mut times =
        entries.filter(|entry| glob.is_match(&entry.file_name().to_string_lossy())).filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            Some((meta.mtime(), meta.mtime_nsec()).max((meta.ctime(), meta.ctime_nsec())))
        });
    times.any(|at| at >= look.written).then_some(()).ok_or_else(waits)
}

fn checked(dir: &AttemptDir, check: &[String], path: &Path) -> Result<(), Reason> {
    let no = |says: String| Err(Reason::Checked { says: says.chars().take(SAID).collect() });
    let launch = os::read_bounded(&dir.launch(), 4 << 20).unwrap_or_default();
    let env = serde_json::from_slice::<Launch>(&launch).map(|launch| launch.env).unwrap_or_default();
    let mut argv = check.to_vec();
    argv.push(path.to_string_lossy().into_owned());
    match os::run_bounded(&argv, &dir.source(), &env, PATIENCE, SAID, os::Kept::Stderr) {
        Ok(os::Ended { code: Some(0), .. }) => Ok(()),
        Ok(os::Ended { code: Some(code), said }) => no(format!("code {code}: {said}")),
        Ok(os::Ended { code: None, said }) => no(format!("it was ended: {said}")),
        Err(error) => no(format!("it cannot be started: {error}")),
    }
}
